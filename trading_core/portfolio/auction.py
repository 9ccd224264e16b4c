"""The one fill rule: at the open of T sells fill first, then buys with the cash that is really there.

The paper broker and the replay call `fill_open`, the backtest the kernel beneath it, so they agree by construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from trading_core.costs import CostModel
from trading_core.portfolio.kernels.fills import fill
from trading_core.portfolio.kernels.types import (
    NO_CASH,
    NO_LIQUIDITY,
    NO_TRADE,
    NOTHING_HELD,
    PART_HELD,
    SHRUNK,
    VOLUME_CAP,
    AccountRules,
)
from trading_core.schema import Side

NO_TRADE_AT_OPEN = "no trade at the open"
NO_CASH_LEFT = "no cash left for it at the open"
REASONS: dict[int, str] = {
    NO_TRADE: NO_TRADE_AT_OPEN,
    NOTHING_HELD: "nothing held to sell",
    NO_CASH: NO_CASH_LEFT,
    PART_HELD: "only {filled:g} shares are held",
    SHRUNK: "cash was short at the open: all buys shrunk alike, this one to {share:.2%}",
    VOLUME_CAP: "capped at the largest share of the session's volume",
    NO_LIQUIDITY: "no known volume or volatility to price its impact by",
}


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
class Liquidity:
    """What a fill depends on besides the price. Volumes in shares of T's basis.

    `sigma`: standard deviation of a session's log return, `adv`: average volume, both known at D; `volume`: traded in T.
    NaN: not known.
    """

    sigma: float = math.nan
    adv: float = math.nan
    volume: float = math.nan


@dataclass(frozen=True, slots=True)
class AuctionFill:
    """One execution. `price` has spread, slippage and impact in it, `commission` (cash) is paid on top.

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


def reason_of(flags: int, ordered: float, filled: float) -> str:
    """The words for the kernel's flags and the sizes, in shares; "" for none."""
    share = abs(filled) / abs(ordered) if ordered else 0.0
    words = [text for flag, text in REASONS.items() if flags & flag]
    return "; ".join(text.format(filled=abs(filled), share=share) for text in words)


def fill_open(
    orders: Sequence[OrderT],
    opens: Mapping[str, float],
    cash: float,
    holdings: Mapping[str, float],
    costs: CostModel,
    fractional: bool = True,
    *,
    liquidity: Mapping[str, Liquidity] | None = None,
    short: bool = False,
) -> AuctionResult[OrderT]:
    """Fills market orders at the opening prices.

    `opens`: price per share (currency); a symbol that is absent, NaN or not positive did not trade and its order stays
    unfilled. `holdings`: shares by symbol; without `short` a sell is capped at what is held. `liquidity` is read where
    the costs have an impact or a cap: an order fills at most that share of the session's volume, and not at all where the
    volume or volatility to price its impact by is not known. When the cash after the sells does not pay for all buys with
    their costs, every buy shrinks by the same factor, rounded down to 1e-6 shares (whole shares when not `fractional`),
    so that buying never brings cash below zero; what is sold short brings cash. Fills do not depend on the order of
    `orders`, except between orders of the same symbol and side, which fill in the order given.

    Cash and holdings are plain float64 sums, taken in the order of `fills`, and never rounded:
    cash_after = cash + sum over sells (quantity * price - commission) - sum over buys (quantity * price + commission).
    """
    order = sorted(range(len(orders)), key=lambda i: (orders[i].symbol, i))
    symbols = sorted({*holdings, *(o.symbol for o in orders)})
    place = {symbol: s for s, symbol in enumerate(symbols)}
    quantities = np.array([float(holdings.get(symbol, 0.0)) for symbol in symbols])
    known = [(liquidity or {}).get(orders[i].symbol, Liquidity()) for i in order]
    prices = np.array([_number(opens.get(orders[i].symbol)) for i in order])
    paid, flags = np.zeros(len(order)), np.zeros(len(order), dtype=np.int64)
    filled, after = fill(
        np.array([place[orders[i].symbol] for i in order], dtype=np.int64),
        np.array([orders[i].quantity * (1.0 if orders[i].side is Side.BUY else -1.0) for i in order]),
        prices,
        np.array([k.volume for k in known]),
        np.array([k.sigma for k in known]),
        np.array([k.adv for k in known]),
        quantities,
        float(cash),
        costs.rates,
        AccountRules(bool(fractional), bool(short), 0.0),
        paid,
        flags,
    )
    sells = [n for n in range(len(order)) if filled[n] < 0]
    buys = [n for n in range(len(order)) if filled[n] > 0]
    fills = tuple(
        AuctionFill(
            orders[order[n]].symbol,
            orders[order[n]].side,
            abs(float(filled[n])),
            float(paid[n]),
            float(abs(filled[n]) * paid[n] * costs.rates.commission),
            order[n],
            reason_of(int(flags[n]), orders[order[n]].quantity, float(filled[n])),
        )
        for n in (*sells, *buys)
    )
    missed = tuple(
        (orders[order[n]], reason_of(int(flags[n]), orders[order[n]].quantity, 0.0))
        for n in range(len(order))
        if filled[n] == 0
    )
    kept = {symbol: float(q) for symbol, q in zip(symbols, quantities, strict=True) if q != 0.0}
    return AuctionResult(fills, missed, float(after), kept)


def _number(price: float | None) -> float:
    return math.nan if price is None else float(price)
