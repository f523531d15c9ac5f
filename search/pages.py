"""Search results as a self-contained HTML page, and as GeoJSON."""

import base64
import datetime
import html
import io
import os
from collections.abc import Iterable
from functools import cache
from itertools import chain
from urllib.parse import quote

import pyarrow as pa
from transformers.utils import logging

from ..files.text import printable
from ..processing.pixels import BadImageError
from ..processing.places import NoPlaceError, Place
from ..processing.scenes import open_any, read_box
from .collection import Collection
from .cutoff import Cutoff
from .named_folders import UNNAMED, lies_in

logger = logging.get_logger(__name__)
THUMBNAIL = 224  # pixels
LOOKED_FOR = 5_000  # pictures, in a folder that may hold none
STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}
ol{display:flex;flex-wrap:wrap;gap:1rem;padding:0;list-style:none}
li{width:226px}img{max-width:224px;max-height:224px;display:block;border:1px solid #ccc}
@media(max-width:30rem){body{margin:.7rem}li{width:calc(50% - .5rem)}img{max-width:100%}}
small{color:#666;overflow-wrap:anywhere}"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # no script runs, whatever a name holds


def html_page(
    query: str, hits: list, picture_of, query_image=None, about: str = "", link_of=lambda hit: None, nothing="No hit."
) -> str:
    """A self-contained page: the query, and the hits with thumbnails, cosines, captions and links to their files.

    Args:
        query: the query as text.
        hits: of `Retriever.search`.
        picture_of: a function of a hit that opens its picture; BadImageError or None where there is none.
        query_image: the picture of the query, if any.
        about: a line below the query, see `about_search`.
        link_of: a function of a hit that gives the path of its file from the page, or None, see `links_from`.
        nothing: what the page says where there are no hits.
    """
    cells = []
    for place, hit in enumerate(hits, 1):
        link = link_of(hit)
        name = _escaped(hit.id if link is None else link)
        target = None if link is None else quote(link)  # a name with a colon would be an address
        try:
            image = picture_of(hit)
            picture = "" if image is None else _thumbnail(image, hit.caption or link or hit.id)
        except (BadImageError, OSError) as error:  # moved or damaged since it was indexed
            picture, target = f"<p>{_escaped(error)}</p>", None
        if target is not None:
            picture, name = (f'<a href="{target}">{part}</a>' if part else "" for part in (picture, name))
        caption = f"<br>{_escaped(hit.caption)}" if hit.caption else ""
        cells.append(f"<li>{picture}<b>{place}. {hit.score:.3f}</b>{caption}<br><small>{name}</small></li>")
    title = _escaped(query)
    asked = _thumbnail(query_image, "the picture that was searched for") if query_image is not None else ""
    body = f"<ol>\n{chr(10).join(cells)}\n</ol>" if cells else f"<p>{_escaped(nothing)}</p>"
    below = f"<p><small>{_escaped(about)}</small></p>" if about else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>{below}{asked}\n{body}\n</body></html>\n"
    )


def about_search(index, cutoff: Cutoff) -> str:
    """The model, the size of the index, the cut-off and the date, as one line."""
    parts = [f"model {model_name(index.model)}", f"{len(index):,} items"]
    parts += [] if cutoff.cosine is None else [str(cutoff)]
    return ", ".join([*parts, datetime.date.today().isoformat()])


def model_name(model: dict | None) -> str:
    """The Hub id of the model of an index; of one in a folder, the name of the folder."""
    name = (model or {}).get("id") or "in memory"
    return os.path.basename(os.path.abspath(name)) if os.path.isabs(name) else name


def links_from(page: str | os.PathLike, named: Iterable[str], place_of=lambda path: path):
    """A function that gives the path of a hit's file from a page, with `/`; None where there is no file to show.

    Args:
        page: where the page will be.
        named: the folders and files that the user named; no link leads elsewhere.
        place_of: of `place_finder`.
    """
    start, named = os.path.dirname(os.path.abspath(page)), list(named)

    def link_of(hit) -> str | None:
        place = place_of(hit.path) if hit.path else None
        if not place or not lies_in(place, named):
            return None
        try:
            return os.path.relpath(place, start).replace(os.sep, "/")
        except ValueError:  # another drive
            return None

    return link_of


def picture_opener(
    index, images: Iterable[str] = (), least_side: int = THUMBNAIL, collections: dict[str, Collection] | None = None
):
    """A function that opens the picture of a hit of this `VectorIndex` as it was indexed; None for a text.

    Pictures are opened only inside folders that the user named for this index or in `images`, and never downloaded.

    Args:
        index: of the hits.
        images: more folders or files whose pictures may be shown; of an index that was moved with its pictures, the
            folder where they lie now.
        least_side: of `scenes.open_any`.
        collections: data sets that were read by other openers of this index; it is filled.
    """
    collections = {} if collections is None else collections
    now, images = index.snapshot, list(images)
    named, told = {*index.named, *images}, []
    place_of = place_finder(index, images)

    def refused(hit) -> BadImageError:
        if not told:
            told.append(hit.id)
            logger.warning("%s: %s", printable(hit.id), UNNAMED)
        return BadImageError(f"{hit.id}: {UNNAMED}")

    def source_of(hit):
        settings = index.sources.get(hit.collection)
        if settings is None or hit.row is None:
            return place_of(hit.path)
        places = _places(settings)
        if not any(lies_in(place, named) for place in places):
            raise refused(hit)
        if not any(map(os.path.exists, places)):
            raise BadImageError(f"{hit.id}: {places[0]} is not on this machine, and is not downloaded for a page")
        if hit.collection not in collections:
            collections[hit.collection] = Collection(**settings)
        rows = now.not_deleted(now.rows_of(pa.array([hit.id], pa.string())))  # with the size and stamp of the picture
        item = now.items(rows[:1])[0] if len(rows) else vars(hit)
        try:
            return collections[hit.collection].source_of(item)
        except BadImageError:
            raise
        except ValueError as error:  # a table that is damaged, or has other columns by now
            raise BadImageError(f"{hit.id}: {error}") from None

    def picture_of(hit):
        if hit.modality == "text" or (hit.path is None and hit.collection is None):
            return None
        source = source_of(hit)
        if not isinstance(source, bytes) and not lies_in(source, named):
            raise refused(hit)
        bands = index.sources.get(hit.collection, {}).get("bands")
        if hit.box and isinstance(source, str):
            return read_box(source, hit.box, bands)
        return open_any(source, name=hit.id, bands=bands, least_side=least_side)

    return picture_of


def place_finder(index, images: Iterable[str] = ()):
    """A function of the recorded path of an item of this index: where its file lies now.

    A file that was named for this index and is there has its recorded place; others are looked for in `images`, see
    `moved`. Of None and of a file that is nowhere it gives what it was asked.

    Args:
        index: of the items.
        images: folders of this machine that the user named.
    """
    images, named = list(images), {*index.named, *images}
    indexed = [settings["data"] for settings in index.sources.values()]

    @cache
    def recorded() -> dict[str, int]:
        return {path: size for path, size in zip(index.column("path"), index.column("size")) if path is not None}

    @cache  # a scene has many tiles
    def place_of(path: str | None) -> str | None:
        here = lies_in(path, named) and os.path.exists(path)
        return path if here or path is None else moved(path, indexed, images, recorded)

    return place_of


def moved(path: str, indexed: Iterable[str], images: Iterable[str], recorded=dict) -> str:
    """Where the file of an item lies now, if it lies in a folder of `images` as it did in the folder that was indexed.

    Cameras give the same names in every folder. Of several files, the one of the same size is taken, else one in a
    folder that is called as before, else the first; one that is as well that of an item of another folder is taken
    only if the size or the name of the folder is the same.

    Args:
        path: of the item, as recorded.
        indexed: the folders that were indexed, as recorded.
        images: folders of this machine that the user named.
        recorded: a function that gives the sizes of all files of the index, by path.

    Returns:
        The place in one of `images`; `path` where there is no such file.
    """
    found, indexed, images = [], list(indexed), list(images)
    for root in indexed:
        if path.startswith(os.path.join(root, "")):
            inside = os.path.relpath(path, root)
            for folder in images:
                place = os.path.join(folder, inside)
                if lies_in(place, [folder]) and os.path.isfile(place):
                    size, name = os.path.getsize(place), os.path.basename(os.path.abspath(folder))
                    alike = (size == recorded().get(path), name == os.path.basename(root))
                    rivals = {os.path.join(other, inside) for other in indexed} - {path}
                    if any(alike) or not any(rival in recorded() for rival in rivals):
                        found.append((alike, place))
    return max(found, key=lambda each: each[0])[1] if found else path


def without_pictures(index, images: Iterable[str]) -> list[str]:
    """Those folders or files that the user named in which no picture of this index was found, nor a table of some.

    Of a large index, some thousand pictures are looked for.
    """
    now = index.snapshot
    paths = [path for path, alive in zip(now.column("path"), now.alive) if alive and path is not None]
    looked_for = paths[:: max(1, len(paths) // LOOKED_FOR)]
    tables = [place for settings in index.sources.values() for place in _places(settings)]

    def holds(named: str) -> bool:
        places = chain(tables, map(place_finder(index, [named]), looked_for))
        return any(lies_in(place, [named]) and os.path.exists(place) for place in places)

    return [named for named in images if not holds(named)]


def _places(settings: dict) -> list[str]:
    """Possible paths of a collection's table, as in `data.sources.path_of`, without access to the file system."""
    split = (settings.get("split") or "train").partition("[")[0]
    names = [split, "val"] if split == "validation" else [split]
    return [settings["data"].replace("{split}", name) for name in names]


def _thumbnail(image, alternative: str) -> str:
    data = base64.b64encode(small_jpeg(image)).decode()
    return f'<img alt="{_escaped(alternative)}" src="data:image/jpeg;base64,{data}">'


def _escaped(text: object) -> str:
    """A text that a page shows, and neither it nor the direction of its writing obeys."""
    return html.escape(printable(text))


def small_jpeg(image, side: int = THUMBNAIL) -> bytes:
    """A PIL image as a JPEG of at most `side` x `side` pixels, without metadata."""
    image = image.convert("RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def geojson(hits: list, named: Iterable[str], place_of=lambda path: path) -> dict:
    """Hits as a FeatureCollection of RFC 7946: outlines in longitude and latitude where the scene has coordinates.

    Every feature has `pixel_box` (left, top, right, bottom; of a whole scene, all of it; None for a photograph). A
    feature without a geometry gives the reason in `no_geometry`.

    Args:
        hits: of `Retriever.search`.
        named: the folders and files that the user named; no other scene is opened.
        place_of: of `place_finder`; `path` is where the file lies now.
    """
    features, places, told = [], {}, {None}
    for rank, hit in enumerate(hits, 1):
        path = place_of(hit.path)
        facts = {"rank": rank, "score": hit.score, "id": hit.id, "path": path, "pixel_box": hit.box}
        geometry = None
        try:
            geometry, facts["pixel_box"] = outline(path, hit.box, places, named)
        except (BadImageError, NoPlaceError) as error:
            facts["no_geometry"] = str(error)
            if isinstance(error, NoPlaceError) and path not in told:
                told.add(path)
                told_of = printable(path), printable(error)
                logger.warning("%s: no geometry, %s; see pixel_box for the place of a hit", *told_of)
        features.append({"type": "Feature", "geometry": geometry, "properties": facts})
    return {"type": "FeatureCollection", "features": features}


def outline(path: str | None, box, places: dict, named: Iterable[str]) -> tuple[dict, list[int]]:
    """The geometry and the pixel box of a hit or row.

    Args:
        path: of its file.
        box: in pixels; None for the whole file.
        places: cache of earlier calls, by path; it is filled.
        named: the folders and files that the user named.

    Raises:
        NoPlaceError: there is none; the message says why. BadImageError: the file cannot be opened.
    """
    if path is None:
        raise NoPlaceError("it is no file")
    if path not in places:
        try:
            if not lies_in(path, named):
                raise NoPlaceError(UNNAMED)
            places[path] = Place(path)
        except (BadImageError, NoPlaceError) as error:
            places[path] = error
    place = places[path]
    if isinstance(place, Exception):
        raise place
    box = box or [0, 0, place.width, place.height]
    return place.geometry(box), list(box)


__all__ = [
    "about_search",
    "geojson",
    "html_page",
    "links_from",
    "model_name",
    "outline",
    "picture_opener",
    "place_finder",
    "small_jpeg",
    "without_pictures",
]
