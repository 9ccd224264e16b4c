"""What a backfill has to do: which symbols and sessions to ask the source for, which features to compute."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime

from trading_core.errors import EmptyUniverseError, InvalidDateRangeError, NoDataError, UnknownNameError
from trading_core.features import build as features
from trading_core.features.registry import FEATURES
from trading_core.market.source import ContentSource
from trading_core.pipelines import backfill_notes as notes
from trading_core.pipelines.refs import BackfillPlan, DateRange, FeatureRange, FetchChunk
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, INSTRUMENTS, SYMBOL
from trading_core.storage.tables import Predicate

Spans = Mapping[str, DateRange]  # family -> sessions, a contiguous range
NEAR = 30  # sessions: gaps that lie closer together are fetched in one request per symbol


def all_families() -> list[str]:
    """Every family of the registry, sorted."""
    return sorted(features.families(sorted(FEATURES)))


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
    families: Sequence[str] = (),
) -> BackfillPlan:
    """What to fetch and compute for sessions start..end (default: the whole history up to the last closed session).

    Fetched are: sessions that are not stored (all of start..end with `refresh`, or when the content of the source is
    another one than the stored bars were compared with), with a few stored ones before them; the stored sessions of
    symbols that are new; those of symbols whose download failed, after a pause that grows with every failure (a refresh of
    more than one session asks at once). `fill_gap` also takes the sessions since the last stored one. Computed are: what
    is fetched, features that are missing or older than their bars, and all sessions of a family whose formulas have
    changed. `families`: compute these alone, and fetch nothing.
    Returns `start` .. `end` to fetch (of what to compute, when there is nothing to fetch), and the rest.
    Errors: InvalidDateRangeError, EmptyUniverseError, UnknownNameError (a family), NoDataError (families, but no bars).
    """
    wanted = _wanted(ws, start, end, now)
    stored = ws.tables.sessions(BARS.name)
    if fill_gap and stored and stored[-1] < wanted[0]:
        wanted = ws.sessions.between(ws.sessions.next(stored[-1]), wanted[-1])
    if families:
        spans = _chosen_spans(ws, families, wanted, stored, refresh)
        return _made(ws, run_id, wanted, (), (), spans, "")
    there = {*stored, *notes.empty_sessions(ws)}
    content, changed = _content(ws, wanted, stored)
    asked = wanted if refresh or changed else [day for day in wanted if day not in there]
    chunks = (
        *_special_chunks(ws, asked, sorted(there), refresh and len(wanted) > 1, now),
        *_session_chunks(ws, asked, there),
    )
    computed = asked if refresh else [day for day in asked if day not in there]
    fresh = [day for day in asked if day not in there]
    return _made(ws, run_id, wanted, asked, chunks, _spans(ws, wanted, stored, computed, fresh), content)


def _made(
    ws: Workspace,
    run_id: str,
    wanted: Sequence[date],
    asked: Sequence[date],
    chunks: Sequence[FetchChunk],
    spans: Spans,
    content: str,
) -> BackfillPlan:
    if not chunks and not spans:
        reason = f"all {len(wanted)} sessions from {wanted[0]} to {wanted[-1]} are stored already"
        return BackfillPlan(ws.market.id, run_id, wanted[0], wanted[-1], (), (), reason)
    others = [*spans.values(), *(DateRange(chunk.start, chunk.end) for chunk in chunks)]
    first = asked[0] if asked else min(span.start for span in others)
    last = asked[-1] if asked else max(span.end for span in others)
    return BackfillPlan(ws.market.id, run_id, first, last, tuple(chunks), ranges_of(ws, spans), source_content=content)


def _wanted(ws: Workspace, start: date | None, end: date | None, now: datetime) -> list[date]:
    last = ws.last_session(now)
    first, final = start or ws.market.history_start, end or last
    if final > last:
        raise InvalidDateRangeError(first, final, f"the market's last closed session is {last}")
    if final < ws.market.history_start:
        raise InvalidDateRangeError(first, final, f"the market's history starts at {ws.market.history_start}")
    wanted = ws.sessions.between(max(first, ws.market.history_start), final)
    if not wanted:
        raise InvalidDateRangeError(first, final, f"{ws.market.calendar} has no session in it")
    return wanted


# --- what to fetch ----------------------------------------------------------------------------------------------------


def _content(ws: Workspace, wanted: Sequence[date], stored: Sequence[date]) -> tuple[str, bool]:
    """The source's content, if all that is stored is compared with it by this run; and whether it is another one."""
    source = ws.source()
    if not isinstance(source, ContentSource):
        return "", False
    content = source.content()
    if content == notes.source_content(ws):
        return "", False
    whole = not stored or (wanted[0] <= stored[0] and wanted[-1] >= stored[-1])
    return content if whole else "", bool(stored)


def _session_chunks(ws: Workspace, asked: Sequence[date], there: Collection[date]) -> list[FetchChunk]:
    """All symbols for the sessions that are asked for, with `overlap_sessions` stored ones before each run of them."""
    if not asked:
        return []
    symbols = _symbols(ws)
    chunks = []
    for span in _runs(ws, asked, NEAR):
        first = span.start
        for _ in range(ws.market.overlap_sessions):
            before = ws.sessions.previous(first)
            if before not in there:
                break
            first = before
        parts = split(symbols, ws.market.fetch_symbols)
        chunks += [FetchChunk(tuple(part), first, span.end, "sessions") for part in parts]
    return chunks


def _special_chunks(
    ws: Workspace, asked: Sequence[date], there: Sequence[date], forced: bool, now: datetime
) -> list[FetchChunk]:
    """The stored sessions of symbols that are new, and of those that failed before and are due."""
    if not there:
        return []
    symbols, runs = _symbols(ws), _runs(ws, there, 1)
    new = sorted(set(symbols) - _known(ws))
    chunks = [
        FetchChunk(tuple(part), run.start, run.end, "new")
        for run in runs
        for part in split(new, ws.market.fetch_symbols)
    ]
    for run in runs:
        due = _due(ws, run, set(symbols) - set(new), set(asked), forced, now)
        for span, names in sorted(due.items(), key=lambda item: (item[0].start, item[0].end)):
            parts = split(sorted(names), ws.market.fetch_symbols)
            chunks += [FetchChunk(tuple(part), span.start, span.end, "retry") for part in parts]
    return chunks


def _due(
    ws: Workspace, run: DateRange, symbols: Collection[str], asked: Collection[date], forced: bool, now: datetime
) -> dict[DateRange, set[str]]:
    """Failed symbols by the sessions (of `run`) that they lack, as one range each; those that are asked for anyway aside."""
    missing: dict[str, DateRange] = {}
    waiting: dict[str, datetime] = {}
    for failure in notes.failures(ws):
        start, end = max(failure.start, run.start), min(failure.end, run.end)
        if failure.symbol not in symbols or start > end:
            continue
        waiting[failure.symbol] = max(failure.after, waiting.get(failure.symbol, failure.after))
        if asked and set(ws.sessions.between(start, end)) <= set(asked):
            continue
        known = missing.get(failure.symbol, DateRange(start, end))
        missing[failure.symbol] = DateRange(min(known.start, start), max(known.end, end))
    found: dict[DateRange, set[str]] = {}
    for symbol, span in missing.items():
        if forced or waiting[symbol] <= now:
            found.setdefault(span, set()).add(symbol)
    return found


def _symbols(ws: Workspace) -> list[str]:
    symbols = sorted(ws.source().symbols())
    if not symbols:
        raise EmptyUniverseError(ws.market.id, "its source lists no symbols")
    return symbols


def _known(ws: Workspace) -> set[str]:
    """Symbols whose stored sessions were asked for. Tables of before there were notes of it: those with instruments."""
    known = notes.known_symbols(ws)
    if known:
        return known
    table = INSTRUMENTS.name if ws.tables.exists(INSTRUMENTS.name) else BARS.name
    return set(ws.tables.read(table, columns=[SYMBOL])[SYMBOL].unique())


# --- what to compute --------------------------------------------------------------------------------------------------


def _spans(
    ws: Workspace, wanted: Sequence[date], stored: Sequence[date], computed: Sequence[date], fresh: Sequence[date]
) -> Spans:
    """family -> sessions to compute: `computed`, what is missing or older than its bars, all of it for a new formula.

    Bars that were missing or that have changed touch all later sessions, and not only as many as the longest window: one
    more dividend, say, changes the last bits of all later adjusted prices.
    """
    starts = [*notes.unfinished(ws).values(), *fresh]
    later = [day for day in stored if day >= min(starts)] if starts else []
    stale, rewriting = stale_families(ws), notes.rewriting(ws).values()
    spans: dict[str, DateRange] = {}
    for family in all_families():
        needed = {*computed, *later}
        if family in stale:
            needed.update(stored)
        else:
            needed.update(_without_features(ws, family, wanted, stored))
            for span in rewriting:
                if family in span.families:
                    needed.update(day for day in stored if span.start <= day <= span.end)
        if needed:
            spans[family] = DateRange(min(needed), max(needed))
    return spans


def _chosen_spans(
    ws: Workspace, families: Sequence[str], wanted: Sequence[date], stored: Sequence[date], refresh: bool
) -> Spans:
    known = all_families()
    for family in families:
        if family not in known:
            raise UnknownNameError("feature family", family, known)
    if not stored:
        raise NoDataError(
            f"Market '{ws.market.id}' has no bars to compute features of",
            "Run feature_backfill (or `trading backfill`) without families first.",
        )
    asked = [day for day in stored if wanted[0] <= day <= wanted[-1]] if refresh else []
    spans = _spans(ws, wanted, stored, asked, [])
    return {family: span for family, span in spans.items() if family in families}


def _without_features(ws: Workspace, family: str, wanted: Sequence[date], stored: Sequence[date]) -> set[date]:
    """Sessions of `wanted` that have bars, but no features of the family."""
    inside = [day for day in stored if wanted[0] <= day <= wanted[-1]]
    if not inside:
        return set()
    where = Predicate(inside[0], inside[-1])
    return set(inside) - set(ws.tables.sessions(features.table_name(family), where))


def recorded_fingerprints(ws: Workspace) -> dict[str, str]:
    """feature -> the formula that made its stored values, as the last publish recorded it; {} when none did."""
    path = ws.path("features", "current.json")
    found: dict[str, str] = ws.store.read_json(path)["fingerprints"] if ws.store.exists(path) else {}
    return found


def stale_families(ws: Workspace) -> set[str]:
    """Families that hold values of other formulas than today's code, or not of all its features."""
    if not ws.store.exists(ws.path("features", "current.json")):
        return set()
    recorded = recorded_fingerprints(ws)
    today = features.fingerprints(sorted(FEATURES))
    return {FEATURES[name].family for name, fingerprint in today.items() if recorded.get(name) != fingerprint}


# --- ranges -----------------------------------------------------------------------------------------------------------


def ranges_of(ws: Workspace, spans: Spans) -> tuple[FeatureRange, ...]:
    """What to compute together: families with the same sessions, `compute_sessions` at a time, oldest first."""
    groups: dict[DateRange, list[str]] = {}
    for family, span in spans.items():
        groups.setdefault(span, []).append(family)
    return tuple(
        FeatureRange(part[0], part[-1], tuple(sorted(families)))
        for span, families in sorted(groups.items(), key=lambda item: (item[0].start, item[0].end))
        for part in split(ws.sessions.between(span.start, span.end), ws.market.compute_sessions)
    )


def spans_of(ranges: Sequence[FeatureRange]) -> dict[str, DateRange]:
    """family -> the sessions of its ranges, from the first to the last."""
    spans: dict[str, DateRange] = {}
    for part in ranges:
        for family in part.families or all_families():
            known = spans.get(family, DateRange(part.start, part.end))
            spans[family] = DateRange(min(known.start, part.start), max(known.end, part.end))
    return spans


def target(ws: Workspace, made: BackfillPlan) -> dict[str, DateRange]:
    """family -> the sessions that a run has to compute, now that its bars are stored.

    Those of its plan, and when it has changed bars, all from the first changed one to the last that is stored.
    """
    spans, first = spans_of(made.ranges), notes.changed_by(ws, made.run_id)
    last = ws.tables.last_session(BARS.name)
    if first is None or last is None:
        return spans
    for family in all_families():
        known = spans.get(family, DateRange(first, last))
        spans[family] = DateRange(min(known.start, first), max(known.end, last))
    return spans


def _runs(ws: Workspace, days: Sequence[date], near: int) -> list[DateRange]:
    """Sessions as ranges; what is at most `near` sessions apart is one range (1: neighbours only)."""
    number = {day: i for i, day in enumerate(ws.sessions.between(days[0], days[-1]))}
    runs: list[DateRange] = []
    for day in days:
        if runs and number[day] - number[runs[-1].end] <= near:
            runs[-1] = DateRange(runs[-1].start, day)
        else:
            runs.append(DateRange(day, day))
    return runs


def split(items: Sequence, size: int) -> list[Sequence]:
    return [items[i : i + size] for i in range(0, len(items), size)]
