"""Market data -> bars and features. plan -> fetch (by symbols) -> check_and_store -> compute (by sessions) -> publish.

Fetched bars and computed features wait in a staging area of the artifact store; each table changes in one commit, so that a
run that is killed leaves every table as it was. A run replaces the bars of exactly its own sessions, and the features of
all sessions that look back on bars it has changed. Runs may overlap: `publish` ends when the features that it wrote are
those of the bars as they are stored then, so that any order of the steps of any runs ends with the same tables.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import date, datetime

import polars as pl

from trading_core import config
from trading_core.errors import (
    ArtifactMissingError,
    CommitConflictError,
    EmptyUniverseError,
    InvalidDateRangeError,
)
from trading_core.features import build as features
from trading_core.features.registry import FEATURES
from trading_core.market import adjust
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines import backfill_notes as notes
from trading_core.pipelines.backfill_bars import check_and_store, first_difference
from trading_core.pipelines.refs import BackfillPlan, DateRange, FeaturesRef, StagedRef
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, CORPORATE_ACTIONS, INSTRUMENTS
from trading_core.storage.tables import Predicate

MARKER_FAMILY = "returns"  # published last: a session that it holds has the features of all families
PUBLISH_ATTEMPTS = 20  # each is lost only to another run that changed bars while this one computed


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

    refresh=False leaves out what is stored already (unless a feature's formula has changed, a symbol's download failed,
    or a run died between its bars and its features). fill_gap also takes the sessions since the last stored one.
    Returns `start` .. `end` to fetch (of what to compute, when there is nothing to fetch) and the `ranges` to compute.
    Errors: InvalidDateRangeError, EmptyUniverseError.
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
    fetch_needed = wanted if refresh else _missing(ws, wanted, stored)
    compute_needed = sorted({*fetch_needed, *_outdated_sessions(ws, fetch_needed, stored)})
    if not compute_needed:
        reason = f"all {len(wanted)} sessions from {wanted[0]} to {wanted[-1]} are stored already"
        return BackfillPlan(ws.market.id, run_id, wanted[0], wanted[-1], (), (), reason)
    hull = ws.sessions.between(compute_needed[0], compute_needed[-1])
    asked = fetch_needed or hull
    return BackfillPlan(
        ws.market.id,
        run_id,
        asked[0],
        asked[-1],
        chunks=_chunks(ws.source().symbols(), ws.market.fetch_symbols, ws.market.id) if fetch_needed else (),
        ranges=tuple(DateRange(part[0], part[-1]) for part in _split(hull, ws.market.compute_sessions)),
    )


def _missing(ws: Workspace, wanted: Sequence[date], stored: Sequence[date]) -> list[date]:
    """Sessions that are not stored, or not of every symbol because its download failed."""
    failed = notes.failed_ranges(ws)
    there = set(stored)
    return [day for day in wanted if day not in there or any(part.start <= day <= part.end for part in failed)]


def _outdated_sessions(ws: Workspace, fetched: Sequence[date], stored: Sequence[date]) -> list[date]:
    """Stored sessions to compute again: all of them for a new formula, else those after bars that were missing or changed.

    Not only as many as the longest window: one more dividend, say, changes the last bits of all later adjusted prices.
    """
    if _formulas_changed(ws):
        return list(stored)
    there = set(stored)
    starts = [*notes.unfinished(ws).values(), *(day for day in fetched if day not in there)]
    return [day for day in stored if day >= min(starts)] if starts else []


def _stored_sessions(ws: Workspace) -> list[date]:
    """Sessions that every feature family holds, and those between them that the source has no bar of."""
    tables = [features.table_name(family) for family in features.families(list(FEATURES))]
    if not all(ws.tables.exists(name) for name in tables):
        return []
    empty = {date.fromisoformat(path.rsplit("/", 1)[1]) for path in ws.store.list(ws.path("features", "empty"))}
    return sorted(empty | set.intersection(*(set(ws.tables.sessions(name)) for name in tables)))


def _note_empty(ws: Workspace, plan: BackfillPlan) -> None:
    """Remembers fetched sessions without any bar, so that the next run does not ask for them again.

    Only those before a session that has bars: the newest ones may just not be there yet.
    """
    present = ws.tables.sessions(BARS.name, Predicate(plan.start, plan.end)) if plan.chunks else []
    for session in sorted(set(ws.sessions.between(plan.start, present[-1])) - set(present)) if present else ():
        ws.store.create(ws.path("features", "empty", session.isoformat()), b"")


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


def compute(ws: Workspace, plan: BackfillPlan, span: DateRange, now: datetime) -> StagedRef:
    """All features of the sessions in `span`, over the whole cross-section, staged as one file per family.

    Bars are read from the start of history: the forward adjustment then has the same base in every run, so that day by
    day, month by month and all at once give the same float32 bits.
    """
    return _computed(ws, plan, span, now, "features")


def _computed(ws: Workspace, plan: BackfillPlan, span: DateRange, now: datetime, kind: str) -> StagedRef:
    """`compute` into the staging folder `kind`; `inputs.json` names the versions of the tables that it has read."""
    names = sorted(FEATURES)
    versions = _input_versions(ws)
    frame = features.build(adjusted_bars(ws, span.end, versions), names, span.start, span.end)
    keys = frame.columns[:3]
    files = {
        f"{family}.parquet": _to_parquet(frame.select(*keys, *members))
        for family, members in features.families(names).items()
    }
    files["inputs.json"] = config.canonical_json(versions).encode()
    prefix = _staging(ws, plan, kind, f"{span.start}_{span.end}")
    return StagedRef(prefix, ws.store.publish(prefix, files, now), len(frame))


def _input_versions(ws: Workspace) -> dict[str, int | None]:
    """The versions of what features are made of. Bars are asked first: the events of bars that are there are there too."""
    return {name: ws.tables.version(name) for name in (BARS.name, CORPORATE_ACTIONS.name)}


def adjusted_bars(ws: Workspace, end: date, versions: Mapping[str, int | None]) -> pl.DataFrame:
    """Bars up to `end`, adjusted forward with the events up to `end`, both as they were at `versions` of their tables."""
    where = Predicate(None, end)
    bars, actions = (
        ws.tables.read(name, where=where, version=versions[name]).select(*columns)
        for name, columns in ((BARS.name, BAR_SCHEMA), (CORPORATE_ACTIONS.name, ACTION_SCHEMA))
    )
    return adjust.adjusted(bars, actions)


def publish(ws: Workspace, plan: BackfillPlan, staged: Sequence[StagedRef], now: datetime) -> FeaturesRef:
    """One commit per family, then the features version that later steps cite.

    Written are the plan's sessions, and all later ones when this run has changed bars. Asked again after it has
    finished, it returns what it returned. Errors: CommitConflictError when bars change faster than features are made.
    """
    try:
        for part in staged:
            ws.store.open_published(part.prefix, part.digest)
    except ArtifactMissingError:
        if before := notes.remembered(ws, plan.run_id, "features", staged, FeaturesRef):
            return before
        raise
    span, rows = DateRange(plan.start, plan.end), 0
    if staged:
        unfinished = notes.unfinished(ws)
        span, rows = _write_features(ws, plan, staged, now)
        whole = span.end >= (ws.tables.last_session(BARS.name) or span.end)
        mended = [run_id for run_id, first in unfinished.items() if whole and span.start <= first]
        notes.finish(ws, [plan.run_id, *mended])
        _note_empty(ws, plan)
    sessions = len(ws.sessions.between(span.start, span.end))
    result = FeaturesRef(ws.market.id, _write_version(ws), span.start, span.end, rows, sessions)
    if staged:
        notes.remember(ws, plan.run_id, "features", staged, result)
    for part in staged:  # each withdraws its manifest: half a deletion reads as missing, not as damaged
        ws.store.delete(part.prefix)
    ws.store.delete(ws.path("staging", plan.run_id))
    return result


def _write_features(
    ws: Workspace, plan: BackfillPlan, staged: Sequence[StagedRef], now: datetime
) -> tuple[DateRange, int]:
    """Commits the features of the plan's sessions; returns which sessions were written in the end, and their rows.

    Why overlapping runs end right: whoever writes features of a session looks, after its last commit, whether they are
    of the bars as they are now, and else writes them again. Bars that change after that look belong to a run that has
    its own publish still to come, and that one writes all later sessions that have bars by then.
    """
    start, end, parts = plan.ranges[0].start, plan.ranges[-1].end, list(staged)
    has_changed = notes.changed_by(ws, plan.run_id) is not None
    for _ in range(PUBLISH_ATTEMPTS):
        if _outdated(ws, parts, end):
            parts = _compute_again(ws, plan, start, end, now)
        last = ws.tables.last_session(BARS.name) or end
        if has_changed and last > end:
            parts += _compute_again(ws, plan, ws.sessions.next(end), last, now)
            end = last
        _commit_features(ws, parts, Predicate(start, end))
        if not _outdated(ws, parts, end):
            return DateRange(start, end), sum(part.rows for part in parts)
    raise CommitConflictError(f"{ws.market.id}/{BARS.name}", PUBLISH_ATTEMPTS)


def _outdated(ws: Workspace, parts: Sequence[StagedRef], end: date) -> bool:
    """Whether a bar or event up to `end` is another one now than when one of these features was computed."""
    import json

    present = _input_versions(ws)
    for base in {ws.store.open_published(part.prefix, part.digest).read("inputs.json") for part in parts}:
        for name, version in json.loads(base).items():
            if version == present[name]:
                continue
            then, now = (ws.tables.read(name, where=Predicate(None, end), version=v) for v in (version, present[name]))
            if first_difference(then, now):
                return True
    return False


def _compute_again(ws: Workspace, plan: BackfillPlan, start: date, end: date, now: datetime) -> list[StagedRef]:
    """Computes sessions anew, beside the staged ones: another attempt of `publish` still finds those it was handed."""
    spans = _split(ws.sessions.between(start, end), ws.market.compute_sessions)
    return [_computed(ws, plan, DateRange(span[0], span[-1]), now, "again") for span in spans]


def _commit_features(ws: Workspace, parts: Sequence[StagedRef], where: Predicate) -> None:
    opened = [ws.store.open_published(part.prefix, part.digest) for part in parts]
    for family in sorted(features.families(sorted(FEATURES)), key=lambda family: (family == MARKER_FAMILY, family)):
        frame = pl.concat([pl.read_parquet(io.BytesIO(part.read(f"{family}.parquet"))) for part in opened])
        ws.tables.replace(features.table_name(family), frame, where)


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
