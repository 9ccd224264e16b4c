"""Files, tables and the stores they lie in."""

from __future__ import annotations

from dataclasses import dataclass

from trading_core.errors.base import TradingError


class StorageError(TradingError):
    """Artifacts or tables that cannot be read or written."""


@dataclass(eq=False)
class ArtifactMissingError(StorageError):
    uri: str

    def __str__(self) -> str:
        return f"There is no artifact at '{self.uri}'. It was never published, or the run that makes it did not finish: run that step again."


@dataclass(eq=False)
class ArtifactCorruptedError(StorageError):
    uri: str
    reason: str

    def __str__(self) -> str:
        return f"The artifact '{self.uri}' is corrupted: {self.reason}. It was refused and not used; restore it from a backup or run the step that makes it again."


@dataclass(eq=False)
class UriEscapeError(StorageError):
    uri: str
    root: str

    def __str__(self) -> str:
        return (
            f"'{self.uri}' lies outside the artifact store '{self.root}'. Only paths inside it may be read or written."
        )


@dataclass(eq=False)
class StoreUnreachableError(StorageError):
    url: str
    reason: str

    def __str__(self) -> str:
        return f"The artifact store '{self.url}' cannot be reached: {self.reason}. Check the URL, endpoint, credentials and network; the step can be run again unchanged."


@dataclass(eq=False)
class CommitConflictError(StorageError):
    table: str
    attempts: int

    def __str__(self) -> str:
        return f"Table '{self.table}' kept changing under this writer ({self.attempts} attempts). Nothing of this write is visible; run the step again."


@dataclass(eq=False)
class TableMissingError(StorageError):
    table: str
    uri: str

    def __str__(self) -> str:
        return f"Table '{self.table}' does not exist yet at '{self.uri}'. Run the step that fills it (feature_backfill for bars and features, batch_inference for forecasts)."
