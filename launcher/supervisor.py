"""Starts, watches and stops the Airflow services of one machine, leaving no process behind.

`airflow standalone` ignores SIGTERM and orphans its children; here each service runs in a session of its own, so that a
whole group can be ended, and carries a mark in its environment, so that strays of a killed run are found and ended too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx

from launcher.environment import LAUNCH_MARK, LOOPBACK, USER, Installation, read_state, write_state

SERVICES: dict[str, list[str]] = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
HEALTHY_WITHIN_S = 180
STOP_WITHIN_S = 20


class ServiceError(RuntimeError):
    """A service that did not start or died; the message names its log."""


@contextlib.contextmanager
def exclusive(home: Installation) -> Iterator[None]:
    """Only one launcher command works on an installation at a time."""
    path = home.airflow_home / "launcher.lock"
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ServiceError(
                f"Another launcher command is working in {home.var_dir}. Wait for it, or stop it."
            ) from None
        yield


def prepare(home: Installation) -> None:
    """Creates or migrates Airflow's database, once per Airflow version; one of the caller's is looked at every time."""
    from importlib.metadata import version

    done = home.airflow_home / f"migrated-{version('apache-airflow-core')}"
    if home.own_database and done.is_file() and (home.airflow_home / "airflow.db").is_file():
        return
    if home.own_database and not any(home.airflow_home.glob("migrated-*")):
        # A database whose first migration was cut off holds nothing yet, and may not be migrated further.
        (home.airflow_home / "airflow.db").unlink(missing_ok=True)
    log = log_path(home, "migrate")
    with log.open("ab") as out:
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        code = subprocess.run(command, env=home.environment(), stdout=out, stderr=out, check=False).returncode
    if code != 0:
        raise ServiceError(f"Airflow's database could not be prepared (exit code {code}); see {log}.")
    if home.own_database:
        done.touch()


def log_path(home: Installation, service: str) -> Path:
    folder = home.airflow_home / "service-logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{service}.log"


def running(home: Installation) -> bool:
    """Whether services that were left running on purpose are up (all of them).

    Those of a launcher that was killed are not: nobody knows how far it came, so the next start ends them.
    """
    state = read_state(home.airflow_home)
    if not state.get("kept"):
        return False
    pids = state["pids"]
    return all(_alive(pids[name], home) for name in SERVICES if name in pids) and bool(pids)


def keep(home: Installation) -> None:
    """Marks the services as left running: from now on they count as `running`."""
    write_state(home.airflow_home, {**read_state(home.airflow_home), "kept": True, "market": home.settings.market})


def scheduled_market(home: Installation) -> str:
    """The market whose schedules the services that are left running keep; "" when none are."""
    return str(read_state(home.airflow_home).get("market", ""))


def start(home: Installation, *, mlflow: bool = False) -> None:
    """Starts all services and waits until they are healthy. Strays of an earlier, killed run are ended first."""
    stop(home)
    pids = {}
    environment = home.environment()
    for name, arguments in SERVICES.items():
        pids[name] = _spawn(home, name, [sys.executable, "-m", "airflow", *arguments], environment)
    if mlflow:
        pids["mlflow"] = _spawn_mlflow(home, environment)
    state = {"port": home.port, "mlflow_port": home.mlflow_port, "pids": pids}
    write_state(home.airflow_home, state)
    wait_healthy(home, pids)


def _spawn(home: Installation, name: str, command: list[str], environment: dict[str, str]) -> int:
    path = log_path(home, name)
    if path.is_file() and path.stat().st_size > 20_000_000:
        path.replace(path.with_suffix(".log.1"))
    out: IO[bytes]
    with path.open("ab") as out:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    return process.pid


def _spawn_mlflow(home: Installation, environment: dict[str, str]) -> int:
    """MLflow's UI on the store the trainings write to, behind its own login (same user and password as Airflow's)."""
    folder = home.var_dir / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "auth.ini"
    config.touch(mode=0o600)
    config.write_text(
        "[mlflow]\ndefault_permission = MANAGE\n"
        f"database_uri = sqlite:///{folder / 'auth.db'}\nadmin_username = {USER}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", LOOPBACK]
    command += ["--port", str(home.mlflow_port), "--backend-store-uri", home.settings.mlflow_uri, "--workers", "1"]
    command += ["--artifacts-destination", home.settings.mlflow_artifacts]
    own = {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_PASSWORD": home.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": home.secret("mlflow"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return _spawn(home, "mlflow", command, {**environment, **own})


def wait_healthy(home: Installation, pids: dict[str, int]) -> None:
    """Returns when the API server, scheduler, dag processor and triggerer (and MLflow) all report themselves healthy."""
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    wanted = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    while time.monotonic() < deadline:
        for name, pid in pids.items():
            if not _alive(pid, home):
                raise ServiceError(f"The {name} stopped right after its start; see {log_path(home, name)}.")
        with contextlib.suppress(httpx.HTTPError, ValueError):
            health = httpx.get(f"{home.base_url}/api/v2/monitor/health", timeout=5).json()
            if all(health.get(part, {}).get("status") == "healthy" for part in wanted) and _mlflow_answers(home, pids):
                return
        time.sleep(0.5)
    raise ServiceError(
        f"The services were not healthy within {HEALTHY_WITHIN_S} s; see {log_path(home, 'scheduler').parent}."
    )


def _mlflow_answers(home: Installation, pids: dict[str, int]) -> bool:
    return "mlflow" not in pids or httpx.get(f"{home.mlflow_url}/health", timeout=5).status_code == 200


def stop(home: Installation) -> int:
    """Ends every process of this installation's services and says how many there were."""
    pids = _marked(home)
    for sign, patience in ((signal.SIGTERM, STOP_WITHIN_S), (signal.SIGKILL, 5)):
        for pid in _marked(home):
            _signal(pid, sign)
        deadline = time.monotonic() + patience
        while (alive := _marked(home)) and time.monotonic() < deadline:
            if sign is signal.SIGTERM and all(_is_triggerer(pid) for pid in alive):
                break  # it sits out 10 s to 20 s after its child has ended, and keeps nothing that the database has not
            time.sleep(0.2)
        if not alive:
            break
    (home.airflow_home / "services.json").unlink(missing_ok=True)
    return len(pids)


def _is_triggerer(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"triggerer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return True  # it has ended in between


def _marked(home: Installation) -> list[int]:
    """Processes that carry this installation's mark (services and all they started), without this one."""
    mark = f"{LAUNCH_MARK}={home.mark}\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            zombie = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            if mark in (entry / "environ").read_bytes() and not zombie and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def _alive(pid: int, home: Installation) -> bool:
    # Our own children become zombies when they end: collect them, so that they count as dead.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return pid in _marked(home)


def _signal(pid: int, sign: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, sign)
