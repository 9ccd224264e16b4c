"""What backfill runs note in the artifact store, for a later attempt of their own and for other runs.

staging/<run>/changed.json        the first session whose bars or events this run has changed
features/unfinished/<run>.json    the same, for other runs: features from there on may be older than the bars
fetch/failed/<run>.json           symbols that could not be downloaded, and for which sessions
runs/<run>/<step>.json            what a finished step answered, and for which staged files
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, TypeVar

from trading_core.errors import ArtifactMissingError
from trading_core.pipelines.refs import BackfillPlan, DateRange, StagedRef, dump, load
from trading_core.pipelines.workspace import Workspace

RefT = TypeVar("RefT")


def mark_changed(ws: Workspace, run_id: str, first: date) -> None:
    """Notes, before the commits, that bars from `first` on change. An earlier attempt's mark stays when it is older."""
    first = min(first, changed_by(ws, run_id) or first)
    for path in (_changed(ws, run_id), _unfinished(ws, run_id)):
        ws.store.write_json(path, {"first": first.isoformat()})


def changed_by(ws: Workspace, run_id: str) -> date | None:
    """The first session whose bars this run has changed; None when it found them as they were."""
    path = _changed(ws, run_id)
    return date.fromisoformat(ws.store.read_json(path)["first"]) if ws.store.exists(path) else None


def unfinished(ws: Workspace) -> dict[str, date]:
    """Run -> first session that it changed, of the runs whose features are not published (under way, or dead)."""
    found = _read_all(ws, ws.path("features", "unfinished"))
    return {_run_of(path): date.fromisoformat(note["first"]) for path, note in found}


def finish(ws: Workspace, run_ids: Sequence[str]) -> None:
    """The features are as new as the bars that these runs changed."""
    for run_id in run_ids:
        ws.store.delete(_unfinished(ws, run_id))


def note_failures(ws: Workspace, plan: BackfillPlan, failures: Mapping[str, str]) -> None:
    """Notes what this fetch could not deliver; it replaces older notes about sessions that it asked for again."""
    own = ws.path("fetch", "failed", f"{plan.run_id}.json")
    for path, note in _read_all(ws, ws.path("fetch", "failed")):
        if plan.start <= date.fromisoformat(note["start"]) and date.fromisoformat(note["end"]) <= plan.end:
            ws.store.delete(path)
    if failures:
        note = {"start": plan.start.isoformat(), "end": plan.end.isoformat(), "symbols": sorted(failures)}
        ws.store.write_json(own, note)


def failed_ranges(ws: Workspace) -> list[DateRange]:
    """Sessions for which some symbol could not be downloaded yet."""
    found = _read_all(ws, ws.path("fetch", "failed"))
    return [DateRange(date.fromisoformat(note["start"]), date.fromisoformat(note["end"])) for _, note in found]


def remember(ws: Workspace, run_id: str, step: str, staged: Sequence[StagedRef], result: object) -> None:
    """Keeps a step's answer: its staged files go, and a task can be asked again after that."""
    note = {"staged": [dump(part) for part in staged], "result": dump(result)}
    ws.store.write_json(ws.path("runs", run_id, f"{step}.json"), note)


def remembered(ws: Workspace, run_id: str, step: str, staged: Sequence[StagedRef], kind: type[RefT]) -> RefT | None:
    """What `step` answered for exactly these staged files; None when it has not finished them."""
    path = ws.path("runs", run_id, f"{step}.json")
    note = ws.store.read_json(path) if ws.store.exists(path) else {"staged": None}
    return load(kind, note["result"]) if note["staged"] == [dump(part) for part in staged] else None


def _changed(ws: Workspace, run_id: str) -> str:
    return ws.path("staging", run_id, "changed.json")


def _unfinished(ws: Workspace, run_id: str) -> str:
    return ws.path("features", "unfinished", f"{run_id}.json")


def _run_of(path: str) -> str:
    return path.rsplit("/", 1)[1].removesuffix(".json")


def _read_all(ws: Workspace, prefix: str) -> Iterator[tuple[str, Any]]:
    for path in ws.store.list(prefix):
        try:
            yield path, ws.store.read_json(path)
        except ArtifactMissingError:
            continue  # its run has finished in between
