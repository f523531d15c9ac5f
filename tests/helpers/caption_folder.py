"""Pictures that know their own number, a captioner that reads it, and what a finished job must have made of them."""

from collections import Counter

import pyarrow.parquet as parquet
from PIL import Image

from vsehub.data.captioning.request import Caption, CaptionRequest, Failure


def paint(index):
    return Image.new("RGB", (24, 16), (8 * (index % 32), 8 * (index // 32), 200))


def picture(image):
    """Return the index that `paint` was given."""
    red, green, _ = image.getpixel((5, 5))
    return round(red / 8) + 32 * round(green / 8)


def ids_of(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))


def rows_of(out):
    return parquet.read_table(out).to_pylist()


def assert_whole(out, root):
    """One right caption for each image, in order, and nothing left over."""
    rows = rows_of(out)
    assert [row["image_id"] for row in rows] == ids_of(root)
    assert all(row["dense_text"] == f"this is picture {int(row['image_id'][-6:-4])}" for row in rows)
    left = {path.name for path in out.parent.iterdir() if path.name.startswith(out.name)}
    assert left == {out.name}


class Stub:
    """A captioner without a model: names the picture it sees."""

    backend = "stub"

    def __init__(self, batch_size=2, model_id="stub", fails=(), **asked):
        self.request, self.batch_size, self.model_id = CaptionRequest(**asked), batch_size, model_id
        self.fails, self.seen = fails, Counter()

    def identity(self):
        return {"model_id": self.model_id, "revision": "r1"}

    def captions(self, items):
        items = iter(items)
        while batch := [item for _, item in zip(range(self.batch_size), items)]:
            self.seen.update(image_id for image_id, _ in batch)
            yield [
                Failure(image_id, f"{image_id}: no answer")
                if image_id in self.fails
                else Caption(image_id, f"this is picture {picture(image)}", False, 2, "r1")
                for image_id, image in batch
            ]
