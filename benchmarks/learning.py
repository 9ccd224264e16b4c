"""Learning problems for the benchmarks: panels made of a source's bars, and one model trained and judged on a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import polars as pl

from trading_core.config import ModelConfig
from trading_core.dataset.panel import Panel
from trading_core.dataset.splits import Split
from trading_core.features import build as features
from trading_core.pipelines.held_out import HeldOut, held_out
from trading_core.pipelines.learn import Prepared, fit_prepared, prepare
from trading_core.pipelines.skill import HorizonSkill, horizon_skill
from trading_core.schema import SESSION, IntArray
from trading_core.training.fit import FitResult


def panel_of(bars: pl.DataFrame, names: Sequence[str], market: str, calendar: str = "XNYS") -> Panel:
    """The panel of all sessions of adjusted bars, with the features `names`. Built on one thread."""
    first, last = bars[SESSION].min(), bars[SESSION].max()
    if not isinstance(first, date) or not isinstance(last, date):
        raise SystemExit(f"There are no bars of {market}.")
    built = features.build(bars, names, first, last, calendar=calendar, threads=1)
    return Panel.from_frames(built, bars, None, names, market)


def strided(split: Split, stride: int) -> Split:
    """Every `stride`-th decision of the training and validation parts: windows that overlap less say almost as much."""
    return replace(split, train=split.train[::stride], validation=split.validation[::stride])


@dataclass(frozen=True, slots=True)
class Learned:
    """One training: what was prepared for it, and what came of it."""

    prepared: Prepared
    fitted: FitResult

    def on(self, columns: IntArray) -> HeldOut:
        """Its forecasts of decisions after its cut-off."""
        return held_out(self.prepared, self.fitted, columns)


def learn(panel: Panel, model: ModelConfig, split: Split, seed: int) -> Learned:
    """Trains a config on a split of the panel, without a word."""
    prepared = prepare(panel, model, split)
    return Learned(prepared, fit_prepared(prepared, model, model.model, seed, on_progress=lambda _: None))


def joint_skill(parts: Sequence[HeldOut]) -> tuple[HorizonSkill, ...]:
    """The skill per horizon of forecasts that several trainings made for sessions of their own."""
    days = np.concatenate([part.windows.scaled.panel.sessions[part.windows.columns] for part in parts])
    score, quantiles, p_up, returns = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("score", "quantiles", "p_up", "returns")
    )
    horizons = parts[0].windows.spec.horizons
    return tuple(
        horizon_skill(horizon, score[:, h], quantiles[:, h], p_up[:, h], returns[:, h], days)
        for h, horizon in enumerate(horizons)
    )
