"""Conformal prediction intervals: bands that are widened or narrowed until they cover what they promise.

`Conformal` is fitted on validation and frozen (split conformal). Its score is that of conformalized quantile regression,
so it corrects any pair of forecast quantiles, and it may be measured in units of a volatility known at the decision.
`Adaptive` moves the level as errors become known. Its parameters are frozen, its state is not: it is rebuilt from
forecasts whose labels were known, in a backtest as live.

Sources: Vovk, Gammerman & Shafer (2005) and Lei et al. (2018), split conformal and normalised scores; Romano, Patterson &
Candes (2019), CQR; Gibbs & Candes (2021), adaptive conformal inference (ACI).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.schema import BoolArray, FloatArray, IntArray

MIN_ROWS = 50
MAX_SCORES = 1000  # kept of the calibration's scores: a step of 0.1 % in level


@dataclass(frozen=True, slots=True)
class Conformal:
    """[low - q * scale, high + q * scale], q the conformal quantile of the calibration's scores at level 1 - alpha.

    alpha: share of labels that may lie outside. normalised: scale is an array known at the decision; otherwise it is 1.
    n: rows it was fitted on; 0 is the identity, q = 0. scores: ascending, all n or 1,000 order statistics of them.
    """

    alpha: float
    normalised: bool = False
    n: int = 0
    scores: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        problems = []
        if not 0.0 < self.alpha < 1.0:
            problems.append(f"alpha: {self.alpha} is not allowed; it lies between 0 and 1")
        ordered = bool(np.isfinite(self.scores).all() and (np.diff(self.scores) >= 0.0).all())
        if len(self.scores) != max(min(self.n, MAX_SCORES), 1) or not ordered:
            problems.append(f"{len(self.scores)} scores of {self.n} rows: they must be finite and ascend")
        if problems:
            raise InvalidConfigError("The conformal intervals", problems)

    @classmethod
    def fit(
        cls, label: FloatArray, low: FloatArray, high: FloatArray, alpha: float, scale: FloatArray | None = None
    ) -> Conformal:
        """Scores max(low - label, label - high) / scale: how far outside (positive) or inside the band a label lies.

        label, low, high: [N], of forecasts that were not fitted on these labels; for a point forecast low = high. scale:
        [N] positive. Rows with a non-finite value are dropped; the identity when fewer than 50 remain.
        Coverage of at least 1 - alpha is promised on average over exchangeable rows; rows of one date are not, and
        markets change: measure it (trading_core.metrics.intervals). Errors: InvalidConfigError.
        """
        scores = _scores(label, low, high, _unit(scale, label))
        scores = np.sort(scores[np.isfinite(scores)])
        n = len(scores)
        if n < MIN_ROWS:
            return cls(alpha, scale is not None)
        kept = min(n, MAX_SCORES)
        # The higher neighbour: thinning makes a band wider, never narrower.
        ranks = -(-np.arange(1, kept + 1) * n // kept)
        return cls(alpha, scale is not None, n, tuple(scores[ranks - 1].tolist()))

    def quantile(self, alpha: float | FloatArray) -> FloatArray:
        """The score of rank ceil((n + 1) (1 - alpha)), for one alpha or many; same shape.

        Beyond the largest score the theory says infinity; it stays the largest, since a band must be traded on.
        """
        if self.n == 0:
            return np.zeros(np.shape(alpha))
        rank = np.ceil((self.n + 1) * (1.0 - np.asarray(alpha, dtype=np.float64)) - 1e-9)
        place = np.ceil(rank * len(self.scores) / self.n - 1e-9) - 1
        return np.array(self.scores)[np.clip(place, 0, len(self.scores) - 1).astype(np.int64)]

    def apply(
        self,
        low: FloatArray,
        high: FloatArray,
        scale: FloatArray | None = None,
        alpha: float | FloatArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Corrected ends of the bands [N]; NaN stays NaN. alpha: another level, of all or of each row [N].

        A band that is narrowed by more than its width shrinks to its middle. Errors: InvalidConfigError when a scale is
        missing or is not asked for, or not positive.
        """
        if (scale is not None) != self.normalised:
            wanted = "the scale of each row" if self.normalised else "no scale: they were fitted without one"
            raise InvalidConfigError("The conformal intervals", [f"give {wanted}"])
        offset = self.quantile(self.alpha if alpha is None else alpha) * _unit(scale, low)
        middle = (low + high) / 2.0
        return np.minimum(low - offset, middle), np.maximum(high + offset, middle)

    def to_json(self) -> str:
        """JSON that `from_json` turns into an equal object."""
        raw = {"alpha": self.alpha, "normalised": self.normalised, "n": self.n, "scores": self.scores}
        return json.dumps({"kind": "conformal", **raw})

    @classmethod
    def from_json(cls, text: str) -> Conformal:
        """The object of `to_json`. Errors: InvalidConfigError."""
        try:
            raw = json.loads(text)
            scores = tuple(map(float, raw["scores"]))
            return cls(float(raw["alpha"]), raw["normalised"] is True, int(raw["n"]), scores)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidConfigError("A stored calibration", [f"{type(error).__name__}: {error}"]) from error


# --- adaptive ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Adaptive:
    """ACI: alpha' = alpha' + gamma * (alpha - error), once for each date whose labels become known; it starts at alpha.

    error: share of that date's labels outside their bands. gamma: step; 0 never adapts. alpha' is kept in [0, 1]: at 0 the
    band is as wide as the calibration's largest score, and it must be able to come back from there.
    """

    alpha: float = 0.1
    gamma: float = 0.02

    def __post_init__(self) -> None:
        problems = []
        if not 0.0 < self.alpha < 1.0:
            problems.append(f"alpha: {self.alpha} is not allowed; it lies between 0 and 1")
        if not 0.0 <= self.gamma <= 1.0:
            problems.append(f"gamma: {self.gamma} is not allowed; it lies in [0, 1]")
        if problems:
            raise InvalidConfigError("The adaptive intervals", problems)

    def after(self, level: float, error: float) -> float:
        """The level after one more date's error; the same where no label of the date is known (NaN)."""
        if math.isnan(error):
            return level
        return min(max(level + self.gamma * (self.alpha - error), 0.0), 1.0)

    def to_json(self) -> str:
        """JSON that `from_json` turns into an equal object."""
        return json.dumps({"kind": "adaptive", "alpha": self.alpha, "gamma": self.gamma})

    @classmethod
    def from_json(cls, text: str) -> Adaptive:
        """The object of `to_json`. Errors: InvalidConfigError."""
        try:
            raw = json.loads(text)
            return cls(float(raw["alpha"]), float(raw["gamma"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidConfigError("A stored calibration", [f"{type(error).__name__}: {error}"]) from error


@dataclass(frozen=True, slots=True, eq=False)
class AdaptiveLevels:
    """The path of ACI. dates: [D] decision columns, ascending; levels: [D] alpha' that their bands are issued with;
    errors: [D] share of each date's labels outside, NaN where none is known yet."""

    dates: IntArray
    levels: FloatArray
    errors: FloatArray

    def of_rows(self, date_index: IntArray) -> FloatArray:
        """[N] the level of each row's date. Errors: InvalidConfigError for a date that is not on the path."""
        at = np.minimum(np.searchsorted(self.dates, date_index), len(self.dates) - 1)
        if not np.array_equal(self.dates[at], date_index):
            raise InvalidConfigError("The adaptive intervals", ["dates of which no level was computed"])
        return self.levels[at]


def adaptive_levels(
    conformal: Conformal,
    adaptive: Adaptive,
    label: FloatArray,
    low: FloatArray,
    high: FloatArray,
    date_index: IntArray,
    horizon: int,
    scale: FloatArray | None = None,
) -> AdaptiveLevels:
    """Rebuilds the state from stored forecasts: every date's band is issued with what was known before it.

    label (NaN: not known yet), low, high, scale: [N] as in `Conformal.apply`; date_index: [N] decision columns, in any
    order; horizon h in sessions: the error of date d is known at column d + 1 + h.
    Errors: InvalidConfigError.
    """
    if horizon < 1:
        raise InvalidConfigError(
            "The adaptive intervals", [f"horizon: {horizon} is not allowed; give at least 1 session"]
        )
    dates, place = np.unique(date_index, return_inverse=True)
    rows_of = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1]) if len(dates) else []
    levels, errors = np.empty(len(dates)), np.full(len(dates), np.nan)
    level, learned = adaptive.alpha, 0
    for d, (day, rows) in enumerate(zip(dates.tolist(), rows_of, strict=True)):
        while learned < d and dates[learned] + 1 + horizon < day:
            level = adaptive.after(level, float(errors[learned]))
            learned += 1
        levels[d] = level
        ends = conformal.apply(low[rows], high[rows], None if scale is None else scale[rows], level)
        errors[d] = _share_outside(label[rows], *ends)
    return AdaptiveLevels(dates.astype(np.int64), levels, errors)


def _share_outside(label: FloatArray, low: FloatArray, high: FloatArray) -> float:
    known = np.isfinite(label) & np.isfinite(low) & np.isfinite(high)
    outside: BoolArray = (label < low) | (label > high)
    return float(outside[known].mean()) if known.any() else math.nan


def _scores(label: FloatArray, low: FloatArray, high: FloatArray, scale: FloatArray) -> FloatArray:
    return np.maximum(low - label, label - high) / scale


def _unit(scale: FloatArray | None, like: FloatArray) -> FloatArray:
    """The scale of each row, checked; ones where there is none."""
    if scale is None:
        return np.ones(like.shape)
    if (scale <= 0.0).any():
        raise InvalidConfigError("The conformal intervals", ["scale: holds values that are not positive"])
    return scale
