"""The sources a market can name. A new source is one file and one line in SOURCES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trading_core.errors import UnknownNameError
from trading_core.market.source import Source

# (the frozen dataclass of the source's options, the function that makes the source of them and a calendar's name)
SourceParts = tuple[type[Any], Callable[[Any, str], Source]]


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One source. Its module is imported on the first use of `options` or `build`, not when the registry is read."""

    description: str
    load: Callable[[], SourceParts]

    @property
    def options(self) -> type[Any]:
        """The frozen dataclass that a market's `options` mapping is validated with."""
        return self.load()[0]

    @property
    def build(self) -> Callable[[Any, str], Source]:
        """`build(options, calendar) -> Source`; does no I/O."""
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


SOURCES: dict[str, SourceEntry] = {
    "simulated": SourceEntry("a seeded artificial market with a known signal; needs no network", _simulated),
    "parquet": SourceEntry("bars of your own in Parquet or CSV files", _parquet),
    "yahoo": SourceEntry("daily bars, splits and dividends of Yahoo Finance", _yahoo),
}


def source_entry(name: str) -> SourceEntry:
    """The entry of a source; `UnknownNameError` with the allowed names when there is none."""
    if name not in SOURCES:
        raise UnknownNameError("source", name, sorted(SOURCES))
    return SOURCES[name]
