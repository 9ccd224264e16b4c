"""A market and a broker that exist in memory only, kept exactly: the truth that a trading session is checked against.

Quantities, prices and cash are Decimals and never rounded, but for the cents of a commission. Time is handed in: `advance`
plays everything that happens until then. What becomes of an order follows from the seed and its client order id alone, not
from when it came, so that a disturbed day and an undisturbed one end alike.

`Exchange.view` is the present; a few older views are kept, for answers that are stale.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal

from trading_core.errors import DuplicateOrderError, OrderRefusedError, UnknownNameError
from trading_core.execution.broker import BrokerTraits, OrderWindow
from trading_core.schema import (
    ActionKind,
    CashFlow,
    CashFlowKind,
    CorporateAction,
    Fill,
    Order,
    OrderKind,
    OrderState,
    OrderStatus,
    Side,
)
from trading_core.sessions import Sessions

NAME = "exchange"
CENT, MILLIONTH = Decimal("0.01"), Decimal("0.000001")
ZERO = Decimal(0)
OPENING_LEAD = timedelta(minutes=2)  # an order for the opening auction comes before this
CLOSING_LEAD = timedelta(minutes=15)
KEPT_VIEWS = 24


@dataclass(frozen=True, slots=True)
class Habits:
    """How often, of 1, what happens to orders, holdings and executions that the market lets happen."""

    rejected: float = 0.0  # taken, then rejected before the open
    unfilled: float = 0.0  # nobody trades: it expires
    partial: float = 0.0  # a part is filled, the rest expires
    pieces: float = 0.0  # filled in two to four executions
    corrected: float = 0.0  # one execution gets another price or quantity later in the session
    late_fill: float = 0.0  # one more execution is booked after the order has ended
    split: float = 0.0  # of a symbol, overnight
    dividend: float = 0.0
    commission: float = 0.0  # per execution, a commission of some cents
    ratios: tuple[str, ...] = ("2", "3")


CALM = Habits()


@dataclass(frozen=True, slots=True)
class Execution:
    """One fill, exactly. `number` of its order, from 1."""

    fill_id: str
    broker_id: str
    order: Order
    quantity: Decimal
    price: Decimal
    commission: Decimal
    session: date
    at: datetime
    changed_at: datetime  # when it was booked or last corrected

    @property
    def cash(self) -> Decimal:
        """What it moved: below 0 for a buy."""
        sign = 1 if self.order.side is Side.SELL else -1
        return sign * self.quantity * self.price - self.commission

    def reported(self) -> Fill:
        order, price, commission = self.order, float(self.price), float(self.commission)
        return Fill(
            self.fill_id, order.client_order_id, order.symbol, order.side, float(self.quantity), price, commission,
            self.session, self.at,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Held:
    """An order at the broker. `worth`: sum of quantity times price of what is filled."""

    broker_id: str
    order: Order
    quantity: Decimal
    status: OrderStatus
    filled: Decimal = ZERO
    worth: Decimal = ZERO
    reason: str = ""

    def reported(self) -> OrderState:
        average = float(self.worth / self.filled) if self.filled else None
        return OrderState(self.order, self.status, float(self.filled), average, self.reason, self.broker_id)


@dataclass(frozen=True, slots=True)
class View:
    """Everything the broker knows at one time; never changed in place."""

    cash: Decimal
    positions: dict[str, Decimal] = field(default_factory=dict)
    orders: dict[str, Held] = field(default_factory=dict)  # by broker id
    fills: dict[str, Execution] = field(default_factory=dict)
    flows: tuple[CashFlow, ...] = ()

    def by_client(self, client_order_id: str) -> list[Held]:
        return [held for held in self.orders.values() if held.order.client_order_id == client_order_id]


@dataclass(frozen=True, slots=True)
class Submission:
    """An order that reached the broker, whether it was taken or not. `outcome`: "taken", "duplicate", "late", "refused"."""

    order: Order
    at: datetime
    outcome: str


@dataclass(frozen=True, slots=True, order=True)
class _Event:
    at: datetime
    number: int
    run: Callable[[], None] = field(compare=False)


class Exchange:
    """One account at one broker, `symbols` traded from session `first` on, at the time `now`."""

    def __init__(
        self,
        sessions: Sessions,
        symbols: tuple[str, ...],
        first: date,
        now: datetime,
        seed: int,
        cash: str = "100000",
        habits: Habits = CALM,
        unique_ids: bool = True,
        one_auction: bool = False,
        fractional: bool = False,
        visible_after_s: float = 0.0,
    ) -> None:
        self.sessions, self.symbols, self.seed, self.habits, self.now = sessions, symbols, seed, habits, now
        kinds = frozenset({OrderKind.OPENING, OrderKind.MARKET, OrderKind.LIMIT})
        self.traits = BrokerTraits(unique_ids, one_auction, kinds, fractional, visible_after_s)
        self.initial_cash = Decimal(cash)
        self.view = View(self.initial_cash)
        self.past: deque[tuple[datetime, View]] = deque(maxlen=KEPT_VIEWS)
        self.submissions: list[Submission] = []
        self.actions: dict[date, tuple[CorporateAction, ...]] = {}
        self.nights: list[date] = []  # sessions whose corporate actions are in the books
        self._events: list[_Event] = []
        self._count = 0
        self._opens: dict[tuple[date, str], Decimal] = {}
        self._closes: dict[date, dict[str, float]] = {}
        self._last = {symbol: Decimal(self._random("first", symbol).randint(1_000, 20_000)) / 100 for symbol in symbols}
        self._closes[sessions.previous(first)] = {symbol: float(price) for symbol, price in self._last.items()}
        self._plan(first)

    # --- time and prices ----------------------------------------------------------------------------------------------

    def advance(self, to: datetime) -> None:
        """Everything that happens until `to`."""
        while self._events and self._events[0].at <= to:
            event = heapq.heappop(self._events)
            self.now = max(self.now, event.at)
            event.run()
        self.now = max(self.now, to)

    def later(self, at: datetime, run: Callable[[], None]) -> None:
        """Something from outside that happens at `at`: a message that was on its way."""
        self._at(at, run)

    def view_at(self, at: datetime) -> View:
        """What the broker knew at `at`, as far back as views are kept."""
        seen = self.view
        for until, view in reversed(self.past):  # `view` was true before `until`
            if until <= at:
                break
            seen = view
        return seen

    def closes_before(self, session: date) -> dict[str, float]:
        """The closes of the session before, in its shares."""
        return self._closes[self.sessions.previous(session)]

    def _random(self, *key: object) -> random.Random:
        return random.Random("|".join(map(str, (self.seed, *key))))

    def _at(self, at: datetime, run: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, _Event(at, self._count, run))

    def _plan(self, session: date) -> None:
        """A session: its night (actions, four hours before the open), its auction, its close."""
        opening, close = self.sessions.open(session), self.sessions.close(session)
        self.actions[session] = self._draw_actions(session)
        self._at(opening - timedelta(hours=4), lambda: self._night(session))
        self._at(opening, lambda: self._open(session))
        self._at(close, lambda: self._close(session))

    def _draw_actions(self, session: date) -> tuple[CorporateAction, ...]:
        found = []
        for symbol in self.symbols if self.habits.split or self.habits.dividend else ():
            dice = self._random("action", session, symbol)
            if dice.random() < self.habits.split:
                ratio = float(dice.choice(self.habits.ratios))
                found.append(CorporateAction(symbol, session, ActionKind.SPLIT, ratio))
            elif dice.random() < self.habits.dividend:
                found.append(CorporateAction(symbol, session, ActionKind.DIVIDEND, dice.randint(1, 99) / 100))
        return tuple(found)

    # --- what the market does -----------------------------------------------------------------------------------------

    def _set(self, **changes: object) -> None:
        self.past.append((self.now, self.view))
        self.view = replace(self.view, **changes)  # type: ignore[arg-type]

    def _change(self, held: Held, **changes: object) -> Held:
        made = replace(held, **changes)  # type: ignore[arg-type]
        self._set(orders={**self.view.orders, made.broker_id: made})
        return made

    def _night(self, session: date) -> None:
        self.nights.append(session)
        for action in self.actions[session]:
            value, symbol = Decimal(str(action.value)), action.symbol
            quantity = self.view.positions.get(symbol, ZERO)
            if action.kind is ActionKind.SPLIT:
                self._last[symbol] = max(CENT, (self._last[symbol] / value).quantize(CENT))
                self._split(symbol, quantity, value, session)
            elif quantity:
                self._pay(session, CashFlowKind.DIVIDEND, symbol, quantity * value)

    def _split(self, symbol: str, quantity: Decimal, ratio: Decimal, session: date) -> None:
        exact, step = quantity * ratio, MILLIONTH if self.traits.fractional else Decimal(1)
        after = exact.quantize(step, ROUND_FLOOR)
        if quantity:
            self._set(positions={**self.view.positions, symbol: after})
        if exact != after:  # cash in place of the fraction
            self._pay(session, CashFlowKind.PROCEEDS, symbol, ((exact - after) * self._last[symbol]).quantize(CENT))
        for held in list(self.view.orders.values()):
            if held.order.symbol == symbol and not held.status.terminal:
                quantity = (held.quantity * ratio).quantize(step, ROUND_FLOOR)
                restated = replace(
                    held.order,
                    quantity=float(quantity),
                    reference_price=held.order.reference_price / float(ratio),
                    limit_price=held.order.limit_price / float(ratio) if held.order.limit_price else None,
                )
                self._change(held, order=restated, quantity=quantity)

    def _pay(self, session: date, kind: CashFlowKind, symbol: str, amount: Decimal) -> None:
        amount = amount.quantize(CENT, ROUND_HALF_UP)
        flow = CashFlow(f"{kind.value}-{session}-{symbol}", session, kind, symbol, float(amount))
        self._set(cash=self.view.cash + amount, flows=(*self.view.flows, flow))

    def _open(self, session: date) -> None:
        for symbol in self.symbols:
            move = 1 + Decimal(self._random("gap", session, symbol).randint(-300, 300)) / 10_000
            self._last[symbol] = self._opens[session, symbol] = max(CENT, (self._last[symbol] * move).quantize(CENT))
        waiting = sorted(
            (h for h in self.view.orders.values() if h.order.session == session and not h.status.terminal),
            key=lambda held: (held.order.side is Side.BUY, held.order.symbol),
        )
        for held in waiting:
            if held.order.kind is OrderKind.OPENING or self.traits.one_auction:
                self._auction(held)
            else:
                self._trade(held)

    def _close(self, session: date) -> None:
        for symbol in self.symbols:
            move = 1 + Decimal(self._random("day", session, symbol).randint(-200, 200)) / 10_000
            self._last[symbol] = max(CENT, (self._last[symbol] * move).quantize(CENT))
        self._closes[session] = {symbol: float(price) for symbol, price in self._last.items()}
        for held in list(self.view.orders.values()):
            if held.order.session == session and not held.status.terminal:
                self._end(held.broker_id, OrderStatus.EXPIRED, "the session closed")
        self._plan(self.sessions.next(session))

    # --- orders -------------------------------------------------------------------------------------------------------

    def window(self, kind: OrderKind, session: date) -> OrderWindow:
        start = self.sessions.close(self.sessions.previous(session))
        if kind is OrderKind.OPENING:
            lead = timedelta(0) if self.traits.one_auction else OPENING_LEAD
            return OrderWindow(start, self.sessions.open(session) - lead)
        if kind not in self.traits.kinds:
            raise UnknownNameError("order kind", kind.value, sorted(k.value for k in self.traits.kinds))
        if self.traits.one_auction:
            return OrderWindow(start, self.sessions.open(session))
        return OrderWindow(start, self.sessions.close(session) - CLOSING_LEAD)

    def submit(self, order: Order) -> Held:
        """Takes an order now, or raises DuplicateOrderError or OrderRefusedError."""
        if self.traits.unique_ids and self.view.by_client(order.client_order_id):
            self.submissions.append(Submission(order, self.now, "duplicate"))
            raise DuplicateOrderError(order.client_order_id)
        window, quantity = self.window(order.kind, order.session), Decimal(repr(order.quantity)).normalize()
        reason = ""
        if not window.start <= self.now < window.end:
            reason = "it came outside its window"
        elif quantity <= 0 or quantity % self._step:
            reason = f"its quantity is {quantity}"
        elif order.side is Side.SELL and quantity > self._free(order.symbol):
            reason = f"only {self._free(order.symbol)} shares are free to be sold"
        if reason:
            self.submissions.append(Submission(order, self.now, "late" if "window" in reason else "refused"))
            raise OrderRefusedError(NAME, order.client_order_id, reason)
        self.submissions.append(Submission(order, self.now, "taken"))
        broker_id = f"b{len(self.view.orders) + 1}"
        held = Held(broker_id, order, quantity, OrderStatus.ACCEPTED)
        self._set(orders={**self.view.orders, broker_id: held})
        if self._dice(held, "rejected").random() < self.habits.rejected:
            self._at(
                self.now + timedelta(seconds=30), lambda: self._end(broker_id, OrderStatus.REJECTED, "not shortable")
            )
        elif self.now >= self.sessions.open(order.session):
            self._trade(held)
        return held

    def cancel(self, client_order_id: str) -> Held:
        """Asks to cancel: PENDING_CANCEL, and CANCELED half a minute later; executions may come in between."""
        found = self.view.by_client(client_order_id)
        if not found:
            raise UnknownNameError("order", client_order_id, ["(an id this account has submitted)"])
        for held in found:
            if not held.status.terminal and held.status is not OrderStatus.PENDING_CANCEL:
                self._change(held, status=OrderStatus.PENDING_CANCEL)
                ended = self.now + timedelta(seconds=30)
                self._at(ended, lambda key=held.broker_id: self._end(key, OrderStatus.CANCELED, "canceled"))  # type: ignore[misc]
        return self.view.by_client(client_order_id)[-1]

    def _free(self, symbol: str) -> Decimal:
        """Shares that no living order is about to sell."""
        selling = sum(
            (
                held.quantity - held.filled
                for held in self.view.orders.values()
                if held.order.symbol == symbol and held.order.side is Side.SELL and not held.status.terminal
            ),
            ZERO,
        )
        return self.view.positions.get(symbol, ZERO) - selling

    def _dice(self, held: Held, *key: object) -> random.Random:
        return self._random(held.order.client_order_id, *key)

    def _end(self, broker_id: str, status: OrderStatus, reason: str) -> None:
        held = self.view.orders[broker_id]
        if held.status.terminal:
            return
        self._change(held, status=status, reason=reason)
        if status is not OrderStatus.REJECTED and self._dice(held, "late").random() < self.habits.late_fill:
            # The exchange had traded before it was told to stop: one more execution is booked afterwards.
            left = held.quantity - held.filled
            piece = (left / 2).quantize(self._step, ROUND_FLOOR)
            self._at(self.now + timedelta(minutes=3), lambda: self._book(broker_id, piece, "late"))

    # --- executions ---------------------------------------------------------------------------------------------------

    @property
    def _step(self) -> Decimal:
        return MILLIONTH if self.traits.fractional else Decimal(1)

    def _auction(self, held: Held) -> None:
        """Fills at the open; what is left expires with the auction."""
        for part, name in self._parts(held):
            self._book(held.broker_id, part, name)
        self._end(held.broker_id, OrderStatus.EXPIRED, "the opening auction left it")

    def _trade(self, held: Held) -> None:
        """Fills at the market within the next minutes."""
        start = max(self.now, self.sessions.open(held.order.session))
        for number, (part, name) in enumerate(self._parts(held)):
            at = start + timedelta(seconds=40 * (number + 1))
            self._at(at, lambda key=held.broker_id, q=part, n=name: self._book(key, q, n))  # type: ignore[misc]

    def _parts(self, held: Held) -> list[tuple[Decimal, str]]:
        """How an order is going to be filled: quantities, with a name each."""
        dice, left = self._dice(held, "fate"), held.quantity - held.filled
        what = dice.random()
        if what < self.habits.unfilled:
            return []
        if what < self.habits.unfilled + self.habits.partial:
            return [((left / 2).quantize(self._step, ROUND_FLOOR), "1")]
        count = dice.randint(2, 4) if dice.random() < self.habits.pieces else 1
        piece = (left / count).quantize(self._step, ROUND_FLOOR)
        sizes = [*([piece] * (count - 1)), left - piece * (count - 1)]
        return [(size, str(n + 1)) for n, size in enumerate(sizes) if size > 0]

    def _book(self, broker_id: str, quantity: Decimal, name: str) -> None:
        """One execution: order, position and cash move together."""
        held = self.view.orders[broker_id]
        late = name == "late"
        if (held.status.terminal and not late) or held.status is OrderStatus.FILLED:
            return
        order, buys = held.order, held.order.side is Side.BUY
        price, limit = self._price(held, name), held.order.limit_price
        if limit is not None and (price > Decimal(repr(limit)) if buys else price < Decimal(repr(limit))):
            return
        commission = CENT * self._dice(held, name, "fee").randint(0, 99) if self.habits.commission else ZERO
        quantity = min(quantity, held.quantity - held.filled)
        if buys:  # a cash account: never more than is there
            can = ((self.view.cash - commission) / price).quantize(self._step, ROUND_FLOOR)
            quantity = min(quantity, max(ZERO, can))
        else:
            quantity = min(quantity, self.view.positions.get(order.symbol, ZERO))
        if quantity <= 0:
            if not late:
                self._end(broker_id, OrderStatus.EXPIRED, "no cash or no shares for it")
            return
        session = order.session
        made = Execution(
            f"{broker_id}-{name}", broker_id, order, quantity, price, commission, session, self.now, self.now
        )
        self._apply(held, None, made)
        if self._dice(held, name, "correct").random() < self.habits.corrected:
            self._at(self.now + timedelta(minutes=20), lambda: self._correct(made.fill_id))

    def _price(self, held: Held, name: str) -> Decimal:
        """At the open for what its auction filled, else a little off it."""
        base = self._opens.get((held.order.session, held.order.symbol), self._last[held.order.symbol])
        if held.order.kind is OrderKind.OPENING or self.traits.one_auction:
            return base
        move = 1 + Decimal(self._random("tick", held.order.session, held.order.symbol, name).randint(-30, 30)) / 10_000
        return max(CENT, (base * move).quantize(CENT))

    def _correct(self, fill_id: str) -> None:
        """The execution was reported wrongly: a cent more, or one share less. It keeps its id."""
        old = self.view.fills[fill_id]
        held = self.view.orders[old.broker_id]
        dice = self._dice(held, fill_id, "how")
        price = old.price + (CENT if dice.random() < 0.5 else -CENT)
        fewer = old.quantity > 1 and old.order.side is Side.SELL and dice.random() < 0.3
        quantity = old.quantity - 1 if fewer else old.quantity
        made = replace(old, price=max(CENT, price), quantity=quantity, changed_at=self.now)
        if self.view.cash + made.cash - old.cash >= 0:
            self._apply(held, old, made)

    def _apply(self, held: Held, old: Execution | None, made: Execution) -> None:
        sign = 1 if made.order.side is Side.BUY else -1
        more = made.quantity - (old.quantity if old else ZERO)
        worth = made.quantity * made.price - (old.quantity * old.price if old else ZERO)
        symbol, filled = made.order.symbol, held.filled + more
        position = self.view.positions.get(symbol, ZERO) + sign * more
        positions = {**self.view.positions, symbol: position}
        status, reason = self._status_with(held, filled)
        order = replace(held, filled=filled, worth=held.worth + worth, status=status, reason=reason)
        self._set(
            cash=self.view.cash + made.cash - (old.cash if old else ZERO),
            positions={s: q for s, q in positions.items() if q},
            orders={**self.view.orders, held.broker_id: order},
            fills={**self.view.fills, made.fill_id: made},
        )

    @staticmethod
    def _status_with(held: Held, filled: Decimal) -> tuple[OrderStatus, str]:
        if filled == held.quantity:
            return OrderStatus.FILLED, ""
        if held.status is OrderStatus.FILLED:
            return OrderStatus.CANCELED, "an execution was taken back"
        if held.status is OrderStatus.ACCEPTED:
            return OrderStatus.PARTIALLY_FILLED, ""
        return held.status, held.reason
