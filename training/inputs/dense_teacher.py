"""D2S-VSE's dense teacher: the frozen text side of stage 1, which embeds the dense text of each pair.

Its vectors are either computed once, and become a column of the training rows (`--dense_teacher cached`), or computed
in each step, on augmented dense text (`online`).
"""

from collections.abc import Sequence

import torch
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm

from ...modeling.modeling_d2s_vse import D2SVSEModel
from ...processing.batching import batches_of, by_length, pad_states, run_batches, tokenize
from ...processing.processing_d2s_vse import D2SVSEProcessor
from .tower_cache import TowerCache

DENSE_TEXT_EMBEDS = "dense_text_embeds"  # a column that the data bring is used as it is
BATCH_SIZE = 64


def add_dense_text_embeds(
    rows: Dataset,
    dense_teacher: D2SVSEModel,
    processor: D2SVSEProcessor,
    device: torch.device | str,
    states: TowerCache | None = None,
) -> Dataset:
    """Add the column `dense_text_embeds`: the teacher's vector of each row's dense text, not normalised.

    Args:
        rows: with `dense_text`.
        dense_teacher, processor: of stage 1.
        device: where the teacher runs.
        states: of the dense texts, where the text tower is frozen and cached; it is then not run again.

    Raises:
        ValueError: the rows bring such a column, of another width than this teacher's.
    """
    dim = dense_teacher.config.projection_dim
    if DENSE_TEXT_EMBEDS in rows.column_names:
        width = len(rows[0][DENSE_TEXT_EMBEDS])
        if width != dim:
            raise ValueError(
                f"column {DENSE_TEXT_EMBEDS} holds vectors of {width} numbers, the dense teacher makes {dim}: remove "
                "the column, and it is computed anew"
            )
        return rows
    dense_teacher = dense_teacher.to(device).eval()
    texts = list(rows["dense_text"])
    vectors = torch.empty(len(texts), dim)

    def prepare(batch: Sequence[int]) -> dict[str, torch.Tensor]:
        if states is not None:
            return pad_states([states[row] for row in batch])
        return tokenize(processor.tokenizer, [texts[row] for row in batch])

    def embed(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        names = ("input_ids", "text_hidden_states", "attention_mask")
        features = dense_teacher.get_text_features(**{name: inputs[name] for name in names if name in inputs})
        return features.pooler_output.float().cpu()

    batches = tqdm(batches_of(by_length(texts), BATCH_SIZE), desc="dense teacher embeds dense text")
    for batch, part in run_batches(batches, prepare, embed, dense_teacher.device):
        vectors[batch] = part
    return rows.add_column(DENSE_TEXT_EMBEDS, list(vectors.numpy()))


@torch.no_grad()
def teach(
    dense_teacher: D2SVSEModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, training: bool
) -> torch.Tensor:
    """Embed dense texts (B, L) in a training step: vectors (B, D), not normalised.

    Args:
        dense_teacher: in eval mode, unless its configuration says `legacy`.
        input_ids, attention_mask: of the dense texts.
        training: whether the student is in training mode.
    """
    # The official code leaves its "frozen" teacher in training mode: dropout on, statistics moving. The model's own
    # `train` would keep its towers in eval mode, because they are frozen.
    nn.Module.train(dense_teacher, training and dense_teacher.config.legacy)
    return dense_teacher.get_text_features(input_ids, attention_mask=attention_mask).pooler_output


__all__ = ["DENSE_TEXT_EMBEDS", "add_dense_text_embeds", "teach"]
