"""A server's faults have owners: the request's stop the run, the image's are reported."""

import json

import pyarrow.parquet as parquet
import pytest
from caption_folder import assert_whole, rows_of
from chat_server import CAPTION, ask, image_of, last_error, message, one_picture
from PIL import Image

from vsehub.__main__ import main
from vsehub.data.captioning.request import CaptionRequest

SECRET = "The user wants a description, I see something red"


def refusal(code, text, **more):
    """An error of this status."""

    def answer(handler, body):
        handler.send(code, {"error": {"message": text, **more}})

    return answer


# --- What an answer holds ------------------------------------------------------------------------------------------

PARTS = [{"type": "text", "text": "A red boat lies"}, {"type": "text", "text": " on a calm lake."}]
GOOD = {
    "content": message(content=CAPTION),
    "parts": message(content=PARTS),
    "parts without spaces": message(
        content=[{"type": "text", "text": "A red boat"}, {"type": "text", "text": "lies on a calm lake"}, "."]
    ),
    "Mistral's thinking part": message(
        content=[
            {"type": "thinking", "thinking": [{"type": "text", "text": SECRET}]},
            {"type": "text", "text": CAPTION},
        ]
    ),
    "one part": message(content={"type": "text", "text": CAPTION}),
    "reasoning beside it": message(content=f"\n\n{CAPTION}", reasoning_content=SECRET, reasoning=SECRET),
    "reasoning inside it": message(content=f"<think>{SECRET}</think>{CAPTION}"),
    "reasoning without its opening": message(content=f"{SECRET}</think>{CAPTION}"),
    "special tokens": message(content=f"{CAPTION}<|im_end|>"),
    "an empty refusal": message(content=CAPTION, refusal="", tool_calls=[]),
}


@pytest.mark.parametrize("case", GOOD)
def test_the_caption_is_taken_from_every_form_of_answer(server, tmp_path, case):
    server.plan = lambda index, attempt: GOOD[case]
    assert ask(server, one_picture(tmp_path), tmp_path / "d.parquet") == 0
    assert [row["dense_text"] for row in rows_of(tmp_path / "d.parquet")] == [CAPTION]


BAD = {
    "null": (message(content=None), "empty answer"),
    "no content at all": (message(), "empty answer"),
    "null, refusal": (message(content=None, refusal="I can't help with faces."), "I can't help with faces."),
    "a refusal as a part": (message(content=[{"type": "refusal", "refusal": "No faces."}]), "declines: No faces."),
    "null, reasoning": (message("length", content=None, reasoning_content=SECRET), "nothing but reasoning"),
    "null, vLLM's newer name": (message(content=None, reasoning=SECRET), "nothing but reasoning"),
    "empty, cut": (message("length", content=""), "cut before the first word; raise --max_new_tokens"),
    "null, filtered": (message("content_filter", content=None), "withheld"),
    "null, a tool": (message("tool_calls", content=None, tool_calls=[{"id": "1"}]), "a call of a tool"),
    "thinking, cut": (message("length", content=f"<think>{SECRET}"), "ends inside the model's reasoning"),
    "thinking without marker, cut": (message("length", content=f"Okay, {SECRET}"), "reasoning, not a caption"),
    "one word": (message(content="Boat"), "an answer of 1 words"),
    "a loop": (message(content="a red boat " * 30), "only repeats itself"),
    "a number": (message(content=7), "malformed answer"),
    "an error in place of choices": (
        lambda handler, body: handler.send(200, {"error": {"message": "upstream failed", "code": 502}}),
        "upstream failed",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_an_answer_without_a_caption_is_reported_and_reasoning_is_stored_nowhere(
    server, folder, tmp_path, monkeypatch, case
):
    answer, words = BAD[case]
    server.plan = lambda index, attempt: answer if index == 4 else "good"
    options = ("--on_bad_sample", "quarantine", "--tries", 4)
    out = tmp_path / "d.parquet"
    code = ask(server, folder, out, *options)
    if "upstream" in words:  # a gateway without its model is no image's fault
        assert code == 2
        return
    assert code == 0
    (line,) = (tmp_path / "bad_samples.jsonl").read_text().splitlines()
    assert "04.png" in line and words in json.loads(line)["problem"]
    assert len(rows_of(out)) == 11 and server.attempts[4] <= 4
    assert SECRET not in line and SECRET.encode() not in out.read_bytes()


def test_once_reasoning_began_in_the_prompt_an_answer_that_was_cut_is_reasoning(server, folder, tmp_path):
    def plan(index, attempt):
        if index == 8:
            return message("length", content="Something red, a boat perhaps, or a car on a")
        return message(content=f"{SECRET}</think>this is picture {index}")

    server.plan = plan
    options = ("--on_bad_sample", "quarantine", "--concurrency", 1)
    assert ask(server, folder, tmp_path / "d.parquet", *options) == 0
    assert "ends inside" in (tmp_path / "bad_samples.jsonl").read_text()
    assert len(rows_of(tmp_path / "d.parquet")) == 11


def test_a_model_that_never_answers_with_a_caption_stops_the_run(server, folder, tmp_path, capsys):
    server.plan = lambda index, attempt: message(content="I don't see any image. Please upload the image.")
    assert ask(server, folder, tmp_path / "d.parquet", "--on_bad_sample", "quarantine") == 2
    error = last_error(capsys)
    assert "12 images in a row got no caption: the model is probably misconfigured" in error and "declines" in error


def test_short_captions_may_be_asked_for(server, tmp_path):
    server.plan = lambda index, attempt: message(content="Boat")
    assert ask(server, one_picture(tmp_path), tmp_path / "d.parquet", "--min_words", 1) == 0
    assert CaptionRequest(min_words=1).prompt_hash == CaptionRequest().prompt_hash


# --- Whose fault -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["error", "quarantine"])
@pytest.mark.parametrize("code", [400, 422])
def test_a_wrong_request_stops_the_run_with_the_servers_reason(server, folder, tmp_path, capsys, mode, code):
    text = "The model `vlm` does not exist."
    server.plan = lambda index, attempt: refusal(code, text)
    assert ask(server, folder, tmp_path / "d.parquet", "--on_bad_sample", mode) == 2
    error = last_error(capsys)
    assert text in error and f"HTTP {code}" in error and "--model" in error and ".png" not in error
    assert not (tmp_path / "d.parquet").exists() and not (tmp_path / "bad_samples.jsonl").exists()
    assert len(server.bodies) <= 8 + 1  # those on their way, and the plain picture


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_picture_that_is_refused_first_is_not_taken_for_a_wrong_request(server, folder, tmp_path, concurrency):
    bad = (0, 1)  # the first in order: deep/00.png, and the first of the top folder
    server.plan = lambda index, attempt: refusal(400, "cannot identify image") if index in bad else "good"
    options = ("--on_bad_sample", "quarantine", "--concurrency", concurrency)
    assert ask(server, folder, tmp_path / "d.parquet", *options) == 0
    assert len(rows_of(tmp_path / "d.parquet")) == 10
    report = (tmp_path / "bad_samples.jsonl").read_text().splitlines()
    assert len(report) == 2 and all("cannot identify image" in line for line in report)
    assert sum(server.attempts[index] for index in range(12)) == 12  # a refused picture is not asked for again


OPENAI = {"param": "max_tokens", "code": "unsupported_parameter", "type": "invalid_request_error"}
LIMITS = {
    "OpenAI": {
        "error": {
            "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            **OPENAI,
        }
    },
    "FastAPI": {
        "detail": [{"type": "extra_forbidden", "loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted"}]
    },
}


@pytest.mark.parametrize("case", LIMITS)
def test_max_completion_tokens_is_used_where_max_tokens_is_refused(server, folder, tmp_path, case):
    def answer(handler, body):
        if "max_tokens" in body:
            return handler.send(400, LIMITS[case])
        return handler.answer(f"this is picture {server.index_of(body)}")

    server.plan = lambda index, attempt: answer
    assert ask(server, folder, tmp_path / "d.parquet", "--concurrency", 1) == 0
    assert_whole(tmp_path / "d.parquet", folder)
    assert len(server.bodies) == 13 and all(body.get("max_completion_tokens") == 500 for body in server.bodies[1:])


def test_a_limit_that_is_only_too_high_is_the_requests_fault(server, folder, tmp_path, capsys):
    text = "'max_tokens' or 'max_completion_tokens' is too large: 500. The model's maximum is 100."
    server.plan = lambda index, attempt: refusal(400, text)
    assert ask(server, folder, tmp_path / "d.parquet") == 2
    assert "The model's maximum is 100" in last_error(capsys)


WORDS = {
    "413": (413, "Request Entity Too Large"),
    "OpenAI": (400, "Image too large. Please reduce its size."),
    "vLLM": (400, "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens."),
    "Anthropic": (400, "messages.0.content.0.image.source.base64: image exceeds 5 MB maximum: 9000000 bytes"),
    "dimensions": (400, "At least one of the image dimensions exceed max allowed size: 8000 pixels"),
    "llama.cpp": (400, "the request exceeds the available context size. try increasing the context size"),
    "Pillow": (400, "Image size (200000000 pixels) exceeds limit, could be decompression bomb DOS attack."),
}


@pytest.mark.parametrize("case", WORDS)
def test_a_picture_that_is_too_large_for_the_server_is_shrunk_and_asked_for_again(server, tmp_path, case):
    code, text = WORDS[case]
    sizes = []

    def answer(handler, body):
        sizes.append(image_of(body).size)
        refusal(code, text)(handler, body) if max(sizes[-1]) > 600 else handler.answer(CAPTION)

    server.plan = lambda index, attempt: answer
    root = one_picture(tmp_path, (3000, 1500))
    assert ask(server, root, tmp_path / "d.parquet", "--tries", 1) == 0
    assert sizes == [(2048, 1024), (1024, 512), (512, 256)]


def test_a_picture_that_stays_too_large_is_reported_and_a_server_that_takes_none_stops_the_run(
    server, folder, tmp_path, capsys
):
    Image.new("RGB", (1200, 900), (248, 248, 200)).save(folder / "zz.png")
    server.plan = lambda index, attempt: refusal(413, "too large") if index > 900 else "good"
    assert ask(server, folder, tmp_path / "d.parquet", "--on_bad_sample", "quarantine", "--concurrency", 1) == 0
    assert "zz.png" in (tmp_path / "bad_samples.jsonl").read_text() and len(rows_of(tmp_path / "d.parquet")) == 12
    server.plan = lambda index, attempt: refusal(413, "nothing above 1 kB")
    assert ask(server, folder, tmp_path / "e.parquet", "--on_bad_sample", "quarantine") == 2
    assert "nothing above 1 kB" in last_error(capsys)


def test_the_largest_side_may_be_set_and_belongs_to_the_job(server, tmp_path, capsys):
    root = one_picture(tmp_path, (3000, 1500))
    out = tmp_path / "d.parquet"
    server.plan = lambda index, attempt: message(content=CAPTION)
    assert ask(server, root, out, "--max_image_side", 500) == 0
    assert image_of(server.bodies[0]).size == (500, 250)
    assert ask(server, root, out, "--max_image_side", 900) == 2
    assert "was begun with max_image_side 500, this job has 900" in last_error(capsys)
    hashes = {CaptionRequest(max_image_side=side).prompt_hash for side in (None, 500, 900)}
    assert len(hashes) == 3
    assert main(["caption", str(root), "--model", "m", "--out", str(out), "--max_image_side", "3"]) == 2
    assert "--max_image_side: must be a whole number from 16" in last_error(capsys)


# --- What is printed and stored ------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://user:hunter2@h/v1", "http://h/v1?key=hunter2", "http://h/v1#hunter2"])
def test_a_secret_in_the_address_is_refused_and_not_printed(folder, tmp_path, capsys, url):
    assert main(["caption", str(folder), "--model", "m", "--out", str(tmp_path / "d.parquet"), "--api_base", url]) == 2
    error = last_error(capsys)
    assert "OPENAI_API_KEY" in error and "hunter2" not in error


def test_control_characters_reach_neither_the_table_nor_the_terminal(server, tmp_path, capfd):
    text = "A \x1b[31mred\x1b[0m boat\0 on\u202e a calm\r\nlake\x9b."
    server.plan = lambda index, attempt: lambda handler, body: handler.answer(text, model="served\x1b[2J\n\u202e1")
    root = one_picture(tmp_path)
    (root / "b\x1b[31m\nerror: forged.png").write_bytes((root / "a.png").read_bytes())
    assert ask(server, root, tmp_path / "d.parquet") == 0
    rows = rows_of(tmp_path / "d.parquet")
    assert {(row["dense_text"], row["revision"]) for row in rows} == {("A red boat on a calm\nlake.", "served 1")}
    server.plan = lambda index, attempt: refusal(400, "a\x1b[2Jb\nvsehub caption: error: forged")
    assert ask(server, root, tmp_path / "e.parquet", "--concurrency", 1) == 2
    server.plan = lambda index, attempt: message(content="\x1b]0;title\x07Boat")
    assert ask(server, root, tmp_path / "f.parquet", "--concurrency", 1) == 2
    printed = "".join(capfd.readouterr())
    assert "\x1b[2J" not in printed and "\x1b]" not in printed and "\u202e" not in printed
    assert not any(line.startswith(("error: forged", "vsehub caption: error: forged")) for line in printed.splitlines())
    assert parquet.read_schema(tmp_path / "d.parquet").names[0] == "image_id"
