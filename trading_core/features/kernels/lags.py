"""Bar by bar: earlier bars, changes, ratios, logarithms, the normal distribution."""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.schema import FloatArray


@compiled
def shift(x: FloatArray, bars: int) -> FloatArray:
    """x of `bars` bars ago, NaN where there is none. [S, R] -> [S, R]"""
    out = np.empty_like(x)
    first = min(bars, x.shape[1])
    out[:, :first] = np.nan
    out[:, first:] = x[:, : x.shape[1] - first]
    return out


@compiled
def _diff(x: FloatArray, bars: int) -> FloatArray:
    out = np.empty_like(x)
    first = min(bars, x.shape[1])
    for s in range(x.shape[0]):
        out[s, :first] = np.nan
        for t in range(first, x.shape[1]):
            out[s, t] = x[s, t] - x[s, t - bars]
    return out


def diff(x: FloatArray, bars: int = 1) -> FloatArray:
    """x minus x of `bars` bars ago; NaN in the first `bars` bars."""
    return _diff(x, bars)


@compiled
def _ratio(numerator: FloatArray, denominator: FloatArray, undefined: float) -> FloatArray:
    out = np.empty_like(numerator)
    for s in range(numerator.shape[0]):
        for t in range(numerator.shape[1]):
            top, bottom = numerator[s, t], denominator[s, t]
            value = top / bottom
            if bottom == 0.0:
                value = top if np.isnan(top) else undefined
            out[s, t] = np.nan if np.isinf(value) else value
    return out


def ratio(numerator: FloatArray, denominator: FloatArray, undefined: float = np.nan) -> FloatArray:
    """numerator / denominator, `undefined` where the denominator is 0 and both are present. Never infinite."""
    return _ratio(numerator, denominator, undefined)


@compiled
def change(x: FloatArray, bars: int) -> FloatArray:
    """Simple return over `bars` bars, x[t] / x[t - bars] - 1; NaN in the first `bars` bars and after a 0."""
    out = np.empty_like(x)
    first = min(bars, x.shape[1])
    for s in range(x.shape[0]):
        out[s, :first] = np.nan
        for t in range(first, x.shape[1]):
            value = x[s, t] / x[s, t - bars] - 1.0
            out[s, t] = np.nan if np.isinf(value) else value
    return out


@compiled
def log(x: FloatArray) -> FloatArray:
    """Natural logarithm; NaN where x is not positive."""
    out = np.empty_like(x)
    for s in range(x.shape[0]):
        for t in range(x.shape[1]):
            out[s, t] = math.log(x[s, t]) if x[s, t] > 0.0 else np.nan
    return out


@compiled
def exp(x: FloatArray) -> FloatArray:
    """e to the power of x; NaN where that is not finite."""
    out = np.empty_like(x)
    for s in range(x.shape[0]):
        for t in range(x.shape[1]):
            value = math.exp(x[s, t])
            out[s, t] = np.nan if np.isinf(value) else value
    return out


@compiled
def normal_cdf(x: FloatArray) -> FloatArray:
    """Standard normal distribution function, 0 .. 1."""
    out = np.empty_like(x)
    for s in range(x.shape[0]):
        for t in range(x.shape[1]):
            out[s, t] = 0.5 * (1.0 + math.erf(x[s, t] / math.sqrt(2.0)))
    return out
