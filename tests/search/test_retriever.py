"""The retriever: what it finds is what the model's own embeddings say; nothing is guessed, no other model fits."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from vsehub.files import remembered
from vsehub.files.digests import fingerprint
from vsehub.processing import load_encoder
from vsehub.search.cutoff import Cutoff
from vsehub.search.index_store import IndexFolderError
from vsehub.search.retriever import Retriever
from vsehub.search.vector_index import VectorIndex


@pytest.fixture
def photos(tmp_path, tiny_pictures):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, picture in enumerate(tiny_pictures):
        picture.save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(len(tiny_pictures))]


@pytest.fixture
def retriever(tiny_folder, photos):
    retriever = Retriever.from_pretrained(tiny_folder)
    assert retriever.add_images(photos, ids=[path.name for path in photos], captions=list("abcdef")) == []
    return retriever


def test_hits_are_the_models_own_cosines(retriever, tiny_pictures, tiny_captions):
    images = retriever.model.encode_image(tiny_pictures)
    texts = retriever.model.encode_text(tiny_captions)
    for caption, cosines in zip(tiny_captions, texts @ images.T):
        hits = retriever.search(text=caption, k=3)
        assert [hit.id for hit in hits] == [f"{i}.png" for i in cosines.argsort(descending=True)[:3].tolist()]
        assert np.allclose([hit.score for hit in hits], cosines.sort(descending=True).values[:3], atol=1e-5)
    for number, picture in enumerate(tiny_pictures):
        hit = retriever.search(image=picture, k=1)[0]
        assert (hit.id, hit.caption, hit.modality) == (f"{number}.png", "abcdef"[number], "image")
        assert hit.score == pytest.approx(1, abs=1e-5)
    weighted = 0.3 * texts[0] + 0.7 * images[2]
    expected = torch.nn.functional.normalize(weighted, dim=0) @ images.T
    hits = retriever.search(text=tiny_captions[0], image=tiny_pictures[2], weight=0.3, k=6)
    assert np.allclose([hit.score for hit in hits], expected.sort(descending=True).values, atol=1e-5)


def test_compound_queries_are_normalised_sums(retriever, photos, tiny_pictures, tiny_captions):
    images, texts = retriever.model.encode_image(tiny_pictures), retriever.model.encode_text(tiny_captions)
    sums = {
        texts[0] + texts[1] - 0.5 * texts[2]: {"text": tiny_captions[0]}
        | {"plus": [tiny_captions[1]], "minus": [(tiny_captions[2], 0.5)]},
        images[3] + 2 * images[1] - texts[0]: {"image": photos[3]}
        | {"plus": [(tiny_pictures[1], 2)], "minus": tiny_captions[0]},
        texts[1] + images[0]: {"plus": [tiny_captions[1], photos[0]]},
        images[2] - images[4]: {"like": "2.png", "minus": [photos[4]]},
    }
    for vector, query in sums.items():
        cosines = torch.nn.functional.normalize(vector, dim=0) @ images.T
        expected = [n for n in cosines.argsort(descending=True).tolist() if f"{n}.png" != query.get("like")]
        hits = retriever.search(**query, k=6)
        assert [hit.id for hit in hits] == [f"{n}.png" for n in expected]
        assert np.allclose([hit.score for hit in hits], cosines[expected], atol=1e-5)


def test_an_item_is_a_query_and_no_hit_of_itself(retriever, tiny_pictures):
    by_picture = retriever.search(image=tiny_pictures[2])
    assert by_picture[0].id == "2.png"
    assert [hit.id for hit in retriever.search(like="2.png")] == [hit.id for hit in by_picture[1:]]
    assert len(retriever.search(like="2.png", k=2)) == 2
    assert retriever.search(like=Path("2.png")) == retriever.search(like="2.png")
    assert retriever.index.delete("3.png") == 1  # one name, not five of a letter
    for wrong, said in [
        ({"like": "3.png"}, "no item with the id '3.png'"),
        ({"like": "2.pgn"}, "did you mean '2.png'"),
        ({"like": 2}, "named by its id, which is a text, or by its path, not by 2"),
        ({"like": "2.png", "text": "a"}, "like is a query of its own"),
        ({"text": "a", "minus": ["a"]}, "cancel each other"),
        ({"minus": ["a"]}, "a text, an image, or both"),
        ({"text": "a", "plus": [("b", 0)]}, "a number above 0"),
    ]:
        with pytest.raises(ValueError, match=said):
            retriever.search(**wrong)


def test_conditions_come_before_the_ranking(retriever, photos, tiny_captions):
    retriever.index.add(
        retriever.index.vectors(range(6)), [{"id": f"copy-{n}", "size": n, "path": f"/a/{n}.jpg"} for n in range(6)]
    )
    everything = [hit.id for hit in retriever.search(text=tiny_captions[0], k=12) if hit.id.startswith("copy")]
    wanted = [name for name in everything if int(name[-1]) >= 2]
    assert [hit.id for hit in retriever.search(text=tiny_captions[0], k=3, where="size in (2, 3, 4, 5)")] == wanted[:3]
    assert {hit.id for hit in retriever.search(text="a", where="size > 1", path="a/[34].jpg")} == {"copy-3", "copy-4"}
    assert {hit.id for hit in retriever.search(like="copy-3", path="a/[34].jpg")} == {"copy-4"}
    with pytest.raises(ValueError, match="no field 'width'"):
        retriever.search(text="a", where="width > 1")


def test_it_is_saved_opened_and_goes_on(retriever, tiny_folder, tmp_path, tiny_pictures, tiny_captions):
    expected = retriever.search(text="a dog")
    retriever.save(tmp_path / "index")
    other = Retriever.open(tmp_path / "index")
    assert other.search(text="a dog") == expected
    other.add_images(tiny_pictures[0].rotate(90))
    other.add_texts(tiny_captions)
    other = Retriever.from_pretrained(tiny_folder, tmp_path / "index")
    assert len(other.index) == 13 and "image-0" in other.index.column("id")
    hit = other.search(image=tiny_pictures[1], k=1, among="text")[0]
    assert hit.modality == "text" and hit.caption in tiny_captions
    assert {hit.modality for hit in other.search(text="a dog", k=13, among="image")} == {"image"}
    other.index.delete(["image-0", "text-1"])
    other.add_texts("one more")  # a free name, never one that would replace another
    assert len(other.index) == 12


def test_another_working_folder_changes_nothing(retriever, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    retriever.save("index")
    monkeypatch.chdir("elsewhere")
    retriever.add_texts("a dog")
    assert len(Retriever.open(tmp_path / "index").index) == 7 and list(Path().iterdir()) == []


def test_other_weights_are_refused(retriever, make_tiny_model, tiny_processor, tmp_path):
    retriever.save(tmp_path / "index")
    with pytest.raises(IndexFolderError, match="was made with .* not with .*another index"):
        Retriever.open(tmp_path / "index", make_tiny_model(seed=1), processor=tiny_processor)
    Retriever.open(tmp_path / "index", retriever.model, processor=tiny_processor)
    memory = Retriever(make_tiny_model(), tiny_processor)  # the same weights, from nowhere
    assert fingerprint(memory.model)["digest"] == fingerprint(retriever.model)["digest"]
    memory.save(tmp_path / "nameless")
    with pytest.raises(ValueError, match="does not say where its model is"):
        Retriever.open(tmp_path / "nameless")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Retriever.from_pretrained("./nowhere")


@pytest.fixture
def hashed(monkeypatch):
    """How many times the weights of a model were hashed."""
    monkeypatch.setattr(remembered, "SETTLED_NS", 0)  # the model was written a moment ago
    calls, real = [], load_encoder.weights_digest
    monkeypatch.setattr(load_encoder, "weights_digest", lambda model: (calls.append(1), real(model))[1])
    return calls


def test_the_weights_of_an_unchanged_folder_are_hashed_once(retriever, hashed, tmp_path, tiny_folder, make_tiny_model):
    copy = shutil.copytree(tiny_folder, tmp_path / "model")
    retriever.save(tmp_path / "index")
    for _ in range(3):
        assert Retriever.open(tmp_path / "index", copy).made_by == fingerprint(retriever.model) | {"id": str(copy)}
    assert len(hashed) == 1
    Retriever.open(tmp_path / "index", copy, local_files_only=True)
    assert len(hashed) == 1
    with pytest.raises(IndexFolderError, match="another index"):
        Retriever.open(tmp_path / "index", copy, dtype=torch.bfloat16)
    make_tiny_model(seed=1).save_pretrained(copy)
    with pytest.raises(IndexFolderError, match="same name, other weights|another index"):
        Retriever.open(tmp_path / "index", copy)
    assert len(hashed) == 3


def test_what_was_trained_since_it_was_loaded_does_not_pass_for_its_folder(retriever, hashed, tmp_path, tiny_folder):
    retriever.save(tmp_path / "index")
    changed = Retriever.from_pretrained(tiny_folder)
    with torch.no_grad():
        changed.model.text_norm.weight.add_(1)
    with pytest.raises(IndexFolderError, match="same name, other weights"):
        Retriever.open(tmp_path / "index", changed.model)


def test_the_default_of_the_cut_off_is_the_calibrated_one_for_texts_alone(retriever, tiny_pictures):
    assert retriever.chosen_cutoff().cosine is None
    retriever.index.note(cutoff={"text": 0.25})
    assert retriever.chosen_cutoff().cosine == 0.25 and retriever.chosen_cutoff(image=tiny_pictures[0]).cosine is None
    assert (
        retriever.chosen_cutoff(compound=True).cosine is None
        and retriever.chosen_cutoff(cutoff=0.1, compound=True).cosine == 0.1
    )
    retriever.index.note(cutoff={"text": 2.0})
    assert retriever.search(text="a") == [] and len(retriever.search(text="a", plus=["b"])) == 6
    assert retriever.search(text="a", plus=["b"], cutoff=2.0) == []
    assert (
        retriever.chosen_cutoff(cutoff=None).cosine is None
        and retriever.chosen_cutoff(tiny_pictures[0], 0.5).cosine == 0.5
    )


@pytest.fixture
def model_with_cutoff(make_tiny_model):
    """A function of a cosine: a model whose configuration has it as the default cut-off."""

    def make(cosine):
        facts = {"rejected": 0.95, "kept": 0.8, "images": 300, "captions": 600, "queries": 140}
        return make_tiny_model(text_cutoff=facts | {"cosine": cosine})

    return make


def test_a_model_brings_a_cut_off_that_the_index_and_the_caller_overrule(
    model_with_cutoff, tiny_processor, tiny_pictures, caplog
):
    retriever = Retriever(model_with_cutoff(0.999), tiny_processor)
    retriever.add_images(tiny_pictures)
    assert retriever.chosen_cutoff() == Cutoff(0.999, "model") and retriever.search(text="a dog") == []
    assert "no hit reaches the cut-off 0.999 (the model's default" in caplog.text
    assert len(retriever.search(text="a dog", cutoff=None)) == len(retriever.search(text="a", plus=["b"])) == 6
    assert len(retriever.search(image=tiny_pictures[0])) == 6
    retriever.index.note(cutoff={"text": -1.0})
    assert retriever.chosen_cutoff() == Cutoff(-1.0, "index") and len(retriever.search(text="a dog")) == 6
    assert retriever.chosen_cutoff(cutoff=0.5) == Cutoff(0.5)
    weak = Retriever(model_with_cutoff(None), tiny_processor)
    assert weak.chosen_cutoff() == Cutoff(None) == Cutoff(None, "given")


def test_the_cut_off_of_a_model_is_one_of_whole_vectors_in_any_type(model_with_cutoff, tiny_processor, tiny_pictures):
    model = model_with_cutoff(0.25)
    assert Retriever(model, tiny_processor, width=8).chosen_cutoff() == Cutoff(None)
    retriever = Retriever(model, tiny_processor, vectors="int8")
    retriever.add_images(tiny_pictures)
    assert retriever.chosen_cutoff() == Cutoff(0.25, "model")
    plain = Retriever(model, tiny_processor)
    plain.add_images(tiny_pictures)
    scores = [{hit.id: hit.score for hit in each.search(text="a", cutoff=None)} for each in (retriever, plain)]
    assert scores[0] == pytest.approx(scores[1], abs=0.005)  # so a cut-off means the same


def test_bad_pictures_are_reported_and_the_rest_is_added(tiny_folder, photos, tmp_path):
    (tmp_path / "torn.png").write_bytes(photos[0].read_bytes()[:80])
    retriever = Retriever.from_pretrained(tiny_folder)
    problems = retriever.add_images([photos[0], tmp_path / "torn.png", tmp_path / "absent.jpg", photos[1]])
    assert [problem["id"] for problem in problems] == [str(tmp_path / "torn.png"), str(tmp_path / "absent.jpg")]
    assert "does not decode" in problems[0]["problem"] and "no such file" in problems[1]["problem"]
    assert len(retriever.index) == 2
    assert retriever.add_images([tmp_path / "absent.jpg"]) and len(retriever.index) == 2


def test_a_text_that_names_a_file_is_a_text(retriever, photos):
    as_text = retriever.search(text=str(photos[0]), k=1)[0]
    assert as_text.score < retriever.search(image=photos[0], k=1)[0].score - 1e-3
    for wrong, said in ({}, "a text, an image, or both"), ({"text": "a", "weight": 2.0}, "weight"):
        with pytest.raises(ValueError, match=said):
            retriever.search(**wrong)
    with pytest.raises(ValueError, match="2 ids for 1 items"):
        retriever.add_images([photos[0]], ids=["a", "b"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ids": [7, 8]}, r"id 0 is 7, a int: make it a text"),
        ({"ids": ["a", "a"]}, "'a' is given twice"),
        ({"ids": ["a", None]}, "id 1 is None"),
        ({"captions": ["a boat", 3]}, "caption 1 is 3, a int"),
        ({"captions": []}, "0 captions for 2 items"),
        ({"captions": ["a", "\udcff"]}, "caption 1 is not Unicode text"),
    ],
)
def test_ids_and_captions_are_looked_at_before_anything_is_embedded(retriever, tiny_pictures, given, said, monkeypatch):
    monkeypatch.setattr("vsehub.search.retriever.embed_stream", None)
    with pytest.raises(ValueError, match=said):
        retriever.add_images(tiny_pictures[:2], **given)
    if "ids" in given:
        monkeypatch.setattr(retriever.encoder, "encode_text", None)
        with pytest.raises(ValueError, match=said):
            retriever.add_texts(["a dog", "a cat"], **given)


def test_ids_may_be_an_array_a_tuple_or_one_text(retriever, tiny_pictures):
    retriever.add_images(tiny_pictures[:2], ids=np.array(["x", "y"]), captions=np.array(["a boat", "a dog"]))
    retriever.add_images(tiny_pictures[2], ids="the one", captions=(None,))
    retriever.add_texts(np.array(["a dog", "a cat"]), ids=("p", "q"))
    retriever.add_texts("a boat", ids="boat")
    assert {"x", "y", "the one", "p", "q", "boat"} <= set(retriever.index.column("id"))


@pytest.mark.parametrize("thing", [None, 3, np.zeros((8, 8, 3), np.uint8), ["a.png"]], ids=type)
def test_what_is_no_picture_is_named_by_its_place(retriever, tiny_pictures, thing):
    with pytest.raises(TypeError, match=f"paths, PIL images and bytes; item 1 is a {type(thing).__name__}"):
        retriever.add_images([tiny_pictures[0], thing])
    assert len(retriever.index) == 6


def test_threads_that_add_pictures_replace_none_of_each_other(retriever, tiny_pictures, monkeypatch):
    meeting, chosen = threading.Barrier(2), retriever._free_names

    def met(kind, count):
        names = chosen(kind, count)
        if not meeting.broken and threading.current_thread() in threads:
            threads.discard(threading.current_thread())
            meeting.wait(20)  # until both have chosen names
        return names

    monkeypatch.setattr(retriever, "_free_names", met)
    both = [threading.Thread(target=retriever.add_images, args=(tiny_pictures[n : n + 2],)) for n in (0, 2)]
    threads = set(both)
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(retriever.index) == 10
    assert {f"image-{n}" for n in range(4)} <= set(retriever.index.column("id"))


def test_the_path_of_an_index_opens_it_and_is_no_model(retriever, tmp_path):
    retriever.save(tmp_path / "index")
    assert len(Retriever(retriever.model, retriever.processor, tmp_path / "index").index) == 6
    with pytest.raises(TypeError, match=r"VectorIndex.open\(folder\) opens an index"):
        VectorIndex(str(tmp_path / "index"))


def test_a_calibrated_search_may_find_nothing(retriever, photos, tiny_captions, tmp_path):
    retriever.save(tmp_path / "index")
    found = retriever.calibrate(
        photos, tiny_captions, off_topic=["the", "white street", "over"], reject_share=1.0, force=True
    )
    assert retriever.search(text="the") == [] and retriever.search(text="white street") == []
    assert len(retriever.search(text="the", cutoff=None)) == 6 and len(retriever.search(image=photos[0])) == 6
    assert Retriever.open(tmp_path / "index").index.cutoff == found
    told = retriever.calibrate(iter(photos), np.array(tiny_captions), off_topic=np.array([]), force=True)
    assert set(told) == {"text", "rejected", "kept", "pairs", "off_topic"}
    with pytest.raises(ValueError, match="no such file"):
        retriever.calibrate(["absent.png"], ["a"])


def test_a_cut_off_that_hides_most_right_answers_is_not_kept(retriever, photos, tiny_captions, monkeypatch):
    for kept, refused in (0.49, True), (0.5, False):
        facts = {"text": 0.25, "kept": kept, "rejected": 1.0, "pairs": 6, "off_topic": 6}
        monkeypatch.setattr("vsehub.search.retriever.calibrated_cutoff", lambda *args, facts=facts: facts)
        if refused:
            with pytest.raises(ValueError, match=r"would hide 51.0 % of the right answers and is not kept.*--force"):
                retriever.calibrate(photos, tiny_captions)
            assert retriever.index.cutoff is None
            assert retriever.calibrate(photos, tiny_captions, force=True) == facts == retriever.index.cutoff
            retriever.index.note(cutoff=None)
        else:
            assert retriever.calibrate(photos, tiny_captions) == facts == retriever.index.cutoff


def test_hostile_calls_say_what_is_wrong(retriever, tiny_pictures, tmp_path, tiny_folder):
    pictures, rows = tiny_pictures[:2], len(retriever.index)
    (tmp_path / "torn").mkdir()
    for path in tiny_folder.iterdir():
        if path.is_file():
            (tmp_path / "torn" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "torn" / "tokenizer.json").write_text('{"half')
    for call, said in [
        (lambda: retriever.search(text="a", cutoff=float("nan")), "NaN"),
        (lambda: retriever.search(text="a", k=2.5), "whole number"),
        (lambda: retriever.search(text="a", cutoff="0.3"), "the cut-off is the text '0.3'"),
        (lambda: Retriever("org/model"), "org/model is the name of a model, not a model: load it with from_pretrained"),
        (lambda: retriever.search(text="a", among="pictures"), "among is"),
        (lambda: retriever.search(text="\udcff"), "not Unicode"),
        (lambda: retriever.add_images(pictures, batch_size=0), "at least 1"),
        (lambda: retriever.model.encode_text(["a"], -1, retriever.processor), "batch_size must be at least 1"),
        (lambda: retriever.calibrate([], []), "owners must number"),
        (lambda: retriever.calibrate(pictures, ["a", "b"], owners=[0, -1]), "owners must number"),
        (lambda: retriever.calibrate(pictures, ["a", "b"], owners=[0]), "owners must number"),
        (lambda: Retriever.from_pretrained(tiny_folder / "config.json"), "is a file: name the folder"),
        (lambda: Retriever.from_pretrained(tmp_path / "torn"), "torn is not a complete model"),
        (lambda: Retriever.from_pretrained(None), "NoneType, which does not embed both images and texts"),
    ]:
        with pytest.raises(ValueError, match=said):
            call()
    assert len(retriever.index) == rows


def test_encoded_pictures_in_memory_are_added(retriever, photos):
    problems = retriever.add_images([photos[0].read_bytes(), b"no picture"])
    assert [problem["id"] for problem in problems] == ["image-1"]
    assert {hit.id for hit in retriever.search(image=photos[0], k=2)} == {"0.png", "image-0"}


def test_the_width_of_an_index_is_that_of_its_queries(tiny_folder, photos, tiny_pictures, tiny_captions, tmp_path):
    narrow = Retriever.from_pretrained(tiny_folder, width=5)
    narrow.add_images(photos)
    narrow.save(tmp_path / "narrow")
    opened = Retriever.open(tmp_path / "narrow")
    assert opened.encoder.dimension == 5 and opened.index.model["width"] == 5
    sides = (opened.model.encode_text(tiny_captions[:1]), opened.model.encode_image(tiny_pictures))
    text, images = (torch.nn.functional.normalize(side[:, :5], dim=-1) for side in sides)
    scores = [hit.score for hit in opened.search(text=tiny_captions[0], k=6)]
    assert np.allclose(scores, (images @ text[0]).sort(descending=True).values, atol=1e-5)
    with pytest.raises(IndexFolderError, match="holds the first 5 numbers of each embedding, and the first 7 numbers"):
        Retriever.open(tmp_path / "narrow", width=7)
    whole = Retriever.from_pretrained(tiny_folder)
    with pytest.raises(IndexFolderError, match="holds the first 5 numbers of each embedding, and all numbers"):
        opened.index.check_model(whole.made_by)
    whole.add_images(photos)
    whole.save(tmp_path / "whole")
    with pytest.raises(IndexFolderError, match="holds all numbers of each embedding, and the first 5 numbers"):
        Retriever.open(tmp_path / "whole", width=5)
