"""`make run`: the whole spine through Airflow, and a second time."""

from __future__ import annotations

from urllib.parse import quote

import exchange_calendars
import httpx
from platform_harness import MARKET, SESSIONS, START_S, Pass, Platform

LIVE = f"paper-{MARKET}-top10"
HEADS = ("feature_backfill", "train_model", "batch_inference", "evaluate_strategies", "daily_trade")


def replay_account(found: Pass) -> str:
    return next(name for name in found.ledger if name.startswith(f"replay-{MARKET}-top10-as-of-"))


def test_it_ends_with_code_0_and_says_what_came_of_it(first_pass: Pass) -> None:
    assert first_pass.code == 0, first_pass.output
    for text in (
        "\ntraining ...",
        "Forecasts of linear v1",
        "buy-and-hold *",
        "Probability of backtest overfitting",
        "Trading sessions",
        "Executions",
        "Report",
        "Where the time went",
    ):
        assert text in first_pass.output, first_pass.output


def test_the_last_sessions_are_settled_and_the_coming_one_is_pending(platform: Platform, first_pass: Pass) -> None:
    calendar = exchange_calendars.get_calendar("XNYS", start="2026-01-02")
    closed = [s for s in calendar.sessions if calendar.session_close(s) <= first_pass.finished]
    coming = calendar.next_session(closed[-1]).date()
    settled = first_pass.ledger[replay_account(first_pass)]
    assert [state.record.session for state, *_ in settled] == [s.date() for s in closed[-SESSIONS:]]
    assert {state.status for state, *_ in settled} == {"settled"}
    assert all(len(fills) == len(orders) > 0 for _, _, orders, fills in settled)
    ((state, decision, orders, fills),) = first_pass.ledger[LIVE]
    assert (state.record.session, state.record.decision_session, state.status) == (coming, closed[-1].date(), "decided")
    assert len(orders) == len(decision.orders) > 0
    assert fills == []


def test_the_model_knows_nothing_of_the_sessions_it_trades(platform: Platform, first_pass: Pass) -> None:
    (version,) = platform.workspace().registry().list(MARKET)[:1]
    decided = [decision for sessions in first_pass.ledger.values() for _, decision, *_ in sessions]
    assert {decision.model_version for decision in decided} == {str(version.version)}
    assert all(version.cutoff < decision.decision_session for decision in decided)


def test_every_step_was_a_dag_run_of_its_own_and_succeeded(platform: Platform, first_pass: Pass) -> None:
    for dag_id in HEADS:
        ours = [r for r in platform.runs(dag_id) if r["run_type"] in ("manual", "asset_triggered")]
        assert {r["state"] for r in ours} == {"success"}, (dag_id, ours)
    assert {r["run_type"] for r in platform.runs("batch_inference")[-1:]} == {"asset_triggered"}


def test_the_reports_open_in_airflow_for_who_is_logged_in(platform: Platform, first_pass: Pass) -> None:
    """Airflow's own app with its login; who may see what is decided there."""
    for dag_id in ("train_model", "evaluate_strategies", "feature_backfill"):
        run_id = next(run["dag_run_id"] for run in platform.runs(dag_id)[::-1] if run["run_type"] != "scheduled")
        url = f"{platform.home.base_url}/trading/report/{dag_id}/{quote(run_id, safe='')}"
        assert httpx.get(url, timeout=START_S).status_code == 401
        forged = {"Authorization": "Bearer x.y.z"}
        assert httpx.get(url, headers=forged, timeout=START_S).status_code == 403
        found = platform.api._client.get(url)
        assert found.status_code == (404 if dag_id == "feature_backfill" else 200)
        assert found.headers["content-type"] == "text/html; charset=utf-8"
        assert found.headers["content-security-policy"].startswith("default-src 'none'")
        assert f"{'makes no report' if found.is_error else MARKET}" in found.text


def test_a_second_pass_trains_nothing_and_orders_nothing(
    platform: Platform, first_pass: Pass, second_pass: Pass
) -> None:
    assert second_pass.code == 0, second_pass.output
    assert "\ntraining ..." not in second_pass.output
    assert second_pass.versions == first_pass.versions == [1]
    assert len([r for r in platform.runs("train_model") if r["start_date"] < second_pass.finished.isoformat()]) == 1
    for account in (LIVE, replay_account(first_pass)):
        assert second_pass.ledger[account] == first_pass.ledger[account]
    assert second_pass.contents == first_pass.contents
