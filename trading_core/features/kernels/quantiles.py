"""Quantiles of the last bars. NaN if one of the bars is missing."""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.schema import FloatArray


def rolling_quantiles(x: FloatArray, window: int, quantiles: tuple[float, ...]) -> FloatArray:
    """Quantiles of the last `window` bars, linear between order statistics (Hyndman and Fan's type 7, as numpy).

    [S, R] -> [Q, S, R]: one sorted window serves all of them.
    """
    return _quantiles(x, window, np.array(quantiles) * (window - 1))


def rolling_quantile(x: FloatArray, window: int, quantile: float) -> FloatArray:
    """One of `rolling_quantiles`. [S, R] -> [S, R]"""
    return rolling_quantiles(x, window, (quantile,))[0]


@compiled
def _quantiles(x: FloatArray, window: int, places: FloatArray) -> FloatArray:
    out = np.full((len(places), x.shape[0], x.shape[1]), np.nan)
    held = np.empty(window)  # the window, sorted: the same whatever came before
    for s in range(x.shape[0]):
        size = 0
        for t in range(x.shape[1]):
            value = x[s, t] + 0.0  # one zero: -0 and 0 are equal, and which of them is taken out depends on the past
            if value != value:
                size = 0
                continue
            if size < window:
                at = size
                size += 1
            else:
                at = np.searchsorted(held, x[s, t - window] + 0.0)
            _settle(held, size, at, value)
            if size < window:
                continue
            for q in range(len(places)):
                low = int(places[q])
                part = places[q] - low
                out[q, s, t] = held[low] if part == 0.0 else held[low] + part * (held[low + 1] - held[low])
    return out


@compiled
def _settle(held: FloatArray, size: int, at: int, value: float) -> None:
    """Puts `value` in the stead of held[at] and moves it to where it belongs."""
    while at + 1 < size and held[at + 1] < value:
        held[at] = held[at + 1]
        at += 1
    while at > 0 and held[at - 1] > value:
        held[at] = held[at - 1]
        at -= 1
    held[at] = value
