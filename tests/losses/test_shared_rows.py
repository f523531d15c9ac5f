"""Losses of rows that all processes hold, each of which computes a part."""

import subprocess
import sys

import loss_process
import torch
from torch.nn import functional as F

IDS = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6])
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 0, 0, 3])


def test_processes_share_the_rows_and_get_what_one_gets(tmp_path, world=3):
    """Parts of unequal size and a tie between them: values and all gradients, on every process."""
    draw = torch.Generator().manual_seed(2)
    vectors = F.normalize(torch.randn(4, len(IDS), 5, generator=draw), dim=-1)
    inputs = {"images": vectors[0, :, :4], "texts": vectors[1, :, :4], "ids": IDS, "labels": LABELS}
    inputs |= {"image_teacher": vectors[2], "text_teacher": vectors[3]}
    inputs["texts"][5] = inputs["texts"][8]  # a tie between blocks
    torch.save(inputs, tmp_path / "inputs.pt")
    command = [sys.executable, loss_process.__file__]
    places = [str(tmp_path / name) for name in ("store", "inputs.pt")]
    running = [
        subprocess.Popen([*command, str(rank), str(world), *places, str(tmp_path / f"{rank}.pt")])
        for rank in range(world)
    ]
    assert [process.wait(timeout=600) for process in running] == [0] * world
    wanted = loss_process.losses(inputs)
    for rank in range(world):
        got = torch.load(tmp_path / f"{rank}.pt")
        assert got.keys() == wanted.keys()
        for name in wanted:
            assert torch.allclose(got[name], wanted[name], rtol=1e-5, atol=2e-6), (rank, name)
