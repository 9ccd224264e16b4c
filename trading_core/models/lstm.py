"""An LSTM over the window (Hochreiter and Schmidhuber 1997): last state and static columns make the quantiles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trading_core.models.bounds import require_between
from trading_core.models.heads import OutputHead, StaticEmbedding
from trading_core.schema import InputSpec


@dataclass(frozen=True, slots=True)
class LSTMConfig:
    hidden_size: int = 32
    layers: int = 1
    dropout: float = 0.1  # between layers and before the head

    def __post_init__(self) -> None:
        require_between("hidden_size", self.hidden_size, 1, 1024)
        require_between("layers", self.layers, 1, 8)
        require_between("dropout", self.dropout, 0.0, 0.9)


class LSTMModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O]."""

    def __init__(self, config: LSTMConfig, spec: InputSpec) -> None:
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0
        self.lstm = nn.LSTM(len(spec.channels), config.hidden_size, config.layers, batch_first=True, dropout=between)
        self.static = StaticEmbedding(spec.static_cardinalities, limit=16)
        self.dropout = nn.Dropout(config.dropout)
        self.head = OutputHead(config.hidden_size + self.static.width, spec)

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        states, _ = self.lstm(x)  # [B,E,C] -> [B,E,D]
        features = torch.cat((states[:, -1], self.static(static)), dim=-1)  # [B,D+S]
        output: Tensor = self.head(self.dropout(features))  # [B,H,O]
        return output


def build(config: LSTMConfig, spec: InputSpec) -> nn.Module:
    return LSTMModel(config, spec)


CONFIG = LSTMConfig
