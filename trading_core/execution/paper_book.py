"""What the paper broker writes: the book of a session, as a pure function of the book before, its orders and the market.

In this order: actions learned of late, interest and fees of the night, the session's corporate actions, the orders at the
open. Interest is earned on what the account really had, so late actions come first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from trading_core.costs import CostModel
from trading_core.portfolio.actions import adjust_orders, in_order
from trading_core.portfolio.auction import AuctionFill, Liquidity, fill_open
from trading_core.portfolio.kernels.fills import execution_price
from trading_core.portfolio.late import AppliedAction, Step, apply_one_by_one, kept_since, key_of, re_dated
from trading_core.portfolio.overnight import Night, accrue
from trading_core.schema import (
    AccountState,
    ActionKind,
    CashFlow,
    CashFlowKind,
    CorporateAction,
    Fill,
    Order,
    OrderKind,
    OrderState,
    OrderStatus,
    Position,
    Side,
)

BEYOND_LIMIT = {Side.BUY: "the open was above its limit", Side.SELL: "the open was below its limit"}


@dataclass(frozen=True, slots=True)
class HeldSince:
    """Since the open of which session a symbol has been held without a break, on one side."""

    symbol: str
    session: date


@dataclass(frozen=True, slots=True)
class Book:
    """The account after the open of `session`.

    `outcomes`: every order of the session, restated for splits. `flows`: cash that moved without an order. `took_effect`:
    the corporate actions that changed the account, late ones included. `since`, and `applied`: all actions that have had
    their effect on what is held now. Books of before these fields leave them empty: there, a position counts as held
    since the book, so nothing of before it is applied again.
    """

    session: date
    number: int  # counts the account's books from 1
    cash: float
    positions: tuple[Position, ...]
    fills: tuple[Fill, ...]
    outcomes: tuple[OrderState, ...]
    settled_at: datetime
    flows: tuple[CashFlow, ...] = ()
    took_effect: tuple[AppliedAction, ...] = ()
    since: tuple[HeldSince, ...] = ()
    applied: tuple[CorporateAction, ...] = ()

    def held_since(self) -> dict[str, date]:
        known = {held.symbol: held.session for held in self.since}
        return {position.symbol: known.get(position.symbol, self.session) for position in self.positions}

    def quantity(self, symbol: str) -> float:
        return math.fsum(position.quantity for position in self.positions if position.symbol == symbol)


@dataclass(frozen=True, slots=True)
class OpenMarket:
    """What the market did to an account at the open of `session`: see `SimulatedBroker.settle_open`.

    `late`: the actions of `earlier` sessions that have not had their effect (see `late_actions`).
    """

    session: date
    opens: Mapping[str, float]
    actions: Sequence[CorporateAction]
    settled_at: datetime
    night: Night
    late: Sequence[AppliedAction] = ()


@dataclass(frozen=True, slots=True)
class BookRules:
    """What an account costs and may do: fractions of shares, negative positions."""

    costs: CostModel
    fractional: bool
    short: bool


def next_book(
    before: Book | None, start: AccountState, pending: Sequence[OrderState], market: OpenMarket, rules: BookRules
) -> Book:
    """The book after `before` (whose account is `start`); `pending`: the orders of the session with their states."""
    held, cash = _after_late(start, market.late)
    interest, fee = accrue(held, cash, market.night, rules.costs)
    held, cash, on_time = apply_one_by_one(held, cash + (interest - fee), in_order(market.actions))
    accepted = [state.order for state in pending if state.status is OrderStatus.ACCEPTED]
    orders, beyond = _within_limits(_restated(accepted, market.actions), market, rules)
    result = fill_open(
        orders,
        market.opens,
        cash,
        held,
        rules.costs,
        rules.fractional,
        liquidity=market.night.liquidity,
        short=rules.short,
    )
    fills = tuple(_fill_of(orders[fill.index], fill, market.session, market.settled_at) for fill in result.fills)
    outcomes = {state.order.client_order_id: state for state in pending if state.status.terminal}
    for order, reason in (*beyond, *result.unfilled):
        outcomes[order.client_order_id] = OrderState(order, OrderStatus.EXPIRED, reason=reason)
    for fill in result.fills:
        outcomes[orders[fill.index].client_order_id] = _outcome(orders[fill.index], fill)
    took_effect = (*market.late, *on_time)
    positions = _positions(start.positions, took_effect, fills, result.holdings_after)
    since = _held_since(before, start.positions, positions, market.session)
    return Book(
        session=market.session,
        number=before.number + 1 if before else 1,
        cash=result.cash_after,
        positions=positions,
        fills=fills,
        outcomes=tuple(outcomes[order_id] for order_id in sorted(outcomes)),
        settled_at=market.settled_at,
        flows=_flows(market.session, interest, fee, took_effect),
        took_effect=tuple(item for item in took_effect if item.shares != 0.0 or item.late),
        since=since,
        applied=_applied(before, took_effect, since),
    )


# --- actions that come late -------------------------------------------------------------------------------------------


def missed_actions(newest: Book | None, earlier: Sequence[CorporateAction]) -> list[CorporateAction]:
    """Those of `earlier` sessions that should have had an effect on what is held now, and had none."""
    if newest is None:
        return []
    since, done = newest.held_since(), {key_of(action) for action in newest.applied}
    return [
        action
        for action in in_order(earlier)
        if action.symbol in since and since[action.symbol] < action.session and key_of(action) not in done
    ]


def late_actions(
    books: Sequence[Book], missed: Sequence[CorporateAction], earlier: Sequence[CorporateAction]
) -> list[AppliedAction]:
    """On what each of the `missed` actions takes effect now. `books`: all of the account, in order.

    One that the books know under another date takes effect on nothing: it had its effect.
    """
    newest, found = books[-1], []
    grown: dict[
        str, float
    ] = {}  # shares that late splits add now: they belong to what was held since before a later action
    applied = list(newest.applied)
    for action in missed:
        other = re_dated(action, applied, earlier)
        if other is not None:
            applied.remove(other)
            found.append(AppliedAction(action, 0.0, late=True))
            continue
        shares = kept_since(*_path(books, action)) + grown.get(action.symbol, 0.0)
        later = [a for a in newest.applied if a.symbol == action.symbol and a.session > action.session]
        splits = math.prod(a.value for a in later if a.kind is ActionKind.SPLIT)
        item = AppliedAction(action, shares, late=True, splits=splits)
        grown[action.symbol] = grown.get(action.symbol, 0.0) + item.after(shares) - shares
        found.append(item)
    return found


def _path(books: Sequence[Book], action: CorporateAction) -> tuple[float, list[Step]]:
    """What was held of the action's symbol before its session, and what the books since then did to it."""
    symbol = action.symbol
    first = sum(book.session < action.session for book in books)
    steps = []
    for before, book in zip(books[first - 1 :], books[first:], strict=False):
        held, ratio = before.quantity(symbol), 1.0
        for item in book.took_effect:
            if item.action.symbol == symbol and item.action.kind is ActionKind.SPLIT and held != 0.0:
                ratio *= item.after(held) / held
                held = item.after(held)
        steps.append(Step(ratio, book.quantity(symbol)))
    return (books[first - 1].quantity(symbol) if first else 0.0), steps


def _after_late(start: AccountState, late: Sequence[AppliedAction]) -> tuple[dict[str, float], float]:
    held, cash = {p.symbol: p.quantity for p in start.positions}, start.cash
    for item in late:
        left = item.after(held.get(item.action.symbol, 0.0))
        held[item.action.symbol], cash = left, cash + item.cash
    return {symbol: quantity for symbol, quantity in held.items() if quantity != 0.0}, cash


# --- orders -----------------------------------------------------------------------------------------------------------


def _restated(orders: Sequence[Order], actions: Sequence[CorporateAction]) -> list[Order]:
    """The orders in T's shares: quantity, reference price and limit restated for the splits of T."""
    ratio: dict[str, float] = {}
    for action in actions:
        if action.kind is ActionKind.SPLIT:
            ratio[action.symbol] = ratio.get(action.symbol, 1.0) * action.value
    return [
        replace(order, limit_price=order.limit_price / ratio.get(order.symbol, 1.0)) if order.limit_price else order
        for order in adjust_orders(orders, actions)
    ]


def _within_limits(
    orders: Sequence[Order], market: OpenMarket, rules: BookRules
) -> tuple[list[Order], list[tuple[Order, str]]]:
    """The orders that may fill at the open, and those whose limit forbids it, with the reason.

    A limit binds the price that is paid: the open with half spread, slippage and the impact of the whole order (of what the
    volume cap leaves of it) in it; commission comes on top, as at brokers.
    """
    within: list[Order] = []
    beyond: list[tuple[Order, str]] = []
    for order in orders:
        price = _paid(order, market, rules.costs) if order.kind is OrderKind.LIMIT else math.nan
        limit = order.limit_price if order.limit_price is not None else math.nan
        if price > limit if order.side is Side.BUY else price < limit:
            beyond.append((order, f"{BEYOND_LIMIT[order.side]}: {price:g} with its costs, the limit {limit:g}"))
        else:
            within.append(order)
    return within, beyond


def _paid(order: Order, market: OpenMarket, costs: CostModel) -> float:
    """The price per share at which the order would fill; NaN where that is not known, and then it does not fill."""
    known, rates = market.night.liquidity.get(order.symbol, Liquidity()), costs.rates
    price = float(market.opens.get(order.symbol, math.nan))
    if not price > 0.0 or (rates.impact > 0.0 and not known.adv > 0.0):
        return math.nan
    capped = rates.participation < math.inf and known.volume > 0.0
    size = min(order.quantity, rates.participation * known.volume) if capped else order.quantity
    signed = size if order.side is Side.BUY else -size
    return float(execution_price(price, signed, known.sigma, known.adv, rates))


def _fill_of(order: Order, fill: AuctionFill, session: date, at: datetime) -> Fill:
    return Fill(
        fill_id=f"{order.client_order_id}-1",
        client_order_id=order.client_order_id,
        symbol=fill.symbol,
        side=fill.side,
        quantity=fill.quantity,
        price=fill.price,
        commission=fill.commission,
        session=session,
        filled_at=at,
    )


def _outcome(order: Order, fill: AuctionFill) -> OrderState:
    # An order lives for one auction: what the auction did not fill expires with it.
    whole = fill.quantity == order.quantity
    status = OrderStatus.FILLED if whole else OrderStatus.EXPIRED
    return OrderState(order, status, fill.quantity, fill.price, fill.reason)


# --- what the account is afterwards -----------------------------------------------------------------------------------


def _positions(
    before: Sequence[Position],
    took_effect: Sequence[AppliedAction],
    fills: Sequence[Fill],
    holdings: Mapping[str, float],
) -> tuple[Position, ...]:
    """Positions with average price per share: a split spreads the cost over the new shares, a fill that enlarges a position
    averages in with its costs, one that reduces it keeps it, one that crosses zero begins anew."""
    quantity = {p.symbol: p.quantity for p in before}
    cost = {p.symbol: p.average_price for p in before}
    for item in took_effect:
        symbol, held = item.action.symbol, quantity[item.action.symbol]
        quantity[symbol] = item.after(held)
        if item.action.kind is ActionKind.SPLIT and held != 0.0:
            cost[symbol] /= item.action.value if item.shares == held else quantity[symbol] / held
    for fill in fills:
        held = quantity.get(fill.symbol, 0.0)
        sign = 1.0 if fill.side is Side.BUY else -1.0
        after = held + sign * fill.quantity
        paid = fill.price + sign * fill.commission / fill.quantity
        if held * sign >= 0.0:
            cost[fill.symbol] = (abs(held) * cost.get(fill.symbol, 0.0) + fill.quantity * paid) / abs(after)
        elif after * sign > 0.0:
            cost[fill.symbol] = paid
        quantity[fill.symbol] = after
    return tuple(Position(symbol, holdings[symbol], cost[symbol]) for symbol in sorted(holdings))


def _held_since(
    before: Book | None, start: Sequence[Position], positions: Sequence[Position], session: date
) -> tuple[HeldSince, ...]:
    known = before.held_since() if before else {}
    held = {p.symbol: p.quantity for p in start}
    return tuple(
        HeldSince(p.symbol, known.get(p.symbol, session) if held.get(p.symbol, 0.0) * p.quantity > 0.0 else session)
        for p in positions
    )


def _applied(
    before: Book | None, took_effect: Sequence[AppliedAction], since: Sequence[HeldSince]
) -> tuple[CorporateAction, ...]:
    """All that has had its effect on what is held now. What is from before it was held can never come late."""
    held = {item.symbol: item.session for item in since}
    known = (*(before.applied if before else ()), *(item.action for item in took_effect))
    return tuple(a for a in known if a.symbol in held and held[a.symbol] < a.session)


def _flows(session: date, interest: float, fee: float, took_effect: Sequence[AppliedAction]) -> tuple[CashFlow, ...]:
    """Cash that moved without an order. Ids name session, kind and symbol, and the day of an action of before."""
    flows = [
        CashFlow(f"{session}-interest", session, CashFlowKind.INTEREST, "", interest),
        CashFlow(f"{session}-borrow", session, CashFlowKind.BORROW, "", -fee),
    ]
    for item in took_effect:
        action = item.action
        kind = CashFlowKind.DIVIDEND if action.kind is ActionKind.DIVIDEND else CashFlowKind.PROCEEDS
        of = f"-of-{action.session}" if action.session != session else ""
        flows.append(CashFlow(f"{session}-{kind.value}-{action.symbol}{of}", session, kind, action.symbol, item.cash))
    return tuple(flow for flow in flows if flow.amount != 0.0)
