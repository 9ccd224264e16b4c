"""Which calibrations of p_up there are: chosen by name, fitted on validation, frozen to JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from trading_core.calibration.isotonic import Isotonic
from trading_core.calibration.platt import Platt
from trading_core.errors import InvalidConfigError, UnknownNameError
from trading_core.schema import FloatArray

CALIBRATORS: dict[str, type[Platt] | type[Isotonic]] = {"platt": Platt, "isotonic": Isotonic}


class Calibrator(Protocol):
    """A fitted curve from probability to probability that never turns their order round."""

    def apply(self, p: FloatArray) -> FloatArray:
        """Calibrated probabilities, same shape, strictly inside (0, 1); NaN stays NaN."""

    def to_json(self) -> str:
        """JSON that `calibrator_from_json` turns into an equal object."""


def fit_calibrator(kind: str, p: FloatArray, outcome: FloatArray) -> Calibrator:
    """The calibration `kind` of probabilities p [N] against outcomes [N], 0 or 1. Errors: UnknownNameError, and those of
    the calibration's own `fit`."""
    if kind not in CALIBRATORS:
        raise UnknownNameError("calibration", kind, tuple(CALIBRATORS))
    return CALIBRATORS[kind].fit(p, outcome)


def calibrated(calibration: Sequence[Calibrator], p: FloatArray) -> FloatArray:
    """[N,H] probabilities p, each horizon's by its own calibrator: `calibration` has H of them, in the order of p."""
    return np.stack([fitted.apply(column) for fitted, column in zip(calibration, p.T, strict=True)], axis=1)


def calibrator_from_json(text: str) -> Calibrator:
    """What a calibrator's `to_json` wrote. Errors: InvalidConfigError, also for a kind that there is not."""
    try:
        kind = str(json.loads(text)["kind"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidConfigError("A stored calibration", [f"{type(error).__name__}: {error}"]) from error
    if kind not in CALIBRATORS:
        raise InvalidConfigError("A stored calibration", [f"kind '{kind}'; known are {', '.join(sorted(CALIBRATORS))}"])
    return CALIBRATORS[kind].from_json(text)
