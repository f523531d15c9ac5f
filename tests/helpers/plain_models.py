"""Parts of the models as their formulas are written, each row computed for itself: references for tests and benchmarks.

A part takes the weights of ours and computes nothing once that the official code computes for every row.
"""

import torch
from torch import nn
from torch.nn import functional as F

from vsehub import D2SVSEModel, PIRModel
from vsehub.modeling.length_groups import LengthGroups


class PlainPooling(nn.Module):
    """GPO: a bidirectional GRU reads the ranks of every set of the batch."""

    def __init__(self, pooling):
        super().__init__()
        width, self.temperature = pooling.position_dim, pooling.temperature
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.gru.load_state_dict(pooling.gru.state_dict())
        self.score, self.encoding = pooling.score, pooling._encoding

    def forward(self, features, mask=None):
        real = torch.ones(features.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        lengths = real.sum(1)
        outside = (torch.arange(features.shape[1]) >= lengths[:, None])[..., None]  # of the sorted features
        ranks = self.encoding(features.shape[1], features.device).to(features.dtype).expand(len(features), -1, -1)
        packed = nn.utils.rnn.pack_padded_sequence(ranks, lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        scores = self.score(hidden.unflatten(-1, (2, -1)).mean(2)).masked_fill(outside, -1e4)
        weights = (scores / self.temperature).softmax(1)
        ordered = features.masked_fill(~real[..., None], -1e4).sort(dim=1, descending=True).values
        return (ordered.masked_fill(outside, 0.0) * weights).sum(1)


class PlainDecoder(nn.Module):
    """The mask-token decoder: every layer computes every row of every caption."""

    def __init__(self, decoder):
        super().__init__()
        self.mask_tokens, self.layers, self.norm = decoder.mask_tokens, decoder.layers, decoder.norm

    def forward(self, words, mask):
        hidden = torch.cat([words, self.mask_tokens.expand(len(words), -1, -1)], dim=1)
        if mask is not None:
            mask = F.pad(mask.bool(), (0, len(self.mask_tokens)), value=True)[:, None, None, :]
        for layer in self.layers:
            parts = layer.qkv(layer.norm1(hidden)).chunk(3, dim=-1)
            query, key, value = (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in parts)
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            hidden = hidden + layer.proj(attended.transpose(1, 2).flatten(2))
            hidden = hidden + layer.fc2(F.gelu(layer.fc1(layer.norm2(hidden))))
        return self.norm(hidden)[:, -len(self.mask_tokens) :].mean(1)


class PlainInstruction(nn.Module):
    """VIR: the instruction queries from every place, and every row of the last layer is computed."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, tokens, instruction):
        logits = torch.einsum("bnd,bd->bn", tokens, instruction)
        hidden, _ = self.module._believed(tokens, logits)
        for layer, linear in zip(self.module.layers, self.module.maps):
            hidden = layer(hidden, linear(instruction[:, None].expand_as(hidden)))
        return self.module.head(hidden[:, 0]), logits


class PlainCycles(nn.Module):
    """LCA: every row of the last cycle is computed."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, words, mask, place):
        for layer, linear in zip(self.module.layers, self.module.maps):
            words = layer(words, linear(words), mask)
        return self.module.head(words[torch.arange(len(words)), place])


def plain(model: D2SVSEModel | PIRModel) -> D2SVSEModel | PIRModel:
    """Put the plain parts into a model, in place; captions of like length are no longer run together."""
    if isinstance(model, D2SVSEModel):
        model.image_pooling, model.text_pooling = PlainPooling(model.image_pooling), PlainPooling(model.text_pooling)
        if model.mask_token_decoder is not None:
            model.mask_token_decoder = PlainDecoder(model.mask_token_decoder)
    else:
        model.visual_instruction = PlainInstruction(model.visual_instruction)
        model.language_cycles = PlainCycles(model.language_cycles)
    whole = LengthGroups(None)
    model.length_groups = lambda mask: whole
    return model
