"""The sources a market can name. A new source is one file and one line in SOURCES."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trading_core.errors import UnknownNameError
from trading_core.market.source import Source
from trading_core.schema import DAILY, INTERVALS


class SourceBuilder(Protocol):
    """Makes the source of its options, a calendar's name and the interval of its bars; does no I/O.

    Errors: InvalidConfigError for an interval that the source does not serve.
    """

    def __call__(self, options: Any, calendar: str, interval: str = DAILY) -> Source: ...


# (the frozen dataclass of the source's options, the function that makes the source)
SourceParts = tuple[type[Any], SourceBuilder]


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One source. Its module is imported on the first use of `options` or `build`, not when the registry is read.

    `intervals`: the bars it can serve; any other interval is refused by `build`.
    """

    description: str
    intervals: Sequence[str]
    load: Callable[[], SourceParts]

    @property
    def options(self) -> type[Any]:
        """The frozen dataclass that a market's `options` mapping is validated with."""
        return self.load()[0]

    @property
    def build(self) -> SourceBuilder:
        """`build(options, calendar, interval) -> Source`; does no I/O."""
        return self.load()[1]


def _simulated() -> SourceParts:
    from trading_core.market.simulated import SimulatedOptions, build_simulated

    return SimulatedOptions, build_simulated


def _parquet() -> SourceParts:
    from trading_core.market.parquet import ParquetOptions, build_parquet

    return ParquetOptions, build_parquet


def _yahoo() -> SourceParts:
    from trading_core.market.yahoo import YahooOptions, build_yahoo

    return YahooOptions, build_yahoo


def _alpaca() -> SourceParts:
    from trading_core.market.alpaca import AlpacaOptions, build_alpaca

    return AlpacaOptions, build_alpaca


_ALL = tuple(INTERVALS)

SOURCES: dict[str, SourceEntry] = {
    "simulated": SourceEntry("a seeded artificial market with a known signal; needs no network", (DAILY,), _simulated),
    "parquet": SourceEntry("bars of your own in Parquet or CSV files", _ALL, _parquet),
    "yahoo": SourceEntry("bars, splits and dividends of Yahoo Finance; intraday of the last weeks only", _ALL, _yahoo),
    "alpaca": SourceEntry("bars, splits and dividends of US stocks from Alpaca; needs keys", _ALL, _alpaca),
}


def source_entry(name: str) -> SourceEntry:
    """The entry of a source; `UnknownNameError` with the allowed names when there is none."""
    if name not in SOURCES:
        raise UnknownNameError("source", name, sorted(SOURCES))
    return SOURCES[name]
