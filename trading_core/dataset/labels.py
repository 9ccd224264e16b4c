"""What is forecast: what the price does from the next open to the open `h` sessions after it.

A decision is column t = D, made after D's close; the trade is at the open of T = t + 1. Every label of decision t with
horizon h is a function of what is known at t and of the prices from the open of t + 1 to the open of t + 1 + h; it is
NaN where one of those it needs is missing, so the last h + 1 columns always are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from trading_core.dataset.panel import VOLATILITY_FLOOR
from trading_core.errors import InvalidConfigError
from trading_core.schema import BoolArray, FloatArray, IntArray

STOP, NEITHER, TAKE = 0.0, 1.0, 2.0  # codes of `triple_barrier`: the order of the BARRIER target's logits
BEAR, NEUTRAL, BULL = 0.0, 1.0, 2.0  # codes of `class_labels`: the order of the CLASSES target's logits
MIN_RANKED = 3  # symbols; fewer have no order worth learning


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
    _check(horizons)
    logs = np.log(opens)
    labels = np.full((*opens.shape, len(horizons)), np.nan)
    for k, h in enumerate(horizons):
        n = max(opens.shape[1] - 1 - h, 0)  # decisions whose label ends in the panel
        labels[:, :n, k] = logs[:, 1 + h :] - logs[:, 1 : 1 + n]
    return _without_broken(labels, horizons, breaks)


def directions(labels: FloatArray) -> FloatArray:
    """1.0 where the label is positive, 0.0 where it is zero or negative, NaN where it is missing. Same shape."""
    return np.where(np.isfinite(labels), (labels > 0.0).astype(np.float64), np.nan)


def class_labels(scaled_return: FloatArray, threshold: float) -> FloatArray:
    """0 Bear below -threshold, 2 Bull above +threshold, 1 Neutral between (both ends included), NaN where missing.

    scaled_return: forward returns over sigma * sqrt(h), any shape; threshold: in that unit, at least 0.
    Errors: InvalidConfigError.
    """
    if not 0.0 <= threshold < math.inf:
        raise InvalidConfigError("The class labels", [f"threshold: {threshold}; give a finite number of at least 0"])
    codes = np.where(scaled_return > threshold, BULL, np.where(scaled_return < -threshold, BEAR, NEUTRAL))
    return np.where(np.isfinite(scaled_return), codes, np.nan)


def rank_labels(labels: FloatArray) -> FloatArray:
    """[S, T, H] rank of each label within its date and horizon as a standard normal score: ndtri((rank - 0.5) / n).

    rank 1 is the lowest of the n symbols that have a label there, ties share their average rank (Blom 1958 names the
    family of such scores; this is Hazen's). NaN stays NaN, and so does a date with fewer than 3 symbols.
    """
    from scipy.stats import rankdata  # half a second to import, and only a rank target needs it

    known = np.isfinite(labels)
    n = known.sum(axis=0)  # [S, T, H] -> [T, H]
    ranks = rankdata(np.where(known, labels, np.nan), axis=0, nan_policy="omit")
    return np.where(known & (n >= MIN_RANKED), ndtri((ranks - 0.5) / np.maximum(n, 1)), np.nan)


def volatility_labels(
    opens: FloatArray, sigma: FloatArray, horizons: Sequence[int], breaks: BoolArray | None = None
) -> FloatArray:
    """[S, T, H]: log(realised / sigma[s, t]), realised = sqrt(mean of the h squared one-session open-to-open log returns
    after the open of t + 1), without subtracting their mean.

    opens, breaks: as in `forward_returns`, but every open of the path must be there. sigma: [S, T] daily volatility
    known at t; NaN or not positive gives NaN. A realised volatility below `VOLATILITY_FLOOR` counts as the floor, as
    sigma does: a price that stands still has no logarithm.
    Errors: InvalidConfigError for a horizon below 1.
    """
    _check(horizons)
    squares = np.diff(np.log(opens), axis=1) ** 2  # [S, T] -> [S, T - 1]; squares[:, i] ends at the open of i + 1
    labels = np.full((*opens.shape, len(horizons)), np.nan)
    ex_ante = np.where(sigma > 0.0, sigma, np.nan)
    for k, h in enumerate(horizons):
        n = opens.shape[1] - 1 - h
        if n > 0:
            # Summed session by session, not by differences of running sums: NaN stays where it is, and so does the bit.
            total = sum((squares[:, i : i + n] for i in range(2, h + 1)), start=squares[:, 1 : 1 + n])
            realised = np.maximum(np.sqrt(total / h), VOLATILITY_FLOOR)
            labels[:, :n, k] = np.log(realised / ex_ante[:, :n])
    return _without_broken(labels, horizons, breaks)


def triple_barrier(
    opens: FloatArray,
    closes: FloatArray,
    sigma: FloatArray,
    horizons: Sequence[int],
    width: float,
    breaks: BoolArray | None = None,
) -> FloatArray:
    """[S, T, H] codes: 2 take, 0 stop, 1 neither: which barrier the price touches first after the open of t + 1.

    The barriers lie at +-width * sigma[s, t] * sqrt(h) in log units from that open. Looked at are the closes of
    t + 1 .. t + h and then the open of t + 1 + h; to reach a barrier is to touch it. Source: Lopez de Prado (2018),
    section 3.4, with the vertical barrier as a class of its own.
    opens, closes, sigma: [S, T]; breaks: as in `forward_returns`. The code is NaN where sigma is NaN or not positive or
    *any* price of the path is missing, also one after the touch: otherwise only those that touched would remain there.
    Errors: InvalidConfigError for a horizon below 1 or a width that is not positive.
    """
    _check(horizons)
    if not 0.0 < width < math.inf:
        raise InvalidConfigError("The triple-barrier labels", [f"width: {width}; give a finite number above 0"])
    log_opens, log_closes = np.log(opens), np.log(closes)
    codes = np.full((*opens.shape, len(horizons)), np.nan)
    for k, h in enumerate(horizons):
        n = opens.shape[1] - 1 - h
        if n > 0:
            path = [log_closes[:, i : i + n] for i in range(1, h + 1)] + [log_opens[:, 1 + h :]]
            barrier = width * math.sqrt(h) * sigma[:, :n]
            codes[:, :n, k] = _first_touch(log_opens[:, 1 : 1 + n], path, barrier)
    return _without_broken(codes, horizons, breaks)


def _first_touch(entry: FloatArray, path: Sequence[FloatArray], barrier: FloatArray) -> FloatArray:
    """[S, n] codes of `triple_barrier`. entry, barrier and each element of path: [S, n] in log units."""
    codes = np.full(entry.shape, NEITHER)
    known: BoolArray = barrier > 0.0
    for price in path:
        move = price - entry
        open_still = codes == NEITHER
        codes[open_still & (move >= barrier)] = TAKE
        codes[open_still & (move <= -barrier)] = STOP
        known &= np.isfinite(move)
    return np.where(known, codes, np.nan)


def _without_broken(labels: FloatArray, horizons: Sequence[int], breaks: BoolArray | None) -> FloatArray:
    """The same array [S, T, H], NaN where a label is opened before a break and closed on or after it."""
    if breaks is None:
        return labels
    crossed = np.cumsum(breaks, axis=1)  # [S, T]
    for k, h in enumerate(horizons):
        n = max(breaks.shape[1] - 1 - h, 0)
        labels[:, :n, k][crossed[:, 1 + h :] > crossed[:, 1 : 1 + n]] = np.nan
    return labels


def _check(horizons: Sequence[int]) -> None:
    if not horizons or min(horizons) < 1:
        raise InvalidConfigError(
            "The label's horizons", [f"{list(horizons)}: give at least one horizon, each >= 1 session"]
        )
