"""daily_trade and controls under `dag.test()`: one process with Airflow, a prepared market, and a ledger for each scenario.

Run as a program (`python trading_site.py <folder>`) it plays the scenarios of a file of JSON, `<folder>/asked.json`, one after
the other in this process, and writes what came of each to `<folder>/told.json`. Airflow's scheduling, execution API, XCom,
rendering, callbacks and Human-in-the-loop handlers are its own; so are the broker's HTTP and the webhook's. In their places are:
the clock of the DAGs (`runtime.now`), the time between two questions to the broker, and the API server's login.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "pipelines"), str(HERE.parent / "execution")]

MON = date(2025, 6, 16)  # the session after tiny_market.LAST
BEFORE_OPEN = datetime(2025, 6, 16, 13, 0, tzinfo=UTC)  # 09:00 in New York, half an hour before it opens
ALPACA = {"TRADING_BROKER": "alpaca", "TRADING_TRADE_MODE": "live"}
DAGS = ("daily_trade", "controls")
SYMBOLS = 16  # top10 finds its ten among them
PATIENCE_S = 800  # of a machine that has other work; nothing here waits by the clock


@dataclass
class Scenario:
    """One run of a DAG. `answer`: what a person says under Required Actions, "nothing" (time runs out), or "" (not asked).

    `env`: variables, `$HOOK` in them is the webhook's URL. `server`: with the stand-in of Alpaca; `faults`: of it, by
    endpoint. `held`: how many symbols its account holds that the decision will want to sell. `before`: an action of controls.
    """

    name: str
    conf: dict[str, Any] = field(default_factory=dict)
    dag: str = "daily_trade"
    now: str = BEFORE_OPEN.isoformat()
    ledger: str = ""  # scenarios of one name share a ledger
    answer: str = ""
    marked: str = ""  # tasks marked success by hand
    backfill: str = ""  # the partition key, for a run of a backfill
    env: dict[str, str] = field(default_factory=dict)
    server: bool = False
    faults: dict[str, str] = field(default_factory=dict)
    held: int = 0
    before: str = ""


@dataclass
class Told:
    """What came of it."""

    run: str = ""
    tasks: dict[str, str] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    xcoms: dict[str, Any] = field(default_factory=dict)
    account: str = ""
    orders: list[dict[str, Any]] = field(default_factory=list)
    approvals: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    status: str = ""  # of the session
    deferred: list[str] = field(default_factory=list)  # the classes of the triggers
    asleep: list[str] = field(default_factory=list)  # until when, of those that wait for a time
    requests: int = 0  # to the broker
    posts: list[dict[str, Any]] = field(default_factory=list)  # orders the broker got
    hooks: list[str] = field(default_factory=list)  # what the webhook got
    output: str = ""  # of the run: logs of its tasks and callbacks
    question: str = ""  # what the person was shown
    cash: list[float] = field(default_factory=list)  # ledger's and broker's, once settled


# --- for the tests ----------------------------------------------------------------------------------------------------


def variables(home: Path, var: Path, **more: str) -> dict[str, str]:
    from airflow_env import airflow_environment

    found = airflow_environment(home, **more)
    found |= {"TRADING_VAR_DIR": str(var), "TRADING_MARKET": "tiny", "OMP_NUM_THREADS": "1"}
    found["PYTHONPATH"] = os.pathsep.join(str(REPOSITORY / name) for name in ("dags", "plugins"))
    return {**found, "AIRFLOW__CORE__DAGS_FOLDER": str(home.parent / "dags"), "NO_COLOR": "1"}


def prepare(folder: Path, **more: str) -> None:
    """A small market with bars, features, model and forecasts, and a migrated database of Airflow beside it."""
    import tiny_market
    import yaml

    (folder / "airflow").mkdir(parents=True)
    (folder / "dags").mkdir()
    for name in DAGS:  # `dag.test()` parses the whole folder for every run: only what is run lies in it
        (folder / "dags" / f"{name}.py").symlink_to(REPOSITORY / "dags" / f"{name}.py")
    found = variables(folder / "airflow", folder / "var", **more)
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    migrating = subprocess.Popen(command, env=found, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    ws = tiny_market.new_market(folder / "var", options={**tiny_market.OPTIONS, "symbols": SYMBOLS})
    tiny_market.backfilled(ws)
    tiny_market.trained(ws)
    tiny_market.forecast(ws)
    strategies = folder / "var" / "configs" / "strategies"
    strategies.mkdir(parents=True)
    chosen = {"strategy": "top_k", "fractional": False, "params": {"k": 3}, "risk": {"max_position": 0.5}}
    (strategies / "whole-shares.yaml").write_text(yaml.safe_dump(chosen))
    output = migrating.communicate(timeout=PATIENCE_S)[0]
    assert migrating.returncode == 0, output.decode()[-4000:]


def play(folder: Path, scenarios: list[Scenario], **more: str) -> dict[str, Told]:
    """All scenarios, in a process of their own, by name."""
    (folder / "asked.json").write_text(json.dumps([asdict(scenario) for scenario in scenarios]))
    found = variables(folder / "airflow", folder / "var", **more)
    command = [sys.executable, "-W", "ignore", __file__, str(folder)]
    done = subprocess.run(command, env=found, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    return {name: Told(**told) for name, told in json.loads((folder / "told.json").read_text()).items()}


# --- inside the process with Airflow ----------------------------------------------------------------------------------


class Webhook:
    """Takes what is posted to it."""

    def __init__(self) -> None:
        got: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self.got = got
        self._http = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/hook"


class Stage:
    """The DAGs, loaded once, and what stands beside them."""

    def __init__(self, folder: Path) -> None:
        self.dags: dict[str, Any] = {}
        self.folder, self.hook = folder, Webhook()
        self.now = BEFORE_OPEN
        import runtime
        import trading_tasks

        runtime.now = lambda: self.now
        trading_tasks.POLL = timedelta(0)
        trading_tasks.REPLAY_PATIENCE = timedelta(seconds=60)

    def _load(self) -> None:
        """The DAGs as their files say: a run leaves its form's values in the parameters of the objects it used."""
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(dag_folder=str(self.folder / "dags"))
        assert not bag.import_errors, bag.import_errors
        self.dags = {name: bag.get_dag(name) for name in DAGS}
        # `dag.test()` looks for the deadline of a run that succeeds by an id that only stored DAGs have (Airflow 3.3.2).
        self.dags["daily_trade"].deadline = None
        for dag in self.dags.values():
            for task in dag.tasks:
                task.retry_delay = timedelta(0)

    def play(self, asked: Scenario) -> Told:
        told = Told()
        self._load()
        ledger = f"sqlite:///{self.folder / 'var' / f'ledger-{asked.ledger or asked.name}.sqlite'}"
        self.now = datetime.fromisoformat(asked.now)
        hook = {name: value.replace("$HOOK", self.hook.url) for name, value in asked.env.items()}
        self.hook.got.clear()
        with ExitStack() as stack:
            server = stack.enter_context(_alpaca(self, asked)) if asked.server else None
            found = {"TRADING_LEDGER_URL": ledger, **hook}
            if server is not None:
                from alpaca_trading_server import KEY_ID, SECRET_KEY

                keys = {"TRADING_ALPACA_KEY_ID": KEY_ID, "TRADING_ALPACA_SECRET_KEY": SECRET_KEY}
                found = {**ALPACA, **keys, "TRADING_ALPACA_URL": server.url, **found}
            stack.enter_context(patch.dict(os.environ, found))
            stack.enter_context(_watched(self, server, told))
            stack.enter_context(_as_backfill(asked.backfill))
            stack.enter_context(_dag_processor(self))
            print(f"--- {asked.name}", flush=True)
            self._act(asked.before)
            with _person(asked.answer, told):
                run = self.dags[asked.dag].test(run_conf=asked.conf, mark_success_pattern=asked.marked or None)
            _record(run, told)
            if server is not None:
                told.requests, told.posts = len(server.requests), list(server.posts)
                if asked.held:
                    self._evening(server, told)
            if found["TRADING_LEDGER_URL"].startswith("sqlite:"):
                self._look(told)
        told.hooks = list(self.hook.got)
        return told

    def _act(self, action: str) -> None:
        if action:
            from trading_core.pipelines import controls

            controls.act(self._workspace(), action, "all", "a test", by="a test", now=self.now)

    def _workspace(self) -> Any:
        import runtime

        return runtime.workspace("tiny")

    def _evening(self, server: Any, told: Told) -> None:
        """The session closes, its bars come, and a person settles it with the DAG controls."""
        import tiny_market

        ws = self._workspace()
        server.close_market(MON, {})
        self.now = server.now + timedelta(hours=2)
        tiny_market.backfilled(ws, MON, MON, now=self.now)
        run = self.dags["controls"].test(run_conf={"market": "tiny", "action": "settle", "account": told.account})
        settling = Told()
        _record(run, settling)
        told.xcoms["controls"] = settling.xcoms.get("act")
        told.cash = [told.xcoms["controls"]["cash"], float(server.cash)]

    def _look(self, told: Told) -> None:
        """What the ledger says of the session."""
        from trading_core.execution.ledger import Ledger

        ws = self._workspace()
        ledger = Ledger(ws.ledger_store())
        accounts = [record.account for record in ledger.accounts("tiny")]
        told.account = told.account or (accounts[-1] if accounts else "")
        if not accounts or ledger.last_session(told.account) is None:
            return
        session = ledger.last_session(told.account).session
        told.orders = [
            {
                "symbol": o.intent.symbol,
                "side": o.intent.side.value,
                "status": o.status.value,
                "filled": o.filled_quantity,
            }
            for o in ledger.orders(told.account, session)
        ]
        said = ledger.approval(told.account, session)
        told.approvals = [{"approved": said.approved, "by": said.by, "note": said.note}] if said else []
        told.alerts = [e.message for e in ledger.events(told.account) if e.level.value == "alert"]
        told.status = ledger.session_state(told.account, session).status.value


def _record(run: Any, told: Told) -> None:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    told.run = str(run.state)
    for ti in run.get_task_instances():
        told.tasks[ti.task_id], told.tries[ti.task_id] = str(ti.state), ti.try_number
    with create_session() as session:
        rows = session.scalars(select(XComModel).where(XComModel.run_id == run.run_id, XComModel.key == "return_value"))
        told.xcoms |= {row.task_id: XComModel.deserialize_value(row) for row in rows}
    told.account = (told.xcoms.get("check") or {}).get("account", "")


@contextmanager
def _watched(stage: Stage, server: Any, told: Told) -> Iterator[None]:
    """Notes each deferral; while a task sleeps, the market moves on."""
    from airflow.sdk.definitions import dag as module

    inline = module._run_inline_trigger

    def run(trigger: Any, *rest: Any) -> Any:
        name, values = trigger.serialize()
        told.deferred.append(name)
        told.asleep += [values["moment"].isoformat()] if "moment" in values else []
        if server is not None:
            prices = _closes(stage)
            if not server.asked_open:
                server.asked_open = True
                server.open_market(MON, {symbol: round(price * 0.97, 2) for symbol, price in prices.items()})
            else:
                server.trade({symbol: round(price * 0.98, 2) for symbol, price in prices.items()})
            stage.now = server.now
        return inline(trigger, *rest)

    with patch.object(module, "_run_inline_trigger", run):
        yield


def _closes(stage: Stage) -> dict[str, float]:
    import polars as pl
    import tiny_market

    bars = stage._workspace().tables.read("bars").filter(pl.col("session") == tiny_market.LAST)
    return dict(bars.select("symbol", "close").iter_rows())


@contextmanager
def _alpaca(stage: Stage, asked: Scenario) -> Iterator[Any]:
    from decimal import Decimal

    import polars as pl
    from alpaca_trading_server import AlpacaTradingServer

    with AlpacaTradingServer(stage.now, cash="100000") as server:
        server.asked_open = False
        for endpoint, fault in asked.faults.items():
            server.inject(endpoint, fault, 50)
        if asked.held:
            rows = stage._workspace().tables.read("forecasts")
            rows = rows.filter((pl.col("session") == date(2025, 6, 13)) & (pl.col("horizon") == 1)).sort("score")
            prices = _closes(stage)
            for symbol in [name for name in rows["symbol"].to_list() if name in prices][: asked.held]:
                server.positions[symbol] = [Decimal(100), Decimal(str(round(prices[symbol], 2)))]
            server.cash = Decimal("20000")
        yield server


@contextmanager
def _as_backfill(partition_key: str) -> Iterator[None]:
    """`dag.test()` makes manual runs only; this one is what a backfill makes."""
    from airflow.models import dagrun
    from airflow.utils.types import DagRunType

    create = dagrun.get_or_create_dagrun

    def made(**given: Any) -> Any:
        run = create(**given)
        if partition_key:
            run.run_type, run.partition_key = DagRunType.BACKFILL_JOB, partition_key
            given["session"].commit()
        return run

    with patch.object(dagrun, "get_or_create_dagrun", made):
        yield


@contextmanager
def _dag_processor(stage: Stage) -> Iterator[None]:
    """Callbacks of a run get the DAG as its file says, as in the DAG processor; `dag.test()` hands on the serialized one."""
    from airflow.models.dagrun import DagRun

    execute = DagRun.execute_dag_callbacks

    def executed(self: Any, dag: Any, *rest: Any, **given: Any) -> None:
        execute(self, stage.dags[self.dag_id], *rest, **given)

    with patch.object(DagRun, "execute_dag_callbacks", executed):
        yield


@contextmanager
def _person(answer: str, told: Told) -> Iterator[None]:
    """Somebody who looks under Required Actions beside the run, or nobody: then the scheduler's sweep answers for him."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.2):
            if _answered(answer, told):
                return

    thread = threading.Thread(target=look, daemon=True)
    if answer:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if answer:
            thread.join(20)


def _answered(answer: str, told: Told) -> bool:
    """The API server's own handler of an answer, with its user; or the scheduler's own sweep."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
    from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        parked = session.scalar(select(TaskInstance).where(TaskInstance.state == "awaiting_input"))
        if parked is None:
            return False
        detail = session.scalar(select(HITLDetail).where(HITLDetail.ti_id == parked.id))
        told.question = f"{detail.subject}\n{detail.body}"
        if answer != "nothing":
            user = SimpleAuthManagerUser(username="nora", role="admin")
            said = UpdateHITLDetailPayload(chosen_options=[answer])
            update_hitl_detail(parked.dag_id, parked.run_id, parked.task_id, said, user, session)
            return True
    SchedulerJobRunner(job=Job()).check_awaiting_input_timeouts()
    return False


def late(url: str) -> None:
    """The deadline's callback, called as the triggerer calls it."""
    import asyncio

    import alerts

    with patch.dict(os.environ, {"TRADING_ALERT_URL": url}):
        run = {"dag_id": "daily_trade", "dag_run_id": "scheduled__2025-06-16"}
        asyncio.run(alerts.late(context={"dag_run": run, "deadline": {"id": str(uuid.uuid4())}}))


def main() -> None:
    folder = Path(sys.argv[1])
    stage = Stage(folder)
    told: dict[str, Any] = {}
    for asked in json.loads((folder / "asked.json").read_text()):
        scenario = Scenario(**asked)
        if scenario.dag == "late":
            stage.hook.got.clear()
            print(f"--- {scenario.name}", flush=True)
            late(scenario.env["TRADING_ALERT_URL"].replace("$HOOK", stage.hook.url))
            told[scenario.name] = asdict(Told(hooks=list(stage.hook.got)))
        else:
            told[scenario.name] = asdict(stage.play(scenario))
    (folder / "told.json").write_text(json.dumps(told, default=str))


if __name__ == "__main__":
    main()
