"""The one rule by which orders fill."""

from __future__ import annotations

import math

import numpy as np

from trading_core.costs import CostRates
from trading_core.portfolio.kernels.account import floor_quantity, usable
from trading_core.portfolio.kernels.compiled import compiled
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
from trading_core.schema import FloatArray, IntArray


@compiled
def execution_price(price: float, quantity: float, sigma: float, adv: float, rates: CostRates) -> float:
    """The price of a signed quantity: half spread, slippage and the square-root impact move it against the order."""
    away = rates.concession
    if rates.impact > 0.0:
        away += rates.impact * sigma * math.sqrt(abs(quantity) / adv)
    return price * (1.0 + away) if quantity > 0.0 else price * (1.0 - min(away, 1.0))


@compiled
def _buy_all(
    scale: float,
    columns: IntArray,
    wanted: FloatArray,
    prices: FloatArray,
    sigma: FloatArray,
    adv: FloatArray,
    cash: float,
    rates: CostRates,
    fractional: bool,
    filled: FloatArray,
    paid: FloatArray,
) -> float:
    """Fills every purchase at `scale` of what is wanted; returns the cash that would be left (below 0: too much)."""
    for i in range(len(columns)):
        if wanted[i] > 0.0:
            filled[i] = wanted[i] if scale == 1.0 else floor_quantity(wanted[i] * scale, fractional)
            if filled[i] > 0.0:
                paid[i] = execution_price(prices[i], filled[i], sigma[i], adv[i], rates)
                cash -= filled[i] * paid[i] + filled[i] * paid[i] * rates.commission
    return cash


@compiled
def fill(
    columns: IntArray,
    amounts: FloatArray,
    prices: FloatArray,
    volumes: FloatArray,
    sigma: FloatArray,
    adv: FloatArray,
    quantities: FloatArray,
    cash: float,
    rates: CostRates,
    rules: AccountRules,
    paid: FloatArray,
    flags: IntArray,
) -> tuple[FloatArray, float]:
    """Fills orders [N] at the prices of T: sales first, then purchases with the cash there; see `auction.fill_open`.

    volumes: shares traded in T; sigma, adv: as known at D. Changes `quantities`, writes prices and flags; returns the
    signed quantities filled and the cash.
    """
    filled, wanted = np.zeros(len(columns)), amounts.copy()
    for i in range(len(columns)):
        cap = (
            floor_quantity(rates.participation * volumes[i], rules.fractional)
            if rates.participation < math.inf
            else math.inf
        )
        if not usable(prices[i]):
            flags[i], wanted[i] = NO_TRADE, 0.0
        elif rates.impact > 0.0 and not (adv[i] > 0.0 and math.isfinite(sigma[i])):
            flags[i], wanted[i] = NO_LIQUIDITY, 0.0
        elif not abs(wanted[i]) <= cap:
            flags[i], wanted[i] = VOLUME_CAP, math.copysign(cap if cap > 0.0 else 0.0, wanted[i])
    for i in range(len(columns)):
        if wanted[i] < 0.0:
            size, held = -wanted[i], quantities[columns[i]]
            if size > held and not rules.short:
                flags[i] |= PART_HELD if held > 0.0 else NOTHING_HELD
                size = max(held, 0.0)
            if size > 0.0:
                filled[i] = -size
                paid[i] = execution_price(prices[i], -size, sigma[i], adv[i], rates)
                quantities[columns[i]] = held - size
                cash += size * paid[i] - size * paid[i] * rates.commission
    after = _buy_all(1.0, columns, wanted, prices, sigma, adv, cash, rates, rules.fractional, filled, paid)
    if after < 0.0:
        scale = max(cash, 0.0) / (cash - after)
        after = _buy_all(scale, columns, wanted, prices, sigma, adv, cash, rates, rules.fractional, filled, paid)
        while after < 0.0 and scale > 0.0:  # float noise of the division or the sum: a hair less
            scale = scale * (1.0 - 1e-9) if scale > 1e-12 else 0.0
            after = _buy_all(scale, columns, wanted, prices, sigma, adv, cash, rates, rules.fractional, filled, paid)
        for i in range(len(columns)):
            if wanted[i] > 0.0:
                flags[i] |= SHRUNK if filled[i] > 0.0 else NO_CASH
    for i in range(len(columns)):
        if filled[i] > 0.0:
            quantities[columns[i]] += filled[i]
    return filled, after
