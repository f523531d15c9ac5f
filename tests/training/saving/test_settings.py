"""The record of a stage's folder: its settings, how they are compared, and caches of other bands."""

import json
import shutil

import pytest
from datasets import Dataset
from small_runs import SMALL

from vsehub.training.d2s_stages import STAGES
from vsehub.training.flags.arguments import D2S_ARGUMENTS, PIR_ARGUMENTS
from vsehub.training.pir_stages import STAGES as PIR_STAGES
from vsehub.training.saving.settings import (
    EARLIER,
    RECORD,
    ROWS,
    Record,
    digests_of,
    forget_caches_of_other_bands,
    read_record,
    refuse_other_settings,
    run_of,
    write_record,
)
from vsehub.training.stage_arguments import read_stages


def settings(*flags, rows=24, names=STAGES, kinds=D2S_ARGUMENTS):
    stages = read_stages(["--data", "org/pairs", *SMALL[-16:], *flags], names, kinds)
    return list(stages.values())[-1].settings(rows)


def refusal(then, now, finished=False):
    try:
        refuse_other_settings("run", Record("a", EARLIER, then), now, finished)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", "3"], ["--data_seed", "3"], ["--learning_rate", "0.5"], ["--gradient_accumulation_steps", "2"],
        ["--data", "org/others"], ["--vision", "org/tower"], ["--text", "org/tower"], ["--margin", "0.3"],
        ["--image_augmentation", "none"], ["--bands", "3", "2", "1"], ["--max_train_images", "9"], ["--lora", "True"],
        ["--train_split", "more"], ["--per_device_train_batch_size", "4"], ["--optim", "sgd"],
        ["--metric_for_best_model", "eval_mean_recall"], ["--lr_scheduler_type", "cosine"],
        ["--train_sampling_strategy", "sequential"],
    ],
    ids=lambda flags: flags[0],
)  # fmt: skip
def test_what_weights_follow_from_is_compared(flags):
    told = refusal(settings(), settings(*flags))
    assert f"{flags[0]} was " in told and told.count(" was ") == 2 and "\n" not in told
    assert "name another --output_dir" in told


@pytest.mark.parametrize(
    "flags",
    [
        ["--output_dir", "elsewhere"], ["--logging_steps", "7"], ["--eval_steps", "1"], ["--save_steps", "4"],
        ["--dataloader_num_workers", "2"], ["--bf16", "True"], ["--resume_from_checkpoint", "true"],
        ["--on_bad_sample", "quarantine"], ["--chunk_size", "4"], ["--save_total_limit", "3"], ["--report_to", "none"],
        ["--per_device_eval_batch_size", "3"], ["--card_images", "2"], ["--run_name", "b"],
    ],
    ids=lambda flags: flags[0],
)  # fmt: skip
def test_what_they_do_not_follow_from_may_change(flags):
    assert refusal(settings(), settings(*flags), finished=True) == ""


def test_a_prior_does_not_go_on_with_other_smoothing():
    prior = {"names": PIR_STAGES, "kinds": PIR_ARGUMENTS}
    then, now = (settings("--stages", "prior", "--label_smoothing_factor", value, **prior) for value in "01")
    assert "--label_smoothing_factor was 0.0, and is 1.0" in refusal(then, now)


def test_a_run_may_be_made_longer_until_it_is_finished():
    for flags in (["--max_steps", "9"], ["--max_steps", "-1", "--num_train_epochs", "9"]):
        assert refusal(settings(), settings(*flags)) == ""
        assert f"{flags[-2]} was " in refusal(settings(), settings(*flags), finished=True)


def test_rows_are_counted_and_settings_of_other_versions_are_not_compared():
    assert "(the number of training rows was 24, and is 25)" in refusal(settings(), settings(rows=25))
    assert refusal({**settings(), "removed": 1}, {**settings(), "new": 1}) == ""
    assert refusal(settings(), settings(rows=None)) == "" and ROWS not in settings(rows=None)
    assert " more)" in refusal({str(n): 0 for n in range(20)}, {str(n): 1 for n in range(20)})


def test_a_digest_follows_texts_ids_and_their_order():
    def digest(ids, texts):
        return digests_of(Dataset.from_dict({"image_id": ids, "captions": texts}), "captions", "the captions")

    texts = [["a", "b"], ["c"]]
    found = digest(["1", "2"], texts)
    assert found == digest(["1", "2"], texts) and list(found) == ["the digest of the captions"]
    others = [digest(["1", "3"], texts), digest(["1", "2"], texts[::-1]), digest(["1", "2"], [["a"], ["b", "c"]])]
    others += [digest(["1", "2"], each) for each in ([["ab"], ["c"]], [["a", None], ["c"]], [["a", ""], ["c"]])]
    assert len({*map(str, others), str(found)}) == 7
    part = Dataset.from_dict({"image_id": ["0", "1", "2"], "captions": [["z"], *texts]}).select(range(1, 3))
    assert digests_of(part, "captions", "the captions") == found
    assert "(the digest of the captions was " in refusal({**settings(), **found}, {**settings(), **others[0]})


def test_systems_have_their_own_settings():
    assert "contrast" in settings(names=PIR_STAGES, kinds=PIR_ARGUMENTS) and "align" in settings()


def test_a_path_is_one_from_anywhere_and_may_have_moved(tmp_path, monkeypatch):
    data = tmp_path / "here" / "pairs"
    data.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    before = settings("--data", "here/pairs")
    monkeypatch.chdir(tmp_path / "here")
    assert refusal(before, settings("--data", "./pairs")) == ""
    shutil.copytree(data, tmp_path / "there" / "pairs")
    assert "--data was " in refusal(before, settings("--data", str(tmp_path / "there" / "pairs")))
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(data)
    assert refusal(before, settings("--data", str(tmp_path / "there" / "pairs"))) == ""


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"run": 3, "after": "", "settings": {}}', "[" * 9999])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(ValueError, match="settings.json: not the settings of a stage"):
        read_record(tmp_path)
    assert run_of(tmp_path) is None


def test_a_record_is_read_as_it_was_written(tmp_path):
    assert read_record(tmp_path) is None and run_of(tmp_path) == EARLIER
    record = Record("a", "b", settings())
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record and run_of(tmp_path) == "a"


def test_caches_of_other_bands_go_and_all_others_stay(tmp_path):
    def left():
        return {path.name for path in tmp_path.iterdir()} - {"bands.json"}

    for name in ("vision-1", "scene-1", "text-1"):
        (tmp_path / name).mkdir()
    forget_caches_of_other_bands(tmp_path, None)  # of an earlier version
    forget_caches_of_other_bands(tmp_path, None)
    assert left() == {"vision-1", "scene-1", "text-1"}
    forget_caches_of_other_bands(tmp_path, [4, 3, 2])
    assert left() == {"text-1"} and json.loads((tmp_path / "bands.json").read_text()) == [4, 3, 2]
    (tmp_path / "vision-2").mkdir()
    forget_caches_of_other_bands(tmp_path, [4, 3, 2])
    assert left() == {"text-1", "vision-2"}
    (tmp_path / "bands.json").write_text("[")
    forget_caches_of_other_bands(tmp_path, [4, 3, 2])
    assert left() == {"text-1"}
