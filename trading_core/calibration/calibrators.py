"""Which calibrations of p_up there are: chosen by name, fitted on validation, frozen to JSON."""

from __future__ import annotations

import json
from typing import Protocol

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


def calibrator_from_json(text: str) -> Calibrator:
    """What a calibrator's `to_json` wrote; without a "kind" (bundles before there were several) it is Platt's.

    Errors: InvalidConfigError, also for a kind that there is not.
    """
    try:
        raw = json.loads(text)
        kind = str(raw.get("kind", "platt"))
    except (AttributeError, ValueError) as error:
        raise InvalidConfigError("A stored calibration", [f"{type(error).__name__}: {error}"]) from error
    if kind not in CALIBRATORS:
        raise InvalidConfigError("A stored calibration", [f"kind '{kind}'; known are {', '.join(sorted(CALIBRATORS))}"])
    return CALIBRATORS[kind].from_json(text)
