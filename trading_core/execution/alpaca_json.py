"""Alpaca's JSON and our records: what an order looks like there, and what an answer of its Trading API (v2) says.

Pure functions. Quantities and prices are decimal strings there; anything that is not what the API describes raises
`Malformed`, so that no number and no status is ever a guess. Facts: Alpaca's documentation ("Placing Orders", "Account
Activities", the OpenAPI text of the Trading API) and the models of alpaca-py 0.44.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from trading_core.execution.broker import LastTrade
from trading_core.execution.ids import CLIENT_ORDER_ID_LENGTH
from trading_core.schema import CashFlow, CashFlowKind, Fill, Order, OrderKind, OrderState, OrderStatus, Position, Side
from trading_core.sessions import Sessions

NEW_YORK = ZoneInfo("America/New_York")
DECIMALS = 9  # of a share: what Alpaca takes at most
FLOAT_NOISE = 1e-12  # relative: of sums and differences of quantities
UNKNOWN_PRICE = math.nan  # the reference price of an order that Alpaca is asked for: it does not keep ours
_DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")  # of an order: it becomes part of an address

# Order type and time in force of each kind. A day order that comes before the open waits for it.
SENT_AS: Mapping[OrderKind, tuple[str, str]] = {
    OrderKind.OPENING: ("market", "opg"),
    OrderKind.MARKET: ("market", "day"),
    OrderKind.LIMIT: ("limit", "day"),
    OrderKind.CLOSING: ("market", "cls"),
}
WHOLE_SHARES = frozenset({OrderKind.OPENING, OrderKind.CLOSING})  # fractions of a share are for day orders

STATUSES: Mapping[str, OrderStatus] = {
    "new": OrderStatus.ACCEPTED,
    "accepted": OrderStatus.ACCEPTED,
    "pending_new": OrderStatus.ACCEPTED,
    "accepted_for_bidding": OrderStatus.ACCEPTED,
    "held": OrderStatus.ACCEPTED,
    "pending_replace": OrderStatus.ACCEPTED,
    "pending_review": OrderStatus.ACCEPTED,
    "stopped": OrderStatus.ACCEPTED,  # a price is guaranteed, the trade is still to come
    "suspended": OrderStatus.ACCEPTED,  # it does not trade at present
    "calculated": OrderStatus.ACCEPTED,  # done, but the figures are not final: the last word is still to come
    "partially_filled": OrderStatus.PARTIALLY_FILLED,
    "pending_cancel": OrderStatus.PENDING_CANCEL,
    "filled": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELED,
    "replaced": OrderStatus.CANCELED,  # by an order with another id, which somebody else sent
    "expired": OrderStatus.EXPIRED,
    "done_for_day": OrderStatus.EXPIRED,  # of an order that lives for one day; see `_status`
    "rejected": OrderStatus.REJECTED,
}
_LASTING = frozenset({"gtc", "gtd"})  # orders that outlive a day: never ours

# Activities that are no trade. What is not listed here and moved cash is OTHER.
FLOW_KINDS: Mapping[str, CashFlowKind] = {
    **dict.fromkeys(
        ("DIV", "DIVCGL", "DIVCGS", "DIVFT", "DIVNRA", "DIVROC", "DIVTW", "DIVTXEX", "DIVWH", "CGD"),
        CashFlowKind.DIVIDEND,
    ),
    **dict.fromkeys(("INT", "INTNRA", "INTPNL", "INTTW"), CashFlowKind.INTEREST),
    **dict.fromkeys(("FEE", "CFEE", "DIVFEE", "PTC", "PTR"), CashFlowKind.FEE),
    **dict.fromkeys(("CSD", "CSW", "TRANS", "JNL", "JNLC", "ACATC"), CashFlowKind.TRANSFER),
    **dict.fromkeys(("MA", "CIL", "REORG", "SC", "SPIN", "SPLIT", "SSO", "SSP", "VOF"), CashFlowKind.PROCEEDS),
}
SHARES_ONLY = frozenset({"ACATS", "JNLS", "NC", "SC", "SPIN", "SPLIT", "SSO", "SSP"})  # may have no amount at all


class Malformed(Exception):
    """An answer that is not what the API describes. The text says what is wrong with it."""


class Unsendable(Exception):
    """An order that Alpaca cannot take. The text says why, and the way out."""


@dataclass(frozen=True, slots=True)
class AccountAnswer:
    """`number`: the account's. `cash` in dollars. `trouble`: why it takes no orders; empty when it does."""

    number: str
    cash: float
    trouble: str


# --- what is sent ----------------------------------------------------------------------------------------------------


def order_body(order: Order) -> dict[str, str]:
    """The JSON of an order, numbers as decimal strings. Errors: Unsendable."""
    kind, in_force = SENT_AS[order.kind]
    if not 1 <= len(order.client_order_id) <= CLIENT_ORDER_ID_LENGTH:
        raise Unsendable(f"its id must have 1 to {CLIENT_ORDER_ID_LENGTH} characters")
    if (order.limit_price is not None) != (order.kind is OrderKind.LIMIT):
        raise Unsendable("a limit order needs a limit price, any other has none")
    quantity = _plain(order.quantity, "its quantity")
    if order.kind in WHOLE_SHARES and "." in quantity:
        raise Unsendable(
            f"{quantity} shares: an order in an auction is for whole shares; "
            "use order kind 'market', or set `fractional: false` in the strategy's config"
        )
    body = {
        "symbol": order.symbol,
        "qty": quantity,
        "side": order.side.value,
        "type": kind,
        "time_in_force": in_force,
        "client_order_id": order.client_order_id,
    }
    if order.limit_price is not None:
        body["limit_price"] = _plain(order.limit_price, "its limit price")
    return body


def _plain(value: float, name: str) -> str:
    """A number as Alpaca reads it, without an exponent. Only float noise is rounded away: what is filled must be what was
    meant."""
    if not (math.isfinite(value) and value > 0):
        raise Unsendable(f"{name} is {value}; it must be above 0")
    text = f"{Decimal(repr(float(value))):.{DECIMALS}f}"
    if not math.isclose(float(text), value, rel_tol=FLOAT_NOISE):
        raise Unsendable(f"{name} is {value!r}; at most {DECIMALS} decimals are allowed")
    return text.rstrip("0").rstrip(".")


# --- what is answered ------------------------------------------------------------------------------------------------


def rows_of(content: Any) -> list[Mapping[str, Any]]:
    """A list of JSON objects."""
    if not isinstance(content, list) or not all(isinstance(row, Mapping) for row in content):
        raise Malformed("the answer is no list of objects")
    return content


def _value(row: Any, key: str) -> Any:
    if not isinstance(row, Mapping):
        raise Malformed("the answer is no JSON object")
    return row.get(key)


def text_of(row: Any, key: str) -> str:
    """A text that is not empty."""
    value = _value(row, key)
    if not isinstance(value, str) or not value:
        raise Malformed(f"the answer has no '{key}'")
    return value


def id_of(row: Any, key: str = "id") -> str:
    """An order's id at Alpaca."""
    value = text_of(row, key)
    if not _ID.fullmatch(value):
        raise Malformed(f"'{key}' is no id")
    return value


def number_of(row: Any, key: str) -> Decimal:
    """A decimal number: its digits as a text, or a JSON number."""
    value = _value(row, key)
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return Decimal(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return Decimal(repr(value))
    raise Malformed(f"'{key}' is no number: {repr(value)[:40]}")


def instant_of(row: Any, key: str) -> datetime:
    """An instant in UTC; finer than a microsecond is cut off."""
    text = text_of(row, key)
    try:
        stamp = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(f"'{key}' is no instant: {text[:40]}") from None
    if stamp.tzinfo is None:
        raise Malformed(f"'{key}' has no zone: {text[:40]}")
    return stamp.astimezone(UTC)


def submitted_at(row: Any) -> datetime:
    """When an order came in."""
    return instant_of(row, "submitted_at")


def session_of(instant: datetime, sessions: Sessions) -> date:
    """The session an order of one day is for that came in at `instant`: the first that has not closed then."""
    session, close = _session_from(sessions, instant.date())
    while close <= instant:
        session, close = _session_from(sessions, session + timedelta(days=1))
    return session


@lru_cache(maxsize=256)
def _session_from(sessions: Sessions, day: date) -> tuple[date, datetime]:
    """The first session on or after a day, and its close."""
    session = day if sessions.is_session(day) else sessions.next(day)
    return session, sessions.close(session)


def account_of(row: Any) -> AccountAnswer:
    status = text_of(row, "status")
    blocks = [name for name in ("trading_blocked", "account_blocked", "trade_suspended_by_user") if row.get(name)]
    trouble = f"the account's status is {status}" if status != "ACTIVE" else ""
    if blocks:
        trouble = f"the account says {', '.join(blocks)}"
    return AccountAnswer(text_of(row, "account_number"), float(number_of(row, "cash")), trouble)


def last_trades_of(content: Any) -> dict[str, LastTrade]:
    """The last trade of each symbol that has one."""
    trades = _value(content, "trades")
    if not isinstance(trades, Mapping):
        raise Malformed("the answer has no 'trades'")
    found = {
        symbol: LastTrade(float(number_of(row, "p")), instant_of(row, "t")) for symbol, row in trades.items() if row
    }
    wrong = sorted(symbol for symbol, trade in found.items() if trade.price <= 0)
    if wrong:
        raise Malformed(f"the last trade of {wrong[0]} has the price {found[wrong[0]].price:g}")
    return found


def opens_on(content: Any, day: str) -> bool:
    """Whether the calendar's rows for one day hold it."""
    return any(text_of(row, "date") == day for row in rows_of(content))


def positions_of(content: Any) -> tuple[Position, ...]:
    """Sorted by symbol. A short position is told by its side; its quantity may come with either sign."""
    found: dict[str, Position] = {}
    for row in rows_of(content):
        symbol, side, quantity = text_of(row, "symbol"), text_of(row, "side"), number_of(row, "qty")
        if side not in ("long", "short") or (side == "long" and quantity < 0):
            raise Malformed(f"a position of {symbol} has side '{side}' and qty {quantity}")
        if symbol in found:
            raise Malformed(f"{symbol} has two positions")
        signed = float(-abs(quantity) if side == "short" else quantity)
        if signed != 0.0:
            found[symbol] = Position(symbol, signed, float(number_of(row, "avg_entry_price")))
    return tuple(found[symbol] for symbol in sorted(found))


def order_state(row: Any, sessions: Sessions) -> OrderState:
    """An order as Alpaca tells it. Its reference price is NaN: Alpaca does not keep it.

    Orders that are not ours may be of a type or time in force that we never send: they are told as LIMIT orders when they
    have a limit price, else as MARKET orders. One for an amount of money has the quantity NaN while nothing is filled.
    """
    filled = number_of(row, "filled_qty")
    quantity = number_of(row, "qty") if row.get("qty") is not None else None
    if quantity is None and row.get("notional") is None:
        raise Malformed("an order has neither 'qty' nor 'notional'")
    if filled < 0 or (quantity is not None and not filled <= quantity):
        raise Malformed(f"an order of {quantity} has filled_qty {filled}")
    status = _status(row, filled, quantity)
    # `filled_avg_price` is null while nothing is filled.
    average = float(number_of(row, "filled_avg_price")) if filled > 0 else None
    shown = float(quantity) if quantity is not None else (float(filled) if filled > 0 else math.nan)
    order = Order(
        client_order_id=text_of(row, "client_order_id"),
        symbol=text_of(row, "symbol"),
        side=side_of(row),
        quantity=shown,
        session=session_of(submitted_at(row), sessions),
        reference_price=UNKNOWN_PRICE,
        kind=_kind(row),
        limit_price=float(number_of(row, "limit_price")) if row.get("limit_price") is not None else None,
    )
    ended = status.terminal and status is not OrderStatus.FILLED
    reason = f"Alpaca says '{text_of(row, 'status')}'" if ended else ""
    return OrderState(order, status, float(filled), average, reason, id_of(row))


def side_of(row: Any) -> Side:
    side = text_of(row, "side")
    if side not in (Side.BUY, Side.SELL):
        raise Malformed(f"'side' is '{side[:40]}'")
    return Side(side)


def _status(row: Any, filled: Decimal, quantity: Decimal | None) -> OrderStatus:
    said = text_of(row, "status")
    if said not in STATUSES:
        raise Malformed(f"the order status '{said[:40]}' is none that we know")
    status = STATUSES[said]
    if status is OrderStatus.FILLED and quantity is not None and filled != quantity:
        raise Malformed(f"an order of {quantity} is 'filled' with filled_qty {filled}")
    if said == "done_for_day" and row.get("time_in_force") in _LASTING:
        status = OrderStatus.ACCEPTED
    if status is OrderStatus.ACCEPTED and filled > 0:
        return OrderStatus.PARTIALLY_FILLED
    return status


def _kind(row: Any) -> OrderKind:
    sent = (row.get("type") or row.get("order_type"), row.get("time_in_force"))
    known = {value: kind for kind, value in SENT_AS.items()}
    return known.get(sent, OrderKind.LIMIT if row.get("limit_price") is not None else OrderKind.MARKET)


def taken(order: Order, row: Any, sessions: Sessions) -> OrderState:
    """The answer to an order that was sent. Malformed when it speaks of another one."""
    state = order_state(row, sessions)
    told, meant = state.order, order_body(order)
    if (told.client_order_id, told.symbol, told.side.value) != (
        meant["client_order_id"],
        meant["symbol"],
        meant["side"],
    ):
        raise Malformed(f"the answer speaks of another order ({told.client_order_id[:CLIENT_ORDER_ID_LENGTH]})")
    if number_of(row, "qty") != Decimal(meant["qty"]):
        raise Malformed(f"the answer speaks of {row.get('qty')} shares, not of {meant['qty']}")
    return replace(state, order=order)


def traded_on(row: Any) -> date:
    """New York's date of an execution: prints of the closing auction come after the close."""
    return instant_of(row, "transaction_time").astimezone(NEW_YORK).date()


def fill_of(row: Any, client_order_id: str, session: date) -> Fill:
    """One execution. Alpaca takes no commission of US shares (fees come as activities), unless the row names one."""
    said = text_of(row, "type")
    if said not in ("fill", "partial_fill"):
        raise Malformed(f"the execution type '{said[:40]}' is none that we know")
    quantity, price = number_of(row, "qty"), number_of(row, "price")
    if quantity <= 0 or price <= 0:
        raise Malformed(f"an execution of {quantity} at {price}")
    return Fill(
        fill_id=text_of(row, "id"),
        client_order_id=client_order_id,
        symbol=text_of(row, "symbol"),
        side=Side.SELL if row.get("side") == "sell_short" else side_of(row),
        quantity=float(quantity),
        price=float(price),
        commission=float(number_of(row, "commission")) if row.get("commission") is not None else 0.0,
        session=session,
        filled_at=instant_of(row, "transaction_time"),
    )


def cash_flows_of(rows: Sequence[Mapping[str, Any]], before: date, session: date) -> list[CashFlow]:
    """The activities dated after session `before` and up to `session` that moved cash and are no trade, sorted by id."""
    found: dict[str, CashFlow] = {}
    for row in rows:
        kind, said = text_of(row, "activity_type"), row.get("net_amount")
        if kind == "FILL" or row.get("status") == "canceled" or not before < _day(row) <= session:
            continue
        amount = Decimal(0) if said in (None, "") and kind in SHARES_ONLY else number_of(row, "net_amount")
        if amount != 0:
            key, symbol = text_of(row, "id"), row.get("symbol") or ""
            found[key] = CashFlow(key, session, FLOW_KINDS.get(kind, CashFlowKind.OTHER), str(symbol), float(amount))
    return [found[key] for key in sorted(found)]


def _day(row: Any) -> date:
    text = text_of(row, "date")[:10]
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Malformed(f"'date' is no date: {text}") from None
