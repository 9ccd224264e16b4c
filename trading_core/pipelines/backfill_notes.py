"""What backfill runs note in the artifact store, for a later attempt of their own and for other runs.

staging/<run>/changed.json        the first session whose bars or events this run has changed
features/unfinished/<run>.json    the same, for other runs: features from there on may be older than the bars
features/rewriting/<run>.json     stored sessions whose features are being written again, and of which families
features/empty/<session>          a session that was asked for and has no bar of any symbol
fetch/known/<run>.json            symbols whose stored sessions this run has asked for (or has noted as failed)
fetch/failed/<run>.json           symbols that could not be downloaded, for which sessions, and when to ask again
fetch/source.json                 the content of the source that all stored bars were last compared with
runs/<run>/<step>.json            what a finished step answered, and for which staged files
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

from trading_core.errors import ArtifactMissingError
from trading_core.pipelines.refs import DateRange, FeatureRange, StagedRef, dump, load
from trading_core.pipelines.workspace import Workspace

RefT = TypeVar("RefT")
# After the first failure the next run asks again at once, then after 1, 2, 4 ... days.
LONGEST_PAUSE = timedelta(days=32)


@dataclass(frozen=True, slots=True)
class Failure:
    """A symbol that could not be downloaded for sessions `start` .. `end`; it is asked for again from `after` on."""

    symbol: str
    start: date
    end: date
    attempts: int
    after: datetime


# --- changed bars, features under way ---------------------------------------------------------------------------------


def mark_changed(ws: Workspace, run_id: str, first: date) -> None:
    """Notes, before the commits, that bars from `first` on change. An earlier attempt's mark stays when it is older."""
    first = min(first, changed_by(ws, run_id) or first)
    for path in (_changed(ws, run_id), _unfinished(ws, run_id)):
        ws.store.write_json(path, {"first": first.isoformat()})


def mark_unfinished(ws: Workspace, run_id: str, first: date) -> None:
    """Moves this run's word to other runs: its features up to before `first` are published."""
    ws.store.write_json(_unfinished(ws, run_id), {"first": first.isoformat()})


def changed_by(ws: Workspace, run_id: str) -> date | None:
    """The first session whose bars this run has changed; None when it found them as they were."""
    path = _changed(ws, run_id)
    return date.fromisoformat(ws.store.read_json(path)["first"]) if ws.store.exists(path) else None


def unfinished(ws: Workspace) -> dict[str, date]:
    """Run -> first session that it changed, of the runs whose features are not published (under way, or dead)."""
    found = _read_all(ws, ws.path("features", "unfinished"))
    return {_run_of(path): date.fromisoformat(note["first"]) for path, note in found}


def finish(ws: Workspace, run_ids: Collection[str]) -> None:
    """The features are as new as the bars that these runs changed."""
    for run_id in run_ids:
        ws.store.delete(_unfinished(ws, run_id))


def mark_rewriting(ws: Workspace, run_id: str, span: FeatureRange) -> None:
    """Notes, before the commits, that stored features of `span` are written again, in more than one commit."""
    before = rewriting(ws).get(run_id)
    if before is not None:
        families = tuple(sorted({*before.families, *span.families}))
        span = FeatureRange(min(before.start, span.start), max(before.end, span.end), families)
    ws.store.write_json(_rewriting(ws, run_id), dump(span))


def rewriting(ws: Workspace) -> dict[str, FeatureRange]:
    """Run -> features that it is writing again (or was, when it died): their tables may be half old, half new."""
    found = _read_all(ws, ws.path("features", "rewriting"))
    return {_run_of(path): load(FeatureRange, note) for path, note in found}


def finish_rewriting(ws: Workspace, run_ids: Collection[str]) -> None:
    for run_id in run_ids:
        ws.store.delete(_rewriting(ws, run_id))


# --- what was asked of the source -------------------------------------------------------------------------------------


def note_empty(ws: Workspace, sessions: Sequence[date]) -> None:
    for session in sessions:
        ws.store.create(ws.path("features", "empty", session.isoformat()), b"")


def empty_sessions(ws: Workspace) -> set[date]:
    """Sessions that were asked for and have no bar: the next run does not ask for them again."""
    return {date.fromisoformat(path.rsplit("/", 1)[1]) for path in ws.store.list(ws.path("features", "empty"))}


def note_known(ws: Workspace, run_id: str, symbols: Collection[str]) -> None:
    """Notes symbols whose stored sessions have been asked for. Several chunks of one run add up."""
    path = ws.path("fetch", "known", f"{run_id}.json")
    before = ws.store.read_json(path) if ws.store.exists(path) else []
    ws.store.write_json(path, sorted({*before, *symbols}))


def known_symbols(ws: Workspace) -> set[str]:
    """Symbols whose history was asked for; empty when no run has noted any."""
    return {symbol for _, names in _read_all(ws, ws.path("fetch", "known")) for symbol in names}


def note_source(ws: Workspace, content: str) -> None:
    ws.store.write_json(ws.path("fetch", "source.json"), {"content": content})


def source_content(ws: Workspace) -> str:
    """The fingerprint of the content that all stored bars were compared with; empty when that is not known."""
    path = ws.path("fetch", "source.json")
    return str(ws.store.read_json(path)["content"]) if ws.store.exists(path) else ""


def note_failures(
    ws: Workspace, run_id: str, span: DateRange, asked: Collection[str], failed: Collection[str], now: datetime
) -> None:
    """Notes which of the `asked` symbols did not come for the sessions of `span`.

    Older notes about a symbol and sessions that were asked for again go; the count of its attempts stays with it.
    """
    older = failures(ws)
    asked_again = set(asked)
    for path, note in _read_all(ws, ws.path("fetch", "failed")):
        inside = span.start <= date.fromisoformat(note["start"]) and date.fromisoformat(note["end"]) <= span.end
        left = {symbol: entry for symbol, entry in _entries(note).items() if not (inside and symbol in asked_again)}
        if not left:
            ws.store.delete(path)
        elif len(left) < len(note["symbols"]):
            ws.store.write_json(path, {**note, "symbols": left})
    if not failed:
        return
    attempts = {symbol: 1 + max((f.attempts for f in older if f.symbol == symbol), default=0) for symbol in failed}
    entries = {
        symbol: {"attempts": count, "after": (now + _pause(count)).isoformat()} for symbol, count in attempts.items()
    }
    own = {"start": span.start.isoformat(), "end": span.end.isoformat(), "symbols": entries}
    ws.store.write_json(ws.path("fetch", "failed", f"{run_id}_{span.start}_{span.end}.json"), own)


def failures(ws: Workspace) -> list[Failure]:
    """Symbols and sessions that could not be downloaded yet."""
    return [
        Failure(
            symbol,
            date.fromisoformat(note["start"]),
            date.fromisoformat(note["end"]),
            entry["attempts"],
            datetime.fromisoformat(entry["after"]),
        )
        for _, note in _read_all(ws, ws.path("fetch", "failed"))
        for symbol, entry in _entries(note).items()
    ]


def failed_ranges(ws: Workspace) -> list[DateRange]:
    """Sessions for which some symbol could not be downloaded yet."""
    return sorted({DateRange(f.start, f.end) for f in failures(ws)}, key=lambda span: (span.start, span.end))


def _pause(attempts: int) -> timedelta:
    return min(LONGEST_PAUSE, timedelta(days=2 ** min(attempts - 2, 10))) if attempts > 1 else timedelta(0)


def _entries(note: Mapping[str, Any]) -> dict[str, Any]:
    """symbol -> attempts, after. Notes of older versions of this program are a list of symbols."""
    symbols = note["symbols"]
    if isinstance(symbols, dict):
        return symbols
    return {symbol: {"attempts": 1, "after": "1970-01-01T00:00:00+00:00"} for symbol in symbols}


# --- answers of finished steps ----------------------------------------------------------------------------------------


def remember(ws: Workspace, run_id: str, step: str, staged: Sequence[StagedRef], result: object) -> None:
    """Keeps a step's answer: its staged files go, and a task can be asked again after that."""
    note = {"staged": [dump(part) for part in staged], "result": dump(result)}
    ws.store.write_json(ws.path("runs", run_id, f"{step}.json"), note)


def remembered(ws: Workspace, run_id: str, step: str, staged: Sequence[StagedRef], kind: type[RefT]) -> RefT | None:
    """What `step` answered for exactly these staged files; None when it has not finished them."""
    path = ws.path("runs", run_id, f"{step}.json")
    note = ws.store.read_json(path) if ws.store.exists(path) else {"staged": None}
    return load(kind, note["result"]) if note["staged"] == [dump(part) for part in staged] else None


def last_answer(ws: Workspace, run_id: str, step: str, kind: type[RefT]) -> RefT | None:
    """What `step` of a run answered when it last finished; None when it never did."""
    path = ws.path("runs", run_id, f"{step}.json")
    return load(kind, ws.store.read_json(path)["result"]) if ws.store.exists(path) else None


def _changed(ws: Workspace, run_id: str) -> str:
    return ws.path("staging", run_id, "changed.json")


def _unfinished(ws: Workspace, run_id: str) -> str:
    return ws.path("features", "unfinished", f"{run_id}.json")


def _rewriting(ws: Workspace, run_id: str) -> str:
    return ws.path("features", "rewriting", f"{run_id}.json")


def _run_of(path: str) -> str:
    return path.rsplit("/", 1)[1].removesuffix(".json")


def _read_all(ws: Workspace, prefix: str) -> Iterator[tuple[str, Any]]:
    for path in ws.store.list(prefix):
        try:
            yield path, ws.store.read_json(path)
        except ArtifactMissingError:
            continue  # its run has finished in between
