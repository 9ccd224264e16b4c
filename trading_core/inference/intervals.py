"""Intervals that adapt: the state of each horizon is rebuilt from stored forecasts whose labels were known.

A bundle freezes how intervals adapt, not where they stand: a decision's level follows from the forecasts stored before it,
the same in a backfill, a replay and live.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from trading_core.calibration.conformal import Adaptive, Conformal, adaptive_levels
from trading_core.dataset.labels import forward_returns
from trading_core.dataset.panel import Panel
from trading_core.dataset.windows import horizon_scale
from trading_core.registry.bundle import ModelCard
from trading_core.schema import INTERVAL_COLUMNS, QUANTILE_COLUMNS, SESSION, SYMBOL

_LOW, _HIGH = QUANTILE_COLUMNS[0], QUANTILE_COLUMNS[-1]


def with_adapted_intervals(card: ModelCard, panel: Panel, forecasts: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """`forecasts` (schema.FORECASTS rows of one model version) with their low_90 and high_90 as of each row's session.

    past: stored rows of the same version, in any order; rows of sessions that `forecasts` holds too are not read. panel:
    prices of all these sessions; features are not read. What a row gets depends on rows whose labels were known strictly
    before its session, and on no later price.
    """
    known = past.join(forecasts.select(SESSION).unique(), on=SESSION, how="anti")
    # A symbol may have lost its bars since: what came of such a forecast cannot be known.
    known = known.filter(pl.col(SYMBOL).is_in(panel.symbols), pl.col(SESSION).is_in(panel.sessions.astype(object)))
    columns = [SYMBOL, SESSION, "horizon", _LOW, _HIGH]
    rows = pl.concat([known.select(columns), forecasts.select(columns)])
    is_new = np.arange(len(rows)) >= len(known)
    symbol, column = panel.places(rows)
    low, high = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    adaptive = Adaptive.from_json(card.adaptive)
    for h, text in enumerate(card.intervals):
        horizon = card.spec.horizons[h]
        at = np.flatnonzero(rows["horizon"].to_numpy() == horizon)
        ends = rows[_LOW].to_numpy()[at], rows[_HIGH].to_numpy()[at]
        label = forward_returns(panel.opens, (horizon,), panel.breaks)[symbol[at], column[at], 0]
        scale = horizon_scale(panel, card.target_scale, symbol[at], column[at], (horizon,))[:, 0]
        conformal = Conformal.from_json(text)
        path = adaptive_levels(conformal, adaptive, label, *ends, column[at], horizon, scale)
        low[at], high[at] = conformal.apply(*ends, scale, path.of_rows(column[at]))
    found = {name: values[is_new] for name, values in zip(INTERVAL_COLUMNS, (low, high), strict=True)}
    return forecasts.with_columns(pl.Series(name, values) for name, values in found.items())
