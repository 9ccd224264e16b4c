"""How good a model's validation forecasts are, and the calibration that is learned from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from trading_core.calibration.calibrators import Calibrator, fit_calibrator
from trading_core.calibration.outputs import Outputs, read_outputs
from trading_core.dataset.windows import WindowSet
from trading_core.metrics.classification import pr_auc
from trading_core.metrics.forecasts import (
    MIN_PAIRS,
    ForecastSkill,
    brier,
    directional_accuracy,
    ic_per_date,
    rank_ic_per_date,
    roc_auc,
    summary,
)
from trading_core.schema import Float32Array, FloatArray, InputSpec, IntArray
from trading_core.training.loss import Objective


@dataclass(frozen=True, slots=True)
class Validation:
    """Per horizon, in the spec's order: the calibration fitted on the validation part, and the skill measured there.

    The Brier score and ROC AUC in `skill` are of calibrated probabilities on the rows that calibrated them.
    """

    calibration: tuple[Calibrator, ...]
    skill: tuple[ForecastSkill, ...]


def outputs_of(output: Float32Array, windows: WindowSet, spec: InputSpec) -> Outputs:
    """The forecasts of all rows of `windows`. output: [N,H,O] in their order."""
    sigma = windows.scaled.panel.sigma[windows.symbol, windows.columns]
    return read_outputs(output, spec, windows.scale, sigma)


def returns_of(windows: WindowSet) -> FloatArray:
    """[N,H] log returns of all rows."""
    return windows.y.astype(np.float64) * windows.scale


def validation_loss(output: Float32Array, windows: WindowSet, objective: Objective) -> float:
    """The training objective over all validation rows at once, in float64, without what networks ask for themselves."""
    date = np.unique(windows.columns, return_inverse=True)[1].astype(np.int64)
    values = torch.from_numpy(output.astype(np.float64))
    y, labels = (torch.from_numpy(part.astype(np.float64)) for part in (windows.y, windows.labels))
    return float(objective.to(values)(values, y, labels, torch.from_numpy(date)))


def validation_rank_ic(output: Float32Array, windows: WindowSet, spec: InputSpec) -> float:
    """Mean over sessions, then horizons, of the rank IC of what strategies rank by."""
    return monitored_value("rank_ic", output, windows, spec)


def monitored_value(monitor: str, output: Float32Array, windows: WindowSet, spec: InputSpec) -> float:
    """Mean over horizons of a metric of `Monitor` (not "loss"), higher is better; NaN where it is not defined.

    The mean of "ic" and "rank_ic" goes over sessions first. "brier" is negated. output: [N,H,O].
    """
    found, returns = outputs_of(output, windows, spec), returns_of(windows)
    measure = _MONITORS[monitor]
    values = [measure(found.score[:, h], found.p_up[:, h], y, windows.columns) for h, y in enumerate(returns.T)]
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def ranks_are_defined(windows: WindowSet) -> bool:
    """Whether any session has enough symbols for a rank IC; a market of one symbol has none."""
    return bool((np.unique(windows.columns, return_counts=True)[1] >= MIN_PAIRS).any())


def judge(output: Float32Array, windows: WindowSet, spec: InputSpec, calibration: str = "platt") -> Validation:
    """Calibration and skill of each horizon. output: [N,H,O], in the order of the rows of `windows`."""
    found, returns = outputs_of(output, windows, spec), returns_of(windows)
    calibrators, skills = [], []
    for h, horizon in enumerate(windows.spec.horizons):
        label, raw = returns[:, h], found.p_up[:, h]
        calibrator = fit_calibrator(calibration, raw, _up(label))
        quantiles = found.quantiles[:, h]
        p_up = calibrator.apply(raw)
        skills.append(summary(found.score[:, h], label, windows.columns, horizon, quantiles, spec.quantiles, p_up))
        calibrators.append(calibrator)
    return Validation(tuple(calibrators), tuple(skills))


def _up(label: FloatArray) -> FloatArray:
    return (label > 0.0).astype(np.float64)


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else math.nan


# Of one horizon: (score, p_up, label, decision columns), all [N].
_Measure = Callable[[FloatArray, FloatArray, FloatArray, IntArray], float]
_MONITORS: dict[str, _Measure] = {
    "rank_ic": lambda score, p_up, label, date: _mean(rank_ic_per_date(score, label, date).included),
    "ic": lambda score, p_up, label, date: _mean(ic_per_date(score, label, date).included),
    "pr_auc": lambda score, p_up, label, date: pr_auc(p_up, _up(label)),
    "roc_auc": lambda score, p_up, label, date: roc_auc(p_up, _up(label)),
    "accuracy": lambda score, p_up, label, date: directional_accuracy(label, p_up - 0.5),
    "brier": lambda score, p_up, label, date: -brier(p_up, _up(label)),
}
