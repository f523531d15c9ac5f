"""`vsehub caption`: the captioner that the flags describe, counts, interruptions."""

import pytest

from vsehub.__main__ import main
from vsehub.data.captioning.local_captioner import TransformersCaptioner
from vsehub.data.captioning.request import CaptionError
from vsehub.data.captioning.server_captioner import ServerCaptioner

NAME = "vsehub.data.captioning.caption_job.caption_images"
DONE = {"captions": 5, "truncated": 1, "bad": 2, "made": 3, "was_complete": False, "revisions": ["r1"]}
WORDS = ("caption", "photos", "--model", "m", "--out", "d.parquet")


def test_a_local_model_and_a_server_are_described_by_flags(vsehub, calls):
    made = calls(NAME, DONE)
    vsehub(*WORDS, "--batch_size", "4", "--dtype", "bf16", "--device", "cpu", "--top-p", "0.5", "--min_words", "2")
    vsehub(*WORDS, "--api_base", "http://h/v1", "--concurrency", "3", "--tries", "2", "--timeout", "9", "--quiet")
    (local, _), (server, _) = ((args[2], kwargs) for args, kwargs in made)
    assert isinstance(local, TransformersCaptioner) and isinstance(server, ServerCaptioner)
    assert (local.batch_size, local.dtype, local.device) == (4, "bfloat16", "cpu")
    assert (local.request.top_p, local.request.min_words) == (0.5, 2)
    assert (server.concurrency, server.tries, server.timeout) == (3, 2, 9)
    assert [kwargs["progress"] for _, kwargs in made] == [True, False]
    assert {args[:2] for args, _ in made} == {("photos", "d.parquet")}


def test_counts_are_printed_and_a_change_of_the_model_is_a_remark(vsehub, vsehub_json, calls, capsys):
    calls(NAME, DONE)
    assert vsehub(*WORDS) == "d.parquet: 5 captions (1 truncated), 2 bad samples; 3 made now\n"
    assert vsehub_json(*WORDS) == {"out": "d.parquet", **DONE}
    calls(NAME, {**DONE, "was_complete": True, "revisions": ["r1", "r\x1b[2J2"]})
    assert main([*WORDS]) == 0
    said = capsys.readouterr()
    assert (
        "complete already" in said.out
        and r"changed its model meanwhile, see column revision: r1, r\x1b[2J2" in said.err
    )


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(KeyboardInterrupt(), 130, "the same command continues from here"), (CaptionError("no answer"), 2, "no answer")],
)
def test_an_interruption_and_a_failure_are_one_line(error, status, said, monkeypatch, capsys):
    monkeypatch.delenv("VSEHUB_TRACEBACK", raising=False)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(NAME, fail)
    assert main([*WORDS]) == status
    line = capsys.readouterr().err
    assert line.startswith("vsehub caption: ") and said in line and len(line.splitlines()) == 1


def test_a_revision_of_a_server_is_refused(vsehub):
    assert "a server chooses the version of its model" in vsehub(
        *WORDS, "--api_base", "http://h/v1", "--revision", "r", status=2
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--concurrency 3", "--concurrency 3 has no effect without --api_base: add that, or leave it out"),
        ("--api_base http://h/v1 --batch_size 4", "--batch_size 4 has no effect beside --api_base"),
        ("--temperature 0 --top_p 0.5", "--top_p 0.5 has no effect beside --temperature 0"),
    ],
)
def test_a_flag_without_effect_is_refused(vsehub, flags, said):
    assert said in vsehub(*WORDS, *flags.split(), status=2)
