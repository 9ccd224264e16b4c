"""What lstm and gru share: a recurrence over the window whose last states, with the static columns, make the output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trading_core.models.bounds import require_between, require_one_of
from trading_core.models.heads import OutputHead, StaticEmbedding
from trading_core.models.search import Choice, Real, SearchSpace, Whole
from trading_core.schema import InputSpec


@dataclass(frozen=True, slots=True)
class RecurrentConfig:
    hidden_size: int = 32  # of each direction
    layers: int = 1
    dropout: float = 0.1  # between layers and before the head
    # A second recurrence reads the window backwards, from the decision's own step to the oldest one. It sees no more than
    # the first: the window ends at the decision.
    bidirectional: bool = False

    def __post_init__(self) -> None:
        require_between("hidden_size", self.hidden_size, 1, 1024)
        require_between("layers", self.layers, 1, 8)
        require_between("dropout", self.dropout, 0.0, 0.9)
        require_one_of("bidirectional", self.bidirectional, (False, True))


RECURRENT_SEARCH: SearchSpace = {
    "hidden_size": Whole(8, 128, log=True),
    "layers": Whole(1, 3),
    "dropout": Real(0.0, 0.5),
    "bidirectional": Choice((False, True)),
}


class RecurrentModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O]; `recurrence` is torch's class of the layers."""

    def __init__(self, recurrence: type[nn.LSTM] | type[nn.GRU], config: RecurrentConfig, spec: InputSpec) -> None:
        super().__init__()
        self.directions = 2 if config.bidirectional else 1
        self.recurrence = recurrence(
            len(spec.channels),
            config.hidden_size,
            config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,  # torch warns of a dropout between layers of one
            bidirectional=config.bidirectional,
        )
        self.static = StaticEmbedding(spec.static_cardinalities, limit=16)
        self.dropout = nn.Dropout(config.dropout)
        self.head = OutputHead(self.directions * config.hidden_size + self.static.width, spec)

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        states, _ = self.recurrence(x)  # [B,E,C] -> [B,E,R*D], R directions
        forwards, *backwards = states.chunk(self.directions, dim=-1)  # R x [B,E,D]
        # The backward recurrence ends at the window's first step.
        last = [forwards[:, -1], *(reverse[:, 0] for reverse in backwards), self.static(static)]
        features = torch.cat(last, dim=-1)  # [B,R*D+S]
        output: Tensor = self.head(self.dropout(features))  # [B,H,O]
        return output
