"""What an evaluation reads: which forecasts, over which sessions, at which table versions; loaded once for all strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal

import polars as pl

from trading_core import config
from trading_core.backtest.data import FillAt, ForecastPanel, MarketData
from trading_core.config import CostConfig
from trading_core.costs import CostModel
from trading_core.errors import InvalidConfigError, InvalidDateRangeError, NoDataError
from trading_core.pipelines import walk_forward
from trading_core.pipelines.infer import find_version
from trading_core.pipelines.market_data import load_market_data
from trading_core.pipelines.refs import EvaluationPlan, ForecastsUsed
from trading_core.pipelines.workspace import Workspace
from trading_core.registry.mlflow_registry import ModelVersion
from trading_core.schema import BARS, CORPORATE_ACTIONS, FORECASTS, QUARANTINE, SESSION, SYMBOL, FloatArray
from trading_core.storage.tables import Predicate

DEFAULT_RESAMPLES, DEFAULT_RANDOM = 10_000, 49


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks of an evaluation. versions: champion, challenger or numbers; walk_forwards: ids.

    start, end: None for the first forecast session that all have, and the last session with bars. capital: currency.
    costs: those of the market's costs that are replaced.
    """

    versions: tuple[str, ...]
    strategies: tuple[str, ...]
    walk_forwards: tuple[str, ...] = ()
    start: date | None = None
    end: date | None = None
    capital: float = 1_000_000.0
    costs: Mapping[str, float | None] = field(default_factory=dict)
    fill_at: Literal["open", "close", "vwap"] = "open"
    seed: int = 7
    resamples: int = DEFAULT_RESAMPLES
    random_portfolios: int = DEFAULT_RANDOM


@dataclass(slots=True, eq=False)
class Inputs:
    """The market and the forecasts of a plan, loaded once per process; panels and signals are kept by what they are of."""

    ws: Workspace
    plan: EvaluationPlan
    data: MarketData
    bars: pl.DataFrame
    actions: pl.DataFrame
    forecasts: Mapping[str, pl.DataFrame]  # by label
    _panels: dict[tuple[str, int], ForecastPanel] = field(default_factory=dict)

    def panel(self, label: str, horizon: int) -> ForecastPanel:
        """The forecasts of one label and horizon, aligned with the market."""
        key = (label, horizon)
        if key not in self._panels:
            frame = self.forecasts[label]
            self._panels[key] = ForecastPanel.from_frame(frame, horizon, self.data.symbols, self.data.sessions)
        return self._panels[key]

    @property
    def costs(self) -> CostModel:
        return costs_of(self.ws, self.plan.costs)


def costs_of(ws: Workspace, replaced: Mapping[str, float | None]) -> CostModel:
    """The market's costs with some replaced. Errors: InvalidConfigError names what is wrong and what is allowed."""
    merged = config.validate(CostConfig, {**ws.market.costs.model_dump(), **replaced}, "The costs of the evaluation")
    return CostModel(**merged.model_dump())


def make_plan(ws: Workspace, wanted: Wanted, run_id: str) -> EvaluationPlan:
    """Fixes what is evaluated. Errors: NoModelError, NoDataError (no forecasts), InvalidDateRangeError, UnknownNameError,
    InvalidConfigError (nothing to evaluate, costs, capital)."""
    costs_of(ws, wanted.costs)
    for name in wanted.strategies:
        config.load_strategy(name, ws.settings)
    if not wanted.strategies or not (wanted.versions or wanted.walk_forwards):
        raise InvalidConfigError(
            "The evaluation", ["strategies and versions (or walk-forwards): name at least one of each"]
        )
    if wanted.fill_at not in list(FillAt):
        raise InvalidConfigError("The evaluation", [f"fill_at: '{wanted.fill_at}'; allowed: {', '.join(FillAt)}"])
    if not wanted.capital > 0:
        raise InvalidConfigError("The evaluation", [f"capital: {wanted.capital} must be above 0"])
    chosen = [find_version(ws, version) for version in dict.fromkeys(wanted.versions)]
    tables = _table_versions(ws)
    used = [_of_version(ws, version, wanted, tables) for version in chosen]
    used += [_of_walk(ws, walk, wanted) for walk in dict.fromkeys(wanted.walk_forwards)]
    forecasts = _labelled(list(dict.fromkeys(used)))  # two names of one version are one
    start = max(item.segments[0][1] for item in forecasts)
    end = wanted.end or ws.tables.last_session(BARS.name) or start
    for item in forecasts:
        if item.segments[-1][2] < start:
            held = f"the forecasts of {item.label} end on {item.segments[-1][2]}; judge them by themselves"
            raise InvalidDateRangeError(start, end, held)
    if start >= end:
        raise InvalidDateRangeError(start, end, "no session after the first forecast has bars yet")
    trimmed = [f"{item.label} ({item.segments[0][1]})" for item in forecasts if item.segments[0][1] < start]
    findings = (
        (f"All strategies start on {start}, where the last of the models begins; earlier forecasts of {', '.join(trimmed)}"
         " are not judged.",)
        if trimmed
        else ()
    )  # fmt: skip
    asked = [
        ws.market.id,
        forecasts,
        wanted.strategies,
        str(start),
        str(end),
        run_id,
        dict(wanted.costs),
        wanted.fill_at,
    ]
    return EvaluationPlan(
        market=ws.market.id,
        evaluation_id=config.config_hash(asked, 16),
        run_id=run_id,
        forecasts=tuple(_within(item, start, end) for item in forecasts),
        strategies=tuple(dict.fromkeys(wanted.strategies)),
        start=start,
        end=end,
        capital=float(wanted.capital),
        costs=dict(wanted.costs),
        fill_at=wanted.fill_at,
        seed=wanted.seed,
        resamples=wanted.resamples,
        random_portfolios=wanted.random_portfolios,
        tables=tables,
        findings=findings,
    )


def _table_versions(ws: Workspace) -> dict[str, int]:
    found = {
        name: ws.tables.version(name) for name in (BARS.name, CORPORATE_ACTIONS.name, QUARANTINE.name, FORECASTS.name)
    }
    if found[FORECASTS.name] is None:
        way_out = "Run batch_inference (or `trading predict`) for it first."
        raise NoDataError(f"Market '{ws.market.id}' has no forecasts yet", way_out)
    return {name: version for name, version in found.items() if version is not None}


def _of_version(ws: Workspace, chosen: ModelVersion, wanted: Wanted, tables: Mapping[str, int]) -> ForecastsUsed:
    where = Predicate(wanted.start, wanted.end, {"model_version": str(chosen.version)})
    days = ws.tables.read(FORECASTS.name, columns=[SESSION], where=where, version=tables[FORECASTS.name])[SESSION]
    if days.is_empty():
        way_out = "Run batch_inference (or `trading predict`) for it first."
        raise NoDataError(f"Model version {chosen.version} has no forecasts in the dates asked for", way_out)
    first, last = days.min(), days.max()
    return ForecastsUsed(chosen.model, chosen.model, "", ((str(chosen.version), first, last),))  # type: ignore[arg-type]


def _of_walk(ws: Workspace, walk_id: str, wanted: Wanted) -> ForecastsUsed:
    walk = walk_forward.load(ws, walk_id)
    first = max(wanted.start or date.min, walk.segments[0].first_decision)
    last = min(wanted.end or date.max, walk.segments[-1].last_decision)
    parts = tuple(
        (str(s.version), max(s.first_decision, first), min(s.last_decision, last))
        for s in walk.segments
        if s.first_decision <= last and s.last_decision >= first
    )
    if not parts:
        held = f"the walk-forward holds {walk.segments[0].first_decision} .. {walk.segments[-1].last_decision}"
        raise InvalidDateRangeError(first, last, held)
    return ForecastsUsed(f"{walk.model} walk-forward", walk.model, walk_id, parts)


def _within(used: ForecastsUsed, start: date, end: date) -> ForecastsUsed:
    """Without the segments that say nothing between start and end."""
    parts = tuple(
        (version, max(first, start), min(last, end))
        for version, first, last in used.segments
        if last >= start and first <= end
    )
    return replace(used, segments=parts)


def _labelled(used: Sequence[ForecastsUsed]) -> list[ForecastsUsed]:
    """Labels that differ: where a model comes more than once, with its version."""
    labels = [item.label for item in used]
    return [
        ForecastsUsed(
            item.label if labels.count(item.label) == 1 else f"{item.label} {item.walk_forward or 'v' + item.segments[0][0]}",
            item.model,
            item.walk_forward,
            item.segments,
        )
        for item in used
    ]  # fmt: skip


def load_inputs(ws: Workspace, plan: EvaluationPlan) -> Inputs:
    """Reads what the plan names, at its table versions. Errors: NoDataError, DuplicateKeysError (a forecast given twice)."""
    data, bars, actions = load_market_data(ws, plan.end, FillAt(plan.fill_at), plan.tables)
    if data.sessions[-1] <= plan.start:
        raise InvalidDateRangeError(plan.start, plan.end, "no session after the first forecast has bars yet")
    frames = {item.label: _forecasts(ws, item, plan) for item in plan.forecasts}
    return Inputs(ws, plan, data, bars, actions, frames)


def _forecasts(ws: Workspace, used: ForecastsUsed, plan: EvaluationPlan) -> pl.DataFrame:
    """Each session's rows come from the version of its own segment alone."""
    parts = [
        ws.tables.read(
            FORECASTS.name,
            where=Predicate(first, last, {"model_version": version}),
            version=plan.tables[FORECASTS.name],
        )
        for version, first, last in used.segments
    ]
    return pl.concat(parts).sort(SESSION, SYMBOL, "horizon")


def gaps(inputs: Inputs, label: str, horizon: int) -> tuple[str, ...]:
    """What a model's forecasts lack between start and end, in sentences; () when nothing does."""
    score: FloatArray = inputs.panel(label, horizon).score
    first = inputs.data.first_at_or_after(inputs.plan.start)
    rows = range(first, len(inputs.data.sessions) - 1)
    known = score == score
    there = inputs.data.closes == inputs.data.closes
    empty = [inputs.data.sessions[t] for t in rows if not known[t].any()]
    lacking = int((there[first:-1] & ~known[first:-1] & known[first:-1].any(axis=1, keepdims=True)).sum())
    never = int((there[first:-1].any(axis=0) & ~known[first:-1].any(axis=0)).sum())
    found = []
    if empty:
        shown = ", ".join(str(day) for day in empty[:3]) + (" ..." if len(empty) > 3 else "")
        found.append(f"{len(empty)} of {len(rows)} sessions have no forecast at all ({shown}): what was held stayed.")
    if never:
        found.append(
            f"{never} symbols with bars never have a forecast: strategies that follow forecasts never buy them."
        )
    if lacking:
        found.append(f"{lacking} bars of sessions with forecasts have none: what was held of them stayed.")
    return tuple(found)
