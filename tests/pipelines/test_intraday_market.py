"""Half-hourly bars through sources, quality gate, tables and features: a bar's key is its symbol and its end, not its session."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny_market import all_contents, assert_same, backfilled, settings_of, versions

from trading_core.pipelines import markets
from trading_core.pipelines.markets import Trading
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.sessions import Sessions

NOW = datetime(2025, 6, 13, 22, 0, tzinfo=UTC)
FIRST, LAST = date(2025, 5, 19), date(2025, 6, 13)
DAYS = Sessions("XNYS").between(FIRST, LAST)
SYMBOLS = ("AAA", "BBB", "CCC")
PER_DAY = 13  # half hours from 9:30 to 16:00
BAD = datetime(2025, 6, 4, 15, 0, tzinfo=UTC)  # the start of a bar of BBB whose high lies below its low


def panel() -> pl.DataFrame:
    """Random walks within the sessions, and a bar of AAA before each open; stamped with the start."""
    rng = np.random.default_rng(1)
    clock, frames = Sessions("XNYS"), []
    for symbol in SYMBOLS:
        price = 100.0
        for day in DAYS:
            close = price * np.exp(np.cumsum(0.002 * rng.standard_normal(PER_DAY)))
            opened = np.concatenate([[price], close[:-1]])
            price = float(close[-1])
            starts = [clock.open(day) + timedelta(minutes=30 * i) for i in range(PER_DAY)]
            columns = {
                "symbol": [symbol] * PER_DAY,
                "ts": starts,
                "open": opened,
                "high": np.maximum(opened, close) * 1.001,
                "low": np.minimum(opened, close) * 0.999,
                "close": close,
                "volume": np.round(1e5 * np.exp(0.2 * rng.standard_normal(PER_DAY))),
            }
            frames.append(pl.DataFrame(columns))
            if symbol == "AAA":
                frames.append(frames[-1].head(1).with_columns(pl.col("ts") - timedelta(minutes=30)))
    bars = pl.concat(frames)
    bad = (pl.col("symbol") == "BBB") & (pl.col("ts") == BAD)
    return bars.with_columns(pl.when(bad).then(pl.col("low") / 2).otherwise(pl.col("high")).alias("high"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("intraday") / "bars.parquet"
    panel().write_parquet(target)
    return target


def new(path: Path, var: Path) -> Workspace:
    settings = settings_of(var)
    return open_workspace(markets.add_panel(str(path), settings, NOW, trading=Trading("XNYS", "30m")).id, settings)


@pytest.fixture(scope="module")
def ws(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Backfilled in one go. Only to be read."""
    made = new(path, tmp_path_factory.mktemp("once") / "var")
    backfilled(made, now=NOW)
    return made


def test_every_bar_of_regular_hours_is_stored_by_its_end(ws: Workspace) -> None:
    bars = ws.tables.read("bars").sort("symbol", "ts")
    assert bars.height == len(SYMBOLS) * len(DAYS) * PER_DAY - 1  # the bad one is set aside
    assert not bars.select("symbol", "ts").is_duplicated().any()
    day = bars.filter((pl.col("session") == LAST) & (pl.col("symbol") == "AAA"))
    assert day["ts"].dt.strftime("%H:%M").to_list()[::4] == ["14:00", "16:00", "18:00", "20:00"]


def test_a_bad_bar_takes_none_of_its_session_along(ws: Workspace) -> None:
    aside = ws.tables.read("quarantine")
    assert aside.select("symbol", "ts", "check").unique().rows() == [("BBB", BAD + timedelta(minutes=30), "ohlc_order")]
    kept = ws.tables.read("bars").filter((pl.col("symbol") == "BBB") & (pl.col("session") == BAD.date()))
    assert kept.height == PER_DAY - 1


def test_features_are_of_bars_not_of_sessions(ws: Workspace) -> None:
    """The log return of one half hour, from the bar before; across the night from the last bar of the day before."""
    bars = ws.tables.read("bars").filter(pl.col("symbol") == "CCC").sort("ts")
    found = ws.tables.read("features_returns").filter(pl.col("symbol") == "CCC").sort("ts")
    assert found["ts"].to_list() == bars["ts"].to_list()
    closes = bars["close"].to_numpy()
    assert found["log_ret"].to_numpy()[1:] == pytest.approx(np.log(closes[1:] / closes[:-1]), abs=1e-7)


@pytest.mark.thorough
def test_session_by_session_is_the_same_as_at_once(ws: Workspace, path: Path, tmp_path: Path) -> None:
    apart = new(path, tmp_path / "var")
    backfilled(apart, FIRST, DAYS[9], run_id="first", now=NOW)
    for day in DAYS[10:]:
        backfilled(apart, day, day, run_id=f"day-{day}", now=NOW)
    assert_same(all_contents(apart, "features_"), all_contents(ws, "features_"))
    assert_same(all_contents(apart, "bars"), all_contents(ws, "bars"))
    before = versions(apart)
    assert backfilled(apart, run_id="again", now=NOW).rows == 0
    assert versions(apart) == before
