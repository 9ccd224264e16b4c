"""What only S3 can go through: nobody answers, no bucket, credentials from the environment, lost answers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import polars as pl
import pytest

from trading_core.errors import StoreUnreachableError
from trading_core.storage.artifacts import ArtifactStore
from trading_core.storage.options import StorageOptions
from trading_core.storage.tables import Predicate, Tables

SECRET = "geheim/Geheim+geheim"
NOW = datetime(2024, 1, 5, 22, 0, tzinfo=UTC)
FRAME = pl.DataFrame({"symbol": ["A"], "session": [date(2024, 1, 2)]})


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def uses(store: ArtifactStore) -> list[Callable[[], object]]:
    tables = Tables(store, "simulated")
    return [
        lambda: store.read_bytes("a"),
        lambda: store.write_bytes("a", b""),
        lambda: store.create("a", b""),
        lambda: store.exists("a"),
        lambda: store.list(),
        lambda: store.folders(),
        lambda: store.delete("a"),
        lambda: store.publish("p", {"a": b""}, NOW),
        lambda: store.open_published("p"),
        lambda: tables.version("t"),
        lambda: tables.read("t"),
        lambda: tables.replace("t", FRAME, Predicate()),
        lambda: tables.append("t", FRAME),
        lambda: tables.names(),
        lambda: tables.last_session("t"),
    ]


def texts(store: ArtifactStore) -> list[str]:
    """The messages of all uses, run beside each other; each must fail with StoreUnreachableError."""

    def text(use: Callable[[], object]) -> str:
        with pytest.raises(StoreUnreachableError) as caught:
            use()
        return str(caught.value)

    with ThreadPoolExecutor(5) as pool:
        return list(pool.map(text, uses(store)))


def test_a_server_that_does_not_answer_is_named_without_secrets(closed_port: int) -> None:
    endpoint = f"http://user:{SECRET.replace('/', '-')}@127.0.0.1:{closed_port}"
    store = ArtifactStore.open("s3://bucket/artifacts", StorageOptions(endpoint, "us-east-1", "AKIAKEY", SECRET))
    for text in texts(store):
        assert "s3://bucket/artifacts" in text
        assert f"127.0.0.1:{closed_port}" in text
        assert "eheim" not in text
        assert "AKIAKEY" not in text


def test_a_bucket_that_does_not_exist_is_not_an_empty_store(s3_options: StorageOptions) -> None:
    for text in texts(ArtifactStore.open("s3://no-such-bucket/artifacts", s3_options)):
        assert "NoSuchBucket" in text


def test_an_endpoint_that_is_no_url_is_reported() -> None:
    for text in texts(ArtifactStore.open("s3://bucket", StorageOptions("not a url", "us-east-1", "k", "s"))):
        assert "not a url" in text


def test_without_keys_the_environment_decides(s3_url: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from trading_core.storage import backends

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    backends._s3_client.cache_clear()
    backends._s3_credentials.cache_clear()
    store = ArtifactStore.open(s3_url)
    store.write_bytes("a", b"abc")
    assert store.read_bytes("a") == b"abc"
    options = store.delta_options()
    assert options is not None
    assert (options["AWS_SESSION_TOKEN"], options["AWS_ENDPOINT_URL"]) == ("token", s3_server)
    Tables(store, "simulated").replace("t", FRAME, Predicate())
    assert Tables(store, "simulated").read("t").height == 1
    backends._s3_client.cache_clear()
    backends._s3_credentials.cache_clear()


def test_no_credentials_at_all(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from trading_core.storage import backends

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    backends._s3_client.cache_clear()
    backends._s3_credentials.cache_clear()
    for text in texts(ArtifactStore.open("s3://bucket/a", StorageOptions(s3_server))):
        assert "credentials" in text
    backends._s3_client.cache_clear()
    backends._s3_credentials.cache_clear()


def test_the_bucket_itself_may_be_the_store(s3_url: str, s3_options: StorageOptions) -> None:
    bucket = s3_url.removesuffix("/artifacts")
    whole, part = ArtifactStore.open(f"{bucket}/", s3_options), ArtifactStore.open(s3_url, s3_options)
    part.write_bytes("a", b"abc")
    assert whole.list() == ["artifacts/a"]
    assert whole.uri("artifacts/a") == part.uri("a")
    neighbour = ArtifactStore.open(f"{bucket}/art", s3_options)
    assert neighbour.list() == []


def test_more_files_than_one_page_are_listed_and_deleted(
    s3_url: str, s3_options: StorageOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto import settings

    store = ArtifactStore.open(s3_url, s3_options)
    monkeypatch.setattr(settings, "get_s3_default_max_keys", lambda: 5)
    for index in range(12):
        store.write_bytes(f"many/{index:02d}", b"")
    assert len(store.list("many")) == 12
    store.delete("many")
    assert store.list() == []
