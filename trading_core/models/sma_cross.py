"""The 50/200 rule (golden cross, death cross; Brock, Lakonishok and LeBaron 1992): what followed each of its two states.

The state is read from one channel at the decision's own step. A channel is a shifted and scaled feature, so the sign of
a feature that measures the distance of the averages would be lost; `golden_cross_50_200` has two values, 1 and 0, and
whatever the scaling they lie on either side of the channel's mean over the training samples. Where the feature is missing
the state is unknown if the model reads its mask; without one it is the side on which the scaler's center lies. A feature
with one value in training tells nothing: its state is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trading_core.models.closed_form import Samples, unconditional
from trading_core.models.search import SearchSpace
from trading_core.schema import MASK_SUFFIX, InputSpec

if TYPE_CHECKING:
    from trading_core.models.registry import Batches

STATES = 3  # below, unknown, above: the sign of the channel's distance to its mean, plus 1


@dataclass(frozen=True, slots=True)
class SMACrossConfig:
    channel: str = "golden_cross_50_200"  # a feature of two values, the higher one while the short average is above

    def __post_init__(self) -> None:
        if not isinstance(self.channel, str) or not self.channel:
            raise ValueError(f"channel is {self.channel!r}; it must be the name of a feature")


class SMACrossModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O]: what the training labels of the sample's state were. All targets."""

    outputs: Tensor  # [STATES,H,O] float64
    middle: Tensor  # [] float64, the channel's mean: between its two values

    def __init__(self, config: SMACrossConfig, spec: InputSpec) -> None:
        super().__init__()
        if config.channel not in spec.channels:
            raise ValueError(
                f"channel is '{config.channel}', which the model does not read; add '{config.channel}' to its features"
            )
        self.spec, self.column = spec, spec.channels.index(config.channel)
        mask = config.channel + MASK_SUFFIX
        self.mask = spec.channels.index(mask) if mask in spec.channels else None
        self.register_buffer("outputs", torch.zeros(STATES, len(spec.horizons), spec.outputs, dtype=torch.float64))
        self.register_buffer("middle", torch.zeros((), dtype=torch.float64))

    def missing(self, row: Tensor) -> Tensor:
        """[B,C] -> [B] bool; nothing is known to be missing where the model reads no mask."""
        return (
            torch.zeros(len(row), dtype=torch.bool, device=row.device) if self.mask is None else row[:, self.mask] > 0
        )

    def state(self, row: Tensor) -> Tensor:
        """[B,C], the decision's own step, -> [B] int64 in 0 .. STATES - 1."""
        side = (row[:, self.column].double() - self.middle).sign().long()  # [B,C] -> [B]
        return torch.where(self.missing(row), 0, side) + 1

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        return self.outputs[self.state(x[:, -1])].to(x.dtype)  # [B,E,C] -> [B] -> [B,H,O]


def fit_closed_form(module: nn.Module, train: Batches, validation: Batches) -> None:
    """Counts the training labels of either state; the unknown one, and one that never came, get those of all samples.

    TrainingFailedError when a target has no label.
    """
    if not isinstance(module, SMACrossModel):
        raise TypeError(f"expected an SMACrossModel, not {type(module).__name__}")
    samples = Samples.of(train, lags=1)
    values = samples.rows[~module.missing(samples.rows), module.column].double()
    if len(values):
        # The mean of equal numbers may be off by one rounding.
        module.middle.copy_(values[0] if values.min() == values.max() else values.mean())
    state = module.state(samples.rows)
    overall = unconditional(samples.y, samples.labels, module.spec)
    for code in range(STATES):
        chosen = state == code if code != 1 else torch.ones_like(state, dtype=torch.bool)
        module.outputs[code] = unconditional(samples.y[chosen], samples.labels[chosen], module.spec, overall)


def build(config: SMACrossConfig, spec: InputSpec) -> nn.Module:
    return SMACrossModel(config, spec)


CONFIG = SMACrossConfig
SEARCH: SearchSpace = {}
