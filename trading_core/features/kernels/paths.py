"""What the last bars trace as a path: how deep it fell, how steeply its sum rises. NaN if one of the bars is missing."""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.schema import FloatArray

_HIGH, _LOW, _FALL = range(3)


@compiled
def rolling_max_drawdown(x: FloatArray, window: int) -> FloatArray:
    """Largest of 1 - x[j] / x[i] over bars i <= j of the last `window` bars: 0 where x never fell. [S, R] -> [S, R]

    NaN also where x is 0 at a bar from which a fall is measured.
    """
    out = np.empty_like(x)
    rows = x.shape[1]
    block, spare = np.empty((3, rows)), np.empty((3, rows))
    total, other = np.empty((3, rows)), np.empty((3, rows))
    for s in range(x.shape[0]):
        block[_HIGH] = x[s]
        block[_LOW] = x[s]
        block[_FALL] = x[s] - x[s]  # 0, NaN where missing
        size, covered = 1, 0
        while True:
            if window & size:
                if covered == 0:
                    total[:] = block
                else:
                    _join(total, block, covered, other)
                    total, other = other, total
                covered += size
            if 2 * size > window:
                break
            _join(block, block, size, spare)
            block, spare = spare, block
            size *= 2
        out[s] = total[_FALL]
    return out


@compiled
def _join(a: FloatArray, b: FloatArray, na: int, out: FloatArray) -> None:
    """out[t] = highest, lowest and deepest fall of a's na bars up to t and b's bars before those. Each [3, R]."""
    rows = a.shape[1]
    out[:, : min(na, rows)] = np.nan
    for t in range(na, rows):
        high, low = b[_HIGH, t - na], a[_LOW, t]
        fall = 1.0 - low / high
        for part in (a[_FALL, t], b[_FALL, t - na]):
            fall = part if part > fall or part != part else fall
        out[_FALL, t] = fall
        late, early = a[_HIGH, t], b[_HIGH, t - na]
        out[_HIGH, t] = late if late > early or late != late else early
        late, early = a[_LOW, t], b[_LOW, t - na]
        out[_LOW, t] = late if late < early or late != late else early


@compiled
def slope_of_sum(x: FloatArray, window: int) -> FloatArray:
    """Least-squares slope, per bar, of the running sum of x over the last `window` bars. [S, R] -> [S, R]

    Where the sum began does not matter to its slope, so it is a weighted sum of the steps x[t-k], k < window - 1, with
    the weights 6 (k + 1) (window - 1 - k) / (window (window^2 - 1)).
    """
    out = np.zeros_like(x)
    rows = x.shape[1]
    edge = min(window - 1, rows)
    scale = 6.0 / (window * (window * window - 1.0))
    for s in range(x.shape[0]):
        out[s, :edge] = np.nan
        for lag in range(window - 1):
            weight = (lag + 1.0) * (window - 1.0 - lag) * scale
            for t in range(edge, rows):
                out[s, t] += weight * x[s, t - lag]
    return out
