"""Models: their bundles, their formulas, what they may know, how their training ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from trading_core.errors.base import TradingError, some


class ModelError(TradingError):
    """A model, bundle or version that cannot be used."""


@dataclass(eq=False)
class BundleError(ModelError):
    uri: str
    reason: str

    def __str__(self) -> str:
        return f"The model bundle '{self.uri}' is refused: {self.reason}. No code of it was run. Train again, or restore the bundle."


@dataclass(eq=False)
class FormulaMismatchError(ModelError):
    bundle: str
    features: Sequence[str]

    def __str__(self) -> str:
        return f"The model '{self.bundle}' was trained with other formulas of: {some(self.features)}. Train a new version with today's features; this one cannot be used with them."


@dataclass(eq=False)
class NoModelError(ModelError):
    market: str
    wanted: str

    def __str__(self) -> str:
        return f"Market '{self.market}' has no model {self.wanted}. Train one (`train_model` in Airflow, or `trading train`), or choose later dates."


@dataclass(eq=False)
class LookAheadError(ModelError):
    version: str
    cutoff: date
    session: date

    def __str__(self) -> str:
        return f"Model version {self.version} has used labels known at {self.cutoff}: it may not forecast session {self.session}. Choose sessions after its cut-off, or an older version."


@dataclass(eq=False)
class TrainingFailedError(ModelError):
    reason: str

    def __str__(self) -> str:
        return f"The training did not finish: {self.reason}. No model version was registered; start it again with the same request."
