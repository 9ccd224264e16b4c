"""kill -9 in the whole trading pipeline: tables, artifacts, model registry, ledger and paper broker of a small market.

`python whole_pipeline.py prepare FOLDER` makes the market and trades one session, in a process of its own: the one that forks
must import polars but not have used it, as its threads do not survive a fork.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from calls import STORE_CALLS, Calls, Watched, die
from kills import Kill, Killed, points
from processes import in_child, spread

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipelines"))
from tiny_market import MARKET, NOW, settings_of

from trading_core.errors import LeaseHeldError
from trading_core.execution.ledger import Ledger
from trading_core.execution.store_sqlite import SqliteStore
from trading_core.pipelines import trade
from trading_core.pipelines.workspace import Workspace, open_workspace

FIRST, DAY = date(2025, 5, 13), date(2025, 5, 14)  # two of the four names change
STRATEGY = "top4"
WAITED = 3  # exit code
TABLE_CALLS = ("read", "replace", "append", "version", "exists", "names", "sessions", "last_session", "first_session")
ARTIFACT_CALLS = ("read_bytes", "write_bytes", "read_json", "write_json", "exists", "list", "create", "publish")
REGISTRY_CALLS = ("get", "version", "resolve", "list", "find")


@dataclass(frozen=True, slots=True)
class WatchedWorkspace(Workspace):
    """A workspace all of whose calls to the outside are counted."""

    calls: Calls

    def registry(self) -> Any:
        return Watched(Workspace.registry(self), self.calls, "registry", REGISTRY_CALLS)

    def ledger_store(self) -> Any:
        return Watched(Workspace.ledger_store(self), self.calls, "ledger", STORE_CALLS)


def watched(var: Path, calls: Calls) -> WatchedWorkspace:
    ws = open_workspace(MARKET, settings_of(var))
    tables = Watched(ws.tables, calls, "tables", TABLE_CALLS)
    store = Watched(ws.store, calls, "artifacts", ARTIFACT_CALLS)
    return WatchedWorkspace(ws.settings, ws.market, store, tables, ws.sessions, calls)  # type: ignore[arg-type]


def session(ws: Workspace, day: date) -> Any:
    return trade.run(
        ws, strategy=STRATEGY, session=day, is_backfill=True, replay="faults", run_id=f"run-{day}", now=NOW
    )


def prepare(folder: Path) -> None:
    """The market with one traded session under `folder`, in a process of its own."""
    subprocess.run([sys.executable, __file__, "prepare", str(folder)], check=True, env=_environment())


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TRADING_")}


@dataclass(frozen=True, slots=True)
class Plain:
    """An undisturbed second session."""

    calls: tuple[str, ...]
    ended: dict[str, str]
    orders: tuple[str, ...]


def undisturbed(prepared: Path, folder: Path) -> Plain:
    """Also imports in this process, without using it, what a session imports: its forks are faster then."""

    def imported() -> list[str]:
        before = set(sys.modules)
        with _copied(prepared, folder) as var:
            session(watched(var, Calls()), DAY)
        return [name for name in sys.modules if name not in before]

    for name in in_child(imported):
        with suppress(ImportError):
            importlib.import_module(name)

    def work() -> Plain:
        with _copied(prepared, folder) as var:
            calls = Calls()
            session(watched(var, calls), DAY)
            return Plain(tuple(calls.names), _ended(var), _sides(var))

    return in_child(work)


def kills(prepared: Path, folder: Path, plain: Plain, lanes: int, every_call: bool = False) -> Killed:
    """The second session killed before and after each call that can leave something behind (`every_call`: at all)."""

    def one(kill: Kill) -> Killed:
        def work() -> Killed:
            with _copied(prepared, folder) as var:
                died = _in_process(var, Calls(*kill, act=die)) != 0
                status = _in_process(var, Calls())
                found = [] if status == 0 else [f"the run after it ended with status {status}"]
                ended = _ended(var)
                if ended != plain.ended:
                    found.append(
                        f"it ended otherwise: {sorted(k for k in ended if ended[k] != plain.ended.get(k))[:4]}"
                    )
                return Killed(1, int(died), [f"pipeline, killed {kill[1]} call {kill[0]}: {what}" for what in found])

        return in_child(work)

    total = Killed()
    for made in spread(points(plain.calls, effects_only=not every_call), one, lanes):
        total.add(made)
    return total


def at_once(prepared: Path, folder: Path, plain: Plain, processes: int) -> Killed:
    """That many processes trade the session on one ledger and one paper account at the same time."""

    def work() -> Killed:
        with _copied(prepared, folder) as var:
            started = [_start(var, Calls()) for _ in range(processes)]
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started]
            found = [f"a process ended with {code}" for code in codes if code not in (0, WAITED)]
            if codes.count(WAITED) == processes:
                found.append("every process waited in vain")
            if _ended(var) != plain.ended:
                found.append("it ended otherwise than a run alone")
            return Killed(1, 0, [f"pipeline, {processes} at once: {what}" for what in found])

    return in_child(work)


def _in_process(var: Path, calls: Calls) -> int:
    return os.waitpid(_start(var, calls), 0)[1]


def _start(var: Path, calls: Calls) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        session(watched(var, calls), DAY)
        code = 0
    except LeaseHeldError:
        code = WAITED  # the account was busy for longer than a step waits; Airflow runs it again
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@contextmanager
def _copied(prepared: Path, folder: Path) -> Iterator[Path]:
    """A copy that may be changed. Files that are only ever replaced are linked, databases copied."""
    var = folder / f"pipeline-{os.getpid()}"

    def copy(source: str, target: str) -> None:
        if ".sqlite" in source or source.endswith((".db", "-wal", "-shm")):
            shutil.copyfile(source, target)
        else:
            os.link(source, target)

    shutil.copytree(prepared, var, copy_function=copy)
    try:
        yield var
    finally:
        shutil.rmtree(var)


def _ended(var: Path) -> dict[str, str]:
    """What ledger and paper broker hold in the end, as digests by key; leases, events and times aside."""
    store = SqliteStore(str(var / "ledger.sqlite"))
    found = {}
    for record in Ledger(store).accounts(MARKET):
        for pk in (f"account#{record.account}", f"paper#{record.account}"):
            for item in store.query(pk):
                if not item.sk.startswith(("lease#", "event#")):
                    found[f"{pk} {item.sk}"] = hashlib.sha256(repr(_timeless(item.doc)).encode()).hexdigest()
    store.close()
    return found


def _timeless(value: Any) -> Any:
    """A document without the times at which a step happened to write it."""
    if isinstance(value, dict):
        return sorted((k, _timeless(v)) for k, v in value.items() if k != "at" and not k.endswith("_at"))
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _sides(var: Path) -> tuple[str, ...]:
    store = SqliteStore(str(var / "ledger.sqlite"))
    ledger = Ledger(store)
    account = ledger.accounts(MARKET)[0].account
    found = tuple(sorted(order.intent.side.value for order in ledger.orders(account, DAY)))
    store.close()
    return found


def main() -> None:
    what, folder = sys.argv[1:]
    assert what == "prepare"
    from tiny_market import prepare as make

    var = Path(folder)
    strategies = var / "configs" / "strategies"
    strategies.mkdir(parents=True, exist_ok=True)
    text = "strategy: top_k\ndescription: Four names.\nhorizon: 1\nparams: {k: 4}\n"
    (strategies / f"{STRATEGY}.yaml").write_text(text)
    make(var)
    session(open_workspace(MARKET, settings_of(var)), FIRST)


if __name__ == "__main__":
    main()
