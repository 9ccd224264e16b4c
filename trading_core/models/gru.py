"""A GRU over the window (Cho et al. 2014, https://arxiv.org/abs/1406.1078): an LSTM with three quarters of its weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from trading_core.models.recurrent import RECURRENT_SEARCH, RecurrentConfig, RecurrentModel
from trading_core.schema import InputSpec


@dataclass(frozen=True, slots=True)
class GRUConfig(RecurrentConfig):
    """The options of every recurrence; their defaults are meant for some 30 daily features."""


def build(config: GRUConfig, spec: InputSpec) -> nn.Module:
    return RecurrentModel(nn.GRU, config, spec)


CONFIG = GRUConfig
SEARCH = RECURRENT_SEARCH
