"""Several models on the same sessions of one panel: trained alike, calibrated, traded by a threshold, in one table.

Nothing is registered here; `trading train --config FILE --variant NAME` does that with one of them. What is told of each is
of the test part alone, which neither the weights nor the calibration nor the threshold has seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import polars as pl

from trading_core import config
from trading_core.backtest import engine
from trading_core.backtest.data import ForecastPanel, MarketData
from trading_core.backtest.result import BacktestResult
from trading_core.config import ComparisonConfig, ModelConfig, Settings
from trading_core.dataset.panel import Panel
from trading_core.errors import InvalidDateRangeError, UnknownNameError
from trading_core.metrics.returns import ReturnSummary, summarize
from trading_core.pipelines import backfill, markets, refs, trials
from trading_core.pipelines.after import fit_after
from trading_core.pipelines.held_out import HeldOut, held_out
from trading_core.pipelines.learn import fit_prepared, prepare, split_before
from trading_core.pipelines.market_data import load_market_data
from trading_core.pipelines.markets import Trading
from trading_core.pipelines.panels import Versions, current_versions, feature_sessions, load_panel
from trading_core.pipelines.refs import Real
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.portfolio.buy_and_hold import BuyAndHold, BuyAndHoldParams
from trading_core.portfolio.strategy import Strategy
from trading_core.portfolio.threshold_long_flat import ThresholdLongFlat, ThresholdLongFlatParams
from trading_core.schema import QUANTILE_COLUMNS, SESSION, SYMBOL

CAPITAL = 1_000_000.0
BENCHMARK = "buy_and_hold"


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One line of the table, of the shortest horizon. rank_ic .. ece: see pipelines.skill.HorizonSkill.

    threshold: on the calibrated probability of a rise, searched on the validation part; held: share of the forecasts at or
    above it. From total_return on: of trading it over the test, net of costs; the benchmark has nothing but these.
    """

    model: str
    rank_ic: Real
    accuracy: Real
    f1: Real
    roc_auc: Real
    pr_auc: Real
    brier: Real
    ece: Real
    threshold: Real
    held: Real
    total_return: Real
    sharpe: Real
    max_drawdown: Real
    turnover: Real


@dataclass(frozen=True, slots=True)
class Comparison:
    """start .. cutoff: what was learned from (labels included); test_start .. test_end: decisions that were judged."""

    name: str
    market: str
    start: date
    cutoff: date
    test_start: date
    test_end: date
    forecasts: int  # of each model, with a known label
    rises: Real  # share of labels that are positive
    cost_bps: float  # of one side of a trade
    table: str  # path of the JSON in the artifact store
    models: tuple[ComparedModel, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What all models of a comparison share."""

    ws: Workspace
    config: ComparisonConfig
    versions: Versions
    data: MarketData
    end: date  # of the test
    now: datetime
    run_id: str


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    row: ComparedModel
    cutoff: date
    forecasts: HeldOut


def compare(
    name: str,
    chosen: ComparisonConfig,
    data: str,
    settings: Settings,
    *,
    only: Sequence[str],
    run_id: str,
    now: datetime,
) -> Comparison:
    """Backfills the panel file `data` (a market of its own) and trains, calibrates, tests and trades each model on it.

    only: names of models, () for all. Every model leaves a row in the market's trials, and so does its strategy.
    Errors: those of `markets.add_panel`, UnknownNameError (only), InvalidDateRangeError (no test session in the panel),
    TooShortHistoryError, InvalidConfigError, TrainingFailedError.
    """
    variants = chosen.variants()
    if unknown := sorted(set(only) - set(variants)):
        raise UnknownNameError(f"model of the comparison '{name}'", unknown[0], list(variants))
    wanted = {key: model for key, model in variants.items() if not only or key in only}
    task = _task(chosen, wanted, data, settings, run_id, now)
    judged = [_judged(task, key, model) for key, model in wanted.items()]
    hold = _traded(task, BuyAndHold(BuyAndHoldParams()), None, BENCHMARK)
    forecasts = judged[0].forecasts
    label = forecasts.returns[:, 0]
    label = label[np.isfinite(label)]
    path = task.ws.path("comparisons", f"{name}-{config.config_hash([chosen, sorted(wanted)])}.json")
    made = Comparison(
        name=name,
        market=task.ws.market.id,
        start=chosen.start,
        cutoff=judged[0].cutoff,
        test_start=chosen.test_start,
        test_end=task.end,
        forecasts=len(label),
        rises=float(np.mean(label > 0.0)) if len(label) else math.nan,
        cost_bps=task.ws.costs.total_bps,
        table=path,
        models=(*(item.row for item in judged), _row(BENCHMARK, hold)),
    )
    task.ws.store.write_json(path, refs.dump(made))
    return made


def _task(
    chosen: ComparisonConfig,
    wanted: dict[str, ModelConfig],
    data: str,
    settings: Settings,
    run_id: str,
    now: datetime,
) -> _Task:
    symbols = [chosen.symbol] if chosen.symbol else []
    market = markets.resolve(data, symbols, settings, now, Trading(chosen.calendar))
    ws = open_workspace(market.model_copy(update={"costs": chosen.costs}), settings)
    made = backfill.run(ws, start=None, end=None, refresh=False, run_id=run_id, now=now)
    print(f"{ws.market.id}: features of {made.start} .. {made.end}", flush=True)
    end = feature_sessions(ws)[-1]
    if chosen.test_start >= end:
        raise InvalidDateRangeError(chosen.test_start, end, f"the panel '{data}' ends before the test begins")
    versions = current_versions(ws, sorted({name for model in wanted.values() for name in model.features}))
    return _Task(ws, chosen, versions, load_market_data(ws, end)[0], end, now, run_id)


def _judged(task: _Task, name: str, model: ModelConfig) -> _Judged:
    """Trains one model on a panel that ends before the test, and judges and trades it over the test."""
    ws, test_start = task.ws, task.config.test_start
    panel = _panel(task, model, ws.sessions.previous(test_start))
    prepared = prepare(panel, model, split_before(panel, model, np.datetime64(test_start)))
    print(f"{name}: {len(prepared.train)} training and {len(prepared.validation)} validation windows", flush=True)
    fitted = fit_prepared(prepared, model, name, on_progress=lambda _: None)
    after = fit_after(fitted, prepared.validation, ws.costs, ws.sessions.per_year)
    whole = _panel(task, model, task.end)
    tested = np.flatnonzero(whole.sessions >= np.datetime64(test_start)).astype(np.int64)
    found = held_out(prepared, fitted, tested, whole)
    threshold = after.thresholds[task.config.threshold][0].threshold
    strategy = ThresholdLongFlat(ThresholdLongFlatParams(threshold))
    earned = _traded(task, strategy, _frame(found), name)
    row = _row(name, earned, found, threshold)
    _record(task, row, model)
    return _Judged(row, prepared.split.cutoff, found)


def _panel(task: _Task, model: ModelConfig, end: date) -> Panel:
    return load_panel(task.ws, model.features, task.config.start, end, task.versions, model.instrument_columns)


def _frame(found: HeldOut) -> pl.DataFrame:
    """The forecasts of the shortest horizon as rows of schema.FORECASTS, as far as a backtest reads them."""
    panel, windows = found.windows.scaled.panel, found.windows
    columns = {
        SYMBOL: np.array(panel.symbols, dtype=object)[windows.symbol],
        SESSION: panel.sessions[windows.columns],
        "score": found.score[:, 0],
        "p_up": found.p_up[:, 0],
        **{column: found.quantiles[:, 0, q] for q, column in enumerate(QUANTILE_COLUMNS)},
    }
    frame = pl.DataFrame(columns, schema_overrides={SYMBOL: pl.String, SESSION: pl.Date})
    return frame.with_columns(pl.lit(windows.spec.horizons[0], pl.Int32).alias("horizon"))


def _traded(task: _Task, strategy: Strategy, forecasts: pl.DataFrame | None, name: str) -> ReturnSummary:
    """Decisions from the first test session on, net of the comparison's costs."""
    data, panel = task.data, None
    if forecasts is not None:
        horizon = int(forecasts["horizon"][0])
        panel = ForecastPanel.from_frame(forecasts, horizon, data.symbols, data.sessions)
    result: BacktestResult = engine.run(
        data,
        panel,
        strategy,
        name=name,
        start=task.config.test_start,
        end=task.end,
        capital=CAPITAL,
        costs=task.ws.costs,
    )
    return summarize(result.equity, result.turnover, per_year=task.ws.sessions.per_year)


def _row(name: str, earned: ReturnSummary, found: HeldOut | None = None, threshold: float = math.nan) -> ComparedModel:
    skill = found.skill()[0] if found is not None else None
    return ComparedModel(
        model=name,
        rank_ic=skill.rank_ic if skill else math.nan,
        accuracy=skill.accuracy if skill else math.nan,
        f1=skill.f1 if skill else math.nan,
        roc_auc=skill.roc_auc if skill else math.nan,
        pr_auc=skill.pr_auc if skill else math.nan,
        brier=skill.brier if skill else math.nan,
        ece=skill.ece if skill else math.nan,
        threshold=threshold,
        held=float(np.mean(found.p_up[:, 0] >= threshold)) if found is not None else 1.0,
        total_return=earned.total_return,
        sharpe=earned.sharpe_annual,
        max_drawdown=earned.max_drawdown,
        turnover=earned.turnover_annual,
    )


def _record(task: _Task, row: ComparedModel, model: ModelConfig) -> None:
    """Two trials: the model by its ROC AUC, since one symbol has no rank IC, and its strategy by its Sharpe ratio."""
    key = config.config_hash([model, task.config.threshold, task.config.costs])
    for kind, metric, value in (("model", "roc_auc", row.roc_auc), ("strategy", "sharpe_annual", row.sharpe)):
        trials.record(
            task.ws,
            kind=kind,
            subject=row.model,
            config_hash=key,
            metric=metric,
            value=value,
            start=task.config.test_start,
            end=task.end,
            source=task.run_id,
            now=task.now,
        )
