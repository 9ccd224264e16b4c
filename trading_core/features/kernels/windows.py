"""Sums, means and extremes of the last bars. NaN if one of them is missing."""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.schema import FloatArray


@compiled
def rolling_sum(x: FloatArray, window: int) -> FloatArray:
    """Sum of the last `window` bars. [S, R] -> [S, R]"""
    out = np.empty_like(x)
    rows = x.shape[1]
    block, spare = np.empty(rows), np.empty(rows)
    for s in range(x.shape[0]):
        total = out[s]
        block[:] = x[s]  # block[t]: the sum of the `size` bars up to t
        size, covered = 1, 0  # total[t]: the sum of the `covered` bars up to t
        while True:
            if window & size:
                if covered == 0:
                    total[:] = block
                else:
                    edge = min(covered, rows)
                    total[:edge] = np.nan
                    for t in range(edge, rows):
                        total[t] += block[t - covered]
                covered += size
            if 2 * size > window:
                break
            edge = min(size, rows)
            spare[:edge] = np.nan
            for t in range(edge, rows):
                spare[t] = block[t] + block[t - size]
            block, spare = spare, block
            size *= 2
    return out


def rolling_mean(x: FloatArray, window: int) -> FloatArray:
    """Mean of the last `window` bars."""
    return rolling_sum(x, window) / window


@compiled
def rolling_max(x: FloatArray, window: int) -> FloatArray:
    """Largest of the last `window` bars."""
    out = np.empty_like(x)
    rows = x.shape[1]
    block, spare = np.empty(rows), np.empty(rows)
    for s in range(x.shape[0]):
        block[:] = x[s]
        size = 1
        while size < window:
            lag = min(size, window - size)  # the last join overlaps: a maximum does not mind
            edge = min(lag, rows)
            spare[:edge] = np.nan
            for t in range(edge, rows):
                late, early = block[t], block[t - lag]
                spare[t] = late if late > early or late != late else early
            block, spare = spare, block
            size += lag
        out[s] = block
    return out


def rolling_min(x: FloatArray, window: int) -> FloatArray:
    """Smallest of the last `window` bars."""
    return -rolling_max(-x, window)


@compiled
def weighted_mean(x: FloatArray, window: int) -> FloatArray:
    """Linearly weighted mean of the last `window` bars: weight `window` on the newest, 1 on the oldest (WMA)."""
    out = np.empty_like(x)
    rows = x.shape[1]
    total = np.empty(rows)
    for s in range(x.shape[0]):
        edge = min(window - 1, rows)
        total[:] = 0.0
        for lag in range(window):
            weight = float(window - lag)
            for t in range(edge, rows):
                total[t] += weight * x[s, t - lag]
        out[s, :edge] = np.nan
        for t in range(edge, rows):
            out[s, t] = total[t] / (0.5 * window * (window + 1))
    return out
