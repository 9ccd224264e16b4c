"""Panels and symbols that cannot become a market: refused with the reason, and nothing is left half-written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from tiny_market import (
    NOW,
    backfilled,
    settings_of,
    versions,
    write_market,
)

from trading_core.errors import (
    TradingError,
)
from trading_core.pipelines import markets
from trading_core.pipelines.workspace import open_workspace
from trading_core.sessions import Sessions

Refused = Callable[..., str]


# --- panels -----------------------------------------------------------------------------------------------------------


def panel(sessions: int = 450, symbols: Sequence[str] = ("AAA", "BBB", "CCC")) -> pl.DataFrame:
    """A clean panel: prices that walk slowly, volumes above 0."""
    days = Sessions("XNYS").between(date(2022, 1, 3), date(2024, 12, 31))[:sessions]
    frames = []
    for place, symbol in enumerate(symbols):
        closes = [50.0 + 10 * place + (number * (7 + place)) % 23 / 10 for number in range(len(days))]
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * len(days),
                    "date": days,
                    "open": [close - 0.1 for close in closes],
                    "high": [close + 0.5 for close in closes],
                    "low": [close - 0.5 for close in closes],
                    "close": closes,
                    "volume": [1_000_000 + 1_000 * (number % 11) for number in range(len(days))],
                }
            )
        )
    return pl.concat(frames)


def repeated(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame, frame.head(2)])


def dated(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    return pl.concat([frame, frame.tail(1).with_columns(pl.lit(day).alias("date"))])


BAD_PANELS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str, list[str]]] = {
    "a missing column": (
        lambda f: f.drop("open", "volume"),
        "MissingColumnsError",
        [
            r"lacks the columns open, volume",
            r"It has: symbol, date, high, low, close",
            r"Rename or add",
            "nothing was stored",
        ],
    ),
    "duplicate keys": (
        repeated,
        "DuplicateKeysError",
        [r"2 duplicated keys \(symbol, date\)", "AAA 2022-01-03", "Keep one row per key", "nothing was stored"],
    ),
    "dates in the future": (
        lambda f: dated(f, date(2025, 6, 16)),
        "FutureDataError",
        [
            r"bars up to 2025-06-16, later than now \(2025-06-13 22:00 UTC\)",
            "check the dates and the clock",
            "Nothing was stored",
        ],
    ),
    "no row": (lambda f: f.clear(), "EmptyUniverseError", ["no symbol left", "holds no row", "Widen the universe"]),
    "a text for a price": (
        lambda f: f.with_columns(pl.col("close").cast(pl.String)),
        "WrongTypeError",
        ["column 'close' is String, expected a number", "Nothing was stored"],
    ),
    "a date that is none": (
        lambda f: f.with_columns(pl.lit("yesterday").alias("date")),
        "WrongTypeError",
        ["'date'", "no ISO date", "Nothing was stored"],
    ),
    "years that the calendar does not know": (
        lambda f: pl.concat([f, f.head(1).with_columns(pl.lit(date(1985, 1, 2)).alias("date"))]),
        "InvalidDateRangeError",
        ["begins before the sessions that are known of XNYS", "drop its rows before 1990-01-02"],
    ),
    "too short a history": (
        lambda f: f.filter(pl.col("date") < date(2022, 6, 1)),
        "TooShortHistoryError",
        [r"needs at least 400 sessions of history but has 103", "Backfill an earlier start"],
    ),
}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("case", BAD_PANELS)
def test_a_bad_panel_never_becomes_a_market(tmp_path: Path, refused: Refused, case: str, suffix: str) -> None:
    change, error, fragments = BAD_PANELS[case]
    if case == "a text for a price" and suffix == "csv":
        fragments = ["'close' is text such as 'n/a', expected a number"]
        change = lambda f: f.with_columns(pl.lit("n/a").alias("close"))  # noqa: E731
    path = tmp_path / f"bars.{suffix}"
    frame = change(panel())
    frame.write_parquet(path) if suffix == "parquet" else frame.write_csv(path)
    var = tmp_path / "var"
    refused(var, error, ["bars." + suffix, *fragments], "market", "add", str(path))
    assert not var.exists()


def test_a_panel_that_is_not_there_or_not_a_table_is_refused(tmp_path: Path, refused: Refused) -> None:
    var = tmp_path / "var"
    refused(
        var,
        "MissingFileError",
        ["no panel of bars", "nowhere.parquet", "Check the path"],
        "market",
        "add",
        "nowhere.parquet",
    )
    (tmp_path / "noise.parquet").write_bytes(b"PAR1 this is no parquet file")
    refused(
        var,
        "UnreadableFileError",
        ["noise.parquet", "cannot be read"],
        "market",
        "add",
        str(tmp_path / "noise.parquet"),
    )
    (tmp_path / "empty.csv").write_bytes(b"")
    refused(var, "EmptyUniverseError", ["the file is empty"], "market", "add", str(tmp_path / "empty.csv"))
    panel().write_parquet(tmp_path / "bars.parquet")
    missing = str(tmp_path / "sectors.csv")
    arguments = ("market", "add", str(tmp_path / "bars.parquet"), "--sectors", missing)
    refused(var, "MissingFileError", ["no file of sectors", "sectors.csv"], *arguments)
    assert not var.exists()


def test_a_panel_that_changes_for_the_worse_is_refused_by_the_backfill(tmp_path: Path, refused: Refused) -> None:
    """The market was added when the file was good; the file is checked again each time it is read."""
    var, path = tmp_path / "var", tmp_path / "bars.parquet"
    panel().write_parquet(path)
    market = markets.add_panel(str(path), settings_of(var), NOW)
    ws = open_workspace(market, settings_of(var, market=market.id))
    backfilled(ws)
    before = versions(ws)
    cases: list[tuple[pl.DataFrame | None, str, str]] = [
        (panel().drop("low"), "MissingColumnsError", "lacks the column low"),
        (repeated(panel()), "DuplicateKeysError", "2 duplicated keys"),
        (dated(panel(), date(2025, 6, 16)), "FutureDataError", "up to 2025-06-16"),
        (panel().clear(), "EmptyUniverseError", "holds no row"),
        (None, "MissingFileError", "Check the path"),
    ]
    for frame, error, text in cases:
        path.unlink()
        if frame is not None:
            frame.write_parquet(path)
        refused(var, error, [text], "backfill", "--market", market.id, "--refresh")
        assert versions(ws) == before


def test_two_panels_of_one_name_are_two_markets(tmp_path: Path) -> None:
    var = tmp_path / "var"
    ids = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        panel().write_parquet(tmp_path / folder / "bars.parquet")
        ids.append(markets.add_panel(str(tmp_path / folder / "bars.parquet"), settings_of(var), NOW).id)
    assert ids[0] != ids[1]
    assert all(re.fullmatch(r"bars-[0-9a-f]{6}", found) for found in ids)
    again = markets.add_panel(str(tmp_path / "one" / "bars.parquet"), settings_of(var), NOW)
    assert again.id == ids[0]
    one, two = (open_workspace(found, settings_of(var)) for found in ids)
    backfilled(one)
    assert one.tables.names() != []
    assert two.tables.names() == []


def test_a_panel_with_a_session_that_nobody_traded_is_stored_once(tmp_path: Path) -> None:
    """A day without any bar in the middle of a panel is no reason to ask for it again, or to fail."""
    var, path = tmp_path / "var", tmp_path / "bars.parquet"
    panel().filter(pl.col("date") != date(2022, 8, 10)).write_parquet(path)
    ws = open_workspace(markets.add_panel(str(path), settings_of(var), NOW), settings_of(var))
    backfilled(ws)
    before = versions(ws)
    assert backfilled(ws, run_id="again").rows == 0
    assert versions(ws) == before


def test_yahoo_needs_symbols(tmp_path: Path) -> None:
    with pytest.raises(TradingError, match=r"'yahoo' has no symbol left.*SYMBOLS=AAPL"):
        markets.resolve("yahoo", [" ", ""], settings_of(tmp_path / "var"), NOW)
    write_market(tmp_path / "var", "us", source="yahoo", options={"symbols": []})
    with pytest.raises(TradingError, match="symbols"):
        backfilled(open_workspace("us", settings_of(tmp_path / "var")))
    assert not (tmp_path / "var" / "artifacts").exists()
