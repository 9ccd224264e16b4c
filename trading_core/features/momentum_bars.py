"""Momentum from the whole bar: stochastics and other oscillators. Feature contract: `trading_core.features.registry`.

Williams' %R over 14 sessions is stoch_k_14 - 100: it is left out.
"""

from __future__ import annotations

import numpy as np

from trading_core.features.common import last_close, span, true_range, typical_price
from trading_core.features.kernels import (
    diff,
    ewm_mean,
    ewm_window,
    ratio,
    rolling_max,
    rolling_mean,
    rolling_mean_deviation,
    rolling_mean_std,
    rolling_min,
    rolling_sum,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray

_ELDER_ROWS = ewm_window(span(13)) - 1
# Typical prices that differ by less than this share are equal: (66.6 + 66.09 + 66.15) / 3 and (66.57 + 65.96 + 66.31) / 3
# are the same price and not the same double.
_SAME_PRICE = 1e-12


@shared
def _stoch_k_14(bars: BarBlock) -> FloatArray:
    lowest = rolling_min(bars.low, 14)
    return ratio(100.0 * (bars.close - lowest), rolling_max(bars.high, 14) - lowest, undefined=50.0)


@shared
def _stoch_slow_k(bars: BarBlock) -> FloatArray:
    return rolling_mean(_stoch_k_14(bars), 3)


@shared
def _buying_pressure(bars: BarBlock) -> FloatArray:
    """Close above the lower of the bar's low and the close before, in the price's currency."""
    return bars.close - np.minimum(bars.low, last_close(bars))


@shared
def _ema_13(bars: BarBlock) -> FloatArray:
    return ewm_mean(bars.close, span(13), 13)


def _pressure(bars: BarBlock, window: int) -> FloatArray:
    """Share of the true range of the last `window` bars that was bought; 0 when there was no range."""
    return ratio(rolling_sum(_buying_pressure(bars), window), rolling_sum(true_range(bars), window), undefined=0.0)


@feature(family="momentum", inputs=("high", "low", "close"), lookback=13, unit="0 .. 100")
def stoch_k_14(bars: BarBlock) -> FloatArray:
    """Fast stochastic %K: where the close lies in the range of 14 sessions (Williams %R is this minus 100).

    Formula: 100 (close - low14) / (high14 - low14), low14 and high14 over t-13 .. t; 50 when they are equal.
    NaN: the first 13 rows.
    Reference: Lane (1984); TA-Lib STOCHF(14) and WILLR(14).
    """
    return _stoch_k_14(bars)


@feature(family="momentum", inputs=("high", "low", "close"), lookback=15, unit="0 .. 100")
def stoch_slow_k_14(bars: BarBlock) -> FloatArray:
    """Slow stochastic %K.

    Formula: mean of stoch_k_14 over 3 sessions.
    NaN: the first 15 rows.
    Reference: as for stoch_k_14; TA-Lib STOCH(14, 3, 3) slow K (which takes 0 for a bar without a range, not 50).
    """
    return _stoch_slow_k(bars)


@feature(family="momentum", inputs=("high", "low", "close"), lookback=17, unit="0 .. 100")
def stoch_slow_d_14(bars: BarBlock) -> FloatArray:
    """Slow stochastic %D, the signal line of slow %K.

    Formula: mean of stoch_slow_k_14 over 3 sessions.
    NaN: the first 17 rows.
    Reference: as for stoch_slow_k_14; TA-Lib STOCH(14, 3, 3) slow D.
    """
    return rolling_mean(_stoch_slow_k(bars), 3)


@feature(family="momentum", inputs=("high", "low", "close"), lookback=19, unit="0.015 mean deviations")
def cci_20(bars: BarBlock) -> FloatArray:
    """Commodity channel index over 20 sessions: the typical price against its mean.

    Formula: (p[t] - m) / (0.015 d), p = (high + low + close) / 3, mean m and mean absolute deviation d of p[t-19 .. t];
        0 when they are all equal.
    NaN: the first 19 rows.
    Reference: Lambert (1980), Commodity channel index; TA-Lib CCI(20).
    """
    price = typical_price(bars)
    # This mean, unlike a sum over 20, is exact where all prices are equal: the index is then 0 and not rounding noise.
    mean, _ = rolling_mean_std(price, 20, ddof=0)
    return ratio(price - mean, 0.015 * rolling_mean_deviation(price, 20), undefined=0.0)


@feature(family="momentum", inputs=("high", "low", "close", "volume"), lookback=14, unit="0 .. 100")
def mfi_14(bars: BarBlock) -> FloatArray:
    """Money flow index over 14 sessions: the share of what was traded at a rising typical price.

    Formula: 100 P / (P + N), P and N the sums of p[i] volume[i] over the bars of t-13 .. t with p[i] above and below
        p[i-1], p = (high + low + close) / 3 (equal within 1e-12 of p is neither); 50 when nothing was traded at a moving price.
    NaN: the first 14 rows.
    Reference: Quong and Soudack (1989), Volume-weighted RSI: money flow; TA-Lib MFI(14) (which says 0 instead of 50).
    """
    price = typical_price(bars)
    move = diff(price)
    flow = np.sign(move) * (np.abs(move) > _SAME_PRICE * price) * price * bars.volume
    inward, outward = rolling_sum(np.maximum(flow, 0.0), 14), rolling_sum(np.maximum(-flow, 0.0), 14)
    return ratio(100.0 * inward, inward + outward, undefined=50.0)


@feature(family="momentum", inputs=("high", "low", "close"), lookback=28, unit="0 .. 100")
def ultosc_7_14_28(bars: BarBlock) -> FloatArray:
    """Ultimate oscillator: buying pressure over three horizons.

    Formula: 100 (4 A7 + 2 A14 + A28) / 7, An = sum of close - min(low, close[t-1]) over sum of the true range, n bars;
        0 for a horizon without a range.
    NaN: the first 28 rows.
    Reference: Williams (1985), The ultimate oscillator; TA-Lib ULTOSC(7, 14, 28).
    """
    return (400.0 * _pressure(bars, 7) + 200.0 * _pressure(bars, 14) + 100.0 * _pressure(bars, 28)) / 7.0


@feature(family="momentum", inputs=("open", "high", "low", "close"), lookback=0, unit="-1 .. 1")
def bop(bars: BarBlock) -> FloatArray:
    """Balance of power: what the bar gained from its open, over its range.

    Formula: (close - open) / (high - low); 0 when high = low.
    NaN: never, on complete bars.
    Reference: Livshin (2001), Balance of market power; TA-Lib BOP.
    """
    return ratio(bars.close - bars.open, bars.high - bars.low, undefined=0.0)


@feature(family="momentum", inputs=("high", "low", "close"), lookback=33, unit="fraction of the close")
def awesome_osc(bars: BarBlock) -> FloatArray:
    """Awesome oscillator over the close: the bars' middles of a week against those of 34 sessions.

    Formula: (mean(m, 5) - mean(m, 34)) / close, m = (high + low) / 2.
    NaN: the first 33 rows.
    Reference: Williams (1998), New trading dimensions.
    """
    middle = (bars.high + bars.low) / 2.0
    return ratio(rolling_mean(middle, 5) - rolling_mean(middle, 34), bars.close)


@feature(family="momentum", inputs=("high", "close"), lookback=_ELDER_ROWS, unit="fraction of the close")
def bull_power_13(bars: BarBlock) -> FloatArray:
    """Elder's bull power over the close: how far above their average the buyers lift the price.

    Formula: (high - EMA(close, 13)) / close, truncated to `ewm_window` rows.
    NaN: the first 12 rows.
    Reference: Elder (1993), Trading for a living.
    """
    return ratio(bars.high - _ema_13(bars), bars.close)


@feature(family="momentum", inputs=("low", "close"), lookback=_ELDER_ROWS, unit="fraction of the close")
def bear_power_13(bars: BarBlock) -> FloatArray:
    """Elder's bear power over the close: how far below their average the sellers press the price.

    Formula: (low - EMA(close, 13)) / close, truncated to `ewm_window` rows.
    NaN: the first 12 rows.
    Reference: as for bull_power_13.
    """
    return ratio(bars.low - _ema_13(bars), bars.close)
