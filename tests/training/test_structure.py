"""Structure-aware distillation: figures by hand, identities, invariances, and the official code's values."""

import copy

import pytest
import torch
from golden import read_golden
from torch.nn import functional as F

from vsehub.training.losses import ContrastiveLoss, HingeLoss
from vsehub.training.structure import (
    MemoryBank,
    RepresentationLoss,
    StructureDistillationLoss,
    gram,
    soft_positive_contrast,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(n=6):
    return random(n, 4), random(n, 4, seed=1), random(n, 7, seed=2), random(n, 5, seed=3)


def pair_with_cosine(cosine):
    return torch.tensor([[1.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]])


def test_the_hand_check_of_the_paper():
    """Cosines .8 and .2 of the teachers, .5 of the student, lambda .25, tau .1: KD 1.5; the two ties 1.5 and 4.5."""
    student, image, text = (pair_with_cosine(c) for c in (0.5, 0.8, 0.2))
    loss = StructureDistillationLoss("intra", text_share=0.25, learn_text_share=True, temperature=0.1, centre="none")
    total, parts = loss(student, student, image, text)
    assert parts["structure"].item() == pytest.approx(1.5, abs=1e-4)
    assert parts["balance"].item() == pytest.approx(1.5 + 4.5, abs=1e-4)
    assert 2 * total.item() == pytest.approx(9.0, abs=1e-3)  # 2 KD + KD_I + KD_T


@pytest.mark.parametrize("distance", ["mae", "mse", "kl", "rkd"])
def test_a_student_with_the_teachers_geometry_pays_nothing(distance):
    image, text = random(6, 4), random(6, 4, seed=1)
    loss, _ = StructureDistillationLoss("own", distance, centre="none")(image, text, image @ rotation(), 3 * text)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    for relation in ("intra", "inter", "fused"):
        loss, _ = StructureDistillationLoss(relation, distance, centre="none")(image, image, image, image)
        assert loss.item() == pytest.approx(0, abs=1e-5)


def rotation(n=4):
    return torch.linalg.qr(random(n, n, seed=9))[0]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_ties_pass_the_share_no_gradient(share):
    loss = StructureDistillationLoss("fused", text_share=share, learn_text_share=True, centre="none")
    parts = loss(*inputs())[1]
    image, text = gram(inputs()[2]), gram(inputs()[3])
    mean = (image - text).abs().sum() / 30 / 0.07
    assert parts["balance"].item() == pytest.approx(mean.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(parts["balance"], loss.text_share)
    assert gradient.abs().item() < 1e-3 * mean.item()


@pytest.mark.parametrize("relation", ["own", "fused", "inter", "intra"])
@pytest.mark.parametrize("distance", ["mae", "mse", "kl", "rkd"])
def test_rotation_scale_and_order_change_nothing_and_teachers_get_no_gradient(relation, distance):
    loss = StructureDistillationLoss(relation, distance, centre="batch")
    image, text, teacher_image, teacher_text = inputs()
    teacher_image.requires_grad_()
    image.requires_grad_()
    value, _ = loss(image, text, teacher_image, teacher_text)
    turned, _ = loss(2 * image @ rotation(), 2 * text @ rotation(), 5 * teacher_image, teacher_text @ rotation(5))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    shuffled, _ = loss(*(x[order] for x in (image, text, teacher_image, teacher_text)))
    assert turned.item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6)
    assert shuffled.item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6)
    value.backward()
    assert teacher_image.grad is None and image.grad.abs().sum() > 0


@pytest.mark.parametrize("distance", ["mae", "mse", "kl", "rkd"])
def test_one_row_equal_rows_and_zero_rows_are_finite(distance):
    loss = StructureDistillationLoss("own", distance, centre="none")
    for rows in (random(1, 4), random(1, 4).expand(5, 4), torch.zeros(4, 4)):
        student = rows.clone().requires_grad_()
        value, _ = loss(student, student, rows, rows)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(student.grad).all()
    assert loss(*(x[:1] for x in inputs()))[0].item() == 0


def test_pairs_of_one_image_can_be_left_out():
    image, text, teacher_image, teacher_text = inputs(4)
    ids = torch.tensor([0, 0, 1, 2])
    kept = StructureDistillationLoss(centre="none")(image, text, teacher_image, teacher_text, ids)[0]
    masked = StructureDistillationLoss(centre="none", mask_same_image=True)
    value = masked(image, text, teacher_image, teacher_text, ids)[0]
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j and ids[i] != ids[j]]
    by_hand = sum(
        (gram(s) - gram(t)).abs()[i, j] for s, t in ((image, teacher_image), (text, teacher_text)) for i, j in pairs
    )
    assert value.item() == pytest.approx((by_hand / len(pairs) / 2 / 0.07).item(), rel=1e-5) != kept.item()


@pytest.mark.parametrize("relation", ["own", "fused", "inter", "intra"])
def test_a_bank_adds_the_pairs_of_a_batch_with_earlier_rows(relation):
    """Three batches of 4 and a bank of 6: the rows of the last batch against themselves and the 6 before them."""
    batches = [tuple(random(4, width, seed=10 * n + width) for width in (3, 3, 7, 5)) for n in range(3)]
    ids = torch.tensor([0, 1, 2, 3])
    loss = StructureDistillationLoss(relation, centre="none", bank=MemoryBank(6, 3, 7, 5), mask_same_image=True)
    for number, batch in enumerate(batches):
        found = loss(*batch, ids + 3 * number)[0]  # neighbouring batches share an image
    rows = [batches[2][i] for i in range(4)]
    columns = [torch.cat([batches[2][i], batches[1][i], batches[0][i][:2]]) for i in range(4)]
    column_ids = torch.cat([ids + 6, ids + 3, ids[:2]])
    mask = ((ids + 6)[:, None] != column_ids[None]).float()
    images, texts, of_images, of_texts = (
        F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).t() for a, b in zip(rows, columns)
    )
    mean, both = lambda x, y: ((x - y).abs() * mask).sum() / mask.sum() / 0.07, (of_images + of_texts) / 2
    unit = lambda x: F.normalize(x, dim=-1)  # noqa: E731
    fused = unit(unit(rows[0]) + unit(rows[1])) @ unit(unit(columns[0]) + unit(columns[1])).t()
    expected = {
        "own": (mean(images, of_images) + mean(texts, of_texts)) / 2,
        "intra": (mean(images, both) + mean(texts, both)) / 2,
        "inter": mean(unit(rows[0]) @ unit(columns[1]).t(), both),
        "fused": mean(fused, both),
    }
    assert found.item() == pytest.approx(expected[relation].item(), rel=1e-5)


def test_a_bank_forgets_nothing_in_a_checkpoint_and_learns_nothing_in_evaluation():
    loss = StructureDistillationLoss(centre="none", bank=MemoryBank(6, 4, 7, 5))
    loss(*inputs(4))
    again = StructureDistillationLoss(centre="none", bank=MemoryBank(6, 4, 7, 5))
    again.load_state_dict(loss.state_dict())
    loss.eval(), again.eval()
    image = inputs()[0].requires_grad_()
    values = [module(image, *inputs()[1:])[0] for module in (loss, again, again)]
    assert values[0] == values[1] == values[2]
    values[0].backward()
    assert image.grad.abs().sum() > 0 and len(loss.bank.read()[0]) == 4


def test_centring_undoes_an_offset_that_all_features_share():
    image, text, teacher_image, teacher_text = inputs()
    loss = StructureDistillationLoss(centre="dataset")
    with pytest.raises(ValueError, match="set_means"):
        loss(image, text, teacher_image, teacher_text)
    loss.set_means(teacher_image, teacher_text)
    value = loss(image, text, teacher_image, teacher_text)[0]
    shifted = StructureDistillationLoss(centre="dataset")
    shifted.set_means(teacher_image + 10, teacher_text - 3)
    assert shifted(image, text, teacher_image + 10, teacher_text - 3)[0].item() == pytest.approx(value.item(), rel=1e-4)
    restored = copy.deepcopy(shifted)
    assert {"image_mean", "text_mean"} <= set(restored.state_dict())


def test_beside_a_sum_over_the_batch_the_weight_must_grow_with_it():
    """The hinge is a sum over the batch, the structure a mean: docs/structure.md tells the remedy."""
    generator, pairs = torch.Generator().manual_seed(0), 128
    embeds = [F.normalize(torch.randn(pairs, 64, generator=generator), dim=-1).requires_grad_() for _ in range(2)]
    teachers = [torch.randn(pairs, 64, generator=generator) for _ in range(2)]

    def steepness(loss):
        return torch.cat(torch.autograd.grad(loss, embeds)).norm().item()

    structure = steepness(2 * StructureDistillationLoss(centre="batch")(*embeds, *teachers)[0])
    hinge = steepness(HingeLoss()(*embeds, torch.arange(pairs)))
    assert structure < 0.03 * hinge
    assert 0.3 * hinge < pairs * structure < 3 * hinge


def test_bad_settings_are_refused():
    for settings in ({"relation": "all"}, {"distance": "l3"}, {"centre": "median"}, {"temperature": 0}):
        with pytest.raises(ValueError):
            StructureDistillationLoss(**settings)
    with pytest.raises(ValueError, match="no share to learn"):
        StructureDistillationLoss("own", learn_text_share=True)


def test_the_representation_loss_is_one_half_of_a_contrast_with_the_projected_teacher():
    embeds, teacher, ids = F.normalize(random(6, 4), dim=-1), random(6, 7, seed=2), torch.tensor([0, 0, 1, 2, 3, 4])
    loss = RepresentationLoss(7, 4)
    projected = F.normalize(loss.projection(teacher), dim=-1)
    both = ContrastiveLoss(0.07)(embeds, projected, ids)
    back = soft_positive_contrast(projected, embeds, ids, 0.07)
    assert (loss(embeds, teacher, ids) + back).item() / 2 == pytest.approx(both.item(), rel=1e-5)


def test_the_values_are_those_of_the_official_code():
    facts, tensors = read_golden("sad")
    fused, image, text = (tensors[f"in.{name}"] for name in ("student_fused", "image_teacher", "text_teacher"))
    expected = facts["loss_values"]
    for distance in ("mae", "mse"):
        for share in (0.3, 0.8547):
            loss = StructureDistillationLoss("intra", distance, share, temperature=facts["tau2"], centre="none")
            target = share * gram(text) + (1 - share) * gram(image)
            mask = 1 - torch.eye(len(fused))
            found = {
                "kd": loss(fused, fused, image, text)[0],
                "kd_image": loss._compare(gram(image), target, mask),
                "kd_text": loss._compare(gram(text), target, mask),
            }
            for name, value in found.items():
                assert value.item() == pytest.approx(expected[f"{distance}.lambda={share}.{name}"], abs=1e-6)
    student, teacher, ids = (tensors[f"in.{name}"] for name in ("student_embeds", "teacher_embeds", "image_id"))
    single = soft_positive_contrast(student, teacher, ids, facts["tau"])
    assert single.item() == pytest.approx(expected["single_contrast"], abs=1e-6)
    assert ContrastiveLoss(facts["tau"])(student, teacher, ids).item() == pytest.approx(expected["itc"], abs=1e-6)
