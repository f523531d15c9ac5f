"""TEL, PIR's transformer encoder layer: self-attention, then cross-attention with external queries (section 3.2).

Shapes: B batch, N tokens of the sequence, D features.
"""

import torch
from torch import nn
from torch.nn import functional as F


class TEL(nn.Module):
    """`TEL(S, C) = CA(C, SA(S))`: the queries of the cross-attention are C; residual, keys and values come from S.

    Args:
        dim, heads, dropout: D, attention heads, dropout on attention weights and on both branches.
        norm: `sum` or `branch`, see [`PIRConfig`].
    """

    def __init__(self, dim: int, heads: int, dropout: float, norm: str = "sum"):
        super().__init__()
        self.self_attention = TELBlock(dim, heads, dropout, norm)
        self.cross_attention = TELBlock(dim, heads, dropout, norm)

    def forward(
        self,
        sequence: torch.Tensor,
        external: torch.Tensor,
        mask: torch.Tensor | None = None,
        place: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map a sequence (B, N, D) to (B, N, D), or to (B, 1, D) at one `place`.

        Args:
            sequence: S.
            external: C, the queries: (B, N, D), or (B, 1, D) for one query that all positions share. Equal queries have
                equal results, so one is computed and broadcast: exact in eval mode; in training the positions share a
                dropout mask on the attention weights.
            mask: (B, N), non-zero where a token may be attended to; None means everywhere.
            place: (B,), the only row of each sequence whose result is wanted, with its query (B, 1, D).
        """
        mask = None if mask is None else mask.bool()[:, None, None, :]
        sequence = self.self_attention(sequence, sequence, mask)
        return self.cross_attention(sequence, external, mask, place)


class TELBlock(nn.Module):
    """Attention of some queries over a sequence, added to the sequence, then an MLP."""

    def __init__(self, dim: int, heads: int, dropout: float, norm: str):
        super().__init__()
        self.norm_of_sum = norm == "sum"
        self.attention = Attention(dim, heads, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 2 * dim)
        self.inner_norm = nn.LayerNorm(2 * dim) if self.norm_of_sum else nn.Identity()
        self.fc2 = nn.Linear(2 * dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        sequence: torch.Tensor,
        queries: torch.Tensor,
        mask: torch.Tensor | None,
        place: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map (B, N, D) and queries (B, N or 1, D) to (B, N, D), or to (B, 1, D) at `place` (B,).

        `mask` (B, 1, 1, N) is True where keys count.
        """
        attended = self.attention(queries, sequence, mask)
        if place is not None:
            sequence = row_at(sequence, place)
        if self.norm_of_sum:
            hidden = self.norm1(sequence + self.dropout(attended.expand_as(sequence)))
            return self.norm2(hidden + self.dropout(self._mlp(hidden)))
        hidden = sequence + self.dropout(self.norm1(attended).expand_as(sequence))
        return hidden + self.dropout(self.norm2(self._mlp(hidden)))

    def _mlp(self, hidden):
        return self.fc2(F.gelu(self.inner_norm(self.fc1(hidden))))


class Attention(nn.Module):
    """Multi-head attention; the softmax is scaled by the width of one head (official code; the paper writes D)."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.merge = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, queries: torch.Tensor, sequence: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Attend: queries (B, M, D) over (B, N, D) to (B, M, D)."""
        query, key, value = self.query(queries), self.key(sequence), self.value(sequence)
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.merge(attended.transpose(1, 2).flatten(2))


def row_at(hidden: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Row `place` (B,) of each (B, N, D): (B, 1, D)."""
    return hidden.gather(1, place[:, None, None].expand(-1, 1, hidden.shape[-1]))


__all__ = ["TEL", "row_at"]
