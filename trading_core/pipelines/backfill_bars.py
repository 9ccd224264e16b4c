"""The bars' half of a backfill: what was fetched goes through the quality gates and into the tables."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from trading_core.errors import ArtifactMissingError, NoDataError, QualityGateError, SymbolFetchError
from trading_core.market import quality
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines import backfill_merge as merge
from trading_core.pipelines import backfill_notes as notes
from trading_core.pipelines import quality_gate as gate
from trading_core.pipelines.instruments import new_instruments
from trading_core.pipelines.refs import BackfillPlan, BarsRef, Contradiction, DateRange, FetchChunk, StagedRef, load
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, CORPORATE_ACTIONS, QUARANTINE, SESSION, SYMBOL, TableSchema
from trading_core.storage.tables import Predicate

MAX_FAILED_SHARE = 0.2  # more failed symbols than this and the universe is not what the market says it is
LISTED_IN_REPORT = 500  # findings and contradictions that a report spells out
LISTED_IN_ANSWER = 20  # contradictions that go from task to task


@dataclass(frozen=True, slots=True)
class Delivery:
    """Chunks of one kind over the same sessions, and what the source gave for them."""

    chunks: tuple[FetchChunk, ...]
    bars: pl.DataFrame
    actions: pl.DataFrame
    failures: dict[str, str]

    @property
    def asked(self) -> tuple[str, ...]:
        return tuple(symbol for chunk in self.chunks for symbol in chunk.symbols)

    @property
    def region(self) -> merge.Region:
        """What it speaks for: nothing is said of symbols that failed, so a failed download deletes no history."""
        start, end = self.chunks[0].start, self.chunks[0].end
        return merge.Region(merge.symbols_but(self.asked, self.failures), start, end)


@dataclass(frozen=True, slots=True)
class _Outcome:
    report: quality.QualityReport
    contradictions: pl.DataFrame


def check_and_store(ws: Workspace, plan: BackfillPlan, staged: Sequence[StagedRef], now: datetime) -> BarsRef | None:
    """Quality gates over what was fetched, then commits of instruments, superseded bars, quarantine, events and bars.

    The bars come last: whoever sees them sees their splits. A stored bar that the source now gives otherwise goes to
    `bar_revisions` before it is replaced, and is named in the report; differences below 1e-9 are not looked at. Returns
    None when nothing was fetched, and what it returned before when these files are stored and gone already.
    Errors: SymbolFetchError when more than a fifth of the symbols failed, QualityGateError when a blocking check found
    something; nothing is stored then.
    """
    if not staged:
        return None
    try:
        deliveries = [_with_answers(ws, delivery) for delivery in _unstaged(ws, staged)]
    except ArtifactMissingError:
        if before := notes.remembered(ws, plan.run_id, "bars", staged, BarsRef):
            return before
        raise
    reports = [_judged(ws, delivery, now) for delivery in deliveries]
    # Asked before the first commit: failing here changes nothing.
    instruments = new_instruments(ws, ws.source().instruments(now))
    if instruments.changed:
        notes.mark_changed(ws, plan.run_id, instruments.changed)
    instruments.store(ws)
    outcomes = [
        _Outcome(report, _store(ws, plan.run_id, delivery, report, now))
        for delivery, report in zip(deliveries, reports, strict=True)
        if report is not None
    ]
    for delivery in deliveries:
        span = DateRange(delivery.region.start, delivery.region.end)
        notes.note_failures(ws, plan.run_id, _stored_part(ws, span), delivery.asked, delivery.failures, now)
        gate.settle(ws, plan.run_id, span.start, span.end)
    _note_known(ws, plan, deliveries)
    return _concluded(ws, plan, staged, deliveries, outcomes)


def _stored_part(ws: Workspace, span: DateRange) -> DateRange:
    """The sessions of `span` between the first and the last that are stored: the others are asked for again anyway."""
    first, last = ws.tables.first_session(BARS.name) or span.start, ws.tables.last_session(BARS.name) or span.end
    return DateRange(min(max(span.start, first), span.end), max(min(span.end, last), span.start))


def _note_known(ws: Workspace, plan: BackfillPlan, deliveries: Sequence[Delivery]) -> None:
    """Symbols of the first backfill, and new ones once their history was asked for. A failed one is noted as failed."""
    known = notes.known_symbols(ws)
    new = {symbol for d in deliveries for symbol in d.asked if d.chunks[0].kind == "new"}
    asked = new if known or new else {symbol for d in deliveries for symbol in d.asked}
    if asked - known:
        notes.note_known(ws, plan.run_id, asked - known)
    if plan.source_content:
        notes.note_source(ws, plan.source_content)


def _concluded(
    ws: Workspace,
    plan: BackfillPlan,
    staged: Sequence[StagedRef],
    deliveries: Sequence[Delivery],
    outcomes: Sequence[_Outcome],
) -> BarsRef:
    """Writes the report and remembers the answer."""
    failures = {symbol: reason for d in deliveries for symbol, reason in d.failures.items()}
    contradictions = pl.concat([pl.DataFrame(schema=merge.CONTRADICTIONS), *(o.contradictions for o in outcomes)])
    path = ws.path("quality", f"{plan.start}_{plan.end}_{plan.run_id}.json")
    report = _together([outcome.report for outcome in outcomes])
    judged = _quality_json(report, failures) if report else {"failed_symbols": failures}
    ws.store.write_json(path, {**judged, **_contradictions_json(contradictions)})
    clean = report.clean if report else pl.DataFrame(schema=BAR_SCHEMA)
    result = BarsRef(
        ws.market.id,
        ws.tables.version(BARS.name) or 0,
        len(clean),
        len(report.quarantined) if report else 0,
        clean[SYMBOL].n_unique(),
        failures,
        path,
        len(contradictions),
        tuple(load(Contradiction, row) for row in _listed(contradictions).head(LISTED_IN_ANSWER).to_dicts()),
    )
    notes.remember(ws, plan.run_id, "bars", staged, result)
    return result


def _judged(ws: Workspace, delivery: Delivery, now: datetime) -> quality.QualityReport | None:
    """The quality report of a delivery; None when single symbols were asked for and had nothing. Raises as below."""
    if delivery.chunks[0].kind == "sessions":
        _require_enough(ws, delivery)
    elif delivery.bars.is_empty():
        return None
    return _checked(ws, delivery, now)


def _with_answers(ws: Workspace, delivery: Delivery) -> Delivery:
    """The delivery with the events that persons have stated for its sessions."""
    return dataclasses.replace(delivery, actions=gate.with_answers(ws, delivery.actions, delivery.region))


def _require_enough(ws: Workspace, delivery: Delivery) -> None:
    """Raises when too little came of what all symbols were asked for."""
    failures, empty = delivery.failures, delivery.bars.is_empty()
    if failures and (empty or len(failures) > MAX_FAILED_SHARE * len(delivery.asked)):
        raise SymbolFetchError(ws.market.source, failures)
    if empty:
        span = f"from {delivery.region.start} to {delivery.region.end}"
        raise NoDataError(f"Source '{ws.market.source}' has no bar {span}", "Choose dates the market covers.")


def _checked(ws: Workspace, delivery: Delivery, now: datetime) -> quality.QualityReport:
    """The quality report of what was fetched; raises when a blocking check found something."""
    report = gate.judged(ws, delivery.bars, delivery.actions, delivery.region, now)
    if report.blocks:
        raise QualityGateError(ws.market.id, report.blocks)
    return report


def _store(
    ws: Workspace, run_id: str, delivery: Delivery, report: quality.QualityReport, now: datetime
) -> pl.DataFrame:
    """The commits; returns the contradictions. Every change is marked before it is there: a run that dies leaves word."""
    region = delivery.region
    early = [frame[SESSION].min() for frame in (report.clean, report.quarantined)]
    first = min([region.start, *(day for day in early if isinstance(day, date))])
    last = max([region.end, *(day for day in (report.clean[SESSION].max(),) if isinstance(day, date))])
    span = Predicate(first, last)
    inside = delivery.actions.filter(pl.col(SESSION).is_between(region.start, region.end))
    events = inside.unique(CORPORATE_ACTIONS.key, keep="first", maintain_order=True)
    found: list[pl.DataFrame] = []

    def put(table: TableSchema, fetched: pl.DataFrame) -> None:
        def made_from(stored: pl.DataFrame) -> pl.DataFrame:
            made = merge.merge_rows(stored, fetched.select(stored.columns), region, table.key)
            _mark(ws, run_id, stored, made)
            return made

        merge.rewrite(ws, table, span, made_from)

    def put_bars(stored: pl.DataFrame) -> pl.DataFrame:
        made = merge.merge_bars(stored, report.clean, region)
        _mark(ws, run_id, stored, made.bars)
        merge.keep_revisions(ws, made.superseded, run_id, now)
        before = merge.as_before(ws, stored, span, run_id)
        found.append(merge.merge_bars(before, report.clean, region).contradictions)
        return made.bars

    version = ws.tables.version(CORPORATE_ACTIONS.name)
    old_events = merge.read_or_empty(ws, CORPORATE_ACTIONS, span, version)
    other_events = merge.contradicting_events(old_events, events, region)
    put(QUARANTINE, report.quarantined)
    put(CORPORATE_ACTIONS, events)
    merge.rewrite(ws, BARS, span, put_bars)
    return pl.concat([found[-1], other_events])


def _mark(ws: Workspace, run_id: str, stored: pl.DataFrame, made: pl.DataFrame) -> None:
    if first := merge.first_difference(stored, made):
        notes.mark_changed(ws, run_id, first)


def _unstaged(ws: Workspace, staged: Sequence[StagedRef]) -> list[Delivery]:
    """What was fetched, by kind and sessions: symbols with a history of their own first, the sessions of all last."""
    groups: dict[tuple[bool, str, date, date], list[tuple[FetchChunk, pl.DataFrame, pl.DataFrame, dict[str, str]]]] = {}
    for part in staged:
        published = ws.store.open_published(part.prefix, part.digest)
        chunk = load(FetchChunk, json.loads(published.read("chunk.json")))
        bars = pl.read_parquet(io.BytesIO(published.read("bars.parquet"))).select(*BAR_SCHEMA)
        actions = pl.read_parquet(io.BytesIO(published.read("actions.parquet"))).select(*ACTION_SCHEMA)
        failures = json.loads(published.read("failures.json"))
        key = (chunk.kind == "sessions", chunk.kind, chunk.start, chunk.end)
        groups.setdefault(key, []).append((chunk, bars, actions, failures))
    return [
        Delivery(
            tuple(chunk for chunk, *_ in parts),
            pl.concat([bars for _, bars, _, _ in parts]),
            pl.concat([actions for _, _, actions, _ in parts]),
            {symbol: reason for *_, failures in parts for symbol, reason in failures.items()},
        )
        for _, parts in sorted(groups.items(), key=lambda item: item[0])
    ]


def _together(reports: Sequence[quality.QualityReport]) -> quality.QualityReport | None:
    if len(reports) < 2:
        return reports[0] if reports else None
    return dataclasses.replace(
        reports[0],
        clean=pl.concat([report.clean for report in reports]),
        quarantined=pl.concat([report.quarantined for report in reports]),
        findings=pl.concat([report.findings for report in reports]),
    )


def _contradictions_json(found: pl.DataFrame) -> dict[str, object]:
    rows = _listed(found).with_columns(pl.col(SESSION).cast(pl.String)).head(LISTED_IN_REPORT)
    return {"contradictions_found": len(found), "contradictions": rows.to_dicts()}


def _listed(contradictions: pl.DataFrame) -> pl.DataFrame:
    """symbol, session, column, stored, fetched; NaN as null, which JSON knows."""
    values = [pl.col(name).fill_nan(None) for name in ("stored", "fetched")]
    return contradictions.select(SYMBOL, SESSION, "column", *values)


def _quality_json(report: quality.QualityReport, failures: dict[str, str]) -> dict[str, object]:
    findings = report.findings.with_columns(pl.col(SESSION).cast(pl.String)).head(LISTED_IN_REPORT).to_dicts()
    return {"summary": report.summary().to_dicts(), "failed_symbols": failures, "findings": findings}
