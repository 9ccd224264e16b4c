"""Market data -> bars and features. plan -> fetch (by symbols) -> check_and_store -> compute (by sessions) -> publish.

Fetched bars and computed features wait in a staging area of the artifact store; each table changes in one commit, so that a
run that is killed leaves every table as it was. A run replaces exactly the rows of its own sessions.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import date, datetime

import polars as pl

from trading_core import config
from trading_core.errors import (
    EmptyUniverseError,
    InvalidDateRangeError,
    NoDataError,
    QualityGateError,
    SymbolFetchError,
)
from trading_core.features import build as features
from trading_core.features.registry import FEATURES
from trading_core.market import adjust, quality
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines.refs import BackfillPlan, BarsRef, DateRange, FeaturesRef, StagedRef
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, CORPORATE_ACTIONS, INSTRUMENTS, MONTH, QUARANTINE, SESSION, SYMBOL, TableSchema
from trading_core.storage.tables import Predicate

MAX_FAILED_SHARE = 0.2  # more failed symbols than this and the universe is not what the market says it is
MARKER_FAMILY = "returns"  # published last: a session that it holds has the features of all families
WHOLE = "all"  # the month partition of tables without a session


def why_not_yet(ws: Workspace, session: date, now: datetime) -> str:
    """Why a session cannot be backfilled, as a sentence; empty when it can."""
    if ws.market.history_end and session > ws.market.history_end:
        return f"Market '{ws.market.id}' ends at {ws.market.history_end}: it has no bar of {session} or later."
    if ws.sessions.close(session) > now:
        return f"Session {session} closes at {ws.sessions.close(session):%Y-%m-%d %H:%M} UTC: it has no bar yet."
    return ""


def plan(
    ws: Workspace,
    *,
    start: date | None,
    end: date | None,
    refresh: bool,
    fill_gap: bool,
    run_id: str,
    now: datetime,
) -> BackfillPlan:
    """What to fetch and compute for sessions start..end (default: the whole history up to the last closed session).

    refresh=False leaves out what is stored already (unless a feature's formula has changed). fill_gap also takes the
    sessions since the last stored one. Errors: InvalidDateRangeError, EmptyUniverseError.
    """
    last = ws.last_session(now)
    first, final = start or ws.market.history_start, end or last
    if final > last:
        raise InvalidDateRangeError(first, final, f"the market's last closed session is {last}")
    if final < ws.market.history_start:
        raise InvalidDateRangeError(first, final, f"the market's history starts at {ws.market.history_start}")
    wanted = ws.sessions.between(max(first, ws.market.history_start), final)
    if not wanted:
        raise InvalidDateRangeError(first, final, f"{ws.market.calendar} has no session in it")
    stored = _stored_sessions(ws)
    if fill_gap and stored and stored[-1] < wanted[0]:
        wanted = ws.sessions.between(ws.sessions.next(stored[-1]), final)
    fetch_needed = wanted if refresh else sorted(set(wanted) - set(stored))
    compute_needed = sorted({*fetch_needed, *stored}) if _formulas_changed(ws) else fetch_needed
    compute_needed = sorted({*compute_needed, *_depending(ws, sorted(set(fetch_needed) - set(stored)), stored)})
    if not compute_needed:
        reason = f"all {len(wanted)} sessions from {wanted[0]} to {wanted[-1]} are stored already"
        return BackfillPlan(ws.market.id, run_id, wanted[0], wanted[-1], (), (), reason)
    hull = ws.sessions.between(compute_needed[0], compute_needed[-1])
    return BackfillPlan(
        ws.market.id,
        run_id,
        hull[0],
        hull[-1],
        chunks=_chunks(ws.source().symbols(), ws.market.fetch_symbols, ws.market.id) if fetch_needed else (),
        ranges=tuple(DateRange(part[0], part[-1]) for part in _split(hull, ws.market.compute_sessions)),
    )


def _stored_sessions(ws: Workspace) -> list[date]:
    """Sessions that every feature family holds, and those between them that the source has no bar of."""
    tables = [features.table_name(family) for family in features.families(list(FEATURES))]
    if not all(ws.tables.exists(name) for name in tables):
        return []
    empty = {date.fromisoformat(path.rsplit("/", 1)[1]) for path in ws.store.list(ws.path("features", "empty"))}
    return sorted(empty | set.intersection(*(set(ws.tables.sessions(name)) for name in tables)))


def _note_empty(ws: Workspace, plan: BackfillPlan, present: set[date]) -> None:
    """Remembers sessions without any bar, so that the next run does not ask for them again.

    Only those before a session that has bars: the newest ones may just not be there yet.
    """
    for session in ws.sessions.between(plan.start, max(present, default=plan.start)):
        if session not in present and session < max(present, default=plan.start):
            ws.store.create(ws.path("features", "empty", session.isoformat()), b"")


def _depending(ws: Workspace, holes: Sequence[date], stored: Sequence[date]) -> list[date]:
    """Stored sessions whose features look back on sessions that were missing when they were computed."""
    if not holes:
        return []
    last = ws.sessions.offset(holes[-1], features.warm_up(sorted(FEATURES)))
    return [session for session in stored if holes[0] < session <= last]


def _formulas_changed(ws: Workspace) -> bool:
    path = ws.path("features", "current.json")
    if not ws.store.exists(path):
        return False
    return ws.store.read_json(path)["fingerprints"] != features.fingerprints(sorted(FEATURES))


def _chunks(symbols: Sequence[str], size: int, market: str) -> tuple[tuple[str, ...], ...]:
    if not symbols:
        raise EmptyUniverseError(market, "its source lists no symbols")
    return tuple(tuple(part) for part in _split(sorted(symbols), size))


def _split(items: Sequence, size: int) -> list[Sequence]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def fetch(ws: Workspace, plan: BackfillPlan, symbols: tuple[str, ...], now: datetime) -> StagedRef:
    """Bars and events of `symbols` over the plan's sessions, staged. A symbol that fails is named in `failures.json`."""
    got = ws.source().fetch(symbols, plan.start, plan.end, now)
    files = {
        "bars.parquet": _to_parquet(got.bars),
        "actions.parquet": _to_parquet(got.actions),
        "failures.json": config.canonical_json(dict(got.failures)).encode(),
    }
    prefix = _staging(ws, plan, "bars", config.config_hash(list(symbols)))
    return StagedRef(prefix, ws.store.publish(prefix, files, now), len(got.bars))


def check_and_store(ws: Workspace, plan: BackfillPlan, staged: Sequence[StagedRef], now: datetime) -> BarsRef | None:
    """Quality gates over the whole range, then one commit each of bars, events and quarantine.

    Returns None when nothing was fetched. Errors: SymbolFetchError when more than a fifth of the symbols failed,
    QualityGateError when a blocking check found something; nothing is stored then.
    """
    if not staged:
        return None
    bars, actions, failures = _unstage_bars(ws, staged)
    asked = sum(len(chunk) for chunk in plan.chunks)
    if failures and (bars.is_empty() or len(failures) > MAX_FAILED_SHARE * asked):
        raise SymbolFetchError(ws.market.source, failures)
    if bars.is_empty():
        raise NoDataError(
            f"Source '{ws.market.source}' has no bar from {plan.start} to {plan.end}", "Choose dates the market covers."
        )
    source = ws.source()
    report = quality.check_bars(bars, actions, ws.sessions, now, source.price_basis)
    blocking = report.findings.filter(pl.col("severity") == "block")
    if not blocking.is_empty():
        raise QualityGateError(ws.market.id, [f"{r['check']}: {r['detail']}" for r in blocking.head(10).to_dicts()])
    inside = actions.filter(pl.col(SESSION).is_between(plan.start, plan.end))
    inside = inside.unique(CORPORATE_ACTIONS.key, keep="first")
    instruments = source.instruments(now)  # asked before the first commit: a source that fails here changes nothing
    stored = _with_failed(ws, plan, BARS, report.clean, failures)
    span = Predicate(plan.start, plan.end)
    quarantined = _with_failed(ws, plan, QUARANTINE, report.quarantined, failures)
    events = _with_failed(ws, plan, CORPORATE_ACTIONS, inside, failures)
    version = ws.tables.replace(BARS.name, stored, span, schema=BARS)
    ws.tables.replace(QUARANTINE.name, quarantined, span, schema=QUARANTINE)
    ws.tables.replace(CORPORATE_ACTIONS.name, events, span, schema=CORPORATE_ACTIONS)
    _store_instruments(ws, instruments)
    path = ws.path("quality", f"{plan.start}_{plan.end}_{plan.run_id}.json")
    ws.store.write_json(path, _quality_json(report, failures))
    symbols = stored[SYMBOL].n_unique()
    return BarsRef(ws.market.id, version, len(stored), len(report.quarantined), symbols, failures, path)


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


def compute(ws: Workspace, plan: BackfillPlan, span: DateRange, now: datetime) -> StagedRef:
    """All features of the sessions in `span`, over the whole cross-section, staged as one file per family.

    Bars are read from the start of history: the forward adjustment then has the same base in every run, so that day by
    day, month by month and all at once give the same float32 bits.
    """
    names = sorted(FEATURES)
    frame = features.build(adjusted_bars(ws, span.end), names, span.start, span.end)
    keys = frame.columns[:3]
    files = {
        f"{family}.parquet": _to_parquet(frame.select(*keys, *members))
        for family, members in features.families(names).items()
    }
    prefix = _staging(ws, plan, "features", f"{span.start}_{span.end}")
    return StagedRef(prefix, ws.store.publish(prefix, files, now), len(frame))


def adjusted_bars(ws: Workspace, end: date, start: date | None = None) -> pl.DataFrame:
    """Stored bars up to `end`, adjusted forward with the events up to `end`; only sessions from `start` on are returned."""
    where = Predicate(None, end)
    bars = ws.tables.read(BARS.name, where=where).select(*BAR_SCHEMA)
    actions = ws.tables.read(CORPORATE_ACTIONS.name, where=where).select(*ACTION_SCHEMA)
    full = adjust.adjusted(bars, actions)
    return full.filter(pl.col(SESSION) >= start) if start else full


def publish(ws: Workspace, plan: BackfillPlan, staged: Sequence[StagedRef], now: datetime) -> FeaturesRef:
    """One commit per family over the plan's sessions, then the features version that later steps cite."""
    parts = [ws.store.open_published(part.prefix, part.digest) for part in staged]
    families = sorted(features.families(sorted(FEATURES)), key=lambda family: (family == MARKER_FAMILY, family))
    for family in families if parts else ():
        frame = pl.concat([pl.read_parquet(io.BytesIO(part.read(f"{family}.parquet"))) for part in parts])
        ws.tables.replace(features.table_name(family), frame, Predicate(plan.start, plan.end))
        if family == MARKER_FAMILY:
            _note_empty(ws, plan, set(frame[SESSION]))
    version = _write_version(ws)
    ws.store.delete(ws.path("staging", plan.run_id))
    rows = sum(part.rows for part in staged)
    return FeaturesRef(
        ws.market.id, version, plan.start, plan.end, rows, len(ws.sessions.between(plan.start, plan.end))
    )


def _write_version(ws: Workspace) -> str:
    """Names the present state of all tables a model reads and notes it as the current one."""
    names = [features.table_name(family) for family in features.families(sorted(FEATURES))]
    tables = (*names, BARS.name, CORPORATE_ACTIONS.name, INSTRUMENTS.name)
    version = name_version(ws, {name: ws.tables.version(name) for name in tables})
    record = ws.store.read_json(ws.path("features", "versions", f"{version}.json"))
    ws.store.write_json(ws.path("features", "current.json"), record)
    return version


def name_version(ws: Workspace, versions: Mapping[str, int | None]) -> str:
    """The features version of tables at these versions, recorded; the same state always has the same name."""
    state = {"tables": dict(versions), "fingerprints": features.fingerprints(sorted(FEATURES))}
    version = f"f-{config.config_hash(state)}"
    record = {"features_version": version, **state}
    ws.store.create(ws.path("features", "versions", f"{version}.json"), config.canonical_json(record).encode())
    return version


def run(
    ws: Workspace, *, start: date | None, end: date | None, refresh: bool, run_id: str, now: datetime
) -> FeaturesRef:
    """All steps in one process: what `trading backfill` does."""
    made = plan(ws, start=start, end=end, refresh=refresh, fill_gap=False, run_id=run_id, now=now)
    fetched = [fetch(ws, made, chunk, now) for chunk in made.chunks]
    check_and_store(ws, made, fetched, now)
    return publish(ws, made, [compute(ws, made, span, now) for span in made.ranges], now)


def _staging(ws: Workspace, plan: BackfillPlan, kind: str, part: str) -> str:
    return ws.path("staging", plan.run_id, kind, part)


def _to_parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
