"""Where the laptop installation lives and the environment its Airflow services run with.

Everything is under `var/` (TRADING_VAR_DIR): Airflow's home with its SQLite database, logs, keys and passwords, the
artifacts, the ledger and MLflow. Every server binds to 127.0.0.1 and asks for a login.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trading_core.config import PROJECT_ROOT, Settings, read_settings

LOOPBACK = "127.0.0.1"
USER = "admin"
# Names of our own: AIRFLOW__... may be there for another Airflow, whose database is not ours to migrate.
DATABASE, PARALLELISM = "AIRFLOW_DATABASE_URL", "AIRFLOW_PARALLELISM"
# Airflow's own five seconds are too few on a busy machine: a request that waits longer for a writer answers 500.
SQLITE_CONNECT = {"timeout": 60.0}
LAUNCH_MARK = "TRADING_LAUNCH"  # in the environment of every service, so that strays can be told from others' processes


@dataclass(frozen=True)
class Installation:
    """One installation: the project's checkout plus its `var/` folder. `port` is that of Airflow's API server and UI."""

    settings: Settings
    port: int
    mlflow_port: int

    @property
    def var_dir(self) -> Path:
        return self.settings.var_dir.resolve()

    @property
    def airflow_home(self) -> Path:
        return self.var_dir / "airflow"

    @property
    def base_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{LOOPBACK}:{self.mlflow_port}"

    @property
    def mark(self) -> str:
        return str(self.var_dir)

    @property
    def password(self) -> str:
        """The UI's password: made once, kept in a file only the owner can read."""
        path = self.airflow_home / "passwords.json"
        if not path.is_file():
            write_private(path, json.dumps({USER: secrets.token_urlsafe(12)}))
        return str(json.loads(path.read_text())[USER])

    def secret(self, name: str, length: int = 64) -> str:
        """A random secret of this installation, made once and kept in a file only the owner can read."""
        path = self.airflow_home / f"{name}.key"
        if not path.is_file():
            write_private(path, secrets.token_urlsafe(length))
        return path.read_text()

    @property
    def own_database(self) -> bool:
        """Whether Airflow's database is this installation's SQLite file: `AIRFLOW_DATABASE_URL` names no other one."""
        return not os.environ.get(DATABASE)

    def environment(self) -> dict[str, str]:
        """The environment of the services: the caller's, plus Airflow's settings for one machine.

        `AIRFLOW_DATABASE_URL` and `AIRFLOW_PARALLELISM` (tasks at once) take the place of its own choice.
        """
        home = self.airflow_home
        _ = self.password
        airflow = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": os.environ.get(PARALLELISM) or str(max(2, min(8, 2 * (os.cpu_count() or 2)))),
            "AIRFLOW__CORE__FERNET_KEY": _fernet(self),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.base_url}/execution/",
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.base_url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": os.environ.get(DATABASE) or f"sqlite:///{home / 'airflow.db'}",
            "AIRFLOW__API_AUTH__JWT_SECRET": self.secret("jwt"),
            "AIRFLOW__API__SECRET_KEY": self.secret("session"),
            "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": "86400",  # a training may outlast the default of ten minutes
            "AIRFLOW__API__EXPOSE_STACKTRACE": "True",  # only this machine's owner reads it, and "look for ID x" helps nobody
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            # On a busy laptop a loop may outlast the default of 30 s: the scheduler would pass for dead, its tasks for orphans.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "60",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            # Parsing the DAG files every 15 seconds took a seventh of a core; `wait_for_choice` asks for it when it matters.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "5",  # what was parsed on request is shown, too
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "TRADING_PRELOAD": "1",  # see plugins/preload.py
            "SPT_NOENV": "1",  # setproctitle must not overwrite the environment, or the mark below is lost
        }
        if self.own_database:
            airflow |= {
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": f"{__name__}.SQLITE_CONNECT",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": f"{__name__}.SQLITE_CONNECT",
                "TRADING_SQLITE_GATE": "1",  # see plugins/sqlite_gate.py
            }
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {**os.environ, **airflow, "PATH": path, "TRADING_VAR_DIR": str(self.var_dir), LAUNCH_MARK: self.mark}


def installation(settings: Settings | None = None) -> Installation:
    """The installation of these settings, on the ports it used before, else the first free ones from 8080 and 5000.

    `AIRFLOW_PORT` and `MLFLOW_PORT` ask for others.
    """
    settings = settings or read_settings()
    settings.var_dir.mkdir(parents=True, exist_ok=True)
    (settings.var_dir / "airflow").mkdir(mode=0o700, exist_ok=True)
    known = read_state(settings.var_dir / "airflow")
    if any(Path(f"/proc/{pid}").exists() for pid in known.get("pids", {}).values()):
        return Installation(settings, known["port"], known["mlflow_port"])
    port = _free_port(int(os.environ.get("AIRFLOW_PORT") or 8080))
    return Installation(settings, port, _free_port(int(os.environ.get("MLFLOW_PORT") or 5000), avoid=port))


def read_state(airflow_home: Path) -> dict[str, Any]:
    """What was written of the services when they were started; empty when they were not, or it cannot be read."""
    try:
        found = json.loads((airflow_home / "services.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_state(airflow_home: Path, state: dict[str, Any]) -> None:
    """Replaces it whole."""
    write_private(airflow_home / "services.json", json.dumps(state))


def _free_port(wanted: int, avoid: int = 0) -> int:
    for port in range(wanted, wanted + 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port != avoid and _binds(probe, port):
                return port
    raise SystemExit(
        f"No free port between {wanted} and {wanted + 200} on {LOOPBACK}; set AIRFLOW_PORT or MLFLOW_PORT."
    )


def _binds(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind((LOOPBACK, port))
    except OSError:
        return False
    return True


def _fernet(home: Installation) -> str:
    from cryptography.fernet import Fernet

    path = home.airflow_home / "fernet.key"
    if not path.is_file():
        write_private(path, Fernet.generate_key().decode())
    return path.read_text()


def write_private(path: Path, text: str) -> None:
    """Writes `text` readable by the owner only, whole or not at all."""
    temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(text)
    temporary.replace(path)
