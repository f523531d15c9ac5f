"""The model card: what it says, what the Hub reads of it, and that no name can break either."""

import math
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from vsehub.hub_cards.markdown import one_line, public_name
from vsehub.hub_cards.model_card import write_model_card

HOSTILE = [
    "user/plain-name_1.0",
    "a `code` b ``two`` c ```three```",
    "```\n# not a heading\n```",
    "a | b || c \\| d \\",
    "---",
    "a\n---\nb",
    "a\r\n---\r\nlicense: mit\r\n---\r\n",
    "&anchor *alias <<: !!python/object/apply:os.system",
    "{key: value, [list]} # comment",
    "'single' \"double\" \\n",
    "yes",
    "null",
    "1e3",
    "@at %percent !bang ?question : colon - dash",
    "<script>alert(1)</script>",
    "<!-- comment",
    "a </td></tr> <img src=x onerror=y>",
    "{{ 7 * 7 }} {% raw %} {# hidden #}",
    "{name} {0} %s ${HOME}",
    "[link](http://example.org) ![image](x.png) <http://example.org>",
    "**bold** __bold__ ~~gone~~ *_x_* $x^2$ $$y$$",
    "# heading\n## heading",
    "tab\tand\x00zero\x1bescape\x85next\u2028line",
    "right\u202eto left \u2066isolate",
    "日本語 naïve Ωmega 🦜",
    "lone \ud800 surrogate",
    "x" * 3000,
    "&amp; &lt;b&gt; &#124;",
    "[^1]: note\n\n    indented code",
    "/home/someone/models/name",
    "../outside",
]
TITLES = ["Use", "Results", "Training", "Limits"]
FOLDED = ["Other ways to load it", "Architecture and files", "All figures", "More examples", "Licences"]
FOLDED += ["Citation and versions"]
MARKUP = {"<details>", "</details>", *(f"<summary>{title}</summary>" for title in FOLDED)}  # all HTML of a card


def write(folder, model, **changes):
    facts = {
        "name": "user/model",
        "results": [{"dataset": "Flickr30K", "split": "test", "metrics": {"rsum": 523.456}}],
        "training": {"steps": 100},
    }
    return write_model_card(folder, model=model, **(facts | changes))


def parse(path):
    """The card's metadata, and its Markdown as tokens."""
    markdown_it = pytest.importorskip("markdown_it")
    card = ModelCard.load(path)
    return card, markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(card.text)


def texts(tokens, kind):
    """What is shown inside every token of a kind: headings, table cells, ..."""
    opened = [row for row, token in enumerate(tokens) if token.type == f"{kind}_open"]
    return ["".join(child.content for child in tokens[row + 1].children) for row in opened]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_breaks_the_metadata_or_a_table(tmp_path, tiny_model, text):
    shown, public = one_line(text), public_name(text)
    row = {"dataset": text, "dataset_id": text, "split": text, "protocol": text, "selected": text, "seed": text}
    facts = {"base_models": [text], "datasets": {text: text}, "license": text, "languages": ["en", text]}
    evaluation = {**row, "command": text, "metrics": {text: 1.5, "rsum": 523.456}}
    example = {"src": "a.jpg", "labels": [text, "a, b"], "output": [{"label": text, "score": 0.5}]}
    facts |= {"name": text, "results": [evaluation], "training": {text: text}, "examples": [example]}
    card, tokens = parse(write(tmp_path, tiny_model, **facts))

    assert card.data.model_name == shown and card.data.language == ["en", shown]
    assert {result.dataset_name for result in card.data.eval_results} == {public}
    assert [result.metric_value for result in card.data.eval_results] == [1.5, 523.46]
    if card.data.license == "other":
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", card.data.license_name)
    else:
        assert card.data.license == shown
    for ids in (card.data.base_model, card.data.datasets):  # an id, or nothing
        assert ids is None or ids == [text]

    headings = texts(tokens, "heading")
    assert headings == [shown, *TITLES]
    cells = texts(tokens, "td")
    assert len(cells) == 2 * 6 + 5 * 2
    assert card.data.widget[0]["candidate_labels"] == f"{shown.replace(',', ';')}, a; b"
    assert cells[12:14] == [public, shown] and cells[15:17] == ["1.5", ""] and cells[17:19] == [public, shown]
    told = texts(tokens, "paragraph")
    assert f"{shown}: {shown}" in told and f"{shown.replace(',', ';')} (0.50)" in told
    note = f"{public}, split {shown}; {shown}; checkpoint chosen by {shown}; seed {shown}. Per cent"
    assert any(line.startswith(note) for line in told)
    fences = [token.content for token in tokens if token.type == "fence"]
    assert len(fences) == 4 and len(fences[2].splitlines()) == max(1, len(text.splitlines()))
    for token in tokens:
        assert not any("html" in child.type for child in token.children or [])
        if token.type == "html_block":
            assert set(token.content.split("\n")) - {""} <= MARKUP


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_card_that_is_loaded_and_saved_again_stays_as_it_is(tmp_path, tiny_model, text):
    path = write(tmp_path, tiny_model, name=text, license=text)
    before = path.read_text(encoding="utf-8")
    card = ModelCard.load(path)
    card.save(path)
    assert yaml.safe_load(before.split("\n---\n")[0][4:]) == card.data.to_dict()
    assert path.read_text(encoding="utf-8").strip() == before.strip()


def test_metadata_are_what_the_hub_reads(tmp_path, tiny_model):
    results = [{"dataset": "Flickr30K", "dataset_id": "nlphuji/flickr30k", "split": "test", "metrics": {"rsum": 1}}]
    bases, data = ["google/vit-base-patch16-224", str(tmp_path)], {"nlphuji/flickr30k": None, "My own photos": "mine"}
    path = write(tmp_path, tiny_model, results=results, base_models=bases, datasets=data, license="apache-2.0")
    found = ModelCard.load(path).data.to_dict()
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "zero-shot-image-classification"
    assert {"image-text-retrieval", "cross-modal-retrieval", "custom_code"} <= set(found["tags"])
    assert found["base_model"] == bases[:1] and found["base_model_relation"] == "finetune"
    assert found["datasets"] == ["nlphuji/flickr30k"] and found["license"] == "apache-2.0"
    assert found["model-index"][0]["results"][0]["dataset"]["type"] == "nlphuji/flickr30k"


def test_a_licence_of_another_name_is_an_id_to_the_hub_and_a_name_to_readers(tmp_path, tiny_model):
    path = write(tmp_path, tiny_model, license="Weights of X, version 1.0 (no sale)")
    found = ModelCard.load(path).data
    assert (found.license, found.license_name) == ("other", "weights-of-x-version-1.0-no-sale")
    assert "- Weights: Weights of X, version 1.0 (no sale)." in path.read_text()


def test_the_tag_of_sentence_transformers_needs_its_files(tmp_path, tiny_model):
    assert "sentence-transformers" not in ModelCard.load(write(tmp_path, tiny_model)).data.tags
    (tmp_path / "modules.json").write_text("[]")
    assert "sentence-transformers" in ModelCard.load(write(tmp_path, tiny_model)).data.tags


def test_the_table_has_directions_and_intervals_of_the_test_split_where_there_is_one(tmp_path, tiny_model):
    recalls = {f"{way}_recall@{k}": k + 0.04 for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    row = {"dataset": "D", "split": "validation", "metrics": {**recalls, "rsum": 32.0}, "seed": 3}
    row["intervals"] = {"image_to_text_recall@1": (0.51, 2.25)}
    text = write(tmp_path, tiny_model, results=[row]).read_text()
    assert "D, split validation; seed 3. Per cent, with 95 % intervals over images." in text
    assert "| image-to-text | 1.0 (0.51 to 2.25) | 5.0 | 10.0 |\n| text-to-image | 1.0 | 5.0 | 10.0 |" in text
    assert "It was not measured on a test split" in text and "not stated" not in text.partition("Licences")[0]
    test = {**row, "split": "test", "metrics": {"text_to_image_recall@1": 7.0}, "intervals": {}}
    text = write(tmp_path, tiny_model, results=[row, test]).read_text()
    assert "D, split test; seed 3. Per cent." in text and "| text-to-image | 7.0 |  |  |" in text
    assert "It was not measured" not in text and "| D | validation | rsum | 32.0 |  |" in text


def test_the_first_example_is_shown_and_the_others_are_folded(tmp_path, tiny_model):
    output = [{"label": "a dog", "score": 0.897}, {"label": "a cat", "score": 0.1}]
    examples = [{"src": f"{name}.jpg", "labels": ["a dog", "a cat"], "output": output} for name in "ab"]
    text = write(tmp_path, tiny_model, examples=examples).read_text()
    first, _, folded = text.partition("## Use")
    assert "![a.jpg](a.jpg)" in first and "1. a dog (0.90)\n2. a cat (0.10)" in first
    assert "![b.jpg]" not in first and "![b.jpg](b.jpg)" in folded


def test_the_card_says_what_the_default_cut_off_does(tmp_path, tiny_model):
    assert "cut-off" not in write(tmp_path, tiny_model).read_text()
    facts = {"cosine": 0.25, "rejected": 0.95, "kept": 0.81, "images": 1000, "captions": 5000, "queries": 140}
    for cosine, said in ((0.25, "search: cosine 0.250. It hides all from 95 %"), (None, "No default cut-off for text")):
        tiny_model.config.text_cutoff = facts | {"cosine": cosine}
        lines = [line for line in write(tmp_path, tiny_model).read_text().splitlines() if "cut-off" in line]
        assert len(lines) == 1 and said in lines[0] and "81 % of the right pictures" in lines[0]
        assert lines[0].startswith("- ") and "140 queries, 1,000 validation pictures" in lines[0]


def test_what_is_unknown_is_said_to_be_unknown(tmp_path, tiny_model):
    text = write(tmp_path, tiny_model, results=[], training={}, datasets=["COCO"]).read_text()
    assert "More Information Needed" not in text
    for sentence in (
        "Nothing was measured.",
        "The authors do not say how it was trained.",
        "the licence of these weights is not stated",
        "Data, COCO: the licence of this data is not stated.",
    ):
        assert sentence in text
    assert "neither the training data nor their licence is stated" in write(tmp_path, tiny_model).read_text()


def test_the_card_says_how_a_figure_came_about(tmp_path, tiny_model):
    row = {"dataset": "COCO", "split": "test", "metrics": {"image_to_text_recall@1": 61.23456}, "seed": 3}
    row["intervals"] = {"image_to_text_recall@1": (60.0, 62.5)}
    row |= {"protocol": "5-fold 1K", "selected": "best rsum on val", "command": "vsehub evaluate run --split test"}
    text = write(tmp_path, tiny_model, results=[row], training={"recipe": "sha256:abc"}).read_text()
    assert "| COCO | test | image-to-text R@1 | 61.235 | 60 to 62.5 |" in text
    assert "COCO, split test; 5-fold 1K; checkpoint chosen by best rsum on val; seed 3. Per cent" in text
    assert "```bash\nvsehub evaluate run --split test\n```" in text
    assert "\n- recipe: sha256:abc\n" in text
    assert "2503.14953" in text and "ICCV" in text and "trust_remote_code=True" in text


def test_a_path_on_this_machine_stays_on_it(tmp_path, tiny_model):
    row = {"dataset": str(tmp_path / "my_data"), "split": "test", "metrics": {"rsum": 1.0}}
    facts = {"base_models": [str(tmp_path / "my_tower"), None, ""], "datasets": [str(tmp_path)], "results": [row]}
    path = write(tmp_path, tiny_model, **facts)
    text = path.read_text()
    assert str(tmp_path) not in text and "my\\_tower." in text and "| my\\_data |" in text
    assert ModelCard.load(path).data.base_model is None


def test_every_code_file_of_the_folder_is_named(tiny_folder, tmp_path, tiny_model):
    tiny_model.save_pretrained(tmp_path)
    text = write(tmp_path, tiny_model).read_text()
    assert all(f"`{path.name}`" in text for path in tmp_path.glob("*.py"))


@pytest.mark.parametrize("name", ["", " \n", "\u202e"])
def test_a_card_without_a_name_is_refused(tmp_path, tiny_model, name):
    with pytest.raises(ValueError, match="needs a name"):
        write(tmp_path, tiny_model, name=name)


@pytest.mark.parametrize("value", [math.nan, math.inf, "84.1"])
def test_a_figure_that_is_none_is_refused(tmp_path, tiny_model, value):
    with pytest.raises(ValueError, match=r"results\[0\]: rsum is"):
        write(tmp_path, tiny_model, results=[{"dataset": "COCO", "split": "test", "metrics": {"rsum": value}}])


@pytest.mark.parametrize("key", ["dataset", "split", "metrics"])
def test_a_figure_without_its_data_is_refused(tmp_path, tiny_model, key):
    row = {"dataset": "COCO", "split": "test", "metrics": {"rsum": 1.0}}
    del row[key]
    with pytest.raises(ValueError, match=r"results\[0\] needs dataset, split and metrics"):
        write(tmp_path, tiny_model, results=[row])


def test_a_system_without_a_paper_is_refused(tmp_path, tiny_model):
    tiny_model.config.model_type = "unheard_of"
    with pytest.raises(ValueError, match=r"unheard_of\.yaml"):
        write(tmp_path, tiny_model)


def test_an_example_names_a_picture_of_the_folder(tmp_path, tiny_model):
    for wrong in ({"src": "../a.jpg", "labels": ["a"]}, {"src": "", "labels": ["a"]}, {"src": "a.jpg", "labels": []}):
        with pytest.raises(ValueError, match="examples"):
            write(tmp_path, tiny_model, examples=[wrong])
