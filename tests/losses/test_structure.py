"""Structure-aware distillation: figures by hand, identities, invariances, and the official code's values."""

import pytest
import torch
from golden import read_golden
from torch.nn import functional as F

from vsehub.losses import ContrastiveLoss, HingeLoss
from vsehub.losses.structure import (
    MemoryBank,
    RepresentationLoss,
    StructureDistillationLoss,
    cosines,
    soft_positive_contrast,
)

RELATIONS, DISTANCES = ("own", "fused"), ("mae", "mse")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(n=6):
    return random(n, 4), random(n, 4, seed=1), random(n, 7, seed=2), random(n, 5, seed=3)


def gram(features):
    return cosines(features, features)


def pair_with_cosine(cosine):
    return torch.tensor([[1.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]])


def test_the_hand_check_of_the_paper():
    """Cosines .8 and .2 of the teachers, .5 of the student, lambda .25, tau .1: KD 1.5; the two ties 1.5 and 4.5."""
    student, image, text = (pair_with_cosine(c) for c in (0.5, 0.8, 0.2))
    loss = StructureDistillationLoss("fused", text_share=0.25, learn_text_share=True, temperature=0.1)
    total, parts = loss(student, student, image, text)
    assert parts["structure"].item() == pytest.approx(1.5, abs=1e-4)
    assert parts["balance"].item() == pytest.approx(1.5 + 4.5, abs=1e-4)
    assert 2 * total.item() == pytest.approx(9.0, abs=1e-3)  # 2 KD + KD_I + KD_T


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_student_with_the_teachers_geometry_pays_nothing(distance):
    image, text = random(6, 4), random(6, 4, seed=1)
    loss, _ = StructureDistillationLoss("own", distance)(image, text, image @ rotation(), 3 * text)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    loss, _ = StructureDistillationLoss("fused", distance)(image, image, image, image)
    assert loss.item() == pytest.approx(0, abs=1e-5)


def rotation(n=4):
    return torch.linalg.qr(random(n, n, seed=9))[0]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_ties_pass_the_share_no_gradient(share):
    loss = StructureDistillationLoss("fused", text_share=share, learn_text_share=True)
    parts = loss(*inputs())[1]
    image, text = gram(inputs()[2]), gram(inputs()[3])
    mean = (image - text).abs().sum() / 30 / 0.07
    assert parts["balance"].item() == pytest.approx(mean.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(parts["balance"], loss.text_share)
    assert gradient.abs().item() < 1e-3 * mean.item()


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_rotation_scale_and_order_change_nothing_and_teachers_get_no_gradient(relation, distance):
    loss = StructureDistillationLoss(relation, distance)
    image, text, image_teacher, text_teacher = inputs()
    image_teacher.requires_grad_()
    image.requires_grad_()
    value, _ = loss(image, text, image_teacher, text_teacher)
    turned, _ = loss(2 * image @ rotation(), 2 * text @ rotation(), 5 * image_teacher, text_teacher @ rotation(5))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    shuffled, _ = loss(*(x[order] for x in (image, text, image_teacher, text_teacher)))
    assert turned.item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6)
    assert shuffled.item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6)
    value.backward()
    assert image_teacher.grad is None and image.grad.abs().sum() > 0


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_one_row_equal_rows_and_zero_rows_are_finite(relation, distance):
    loss = StructureDistillationLoss(relation, distance)
    for rows in (random(1, 4), random(1, 4).expand(5, 4), torch.zeros(4, 4)):
        student = rows.clone().requires_grad_()
        value, _ = loss(student, student, rows, rows)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(student.grad).all()
    assert loss(*(x[:1] for x in inputs()))[0].item() == 0


def test_every_pair_of_different_rows_counts_alike():
    image, text, image_teacher, text_teacher = inputs(4)
    value = StructureDistillationLoss()(image, text, image_teacher, text_teacher)[0]
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    by_hand = sum(
        (gram(s) - gram(t)).abs()[i, j] for s, t in ((image, image_teacher), (text, text_teacher)) for i, j in pairs
    )
    assert value.item() == pytest.approx((by_hand / len(pairs) / 2 / 0.07).item(), rel=1e-5)


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_bank_adds_the_pairs_of_a_batch_with_earlier_rows(relation):
    """Three batches of 4 and a bank of 6: the rows of the last batch against themselves and the 6 before them."""
    batches = [tuple(random(4, width, seed=10 * n + width) for width in (3, 3, 7, 5)) for n in range(3)]
    loss = StructureDistillationLoss(relation, bank=MemoryBank(6, 3, 7, 5))
    for batch in batches:
        value = loss(*batch)[0]
    rows = [batches[2][i] for i in range(4)]
    columns = [torch.cat([batches[2][i], batches[1][i], batches[0][i][:2]]) for i in range(4)]
    mask = 1 - torch.eye(4, 10)
    images, texts, of_images, of_texts = (
        F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).t() for a, b in zip(rows, columns)
    )
    mean, both = lambda x, y: ((x - y).abs() * mask).sum() / mask.sum() / 0.07, (of_images + of_texts) / 2
    unit = lambda x: F.normalize(x, dim=-1)  # noqa: E731
    fused = unit(unit(rows[0]) + unit(rows[1])) @ unit(unit(columns[0]) + unit(columns[1])).t()
    expected = {"own": (mean(images, of_images) + mean(texts, of_texts)) / 2, "fused": mean(fused, both)}
    assert value.item() == pytest.approx(expected[relation].item(), rel=1e-5)


def test_a_bank_forgets_nothing_in_a_checkpoint_and_learns_nothing_in_evaluation():
    loss = StructureDistillationLoss(bank=MemoryBank(6, 4, 7, 5))
    loss(*inputs(4))
    again = StructureDistillationLoss(bank=MemoryBank(6, 4, 7, 5))
    again.load_state_dict(loss.state_dict())
    loss.eval(), again.eval()
    image = inputs()[0].requires_grad_()
    values = [module(image, *inputs()[1:])[0] for module in (loss, again, again)]
    assert values[0] == values[1] == values[2]
    values[0].backward()
    assert image.grad.abs().sum() > 0 and len(loss.bank.read()[0]) == 4


def test_centring_undoes_an_offset_that_all_features_share():
    image, text, image_teacher, text_teacher = inputs()
    means = {"image_mean": image_teacher.mean(0), "text_mean": text_teacher.mean(0)}
    loss = StructureDistillationLoss(**means)
    value = loss(image, text, image_teacher, text_teacher)[0].item()
    assert value != pytest.approx(
        StructureDistillationLoss()(image, text, image_teacher, text_teacher)[0].item(), rel=0.01
    )
    shifted = StructureDistillationLoss(image_mean=means["image_mean"] + 10, text_mean=means["text_mean"] - 3)
    assert shifted(image, text, image_teacher + 10, text_teacher - 3)[0].item() == pytest.approx(value, rel=1e-4)
    assert {"image_mean", "text_mean"} <= set(shifted.state_dict())


def test_beside_a_sum_over_the_batch_the_weight_must_grow_with_it():
    """The hinge is a sum over the batch, the structure a mean: docs/structure.md tells the remedy."""
    generator, pairs = torch.Generator().manual_seed(0), 128
    embeds = [F.normalize(torch.randn(pairs, 64, generator=generator), dim=-1).requires_grad_() for _ in range(2)]
    teachers = [torch.randn(pairs, 64, generator=generator) for _ in range(2)]

    def steepness(loss):
        return torch.cat(torch.autograd.grad(loss, embeds)).norm().item()

    structure = steepness(2 * StructureDistillationLoss()(*embeds, *teachers)[0])
    hinge = steepness(HingeLoss()(*embeds, torch.arange(pairs)))
    assert structure < 0.03 * hinge
    assert 0.3 * hinge < pairs * structure < 3 * hinge


@pytest.mark.parametrize("settings", [{"relation": "all"}, {"distance": "l3"}, {"temperature": 0}])
def test_bad_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        StructureDistillationLoss(**settings)


def test_a_relation_without_a_share_has_none_to_learn():
    with pytest.raises(ValueError, match="use relation 'fused'"):
        StructureDistillationLoss("own", learn_text_share=True)


def test_the_representation_loss_is_one_half_of_a_contrast_with_the_projected_teacher():
    embeds, teacher, ids = F.normalize(random(6, 4), dim=-1), random(6, 7, seed=2), torch.tensor([0, 0, 1, 2, 3, 4])
    loss = RepresentationLoss(7, 4)
    projected = F.normalize(loss.projection(teacher), dim=-1)
    both = ContrastiveLoss(0.07)(embeds, projected, ids)
    back = soft_positive_contrast(projected, embeds, ids, 0.07)
    assert (loss(embeds, teacher, ids) + back).item() / 2 == pytest.approx(both.item(), rel=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("share", [0.3, 0.8547])
def test_the_structure_is_that_of_the_official_code(distance, share):
    facts, tensors = read_golden("sad")
    fused, image, text = (tensors[f"in.{name}"] for name in ("student_fused", "image_teacher", "text_teacher"))
    loss = StructureDistillationLoss("fused", distance, share, temperature=facts["tau2"])
    target = share * gram(text) + (1 - share) * gram(image)
    values = {
        "kd": loss(fused, fused, image, text)[0],  # both embeddings are the fused vector, and so is their sum
        "kd_image": loss._compare([F.normalize(image, dim=-1)] * 2, lambda block, _: target[block]),
        "kd_text": loss._compare([F.normalize(text, dim=-1)] * 2, lambda block, _: target[block]),
    }
    for name, value in values.items():
        expected = facts["loss_values"][f"{distance}.lambda={share}.{name}"]
        assert value.item() == pytest.approx(expected, abs=1e-6)


def test_the_contrasts_are_those_of_the_official_code():
    facts, tensors = read_golden("sad")
    student, teacher, ids = (tensors[f"in.{name}"] for name in ("student_embeds", "teacher_embeds", "image_id"))
    single = soft_positive_contrast(student, teacher, ids, facts["tau"])
    assert single.item() == pytest.approx(facts["loss_values"]["single_contrast"], abs=1e-6)
    both = ContrastiveLoss(facts["tau"])(student, teacher, ids)
    assert both.item() == pytest.approx(facts["loss_values"]["itc"], abs=1e-6)
