"""Market data -> bars and features. plan -> fetch (by symbols) -> check_and_store -> compute (by sessions) -> publish.

Fetched bars and computed features wait in a staging area of the artifact store; each range of sessions and family changes
in one commit, so that a run that is killed leaves no session half written. A run replaces the bars of exactly its own
symbols and sessions, and the features of all sessions that look back on bars it has changed. Runs may overlap: `publish`
ends when the features that it wrote are those of the bars as they are stored then, so that any order of the steps of any
runs ends with the same tables.

What others see: new sessions appear in the table of MARKER_FAMILY last, one range after the other. Sessions that are there
already are written again under a note (`backfill_notes.rewriting`), and as long as it lies there, readers take the table
versions of the last record (`panels.current_versions`).
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import polars as pl

from trading_core import config
from trading_core.errors import ArtifactMissingError, CommitConflictError
from trading_core.features import build as features
from trading_core.features.registry import FEATURES
from trading_core.pipelines import backfill_notes as notes
from trading_core.pipelines.backfill_bars import check_and_store
from trading_core.pipelines.backfill_inputs import computed, first_change, input_versions
from trading_core.pipelines.backfill_plan import (
    Spans,
    all_families,
    plan,
    ranges_of,
    recorded_fingerprints,
    target,
    why_not_yet,
)
from trading_core.pipelines.panels import MARKER_FAMILY, feature_tables, record_of
from trading_core.pipelines.refs import (
    BackfillPlan,
    BarsRef,
    DateRange,
    FeatureRange,
    FeaturesRef,
    FetchChunk,
    StagedRef,
    dump,
)
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS
from trading_core.storage.tables import Predicate

__all__ = [
    "MARKER_FAMILY",
    "check_and_store",
    "compute",
    "fetch",
    "name_version",
    "plan",
    "publish",
    "ranges",
    "run",
    "why_not_yet",
]

PUBLISH_ATTEMPTS = 20  # each is lost only to another run that changed bars while this one computed


@dataclass(frozen=True, slots=True)
class _Part:
    """Features of a range as they lie in the staging area. `versions`: of the tables they were computed from."""

    ref: StagedRef
    span: FeatureRange
    versions: Mapping[str, int | None]


# --- fetch, compute ---------------------------------------------------------------------------------------------------


def fetch(ws: Workspace, plan: BackfillPlan, chunk: FetchChunk, now: datetime) -> StagedRef:
    """Bars and events of a chunk of the plan, staged. A symbol that fails is named in `failures.json`."""
    got = ws.source().fetch(chunk.symbols, chunk.start, chunk.end, now)
    files = {
        "bars.parquet": _to_parquet(got.bars),
        "actions.parquet": _to_parquet(got.actions),
        "failures.json": config.canonical_json(dict(got.failures)).encode(),
        "chunk.json": config.canonical_json(dump(chunk)).encode(),
    }
    prefix = _staging(ws, plan, "bars", config.config_hash(dump(chunk)))
    return StagedRef(prefix, ws.store.publish(prefix, files, now), len(got.bars))


def ranges(ws: Workspace, plan: BackfillPlan) -> tuple[FeatureRange, ...]:
    """What is to be computed, once the bars are stored: what was planned, and all sessions after bars that have changed."""
    return ranges_of(ws, target(ws, plan))


def compute(ws: Workspace, plan: BackfillPlan, span: FeatureRange, now: datetime) -> StagedRef:
    """Features of the sessions in `span`, over the whole cross-section, staged as one file per family.

    Read are the bars of those sessions and of the warm-up before them, and lightly (closes) all of history: its first bar
    is the base of the forward adjustment in every run, so that day by day, month by month and all at once give the same
    float32 bits. Memory: that of one range. Errors: NoDataError when there are no bars.
    """
    return _computed(ws, plan, span, now, "features").ref


def _computed(ws: Workspace, plan: BackfillPlan, span: FeatureRange, now: datetime, kind: str) -> _Part:
    """`compute` into the staging folder `kind`; `part.json` names the range, and the versions of the tables it has read."""
    families = span.families or tuple(all_families())
    span, versions = FeatureRange(span.start, span.end, families), input_versions(ws)
    members = {family: names for family, names in features.families(sorted(FEATURES)).items() if family in families}
    prefix, rows = _staging(ws, plan, kind, f"{span.start}_{span.end}_{config.config_hash(list(families))}"), 0
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, bytes | Path] = {}
        for batch, frame in computed(ws, plan.run_id, DateRange(span.start, span.end), members, versions):
            keys, rows = frame.columns[:3], len(frame)
            for family in batch:
                files[f"{family}.parquet"] = path = Path(folder) / f"{family}.parquet"
                frame.select(*keys, *members[family]).write_parquet(path)
        files["part.json"] = config.canonical_json({"span": dump(span), "versions": versions}).encode()
        return _Part(StagedRef(prefix, ws.store.publish(prefix, files, now), rows), span, versions)


# --- publish ----------------------------------------------------------------------------------------------------------


def publish(ws: Workspace, plan: BackfillPlan, staged: Sequence[StagedRef], now: datetime) -> FeaturesRef:
    """One commit per family and range, then the features version that later steps cite.

    Written are the plan's ranges, and all later sessions when this run has changed bars. What of it is not among `staged`
    (or is outdated) is computed here, range by range, and committed before the next one: `publish(ws, plan, (), now)`
    needs memory and disk for one range only. Asked again after it has finished, it returns what it returned.
    Errors: CommitConflictError when bars change faster than features are made.
    """
    try:
        parts = [_opened(ws, ref) for ref in staged]
    except ArtifactMissingError:
        if before := notes.remembered(ws, plan.run_id, "features", staged, FeaturesRef):
            return before
        raise
    spans = target(ws, plan)
    rows = 0
    if spans:
        spans, rows = _write_features(ws, plan, parts, now)
    _note_empty(ws, plan)
    result = _concluded(ws, plan, spans, rows)
    if staged:
        notes.remember(ws, plan.run_id, "features", staged, result)
    for ref in staged:  # each withdraws its manifest: half a deletion reads as missing, not as damaged
        ws.store.delete(ref.prefix)
    ws.store.delete(ws.path("staging", plan.run_id))
    return result


def _concluded(ws: Workspace, plan: BackfillPlan, spans: Spans, rows: int) -> FeaturesRef:
    version = _write_version(ws, spans)
    if spans:
        _finish(ws, plan, spans)
    first = min((span.start for span in spans.values()), default=plan.start)
    last = max((span.end for span in spans.values()), default=plan.end)
    bars = notes.last_answer(ws, plan.run_id, "bars", BarsRef)
    return FeaturesRef(
        ws.market.id,
        version,
        first,
        last,
        rows,
        len(ws.sessions.between(first, last)),
        tuple(sorted(spans)),
        bars.failures if bars else {},
        bars.report if bars else "",
        bars.contradictions_found if bars else 0,
        bars.contradictions if bars else (),
    )


def _opened(ws: Workspace, ref: StagedRef) -> _Part:
    from trading_core.pipelines.refs import load

    told = json.loads(ws.store.open_published(ref.prefix, ref.digest).read("part.json"))
    return _Part(ref, load(FeatureRange, told["span"]), told["versions"])


def _write_features(
    ws: Workspace, plan: BackfillPlan, parts: list[_Part], now: datetime
) -> tuple[dict[str, DateRange], int]:
    """Commits what `target` names; returns which sessions of which families were written in the end, and their rows.

    Why overlapping runs end right: whoever writes features of a session looks, after its last commit, whether they are
    of the bars as they are now, and else writes them again. Bars that change after that look belong to a run that has
    its own publish still to come, and that one writes all later sessions that have bars by then.
    """
    written: list[_Part] = []
    for _ in range(PUBLISH_ATTEMPTS):
        spans = target(ws, plan)
        parts = _still_right(ws, [*written, *parts])
        written = [part for part in parts if part in written]
        missing = [(None, span) for span in _uncovered(ws, spans, parts)]
        waiting = [(part, part.span) for part in parts if part not in written]
        for known, span in sorted([*missing, *waiting], key=lambda item: _order(item[1])):
            part = known or _computed(ws, plan, span, now, "again")
            _commit(ws, plan, part)
            written.append(part)
            if known is None:  # a staged part stays: another attempt of `publish` has to find it
                ws.store.delete(part.ref.prefix)
        parts = []
        if target(ws, plan) == spans and len(_still_right(ws, written)) == len(written):
            return spans, _rows(written)
    raise CommitConflictError(f"{ws.market.id}/{BARS.name}", PUBLISH_ATTEMPTS)


def _still_right(ws: Workspace, parts: Sequence[_Part]) -> list[_Part]:
    """The parts whose bars, events and sectors are now what they were when their features were computed."""
    present = input_versions(ws)
    return [part for part in parts if first_change(ws, part.versions, present, part.span.end) is None]


def _uncovered(ws: Workspace, spans: Spans, parts: Sequence[_Part]) -> tuple[FeatureRange, ...]:
    """What no part holds of `spans`: per family the range from its first to its last such session."""
    left: dict[str, DateRange] = {}
    for family, span in spans.items():
        days = ws.sessions.between(span.start, span.end)
        held = [part.span for part in parts if family in part.span.families]
        days = [day for day in days if not any(part.start <= day <= part.end for part in held)]
        if days:
            left[family] = DateRange(days[0], days[-1])
    return ranges_of(ws, left)


def _order(span: FeatureRange) -> tuple[bool, date]:
    """Oldest first; ranges with the marker family after all others."""
    return MARKER_FAMILY in span.families, span.start


def _commit(ws: Workspace, plan: BackfillPlan, part: _Part) -> None:
    """One commit per family, the marker last. Sessions that readers may be reading are noted first."""
    last = ws.tables.last_session(features.table_name(MARKER_FAMILY))
    if last is not None and part.span.start <= last:
        notes.mark_rewriting(ws, plan.run_id, part.span)
    opened = ws.store.open_published(part.ref.prefix, part.ref.digest)
    for family in sorted(part.span.families, key=lambda family: (family == MARKER_FAMILY, family)):
        frame = pl.read_parquet(io.BytesIO(opened.read(f"{family}.parquet")))
        ws.tables.replace(features.table_name(family), frame, Predicate(part.span.start, part.span.end))
    _advance(ws, plan, part)


def _advance(ws: Workspace, plan: BackfillPlan, part: _Part) -> None:
    """Sessions that are done need not be done again when this run dies: what is unfinished begins after them."""
    first = notes.unfinished(ws).get(plan.run_id)
    whole = set(part.span.families) == set(all_families())
    if first is not None and whole and part.span.start <= first <= part.span.end and _still_right(ws, [part]):
        notes.mark_unfinished(ws, plan.run_id, ws.sessions.next(part.span.end))


def _rows(parts: Sequence[_Part]) -> int:
    """Rows written, of the family with the most of them."""
    families = {family for part in parts for family in part.span.families}
    return max((sum(p.ref.rows for p in parts if family in p.span.families) for family in families), default=0)


def _finish(ws: Workspace, plan: BackfillPlan, spans: Spans) -> None:
    """Takes away the notes of this run, and of dead ones whose sessions it has written."""
    last = ws.tables.last_session(BARS.name)
    start = max(span.start for span in spans.values())
    whole = len(spans) == len(all_families()) and all(last is None or span.end >= last for span in spans.values())
    mended = [run_id for run_id, first in notes.unfinished(ws).items() if whole and start <= first]
    own = [plan.run_id] if notes.changed_by(ws, plan.run_id) else []
    notes.finish(ws, {*own, *mended})
    rewritten = [
        run_id
        for run_id, note in notes.rewriting(ws).items()
        if all(
            family in spans and spans[family].start <= note.start and note.end <= spans[family].end
            for family in note.families
        )
    ]
    notes.finish_rewriting(ws, {plan.run_id, *rewritten})


def _note_empty(ws: Workspace, plan: BackfillPlan) -> None:
    """Remembers fetched sessions without any bar, so that the next run does not ask for them again.

    Only those before a session that has bars: the newest ones may just not be there yet.
    """
    last = ws.tables.last_session(BARS.name)
    for start, end in sorted({(chunk.start, chunk.end) for chunk in plan.chunks if chunk.kind == "sessions"}):
        if last is None or start > last:
            continue
        present = ws.tables.sessions(BARS.name, Predicate(start, min(end, last)))
        notes.note_empty(ws, sorted(set(ws.sessions.between(start, min(end, last))) - set(present)))


# --- the version ------------------------------------------------------------------------------------------------------


def _write_version(ws: Workspace, spans: Spans) -> str:
    """Names the present state of all tables a model reads and notes it as the current one.

    Looked at again after it is written: of two runs that end together, neither may leave the older state behind.
    """
    fingerprints = _fingerprints(ws, spans)
    for _ in range(PUBLISH_ATTEMPTS):
        versions = {name: ws.tables.version(name) for name in feature_tables()}
        version = name_version(ws, versions, fingerprints)
        record = ws.store.read_json(ws.path("features", "versions", f"{version}.json"))
        if record != record_of(ws):
            ws.store.write_json(ws.path("features", "current.json"), record)
        if {name: ws.tables.version(name) for name in versions} == versions:
            return version
    raise CommitConflictError(f"{ws.market.id}/features", PUBLISH_ATTEMPTS)


def _fingerprints(ws: Workspace, spans: Spans) -> dict[str, str]:
    """feature -> the formula of its stored values: today's, where all sessions with bars are of today's."""
    recorded, today = recorded_fingerprints(ws), features.fingerprints(sorted(FEATURES))
    first, last = (find(BARS.name) for find in (ws.tables.first_session, ws.tables.last_session))
    if first is None or last is None:
        return today
    whole = {family for family, span in spans.items() if span.start <= first and last <= span.end}
    return {
        name: today[name] if FEATURES[name].family in whole else recorded[name]
        for name in today
        if FEATURES[name].family in whole or name in recorded
    }


def name_version(
    ws: Workspace, versions: Mapping[str, int | None], fingerprints: Mapping[str, str] | None = None
) -> str:
    """The features version of tables at these versions, recorded; the same state always has the same name.

    `fingerprints`: of the formulas that made the values (default: as the last publish recorded them).
    """
    made_by = recorded_fingerprints(ws) if fingerprints is None else dict(fingerprints)
    tables = {name: version for name, version in versions.items() if version is not None}
    state = {"tables": tables, "fingerprints": made_by}
    version = f"f-{config.config_hash(state)}"
    record = {"features_version": version, **state}
    ws.store.create(ws.path("features", "versions", f"{version}.json"), config.canonical_json(record).encode())
    return version


def run(
    ws: Workspace,
    *,
    start: date | None,
    end: date | None,
    refresh: bool,
    run_id: str,
    now: datetime,
    families: Sequence[str] = (),
) -> FeaturesRef:
    """All steps in one process: what `trading backfill` does. Features are computed and committed a range at a time."""
    made = plan(ws, start=start, end=end, refresh=refresh, fill_gap=False, run_id=run_id, now=now, families=families)
    fetched = [fetch(ws, made, chunk, now) for chunk in made.chunks]
    check_and_store(ws, made, fetched, now)
    return publish(ws, made, (), now)


def _staging(ws: Workspace, plan: BackfillPlan, kind: str, part: str) -> str:
    return ws.path("staging", plan.run_id, kind, part)


def _to_parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
