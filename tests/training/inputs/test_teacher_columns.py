"""The columns of `vsehub teachers`: each row's features belong to its own picture and captions."""

import pytest
import torch
from datasets import Dataset

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.training.inputs.teacher_columns import CHECKSUM, IMAGE, TEXT, VIEWS, read_teachers, teacher_views
from vsehub.training.inputs.views import Views


def test_features_of_another_row_are_refused(taught):
    root, _ = taught
    rows = prepare_rows(DataArguments(data=str(root / "taught")), "train", None, need_dense=False)
    kept = {name: list(rows[name]) for name in (IMAGE, TEXT, CHECKSUM)}
    swapped = rows.remove_columns(list(kept))
    for name, column in kept.items():
        swapped = swapped.add_column(name, column[1:] + column[:1])
    with pytest.raises(ValueError, match="row 0 .*another picture"):
        read_teachers(swapped)


@pytest.mark.parametrize("kept", [IMAGE, TEXT])
def test_a_modality_without_a_column_has_no_features(taught, kept):
    rows = prepare_rows(DataArguments(data=str(taught[0] / "taught")), "train", None, need_dense=False)
    both = read_teachers(rows)
    left_out = {IMAGE: [TEXT], TEXT: [IMAGE, VIEWS]}[kept]
    one = read_teachers(rows.remove_columns(left_out))
    assert (one.image is None) == (kept == TEXT) and (one.text is None) == (kept == IMAGE)
    assert torch.equal(one.image, both.image) if kept == IMAGE else torch.equal(one.text[3], both.text[3])


def test_data_without_an_image_teacher_were_seen_plain():
    rows = Dataset.from_dict({"captions": [["a"], ["b", "c"]]})
    assert teacher_views(rows) == Views() and read_teachers(rows).image is None
