"""The registry on a SQLite file: versions, aliases, as-of resolution, many writers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest

from trading_core.errors import NoModelError, StoreUnreachableError
from trading_core.registry.mlflow_registry import ModelVersion, Registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    root = tmp_path_factory.mktemp("mlflow")
    return Registry(f"sqlite:///{root}/deep/mlflow.db", str(root / "artifacts"))


def run(registry: Registry, market: str) -> str:
    return registry.log_run(market, "r", {}, {}, {}, {}, {})


def add(registry: Registry, market: str, cutoff: date, **tags: str) -> ModelVersion:
    return registry.register(market, run(registry, market), "lstm", f"s3://bucket/{cutoff}", "d" * 64, cutoff, tags)


def test_a_run_keeps_params_metrics_curves_and_files(registry: Registry, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    run_id = registry.log_run(
        "logs",
        "lstm-7",
        {"seed": 7, "note": None, **{f"p{i}": i for i in range(150)}},
        {"rank_ic": 0.05},
        {"loss": [0.3, 0.2, 0.1]},
        {"reports/card.json": b"{}"},
        {"code_version": "abc"},
    )
    client = MlflowClient(registry.tracking_uri, registry.tracking_uri)
    stored = client.get_run(run_id)
    assert stored.info.run_name == "lstm-7"
    assert stored.info.status == "FINISHED"
    assert stored.data.params["seed"] == "7"
    assert len(stored.data.params) == 152
    assert stored.data.metrics["rank_ic"] == 0.05
    assert stored.data.tags["code_version"] == "abc"
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "loss")] == [(1, 0.3), (2, 0.2), (3, 0.1)]
    assert Path(client.download_artifacts(run_id, "reports/card.json", str(tmp_path))).read_bytes() == b"{}"
    assert client.get_experiment_by_name("trading-logs") is not None


def test_numbers_that_are_not_finite_are_left_out_and_files_lie_in_folders(registry: Registry, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    nan, inf = float("nan"), float("inf")
    curves = {"curves/rank_ic": [nan, 0.1, inf, 0.3], "member_2/rank_ic": [nan, nan]}
    page, weights = b"<!doctype html>" + bytes(6_000_000), bytes(range(256))
    files = {"report.html": page, "bundle/weights.safetensors": weights, "bundle/MANIFEST.json": b"{}"}
    run_id = registry.log_run("logs", "r", {}, {"a": 1.0, "b": nan, "c": -inf}, curves, files, {})
    client = MlflowClient(registry.tracking_uri, registry.tracking_uri)
    assert client.get_run(run_id).data.metrics == {"a": 1.0, "curves/rank_ic": 0.3}
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "curves/rank_ic")] == [(2, 0.1), (4, 0.3)]
    assert client.get_metric_history(run_id, "member_2/rank_ic") == []
    assert [a.path for a in client.list_artifacts(run_id)] == ["bundle", "report.html"]
    inside = [a.path for a in client.list_artifacts(run_id, "bundle")]
    assert inside == ["bundle/MANIFEST.json", "bundle/weights.safetensors"]
    for name, data in files.items():
        assert Path(client.download_artifacts(run_id, name, str(tmp_path))).read_bytes() == data


def test_a_repeated_step_leaves_one_run_of_its_tag(registry: Registry) -> None:
    from mlflow.tracking import MlflowClient

    def log(identity: str, market: str = "repeated", only_by: str = "evaluation_id") -> str:
        return registry.log_run(market, "e", {}, {"a": 1.0}, {}, {}, {"evaluation_id": identity}, only_by)

    other, elsewhere, plain = log("b"), log("a", market="elsewhere"), log("a", only_by="")
    first = log("a")  # takes the place of `plain`, which was logged without asking for that
    client = MlflowClient(registry.tracking_uri, registry.tracking_uri)
    cut_off = client.create_run(client.get_run(first).info.experiment_id, tags={"evaluation_id": "a"}).info.run_id
    second = log("a")
    stages = {
        name: client.get_run(name).info.lifecycle_stage for name in (other, elsewhere, plain, first, cut_off, second)
    }
    kept = {name for name, stage in stages.items() if stage == "active"}
    assert kept == {other, elsewhere, second}


def test_the_first_version_is_champion_the_newest_challenger(registry: Registry) -> None:
    first = add(registry, "aliases", date(2024, 1, 31))
    assert first.version == 1
    assert first.name == "trading-aliases"
    assert first.aliases == ("challenger", "champion")
    assert (first.market, first.model, first.digest) == ("aliases", "lstm", "d" * 64)
    assert first.bundle_uri == "s3://bucket/2024-01-31"
    assert first.created_at.tzinfo is not None
    second = add(registry, "aliases", date(2024, 2, 29))
    assert second.aliases == ("challenger",)
    assert registry.get("aliases").version == 1
    assert registry.get("aliases", "challenger").version == 2
    assert registry.promote("aliases", 2).aliases == ("challenger", "champion")
    assert registry.get("aliases").version == 2
    assert [version.version for version in registry.list("aliases")] == [1, 2]
    assert registry.version("aliases", 1).aliases == ()


def test_a_version_that_is_no_candidate_moves_no_alias(registry: Registry) -> None:
    def add_walked(day: date) -> ModelVersion:
        given = ("walked", run(registry, "walked"), "lstm", f"s3://bucket/{day}", "d" * 64, day, {})
        return registry.register(*given, candidate=False)

    early = add_walked(date(2024, 1, 31))
    assert (early.aliases, early.candidate) == ((), False)
    with pytest.raises(NoModelError, match="alias 'champion'"):
        registry.get("walked")  # not even where there is no champion yet
    own = add(registry, "walked", date(2024, 2, 29))
    assert (own.aliases, own.candidate) == (("challenger", "champion"), True)
    late = add_walked(date(2024, 3, 29))
    assert [(v.version, v.aliases) for v in registry.list("walked")] == [(1, ()), (2, own.aliases), (3, ())]
    assert registry.resolve("walked", date(2024, 2, 1)).version == early.version
    assert registry.resolve("walked", date(2024, 4, 2)).version == late.version
    assert registry.promote("walked", late.version).aliases == ("champion",)  # a person may


def test_versions_are_resolved_as_of_a_session(registry: Registry) -> None:
    # Registered out of order: what counts is what a version knows, then its number.
    for cutoff in (date(2024, 1, 31), date(2024, 3, 29), date(2024, 2, 29), date(2024, 2, 29)):
        add(registry, "asof", cutoff)
    assert registry.resolve("asof", date(2024, 2, 1)).version == 1
    assert registry.resolve("asof", date(2024, 2, 29)).version == 1  # a cut-off on the session is too late
    assert registry.resolve("asof", date(2024, 3, 1)).version == 4
    assert registry.resolve("asof", date(2030, 1, 1)).version == 2
    with pytest.raises(NoModelError, match="Market 'asof' has no model whose cut-off lies before session 2024-01-31"):
        registry.resolve("asof", date(2024, 1, 31))


def test_an_identical_request_is_found(registry: Registry) -> None:
    add(registry, "requests", date(2024, 1, 31), request_hash="aa")
    again = add(registry, "requests", date(2024, 1, 31), request_hash="aa")
    add(registry, "requests", date(2024, 1, 31), request_hash="bb")
    found = registry.find("requests", "request_hash", "aa")
    assert found is not None
    assert found.version == again.version
    assert registry.find("requests", "request_hash", "cc") is None


def test_markets_do_not_mix(registry: Registry) -> None:
    add(registry, "one", date(2024, 1, 31))
    assert registry.list("two") == []
    for attempt in (
        lambda: registry.get("two"),
        lambda: registry.promote("two", 1),
        lambda: registry.resolve("two", date(2030, 1, 1)),
        lambda: registry.version("one", 9),
        lambda: registry.promote("one", 9),
    ):
        with pytest.raises(NoModelError):
            attempt()


def test_many_writers_on_a_new_database(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/new.db"

    def register(day: int) -> int:
        return add(Registry(uri, str(tmp_path / "artifacts")), "race", date(2024, 1, day)).version

    with ThreadPoolExecutor(4) as pool:
        versions = sorted(pool.map(register, range(1, 9)))
    assert versions == list(range(1, 9))
    registry = Registry(uri)
    assert registry.get("race", "champion").version == 1
    assert registry.get("race", "challenger").version == 8


def test_constructing_opens_nothing_and_an_unusable_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database, whatever its name says" * 100)
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(StoreUnreachableError, match="cannot be reached"):
        registry.list("any")
