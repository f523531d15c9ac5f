"""Computes losses and gradients in one of several processes: `python loss_process.py RANK WORLD STORE INPUTS OUT`."""

import sys

import torch
from torch import distributed as dist

from vsehub.losses import AffiliationLoss, ContrastiveLoss, HingeLoss, RepresentationLoss, StructureDistillationLoss
from vsehub.losses.chunked import rows_are_shared
from vsehub.losses.matryoshka import MatryoshkaObjective
from vsehub.losses.objectives import D2SObjective, PairEmbeddings


def losses(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every loss of the inputs, with the gradients of both sides and of its parameters, as `NAME` and `NAME.grad.I`."""
    torch.manual_seed(0)
    ids, labels, of_images, of_texts = (inputs[name] for name in ("ids", "labels", "image_teacher", "text_teacher"))
    kinds = {
        "infonce": (ContrastiveLoss(), lambda loss, v, t: loss(v, t, ids)),
        "hinge": (HingeLoss(), lambda loss, v, t: loss(v, t, ids)),
        "sum": (HingeLoss(), lambda loss, v, t: loss(v, t, ids, hardest=False)),
        "affiliation": (AffiliationLoss(), lambda loss, v, t: loss(v, t, labels)),
        "structure": (StructureDistillationLoss(), lambda loss, v, t: loss(v, t, of_images, of_texts)[0]),
        "fused": (
            StructureDistillationLoss("fused", learn_text_share=True),
            lambda loss, v, t: loss(v, t, of_images, of_texts)[0],
        ),
        "matryoshka": (
            MatryoshkaObjective({width: D2SObjective("infonce", ramp_epochs=0) for width in (2, 4)}),
            lambda loss, v, t: loss(PairEmbeddings(v, t, t, ids, of_texts[:, :4]), 1.0)[0],
        ),
        "representation": (RepresentationLoss(5, 4), lambda loss, v, t: loss(v, of_images, ids)),
    }
    results = {}
    for name, (loss, call) in kinds.items():
        sides = [inputs[side].clone().requires_grad_() for side in ("images", "texts")]
        value = call(loss, *sides)
        leaves = [*sides, *(parameter for parameter in loss.parameters() if parameter.requires_grad)]
        slopes = torch.autograd.grad(value, leaves, allow_unused=True)
        results[name] = value.detach()
        results |= {f"{name}.grad.{row}": slope for row, slope in enumerate(slopes) if slope is not None}
    return results


if __name__ == "__main__":
    rank, world, store, inputs, out = sys.argv[1:]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(world))
    with rows_are_shared():
        torch.save(losses(torch.load(inputs)), out)
    dist.barrier()  # gloo aborts where one process leaves while another still reads from it
    dist.destroy_process_group()
