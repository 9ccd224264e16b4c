"""Seconds that each DAG file takes to parse over what Airflow's own imports take: `python -m benchmarks.dag_parse`.

Airflow parses every file in a process that has imported Airflow already; what a file adds is its own code and what it
imports of ours. KubernetesPodOperator, which train_model needs at module level, is counted on Airflow's side. Target:
0.3 s for all files together (median of three fresh processes).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TARGET_S = 0.3
REPEATS = 3


def measure(files: list[str]) -> None:
    """Prints one line per file: its name, and the seconds its module took, in this process and this order."""
    from airflow.dag_processing.dagbag import BundleDagBag
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
    dags = REPOSITORY / "dags"
    BundleDagBag(dag_folder=os.devnull, bundle_path=dags, bundle_name="dags-folder")
    for name in files:
        begun = time.perf_counter()
        bag = BundleDagBag(dag_folder=str(dags / name), bundle_path=dags, bundle_name="dags-folder")
        seconds = time.perf_counter() - begun
        if bag.import_errors:
            raise SystemExit(str(bag.import_errors))
        print(f"PARSED {name} {seconds:.4f}")


def run(files: list[str], home: str) -> dict[str, float]:
    """Seconds per file, in one fresh process."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    command = [sys.executable, "-m", "benchmarks.dag_parse", "--measure", *files]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("PARSED")]
    return {name: float(seconds) for _, name, seconds in lines}


def main() -> None:
    ignored = set((REPOSITORY / "dags" / ".airflowignore").read_text().split())
    files = sorted(path.name for path in (REPOSITORY / "dags").glob("*.py") if path.name not in ignored)
    with tempfile.TemporaryDirectory() as home:
        for name in files:
            print(f"{name:<26} {run([name], home)[name]:6.3f} s   alone in a fresh process")
        together = statistics.median(sum(run(files, home).values()) for _ in range(REPEATS))
    print(f"{'all files, one process':<26} {together:6.3f} s   target {TARGET_S} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2:])
    else:
        main()
