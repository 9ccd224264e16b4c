"""Fixtures that many tests share: an S3 and DynamoDB server, stores, the real panel. No heavy import up here."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from trading_core.storage.artifacts import ArtifactStore
    from trading_core.storage.options import StorageOptions

REPOSITORY = Path(__file__).resolve().parents[1]

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads of several of them, and of what they start, would wait for each other by spinning.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which tests share a worker: all end-to-end tests (the services start once), else those of a file (its fixtures).

    pytest-xdist's own groups are marks that it writes into node ids, which pytest 9.2 no longer lets it do.
    """
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.startswith("tests/e2e/"):
                return "services"
            # One test of many cases over a cheap fixture: split further, or it is the last to end.
            return nodeid.partition("[")[0] if file.startswith("tests/contracts/") else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The end-to-end tests first: they wait much and compute little, so they take one worker from the start."""
    items.sort(key=lambda item: "tests/e2e/" not in item.nodeid)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint URL of a moto server (S3, DynamoDB ...) over HTTP on 127.0.0.1; keys: "testing" / "testing"."""
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    # S3 decides a conditional put atomically; moto checks and stores in two steps, which two threads can interleave.
    lock, put_object = threading.Lock(), S3Response.put_object

    def atomic_put_object(self: S3Response) -> object:
        with lock:
            return put_object(self)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    S3Response.put_object = atomic_put_object
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    S3Response.put_object = put_object


@pytest.fixture(scope="session")
def dynamodb_endpoint(s3_server: str) -> str:
    return s3_server


@pytest.fixture(scope="session")
def s3_options(s3_server: str) -> StorageOptions:
    from trading_core.storage.options import StorageOptions

    return StorageOptions(s3_server, "us-east-1", "testing", "testing")


@pytest.fixture(scope="session")
def s3_client(s3_server: str) -> Any:
    """A boto3 client of the moto server, for what tests do behind the platform's back."""
    import boto3

    session = boto3.session.Session(aws_access_key_id="testing", aws_secret_access_key="testing")
    return session.client("s3", endpoint_url=s3_server, region_name="us-east-1")


@pytest.fixture
def s3_url(s3_client: Any) -> str:
    """`s3://<fresh bucket>/artifacts` on the moto server."""
    bucket = f"test-{uuid.uuid4().hex}"
    s3_client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/artifacts"


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """An empty store of each kind."""
    from trading_core.storage.artifacts import ArtifactStore

    if request.param == "folder":
        return ArtifactStore.open(str(tmp_path / "artifacts"))
    return ArtifactStore.open(request.getfixturevalue("s3_url"), request.getfixturevalue("s3_options"))


@pytest.fixture(scope="session")
def panel_path() -> Path:
    """The shared real panel (US stocks, 2013-2018); skips when this machine does not have it."""
    path = REPOSITORY.parent / "shared" / "market" / "sp500_2013_2018.parquet"
    if not path.is_file():
        pytest.skip(f"the shared real panel is absent ({path.name})")
    return path
