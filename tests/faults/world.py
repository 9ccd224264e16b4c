"""A few sessions of one account in virtual time, with whatever may go wrong, from one seed: `World(seed).run()`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache

from calls import AFTER, BEFORE, Calls, KillSwitchError, watched_broker, watched_store
from exchange import Exchange, Habits
from exchange_broker import ExchangeBroker, Faults, Rates
from invariants import Witness, violations
from memory_store import MemoryStore
from worker import ACCOUNT, Known, Worker

from trading_core.errors import OrderWindowClosedError, TradingError
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import SessionStatus
from trading_core.schema import OrderKind, OrderStatus, Side
from trading_core.sessions import Sessions

SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF")
DAYS = 5  # sessions of a world
FIRST_DAYS = (date(2019, 6, 3), date(2023, 12, 1))  # worlds begin between them: holidays, half days, both clock changes


class CachedSessions(Sessions):
    """The same answers, without asking the calendar twice."""

    @lru_cache(maxsize=100_000)  # noqa: B019 - one instance, which lives as long as the process
    def open(self, session: date) -> datetime:
        return super().open(session)

    @lru_cache(maxsize=100_000)  # noqa: B019
    def close(self, session: date) -> datetime:
        return super().close(session)

    @lru_cache(maxsize=100_000)  # noqa: B019
    def next(self, session: date) -> date:
        return super().next(session)

    @lru_cache(maxsize=100_000)  # noqa: B019
    def previous(self, session: date) -> date:
        return super().previous(session)


NYSE = CachedSessions("XNYS")
WILD_HABITS = Habits(
    rejected=0.03, unfilled=0.05, partial=0.08, pieces=0.4, corrected=0.1, late_fill=0.05, split=0.06, dividend=0.1,
    commission=1.0,
)  # fmt: skip
WILD_RATES = Rates(
    lost_answer=0.08, lost_order=0.06, late_order=0.05, refused=0.01, busy=0.03, unreachable=0.03, stale=0.05,
    duplicated=0.2, reordered=0.2,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dangers:
    """What a world may do to its account; the defaults are the wild mixture that `make faults` runs by the thousand."""

    habits: Habits = WILD_HABITS
    rates: Rates = WILD_RATES
    storage: float = 0.01  # of a call to the ledger: half before, half after the write
    kills: float = 0.15  # of an attempt at a step
    halts: float = 0.02  # of a session
    missed: float = 0.03  # of a session: its first task comes hours late
    skew: timedelta = timedelta(0)  # clocks of workers are off by up to this, either way
    unique_ids: bool | None = None  # None: the seed chooses
    one_auction: bool | None = None


@dataclass(slots=True)
class Outcome:
    """What a world ended with. `found`: violations; `ends`: how its sessions ended; `met`: faults by name."""

    seed: int
    days: int = 0
    found: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)


class World:
    """`days` sessions of one account at one exchange."""

    def __init__(
        self,
        seed: int,
        days: int = DAYS,
        dangers: Dangers | None = None,
        first: date | None = None,
        sessions: Sessions | None = None,
    ) -> None:
        self.seed, self.days, self.dangers = seed, days, dangers or Dangers()
        self._dice = random.Random(f"world|{seed}")
        span = (FIRST_DAYS[1] - FIRST_DAYS[0]).days
        drawn = NYSE.next(FIRST_DAYS[0] + timedelta(days=self._dice.randint(0, span)))
        self.first, self._sessions = first or drawn, sessions or NYSE
        one_auction, unique_ids = self._dice.random() < 0.3, self._dice.random() < 0.8
        if self.dangers.one_auction is not None:
            one_auction = self.dangers.one_auction
        if self.dangers.unique_ids is not None:
            unique_ids = self.dangers.unique_ids
        self.kind = self._dice.choice((OrderKind.OPENING, OrderKind.OPENING, OrderKind.MARKET, OrderKind.LIMIT))
        start = NYSE.close(NYSE.previous(self.first)) + timedelta(minutes=1)
        self.exchange = Exchange(
            NYSE, SYMBOLS, self.first, start, seed, habits=self.dangers.habits, unique_ids=unique_ids,
            one_auction=one_auction, visible_after_s=60.0,
        )  # fmt: skip
        self.store = MemoryStore(self._storage)
        self.faults = Faults(self.dangers.rates, seed)
        self.witness = Witness(self.store, self.exchange, ACCOUNT)
        self.outcome = Outcome(seed, days)
        self._healthy = self.dangers.storage == 0
        self._workers = 0

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        day = self.first
        for number in range(self.days):
            self._day(day, last=number == self.days - 1)
            day = NYSE.next(day)
        self.outcome.met += self.faults.met
        quiet, self._healthy = self._healthy, True
        self.outcome.found += violations(self.store, self.exchange, ACCOUNT, self.witness)
        self._healthy = quiet
        self._ends()
        return self.outcome

    def _day(self, day: date, last: bool) -> None:
        """The tasks of one session, each tried again until it is done or too late."""
        opening, close = NYSE.open(day), NYSE.close(day)
        evening = NYSE.close(NYSE.previous(day)) + timedelta(minutes=45)
        begin = evening if self._dice.random() < 0.3 else opening - timedelta(minutes=60)
        if self._dice.random() < self.dangers.missed:
            begin = opening + timedelta(hours=self._dice.uniform(-1.0, 8.0))
        auction = self.exchange.traits.one_auction
        after = begin if auction else max(begin, opening + timedelta(minutes=6))
        halted = self._dice.random() < self.dangers.halts
        if halted:
            self._operate(begin + timedelta(minutes=self._dice.randint(0, 90)), halt=True)
        self._step(begin, close, lambda w, now: w.open(day, self.known(day), now))
        self._step(begin, close, lambda w, now: w.decide(day, self.known(day), now))
        self._step(begin, close, lambda w, now: w.send(day, Side.SELL, self.known(day), now))
        if not auction:
            self._step(opening + timedelta(minutes=5), close, lambda w, now: w.wait(day, now))
        self._step(after, close, lambda w, now: w.send(day, Side.BUY, self.known(day), now))
        self._step(opening + timedelta(minutes=30), close, lambda w, now: w.wait(day, now))
        if self._dice.random() < 0.5:
            leave = close - timedelta(minutes=20)
            self._step(leave, close, lambda w, now: w.wait(day, now, cancel=True))
        if halted:
            self._operate(close + timedelta(minutes=1), halt=False)
        self._step(
            close + timedelta(minutes=2), close + timedelta(hours=2), lambda w, now: w.settle(day, self.known(day), now)
        )
        if last:
            # All is well again: the last session comes to its end, and the next one looks whether all is explained.
            self._heal()
            after, end = NYSE.next(day), close + timedelta(hours=12)
            self._step(close + timedelta(hours=3), end, lambda w, now: w.settle(day, self.known(day), now))
            self._step(
                close + timedelta(hours=12),
                end + timedelta(minutes=1),
                lambda w, now: w.check(after, self.known(after), now),
            )

    def _step(self, start: datetime, until: datetime, step: Callable[[Worker, datetime], object]) -> None:
        self.exchange.advance(start)
        pause = 60.0
        while self.exchange.now < until:
            try:
                self.witness.skew = self._dice.uniform(-1.0, 1.0) * self.dangers.skew
                step(self._worker(), self.exchange.now + self.witness.skew)
                return
            except KillSwitchError:
                self.outcome.met["kill"] += 1
            except OrderWindowClosedError:
                return
            except TradingError as error:
                self._note(error)
            self.exchange.advance(self.exchange.now + timedelta(seconds=int(pause * self._dice.uniform(0.5, 1.5))))
            pause = min(1.5 * pause, 1800.0)

    def _worker(self) -> Worker:
        self._workers += 1
        store, broker = self.store, ExchangeBroker(self.exchange, self.faults, self.witness, ACCOUNT)
        if self._dice.random() < self.dangers.kills and self.faults.on:
            calls = Calls(self._dice.randint(1, 60), self._dice.choice((BEFORE, AFTER)))
            store, broker = watched_store(store, calls), watched_broker(broker, calls)
        return Worker(store, broker, self._sessions, f"worker-{self._workers}", self.seed, kind=self.kind)

    def known(self, day: date) -> Known:
        return known_of(self.exchange, day)

    def calm_worker(self) -> Worker:
        """One whose calls meet no fault."""
        self._heal()
        broker = ExchangeBroker(self.exchange, self.faults, self.witness, ACCOUNT)
        return Worker(self.store, broker, self._sessions, "calm", self.seed, kind=self.kind)

    def _operate(self, at: datetime, halt: bool) -> None:
        """A person halts or resumes everything, at `at` or now, whichever is later."""

        def act() -> None:
            healthy, self._healthy = self._healthy, True
            ledger = Ledger(self.store)
            if halt:
                ledger.halt("all", "a drill", "test", self.exchange.now)
            else:
                ledger.resume("all", "test", self.exchange.now)
            self._healthy = healthy

        self.exchange.later(at, act)

    def _heal(self) -> None:
        self.faults.on, self._healthy = False, True

    def _storage(self, name: str) -> str:
        if self._healthy or self._dice.random() >= self.dangers.storage:
            return ""
        what = self._dice.choice((BEFORE, AFTER))
        self.outcome.met[f"storage {what}"] += 1
        return what

    def _note(self, error: TradingError) -> None:
        self.outcome.met[type(error).__name__.removesuffix("Error")] += 1

    def _ends(self) -> None:
        ledger = Ledger(self.store)
        self._healthy = True
        for record in ledger.sessions(ACCOUNT):
            state = ledger.session_state(ACCOUNT, record.session)
            orders = ledger.orders(ACCOUNT, record.session)
            if state is not None and state.status is SessionStatus.SETTLED:
                self.outcome.ends["settled"] += 1
            elif any(o.status is OrderStatus.UNKNOWN for o in orders):
                self.outcome.ends["unknown"] += 1
            else:
                self.outcome.ends["stopped"] += 1


def known_of(exchange: Exchange, day: date) -> Known:
    """What the market tells about T now."""
    nights = tuple(exchange.nights)
    return Known(exchange.closes_before(day), exchange.actions, float(exchange.initial_cash), nights, day in nights)
