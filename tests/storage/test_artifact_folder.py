"""What only a folder can go through: symbolic links, killed writers, odd names, and URLs that are no store."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trading_core.errors import ArtifactMissingError, InvalidConfigError, StoreUnreachableError, UriEscapeError
from trading_core.storage.artifacts import ArtifactStore, StorageOptions

NOW = datetime(2024, 1, 5, 22, 0, tzinfo=UTC)


def test_opening_a_store_touches_nothing(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path / "new"))
    assert not store.exists("a")
    assert store.list() == []
    assert not (tmp_path / "new").exists()


def test_relative_and_file_urls_name_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    urls = ("var/artifacts", f"file://{tmp_path}/var/artifacts", f"{tmp_path}/var/../var/artifacts/")
    assert {ArtifactStore.open(url).url for url in urls} == {str(tmp_path / "var" / "artifacts")}


@pytest.mark.parametrize(
    "url",
    ["", "gs://bucket/x", "http://host/x", "s3://", "s3:///x", "s3://UPPER/x", "s3://key:hidden@bucket/x", "/a%20b"],
)
def test_urls_that_are_no_store_are_refused(url: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        ArtifactStore.open(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://bucket/a/../../b", "s3://bucket/a//b"])
def test_an_s3_prefix_is_a_plain_path(url: str) -> None:
    with pytest.raises(UriEscapeError):
        ArtifactStore.open(url)


def test_one_key_without_the_other_is_refused_and_secrets_are_not_shown() -> None:
    with pytest.raises(InvalidConfigError, match="together"):
        StorageOptions(access_key_id="AKIA")
    assert "geheim" not in repr(StorageOptions(access_key_id="AKIA", secret_access_key="geheim"))


def test_symbolic_links_do_not_lead_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store = ArtifactStore.open(str(tmp_path / "artifacts"))
    store.write_bytes("inside/file", b"abc")
    (tmp_path / "artifacts" / "folder").symlink_to(outside)
    (tmp_path / "artifacts" / "file").symlink_to(outside / "secret")
    (tmp_path / "artifacts" / "friend").symlink_to(tmp_path / "artifacts" / "inside")
    for path in ("folder/secret", "folder/new", "file"):
        for attempt in (store.read_bytes, store.exists, store.delete, lambda p: store.write_bytes(p, b"x")):
            with pytest.raises(UriEscapeError):
                attempt(path)
    with pytest.raises(UriEscapeError):
        store.create("folder/new", b"x")
    assert (outside / "secret").read_bytes() == b"secret"
    assert sorted(outside.iterdir()) == [outside / "secret"]
    assert store.read_bytes("friend/file") == b"abc"


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "artifacts").symlink_to(tmp_path / "disk")
    store = ArtifactStore.open(str(tmp_path / "artifacts"))
    store.write_bytes("a", b"abc")
    assert store.read_bytes("a") == b"abc"
    assert store.list() == ["a"]


def test_files_are_made_with_the_usual_rights(tmp_path: Path) -> None:
    """Temporary files are often private to their maker; Airflow's containers may run as different users."""
    store = ArtifactStore.open(str(tmp_path))
    previous = os.umask(0o022)
    try:
        store.write_bytes("a", b"")
        store.create("b", b"")
    finally:
        os.umask(previous)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b")] == [0o644, 0o644]


def test_a_file_in_the_way_is_reported(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path))
    store.write_bytes("a", b"")
    with pytest.raises(ArtifactMissingError):
        store.read_bytes("a/b")
    with pytest.raises(StoreUnreachableError, match=r"File exists|Not a directory"):
        store.write_bytes("a/b", b"")
    store.write_bytes("c/d", b"")
    with pytest.raises(ArtifactMissingError):
        store.read_bytes("c")


def run_killed(code: str, *arguments: str) -> None:
    """Runs Python code that kills itself with SIGKILL."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


KILLED_IN_A_FILE = """
import os, signal, sys
from trading_core.storage.artifacts import ArtifactStore
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)  # the bytes are written, the name is not given yet
ArtifactStore.open(sys.argv[1]).write_bytes("a/file", b"new")
"""

KILLED_BETWEEN_FILES = """
import os, signal, sys
from datetime import UTC, datetime
from trading_core.storage.artifacts import ArtifactStore
store = ArtifactStore.open(sys.argv[1])
real = store.write_bytes
def write(path, data):
    if path.endswith("second"):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path, data)
store.write_bytes = write
store.publish("p", {"first": b"1", "second": b"2"}, datetime(2024, 1, 5, tzinfo=UTC))
"""


def test_a_writer_killed_in_a_file_leaves_the_old_one(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path / "artifacts"))
    store.write_bytes("a/file", b"old")
    run_killed(KILLED_IN_A_FILE, store.url)
    assert store.read_bytes("a/file") == b"old"
    assert store.list() == ["a/file"]
    assert len(list((tmp_path / "artifacts" / "a").iterdir())) == 2  # what was half written is there, but not listed
    store.write_bytes("a/file", b"new")
    assert store.read_bytes("a/file") == b"new"


def test_a_killed_publication_reads_as_missing(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path / "artifacts"))
    run_killed(KILLED_BETWEEN_FILES, store.url)
    assert store.list() == ["p/first"]
    with pytest.raises(ArtifactMissingError, match=r"p/MANIFEST\.json"):
        store.open_published("p")
    digest = store.publish("p", {"first": b"1", "second": b"2"}, NOW)
    assert store.open_published("p", digest).read("second") == b"2"
