"""Window kernels: the arithmetic that every feature is made of.

An array holds one symbol per row and its bars, oldest first, along the last axis: [S, R] float64, NaN = missing.

The same bar must give the same bits whether it is computed alone, in a month or in ten years. So the value at t is
always a function of exactly the last `window` bars, reached by a fixed tree of element-wise operations: never a running
sum (what was added and taken away leaves its rounding behind, so the result depends on where the frame began) and never
a library reduction, whose order of summation follows the memory layout. A window of L takes about 2 log2(L) passes:
the sums over 1, 2, 4 ... bars are joined to the sum over L.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from trading_core.schema import FloatArray, IntArray

# A truncated exponential average leaves out this share of its weight at most.
TRUNCATED_WEIGHT = 1e-7


def shift(x: FloatArray, bars: int, fill: float = np.nan) -> FloatArray:
    """x of `bars` bars ago, `fill` where there is none. [S, R] -> [S, R]"""
    if bars == 0:
        return x
    out = np.full_like(x, fill)
    out[:, bars:] = x[:, :-bars]
    return out


def diff(x: FloatArray, bars: int = 1) -> FloatArray:
    """x minus x of `bars` bars ago; NaN in the first `bars` bars."""
    return x - shift(x, bars)


def ratio(numerator: FloatArray, denominator: FloatArray, undefined: float = np.nan) -> FloatArray:
    """numerator / denominator, `undefined` where the denominator is 0 and both are present. Never infinite."""
    zero = denominator == 0.0
    out = numerator / np.where(zero, 1.0, denominator)
    out[zero & ~np.isnan(numerator)] = undefined
    out[np.isinf(out)] = np.nan
    return out


def change(x: FloatArray, bars: int) -> FloatArray:
    """Simple return over `bars` bars, x[t] / x[t - bars] - 1."""
    return ratio(x, shift(x, bars)) - 1.0


def log(x: FloatArray) -> FloatArray:
    """Natural logarithm; NaN where x is not positive."""
    # Contiguous, so that numpy takes the same code path for one bar as for a thousand.
    return np.log(np.ascontiguousarray(np.where(x > 0.0, x, np.nan)))


def rolling_sum(x: FloatArray, window: int) -> FloatArray:
    """Sum of the last `window` bars; NaN if one of them is missing."""
    return _over_window(x, window, lambda late, early, _: late + early, np.nan)


def rolling_mean(x: FloatArray, window: int) -> FloatArray:
    """Mean of the last `window` bars; NaN if one of them is missing."""
    return rolling_sum(x, window) / window


def rolling_max(x: FloatArray, window: int) -> FloatArray:
    """Largest of the last `window` bars; NaN if one of them is missing."""
    return _over_window(x, window, lambda late, early, _: np.maximum(late, early), np.nan)


def rolling_min(x: FloatArray, window: int) -> FloatArray:
    """Smallest of the last `window` bars; NaN if one of them is missing."""
    return _over_window(x, window, lambda late, early, _: np.minimum(late, early), np.nan)


def rolling_mean_std(x: FloatArray, window: int, ddof: int) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation (divisor window - ddof) of the last `window` bars; NaN if one of them is missing.

    The moments are taken of the distances to x[t], so equal values give exactly that mean and a deviation of exactly 0.
    """
    first, second = np.zeros_like(x), np.zeros_like(x)
    for lag in range(1, window):
        distance = x[:, :-lag] - x[:, lag:]
        first[:, lag:] += distance
        distance *= distance
        second[:, lag:] += distance
    variance = (second - first * first / window) / (window - ddof)
    first[:, : window - 1] = np.nan
    variance[:, : window - 1] = np.nan
    return x + first / window, np.sqrt(np.maximum(variance, 0.0))


def rolling_std(x: FloatArray, window: int, ddof: int = 1) -> FloatArray:
    """Standard deviation of the last `window` bars (sample, unless ddof says otherwise)."""
    return rolling_mean_std(x, window, ddof)[1]


def ewm_window(decay: float) -> int:
    """Bars after which the weights decay^k, k = 0, 1 ..., have all but TRUNCATED_WEIGHT of their sum."""
    return math.ceil(math.log(TRUNCATED_WEIGHT) / math.log(decay))


def ewm_mean(x: FloatArray, decay: float, min_bars: int) -> FloatArray:
    """Exponential average: sum of decay^k x[t-k] over sum of decay^k, k < ewm_window(decay), over the bars present.

    NaN where x[t] is missing or fewer than `min_bars` bars of the window are present. A span of n (EMA) is the decay
    (n - 1) / (n + 1), Wilder's smoothing over n is (n - 1) / n. Both definitions start from a seed and never forget it
    completely; here it is forgotten after the window, so the value does not depend on where history begins.
    """
    window = ewm_window(decay)
    present = ~np.isnan(x)
    weighted = _geometric_sum(np.where(present, x, 0.0), decay, window)
    weight = _geometric_sum(present.astype(np.float64), decay, window)
    enough = _over_window(present.astype(np.float64), window, lambda late, early, _: late + early, 0.0) >= min_bars
    return np.where(enough & present, weighted / np.where(weight > 0.0, weight, 1.0), np.nan)


def _geometric_sum(x: FloatArray, decay: float, window: int) -> FloatArray:
    return _over_window(x, window, lambda late, early, lag: late + decay**lag * early, 0.0)


def _over_window(
    x: FloatArray, window: int, join: Callable[[FloatArray, FloatArray, int], FloatArray], fill: float
) -> FloatArray:
    """Reduces the last `window` bars: `join(late, early, lag)` joins a block with one that ends `lag` bars earlier."""
    block, size = x, 1  # `block` reduces the last `size` bars
    out, covered = x, 0  # `out` reduces the last `covered` bars
    while True:
        if window & size:
            out = join(out, shift(block, covered, fill), covered) if covered else block
            covered += size
        if 2 * size > window:
            return out
        block = join(block, shift(block, size, fill), size)
        size *= 2


# --- across symbols: flat arrays ordered by (group, symbol); a group is one bar of the market -------------------------


def rank_across(values: FloatArray, group: IntArray) -> FloatArray:
    """Rank within the group, from -0.5 (lowest) to 0.5; ties share their average rank, a lone member is at 0.

    Ties are what is equal as float32, the precision of a stored feature: rounding in float64 is no order. What is not
    finite is NaN and does not count.
    """
    values32 = values.astype(np.float32)
    values32[np.isinf(values32)] = np.nan
    out = np.full(len(values), np.nan)
    order = np.lexsort((values32, group))
    order = order[~np.isnan(values32[order])]
    if not len(order):
        return out
    v, g = values32[order], group[order]
    new_group = np.concatenate(([True], g[1:] != g[:-1]))
    new_tie = new_group | np.concatenate(([True], v[1:] != v[:-1]))
    first, last = _runs(new_tie)
    group_first, group_last = _runs(new_group)
    span = group_last - group_first
    position = (first + last) / 2.0 - group_first
    out[order] = np.where(span > 0, position / np.maximum(span, 1), 0.5) - 0.5
    return out


def mean_across(values: FloatArray, group: IntArray) -> FloatArray:
    """Equal-weight mean of the group's finite values, at every member. NaN where there is none."""
    present = np.isfinite(values)
    size = int(group.max()) + 1 if len(group) else 0
    # bincount adds one element after the other, in the order given: by symbol.
    total = np.bincount(group[present], weights=values[present], minlength=size).astype(np.float64)
    count = np.bincount(group[present], minlength=size).astype(np.float64)
    return ratio(total, count)[group]


def excess_across(values: FloatArray, group: IntArray) -> FloatArray:
    """Value minus the group's mean."""
    return values - mean_across(values, group)


def _runs(starts: np.ndarray) -> tuple[IntArray, IntArray]:
    """First and last index of the run that each element belongs to, given where runs start."""
    index = np.flatnonzero(starts)
    run = np.cumsum(starts) - 1
    return index[run], np.append(index[1:], len(starts))[run] - 1
