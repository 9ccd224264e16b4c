"""p-values of many tests at once, adjusted so that a threshold keeps its meaning.

Sources: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure"; Benjamini & Hochberg (1995),
"Controlling the False Discovery Rate"; Benjamini & Yekutieli (2001), "The Control of the False Discovery Rate in
Multiple Testing under Dependency".
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.schema import FloatArray

Adjustment = Literal["holm", "bh", "by"]


def adjusted_p_values(p_values: FloatArray, method: Adjustment = "bh") -> FloatArray:
    """[K] p-values that can be compared with a level as if each were the only one.

    "holm": at most that chance of a single false discovery, whatever binds the tests together. "bh": at most that share of
    false ones among the discoveries, for tests that are independent or rise and fall together; "by": the same whatever
    binds them, at the price of a factor of about log(K). NaN stays NaN and does not count as a test.
    Errors: InvalidConfigError for a value outside 0 .. 1, and for another method.
    """
    known = ~np.isnan(p_values)
    p = np.asarray(p_values, dtype=np.float64)[known]
    if np.any((p < 0.0) | (p > 1.0)):
        raise InvalidConfigError("The p-values", ["some lie outside 0 .. 1"])
    order, count = np.argsort(p, kind="stable"), len(p)
    rank = np.arange(1, count + 1)
    if method == "holm":
        stepped = np.maximum.accumulate((count - rank + 1) * p[order])
    elif method in ("bh", "by"):
        factor = 1.0 if method == "bh" else float(np.sum(1.0 / rank))
        stepped = np.minimum.accumulate((factor * count / rank * p[order])[::-1])[::-1]
    else:
        raise InvalidConfigError("The adjustment of p-values", [f"method: {method}; holm, bh or by"])
    back = np.empty(count)
    back[order] = np.minimum(stepped, 1.0)
    adjusted = np.full(len(known), np.nan)
    adjusted[known] = back
    return adjusted
