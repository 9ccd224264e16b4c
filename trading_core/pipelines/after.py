"""What is fitted when the weights are: intervals, thresholds and the calibration of classes.

All of it on the validation part only, and frozen into the bundle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.calibration.calibrators import calibrated
from trading_core.calibration.conformal import Adaptive, Conformal
from trading_core.calibration.temperature import ClassCalibration, calibrated_classes
from trading_core.calibration.thresholds import LongFlat, Objective, ThresholdChoice, search_threshold
from trading_core.costs import CostModel
from trading_core.dataset.labels import forward_returns
from trading_core.dataset.windows import WindowSet
from trading_core.schema import INTERVAL_ALPHA, FloatArray, Target
from trading_core.training.data import input_spec
from trading_core.training.fit import FitResult, forecast
from trading_core.training.validate import outputs_of, returns_of

OBJECTIVES: tuple[Objective, ...] = ("f1", "net_sharpe_annual")


@dataclass(frozen=True, slots=True, eq=False)
class FittedClasses:
    """Of one of schema.CLASS_TARGETS: a calibration per horizon, and by validation row the raw and the calibrated
    probabilities [N,H,3] and the class that came [N,H], NaN where it is not known."""

    calibration: tuple[ClassCalibration, ...]
    raw: FloatArray
    calibrated: FloatArray
    actual: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class AfterTraining:
    """Per horizon, in the spec's order, and by validation row: calibrated and raw probability of a rise and outcome [N,H],
    forecast quantiles [N,H,Q] and label [N,H], both as log returns."""

    intervals: tuple[Conformal, ...]
    adaptive: Adaptive
    thresholds: dict[Objective, tuple[ThresholdChoice, ...]]
    p_up: FloatArray
    raw_p_up: FloatArray
    up: FloatArray
    quantiles: FloatArray
    returns: FloatArray
    classes: dict[Target, FittedClasses]


def fit_after(fitted: FitResult, validation: WindowSet, costs: CostModel, per_year: int) -> AfterTraining:
    """Intervals, thresholds and class probabilities of every horizon from the validation part.

    per_year: sessions, for the Sharpe ratios. Thresholds trade at the next open and are judged by the return to the open
    after it, whatever the horizon.
    """
    found = outputs_of(forecast(fitted.module, validation), validation, input_spec(validation))
    returns = returns_of(validation)
    p_up = calibrated(fitted.calibration, found.p_up)
    up = (returns > 0.0).astype(np.float64)
    intervals = tuple(
        Conformal.fit(
            label, found.quantiles[:, h, 0], found.quantiles[:, h, -1], INTERVAL_ALPHA, validation.scale[:, h]
        )
        for h, label in enumerate(returns.T)
    )
    day = _next_session_returns(validation)
    rows = [LongFlat(p_up[:, h], up[:, h], day, validation.columns, validation.symbol) for h in range(p_up.shape[1])]
    thresholds = {
        objective: tuple(search_threshold(part, objective, costs, per_year=per_year) for part in rows)
        for objective in OBJECTIVES
    }
    classes = {target: _classes(validation, target, raw) for target, raw in found.probabilities().items()}
    return AfterTraining(
        intervals, Adaptive(INTERVAL_ALPHA), thresholds, p_up, found.p_up, up, found.quantiles, returns, classes
    )


def _classes(validation: WindowSet, target: Target, raw: FloatArray) -> FittedClasses:
    """raw: [N,H,3] of one of CLASS_TARGETS."""
    actual = validation.labels[..., validation.spec.targets.index(target)].astype(np.float64)
    calibration = tuple(ClassCalibration.fit(raw[:, h], codes) for h, codes in enumerate(actual.T))
    return FittedClasses(calibration, raw, calibrated_classes(calibration, raw), actual)


def _next_session_returns(windows: WindowSet) -> FloatArray:
    """[N] log return from the open after each decision to the open after that."""
    panel = windows.scaled.panel
    return forward_returns(panel.opens, (1,), panel.breaks)[windows.symbol, windows.columns, 0]
