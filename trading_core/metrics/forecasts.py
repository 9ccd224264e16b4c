"""How good forecasts are: cross-sectional skill per date, quantiles, probabilities. Pure functions on arrays.

N rows (one per symbol and decision date), Q quantiles. Everywhere: a row with a non-finite value in what a metric reads
is dropped; a metric of no rows is NaN. Nothing is annualised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.schema import BoolArray, FloatArray, IntArray

MIN_PAIRS = 3  # a correlation of two pairs is always +1 or -1


@dataclass(frozen=True, slots=True, eq=False)
class PerDate:
    """One value per date [D], dates ascending. NaN where the date has fewer than 3 pairs or no variance in a column."""

    dates: IntArray
    values: FloatArray
    pairs: IntArray  # finite pairs of each date

    @property
    def included(self) -> FloatArray:
        """The values that count, in date order."""
        return self.values[np.isfinite(self.values)]

    @property
    def excluded(self) -> int:
        """How many dates have no value."""
        return int(np.sum(~np.isfinite(self.values)))


@dataclass(frozen=True, slots=True)
class ForecastSkill:
    """The skill of forecasts over many dates. NaN where the inputs of a metric were not given or too few.

    mean_ic, mean_rank_ic: means over dates of Pearson's and Spearman's correlation of score and label.
    icir, rank_icir: mean / standard deviation (ddof 1) of the per-date values, per date, not annualised.
    t_stat, rank_t_stat: of the mean IC and the mean rank IC, see `newey_west_t`, with lag `hac_lag` = horizon - 1.
    n_dates: dates that count; n_dates_excluded: dates without a value of the IC. n: finite (score, label) pairs.
    rmse, mae, directional_accuracy: of the median quantile where quantiles are given, otherwise of the score.
    pinball: mean over rows and quantiles. coverage_90: share of labels in [q05, q95].
    brier, roc_auc: of p_up against "label > 0".
    """

    mean_ic: float
    mean_rank_ic: float
    icir: float
    rank_icir: float
    t_stat: float
    rank_t_stat: float
    hac_lag: int
    n_dates: int
    n_dates_excluded: int
    n: int
    rmse: float
    mae: float
    directional_accuracy: float
    pinball: float
    coverage_90: float
    crossing_rate: float
    brier: float
    roc_auc: float


def summary(
    score: FloatArray,
    label: FloatArray,
    date_index: IntArray,
    horizon: int = 1,
    quantiles: FloatArray | None = None,
    taus: Sequence[float] = (),
    p_up: FloatArray | None = None,
) -> ForecastSkill:
    """All metrics of one horizon. score, label, p_up: [N]; date_index: [N] integers that order the dates;
    quantiles: [N, Q] in the label's unit, of the levels `taus`; horizon in sessions.
    """
    ic, rank_ic = ic_per_date(score, label, date_index), rank_ic_per_date(score, label, date_index)
    lag = horizon - 1
    point = score if quantiles is None or 0.5 not in taus else quantiles[:, list(taus).index(0.5)]
    has_band = quantiles is not None and 0.05 in taus and 0.95 in taus
    up = _outcome(label)
    return ForecastSkill(
        mean_ic=_mean(ic.included),
        mean_rank_ic=_mean(rank_ic.included),
        icir=information_ratio(ic.values),
        rank_icir=information_ratio(rank_ic.values),
        t_stat=newey_west_t(ic.values, lag),
        rank_t_stat=newey_west_t(rank_ic.values, lag),
        hac_lag=lag,
        n_dates=len(ic.included),
        n_dates_excluded=ic.excluded,
        n=int(ic.pairs.sum()),
        rmse=rmse(label, point),
        mae=mae(label, point),
        directional_accuracy=directional_accuracy(label, point),
        pinball=np.nan if quantiles is None else pinball(label, quantiles, taus),
        coverage_90=_band(label, quantiles, taus) if has_band and quantiles is not None else np.nan,
        crossing_rate=np.nan if quantiles is None else crossing_rate(quantiles),
        brier=np.nan if p_up is None else brier(p_up, up),
        roc_auc=np.nan if p_up is None else roc_auc(p_up, up),
    )


# --- cross-sectional skill --------------------------------------------------------------------------------------------


def ic_per_date(score: FloatArray, label: FloatArray, date_index: IntArray) -> PerDate:
    """Pearson's correlation of score and label over the symbols of each date. All arguments [N]."""
    return _per_date(score, label, date_index, ranked=False)


def rank_ic_per_date(score: FloatArray, label: FloatArray, date_index: IntArray) -> PerDate:
    """Spearman's correlation per date: Pearson's of the ranks within the date, ties sharing their average rank."""
    return _per_date(score, label, date_index, ranked=True)


def average_ranks(values: FloatArray, groups: IntArray) -> FloatArray:
    """[N] rank (1 = smallest) of each value within its group; ties share their average rank. Values are finite."""
    order = np.lexsort((values, groups))
    v, g = values[order], groups[order]
    if len(v) == 0:
        return np.zeros(0)
    new_group = np.concatenate(([True], g[1:] != g[:-1]))
    new_run = new_group | np.concatenate(([True], v[1:] != v[:-1]))
    run = np.cumsum(new_run) - 1
    first = np.flatnonzero(new_run)
    last = np.append(first[1:], len(v)) - 1
    group_first = np.flatnonzero(new_group)[np.cumsum(new_group) - 1]
    ranks = np.empty(len(v))
    ranks[order] = ((first + last) / 2.0)[run] - group_first + 1.0
    return ranks


def information_ratio(values: FloatArray) -> float:
    """mean / standard deviation (ddof 1) of the finite values, per date. NaN for fewer than two or no variation."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2 or np.ptp(finite) == 0.0:
        return float("nan")
    return float(finite.mean() / finite.std(ddof=1))


def newey_west_t(values: FloatArray, lag: int) -> float:
    """t statistic of the mean of an autocorrelated series: mean / `newey_west_error`; NaN where that is not defined."""
    error = newey_west_error(values, lag)
    return float(values[np.isfinite(values)].mean() / error) if np.isfinite(error) else float("nan")


def newey_west_error(values: FloatArray, lag: int) -> float:
    """Standard error of the mean of an autocorrelated series: sqrt(S / n).

    S = g0 + 2 sum_{k=1}^{lag} (1 - k / (lag + 1)) g_k, with g_k the autocovariances divided by n (Newey & West 1987,
    Bartlett weights, no small-sample correction). Labels of horizon h on consecutive dates share h - 1 returns, so
    lag = h - 1. NaN values are dropped and what remains is taken as consecutive. NaN for fewer than two or no variation.
    """
    if lag < 0:
        raise InvalidConfigError("The Newey-West statistic", [f"lag: {lag} is not allowed; give 0 or more"])
    finite = values[np.isfinite(values)]
    n = len(finite)
    if n < 2 or np.ptp(finite) == 0.0:
        return float("nan")
    e = finite - finite.mean()
    long_run = float(e @ e) / n
    for k in range(1, min(lag, n - 1) + 1):
        long_run += 2.0 * (1.0 - k / (lag + 1.0)) * float(e[k:] @ e[:-k]) / n
    return float(np.sqrt(long_run / n)) if long_run > 0.0 else float("nan")


def _per_date(score: FloatArray, label: FloatArray, date_index: IntArray, ranked: bool) -> PerDate:
    dates, group = np.unique(date_index, return_inverse=True)
    keep = np.isfinite(score) & np.isfinite(label)
    x, y, g = np.asarray(score, dtype=np.float64)[keep], np.asarray(label, dtype=np.float64)[keep], group[keep]
    if ranked:
        x, y = average_ranks(x, g), average_ranks(y, g)
    order = np.argsort(g, kind="stable")
    x, y, g = x[order], y[order], g[order]
    pairs = np.bincount(g, minlength=len(dates))
    values = np.full(len(dates), np.nan)
    held = np.flatnonzero(pairs)
    if len(held):
        values[held] = _correlations(x, y, np.searchsorted(g, held), pairs[held])
    values[pairs < MIN_PAIRS] = np.nan
    return PerDate(dates.astype(np.int64), values, pairs.astype(np.int64))


def _correlations(x: FloatArray, y: FloatArray, first: IntArray, count: IntArray) -> FloatArray:
    """Pearson's r of consecutive runs that start at `first` and have `count` pairs; NaN where x or y is constant."""
    # Constancy is judged by the range: the mean of equal numbers may be off by a rounding, and leave a variance.
    varies = np.minimum.reduceat(x, first) < np.maximum.reduceat(x, first)
    varies &= np.minimum.reduceat(y, first) < np.maximum.reduceat(y, first)
    dx = x - np.repeat(np.add.reduceat(x, first) / count, count)
    dy = y - np.repeat(np.add.reduceat(y, first) / count, count)
    xy, xx, yy = (np.add.reduceat(product, first) for product in (dx * dy, dx * dx, dy * dy))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = xy / (np.sqrt(xx) * np.sqrt(yy))
    return np.where(varies, np.clip(r, -1.0, 1.0), np.nan)


# --- points -----------------------------------------------------------------------------------------------------------


def rmse(label: FloatArray, prediction: FloatArray) -> float:
    """Root of the mean squared difference, in the label's unit."""
    difference = label - prediction
    return float(np.sqrt(_mean(difference[np.isfinite(difference)] ** 2)))


def mae(label: FloatArray, prediction: FloatArray) -> float:
    """Mean absolute difference, in the label's unit."""
    difference = label - prediction
    return _mean(np.abs(difference[np.isfinite(difference)]))


def directional_accuracy(label: FloatArray, prediction: FloatArray) -> float:
    """Share of rows whose prediction has the sign of the label; rows where either is exactly 0 have no direction and
    are dropped."""
    product = np.sign(label) * np.sign(prediction)
    product = product[np.isfinite(product) & (product != 0.0)]
    return _mean(product > 0.0)


# --- quantiles --------------------------------------------------------------------------------------------------------


def pinball(label: FloatArray, quantiles: FloatArray, taus: Sequence[float]) -> float:
    """Mean over rows and levels of max(tau (y - q), (tau - 1) (y - q)). label [N], quantiles [N, Q], taus Q.

    Koenker & Bassett (1978). A row counts only with all its quantiles. Errors: InvalidConfigError when Q differs.
    """
    levels = _levels(quantiles, taus)
    difference = label[:, None] - quantiles
    difference = difference[np.isfinite(difference).all(axis=1)]
    return _mean(np.maximum(levels * difference, (levels - 1.0) * difference))


def coverage(label: FloatArray, low: FloatArray, high: FloatArray) -> float:
    """Share of labels with low <= label <= high. All [N]."""
    keep = np.isfinite(label) & np.isfinite(low) & np.isfinite(high)
    covered: BoolArray = np.logical_and(label >= low, label <= high)
    return _mean(covered[keep])


def crossing_rate(quantiles: FloatArray) -> float:
    """Share of rows in which any quantile lies below the quantile of the level before it. quantiles [N, Q]."""
    finite = quantiles[np.isfinite(quantiles).all(axis=1)]
    crosses: BoolArray = np.any(np.diff(finite, axis=1) < 0.0, axis=1)
    return _mean(crosses)


def _band(label: FloatArray, quantiles: FloatArray, taus: Sequence[float]) -> float:
    levels = _levels(quantiles, taus).tolist()
    return coverage(label, quantiles[:, levels.index(0.05)], quantiles[:, levels.index(0.95)])


def _levels(quantiles: FloatArray, taus: Sequence[float]) -> FloatArray:
    levels = np.array(taus, dtype=np.float64)
    if quantiles.shape[1] != len(levels):
        raise InvalidConfigError("The quantiles", [f"{quantiles.shape[1]} columns for {len(levels)} levels"])
    return levels


# --- probabilities ----------------------------------------------------------------------------------------------------


def brier(probability: FloatArray, outcome: FloatArray) -> float:
    """Mean of (probability - outcome)^2, outcome 0 or 1; 0 is perfect, 0.25 is "always one half". Brier (1950)."""
    difference = probability - outcome
    return _mean(difference[np.isfinite(difference)] ** 2)


def roc_auc(score: FloatArray, outcome: FloatArray) -> float:
    """Area under the ROC curve by ranks: (R1 - n1 (n1 + 1) / 2) / (n1 n0), R1 the rank sum of the rows with outcome 1.

    Ties share their average rank (Mann-Whitney U with half a win for a tie). NaN when an outcome never occurs.
    """
    keep = np.isfinite(score) & np.isfinite(outcome)
    positive: BoolArray = outcome[keep] > 0.5
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if n1 == 0 or n0 == 0:
        return float("nan")
    ranks = average_ranks(np.asarray(score, dtype=np.float64)[keep], np.zeros(n1 + n0, dtype=np.int64))
    return float((ranks[positive].sum() - n1 * (n1 + 1) / 2.0) / (n1 * n0))


def _outcome(label: FloatArray) -> FloatArray:
    return np.where(np.isfinite(label), (label > 0.0).astype(np.float64), np.nan)


def _mean(values: FloatArray | BoolArray) -> float:
    return float(np.mean(values)) if values.size else float("nan")
