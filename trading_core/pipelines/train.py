"""A training request and what becomes of it. `trading train --request URI` is the one entry point, wherever it runs.

A request is a JSON file in the artifact store that holds everything the training needs (configs, table versions, split,
seed), so a pod needs nothing but its URI and the store. An identical request has an identical hash and is not run twice.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from trading_core import __version__, config
from trading_core.config import ModelConfig, Settings
from trading_core.errors import InvalidConfigError, TooShortHistoryError, TrainingFailedError
from trading_core.features import build as features
from trading_core.models.registry import model_entry
from trading_core.pipelines import refs, requests
from trading_core.pipelines.markets import require_daily
from trading_core.pipelines.models import bundle_is_whole
from trading_core.pipelines.panels import current_versions, feature_sessions
from trading_core.pipelines.refs import ModelRef, TrainingRef
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BUNDLE_FORMAT
from trading_core.training.config import TrainingConfig, require_compilable

REQUEST_TAG = "request_hash"


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """Everything a training needs. `test_start`: the first session it must not have seen a label of.

    candidate: whether the version may become the one that trades, see registry.mlflow_registry.ModelVersion.
    """

    market: dict[str, Any]
    model_name: str
    model: dict[str, Any]
    start: date
    test_start: date
    versions: dict[str, int]
    fingerprints: dict[str, str]
    reuse: bool
    requested_at: datetime
    candidate: bool = True

    def hash(self) -> str:
        """Of what determines the model; two requests that differ only in when they were made are the same."""
        parts = {
            "format": BUNDLE_FORMAT,  # a bundle of another format stays where it is
            "market": self.market["id"],
            "costs": self.market.get("costs"),  # thresholds are searched net of them
            "name": self.model_name,
            "model": self.model,
            "range": [str(self.start), str(self.test_start)],
            "versions": self.versions,
            "fingerprints": self.fingerprints,
            "again": None if self.reuse else str(self.requested_at),
            # A version without an alias is not what a person who trains the same config is to be given.
            **({} if self.candidate else {"candidate": False}),
        }
        return config.config_hash(parts, 16)


def check_model_config(model: ModelConfig, where: str) -> None:
    """Validates what only the rooms know: feature names, architecture and training options. Errors: ConfigError."""
    features.fingerprints(model.features)
    config.parse_options(model_entry(model.model).config, model.architecture, f"architecture of {where}")
    training = config.parse_options(TrainingConfig, model.training, f"training of {where}")
    require_compilable(model_entry(model.model), training)


def prepare(
    ws: Workspace,
    *,
    model: str,
    test_start: date | None,
    now: datetime,
    given: ModelConfig | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    reuse: bool = True,
    candidate: bool = True,
) -> TrainingRef:
    """Writes the request and returns its reference. By default the market's last `test_sessions` stay unseen.

    given: the config, where it is not one that `model` names; the version is registered under that name all the same.
    candidate=False: no alias will point at the version, so that nothing trades with it live.

    Errors: ConfigError (model, features, options, an intraday market), NoDataError, TooShortHistoryError.
    """
    require_daily(ws.market)
    found = config.load_model(model, ws.settings) if given is None else given
    chosen = with_overrides(found, seed, epochs, learning_rate)
    check_model_config(chosen, f"model '{model}'")
    versions = current_versions(ws, chosen.features)
    request = TrainRequest(
        market=ws.market.model_dump(mode="json"),
        model_name=model,
        model=chosen.model_dump(mode="json"),
        start=ws.market.history_start,
        test_start=test_start or default_test_start(ws, now),
        versions=versions,
        fingerprints=features.fingerprints(chosen.features),
        reuse=reuse,
        requested_at=now,
        candidate=candidate,
    )
    return TrainingRef(ws.market.id, requests.write_request(ws, "training", request), request.hash())


def default_test_start(ws: Workspace, now: datetime) -> date:
    """The first of the market's last `test_sessions` sessions that have features."""
    stored = feature_sessions(ws)
    need = ws.market.test_sessions + 100
    if len(stored) < need:
        raise TooShortHistoryError(f"Training on market '{ws.market.id}'", len(stored), need)
    return stored[-ws.market.test_sessions]


def with_overrides(
    model: ModelConfig, seed: int | None, epochs: int | None, learning_rate: float | None
) -> ModelConfig:
    """The config with what a person asked for beside it; None leaves the config's own."""
    training = dict(model.training)
    if epochs is not None:
        training["epochs"] = epochs
    if learning_rate is not None:
        training["learning_rate"] = learning_rate
    return model.model_copy(update={"training": training, "seed": model.seed if seed is None else seed})


def run_in_process(ref: TrainingRef, settings: Settings) -> None:
    """Runs `trading train --request URI` as a child process: see `requests.run_in_process`. Errors: TrainingFailedError."""
    requests.run_in_process(["train", "--request", ref.request_uri], settings)


def require_shared_store(settings: Settings) -> None:
    """A pod cannot see this machine's folders. Errors: InvalidConfigError."""
    problems = []
    if not settings.artifacts.startswith("s3://"):
        problems.append(f"TRADING_ARTIFACTS_URL is the folder '{settings.artifacts}'; a pod needs s3://bucket/prefix")
    if not settings.mlflow_tracking_uri:
        problems.append("TRADING_MLFLOW_TRACKING_URI is not set; a pod needs an MLflow that this machine reads too")
    if problems:
        raise InvalidConfigError("Training on Kubernetes", problems)


def load_request(uri: str, settings: Settings) -> tuple[Workspace, TrainRequest]:
    """The request at `uri`, which must lie in the artifact store. Errors: UriEscapeError, StorageError, ConfigError."""
    return requests.read_request(uri, TrainRequest, settings)


def run(uri: str, settings: Settings, now: datetime) -> ModelRef:
    """Trains what the request asks for and registers it; an identical request that was run before is reused."""
    ws, request = load_request(uri, settings)
    done = ws.path("training", request.hash(), "result.json")
    known = _known_result(ws, request, done)
    if known is not None:
        if not ws.store.exists(done):
            ws.store.write_json(done, refs.dump(known))
        ws.store.delete(epochs_path(ws, request.hash()))  # of a run that ended between registering and clearing
        return known
    from trading_core.pipelines.fit import fit_and_register  # torch and MLflow only from here on

    made = fit_and_register(ws, request, now)
    ws.store.write_json(done, refs.dump(made))
    return made


def outcome(ws: Workspace, ref: TrainingRef) -> ModelRef:
    """What the training of `ref` left. Errors: TrainingFailedError when it left nothing."""
    path = ws.path("training", ref.request_hash, "result.json")
    if not ws.store.exists(path):
        raise TrainingFailedError(f"the training process left no result at '{path}'")
    made = refs.load(ModelRef, ws.store.read_json(path))
    known = ws.registry().version(made.market, made.version)
    if known.digest != made.digest:
        reason = f"version {made.version} is another model here: the training registered it in an MLflow of its own"
        raise TrainingFailedError(reason)
    return made


def _known_result(ws: Workspace, request: TrainRequest, path: str) -> ModelRef | None:
    """The version that an earlier run of the same request registered, if its bundle is whole.

    The registry is asked, not the result's file: a run may have ended between the two. Its metrics are in the file only.
    """
    found = ws.registry().find(ws.market.id, REQUEST_TAG, request.hash())
    if found is None or not bundle_is_whole(ws, found):
        return None
    written = refs.load(ModelRef, ws.store.read_json(path)) if ws.store.exists(path) else None
    report = report_path(ws, request.hash())
    return ModelRef(
        market=found.market,
        model=found.model,
        version=found.version,
        bundle=found.bundle_uri,
        digest=found.digest,
        cutoff=found.cutoff,
        aliases=found.aliases,
        reused=True,
        metrics=written.metrics if written is not None and written.version == found.version else {},
        report=report if ws.store.exists(report) else "",
    )


def report_path(ws: Workspace, request_hash: str) -> str:
    """Where the page of a training lies in the artifact store: beside its request."""
    return ws.path("training", request_hash, "report.html")


def epochs_path(ws: Workspace, request_hash: str) -> str:
    """Where the checkpoints of a training lie in the artifact store."""
    return ws.path("training", request_hash, "epochs")


def code_version() -> str:
    """The library's version and, in a checkout, the commit."""
    try:
        found = subprocess.run(
            ["git", "-C", str(config.PROJECT_ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return f"{__version__}+{found.stdout.strip()}"
