"""Which HTML reports a run has made: small notes in the artifact store, so that a page about the run can show them.

A note lies at `_reports/<run key>/<name>.json`; no market's id begins with an underscore, so none owns that folder. The key is
a hash of where the run happened (`run_key`), so nothing that a caller writes becomes part of a path.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trading_core.errors import ArtifactCorruptedError, ArtifactMissingError, UriEscapeError
from trading_core.storage.artifacts import ArtifactStore

FOLDER = "_reports"
_KEY = re.compile(r"[0-9a-f]{16}")
_MARKET = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RunReport:
    """A report of a run. path: in the artifact store, below the market's folder. sha256: of the bytes that the run wrote."""

    market: str
    title: str
    path: str
    sha256: str

    @property
    def name(self) -> str:
        """What tells it from the other reports of its run: 16 hex digits."""
        return _hash(self.path)


def run_key(dag_id: str, run_id: str) -> str:
    """The key of an Airflow run: the first 16 hex digits of the SHA-256 of "dag_id/run_id"."""
    return _hash(f"{dag_id}/{run_id}")


def is_run_key(text: str) -> bool:
    """Whether `text` may be a `run_key`: runs that Airflow did not start have other ids."""
    return _KEY.fullmatch(text) is not None


def note_report(store: ArtifactStore, key: str, market: str, title: str, path: str) -> RunReport:
    """Notes that the run `key` has made the report at `path`. The same report again takes the place of its note.

    Errors: ArtifactMissingError (there is no such report), UriEscapeError (it lies outside the market's folder, the key is
    none), StoreUnreachableError.
    """
    report = RunReport(market, title, path, hashlib.sha256(store.read_bytes(path)).hexdigest())
    if not _is_sound(report):
        raise UriEscapeError(path, store.uri(market))
    store.write_json(f"{_folder(store, key)}/{report.name}.json", asdict(report))
    return report


def run_reports(store: ArtifactStore, key: str) -> tuple[RunReport, ...]:
    """What the run `key` has noted, by title; () when it has noted nothing.

    Errors: ArtifactCorruptedError (a note that `note_report` cannot have written), UriEscapeError (the key is none),
    StoreUnreachableError.
    """
    found = []
    for path in store.list(_folder(store, key)):
        try:
            found.append(_note(store, path))
        except ArtifactMissingError:
            continue  # it went between the two reads
    return tuple(sorted(found, key=lambda report: (report.title, report.path)))


def _note(store: ArtifactStore, path: str) -> RunReport:
    raw: Any = store.read_json(path)
    names = {field.name for field in fields(RunReport)}
    whole = isinstance(raw, Mapping) and set(raw) == names and all(isinstance(value, str) for value in raw.values())
    report = RunReport(**raw) if whole else None
    if report is None or not _is_sound(report) or not path.endswith(f"/{report.name}.json"):
        raise ArtifactCorruptedError(store.uri(path), "it is no note of a run's report")
    return report


def _is_sound(report: RunReport) -> bool:
    """Whether the report is an HTML file below its market's folder."""
    inside = report.path.startswith(f"{report.market}/") and report.path.endswith(".html")
    plain = all(segment not in ("", ".", "..") for segment in report.path.split("/")) and "\\" not in report.path
    return bool(inside and plain and _MARKET.fullmatch(report.market) and _SHA256.fullmatch(report.sha256))


def _folder(store: ArtifactStore, key: str) -> str:
    if not _KEY.fullmatch(key):
        raise UriEscapeError(key, store.uri(FOLDER))
    return f"{FOLDER}/{key}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
