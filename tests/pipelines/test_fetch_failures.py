"""A source that cannot deliver some symbols, or fails half-way: named, bounded, and nothing that is stored is lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from tiny_market import (
    LAST,
    NOW,
    all_contents,
    assert_same,
    backfilled,
    contents,
    new_market,
    rewritten,
    tree,
    versions,
)

from trading_core.errors import NoDataError, QualityGateError, SourceUnavailableError, SymbolFetchError
from trading_core.market.simulated import SimulatedSource
from trading_core.market.source import Fetched
from trading_core.pipelines import backfill
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import SYMBOL

SPAN = (date(2024, 9, 3), LAST)


def failing(monkeypatch: pytest.MonkeyPatch, symbols: set[str]) -> None:
    """The source does not deliver `symbols`, and says so."""
    fetch = SimulatedSource.fetch

    def fetch_most(self: SimulatedSource, wanted: Sequence[str], start: date, end: date, now: datetime) -> Fetched:
        got = fetch(self, [symbol for symbol in wanted if symbol not in symbols], start, end, now)
        return Fetched(got.bars, got.actions, {s: "rate limited" for s in wanted if s in symbols})

    monkeypatch.setattr(SimulatedSource, "fetch", fetch_most)


def test_symbols_that_fail_keep_everything_that_is_stored_of_them(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six of thirty (a fifth) fail in a refresh: their bars, splits, dividends and features stay."""
    before = all_contents(ws)
    events = contents(ws, "corporate_actions").filter(pl.col("session").is_between(*SPAN))
    lost = set(events["symbol"].unique().sort().head(6))
    assert events.filter(pl.col(SYMBOL).is_in(list(lost)))["kind"].n_unique() > 1
    failing(monkeypatch, lost)
    plan = backfill.plan(ws, start=SPAN[0], end=SPAN[1], refresh=True, fill_gap=False, run_id="r", now=NOW)
    staged = [backfill.fetch(ws, plan, chunk, NOW) for chunk in plan.chunks]
    stored = backfill.check_and_store(ws, plan, staged, NOW)
    assert stored is not None
    assert set(stored.failures) == lost
    report = ws.store.read_json(stored.report)
    assert report["failed_symbols"] == dict.fromkeys(sorted(lost), "rate limited")
    backfill.publish(ws, plan, [backfill.compute(ws, plan, span, NOW) for span in plan.ranges], NOW)
    assert_same(all_contents(ws), before)


def test_quarantined_rows_of_a_failed_symbol_stay_too(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = ws.tables.read("bars").filter((pl.col("session") == LAST) & (pl.col(SYMBOL) == "SIM001")).drop("month")
    row = bars.with_columns(
        pl.lit("missing_price").alias("check"), pl.lit("no open").alias("reason"), pl.lit(LAST).alias("known_at")
    )
    rewritten(ws, "quarantine", lambda frame: pl.concat([frame.drop("month"), row], how="diagonal"), LAST)
    assert contents(ws, "quarantine").height == 1
    failing(monkeypatch, {"SIM001"})
    backfilled(ws, LAST, LAST, refresh=True)
    assert contents(ws, "quarantine").height == 1


def test_more_than_a_fifth_of_the_symbols_is_refused_and_nothing_changes(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, {f"SIM{number:03d}" for number in range(1, 8)})
    before = versions(ws)
    with pytest.raises(SymbolFetchError, match=r"'simulated' could not deliver 7 symbol.*SIM001 \(rate limited\)"):
        backfilled(ws, LAST, LAST, refresh=True)
    assert versions(ws) == before


def test_a_source_that_delivers_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ws = new_market(tmp_path / "var")
    failing(monkeypatch, {f"SIM{number:03d}" for number in range(1, 31)})
    with pytest.raises(SymbolFetchError, match="could not deliver 30"):
        backfilled(ws)
    assert ws.tables.names() == []


def test_a_source_without_bars_in_the_dates_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ws = new_market(tmp_path / "var", history_start="2023-12-01")
    with pytest.raises(NoDataError, match=r"no bar from 2023-12-01 to 2023-12-29.*Choose dates"):
        backfilled(ws, date(2023, 12, 1), date(2023, 12, 29))
    assert ws.tables.names() == []


@pytest.mark.parametrize("method", ["fetch", "instruments"])
def test_a_source_that_fails_half_way_leaves_the_tables_as_they_were(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fail(*_: object) -> None:
        raise SourceUnavailableError("simulated", "429 Too Many Requests")

    before = versions(ws)
    monkeypatch.setattr(SimulatedSource, method, fail)
    with pytest.raises(SourceUnavailableError, match=r"429.*the same command resumes"):
        backfilled(ws, LAST, LAST, refresh=True)
    assert versions(ws) == before
    monkeypatch.undo()
    backfilled(ws, LAST, LAST, refresh=True)


@pytest.mark.parametrize("blemish", ["duplicate", "future"])
def test_a_shut_quality_gate_names_the_check_and_stores_nothing(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, blemish: str
) -> None:
    fetch = SimulatedSource.fetch

    def fetch_wrong(self: SimulatedSource, wanted: Sequence[str], start: date, end: date, now: datetime) -> Fetched:
        got = fetch(self, wanted, start, end, now)
        row = got.bars.head(1)
        if blemish == "future":
            row = row.with_columns(pl.lit(date(2025, 6, 16)).alias("session"))
        return Fetched(pl.concat([got.bars, row]), got.actions, got.failures)

    monkeypatch.setattr(SimulatedSource, "fetch", fetch_wrong)
    before, files = versions(ws), tree(ws.settings.var_dir / "artifacts" / "tiny" / "tables")
    with pytest.raises(QualityGateError, match=r"gate of market 'tiny' is shut.*(duplicate_key|future_bar)"):
        backfilled(ws, LAST, LAST, refresh=True)
    assert versions(ws) == before
    assert tree(ws.settings.var_dir / "artifacts" / "tiny" / "tables") == files
