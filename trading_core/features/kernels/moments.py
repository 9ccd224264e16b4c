"""Central moments of the last bars, joined block by block. NaN if one of the bars is missing.

Two blocks of n_a and n_b values with means a, b join to the mean a + d n_b / n (d = b - a) and to central sums that need no
difference of large numbers, so that equal values have a deviation of exactly 0.
Reference: Chan, Golub and LeVeque (1983); Pebay (2008), Formulas for robust, one-pass parallel computation of covariances
and arbitrary-order statistical moments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.features.kernels.lags import ratio
from trading_core.schema import FloatArray


@compiled
def _join_two(
    a: tuple[FloatArray, FloatArray],
    b: tuple[FloatArray, FloatArray],
    na: int,
    nb: int,
    out: tuple[FloatArray, FloatArray],
) -> None:
    """out[t] = mean and squared distances of a's na bars up to t and b's nb bars before those. Each [R]."""
    n = float(na + nb)
    share, cross = nb / n, na * (nb / n)
    rows = a[0].shape[0]
    for t in range(min(na, rows)):
        out[0][t] = np.nan
        out[1][t] = np.nan
    for t in range(na, rows):
        d = b[0][t - na] - a[0][t]
        out[0][t] = a[0][t] + d * share
        out[1][t] = a[1][t] + b[1][t - na] + d * d * cross


@compiled
def _mean_squares(x: FloatArray, window: int) -> tuple[FloatArray, FloatArray]:
    """Mean, and sum of squared distances to it, of the last `window` bars. [S, R] each."""
    mean, squares = np.empty_like(x), np.empty_like(x)
    rows = x.shape[1]
    block, spare = (np.empty(rows), np.empty(rows)), (np.empty(rows), np.empty(rows))
    total, other = (np.empty(rows), np.empty(rows)), (np.empty(rows), np.empty(rows))
    for s in range(x.shape[0]):
        block[0][:] = x[s]
        block[1][:] = x[s] - x[s]  # 0, NaN where missing
        size, covered = 1, 0
        while True:
            if window & size:
                if covered == 0:
                    total[0][:] = block[0]
                    total[1][:] = block[1]
                else:
                    _join_two(total, block, covered, size, other)
                    total, other = other, total
                covered += size
            if 2 * size > window:
                break
            _join_two(block, block, size, size, spare)
            block, spare = spare, block
            size *= 2
        mean[s] = total[0]
        squares[s] = total[1]
    return mean, squares


def rolling_mean_std(x: FloatArray, window: int, ddof: int) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation (divisor window - ddof) of the last `window` bars."""
    mean, squares = _mean_squares(x, window)
    return mean, np.sqrt(squares / (window - ddof))


def rolling_std(x: FloatArray, window: int, ddof: int = 1) -> FloatArray:
    """Standard deviation of the last `window` bars (sample, unless ddof says otherwise)."""
    return rolling_mean_std(x, window, ddof)[1]


@compiled
def _higher(x: FloatArray, window: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sums of the 2nd, 3rd and 4th power of the distances to the mean of the last `window` bars. [S, R] each.

    Two passes over the window: the distances are taken to the exact mean.
    """
    mean, second = _mean_squares(x, window)
    third, fourth = np.zeros_like(x), np.zeros_like(x)
    rows = x.shape[1]
    edge = min(window - 1, rows)
    for s in range(x.shape[0]):
        third[s, :edge] = np.nan
        fourth[s, :edge] = np.nan
        for lag in range(window):
            for t in range(edge, rows):
                d = x[s, t - lag] - mean[s, t]
                third[s, t] += d * d * d
                fourth[s, t] += (d * d) * (d * d)
    return second, third, fourth


def rolling_skew_kurtosis(x: FloatArray, window: int) -> tuple[FloatArray, FloatArray]:
    """Skewness m3 / m2^1.5 and excess kurtosis m4 / m2^2 - 3 of the last `window` bars; NaN where all are equal.

    Population moments, as scipy.stats.skew and scipy.stats.kurtosis.
    """
    second, third, fourth = _higher(x, window)
    variance = second / window
    skew = ratio(third / window, variance * np.sqrt(variance))
    return skew, ratio(fourth / window, variance * variance) - 3.0


def rolling_skew(x: FloatArray, window: int) -> FloatArray:
    """Skewness alone; see `rolling_skew_kurtosis`."""
    return rolling_skew_kurtosis(x, window)[0]


def rolling_kurtosis(x: FloatArray, window: int) -> FloatArray:
    """Excess kurtosis alone; see `rolling_skew_kurtosis`."""
    return rolling_skew_kurtosis(x, window)[1]


@dataclass(frozen=True, slots=True)
class Comoments:
    """Means and central sums of two series over the same window, [S, R] each."""

    mean_x: FloatArray
    mean_y: FloatArray
    xx: FloatArray  # sum of (x - mean_x)^2
    yy: FloatArray
    xy: FloatArray  # sum of (x - mean_x) (y - mean_y)


def rolling_comoments(x: FloatArray, y: FloatArray, window: int) -> Comoments:
    """The joint moments of x and y over the last `window` bars: slope of y on x = xy / xx, R2 = xy^2 / (xx yy)."""
    mean_x, xx = _mean_squares(x, window)
    mean_y, yy = _mean_squares(y, window)
    return Comoments(mean_x, mean_y, xx, yy, _cross(x, y, mean_x, mean_y, window))


@compiled
def _cross(x: FloatArray, y: FloatArray, mean_x: FloatArray, mean_y: FloatArray, window: int) -> FloatArray:
    """Sum of (x - mean_x) (y - mean_y) over the last `window` bars, distances to the means at t."""
    out = np.zeros_like(x)
    rows = x.shape[1]
    edge = min(window - 1, rows)
    for s in range(x.shape[0]):
        out[s, :edge] = np.nan
        for lag in range(window):
            for t in range(edge, rows):
                out[s, t] += (x[s, t - lag] - mean_x[s, t]) * (y[s, t - lag] - mean_y[s, t])
    return out
