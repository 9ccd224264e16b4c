"""Features -> a model version, by hand from the form. The training itself is `trading train --request URI`, wherever it runs.

`local` runs it as a process of its own beside the Airflow worker, `gpu_queue` as a task for a Celery worker that listens on
the queue `gpu` (without Celery: the same as local), `kubernetes` in a pod with a GPU.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import runtime
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import Param, dag, result, task
from assets import MODEL

TRAINING_TIMEOUT = timedelta(hours=12)
PLACES = {"local": "train_locally", "gpu_queue": "train_on_gpu_queue", "kubernetes": "train_on_kubernetes"}
# The pod reads its settings from these variables; credentials come from the Kubernetes secret, never from the DAG.
POD_VARIABLES = (
    "TRADING_ARTIFACTS_URL",
    "TRADING_MLFLOW_TRACKING_URI",
    "TRADING_MLFLOW_ARTIFACTS_URL",
    "TRADING_S3_ENDPOINT_URL",
    "TRADING_S3_REGION",
)


def training_pod() -> KubernetesPodOperator:
    """The pod that trains: one GPU, shared memory for the data loader, credentials from a secret."""
    from kubernetes.client import models as k8s

    gpus = int(_variable("TRADING_TRAIN_GPUS", "1"))
    limits = {"memory": _variable("TRADING_TRAIN_MEMORY", "16Gi"), **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    requests = {"cpu": _variable("TRADING_TRAIN_CPU", "4"), **limits}
    tolerations = [k8s.V1Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")] if gpus else []
    memory = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit="8Gi")
    kubeconfig = _variable("TRADING_KUBECONFIG") or None
    return KubernetesPodOperator(
        task_id="train_on_kubernetes",
        name="trading-train",
        namespace=_variable("TRADING_KUBERNETES_NAMESPACE", "default"),
        image=_variable("TRADING_TRAIN_IMAGE", "trading-platform:latest"),
        cmds=["trading"],
        arguments=["train", "--request", "{{ ti.xcom_pull(task_ids='prepare', key='request')['request_uri'] }}"],
        env_vars={name: os.environ[name] for name in POD_VARIABLES if os.environ.get(name)},
        env_from=[k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name="trading-secrets", optional=True))],
        container_resources=k8s.V1ResourceRequirements(requests=requests, limits=limits),
        tolerations=tolerations,
        volumes=[k8s.V1Volume(name="shm", empty_dir=memory)],
        volume_mounts=[k8s.V1VolumeMount(name="shm", mount_path="/dev/shm")],
        config_file=kubeconfig,
        in_cluster=None if kubeconfig is None else False,
        startup_timeout_seconds=900,  # GPU images are large: the default of 120 s ends in a failed pull
        get_logs=True,
        automount_service_account_token=False,  # a training has no business with the cluster
        do_xcom_push=False,  # the result lies in the artifact store: no sidecar needed
        on_finish_action="delete_pod",
        execution_timeout=TRAINING_TIMEOUT,
        retries=1,
    )


def _variable(name: str, default: str = "") -> str:
    """An environment variable; set but empty means the default, as for every setting."""
    return os.environ.get(name) or default


@dag(
    schedule=None,
    max_active_runs=4,
    default_args=runtime.DEFAULT_ARGS,
    tags=["trading", "models"],
    doc_md=__doc__,
    params={
        "market": runtime.market_param(),
        "model": runtime.name_param(
            "models", runtime.SETTINGS.model, "Model", "A file of configs/models, or of configs/zoo."
        ),
        "where": Param(
            runtime.SETTINGS.train_where,
            type="string",
            enum=list(PLACES),
            title="Where to train",
            description="local: a process on this machine; gpu_queue: a worker on queue 'gpu'; kubernetes: a GPU pod.",
        ),
        "test_start": runtime.date_param(
            "First session the model must not know",
            "Every label it uses was known before this session. Default: the market's last `test_sessions` stay unseen.",
        ),
        "seed": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            maximum=2**31 - 1,
            title="Seed",
            description="Default: the config's.",
        ),
        "epochs": Param(
            None, type=["null", "integer"], minimum=1, maximum=500, title="Epochs", description="Default: the config's."
        ),
        "learning_rate": Param(
            None,
            type=["null", "number"],
            exclusiveMinimum=0,
            maximum=1,
            title="Learning rate",
            description="Default: the config's.",
        ),
        "reuse": Param(
            True,
            type="boolean",
            title="Reuse an identical model",
            description="When a version with the same config, data versions and seed exists, take it instead of training again.",
        ),
    },
)
def train_model() -> None:
    @task.branch
    def prepare(*, ti: Any) -> str:
        """Writes the training request (config, data versions, split, seed) and chooses where it runs."""
        from trading_core.pipelines import refs, train

        params = runtime.form()
        if params["where"] == "kubernetes":
            train.require_shared_store(runtime.settings())
        request = train.prepare(
            runtime.workspace(),
            model=params["model"],
            test_start=runtime.parse_date(params["test_start"]),
            seed=params["seed"],
            epochs=params["epochs"],
            learning_rate=params["learning_rate"],
            reuse=params["reuse"],
            now=runtime.now(),
        )
        ti.xcom_push("request", refs.dump(request))
        return PLACES[params["where"]]

    @task(pool="training", execution_timeout=TRAINING_TIMEOUT, retries=1)
    def train_locally(request: dict[str, Any]) -> None:
        from trading_core.pipelines import refs, train

        train.run_in_process(refs.load(refs.TrainingRef, request), runtime.settings())

    @task(pool="training", queue="gpu", execution_timeout=TRAINING_TIMEOUT, retries=1)
    def train_on_gpu_queue(request: dict[str, Any]) -> None:
        from trading_core.pipelines import refs, train

        train.run_in_process(refs.load(refs.TrainingRef, request), runtime.settings())

    @result
    @task(trigger_rule="none_failed_min_one_success", outlets=[MODEL])
    def register(request: dict[str, Any], *, outlet_events: Any) -> dict[str, Any]:
        """The model version the training left, as an event that starts batch_inference."""
        from trading_core.pipelines import refs, run_reports, train

        ref = refs.load(refs.TrainingRef, request)
        ws = runtime.workspace(ref.market)
        version = train.outcome(ws, ref)
        run_reports.note_training(ws, runtime.safe_run_id(), version)
        made = refs.dump(version)
        outlet_events[MODEL].extra = {"market": made["market"], "version": str(made["version"])}
        return made

    prepared = prepare()
    request = prepared["request"]
    prepared >> [train_locally(request), train_on_gpu_queue(request), training_pod()] >> register(request)


train_model()
