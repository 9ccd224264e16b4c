"""What must be true after anything that may happen, checked against the exchange's own truth.

Every check returns sentences about what is wrong; an empty list is what the fault matrix counts as no violation.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal

from exchange import ZERO, Exchange
from exchange_broker import STALE_S
from memory_store import MemoryStore, Write

from trading_core.execution.ledger import Ledger
from trading_core.execution.records import EventLevel, OrderRecord, SessionStatus
from trading_core.execution.store import DocumentStore
from trading_core.schema import ActionKind, Order, OrderStatus, Side

STALE = timedelta(seconds=STALE_S)
HALF_A_CENT = Decimal("0.005")


@dataclass(frozen=True, slots=True)
class Sent:
    """An order in the moment it was sent: what the ledger and the clock said then."""

    order: Order
    at: datetime
    intended: bool
    halted: bool
    in_window: bool


@dataclass(slots=True)
class Witness:
    """Stands at the door of the broker and writes down what was true when an order went out."""

    store: DocumentStore
    exchange: Exchange
    account: str
    sent: list[Sent] = field(default_factory=list)
    skew: timedelta = timedelta(0)  # how far the sender's clock is ahead
    sent_late: bool = False  # from now on a process that was stopped sends late, on purpose

    def __call__(self, order: Order) -> None:
        ledger = Ledger(self.store)
        key = f"intent#{order.session.isoformat()}#{order.client_order_id}"
        window, now = self.exchange.window(order.kind, order.session), self.exchange.now + self.skew
        self.sent.append(
            Sent(
                order,
                self.exchange.now,
                self.store.get(f"account#{self.account}", key) is not None,
                ledger.halted(self.account) is not None,
                self.sent_late or window.start <= now < window.end,
            )
        )


def violations(store: DocumentStore, exchange: Exchange, account: str, witness: Witness | None = None) -> list[str]:
    """Everything that is wrong with an account, after its sessions have been brought to their end."""
    ledger = Ledger(store)
    days = [record.session for record in ledger.sessions(account)]
    found = [*_one_order_each(exchange), *_never_more_than_decided(ledger, exchange, account, days)]
    alerted = any(e.kind == "mismatch" and e.level is EventLevel.ALERT for e in ledger.events(account))
    late = [day for day in days if _changed_later(ledger, exchange, account, day, STALE if alerted else timedelta(0))]
    for day in days:
        found += _ended_or_alerted(ledger, account, day)
        found += _fills_add_up(ledger, account, day)
        if _is_settled(ledger, account, day) and day not in late:
            found += _same_fills(ledger, exchange, account, day)
    if late and not alerted:
        found.append(f"the broker changed {late} after the ledger had settled it, and nobody was alerted")
    if days and not late and all(_is_settled(ledger, account, day) for day in days):
        found += _positions(ledger, exchange, account, days)
        found += _cash(ledger, exchange, account, days)
    if not late:
        found += _comes_to_its_end(ledger, exchange, account, days)
    if witness is not None:
        found += _sent_properly(witness)
    if isinstance(store, MemoryStore):
        found += fenced(store.writes, account)
    return found


def _is_settled(ledger: Ledger, account: str, day: date) -> bool:
    state = ledger.session_state(account, day)
    return state is not None and state.status is SessionStatus.SETTLED


def _changed_later(ledger: Ledger, exchange: Exchange, account: str, day: date, unseen: timedelta) -> bool:
    """Whether the broker booked or corrected an execution of a session after the ledger had settled it, or so shortly
    before (`unseen`) that all its answers were older: the next reconciliation must then have alerted somebody."""
    state = ledger.session_state(account, day)
    if state is None or state.summary is None:
        return False
    settled_at = state.summary.settled_at
    return any(made.changed_at > settled_at - unseen for made in exchange.view.fills.values() if made.session == day)


def _one_order_each(exchange: Exchange) -> Iterator[str]:
    """No intent has more than one broker order."""
    counts = Counter(held.order.client_order_id for held in exchange.view.orders.values())
    yield from (f"{key} has {count} orders at the broker" for key, count in counts.items() if count > 1)


def _comes_to_its_end(ledger: Ledger, exchange: Exchange, account: str, days: list[date]) -> Iterator[str]:
    """Once all is well again every session is settled, but for one with an order that nobody knows of."""
    for day in days:
        unknown = any(order.status is OrderStatus.UNKNOWN for order in ledger.orders(account, day))
        if not _is_settled(ledger, account, day) and not (unknown and not exchange.traits.unique_ids):
            yield f"{day} was not settled although nothing stands against it"


def _never_more_than_decided(ledger: Ledger, exchange: Exchange, account: str, days: list[date]) -> Iterator[str]:
    """Of a symbol and side, no more is bought or sold in a session than was decided, whatever ids the orders have."""
    filled: dict[tuple[date, str, Side], Decimal] = defaultdict(lambda: ZERO)
    for made in exchange.view.fills.values():
        filled[made.session, made.order.symbol, made.order.side] += made.quantity
    for day in days:
        decision = ledger.get_decision(account, day)
        decided = {(day, o.symbol, o.side): Decimal(repr(o.quantity)) for o in decision.orders} if decision else {}
        for key, quantity in filled.items():
            if key[0] == day and quantity > decided.get(key, ZERO) * _split_of(exchange, day, key[1]):
                yield f"{key[2].value} {key[1]} of {day}: {quantity} filled, {decided.get(key, ZERO)} decided"
    if strays := {key[0] for key in filled} - set(days):
        yield f"there are fills of {sorted(strays)}, which the ledger does not know"


def _split_of(exchange: Exchange, day: date, symbol: str) -> Decimal:
    found = [a for a in exchange.actions.get(day, ()) if a.symbol == symbol and a.kind is ActionKind.SPLIT]
    return Decimal(str(found[0].value)) if found else Decimal(1)


def _ended_or_alerted(ledger: Ledger, account: str, day: date) -> Iterator[str]:
    """Every intent ends terminal, or in an UNKNOWN that somebody was alerted to."""
    alerts = " ".join(e.message for e in ledger.events(account, day) if e.level is EventLevel.ALERT)
    for order in ledger.orders(account, day):
        if order.status.terminal:
            continue
        if order.status is OrderStatus.UNKNOWN and order.intent.symbol in alerts:
            continue
        yield f"{_named(order)} stays {order.status.value} without an alert"


def _fills_add_up(ledger: Ledger, account: str, day: date) -> Iterator[str]:
    """The fills of an order that has ended sum to its filled quantity."""
    sums: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for fill in ledger.fills(account, day):
        sums[fill.client_order_id] += Decimal(repr(fill.quantity))
    for order in ledger.orders(account, day):
        if order.status.terminal and sums[order.intent.client_order_id] != Decimal(repr(order.filled_quantity)):
            told = f"{sums[order.intent.client_order_id]} of {order.filled_quantity}"
            yield f"{_named(order)} is {order.status.value}, but its fills sum to {told}"


def _same_fills(ledger: Ledger, exchange: Exchange, account: str, day: date) -> Iterator[str]:
    """A settled session has exactly the broker's executions, corrections included."""
    mine = {(f.fill_id, f.quantity, f.price, f.commission) for f in ledger.fills(account, day)}
    theirs = {
        (e.fill_id, float(e.quantity), float(e.price), float(e.commission))
        for e in exchange.view.fills.values()
        if e.session == day
    }
    if mine != theirs:
        yield f"{day} is settled with other fills than the broker's: {sorted(mine ^ theirs)[:3]}"


def _positions(ledger: Ledger, exchange: Exchange, account: str, days: list[date]) -> Iterator[str]:
    """The ledger's fills, through the splits, give exactly the broker's positions; so does the last summary."""
    held: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for day in sorted({*exchange.nights, *days}):
        for symbol in list(held):
            held[symbol] *= _split_of(exchange, day, symbol)
        for fill in ledger.fills(account, day) if day in days else ():
            quantity = Decimal(repr(fill.quantity))
            held[fill.symbol] += quantity if fill.side is Side.BUY else -quantity
    there = {symbol: quantity for symbol, quantity in exchange.view.positions.items() if quantity}
    reckoned = {symbol: quantity for symbol, quantity in held.items() if quantity}
    if reckoned != there:
        yield f"the ledger's fills give {reckoned}, the broker holds {there}"
    last = {p.symbol: Decimal(repr(p.quantity)) for p in _summary(ledger, account, days[-1]).positions}
    for day in (night for night in exchange.nights if night > days[-1]):
        last = {symbol: quantity * _split_of(exchange, day, symbol) for symbol, quantity in last.items()}
    if last != there:
        yield f"the last summary has {last}, the broker holds {there}"


def _cash(ledger: Ledger, exchange: Exchange, account: str, days: list[date]) -> Iterator[str]:
    """Opening cash, plus what every fill moved, less commissions, plus what moved by itself, is the broker's cash."""
    cash = exchange.initial_cash
    for day in days:
        for fill in ledger.fills(account, day):
            moved = Decimal(repr(fill.quantity)) * Decimal(repr(fill.price))
            cash += (moved if fill.side is Side.SELL else -moved) - Decimal(repr(fill.commission))
    cash += sum((Decimal(repr(flow.amount)) for flow in exchange.view.flows), ZERO)
    if abs(cash - exchange.view.cash) >= HALF_A_CENT:
        yield f"the ledger's fills leave {cash} in cash, the broker has {exchange.view.cash}"
    since = sum((Decimal(repr(flow.amount)) for flow in exchange.view.flows if flow.session > days[-1]), ZERO)
    last = Decimal(repr(_summary(ledger, account, days[-1]).cash)) + since
    if abs(last - exchange.view.cash) >= HALF_A_CENT:
        yield f"the last summary has {last} in cash, the broker has {exchange.view.cash}"
    if exchange.view.cash < 0:
        yield f"the account owes {-exchange.view.cash}"


def _summary(ledger: Ledger, account: str, day: date):  # type: ignore[no-untyped-def]
    state = ledger.session_state(account, day)
    assert state is not None
    assert state.summary is not None
    return state.summary


def _sent_properly(witness: Witness) -> Iterator[str]:
    """No order without an intent written before, none while trading is halted, none outside its window."""
    for sent in witness.sent:
        what = f"{sent.order.side.value} {sent.order.symbol} of {sent.order.session}"
        if not sent.intended:
            yield f"{what} was sent without an intent"
        if sent.halted:
            yield f"{what} was sent while trading was halted"
        if not sent.in_window:
            yield f"{what} was sent outside its window, at {sent.at}"


def fenced(writes: list[Write], account: str) -> list[str]:
    """Every write to the account was made on the condition that its lease was the newest, and it was."""
    pk, newest, found = f"account#{account}", 0, []
    for write in writes:
        keys = [sk for key_pk, sk in write.made if key_pk == pk]
        leases = [int(sk.removeprefix("lease#")) for sk in keys if sk.startswith("lease#")]
        if leases:
            newest = max(newest, *leases)
            continue
        if not keys:
            continue
        tokens = [int(sk.removeprefix("lease#")) - 1 for key_pk, sk in write.absent if key_pk == pk and "lease#" in sk]
        if not tokens:
            found.append(f"{keys[0]} was written without a lease")
        elif tokens[0] != newest:
            found.append(f"{keys[0]} was written with lease {tokens[0]} while {newest} was the newest")
    return found


def _named(order: OrderRecord) -> str:
    return f"{order.intent.side.value} {order.intent.symbol} of {order.intent.session}"


def comparable(store: DocumentStore, account: str) -> dict[str, object]:
    """What two runs of the same days must agree on: decisions, intents, last states, fills, summaries; no times, no leases."""
    found: dict[str, object] = {}
    ledger = Ledger(store)
    for record in ledger.sessions(account):
        day = record.session
        decision, state = ledger.get_decision(account, day), ledger.session_state(account, day)
        found[f"{day} decision"] = (decision.targets, decision.orders) if decision else None
        found[f"{day} orders"] = [
            (o.intent.client_order_id, o.intent.quantity, o.status, o.filled_quantity, o.average_price)
            for o in ledger.orders(account, day)
        ]
        found[f"{day} fills"] = sorted(
            (f.client_order_id, f.quantity, f.price, f.commission) for f in ledger.fills(account, day)
        )
        summary = state.summary if state else None
        found[f"{day} summary"] = (summary.cash, summary.positions, summary.orders, summary.fills) if summary else None
    return json.loads(json.dumps(found, default=str, sort_keys=True))
