"""A PostgreSQL server of its own, in a temporary folder, for as long as a block runs."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platform_harness import START_S, free_port, until

SYSTEM_USER = "postgres"  # what the server runs as when we are root, which it refuses
NAME = "airflow"
# It is thrown away: what a power cut would lose need not be kept. 16 task processes and the services each have a few.
OPTIONS = {"listen_addresses": "127.0.0.1", "fsync": "off", "max_connections": "300"}


@dataclass(frozen=True)
class Cluster:
    """`url` is SQLAlchemy's, with the password; `version` as the server's program tells it."""

    url: str
    version: str


def binaries() -> Path | None:
    """The folder of initdb and postgres: of the search path, else the newest of Debian's."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: int(folder.parent.name.partition(".")[0]), default=None)


@contextmanager
def cluster() -> Iterator[Cluster | None]:
    """A fresh server on a free port of 127.0.0.1 with a random password; None where PostgreSQL is not installed."""
    programs = binaries()
    if programs is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder, port, password = Path(name), free_port(), secrets.token_hex(16)
        pwfile = folder / "password"
        pwfile.write_text(password)
        _hand_over(folder, pwfile)
        data = folder / "data"
        made = [str(programs / "initdb"), "-D", str(data), "-U", NAME, "--auth=scram-sha-256", f"--pwfile={pwfile}"]
        subprocess.run([*_as_user(), *made, "--encoding=UTF8"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        options = [part for key, value in OPTIONS.items() for part in ("-c", f"{key}={value}")]
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder), *options]
        with (folder / "server.log").open("wb") as log:
            server = subprocess.Popen([*_as_user(), *command], stdout=log, stderr=log, cwd=folder)
        try:
            ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            until(lambda: not subprocess.run(ready).returncode, START_S, (folder / "server.log").read_text)
            version = subprocess.run([command[0], "--version"], check=True, capture_output=True, text=True).stdout
            yield Cluster(f"postgresql+psycopg2://{NAME}:{password}@127.0.0.1:{port}/postgres", version.strip())
        finally:
            server.terminate()
            try:
                server.wait(10)  # it waits for its clients; they have ended, or are ended now
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(10)


def _hand_over(*paths: Path) -> None:
    if os.geteuid() == 0:
        user = pwd.getpwnam(SYSTEM_USER)
        for path in paths:
            os.chown(path, user.pw_uid, user.pw_gid)


def _as_user() -> list[str]:
    """Before a command: as whom it runs, and that it ends (a fast shutdown) with us, whichever way we end."""
    if shutil.which("setpriv") is None:
        return []
    whom = ["--reuid", SYSTEM_USER, "--regid", SYSTEM_USER, "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *whom, "--pdeathsig", "INT"]
