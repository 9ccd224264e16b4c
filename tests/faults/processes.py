"""Sessions in processes of their own that are really killed or stopped, against one exchange that lives on.

A *scenario* is a forked process that owns the exchange (in virtual time) and a copy of a ledger on SQLite; it forks *workers*,
which ask it over a pipe. `template` prepares, once, what every scenario starts from: the parent stays warm.
"""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from calls import BROKER_CALLS, Calls, Watched, die, watched_store
from exchange import CALM, Exchange, Habits
from exchange_broker import NONE, ExchangeBroker
from invariants import Witness, comparable, violations
from worker import ACCOUNT, Known, Worker
from world import NYSE, SYMBOLS, Dangers, World, known_of

from trading_core.errors import LeaseHeldError, LeaseLostError, OrderWindowClosedError, TradingError
from trading_core.execution.broker import OrderWindow
from trading_core.execution.lease import this_process
from trading_core.execution.ledger import Ledger
from trading_core.execution.store import DocumentStore
from trading_core.execution.store_sqlite import SqliteStore
from trading_core.schema import OrderKind, OrderStatus, Side
from trading_core.sessions import Sessions

FIRST = date(2024, 3, 5)
SEED = 7
RETRIES = 40
Step = Callable[[Known, datetime], object]
HABITS = Habits(pieces=1.0, commission=1.0)


@dataclass(frozen=True, slots=True)
class Flavour:
    """What kind of broker it is."""

    name: str
    unique_ids: bool
    one_auction: bool


FLAVOURS = (
    Flavour("sells, then buys", unique_ids=True, one_auction=False),
    Flavour("one auction", unique_ids=True, one_auction=True),
    Flavour("ids not unique", unique_ids=False, one_auction=False),
)


class RemoteBroker:
    """The exchange of another process, asked over a pipe."""

    name = "exchange"
    real = False

    def __init__(self, pipe: Connection, exchange: Exchange) -> None:
        self._pipe, self._exchange = pipe, exchange
        self.traits = exchange.traits

    def identity(self) -> str:
        return "exchange:1"

    def window(self, kind: OrderKind, session: date, sessions: Sessions) -> OrderWindow:
        return self._exchange.window(kind, session)  # the same in every process

    def ask(self, name: str, *args: Any) -> Any:
        self._pipe.send((name, args))
        answer, error = self._pipe.recv()
        if error is not None:
            raise error[0](*error[1])
        return answer

    def __getattr__(self, name: str) -> Any:
        if name not in BROKER_CALLS or name == "settle_open":  # it is no simulated broker
            raise AttributeError(name)
        return lambda *args: self.ask(name, *args)


@dataclass(slots=True)
class Scenario:
    """One exchange with its ledger, in the process that owns them. `forget`: files to delete in the end."""

    exchange: Exchange
    path: Path
    flavour: Flavour
    witness: Witness = field(init=False)
    reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.witness = Witness(SqliteStore(str(self.path)), self.exchange, ACCOUNT)

    # --- workers ------------------------------------------------------------------------------------------------------

    def start(self, day: date, calls: Calls) -> tuple[int, Connection]:
        """Forks a worker that takes every step of `day`; its process id and our end of its pipe."""
        mine, theirs = Pipe()
        pid = os.fork()
        if pid:
            theirs.close()
            return pid, mine
        code = 1
        try:
            mine.close()
            theirs.send(("report", (_told(theirs, self.exchange, self.path, day, calls),)))
            code = 0
        except EOFError:
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def run(self, day: date, calls: Calls | None = None) -> int:
        """One worker from its beginning to its end or death; the exit status as of waitpid."""
        pid, pipe = self.start(day, calls or Calls(act=die))
        self.serve(pipe)
        return os.waitpid(pid, 0)[1]

    def serve(self, pipe: Connection) -> None:
        """Answers a worker until its end of the pipe closes."""
        while self.answer(pipe):
            pass

    def answer(self, pipe: Connection) -> bool:
        """One question; False when nobody is there any more."""
        try:
            name, args = pipe.recv()
        except (EOFError, ConnectionResetError):
            return False
        if name == "report":
            self.reports.append(args[0])
            return True
        answer, error = None, None
        try:
            answer = self._carry_out(name, args)
        except TradingError as raised:
            error = (type(raised), tuple(vars(raised).values()))
        try:
            pipe.send((answer, error))
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _carry_out(self, name: str, args: tuple[Any, ...]) -> Any:
        if name == "advance":
            self.exchange.advance(args[0])
            return None
        if name == "now":
            return self.exchange.now
        if name == "known":
            return known_of(self.exchange, args[0])
        return getattr(ExchangeBroker(self.exchange, None, self.witness, ACCOUNT), name)(*args)

    def serve_all(self, pipes: list[Connection]) -> None:
        """Answers many workers, whoever asks first."""
        while pipes:
            for pipe in wait(pipes):
                if not self.answer(pipe):  # type: ignore[arg-type]
                    pipes.remove(pipe)  # type: ignore[arg-type]

    # --- judging ------------------------------------------------------------------------------------------------------

    def judged(self, day: date, undisturbed: dict[str, object]) -> list[str]:
        """What is wrong now that `day` has been brought to its end."""
        store = SqliteStore(str(self.path))
        found = violations(store, self.exchange, ACCOUNT, self.witness)
        ended = comparable(store, ACCOUNT)
        if ended != undisturbed and not self._unknown(store, day):
            differing = sorted(key for key in {*ended, *undisturbed} if ended.get(key) != undisturbed.get(key))
            found.append(f"it ended otherwise than an undisturbed run: {differing}")
        store.close()
        return found

    def _unknown(self, store: SqliteStore, day: date) -> bool:
        """Where ids are not unique an order may stay UNKNOWN; that somebody was alerted, the invariants have checked."""
        orders = Ledger(store).orders(ACCOUNT, day)
        return not self.flavour.unique_ids and any(order.status is OrderStatus.UNKNOWN for order in orders)


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says in the end: the calls it made, and the error that ended it, if one did."""

    calls: tuple[str, ...]
    error: str = ""


def _told(pipe: Connection, exchange: Exchange, path: Path, day: date, calls: Calls) -> Report:
    try:
        take_all_steps(RemoteBroker(pipe, exchange), SqliteStore(str(path)), day, calls)
    except TradingError as error:
        return Report(tuple(calls.names), type(error).__name__)
    return Report(tuple(calls.names))


def take_all_steps(remote: Any, ledger_store: DocumentStore, day: date, calls: Calls, seed: int = SEED) -> None:
    """What a worker does: every step of `day`, each until it succeeds. `remote`: a broker that also answers `ask`."""
    store = watched_store(ledger_store, calls)
    broker = Watched(remote, calls, "broker", BROKER_CALLS)
    worker = Worker(store, broker, NYSE, this_process("worker"), seed)
    opening, close = NYSE.open(day), NYSE.close(day)
    before = opening - timedelta(minutes=60)
    first: list[tuple[datetime, Step]] = [
        (before, lambda known, now: worker.open(day, known, now)),
        (before, lambda known, now: worker.decide(day, known, now)),
        (before, lambda known, now: worker.send(day, Side.SELL, known, now)),
    ]
    wait_for_sells = (opening + timedelta(minutes=5), lambda known, now: worker.wait(day, now))
    buys = lambda known, now: worker.send(day, Side.BUY, known, now)  # noqa: E731
    if remote.traits.one_auction:
        middle: list[tuple[datetime, Step]] = [(before, buys), wait_for_sells]
    else:
        middle = [wait_for_sells, (opening + timedelta(minutes=6), buys)]
    last: list[tuple[datetime, Step]] = [
        (opening + timedelta(minutes=30), lambda known, now: worker.wait(day, now)),
        (close + timedelta(minutes=5), lambda known, now: worker.settle(day, known, now)),
    ]
    for start, step in [*first, *middle, *last]:
        _until_done(remote, start, step, day)


def _until_done(remote: Any, start: datetime, step: Step, day: date) -> None:
    remote.ask("advance", start)
    for _ in range(RETRIES):
        now = remote.ask("now")
        try:
            step(remote.ask("known", day), now)
            return
        except OrderWindowClosedError:
            return
        except LeaseLostError:
            raise  # the task fails here: somebody else is at work
        except LeaseHeldError:
            time.sleep(0.002)
            remote.ask("advance", now + timedelta(seconds=1))
        except TradingError:
            remote.ask("advance", now + timedelta(seconds=60))


# --- what every scenario starts from ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Template:
    """An account that has traded its first session, and trades two sells and two buys in `day`."""

    flavour: Flavour
    exchange: Exchange
    path: Path
    day: date

    def scenario(self, folder: Path) -> Scenario:
        """A copy of the ledger; the exchange is this process's own (fork first)."""
        path = folder / f"{os.getpid()}.sqlite"
        for suffix in ("", "-wal"):  # what a killed process had committed may still be in the log
            if (source := Path(f"{self.path}{suffix}")).is_file():
                shutil.copyfile(source, f"{path}{suffix}")
        return Scenario(self.exchange, path, self.flavour)


def fast_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder in memory where there is one: a kill is no power cut, so nothing is lost by it."""
    return tempfile.TemporaryDirectory(prefix="faults-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def warm_up() -> None:
    """Loads and compiles in this process what its forks are going to use."""
    World(SEED, 2, Dangers(CALM, NONE, storage=0.0, kills=0.0, halts=0.0)).run()
    gc.collect()
    gc.freeze()  # or every fork's collector would touch, and so copy, all of it


def template(flavour: Flavour, folder: Path, habits: Habits = HABITS) -> Template:
    warm_up()
    start = NYSE.close(NYSE.previous(FIRST)) + timedelta(minutes=1)
    exchange = Exchange(
        NYSE, SYMBOLS, FIRST, start, SEED, habits=habits, unique_ids=flavour.unique_ids, one_auction=flavour.one_auction
    )
    # A ledger of its own: one that knew the first session already would be ahead of this new exchange.
    scenario = Scenario(exchange, Path(tempfile.mkdtemp(prefix="template-", dir=folder)) / "ledger.sqlite", flavour)
    if scenario.run(FIRST) or scenario.reports[-1].error:
        raise RuntimeError(f"the template could not be made: {scenario.reports}")
    scenario.witness.store.close()
    return Template(flavour, exchange, scenario.path, NYSE.next(FIRST))


# --- forks ------------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns, done in a forked process, so that nothing of it stays here."""
    return _start_child(work)()


def _start_child(work: Callable[[], Any]) -> Callable[[], Any]:
    mine, theirs = Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            mine.close()
            theirs.send_bytes(pickle.dumps(work()))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    theirs.close()

    def result() -> Any:
        try:
            made = pickle.loads(mine.recv_bytes())
        except EOFError:
            made = None
        mine.close()
        status = os.waitpid(pid, 0)[1]
        if status:
            raise RuntimeError(f"a forked process ended with status {status}")
        return made

    return result


def spread(items: list[Any], work: Callable[[Any], Any], lanes: int) -> list[Any]:
    """`work` of every item, in `lanes` forked processes at once; the results in the order of the items."""
    started = [_start_child(lambda lane=lane: [work(item) for item in items[lane::lanes]]) for lane in range(lanes)]
    made: list[Any] = [None] * len(items)
    for lane, result in enumerate(started):
        made[lane::lanes] = result()
    return made


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """While a process of ours is stopped; it goes on afterwards."""
    os.waitpid(pid, os.WUNTRACED)
    yield
    os.kill(pid, signal.SIGCONT)
