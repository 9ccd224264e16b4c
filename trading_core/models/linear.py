"""Ridge regression of the scaled label on the last rows of the window: the baseline every network must beat.

One linear function per horizon gives the mean; the quantiles are it plus the training residuals' quantiles (equal for
all symbols: the label's scale already carries each one's volatility). Static columns are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trading_core.errors import TrainingFailedError
from trading_core.models.bounds import require_between
from trading_core.models.closed_form import last_rows, require_lags, require_targets, sample_quantiles
from trading_core.models.search import Real, SearchSpace
from trading_core.schema import InputSpec, Target

if TYPE_CHECKING:
    from trading_core.models.registry import Batches


@dataclass(frozen=True, slots=True)
class LinearConfig:
    ridge: float = 0.01  # penalty on squared weights, relative to a mean squared error over unit-variance channels
    lags: int = 1  # how many of the window's last rows are read

    def __post_init__(self) -> None:
        require_between("ridge", self.ridge, 0.0, 1e6)
        require_between("lags", self.lags, 1, 512)


class LinearModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,Q] = x's last rows @ weight + bias + residual quantiles."""

    weight: Tensor  # [L*C,H] float64
    bias: Tensor  # [H]
    residual_quantiles: Tensor  # [H,Q]

    def __init__(self, config: LinearConfig, spec: InputSpec) -> None:
        super().__init__()
        require_targets("linear", spec, (Target.QUANTILES,))
        require_lags(config.lags, spec)
        self.ridge, self.lags, self.quantiles = config.ridge, config.lags, spec.quantiles
        inputs, horizons = config.lags * len(spec.channels), len(spec.horizons)
        # Buffers, not parameters: no optimiser may touch what is solved for.
        self.register_buffer("weight", torch.zeros(inputs, horizons, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(horizons, dtype=torch.float64))
        self.register_buffer("residual_quantiles", torch.zeros(horizons, len(spec.quantiles), dtype=torch.float64))

    def inputs(self, x: Tensor) -> Tensor:
        return last_rows(x, self.lags).to(self.weight.dtype)  # [B,E,C] -> [B,L*C]

    def mean(self, x: Tensor) -> Tensor:
        return self.inputs(x) @ self.weight + self.bias  # [B,L*C] -> [B,H]

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        return (self.mean(x).unsqueeze(-1) + self.residual_quantiles).to(x.dtype)  # [B,H] -> [B,H,Q]


def fit_closed_form(module: nn.Module, train: Batches, validation: Batches) -> None:
    """Solves the ridge equations, then takes the residuals' quantiles; two passes, sums in float64.

    Minimises mean((y - a - x b)^2) + ridge * |b|^2 per horizon; the intercept a is not penalised. Labels are all known.
    TrainingFailedError when there is no sample or the equations have no finite solution.
    """
    if not isinstance(module, LinearModel):
        raise TypeError(f"expected a LinearModel, not {type(module).__name__}")
    size, horizons = module.weight.shape
    gram = torch.zeros(size + 1, size + 1, dtype=torch.float64)
    moment = torch.zeros(size + 1, horizons, dtype=torch.float64)
    for x, _, y, _ in train():
        rows = torch.cat((module.inputs(x), torch.ones(len(x), 1, dtype=torch.float64)), dim=1)  # [B,L*C+1]
        gram += rows.T @ rows
        moment += rows.T @ y.double()  # [L*C+1,H]
    count = float(gram[-1, -1])
    if count == 0:
        raise TrainingFailedError("there is no training sample")
    # The tiny constant keeps constant or repeated channels (a mask that is always 0) solvable with ridge = 0.
    penalty = torch.full((size + 1,), (module.ridge + 1e-9) * count, dtype=torch.float64)
    penalty[-1] = 0.0
    solution = torch.linalg.solve(gram + torch.diag(penalty), moment)
    if not torch.isfinite(solution).all():
        raise TrainingFailedError("the ridge equations have no finite solution (features or labels are not finite)")
    module.weight.copy_(solution[:-1])
    module.bias.copy_(solution[-1])
    residuals = torch.cat([y.double() - module.mean(x) for x, _, y, _ in train()])  # [N,H]
    module.residual_quantiles.copy_(sample_quantiles(residuals, module.quantiles))


def build(config: LinearConfig, spec: InputSpec) -> nn.Module:
    return LinearModel(config, spec)


CONFIG = LinearConfig
SEARCH: SearchSpace = {"ridge": Real(1e-4, 100.0, log=True)}
