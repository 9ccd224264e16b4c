"""The base rate: what the training labels say without any input. A model that cannot beat it has learned nothing.

Per horizon the unconditional quantiles of the scaled return, the share of rises, the shares of the classes and the mean
of the other targets; all symbols and days get the same.
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


@dataclass(frozen=True, slots=True)
class BaseRateConfig:
    """There is nothing to choose."""


class BaseRateModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O], the same for every sample. It gives every target."""

    output: Tensor  # [H,O] float64

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        # A buffer, not a parameter: no optimiser may touch what is counted.
        self.register_buffer("output", torch.zeros(len(spec.horizons), spec.outputs, dtype=torch.float64))

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        return self.output.to(x.dtype).expand(len(x), -1, -1)  # [H,O] -> [B,H,O]


def fit_closed_form(module: nn.Module, train: Batches, validation: Batches) -> None:
    """Counts the training labels. TrainingFailedError when a target has none."""
    if not isinstance(module, BaseRateModel):
        raise TypeError(f"expected a BaseRateModel, not {type(module).__name__}")
    samples = Samples.of(train, lags=1)
    module.output.copy_(unconditional(samples.y, samples.labels, module.spec))


def build(config: BaseRateConfig, spec: InputSpec) -> nn.Module:
    return BaseRateModel(spec)


CONFIG = BaseRateConfig
SEARCH: SearchSpace = {}
