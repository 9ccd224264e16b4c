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
from trading_core.schema import FloatArray, Side

QUANTITY_DECIMALS = 6  # fractional quantities are multiples of 1e-6 shares


@dataclass(frozen=True, slots=True)
class PlannedOrder:
    """A market order for the next open: `quantity` shares, positive; `reference_price`: the close it was sized with."""

    symbol: str
    side: Side
    quantity: float
    reference_price: float


def floor_quantity(quantity: float, fractional: bool) -> float:
    """`quantity` rounded down to a multiple of 1e-6 shares, or to whole shares.

    A value that misses a multiple by float noise (a millionth of a step) counts as that multiple: 0.29 stays 0.29.
    """
    scale = 10.0**QUANTITY_DECIMALS if fractional else 1.0
    return math.floor(quantity * scale + 1e-6) / scale


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
) -> tuple[PlannedOrder, ...]:
    """Orders that move `weights_now` to `target_weights`: sells by symbol, then buys by symbol.

    Arrays are [S], aligned with `symbols`; weights are fractions of `equity` (at D's close), `closes` the prices of D.

    - A weight equal to the present one, bit for bit, gives no order; nor does a symbol without a usable close.
    - A target of 0 sells the entire quantity exactly, whatever its size. Other sells never exceed what is held.
    - Buys include their costs: cash at reference prices plus the proceeds of the sells (net of costs) covers them all;
      when it would not, every buy is scaled by the same factor.
    - Quantities are rounded down (`floor_quantity`); an order below `min_order_notional` (currency) is dropped.
    """
    order = sorted(range(len(symbols)), key=lambda s: symbols[s])
    priced = np.isfinite(closes) & (closes > 0)
    changed = [s for s in order if priced[s] and target_weights[s] != weights_now[s]]
    sells: list[PlannedOrder] = []
    proceeds = 0.0
    for s in changed:
        held, price = float(quantities_held[s]), float(closes[s])
        if target_weights[s] > weights_now[s] or held <= 0:
            continue
        quantity = held
        if target_weights[s] > 0:
            quantity = floor_quantity((weights_now[s] - target_weights[s]) * equity / price, fractional)
            quantity = min(quantity, held)
            if quantity <= 0 or quantity * price < min_order_notional:
                continue
        sells.append(PlannedOrder(symbols[s], Side.SELL, quantity, price))
        proceeds += quantity * costs.cash_per_share(Side.SELL, price)
    wanted = [
        (s, float(target_weights[s] - weights_now[s]) * equity) for s in changed if target_weights[s] > weights_now[s]
    ]
    cash = equity * (1.0 - math.fsum(weights_now.tolist())) + proceeds
    return (*sells, *_buys(symbols, wanted, closes, cash, costs, fractional, min_order_notional))


def _buys(
    symbols: Sequence[str],
    wanted: Sequence[tuple[int, float]],
    closes: FloatArray,
    cash: float,
    costs: CostModel,
    fractional: bool,
    min_order_notional: float,
) -> list[PlannedOrder]:
    """Buys that cost the cash wanted for each, commission and slippage included, scaled down to the `cash` there is."""
    need = math.fsum(amount for _, amount in wanted)
    scale = min(1.0, max(cash, 0.0) / need) if need > 0 else 0.0
    buys = []
    for s, amount in wanted:
        price = float(closes[s])
        quantity = floor_quantity(amount * scale / costs.cash_per_share(Side.BUY, price), fractional)
        if quantity > 0 and quantity * price >= min_order_notional:
            buys.append(PlannedOrder(symbols[s], Side.BUY, quantity, price))
    return buys
