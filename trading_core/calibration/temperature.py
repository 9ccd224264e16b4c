"""Bias-corrected temperature scaling: the probabilities of several classes recalibrated by a slope and an offset of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax

from trading_core.calibration.platt import MIN_ROWS
from trading_core.errors import InvalidConfigError
from trading_core.schema import FloatArray, IntArray

KIND = "bias_corrected_temperature"
CLASSES = 3  # of every target that has classes
COOLEST, HOTTEST = 0.05, 20.0  # beyond, the classes are either certain or all the same
FARTHEST = 20.0  # offset from the first class: odds of half a billion
SMALLEST = 1e-12  # of a probability: 0 has no logarithm


@dataclass(frozen=True, slots=True)
class ClassCalibration:
    """softmax(log(p) / temperature + offsets); the offset of the first class is 0, since only differences count.

    The temperature takes back overconfidence and what a focal loss does; the offsets take back the weights of classes: a
    loss that counts class c w times as much moves its log odds by about log w. 1 and zeros are the identity.
    Source: Guo, Pleiss, Sun & Weinberger (2017), section 4.2, vector scaling with one slope for all classes, which
    Alexandari, Kundaje & Shrikumar (2020) call bias-corrected temperature scaling.
    """

    temperature: float = 1.0
    offsets: tuple[float, ...] = (0.0,) * CLASSES

    def __post_init__(self) -> None:
        problems = []
        if not COOLEST <= self.temperature <= HOTTEST:
            problems.append(f"temperature = {self.temperature}: it lies between {COOLEST} and {HOTTEST}")
        if not (len(self.offsets) == CLASSES and self.offsets[0] == 0.0 and self._are_near()):
            problems.append(f"offsets = {self.offsets}: {CLASSES}, first 0, within {FARTHEST} of it")
        if problems:
            raise InvalidConfigError("The calibration of classes", problems)

    def _are_near(self) -> bool:
        return bool((np.abs(self.offsets) <= FARTHEST).all())  # NaN is not

    @classmethod
    def fit(cls, p: FloatArray, actual: FloatArray) -> ClassCalibration:
        """Minimise the log loss, a convex function of 1 / temperature and the offsets, within their bounds.

        p: [N,3] probabilities; actual: [N] codes 0 .. 2; rows with a non-finite value are dropped. The identity when fewer
        than 50 rows remain or a class never occurs; temperature 1 when all rows say the same.
        Errors: InvalidConfigError for a probability outside [0, 1], another code or another number of classes.
        """
        from scipy.optimize import minimize  # a third of a second to import, and only fitting needs it

        keep = np.isfinite(p).all(axis=1) & np.isfinite(actual)
        _check(p[keep], actual[keep])
        z, codes = _logs(p[keep]), actual[keep].astype(np.int64)
        if len(z) < MIN_ROWS or not np.bincount(codes, minlength=CLASSES).all():
            return cls()
        slopes = (1.0 / HOTTEST, 1.0 / COOLEST) if np.ptp(z, axis=0).any() else (1.0, 1.0)
        found = minimize(
            _loss,
            np.array([1.0] + [0.0] * (CLASSES - 1)),
            (z, codes),
            method="L-BFGS-B",
            jac=True,
            bounds=[slopes] + [(-FARTHEST, FARTHEST)] * (CLASSES - 1),
            options={"ftol": 0.0, "gtol": 1e-9, "maxiter": 500},
        )
        slope, *offsets = found.x.tolist()
        return cls(min(max(1.0 / slope, COOLEST), HOTTEST), (0.0, *offsets))

    def apply(self, p: FloatArray) -> FloatArray:
        """Calibrated probabilities of p [..., 3], same shape; each row sums to 1. A row with a NaN is NaN.

        The identity changes nothing above 1e-12.
        """
        return softmax(_logs(p) / self.temperature + np.array(self.offsets), axis=-1)

    def to_json(self) -> str:
        """JSON that `from_json` turns into an equal object."""
        return json.dumps({"kind": KIND, "temperature": self.temperature, "offsets": self.offsets})

    @classmethod
    def from_json(cls, text: str) -> ClassCalibration:
        """The object of `to_json`. Errors: InvalidConfigError."""
        try:
            raw = json.loads(text)
            if set(raw) != {"kind", "temperature", "offsets"} or raw["kind"] != KIND:
                raise ValueError(f"it is no '{KIND}' of temperature and offsets")
            return cls(float(raw["temperature"]), tuple(map(float, raw["offsets"])))
        except (ArithmeticError, KeyError, TypeError, ValueError) as error:
            raise InvalidConfigError("A stored calibration", [f"{type(error).__name__}: {error}"]) from error


def calibrated_classes(calibration: Sequence[ClassCalibration], p: FloatArray) -> FloatArray:
    """[N,H,3] probabilities p, each horizon's by its own calibration: H of them, in the order of p."""
    return np.stack([fitted.apply(p[:, h]) for h, fitted in enumerate(calibration)], axis=1)


def _loss(parameters: FloatArray, z: FloatArray, codes: IntArray) -> tuple[float, FloatArray]:
    """Mean log loss and its gradient [3]. parameters: 1 / temperature and the offsets but for the first class's."""
    logits = parameters[0] * z + np.append(0.0, parameters[1:])
    rows = np.arange(len(z))
    loss = float(np.mean(logsumexp(logits, axis=1) - logits[rows, codes]))
    residual = softmax(logits, axis=1)
    residual[rows, codes] -= 1.0
    return loss, np.append(np.mean((residual * z).sum(axis=1)), residual.mean(axis=0)[1:])


def _logs(p: FloatArray) -> FloatArray:
    return np.log(np.maximum(np.asarray(p, dtype=np.float64), SMALLEST))


def _check(p: FloatArray, actual: FloatArray) -> None:
    problems = []
    if p.ndim != 2 or p.shape[1] != CLASSES:
        problems.append(f"p: shape {p.shape}; expected [N, {CLASSES}]")
    if p.size and (p.min() < 0.0 or p.max() > 1.0):
        problems.append(f"p: probabilities from {p.min()} to {p.max()}; they must lie in [0, 1]")
    if not np.isin(actual, np.arange(CLASSES)).all():
        problems.append(f"codes other than 0 .. {CLASSES - 1}")
    if problems:
        raise InvalidConfigError("The calibration's data", problems)
