"""Exponential averages whose smoothing changes from bar to bar."""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.schema import FloatArray

# Where the window's bars leave more weight than this to the bars before it, the average is not known exactly enough.
_UNKNOWN_WEIGHT = 1e-6


@compiled
def _join(
    keep: FloatArray, value: FloatArray, old_keep: FloatArray, old_value: FloatArray, bars: int, out: FloatArray
) -> None:
    """out[:, t] = the map of the block at t after that of the block `bars` bars earlier; before the first bar: none."""
    for t in range(min(bars, keep.shape[0])):
        out[0, t] = keep[t]
        out[1, t] = value[t]
    for t in range(bars, keep.shape[0]):
        out[0, t] = keep[t] * old_keep[t - bars]
        out[1, t] = value[t] + keep[t] * old_value[t - bars]


@compiled
def adaptive_mean(x: FloatArray, rate: FloatArray, window: int) -> FloatArray:
    """y[t] = y[t-1] + rate[t] (x[t] - y[t-1]) over the last `window` bars, whatever y was before them. [S, R] each.

    Each bar is a map y -> keep y + value; maps are joined by the tree of `windows`. The weights of the window's bars sum
    to 1 - K, K the product of their 1 - rate, and are scaled to 1; NaN where K exceeds 1e-6: there the endless recursion
    still hangs on older bars. A bar without x or rate is passed over, its own value is NaN.
    """
    out = np.empty_like(x)
    rows = x.shape[1]
    block, spare = np.empty((2, rows)), np.empty((2, rows))
    total, other = np.empty((2, rows)), np.empty((2, rows))
    for s in range(x.shape[0]):
        for t in range(rows):
            here = x[s, t] == x[s, t] and rate[s, t] == rate[s, t]
            block[0, t] = 1.0 - rate[s, t] if here else 1.0
            block[1, t] = rate[s, t] * x[s, t] if here else 0.0
        size, covered = 1, 0
        while True:
            if window & size:
                if covered == 0:
                    total[:] = block
                else:
                    _join(total[0], total[1], block[0], block[1], covered, other)
                    total, other = other, total
                covered += size
            if 2 * size > window:
                break
            _join(block[0], block[1], block[0], block[1], size, spare)
            block, spare = spare, block
            size *= 2
        for t in range(rows):
            known = total[0, t] <= _UNKNOWN_WEIGHT and x[s, t] == x[s, t] and rate[s, t] == rate[s, t]
            out[s, t] = total[1, t] / (1.0 - total[0, t]) if known else np.nan
    return out
