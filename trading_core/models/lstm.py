"""An LSTM over the window (Hochreiter and Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from trading_core.models.recurrent import RECURRENT_SEARCH, RecurrentConfig, RecurrentModel
from trading_core.schema import InputSpec


@dataclass(frozen=True, slots=True)
class LSTMConfig(RecurrentConfig):
    """The options of every recurrence; their defaults are meant for some 30 daily features."""


def build(config: LSTMConfig, spec: InputSpec) -> nn.Module:
    return RecurrentModel(nn.LSTM, config, spec)


CONFIG = LSTMConfig
SEARCH = RECURRENT_SEARCH
