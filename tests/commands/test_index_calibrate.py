"""`vsehub index calibrate`: a cut-off that search uses, under the flag's present and earlier name."""

import pytest
from datasets import Dataset

from vsehub.commands.index_calibrate import with_reject_share


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_pictures, tiny_captions):
    """Pictures, and pairs of them with captions."""
    folder = tmp_path_factory.mktemp("calibrate")
    (folder / "photos").mkdir()
    for number, picture in enumerate(tiny_pictures):
        picture.save(folder / "photos" / f"{number}.png")
    rows = [
        {
            "image": {"bytes": (folder / "photos" / f"{n}.png").read_bytes(), "path": None},
            "captions": [text, f"{text} too"],
        }
        for n, text in enumerate(tiny_captions)
    ]
    Dataset.from_list(rows).to_parquet(str(folder / "pairs.parquet"))
    (folder / "off_topic.txt").write_text("tax return\n\nof the under\n")
    return folder


@pytest.fixture
def index(vsehub, place, tiny_folder, tmp_path):
    vsehub("index", place / "photos", "--model", tiny_folder, "--out", tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize("flag", ["--reject_share", "--reject-share", "--quiet"])
def test_a_cut_off_is_kept_and_search_uses_it(vsehub, vsehub_json, index, place, flag):
    words = ("index", "calibrate", index, "--data", place / "pairs.parquet")
    said = vsehub(*words, flag, "1", "--off_topic", place / "off_topic.txt", "--force")
    assert "100.0 % of 2 irrelevant queries return nothing" in said
    found = vsehub_json("search", index, "tax return")
    assert found["hits"] == [] and found["query"]["cutoff"] > 0
    assert "nothing comes nearer" in vsehub("search", index, "tax return")
    assert len(vsehub("search", index, "tax return", "--no_cutoff").splitlines()) == 6
    told = vsehub_json(*words, "--force")
    assert (
        told["off_topic"] == 12 == told["pairs"]
        and told["text"] == vsehub_json("search", index, "a")["query"]["cutoff"]
    )


def test_a_share_behind_quiet_is_the_earlier_name_and_anything_else_is_not():
    assert with_reject_share(["--quiet", "0.9", "i"]) == ["--reject_share", "0.9", "i"]
    assert with_reject_share(["--quiet=1", "i"]) == ["--reject_share=1", "i"]
    assert with_reject_share(["--quiet", "photos.index"]) == ["--quiet", "photos.index"]
    assert with_reject_share(["i", "--quiet"]) == ["i", "--quiet"]


def test_what_is_wrong_is_one_line(vsehub, tmp_path):
    (tmp_path / "blank").write_text(" \n\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    words = ("index", "calibrate", tmp_path, "--data", "nothing")
    for flags, said in [
        (("--limit", "1"), "a whole number of at least 2"),
        (("--reject_share", "1.5"), "--reject_share: must be"),
        (("--off_topic", tmp_path / "blank"), "no line of text"),
        (("--off_topic", tmp_path / "bytes"), "not a text file in UTF-8"),
        (("--off_topic", tmp_path / "absent"), "absent: no such file or directory"),
    ]:
        assert said in vsehub(*words, *flags, status=2)
