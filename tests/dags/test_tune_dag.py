"""The DAG tune_model through Airflow itself (`dag.test()`): workers as mapped tasks, trainings in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from test_train_on_kubernetes import REPOSITORY, airflow_environment, marked, python

from trading_core import config
from trading_core.config import Settings
from trading_core.pipelines import backfill
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.schema import TRIALS

NOW = datetime(2024, 7, 10, 22, 0, tzinfo=UTC)
MARKET = {
    "id": "tiny",
    "source": "simulated",
    "history_start": "2023-01-03",
    "history_end": "2024-06-28",
    "test_sessions": 60,
    "options": {"symbols": 12, "start": "2023-01-03", "seed": 3},
}

RUN_DAG = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder=sys.argv[1])
assert not bag.import_errors, bag.import_errors
run = bag.get_dag("tune_model").test(run_conf=json.loads(sys.argv[2]))
found = run.get_task_instances()
states = sorted([ti.task_id, ti.map_index, str(ti.state)] for ti in found)
[best] = [ti for ti in found if ti.task_id == "best"]
print("OUTCOME " + json.dumps({"run": str(run.state), "tasks": states, "best": best.xcom_pull(task_ids="best")}))
"""


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for name in [name for name in os.environ if name.startswith("TRADING_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "var" / "configs" / "markets"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(MARKET))
    ws = open_workspace("tiny", Settings(var_dir=tmp_path / "var"))
    backfill.run(ws, start=None, end=None, refresh=False, run_id="fill", now=NOW)
    return ws


@pytest.mark.thorough
@pytest.mark.airflow
def test_mapped_workers_reach_the_count_and_the_best_config_is_saved(ws: Workspace, tmp_path: Path) -> None:
    home = tmp_path / "airflow"
    home.mkdir()
    variables = airflow_environment(home, {"TRADING_VAR_DIR": str(ws.settings.var_dir), "TRADING_MARKET": "tiny"})
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env=variables, check=True, capture_output=True)
    conf: dict[str, Any] = {"market": "tiny", "model": "linear", "trials": 3, "workers": 2, "save_as": "linear-tuned"}
    code, output = python(RUN_DAG, variables, str(REPOSITORY / "dags" / "tune_model.py"), json.dumps(conf))
    assert code == 0, output[-6000:]
    outcome = marked(output, "OUTCOME")
    assert outcome["run"] == "success"
    assert outcome["tasks"] == [
        ["best", -1, "success"],
        ["prepare", -1, "success"],
        ["search", 0, "success"],
        ["search", 1, "success"],
    ]
    best = outcome["best"]
    assert best["complete"] == 3
    rows = ws.tables.read(TRIALS.name)
    assert rows.filter(pl.col("source").str.starts_with("tuning")).height == 3
    tuned = config.load_model("linear-tuned", ws.settings)
    assert tuned.architecture["ridge"] == best["best_options"]["architecture.ridge"]
    assert "3 of 3 trials are there" in output  # the second worker found nothing left to do
