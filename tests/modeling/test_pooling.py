"""GPO against an independent reference: nn.GRU over packed sequences and python loops."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vsehub.modeling.pooling import GPO, sinusoid

DIM, WIDTH, TEMPERATURE = 5, 8, 0.1
LENGTHS = [7, 1, 4, 9, 2]


@pytest.fixture
def gpo():
    torch.manual_seed(0)
    pool = GPO(WIDTH, TEMPERATURE)
    nn.init.normal_(pool.score.weight)  # the tiny default weights would hide a wrong rank
    return pool


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(LENGTHS), max(LENGTHS), DIM, generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return features, mask.long()


def rank_encoding(rank: int) -> list[float]:
    row = []
    for pair in range(WIDTH // 2):
        angle = rank / 10000 ** (2 * pair / WIDTH)
        row += [math.sin(angle), math.cos(angle)]
    return row


@torch.no_grad()
def reference(pool: GPO, sets: list[torch.Tensor]) -> torch.Tensor:
    """Chen et al., eq. 3-6, set by set."""
    gru = nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True)
    gru.load_state_dict(pool.gru.state_dict())
    lengths = torch.tensor([len(members) for members in sets])
    table = torch.tensor([rank_encoding(rank) for rank in range(int(lengths.max()))])
    packed = pack_padded_sequence(table.expand(len(sets), -1, -1), lengths, batch_first=True, enforce_sorted=False)
    hidden, _ = pad_packed_sequence(gru(packed)[0], batch_first=True)
    rows = []
    for members, states in zip(sets, hidden):
        size = len(members)
        mean = (states[:size, :WIDTH] + states[:size, WIDTH:]) / 2
        scores = [float((pool.score.weight[0] * mean[rank]).sum()) / TEMPERATURE for rank in range(size)]
        total = sum(math.exp(score - max(scores)) for score in scores)
        weights = [math.exp(score - max(scores)) / total for score in scores]
        row = []
        for feature in range(members.shape[1]):
            ordered = sorted(members[:, feature].tolist(), reverse=True)
            row.append(sum(weight * value for weight, value in zip(weights, ordered)))
        rows.append(row)
    return torch.tensor(rows)


def test_gpo_equals_a_packed_gru_and_python_loops(gpo, batch):
    features, mask = batch
    expected = reference(gpo, [row[:size] for row, size in zip(features, LENGTHS)])
    torch.testing.assert_close(gpo(features, mask), expected, atol=1e-6, rtol=0)


def test_gpo_without_a_mask_pools_everything(gpo, batch):
    features, _ = batch
    expected = reference(gpo, list(features))
    torch.testing.assert_close(gpo(features), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(gpo(features), gpo(features, torch.ones(features.shape[:2])), atol=1e-6, rtol=0)


def test_padding_may_hold_anything_and_be_anywhere(gpo, batch):
    features, mask = batch
    expected = gpo(features, mask)
    poisoned = torch.where(mask.bool()[..., None], features, torch.tensor(1e30))
    torch.testing.assert_close(gpo(poisoned, mask), expected, atol=0, rtol=0)
    left, left_mask = features.flip(1), mask.flip(1)  # also reverses each set, which has no order
    torch.testing.assert_close(gpo(left, left_mask), expected, atol=1e-6, rtol=0)
    order = torch.randperm(features.shape[1], generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(gpo(features[:, order], mask[:, order]), expected, atol=1e-6, rtol=0)


def test_more_padding_changes_nothing(gpo, batch):
    features, mask = batch
    longer = torch.cat([features, torch.randn(len(LENGTHS), 13, DIM)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(len(LENGTHS), 13, dtype=mask.dtype)], dim=1)
    torch.testing.assert_close(gpo(longer, longer_mask), gpo(features, mask), atol=1e-6, rtol=0)


def test_a_batch_of_one_equals_its_row_in_a_batch(gpo, batch):
    features, mask = batch
    together = gpo(features, mask)
    for row, size in enumerate(LENGTHS):
        torch.testing.assert_close(gpo(features[row : row + 1, :size])[0], together[row], atol=1e-6, rtol=0)


def test_gradients_are_finite_and_stay_out_of_the_padding(gpo, batch):
    features, mask = batch
    features = features.clone().requires_grad_()
    gpo(features, mask).square().sum().backward()
    assert torch.isfinite(features.grad).all()
    assert (features.grad[mask == 0] == 0).all()
    assert (features.grad[mask == 1] != 0).any()
    for name, parameter in gpo.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_gradients_equal_finite_differences(gpo, batch):
    gpo = gpo.double()
    features, mask = batch[0][:3, :4].double().requires_grad_(), batch[1][:3, :4]
    assert torch.autograd.gradcheck(lambda x: gpo(x, mask), (features,), atol=1e-6)


def test_the_gru_keeps_what_cudnn_needs_for_the_backward_pass(gpo, batch, monkeypatch):
    """On a GPU "cudnn RNN backward can only be called in training mode" would end the first step."""
    gru, seen = torch.gru, []

    def spy(inputs, state, weights, has_biases, layers, dropout, train, *more):
        seen.append((dropout, train))
        return gru(inputs, state, weights, has_biases, layers, dropout, train, *more)

    monkeypatch.setattr(torch, "gru", spy)
    gpo.eval()(*batch)
    assert seen == [(0.0, True)] * 2


def test_weights_are_a_distribution_over_the_ranks_of_a_set(gpo, batch):
    _, mask = batch
    lengths = mask.sum(1)
    outside = torch.arange(mask.shape[1]) >= lengths[:, None]
    weights = gpo.weights(lengths, outside)
    assert (weights[outside] == 0).all() and (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(len(LENGTHS)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(gpo, batch, dtype):
    features, mask = batch
    expected = gpo(features, mask)
    found = gpo.to(dtype)(features.to(dtype), mask)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.1)


def test_sinusoid_interleaves_sine_and_cosine():
    expected = torch.tensor([rank_encoding(rank) for rank in (0, 1, 5, 100)])
    torch.testing.assert_close(sinusoid(torch.tensor([0, 1, 5, 100]), WIDTH), expected, atol=1e-5, rtol=0)
