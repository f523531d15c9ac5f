"""Pictures that know their own number, in a folder, and what a finished captioning job must have made of them."""

import pyarrow.parquet as parquet
from PIL import Image


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
