"""One strategy with many values of its parameters, in one run: what each would have earned, and how much choosing is worth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from trading_core import config
from trading_core.backtest.engine import Job, Terms, run_many
from trading_core.config import StrategyConfig
from trading_core.errors import InvalidConfigError
from trading_core.metrics.deflated import deflated_sharpe, trials_of
from trading_core.metrics.overfitting import backtest_overfitting
from trading_core.metrics.returns import simple_returns, summarize
from trading_core.metrics.significance import sharpe_test
from trading_core.pipelines import trials
from trading_core.pipelines.evaluation_inputs import Inputs, Wanted, load_inputs, make_plan
from trading_core.pipelines.evaluation_judge import cash_per_session
from trading_core.pipelines.infer import find_version
from trading_core.pipelines.market_data import load_strategy_columns
from trading_core.pipelines.markets import require_daily
from trading_core.pipelines.refs import SweepRef, SweepRow
from trading_core.pipelines.strategies import build_strategy, require_horizon, risk_limits
from trading_core.pipelines.workspace import Workspace

MOST = 1000  # combinations of one sweep


@dataclass(frozen=True, slots=True, eq=False)
class _Variant:
    """One combination: its values as words, the config that has them."""

    words: str
    chosen: StrategyConfig


def sweep(ws: Workspace, wanted: Wanted, grid: Mapping[str, Sequence[Any]], *, run_id: str, now: datetime) -> SweepRef:
    """Simulates every combination of `grid` (parameter -> values) of the one strategy and the one model of `wanted`.

    Every combination is a trial of the market. The probability of backtest overfitting says what choosing the best of them is
    worth. Errors: those of `evaluation_inputs.make_plan`; InvalidConfigError names a parameter or value that is not allowed.
    """
    require_daily(ws.market)
    name = wanted.strategies[0]
    variants = _variants(config.load_strategy(name, ws.settings), name, grid)
    plan = make_plan(ws, wanted, run_id)
    inputs = load_inputs(ws, plan)
    jobs = _jobs(inputs, name, variants)
    results = run_many(inputs.data, jobs, start=plan.start, end=plan.end)
    per_year, label = ws.sessions.per_year, plan.forecasts[0].label
    returns = np.column_stack([simple_returns(result.equity) for result in results])
    summaries = [summarize(r.equity, r.turnover, per_year=per_year) for r in results]
    version = "+".join(v for v, _, _ in plan.forecasts[0].segments)
    found = [
        trials.Trial("strategy", f"{name} · {plan.forecasts[0].model}", f"{config.config_hash(variant.chosen)}-v{version}-open",
                     "sharpe_annual", summary.sharpe_annual)
        for variant, summary in zip(variants, summaries, strict=True)
    ]  # fmt: skip
    trials.record_many(ws, found, start=plan.start, end=plan.end, source=plan.evaluation_id, now=now)
    known = trials_of(trials.sharpe_ratios(ws, plan.start, plan.end))
    cash = cash_per_session(inputs.costs, results[0].sessions)
    rows = [
        SweepRow(
            params=variant.words,
            sharpe=summary.sharpe_annual,
            p_value=sharpe_test(returns[:, v], per_year=per_year, cash=cash).p_value,
            deflated=deflated_sharpe(returns[:, v], known, per_year, cash=cash).probability,
            cagr=summary.cagr,
            max_drawdown=summary.max_drawdown,
            turnover=summary.turnover_annual,
        )
        for v, (variant, summary) in enumerate(zip(variants, summaries, strict=True))
    ]
    overfitted = backtest_overfitting(returns, [variant.words for variant in variants], per_year=per_year)
    rows.sort(key=lambda row: -row.sharpe if math.isfinite(row.sharpe) else math.inf)
    return SweepRef(
        market=ws.market.id, strategy=name, model=label, start=results[0].sessions[0], end=results[0].sessions[-1],
        trials=known.count, pbo=overfitted.pbo, pbo_reason=overfitted.reason, variants=tuple(rows),
    )  # fmt: skip


def _variants(chosen: StrategyConfig, name: str, grid: Mapping[str, Sequence[Any]]) -> list[_Variant]:
    """All combinations in the order of the grid. Values are checked by the strategy's own parameter class when it is built."""
    count = math.prod(len(values) for values in grid.values())
    if not grid or count == 0:
        raise InvalidConfigError(f"The sweep of strategy '{name}'", ["name at least one parameter with its values"])
    if twice := [key for key, values in grid.items() if len(set(map(repr, values))) < len(values)]:
        raise InvalidConfigError(f"The sweep of strategy '{name}'", [f"{', '.join(twice)}: a value is given twice"])
    if count > MOST:
        raise InvalidConfigError(
            f"The sweep of strategy '{name}'", [f"{count} combinations; at most {MOST} in one run"]
        )
    return [
        _Variant(
            ", ".join(f"{key} = {value}" for key, value in zip(grid, values, strict=True)),
            chosen.model_copy(update={"params": chosen.params | dict(zip(grid, values, strict=True))}),
        )
        for values in itertools.product(*grid.values())
    ]


def _jobs(inputs: Inputs, name: str, variants: Sequence[_Variant]) -> list[Job]:
    ws, plan, used = inputs.ws, inputs.plan, inputs.plan.forecasts[0]
    jobs = []
    for variant in variants:
        chosen = variant.chosen
        require_horizon(ws, name, chosen, inputs.forecasts[used.label])
        strategy = build_strategy(ws, chosen, name, lambda: find_version(ws, used.segments[-1][0]))
        columns = load_strategy_columns(ws, strategy, inputs.data, plan.start, plan.end)
        terms = Terms(
            plan.capital, inputs.costs, chosen.fractional, chosen.min_order_notional, risk_limits(chosen), record=False
        )
        jobs.append(Job(variant.words, strategy, terms, inputs.panel(used.label, chosen.horizon), columns))
    return jobs
