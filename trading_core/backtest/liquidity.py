"""How volatile and how much traded a symbol was: what the impact of an order is priced by."""

from __future__ import annotations

import numpy as np

from trading_core.costs import LIQUIDITY_SESSIONS
from trading_core.schema import FloatArray

MIN_RETURNS = 5  # fewer say nothing of a volatility


def liquidity(
    closes: FloatArray, volumes: FloatArray, split_factor: FloatArray, window: int = LIQUIDITY_SESSIONS
) -> tuple[FloatArray, FloatArray]:
    """Volatility of a session's log return and average volume over the last `window` sessions, both [T, S].

    closes, volumes: [T, S] as traded; split_factor: [T, S] product of the split ratios up to t. Row t uses rows up to t
    alone, sums them oldest first and skips what has no bar, so that a history cut off before them has the same bits.
    Volumes are in the basis of t. NaN with fewer than 5 returns, or no volume. The volatility is about a mean of zero.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        adjusted = np.log(closes * split_factor)
        squares = np.diff(adjusted, axis=0, prepend=np.nan) ** 2
        basis_free = volumes / split_factor
    sigma, count = _windowed_mean(squares, window)
    adv, _ = _windowed_mean(basis_free, window)
    return np.where(count >= MIN_RETURNS, np.sqrt(sigma), np.nan), adv * split_factor


def _windowed_mean(values: FloatArray, window: int) -> tuple[FloatArray, FloatArray]:
    """Mean of the finite ones of the last `window` rows, and how many they are."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    total, count = np.zeros_like(values), np.zeros_like(values)
    for age in range(min(window, len(values)) - 1, -1, -1):
        total[age:] += filled[: len(values) - age]
        count[age:] += known[: len(values) - age]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), count
