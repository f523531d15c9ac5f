"""TEL against its equations, written out with torch's own attention."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vsehub.modeling.tel import TEL


@pytest.fixture(params=["sum", "branch"])
def tel(request):
    """A TEL of 16 features and 2 heads, no weight of which is what an initialisation gives."""
    torch.manual_seed(0)
    layer = TEL(16, 2, dropout=0.3, norm=request.param).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return layer


def reference(tel, sequence, external):
    """The two equations of a TEL for one sequence (N, D) and as many queries (N, D), without a mask."""

    def block(part, sequence, queries):
        own, twin = part.attention, nn.MultiheadAttention(16, 2, dtype=torch.float64)
        projections = (own.query, own.key, own.value)
        twin.load_state_dict(
            {
                "in_proj_weight": torch.cat([linear.weight for linear in projections]),
                "in_proj_bias": torch.cat([linear.bias for linear in projections]),
                "out_proj.weight": own.merge.weight,
                "out_proj.bias": own.merge.bias,
            }
        )
        attended = twin(queries, sequence, sequence)[0]
        if isinstance(part.inner_norm, nn.LayerNorm):  # the official code
            hidden = part.norm1(sequence + attended)
            return part.norm2(hidden + part.fc2(F.gelu(part.inner_norm(part.fc1(hidden)))))
        hidden = sequence + part.norm1(attended)  # the paper
        return hidden + part.norm2(part.fc2(F.gelu(part.fc1(hidden))))

    return block(tel.cross_attention, block(tel.self_attention, sequence, sequence), external)


def assert_near(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@torch.no_grad()
def test_a_tel_is_its_equations(tel):
    sequence, external = torch.randn(2, 7, 16, dtype=torch.float64), torch.randn(2, 7, 16, dtype=torch.float64)
    expected = torch.stack([reference(tel, *row) for row in zip(sequence, external)])
    assert_near(tel(sequence, external), expected)


@torch.no_grad()
def test_one_query_shares_its_answer_and_not_the_dropout_of_the_branch(tel):
    block = tel.cross_attention.train()
    block.attention.dropout = 0.0
    hidden = []  # after the first branch
    block.fc1.register_forward_pre_hook(lambda module, given: hidden.append(given[0]))
    block(torch.zeros(1, 50, 16, dtype=torch.float64), torch.randn(1, 1, 16, dtype=torch.float64), None)
    assert len(hidden[0][0].unique(dim=0)) > 40


def test_only_the_official_norm_has_one_inside_the_mlp():
    names = {norm: {name for name, _ in TEL(16, 2, 0.0, norm).named_parameters()} for norm in ("sum", "branch")}
    assert {name.split(".")[1] for name in names["sum"] - names["branch"]} == {"inner_norm"}
    assert names["branch"] < names["sum"]


@torch.no_grad()
def test_one_query_equals_as_many_equal_ones(tel):
    sequence, query = torch.randn(3, 7, 16, dtype=torch.float64), torch.randn(3, 1, 16, dtype=torch.float64)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6])
    assert_near(tel(sequence, query), tel(sequence, query.expand(-1, 7, -1)))
    assert_near(tel(sequence, query, mask), tel(sequence, query.expand(-1, 7, -1), mask))


@torch.no_grad()
def test_what_the_mask_hides_has_no_part_in_the_rest(tel):
    sequence, external = torch.randn(2, 4, 16, dtype=torch.float64), torch.randn(2, 4, 16, dtype=torch.float64)
    expected = tel(sequence, external)
    mask, wide = torch.tensor([1] * 4 + [0] * 3).expand(2, -1), (0, 0, 0, 3)
    found = tel(F.pad(sequence, wide, value=9.0), F.pad(external, wide, value=-9.0), mask)
    assert_near(found[:, :4], expected)


@torch.no_grad()
def test_tokens_in_another_order_come_out_in_that_order(tel):
    sequence, external, order = (
        torch.randn(2, 7, 16, dtype=torch.float64),
        torch.randn(2, 7, 16, dtype=torch.float64),
        torch.randperm(7),
    )
    assert_near(tel(sequence[:, order], external[:, order]), tel(sequence, external)[:, order])


@torch.no_grad()
def test_dropout_acts_in_training_alone(tel):
    sequence, external = torch.randn(2, 7, 16, dtype=torch.float64), torch.randn(2, 7, 16, dtype=torch.float64)
    assert torch.equal(tel(sequence, external), tel(sequence, external))
    tel.train()
    assert not torch.equal(tel(sequence, external), tel(sequence, external))
