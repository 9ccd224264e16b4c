"""`airflow backfill create` with the real scheduler: a week of features, five trading sessions, again, and out of order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pytest
from platform_harness import MARKET, START_S, Pass, Platform, until

from trading_core.pipelines import parity

# Around a long weekend: every weekday but Presidents' Day. A whole month is the same command with other dates.
DAYS = [date(2023, 2, 16) + timedelta(days=n) for n in range(9)]
DAYS = [day for day in DAYS if day.weekday() < 5 and day != date(2023, 2, 20)]
AGAIN = [day for day in DAYS if date(2023, 2, 23) <= day <= date(2023, 2, 24)]  # the part that runs a second time
COUNT = 5  # of sessions that are traded. Ten or a month are the same command with other dates (docs/operations.md).
LAST = 2  # of them, those that are traded a second time
ACCOUNT = f"replay-{MARKET}-five"
REPLAY = {"replay": "five"}


@dataclass(frozen=True)
class Backfills:
    """Runs, table contents and the replay account after the first backfills and after they ran again."""

    sessions: list[date]
    features: list[dict[str, Any]]
    trades: list[dict[str, Any]]
    contents: dict[str, str]
    ledger: list[Any]
    features_again: list[dict[str, Any]]
    trades_again: list[dict[str, Any]]
    contents_again: dict[str, str]
    ledger_again: list[Any]


@pytest.fixture(scope="module")
def backfills(platform: Platform, first_pass: Pass) -> Backfills:
    """Both backfills side by side, through Airflow's command; then a part of both again, through its REST API."""
    assert first_pass.code == 0, first_pass.output
    ws = platform.workspace()
    first = ws.sessions.offset(ws.last_session(first_pass.finished), -40)
    days = ws.sessions.between(first, ws.sessions.offset(first, COUNT - 1))
    _by_command(
        platform,
        ("feature_backfill", DAYS[0], DAYS[-1], "--max-active-runs", "3"),
        ("daily_trade", days[0], days[-1], "--max-active-runs", "1", "--dag-run-conf", json.dumps(REPLAY)),
    )
    features, trades = _finished(platform, "feature_backfill"), _finished(platform, "daily_trade")
    contents, ledger = platform.contents(), platform.ledger_state(ACCOUNT)[ACCOUNT]
    again = {"reprocess_behavior": "completed"}
    platform.start_backfill("feature_backfill", AGAIN[0], AGAIN[-1], max_active_runs=3, **again)
    platform.start_backfill("daily_trade", days[-LAST], days[-1], max_active_runs=1, dag_run_conf=REPLAY, **again)
    return Backfills(
        days, features, trades, contents, ledger,
        _finished(platform, "feature_backfill", features), _finished(platform, "daily_trade", trades),
        platform.contents(), platform.ledger_state(ACCOUNT)[ACCOUNT],
    )  # fmt: skip


def _by_command(platform: Platform, *wanted: tuple[Any, ...]) -> None:
    """`airflow backfill create` for each, again while SQLite is locked (Airflow says so and creates nothing)."""
    started = {dag_id: platform.start_backfill_cli(dag_id, *rest) for dag_id, *rest in wanted}

    def done() -> bool:
        for dag_id, *rest in wanted:
            process = started[dag_id]
            output, _ = process.communicate(timeout=START_S)
            if process.returncode:
                assert "locked" in output.lower() or "concurrent access" in output, output[-3000:]
                started[dag_id] = platform.start_backfill_cli(dag_id, *rest)
        return all(process.returncode == 0 for process in started.values())

    until(done, START_S, lambda: "the backfills were not created")


def _finished(platform: Platform, dag_id: str, without: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """All backfill runs of the DAG when they are done, in the order they started, `without` those known before."""
    known = {run["dag_run_id"] for run in without or []}
    ids = [run["dag_run_id"] for run in platform.runs(dag_id, run_type="backfill") if run["dag_run_id"] not in known]
    platform.wait(dag_id, ids)
    found = [run for run in platform.runs(dag_id, run_type="backfill") if run["dag_run_id"] in ids]
    return sorted(found, key=lambda run: run["start_date"])


def test_a_week_of_features_is_one_run_per_session_and_none_on_holidays(backfills: Backfills) -> None:
    assert {run["state"] for run in backfills.features} == {"success"}
    assert sorted(run["partition_key"] for run in backfills.features) == [day.isoformat() for day in DAYS]


def test_day_by_day_gives_the_bits_of_the_bulk_run(first_pass: Pass, backfills: Backfills) -> None:
    assert backfills.contents == first_pass.contents


def test_features_run_again_leave_the_same_contents(backfills: Backfills) -> None:
    assert {run["state"] for run in backfills.features_again} == {"success"}
    assert sorted(run["partition_key"] for run in backfills.features_again) == [day.isoformat() for day in AGAIN]
    assert backfills.contents_again == backfills.contents


def test_a_backfill_of_features_starts_no_inference_and_no_trade(platform: Platform, backfills: Backfills) -> None:
    begun = min(run["start_date"] for run in backfills.features)
    later = [run for run in platform.runs("batch_inference") if run["start_date"] and run["start_date"] > begun]
    assert [run for run in later if run["run_type"] == "asset_triggered"] == []
    assert {run["run_type"] for run in platform.runs("daily_trade")} <= {"manual", "backfill", "scheduled"}


def test_sessions_are_settled_in_order_on_one_replay_account(backfills: Backfills) -> None:
    assert {run["state"] for run in backfills.trades} == {"success"}
    assert [run["partition_key"] for run in backfills.trades] == [day.isoformat() for day in backfills.sessions]
    assert [state.record.session for state, *_ in backfills.ledger] == backfills.sessions
    assert [state.record.number for state, *_ in backfills.ledger] == list(range(1, COUNT + 1))
    assert {state.status for state, *_ in backfills.ledger} == {"settled"}
    settled = [state.summary.settled_at for state, *_ in backfills.ledger]
    assert settled == sorted(settled)
    assert sum(len(orders) for _, _, orders, _ in backfills.ledger) >= 10  # the first session alone buys ten names


def test_the_backfilled_sessions_are_those_of_the_backtest(platform: Platform, backfills: Backfills) -> None:
    """What Airflow traded, session by session in its own tasks, beside the engine over the same stored forecasts."""
    found = parity.compare_account(platform.workspace(), ACCOUNT)
    assert found.difference is None
    assert (found.sessions, found.agrees) == (COUNT, True)
    assert found.largest_difference < 1e-9


def test_sessions_run_again_make_no_new_order_and_change_no_record(backfills: Backfills) -> None:
    assert {run["state"] for run in backfills.trades_again} == {"success"}
    assert [run["partition_key"] for run in backfills.trades_again] == [
        day.isoformat() for day in backfills.sessions[-LAST:]
    ]
    assert backfills.ledger_again == backfills.ledger


def test_a_task_that_is_cleared_is_run_again_and_changes_no_record(platform: Platform, backfills: Backfills) -> None:
    """As the button in the UI does, of a DAG that has a deadline."""
    run = backfills.trades_again[-1]["dag_run_id"]
    asked = {"dag_run_id": run, "task_ids": ["settle"], "only_failed": False, "dry_run": False}
    cleared = platform.api.call("POST", "/dags/daily_trade/clearTaskInstances", json=asked)
    assert [task["task_id"] for task in cleared["task_instances"]] == ["settle"]
    assert platform.wait("daily_trade", [run]) == {run: "success"}
    assert platform.task("daily_trade", run, "settle")["try_number"] == 2
    assert platform.ledger_state(ACCOUNT)[ACCOUNT] == backfills.ledger


def test_a_session_out_of_order_is_refused_and_changes_nothing(platform: Platform, backfills: Backfills) -> None:
    sessions = platform.workspace().sessions
    earlier, skipping = sessions.offset(backfills.sessions[0], -1), sessions.offset(backfills.sessions[-1], 2)
    why = {
        earlier: "a later session was already traded on it",
        skipping: f"the session before it, {sessions.previous(skipping)}, was not traded on it",
    }
    runs = {day: platform.api.trigger("daily_trade", REPLAY, partition_key=day.isoformat()) for day in why}
    assert set(platform.wait("daily_trade", list(runs.values())).values()) == {"failed"}
    for day, reason in why.items():
        states = {task["task_id"]: task["state"] for task in platform.api.tasks("daily_trade", runs[day])}
        assert states.pop("check") == "failed"
        assert set(states.values()) == {"upstream_failed"}
        log = platform.failure("daily_trade", runs[day], "check")
        assert "SessionOrderError" in log
        assert reason in log
        assert platform.task("daily_trade", runs[day], "check")["try_number"] == 1  # refused for good: not tried again
    assert platform.ledger_state(ACCOUNT)[ACCOUNT] == backfills.ledger
