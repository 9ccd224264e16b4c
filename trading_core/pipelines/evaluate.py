"""Stored forecasts + bars -> what each strategy would have earned beside the benchmarks, with a report and its trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl

from trading_core import config
from trading_core.backtest import engine
from trading_core.backtest.data import ForecastPanel, MarketData
from trading_core.backtest.result import BacktestResult
from trading_core.config import StrategyConfig
from trading_core.dataset.panel import Panel
from trading_core.errors import EmptyUniverseError, InvalidDateRangeError, NoDataError
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.metrics.forecasts import MIN_PAIRS, ForecastSkill, rank_ic_per_date, summary
from trading_core.metrics.intervals import IntervalSkill
from trading_core.pipelines import evaluations, quality, refs, trials
from trading_core.pipelines.infer import find_version
from trading_core.pipelines.markets import require_daily
from trading_core.pipelines.refs import EvaluationRef, StrategyRow
from trading_core.pipelines.skill import priced, realised_returns
from trading_core.pipelines.stored_skill import stored_interval
from trading_core.pipelines.strategies import build_strategy, risk_limits
from trading_core.pipelines.train import code_version
from trading_core.pipelines.workspace import Workspace
from trading_core.plots.report import (
    EvaluationReport,
    IcSeries,
    SkillRow,
    StrategyReport,
    evaluation_report,
    strategy_report,
)
from trading_core.portfolio.registry import strategy_entry
from trading_core.portfolio.strategy import Strategy
from trading_core.registry.mlflow_registry import ModelVersion
from trading_core.schema import (
    BARS,
    CORPORATE_ACTIONS,
    FORECASTS,
    QUANTILE_COLUMNS,
    QUANTILES,
    SESSION,
    SYMBOL,
    ActionKind,
)
from trading_core.storage.tables import Predicate

MAIN_BENCHMARK = "equal-weight"


def load_market_data(ws: Workspace, end: date) -> tuple[MarketData, pl.DataFrame, pl.DataFrame]:
    """Prices as traded with their events up to `end`, and both frames.

    The prices are without bars that were held out on the evening of their session, as the live session saw it.
    """
    where = Predicate(None, end)
    bars = ws.tables.read(BARS.name, where=where).select(*BAR_SCHEMA)
    actions = ws.tables.read(CORPORATE_ACTIONS.name, where=where).select(*ACTION_SCHEMA)
    return MarketData.from_frames(quality.seen_that_day(ws, bars), actions), bars, actions


def evaluate(
    ws: Workspace,
    *,
    version: str,
    strategies: Sequence[str],
    start: date | None,
    end: date | None,
    capital: float,
    run_id: str,
    now: datetime,
) -> EvaluationRef:
    """Simulates `strategies` (config names) on the stored forecasts of one model version, net of the market's costs.

    Decisions from `start` (default: the first forecast session), trades up to `end` (default: the last session with bars).
    Writes the report, the `evaluations` rows and one trial per strategy and model.
    Errors: NoModelError, NoDataError (no forecasts), InvalidDateRangeError, UnknownNameError.
    """
    require_daily(ws.market)
    configs = {name: config.load_strategy(name, ws.settings) for name in strategies}
    chosen = find_version(ws, version)
    found = _forecasts(ws, str(chosen.version), start, end)
    decided: list[date] = found[SESSION].unique().sort().to_list()
    first = decided[0]
    final = end or ws.tables.last_session(BARS.name) or decided[-1]
    data, bars, actions = load_market_data(ws, final)
    if data.sessions[-1] <= first:
        raise InvalidDateRangeError(first, final, "no session after the first forecast has bars yet")
    # All of them before the first is simulated: what is wrong with one is said at once.
    built = {name: _built(ws, name, c, chosen, found) for name, c in configs.items()}
    results = {
        name: _simulate(ws, name, c, built[name], data, found, first, final, capital) for name, c in configs.items()
    }
    suspected = quality.suspected_actions(ws, {}, final)
    panel = priced(bars, actions, suspected)
    skills, series = _score_forecasts(found, panel)
    evaluation_id = config.config_hash([ws.market.id, str(chosen.version), str(first), str(final), run_id], 16)
    rows = _strategy_reports(results, configs, ws.sessions.per_year)
    _record(ws, evaluation_id, chosen.version, chosen.model, configs, rows, skills, first, final, now)
    ceiling = _ceiling(ws, found, panel, now)
    report = _report(ws, chosen.version, chosen.model, rows, skills, series, first, final, bars, actions, ceiling)
    path = ws.path("evaluations", evaluation_id, "report.html")
    ws.store.write_bytes(path, evaluation_report(report))
    lead = skills[min(skills)].forecasts
    made = EvaluationRef(
        market=ws.market.id,
        evaluation_id=evaluation_id,
        model_version=str(chosen.version),
        start=first,
        end=final,
        report=path,
        mean_rank_ic=lead.mean_rank_ic,
        rank_icir=lead.rank_icir,
        rank_ic_t=lead.rank_t_stat,
        rank_ic_ceiling=ceiling,
        strategies=tuple(_row(row) for row in rows),
    )
    ws.store.write_json(ws.path("evaluations", f"latest-v{chosen.version}.json"), refs.dump(made))
    return made


def _forecasts(ws: Workspace, version: str, start: date | None, end: date | None) -> pl.DataFrame:
    way_out = "Run batch_inference (or `trading predict`) for it first."
    if not ws.tables.exists(FORECASTS.name):
        raise NoDataError(f"Market '{ws.market.id}' has no forecasts yet", way_out)
    found = ws.tables.read(FORECASTS.name, where=Predicate(start, end, {"model_version": version}))
    if found.is_empty():
        raise NoDataError(f"Model version {version} has no forecasts in the dates asked for", way_out)
    return found


def require_horizon(ws: Workspace, name: str, chosen: StrategyConfig, forecasts: pl.DataFrame) -> None:
    """A strategy whose horizon the model does not forecast would hold nothing without a word. Errors: EmptyUniverseError."""
    horizons = sorted(forecasts["horizon"].unique().to_list())
    if strategy_entry(chosen.strategy).benchmark or chosen.horizon in horizons:
        return
    reason = f"strategy '{name}' ranks by horizon {chosen.horizon}, the model forecasts {horizons}"
    raise EmptyUniverseError(ws.market.id, reason)


def _built(
    ws: Workspace, name: str, chosen: StrategyConfig, version: ModelVersion, forecasts: pl.DataFrame
) -> Strategy:
    require_horizon(ws, name, chosen, forecasts)
    return build_strategy(ws, chosen, name, lambda: version)


def _simulate(
    ws: Workspace,
    name: str,
    chosen: StrategyConfig,
    strategy: Strategy,
    data: MarketData,
    found: pl.DataFrame,
    first: date,
    final: date,
    capital: float,
) -> BacktestResult:
    panel = ForecastPanel.from_frame(found, chosen.horizon, data.symbols, data.sessions)
    return engine.run(
        data,
        panel,
        strategy,
        name=name,
        start=first,
        end=final,
        capital=capital,
        costs=ws.costs,
        fractional=chosen.fractional,
        min_order_notional=chosen.min_order_notional,
        limits=risk_limits(chosen),
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    """The forecasts of one horizon, and the intervals that are stored with them."""

    forecasts: ForecastSkill
    intervals: IntervalSkill


def _score_forecasts(found: pl.DataFrame, panel: Panel) -> tuple[dict[int, _Scored], list[IcSeries]]:
    """Skill per horizon over the decisions whose labels are known, and the daily rank IC series."""
    horizons = sorted(found["horizon"].unique().to_list())
    joined = found.join(realised_returns(panel, horizons), on=[SYMBOL, SESSION, "horizon"]).sort(SESSION, SYMBOL)
    skills, series = {}, []
    for horizon in horizons:
        part = joined.filter(pl.col("horizon") == horizon)
        days = part[SESSION].to_numpy().astype("datetime64[D]")
        score, label = part["score"].to_numpy(), part["label"].to_numpy()
        index = np.unique(days, return_inverse=True)[1].astype(np.int64)
        quantiles = part.select(QUANTILE_COLUMNS).to_numpy()
        skill = summary(score, label, index, horizon, quantiles, QUANTILES, part["p_up"].to_numpy())
        skills[horizon] = _Scored(skill, stored_interval(panel, part))
        daily = rank_ic_per_date(score, label, index)
        series.append(IcSeries(horizon, tuple(np.unique(days).astype(object)[daily.dates]), daily.values))
    return skills, series


def _ceiling(ws: Workspace, found: pl.DataFrame, panel: Panel, now: datetime) -> float:
    """Mean rank IC of the true conditional mean over the same rows, where the source knows it; else NaN."""
    oracle = getattr(ws.source(), "oracle", None)
    if oracle is None:
        return float("nan")
    truth = oracle(found[SESSION].min(), found[SESSION].max(), now)
    rows = found.filter(pl.col("horizon") == 1).join(truth, on=[SYMBOL, SESSION], how="inner")
    rows = rows.join(realised_returns(panel, [1]), on=[SYMBOL, SESSION, "horizon"]).sort(SESSION, SYMBOL)
    if rows.is_empty():
        return float("nan")
    index = np.unique(rows[SESSION].to_numpy(), return_inverse=True)[1].astype(np.int64)
    return summary(rows["expected"].to_numpy(), rows["label"].to_numpy(), index).mean_rank_ic


def _strategy_reports(
    results: dict[str, BacktestResult], configs: dict[str, StrategyConfig], per_year: int
) -> list[StrategyReport]:
    benchmark = results.get(MAIN_BENCHMARK)
    return [
        strategy_report(
            name,
            result.sessions,
            result.equity,
            result.turnover,
            result.costs_paid,
            len(result.trades),
            benchmark.equity if benchmark is not None and name != MAIN_BENCHMARK else None,
            strategy_entry(configs[name].strategy).benchmark,
            per_year,
        )
        for name, result in results.items()
    ]


def _row(row: StrategyReport) -> StrategyRow:
    s = row.summary
    return StrategyRow(
        name=row.name,
        benchmark=row.benchmark,
        total_return=s.total_return,
        cagr=s.cagr,
        volatility=s.volatility_annual,
        sharpe=s.sharpe_annual,
        p_value=row.test.p_value,
        sortino=s.sortino_annual,
        max_drawdown=s.max_drawdown,
        turnover=s.turnover_annual,
        hit_ratio=s.hit_ratio,
    )


def _record(
    ws: Workspace,
    evaluation_id: str,
    version: int,
    model: str,
    configs: dict[str, StrategyConfig],
    rows: list[StrategyReport],
    skills: dict[int, _Scored],
    first: date,
    final: date,
    now: datetime,
) -> None:
    """The `evaluations` rows (replaced when run again) and the trials."""
    lines = [(row.name, metric, value) for row in rows for metric, value in asdict(_row(row)).items()]
    lines += [
        (f"{subject} h{h}", metric, value)
        for h, scored in skills.items()
        for subject, skill in (("forecasts", scored.forecasts), ("stored interval", scored.intervals))
        for metric, value in asdict(skill).items()
    ]
    kept = [
        (subject, metric, float(value))
        for subject, metric, value in lines
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    evaluations.record(ws, evaluation_id, kept, model_version=str(version), start=first, end=final, now=now)
    shared: dict[str, Any] = {"start": first, "end": final, "source": evaluation_id, "now": now}
    for row in rows:
        key = f"{config.config_hash(configs[row.name])}-v{version}"
        trials.record(
            ws, kind="strategy", subject=row.name, config_hash=key, metric="sharpe_annual",
            value=row.summary.sharpe_annual, **shared,
        )  # fmt: skip
    lead = skills[min(skills)].forecasts
    trials.record(
        ws, kind="model", subject=model, config_hash=f"v{version}", metric="rank_ic", value=lead.mean_rank_ic, **shared
    )


def _report(
    ws: Workspace,
    version: int,
    model: str,
    rows: list[StrategyReport],
    skills: dict[int, _Scored],
    series: list[IcSeries],
    first: date,
    final: date,
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    ceiling: float,
) -> EvaluationReport:
    costs = ws.costs
    return EvaluationReport(
        title=f"Strategies on {ws.market.id}",
        market=ws.market.id,
        model=f"{model}, version {version}",
        versions=(
            ("Model version", str(version)),
            ("Bars table", f"version {ws.tables.version(BARS.name)}"),
            ("Forecasts table", f"version {ws.tables.version(FORECASTS.name)}"),
            ("Code", code_version()),
        ),
        start=first,
        end=final,
        costs=(
            f"Each side pays {costs.commission_bps:g} bps commission, {costs.half_spread_bps:g} bps half spread and "
            f"{costs.slippage_bps:g} bps slippage of its notional. Fills at the next open."
        ),
        notes=_notes(ws, actions),
        benchmark=MAIN_BENCHMARK if any(row.name == MAIN_BENCHMARK for row in rows) else rows[0].name,
        strategies=tuple(rows),
        skill=tuple(row for h, scored in skills.items() for row in _skill_rows(h, scored, ceiling)),
        ic=tuple(series),
        trials=trials.count(ws),
        quality=quality.section(ws, bars, final),
        sessions_per_year=ws.sessions.per_year,
    )


def _skill_rows(horizon: int, scored: _Scored, ceiling: float) -> list[SkillRow]:
    """What the report says of one horizon; the ceiling, where it is known, belongs to the one-session horizon."""
    skill, interval = scored.forecasts, scored.intervals
    thirds = (
        interval.coverage_low_volatility,
        interval.coverage_middle_volatility,
        interval.coverage_high_volatility,
    )
    by_third = "low, middle and high volatility: " + ", ".join("–" if np.isnan(c) else f"{c:.2f}" for c in thirds)
    t_note = f"Newey-West, {skill.hac_lag} lags, {skill.n_dates} sessions"
    best = f"the market's own truth reaches {ceiling:.3f}" if horizon == 1 and np.isfinite(ceiling) else ""
    if skill.n_dates == 0:
        best = f"not defined: no session has {MIN_PAIRS} symbols with a forecast and a label"
    return [
        SkillRow(horizon, "Mean rank IC", skill.mean_rank_ic, 0.0, best),
        SkillRow(horizon, "t of the mean rank IC", skill.rank_t_stat, 0.0, t_note),
        SkillRow(horizon, "Rank ICIR (per session)", skill.rank_icir, 0.0),
        SkillRow(horizon, "ROC AUC of p_up", skill.roc_auc, 0.5),
        SkillRow(horizon, "Brier score of p_up", skill.brier, 0.25, "lower is better"),
        SkillRow(horizon, "Coverage of q05 to q95", skill.coverage_90, note="0.90 is exact"),
        SkillRow(horizon, "Coverage of the stored interval", interval.coverage, note=by_third),
        SkillRow(horizon, "Mean width of the stored interval", interval.mean_width, note="in log return"),
    ]


def _notes(ws: Workspace, actions: pl.DataFrame) -> tuple[str, ...]:
    """What these data cannot tell."""
    notes = []
    if ws.market.source == "simulated":
        notes.append(
            "The market is simulated, with a signal that was planted in it: these returns say that the pipeline finds what is "
            "there to find, and nothing about a real market."
        )
    if actions.filter(pl.col("kind") == ActionKind.DELISTING.value).is_empty():
        notes.append(
            "No delisted name is in these data (survivorship): whoever failed before the panel was made is missing, which "
            "flatters every long-only strategy and the benchmarks alike."
        )
    if actions.is_empty():
        notes.append(
            "The source gives no splits or dividends: prices are taken as they are, returns leave dividends out, and an "
            "unadjusted distribution looks like a crash."
        )
    notes.append(
        "Fills are assumed at the official open without market impact; sizes are small beside the volume or not at all checked."
    )
    return tuple(notes)
