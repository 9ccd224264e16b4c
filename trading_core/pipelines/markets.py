"""Adding a market at run time: a panel file or a list of Yahoo symbols becomes a config under `var/configs/markets`.

Each file and each list of symbols gets an id of its own, so that no two of them ever share tables, models or accounts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import yaml

from trading_core import config
from trading_core.config import MarketConfig, Settings
from trading_core.errors import EmptyUniverseError, MissingFileError, TooShortHistoryError
from trading_core.market.registry import source_entry
from trading_core.market.source import Source

MIN_SESSIONS = 400  # below this a year of test, a validation part and the features' warm-up leave nothing to learn from


def add_panel(path: str, settings: Settings, now: datetime, sectors: str | None = None) -> MarketConfig:
    """A market from a Parquet or CSV panel. The file is read and checked in full first; nothing is written on an error.

    Errors: MissingFileError, UnreadableFileError, MissingColumnsError, WrongTypeError, DuplicateKeysError,
    FutureDataError, EmptyUniverseError, TooShortHistoryError.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise MissingFileError(path, "panel of bars (Parquet or CSV)")
    options: dict[str, object] = {"path": str(file), **({"sectors": str(Path(sectors).resolve())} if sectors else {})}
    source = _source("parquet", options)
    source.instruments(now)  # reads the sectors too
    sessions = (
        source.fetch(source.symbols(), date(1990, 1, 1), now.date(), now).bars["session"].unique().sort().to_list()
    )
    if not sessions:
        raise EmptyUniverseError(path, "no bar of it lies on a closed session")
    if len(sessions) < MIN_SESSIONS:
        raise TooShortHistoryError(f"The panel '{path}'", len(sessions), MIN_SESSIONS)
    made = MarketConfig(
        id=_market_id(file.stem, str(file)),
        description=f"Panel of bars from {file.name}",
        source="parquet",
        history_start=sessions[0],
        history_end=sessions[-1],
        test_sessions=min(252, len(sessions) // 4),
        options=options,
    )
    return _save(made, settings)


def add_yahoo(symbols: Sequence[str], settings: Settings, start: date | None = None) -> MarketConfig:
    """A market of US symbols from Yahoo Finance. Errors: EmptyUniverseError, InvalidConfigError."""
    wanted = tuple(sorted({symbol.strip().upper() for symbol in symbols if symbol.strip()}))
    if not wanted:
        raise EmptyUniverseError("yahoo", "no symbols were given (SYMBOLS=AAPL,MSFT,...)")
    start = start or date(2015, 1, 2)
    options: dict[str, object] = {"symbols": list(wanted), "start": start.isoformat()}
    _source("yahoo", options)
    made = MarketConfig(
        id=_market_id("us-yahoo", ",".join(wanted)),
        description=f"{len(wanted)} US symbols from Yahoo Finance",
        source="yahoo",
        history_start=start,
        fetch_symbols=25,
        options=options,
    )
    return _save(made, settings)


def resolve(name: str, symbols: Sequence[str], settings: Settings, now: datetime) -> MarketConfig:
    """What `MARKET=` means: the name of a market config, `yahoo` (with symbols), or the path of a panel."""
    if name == "yahoo":
        return add_yahoo(symbols, settings)
    if "/" in name or name.endswith((".parquet", ".csv", ".pq")):
        return add_panel(name, settings, now)
    return config.load_market(name, settings)


def _source(name: str, options: dict[str, object]) -> Source:
    entry = source_entry(name)
    return entry.build(config.parse_options(entry.options, options, f"options of source '{name}'"), "XNYS")


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
