"""The simulations of one strategy: on every model's forecasts, at other costs, with other k; published as files."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from trading_core import config
from trading_core.backtest.data import ForecastPanel
from trading_core.backtest.engine import Job, Terms, run_many, signals_of
from trading_core.backtest.result import BacktestResult
from trading_core.config import StrategyConfig
from trading_core.metrics.returns import cagr, sharpe_annual, simple_returns
from trading_core.pipelines.evaluation_inputs import Inputs
from trading_core.pipelines.infer import find_version
from trading_core.pipelines.market_data import load_strategy_columns
from trading_core.pipelines.refs import ForecastsUsed, SimulatedRef
from trading_core.pipelines.strategies import (
    build_strategy,
    needs_card,
    require_horizon,
    risk_limits,
    strategy_params,
)
from trading_core.pipelines.workspace import Workspace
from trading_core.portfolio.registry import strategy_entry
from trading_core.portfolio.strategy import Strategy
from trading_core.schema import SESSION, FloatArray

COST_FACTORS = (0.0, 0.5, 1.0, 2.0, 5.0)
OTHER_K = (1, 5, 10, 20, 50)
PATHS = (
    "equity", "cash", "turnover", "commission", "concession", "impact", "borrow", "interest", "dividends", "proceeds",
    "gross", "net", "n_positions",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """A simulation beside the main one: what was varied, to what, and the equity [N] that came of it."""

    setting: str  # "costs" or "k"
    value: float
    equity: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """One strategy on the forecasts of one label ("" for none). daily: SESSION and PATHS, row 0 the first decision.

    positions: shares held at each close [N, S] are to be had from `trades` (see backtest.positions). flat: why no more than
    this is known, "" mostly. unfilled: rows of result.UNFILLED_COLUMNS.
    """

    strategy: str
    label: str
    benchmark: bool
    short: bool
    daily: pl.DataFrame
    trades: pl.DataFrame
    unfilled: pl.DataFrame
    variants: tuple[Variant, ...]

    @property
    def equity(self) -> FloatArray:
        return self.daily["equity"].to_numpy()

    @property
    def returns(self) -> FloatArray:
        """[N - 1] simple returns, NaN once nothing is left."""
        return simple_returns(self.equity)


def simulate(inputs: Inputs, strategy: str, now: datetime) -> SimulatedRef:
    """Simulates one strategy of the plan on all its forecasts, once where it needs none, and publishes what came of it.

    Errors: those of `strategies.build_strategy` and `require_horizon`, StrategyOutputError.
    """
    ws, plan = inputs.ws, inputs.plan
    chosen = config.load_strategy(strategy, ws.settings)
    used: Sequence[ForecastsUsed | None] = plan.forecasts
    if not _needs_forecasts(chosen, strategy):
        used = [None]
    elif strategy_entry(chosen.strategy).benchmark:
        used = plan.forecasts[:1]  # it reads which names have a forecast, not what it says
    elif needs_card(chosen, strategy):
        used = [item for item in plan.forecasts if len(item.segments) == 1]  # the report names the others
    files: dict[str, bytes] = {}
    labels = []
    for number, item in enumerate(used):
        made = _simulated(inputs, chosen, strategy, item)
        labels.append(made.label)
        files |= {f"{number}-{name}": content for name, content in _files(made).items()}
    files["labels.json"] = json.dumps(labels).encode()
    prefix = ws.path("evaluations", plan.evaluation_id, "simulated", strategy)
    digest = ws.store.publish(prefix, files, now)
    return SimulatedRef(strategy, prefix, digest, tuple(labels))


def _needs_forecasts(chosen: StrategyConfig, name: str) -> bool:
    strategy_params(chosen, name)
    return bool(getattr(strategy_entry(chosen.strategy).build, "needs_forecasts", True))


def _simulated(inputs: Inputs, chosen: StrategyConfig, name: str, used: ForecastsUsed | None) -> Simulated:
    ws, plan = inputs.ws, inputs.plan
    panel: ForecastPanel | None = None
    if used is not None:
        require_horizon(ws, name, chosen, inputs.forecasts[used.label])
        panel = inputs.panel(used.label, chosen.horizon)
    strategy = build_strategy(ws, chosen, name, lambda: find_version(ws, used.segments[0][0] if used else ""))
    columns = load_strategy_columns(ws, strategy, inputs.data, plan.start, plan.end)
    terms = Terms(plan.capital, inputs.costs, chosen.fractional, chosen.min_order_notional, risk_limits(chosen))
    benchmark = strategy_entry(chosen.strategy).benchmark
    label = used.label if used and not benchmark else ""
    main = Job(f"{name} {label}".strip(), strategy, terms, panel, columns)
    signals = signals_of(inputs.data, main, start=plan.start, end=plan.end)
    main = dataclasses.replace(main, signals=signals)
    settings, jobs = _varied(main, chosen, name)
    results = run_many(inputs.data, [main, *jobs], start=plan.start, end=plan.end)
    variants = tuple(
        Variant(setting, value, result.equity) for (setting, value), result in zip(settings, results[1:], strict=True)
    )
    result = results[0]
    return Simulated(name, label, benchmark, strategy.short, _daily(result), result.trades, result.unfilled, variants)


def _varied(main: Job, chosen: StrategyConfig, name: str) -> tuple[list[tuple[str, float]], list[Job]]:
    """The same strategy at other costs, and with other k where it has one."""
    settings: list[tuple[str, float]] = []
    jobs: list[Job] = []
    for factor in COST_FACTORS:
        if factor != 1.0:
            terms = dataclasses.replace(main.terms, costs=main.terms.costs.scaled(factor), record=False)
            settings.append(("costs", factor))
            jobs.append(dataclasses.replace(main, terms=terms))
    for k in OTHER_K:
        other = _strategy_with_k(chosen, name, k)
        if other is not None:
            terms = dataclasses.replace(main.terms, record=False, limits=risk_limits(with_k(chosen, k)))
            settings.append(("k", float(k)))
            jobs.append(dataclasses.replace(main, strategy=other, terms=terms, signals=None))
    return settings, jobs


def with_k(chosen: StrategyConfig, k: int) -> StrategyConfig:
    """The same strategy with another k, and no limit per position, so that few names can be held."""
    risk = chosen.risk.model_copy(update={"max_position": 1.0})
    return chosen.model_copy(update={"params": {**chosen.params, "k": k}, "risk": risk})


def _strategy_with_k(chosen: StrategyConfig, name: str, k: int) -> Strategy | None:
    params: Any = strategy_params(chosen, name)
    if not hasattr(params, "k") or strategy_entry(chosen.strategy).benchmark or params.k == k:
        return None
    return strategy_entry(chosen.strategy).build(dataclasses.replace(params, k=k))


def _daily(result: BacktestResult) -> pl.DataFrame:
    return pl.DataFrame({SESSION: result.sessions, **{name: getattr(result, name) for name in PATHS}})


# --- files ------------------------------------------------------------------------------------------------------------


def _files(made: Simulated) -> dict[str, bytes]:
    facts = {
        "strategy": made.strategy,
        "label": made.label,
        "benchmark": made.benchmark,
        "short": made.short,
        "variants": [[variant.setting, variant.value] for variant in made.variants],
    }
    equity = {f"v{n}": variant.equity for n, variant in enumerate(made.variants)}
    return {
        "facts.json": json.dumps(facts, sort_keys=True).encode(),
        "daily.parquet": parquet(made.daily),
        "trades.parquet": parquet(made.trades),
        "unfilled.parquet": parquet(made.unfilled),
        "variants.parquet": parquet(pl.DataFrame(equity)),
    }


def parquet(frame: pl.DataFrame) -> bytes:
    """A frame as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def load_simulated(ws: Workspace, ref: SimulatedRef) -> list[Simulated]:
    """What `simulate` published, checked against its digest. Errors: ArtifactCorruptedError, ArtifactMissingError."""
    published = ws.store.open_published(ref.prefix, ref.digest)

    def frame(number: int, name: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(published.read(f"{number}-{name}.parquet")))

    found = []
    for number in range(len(ref.labels)):
        facts: Mapping[str, Any] = json.loads(published.read(f"{number}-facts.json"))
        equity = frame(number, "variants")
        variants = tuple(
            Variant(setting, value, np.asarray(equity[f"v{n}"].to_numpy(), dtype=np.float64))
            for n, (setting, value) in enumerate(facts["variants"])
        )
        found.append(
            Simulated(
                facts["strategy"],
                facts["label"],
                facts["benchmark"],
                facts["short"],
                frame(number, "daily"),
                frame(number, "trades"),
                frame(number, "unfilled"),
                variants,
            )
        )
    return found


def varied(made: Simulated, setting: str, chosen: float, values: Sequence[float], per_year: int) -> FloatArray:
    """[2, V] annual Sharpe ratio and CAGR of each value of a setting, `chosen` being that of the main simulation."""
    equity = {variant.value: variant.equity for variant in made.variants if variant.setting == setting}
    equity[chosen] = made.equity
    figures = np.full((2, len(values)), np.nan)
    for v, value in enumerate(values):
        if value in equity:
            figures[:, v] = sharpe_annual(simple_returns(equity[value]), per_year), cagr(equity[value], per_year)
    return figures
