"""Exponential averages that forget: the recursion of a textbook, truncated to a window."""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.schema import FloatArray

# A truncated exponential average leaves out this share of its weight at most.
TRUNCATED_WEIGHT = 1e-7


def ewm_window(decay: float, left_out: float | None = None) -> int:
    """Bars after which the weights decay^k, k = 0, 1 ..., have all but the share `left_out` of their sum.

    None: TRUNCATED_WEIGHT (read here and not as the default, so that fingerprints know its value).
    """
    return math.ceil(math.log(TRUNCATED_WEIGHT if left_out is None else left_out) / math.log(decay))


def ewm_mean(x: FloatArray, decay: float, min_bars: int, left_out: float | None = None) -> FloatArray:
    """Exponential average: sum of decay^k x[t-k] over sum of decay^k, k < ewm_window(decay, left_out), of bars present.

    NaN where x[t] is missing or fewer than `min_bars` bars of the window are present. A span of n (EMA) is the decay
    (n - 1) / (n + 1), Wilder's smoothing over n is (n - 1) / n. Both definitions start from a seed and never forget it
    completely; here it is forgotten after the window, so the value does not depend on where history begins. Series with
    heavy tails, such as squares, need a smaller `left_out` to be as close to the endless average.
    """
    return _ewm(x, decay, ewm_window(decay, left_out), min_bars)


@compiled
def _ewm(x: FloatArray, decay: float, window: int, min_bars: int) -> FloatArray:
    out = np.full_like(x, np.nan)
    rows = x.shape[1]
    present, value = np.ones(rows), np.empty(rows)
    total, weight, count = np.empty(rows), np.empty(rows), np.empty(rows)
    whole, block, spare = np.empty(rows), np.empty(rows), np.empty(rows)
    _geometric_sum(present, decay, window, whole, block, spare)  # the weight of 1, 2 ... bars without a hole
    for s in range(x.shape[0]):
        first, last, bars = rows, -1, 0
        for t in range(rows):
            here = x[s, t] == x[s, t]
            present[t] = 1.0 if here else 0.0
            value[t] = x[s, t] if here else 0.0
            first = min(first, t) if here else first
            last = t if here else last
            bars += 1 if here else 0
        _geometric_sum(value, decay, window, total, block, spare)
        if bars == last - first + 1:  # the usual row: the same bits without two more sums
            for t in range(first + min_bars - 1, last + 1):
                out[s, t] = total[t] / whole[t - first]
            continue
        _geometric_sum(present, decay, window, weight, block, spare)
        _geometric_sum(present, 1.0, window, count, block, spare)
        for t in range(rows):
            if present[t] > 0.0 and count[t] >= min_bars:
                out[s, t] = total[t] / weight[t]
    return out


@compiled
def _geometric_sum(
    x: FloatArray, decay: float, window: int, total: FloatArray, block: FloatArray, spare: FloatArray
) -> None:
    """total[t] = sum of decay^k x[t-k], k < window, 0 before the first bar. `block`, `spare`: room to work in. [R]"""
    rows = x.shape[0]
    block[:] = x
    size, covered = 1, 0
    while True:
        if window & size:
            if covered == 0:
                total[:] = block
            else:
                factor = decay**covered
                for t in range(covered, rows):
                    total[t] += factor * block[t - covered]
            covered += size
        if 2 * size > window:
            return
        factor = decay**size
        edge = min(size, rows)
        spare[:edge] = block[:edge]
        for t in range(edge, rows):
            spare[t] = block[t] + factor * block[t - size]
        block, spare = spare, block
        size *= 2
