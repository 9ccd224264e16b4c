"""From target weights to orders."""

from __future__ import annotations

import numpy as np

from trading_core.costs import CostRates
from trading_core.portfolio.kernels.account import floor_quantity, usable
from trading_core.portfolio.kernels.compiled import compiled
from trading_core.portfolio.kernels.types import AccountRules
from trading_core.schema import FloatArray, IntArray


@compiled
def _sale(held: float, now: float, target: float, equity: float, price: float, fractional: bool) -> float:
    """Shares to sell to go from weight `now` down to `target`; a target of 0 sells the position exactly."""
    if target == 0.0:
        return held
    if target < 0.0 < held:
        return held + floor_quantity(-target * equity / price, fractional)
    quantity = floor_quantity((now - target) * equity / price, fractional)
    return min(quantity, held) if held > 0.0 else quantity


@compiled
def plan(
    weights: FloatArray,
    target: FloatArray,
    closes: FloatArray,
    quantities: FloatArray,
    equity: float,
    cash: float,
    rates: CostRates,
    rules: AccountRules,
) -> tuple[IntArray, FloatArray]:
    """Columns and signed quantities of the orders that move `weights` to `target`, by column; see `planner.plan`."""
    count = len(target)
    columns, amounts = np.empty(count, np.int64), np.empty(count)
    n, need = 0, 0.0
    for s in range(count):
        if target[s] == weights[s] or not usable(closes[s]):
            continue
        price, held = closes[s], quantities[s]
        if target[s] > weights[s]:
            # A purchase: what covers a short is exact, what goes beyond is the cash wanted for it.
            cover = -held if held < 0.0 and target[s] >= 0.0 else 0.0
            wanted = (target[s] - (0.0 if cover > 0.0 else weights[s])) * equity
            need += cover * price * rates.buy + wanted
            columns[n], amounts[n] = s, 0.0
            n += 1
            continue
        quantity = _sale(held, weights[s], target[s], equity, price, rules.fractional)
        small = target[s] != 0.0 and quantity * price < rules.min_order_notional
        if quantity > 0.0 and not small:
            columns[n], amounts[n] = s, -quantity
            cash += quantity * price * rates.sell
            n += 1
    scale = min(1.0, max(cash, 0.0) / need) if need > 0.0 else 0.0
    kept = 0
    for i in range(n):
        s = columns[i]
        quantity = amounts[i]
        if quantity == 0.0:
            price, held = closes[s], quantities[s]
            cover = -held if held < 0.0 and target[s] >= 0.0 else 0.0
            wanted = (target[s] - (0.0 if cover > 0.0 else weights[s])) * equity
            if scale == 1.0:
                quantity = cover + floor_quantity(wanted / (price * rates.buy), rules.fractional)
            else:
                quantity = floor_quantity(scale * (cover + wanted / (price * rates.buy)), rules.fractional)
            if quantity <= 0.0 or (quantity * price < rules.min_order_notional and target[s] != 0.0):
                continue
        columns[kept], amounts[kept] = s, quantity
        kept += 1
    return columns[:kept], amounts[:kept]
