"""Blocks of the larger networks beside the Transformer's: a residual block, SwiGLU, a sample's own embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trading_core.models.heads import StaticEmbedding
from trading_core.schema import InputSpec


class ResidualBlock(nn.Module):
    """x [...,D] -> x + dropout(inner(LayerNorm(x))), where `inner` keeps the shape."""

    def __init__(self, size: int, inner: nn.Module, dropout: float) -> None:
        super().__init__()
        self.norm, self.inner, self.dropout = nn.LayerNorm(size), inner, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = x + self.dropout(self.inner(self.norm(x)))
        return residual


class SwiGLU(nn.Module):
    """[...,D] -> [...,O]: (silu(x W) * x V) W2 without biases (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, in_features: int, hidden: int, out_features: int) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(in_features, 2 * hidden, bias=False)  # W and V side by side
        self.out = nn.Linear(hidden, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)  # [...,2F] -> 2 x [...,F]
        output: Tensor = self.out(F.silu(gate) * value)
        return output


class SampleEmbedding(nn.Module):
    """(x [B,E,C], static [B,K], extra [B,X]) -> [B,D]: what is known of the sample itself, beside its path.

    Static codes are embedded; context channels (calendar, moneyness ...) are read at the last step, the decision's own.
    A network makes one vector of both and `extra`; with none of them, it is one learned vector for all samples.
    """

    context: Tensor  # [number of context channels] int64

    def __init__(self, spec: InputSpec, size: int, dropout: float, extra: int = 0) -> None:
        super().__init__()
        self.register_buffer("context", torch.tensor(spec.context_columns, dtype=torch.int64), persistent=False)
        self.static = StaticEmbedding(spec.static_cardinalities, limit=size)
        known = self.static.width + len(spec.context_columns) + extra
        self.query = nn.Parameter(torch.randn(size) / size**0.5)
        self.network = (
            nn.Sequential(nn.Linear(known, size), nn.GELU(), nn.Dropout(dropout), nn.Linear(size, size))
            if known
            else None
        )

    def forward(self, x: Tensor, static: Tensor, extra: Tensor | None = None) -> Tensor:
        if self.network is None:
            return self.query.expand(len(x), -1)  # [D] -> [B,D]
        parts = [self.static(static), x[:, -1].index_select(-1, self.context)]
        known = torch.cat(parts if extra is None else [*parts, extra], dim=-1)
        embedded: Tensor = self.query + self.network(known)
        return embedded
