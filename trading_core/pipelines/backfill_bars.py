"""The bars' half of a backfill: what was fetched goes through the quality gates and into the tables."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from trading_core.errors import ArtifactMissingError, NoDataError, QualityGateError, SymbolFetchError
from trading_core.market import quality
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines import backfill_notes as notes
from trading_core.pipelines.refs import BackfillPlan, BarsRef, StagedRef
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, CORPORATE_ACTIONS, INSTRUMENTS, MONTH, QUARANTINE, SESSION, SYMBOL, TableSchema
from trading_core.storage.tables import Predicate

MAX_FAILED_SHARE = 0.2  # more failed symbols than this and the universe is not what the market says it is
WHOLE = "all"  # the month partition of tables without a session


def check_and_store(ws: Workspace, plan: BackfillPlan, staged: Sequence[StagedRef], now: datetime) -> BarsRef | None:
    """Quality gates over the whole range, then one commit each of quarantine, events and bars.

    The bars come last: whoever sees them sees their splits. Returns None when nothing was fetched, and what it returned
    before when these files are stored and gone already. Errors: SymbolFetchError when more than a fifth of the symbols
    failed, QualityGateError when a blocking check found something; nothing is stored then.
    """
    if not staged:
        return None
    try:
        bars, actions, failures = _unstage_bars(ws, staged)
    except ArtifactMissingError:
        if before := notes.remembered(ws, plan.run_id, "bars", staged, BarsRef):
            return before
        raise
    report = _checked(ws, plan, bars, actions, failures, now)
    inside = actions.filter(pl.col(SESSION).is_between(plan.start, plan.end))
    inside = inside.unique(CORPORATE_ACTIONS.key, keep="first")
    instruments = ws.source().instruments(now)  # asked before the first commit: failing here changes nothing
    stored = _with_failed(ws, plan, BARS, report.clean, failures)
    quarantined = _with_failed(ws, plan, QUARANTINE, report.quarantined, failures)
    events = _with_failed(ws, plan, CORPORATE_ACTIONS, inside, failures)
    version = _store_bars(ws, plan, stored, events, quarantined, instruments)
    notes.note_failures(ws, plan, failures)
    path = ws.path("quality", f"{plan.start}_{plan.end}_{plan.run_id}.json")
    ws.store.write_json(path, _quality_json(report, failures))
    symbols = stored[SYMBOL].n_unique()
    result = BarsRef(ws.market.id, version, len(stored), len(report.quarantined), symbols, failures, path)
    notes.remember(ws, plan.run_id, "bars", staged, result)
    return result


def _checked(
    ws: Workspace,
    plan: BackfillPlan,
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    failures: dict[str, str],
    now: datetime,
) -> quality.QualityReport:
    """The quality report of what was fetched; raises when too little came, or when a blocking check found something."""
    asked = sum(len(chunk) for chunk in plan.chunks)
    if failures and (bars.is_empty() or len(failures) > MAX_FAILED_SHARE * asked):
        raise SymbolFetchError(ws.market.source, failures)
    if bars.is_empty():
        raise NoDataError(
            f"Source '{ws.market.source}' has no bar from {plan.start} to {plan.end}", "Choose dates the market covers."
        )
    report = quality.check_bars(bars, actions, ws.sessions, now, ws.source().price_basis)
    blocking = report.findings.filter(pl.col("severity") == "block")
    if not blocking.is_empty():
        raise QualityGateError(ws.market.id, [f"{r['check']}: {r['detail']}" for r in blocking.head(10).to_dicts()])
    return report


def _store_bars(
    ws: Workspace,
    plan: BackfillPlan,
    bars: pl.DataFrame,
    events: pl.DataFrame,
    quarantined: pl.DataFrame,
    instruments: pl.DataFrame,
) -> int:
    """The commits. A change of bars or events is marked before it is there: a run that dies after it has left word."""
    span = Predicate(plan.start, plan.end)
    changed = [
        first_difference(ws.tables.read(table.name, where=span) if ws.tables.exists(table.name) else None, frame)
        for table, frame in ((BARS, bars), (CORPORATE_ACTIONS, events))
    ]
    if first := min((day for day in changed if day), default=None):
        notes.mark_changed(ws, plan.run_id, first)
    ws.tables.replace(QUARANTINE.name, quarantined, span, schema=QUARANTINE)
    ws.tables.replace(CORPORATE_ACTIONS.name, events, span, schema=CORPORATE_ACTIONS)
    _store_instruments(ws, instruments)
    return ws.tables.replace(BARS.name, bars, span, schema=BARS)


def first_difference(left: pl.DataFrame | None, right: pl.DataFrame) -> date | None:
    """The first session with a row that only one of the two has (keys are unique in each); None when they are equal."""
    both = pl.concat([left.select(right.columns), right]) if left is not None else right
    first = both.unique(keep="none")[SESSION].min()
    return first if isinstance(first, date) else None


def _unstage_bars(ws: Workspace, staged: Sequence[StagedRef]) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, str]]:
    import json

    bars, actions = [], []
    failures: dict[str, str] = {}
    for part in staged:
        published = ws.store.open_published(part.prefix, part.digest)
        bars.append(pl.read_parquet(io.BytesIO(published.read("bars.parquet"))).select(*BAR_SCHEMA))
        actions.append(pl.read_parquet(io.BytesIO(published.read("actions.parquet"))).select(*ACTION_SCHEMA))
        failures |= json.loads(published.read("failures.json"))
    return pl.concat(bars), pl.concat(actions), failures


def _with_failed(
    ws: Workspace, plan: BackfillPlan, table: TableSchema, fetched: pl.DataFrame, failures: dict[str, str]
) -> pl.DataFrame:
    """`fetched`, and what is stored of the symbols that failed this time: a failed download must not delete history."""
    columns = [column for column in table.columns if column != MONTH]
    fetched = fetched.select(columns)
    if not failures or not ws.tables.exists(table.name):
        return fetched
    stored = ws.tables.read(table.name, where=Predicate(plan.start, plan.end))
    return pl.concat([fetched, stored.filter(pl.col(SYMBOL).is_in(list(failures))).select(columns)])


def _store_instruments(ws: Workspace, found: pl.DataFrame) -> None:
    frame = found.with_columns(pl.lit(WHOLE).alias(MONTH)).sort(SYMBOL)
    if ws.tables.exists(INSTRUMENTS.name):
        stored = ws.tables.read(INSTRUMENTS.name).sort(SYMBOL)
        if stored.select(frame.columns).equals(frame):
            return
    ws.tables.replace(INSTRUMENTS.name, frame, Predicate(None, None, {MONTH: WHOLE}), schema=INSTRUMENTS)


def _quality_json(report: quality.QualityReport, failures: dict[str, str]) -> dict[str, object]:
    findings = report.findings.with_columns(pl.col(SESSION).cast(pl.String)).head(500).to_dicts()
    return {"summary": report.summary().to_dicts(), "failed_symbols": failures, "findings": findings}
