"""What every market data source is: a small Protocol, and the frames that it hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol, runtime_checkable

import polars as pl

from trading_core.errors import InvalidConfigError
from trading_core.schema import BARS, CORPORATE_ACTIONS, INSTRUMENTS, MONTH, SYMBOL, PriceBasis

# The frames of a source: the stored tables without the month partition, which storage derives from the session.
BAR_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {k: v for k, v in BARS.columns.items() if k != MONTH}
ACTION_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    k: v for k, v in CORPORATE_ACTIONS.columns.items() if k != MONTH
}
INSTRUMENT_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    k: v for k, v in INSTRUMENTS.columns.items() if k != MONTH
}


def require_interval(source: str, interval: str, served: Sequence[str]) -> str:
    """`interval` itself; `InvalidConfigError` with the intervals the source serves when it is none of them."""
    if interval not in served:
        raise InvalidConfigError(
            f"A market of source '{source}'", [f"interval: '{interval}' is not served; allowed: {', '.join(served)}"]
        )
    return interval


def empty_bars() -> pl.DataFrame:
    """No rows, columns as BAR_SCHEMA."""
    return pl.DataFrame(schema=BAR_SCHEMA)


def empty_actions() -> pl.DataFrame:
    """No rows, columns as ACTION_SCHEMA."""
    return pl.DataFrame(schema=ACTION_SCHEMA)


def named_only(symbols: Sequence[str]) -> pl.DataFrame:
    """Instruments of which nothing but the name is known, columns as INSTRUMENT_SCHEMA."""
    return pl.DataFrame({SYMBOL: symbols}, schema={SYMBOL: pl.String}).select(
        pl.col(name) if name == SYMBOL else pl.lit(None, dtype).alias(name) for name, dtype in INSTRUMENT_SCHEMA.items()
    )


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch brought. Both frames are sorted by their key.

    `bars`: symbol, ts (end of the bar, UTC; of a daily bar the close of its session), session, open, high, low, close,
    volume: one row per key (symbol, ts).
    `actions`: symbol, session (the ex-date), kind (schema.ActionKind), value, known_at (the session at whose close it
    is known; that may be the session before the ex-date, so an event of the coming session can be among them).
    `failures`: symbol -> reason, for every requested symbol that could not be delivered.
    `outside_hours`: bars that the source had and that were left out, because they lie outside the regular hours of a
    session (before the open, after the close, on a holiday). Daily bars are never left out for that.
    """

    bars: pl.DataFrame
    actions: pl.DataFrame
    failures: Mapping[str, str]
    outside_hours: int = 0


@runtime_checkable
class Source(Protocol):
    """A provider of bars of one interval. Constructing does no I/O; `now` (aware UTC) bounds everything it returns."""

    @property
    def name(self) -> str:
        """The name in the registry."""
        ...

    @property
    def interval(self) -> str:
        """What a bar spans, a key of schema.INTERVALS."""
        ...

    @property
    def price_basis(self) -> PriceBasis:
        """What the prices of `fetch` are adjusted for."""
        ...

    def symbols(self) -> list[str]:
        """Every symbol the source can deliver, sorted."""
        ...

    def instruments(self, now: datetime) -> pl.DataFrame:
        """One row per symbol, columns as INSTRUMENT_SCHEMA; `delisted` is null unless it is known by `now`."""
        ...

    def fetch(self, symbols: Sequence[str], start: date, end: date, now: datetime) -> Fetched:
        """Bars of the sessions start..end (both included) whose close lies at or before `now`, of `symbols`.

        Intraday bars too come by whole sessions: a session is delivered once it has closed, and then never changes.

        Errors: InvalidDateRangeError when start > end; SourceUnavailableError when the source as a whole does not
        answer. A single symbol that fails is reported in `failures` and never raises.
        """
        ...


@runtime_checkable
class ContentSource(Protocol):
    """A source whose past may change as a whole, because somebody edits it: a file."""

    def content(self) -> str:
        """A fingerprint of everything `fetch` could deliver; another one means that the past may be another one too."""
        ...
