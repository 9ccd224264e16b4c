"""A multilayer perceptron over the window laid flat: what is gained by a network that knows nothing of order in time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from trading_core.models.bounds import require_between
from trading_core.models.closed_form import last_rows, require_lags
from trading_core.models.heads import OutputHead, StaticEmbedding
from trading_core.models.search import Choice, Real, SearchSpace, Whole
from trading_core.schema import InputSpec


@dataclass(frozen=True, slots=True)
class MLPConfig:
    hidden_size: int = 64
    layers: int = 2  # hidden ones
    dropout: float = 0.3  # after each hidden layer
    # How many of the window's last rows are read; None: all. Each row has weights of its own, and features already look
    # back: with 24 channels and 20 rows the whole window lost a quarter of a planted rank IC to overfitting.
    lags: int | None = 5

    def __post_init__(self) -> None:
        require_between("hidden_size", self.hidden_size, 1, 4096)
        require_between("layers", self.layers, 1, 8)
        require_between("dropout", self.dropout, 0.0, 0.9)
        if self.lags is not None:
            require_between("lags", self.lags, 1, 512)


SEARCH: SearchSpace = {
    "hidden_size": Whole(16, 256, log=True),
    "layers": Whole(1, 3),
    "dropout": Real(0.0, 0.5),
    "lags": Choice((1, 5, None)),
}


class MLPModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O]. ValueError when `lags` exceeds the window."""

    def __init__(self, config: MLPConfig, spec: InputSpec) -> None:
        super().__init__()
        self.lags = spec.encoder_length if config.lags is None else config.lags
        require_lags(self.lags, spec)
        self.static = StaticEmbedding(spec.static_cardinalities, limit=16)
        widths = [self.lags * len(spec.channels) + self.static.width, *[config.hidden_size] * config.layers]
        hidden: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            hidden += [nn.Linear(inputs, outputs), nn.GELU(), nn.Dropout(config.dropout)]
        self.hidden = nn.Sequential(*hidden)
        self.head = OutputHead(config.hidden_size, spec)

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        rows = last_rows(x, self.lags)  # [B,E,C] -> [B,L*C]
        features = self.hidden(torch.cat((rows, self.static(static)), dim=-1))  # [B,L*C+S] -> [B,D]
        output: Tensor = self.head(features)  # [B,H,O]
        return output


def build(config: MLPConfig, spec: InputSpec) -> nn.Module:
    return MLPModel(config, spec)


CONFIG = MLPConfig
