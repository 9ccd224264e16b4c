"""A freshly trained model on sessions that it has not seen: forecasts and skill, without a registry in between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.calibration.calibrators import calibrated
from trading_core.dataset.labels import forward_returns
from trading_core.dataset.panel import Panel
from trading_core.dataset.windows import ScaledPanel, WindowSet
from trading_core.errors import LookAheadError
from trading_core.pipelines.learn import Prepared
from trading_core.pipelines.skill import HorizonSkill, horizon_skill
from trading_core.schema import FloatArray, IntArray
from trading_core.training.fit import FitResult, forecast
from trading_core.training.validate import outputs_of


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Forecasts of the samples of `windows`, N rows. score, p_up (calibrated), raw_p_up: [N,H]. quantiles: [N,H,Q].

    returns: [N,H] realised log returns, NaN where the panel does not hold them yet.
    """

    windows: WindowSet
    score: FloatArray
    quantiles: FloatArray
    p_up: FloatArray
    raw_p_up: FloatArray
    returns: FloatArray

    def skill(self) -> tuple[HorizonSkill, ...]:
        """One row per horizon."""
        day = self.windows.scaled.panel.sessions[self.windows.columns]
        return tuple(
            horizon_skill(
                horizon, self.score[:, h], self.quantiles[:, h], self.p_up[:, h], self.returns[:, h], day,
                self.raw_p_up[:, h],
            )
            for h, horizon in enumerate(self.windows.spec.horizons)
        )  # fmt: skip


def held_out(prepared: Prepared, fitted: FitResult, columns: IntArray, panel: Panel | None = None) -> HeldOut:
    """Forecasts for the decisions at `columns` of `panel` (default: the panel that was learned from), features as learned.

    A decision is forecast from what is known at its close, whether or not its label is known.
    Errors: LookAheadError (a session at or before the split's cut-off), InvalidConfigError (another panel's features).
    """
    panel = panel or prepared.scaled.panel
    columns = np.unique(columns)
    first = panel.sessions[columns[0]].astype(object)
    if first <= prepared.split.cutoff:
        raise LookAheadError("in training", prepared.split.cutoff, first)
    return _forecasts(prepared, fitted, columns, panel)


def out_of_fold(prepared: Prepared, fitted: FitResult) -> HeldOut:
    """Forecasts for the split's own test part, which in a cross-validation also lies before what was learned from: purge
    and embargo alone keep their labels apart."""
    return _forecasts(prepared, fitted, prepared.split.test, prepared.scaled.panel)


def _forecasts(prepared: Prepared, fitted: FitResult, columns: IntArray, panel: Panel) -> HeldOut:
    scaled = prepared.scaled if panel is prepared.scaled.panel else ScaledPanel.of(panel, prepared.scaler)
    windows = WindowSet.for_inference(scaled, columns, prepared.windows, prepared.vocabulary)
    found = outputs_of(forecast(fitted.module, windows), windows, prepared.spec)
    p_up = calibrated(fitted.calibration, found.p_up)
    returns = forward_returns(panel.opens, windows.spec.horizons, panel.breaks)[windows.symbol, windows.columns]
    return HeldOut(windows, found.score, found.quantiles, p_up, found.p_up, returns)
