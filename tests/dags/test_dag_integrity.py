"""The DAG files as Airflow's DAG processor loads them, in a process and an AIRFLOW_HOME of their own."""

from __future__ import annotations

import ast
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow_env import DAGS, HEAVY, REPOSITORY, airflow_environment, parse_dags

from launcher import job
from trading_core import config, errors
from trading_core.pipelines.evaluation_inputs import Wanted

DAG_IDS = {"feature_backfill", "train_model", "tune_model", "batch_inference", "evaluate_strategies", "daily_trade"}
DAG_IDS |= {"controls"}
# Values that a trigger form must refuse, each of them a mistake a person can make.
REFUSED: list[tuple[str, str, Any]] = [
    *((dag_id, "market", "no-such-market") for dag_id in sorted(DAG_IDS)),
    *((dag_id, "market", None) for dag_id in sorted(DAG_IDS)),
    ("feature_backfill", "start", "2024-13-40"),
    ("feature_backfill", "end", "yesterday"),
    ("feature_backfill", "start", 20240102),
    ("feature_backfill", "refresh", "maybe"),
    ("train_model", "model", "no-such-model"),
    ("train_model", "where", "on-the-moon"),
    ("train_model", "test_start", "02/01/2024"),
    ("train_model", "seed", -1),
    ("train_model", "seed", 1.5),
    ("train_model", "epochs", 0),
    ("train_model", "learning_rate", 0),
    ("train_model", "reuse", 1),
    ("tune_model", "model", "no-such-model"),
    ("tune_model", "trials", 0),
    ("tune_model", "trials", 501),
    ("tune_model", "workers", 17),
    ("tune_model", "workers", "two"),
    ("tune_model", "seed", -1),
    ("tune_model", "test_start", "02/01/2024"),
    ("tune_model", "save_as", "../escape"),
    ("batch_inference", "version", "v1"),
    ("batch_inference", "version", "0"),
    ("batch_inference", "start", "2024-02-30"),
    ("evaluate_strategies", "strategies", []),
    ("evaluate_strategies", "strategies", ["no-such-strategy"]),
    ("evaluate_strategies", "strategies", None),  # what the form sends when the last one is taken away
    ("evaluate_strategies", "capital", 0),
    ("evaluate_strategies", "versions", ["champion", "latest"]),
    ("evaluate_strategies", "versions", "champion"),
    ("evaluate_strategies", "versions", ["0"]),
    ("evaluate_strategies", "walk_forwards", ["../escape"]),
    ("evaluate_strategies", "fill_at", "noon"),
    ("evaluate_strategies", "end", "31.12.2024"),
    ("evaluate_strategies", "random_portfolios", -1),
    ("evaluate_strategies", "random_portfolios", 10_001),
    ("evaluate_strategies", "seed", 2**31),
    ("evaluate_strategies", "strategies_per_task", 0),
    ("evaluate_strategies", "commission_bps", -1),
    ("evaluate_strategies", "half_spread_bps", 1000.5),
    ("evaluate_strategies", "slippage_bps", "two"),
    ("evaluate_strategies", "impact_coefficient", 11),
    ("evaluate_strategies", "max_participation", 0),
    ("evaluate_strategies", "max_participation", 1.5),
    ("evaluate_strategies", "borrow_bps_annual", 10_001),
    ("evaluate_strategies", "interest_bps_annual", -0.5),
    ("daily_trade", "strategy", "no-such-strategy"),
    ("daily_trade", "session", "2024-2-1"),
    ("daily_trade", "replay", "../escape"),
    ("daily_trade", "replay", "Capital Letters"),
    ("controls", "action", "explode"),
    ("controls", "reason", ""),
    ("controls", "reason", "x" * 201),
    ("controls", "order", 7),
    ("controls", "order", "t" * 65),
]
# The same fields must take what is right: a schema that refuses everything would pass the list above.
ACCEPTED: list[tuple[str, str, Any]] = [
    *((dag_id, "market", "simulated") for dag_id in sorted(DAG_IDS)),
    ("feature_backfill", "start", "2024-02-29"),
    ("feature_backfill", "end", None),
    ("feature_backfill", "refresh", True),
    ("train_model", "model", "linear"),
    ("train_model", "where", "kubernetes"),
    ("train_model", "seed", 0),
    ("train_model", "epochs", 1),
    ("train_model", "learning_rate", 0.001),
    ("tune_model", "model", "linear"),
    ("tune_model", "trials", 500),
    ("tune_model", "workers", 16),
    ("tune_model", "seed", None),
    ("tune_model", "save_as", "lstm-tuned"),
    ("batch_inference", "version", "challenger"),
    ("batch_inference", "version", "17"),
    ("evaluate_strategies", "strategies", ["top10"]),
    ("evaluate_strategies", "capital", 25_000),
    ("evaluate_strategies", "versions", ["champion", "challenger", "17"]),
    ("evaluate_strategies", "versions", ["champion", ""]),  # a new line after the last name
    ("evaluate_strategies", "versions", None),  # walk-forwards alone
    ("evaluate_strategies", "walk_forwards", ["0123456789abcdef"]),
    ("evaluate_strategies", "fill_at", "vwap"),
    ("evaluate_strategies", "random_portfolios", 0),
    ("evaluate_strategies", "strategies_per_task", 1),
    ("evaluate_strategies", "commission_bps", 0),
    ("evaluate_strategies", "max_participation", 1),
    ("evaluate_strategies", "interest_bps_annual", None),
    ("daily_trade", "strategy", "equal-weight"),
    ("daily_trade", "session", "2026-11-27"),
    ("daily_trade", "replay", "what-if-1"),
    *(("controls", "action", name) for name in ("halt", "resume", "flatten", "settle", "adopt", "resolve")),
    ("controls", "order", "t75d7966d9780abd4f89bb9ed6998370d2957571b74d6f4e"),
    ("controls", "reason", "earnings season"),
]
OTHER_SETTINGS = {
    "TRADING_CLOSE_DELAY_MINUTES": "90",
    "TRADING_OPEN_LEAD_MINUTES": "5",
    "TRADING_STRATEGY": "equal-weight",
}
MISSPELT = {"TRADING_STRATEGY": "top1O"}


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parse_dags(tmp_path_factory.mktemp("airflow"), [*REFUSED, *ACCEPTED], [OTHER_SETTINGS, MISSPELT])


@pytest.fixture(scope="module")
def dags(parsed: dict[str, Any]) -> dict[str, Any]:
    return parsed["dags"]


@pytest.fixture(scope="module")
def verdicts(parsed: dict[str, Any]) -> list[bool]:
    return parsed["accepted"]


def _tasks(dags: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{dag_id}.{name}", task) for dag_id, dag in dags.items() for name, task in dag["tasks"].items()]


def test_all_files_import_and_hold_exactly_the_seven_dags(parsed: dict[str, Any]) -> None:
    assert parsed["import_errors"] == {}
    assert set(parsed["dags"]) == DAG_IDS == set(job.DAGS) == set(job.UNPAUSE)
    assert {dag["file"] for dag in parsed["dags"].values()} == {f"{dag_id}.py" for dag_id in DAG_IDS}


def test_partitioned_dags_follow_the_sessions(dags: dict[str, Any]) -> None:
    def timetable(anchor: str, minutes: int) -> dict[str, Any]:
        found = {"type": "SessionTimetable", "partitioned": True, "calendar": "XNYS"}
        return {**found, "anchor": anchor, "offset_minutes": minutes}

    assert dags["feature_backfill"]["timetable"] == timetable("close", 30)
    assert dags["daily_trade"]["timetable"] == timetable("open", -30)


def test_no_other_dag_is_partitioned(dags: dict[str, Any]) -> None:
    assert {name for name, dag in dags.items() if dag["timetable"]["partitioned"]} == {
        "feature_backfill",
        "daily_trade",
    }


def test_assets_join_model_forecasts_and_evaluation(dags: dict[str, Any]) -> None:
    starts = {name: dag["starting_assets"] for name, dag in dags.items()}
    assert starts == {
        **{dag_id: [] for dag_id in DAG_IDS},
        "batch_inference": ["trading_model"],
        "evaluate_strategies": ["trading_forecasts"],
    }
    outlets = {name: asset for name, task in _tasks(dags) for asset in task["outlets"]}
    assert outlets == {
        "feature_backfill.publish": "trading_features",
        "train_model.register": "trading_model",
        "batch_inference.publish": "trading_forecasts",
        "evaluate_strategies.compare": "trading_evaluation",
    }


@pytest.mark.parametrize("dag_id", ["train_model", "tune_model", "controls"])
def test_dags_by_hand_have_no_schedule(dags: dict[str, Any], dag_id: str) -> None:
    assert dags[dag_id]["timetable"] == {"type": "NullTimetable", "partitioned": False}


def test_serialization_keeps_timetables_and_tasks(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert dag["timetable"] == dag["authored_timetable"]
        assert dag["restored_tasks"] == sorted(dag["tasks"])


def test_nothing_catches_up_and_trades_go_one_at_a_time(dags: dict[str, Any]) -> None:
    assert {name for name, dag in dags.items() if dag["catchup"]} == set()
    assert dags["daily_trade"]["max_active_runs"] == 1
    assert {task["pool"] for task in dags["daily_trade"]["tasks"].values()} == {"trading"}
    assert job.POOLS["trading"][0] == 1


def test_every_dag_explains_itself(dags: dict[str, Any]) -> None:
    for name, dag in dags.items():
        assert len(dag["doc"]) > 40, name
        assert "trading" in dag["tags"], name


def test_every_task_is_retried_and_ends_in_time(dags: dict[str, Any]) -> None:
    assert [name for name, task in _tasks(dags) if not task["retries"]] == []
    assert [name for name, task in _tasks(dags) if task["timeout_s"] is None] == []


def test_every_pool_is_created_by_the_launcher(dags: dict[str, Any]) -> None:
    used = {task["pool"] for _, task in _tasks(dags)}
    assert used <= {*job.POOLS, "default_pool"}
    assert set(job.POOLS) <= used


def test_orders_are_sold_before_they_are_bought_and_settled_last(dags: dict[str, Any]) -> None:
    after = {name: set(task["downstream"]) for name, task in dags["daily_trade"]["tasks"].items()}
    order = ["check", "infer", "decide", "approve", "sell", "wait_sold", "buy", "wait_bought", "settle"]
    assert all(late in after[early] for early, late in pairwise(order))
    assert after["settle"] == set()


def test_a_search_is_mapped_over_its_workers_and_keeps_to_the_pool_of_trainings(dags: dict[str, Any]) -> None:
    tasks = dags["tune_model"]["tasks"]
    assert set(tasks) == {"prepare", "search", "best"}
    assert (tasks["search"]["mapped"], tasks["search"]["pool"]) == (True, "training")
    assert "search" in tasks["prepare"]["downstream"]
    assert tasks["search"]["downstream"] == ["best"]


def test_an_evaluation_is_mapped_over_batches_of_strategies_and_judges_them_together(dags: dict[str, Any]) -> None:
    tasks = dags["evaluate_strategies"]["tasks"]
    after = {name: set(task["downstream"]) for name, task in tasks.items()}
    assert after == {"targets": {"plan"}, "plan": {"simulate", "compare"}, "simulate": {"compare"}, "compare": set()}
    assert {name for name, task in tasks.items() if task["mapped"]} == {"simulate"}


@pytest.mark.parametrize("dag_id", ["daily_trade", "evaluate_strategies"])
def test_errors_that_are_not_retried_exist(dag_id: str) -> None:
    tree = ast.parse((DAGS / f"{dag_id}.py").read_text())
    names = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NO_RETRY"
    )
    assert names
    assert all(issubclass(getattr(errors, name), errors.TradingError) for name in names)


# --- forms ------------------------------------------------------------------------------------------------------------


def test_every_form_field_has_title_and_description(dags: dict[str, Any]) -> None:
    fields = [(f"{dag_id}.{name}", param) for dag_id, dag in dags.items() for name, param in dag["params"].items()]
    assert fields
    assert [name for name, param in fields if not param["schema"].get("title")] == []
    assert [name for name, param in fields if len(param["description"]) < 10] == []


def test_choices_are_the_names_of_the_config_files(dags: dict[str, Any]) -> None:
    def choices(dag_id: str, param: str) -> list[str]:
        schema = dags[dag_id]["params"][param]["schema"]
        return schema["items"]["enum"] if schema["type"] == "array" else schema["enum"]

    def files(kind: str) -> list[str]:
        return sorted(path.stem for path in (REPOSITORY / "configs" / kind).glob("*.yaml"))

    assert all(choices(dag_id, "market") == files("markets") for dag_id in DAG_IDS)
    comparisons = {"btc_direction"}  # of several models: nothing that is trained by itself
    zoo = [f"zoo/{name}" for name in files("zoo") if name not in comparisons]
    assert choices("train_model", "model") == choices("tune_model", "model") == sorted([*files("models"), *zoo])
    assert choices("daily_trade", "strategy") == choices("evaluate_strategies", "strategies") == files("strategies")


def test_defaults_are_those_of_the_settings(dags: dict[str, Any]) -> None:
    settings = config.Settings.model_fields
    assert {dag["params"]["market"]["default"] for dag in dags.values()} == {settings["market"].default}
    assert dags["train_model"]["params"]["model"]["default"] == settings["model"].default
    assert dags["daily_trade"]["params"]["strategy"]["default"] == settings["strategy"].default


def test_an_evaluation_from_the_form_is_the_one_of_the_command_line(dags: dict[str, Any]) -> None:
    """The DAG file cannot import the pipelines when it is parsed; the defaults that it repeats are theirs all the same."""
    params = dags["evaluate_strategies"]["params"]
    wanted = Wanted(versions=("champion",), strategies=tuple(config.names("strategies")))
    for name in ("start", "end", "capital", "fill_at", "seed", "random_portfolios"):
        assert params[name]["default"] == getattr(wanted, name)
    assert params["versions"]["default"] == list(wanted.versions)
    assert params["walk_forwards"]["default"] is None
    assert params["strategies"]["default"] == list(wanted.strategies)


def test_every_cost_of_a_market_can_be_replaced_within_its_bounds(dags: dict[str, Any]) -> None:
    costs = {
        name: p
        for name, p in dags["evaluate_strategies"]["params"].items()
        if "costs" in p["schema"].get("section", "")
    }
    assert set(costs) == set(config.CostConfig.model_fields)
    for name, param in costs.items():
        assert param["default"] is None
        for bound in ("minimum", "maximum"):
            if bound in param["schema"]:
                config.validate(config.CostConfig, {name: param["schema"][bound]}, name)


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=[f"{d}-{p}-{v}"[:60] for d, p, v in REFUSED])
def test_wrong_values_are_refused(verdicts: list[bool], index: int) -> None:
    assert verdicts[index] is False


@pytest.mark.parametrize("index", range(len(ACCEPTED)), ids=[f"{d}-{p}-{v}"[:60] for d, p, v in ACCEPTED])
def test_right_values_are_taken(verdicts: list[bool], index: int) -> None:
    assert verdicts[len(REFUSED) + index] is True


# --- what parsing costs -----------------------------------------------------------------------------------------------


def test_parsing_and_the_plugins_load_nothing_heavy(parsed: dict[str, Any]) -> None:
    assert parsed["heavy_modules"] == []
    assert not any(name.startswith(("trading_core.serving", "trading_core.storage")) for name in parsed["ours"])


def test_runs_and_tasks_have_a_tab_with_their_report(parsed: dict[str, Any]) -> None:
    assert parsed["plugin_errors"] == {}
    ours = [view for view in parsed["views"] if view[0] == "Report"]
    assert ours == [["Report", place, "trading/report/{DAG_ID}/{RUN_ID}"] for place in ("dag_run", "task_instance")]


def test_what_dags_import_of_ours_is_light(tmp_path: Path) -> None:
    """Even where Airflow itself has loaded a heavy module before: config and sessions in a bare interpreter."""
    modules = "trading_core.config, trading_core.errors, trading_core.sessions, sys"
    code = f"import {modules}; print([name for name in {HEAVY!r} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=airflow_environment(tmp_path), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_dag_file_makes_a_new_version_at_every_parse(parsed: dict[str, Any]) -> None:
    assert {name: found for name, found in parsed["unstable"].items() if found} == {}


def test_settings_reach_the_schedules(parsed: dict[str, Any]) -> None:
    found = parsed["variants"][0]["dags"]
    assert found["feature_backfill"]["timetable"]["offset_minutes"] == 90
    assert found["daily_trade"]["timetable"]["offset_minutes"] == -5
    assert found["daily_trade"]["params"]["strategy"]["default"] == "equal-weight"


def test_a_misspelt_strategy_never_trades_as_another_one(parsed: dict[str, Any]) -> None:
    found = parsed["variants"][1]
    assert "daily_trade" not in found["dags"]
    assert any("top1O" in error for error in found["import_errors"].values())
