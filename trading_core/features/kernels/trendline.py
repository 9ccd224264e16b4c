"""Least-squares lines through the last bars, joined block by block as the moments are. NaN if one of the bars is missing."""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.features.kernels.lags import ratio
from trading_core.schema import FloatArray


@compiled
def _join(a: FloatArray, b: FloatArray, na: int, nb: int, out: FloatArray) -> None:
    """out[:, t] = mean, squares and cross of a's na bars up to t and b's nb bars before those. [3, R] each.

    Squares: sum of (x - mean)^2. Cross: sum of (x - mean) (time - mean time), one unit of time per bar. The mean times of
    two adjoining blocks lie (na + nb) / 2 apart, so with d the distance of the means the cross grows by d na nb / 2.
    """
    share = nb / (na + nb)
    for t in range(min(na, a.shape[1])):
        out[0, t] = np.nan
        out[1, t] = np.nan
        out[2, t] = np.nan
    for t in range(na, a.shape[1]):
        d = a[0, t] - b[0, t - na]
        out[0, t] = a[0, t] - d * share
        out[1, t] = a[1, t] + b[1, t - na] + d * d * (na * share)
        out[2, t] = a[2, t] + b[2, t - na] + d * (0.5 * na * nb)


@compiled
def _time_moments(x: FloatArray, window: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, squares and cross (see `_join`) of the last `window` bars. [S, R] each."""
    mean, squares, cross = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    rows = x.shape[1]
    block, spare = np.empty((3, rows)), np.empty((3, rows))
    total, other = np.empty((3, rows)), np.empty((3, rows))
    for s in range(x.shape[0]):
        block[0] = x[s]
        block[1] = x[s] - x[s]  # 0, NaN where missing
        block[2] = block[1]
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
        mean[s], squares[s], cross[s] = total[0], total[1], total[2]
    return mean, squares, cross


def rolling_trend(x: FloatArray, window: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Least-squares line through the last `window` bars: slope per bar, its value at t, R2 (NaN where all are equal)."""
    mean, squares, cross = _time_moments(x, window)
    times = window * (window * window - 1) / 12.0  # sum of squared distances of 0 .. window-1 to their mean
    slope = cross / times
    return slope, mean + slope * (0.5 * (window - 1)), ratio(cross * cross, times * squares)
