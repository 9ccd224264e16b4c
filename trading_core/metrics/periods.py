"""Returns of an equity curve by month and year, and its Sharpe ratio over rolling windows. Pure functions on arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from trading_core.errors import InvalidConfigError, WrongTypeError
from trading_core.metrics.returns import SESSIONS_PER_YEAR
from trading_core.schema import FloatArray, IntArray

_BLOCK = 4096  # windows looked at together: bounds the memory of long curves


@dataclass(frozen=True, slots=True, eq=False)
class PeriodReturns:
    """Simple returns by calendar month and year of Y consecutive years; NaN where the curve has no return.

    The return of a month runs from the last value of the month before (the first month: from the first value of the
    curve) to its own last value, so the months that have one compound to their year, and the years to the whole. The
    first and the last year may be cut short.
    """

    years: IntArray  # [Y] ascending, without a gap
    monthly: FloatArray  # [Y, 12] January to December
    yearly: FloatArray  # [Y]


def period_returns(sessions: Sequence[date], equity: FloatArray) -> PeriodReturns:
    """Returns by month and year of `equity` [N] at the closes of `sessions`, N ascending dates.

    Row 0 is where the curve begins: a month that holds nothing else has no return.
    Errors: WrongTypeError when the lengths differ or the sessions do not ascend.
    """
    if len(sessions) != len(equity):
        expected = f"{len(equity)}, as the equity curve"
        raise WrongTypeError("The returns by month", "sessions", f"{len(sessions)} long", expected)
    days = np.array(sessions, dtype="datetime64[D]")
    if np.any(days[1:] < days[:-1]):
        where = int(np.argmax(days[1:] < days[:-1])) + 1
        raise WrongTypeError("The returns by month", "sessions", f"out of order at position {where}", "ascending dates")
    if not len(days):
        return PeriodReturns(np.zeros(0, np.int64), np.zeros((0, 12)), np.zeros(0))
    months = days.astype("datetime64[M]").astype(np.int64)  # since January 1970
    years = np.arange(months[0] // 12, months[-1] // 12 + 1)
    monthly = _returns_of(months - years[0] * 12, equity, 12 * len(years)).reshape(-1, 12)
    return PeriodReturns(years + 1970, monthly, _returns_of(months // 12 - years[0], equity, len(years)))


def _returns_of(period: IntArray, equity: FloatArray, count: int) -> FloatArray:
    """[count] return of each period; period: [N] ascending numbers of the period that each row lies in."""
    last = np.flatnonzero(np.append(period[1:] != period[:-1], True))  # the last row of each period that has rows
    before = np.append(0, last[:-1])
    returns = np.full(count, np.nan)
    returns[period[last]] = np.where(last > before, equity[last] / equity[before] - 1.0, np.nan)
    return returns


def rolling_sharpe(returns: FloatArray, window: int, per_year: int = SESSIONS_PER_YEAR) -> FloatArray:
    """[N] annual Sharpe ratio of the `window` returns up to and including each one, as `returns.sharpe_annual`.

    NaN for the first window - 1, and where the returns of the window do not vary or are not all finite.
    Errors: InvalidConfigError for a window below 2.
    """
    if window < 2:
        raise InvalidConfigError("The rolling Sharpe ratio", [f"window: {window} is not allowed; give at least 2"])
    ratio = np.full(len(returns), np.nan)
    if len(returns) < window:
        return ratio
    # Each window anew, not a running sum: after a wild year, a running sum leaves noise where a calm one has nothing.
    windows = np.lib.stride_tricks.sliding_window_view(returns, window)  # [N] -> [N - window + 1, window]
    for start in range(0, len(windows), _BLOCK):
        block = windows[start : start + _BLOCK]
        noise = 1e-14 * np.maximum(1.0, np.abs(block).max(axis=1))  # see `returns.varies`
        varies = np.ptp(block, axis=1) > noise
        deviation = np.where(varies, np.std(block, axis=1, ddof=1), np.nan)
        first = start + window - 1
        ratio[first : first + len(block)] = np.mean(block, axis=1) / deviation * math.sqrt(per_year)
    return ratio
