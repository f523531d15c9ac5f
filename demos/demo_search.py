"""Search a Hub folder in a process that cannot import vsehub: `demo_search.py HUB GALLERY OUT.png`.

Asks the queries of `GALLERY/queries.json`, and one picture for its captions. `OUT.png` is a contact sheet of some of
them: each row shows the query, the five best hits and their cosines; right hits are framed green. `OUT.json` counts the
right hits of every query. `nothing.json` beside it counts the queries of `GALLERY/off_topic.json`, about things that
are in no picture, for which no hit reaches the model's default cut-off. The folder `plots/` is on the path.

A hit is right if the query is true of the picture, whether or not the caption was written for it.
"""

import json
import sys
from pathlib import Path

from PIL import Image


class Forbidden:
    """Makes `import vsehub` fail, wherever it is installed."""

    def find_spec(self, name, path=None, target=None):
        """Refuse our own package; know nothing of others."""
        if name.partition(".")[0] == "vsehub":
            raise ImportError("vsehub is blocked here: the Hub folder must do without it")
        return None


TOP = 5  # hits
SHOWN = 5  # queries of the contact sheet
LEGEND = "green: the query is true of the picture; grey: it is not; the number is the cosine"


def search(hub: str, gallery: str, out: str) -> int:
    """Load, embed, search, count, draw."""
    sys.meta_path.insert(0, Forbidden())
    from transformers import AutoModel, AutoProcessor

    scenes = json.loads((Path(gallery) / "scenes.json").read_text())
    queries = json.loads((Path(gallery) / "queries.json").read_text())
    images = [Image.open(Path(gallery) / scene["file"], formats=["PNG"]) for scene in scenes]
    captions = sorted({caption for scene in scenes for caption in scene["captions"]})
    model = AutoModel.from_pretrained(hub, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(hub, trust_remote_code=True)
    print(f"loaded {type(model).__name__} from {type(model).__module__.split('.')[0]}, without vsehub")
    image_embeds = model.encode_image(images, processor=processor)
    scores = model.encode_text(queries, processor=processor) @ image_embeds.t()
    rows, counts, nearest = [], [], scores.topk(TOP)
    for query, values, indices in zip(queries, nearest.values.tolist(), nearest.indices.tolist()):
        hits = [(images[i], score, says(query, scenes[i])) for i, score in zip(indices, values)]
        there = sum(says(query, scene) for scene in scenes)
        counts.append({"query": query, "right": sum(fits for *_, fits in hits), "there": there})
        print("{query!r}: {right} of the first 5 are right; {there} pictures are".format(**counts[-1]))
        rows.append((query, hits))
    Path(out).with_suffix(".json").write_text(json.dumps(counts, indent=2))
    off_topic = json.loads((Path(gallery) / "off_topic.json").read_text())
    best = (model.encode_text(off_topic, processor=processor) @ image_embeds.t()).max(1).values.tolist()
    cutoff = (model.config.text_cutoff or {}).get("cosine")
    nothing = {"asked": len(best), "nothing": 0 if cutoff is None else sum(cosine < cutoff for cosine in best)}
    print("{nothing} of {asked} queries about things that are in no picture find nothing".format(**nothing))
    Path(out).with_name("nothing.json").write_text(json.dumps(nothing))
    text_embeds = model.encode_text(captions, processor=processor)
    best = (image_embeds[:1] @ text_embeds.t())[0].topk(TOP)
    hits = [(captions[i], s, says(captions[i], scenes[0])) for i, s in zip(best.indices.tolist(), best.values.tolist())]
    print(f"the first picture: {sum(right for *_, right in hits)} of the first {TOP} captions are right")
    shown = rows[:: max(1, len(rows) // SHOWN)][:SHOWN]  # spread over the list, whatever their results
    draw([*shown, (images[0], hits)], out)
    return 0


def draw(rows: list[tuple], out: str):
    """Draw queries and their hits, (content, cosine, whether it is right)."""
    from contact_sheet import Row, Tile, contact_sheet  # of plots/

    drawn = []
    for query, hits in rows:
        ranked = enumerate(hits, 1)
        tiles = [Tile(content, f"{place}.  {score:.3f}", right) for place, (content, score, right) in ranked]
        drawn.append(Row([Tile(query), *tiles]))
    contact_sheet(drawn, LEGEND).save(out)


def says(caption: str, scene: dict) -> bool:
    """Tell whether every object that a caption names is in the scene; one named twice must be there twice."""
    left = things_of(scene["dense_text"])
    for thing in things_of(caption):
        if thing not in left:
            return False
        left.remove(thing)
    return True


def things_of(text: str) -> list[str]:
    """The objects that a caption names."""
    for opening in ("there is ", "a picture with "):
        text = text.removeprefix(opening)
    return text.split(" and ")


if __name__ == "__main__":
    sys.exit(search(*sys.argv[1:]))
