"""What the symbols of each score bucket returned: deciles by date. Pure functions on arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.metrics.forecasts import newey_west_error, newey_west_t, rank_ic_per_date
from trading_core.schema import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class BucketReturns:
    """Labels of B buckets of the score, bucket 0 the lowest, averaged within each date and then over D dates.

    Standard errors and t are those of the mean over dates, Newey & West with lag `hac_lag`; NaN for fewer than two dates
    or values that do not vary.
    """

    mean: FloatArray  # [B] in the label's unit; NaN without a date
    standard_error: FloatArray  # [B]
    spread: float  # mean of top minus bottom bucket
    spread_standard_error: float
    spread_t: float
    monotonicity: float  # Spearman's correlation of bucket number and mean, 1 = rises throughout; NaN for B < 3
    hac_lag: int
    dates: int  # D
    dates_excluded: int  # fewer than B symbols, or a score that is the same for all


def bucket_returns(
    score: FloatArray, label: FloatArray, date_index: IntArray, horizon: int = 1, buckets: int = 10
) -> BucketReturns:
    """Mean label by bucket of the score. score, label: [N]; date_index: [N] integers that order the dates; horizon of the
    labels in sessions: those of neighbouring dates overlap, hence the lag horizon - 1.

    Of the n symbols of a date with a finite score and label, the one at position p = 0 .. n - 1 of the ascending scores
    belongs to bucket floor(p B / n), so that sizes differ by at most one. Symbols of the same score count with their
    mean label, which is what breaking ties at random gives on average: the order of the rows does not matter.
    Errors: InvalidConfigError for fewer than 2 buckets or a horizon below 1.
    """
    if buckets < 2 or horizon < 1:
        problem = f"buckets: {buckets}, horizon: {horizon}; give at least 2 buckets and a horizon of at least 1"
        raise InvalidConfigError("The bucket returns", [problem])
    by_date = bucket_returns_per_date(score, label, date_index, buckets)
    used = by_date[np.isfinite(by_date).all(axis=1)]
    spread, lag = used[:, -1] - used[:, 0], horizon - 1
    mean = used.mean(axis=0) if len(used) else np.full(buckets, np.nan)
    rising = rank_ic_per_date(np.arange(buckets, dtype=np.float64), mean, np.zeros(buckets, dtype=np.int64))
    return BucketReturns(
        mean=mean,
        standard_error=np.array([newey_west_error(used[:, b], lag) for b in range(buckets)]),
        spread=float(spread.mean()) if len(used) else float("nan"),
        spread_standard_error=newey_west_error(spread, lag),
        spread_t=newey_west_t(spread, lag),
        monotonicity=float(rising.values[0]),
        hac_lag=lag,
        dates=len(used),
        dates_excluded=len(by_date) - len(used),
    )


def bucket_returns_per_date(
    score: FloatArray, label: FloatArray, date_index: IntArray, buckets: int = 10
) -> FloatArray:
    """[D, B] mean label of each bucket on each date, dates ascending; NaN where a date has fewer than B symbols or one
    score for all. Arguments and ties as in `bucket_returns`."""
    dates, group = np.unique(date_index, return_inverse=True)
    keep: BoolArray = np.isfinite(score) & np.isfinite(label)
    order = np.lexsort((label[keep], score[keep], group[keep]))  # by label too: the same sums in any order of rows
    s, y, g = score[keep][order], np.asarray(label, dtype=np.float64)[keep][order], group[keep][order]
    count = np.bincount(g, minlength=len(dates))
    if not len(g):
        return np.full((len(dates), buckets), np.nan)
    first = np.cumsum(count) - count  # of each date
    position = np.arange(len(g)) - first[g]
    cell = g * buckets + position * buckets // count[g]
    sums = np.bincount(cell, _mean_of_ties(s, y, g), len(dates) * buckets).reshape(-1, buckets)
    sizes = np.bincount(cell, minlength=len(dates) * buckets).reshape(-1, buckets)
    usable = count >= buckets
    usable[usable] = s[first[usable]] < s[first[usable] + count[usable] - 1]
    return np.divide(sums, sizes, out=np.full(sums.shape, np.nan), where=usable[:, None])


def _mean_of_ties(score: FloatArray, label: FloatArray, group: IntArray) -> FloatArray:
    """[N] mean label of the rows of the same group and score; rows sorted by group and then score."""
    first = np.flatnonzero(np.append(True, (score[1:] != score[:-1]) | (group[1:] != group[:-1])))
    count = np.diff(first, append=len(score))
    return np.repeat(np.add.reduceat(label, first) / count, count)
