"""What the scheduler fires on its own. The settings put the due times of the next real session into these minutes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import exchange_calendars
from platform_harness import DONE, MARKET, RUN_S, SCHEDULED_STRATEGY, Pass, Platform, until, utc_now

ACCOUNT = f"paper-{MARKET}-{SCHEDULED_STRATEGY}"


def fired(platform: Platform, dag_id: str, key: str) -> dict[str, Any]:
    """The finished scheduled run of the partition `key`."""

    def look() -> dict[str, Any] | None:
        found = [run for run in platform.runs(dag_id, run_type="scheduled") if run["partition_key"] == key]
        return next((run for run in found if run["state"] in DONE), None)

    patience = max(platform.schedule.due - utc_now(), timedelta()).total_seconds() + RUN_S
    return until(look, patience, lambda: f"no scheduled run of {dag_id} for {key}; due {platform.schedule.due}")


def test_features_of_the_closed_session_are_computed_on_their_own(platform: Platform, first_pass: Pass) -> None:
    run = fired(platform, "feature_backfill", platform.schedule.close.isoformat())
    assert run["state"] == "success"
    assert run["triggered_by"] == "timetable"
    assert abs(datetime.fromisoformat(run["run_after"]) - platform.schedule.due) < timedelta(minutes=1)
    assert platform.contents() == first_pass.contents  # the bulk run had it: the same bits again


def test_the_coming_session_is_traded_live_on_its_own(platform: Platform) -> None:
    session = platform.schedule.trade
    run = fired(platform, "daily_trade", session.isoformat())
    assert run["state"] == "success"
    assert run["triggered_by"] == "timetable"
    check = platform.task("daily_trade", run["dag_run_id"], "check")
    if not platform.schedule.tradable(datetime.fromisoformat(check["start_date"])):
        # The exchange is open: what fell due is the session after, and the one before it has not closed.
        assert check["state"] == "skipped"
        assert f"The open of {session} is not the next one" in platform.failure(
            "daily_trade", run["dag_run_id"], "check"
        )
        assert platform.ledger_state(ACCOUNT) == {}
        return
    assert check["state"] == "success"
    ((state, decision, orders, fills),) = platform.ledger_state(ACCOUNT)[ACCOUNT]
    calendar = exchange_calendars.get_calendar("XNYS", start="2026-01-02")
    before = calendar.previous_session(session.isoformat()).date()
    assert (state.record.session, state.record.decision_session, state.status) == (session, before, "decided")
    assert decision.model_version == "1"  # the champion
    assert len(orders) == len(decision.orders) == 10  # a fresh account buys its ten names
    assert {order.status for order in orders} == {"accepted"}  # pending until the open
    assert fills == []


def test_a_fresh_installation_does_nothing_about_the_past(platform: Platform) -> None:
    """No scheduled run for a session that was due before the services came up has traded anything."""
    session = platform.schedule.trade
    fired(platform, "daily_trade", session.isoformat())
    for run in platform.runs("daily_trade", run_type="scheduled"):
        if run["partition_key"] != session.isoformat():
            assert platform.task("daily_trade", run["dag_run_id"], "check")["state"] == "skipped", run
