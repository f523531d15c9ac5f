"""The default cut-off of searches by text, which a model's configuration carries, measured on the validation split."""

import numpy as np
import torch

from ..evaluation.embed import Embeds
from ..modeling.modeling_dual_encoder import DualEncoderPreTrainedModel
from ..processing.processing_dual_encoder import DualEncoderProcessor
from ..search.cutoff import default_cutoff
from ..search.off_topic import off_topic_queries


def measured_cutoff(
    model: DualEncoderPreTrainedModel,
    processor: DualEncoderProcessor,
    captions: list[str],
    embeds: Embeds,
) -> dict | None:
    """`text_cutoff` of a configuration, see `search.cutoff.default_cutoff`.

    A query about something that is in no picture should find nothing. Captions of other validation pictures are no such
    queries: where many pictures show the same things, most of them answer several captions. So the noise is made of
    `search.off_topic.off_topic_queries`.

    Args:
        model, processor: after training.
        captions: of the validation split, all.
        embeds: of the last evaluation.
    """
    images, texts, owners = embeds
    queries = off_topic_queries(captions)
    if not queries:
        return None
    vectors = model.encode_text(queries, processor=processor)
    with torch.autocast("cpu", enabled=False):  # mixed precision is for the towers; a search multiplies in float32
        noise = vectors @ images.t()
        own = (texts * images[owners]).sum(dim=1)
    return default_cutoff(np.asarray(own), np.asarray(noise))


__all__ = ["measured_cutoff"]
