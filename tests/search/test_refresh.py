"""`vsehub index` from end to end with a tiny model: folders, scenes, datasets, refreshes, kills, several processes."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as Pictures
from PIL import Image
from rasters import write_raster

from vsehub.__main__ import main
from vsehub.files.bad_samples import read_bad_samples
from vsehub.processing.pixels import BadImageError
from vsehub.search import refresh as index_images
from vsehub.search.pages import picture_opener
from vsehub.search.retriever import Hit
from vsehub.search.vector_index import VectorIndex


@pytest.fixture
def photos(tmp_path, tiny_pictures):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, picture in enumerate(tiny_pictures):
        picture.save(folder / ("more" if number % 2 else ".") / f"{number}.{'png' if number < 3 else 'jpg'}")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def index(photos, tiny_folder, tmp_path, capsys):
    def run(*words, source=photos, expected=0):
        status = main(["index", str(source), "--model", str(tiny_folder), "--out", str(tmp_path / "index"), *words])
        assert status == expected
        said = capsys.readouterr()
        return said.out if status == 0 else said.err

    return run


def reported(tmp_path):
    return read_bad_samples(tmp_path / "index" / "bad_samples.jsonl")


def ids(tmp_path):
    found = VectorIndex.open(tmp_path / "index")
    return sorted(os.path.basename(name) for name, alive in zip(found.column("id"), found.alive) if alive)


def vectors(tmp_path):
    batches = VectorIndex.open(tmp_path / "index").batches()
    return {name: vector for vectors, items in batches for name, vector in zip(items["id"].to_pylist(), vectors)}


def test_a_folder_is_refreshed_and_only_what_changed_is_embedded(index, photos, tmp_path, tiny_pictures):
    assert "6 rows; 6 embedded, 0 unchanged, 0 removed" in index()
    before = vectors(tmp_path)
    assert "holds an index: --update" in index(expected=2)
    assert "6 rows; 0 embedded, 6 unchanged, 0 removed" in index("--update")
    (photos / "0.png").unlink()
    tiny_pictures[5].save(photos / "2.png")
    tiny_pictures[3].rotate(90).save(photos / "more" / "new.webp")
    (photos / "torn.png").write_bytes((photos / "2.png").read_bytes()[:60])
    said = index("--update")
    assert "6 rows; 2 embedded, 4 unchanged, 1 removed; 1 bad, listed in bad_samples.jsonl" in said
    assert ids(tmp_path) == ["1.png", "2.png", "3.jpg", "4.jpg", "5.jpg", "new.webp"]
    line, others = reported(tmp_path)
    assert line.path == str(photos / "torn.png") and "does not decode" in line.problem
    assert others.image_id == "*.txt" and others.problem == "1 files that are not pictures"
    assert "no pictures: 1 .txt" in said
    after = vectors(tmp_path)
    same = {name for name in before if name in after and np.array_equal(before[name], after[name])}
    assert {os.path.basename(name) for name in same} == {"1.png", "3.jpg", "4.jpg", "5.jpg"}
    (photos / "torn.png").unlink()
    (photos / "more" / "1.png").write_bytes(b"no longer a picture")
    assert "5 rows; 0 embedded, 5 unchanged, 1 removed; 1 bad" in index("--update")
    assert "5 rows; 5 embedded, 0 unchanged" in index("--update", "--fast")  # made in another way


def test_a_second_source_leaves_the_first_alone_and_other_models_are_refused(
    index, tmp_path, tiny_pictures, make_tiny_model, tiny_processor
):
    index()
    rows = [
        {"image": {"bytes": (tmp_path / "photos" / "0.png").read_bytes(), "path": None}, "captions": ["a", "b"]},
        {"image": {"bytes": b"<html>", "path": None}, "captions": ["c", "d"]},
    ]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    assert "7 rows; 1 embedded, 0 unchanged, 0 removed; 1 bad" in index("--update", source=tmp_path / "rows.parquet")
    assert "7 rows; 0 embedded, 1 unchanged" in index("--update", source=tmp_path / "rows.parquet")
    assert "7 rows; 0 embedded, 6 unchanged" in index("--update")
    assert sum(line.source.endswith("rows.parquet:train") for line in reported(tmp_path)) == 1  # still
    item = next(i for i in VectorIndex.open(tmp_path / "index").items(range(7)) if i["row"] == 0)
    assert item["caption"] == "a / b" and item["id"].endswith("rows.parquet:train:0")
    other = tmp_path / "other"
    make_tiny_model(seed=3).save_pretrained(other)
    tiny_processor.save_pretrained(other)
    assert "use that model, or make another index" in index("--update", "--model", str(other), expected=2)
    assert "no such file or folder" in index("--update", source="./nowhere", expected=2)
    assert "no column 'picture'" in index(
        "--update", "--image_column", "picture", source=tmp_path / "rows.parquet", expected=2
    )


def test_a_folder_in_a_folder_of_the_index_is_refused(index, photos, tmp_path):
    """Both would hold the same pictures, and each update of one would take the rows of the other."""
    index()
    for source in (photos / "more", photos / "more" / "1.png", tmp_path):
        assert "share pictures" in index("--update", source=source, expected=2)
    assert "0 embedded" in index("--update")
    assert main(["index", "remove", str(tmp_path / "index"), str(photos)]) == 0
    index("--update", source=photos / "more")


@pytest.mark.parametrize("what", ["captions", "label", "place"])
def test_a_row_that_changed_beside_its_picture_is_brought_up_to_date(index, tmp_path, what):
    """Otherwise conditions would be answered by what the data set said once, and pages show another row's picture."""
    rows = [
        {"image_id": name, "image": {"bytes": (tmp_path / "photos" / name).read_bytes(), "path": None}}
        | {"captions": [name], "label": "old"}
        for name in ("0.png", "2.png")
    ]
    source = tmp_path / "rows.parquet"
    Dataset.from_list(rows).to_parquet(str(source))
    index(source=source)
    changed = rows[::-1] if what == "place" else [rows[0], {**rows[1], what: ["new"] if what == "captions" else "new"}]
    Dataset.from_list(changed).to_parquet(str(source))
    said = "2 embedded, 0 unchanged" if what == "place" else "1 embedded, 1 unchanged"
    picture_of = picture_opener(VectorIndex.open(tmp_path / "index"), [str(tmp_path)])
    hit = Hit(f"{source}:train:0.png", 1.0, row=0, collection=f"{source}:train")
    if what == "place":
        with pytest.raises(BadImageError, match="has changed: bring the index up to date with --update"):
            picture_of(hit)
    assert said in index("--update", source=source)
    opened = VectorIndex.open(tmp_path / "index")
    last = {item["id"].rsplit(":", 1)[-1]: item for item in opened.items(np.flatnonzero(opened.alive))}
    assert last["2.png"]["row"] == (0 if what == "place" else 1)
    assert (last["2.png"]["caption"], json.loads(last["2.png"]["fields"])["label"]) == {
        "captions": ("new", "old"),
        "label": ("2.png", "new"),
        "place": ("2.png", "old"),
    }[what]
    assert "0 embedded, 2 unchanged" in index("--update", source=source)


def test_another_file_of_the_same_size_and_time_is_another_picture(index, tmp_path, tiny_pictures):
    """As in an archive of uncompressed pictures that gives all files one time."""
    for number in (0, 3):
        tiny_pictures[number].resize((32, 32)).save(tmp_path / f"{number}.bmp")
        os.utime(tmp_path / f"{number}.bmp", (1e9, 1e9))
    source, found = tmp_path / "rows.jsonl", []
    for names in ("03", "30"):
        rows = [{"image": f"{name}.bmp", "image_id": place} for place, name in zip("ab", names)]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        said = index("--update", "--image_root", str(tmp_path), source=source)
        assert "2 embedded, 0 unchanged" in said
        found.append([vector for _, vector in sorted(vectors(tmp_path).items())])
    assert np.allclose(found[0], found[1][::-1], atol=1e-6)


def test_a_row_without_an_id_never_shows_the_picture_that_stands_there_by_now(index, tmp_path):
    rows = [{"image": {"bytes": (tmp_path / "photos" / f"{n}.png").read_bytes(), "path": None}} for n in (0, 2)]
    source = tmp_path / "rows.parquet"
    Dataset.from_list(rows).to_parquet(str(source))
    index(source=source)
    hit = Hit(f"{source}:train:0", 1.0, row=0, collection=f"{source}:train")
    assert picture_opener(VectorIndex.open(tmp_path / "index"))(hit).size == (32, 32)
    Dataset.from_list(rows[::-1]).to_parquet(str(source))
    with pytest.raises(BadImageError, match="has changed: bring the index up to date with --update"):
        picture_opener(VectorIndex.open(tmp_path / "index"))(hit)
    index("--update", source=source)
    assert picture_opener(VectorIndex.open(tmp_path / "index"))(hit).size == (20, 60)


def test_a_folder_is_read_as_before_whatever_lies_beside_its_files_by_now(index, photos, tmp_path):
    """A picture beside its tables made of a dataset a folder of one picture, whose rows were never updated again."""
    rows = [{"image": {"bytes": (photos / f"{n}.png").read_bytes(), "path": None}} for n in (0, 2)]
    (tmp_path / "rows").mkdir()
    Dataset.from_list(rows).to_parquet(str(tmp_path / "rows" / "train.parquet"))
    index(source=tmp_path / "rows")
    Dataset.from_list(rows * 2).to_parquet(str(tmp_path / "rows" / "train.parquet"))
    shutil.copy(photos / "0.png", tmp_path / "rows" / "sample.png")
    assert "4 rows; 2 embedded, 2 unchanged" in index("--update", source=tmp_path / "rows")
    assert "10 rows; 6 embedded" in index("--update")
    for path in [path for path in photos.rglob("*.*") if path.suffix != ".txt"]:
        path.unlink()
    assert "4 rows; 0 embedded, 0 unchanged, 6 removed; no pictures: 1 .txt" in index("--update")


@pytest.mark.parametrize("how", ["torn", "renamed", "without"])
def test_a_table_that_cannot_be_read_by_now_costs_its_pictures_alone(index, vsehub, tmp_path, how):
    rows = [{"image": {"bytes": (tmp_path / "photos" / f"{n}.png").read_bytes(), "path": None}} for n in (0, 2)]
    source, page = tmp_path / "rows.parquet", tmp_path / "page.html"
    Dataset.from_list(rows).to_parquet(str(source))
    index()
    index("--update", source=source)
    if how == "torn":
        source.write_bytes(source.read_bytes()[:200])
    else:
        rows = [{"pictures": rows[0]["image"]}] * 2 if how == "renamed" else [{"image": None, "n": n} for n in (0, 1)]
        Dataset.from_list(rows).to_parquet(str(source))
    vsehub("search", tmp_path / "index", "a dog", "--html", page)
    said = {"torn": "cannot be read", "renamed": "has no column", "without": "has changed: bring the index up to date"}
    assert page.read_text().count("data:image") == 6 and page.read_text().count(said[how]) == 2


def test_the_picture_of_a_part_of_a_split_is_shown(index, tmp_path):
    rows = [{"image": {"bytes": (tmp_path / "photos" / f"{n}.png").read_bytes(), "path": None}} for n in (0, 2)]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "rows_test.parquet"))
    source = f"{tmp_path}/rows_{{split}}.parquet"
    assert "1 rows; 1 embedded" in index("--split", "test[:50%]", source=source)
    hit = Hit(f"{source}:test[:50%]:0", 1.0, row=0, collection=f"{source}:test[:50%]")
    assert picture_opener(VectorIndex.open(tmp_path / "index"))(hit).size == (32, 32)


def test_classes_are_kept_by_their_names(index, tmp_path):
    rows = [{"bytes": (tmp_path / "photos" / name).read_bytes(), "path": None} for name in ("0.png", "2.png")]
    features = Features({"image": Pictures(), "label": ClassLabel(names=["boat", "pier"])})
    Dataset.from_dict({"image": rows, "label": [1, -1]}, features).to_parquet(str(tmp_path / "rows.parquet"))
    index(source=tmp_path / "rows.parquet")
    items = VectorIndex.open(tmp_path / "index").items(range(2))
    assert [json.loads(item["fields"] or "{}") for item in items] == [{"label": "pier"}, {}]


def test_hnsw_finds_what_flat_finds(index, tmp_path, tiny_folder, capsys):
    pytest.importorskip("faiss")
    index("--kind", "hnsw")
    assert VectorIndex.open(tmp_path / "index").snapshot.graph_rows == 6
    assert main(["search", str(tmp_path / "index"), "a dog", "--json", "--k", "3"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    index("--update", "--kind", "flat")
    assert VectorIndex.open(tmp_path / "index").snapshot.graph_rows == 0
    assert main(["search", str(tmp_path / "index"), "a dog", "--json", "--k", "3"]) == 0
    assert [hit["id"] for hit in json.loads(capsys.readouterr().out)["hits"]] == [hit["id"] for hit in hits]


def test_a_scene_is_cut_into_tiles_and_saved_as_a_whole(index, tmp_path):
    scene = np.random.default_rng(0).integers(0, 4000, (300, 400, 4), dtype=np.uint16)
    write_raster(tmp_path / "scene.tif", scene, blockysize=16)
    words = ("--tile", "128", "--overlap", "32", "--bands", "4", "3", "2")
    assert "12 rows; 12 embedded" in index(*words, source=tmp_path / "scene.tif")
    items = VectorIndex.open(tmp_path / "index").items(range(12))
    assert items[0]["box"] == [0, 0, 128, 128] and items[-1]["box"] == [272, 172, 400, 300]
    assert items[1]["id"] == f"{tmp_path / 'scene.tif'}#96,0,224,128"
    assert "0 embedded, 12 unchanged" in index("--update", *words, source=tmp_path / "scene.tif")
    whole = (tmp_path / "scene.tif").read_bytes()
    (tmp_path / "scene.tif").write_bytes(whole[: int(len(whole) * 0.7)])  # the first tiles still decode
    assert "0 rows; 0 embedded, 0 unchanged, 12 removed; 1 bad" in index(
        "--update", *words, source=tmp_path / "scene.tif"
    )


def test_a_job_that_is_killed_goes_on(index, photos, tmp_path, tiny_folder, monkeypatch):
    expected_of = tmp_path / "expected"
    index()
    expected = vectors(tmp_path)
    shutil.move(tmp_path / "index", expected_of)
    monkeypatch.setattr(index_images, "SAVED_AT_ONCE", 2)
    real, calls = index_images._embedded, []

    def dying(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(index_images, "_embedded", dying)
    assert "vsehub index: interrupted" in index(expected=130)
    assert len(ids(tmp_path)) == 4
    assert "6 rows; 2 embedded, 4 unchanged" in index("--update")
    after = vectors(tmp_path)
    assert sorted(after) == sorted(expected)
    assert all(np.allclose(after[name], vector, atol=1e-6) for name, vector in expected.items())


def test_the_same_command_goes_on_after_a_kill_before_and_after_the_first_save(index, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(index_images, "SAVED_AT_ONCE", 2)
    real, calls = index_images._embedded, []

    def dying(*args):
        calls.append(1)
        if len(calls) in (1, 3):
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(index_images, "_embedded", dying)
    index(expected=130)
    assert ids(tmp_path) == []
    index(expected=130)
    assert len(ids(tmp_path)) == 2
    assert "holds an index: --update" in index(source=photos / "0.png", expected=2)  # another source
    assert "6 rows; 4 embedded, 2 unchanged" in index()
    assert not VectorIndex.open(tmp_path / "index").unfinished
    assert "holds an index: --update" in index(expected=2)


def test_another_source_does_not_finish_a_job_that_was_killed(index, photos, tmp_path, tiny_pictures, monkeypatch):
    (tmp_path / "others").mkdir()
    tiny_pictures[0].save(tmp_path / "others" / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(index_images, "SAVED_AT_ONCE", 2)
        real, calls = index_images._embedded, []
        patch.setattr(
            index_images, "_embedded", lambda *args: real(*args) if not calls.append(1) and len(calls) < 2 else 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            index()
    assert "3 rows; 1 embedded" in index("--update", source=tmp_path / "others")
    assert "7 rows; 4 embedded, 2 unchanged" in index()
    assert not VectorIndex.open(tmp_path / "index").unfinished
    assert "holds an index: --update" in index(expected=2)


def test_it_is_saved_by_the_clock_and_the_bar_counts_pictures(index, tmp_path, monkeypatch):
    monkeypatch.setattr(index_images, "FIRST_AT_ONCE", 2)
    monkeypatch.setattr(index_images, "SAVED_EVERY", 1e-9)  # whatever a picture takes, it is too long
    sizes, bars, real, bar = [], [], VectorIndex.add, index_images.tqdm
    monkeypatch.setattr(VectorIndex, "add", lambda self, *args: sizes.append(len(args[1])) or real(self, *args))
    monkeypatch.setattr(index_images, "tqdm", lambda *args, **kwargs: bars.append(bar(*args, **kwargs)) or bars[0])
    assert "6 rows; 6 embedded" in index()
    assert sizes == [2, 1, 1, 1, 1] and (bars[0].n, bars[0].total) == (6, 6)


CHILD = """
import os, signal, sys
from vsehub.commands.index import main
from vsehub.files.bad_samples import read_bad_samples
from vsehub.processing.pixels import BadImageError
from vsehub.search import refresh as index_images
index_images.SAVED_AT_ONCE = 1
real, steps = os.fsync, [0]
def fsync(handle):
    steps[0] += 1
    if steps[0] == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = fsync
main(sys.argv[1:])
"""


def test_sigkill_in_another_process_leaves_an_index_that_opens_and_goes_on(index, photos, tmp_path, tiny_folder):
    words = [str(photos), "--model", str(tiny_folder), "--out", str(tmp_path / "index")]
    done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    saved = len(ids(tmp_path))
    assert 0 < saved < 6
    assert f"6 rows; {6 - saved} embedded, {saved} unchanged" in index("--update")


@pytest.mark.slow
def test_two_processes_make_the_index_of_one(index, photos, tmp_path, tiny_folder):
    index()
    expected, one = vectors(tmp_path), VectorIndex.open(tmp_path / "index").column("id")
    shutil.rmtree(tmp_path / "index")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m"]
    words = [str(photos), "--model", str(tiny_folder), "--out", str(tmp_path / "index")]
    (photos / "torn.png").write_bytes(b"torn")
    done = subprocess.run([*launch, "vsehub.commands.index", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "6 rows; 6 embedded" in done.stdout and "1 bad" in done.stdout
    found = vectors(tmp_path)
    assert VectorIndex.open(tmp_path / "index").column("id") == one
    assert all(np.allclose(found[name], vector, atol=1e-6) for name, vector in expected.items())


def test_hostile_files_end_in_pictures_or_lines_of_the_report(index, photos, tmp_path):
    os.mkfifo(photos / "pipe.jpg")
    (photos / "folder.png").mkdir()
    (photos / "empty.jpg").touch()
    (photos / "link.png").symlink_to(photos / "nowhere.png")
    Image.new("L", (1, 900)).save(photos / "thin.png")
    Image.new("CMYK", (20, 20)).save(photos / "cmyk.jpg")
    said = index()
    problems = [problem for problem in reported(tmp_path) if problem.path]
    assert {os.path.basename(problem.path) for problem in problems} == {"pipe.jpg", "empty.jpg", "link.png"}
    assert {"thin.png", "cmyk.jpg"} <= set(ids(tmp_path)) and "8 embedded" in said


def test_nothing_is_made_or_lost_where_the_words_are_wrong(index, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    for words, source, said in [
        (("--tile", "16"), photos, "smaller than the tile"),
        (("--tile", "-3"), photos, "a whole number from 0"),
        (("--bands", "0", "1", "2"), photos, "at least 1"),
        (("--batch_size", "0"), photos, "at least 1"),
        (("--workers", "-1"), photos, "a whole number from 1"),
        ((), tmp_path / "empty", "no picture in it"),
        ((), tmp_path / "nowhere", "no such file or folder"),
        ((), photos / "notes.txt", "a source is a folder"),
    ]:
        assert said in index(*words, source=source, expected=2)
        assert not (tmp_path / "index").exists()
    index()
    before = vectors(tmp_path)
    for words in (("--tile", "16"), ("--bands", "0", "1", "2")):
        index("--update", *words, expected=2)
        assert vectors(tmp_path).keys() == before.keys()
    rows = [{"image": {"bytes": (photos / "0.png").read_bytes(), "path": None}, "captions": ["a"]}]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "pairs.parquet"))
    for column, said in (("absent", "no column 'absent'"), ("image", "holds no texts")):
        assert said in index("--update", "--captions_column", column, source=tmp_path / "pairs.parquet", expected=2)


def test_a_folder_that_cannot_be_read_or_is_a_link_is_told_and_loses_nothing(index, photos, tmp_path, monkeypatch):
    index()
    before, scandir = vectors(tmp_path), os.scandir

    def locked(path="."):
        if os.path.basename(path) == "more":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    for words in ((), ("--fast",)):  # the second embeds all again
        assert "more: permission denied" in index("--update", *words, expected=2)
        assert vectors(tmp_path).keys() == before.keys()
    monkeypatch.setattr(os, "scandir", scandir)
    shutil.move(photos / "more", tmp_path / "elsewhere")
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    assert "0 embedded, 3 unchanged, 3 removed; 1 bad" in index("--update")
    assert reported(tmp_path)[0].path == str(photos / "linked")


def test_a_source_is_itself_however_its_path_is_spelt(index, photos, tmp_path, monkeypatch):
    rows = [{"image": f"{n}.png", "captions": [f"c{n}"]} for n in (0, 2)]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    monkeypatch.chdir(tmp_path)
    assert "2 rows; 2 embedded" in index("--image_root", "photos", source="rows.parquet")
    assert "2 rows; 0 embedded, 2 unchanged" in index("--update", "--image_root", "./photos", source="./rows.parquet")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "2 rows; 0 embedded, 2 unchanged" in index("--update", "--image_root", str(photos), source="../rows.parquet")
    found = VectorIndex.open(tmp_path / "index")
    hit = Hit(
        score=1.0, **{name: value for name, value in found.items([0])[0].items() if name in Hit.__dataclass_fields__}
    )
    assert picture_opener(found)(hit).size == Image.open(photos / "0.png").size


def test_rows_of_one_id_do_not_replace_each_other(index, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(index_images, "SAVED_AT_ONCE", 1)
    picture = {"bytes": (photos / "0.png").read_bytes(), "path": None}
    rows = [{"image": picture, "image_id": name} for name in "aba"]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    assert "image_id 'a' names two rows" in index(source=tmp_path / "rows.parquet", expected=2)
    assert not (tmp_path / "index").exists()


def test_a_name_that_is_not_unicode_and_a_torn_report_stop_nothing(index, photos, tmp_path):
    try:
        shutil.copy(photos / "0.png", os.fsencode(photos) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes Unicode names alone")
    assert "6 rows; 6 embedded" in index()
    report = tmp_path / "index" / "bad_samples.jsonl"
    assert "rename the file" in reported(tmp_path)[0].problem
    report.write_text('{"half')
    assert "6 rows; 0 embedded, 6 unchanged, 0 removed; 1 bad" in index("--update")
