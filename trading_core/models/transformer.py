"""A Transformer encoder over the window (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), without a decoder.

The steps see each other in both directions: all of them lie before the decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from trading_core.models.bounds import require_between, require_multiple, require_one_of
from trading_core.models.encoder import EncoderBlock, FeedForward
from trading_core.models.heads import OutputHead, StaticEmbedding
from trading_core.models.positions import POSITIONS, Positions, position_encoding
from trading_core.models.search import Choice, Real, SearchSpace, Whole
from trading_core.schema import InputSpec

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    hidden_size: int = 32
    attention_heads: int = 4
    layers: int = 2
    feed_forward_size: int = 64  # columns inside each block's feed-forward part
    dropout: float = 0.1  # of inputs, attention weights, what a block adds, and before the head
    positions: Positions = "sinusoidal"
    # What the head reads: the mean of all steps, or a learnt step of its own in front of them (Devlin et al. 2018).
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        require_between("hidden_size", self.hidden_size, 2, 1024)
        require_between("attention_heads", self.attention_heads, 1, 16)
        require_multiple("hidden_size", self.hidden_size, "attention_heads", self.attention_heads)
        require_between("layers", self.layers, 1, 12)
        require_between("feed_forward_size", self.feed_forward_size, 1, 4096)
        require_between("dropout", self.dropout, 0.0, 0.9)
        require_one_of("positions", self.positions, POSITIONS)
        require_one_of("pooling", self.pooling, get_args(Pooling))


SEARCH: SearchSpace = {
    "hidden_size": Choice((16, 32, 64, 128)),  # each a multiple of every number of heads below
    "attention_heads": Choice((1, 2, 4, 8)),
    "layers": Whole(1, 4),
    "feed_forward_size": Whole(32, 256, log=True),
    "dropout": Real(0.0, 0.5),
    "positions": Choice(POSITIONS),
    "pooling": Choice(get_args(Pooling)),
}


class TransformerModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O]."""

    def __init__(self, config: TransformerConfig, spec: InputSpec) -> None:
        super().__init__()
        width = config.hidden_size
        self.inputs = nn.Linear(len(spec.channels), width)
        self.positions = position_encoding(config.positions, spec.encoder_length, width)
        # It has no position: it is a free vector already.
        self.summary = nn.Parameter(0.02 * torch.randn(width)) if config.pooling == "cls" else None
        self.blocks = nn.Sequential(
            *(
                EncoderBlock(
                    width,
                    config.attention_heads,
                    FeedForward(width, config.feed_forward_size, config.dropout),
                    config.dropout,
                )
                for _ in range(config.layers)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.static = StaticEmbedding(spec.static_cardinalities, limit=16)
        self.dropout = nn.Dropout(config.dropout)
        self.head = OutputHead(width + self.static.width, spec)

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        steps = self.dropout(self.positions(self.inputs(x)))  # [B,E,C] -> [B,E,D]
        if self.summary is not None:
            steps = torch.cat((self.summary.expand(len(x), 1, -1), steps), dim=1)  # [B,1+E,D]
        steps = self.norm(self.blocks(steps))
        pooled = steps.mean(dim=1) if self.summary is None else steps[:, 0]  # [B,D]
        features = torch.cat((pooled, self.static(static)), dim=-1)  # [B,D+S]
        output: Tensor = self.head(self.dropout(features))  # [B,H,O]
        return output


def build(config: TransformerConfig, spec: InputSpec) -> nn.Module:
    return TransformerModel(config, spec)


CONFIG = TransformerConfig
