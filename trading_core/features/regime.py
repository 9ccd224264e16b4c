"""What state the market is in; every symbol gets the market's value. Feature contract: `trading_core.features.registry`.

Made of the market's own series (MARKET_INPUTS), so `t` counts bars of the market. m is ln(1 + the market's return), and L,
the log index, is the sum of all m so far: what is written with L here is computed from differences of L, which are sums of
few m, so that no value depends on where history begins.
"""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels import (
    exp,
    log,
    lowest_tail_sum,
    ratio,
    rolling_mean,
    rolling_quantile,
    rolling_std,
    rolling_sum,
    weighted_mean,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray

_LOWER, _UPPER = 1.0 / 3.0, 2.0 / 3.0  # what counts as calm and as turbulent, as quantiles of a year


@shared
def _log_returns(bars: BarBlock) -> FloatArray:
    """m = ln(1 + the market's return)."""
    return log(1.0 + bars.market_ret)


@shared
def _vol_20(bars: BarBlock) -> FloatArray:
    return rolling_std(_log_returns(bars), 20)


def _above_mean(bars: BarBlock, window: int) -> FloatArray:
    """L[t] - mean(L[t-window+1 .. t]) = sum of (window-1-j) / window * m[t-j], j = 0 .. window-2."""
    return weighted_mean(_log_returns(bars), window - 1) * (0.5 * (window - 1))


@shared
def _above_mean_50(bars: BarBlock) -> FloatArray:
    return _above_mean(bars, 50)


@shared
def _above_mean_200(bars: BarBlock) -> FloatArray:
    return _above_mean(bars, 200)


@feature(family="regime", inputs=("market_ret",), lookback=19, unit="log return per session", on="market")
def market_vol_20(bars: BarBlock) -> FloatArray:
    """Volatility of the market over 20 sessions.

    Formula: sample standard deviation (divisor 19) of m over t-19 .. t.
    NaN: the market's first 20 bars.
    Reference: definition.
    """
    return _vol_20(bars)


@feature(family="regime", inputs=("market_ret",), lookback=251, unit="ratio", on="market")
def market_vol_ratio(bars: BarBlock) -> FloatArray:
    """Volatility of the market over a month against that of a year.

    Formula: deviation of m over t-19 .. t / deviation of m over t-251 .. t, both samples.
    NaN: the market's first 252 bars; where it has not moved for 252 bars.
    Reference: definition.
    """
    return ratio(_vol_20(bars), rolling_std(_log_returns(bars), 252))


@feature(family="regime", inputs=("market_ret",), lookback=270, unit="-1, 0 or 1", on="market")
def market_vol_state(bars: BarBlock) -> FloatArray:
    """Whether the market is calm (-1), ordinary (0) or turbulent (1), by its own last year.

    Formula: 1 where v[t] > the 2/3 quantile of v[t-251 .. t], -1 where v[t] < the 1/3 quantile, else 0; v = market_vol_20,
        quantiles linear between order statistics.
    NaN: the market's first 271 bars.
    Reference: definition; terciles of the volatility's past instead of a Markov model (Hamilton 1989), which would have
        to be fitted.
    """
    vol = _vol_20(bars)
    low, high = rolling_quantile(vol, 252, _LOWER), rolling_quantile(vol, 252, _UPPER)
    return np.where(np.isnan(low), np.nan, np.where(vol > high, 1.0, np.where(vol < low, -1.0, 0.0)))


@feature(family="regime", inputs=("market_ret",), lookback=48, unit="log return", on="market")
def market_trend_50(bars: BarBlock) -> FloatArray:
    """Distance of the log index from its mean of 50 sessions.

    Formula: L[t] - mean(L[t-49 .. t]), as the sum of (49-j) / 50 m[t-j], j = 0 .. 48.
    NaN: the market's first 49 bars.
    Reference: Brock, Lakonishok and LeBaron (1992), Simple technical trading rules, in logarithms.
    """
    return _above_mean_50(bars)


@feature(family="regime", inputs=("market_ret",), lookback=198, unit="log return", on="market")
def market_trend_200(bars: BarBlock) -> FloatArray:
    """Distance of the log index from its mean of 200 sessions.

    Formula: L[t] - mean(L[t-199 .. t]), as the sum of (199-j) / 200 m[t-j], j = 0 .. 198.
    NaN: the market's first 199 bars.
    Reference: Faber (2007), A quantitative approach to tactical asset allocation, in logarithms.
    """
    return _above_mean_200(bars)


@feature(family="regime", inputs=("market_ret",), lookback=198, unit="-1, 0 or 1", on="market")
def market_trend_state(bars: BarBlock) -> FloatArray:
    """Whether the market goes up (1, bull), down (-1, bear) or sideways (0).

    Formula: 1 where L[t] and the mean of L over 50 sessions both lie above the mean of L over 200, -1 where both lie
        below it, else 0.
    NaN: the market's first 199 bars.
    Reference: the 50/200 crossover of Brock, Lakonishok and LeBaron (1992) together with the filter of Faber (2007).
    """
    level = _above_mean_200(bars)
    crossover = level - _above_mean_50(bars)  # mean over 50 minus mean over 200
    return 0.5 * (np.sign(level) + np.sign(crossover)) * (np.sign(level) == np.sign(crossover))


@feature(family="regime", inputs=("market_ret",), lookback=20, unit="log return", on="market")
def market_momentum_21(bars: BarBlock) -> FloatArray:
    """Return of the market over 21 sessions.

    Formula: L[t] - L[t-21], as the sum of m over t-20 .. t.
    NaN: the market's first 21 bars.
    Reference: definition.
    """
    return rolling_sum(_log_returns(bars), 21)


@feature(family="regime", inputs=("market_ret",), lookback=125, unit="log return", on="market")
def market_momentum_126(bars: BarBlock) -> FloatArray:
    """Return of the market over 126 sessions, half a year.

    Formula: L[t] - L[t-126], as the sum of m over t-125 .. t.
    NaN: the market's first 126 bars.
    Reference: as for market_momentum_252.
    """
    return rolling_sum(_log_returns(bars), 126)


@feature(family="regime", inputs=("market_ret",), lookback=251, unit="log return", on="market")
def market_momentum_252(bars: BarBlock) -> FloatArray:
    """Return of the market over 252 sessions, a year.

    Formula: L[t] - L[t-252], as the sum of m over t-251 .. t.
    NaN: the market's first 252 bars.
    Reference: Moskowitz, Ooi and Pedersen (2012), Time series momentum.
    """
    return rolling_sum(_log_returns(bars), 252)


@feature(family="regime", inputs=("market_ret",), lookback=250, unit="simple return, at most 0", on="market")
def market_drawdown_252(bars: BarBlock) -> FloatArray:
    """How far the index lies below its highest close of 252 sessions.

    Formula: exp(L[t] - max(L[t-251 .. t])) - 1.
    NaN: the market's first 251 bars.
    Reference: definition.
    """
    return exp(lowest_tail_sum(_log_returns(bars), 251)) - 1.0


@feature(family="regime", inputs=("market_up_share",), lookback=19, unit="fraction", on="market")
def market_breadth_20(bars: BarBlock) -> FloatArray:
    """Share of rising symbols, averaged over 20 sessions.

    Formula: mean over t-19 .. t of (symbols with a positive return / symbols with a return).
    NaN: the market's first 20 bars.
    Reference: definition (the advance-decline ratio as a fraction).
    """
    return rolling_mean(bars.column("market_up_share"), 20)


@feature(family="regime", inputs=("market_dispersion",), lookback=19, unit="simple return", on="market")
def market_dispersion_20(bars: BarBlock) -> FloatArray:
    """How far the symbols' returns lie apart, averaged over 20 sessions.

    Formula: mean over t-19 .. t of the population standard deviation of the simple returns across symbols.
    NaN: the market's first 20 bars.
    Reference: Stivers and Sun (2010), Cross-sectional return dispersion and time variation in value and momentum premiums.
    """
    return rolling_mean(bars.column("market_dispersion"), 20)


@feature(family="regime", inputs=("market_dispersion",), lookback=251, unit="ratio", on="market")
def market_dispersion_ratio(bars: BarBlock) -> FloatArray:
    """Dispersion of a month against that of a year.

    Formula: mean over t-19 .. t / mean over t-251 .. t of the dispersion across symbols (see market_dispersion_20).
    NaN: the market's first 252 bars; where the symbols have moved as one for 252 bars.
    Reference: as for market_dispersion_20.
    """
    dispersion = bars.column("market_dispersion")
    return ratio(rolling_mean(dispersion, 20), rolling_mean(dispersion, 252))


@feature(family="regime", inputs=("market_ret", "market_dispersion"), lookback=62, unit="0 .. 1", on="market")
def market_correlation_63(bars: BarBlock) -> FloatArray:
    """How much the symbols move together: variance of the market over the mean variance of its symbols.

    Formula: sum(r^2) / sum(r^2 + d^2) over t-62 .. t, r the market's simple return, d the dispersion across symbols:
        r^2 + d^2 is the mean of the symbols' squared returns. Where all are equally volatile it is their average
        correlation (1 / symbols for none); else the volatile ones count more.
    NaN: the market's first 63 bars; where no symbol has moved for 63 bars.
    Reference: Pollet and Wilson (2010), Average correlation and stock market returns.
    """
    market = bars.market_ret * bars.market_ret
    apart = bars.column("market_dispersion")
    return ratio(rolling_sum(market, 63), rolling_sum(market + apart * apart, 63))
