"""Where every account of a market stands, from the ledger alone: no broker is asked, so it can be told when none answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from trading_core.errors import UnknownNameError
from trading_core.execution.accounts import kind_of
from trading_core.execution.lease import Leases, is_dead
from trading_core.execution.ledger import ALL_ACCOUNTS, Ledger, open_orders
from trading_core.execution.records import (
    AccountRecord,
    AdoptionRecord,
    EventLevel,
    HaltEvent,
    LedgerEvent,
    SessionState,
    SessionSummary,
)
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import OrderStatus

LAST_EVENTS = 5  # warnings and alerts that are listed, the newest ones


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order of the last session that has not ended."""

    client_order_id: str
    symbol: str
    side: str
    quantity: float
    filled: float
    status: OrderStatus
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Who works on the account now. `dead`: the process is known to have ended, so the next one may take over at once."""

    holder: str
    until: datetime
    dead: bool


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """`cash` and `equity` (None: not priced) are those of `settled`, the newest session that was settled, None before that.

    `adopted`: when a person has taken the broker's word for the truth since; then `cash` is what it said, and no equity known.
    """

    account: str
    kind: str  # see AccountKind
    strategy: str
    market: str
    opened_at: datetime
    session: date | None  # the last one
    status: str  # of it: open, decided or settled; "" where there is none
    orders: tuple[OpenOrder, ...]
    unknown: int  # how many of them are UNKNOWN: nobody knows whether the broker has them
    halts: tuple[HaltEvent, ...]  # in force: of this account, and of all
    lease: LeaseHolder | None
    events: tuple[LedgerEvent, ...]  # the last warnings and alerts, newest first
    settled: date | None
    cash: float | None
    equity: float | None
    adopted: datetime | None


def statuses(ws: Workspace, account: str | None, now: datetime) -> list[AccountStatus]:
    """Every account of the market, or one, by id. Errors: UnknownNameError, LedgerUnreachableError."""
    store = ws.ledger_store()
    ledger, leases = Ledger(store), Leases(store)
    owners = ledger.accounts(ws.market.id)
    chosen = [owner for owner in owners if account in (None, owner.account)]
    if account is not None and not chosen:
        raise UnknownNameError("account", account, [owner.account for owner in owners])
    of_all = _in_force(ledger, ALL_ACCOUNTS)
    return [_status(ledger, leases, owner, of_all, now) for owner in chosen]


def _status(
    ledger: Ledger, leases: Leases, owner: AccountRecord, of_all: Sequence[HaltEvent], now: datetime
) -> AccountStatus:
    name = owner.account
    last = ledger.last_session(name)
    state = ledger.session_state(name, last.session) if last is not None else None
    waiting = open_orders(ledger.orders(name, last.session)) if last is not None else []
    settled = _newest_settled(ledger, name, state)
    adopted = _adopted_since(ledger, name, settled[0] if settled else None)
    return AccountStatus(
        account=name,
        kind=kind_of(name).value,
        strategy=owner.strategy,
        market=owner.market,
        opened_at=owner.opened_at,
        session=last.session if last is not None else None,
        status=state.status.value if state is not None else "",
        orders=tuple(
            OpenOrder(
                client_order_id=order.intent.client_order_id,
                symbol=order.intent.symbol,
                side=order.intent.side.value,
                quantity=order.intent.quantity,
                filled=order.filled_quantity,
                status=order.status,
                reason=order.reason,
            )
            for order in waiting
        ),
        unknown=sum(order.status is OrderStatus.UNKNOWN for order in waiting),
        halts=(*_in_force(ledger, name), *of_all),
        lease=_holder(leases, name, now),
        events=_warnings(ledger, name),
        settled=settled[0] if settled else None,
        cash=adopted.cash if adopted else settled[1].cash if settled else None,
        equity=settled[1].equity if settled and not adopted else None,
        adopted=adopted.at if adopted else None,
    )


def _newest_settled(ledger: Ledger, account: str, last: SessionState | None) -> tuple[date, SessionSummary] | None:
    if last is not None and last.summary is not None:
        return last.record.session, last.summary
    for record in reversed(ledger.sessions(account)):
        state = ledger.session_state(account, record.session)
        if state is not None and state.summary is not None:
            return record.session, state.summary
    return None


def _adopted_since(ledger: Ledger, account: str, settled: date | None) -> AdoptionRecord | None:
    """The newest adoption, unless a session was settled after it."""
    found = ledger.adoptions(account)
    return found[-1] if found and (settled is None or found[-1].session >= settled) else None


def _in_force(ledger: Ledger, scope: str) -> tuple[HaltEvent, ...]:
    history = ledger.halt_history(scope)
    return (history[-1],) if history and history[-1].halted else ()


def _holder(leases: Leases, account: str, now: datetime) -> LeaseHolder | None:
    last = leases.newest(account)
    if last is None or last.released or last.expires_at <= now:
        return None
    return LeaseHolder(last.holder, last.expires_at, is_dead(last.holder))


def _warnings(ledger: Ledger, account: str) -> tuple[LedgerEvent, ...]:
    found = [event for event in ledger.events(account) if event.level in (EventLevel.WARNING, EventLevel.ALERT)]
    return tuple(reversed(found[-LAST_EVENTS:]))
