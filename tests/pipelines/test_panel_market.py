"""The shared real panel as a market: added, backfilled for a range, its blemishes quarantined."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from tiny_market import backfilled, settings_of, versions

from trading_core.pipelines import markets
from trading_core.pipelines.workspace import open_workspace

NOW = datetime(2025, 6, 13, 22, 0, tzinfo=UTC)


@pytest.mark.panel
def test_a_part_of_the_real_panel_becomes_a_market(panel_path: Path, tmp_path: Path) -> None:
    whole = pl.read_parquet(panel_path)
    nan = whole.filter(pl.col("open").is_nan() | pl.col("open").is_null())
    blemished = nan["symbol"].unique().sort().to_list()
    assert blemished, "the panel is said to have NaN opens"
    rest = [symbol for symbol in whole["symbol"].unique().sort() if symbol not in blemished]
    chosen = [*blemished, *rest[: 60 - len(blemished)]]
    path = tmp_path / "part.parquet"
    whole.filter(pl.col("symbol").is_in(chosen)).write_parquet(path)

    settings = settings_of(tmp_path / "var")
    market = markets.add_panel(str(path), settings, NOW)
    assert (market.history_start, market.history_end) == (date(2013, 2, 8), date(2018, 2, 7))
    ws = open_workspace(market.id, settings)
    assert ws.last_session(NOW) == date(2018, 2, 7)
    first, last = nan["date"].cast(pl.Date).min(), nan["date"].cast(pl.Date).max()
    assert isinstance(first, date)
    assert isinstance(last, date)
    made = backfilled(ws, first, last, now=NOW)
    assert made.sessions == len(ws.sessions.between(first, last))

    quarantined = ws.tables.read("quarantine").filter(pl.col("check") == "missing_price")
    expected = {(symbol, day) for symbol, day in nan.select("symbol", pl.col("date").cast(pl.Date)).iter_rows()}
    assert expected <= set(quarantined.select("symbol", "session").iter_rows())
    bars = ws.tables.read("bars")
    assert expected.isdisjoint(bars.select("symbol", "session").iter_rows())
    assert bars.select(pl.col("open", "high", "low", "close").is_finite().all()).row(0) == (True,) * 4
    traded = whole.filter(pl.col("symbol").is_in(chosen) & pl.col("date").cast(pl.Date).is_between(first, last))
    assert bars["symbol"].n_unique() == traded["symbol"].n_unique() >= 55  # some list later
    features = ws.tables.read("features_returns")
    assert set(features.select("symbol", "session").iter_rows()) <= set(bars.select("symbol", "session").iter_rows())

    before = versions(ws)
    assert backfilled(ws, first, last, now=NOW).rows == 0
    assert versions(ws) == before
