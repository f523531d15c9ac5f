"""Which losses an objective adds, with which weights."""

from dataclasses import replace

import pytest
import torch
from golden import read_golden
from torch.nn import functional as F

from vsehub.losses import HingeLoss
from vsehub.losses.objectives import D2SObjective, PairEmbeddings, PIRObjective
from vsehub.training.flags.arguments import StructureArguments
from vsehub.training.inputs.structure_teachers import structured


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def d2s_pairs(teacher=True):
    vectors = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    dense = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)) if teacher else None
    return PairEmbeddings(unit(6, 4), F.normalize(vectors, dim=-1), vectors, torch.arange(6), dense)


def test_the_hinge_sums_all_negatives_first_and_then_takes_the_hardest():
    objective = D2SObjective(ramp_epochs=0, mean_warmup_epochs=1)
    batch = d2s_pairs(teacher=False)
    everything = HingeLoss()(batch.image_embeds, batch.text_embeds, batch.image_ids, hardest=False)
    hardest = HingeLoss()(batch.image_embeds, batch.text_embeds, batch.image_ids)
    assert objective(batch, 0.99)[0] == everything and objective(batch, 1.0)[0] == hardest


def test_the_ramp_scales_alignment_but_not_distillation():
    objective = D2SObjective(ramp_epochs=1)
    loss, parts = objective(d2s_pairs(), 0.25)
    assert loss.item() == pytest.approx(0.25 * parts["align"].item() + parts["distill"].item(), abs=1e-5)


def test_weight_zero_switches_distillation_off():
    assert "distill" not in D2SObjective(distill_weight=0)(d2s_pairs(), 2.0)[1]


LABELS = torch.tensor([0, 0, 1, 2, 2, 2])


def pairs(images, texts, labels=LABELS, **more):
    return PairEmbeddings(images, texts, texts, torch.arange(len(images)), labels=labels, **more)


def test_the_objective_adds_its_parts_and_asks_for_labels_only_where_they_count():
    images, texts = unit(6, 4), unit(6, 4, seed=1)
    loss, parts = PIRObjective(affiliation_weight=0.5)(pairs(images, texts), 0.0)
    assert loss.item() == pytest.approx((parts["contrast"] + 0.5 * parts["affiliation"]).item(), abs=1e-6)
    with pytest.raises(ValueError, match="scene class"):
        PIRObjective()(pairs(images, texts, labels=None), 0.0)
    plain = PIRObjective(affiliation_weight=0)
    assert set(plain(pairs(images, texts, labels=None), 0.0)[1]) == {"contrast"}
    assert len(list(plain.parameters())) == 1 and len(list(PIRObjective().parameters())) == 2
    assert not list(PIRObjective("triplet", affiliation_weight=0).parameters())  # nothing without gradient for DDP


def test_wild_temperatures_are_clamped():
    objective = PIRObjective()
    for wild in (-1e9, 0.0, 1e9):
        for parameter in objective.parameters():
            parameter.data.fill_(wild)
        assert torch.isfinite(objective(pairs(unit(6, 4), unit(6, 4, seed=1)), 0.0)[0])


def test_the_losses_and_gradients_are_those_of_the_official_code():
    values, golden = read_golden("pir")
    images, texts = (golden[f"in.loss_{kind}"].requires_grad_() for kind in ("image", "text"))
    ids, labels = golden["in.loss_image_id"], golden["in.loss_label"]
    batch = PairEmbeddings(images, texts, texts, ids, labels=labels, process_ids=torch.zeros_like(ids))
    for legacy in (True, False):
        loss, parts = PIRObjective(legacy=legacy)(batch, 0.0)
        assert parts["contrast"].item() == pytest.approx(values["loss_values"]["contrastive"], abs=1e-5)
        assert parts["affiliation"].item() == pytest.approx(values["loss_values"]["affiliation"], abs=1e-5)
        for found, name in zip(torch.autograd.grad(loss, (images, texts)), ("image", "text")):
            assert torch.allclose(found, golden[f"out.grad_{name}"], atol=1e-5)
    triplet = PIRObjective("triplet", affiliation_weight=0, legacy=True)(batch, 0.0)[0]
    assert triplet.item() == pytest.approx(values["loss_values"]["triplet"], rel=1e-5)


def test_an_unknown_alignment_is_refused():
    with pytest.raises(ValueError, match="align"):
        D2SObjective(align="triplet")


def test_every_field_that_is_set_is_gathered():
    batch = d2s_pairs().map(lambda tensor: torch.cat([tensor, tensor]))
    assert len(batch.image_ids) == len(batch.dense_text_embeds) == 12 and batch.labels is None


def structure_pairs():
    return replace(d2s_pairs(), image_teacher=unit(6, 7, seed=4), text_teacher=unit(6, 5, seed=5))


def test_structure_is_added_with_its_weight_and_every_representation_with_its_own():
    args = StructureArguments(structure_weight=2, representation_text_weight=3)
    objective = structured(D2SObjective(ramp_epochs=0), args, (torch.zeros(7), torch.zeros(5)), 4)
    loss, parts = objective(structure_pairs(), 1.0)
    structure = (parts["structure_image"] + parts["structure_text"]) / 2
    expected = parts["align"] + parts["distill"] + 2 * structure + 3 * parts["representation_text"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and "representation_image" not in parts
    with pytest.raises(ValueError, match="vsehub teachers"):
        objective(d2s_pairs(), 1.0)


def test_the_arguments_choose_relation_centre_and_bank():
    means = (torch.ones(7), torch.ones(5))
    own = structured(D2SObjective(), StructureArguments(structure_weight=1), means, 4).structure
    assert own.relation == "own" and torch.equal(own.image_mean, means[0]) and own.bank is None
    args = StructureArguments(
        structure_weight=1, structure_relation="fused", structure_centre="none", structure_bank=8, learn_text_share=True
    )
    fused = structured(D2SObjective(), args, means, 4).structure
    assert fused.relation == "fused" and fused.image_mean is None and fused.bank.size == 8
    assert fused.text_share.requires_grad
