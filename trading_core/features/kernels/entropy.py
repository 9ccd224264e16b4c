"""How evenly the last bars spread over a few kinds. NaN if one of the bars is missing."""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.schema import FloatArray


@compiled
def rolling_entropy(kind: FloatArray, window: int, kinds: int) -> FloatArray:
    """Shannon entropy of the last `window` bars' kinds, in nats: minus the sum of p ln p over the kinds' shares p.

    `kind`: whole numbers 0 .. kinds - 1 [S, R]. Counts are whole, so adding and taking away leaves no rounding behind.
    """
    out = np.full_like(kind, np.nan)
    term = np.zeros(window + 1)  # -p ln p of each count
    for n in range(1, window + 1):
        term[n] = -(n / window) * math.log(n / window)
    for s in range(kind.shape[0]):
        count, size = np.zeros(kinds, np.int64), 0
        for t in range(kind.shape[1]):
            if kind[s, t] != kind[s, t]:
                count[:] = 0
                size = 0
                continue
            if size == window:
                count[int(kind[s, t - window])] -= 1
            else:
                size += 1
            count[int(kind[s, t])] += 1
            if size == window:
                total = 0.0
                for k in range(kinds):
                    total += term[count[k]]
                out[s, t] = total
    return out
