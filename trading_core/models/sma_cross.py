"""The 50/200 rule (golden cross, death cross; Brock, Lakonishok and LeBaron 1992): what followed each of its two states.

The state is read from one channel at the decision's own step: above 0 the short average lies above the long one, below 0
it does not. A channel is a feature minus its training mean, so the sign of a feature that measures the distance of the
averages would be lost; `golden_cross_50_200` is 1 or 0, its mean lies between them and the sign tells them apart exactly.
At 0 the state is unknown: the feature is missing there, or was the same on every training day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trading_core.models.closed_form import Samples, unconditional
from trading_core.models.search import SearchSpace
from trading_core.schema import InputSpec

if TYPE_CHECKING:
    from trading_core.models.registry import Batches

STATES = 3  # below, unknown, above: the sign of the channel plus 1


@dataclass(frozen=True, slots=True)
class SMACrossConfig:
    channel: str = "golden_cross_50_200"  # a feature of two values, the higher one while the short average is above

    def __post_init__(self) -> None:
        if not isinstance(self.channel, str) or not self.channel:
            raise ValueError(f"channel is {self.channel!r}; it must be the name of a feature")


class SMACrossModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O]: what the training labels of the sample's state were. All targets."""

    outputs: Tensor  # [STATES,H,O] float64

    def __init__(self, config: SMACrossConfig, spec: InputSpec) -> None:
        super().__init__()
        if config.channel not in spec.channels:
            raise ValueError(
                f"channel is '{config.channel}', which the model does not read; add '{config.channel}' to its features"
            )
        self.spec, self.column = spec, spec.channels.index(config.channel)
        self.register_buffer("outputs", torch.zeros(STATES, len(spec.horizons), spec.outputs, dtype=torch.float64))

    def state(self, row: Tensor) -> Tensor:
        """[B,C], the decision's own step, -> [B] int64 in 0 .. STATES - 1."""
        return row[:, self.column].sign().long() + 1  # [B,C] -> [B]

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        return self.outputs[self.state(x[:, -1])].to(x.dtype)  # [B,E,C] -> [B] -> [B,H,O]


def fit_closed_form(module: nn.Module, train: Batches, validation: Batches) -> None:
    """Counts the training labels of either state; the unknown one, and one that never came, get those of all samples.

    TrainingFailedError when a target has no label.
    """
    if not isinstance(module, SMACrossModel):
        raise TypeError(f"expected an SMACrossModel, not {type(module).__name__}")
    samples = Samples.of(train, lags=1)
    state = module.state(samples.rows)
    overall = unconditional(samples.y, samples.labels, module.spec)
    for code in range(STATES):
        chosen = state == code if code != 1 else torch.ones_like(state, dtype=torch.bool)
        module.outputs[code] = unconditional(samples.y[chosen], samples.labels[chosen], module.spec, overall)


def build(config: SMACrossConfig, spec: InputSpec) -> nn.Module:
    return SMACrossModel(config, spec)


CONFIG = SMACrossConfig
SEARCH: SearchSpace = {}
