"""The objective over nested widths: the mean of what it is at each, on vectors that were cut and normalised by hand."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from vsehub.losses.matryoshka import MatryoshkaObjective, narrowed
from vsehub.losses.objectives import D2SObjective, PairEmbeddings, PIRObjective
from vsehub.training.flags.arguments import StructureArguments
from vsehub.training.inputs.structure_teachers import structured


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_pairs(**more) -> PairEmbeddings:
    images, texts = draw(6, 8, seed=0), draw(6, 8, seed=1)
    units = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    return PairEmbeddings(*units, texts, torch.tensor([0, 0, 1, 2, 3, 4]), draw(6, 8, seed=2), **more)


def by_hand(pairs: PairEmbeddings, width: int) -> PairEmbeddings:
    cut = {name: getattr(pairs, name)[:, :width] for name in ("text_vectors", "dense_text_embeds")}
    units = {name: getattr(pairs, name)[:, :width] for name in ("image_embeds", "text_embeds")}
    return replace(pairs, **cut, **{name: side / side.norm(dim=1, keepdim=True) for name, side in units.items()})


@pytest.mark.parametrize("make", [lambda: D2SObjective(ramp_epochs=0), lambda: PIRObjective(affiliation_weight=0.5)])
def test_the_loss_and_its_gradients_are_means_over_the_widths(make):
    pairs = some_pairs(labels=torch.tensor([0, 0, 1, 1, 2, 2])).map(lambda tensor: tensor)
    leaves = [pairs.image_embeds.requires_grad_(), pairs.text_embeds.requires_grad_()]
    loss, parts = MatryoshkaObjective({width: make() for width in (2, 4, 8)})(pairs, 1.0)
    losses = [make()(by_hand(pairs, width), 1.0)[0] for width in (2, 4)] + [make()(pairs, 1.0)[0]]
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)
    assert [parts[name].item() for name in ("width_2", "width_4")] == pytest.approx([x.item() for x in losses[:2]])
    whole = make()(pairs, 1.0)[1]
    assert {name: part.item() for name, part in parts.items() if name in whole} == pytest.approx(
        {name: part.item() for name, part in whole.items()}
    )
    expected = torch.autograd.grad(torch.stack(losses).mean(), leaves)
    for slope, wanted in zip(torch.autograd.grad(loss, leaves), expected):
        assert torch.allclose(slope, wanted, atol=1e-6) and wanted[:, :2].abs().sum() > 0


def test_what_teaches_a_single_modality_stays_whole():
    pairs = some_pairs(image_teacher=draw(6, 5, seed=3), text_teacher=draw(6, 7, seed=4))
    nested = narrowed(pairs, 3)
    for name in ("image_teacher", "text_teacher", "image_ids"):
        assert getattr(nested, name) is getattr(pairs, name)
    assert torch.equal(nested.dense_text_embeds, pairs.dense_text_embeds[:, :3])
    assert torch.equal(nested.text_vectors, pairs.text_vectors[:, :3])
    assert torch.allclose(nested.text_embeds.norm(dim=1), torch.ones(6))
    assert narrowed(replace(pairs, dense_text_embeds=None), 3).dense_text_embeds is None


def test_structure_with_a_bank_and_a_projection_has_its_own_of_each_width():
    args = StructureArguments(structure_weight=1, representation_image_weight=1, structure_bank=9)
    means = torch.zeros(5), torch.zeros(7)
    several = {width: structured(D2SObjective(ramp_epochs=0), args, means, width) for width in (3, 8)}
    objective = MatryoshkaObjective(several)
    pairs = some_pairs(image_teacher=draw(6, 5, seed=3), text_teacher=draw(6, 7, seed=4))
    for _ in range(2):  # the second time the banks hold pairs
        loss, _ = objective(pairs, 1.0)
    assert torch.isfinite(loss) and several[3].structure.bank.images.shape == (9, 3)
    assert [len(each.structure.bank.read()[0]) for each in several.values()] == [9, 9]
    again = MatryoshkaObjective({width: structured(D2SObjective(), args, means, width) for width in (3, 8)})
    again.load_state_dict(objective.state_dict(), strict=True)  # as training resumes
