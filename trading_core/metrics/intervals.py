"""How good prediction intervals are: coverage overall, by volatility and over time, width, interval score.

N rows (one per symbol and decision date). A row with a non-finite value in what a metric reads is dropped; a metric of
no rows is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.metrics.forecasts import coverage
from trading_core.schema import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class IntervalSkill:
    """Intervals of nominal coverage 1 - alpha. coverage_*: by tercile of the volatility known at the decision; a band
    that does not know its risk covers too much where it is calm and too little where it is wild."""

    n: int
    coverage: float
    coverage_low_volatility: float
    coverage_middle_volatility: float
    coverage_high_volatility: float
    mean_width: float
    interval_score: float


def interval_skill(
    label: FloatArray, low: FloatArray, high: FloatArray, volatility: FloatArray, alpha: float
) -> IntervalSkill:
    """All metrics of the intervals [low, high]. All arrays [N]; volatility: any measure known at the decision."""
    by_tercile = coverage_by_tercile(label, low, high, volatility)
    return IntervalSkill(
        n=int(np.sum(np.isfinite(label) & np.isfinite(low) & np.isfinite(high))),
        coverage=coverage(label, low, high),
        coverage_low_volatility=float(by_tercile[0]),
        coverage_middle_volatility=float(by_tercile[1]),
        coverage_high_volatility=float(by_tercile[2]),
        mean_width=mean_width(low, high),
        interval_score=interval_score(label, low, high, alpha),
    )


def coverage_by_tercile(label: FloatArray, low: FloatArray, high: FloatArray, volatility: FloatArray) -> FloatArray:
    """[3] coverage of the rows in the lowest, middle and highest third of `volatility`. All [N]; a value on the border of
    two thirds belongs to the lower one."""
    keep = np.isfinite(label) & np.isfinite(low) & np.isfinite(high) & np.isfinite(volatility)
    if not keep.any():
        return np.full(3, np.nan)
    borders = np.quantile(volatility[keep], [1 / 3, 2 / 3])
    third = np.searchsorted(borders, volatility[keep])
    label, low, high = label[keep], low[keep], high[keep]
    return np.array([coverage(label[third == k], low[third == k], high[third == k]) for k in range(3)])


def coverage_between(
    label: FloatArray, low: FloatArray, high: FloatArray, date_index: IntArray, start: int, end: int
) -> float:
    """Coverage of the decision dates start .. end - 1, for example of those after a break. All arrays [N]."""
    inside: BoolArray = (date_index >= start) & (date_index < end)
    return coverage(label[inside], low[inside], high[inside])


def variance_break(squares: FloatArray) -> int | None:
    """The position from which on a variance is most unlike before: one after the largest |C_k / C_D - k / D|, the centred
    sums of squares of Inclan & Tiao (1994). C_k: sum of the first k. None where nothing moves or D < 2.

    squares: [D] squared returns in order of time, or their means over symbols; non-finite ones count as 0. It is the most
    likely place of one break and no test of whether there was one: look at the volatility on both sides.
    """
    total = np.cumsum(np.where(np.isfinite(squares), squares, 0.0))
    if len(total) < 2 or total[-1] <= 0.0:
        return None
    days = len(total)
    distance = np.abs(total / total[-1] - np.arange(1, days + 1) / days)[:-1]  # the last one is 0
    return int(distance.argmax()) + 1


def mean_width(low: FloatArray, high: FloatArray) -> float:
    """Mean of high - low, in the label's unit."""
    width = high - low
    width = width[np.isfinite(width)]
    return float(width.mean()) if len(width) else float("nan")


def interval_score(label: FloatArray, low: FloatArray, high: FloatArray, alpha: float) -> float:
    """Mean of width + 2 / alpha * (how far the label lies outside); lower is better, and only the true alpha / 2 and
    1 - alpha / 2 quantiles minimise it (Gneiting & Raftery 2007, eq. 43). Errors: InvalidConfigError unless 0 < alpha < 1.
    """
    if not 0.0 < alpha < 1.0:
        raise InvalidConfigError("The interval score", [f"alpha: {alpha} is not allowed; it lies between 0 and 1"])
    outside = np.maximum(low - label, 0.0) + np.maximum(label - high, 0.0)
    score = high - low + 2.0 / alpha * outside
    score = score[np.isfinite(score)]
    return float(score.mean()) if len(score) else float("nan")
