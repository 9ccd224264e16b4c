"""Running again, in other portions, at the same time, or after a kill: the same tables, models, orders and fills."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from tiny_market import (
    LAST,
    NOW,
    START,
    Contents,
    all_contents,
    assert_same,
    backfilled,
    cleared,
    contents,
    evaluated,
    forecast,
    in_process,
    new_market,
    trained,
    tree,
    versions,
    without_run,
)

from trading_core.errors import InvalidDateRangeError, StaleDataError
from trading_core.pipelines import backfill, models, trade, train
from trading_core.pipelines.infer import feature_sessions
from trading_core.pipelines.models import bundle_is_whole
from trading_core.pipelines.workspace import Workspace, open_workspace

JUNE = [date(2025, 6, day) for day in (6, 9, 10, 11, 12, 13)]


def test_a_second_backfill_changes_nothing(ws: Workspace) -> None:
    before, files = versions(ws), tree(ws.settings.var_dir)
    again = backfilled(ws, run_id="again")
    assert again.rows == 0
    assert versions(ws) == before
    assert tree(ws.settings.var_dir) == files


def test_a_backfill_of_dates_before_the_history_stores_the_history_once(ws: Workspace) -> None:
    before = versions(ws)
    assert backfilled(ws, date(2020, 1, 2), LAST).rows == 0
    assert versions(ws) == before
    with pytest.raises(InvalidDateRangeError, match=r"history starts at 2024-07-01"):
        backfilled(ws, date(2020, 1, 2), date(2020, 12, 31))


def test_a_refresh_gives_the_same_contents(ws: Workspace) -> None:
    before = all_contents(ws)
    again = backfilled(ws, date(2025, 5, 1), LAST, refresh=True)
    assert again.rows > 0
    assert_same(all_contents(ws), before)


def test_a_second_training_takes_the_version_there_is(ws: Workspace) -> None:
    files = tree(ws.settings.var_dir)
    again = trained(ws)
    assert (again.version, again.reused, again.aliases) == (1, True, ("challenger", "champion"))
    assert len(ws.registry().list("tiny")) == 1
    assert tree(ws.settings.var_dir) == files
    assert again.metrics["validation_mean_rank_ic_h1"] == pytest.approx(again.metrics["validation_mean_rank_ic_h1"])


def test_a_training_that_lost_its_result_is_not_trained_twice(ws: Workspace) -> None:
    request = train.prepare(ws, model="linear", test_start=None, now=NOW)
    ws.store.delete(f"tiny/training/{request.request_hash}/result.json")
    left = f"tiny/training/{request.request_hash}/epochs/member-1.safetensors"
    ws.store.write_bytes(left, b"an epoch")  # it died before it could clear them
    again = train.run(request.request_uri, ws.settings, NOW)
    assert (again.version, again.reused) == (1, True)
    assert train.outcome(ws, request).version == 1
    assert not ws.store.exists(left)
    assert len(ws.registry().list("tiny")) == 1
    forecast(ws, start=LAST)  # the champion's bundle is still what was registered


def test_other_costs_or_another_format_of_bundles_are_another_training(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thresholds are searched net of costs; a bundle that this code cannot read is not written over."""
    assert models.reusable_version(ws, "linear", NOW) is not None
    first = train.prepare(ws, model="linear", test_start=None, now=NOW).request_hash
    costs = ws.market.costs.model_copy(update={"commission_bps": ws.market.costs.commission_bps + 1.0})
    dearer = open_workspace(ws.market.model_copy(update={"costs": costs}), ws.settings)
    assert models.reusable_version(dearer, "linear", NOW) is None
    hashes = {first, train.prepare(dearer, model="linear", test_start=None, now=NOW).request_hash}
    for module in (train, models):
        monkeypatch.setattr(module, "BUNDLE_FORMAT", 99)
    assert models.reusable_version(ws, "linear", NOW) is None
    assert len(hashes | {train.prepare(ws, model="linear", test_start=None, now=NOW).request_hash}) == 3


def test_an_explicitly_new_training_gives_a_new_version_with_the_same_weights(ws: Workspace) -> None:
    again = trained(ws, reuse=False)
    assert (again.version, again.reused, again.aliases) == (2, False, ("challenger",))
    folders = [ws.store.path_of(version.bundle_uri) for version in ws.registry().list("tiny")]
    assert len(set(folders)) == 2
    weights = [ws.store.read_bytes(f"{folder}/weights.safetensors") for folder in folders]
    assert weights[0] == weights[1]


def test_a_version_of_another_format_is_not_taken_again(ws: Workspace) -> None:
    known = ws.registry().version("tiny", 1)
    assert bundle_is_whole(ws, known)
    published = ws.store.open_published(known.bundle_uri, known.digest)
    files = {name: published.read(name) for name in published.names}
    for name, change, whole in (("same", {}, True), ("older", {"format_version": 2}, False)):
        card = json.loads(files["config.json"]) | change
        digest = ws.store.publish(f"tiny/models/{name}", {**files, "config.json": json.dumps(card).encode()}, NOW)
        assert bundle_is_whole(ws, replace(known, bundle_uri=f"tiny/models/{name}", digest=digest)) is whole


def eligible(ws: Workspace) -> pl.DataFrame:
    """The bars of symbols that have had 60 sessions by then: the market's universe."""
    bars = ws.tables.read("bars").sort("session")
    return bars.filter(pl.col("session").cum_count().over("symbol") >= 60)


def test_a_second_inference_adds_nothing(ws: Workspace) -> None:
    before = versions(ws)
    again = forecast(ws, run_id="again")
    cutoff = ws.registry().get("tiny").cutoff
    assert (again.added, again.rows) == (0, 2 * len(eligible(ws).filter(pl.col("session") > cutoff)))
    assert versions(ws) == before


def test_inference_in_portions_equals_inference_at_once(ws: Workspace, prepared: Workspace) -> None:
    second = str(trained(ws, reuse=False).version)
    days = feature_sessions(ws)[-12:]
    portions = [days[8:12], days[:1], days[5:7]]
    for portion in portions:
        forecast(ws, version=second, start=portion[0], end=portion[-1])
    rest = sorted(set(days) - {day for portion in portions for day in portion})
    whole = forecast(ws, version=second, start=days[0], end=days[-1])
    assert whole.added == 2 * len(eligible(ws).filter(pl.col("session").is_in(rest)))
    assert whole.rows == 2 * len(eligible(ws).filter(pl.col("session").is_in(days)))
    key, numbers = ["symbol", "session", "horizon"], ["score", "q05", "q95", "p_up"]
    mine = contents(ws, "forecasts").filter(pl.col("model_version") == second).sort(key)
    there = contents(prepared, "forecasts").filter(pl.col("session").is_in(days)).sort(key)
    assert mine.select(key).equals(there.select(key))
    # A recomputed forecast agrees to float32's last digits, not to the bit.
    for column in numbers:
        assert mine[column].to_numpy() == pytest.approx(there[column].to_numpy(), rel=1e-5, abs=1e-8)


def test_a_second_evaluation_of_the_same_run_changes_nothing(ws: Workspace) -> None:
    first = evaluated(ws)
    before = all_contents(ws)
    page = ws.store.read_bytes(first.report)
    assert without_run(evaluated(ws)) == without_run(first)
    assert_same(all_contents(ws), before)
    assert ws.store.read_bytes(first.report) == page


# --- portions ---------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_day_by_day_and_by_month_and_all_at_once_are_bit_identical(
    prepared_tables: Contents, copied: Callable[..., Workspace]
) -> None:
    """The tables hold all sessions at once; two copies lose the last days and get them back in other portions."""
    by_day, by_month = copied("day"), copied("month")
    for ws in (by_day, by_month):
        at_once = without_sessions(ws, prepared_tables, JUNE[2])
    for day in JUNE[2:]:
        backfilled(by_day, day, day, run_id=f"day-{day}")
    backfilled(by_month, JUNE[2], JUNE[-1])
    for ws in (by_day, by_month):
        assert_same({name: contents(ws, name) for name in at_once}, at_once)


def test_portions_of_computing_and_fetching_do_not_matter(tmp_path: Path, prepared_tables: Contents) -> None:
    ws = new_market(tmp_path / "var", fetch_symbols=7, compute_sessions=100)
    plan = backfill.plan(ws, start=None, end=None, refresh=False, fill_gap=False, run_id="r", now=NOW)
    assert [len(chunk.symbols) for chunk in plan.chunks] == [7, 7, 7, 7, 2]
    assert plan.ranges[0].start == START
    assert len(plan.ranges) == 3
    backfilled(ws)
    expected = {name: frame for name, frame in prepared_tables.items() if name in ws.tables.names()}
    assert_same(all_contents(ws), expected)


def test_a_gap_is_filled_when_asked(tmp_path: Path) -> None:
    ws = new_market(tmp_path / "var")
    backfilled(ws, START, date(2024, 7, 10))
    asked = {"start": date(2024, 7, 16), "end": date(2024, 7, 16), "refresh": False, "run_id": "gap", "now": NOW}
    assert backfill.plan(ws, fill_gap=False, **asked).start == date(2024, 7, 16)
    assert backfill.plan(ws, fill_gap=True, **asked).start == date(2024, 7, 11)


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_two_processes_backfilling_days_of_one_month_end_as_one_run_over_both(
    ws: Workspace, prepared_tables: Contents
) -> None:
    expected = without_sessions(ws, prepared_tables, JUNE[-2])
    var = str(ws.settings.var_dir)
    both = [subprocess.Popen(in_process("backfill", var, str(day), str(day))) for day in JUNE[-2:]]
    assert [process.wait(120) for process in both] == [0, 0]
    assert_same({name: contents(ws, name) for name in expected}, expected)


@pytest.mark.thorough
def test_an_earlier_day_that_comes_later_mends_the_features_that_look_back_on_it(
    ws: Workspace, prepared_tables: Contents
) -> None:
    expected = without_sessions(ws, prepared_tables, JUNE[2])
    for day in (JUNE[4], JUNE[5], JUNE[3], JUNE[2]):
        backfilled(ws, day, day, run_id=f"day-{day}")
    assert_same({name: contents(ws, name) for name in expected}, expected)


def without_sessions(ws: Workspace, tables: Contents, start: date) -> Contents:
    """Takes the sessions from `start` on out of a copy; returns the tables as they were, forecasts aside."""
    expected = {name: frame for name, frame in tables.items() if name != "forecasts"}
    for name, frame in expected.items():
        if "session" in frame.columns:
            cleared(ws, name, start)
    return expected


@pytest.mark.thorough
@pytest.mark.parametrize("commits", [0, 1, 6], ids=lambda n: f"after {n} commits")
def test_a_killed_backfill_is_finished_by_the_next(ws: Workspace, prepared_tables: Contents, commits: int) -> None:
    """SIGKILL before the n-th table of a new session: no table is half written, and nobody takes it for a whole one."""
    expected = without_sessions(ws, prepared_tables, LAST)
    before = all_contents(ws)
    killed = subprocess.run(in_process("backfill", str(ws.settings.var_dir), str(LAST), str(LAST), str(commits)))
    assert killed.returncode == -9
    changed = [name for name, frame in all_contents(ws).items() if not frame.equals(before[name])]
    for name in changed:
        assert contents(ws, name).equals(expected[name]), f"{name} is neither as it was nor as it should be"
    assert feature_sessions(ws)[-1] == JUNE[-2]
    with pytest.raises(StaleDataError, match="needs features of session 2025-06-13"):
        trade.open_session(ws, strategy="top10", session=None, is_backfill=False, replay=None, run_id="t", now=NOW)
    backfilled(ws)
    assert_same({name: contents(ws, name) for name in expected}, expected)
    assert feature_sessions(ws)[-1] == LAST
