"""Stored forecasts + bars -> what each strategy would have earned beside the benchmarks, with a report and its trials.

Three steps, so that Airflow can map over strategies: `plan` fixes what is read, `simulate_some` runs some of them,
`compare` judges all together. `evaluate` is all three in one process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime

import numpy as np

from trading_core import config
from trading_core.errors import InvalidConfigError, TradingError
from trading_core.metrics.deflated import trials_of
from trading_core.metrics.returns import sharpe_annual, simple_returns
from trading_core.pipelines import evaluations, quality, refs, trials
from trading_core.pipelines.evaluation_forecasts import Scored, ceiling_of, score
from trading_core.pipelines.evaluation_inputs import Inputs, Wanted, load_inputs, make_plan
from trading_core.pipelines.evaluation_judge import Judged, held_at_the_end, judge, overfitting, together
from trading_core.pipelines.evaluation_page import Verdict, page, tables
from trading_core.pipelines.evaluation_runs import Simulated, load_simulated, simulate, with_k
from trading_core.pipelines.evaluation_views import random_portfolios
from trading_core.pipelines.instruments import instruments_as_of
from trading_core.pipelines.markets import require_daily
from trading_core.pipelines.refs import EvaluationPlan, EvaluationRef, SimulatedRef, StrategyRow
from trading_core.pipelines.skill import priced
from trading_core.pipelines.workspace import Workspace
from trading_core.plots.evaluation_data import StrategyReport, label_of
from trading_core.schema import SYMBOL, FloatArray

MAIN_BENCHMARK = "equal-weight"
Progress = Callable[[str], None]


def _silent(message: str) -> None:
    """No progress."""


def plan(ws: Workspace, wanted: Wanted, run_id: str) -> EvaluationPlan:
    """Fixes what one evaluation reads and does. Errors: NoModelError, NoDataError (no forecasts), InvalidDateRangeError,
    UnknownNameError, InvalidConfigError."""
    require_daily(ws.market)
    return make_plan(ws, wanted, run_id)


def plan_each(
    asked: Sequence[tuple[Workspace, Wanted]], run_id: str, progress: Progress = _silent
) -> list[EvaluationPlan]:
    """A plan for each; one that cannot be made is said and left out, so that the others still have their report.

    Errors: those of `plan` when none can be made.
    """
    made: list[EvaluationPlan] = []
    failed: TradingError | None = None
    for ws, wanted in asked:
        try:
            made.append(plan(ws, wanted, run_id))
        except TradingError as error:
            progress(f"Not evaluated: {ws.market.id}, {', '.join((*wanted.versions, *wanted.walk_forwards))}: {error}")
            failed = error
    if failed is not None and not made:
        raise failed
    return made


def simulate_some(
    ws: Workspace, made: EvaluationPlan, strategies: Sequence[str], now: datetime, progress: Progress = _silent
) -> tuple[SimulatedRef, ...]:
    """Simulates some strategies of a plan in a process of its own; what they read is loaded once.

    Errors: those of `evaluation_runs.simulate`.
    """
    inputs, found = load_inputs(ws, made), []
    for strategy in strategies:
        progress(strategy)
        found.append(simulate(inputs, strategy, now))
    return tuple(found)


def evaluate(
    ws: Workspace, wanted: Wanted, *, run_id: str, now: datetime, progress: Progress = _silent
) -> EvaluationRef:
    """Simulates strategies on stored forecasts, net of the market's costs, and judges them.

    Decisions from `wanted.start` (default: the first session that all forecasts have), trades up to `wanted.end` (default:
    the last session with bars). Writes the report, its tables, the `evaluations` rows and one trial per strategy and model.
    Errors: those of `plan` and `evaluation_runs.simulate`.
    """
    made = plan(ws, wanted, run_id)
    inputs = load_inputs(ws, made)
    simulated = []
    for number, strategy in enumerate(made.strategies, start=1):
        progress(f"{strategy} ({number} of {len(made.strategies)})")
        simulated.append(simulate(inputs, strategy, now))
    progress("comparison")
    return _compare(inputs, simulated, now)


def compare(ws: Workspace, made: EvaluationPlan, simulated: Sequence[SimulatedRef], now: datetime) -> EvaluationRef:
    """Judges the simulations of a plan together, with the trials known by then. Run again it replaces its rows and files."""
    return _compare(load_inputs(ws, made), simulated, now)


def _compare(inputs: Inputs, simulated: Sequence[SimulatedRef], now: datetime) -> EvaluationRef:
    ws, made = inputs.ws, inputs.plan
    runs = [run for ref in simulated for run in load_simulated(ws, ref)]
    if not runs:
        raise InvalidConfigError("The evaluation", _left_out(inputs, runs))
    _record_trials(inputs, runs, now)
    known = trials_of(_tries(inputs, runs))
    main = MAIN_BENCHMARK if any(run.strategy == MAIN_BENCHMARK for run in runs) else ""
    main = main or next((run.strategy for run in runs if run.benchmark), "")
    sectors = instruments_as_of(ws, made.end).select(SYMBOL, "sector")
    judged = judge(inputs, runs, main, known, sectors, random_portfolios(inputs, runs))
    judged, joint = together(inputs, judged, main)
    panel = priced(inputs.bars, inputs.actions, quality.suspected_actions(ws, made.tables, made.end))
    ceiling = ceiling_of(ws, inputs, panel, now)
    scored = score(inputs, panel, ceiling)
    _record_models(inputs, scored, now)
    findings = (*made.findings, *_left_out(inputs, runs), *held_at_the_end(inputs, judged))
    verdict = Verdict(judged, scored, joint, overfitting(inputs, judged), main, known.count, findings)
    return _publish(inputs, verdict, ceiling, now)


def _tries(inputs: Inputs, runs: Sequence[Simulated]) -> FloatArray:
    """The Sharpe ratios of all strategies tried on the market, those of this evaluation included where it records none."""
    recorded = trials.sharpe_ratios(inputs.ws, inputs.plan.start, inputs.plan.end)
    if not inputs.plan.costs:
        return recorded
    per_year = inputs.ws.sessions.per_year
    own = [sharpe_annual(run.returns, per_year) for run in runs if not run.benchmark]
    return np.concatenate([recorded, own])


def _left_out(inputs: Inputs, runs: Sequence[Simulated]) -> list[str]:
    """Combinations of strategy and forecasts that could not be simulated."""
    there = {(run.strategy, run.label) for run in runs}
    free = {run.strategy for run in runs if not run.label}
    return [
        f"{label_of(name, used.label)} was left out: its threshold lies in the cards of several versions."
        for name in inputs.plan.strategies
        for used in inputs.plan.forecasts
        if name not in free and (name, used.label) not in there
    ]


def _publish(inputs: Inputs, verdict: Verdict, ceiling: float, now: datetime) -> EvaluationRef:
    ws, made = inputs.ws, inputs.plan
    rows = tuple(_row(j) for j in verdict.judged)
    _record_rows(inputs, verdict, rows, now)
    content = {"report.html": page(inputs, verdict), **tables(verdict)}
    paths = {name: ws.path("evaluations", made.evaluation_id, name) for name in content}
    for name, data in content.items():
        ws.store.write_bytes(paths[name], data)
    lead = verdict.scored[0].skill
    sessions = verdict.judged[0].report.sessions
    ref = EvaluationRef(
        market=ws.market.id,
        evaluation_id=made.evaluation_id,
        model_version=made.forecasts[0].segments[-1][0],
        start=sessions[0],
        end=sessions[-1],
        report=paths.pop("report.html"),
        mean_rank_ic=lead.mean_rank_ic,
        rank_icir=lead.rank_icir,
        rank_ic_t=lead.rank_t_stat,
        rank_ic_ceiling=ceiling,
        strategies=rows,
        tables=paths,
        trials=verdict.trials,
        pbo=verdict.overfitting.pbo if verdict.overfitting else math.nan,
        spa_p_value=verdict.joint.spa_consistent if verdict.joint else math.nan,
        mlflow_run=_to_mlflow(inputs, verdict, content["report.html"]),
    )
    for version in sorted({version for used in made.forecasts for version, _, _ in used.segments}):
        ws.store.write_json(ws.path("evaluations", f"latest-v{version}.json"), refs.dump(ref))
    return ref


def _to_mlflow(inputs: Inputs, verdict: Verdict, report: bytes) -> str:
    """One run per evaluation in the market's experiment, with its page: of the same id the newest one stays."""
    made = inputs.plan
    metrics = {
        f"{j.report.label.replace(' · ', '.').replace(' ', '-')}.{name}": value
        for j in verdict.judged
        for name, value in (
            ("sharpe", j.report.returns.sharpe), ("cagr", j.report.returns.cagr),
            ("p_value", j.report.significance.hac.p_value), ("deflated", j.report.significance.deflated),
        )
    }  # fmt: skip
    params: dict[str, str | int | float | bool | None] = {
        "start": str(made.start), "end": str(made.end), "capital": made.capital, "fill_at": made.fill_at,
        "seed": made.seed, "forecasts": ", ".join(used.label for used in made.forecasts),
    }  # fmt: skip
    tags = {
        "kind": "evaluation",
        "evaluation_id": made.evaluation_id,
        "model_versions": ",".join(version for used in made.forecasts for version, _, _ in used.segments),
    }
    name, files = f"evaluation-{made.evaluation_id}", {"report.html": report}
    return inputs.ws.registry().log_run(made.market, name, params, metrics, {}, files, tags, only_by="evaluation_id")


def _row(judged: Judged) -> StrategyRow:
    report: StrategyReport = judged.report
    r = report.returns
    return StrategyRow(
        name=report.name,
        benchmark=report.benchmark,
        total_return=r.total_return,
        cagr=r.cagr,
        volatility=r.volatility,
        sharpe=r.sharpe,
        p_value=report.significance.hac.p_value,
        sortino=r.sortino,
        max_drawdown=r.max_drawdown,
        turnover=report.trading.turnover,
        hit_ratio=r.hit_ratio,
        model=report.model,
        deflated=report.significance.deflated,
    )


# --- what is recorded -------------------------------------------------------------------------------------------------


def _record_trials(inputs: Inputs, runs: Sequence[Simulated], now: datetime) -> None:
    """One trial for every strategy and model, and for every other k of it that was looked at.

    Benchmarks are not chosen, and nobody can choose other costs than the market's: neither is a trial.
    """
    made = inputs.plan
    if made.costs:
        return
    per_year, used = inputs.ws.sessions.per_year, {item.label: item for item in made.forecasts}
    found = []
    for run in runs:
        if run.benchmark:
            continue
        item = used.get(run.label)
        chosen = config.load_strategy(run.strategy, inputs.ws.settings)
        rest = "-".join(["+".join(v for v, _, _ in item.segments) if item else "", made.fill_at])
        subject = label_of(run.strategy, item.model if item else "")
        key = f"{config.config_hash(chosen)}-v{rest}"
        found.append(trials.Trial("strategy", subject, key, "sharpe_annual", sharpe_annual(run.returns, per_year)))
        for variant in run.variants:
            if variant.setting == "k":
                value = sharpe_annual(simple_returns(variant.equity), per_year)
                key = f"{config.config_hash(with_k(chosen, int(variant.value)))}-v{rest}"
                found.append(trials.Trial("strategy", subject, key, "sharpe_annual", value))
    trials.record_many(inputs.ws, found, start=made.start, end=made.end, source=made.evaluation_id, now=now)


def _record_models(inputs: Inputs, scored: Sequence[Scored], now: datetime) -> None:
    """One trial per model, by the rank IC of its shortest horizon."""
    made = inputs.plan
    first = {s.label: s for s in reversed(scored)}
    found = [
        trials.Trial(
            "model", used.model, f"v{'+'.join(v for v, _, _ in used.segments)}", "rank_ic",
            first[used.label].skill.mean_rank_ic,
        )
        for used in made.forecasts
    ]  # fmt: skip
    trials.record_many(inputs.ws, found, start=made.start, end=made.end, source=made.evaluation_id, now=now)


def _record_rows(inputs: Inputs, verdict: Verdict, rows: Sequence[StrategyRow], now: datetime) -> None:
    """The `evaluations` rows, which are replaced when the same evaluation is run again."""
    several = len(inputs.plan.forecasts) > 1
    lines = [
        (label_of(row.name, row.model if several else ""), metric, value)
        for row in rows
        for metric, value in asdict(row).items()
    ]
    for s in verdict.scored:
        suffix = f" h{s.horizon}" + (f" · {s.label}" if several else "")
        for subject, skill in (("forecasts", s.skill), ("stored interval", s.intervals)):
            lines += [(f"{subject}{suffix}", metric, value) for metric, value in asdict(skill).items()]
    kept = [
        (subject, metric, float(value))
        for subject, metric, value in lines
        if isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    ]
    versions = "+".join(version for used in inputs.plan.forecasts for version, _, _ in used.segments)
    made = inputs.plan
    evaluations.record(
        inputs.ws, made.evaluation_id, kept, model_version=versions, start=made.start, end=made.end, now=now
    )
