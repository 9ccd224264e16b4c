"""From forecast quantiles to the probability that the label is positive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.schema import BoolArray, FloatArray, IntArray

BOUND = 1e-6  # the probability is kept this far from 0 and 1: no finite set of quantiles says "never"


def p_up_from_quantiles(quantiles: FloatArray, taus: Sequence[float]) -> FloatArray:
    """P(label > 0) = 1 - F(0), [...] from quantiles [..., Q] of the ascending levels `taus`, in (0, 1).

    Between two quantiles F is linear. Beyond the outermost ones the tails are exponential and continue F with the
    density of the segment next to them: below q_1, F(x) = tau_1 exp((x - q_1) / s) with s = tau_1 (q_2 - q_1) /
    (tau_2 - tau_1); above q_Q likewise for 1 - F. Where several quantiles are exactly 0, F(0) is the middle of their
    levels, so a forecast of all zeros says one half. Crossing quantiles are sorted first (Chernozhukov,
    Fernandez-Val & Galichon 2010). A row with a non-finite quantile gives NaN.
    Errors: InvalidConfigError unless there are Q >= 2 levels, ascending inside (0, 1).
    """
    levels = np.array(taus, dtype=np.float64)
    quantiles = np.asarray(quantiles, dtype=np.float64)
    _check(levels, quantiles)
    shape = quantiles.shape[:-1]
    q = np.sort(quantiles.reshape(-1, len(levels)), axis=1)
    usable = np.isfinite(q).all(axis=1)
    q[~usable] = levels  # any ascending row: its result is replaced below
    below, up_to = (q < 0.0).sum(axis=1), (q <= 0.0).sum(axis=1)
    f = np.where(below < up_to, _at_ties(levels, below, up_to), _inside(q, levels, below))
    f = np.where(up_to == 0, _lower_tail(q, levels), f)
    f = np.where(below == len(levels), _upper_tail(q, levels), f)
    return np.where(usable, np.clip(1.0 - f, BOUND, 1.0 - BOUND), np.nan).reshape(shape)


def _at_ties(levels: FloatArray, below: IntArray, up_to: IntArray) -> FloatArray:
    """F(0) where quantiles below .. up_to - 1 are exactly 0: the middle of their first and last level."""
    last = len(levels) - 1
    return (levels[np.minimum(below, last)] + levels[np.maximum(up_to - 1, 0)]) / 2.0


def _inside(q: FloatArray, levels: FloatArray, below: IntArray) -> FloatArray:
    """F(0) on the line between the last quantile below 0 and the first one above it."""
    right = np.clip(below, 1, len(levels) - 1)
    rows = np.arange(len(q))
    low, high = q[rows, right - 1], q[rows, right]
    inside: BoolArray = (low < 0.0) & (high > 0.0)
    share = np.divide(-low, high - low, out=np.zeros(len(q)), where=inside)
    return levels[right - 1] + share * (levels[right] - levels[right - 1])


def _lower_tail(q: FloatArray, levels: FloatArray) -> FloatArray:
    """F(0) where all quantiles are positive."""
    slope = (levels[1] - levels[0]) / levels[0]  # q_2 - q_1 over the tail's scale
    return levels[0] * np.exp(-slope * _ratio(q[:, 0], q[:, 1] - q[:, 0]))


def _upper_tail(q: FloatArray, levels: FloatArray) -> FloatArray:
    """F(0) where all quantiles are negative."""
    slope = (levels[-1] - levels[-2]) / (1.0 - levels[-1])
    return 1.0 - (1.0 - levels[-1]) * np.exp(-slope * _ratio(-q[:, -1], q[:, -1] - q[:, -2]))


def _ratio(distance: FloatArray, width: FloatArray) -> FloatArray:
    """distance / width for positive distances, infinite for a segment of no width; 0 elsewhere (not used there)."""
    distance = np.maximum(distance, 0.0)
    out = np.where(distance > 0.0, np.inf, 0.0)
    return np.divide(distance, width, out=out, where=width > 0.0)


def _check(levels: FloatArray, quantiles: FloatArray) -> None:
    problems = []
    if len(levels) < 2 or (np.diff(levels) <= 0.0).any() or levels[0] <= 0.0 or levels[-1] >= 1.0:
        problems.append(f"taus: {levels.tolist()}; give at least two levels, ascending inside (0, 1)")
    elif quantiles.ndim == 0 or quantiles.shape[-1] != len(levels):
        problems.append(f"quantiles: shape {quantiles.shape}, but there are {len(levels)} levels")
    if problems:
        raise InvalidConfigError("The quantiles", problems)
