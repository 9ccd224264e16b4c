"""Temperature scaling: the probabilities of several classes recalibrated by one number."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.schema import FloatArray

MIN_ROWS = 50
COOLEST, HOTTEST = 0.05, 20.0  # beyond, the classes are either certain or all the same


@dataclass(frozen=True, slots=True)
class Temperature:
    """softmax(logits / temperature): above 1 the probabilities move together, below 1 apart; the order stays.

    1 is the identity. Source: Guo, Pleiss, Sun & Weinberger (2017).
    """

    temperature: float = 1.0

    @classmethod
    def fit(cls, logits: FloatArray, actual: FloatArray) -> Temperature:
        """The temperature in [0.05, 20] of the lowest log loss.

        logits: [N, C]; actual: [N] codes 0 .. C - 1; rows with a non-finite value are dropped. The identity when fewer
        than 50 rows remain or no row tells its classes apart. Errors: InvalidConfigError for another code.
        """
        from scipy.optimize import brentq  # a third of a second to import, and only fitting needs it

        keep = np.isfinite(logits).all(axis=1) & np.isfinite(actual)
        z, codes = np.asarray(logits, dtype=np.float64)[keep], actual[keep]
        if not np.isin(codes, np.arange(logits.shape[1])).all():
            raise InvalidConfigError("The calibration's data", [f"codes other than 0 .. {logits.shape[1] - 1}"])
        if len(z) < MIN_ROWS or not np.ptp(z, axis=1).any():
            return cls()
        came = z[np.arange(len(z)), codes.astype(np.int64)]  # [N, C] -> [N]

        def slope(inverse: float) -> float:
            """d(log loss) / d(1 / temperature) = mean over rows of E[z] - z of what came; it rises with its argument."""
            return float(np.mean((softmax(inverse * z) * z).sum(axis=1) - came))

        low, high = 1.0 / HOTTEST, 1.0 / COOLEST
        if slope(low) >= 0.0:
            return cls(HOTTEST)
        if slope(high) <= 0.0:
            return cls(COOLEST)
        return cls(1.0 / float(brentq(slope, low, high, xtol=1e-12, rtol=1e-12)))

    def apply(self, logits: FloatArray) -> FloatArray:
        """Probabilities of logits [..., C], same shape; each row sums to 1. A row with a NaN is NaN."""
        return softmax(np.asarray(logits, dtype=np.float64) / self.temperature)

    def to_json(self) -> str:
        """JSON that `from_json` turns into an equal object."""
        return json.dumps({"kind": "temperature", "temperature": self.temperature})

    @classmethod
    def from_json(cls, text: str) -> Temperature:
        """The object of `to_json`. Errors: InvalidConfigError."""
        try:
            temperature = float(json.loads(text)["temperature"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidConfigError("A stored calibration", [f"{type(error).__name__}: {error}"]) from error
        if not COOLEST <= temperature <= HOTTEST:
            raise InvalidConfigError(
                "A stored calibration", [f"temperature = {temperature}: it lies between {COOLEST} and {HOTTEST}"]
            )
        return cls(temperature)


def softmax(logits: FloatArray) -> FloatArray:
    """exp(z) / sum(exp(z)) over the last axis, without overflow."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
