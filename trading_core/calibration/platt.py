"""Platt scaling: probabilities recalibrated by a logistic curve of two parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.schema import FloatArray

MIN_ROWS = 50  # fewer outcomes say nothing about a curve of two parameters
CLIP = 1e-6  # probabilities are kept this far from 0 and 1: a logit of infinity has no place on the curve
_ITERATIONS = 100
_TOLERANCE = 1e-10


@dataclass(frozen=True, slots=True)
class Platt:
    """p' = sigmoid(a * logit(p) + b), a >= 0 so that the order of the probabilities never turns round.

    a = 1, b = 0 is the identity. Source: Platt (1999), with Newton's method as Lin, Lin & Weng (2007) advise.
    """

    a: float = 1.0
    b: float = 0.0

    @classmethod
    def fit(cls, p: FloatArray, outcome: FloatArray) -> Platt:
        """Minimise the log loss against Platt's smoothed targets (n1 + 1) / (n1 + 2) and 1 / (n0 + 2).

        p: [N] probabilities in [0, 1]; outcome: [N] 0 or 1; rows with a non-finite value are dropped. The identity
        when fewer than 50 rows remain, an outcome never occurs or all probabilities are the same.
        Errors: InvalidConfigError for a probability outside [0, 1] or another outcome.
        """
        keep = np.isfinite(p) & np.isfinite(outcome)
        p, outcome = np.asarray(p, dtype=np.float64)[keep], np.asarray(outcome, dtype=np.float64)[keep]
        check_outcomes(p, outcome)
        n1 = int((outcome == 1.0).sum())
        n0 = len(outcome) - n1
        x = _logit(p)
        if len(p) < MIN_ROWS or n1 == 0 or n0 == 0 or np.ptp(x) == 0.0:
            return cls()
        target = np.where(outcome == 1.0, (n1 + 1.0) / (n1 + 2.0), 1.0 / (n0 + 2.0))
        a, b = _newton(x, target)
        if a < 0.0:  # the loss is convex: its minimum under a >= 0 lies on a = 0, where b fits the mean target
            return cls(0.0, float(_logit(target.mean())))
        return cls(a, b)

    def apply(self, p: FloatArray) -> FloatArray:
        """Calibrated probabilities, same shape, strictly inside (0, 1); NaN stays NaN. The identity changes nothing
        but the clip to [1e-6, 1 - 1e-6]."""
        if self.a == 1.0 and self.b == 0.0:
            return np.clip(np.asarray(p, dtype=np.float64), CLIP, 1.0 - CLIP)
        return np.clip(_sigmoid(self.a * _logit(np.asarray(p, dtype=np.float64)) + self.b), CLIP, 1.0 - CLIP)

    def to_json(self) -> str:
        """JSON that `from_json` turns into an equal object."""
        return json.dumps({"kind": "platt", "a": self.a, "b": self.b})

    @classmethod
    def from_json(cls, text: str) -> Platt:
        """The object of `to_json`. Errors: InvalidConfigError."""
        try:
            raw = json.loads(text)
            a, b = float(raw["a"]), float(raw["b"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidConfigError("A stored calibration", [f"{type(error).__name__}: {error}"]) from error
        if not (np.isfinite(a) and np.isfinite(b) and a >= 0.0):
            raise InvalidConfigError("A stored calibration", [f"a = {a}, b = {b}: both must be finite and a >= 0"])
        return cls(a, b)


def _newton(x: FloatArray, target: FloatArray) -> tuple[float, float]:
    """Minimum of the mean log loss of sigmoid(a x + b): Newton steps, halved until the loss falls."""
    a, b = 0.0, float(_logit(target.mean()))
    loss = _loss(a, b, x, target)
    for _ in range(_ITERATIONS):
        p = _sigmoid(a * x + b)
        residual, weight = p - target, p * (1.0 - p)
        gradient = np.array([np.mean(residual * x), np.mean(residual)])
        if np.abs(gradient).max() < _TOLERANCE:
            break
        cross = np.mean(weight * x)
        # The tiny ridge keeps the step finite where the curve is flat; it does not move the minimum.
        hessian = np.array([[np.mean(weight * x * x), cross], [cross, np.mean(weight)]]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while (trial := _loss(a - size * step[0], b - size * step[1], x, target)) > loss and size > 1e-10:
            size /= 2.0
        a, b, loss = float(a - size * step[0]), float(b - size * step[1]), trial
    return a, b


def _loss(a: float, b: float, x: FloatArray, target: FloatArray) -> float:
    """Mean of log(1 + exp(z)) - target * z with z = a x + b: the cross entropy, without overflow."""
    z = a * x + b
    return float(np.mean(np.logaddexp(0.0, z) - target * z))


def check_outcomes(p: FloatArray, outcome: FloatArray) -> None:
    """InvalidConfigError for a probability outside [0, 1] or an outcome other than 0 and 1. Both [N], finite."""
    problems = []
    if p.size and (p.min() < 0.0 or p.max() > 1.0):
        problems.append(f"p: probabilities from {p.min()} to {p.max()}; they must lie in [0, 1]")
    if not np.isin(outcome, (0.0, 1.0)).all():
        problems.append("outcome: holds values other than 0 and 1")
    if problems:
        raise InvalidConfigError("The calibration's data", problems)


def _logit(p: FloatArray) -> FloatArray:
    clipped = np.clip(p, CLIP, 1.0 - CLIP)
    return np.log(clipped) - np.log1p(-clipped)


def _sigmoid(z: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore"):  # NaN stays NaN, without a warning
        return np.exp(-np.logaddexp(0.0, -z))
