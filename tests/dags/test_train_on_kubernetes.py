"""The training pod: its golden specification, and the true training command run through the real KubernetesPodOperator.

The cluster is `fake_kubernetes`; operator, DAG, Airflow's execution of the tasks (`dag.test()`), the S3 store (moto) and the
command `trading train --request URI` in the pod's process are real. The DAG's tasks get the S3 keys from the Airflow
connection `aws_default`, the pod gets them from its Kubernetes secret and nothing else from this machine's environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_kubernetes import FakeKubernetes, Pod, serve

from trading_core.config import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).resolve().parent / "golden"
NOW = datetime(2024, 7, 10, 22, 0, tzinfo=UTC)
MARKET = {
    "id": "tiny",
    "source": "simulated",
    "calendar": "XNYS",
    "history_start": "2022-01-03",
    "history_end": "2024-06-28",
    "test_sessions": 60,
    "options": {"symbols": 30, "start": "2022-01-03", "seed": 3, "signal_ic": 0.1},
}
KEYS = {"TRADING_S3_ACCESS_KEY_ID": "testing", "TRADING_S3_SECRET_ACCESS_KEY": "testing"}
POD_SETTINGS = {
    "TRADING_ARTIFACTS_URL": "s3://trading/artifacts",
    "TRADING_MLFLOW_TRACKING_URI": "http://mlflow:5000",
    "TRADING_MLFLOW_ARTIFACTS_URL": "mlflow-artifacts:/trading",
    "TRADING_S3_ENDPOINT_URL": "http://minio:9000",
}
SECRETS = {
    **{name: f"{name.lower()}-secret" for name in KEYS},
    "MLFLOW_TRACKING_PASSWORD": "mlflow-secret",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
}

RUN_DAG = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder=sys.argv[1])
assert not bag.import_errors, bag.import_errors
run = bag.get_dag("train_model").test(run_conf=json.loads(sys.argv[2]))
states = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
print("OUTCOME " + json.dumps({"run": str(run.state), "tasks": states}))
"""

PRINT_PODS = """
import json, os, sys, train_model
from kubernetes.client import ApiClient
for variables in json.loads(sys.argv[1]):
    os.environ.update(variables)
    pod = train_model.training_pod().build_pod_request_obj(dry_run=True)
    print("POD " + json.dumps(ApiClient().sanitize_for_serialization(pod)))
    for name in variables:
        del os.environ[name]
"""


def airflow_environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that imports Airflow: settings of this machine's own installation are left out."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TRADING_", "AIRFLOW", "AWS_", "MLFLOW_"))
    }
    airflow = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "PYTHONPATH": f"{REPOSITORY / 'dags'}:{REPOSITORY / 'plugins'}",
        "OMP_NUM_THREADS": "1",
    }
    return {**kept, **airflow, **more}


def python(code: str, environment: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Runs `code` in a Python of its own: exit code and everything it printed."""
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=200, check=False)
    return done.returncode, done.stdout + done.stderr


def marked(output: str, mark: str) -> Any:
    """The JSON after the word `mark` at a line's start."""
    lines = [line for line in output.splitlines() if line.startswith(f"{mark} ")]
    assert lines, f"no line '{mark} ...' in:\n{output[-4000:]}"
    return json.loads(lines[-1].removeprefix(f"{mark} "))


# --- the specification ------------------------------------------------------------------------------------------------


def pod_specs(home: Path, *cases: Mapping[str, str]) -> list[dict[str, Any]]:
    """The specification of the pod for each set of variables."""
    code, output = python(PRINT_PODS, airflow_environment(home, {}), json.dumps(cases))
    assert code == 0, output[-4000:]
    return [json.loads(line.removeprefix("POD ")) for line in output.splitlines() if line.startswith("POD ")]


def test_training_pod_equals_its_golden_file_and_asks_for_gpus_only_when_told(tmp_path: Path) -> None:
    cpu_only = {
        "TRADING_TRAIN_GPUS": "0",
        "TRADING_TRAIN_MEMORY": "2Gi",
        "TRADING_TRAIN_CPU": "2",
        "TRADING_KUBECONFIG": "",
    }
    pod, without = pod_specs(tmp_path, {**POD_SETTINGS, **SECRETS}, cpu_only)
    text = json.dumps(pod)
    assert not [value for value in SECRETS.values() if value in text], (
        "a secret is written into the pod's specification"
    )
    assert pod["metadata"].pop("name").startswith("trading-train-")  # a random ending
    del pod["metadata"]["labels"]["airflow_version"]
    assert pod == json.loads((GOLDEN / "training_pod.json").read_text())
    container = pod["spec"]["containers"][0]
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    # Kubernetes refuses a GPU request unlike its limit.
    assert limits["nvidia.com/gpu"] == requests["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["spec"]["tolerations"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]

    resources = without["spec"]["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    assert not without["spec"].get("tolerations")


# --- end to end -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A market with features in an S3 bucket, an Airflow home with its database, and the settings of both."""

    airflow_home: Path
    variables: dict[str, str]
    endpoint: str

    @property
    def settings(self) -> Settings:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("TRADING_")]:
                patch.delenv(name)
            for name, value in {**self.variables, **KEYS}.items():
                patch.setenv(name, value)
            return Settings()

    def environment(self, cluster: FakeKubernetes) -> dict[str, str]:
        extra = {"endpoint_url": self.endpoint, "region_name": "us-east-1"}
        connection = {"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra}
        own = {
            "TRADING_KUBECONFIG": str(cluster.kubeconfig()),
            "TRADING_TRAIN_GPUS": "0",
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        }
        return airflow_environment(self.airflow_home, {**self.variables, **own})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, s3_server: str, s3_client: Any) -> Place:
    """Bars and features of the small market, and a migrated Airflow database: made once for the tests below."""
    root = tmp_path_factory.mktemp("kubernetes")
    configs = root / "configs"
    shutil.copytree(REPOSITORY / "configs", configs)
    (configs / "markets" / "tiny.yaml").write_text(yaml.safe_dump(MARKET))
    bucket = f"test-{uuid.uuid4().hex}"
    s3_client.create_bucket(Bucket=bucket)
    variables = {
        "TRADING_VAR_DIR": str(root / "var"),
        "TRADING_CONFIG_DIR": str(configs),
        "TRADING_MARKET": "tiny",
        "TRADING_ARTIFACTS_URL": f"s3://{bucket}/artifacts",
        "TRADING_S3_ENDPOINT_URL": s3_server,
        "TRADING_MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow' / 'mlflow.db'}",
        "TRADING_MLFLOW_ARTIFACTS_URL": str(root / "mlflow" / "artifacts"),
    }
    made = Place(root / "airflow", variables, s3_server)
    made.airflow_home.mkdir()
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    migrating = subprocess.Popen(
        command, env=airflow_environment(made.airflow_home, variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    _fill_features(made.settings)
    output = migrating.communicate(timeout=200)[0]
    assert migrating.returncode == 0, output.decode()[-4000:]
    return made


def _fill_features(settings: Settings) -> None:
    from trading_core.pipelines import backfill
    from trading_core.pipelines.workspace import open_workspace

    ws = open_workspace("tiny", settings)
    made = backfill.run(ws, start=None, end=None, refresh=False, run_id="test", now=NOW)
    assert made.rows > 10_000


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[[Mapping[str, str]], FakeKubernetes]]:
    """Starts a fake cluster whose secret `trading-secrets` holds the given variables."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda secret: stack.enter_context(serve(tmp_path / "cluster", {"trading-secrets": dict(secret)}))


def train(place: Place, cluster: FakeKubernetes, **conf: object) -> tuple[dict[str, Any], str]:
    """One run of the DAG train_model: its states by task, and all that was printed (the tasks' logs)."""
    asked = json.dumps({"market": "tiny", "model": "linear", "where": "kubernetes", **conf})
    dag_file = str(REPOSITORY / "dags" / "train_model.py")
    code, output = python(RUN_DAG, place.environment(cluster), dag_file, asked)
    assert code == 0, output[-6000:]
    return marked(output, "OUTCOME"), output


def only_pod(cluster: FakeKubernetes) -> Pod:
    assert len(cluster.created) == 1, [pod.name for pod in cluster.created]
    return cluster.created[0]


@pytest.mark.thorough
@pytest.mark.airflow
def test_pod_trains_registers_and_its_model_forecasts(place: Place, cluster: Callable[..., FakeKubernetes]) -> None:
    from trading_core.pipelines import infer
    from trading_core.pipelines.workspace import open_workspace
    from trading_core.storage.tables import Predicate

    kubernetes = cluster(KEYS)
    outcome, output = train(place, kubernetes)
    assert outcome["run"] == "success", output[-6000:]
    places = {name: outcome["tasks"][name] for name in ("train_locally", "train_on_gpu_queue", "train_on_kubernetes")}
    assert places == {"train_locally": "skipped", "train_on_gpu_queue": "skipped", "train_on_kubernetes": "success"}
    pod = only_pod(kubernetes)
    assert pod.process.args[:3] == ["trading", "train", "--request"]
    assert pod.process.args[3].startswith(place.variables["TRADING_ARTIFACTS_URL"])
    assert "TRADING_VAR_DIR" not in pod.environment  # the settings of the worker's own disk stay there
    assert kubernetes.deleted == [pod.name]
    assert "linear: " in output  # the pod's own words reached the task's log

    ws = open_workspace("tiny", place.settings)
    [version] = ws.registry().list("tiny")
    assert (version.model, set(version.aliases)) == ("linear", {"champion", "challenger"})
    made = infer.infer(ws, version="champion", start=None, end=None, run_id="test", now=NOW)
    assert made.model_version == str(version.version)
    assert version.cutoff < date(2024, 4, 4) <= made.start  # 60 sessions before the end of the history stay unseen
    assert made.end == date(2024, 6, 28)
    bars = ws.tables.read("bars", columns=["symbol"], where=Predicate(made.start, made.end))
    assert made.rows == 2 * len(bars)  # both horizons of every symbol that was still listed


@pytest.mark.thorough
@pytest.mark.airflow
def test_failing_pod_fails_the_task_shows_its_log_and_registers_nothing(
    place: Place, cluster: Callable[..., FakeKubernetes]
) -> None:
    from trading_core.pipelines.workspace import open_workspace

    before = open_workspace("tiny", place.settings).registry().list("tiny")
    kubernetes = cluster({"TRADING_S3_ACCESS_KEY_ID": "testing"})  # somebody forgot the other half of the key
    outcome, output = train(place, kubernetes, seed=8)
    assert outcome["run"] == "failed", output[-6000:]
    assert outcome["tasks"]["train_on_kubernetes"] == "failed"
    assert outcome["tasks"]["register"] == "upstream_failed"
    assert "give access_key_id and secret_access_key together" in output
    assert all(pod.process.returncode == 2 for pod in kubernetes.created)
    assert sorted(kubernetes.deleted) == sorted(pod.name for pod in kubernetes.created)
    assert open_workspace("tiny", place.settings).registry().list("tiny") == before
