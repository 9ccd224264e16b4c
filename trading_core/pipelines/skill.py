"""How good forecasts were: one row of figures per horizon, the same wherever forecasts are judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from trading_core.dataset.labels import forward_returns
from trading_core.dataset.panel import Panel
from trading_core.market import adjust
from trading_core.metrics.classification import binary_skill, pr_auc
from trading_core.metrics.forecasts import roc_auc, summary
from trading_core.pipelines.refs import Real
from trading_core.schema import QUANTILES, SESSION, SYMBOL, DateArray, FloatArray


@dataclass(frozen=True, slots=True)
class HorizonSkill:
    """The forecasts of one horizon against what came; null where a figure is not defined.

    rows: forecasts whose label is known, of `sessions` sessions. rank_ic (mean over sessions), rank_icir (per session), its
    t (Newey-West, horizon - 1 lags) and pinball: of score and quantiles. accuracy, f1 (of a rise, at p_up >= one half) and
    what stands up to ece: of the calibrated p_up. roc_auc, pr_auc: of the raw probability where it is at hand, because a
    calibration that finds no slope makes all probabilities equal. coverage_90: of [q05, q95].
    """

    horizon: int
    sessions: int
    rows: int
    rank_ic: Real
    rank_icir: Real
    rank_ic_t: Real
    roc_auc: Real
    pr_auc: Real
    accuracy: Real
    f1: Real
    brier: Real
    ece: Real
    coverage_90: Real
    pinball: Real


def horizon_skill(
    horizon: int,
    score: FloatArray,
    quantiles: FloatArray,
    p_up: FloatArray,
    label: FloatArray,
    day: DateArray,
    raw_p_up: FloatArray | None = None,
) -> HorizonSkill:
    """score, p_up, raw_p_up: [N]; quantiles: [N,Q] of `schema.QUANTILES`; label: [N] log returns, NaN where not known;
    day: [N]."""
    known = np.isfinite(label) & np.isfinite(score)
    days, index = np.unique(day[known], return_inverse=True)
    label, p_up = label[known], p_up[known]
    found = summary(score[known], label, index.astype(np.int64), horizon, quantiles[known], QUANTILES, p_up)
    up = (label > 0.0).astype(np.float64)
    rise, ranked = binary_skill(p_up, up), p_up if raw_p_up is None else raw_p_up[known]
    return HorizonSkill(
        horizon=horizon,
        sessions=len(days),
        rows=int(known.sum()),
        rank_ic=found.mean_rank_ic,
        rank_icir=found.rank_icir,
        rank_ic_t=found.rank_t_stat,
        roc_auc=roc_auc(ranked, up),
        pr_auc=pr_auc(ranked, up),
        accuracy=rise.accuracy,
        f1=rise.f1,
        brier=rise.brier,
        ece=rise.ece,
        coverage_90=found.coverage_90,
        pinball=found.pinball,
    )


def priced(bars: pl.DataFrame, actions: pl.DataFrame, suspected: pl.DataFrame) -> Panel:
    """The adjusted prices that forecasts are judged by, as a panel without features.

    suspected: symbol, session of corporate actions that may be missing; no label spans one. Errors: EmptyUniverseError.
    """
    adjusted = adjust.adjusted(bars, actions)
    return Panel.from_frames(adjusted.select(SYMBOL, SESSION), adjusted, None, (), breaks=suspected)


def realised_returns(panel: Panel, horizons: Sequence[int]) -> pl.DataFrame:
    """symbol, session, horizon, label: the realised open-to-open returns that are known, splits and dividends included."""
    values = forward_returns(panel.opens, horizons, panel.breaks)  # [S, T, H]
    days = panel.sessions
    grid = [
        pl.DataFrame(
            {
                SYMBOL: np.repeat(panel.symbols, len(days)),
                SESSION: np.tile(days, len(panel.symbols)),
                "label": values[:, :, h].ravel(),
            }
        )
        .with_columns(pl.lit(horizon, dtype=pl.Int32).alias("horizon"), pl.col(SESSION).cast(pl.Date))
        .filter(pl.col("label").is_finite())
        for h, horizon in enumerate(horizons)
    ]
    return pl.concat(grid)
