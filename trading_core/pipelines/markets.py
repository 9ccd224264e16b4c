"""Adding a market at run time: a panel file or a list of symbols becomes a config under `var/configs/markets`.

Each file and each list of symbols gets an id of its own, so that no two of them ever share tables, models or accounts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import yaml

from trading_core import config
from trading_core.config import MarketConfig, Settings
from trading_core.errors import (
    EmptyUniverseError,
    InvalidConfigError,
    InvalidDateRangeError,
    MissingFileError,
    TooShortHistoryError,
)
from trading_core.market.instruments import read_facts
from trading_core.market.registry import source_entry
from trading_core.market.source import Source
from trading_core.market.yahoo import REACH_DAYS
from trading_core.schema import DAILY
from trading_core.sessions import EARLIEST, Sessions

MIN_SESSIONS = 400  # below this a year of test, a validation part and the features' warm-up leave nothing to learn from
MIN_TEST_SESSIONS = 20  # what a market's config asks for at least; matters to short intraday panels only
LISTED_SOURCES = {"yahoo": "Yahoo Finance", "alpaca": "Alpaca"}  # sources that are given by a list of symbols


@dataclass(frozen=True, slots=True)
class Trading:
    """When a new market trades (`calendar`, "24/7" for one that never closes) and the `interval` of its bars."""

    calendar: str = "XNYS"
    interval: str = DAILY

    @property
    def identity(self) -> str:
        """What tells two markets of the same file or list apart; empty for the usual ones."""
        return "" if self == Trading() else f"|{self.calendar}|{self.interval}"


US_DAILY = Trading()


def add_panel(
    path: str,
    settings: Settings,
    now: datetime,
    sectors: str | None = None,
    trading: Trading = US_DAILY,
    symbol: str | None = None,
) -> MarketConfig:
    """A market from a Parquet or CSV panel. The file is read and checked in full first; nothing is written on an error.

    `symbol`: the name of the only symbol of a file without such a column.
    Errors: MissingFileError, UnreadableFileError, MissingColumnsError, WrongTypeError, DuplicateKeysError,
    FutureDataError, EmptyUniverseError, InvalidDateRangeError (rows of years that the calendar does not know),
    TooShortHistoryError, InvalidConfigError, UnknownNameError (calendar).
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise MissingFileError(path, "panel of bars (Parquet or CSV)")
    options: dict[str, object] = {"path": str(file)}
    options |= {"sectors": str(Path(sectors).resolve())} if sectors else {}
    options |= {"symbol": symbol} if symbol else {}
    sessions = _panel_sessions(path, options, trading, now)
    made = MarketConfig(
        id=_market_id(file.stem, str(file) + trading.identity),
        description=f"Panel of bars from {file.name}",
        source="parquet",
        calendar=trading.calendar,
        interval=trading.interval,  # type: ignore[arg-type]  # checked by the source
        history_start=sessions[0],
        history_end=sessions[-1],
        test_sessions=max(MIN_TEST_SESSIONS, min(252, len(sessions) // 4)),
        options=options,
    )
    return _save(made, settings)


def check_instruments(path: str) -> None:
    """Reads an instruments file in full. Errors: those of `market.instruments.read_facts`."""
    read_facts(str(Path(path).expanduser().resolve()))


def with_instruments(made: MarketConfig, path: str, settings: Settings) -> MarketConfig:
    """The market with an instruments file (symbol, from, to, sector and any other column), written down again."""
    return _save(made.model_copy(update={"instruments": str(Path(path).expanduser().resolve())}), settings)


def require_daily(market: MarketConfig) -> None:
    """Refuses what is made for one bar a session. Errors: InvalidConfigError that names the interval to take."""
    if market.interval != DAILY:
        problem = f"interval: bars of '{market.interval}' are stored, checked and turned into features, but only '1d'"
        raise InvalidConfigError(f"Market '{market.id}'", [f"{problem} is trained, evaluated and traded; allowed: 1d"])


def _panel_sessions(path: str, options: dict[str, object], trading: Trading, now: datetime) -> list[date]:
    """The sessions that a panel has bars of, ascending, after the file was checked in full."""
    source = _source("parquet", options, trading)
    source.instruments(now)  # reads the sectors too
    bars = source.fetch(source.symbols(), date(1000, 1, 1), now.date(), now).bars
    known = Sessions(trading.calendar).between(EARLIEST, now.date())
    days: list[date] = bars["session"].unique().sort().to_list()
    sessions = sorted(set(days).intersection(known))
    if not sessions:
        raise EmptyUniverseError(path, f"no bar of it lies on a closed session of {trading.calendar}")
    if days[0] < known[0]:
        # Left out silently they would be missed years later, in a backtest that starts late.
        reason = (
            f"'{path}' begins before the sessions that are known of {trading.calendar}; drop its rows before {known[0]}"
        )
        raise InvalidDateRangeError(days[0], days[-1], reason)
    if trading.interval == DAILY and len(sessions) < MIN_SESSIONS:
        raise TooShortHistoryError(f"The panel '{path}'", len(sessions), MIN_SESSIONS)
    return sessions


def add_listed(
    source: str,
    symbols: Sequence[str],
    settings: Settings,
    now: datetime,
    start: date | None = None,
    trading: Trading = US_DAILY,
) -> MarketConfig:
    """A market of listed symbols from Yahoo Finance or Alpaca. Errors: EmptyUniverseError, InvalidConfigError.

    `start`: of its history; default 2015, or as far back as Yahoo keeps intraday bars.
    """
    wanted = tuple(sorted({symbol.strip().upper() for symbol in symbols if symbol.strip()}))
    if not wanted:
        raise EmptyUniverseError(source, "no symbols were given (SYMBOLS=AAPL,MSFT,...)")
    start = start or _earliest(source, trading, now)
    options: dict[str, object] = {"symbols": list(wanted), "start": start.isoformat()}
    _source(source, options, trading)
    made = MarketConfig(
        id=_market_id(f"us-{source}", ",".join(wanted) + trading.identity),
        description=f"{len(wanted)} symbols from {LISTED_SOURCES[source]}",
        source=source,
        calendar=trading.calendar,
        interval=trading.interval,  # type: ignore[arg-type]  # checked by the source
        history_start=start,
        fetch_symbols=25,
        options=options,
    )
    return _save(made, settings)


def _earliest(source: str, trading: Trading, now: datetime) -> date:
    if source == "yahoo" and trading.interval in REACH_DAYS:
        return now.date() - timedelta(days=REACH_DAYS[trading.interval] - 1)
    return date(2015, 1, 2)


def resolve(
    name: str, symbols: Sequence[str], settings: Settings, now: datetime, trading: Trading | None = None
) -> MarketConfig:
    """What `MARKET=` means: the name of a market config, `yahoo` or `alpaca` (with symbols), or the path of a panel.

    `trading`: CALENDAR= and INTERVAL=, for a market that is made here; a config has its own. For a panel without a
    column symbol, `symbols` is the name of its only one. Errors: those of `add_panel` and `add_listed`.
    """
    if name in LISTED_SOURCES:
        return add_listed(name, symbols, settings, now, trading=trading or US_DAILY)
    if "/" in name or name.endswith((".parquet", ".csv", ".pq", ".csv.gz", ".txt")):
        return add_panel(name, settings, now, None, trading or US_DAILY, only_symbol(name, symbols))
    loaded = config.load_market(name, settings)
    own = Trading(loaded.calendar, loaded.interval)
    if trading not in (None, own):
        problem = f"market '{name}' has calendar {own.calendar} and interval {own.interval} in its own file"
        raise InvalidConfigError("CALENDAR and INTERVAL", [f"{problem}; they are for a file or a list of symbols"])
    return loaded


def only_symbol(path: str, symbols: Sequence[str]) -> str | None:
    """The name of a panel's only symbol, if one is given. Errors: InvalidConfigError when there are more."""
    if len(symbols) > 1:
        problem = f"{len(symbols)} are given for the panel '{path}', which has its own"
        raise InvalidConfigError(
            "SYMBOLS", [f"{problem}; one may name the only symbol of a file without such a column"]
        )
    return symbols[0] if symbols else None


def trading_of(calendar: str, interval: str) -> Trading | None:
    """CALENDAR= and INTERVAL= as given, empty for the default; None when neither is given."""
    if not calendar and not interval:
        return None
    return Trading(calendar or US_DAILY.calendar, interval or US_DAILY.interval)


def _source(name: str, options: dict[str, object], trading: Trading) -> Source:
    Sessions(trading.calendar).is_session(date(2020, 1, 1))  # an unknown calendar is refused here
    entry = source_entry(name)
    parsed = config.parse_options(entry.options, options, f"options of source '{name}'")
    return entry.build(parsed, trading.calendar, trading.interval)


def _market_id(label: str, identity: str) -> str:
    """A readable id that differs for every file or list: two panels of one name in two folders stay apart."""
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:40] or "panel"
    return f"{slug}-{hashlib.sha256(identity.encode()).hexdigest()[:6]}"


def _save(made: MarketConfig, settings: Settings) -> MarketConfig:
    folder = settings.var_dir / "configs" / "markets"
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(made.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    target = folder / f"{made.id}.yaml"
    temporary = target.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)
    return made
