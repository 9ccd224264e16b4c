"""Target weights -> share quantities: what to sell and what to buy so that the account holds the weights decided on.

Orders are sized with the closes of D (the reference prices) and filled at the open of T, so fills differ by the gap;
`auction.fill_open` shrinks the buys when a gap makes the cash short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trading_core.costs import CostModel
from trading_core.portfolio.kernels import account as kernels
from trading_core.portfolio.kernels import orders
from trading_core.portfolio.kernels.types import AccountRules
from trading_core.schema import FloatArray, Side

QUANTITY_DECIMALS = 6  # fractional quantities are multiples of 1e-6 shares


@dataclass(frozen=True, slots=True)
class PlannedOrder:
    """A market order for the next open: `quantity` shares, positive; `reference_price`: the close it was sized with."""

    symbol: str
    side: Side
    quantity: float
    reference_price: float

    @property
    def signed(self) -> float:
        """The quantity, below 0 for a sale."""
        return self.quantity if self.side is Side.BUY else -self.quantity


def floor_quantity(quantity: float, fractional: bool) -> float:
    """`quantity` rounded down to a multiple of 1e-6 shares, or to whole shares.

    A value that misses a multiple by float noise (a millionth of a step) counts as that multiple: 0.29 stays 0.29.
    """
    return float(kernels.floor_quantity(float(quantity), bool(fractional)))


def plan(
    symbols: Sequence[str],
    weights_now: FloatArray,
    target_weights: FloatArray,
    closes: FloatArray,
    quantities_held: FloatArray,
    equity: float,
    costs: CostModel,
    fractional: bool = True,
    min_order_notional: float = 0.0,
    cash: float | None = None,
) -> tuple[PlannedOrder, ...]:
    """Orders that move `weights_now` to `target_weights`: sells by symbol, then buys by symbol.

    Arrays are [S], aligned with `symbols`; weights are fractions of `equity` (at D's close), `closes` the prices of D,
    `cash` in currency (default: what the weights leave of equity). Below 0 a weight is a short position.

    - A weight equal to the present one, bit for bit, gives no order; nor does a symbol without a usable close.
    - A target of 0 closes the position exactly, whatever its size, and a target on the other side of 0 closes it and
      opens the other in one order. Other sells never exceed what is held.
    - Buys include their proportional costs: cash plus the proceeds of the sells (net of costs) at reference prices
      covers them all; when it would not, every buy is scaled by the same factor.
    - Quantities are rounded down (`floor_quantity`); an order below `min_order_notional` (currency) is dropped.
    """
    order = sorted(range(len(symbols)), key=lambda s: symbols[s])
    now, target, prices, held = (
        np.array(np.asarray(values, dtype=np.float64)[order])
        for values in (weights_now, target_weights, closes, quantities_held)
    )
    there = equity * (1.0 - math.fsum(now.tolist())) if cash is None else cash
    rules = AccountRules(bool(fractional), True, float(min_order_notional))
    columns, amounts = orders.plan(now, target, prices, held, float(equity), float(there), costs.rates, rules)
    planned = [
        PlannedOrder(
            symbols[order[s]], Side.BUY if amount > 0 else Side.SELL, abs(float(amount)), float(closes[order[s]])
        )
        for s, amount in zip(columns.tolist(), amounts.tolist(), strict=True)
    ]
    return (*(o for o in planned if o.side is Side.SELL), *(o for o in planned if o.side is Side.BUY))
