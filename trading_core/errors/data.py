"""What a source or a table holds is wrong, missing or not there yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from trading_core.errors.base import TradingError, some


class DataError(TradingError):
    """Market data or features that cannot be used as they are."""


@dataclass(eq=False)
class MissingFileError(DataError):
    path: str
    what: str

    def __str__(self) -> str:
        return (
            f"There is no {self.what} at '{self.path}'. Check the path; it is read from the folder the command runs in."
        )


@dataclass(eq=False)
class UnreadableFileError(DataError):
    path: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"'{self.path}' cannot be read as {self.what}: {self.reason}. Correct the file and run again; nothing was stored."


@dataclass(eq=False)
class MissingColumnsError(DataError):
    where: str
    missing: Sequence[str]
    found: Sequence[str]

    def __str__(self) -> str:
        return (
            f"{self.where} lacks the column{'s' if len(self.missing) > 1 else ''} {some(self.missing)}. "
            f"It has: {some(self.found, 30)}. Rename or add them and run again; nothing was stored."
        )


@dataclass(eq=False)
class WrongTypeError(DataError):
    where: str
    column: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: column '{self.column}' is {self.found}, expected {self.expected}. Nothing was stored; correct it and run again."


@dataclass(eq=False)
class DuplicateKeysError(DataError):
    where: str
    key: Sequence[str]
    count: int
    sample: Sequence[str]

    def __str__(self) -> str:
        return (
            f"{self.where} holds {self.count} duplicated keys ({', '.join(self.key)}), for example {some(self.sample, 3)}. "
            "Keep one row per key and run again; nothing was stored."
        )


@dataclass(eq=False)
class FutureDataError(DataError):
    where: str
    latest: datetime | date
    now: datetime

    def __str__(self) -> str:
        return (
            f"{self.where} holds bars up to {self.latest}, later than now ({self.now:%Y-%m-%d %H:%M} UTC). "
            "A bar that has not closed cannot be stored: check the dates and the clock. Nothing was stored."
        )


@dataclass(eq=False)
class EmptyUniverseError(DataError):
    market: str
    reason: str

    def __str__(self) -> str:
        return f"Market '{self.market}' has no symbol left to work with: {self.reason}. Widen the universe, the dates or the quality limits."


@dataclass(eq=False)
class TooShortHistoryError(DataError):
    what: str
    have: int
    need: int

    def __str__(self) -> str:
        return (
            f"{self.what} needs at least {self.need} sessions of history but has {self.have}. "
            "Backfill an earlier start, or choose shorter lookbacks, encoder length or splits."
        )


@dataclass(eq=False)
class NoDataError(DataError):
    """A table or range that should hold rows holds none."""

    what: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.what}. {self.way_out}"


@dataclass(eq=False)
class SymbolFetchError(DataError):
    """Symbols that a source could not deliver, each with its reason."""

    source: str
    failures: Mapping[str, str]

    def __str__(self) -> str:
        lines = some([f"{symbol} ({reason})" for symbol, reason in self.failures.items()])
        return f"Source '{self.source}' could not deliver {len(self.failures)} symbol(s): {lines}. Nothing was stored for them; correct or drop these symbols, or try again later."


@dataclass(eq=False)
class SourceUnavailableError(DataError):
    """The source as a whole refuses or fails (rate limit, outage)."""

    source: str
    reason: str

    def __str__(self) -> str:
        return f"Source '{self.source}' does not answer: {self.reason}. Nothing was stored; the same command resumes when it is back."


@dataclass(eq=False)
class QualityGateError(DataError):
    market: str
    problems: Sequence[str]

    def __str__(self) -> str:
        return f"The quality gate of market '{self.market}' is shut: {some(self.problems)}. Nothing was stored; see the quality report."


@dataclass(eq=False)
class StaleFormulasError(DataError):
    """Stored features that other formulas made than those of today's code."""

    market: str
    features: Sequence[str]

    def __str__(self) -> str:
        return f"The stored features of market '{self.market}' were made with other formulas than today's code has: {some(self.features)}. Run feature_backfill (or `trading backfill`): it computes them anew."


@dataclass(eq=False)
class StaleDataError(DataError):
    market: str
    needed: date
    latest: date | None

    def __str__(self) -> str:
        have = f"end at {self.latest}" if self.latest else "are empty"
        return f"Market '{self.market}' needs features of session {self.needed}, but they {have}. Run feature_backfill for {self.needed} first."
