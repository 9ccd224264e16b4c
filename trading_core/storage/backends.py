"""The two places artifacts can lie: a local folder and an S3 bucket, behind one small interface.

Paths here are relative and already checked by `artifacts.ArtifactStore`. A backend reads and writes whole files:
a reader sees the file before or after a write, never a part of it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from trading_core.errors import ArtifactCorruptedError, ArtifactMissingError, StoreUnreachableError, UriEscapeError
from trading_core.storage.options import StorageOptions

TEMPORARY = ".tmp-"  # prefix of files that are being written; they are never listed
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
ATTEMPTS = 3
Names: TypeAlias = list[str]  # the classes below have a method called `list`


class Backend(Protocol):
    """What a store can do. Every method may raise StoreUnreachableError; `get` also ArtifactMissingError."""

    url: str
    options: StorageOptions

    def get(self, path: str) -> bytes: ...
    def put(self, path: str, data: bytes) -> None: ...
    def create(self, path: str, data: bytes) -> bool: ...
    def exists(self, path: str) -> bool: ...
    def list(self, folder: str) -> Names: ...
    def folders(self, folder: str) -> Names: ...
    def remove(self, path: str) -> None: ...
    def probe(self) -> None: ...
    def delta_options(self) -> dict[str, str] | None: ...


class FolderBackend:
    """Files under a local folder. The folder is made by the first write."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.options = StorageOptions()

    def _at(self, path: str) -> Path:
        """The file of `path`; UriEscapeError when a symbolic link leads it out of the folder."""
        root = os.path.realpath(self.url)
        target = os.path.realpath(os.path.join(root, path)) if path else root
        if target != root and not target.startswith(root.rstrip("/") + "/"):
            raise UriEscapeError(path, self.url)
        return Path(target)

    @contextmanager
    def _reaching(self, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ArtifactMissingError(f"{self.url}/{path}") from error
        except OSError as error:
            raise StoreUnreachableError(self.url, f"{error.strerror or error} ('{path}')") from error

    def get(self, path: str) -> bytes:
        with self._reaching(path):
            return self._at(path).read_bytes()

    def put(self, path: str, data: bytes) -> None:
        with self._reaching(path):
            target = self._at(path)
            temporary = self._temporary(target, data)
            try:
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)

    def create(self, path: str, data: bytes) -> bool:
        """A hard link of the finished temporary file: fails when the name exists, and is whole when it appears."""
        with self._reaching(path):
            target = self._at(path)
            temporary = self._temporary(target, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)
            return True

    @staticmethod
    def _temporary(target: Path, data: bytes) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def exists(self, path: str) -> bool:
        with self._reaching(path):
            return self._at(path).is_file()

    def list(self, folder: str) -> Names:
        base = self._at(folder)
        with self._reaching(folder):
            found = [
                Path(parent, name).relative_to(base).as_posix()
                for parent, _, names in os.walk(base, onerror=_raise_unless_gone)
                for name in names
                if not name.startswith(TEMPORARY)
            ]
        return sorted(f"{folder}/{name}" if folder else name for name in found)

    def folders(self, folder: str) -> Names:
        base = self._at(folder)
        with self._reaching(folder):
            return sorted(entry.name for entry in base.iterdir() if entry.is_dir()) if base.is_dir() else []

    def remove(self, path: str) -> None:
        with self._reaching(path):
            target = self._at(path)
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def probe(self) -> None:
        return None

    def delta_options(self) -> dict[str, str] | None:
        return None


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _sync_folder(folder: Path) -> None:
    """Makes a rename or link in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class S3Backend:
    """Objects under `s3://bucket/prefix`, through boto3."""

    def __init__(self, url: str, bucket: str, prefix: str, options: StorageOptions) -> None:
        self.url = url
        self.options = options
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def _client(self, attempts: int = ATTEMPTS) -> Any:
        # Keyed by process: a connection pool must not be shared with a forked child (Airflow forks its tasks).
        return _s3_client(self.options, attempts, os.getpid())

    @contextmanager
    def _reaching(self, path: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in ("404", "NoSuchKey", "NotFound"):
                raise ArtifactMissingError(f"{self.url}/{path}") from error
            raise StoreUnreachableError(self.url, self.options.redact(str(error))) from error
        except FlexibleChecksumError as error:
            raise ArtifactCorruptedError(f"{self.url}/{path}", self.options.redact(str(error))) from error
        except (BotoCoreError, HTTPError, OSError, ValueError) as error:
            raise StoreUnreachableError(self.url, self.options.redact(str(error))) from error

    def get(self, path: str) -> bytes:
        with self._reaching(path):
            return bytes(self._client().get_object(Bucket=self._bucket, Key=self._prefix + path)["Body"].read())

    def put(self, path: str, data: bytes) -> None:
        with self._reaching(path):
            self._client().put_object(Bucket=self._bucket, Key=self._prefix + path, Body=data)

    def create(self, path: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        with self._reaching(path):
            try:
                # One attempt: a silent second one after a lost answer would find our own object and say False.
                client = self._client(attempts=1)
                client.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 412:
                    return False
                raise
            return True

    def exists(self, path: str) -> bool:
        # Not HEAD: its 404 does not tell a missing bucket from a missing object.
        with self._reaching(path):
            key = self._prefix + path
            answer = self._client().list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1)
            return any(item["Key"] == key for item in answer.get("Contents", []))

    def list(self, folder: str) -> Names:
        start = self._prefix + (f"{folder}/" if folder else "")
        with self._reaching(folder):
            pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start)
            keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sorted(key.removeprefix(self._prefix) for key in keys if not key.endswith("/"))

    def folders(self, folder: str) -> Names:
        start = self._prefix + (f"{folder}/" if folder else "")
        with self._reaching(folder):
            paginator = self._client().get_paginator("list_objects_v2")
            pages = paginator.paginate(Bucket=self._bucket, Prefix=start, Delimiter="/")
            found = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", [])]
        return sorted(prefix.removeprefix(start).rstrip("/") for prefix in found)

    def remove(self, path: str) -> None:
        keys = [self._prefix + name for name in [path, *self.list(path)]]
        with self._reaching(path):
            for first in range(0, len(keys), 1000):  # the most one request may delete
                objects = [{"Key": key} for key in keys[first : first + 1000]]
                answer = self._client().delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
                for problem in answer.get("Errors", []):
                    raise StoreUnreachableError(self.url, f"cannot delete '{problem['Key']}': {problem['Code']}")

    def probe(self) -> None:
        """One quick request that raises StoreUnreachableError with S3's own words when the bucket cannot be listed."""
        with self._reaching(""):
            self._client(attempts=1).list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def delta_options(self) -> dict[str, str] | None:
        """delta-rs storage options: the same endpoint and keys that boto3 uses, short timeouts, conditional puts.

        A conditional put of the commit file is what makes concurrent writers safe without a lock table.
        """
        with self._reaching(""):
            endpoint = self._client().meta.endpoint_url
            keys = _s3_credentials(self.options, os.getpid())
        if keys is None:
            raise StoreUnreachableError(self.url, "no AWS credentials were found (environment, profile or role)")
        frozen = keys.get_frozen_credentials()
        found = {
            "AWS_REGION": self.options.region,
            "AWS_ACCESS_KEY_ID": frozen.access_key,
            "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
            "aws_conditional_put": "etag",
            "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
            "timeout": f"{READ_TIMEOUT_S}s",
            "max_retries": str(ATTEMPTS - 1),
            "retry_timeout": f"{READ_TIMEOUT_S}s",
        }
        if frozen.token:
            found["AWS_SESSION_TOKEN"] = frozen.token
        if "amazonaws.com" not in endpoint:
            found |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}
        return found


@lru_cache(maxsize=16)
def _s3_client(options: StorageOptions, attempts: int, pid: int) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        # Other servers seldom resolve bucket names as host names.
        s3={"addressing_style": "path"} if options.endpoint_url else None,
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=options.endpoint_url or None,
        region_name=options.region,
        aws_access_key_id=options.access_key_id or None,
        aws_secret_access_key=options.secret_access_key or None,
        config=config,
    )


@lru_cache(maxsize=16)
def _s3_credentials(options: StorageOptions, pid: int) -> Any:
    """Credentials that refresh themselves, or None."""
    import boto3

    return boto3.session.Session(
        aws_access_key_id=options.access_key_id or None, aws_secret_access_key=options.secret_access_key or None
    ).get_credentials()
