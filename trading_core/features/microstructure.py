"""What trading costs and who trades when, as far as daily bars can tell. Family `microstructure`.

Feature contract: `trading_core.features.registry`.
"""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.common import (
    dollar_volume,
    intraday_log,
    last_close,
    log_close,
    log_high,
    log_low,
    log_returns,
    overnight_log,
)
from trading_core.features.kernels import (
    diff,
    exp,
    log,
    normal_cdf,
    ratio,
    rolling_joint,
    rolling_mean,
    rolling_mean_std,
    rolling_sum,
    shift,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.features.volatility import deviation_20
from trading_core.schema import FloatArray

_CORWIN_SCHULTZ = 3.0 - 2.0 * math.sqrt(2.0)


@shared
def illiquidity(bars: BarBlock) -> FloatArray:
    """|log return| per unit of money traded, 0 where nothing was traded."""
    return ratio(np.abs(log_returns(bars)), dollar_volume(bars), undefined=0.0)


def _mean_where(values: FloatArray, counts: FloatArray, window: int) -> FloatArray:
    """Mean of the last `window` values where counts is 1; values are 0 where it is 0."""
    return ratio(rolling_sum(values, window), rolling_sum(counts, window))


@feature(family="microstructure", inputs=("close", "volume"), lookback=252, unit="ratio")
def amihud_20(bars: BarBlock) -> FloatArray:
    """Illiquidity of a month against that of the year.

    Formula: mean over t-19 .. t of |r| / (close volume) / its mean over t-251 .. t, r the log returns; sessions without
        volume do not count. Amihud's measure itself has the unit 1 / currency: only its ratio is scale-free.
    NaN: the first 252 rows; where nothing was traded for 20 sessions; where the price has not moved for 252.
    Reference: Amihud (2002), Illiquidity and stock returns: cross-section and time-series effects.
    """
    values = illiquidity(bars)
    traded = np.where(dollar_volume(bars) > 0.0, 1.0, 0.0)
    return ratio(_mean_where(values, traded, 20), _mean_where(values, traded, 252))


@feature(family="microstructure", inputs=("close",), lookback=21, unit="fraction of the price")
def roll_spread_20(bars: BarBlock) -> FloatArray:
    """Effective spread by the bounce of the closes over 20 sessions.

    Formula: 2 sqrt(-c), c the sample covariance (divisor 19) of the log returns of i and i-1, i = t-19 .. t; 0 where
        c > 0.
    NaN: the first 21 rows.
    Reference: Roll (1984), A simple implicit measure of the effective bid-ask spread in an efficient market; 0 for a
        positive covariance as Goyenko, Holden and Trzcinka (2009).
    """
    moves = log_returns(bars)
    covariance = rolling_joint(moves, shift(moves, 1), 20)[2] / 19.0
    return 2.0 * np.sqrt(np.maximum(-covariance, 0.0))


@shared
def overnight_shift(bars: BarBlock) -> FloatArray:
    """What to add to a session's prices so that its range reaches the close before, in the price's currency."""
    last = last_close(bars)
    return np.maximum(last - bars.high, 0.0) - np.maximum(bars.low - last, 0.0)


@feature(family="microstructure", inputs=("high", "low", "close"), lookback=20, unit="fraction of the price")
def corwin_schultz_20(bars: BarBlock) -> FloatArray:
    """Spread by the ranges of one and of two sessions, mean of 20 sessions.

    Formula: mean of max(S, 0), S = 2 (e^a - 1) / (1 + e^a), a = (sqrt(2 b) - sqrt(b)) / k - sqrt(g / k), k = 3 - 2 sqrt 2,
        b the sum of ln(high / low)^2 of i-1 and i, g that of both sessions together, i = t-19 .. t. After a gap the
        range of i is first shifted to reach the close of i-1.
    NaN: the first 20 rows.
    Reference: Corwin and Schultz (2012), A simple way to estimate bid-ask spreads from daily high and low prices.
    """
    gap = overnight_shift(bars)
    high, low = log(bars.high + gap), log(bars.low + gap)
    before = log_high(bars) - log_low(bars)
    single = shift(before * before, 1) + (high - low) * (high - low)
    double = np.maximum(high, shift(log_high(bars), 1)) - np.minimum(low, shift(log_low(bars), 1))
    root = (math.sqrt(2.0) - 1.0) / _CORWIN_SCHULTZ * np.sqrt(single) - double / math.sqrt(_CORWIN_SCHULTZ)
    grown = exp(root)
    return rolling_mean(np.maximum(ratio(2.0 * (grown - 1.0), 1.0 + grown), 0.0), 20)


@feature(family="microstructure", inputs=("high", "low", "close"), lookback=20, unit="fraction of the price")
def abdi_ranaldo_20(bars: BarBlock) -> FloatArray:
    """Spread by the close between two mid-ranges, mean of 20 sessions.

    Formula: mean of sqrt(max(4 (c[i-1] - m[i-1]) (c[i-1] - m[i]), 0)), c = ln close, m = (ln high + ln low) / 2,
        i = t-19 .. t: the two-day corrected version.
    NaN: the first 20 rows.
    Reference: Abdi and Ranaldo (2017), A simple estimation of bid-ask spreads from daily close, high, and low prices.
    """
    middle = 0.5 * (log_high(bars) + log_low(bars))
    above = shift(log_close(bars) - middle, 1)
    square = 4.0 * above * (shift(log_close(bars), 1) - middle)
    return rolling_mean(np.sqrt(np.maximum(square, 0.0)), 20)


@feature(family="microstructure", inputs=("close", "volume"), lookback=20, unit="log return per typical session")
def kyle_lambda_20(bars: BarBlock) -> FloatArray:
    """Price impact over 20 sessions, for what is traded in a typical one: a proxy of Kyle's lambda.

    Formula: slope of r on x times the mean of |x|, least squares with a constant over t-19 .. t; r the log returns,
        x = sign(r) sqrt(close volume). The sign of the return stands for that of the order flow.
    NaN: the first 20 rows; where x does not vary.
    Reference: Kyle (1985), Continuous auctions and insider trading; the square root as Hasbrouck (2009), Trading costs
        and returns for U.S. equities.
    """
    moves = log_returns(bars)
    root = np.sqrt(dollar_volume(bars))
    flow = np.sign(moves) * root
    joint = rolling_joint(flow, moves, 20)
    return ratio(joint[2], joint[0]) * rolling_mean(np.abs(flow), 20)


@feature(family="microstructure", inputs=("close", "volume"), lookback=39, unit="0 .. 1")
def vpin_20(bars: BarBlock) -> FloatArray:
    """Imbalance of bought and sold volume over 20 sessions, a proxy of the probability of informed trading.

    Formula: sum(volume |2 F(r / s) - 1|) / sum(volume) over t-19 .. t, F the normal distribution function, r the log
        returns, s[i] the sample deviation of those of i-19 .. i; sessions (not equal volumes) are the buckets.
    NaN: the first 39 rows; where nothing was traded for 20 sessions; where s is 0 in one of them.
    Reference: Easley, Lopez de Prado and O'Hara (2012), Flow toxicity and liquidity in a high-frequency world.
    """
    bought = normal_cdf(ratio(log_returns(bars), deviation_20(bars)))
    return ratio(rolling_sum(bars.volume * np.abs(2.0 * bought - 1.0), 20), rolling_sum(bars.volume, 20))


@feature(family="microstructure", inputs=("open", "close"), lookback=20, unit="log return per session")
def overnight_minus_intraday_20(bars: BarBlock) -> FloatArray:
    """Return of the nights minus that of the days, mean of 20 sessions.

    Formula: mean of ln(open[i] / close[i-1]) - ln(close[i] / open[i]), i = t-19 .. t.
    NaN: the first 20 rows.
    Reference: Lou, Polk and Skouras (2019), A tug of war: overnight versus intraday expected returns.
    """
    return rolling_mean(overnight_log(bars) - intraday_log(bars), 20)


@feature(family="microstructure", inputs=("open", "close"), lookback=20, unit="-1 .. 1")
def intraday_momentum_share_20(bars: BarBlock) -> FloatArray:
    """Net move of the days as a share of the whole path of 20 sessions: 1 the days alone carried the price up.

    Formula: sum(d) / sum(|n| + |d|), n = ln(open[i] / close[i-1]), d = ln(close[i] / open[i]), i = t-19 .. t; 0 where the
        price has not moved.
    NaN: the first 20 rows.
    Reference: as for overnight_minus_intraday_20.
    """
    night, day = overnight_log(bars), intraday_log(bars)
    return ratio(rolling_sum(day, 20), rolling_sum(np.abs(night) + np.abs(day), 20), undefined=0.0)


@feature(family="microstructure", inputs=("open", "close"), lookback=20, unit="correlation")
def night_day_corr_20(bars: BarBlock) -> FloatArray:
    """Whether the day goes on where the night led (1) or takes it back (-1): correlation over 20 sessions.

    Formula: Pearson's correlation of ln(open[i] / close[i-1]) and ln(close[i] / open[i]), i = t-19 .. t.
    NaN: the first 20 rows; where one of the two does not vary.
    Reference: Akbas, Boehmer, Jiang and Koch (2022), Overnight returns, daytime reversals, and future stock returns.
    """
    joint = rolling_joint(overnight_log(bars), intraday_log(bars), 20)
    return ratio(joint[2], np.sqrt(joint[0]) * np.sqrt(joint[1]))


@feature(family="microstructure", inputs=("high", "low", "close"), lookback=19, unit="fraction of the range")
def close_location_20(bars: BarBlock) -> FloatArray:
    """Where in the bar's range the close lies, mean of 20 sessions: 0 at the low, 1 at the high.

    Formula: mean of (close - low) / (high - low) over t-19 .. t; 0.5 for a bar with high = low.
    NaN: the first 19 rows.
    Reference: as for close_location.
    """
    return rolling_mean(ratio(bars.close - bars.low, bars.high - bars.low, undefined=0.5), 20)


@feature(family="microstructure", inputs=("open", "high", "low", "close"), lookback=19, unit="0 .. 1")
def body_range_ratio_20(bars: BarBlock) -> FloatArray:
    """Open-to-close moves over the ranges they were made in, 20 sessions: low when the price goes to and fro.

    Formula: sum(|close - open|) / sum(high - low) over t-19 .. t; 0 where no bar had a range.
    NaN: the first 19 rows.
    Reference: the efficiency ratio of Kaufman (1995), net move over path, with the bar's range for the path.
    """
    body = rolling_sum(np.abs(bars.close - bars.open), 20)
    return ratio(body, rolling_sum(bars.high - bars.low, 20), undefined=0.0)


@feature(family="microstructure", inputs=("close",), lookback=39, unit="0 .. 1")
def quiet_share_20(bars: BarBlock) -> FloatArray:
    """Share of the last 20 sessions in which the price hardly moved.

    Formula: share of i = t-19 .. t with |r[i]| <= 0.1 s[i], r the log returns, s[i] the sample deviation of those of
        i-19 .. i. Returns of exactly 0 are among them; alone they have become rare since prices move by the cent.
    NaN: the first 39 rows.
    Reference: Lesmond, Ogden and Trzcinka (1999), A new estimate of transaction costs, the share of zero returns.
    """
    moves, deviation = np.abs(log_returns(bars)), deviation_20(bars)
    quiet = np.where(moves <= 0.1 * deviation, 1.0, 0.0) + (deviation - deviation)
    return rolling_mean(quiet, 20)


@feature(family="microstructure", inputs=("close",), lookback=63, unit="ratio")
def variance_ratio_5_63(bars: BarBlock) -> FloatArray:
    """Variance of a week's return against five times a day's over 63 sessions: above 1 trending, below 1 reverting.

    Formula: V(5) / V(1) over the log returns of t-62 .. t with mean m: V(1) = sum((r - m)^2) / 62,
        V(5) = sum((R - 5 m)^2) / (5 (63 - 5 + 1) (1 - 5 / 63)), R the 59 overlapping sums of 5 returns.
    NaN: the first 63 rows; where the 63 returns are all equal.
    Reference: Lo and MacKinlay (1988), Stock market prices do not follow random walks, the unbiased overlapping form.
    """
    mean, deviation = rolling_mean_std(log_returns(bars), 63, ddof=1)
    week_mean, week_deviation = rolling_mean_std(diff(log_close(bars), 5), 59, ddof=0)
    drift = week_mean - 5.0 * mean
    week = 59.0 * (week_deviation * week_deviation + drift * drift) / (5.0 * 59.0 * (1.0 - 5.0 / 63.0))
    return ratio(week, deviation * deviation)
