"""How good the forecasts of an evaluation were, whatever was traded on them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from trading_core.dataset.panel import Panel
from trading_core.metrics.buckets import bucket_returns
from trading_core.metrics.classification import binary_skill
from trading_core.metrics.forecasts import MIN_PAIRS, ForecastSkill, rank_ic_per_date, summary
from trading_core.metrics.intervals import IntervalSkill
from trading_core.pipelines.evaluation_inputs import Inputs, gaps
from trading_core.pipelines.skill import realised_returns
from trading_core.pipelines.stored_skill import stored_interval
from trading_core.pipelines.workspace import Workspace
from trading_core.plots.evaluation_data import Buckets, ForecastReport, IcSeries, SkillRow
from trading_core.plots.evaluation_verdict import ic_t
from trading_core.schema import QUANTILE_COLUMNS, QUANTILES, SESSION, SYMBOL

BUCKETS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The forecasts of one label and horizon against what came."""

    label: str
    model: str
    horizon: int
    skill: ForecastSkill
    intervals: IntervalSkill
    report: ForecastReport


def score(inputs: Inputs, panel: Panel, ceiling: float) -> list[Scored]:
    """Skill per model and horizon over the decisions whose labels are known. ceiling: the mean rank IC of the market's own
    truth over one session, where it is known."""
    found = []
    for used in inputs.plan.forecasts:
        frame = inputs.forecasts[used.label]
        horizons = sorted(frame["horizon"].unique().to_list())
        joined = frame.join(realised_returns(panel, horizons), on=[SYMBOL, SESSION, "horizon"]).sort(SESSION, SYMBOL)
        for horizon in horizons:
            part = joined.filter(pl.col("horizon") == horizon)
            found.append(_scored(inputs, panel, used.label, used.model, horizon, part, ceiling))
    return found


def _scored(
    inputs: Inputs, panel: Panel, label: str, model: str, horizon: int, part: pl.DataFrame, ceiling: float
) -> Scored:
    days = part[SESSION].to_numpy().astype("datetime64[D]")
    scores, labels, p_up = part["score"].to_numpy(), part["label"].to_numpy(), part["p_up"].to_numpy()
    index = np.unique(days, return_inverse=True)[1].astype(np.int64)
    skill = summary(scores, labels, index, horizon, part.select(QUANTILE_COLUMNS).to_numpy(), QUANTILES, p_up)
    intervals = stored_interval(panel, part)
    daily = rank_ic_per_date(scores, labels, index)
    series = IcSeries(tuple(np.unique(days).astype(object)[daily.dates]), daily.values)
    made = bucket_returns(scores, labels, index, horizon, BUCKETS)
    buckets = Buckets(
        made.mean, made.standard_error, made.spread, made.spread_t, made.monotonicity, made.dates, made.dates_excluded
    )
    # All horizons of a session are stored together: what the shortest lacks, all lack.
    lacking = gaps(inputs, label, horizon) if horizon == inputs.forecasts[label]["horizon"].min() else ()
    report = ForecastReport(label, horizon, series, buckets, (), lacking)
    t_row = SkillRow("t of the mean rank IC", ic_t(report), 0.0, f"Newey-West, {skill.n_dates} sessions")
    rows = (*_skill_rows(horizon, skill, intervals, ceiling, t_row), *_class_rows(p_up, labels))
    report = dataclasses.replace(report, skill=rows)
    return Scored(label, model, horizon, skill, intervals, report)


def _skill_rows(
    horizon: int, skill: ForecastSkill, interval: IntervalSkill, ceiling: float, t_row: SkillRow
) -> tuple[SkillRow, ...]:
    """The ceiling, where it is known, belongs to the one-session horizon."""
    thirds = (
        interval.coverage_low_volatility, interval.coverage_middle_volatility, interval.coverage_high_volatility,
    )  # fmt: skip
    by_third = "low, middle and high volatility: " + ", ".join("–" if np.isnan(c) else f"{c:.2f}" for c in thirds)
    best = f"the market's own truth reaches {ceiling:.3f}" if horizon == 1 and np.isfinite(ceiling) else ""
    if skill.n_dates == 0:
        best = f"not defined: no session has {MIN_PAIRS} symbols with a forecast and a label"
    return (
        SkillRow("Mean rank IC", skill.mean_rank_ic, 0.0, best),
        t_row,
        SkillRow("Rank ICIR (per session)", skill.rank_icir, 0.0),
        SkillRow("Mean IC", skill.mean_ic, 0.0, "Pearson's correlation"),
        SkillRow("Directional accuracy", skill.directional_accuracy, 0.5),
        SkillRow("RMSE of the median", skill.rmse, note="in log return"),
        SkillRow("MAE of the median", skill.mae, note="in log return"),
        SkillRow("Pinball loss", skill.pinball, note="mean over quantiles, in log return"),
        SkillRow("Share of crossing quantiles", skill.crossing_rate, 0.0),
        SkillRow("ROC AUC of p_up", skill.roc_auc, 0.5),
        SkillRow("Brier score of p_up", skill.brier, 0.25, "lower is better"),
        SkillRow("Coverage of q05 to q95", skill.coverage_90, note="0.90 is exact"),
        SkillRow("Coverage of the stored interval", interval.coverage, note=by_third),
        SkillRow("Mean width of the stored interval", interval.mean_width, note="in log return"),
    )


def _class_rows(p_up: np.ndarray, labels: np.ndarray) -> tuple[SkillRow, ...]:
    known = np.isfinite(p_up) & np.isfinite(labels)
    if not known.any():
        return ()
    rose = (labels[known] > 0).astype(np.float64)
    found = binary_skill(p_up[known], rose)
    return (
        SkillRow("PR AUC of p_up", found.pr_auc, float(rose.mean()), "no skill: the share of rises"),
        SkillRow("F1 of a rise", found.f1, note="at p_up of at least one half"),
        SkillRow("Calibration error of p_up (ECE)", found.ece, 0.0, "lower is better"),
    )


def ceiling_of(ws: Workspace, inputs: Inputs, panel: Panel, now: datetime) -> float:
    """Mean rank IC of the true conditional mean over the rows of the first forecasts, where the source knows it; else NaN."""
    oracle = getattr(ws.source(), "oracle", None)
    if oracle is None:
        return float("nan")
    found = inputs.forecasts[inputs.plan.forecasts[0].label]
    truth = oracle(found[SESSION].min(), found[SESSION].max(), now)
    rows = found.filter(pl.col("horizon") == 1).join(truth, on=[SYMBOL, SESSION], how="inner")
    rows = rows.join(realised_returns(panel, [1]), on=[SYMBOL, SESSION, "horizon"]).sort(SESSION, SYMBOL)
    if rows.is_empty():
        return float("nan")
    index = np.unique(rows[SESSION].to_numpy(), return_inverse=True)[1].astype(np.int64)
    return summary(rows["expected"].to_numpy(), rows["label"].to_numpy(), index).mean_rank_ic
