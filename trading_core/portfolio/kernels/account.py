"""What an account is worth, and what happens to it from D's close to T's open."""

from __future__ import annotations

import math

import numpy as np

from trading_core.costs import CostRates
from trading_core.portfolio.kernels.compiled import compiled
from trading_core.portfolio.kernels.types import DELISTING, SPLIT
from trading_core.schema import FloatArray


@compiled
def floor_quantity(quantity: float, fractional: bool) -> float:
    """Rounded down to 1e-6 shares or whole ones; a miss of a millionth of a step by float noise counts as none."""
    scale = 1e6 if fractional else 1.0
    return float(np.floor(quantity * scale + 1e-6) / scale)  # math.floor would overflow int64 above 9e12 shares


@compiled
def value(quantities: FloatArray, marks: FloatArray, cash: float, weights: FloatArray) -> float:
    """Equity = cash + positions at `marks`; fills `weights` with fractions of it (zeros where equity is not above 0)."""
    equity = cash
    weights[:] = 0.0
    for s in range(len(quantities)):
        if quantities[s] != 0.0:
            weights[s] = quantities[s] * marks[s]
            equity += weights[s]
    for s in range(len(quantities)):
        if weights[s] != 0.0:
            weights[s] = weights[s] / equity if equity > 0.0 else 0.0
    return equity


@compiled
def usable(price: float) -> bool:
    return math.isfinite(price) and price > 0.0


@compiled
def accrue(
    quantities: FloatArray, marks: FloatArray, cash: float, years: float, rates: CostRates
) -> tuple[float, float]:
    """Interest on the cash and the fee for borrowed shares over `years`, in currency; neither is negative."""
    lent = 0.0
    if rates.borrow > 0.0:
        for s in range(len(quantities)):
            if quantities[s] < 0.0:
                lent -= quantities[s] * marks[s]
    return max(cash, 0.0) * rates.interest * years, lent * rates.borrow * years


@compiled
def apply_action(quantities: FloatArray, column: int, kind: int, amount: float) -> float:
    """One corporate action on the quantities held, in place; returns the cash it pays (below 0: a short owes it)."""
    if kind == SPLIT:
        quantities[column] *= amount
        return 0.0
    paid = quantities[column] * amount
    if kind == DELISTING:
        quantities[column] = 0.0
    return paid
