"""MaskedBatchNorm1d against nn.BatchNorm1d of the valid rows, in one process and in two."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from vsehub.modeling.modeling_d2s_vse import MaskedBatchNorm1d


def assert_near(found, expected, atol=1e-6):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def norm_inputs(mean=0.5, rows=5, length=6, width=3):
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(rows, length, width, generator=generator) * 2 + mean
    mask = torch.arange(length) < torch.tensor([6, 1, 3, 4, 2])[:rows, None]
    upstream = torch.randn(rows, length, width, generator=generator) * mask[..., None]  # no gradient into padding
    return features, mask, upstream


def seeded_norm(cls, width=3):
    norm = cls(width)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 1.5, width))
        norm.bias.copy_(torch.linspace(-1, 1, width))
    return norm


def test_masked_batch_norm_equals_batch_norm_of_the_valid_rows():
    features, mask, upstream = norm_inputs()
    ours, theirs = seeded_norm(MaskedBatchNorm1d), seeded_norm(nn.BatchNorm1d)
    for step in range(3):  # the later steps start from moved statistics
        mine = (features + step).requires_grad_()
        rows = (features + step)[mask].requires_grad_()
        ours.zero_grad()
        theirs.zero_grad()
        found, expected = ours(mine, mask.long()), theirs(rows)
        (found * upstream).sum().backward()
        (expected * upstream[mask]).sum().backward()
        assert_near(found[mask], expected)
        assert_near(mine.grad[mask], rows.grad)
        assert (mine.grad[~mask] == 0).all()
        assert_near(ours.weight.grad, theirs.weight.grad, atol=1e-5)
        assert_near(ours.bias.grad, theirs.bias.grad, atol=1e-5)
        for (name, buffer), other in zip(ours.named_buffers(), theirs.buffers()):
            torch.testing.assert_close(buffer, other, atol=1e-6, rtol=0, msg=name)
    assert_near(ours.eval()(features)[mask], theirs.eval()(features[mask]))


def test_masked_batch_norm_without_a_mask_equals_batch_norm_of_everything():
    features, _, _ = norm_inputs()
    ours, theirs = seeded_norm(MaskedBatchNorm1d), seeded_norm(nn.BatchNorm1d)
    assert_near(ours(features).flatten(0, 1), theirs(features.flatten(0, 1)))
    assert_near(ours.running_var, theirs.running_var)


def test_masked_batch_norm_keeps_its_digits_around_a_large_running_mean():
    features, mask, _ = norm_inputs(mean=1000.0)
    norm = seeded_norm(MaskedBatchNorm1d)
    norm.running_mean.fill_(1000.0)
    rows = features[mask].double()
    exact = (rows - rows.mean(0)) / (rows.var(0, correction=0) + norm.eps).sqrt() * norm.weight + norm.bias
    assert_near(norm(features, mask)[mask].double(), exact, atol=1e-3)


WORKER = """
import sys
import torch
import torch.distributed as dist
from vsehub.modeling.modeling_d2s_vse import MaskedBatchNorm1d

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt", weights_only=True)
norm = MaskedBatchNorm1d(3)
norm.load_state_dict(given["norm"])
share = slice(0, 2) if rank == 0 else slice(2, 5)  # unequal shares
features = given["features"][share].requires_grad_()
output = norm(features, given["mask"][share].long())
(output * given["upstream"][share]).sum().backward()
found = {"output": output.detach(), "features": features.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
torch.save({**found, "mean": norm.running_mean, "var": norm.running_var}, f"{folder}/found{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow  # a training of two processes is among the fast tests
def test_masked_batch_norm_of_two_processes_equals_one(tmp_path):
    features, mask, upstream = norm_inputs()
    norm = seeded_norm(MaskedBatchNorm1d)
    given = {"features": features, "mask": mask, "upstream": upstream, "norm": norm.state_dict()}
    torch.save(given, tmp_path / "given.pt")
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(rank)]) for rank in range(2)]
    features.requires_grad_()
    output = norm(features, mask.long())
    (output * upstream).sum().backward()
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    parts = [torch.load(tmp_path / f"found{rank}.pt", weights_only=True) for rank in range(2)]
    assert_near(torch.cat([part["output"] for part in parts]), output.detach())
    assert_near(torch.cat([part["features"] for part in parts]), features.grad)
    assert_near(sum(part["weight"] for part in parts), norm.weight.grad)
    assert_near(sum(part["bias"] for part in parts), norm.bias.grad)
    for part in parts:
        assert_near(part["mean"], norm.running_mean)
        assert_near(part["var"], norm.running_var)
