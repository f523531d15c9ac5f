"""Processes that load items: one that raises, dies or hangs ends the run in one line that names the sample."""

import os
import signal
import time

import pytest
from small_trainers import trainer_of
from torch.utils.data import _utils

from vsehub.training.inputs import pairs
from vsehub.training.processes import workers

NAME = r"row (\d+) \(scene-0-\1\)"


def spoil(monkeypatch, act):
    """Let every third picture do something else where items are loaded."""
    real = pairs.row_image

    def row_image(row):
        return act() if int(row["image_id"].rpartition("-")[2]) % 3 == 0 else real(row)

    monkeypatch.setattr(pairs, "row_image", row_image)


@pytest.fixture(autouse=True)
def no_long_farewell(monkeypatch):
    """A loader waits this many seconds for each process of its own that does not end, five unless told."""
    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.5)


def broken():
    raise OSError("broken data stream")


@pytest.mark.parametrize("processes", [0, 2])
def test_a_picture_that_cannot_be_decoded_is_named(scenes, tmp_path, monkeypatch, processes):
    spoil(monkeypatch, broken)
    trainer = trainer_of(scenes, tmp_path, dataloader_num_workers=processes)
    with pytest.raises(ValueError, match=rf"^{NAME} cannot be loaded: broken data stream$"):
        trainer.train()


def test_a_process_that_dies_is_told_with_its_item(scenes, tmp_path, monkeypatch):
    spoil(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    trainer = trainer_of(scenes, tmp_path, dataloader_num_workers=1)
    with pytest.raises(ValueError, match=rf"ended by itself .*{NAME}"):
        trainer.train()


def test_a_process_that_hangs_is_told_with_its_item(scenes, tmp_path, monkeypatch):
    spoil(monkeypatch, lambda: time.sleep(600))
    monkeypatch.setattr(workers, "SECONDS", 3)
    trainer = trainer_of(scenes, tmp_path, dataloader_num_workers=1)
    start = time.monotonic()
    with pytest.raises(ValueError, match=rf"gave no batch in time; being loaded: {NAME}"):
        trainer.train()
    assert time.monotonic() - start < 60
