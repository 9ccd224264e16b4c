"""Model versions in MLflow: logged, registered, promoted, and resolved as of a date.

One experiment and one registered model (`trading-<market>`) per market. A version points at a bundle in the artifact
store; MLflow holds its parameters, curves, small artifacts and tags, never a model it could unpickle.
"""

from __future__ import annotations

import builtins
import fcntl
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trading_core.errors import NoModelError, StoreUnreachableError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"
_NO_CANDIDATE = {"candidate": "false"}
_TAGS = {"model", "bundle_uri", "digest", "cutoff"}
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the second: an alias that is not set


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One registered version of a market's model.

    name: MLflow's registered model. model: the architecture's name. digest: of the bundle's manifest. cutoff: the last
    session whose prices the version has learned from; it may decide for later sessions only. candidate: whether it stands
    for champion: one of many that a walk-forward registers, each for the sessions of its day, gets no alias by itself.
    """

    market: str
    name: str
    version: int
    model: str
    bundle_uri: str
    digest: str
    cutoff: date
    aliases: tuple[str, ...]
    run_id: str
    created_at: datetime
    candidate: bool = True


class Registry:
    """MLflow behind `tracking_uri` (`sqlite:///path` or a server's URL). Nothing is opened before the first call.

    artifacts_location: the folder or S3 URL under which runs keep their artifacts; "" leaves it to a tracking server.
    All methods raise StoreUnreachableError when MLflow does not answer.
    """

    def __init__(self, tracking_uri: str, artifacts_location: str = "") -> None:
        self.tracking_uri = tracking_uri
        self.artifacts_location = artifacts_location.rstrip("/")

    def log_run(
        self,
        market: str,
        run_name: str,
        params: Mapping[str, str | int | float | bool | None],
        metrics: Mapping[str, float],
        curves: Mapping[str, Sequence[float]],
        files: Mapping[str, bytes],
        tags: Mapping[str, str],
        only_by: str = "",
    ) -> str:
        """Logs one finished run into the market's experiment and returns its id.

        curves: a metric's value per epoch, from epoch 1. Numbers that are not finite are left out, of metrics and curves.
        files: artifacts by path, "/"-separated. only_by: one of the tags; once this run is whole, others of the market with
        the same value of it are deleted (MLflow keeps them in its bin), so that a repeated step leaves one.
        """
        from mlflow.entities import Metric, Param

        with self._answers():
            client = self._client
            run: Run = client.create_run(self._experiment(market), tags=dict(tags), run_name=run_name)
            run_id: str = run.info.run_id
            stamp = run.info.start_time
            points = [Metric(key, float(value), stamp, 0) for key, value in metrics.items()]
            points += [
                Metric(key, float(value), stamp, epoch)
                for key, values in curves.items()
                for epoch, value in enumerate(values, start=1)
            ]
            points = [point for point in points if math.isfinite(point.value)]
            values = [Param(key, str(value)) for key, value in params.items()]
            for start in range(0, len(values), 100):  # MLflow's limits per request
                client.log_batch(run_id, params=values[start : start + 100])
            for start in range(0, len(points), 1000):
                client.log_batch(run_id, metrics=points[start : start + 1000])
            self._log_files(run_id, files)
            client.set_terminated(run_id, "FINISHED")
            if only_by:
                self._delete_others(run, only_by, tags[only_by])
        return run_id

    def register(
        self,
        market: str,
        run_id: str,
        model: str,
        bundle_uri: str,
        digest: str,
        cutoff: date,
        tags: Mapping[str, str],
        candidate: bool = True,
    ) -> ModelVersion:
        """Registers a bundle as the market's next version: `challenger`, and `champion` too when there is none yet.

        candidate=False: both aliases stay where they are. `resolve` knows the version all the same.
        Safe to be called by many processes at once: each gets a version number of its own.
        """
        name = registered_name(market)
        own = {
            "market": market,
            "model": model,
            "bundle_uri": bundle_uri,
            "digest": digest,
            "cutoff": cutoff.isoformat(),
            **({} if candidate else _NO_CANDIDATE),
        }
        with self._answers(), self._alone():
            client = self._client
            self._ensure_model(name)
            # A server accepts only sources inside the run's own artifacts; where the bundle really lies is a tag.
            source = client.get_run(run_id).info.artifact_uri
            created = client.create_model_version(name, source=source, run_id=run_id, tags={**dict(tags), **own})
            version = int(created.version)
            if candidate:
                self._point_aliases(name, version)
        return self._get(market, version)

    def promote(self, market: str, version: int) -> ModelVersion:
        """Makes `version` the market's champion. NoModelError when there is no such version."""
        with self._answers(), self._alone():
            self._get(market, version)
            self._client.set_registered_model_alias(registered_name(market), CHAMPION, str(version))
        return self._get(market, version)

    def get(self, market: str, alias: str = CHAMPION) -> ModelVersion:
        """The version that `alias` points at; NoModelError when none does."""
        for version in self.list(market):
            if alias in version.aliases:
                return version
        raise NoModelError(market, f"with the alias '{alias}'")

    def version(self, market: str, version: int) -> ModelVersion:
        """The version with that number; NoModelError when there is none."""
        return self._get(market, version)

    def resolve(self, market: str, decision_session: date) -> ModelVersion:
        """The version to decide with after the close of `decision_session`, as of then.

        Of the versions whose cut-off lies before that session, the one with the latest cut-off; of equals, the highest
        number. NoModelError when there is none.
        """
        usable = [version for version in self.list(market) if version.cutoff < decision_session]
        if not usable:
            raise NoModelError(market, f"whose cut-off lies before session {decision_session}")
        return max(usable, key=lambda version: (version.cutoff, version.version))

    def list(self, market: str) -> builtins.list[ModelVersion]:
        """All versions of a market, oldest first; empty when none was registered."""
        name = registered_name(market)
        with self._answers():
            aliases = self._aliases(name)
            return [_read(market, version, aliases) for version in self._search(f"name = '{name}'")]

    def find(self, market: str, key: str, value: str) -> ModelVersion | None:
        """The newest version that carries the tag `key` = `value` (a request's hash), or None."""
        name = registered_name(market)
        with self._answers():
            found = [v for v in self._search(f"name = '{name}'") if (v.tags or {}).get(key) == value]
            return _read(market, found[-1], self._aliases(name)) if found else None

    # --- MLflow -------------------------------------------------------------------------------------------------------

    @cached_property
    def _client(self) -> MlflowClient:
        # Before the import: MLflow must never unpickle a model, and must not call home.
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        with self._alone():  # two processes that create the tables of a new database at once would clash
            return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    @property
    def _database(self) -> Path | None:
        """The SQLite file, or None for a server."""
        prefix = "sqlite:///"
        return Path(self.tracking_uri[len(prefix) :]) if self.tracking_uri.startswith(prefix) else None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time on a SQLite file (a lock file beside it); a server orders its writers itself.

        Not to be nested: the lock belongs to the open file, so a second one would wait for the first for ever.
        """
        if self._database is None:
            yield
            return
        self._database.parent.mkdir(parents=True, exist_ok=True)
        with self._database.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """MLflow's failures as ours. Opens the client first, outside any lock."""
        try:
            _ = self._client
        except (
            Exception
        ) as error:  # drivers raise their own classes: a wrong path, a refused connection, bad credentials
            raise StoreUnreachableError(self.tracking_uri, _reason(error)) from error
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise StoreUnreachableError(self.tracking_uri, _reason(error)) from error

    def _experiment(self, market: str) -> str:
        from mlflow.exceptions import MlflowException

        name = registered_name(market)
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = f"{self.artifacts_location}/{market}" if self.artifacts_location else None
            try:
                # The tag makes MLflow's UI open the experiment as model training, with its runs and curves.
                kind = {"mlflow.experimentKind": "custom_model_development"}
                return str(self._client.create_experiment(name, artifact_location=location, tags=kind))
            except MlflowException as error:
                found = self._client.get_experiment_by_name(name)  # another process was faster
                if found is None:
                    raise StoreUnreachableError(self.tracking_uri, _reason(error)) from error
        return str(found.experiment_id)

    def _delete_others(self, kept: Run, tag: str, value: str) -> None:
        """Deletes the other runs of the experiment with that tag; also those that were cut off while they were logged."""
        query = f"tags.`{tag}` = '{value}'"
        for run in self._client.search_runs([kept.info.experiment_id], query):
            if run.info.run_id != kept.info.run_id:
                self._client.delete_run(run.info.run_id)

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _point_aliases(self, name: str, version: int) -> None:
        if CHAMPION not in self._aliases(name):
            self._client.set_registered_model_alias(name, CHAMPION, str(version))
        # Another process may register in between; the newest candidate there is afterwards has the alias.
        newest = version
        while True:
            self._client.set_registered_model_alias(name, CHALLENGER, str(newest))
            latest = max(int(found.version) for found in self._search(f"name = '{name}'") if _is_candidate(found))
            if latest <= newest:
                return
            newest = latest

    def _aliases(self, name: str) -> dict[str, int]:
        """alias -> version; search results do not carry them. Empty when the model is not registered."""
        from mlflow.exceptions import MlflowException

        try:
            aliases = self._client.get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code in _MISSING:
                return {}
            raise
        return {alias: int(version) for alias, version in aliases.items()}

    def _search(self, query: str) -> builtins.list[MlflowVersion]:
        """All versions that match and were registered by this class, by number."""
        found: builtins.list[MlflowVersion] = []
        token: str | None = None
        while True:
            page = self._client.search_model_versions(query, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                ours = [version for version in found if set(version.tags or {}) >= _TAGS]  # not one made by hand
                return sorted(ours, key=lambda version: int(version.version))

    def _get(self, market: str, version: int) -> ModelVersion:
        for found in self.list(market):
            if found.version == version:
                return found
        raise NoModelError(market, f"version {version}")

    def _log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        with tempfile.TemporaryDirectory(prefix="trading-mlflow-") as folder:
            for name, data in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self._client.log_artifacts(run_id, folder)


def registered_name(market: str) -> str:
    """The name of a market's experiment and registered model."""
    return f"trading-{market}"


def _read(market: str, version: MlflowVersion, aliases: Mapping[str, int]) -> ModelVersion:
    tags = version.tags
    number = int(version.version)
    return ModelVersion(
        market=market,
        name=version.name,
        version=number,
        model=tags["model"],
        bundle_uri=tags["bundle_uri"],
        digest=tags["digest"],
        cutoff=date.fromisoformat(tags["cutoff"]),
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
        run_id=version.run_id or "",
        created_at=datetime.fromtimestamp(version.creation_timestamp / 1000.0, UTC),
        candidate=_is_candidate(version),
    )


def _is_candidate(version: MlflowVersion) -> bool:
    return not _NO_CANDIDATE.items() <= dict(version.tags or {}).items()


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
