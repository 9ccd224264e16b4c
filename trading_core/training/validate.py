"""How good a model's validation forecasts are, and the calibration that is learned from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trading_core.calibration.platt import Platt
from trading_core.calibration.quantiles import p_up_from_quantiles
from trading_core.dataset.windows import WindowSet
from trading_core.metrics.forecasts import MIN_PAIRS, ForecastSkill, rank_ic_per_date, summary
from trading_core.schema import Float32Array, FloatArray
from trading_core.training.loss import objective


@dataclass(frozen=True, slots=True)
class Validation:
    """Per horizon, in the spec's order: the calibration fitted on the validation part, and the skill measured there.

    The Brier score and ROC AUC in `skill` are of calibrated probabilities on the rows that calibrated them.
    """

    platt: tuple[Platt, ...]
    skill: tuple[ForecastSkill, ...]


def unscaled(quantiles: Float32Array, windows: WindowSet) -> tuple[FloatArray, FloatArray]:
    """Quantiles [N,H,Q] and labels [N,H] in units of the label (log returns). quantiles: [N,H,Q] scaled."""
    scale = windows.scale
    return quantiles.astype(np.float64) * scale[:, :, None], windows.y.astype(np.float64) * scale


def middle(levels: Sequence[float]) -> int:
    """The position of the median, or of the level nearest to it."""
    return min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))


def validation_loss(quantiles: Float32Array, windows: WindowSet, levels: Sequence[float], ic_weight: float) -> float:
    """The training objective over all validation rows at once, in float64. quantiles: [N,H,Q] scaled."""
    date = np.unique(windows.columns, return_inverse=True)[1].astype(np.int64)
    return float(
        objective(
            torch.from_numpy(quantiles.astype(np.float64)),
            torch.from_numpy(windows.y.astype(np.float64)),
            torch.from_numpy(date),
            torch.tensor(levels, dtype=torch.float64),
            ic_weight,
        )
    )


def validation_rank_ic(quantiles: Float32Array, windows: WindowSet, levels: Sequence[float]) -> float:
    """Mean over sessions, then horizons, of the rank IC of what strategies rank by: the unscaled median."""
    values, labels = unscaled(quantiles, windows)
    score = values[..., middle(levels)]  # [N,H,Q] -> [N,H]
    per_horizon = [rank_ic_per_date(score[:, h], labels[:, h], windows.columns).included for h in range(score.shape[1])]
    means = [float(values.mean()) for values in per_horizon if len(values)]
    return sum(means) / len(means) if means else math.nan


def ranks_are_defined(windows: WindowSet) -> bool:
    """Whether any session has enough symbols for a rank IC; a market of one symbol has none."""
    return bool((np.unique(windows.columns, return_counts=True)[1] >= MIN_PAIRS).any())


def judge(quantiles: Float32Array, windows: WindowSet, levels: Sequence[float]) -> Validation:
    """Calibration and skill of each horizon. quantiles: [N,H,Q] scaled, in the order of the rows of `windows`."""
    values, labels = unscaled(quantiles, windows)
    platts, skills = [], []
    for h, horizon in enumerate(windows.spec.horizons):
        raw = p_up_from_quantiles(values[:, h], levels)
        platt = Platt.fit(raw, (labels[:, h] > 0.0).astype(np.float64))
        score = values[:, h, middle(levels)]
        p_up = platt.apply(raw)
        skills.append(summary(score, labels[:, h], windows.columns, horizon, values[:, h], tuple(levels), p_up))
        platts.append(platt)
    return Validation(tuple(platts), tuple(skills))
