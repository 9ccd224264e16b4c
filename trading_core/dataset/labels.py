"""What is forecast: the log return from the next open to the open `h` sessions after it.

A decision is column t = D, made after D's close; the trade is at the open of T = t + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.schema import BoolArray, FloatArray, IntArray


def label_known_index(t: int | IntArray, h: int) -> int | IntArray:
    """The column at whose *open* the label of decision t with horizon h is known: t + 1 + h."""
    return t + 1 + h


def forward_returns(opens: FloatArray, horizons: Sequence[int], breaks: BoolArray | None = None) -> FloatArray:
    """[S, T, H]: label[s, t, k] = log(open[s, t + 1 + h] / open[s, t + 1]) for h = horizons[k].

    opens: [S, T] adjusted opens, NaN where there is none. Columns are sessions of the market, not the symbol's own
    rows: a label whose first or last open is missing is NaN, and so are the last h + 1 columns.
    breaks: [S, T], True where the price level is suspected to have changed for no reason of the market (a missing split,
    say) from that session on; a label that is opened before such a session and closed on or after it is NaN.
    Errors: InvalidConfigError for a horizon below 1.
    """
    if not horizons or min(horizons) < 1:
        raise InvalidConfigError(
            "The label's horizons", [f"{list(horizons)}: give at least one horizon, each >= 1 session"]
        )
    logs = np.log(opens)
    labels = np.full((*opens.shape, len(horizons)), np.nan)
    for k, h in enumerate(horizons):
        returns = logs[:, 1 + h :] - logs[:, 1 : max(logs.shape[1] - h, 1)]
        if breaks is not None:
            crossed = np.cumsum(breaks, axis=1)
            returns[crossed[:, 1 + h :] > crossed[:, 1 : max(logs.shape[1] - h, 1)]] = np.nan
        labels[:, : max(opens.shape[1] - 1 - h, 0), k] = returns
    return labels


def directions(labels: FloatArray) -> FloatArray:
    """1.0 where the label is positive, 0.0 where it is zero or negative, NaN where it is missing. Same shape."""
    return np.where(np.isfinite(labels), (labels > 0.0).astype(np.float64), np.nan)
