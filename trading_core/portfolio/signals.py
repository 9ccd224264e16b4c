"""What the signals of several strategies are made of: which names are known, prices in a decision's basis, selections.

Every function here gives row t from the rows a view of t would hold, in the order of operations that the view would use, so
that a panel and a view have the same bits. So sums over symbols or sessions run in a fixed order: numpy's own `sum` takes
another one for another shape of the array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from trading_core.portfolio.kernels.signals import carry_forward
from trading_core.portfolio.strategy import SignalInputs
from trading_core.schema import QUANTILES, BoolArray, FloatArray, IntArray

ValueT = TypeVar("ValueT", np.float64, np.bool_)

LOWEST, MEDIAN, HIGHEST = 0, QUANTILES.index(0.5), len(QUANTILES) - 1  # positions among the quantiles


def usable(prices: FloatArray) -> BoolArray:
    """Where there is a bar: a finite price above 0."""
    return np.isfinite(prices) & (prices > 0)


def has_bar(inputs: SignalInputs) -> BoolArray:
    """[R, S] whether the symbol has a bar at the close of the decision."""
    return usable(inputs.closes[inputs.first :])


def median_forecast(inputs: SignalInputs) -> FloatArray:
    """[R, S] the median of the forecast log return, whatever the model ranks by; NaN where there is no forecast."""
    return np.where(np.isfinite(inputs.score), inputs.quantiles[..., MEDIAN], np.nan)


def row_sums(values: FloatArray) -> FloatArray:
    """[R, 1] the sum of each row [R, S] from its first column to its last; a 0 more changes no bit."""
    return np.cumsum(values, axis=1)[:, -1:]


def rebalanced(inputs: SignalInputs, every: int) -> IntArray:
    """The rows of the decisions on which a strategy that acts every `every` sessions acts."""
    return np.flatnonzero(np.array(inputs.ordinals) % every == 0)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """L sessions up to a decision's, as in its view: prices in the basis of the last row."""

    closes: FloatArray  # [L, S]
    volumes: FloatArray  # [L, S] shares


def window(inputs: SignalInputs, row: int, rows: int) -> Window:
    """The last `rows` sessions of decision `row`; fewer at the beginning of history."""
    t = inputs.first + row
    span = slice(max(t + 1 - rows, 0), t + 1)
    factor = inputs.split_factor[span] / inputs.split_factor[t]
    return Window(inputs.closes[span] * factor, inputs.volumes[span] / factor)


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """The last bar of every symbol at each session: its close as traded, and the split factor of the session it is from.

    NaN before the first bar. A gap counts as a price that did not move; a window that begins with a bar holds no price
    from before it.
    """

    closes: FloatArray  # [T, S]
    factor: FloatArray  # [T, S]


def carried(inputs: SignalInputs) -> Carried:
    """What a strategy that looks at windows with gaps reads."""
    return Carried(*carry_forward(np.array(inputs.closes), np.array(inputs.split_factor)))


def spanned(inputs: SignalInputs, rows: int) -> BoolArray:
    """[R, S] whether the `rows` sessions up to the decision begin and end with a bar, and history reaches back so far."""
    return has_bar(inputs) & _earlier(usable(inputs.closes), inputs, rows - 1, missing=False)


def _earlier(values: npt.NDArray[ValueT], inputs: SignalInputs, sessions: int, missing: float) -> npt.NDArray[ValueT]:
    """[R, S] the values [T, S] of `sessions` before each decision; `missing` before the beginning of history."""
    found = np.full(inputs.score.shape, missing, dtype=values.dtype)
    lacking = max(sessions - inputs.first, 0)  # decisions for which history does not reach back
    found[lacking:] = values[inputs.first + lacking - sessions : max(len(values) - sessions, 0)]
    return found


def trailing_return(inputs: SignalInputs, lookback: int, skip: int = 0) -> FloatArray:
    """[R, S] close(t - skip) / close(t - lookback) - 1 for the decision at t, dividends left out; 0 <= skip < lookback.

    NaN without a bar at t or at t - lookback. Without one at t - skip the last close before it counts.
    """
    last = carried(inputs)
    own = inputs.split_factor[inputs.first :]

    def close(sessions: int) -> FloatArray:
        closes, factor = (_earlier(values, inputs, sessions, np.nan) for values in (last.closes, last.factor))
        return closes * (factor / own)

    return np.where(spanned(inputs, lookback + 1), close(skip) / close(lookback) - 1.0, np.nan)


def trailing_mean(inputs: SignalInputs, last: Carried, rows: int) -> FloatArray:
    """[R, S] the mean of the last `rows` closes in the basis of the decision, gaps as in `last`; NaN where one is not known."""
    first = inputs.first
    total = np.full(inputs.score.shape, np.nan)
    reached = max(rows - 1, first)  # the first decision with so much history
    if reached >= len(inputs.closes):
        return total
    total[reached - first :] = _trailing_sums(last.closes[max(first - rows + 1, 0) :], rows)[rows - 1 :]
    # Most windows hold no split, and their closes are in the decision's basis as they are. The others one by one.
    split = np.flatnonzero((inputs.split_factor != inputs.split_factor[:1]).any(axis=0))
    closes, factor, own = (
        np.ascontiguousarray(values[:, split].T) for values in (last.closes, last.factor, inputs.split_factor)
    )
    changes = np.cumsum(np.diff(factor, axis=1, prepend=factor[:, :1]) != 0, axis=1)
    within = changes[:, reached:] != changes[:, reached - rows + 1 : changes.shape[1] - rows + 1]
    column, row = np.nonzero(within | (factor != own)[:, reached:])
    if len(row):
        begin, end = row + reached - rows + 1, row + reached
        ratio = sliding_window_view(factor, rows, axis=1)[column, begin] / own[column, end][:, None]
        restated = sliding_window_view(closes, rows, axis=1)[column, begin] * ratio
        total[end - first, split[column]] = _sum_of(restated)
    return total / rows


def _trailing_sums(values: FloatArray, rows: int) -> FloatArray:
    """[N, S] the sum of the last `rows` values at each row [N, S], by halves: see `_sum_of`. The first rows - 1: of fewer."""
    block, size, taken, total = values, 1, 0, np.zeros_like(values)
    while size <= rows:
        if rows & size:
            total[taken:] += block[: len(block) - taken]
            taken += size
        doubled = block.copy()
        doubled[size:] += block[: max(len(block) - size, 0)]
        block, size = doubled, 2 * size
    return total


def _sum_of(values: FloatArray) -> FloatArray:
    """[W] the sums of windows [W, L] with the bits of `_trailing_sums`: of blocks of 1, 2, 4 ... values, each the sum of
    its halves, the smallest block last in time and first in the sum."""
    length = end = values.shape[1]
    total = np.zeros(len(values))
    for bit in range(length.bit_length()):
        size = 1 << bit
        if length & size:
            block = values[:, end - size : end]
            while block.shape[1] > 1:
                block = block[:, 1::2] + block[:, 0::2]
            total = total + block[:, 0]
            end -= size
    return total
