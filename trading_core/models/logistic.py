"""Logistic regression of the direction on the last rows of the window, with a ridge penalty; its quantiles follow from it.

Per horizon: logit P(return > 0) = a + x b minimises mean(log loss) + ridge / 2 * |b|^2, the intercept a not penalised
(scikit-learn's LogisticRegression with C = 1 / (N ridge)). The scaled return is then regressed on that logit alone, and
the quantiles are this line plus the training residuals' quantiles. Static columns are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trading_core.errors import TrainingFailedError
from trading_core.models.bounds import require_between
from trading_core.models.closed_form import Samples, last_rows, require_lags, require_targets, sample_quantiles
from trading_core.models.search import Real, SearchSpace
from trading_core.schema import InputSpec, Target

if TYPE_CHECKING:
    from trading_core.models.registry import Batches

GIVES = (Target.QUANTILES, Target.DIRECTION)
ITERATIONS = 100
HALVINGS = 40
TOLERANCE = 1e-9  # largest slope of the mean loss at which the solution is found
ROWS = 65_536  # of the inputs are float64 at a time
FLOOR = 1e-9  # added to the ridge: constant or repeated channels stay solvable with ridge = 0


@dataclass(frozen=True, slots=True)
class LogisticConfig:
    ridge: float = 0.01  # penalty on squared weights, relative to a mean log loss over unit-variance channels
    lags: int = 1  # how many of the window's last rows are read

    def __post_init__(self) -> None:
        require_between("ridge", self.ridge, 0.0, 1e6)
        require_between("lags", self.lags, 1, 512)


class LogisticModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O]: quantiles, and the direction's logit where the spec asks for it."""

    weight: Tensor  # [P,H] float64, P = lags * C
    bias: Tensor  # [H]
    line: Tensor  # [2,H]: intercept and slope of the scaled return on the logit
    residual_quantiles: Tensor  # [H,Q]

    def __init__(self, config: LogisticConfig, spec: InputSpec) -> None:
        super().__init__()
        require_targets("logistic", spec, GIVES)
        require_lags(config.lags, spec)
        self.ridge, self.lags, self.spec = config.ridge, config.lags, spec
        inputs, horizons = config.lags * len(spec.channels), len(spec.horizons)
        # Buffers, not parameters: no optimiser may touch what is solved for.
        self.register_buffer("weight", torch.zeros(inputs, horizons, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(horizons, dtype=torch.float64))
        self.register_buffer("line", torch.zeros(2, horizons, dtype=torch.float64))
        self.register_buffer("residual_quantiles", torch.zeros(horizons, len(spec.quantiles), dtype=torch.float64))

    def logit(self, rows: Tensor) -> Tensor:
        return rows.to(self.weight.dtype) @ self.weight + self.bias  # [B,P] -> [B,H]

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        logit = self.logit(last_rows(x, self.lags))  # [B,E,C] -> [B,H]
        middle = (self.line[0] + self.line[1] * logit).unsqueeze(-1)  # [B,H] -> [B,H,1]
        parts = {Target.QUANTILES: middle + self.residual_quantiles, Target.DIRECTION: logit.unsqueeze(-1)}
        return torch.cat([parts[target] for target in self.spec.targets], dim=-1).to(x.dtype)  # [B,H,O]


def fit_closed_form(module: nn.Module, train: Batches, validation: Batches) -> None:
    """Newton's method per horizon, then the line and its residuals; all sums in float64. Returns are all known.

    TrainingFailedError when there is no sample, an input is not finite, or Newton's steps do not arrive.
    """
    if not isinstance(module, LogisticModel):
        raise TypeError(f"expected a LogisticModel, not {type(module).__name__}")
    samples = Samples.of(train, module.lags)
    if not (torch.isfinite(samples.rows).all() and torch.isfinite(samples.y).all()):
        raise TrainingFailedError("the logistic regression has no solution (features or labels are not finite)")
    for h in range(len(module.bias)):
        solution = _newton(samples.rows, (samples.y[:, h] > 0).double(), module.ridge + FLOOR)
        module.weight[:, h], module.bias[h] = solution[:-1], solution[-1]
    logit, y = module.logit(samples.rows), samples.y.double()  # [N,H]
    centred = logit - logit.mean(dim=0)
    slope = (centred * y).sum(dim=0) / (centred**2).sum(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    module.line.copy_(torch.stack((y.mean(dim=0) - slope * logit.mean(dim=0), slope)))
    residuals = y - (module.line[0] + module.line[1] * logit)
    module.residual_quantiles.copy_(sample_quantiles(residuals, module.spec.quantiles))


def _newton(rows: Tensor, up: Tensor, ridge: float) -> Tensor:
    """[P+1]: weights, then the intercept. rows: [N,P]; up: [N], 0 or 1.

    The loss is convex: full Newton steps (iteratively reweighted least squares), halved until they lower it.
    """
    penalty = torch.full((rows.shape[1] + 1,), ridge, dtype=torch.float64)
    penalty[-1] = 0.0
    solution = torch.zeros_like(penalty)
    # Where only one outcome came the intercept runs away; the share's logit, bounded, is where it starts and may stay.
    share = up.mean().clamp(0.5 / len(up), 1.0 - 0.5 / len(up))
    solution[-1] = torch.logit(share)
    if up.min() == up.max():
        return solution
    loss, slope, curvature = _derivatives(rows, up, solution, penalty)
    for _ in range(ITERATIONS):
        if slope.abs().max() < TOLERANCE:
            return solution
        step = torch.linalg.solve(curvature, slope)
        for halvings in range(HALVINGS):
            tried = solution - step * 0.5**halvings
            found = _derivatives(rows, up, tried, penalty)
            # Close to the minimum a step changes the loss by less than its rounding.
            if found[0] <= loss + 1e-12 * abs(loss):
                break
        solution, (loss, slope, curvature) = tried, found
    raise TrainingFailedError(f"the logistic regression found no minimum in {ITERATIONS} steps; raise `ridge`")


def _derivatives(rows: Tensor, up: Tensor, solution: Tensor, penalty: Tensor) -> tuple[float, Tensor, Tensor]:
    """The penalised mean log loss at `solution` [P+1], its slope [P+1] and its curvature [P+1,P+1]."""
    loss = 0.5 * float((penalty * solution**2).sum())
    slope, curvature = penalty * solution, torch.diag(penalty)
    count = len(rows)
    for start in range(0, count, ROWS):
        part = F.pad(rows[start : start + ROWS].double(), (0, 1), value=1.0)  # [R,P] -> [R,P+1]
        outcome = up[start : start + ROWS]
        logit = part @ solution
        p = torch.sigmoid(logit)
        loss += float(F.binary_cross_entropy_with_logits(logit, outcome, reduction="sum")) / count
        slope = slope + part.T @ (p - outcome) / count
        curvature = curvature + (part * (p * (1.0 - p)).unsqueeze(1)).T @ part / count
    return loss, slope, curvature


def build(config: LogisticConfig, spec: InputSpec) -> nn.Module:
    return LogisticModel(config, spec)


CONFIG = LogisticConfig
SEARCH: SearchSpace = {"ridge": Real(1e-4, 10.0, log=True)}
