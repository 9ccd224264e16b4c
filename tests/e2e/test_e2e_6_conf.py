"""What Airflow's API answers to a wrong trigger."""

from __future__ import annotations

from typing import Any

import pytest
from platform_harness import Platform

from launcher.airflow_api import AirflowApiError


@pytest.mark.parametrize(
    ("dag_id", "conf", "named"),
    [
        ("train_model", {"model": "transformer"}, "transformer"),
        ("train_model", {"market": "moon"}, "moon"),
        ("train_model", {"where": "here"}, "here"),
        ("train_model", {"seed": -1}, "seed"),
        ("train_model", {"epochs": 0}, "epochs"),
        ("feature_backfill", {"start": "2026-02-30"}, "start"),
        ("feature_backfill", {"end": "yesterday"}, "end"),
        ("batch_inference", {"version": "best"}, "best"),
        ("evaluate_strategies", {"strategies": ["luck"]}, "luck"),
        ("evaluate_strategies", {"capital": 0}, "capital"),
        ("evaluate_strategies", {"versions": ["champion", "best"]}, "best"),
        ("evaluate_strategies", {"max_participation": 2}, "max_participation"),
        ("daily_trade", {"replay": "Not A Name"}, "Not A Name"),
        ("controls", {"action": "explode"}, "explode"),
    ],
)
def test_a_wrong_value_is_refused_before_there_is_a_run(
    platform: Platform, dag_id: str, conf: dict[str, Any], named: str
) -> None:
    before = platform.runs(dag_id)
    with pytest.raises(AirflowApiError, match="HTTP 400") as refused:
        platform.api.trigger(dag_id, conf)
    assert named in str(refused.value)
    assert len(platform.runs(dag_id)) == len(before)


@pytest.mark.parametrize("key", ["2026-11-21", "2025-12-25", "soon"])
def test_a_key_that_is_no_session_is_refused(platform: Platform, key: str) -> None:
    with pytest.raises(AirflowApiError, match="HTTP 400"):
        platform.api.trigger("daily_trade", {}, partition_key=key)


def test_an_unknown_key_fails_the_run_at_once_and_names_the_allowed_ones(platform: Platform) -> None:
    """Airflow itself takes any key; the DAG's first task refuses it, without a second try."""
    platform.rest("daily_trade")  # one run of it at a time, and each may write into the ledger
    before = platform.ledger_state()
    run_id = platform.api.trigger("daily_trade", {"sesion": "2026-01-05"})
    assert platform.wait("daily_trade", [run_id]) == {run_id: "failed"}
    log = platform.failure("daily_trade", run_id, "check")
    assert "Unknown key(s) in the run's conf: sesion" in log
    assert "Allowed: market, strategy, session, replay" in log
    assert platform.task("daily_trade", run_id, "check")["try_number"] == 1
    assert platform.ledger_state() == before
