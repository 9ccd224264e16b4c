"""Isotonic calibration: the non-decreasing step-and-line curve that fits the outcomes best."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trading_core.calibration.platt import CLIP, check_outcomes
from trading_core.errors import InvalidConfigError
from trading_core.schema import FloatArray

MIN_ROWS = 200  # below, the curve follows the noise (Niculescu-Mizil & Caruana 2005 saw Platt ahead up to 200 .. 1000)


@dataclass(frozen=True, slots=True)
class Isotonic:
    """p' = the line through the knots (x, y) at p, y[0] before the first one and y[-1] after the last.

    x ascends strictly and y never falls, both inside [0, 1]; (0, 0), (1, 1) is the identity. Source: Zadrozny & Elkan
    (2002); Barlow et al. (1972) for pool-adjacent-violators.
    """

    x: tuple[float, ...] = (0.0, 1.0)
    y: tuple[float, ...] = (0.0, 1.0)

    @classmethod
    def fit(cls, p: FloatArray, outcome: FloatArray) -> Isotonic:
        """Minimise the squared distance to the outcomes among non-decreasing functions of p.

        p: [N] probabilities in [0, 1]; outcome: [N] 0 or 1; rows with a non-finite value are dropped. The curve is kept
        within Platt's smoothed targets 1 / (n0 + 2) and (n1 + 1) / (n1 + 2): a bin at the edge that saw one outcome only
        is no certainty. The identity when fewer than 200 rows remain, an outcome never occurs or all probabilities are
        the same. Errors: InvalidConfigError for a probability outside [0, 1] or another outcome.
        """
        from scipy.optimize import isotonic_regression  # a third of a second to import, and only fitting needs it

        keep = np.isfinite(p) & np.isfinite(outcome)
        p, outcome = np.asarray(p, dtype=np.float64)[keep], np.asarray(outcome, dtype=np.float64)[keep]
        check_outcomes(p, outcome)
        n1 = int((outcome == 1.0).sum())
        n0 = len(outcome) - n1
        if len(p) < MIN_ROWS or n1 == 0 or n0 == 0 or np.ptp(p) == 0.0:
            return cls()
        x, place, count = np.unique(p, return_inverse=True, return_counts=True)  # equal probabilities get one value
        mean = np.bincount(place, outcome) / count
        y = np.clip(isotonic_regression(mean, weights=count).x, 1.0 / (n0 + 2.0), (n1 + 1.0) / (n1 + 2.0))
        # Inside a level the knots say nothing: keep those at which the level begins or ends.
        bends = np.concatenate([[True], (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:]), [True]])
        return cls(tuple(x[bends].tolist()), tuple(y[bends].tolist()))

    def apply(self, p: FloatArray) -> FloatArray:
        """Calibrated probabilities, same shape, strictly inside (0, 1); NaN stays NaN."""
        return np.clip(np.interp(np.asarray(p, dtype=np.float64), self.x, self.y), CLIP, 1.0 - CLIP)

    def to_json(self) -> str:
        """JSON that `from_json` turns into an equal object."""
        return json.dumps({"kind": "isotonic", "x": self.x, "y": self.y})

    @classmethod
    def from_json(cls, text: str) -> Isotonic:
        """The object of `to_json`. Errors: InvalidConfigError."""
        try:
            raw = json.loads(text)
            x, y = tuple(map(float, raw["x"])), tuple(map(float, raw["y"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidConfigError("A stored calibration", [f"{type(error).__name__}: {error}"]) from error
        rises = all(a < b for a, b in pairwise(x)) and all(a <= b for a, b in pairwise(y))
        if len(x) != len(y) or len(x) < 2 or not rises or not all(0.0 <= value <= 1.0 for value in x + y):
            raise InvalidConfigError(
                "A stored calibration",
                [f"{len(x)} knots x, {len(y)} y: both must be in [0, 1] and ascend, at least two"],
            )
        return cls(x, y)
