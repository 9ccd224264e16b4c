"""Artifacts: files in a local folder or under an S3 prefix, named by relative paths, verified on read.

A publication is a folder of files with a MANIFEST.json that is written last and holds the SHA-256 and size of each;
without it the folder reads as missing, so a killed writer leaves nothing that could be taken for a result.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trading_core.errors import (
    ArtifactCorruptedError,
    ArtifactMissingError,
    InvalidConfigError,
    MissingFileError,
    StoreUnreachableError,
    UriEscapeError,
)
from trading_core.storage.backends import Backend, FolderBackend, Names, S3Backend
from trading_core.storage.options import StorageOptions

__all__ = ["Artifact", "ArtifactStore", "Published", "StorageOptions"]

MANIFEST = "MANIFEST.json"
FORMAT_VERSION = 1
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One stored file: its path in the store, the SHA-256 of its bytes (hex) and its size in bytes."""

    path: str
    sha256: str
    size: int


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _relative(path: str, root: str) -> str:
    """`path` when every segment is a plain name; UriEscapeError otherwise ('..', absolute, backslash, control ...)."""
    unsafe = any(ord(char) < 32 or ord(char) == 127 or char == "\\" or "\ud800" <= char <= "\udfff" for char in path)
    if unsafe or any(segment in ("", ".", "..") for segment in path.split("/")):
        raise UriEscapeError(path.encode("utf-8", "backslashreplace").decode(), root)
    return path


def _backend(url: str, options: StorageOptions) -> Backend:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        folder = os.path.abspath(os.path.expanduser(rest if separator else url))
        # delta-rs decodes percent signs in a table's location and would look in another folder.
        if not url or "\0" in url or re.search(r"%[0-9A-Fa-f]{2}", folder):
            raise InvalidConfigError(
                "artifacts_url",
                [f"'{url}' cannot be a folder: give a path without '%' before two digits or letters and without NUL"],
            )
        return FolderBackend(folder)
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not _BUCKET.fullmatch(bucket):
        shown = re.sub(r"//[^/]*@", "//***@", url)
        raise InvalidConfigError("artifacts_url", [f"'{shown}' is neither a folder nor s3://bucket/prefix"])
    prefix = prefix.strip("/")
    if prefix:
        _relative(prefix, f"s3://{bucket}")
    return S3Backend(f"s3://{bucket}/{prefix}".rstrip("/"), bucket, prefix, options)


class ArtifactStore:
    """Files behind one URL: a folder, or `s3://bucket/prefix`. `ArtifactStore.open` does no I/O.

    Paths are relative and "/"-separated; what would leave the store raises UriEscapeError. Every method may raise
    StoreUnreachableError. Instances can be pickled and shared between threads.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @classmethod
    def open(cls, url: str, options: StorageOptions | None = None) -> ArtifactStore:
        """The store at `url`; InvalidConfigError when it is neither a folder nor an S3 URL."""
        return cls(_backend(url, options or StorageOptions()))

    @property
    def url(self) -> str:
        return self._backend.url

    @property
    def options(self) -> StorageOptions:
        return self._backend.options

    def uri(self, path: str) -> str:
        """The full URI of a path: what other tasks and people are given."""
        return f"{self.url}/{_relative(path, self.url)}"

    def path_of(self, uri: str) -> str:
        """The relative path of a full URI or relative path; UriEscapeError when it lies outside this store."""
        if uri.startswith(f"{self.url}/"):
            return _relative(uri[len(self.url) + 1 :], self.url)
        if "://" in uri:
            raise UriEscapeError(uri, self.url)
        return _relative(uri, self.url)

    def write_bytes(self, path: str, data: bytes) -> Artifact:
        """Writes or replaces a file, atomically."""
        self._backend.put(_relative(path, self.url), data)
        return Artifact(path, _digest(data), len(data))

    def read_bytes(self, path: str, sha256: str | None = None) -> bytes:
        """A file's bytes; ArtifactMissingError, or ArtifactCorruptedError when they are not those of `sha256`."""
        data = self._backend.get(_relative(path, self.url))
        if sha256 is not None and _digest(data) != sha256:
            raise ArtifactCorruptedError(self.uri(path), f"its SHA-256 is {_digest(data)}, expected {sha256}")
        return data

    def write_json(self, path: str, value: Any) -> Artifact:
        """`value` (what `json` can write, finite numbers only) as UTF-8 JSON with sorted keys."""
        return self.write_bytes(path, _json_bytes(value))

    def read_json(self, path: str, sha256: str | None = None) -> Any:
        data = self.read_bytes(path, sha256)
        try:
            return json.loads(data.decode("utf-8"))
        except ValueError as error:
            raise ArtifactCorruptedError(self.uri(path), f"it is not JSON ({error})") from error

    def exists(self, path: str) -> bool:
        return self._backend.exists(_relative(path, self.url))

    def list(self, prefix: str = "") -> Names:
        """Paths of all files under the folder `prefix` ("" = the whole store), sorted."""
        return self._backend.list(_relative(prefix, self.url) if prefix else "")

    def folders(self, prefix: str = "") -> Names:
        """Names of the folders directly under `prefix`, sorted."""
        return self._backend.folders(_relative(prefix, self.url) if prefix else "")

    def delete(self, prefix: str) -> None:
        """Removes a file, or a folder with all it holds; nothing happens when there is none."""
        self._withdraw(_relative(prefix, self.url))
        self._backend.remove(prefix)

    def create(self, path: str, data: bytes) -> bool:
        """Writes a file only when there is none: False, and nothing changed, when it exists already.

        Of many writers at once exactly one gets True. A lost answer raises StoreUnreachableError: read the file to
        learn who won.
        """
        return self._backend.create(_relative(path, self.url), data)

    def probe(self) -> None:
        """StoreUnreachableError, with the reason, when an S3 bucket cannot be listed; nothing for a folder."""
        self._backend.probe()

    def delta_options(self) -> dict[str, str] | None:
        """Storage options for delta-rs (they hold secrets: never log them), None for a folder."""
        return self._backend.delta_options()

    def publish(self, prefix: str, files: Mapping[str, bytes | Path], now: datetime) -> str:
        """Writes `files` (bytes, or local files to upload) under `prefix`, the manifest last. Returns its SHA-256.

        `now`: aware; kept as `created_at`. A publication that was there before is withdrawn first, so that no reader
        meets its manifest beside new files.
        """
        if not files or MANIFEST in files or now.tzinfo is None:
            problem = f"give at least one file, none of them named {MANIFEST}, and an aware time"
            raise InvalidConfigError(f"The publication '{prefix}'", [problem])
        for name in files:
            _relative(name, self.uri(prefix))
        self._withdraw(prefix)
        entries = {}
        for name in sorted(files):
            artifact = self.write_bytes(f"{prefix}/{name}", _content(files[name]))
            entries[name] = {"sha256": artifact.sha256, "size": artifact.size}
        manifest = {"format_version": FORMAT_VERSION, "created_at": now.isoformat(), "files": entries}
        return self.write_json(f"{prefix}/{MANIFEST}", manifest).sha256

    def open_published(self, prefix: str, digest: str | None = None) -> Published:
        """A publication whose manifest is whole (and has `digest`, when given); its files are checked when read.

        ArtifactMissingError without a manifest, ArtifactCorruptedError when the manifest is not what was written.
        """
        path = f"{prefix}/{MANIFEST}"
        data = self.read_bytes(path, digest)
        created_at, files = _parse_manifest(data, self.uri(path), prefix)
        return Published(self, prefix, _digest(data), created_at, files)

    def _withdraw(self, prefix: str) -> None:
        """Without its manifest a half deleted or half written publication reads as missing."""
        manifest = f"{prefix}/{MANIFEST}"
        if self._backend.exists(manifest):
            self._backend.remove(manifest)


@dataclass(frozen=True, slots=True)
class Published:
    """A verified manifest. `digest`: its SHA-256. `files`: by name; every read is checked against them."""

    store: ArtifactStore
    prefix: str
    digest: str
    created_at: datetime
    files: Mapping[str, Artifact]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.files))

    def read(self, name: str) -> bytes:
        """The bytes of a file of the manifest; ArtifactCorruptedError when missing or changed."""
        if name not in self.files:
            raise ArtifactMissingError(f"{self.store.url}/{self.prefix}/{name}")
        artifact = self.files[name]
        uri = self.store.uri(artifact.path)
        try:
            data = self.store.read_bytes(artifact.path, artifact.sha256)
        except ArtifactMissingError as error:
            raise ArtifactCorruptedError(uri, "its manifest names it but it is missing") from error
        if len(data) != artifact.size:
            raise ArtifactCorruptedError(uri, f"it has {len(data)} bytes, its manifest says {artifact.size}")
        return data

    def download(self, folder: Path) -> Path:
        """Writes all files into `folder`, each verified before it is written; returns `folder`."""
        target = ArtifactStore.open(str(folder))
        for name in self.names:
            target.write_bytes(name, self.read(name))
        return Path(target.url)


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _content(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(str(source), "file to publish") from error
    except OSError as error:
        raise StoreUnreachableError(str(source), error.strerror or str(error)) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _parse_manifest(data: bytes, uri: str, prefix: str) -> tuple[datetime, dict[str, Artifact]]:
    """created_at and the files of a manifest; ArtifactCorruptedError unless it is exactly what `publish` writes."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        if not isinstance(value, dict) or set(value) != {"format_version", "created_at", "files"}:
            raise ValueError("its keys must be format_version, created_at and files")
        if type(value["format_version"]) is not int or value["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version is {value['format_version']!r}, expected {FORMAT_VERSION}")
        if not isinstance(value["created_at"], str) or datetime.fromisoformat(value["created_at"]).tzinfo is None:
            raise ValueError("created_at must be a time with its zone")
        if not isinstance(value["files"], dict) or not value["files"]:
            raise ValueError("files must hold at least one file")
        files = {name: _parse_entry(name, entry, prefix) for name, entry in value["files"].items()}
    except (ValueError, RecursionError) as error:
        raise ArtifactCorruptedError(uri, f"the manifest is not valid: {error}") from error
    return datetime.fromisoformat(value["created_at"]), files


def _parse_entry(name: str, entry: Any, prefix: str) -> Artifact:
    try:
        _relative(name, prefix)
    except UriEscapeError as error:
        raise ValueError(f"the file name {name!r} leaves the publication") from error
    if not isinstance(entry, dict) or set(entry) != {"sha256", "size"}:
        raise ValueError(f"the keys of '{name}' must be sha256 and size")
    sha256, size = entry["sha256"], entry["size"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"sha256 of '{name}' must be 64 lower-case hex digits")
    if type(size) is not int or size < 0:
        raise ValueError(f"size of '{name}' must be a number of bytes")
    return Artifact(f"{prefix}/{name}", sha256, size)
