"""What a backfill asks the source for, and what it does with answers that contradict what is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from test_fetch_failures import failing
from tiny_market import LAST, NOW, all_contents, assert_same, backfilled, contents, new_market, rewritten, versions

from trading_core import config
from trading_core.errors import UnreadableFileError
from trading_core.market.simulated import SimulatedSource
from trading_core.market.source import Fetched
from trading_core.pipelines import backfill, backfill_notes, instruments, markets, panels
from trading_core.pipelines.workspace import Workspace
from trading_core.storage.tables import Predicate

FIRST = date(2025, 5, 1)  # of the small markets here: 30 sessions
Asked = tuple[tuple[str, ...], date, date]
DAY = timedelta(days=1)


@pytest.fixture
def small(tmp_path: Path) -> Workspace:
    return new_market(tmp_path / "var", history_start=FIRST.isoformat())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Every request that reaches the source: symbols, first and last session."""
    found: list[Asked] = []
    fetch = SimulatedSource.fetch

    def noting(self: SimulatedSource, wanted: Sequence[str], start: date, end: date, now: datetime) -> Fetched:
        found.append((tuple(wanted), start, end))
        return fetch(self, wanted, start, end, now)

    monkeypatch.setattr(SimulatedSource, "fetch", noting)
    return found


def changed_bars(monkeypatch: pytest.MonkeyPatch, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """From now on the source gives other bars."""
    fetch = SimulatedSource.fetch

    def changed(self: SimulatedSource, wanted: Sequence[str], start: date, end: date, now: datetime) -> Fetched:
        got = fetch(self, wanted, start, end, now)
        return Fetched(change(got.bars), got.actions, got.failures)

    monkeypatch.setattr(SimulatedSource, "fetch", changed)


def listing(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The source lists its first `count` symbols only."""
    symbols_of, instruments_of = SimulatedSource.symbols, SimulatedSource.instruments

    def fewer(self: SimulatedSource, now: datetime) -> pl.DataFrame:
        with monkeypatch.context() as patch:
            patch.setattr(SimulatedSource, "symbols", symbols_of)  # which it asks itself
            return instruments_of(self, now).head(count)

    monkeypatch.setattr(SimulatedSource, "symbols", lambda self: symbols_of(self)[:count])
    monkeypatch.setattr(SimulatedSource, "instruments", fewer)


def half_volume(symbol: str, day: date) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """A correction that no quality check minds."""
    there = (pl.col("symbol") == symbol) & (pl.col("session") == day)
    return lambda bars: bars.with_columns(pl.when(there).then(pl.col("volume") / 2).otherwise(pl.col("volume")))


# --- new symbols ------------------------------------------------------------------------------------------------------


def test_symbols_that_are_new_to_the_list_are_asked_for_alone(
    tmp_path: Path, small: Workspace, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        listing(patch, 28)
        backfilled(small)
    assert set(contents(small, "bars")["symbol"]).isdisjoint({"SIM029", "SIM030"})
    asked.clear()
    made = backfilled(small, run_id="longer")
    assert asked == [(("SIM029", "SIM030"), FIRST, LAST)]
    assert made.contradictions_found == 0
    whole = new_market(tmp_path / "whole", history_start=FIRST.isoformat())
    backfilled(whole)
    assert_same(all_contents(small), all_contents(whole))
    asked.clear()
    assert backfilled(small, run_id="again").rows == 0
    assert asked == []


def test_a_daily_run_brings_the_history_of_a_new_symbol_too(
    tmp_path: Path, small: Workspace, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small.sessions.previous(LAST)
    with monkeypatch.context() as patch:
        listing(patch, 29)
        backfilled(small, FIRST, before)
    asked.clear()
    backfilled(small, LAST, LAST, refresh=True, run_id="daily")
    overlap = small.sessions.offset(LAST, -3)
    assert asked[0] == (("SIM030",), FIRST, before)
    assert [(len(symbols), start, end) for symbols, start, end in asked[1:]] == [(30, overlap, LAST)]
    whole = new_market(tmp_path / "whole", history_start=FIRST.isoformat())
    backfilled(whole)
    assert_same(all_contents(small), all_contents(whole))


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_symbol_that_fails_for_ever_is_asked_for_alone_and_ever_more_rarely(
    small: Workspace, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    backfilled(small)
    failing(monkeypatch, {"SIM007"})
    backfilled(small, refresh=True, run_id="refresh")
    times = []
    for day in range(40):
        asked.clear()
        now = NOW + day * DAY / 2
        made = backfill.plan(small, start=None, end=LAST, refresh=False, fill_gap=False, run_id=f"day-{day}", now=now)
        for chunk in made.chunks:
            assert (chunk.kind, chunk.symbols, chunk.start, chunk.end) == ("retry", ("SIM007",), FIRST, LAST)
        if made.chunks:
            times.append(day / 2)
            backfilled(small, end=LAST, run_id=f"day-{day}", now=now)
            assert [wanted for wanted, _, _ in asked] == [()]  # `failing` keeps SIM007 from the source itself
    assert times == [0.0, 1.0, 3.0, 7.0, 15.0]  # pauses of 1, 2, 4, 8 days after the second failure and on
    forced = backfill.plan(small, start=None, end=LAST, refresh=True, fill_gap=False, run_id="f", now=NOW)
    assert {"SIM007"} <= {symbol for chunk in forced.chunks for symbol in chunk.symbols}


def test_a_failed_symbol_that_comes_back_is_complete(
    small: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, {"SIM007"})
        backfilled(small)
        assert "SIM007" not in set(contents(small, "bars")["symbol"])
    assert backfilled(small, run_id="again").failures == {}
    whole = new_market(tmp_path / "whole", history_start=FIRST.isoformat())
    backfilled(whole)
    assert_same(all_contents(small), all_contents(whole))
    assert backfill_notes.failures(small) == []


# --- contradictions ---------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_correction_inside_the_overlap_is_reported_versioned_and_passed_on_to_the_features(
    ws: Workspace, copied: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    corrected = ws.sessions.offset(LAST, -2)
    for name in (
        "quarantine",
        "corporate_actions",
        "bars",
        *(n for n in ws.tables.names() if n.startswith("features_")),
    ):
        rewritten(ws, name, lambda rows: rows.clear(), LAST)
    old = contents(ws, "bars").filter((pl.col("symbol") == "SIM003") & (pl.col("session") == corrected))
    version = ws.tables.version("bars")
    changed_bars(monkeypatch, half_volume("SIM003", corrected))
    made = backfilled(ws, run_id="daily")

    volume = old["volume"].item()
    (found,) = made.contradictions
    assert (found.symbol, found.session, found.column) == ("SIM003", corrected, "volume")
    assert (found.stored, found.fetched) == (volume, volume / 2)
    report = ws.store.read_json(made.report)
    assert report["contradictions_found"] == made.contradictions_found == 1
    assert report["contradictions"][0]["session"] == corrected.isoformat()
    kept = contents(ws, "bar_revisions")
    assert kept.select(old.columns).equals(old)
    assert kept.select("run_id", "recorded_at").rows() == [("daily", NOW)]

    where = Predicate(corrected, corrected)
    then = ws.tables.read("bars", where=where, version=version).filter(pl.col("symbol") == "SIM003")
    now = ws.tables.read("bars", where=where).filter(pl.col("symbol") == "SIM003")
    assert (then["volume"].item(), now["volume"].item()) == (volume, volume / 2)

    everything = copied("everything")
    backfilled(everything, date(2025, 5, 1), LAST, refresh=True, run_id="all")
    ours, theirs = (all_contents(w, prefix="features_") for w in (ws, everything))
    assert_same(ours, theirs)


def test_float_noise_is_no_contradiction_and_leaves_the_stored_bits(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = all_contents(ws)
    changed_bars(monkeypatch, lambda bars: bars.with_columns(pl.col("open", "high", "low", "close") * (1 + 5e-10)))
    made = backfilled(ws, date(2025, 5, 1), LAST, refresh=True)
    assert (made.contradictions_found, made.contradictions) == (0, ())
    assert_same(all_contents(ws), before)


def test_a_bar_that_the_source_no_longer_has_is_kept_as_a_revision(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    backfilled(small)
    lost = small.sessions.offset(LAST, -5)
    gone = (pl.col("symbol") == "SIM004") & (pl.col("session") == lost)
    close = contents(small, "bars").filter(gone)["close"].item()
    changed_bars(monkeypatch, lambda bars: bars.filter(~gone))
    made = backfilled(small, refresh=True, run_id="less")
    assert [(c.symbol, c.session, c.column, c.stored) for c in made.contradictions] == [("SIM004", lost, "row", close)]
    assert contents(small, "bars").filter(gone).is_empty()
    assert contents(small, "bar_revisions").filter(gone).height == 1


def test_a_check_that_is_asked_again_reports_what_its_first_attempt_found(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt died after its commits: the rows are replaced already, and still they contradict."""
    backfilled(small)
    changed_bars(monkeypatch, half_volume("SIM003", LAST))
    plan = backfill.plan(small, start=LAST, end=LAST, refresh=True, fill_gap=False, run_id="twice", now=NOW)
    staged = [backfill.fetch(small, plan, chunk, NOW) for chunk in plan.chunks]
    answers = [backfill.check_and_store(small, plan, staged, NOW + n * DAY) for n in range(2)]
    assert answers[0] is not None
    assert answers[1] is not None
    assert answers[0].contradictions == answers[1].contradictions != ()
    assert contents(small, "bar_revisions").height == 1


# --- an edited file ---------------------------------------------------------------------------------------------------


def panel_market(tmp_path: Path, frame: pl.DataFrame, **changes: Any) -> tuple[Workspace, Path]:
    path = tmp_path / "panel.parquet"
    frame.write_parquet(path)
    given = {"source": "parquet", "history_start": FIRST.isoformat(), "options": {"path": str(path)}, **changes}
    return new_market(tmp_path / "panel", **given), path


def test_an_edited_panel_is_compared_with_what_is_stored(
    tmp_path: Path, ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = contents(ws, "bars").filter(pl.col("session") >= FIRST).drop("ts").rename({"session": "date"})
    market, path = panel_market(tmp_path, frame)
    backfilled(market)
    before = versions(market)
    assert backfilled(market, run_id="same").rows == 0
    assert versions(market) == before

    edited = frame.with_columns(
        pl.when((pl.col("symbol") == "SIM002") & (pl.col("date") == FIRST))
        .then(1e6)
        .otherwise("volume")
        .alias("volume")
    )
    edited.write_parquet(path)
    made = backfilled(market, run_id="edited")
    assert [(c.symbol, c.session, c.column, c.fetched) for c in made.contradictions] == [
        ("SIM002", FIRST, "volume", 1e6)
    ]
    assert made.start == FIRST
    assert backfilled(market, run_id="again").rows == 0


# --- instruments ------------------------------------------------------------------------------------------------------


def test_instruments_of_a_file_are_known_as_of_a_day_and_change_the_features_from_that_day_on(
    tmp_path: Path, small: Workspace
) -> None:
    backfilled(small)
    said = instruments.instruments_as_of(small, LAST)
    turned = date(2025, 6, 2)
    path = tmp_path / "facts.csv"
    path.write_text(f"symbol,from,to,sector,lots\nSIM001,,2025-06-01,Aliens,7\nSIM001,{turned},,Robots,8\n")
    market = small.market.model_copy(update={"instruments": str(path)})
    ws = Workspace(small.settings, market, small.store, small.tables, small.sessions)
    backfilled(ws, LAST, LAST, refresh=True, run_id="facts")
    for day, sector, lots in ((date(2025, 6, 1), "Aliens", 7.0), (turned, "Robots", 8.0)):
        row = instruments.instruments_as_of(ws, day).filter(pl.col("symbol") == "SIM001")
        assert row.select("sector", "lots").row(0) == (sector, lots)
    others = instruments.instruments_as_of(ws, LAST).filter(pl.col("symbol") != "SIM001").select("symbol", "sector")
    assert others.equals(said.filter(pl.col("symbol") != "SIM001").select("symbol", "sector"))
    panel = panels.load_panel(ws, ["log_ret"], FIRST, LAST, panels.current_versions(ws))
    assert "SIM001" in panel.symbols

    fresh = new_market(tmp_path / "fresh", history_start=FIRST.isoformat(), instruments=str(path))
    backfilled(fresh)
    assert_same(all_contents(ws, prefix="features_"), all_contents(fresh, prefix="features_"))


def test_instruments_of_a_day_know_nothing_later(ws: Workspace) -> None:
    table = ws.tables.read("instruments")
    gone = table.filter(pl.col("delisted").is_not_null()).row(0, named=True)
    day = gone["delisted"] - timedelta(days=1)
    then = instruments.instruments_as_of(ws, day).filter(pl.col("symbol") == gone["symbol"])
    assert then["delisted"].to_list() == [None]
    now = instruments.instruments_as_of(ws, gone["delisted"]).filter(pl.col("symbol") == gone["symbol"])
    assert now["delisted"].to_list() == [gone["delisted"]]
    later = pl.when(pl.col("symbol") == "SIM002").then(pl.lit(LAST)).otherwise("listed").alias("listed")
    rewritten(ws, "instruments", lambda rows: rows.with_columns(later), None)
    for day, there in ((LAST - timedelta(days=1), False), (LAST, True)):
        assert ("SIM002" in set(instruments.instruments_as_of(ws, day)["symbol"])) == there


def test_a_market_is_given_an_instruments_file(tmp_path: Path, small: Workspace) -> None:
    facts = tmp_path / "facts.csv"
    facts.write_text("symbol,sector\nSIM001,Banks\nSIM001,Energy\n")
    with pytest.raises(UnreadableFileError, match="'SIM001' has a period"):
        markets.check_instruments(str(facts))
    facts.write_text("symbol,sector\nSIM001,Banks\n")
    markets.check_instruments(str(facts))
    made = markets.with_instruments(small.market, str(facts), small.settings)
    assert config.load_market(small.market.id, small.settings).instruments == made.instruments == str(facts)
