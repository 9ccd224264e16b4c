"""What depends on the order of the values in the window, or of the bars. NaN if one of the bars is missing."""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.features.kernels.windows import rolling_mean
from trading_core.schema import FloatArray


@compiled
def bars_since_max(x: FloatArray, window: int) -> FloatArray:
    """How many bars ago the largest of the last `window` bars was, 0 = now; the latest one when several are equal."""
    out = np.empty_like(x)
    rows = x.shape[1]
    edge = min(window - 1, rows)
    for s in range(x.shape[0]):
        out[s, :edge] = np.nan
        at = -1  # the bar of the maximum, found anew when it leaves the window
        for t in range(edge, rows):
            first = t - window + 1
            if at < first:
                at = first
                for i in range(first + 1, t + 1):
                    if not x[s, i] < x[s, at]:
                        at = i
            elif not x[s, t] < x[s, at]:
                at = t
            out[s, t] = t - at
    spoilt = np.isnan(_spread(x, window))
    return np.where(spoilt, np.nan, out)


@compiled
def _spread(x: FloatArray, window: int) -> FloatArray:
    """0 where the last `window` bars are all there, else NaN."""
    out = np.zeros_like(x)
    rows = x.shape[1]
    for s in range(x.shape[0]):
        gap = 0  # bars since the last missing one
        for t in range(rows):
            gap = 0 if x[s, t] != x[s, t] else gap + 1
            out[s, t] = 0.0 if gap >= window else np.nan
    return out


def bars_since_min(x: FloatArray, window: int) -> FloatArray:
    """How many bars ago the smallest of the last `window` bars was, 0 = now; the latest one when several are equal."""
    return bars_since_max(-x, window)


@compiled
def rolling_rank(x: FloatArray, window: int) -> FloatArray:
    """Where x[t] stands among the last `window` bars: 0 = lowest, 1 = highest, ties half. NaN if one is missing."""
    out = np.zeros_like(x)
    rows = x.shape[1]
    edge = min(window - 1, rows)
    spread = _spread(x, window)
    for s in range(x.shape[0]):
        for lag in range(1, window):
            for t in range(edge, rows):
                here, then = x[s, t], x[s, t - lag]
                # Without a branch, which a processor guesses wrong every other time: 2 where lower, 1 where equal.
                out[s, t] += (1.0 if then < here else 0.0) + (1.0 if then <= here else 0.0)
        for t in range(rows):
            out[s, t] = 0.5 * out[s, t] / (window - 1) + spread[s, t]
    return out


@compiled
def _mean_deviation(x: FloatArray, mean: FloatArray, window: int) -> FloatArray:
    out = np.zeros_like(x)
    rows = x.shape[1]
    edge = min(window - 1, rows)
    for s in range(x.shape[0]):
        out[s, :edge] = np.nan
        for lag in range(window):
            for t in range(edge, rows):
                out[s, t] += abs(x[s, t - lag] - mean[s, t])
        for t in range(edge, rows):
            out[s, t] /= window
    return out


def rolling_mean_deviation(x: FloatArray, window: int) -> FloatArray:
    """Mean absolute distance of the last `window` bars to their mean (the deviation of CCI)."""
    return _mean_deviation(x, rolling_mean(x, window), window)


@compiled
def streak(x: FloatArray, longest: int) -> FloatArray:
    """Length of the run of bars with x of one sign up to t, signed, cut at `longest`; 0 where x is 0, NaN where missing.

    x[t] at the bar's start of history counts as any other. Depends on the last `longest` bars only.
    """
    out = np.empty_like(x)
    for s in range(x.shape[0]):
        run = 0
        for t in range(x.shape[1]):
            sign = 1 if x[s, t] > 0.0 else (-1 if x[s, t] < 0.0 else 0)
            if sign == 0 or run * sign < 0:
                run = sign
            else:
                run = max(-longest, min(longest, run + sign))
            out[s, t] = float(run) if x[s, t] == x[s, t] else np.nan
    return out
