"""What an evaluation hands to its readers: the page, and the same figures as tables."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np
import polars as pl

from trading_core.metrics.deflated import effective_trials
from trading_core.pipelines import quality
from trading_core.pipelines.evaluation_forecasts import Scored
from trading_core.pipelines.evaluation_inputs import Inputs
from trading_core.pipelines.evaluation_judge import Judged
from trading_core.pipelines.evaluation_runs import parquet
from trading_core.pipelines.evaluation_views import breakdowns, sensitivities
from trading_core.pipelines.train import code_version
from trading_core.plots.evaluation_data import (
    Blotter,
    EvaluationReport,
    FillRow,
    JointTests,
    ModelFacts,
    Overfitting,
    RunFacts,
    StrategyReport,
    WalkForward,
)
from trading_core.plots.report import evaluation_report
from trading_core.schema import BARS, FORECASTS, SESSION, SYMBOL, ActionKind

BLOTTER_FILLS = 2000
FILL_RULES = {
    "open": "at the official open of the next session",
    "close": "at the close of the next session",
    "vwap": "at a VWAP proxy of the next session, (open + high + low + close) / 4",
}


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """All that was found out, ready to be written down. benchmark: label of the main one, "" for none."""

    judged: Sequence[Judged]
    scored: Sequence[Scored]
    joint: JointTests | None
    overfitting: Overfitting | None
    benchmark: str
    trials: int
    findings: tuple[str, ...]


def page(inputs: Inputs, verdict: Verdict) -> bytes:
    """The report as one HTML file."""
    ws, plan = inputs.ws, inputs.plan
    reports = tuple(j.report for j in verdict.judged)
    models = " and ".join(item.label for item in plan.forecasts)
    return evaluation_report(
        EvaluationReport(
            title=f"Strategies on {ws.market.id}, forecasts of {models}",
            run=_facts(inputs, verdict),
            strategies=reports,
            benchmark=verdict.benchmark,
            forecasts=tuple(scored.report for scored in verdict.scored),
            joint=verdict.joint,
            overfitting=verdict.overfitting,
            breakdowns=breakdowns(inputs, verdict.judged),
            sensitivities=sensitivities(inputs, verdict.judged),
            blotter=_blotter(verdict.judged),
            findings=verdict.findings,
            notes=_notes(inputs),
            quality=quality.section(ws, inputs.bars, plan.end),
            sessions_per_year=ws.sessions.per_year,
        )
    )


def _facts(inputs: Inputs, verdict: Verdict) -> RunFacts:
    ws, plan = inputs.ws, inputs.plan
    sessions = verdict.judged[0].report.sessions
    first = inputs.data.first_at_or_after(sessions[0])
    there = (inputs.data.closes[first:] == inputs.data.closes[first:]).any(axis=0)  # not NaN
    return RunFacts(
        market=ws.market.id,
        models=tuple(_model(inputs, used) for used in plan.forecasts),
        start=sessions[0],
        end=sessions[-1],
        symbols=int(there.sum()),
        costs=_costs(inputs),
        fills=FILL_RULES[plan.fill_at],
        capital=plan.capital,
        code=code_version(),
        seed=plan.seed,
        trials=verdict.trials,
        bars_version=plan.tables.get(BARS.name),
        more=(
            ("Forecasts table", f"version {plan.tables.get(FORECASTS.name)}"),
            ("Evaluation", plan.evaluation_id),
            *_independent(verdict),
        ),
        walk_forward=_walk(inputs),
    )


def _independent(verdict: Verdict) -> list[tuple[str, str]]:
    """How many of the strategies here count as independent trials: beside their number, never in its place."""
    columns = [j.simulated.returns for j in verdict.judged if not j.report.benchmark]
    if len(columns) < 2:
        return []
    found = effective_trials(np.column_stack(columns))
    if found.reason:
        return []
    return [("Independent among these", f"about {found.by_average_correlation:.0f} of {len(columns)} strategies")]


def _model(inputs: Inputs, used: Any) -> ModelFacts:
    registry = inputs.ws.registry()
    first = registry.version(inputs.ws.market.id, int(used.segments[0][0]))
    versions = used.segments[0][0]
    if len(used.segments) > 1:
        versions = f"{used.segments[0][0]} to {used.segments[-1][0]}, one per block of the walk-forward"
    return ModelFacts(
        used.label, versions, first.cutoff, f"walk-forward {used.walk_forward}" if used.walk_forward else ""
    )


def _walk(inputs: Inputs) -> WalkForward | None:
    walks = [used for used in inputs.plan.forecasts if used.walk_forward]
    if not walks:
        return None
    schedule = "; ".join(f"{used.label}: trained {len(used.segments)} times" for used in walks)
    retrained = sorted({first for used in walks for _, first, _ in used.segments[1:] if first > inputs.plan.start})
    return WalkForward(schedule, inputs.plan.start, tuple(retrained))


def _costs(inputs: Inputs) -> str:
    c = inputs.costs
    parts = [
        f"Each side pays {c.commission_bps:g} bps commission, {c.half_spread_bps:g} bps half spread and "
        f"{c.slippage_bps:g} bps slippage of its notional",
        f"a square-root impact with coefficient {c.impact_coefficient:g}" if c.impact_coefficient else "no impact",
    ]
    cap = f"An order fills at most {c.max_participation:.0%} of the session's volume. " if c.max_participation else ""
    carry = f"Borrowed shares cost {c.borrow_bps_annual:g} bps and cash earns {c.interest_bps_annual:g} bps a year."
    return f"{', and '.join(parts)}. {cap}{carry}"


def _blotter(judged: Sequence[Judged]) -> Blotter:
    each = max(BLOTTER_FILLS // max(len(judged), 1), 1)
    rows = [
        FillRow(row[SESSION], j.report.label, row[SYMBOL], row["side"], row["quantity"], row["price"], row["cost"])
        for j in judged
        for row in j.simulated.trades.tail(each).iter_rows(named=True)
    ]
    rows.sort(key=lambda row: (row.session, row.strategy))
    total = sum(len(j.simulated.trades) for j in judged)
    note = f"The last {each} of each strategy." if len(rows) < total else ""
    return Blotter(tuple(rows), total, note=note)


def _notes(inputs: Inputs) -> tuple[str, ...]:
    """What these data cannot tell."""
    ws, actions, notes = inputs.ws, inputs.actions, []
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
        "Fills are assumed at one price for all that an order may fill; what a real auction would have done with it, and whether "
        "shares could be borrowed at all, these data do not know."
    )
    return tuple(notes)


# --- the same as tables -----------------------------------------------------------------------------------------------


def tables(verdict: Verdict) -> dict[str, bytes]:
    """The figures as files: every table as Parquet, those of the page as JSON too."""
    strategies = pl.DataFrame([_flat(j.report) for j in verdict.judged], infer_schema_length=None)
    forecasts = pl.DataFrame(
        [
            {"model": s.label, "horizon": s.horizon, "metric": row.metric, "value": row.value, "no_skill": row.no_skill}
            for s in verdict.scored
            for row in s.report.skill
        ]
    )
    daily = pl.concat([_named(j, j.simulated.daily) for j in verdict.judged])
    trades = pl.concat([_named(j, j.simulated.trades) for j in verdict.judged])
    unfilled = pl.concat([_named(j, j.simulated.unfilled) for j in verdict.judged])
    joint = {
        "joint": asdict(verdict.joint) if verdict.joint else None,
        "overfitting": {k: v for k, v in asdict(verdict.overfitting).items() if k != "logits"} if verdict.overfitting else None,
        "trials": verdict.trials,
        "findings": list(verdict.findings),
    }  # fmt: skip
    return {
        "strategies.parquet": parquet(strategies),
        "strategies.json": _json(strategies.to_dicts()),
        "forecasts.parquet": parquet(forecasts),
        "forecasts.json": _json(forecasts.to_dicts()),
        "verdict.json": _json(joint),
        "daily.parquet": parquet(daily),
        "trades.parquet": parquet(trades),
        "unfilled.parquet": parquet(unfilled),
    }


def _named(judged: Judged, frame: pl.DataFrame) -> pl.DataFrame:
    names = (pl.lit(judged.report.name).alias("strategy"), pl.lit(judged.report.model).alias("model"))
    return frame.select(*names, pl.all())


def _flat(report: StrategyReport) -> dict[str, Any]:
    """One row: the figures of all tables, those of nested groups with the group's name before theirs."""
    row: dict[str, Any] = {"strategy": report.name, "model": report.model, "benchmark": report.benchmark}
    for group in (report.returns, report.risk, report.trading, report.significance):
        for name, value in ((field, getattr(group, field)) for field in group.__dataclass_fields__):
            if is_dataclass(value) and not isinstance(value, type):
                row |= {f"{name}_{inner}": item for inner, item in asdict(value).items()}
            else:
                row[name] = value
    row["random_p"] = report.random.p_value if report.random else math.nan
    return row


def _json(value: Any) -> bytes:
    """Strict JSON: what is not finite is null, dates are ISO strings."""

    def plain(item: Any) -> Any:
        if isinstance(item, float):
            return item if math.isfinite(item) else None
        if isinstance(item, dict):
            return {str(key): plain(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [plain(inner) for inner in item]
        return item if item is None or isinstance(item, str | int | bool) else str(item)

    return json.dumps(plain(value), indent=1, allow_nan=False).encode()
