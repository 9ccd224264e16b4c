"""The one fill rule: at the open of T sells fill first, then buys with the cash that is really there.

The backtest, the paper broker and the replay all call `fill_open`, so they agree by construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from trading_core.costs import CostModel
from trading_core.portfolio.planner import floor_quantity
from trading_core.schema import Side

NO_TRADE_AT_OPEN = "no trade at the open"
NOTHING_HELD = "nothing held to sell"
NO_CASH = "no cash left for it at the open"


class AuctionOrder(Protocol):
    """What the auction reads of an order; `PlannedOrder` and `schema.Order` both have it."""

    @property
    def symbol(self) -> str: ...
    @property
    def side(self) -> Side: ...
    @property
    def quantity(self) -> float: ...


OrderT = TypeVar("OrderT", bound=AuctionOrder)


@dataclass(frozen=True, slots=True)
class AuctionFill:
    """One execution. `price` has spread and slippage in it, `commission` (cash) is paid on top.

    `index` is the position of its order in the orders given; `reason`: why `quantity` is below the order's, else "".
    """

    symbol: str
    side: Side
    quantity: float
    price: float
    commission: float
    index: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AuctionResult(Generic[OrderT]):
    """`fills`: sells by symbol, then buys by symbol. `unfilled`: orders of which nothing was filled, with reasons."""

    fills: tuple[AuctionFill, ...]
    unfilled: tuple[tuple[OrderT, str], ...]
    cash_after: float
    holdings_after: dict[str, float]  # without symbols whose quantity is zero


def fill_open(
    orders: Sequence[OrderT],
    opens: Mapping[str, float],
    cash: float,
    holdings: Mapping[str, float],
    costs: CostModel,
    fractional: bool = True,
) -> AuctionResult[OrderT]:
    """Fills market orders at the opening prices.

    `opens`: price per share (currency); a symbol that is absent, NaN or not positive did not trade and its order stays
    unfilled. `holdings`: shares by symbol, long only: a sell is capped at what is held. When the cash after the sells
    does not pay for all buys with their costs, every buy shrinks by the same factor, rounded down to 1e-6 shares (whole
    shares when not `fractional`), so that cash never falls below zero. Fills do not depend on the order of `orders`,
    except between orders of the same symbol and side, which fill in the order given.

    Cash and holdings are plain float64 sums, taken in the order of `fills`, and never rounded:
    cash_after = cash + sum over sells (quantity * price - commission) - sum over buys (quantity * price + commission).
    """
    unfilled: list[tuple[OrderT, str]] = []
    sells: list[tuple[int, OrderT, float]] = []
    buys: list[tuple[int, OrderT, float]] = []
    for index in sorted(range(len(orders)), key=lambda i: (orders[i].symbol, i)):
        order = orders[index]
        price = opens.get(order.symbol)
        if price is None or not math.isfinite(price) or price <= 0:
            unfilled.append((order, NO_TRADE_AT_OPEN))
        else:
            (sells if order.side is Side.SELL else buys).append((index, order, float(price)))
    held = {symbol: float(quantity) for symbol, quantity in holdings.items()}
    sold, cash = _sell(sells, cash, held, costs, unfilled)
    bought, cash = _buy(buys, cash, costs, fractional, unfilled)
    for fill in bought:
        held[fill.symbol] = held.get(fill.symbol, 0.0) + fill.quantity
    kept = {symbol: quantity for symbol, quantity in sorted(held.items()) if quantity != 0.0}
    return AuctionResult((*sold, *bought), tuple(unfilled), cash, kept)


def _sell(
    orders: Sequence[tuple[int, OrderT, float]],
    cash: float,
    held: dict[str, float],
    costs: CostModel,
    unfilled: list[tuple[OrderT, str]],
) -> tuple[list[AuctionFill], float]:
    """Fills sells out of `held` (changed in place); returns the fills and the cash after them."""
    fills = []
    for index, order, open_price in orders:
        there = held.get(order.symbol, 0.0)
        quantity = min(order.quantity, there)
        if quantity <= 0:
            unfilled.append((order, NOTHING_HELD))
            continue
        reason = "" if quantity == order.quantity else f"only {there:g} shares are held"
        price = costs.execution_price(Side.SELL, open_price)
        commission = costs.commission(quantity * price)
        held[order.symbol] = there - quantity
        cash += quantity * price - commission
        fills.append(AuctionFill(order.symbol, Side.SELL, quantity, price, commission, index, reason))
    return fills, cash


def _buy(
    orders: Sequence[tuple[int, OrderT, float]],
    cash: float,
    costs: CostModel,
    fractional: bool,
    unfilled: list[tuple[OrderT, str]],
) -> tuple[list[AuctionFill], float]:
    """Fills buys with `cash`, all shrunk by one factor when it is short; returns the fills and the cash after them."""
    if not orders:
        return [], cash
    fills, after = _buys_at(1.0, orders, cash, costs, fractional)
    if after < 0:
        scale = max(cash, 0.0) / (cash - after)
        fills, after = _buys_at(scale, orders, cash, costs, fractional)
        while after < 0 and fills:  # float noise of the division or the sum: a hair less
            scale *= 1.0 - 1e-9
            fills, after = _buys_at(scale, orders, cash, costs, fractional)
    filled = {fill.index for fill in fills}
    unfilled.extend((order, NO_CASH) for index, order, _ in orders if index not in filled)
    return fills, after


def _buys_at(
    scale: float, orders: Sequence[tuple[int, OrderT, float]], cash: float, costs: CostModel, fractional: bool
) -> tuple[list[AuctionFill], float]:
    """The fills when every buy takes `scale` of its quantity, and the cash that would be left (below 0: too much)."""
    fills = []
    reason = "" if scale == 1.0 else f"cash was short at the open: all buys shrunk to {scale:.2%}"
    for index, order, open_price in orders:
        quantity = order.quantity if scale == 1.0 else floor_quantity(order.quantity * scale, fractional)
        if quantity <= 0:
            continue
        price = costs.execution_price(Side.BUY, open_price)
        commission = costs.commission(quantity * price)
        cash -= quantity * price + commission
        fills.append(AuctionFill(order.symbol, Side.BUY, quantity, price, commission, index, reason))
    return fills, cash
