"""One table per family: what is stale is computed alone, and nobody reads a table that is half old and half new."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tiny_market import LAST, NOW, all_contents, assert_same, backfilled, copy_of, new_market, versions

from trading_core.errors import NoDataError, StaleFormulasError, UnknownNameError
from trading_core.features import build as features
from trading_core.pipelines import backfill, backfill_notes, panels
from trading_core.pipelines.backfill_plan import all_families
from trading_core.pipelines.workspace import Workspace
from trading_core.storage.tables import Tables

pytestmark = pytest.mark.thorough
FIRST = date(2025, 5, 1)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """30 sessions of the tiny market, in ranges of 10. Only to be read."""
    ws = new_market(tmp_path_factory.mktemp("filled") / "var", history_start=FIRST.isoformat(), compute_sessions=10)
    backfilled(ws)
    return ws


@pytest.fixture
def market(filled: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(filled.settings.var_dir, tmp_path / "copy")


def other_formulas(ws: Workspace, *families: str) -> None:
    """As if another formula had made the stored values of these families."""
    path = ws.path("features", "current.json")
    current = ws.store.read_json(path)
    members = features.families(sorted(current["fingerprints"]))
    for family in families:
        current["fingerprints"][members[family][0]] = "0" * 16
    ws.store.write_json(path, current)


def dying(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The process is gone when it has committed `after` tables."""
    replace, commits = Tables.replace, [0]

    def replace_or_die(self: Tables, *args: Any, **options: Any) -> int:
        if commits[0] == after:
            raise KeyboardInterrupt
        commits[0] += 1
        return replace(self, *args, **options)

    monkeypatch.setattr(Tables, "replace", replace_or_die)


def test_a_family_with_another_formula_is_computed_alone(market: Workspace, filled: Workspace) -> None:
    before = versions(market)
    other_formulas(market, "trend")
    plan = backfill.plan(market, start=None, end=None, refresh=False, fill_gap=False, run_id="p", now=NOW)
    assert plan.chunks == ()
    assert plan.ranges[0].start == FIRST
    assert {span.families for span in plan.ranges} == {("trend",)}
    assert plan.ranges[-1].end == LAST
    made = backfilled(market, run_id="trend")
    assert made.families == ("trend",)
    assert {name for name, version in versions(market).items() if version != before[name]} == {"features_trend"}
    assert_same(all_contents(market), all_contents(filled))
    assert backfilled(market, run_id="again").families == ()


def test_a_family_that_was_added_is_computed_alone_and_the_day_for_all(market: Workspace, filled: Workspace) -> None:
    """A daily run computes its day for all families, and the history of the one that is new."""
    market.store.delete("tiny/tables/features_trend")
    other_formulas(market, "trend")
    made = backfill.plan(market, start=LAST, end=LAST, refresh=True, fill_gap=False, run_id="day", now=NOW)
    spans = {family: (span.start, span.end) for span in made.ranges[-1:] for family in span.families}
    assert spans == {family: (LAST, LAST) for family in all_families() if family != "trend"}
    backfilled(market, LAST, LAST, refresh=True, run_id="day")
    assert_same(all_contents(market, "features_"), all_contents(filled, "features_"))


def test_chosen_families_are_computed_and_nothing_is_fetched(
    market: Workspace, filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.store.delete("tiny/tables/features_trend")
    other_formulas(market, "trend", "volume")
    before = versions(market)
    monkeypatch.setattr(backfill, "fetch", None)
    made = backfilled(market, families=("trend",), run_id="one")
    assert made.families == ("trend",)
    commits = math.ceil(
        len(market.sessions.between(FIRST, LAST)) / 10
    )  # ranges of ten sessions, the first is version 0
    assert versions(market) == {**before, "features_trend": commits - 1}
    recorded = panels.describe_tables(market)
    assert [row.family for row in recorded if row.changed] == ["volume"]
    assert_same(all_contents(market), all_contents(filled))


def test_families_that_do_not_exist_or_have_no_bars_are_refused(market: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown feature family 'trends'\. Did you mean 'trend'"):
        backfilled(market, families=("trends",))
    empty = new_market(tmp_path / "empty")
    with pytest.raises(NoDataError, match="no bars to compute features of"):
        backfilled(empty, families=("trend",))


def test_a_stale_family_stops_only_those_who_read_it(market: Workspace) -> None:
    other_formulas(market, "trend")
    members = features.families(sorted(features.fingerprints([f.name for f in features.describe()])))
    assert panels.current_versions(market, members["returns"])["features_returns"] is not None
    for names in (members["trend"][:1], None):
        with pytest.raises(StaleFormulasError, match=members["trend"][0]):
            panels.current_versions(market, names)


@pytest.mark.parametrize("commits", [1, 2])
def test_stored_sessions_that_are_written_again_are_read_as_they_were(
    market: Workspace, filled: Workspace, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """The writer dies between its ranges; even with the old formulas back, nobody reads the mixture, and it is mended."""
    fingerprints = market.store.read_json("tiny/features/current.json")
    before = panels.current_versions(market)
    other_formulas(market, "trend")
    with monkeypatch.context() as patch:
        dying(patch, commits)
        with pytest.raises(KeyboardInterrupt):
            backfilled(market, run_id="dies")
    assert market.tables.version("features_trend") == before["features_trend"] + commits
    market.store.write_json("tiny/features/current.json", fingerprints)
    assert panels.current_versions(market) == before
    assert panels.feature_sessions(market) == panels.feature_sessions(filled)
    assert set(backfill_notes.rewriting(market)) == {"dies"}

    made = backfilled(market, run_id="mends")
    assert made.families == ("trend",)
    assert backfill_notes.rewriting(market) == {}
    assert panels.current_versions(market)["features_trend"] == market.tables.version("features_trend")
    assert_same(all_contents(market), all_contents(filled))


def test_a_first_run_that_dies_leaves_whole_sessions_and_goes_on_where_it_stopped(
    tmp_path: Path, filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = new_market(tmp_path / "var", history_start=FIRST.isoformat(), compute_sessions=10)
    families = len(all_families())
    bars = 4  # instruments, quarantine, events, bars
    with monkeypatch.context() as patch:
        dying(patch, bars + families + 3)
        with pytest.raises(KeyboardInterrupt):
            backfilled(ws, run_id="dies")
    done = panels.feature_sessions(ws)
    assert done == ws.sessions.between(FIRST, LAST)[:10]
    for table in (features.table_name(family) for family in all_families()):
        assert set(done) <= set(ws.tables.sessions(table))

    before = versions(ws)
    made = backfilled(ws, run_id="goes on")
    assert made.start == ws.sessions.next(done[-1])
    assert ws.tables.version("bars") == before["bars"]
    assert_same(all_contents(ws), all_contents(filled))


def test_versions_are_looked_at_again_when_a_run_ended_meanwhile(
    market: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the versions of two tables another run publishes: the answer is all of before, or all of after."""
    version, once = Tables.version, []

    def disturbed(self: Tables, name: str) -> int | None:
        if name == "bars" and not once:
            once.append(name)
            other_formulas(market, "momentum")
            backfilled(market, run_id="beside")
        return version(self, name)

    monkeypatch.setattr(Tables, "version", disturbed)
    found = panels.visible_versions(market)
    monkeypatch.undo()
    assert once
    assert found == {name: v for name, v in versions(market).items() if name in panels.feature_tables()}


def test_two_runs_that_end_together_leave_the_newest_state_recorded(
    market: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has named its state; before it writes that down, the other publishes a newer one."""
    name_version: Callable[..., str] = backfill.name_version
    once: list[str] = []

    def after_the_other(ws: Workspace, *given: Any) -> str:
        named = name_version(ws, *given)
        if not once:
            once.append(named)
            monkeypatch.setattr(backfill, "name_version", name_version)
            other_formulas(market, "momentum")
            backfilled(market, run_id="the other")
        return named

    other_formulas(market, "trend")
    monkeypatch.setattr(backfill, "name_version", after_the_other)
    backfilled(market, run_id="the one")
    record = panels.record_of(market)
    assert record is not None
    assert record["tables"] == {n: v for n, v in versions(market).items() if n in panels.feature_tables()}
