"""What the end-to-end tests drive: one real installation in a folder of its own, its clock-bound schedule, its contents."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import exchange_calendars
import pytest
import yaml

from launcher import supervisor
from launcher.airflow_api import AirflowApi, AirflowApiError
from launcher.environment import Installation, installation
from trading_core.config import MarketConfig, Settings, load_market
from trading_core.execution.ledger import Ledger
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.storage.tables import Predicate

REPOSITORY = Path(__file__).resolve().parents[2]
MARKET, MODEL, STRATEGY, SESSIONS = "e2e", "linear", "top10", 2
# The schedule trades with another strategy than the main job, so that the session it fires is its own from the start.
SCHEDULED_STRATEGY = "top10-reweighted"
MARKET_FILE = {
    "id": MARKET,
    "description": "A small simulated market of the end-to-end tests",
    "source": "simulated",
    "history_start": "2023-01-03",
    "test_sessions": 60,
    "options": {"symbols": 36, "start": "2023-01-03", "seed": 5, "signal_ic": 0.1},
}
DONE = ("success", "failed")
# How long anything may take before its test fails. All waits poll, so patience costs nothing while all is well; these are
# for a machine several times slower than the usual ones that has other work beside. Nothing here waits by a limit of its own.
START_S = 300  # the services have started, or stopped; a browser's page is there
RUN_S = 600  # runs of a DAG have ended
MAIN_JOB_S = 900  # `launcher run` is through
# A fixture's time counts towards the first test that asks for it. The longest: four starts and stops, a main job and `up`
# (`platform`), or two creations of backfills and four waits for their runs (`backfills`).
TEST_S = 4 * RUN_S + 4 * START_S
T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """Which sessions fall due a little after the services' start, reckoned with exchange_calendars alone.

    `trade`: the session whose open comes next after `due`; `close`: the last one that has closed by `due`.
    """

    due: datetime
    trade: date
    close: date
    open_lead_minutes: int
    close_delay_minutes: int

    @classmethod
    def after(cls, now: datetime, minutes: int) -> Schedule:
        """The run of both is due at a whole minute, `minutes` from `now` at most."""
        due = now.replace(second=0, microsecond=0) + timedelta(minutes=minutes)
        window = [(now + timedelta(days=days)).date().isoformat() for days in (-14, 14)]
        calendar = exchange_calendars.get_calendar("XNYS", start=window[0], end=window[1])
        trade = next(s for s in calendar.sessions if calendar.session_open(s) > due)
        close = [s for s in calendar.sessions if calendar.session_close(s) <= due][-1]
        lead = (calendar.session_open(trade) - due).total_seconds() / 60
        delay = (due - calendar.session_close(close)).total_seconds() / 60
        return cls(due, trade.date(), close.date(), round(lead), round(delay))

    def variables(self) -> dict[str, str]:
        """The settings that make it so."""
        return {
            "TRADING_OPEN_LEAD_MINUTES": str(self.open_lead_minutes),
            "TRADING_CLOSE_DELAY_MINUTES": str(self.close_delay_minutes),
        }

    def tradable(self, at: datetime) -> bool:
        """Whether an order sent `at` would meet the open of `trade`: the session before has closed, it has not opened."""
        calendar = exchange_calendars.get_calendar("XNYS", start=(self.trade - timedelta(days=14)).isoformat())
        before = calendar.previous_session(self.trade.isoformat())
        return bool(calendar.session_close(before) <= at < calendar.session_open(self.trade.isoformat()))


@dataclass(frozen=True)
class CutOff:
    """A `launcher run` that was ended by a signal while its services started."""

    code: int
    output: str
    left: list[int]  # processes of the installation that lived on


@dataclass(frozen=True)
class Pass:
    """One `make run`: its exit code and output, and what was stored right after it."""

    code: int
    output: str
    finished: datetime
    contents: dict[str, str]
    ledger: dict[str, list[Any]]
    versions: list[int]


@dataclass(frozen=True)
class Site:
    """An installation, running or not. `variables`: of a caller's shell; `environment`: of the services themselves."""

    home: Installation
    market: MarketConfig
    variables: dict[str, str]
    environment: dict[str, str]

    @classmethod
    def of(cls, variables: dict[str, str]) -> Site:
        with environment(variables):
            settings = Settings()
            home = installation(settings)
            return cls(home, load_market(MARKET, settings), variables, home.environment())

    @property
    def settings(self) -> Settings:
        return self.home.settings

    def workspace(self) -> Workspace:
        return open_workspace(self.market, self.settings)

    def ledger(self) -> Ledger:
        return Ledger(self.workspace().ledger_store())

    def make_run(self) -> Pass:
        """The main job, as a process of its own: beside the running services, else with services of its own."""
        arguments = ["run", "--market", MARKET, "--model", MODEL, "--strategy", STRATEGY, "--sessions", str(SESSIONS)]
        code, output = finished(launcher(self.variables, *arguments), MAIN_JOB_S)
        versions = [found.version for found in self.workspace().registry().list(MARKET)] if not code else []
        return Pass(code, output, utc_now(), self.contents(), self.ledger_state(), versions)

    def cut_off(self, by: signal.Signals) -> CutOff:
        """A main job that gets the signal as soon as its services are there."""
        state = self.home.airflow_home / "services.json"
        process = launcher(self.variables, "run")

        def started() -> bool:  # the note alone could be that of the command before
            return state.is_file() and len(survivors(self.home.var_dir)) >= 4

        until(lambda: started() or process.poll() is not None, START_S, lambda: "no service was started")
        if process.poll() is not None:
            pytest.fail(f"`launcher run` ended by itself with code {process.returncode}:\n{process.communicate()[0]}")
        process.send_signal(by)
        code, output = finished(process, START_S)
        return CutOff(code, output, survivors(self.home.var_dir))

    def ledger_state(self, account: str = "") -> dict[str, list[Any]]:
        """Every session, decision, order and fill, by account; `account` picks one."""
        ledger, found = self.ledger(), {}
        for owner in ledger.accounts(MARKET):
            if account in ("", owner.account):
                found[owner.account] = [
                    (
                        ledger.session_state(owner.account, known.session),
                        ledger.get_decision(owner.account, known.session),
                        ledger.orders(owner.account, known.session),
                        ledger.fills(owner.account, known.session),
                    )
                    for known in ledger.sessions(owner.account)
                ]
        return found

    def contents(self, start: date | None = None, end: date | None = None) -> dict[str, str]:
        """A digest per data table (bars, events, quarantine, features) of its rows, bit for bit."""
        tables = self.workspace().tables
        names = [
            name for name in tables.names() if name in ("bars", "corporate_actions", "quarantine") or "features" in name
        ]
        return {name: digest(tables.read(name, where=Predicate(start, end))) for name in names}


@dataclass(frozen=True)
class Platform(Site):
    """An installation whose services run, with schedules that fall due a little after their start."""

    api: AirflowApi
    schedule: Schedule
    interrupted: CutOff  # by Ctrl-C, before the first main job
    killed: CutOff  # right before the start of these services
    after_up: list[int]  # of the processes that the killed one left, those that lived on beside these services
    up_output: str

    # --- runs ---

    def wait(self, dag_id: str, run_ids: list[str]) -> dict[str, str]:
        """The final state of each run; fails with the unfinished ones after RUN_S."""
        waiting = set(run_ids)
        states: dict[str, str] = {}

        def look() -> bool:
            for run in self.runs(dag_id):
                if run["dag_run_id"] in waiting and run["state"] in DONE:
                    states[run["dag_run_id"]] = run["state"]
            return waiting <= set(states)

        until(look, RUN_S, lambda: f"{dag_id}: unfinished {sorted(waiting - set(states))}", every_s=1.0)
        return states

    def rest(self, dag_id: str) -> None:
        """Returns when no run of the DAG is going on or waiting for its turn."""

        def look() -> bool:
            return not self.runs(dag_id, state=["queued", "running"])

        until(look, RUN_S, lambda: f"{dag_id} does not come to rest", every_s=1.0)

    def runs(self, dag_id: str, **filters: Any) -> list[dict[str, Any]]:
        return self.api.runs(dag_id, **filters)

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        return next(t for t in self.api.tasks(dag_id, run_id) if t["task_id"] == task_id)

    def failure(self, dag_id: str, run_id: str, task_id: str) -> str:
        """The log of a task's last attempt, with its exception."""
        found = self.task(dag_id, run_id, task_id)
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{max(1, found['try_number'])}"
        return str(self.api.call("GET", path.replace("+", "%2B"), params={"full_content": "true"})["content"])

    # --- backfills ---

    def start_backfill_cli(self, dag_id: str, start: date, end: date, *more: str) -> subprocess.Popen[str]:
        """`airflow backfill create`, as an operator types it."""
        command = [sys.executable, "-m", "airflow", "backfill", "create", "--dag-id", dag_id]
        command += ["--from-date", start.isoformat(), "--to-date", end.isoformat(), *more]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY
        )

    def start_backfill(self, dag_id: str, start: date, end: date, **body: Any) -> int:
        """POST /backfills, again while SQLite is locked (503, 500) or the backfill before is not swept yet (409, 30 s)."""
        wanted = {"dag_id": dag_id, "from_date": f"{start}T00:00:00Z", "to_date": f"{end}T00:00:00Z", **body}
        answers: list[str] = []

        def post() -> int | None:
            try:
                return int(self.api.call("POST", "/backfills", wanted)["id"])
            except AirflowApiError as error:
                answers.append(str(error))
                if any(text in str(error) for text in ("HTTP 409", "HTTP 503", "Database error")):
                    return None
                raise

        return until(post, START_S, lambda: answers[-1], every_s=1.0)


def digest(frame: Any) -> str:
    """SHA-256 over a frame's rows in key order: floats by their bits, so that -0.0 is not 0.0."""
    keys = [name for name in ("symbol", "session", "kind", "check") if name in frame.columns]
    found = hashlib.sha256(str(sorted(frame.schema.items())).encode())
    for column in frame.sort(keys).select(sorted(frame.columns)).iter_columns():
        if column.dtype.is_float():
            found.update(column.is_null().to_numpy().tobytes())
            found.update(column.fill_null(0.0).to_numpy().tobytes())
        else:
            found.update(repr(column.to_list()).encode())
    return found.hexdigest()


def until(look: Callable[[], T | None], within_s: float, why: Callable[[], str], every_s: float = 0.5) -> T:
    """The first true answer of `look`; fails the test with `why` when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s:.0f} s: {why()}")
        time.sleep(every_s)


def launcher(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """`python -m launcher ...` as `make` starts it, in a session of its own: a signal to it reaches nobody else."""
    return subprocess.Popen(
        [sys.executable, "-m", "launcher", *arguments],
        env={**environment, "COLUMNS": "160"},
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str], within_s: float) -> tuple[int, str]:
    """Its exit code and output. One that is not through in time is interrupted, which ends the services it started too."""
    try:
        output, _ = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        output = f"not through within {within_s:.0f} s:\n" + process.communicate(timeout=START_S)[0]
    return process.returncode, output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def variables(var_dir: Path) -> dict[str, str]:
    """This process's environment without any Airflow or trading setting of the caller, plus those of these tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "TRADING_", "MLFLOW"))}
    ports = {"AIRFLOW_PORT": str(free_port()), "MLFLOW_PORT": str(free_port())}
    defaults = {"TRADING_MARKET": MARKET, "TRADING_MODEL": MODEL, "TRADING_STRATEGY": SCHEDULED_STRATEGY}
    return {**kept, "TRADING_VAR_DIR": str(var_dir), **ports, **defaults}


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """`values` as the whole environment of this process, for as long as the block runs."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def write_market(var_dir: Path) -> None:
    folder = var_dir / "configs" / "markets"
    folder.mkdir(parents=True)
    (folder / f"{MARKET}.yaml").write_text(yaml.safe_dump(MARKET_FILE))


@contextmanager
def guarded(var_dir: Path) -> Iterator[None]:
    """Ends the installation's processes when the block ends, and also when this process is killed inside it.

    A helper process waits for the end of its standard input, which comes whichever way this process ends.
    """
    code = "import sys, pathlib; sys.stdin.read(); from platform_harness import end; end(pathlib.Path(sys.argv[1]))"
    search = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])
    guard = subprocess.Popen(
        [sys.executable, "-c", code, str(var_dir)],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": search},
    )
    try:
        yield
    finally:
        end(var_dir)
        if guard.stdin:
            guard.stdin.close()
        guard.wait(START_S)


def end(var_dir: Path) -> int:
    """Stops every process of the installation in `var_dir`; how many there were."""
    return supervisor.stop(Installation(Settings(var_dir=var_dir), 0, 0))


def survivors(var_dir: Path) -> list[int]:
    """Processes that still carry the mark of the installation in `var_dir`."""
    return supervisor._marked(Installation(Settings(var_dir=var_dir), 0, 0))


def utc_now() -> datetime:
    return datetime.now(UTC)
