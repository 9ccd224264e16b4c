"""Airflow for tests: a home of its own, the project's DAGs and plugins, nothing of the caller's settings.

Run as a program it loads all DAGs the way the DAG processor does and prints what it found as JSON (`parse_dags`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
DAGS, PLUGINS = REPOSITORY / "dags", REPOSITORY / "plugins"
# What a DAG file must never load while it is parsed. boto3 is not among them: Airflow loads its Amazon provider itself.
HEAVY = ["deltalake", "exchange_calendars", "httpx", "lightning", "mlflow", "numpy", "pandas", "plotly", "polars"]
HEAVY += ["optuna", "pyarrow", "pytorch_forecasting", "scipy", "sklearn", "torch", "yfinance"]


def airflow_environment(home: Path, **more: str) -> dict[str, str]:
    """The variables of a process that runs Airflow under `home`: the folders of `launcher.environment`, SQLite."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "TRADING_"))}
    (home / "var").mkdir(parents=True, exist_ok=True)
    return {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "TRADING_VAR_DIR": str(home / "var"),
        **more,
    }


def parse_dags(
    home: Path, probes: Sequence[tuple[str, str, Any]], variants: Sequence[dict[str, str]]
) -> dict[str, Any]:
    """Facts about the DAGs, loaded in a process of its own under `home`.

    `probes`: (dag id, param, value) to validate as a trigger form would; the verdicts come back under "accepted".
    `variants`: environment variables; under "variants" the DAGs and import errors of a process that has them besides.
    """
    (home / "probes.json").write_text(json.dumps([list(probes), list(variants)]))
    command = [sys.executable, __file__, str(home / "probes.json"), str(home / "facts.json")]
    done = subprocess.run(command, env=airflow_environment(home), cwd=home, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The DAGs could not be loaded (exit code {done.returncode}):\n{done.stdout}\n{done.stderr}")
    return json.loads((home / "facts.json").read_text())


# --- inside the process that loads the DAGs ---------------------------------------------------------------------------


def import_what_airflow_brings() -> None:
    """Everything that the DAG files need of Airflow itself, so that what comes after is ours."""
    from airflow.dag_processing.dagbag import BundleDagBag  # noqa: F401
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator  # noqa: F401
    from airflow.sdk import (  # noqa: F401
        Asset,
        ExceptionRetryPolicy,
        Param,
        RetryAction,
        RetryRule,
        dag,
        get_current_context,
        result,
        task,
    )

    Asset(name="warm_up", uri="warm-up://asset")  # the first asset makes Airflow load the providers' URI handlers


def variant(environment: dict[str, str], answer: Path) -> dict[str, Any]:
    """What a fork of this process with `environment` finds: Airflow's own import takes far longer than the DAG files."""
    child = os.fork()
    if not child:
        os.environ.update(environment)
        from airflow.dag_processing.dagbag import BundleDagBag

        bag = BundleDagBag(dag_folder=str(DAGS), bundle_path=DAGS, bundle_name="dags-folder")
        found = {name: _dag_facts(dag) for name, dag in bag.dags.items()}
        answer.write_text(json.dumps({"import_errors": dict(bag.import_errors), "dags": found}))
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"The DAGs could not be loaded with {environment}")
    return json.loads(answer.read_text())


def facts(probes: Sequence[tuple[str, str, Any]], variants: Sequence[dict[str, str]], answers: Path) -> dict[str, Any]:
    import_what_airflow_brings()
    varied = [variant(environment, answers) for environment in variants]  # before any DAG file is loaded here
    from airflow import plugins_manager
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.utils.dag_version_inflation_checker import check_dag_file_stability

    before = set(sys.modules)
    bag = BundleDagBag(dag_folder=str(DAGS), bundle_path=DAGS, bundle_name="dags-folder")
    views = [view for plugin in plugins_manager._get_plugins()[0] for view in plugin.external_views]
    loaded = {name.split(".")[0] for name in set(sys.modules) - before}
    restored = cache(lambda dag_id: _restored(bag.dags[dag_id]))
    return {
        "import_errors": dict(bag.import_errors),
        "plugin_errors": {str(name): str(error) for name, error in plugins_manager.get_import_errors().items()},
        "views": [[view["name"], view["destination"], view["href"]] for view in views],
        "ours": sorted(name for name in sys.modules if name.startswith("trading_core.")),
        "heavy_modules": sorted(loaded & set(HEAVY)),
        "dags": {dag_id: _dag_facts(dag) for dag_id, dag in bag.dags.items()},
        "variants": varied,
        "accepted": [_accepts(restored(dag_id), param, value) for dag_id, param, value in probes],
        "unstable": {
            path.name: [str(w) for w in _warnings(check_dag_file_stability, path)] for path in DAGS.glob("*.py")
        },
    }


def _warnings(check: Any, path: Path) -> list[Any]:
    result = check(str(path))
    return list(result.warnings) + list(result.runtime_varying_values)


def _dag_facts(dag: Any) -> dict[str, Any]:
    """What the author wrote (tasks), and what the scheduler and the API server see of it after serialization."""
    restored = _restored(dag)
    return {
        "file": Path(dag.fileloc).name,
        "authored_timetable": _timetable(dag.timetable),
        "timetable": _timetable(restored.timetable),
        "starting_assets": sorted(key.name for key, _ in restored.timetable.asset_condition.iter_assets())
        if restored.timetable.asset_condition
        else [],
        "catchup": restored.catchup,
        "max_active_runs": restored.max_active_runs,
        "tags": sorted(restored.tags),
        "doc": restored.doc_md or "",
        "params": {name: _param(restored.params.get_param(name)) for name in restored.params},
        "restored_tasks": sorted(restored.task_ids),
        "tasks": {task.task_id: _task(task) for task in dag.tasks},
    }


def _restored(dag: Any) -> Any:
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))


def _timetable(timetable: Any) -> dict[str, Any]:
    known = timetable.serialize() if type(timetable).__name__ == "SessionTimetable" else {}
    return {"type": type(timetable).__name__, "partitioned": bool(getattr(timetable, "partitioned", False)), **known}


def _param(param: Any) -> dict[str, Any]:
    return {"default": param.value, "description": param.description or "", "schema": dict(param.schema)}


def _task(task: Any) -> dict[str, Any]:
    task = getattr(task, "operator", task)
    partial = getattr(task, "partial_kwargs", {})  # of a mapped task
    value = lambda name: partial.get(name, getattr(task, name, None))  # noqa: E731
    timeout = value("execution_timeout")
    return {
        "mapped": bool(partial),
        "retries": value("retries"),
        "timeout_s": timeout.total_seconds() if timeout is not None else None,
        "pool": value("pool"),
        "queue": value("queue"),
        "outlets": sorted(asset.name for asset in value("outlets") or []),
        "downstream": sorted(task.downstream_task_ids),
    }


def _accepts(restored: Any, param: str, value: Any) -> bool:
    """Whether a trigger with this one value passes, through the serialized DAG, as the API server checks it."""
    from airflow.exceptions import ParamValidationError

    params = restored.params.deep_merge({param: value})  # a copy
    try:
        params.validate()
    except (ParamValidationError, ValueError):
        return False
    return True


if __name__ == "__main__":
    _found = facts(*json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    Path(sys.argv[2]).write_text(json.dumps(_found))
