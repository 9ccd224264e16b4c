"""MARKET=, SYMBOLS=, CALENDAR= and INTERVAL=: what becomes of them, and what is refused."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from tiny_market import MARKET, settings_of, write_market

from trading_core import cli, config
from trading_core.config import MarketConfig
from trading_core.errors import InvalidConfigError, TooShortHistoryError, UnknownNameError
from trading_core.pipelines import markets
from trading_core.pipelines.check import check_file, kind_of
from trading_core.pipelines.markets import Trading, trading_of

NOW = datetime(2025, 6, 13, 22, 0, tzinfo=UTC)


def resolve(
    var: Path, name: str, symbols: tuple[str, ...] = (), calendar: str = "", interval: str = ""
) -> MarketConfig:
    return markets.resolve(name, symbols, settings_of(var), NOW, trading_of(calendar, interval))


def days(tmp_path: Path, count: int, name: str = "btc.csv") -> str:
    """A CSV of `count` days of one symbol up to 2025-06-12."""
    dates = [date(2025, 6, 12) - timedelta(days=i) for i in range(count)]
    columns = {name: [1.0 + i % 7 for i in range(count)] for name in ("open", "high", "low", "close", "volume")}
    pl.DataFrame({"date": dates, **columns}).write_csv(tmp_path / name)
    return str(tmp_path / name)


def test_a_file_is_another_market_on_another_calendar(tmp_path: Path) -> None:
    path, var = days(tmp_path, 700), tmp_path / "var"
    always, exchange = resolve(var, path, calendar="24/7"), resolve(var, path)
    assert (always.calendar, always.interval, always.history_end) == ("24/7", "1d", date(2025, 6, 12))
    assert (exchange.calendar, exchange.interval) == ("XNYS", "1d")
    assert always.id != exchange.id
    assert always.options == exchange.options == {"path": path}
    assert resolve(var, path, calendar="24/7") == always
    for made in (always, exchange):
        written = var / "configs" / "markets" / f"{made.id}.yaml"
        check_file(written, kind_of(written))
        assert config.load_market(made.id, settings_of(var)) == made


def test_the_only_symbol_of_a_file_can_be_named(tmp_path: Path) -> None:
    path, var = days(tmp_path, 500), tmp_path / "var"
    assert resolve(var, path, ("XBT",), "24/7").options["symbol"] == "XBT"
    with pytest.raises(InvalidConfigError, match="2 are given for the panel"):
        resolve(var, path, ("XBT", "ETH"), "24/7")


@pytest.mark.parametrize("source", ["yahoo", "alpaca"])
def test_a_list_of_symbols(tmp_path: Path, source: str) -> None:
    daily = resolve(tmp_path, source, ("msft", "AAPL", "MSFT"))
    assert (daily.source, daily.options["symbols"]) == (source, ["AAPL", "MSFT"])
    assert (daily.calendar, daily.interval, daily.history_start) == ("XNYS", "1d", date(2015, 1, 2))
    hourly = resolve(tmp_path, source, ("AAPL", "MSFT"), interval="1h")
    assert hourly.interval == "1h"
    assert hourly.id != daily.id
    # Yahoo keeps hours for 730 days; asking for more would fail in every run.
    first = date(2015, 1, 2) if source == "alpaca" else NOW.date() - timedelta(days=729)
    assert hourly.history_start == first


def test_what_is_refused_writes_nothing(tmp_path: Path) -> None:
    path, var = days(tmp_path, 700), tmp_path / "var"
    with pytest.raises(UnknownNameError, match="calendar '24-7'"):
        resolve(var, path, calendar="24-7")
    with pytest.raises(InvalidConfigError, match="interval: '2m' is not served; allowed: 1m, 5m, 15m, 30m, 1h, 1d"):
        resolve(var, path, interval="2m")
    with pytest.raises(InvalidConfigError, match="calendar: stocks have sessions"):
        resolve(var, "alpaca", ("AAPL",), calendar="24/7")
    with pytest.raises(TooShortHistoryError):
        resolve(var, days(tmp_path, 300, "short.csv"), calendar="24/7")
    assert not var.exists()


def test_a_market_with_a_file_of_its_own_keeps_what_it_says(tmp_path: Path) -> None:
    write_market(tmp_path)
    assert resolve(tmp_path, MARKET, calendar="XNYS").id == MARKET
    with pytest.raises(
        InvalidConfigError, match=f"market '{MARKET}' has calendar XNYS and interval 1d in its own file"
    ):
        resolve(tmp_path, MARKET, calendar="24/7")


def test_a_source_that_has_no_such_bars_is_found_by_the_check(tmp_path: Path) -> None:
    write_market(tmp_path, interval="5m")
    written = tmp_path / "configs" / "markets" / f"{MARKET}.yaml"
    with pytest.raises(InvalidConfigError, match=r"source 'simulated'[^$]*'5m' is not served; allowed: 1d"):
        check_file(written, kind_of(written))


def test_an_intraday_panel_may_be_short_but_is_not_trained(tmp_path: Path) -> None:
    starts = [datetime(2025, 6, 12, 13, 30, tzinfo=UTC) + timedelta(minutes=5 * i) for i in range(78)]
    columns = {name: [1.0] * 78 for name in ("open", "high", "low", "close", "volume")}
    pl.DataFrame({"symbol": ["AAA"] * 78, "ts": starts, **columns}).write_parquet(tmp_path / "bars.parquet")
    made = resolve(tmp_path / "var", str(tmp_path / "bars.parquet"), interval="5m")
    assert (made.interval, made.history_start, made.history_end) == ("5m", date(2025, 6, 12), date(2025, 6, 12))
    with pytest.raises(
        InvalidConfigError, match=r"bars of '5m'.*only '1d' is trained, evaluated and traded; allowed: 1d"
    ):
        markets.require_daily(made)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRADING_VAR_DIR", str(tmp_path / "var"))
    path = days(tmp_path, 700)
    arguments = [
        "trading",
        "market",
        "add",
        path,
        "--calendar",
        "24/7",
        "--interval",
        "1d",
        "--symbols",
        "BTC-USD",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    made = json.loads(capsys.readouterr().out)
    assert (made["calendar"], made["interval"], made["options"]["symbol"]) == ("24/7", "1d", "BTC-USD")
    assert Trading("24/7", "1d").identity != ""
