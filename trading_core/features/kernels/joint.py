"""Two series over the same window, and what a path loses within it. NaN if one of the bars is missing."""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.schema import FloatArray

_MEAN_X, _MEAN_Y, _XX, _YY, _XY = range(5)


@compiled
def rolling_joint(x: FloatArray, y: FloatArray, window: int) -> FloatArray:
    """Central sums of x and y over the last `window` bars: of squares of x, of y, and of products. -> [3, S, R]

    Slope of y on x = out[2] / out[0]. Blocks of 1, 2, 4 ... bars are joined as in `moments`, so that a window of L costs
    2 log2(L) passes (`rolling_comoments` takes L; it also gives the means).
    """
    out = np.empty((3, x.shape[0], x.shape[1]))
    rows = x.shape[1]
    block, spare = np.empty((5, rows)), np.empty((5, rows))
    total, other = np.empty((5, rows)), np.empty((5, rows))
    for s in range(x.shape[0]):
        _alone(x[s], y[s], block)
        size, covered = 1, 0
        while True:
            if window & size:
                if covered == 0:
                    total[:] = block
                else:
                    _join(total, block, covered, size, other)
                    total, other = other, total
                covered += size
            if 2 * size > window:
                break
            _join(block, block, size, size, spare)
            block, spare = spare, block
            size *= 2
        out[0, s] = total[_XX]
        out[1, s] = total[_YY]
        out[2, s] = total[_XY]
    return out


@compiled
def _alone(x: FloatArray, y: FloatArray, block: FloatArray) -> None:
    """block[t]: the bar t alone. Its sums are 0, or NaN where x or y is missing. x, y: [R]"""
    for t in range(x.shape[0]):
        nothing = (x[t] - x[t]) + (y[t] - y[t])
        block[_MEAN_X, t] = x[t]
        block[_MEAN_Y, t] = y[t]
        block[_XX, t] = nothing
        block[_YY, t] = nothing
        block[_XY, t] = nothing


@compiled
def _join(a: FloatArray, b: FloatArray, na: int, nb: int, out: FloatArray) -> None:
    """out[t] = means and central sums of a's na bars up to t and b's nb bars before those. Each [5, R]."""
    n = float(na + nb)
    share, cross = nb / n, na * (nb / n)
    rows = a.shape[1]
    out[:, : min(na, rows)] = np.nan
    for t in range(na, rows):
        dx = b[_MEAN_X, t - na] - a[_MEAN_X, t]
        dy = b[_MEAN_Y, t - na] - a[_MEAN_Y, t]
        out[_MEAN_X, t] = a[_MEAN_X, t] + dx * share
        out[_MEAN_Y, t] = a[_MEAN_Y, t] + dy * share
        out[_XX, t] = a[_XX, t] + b[_XX, t - na] + dx * dx * cross
        out[_YY, t] = a[_YY, t] + b[_YY, t - na] + dy * dy * cross
        out[_XY, t] = a[_XY, t] + b[_XY, t - na] + dx * dy * cross


@compiled
def lowest_tail_sum(x: FloatArray, window: int) -> FloatArray:
    """Smallest of 0 and the sums of the last 1, 2 ... `window` bars: how far a path with steps x lies below its highest
    point of the last `window` + 1, at most 0."""
    out = np.empty_like(x)
    edge = min(window - 1, x.shape[1])
    for s in range(x.shape[0]):
        out[s, :edge] = np.nan
        for t in range(edge, x.shape[1]):
            total, lowest = 0.0, 0.0
            for lag in range(window):
                total += x[s, t - lag]
                lowest = min(lowest, total)
            out[s, t] = lowest + (total - total)  # NaN where a bar is missing
    return out
