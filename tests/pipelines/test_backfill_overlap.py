"""Backfill runs that overlap, are asked again, or die: the tables end as those of one run over everything, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import date

import polars as pl
import pytest
from test_fetch_failures import failing
from tiny_market import LAST, NOW, START, Contents, all_contents, assert_same, backfilled, cleared, contents, versions

from trading_core.errors import ArtifactMissingError
from trading_core.market.simulated import SimulatedSource
from trading_core.market.source import Fetched
from trading_core.pipelines import backfill, backfill_notes
from trading_core.pipelines.refs import StagedRef
from trading_core.pipelines.workspace import Workspace
from trading_core.storage.tables import Tables

pytestmark = pytest.mark.thorough
DAYS = [date(2025, 6, 10), date(2025, 6, 11), date(2025, 6, 12), date(2025, 6, 13)]
STEPS = ("plan", "fetch", "check", "compute", "publish")


class DayRun:
    """One run of the DAG for one session; each step is called when the test says so."""

    def __init__(self, ws: Workspace, day: date) -> None:
        self.ws, self.day = ws, day
        self.bars: list[StagedRef] = []
        self.features: list[StagedRef] = []

    def do(self, *steps: str) -> None:
        for step in steps:
            getattr(self, step)()

    def plan(self) -> None:
        given = {"start": self.day, "end": self.day, "refresh": True, "fill_gap": False}
        self.made = backfill.plan(self.ws, run_id=f"day-{self.day}", now=NOW, **given)

    def fetch(self) -> None:
        self.bars = [backfill.fetch(self.ws, self.made, chunk, NOW) for chunk in self.made.chunks]

    def check(self) -> None:
        self.stored = backfill.check_and_store(self.ws, self.made, self.bars, NOW)

    def compute(self) -> None:
        self.features = [backfill.compute(self.ws, self.made, span, NOW) for span in self.made.ranges]

    def publish(self) -> None:
        self.published = backfill.publish(self.ws, self.made, self.features, NOW)


def without(ws: Workspace, tables: Contents, days: Sequence[date]) -> Contents:
    """Takes `days` (up to LAST) out of a copy; returns the tables that one run over everything gives."""
    expected = _by_session(tables)
    for name in expected:
        cleared(ws, name, days[0])
    return expected


def stored(ws: Workspace) -> Contents:
    """The tables by session that a backfill writes."""
    return _by_session(all_contents(ws))


def _by_session(tables: Contents) -> Contents:
    return {name: frame for name, frame in tables.items() if "session" in frame.columns and name != "forecasts"}


FIRST, SECOND = 0, 1
ORDERS = {
    "the later day publishes before the earlier one has bars": [
        *[(FIRST, step) for step in ("plan", "fetch")],
        *[(SECOND, step) for step in STEPS],
        *[(FIRST, step) for step in ("check", "compute", "publish")],
    ],
    "the earlier day gets bars after the later one has computed": [
        *[(SECOND, step) for step in ("plan", "fetch", "check", "compute")],
        *[(FIRST, step) for step in ("plan", "fetch", "check")],
        (SECOND, "publish"),
        *[(FIRST, step) for step in ("compute", "publish")],
    ],
    "the later day publishes what it computed before the earlier one was there": [
        *[(SECOND, step) for step in ("plan", "fetch", "check", "compute")],
        *[(FIRST, step) for step in STEPS],
        (SECOND, "publish"),
    ],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_two_days_in_any_order_of_their_steps(
    ws: Workspace, prepared_tables: Contents, order: list[tuple[int, str]]
) -> None:
    expected = without(ws, prepared_tables, DAYS[-2:])
    runs = [DayRun(ws, day) for day in DAYS[-2:]]
    for number, step in order:
        runs[number].do(step)
    assert_same(stored(ws), expected)
    assert backfill_notes.unfinished(ws) == {}
    assert ws.store.list("tiny/staging") == []


@pytest.mark.parametrize("seed", [1, 2])
def test_four_days_in_a_random_order_of_their_steps(ws: Workspace, prepared_tables: Contents, seed: int) -> None:
    expected = without(ws, prepared_tables, DAYS)
    runs = [DayRun(ws, day) for day in DAYS]
    turns = [number for number in range(len(runs)) for _ in STEPS]
    random.Random(seed).shuffle(turns)
    done = [0] * len(runs)
    for number in turns:
        runs[number].do(STEPS[done[number]])
        done[number] += 1
    assert_same(stored(ws), expected)


def test_bars_that_come_between_the_look_and_the_commit_are_seen_after_it(
    ws: Workspace, prepared_tables: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The narrowest race: the earlier day does everything just before the later day's first table of features."""
    expected = without(ws, prepared_tables, DAYS[-2:])
    earlier, later = (DayRun(ws, day) for day in DAYS[-2:])
    later.do("plan", "fetch", "check", "compute")
    replace = Tables.replace

    def after_the_other(self: Tables, name: str, *args: object, **options: object) -> int:
        monkeypatch.setattr(Tables, "replace", replace)
        earlier.do(*STEPS)
        return replace(self, name, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Tables, "replace", after_the_other)
    later.do("publish")
    assert_same(stored(ws), expected)


# --- changed bars -----------------------------------------------------------------------------------------------------


def other_closes(monkeypatch: pytest.MonkeyPatch, day: date) -> None:
    """The source has other closes for `day` than before: a vendor's correction."""
    fetch = SimulatedSource.fetch

    def corrected(self: SimulatedSource, wanted: Sequence[str], start: date, end: date, now: object) -> Fetched:
        got = fetch(self, wanted, start, end, now)  # type: ignore[arg-type]
        middle = (pl.col("high") + pl.col("low")) / 2
        close = pl.when(pl.col("session") == day).then(middle).otherwise(pl.col("close"))
        return Fetched(got.bars.with_columns(close.alias("close")), got.actions, got.failures)

    monkeypatch.setattr(SimulatedSource, "fetch", corrected)


def test_a_corrected_bar_of_the_past_changes_the_features_that_look_back_on_it(
    copied: Callable[..., Workspace], prepared_tables: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_day, everything = copied("one"), copied("all")
    other_closes(monkeypatch, DAYS[0])
    backfilled(one_day, DAYS[0], DAYS[0], refresh=True)
    backfilled(everything, date(2025, 5, 1), LAST, refresh=True)
    assert_same(stored(one_day), stored(everything))
    later = contents(one_day, "features_returns").filter(pl.col("session") == DAYS[1])
    assert not later.equals(prepared_tables["features_returns"].filter(pl.col("session") == DAYS[1]))


def test_a_run_that_dies_after_its_bars_is_mended_by_the_next(
    copied: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    died, whole = copied("died"), copied("whole")
    other_closes(monkeypatch, DAYS[0])
    DayRun(died, DAYS[0]).do("plan", "fetch", "check")
    DayRun(whole, DAYS[0]).do(*STEPS)
    assert backfill_notes.unfinished(died) == {f"day-{DAYS[0]}": DAYS[0]}
    assert backfilled(died, run_id="next").start == DAYS[0]
    assert_same(stored(died), stored(whole))
    assert backfill_notes.unfinished(died) == {}
    assert backfilled(died, run_id="after").rows == 0


def test_the_events_of_a_session_are_stored_before_its_bars(
    ws: Workspace, prepared_tables: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(ws, prepared_tables, DAYS[-1:])
    replace, order = Tables.replace, []

    def noted(self: Tables, name: str, *args: object, **options: object) -> int:
        order.append(name)
        return replace(self, name, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Tables, "replace", noted)
    DayRun(ws, LAST).do("plan", "fetch", "check")
    assert order[-1] == "bars"
    assert set(order[:-1]) <= {"quarantine", "corporate_actions"}  # a table that does not change is not written


# --- asked again ------------------------------------------------------------------------------------------------------


def test_steps_that_are_asked_again_after_the_end_answer_the_same(ws: Workspace, prepared_tables: Contents) -> None:
    expected = without(ws, prepared_tables, DAYS[-1:])
    run = DayRun(ws, LAST)
    run.do(*STEPS)
    before, stored_bars, published = versions(ws), run.stored, run.published
    run.do("check", "publish")
    assert (run.stored, run.published) == (stored_bars, published)
    assert versions(ws) == before
    run.do("check", "compute", "publish")
    assert (run.published.rows, run.published.end) == (published.rows, published.end)
    assert_same(stored(ws), expected)
    assert ws.store.list("tiny/staging") == []


def test_files_that_are_gone_without_a_result_are_refused(ws: Workspace) -> None:
    run = DayRun(ws, LAST)
    run.do("plan", "fetch", "check", "compute")
    ws.store.delete("tiny/staging")
    before = versions(ws)
    with pytest.raises(ArtifactMissingError):
        run.do("publish")
    assert versions(ws) == before


# --- failed symbols, formulas -----------------------------------------------------------------------------------------


def test_a_symbol_that_failed_is_asked_for_again_by_the_next_default_run(
    ws: Workspace, prepared_tables: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = without(ws, prepared_tables, DAYS[-1:])
    failing(monkeypatch, {"SIM001", "SIM002"})
    backfilled(ws, LAST, LAST, run_id="failing")
    assert contents(ws, "bars").filter(pl.col("session") == LAST)["symbol"].is_in(["SIM001", "SIM002"]).sum() == 0
    monkeypatch.undo()
    assert backfilled(ws, run_id="default").start == LAST
    assert_same(stored(ws), expected)
    assert backfill_notes.failed_ranges(ws) == []
    assert backfilled(ws, run_id="again").rows == 0


def test_a_new_formula_computes_everything_and_fetches_only_the_day(ws: Workspace) -> None:
    note = ws.store.read_json("tiny/features/current.json")
    ws.store.write_json("tiny/features/current.json", {**note, "fingerprints": {}})
    run = DayRun(ws, LAST)
    run.do("plan")
    assert (run.made.start, run.made.end) == (LAST, LAST)
    assert (run.made.ranges[0].start, run.made.ranges[-1].end) == (START, LAST)
