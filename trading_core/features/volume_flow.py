"""In which direction is traded. Family `volume`. Feature contract: `trading_core.features.registry`.

Lines that run on for ever (on-balance volume, accumulation/distribution, price-volume trend) appear as their changes or
slopes within a window, over mean volume: where such a line began says nothing, and its level has a unit.
"""

from __future__ import annotations

import numpy as np

from trading_core.features.common import WILDER_ROWS, atr_currency_14, returns, span, typical_price
from trading_core.features.kernels import (
    diff,
    ewm_mean,
    ewm_window,
    ratio,
    rolling_mean,
    rolling_sum,
    slope_of_sum,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.features.volume import mean_volume_20
from trading_core.schema import FloatArray

_LEFT_OUT = 1e-9  # of averages of heavy-tailed series: far moves come with high volume
_FORCE_ROWS = ewm_window(span(13), _LEFT_OUT)
_CHAIKIN_ROWS = ewm_window(span(10), _LEFT_OUT) - 1


@shared
def money_flow(bars: BarBlock) -> FloatArray:
    """Close location value, -1 at the low to 1 at the high and 0 without a range, times volume: the steps of A/D."""
    width = bars.high - bars.low
    return ratio((bars.close - bars.low) - (bars.high - bars.close), width, undefined=0.0) * bars.volume


@shared
def signed_volume(bars: BarBlock) -> FloatArray:
    """Volume with the sign of the close's change, the steps of the on-balance volume; NaN in the first row."""
    return np.sign(diff(bars.close)) * bars.volume


@feature(family="volume", inputs=("close", "volume"), lookback=20, unit="mean sessions of volume")
def obv_change_20(bars: BarBlock) -> FloatArray:
    """Change of the on-balance volume over 20 sessions, from -20 (all falling) to 20.

    Formula: sum(sign(close[i] - close[i-1]) volume[i]) / mean(volume[i]), i = t-19 .. t.
    NaN: the first 20 rows; where nothing was traded for 20 sessions.
    Reference: Granville (1963); times the mean it is the change of TA-Lib OBV.
    """
    return ratio(rolling_sum(signed_volume(bars), 20), mean_volume_20(bars))


@feature(family="volume", inputs=("close", "volume"), lookback=19, unit="mean volumes per session")
def obv_slope_20(bars: BarBlock) -> FloatArray:
    """Slope of the on-balance volume over 20 sessions.

    Formula: least-squares slope per session of OBV[t-19 .. t] / mean(volume[t-19 .. t]).
    NaN: the first 19 rows; where nothing was traded for 20 sessions.
    Reference: Granville (1963); times the mean it is TA-Lib LINEARREG_SLOPE(20) of OBV.
    """
    return ratio(slope_of_sum(signed_volume(bars), 20), mean_volume_20(bars))


@feature(family="volume", inputs=("close", "volume"), lookback=20, unit="0 .. 1")
def up_volume_share_20(bars: BarBlock) -> FloatArray:
    """Share of rising sessions in the volume of 20 sessions; U / (1 - U) is the ratio of up to down volume.

    Formula: U = sum(volume where close[i] > close[i-1]) / sum(volume where close[i] != close[i-1]), i = t-19 .. t; 0.5
        where the sum below is 0.
    NaN: the first 20 rows.
    Reference: the up/down volume ratio of O'Neil (1988), there over 50 sessions.
    """
    signed = signed_volume(bars)
    return ratio(rolling_sum(np.maximum(signed, 0.0), 20), rolling_sum(np.abs(signed), 20), undefined=0.5)


@feature(family="volume", inputs=("close", "volume"), lookback=20, unit="simple return times mean sessions of volume")
def pvt_change_20(bars: BarBlock) -> FloatArray:
    """Change of the price-volume trend over 20 sessions.

    Formula: sum((close[i] / close[i-1] - 1) volume[i]) / mean(volume[i]), i = t-19 .. t.
    NaN: the first 20 rows; where nothing was traded for 20 sessions.
    Reference: the on-balance volume of Granville (1963) with the return in place of its sign.
    """
    return ratio(rolling_sum(returns(bars) * bars.volume, 20), mean_volume_20(bars))


@feature(family="volume", inputs=("high", "low", "close", "volume"), lookback=19, unit="mean sessions of volume")
def ad_change_5(bars: BarBlock) -> FloatArray:
    """Change of the accumulation/distribution line over 5 sessions.

    Formula: sum(((c - l) - (h - c)) / (h - l) volume over t-4 .. t) / mean(volume[t-19 .. t]); 0 for a bar with h = l.
    NaN: the first 19 rows; where nothing was traded for 20 sessions.
    Reference: Chaikin; times the mean it is the change of TA-Lib AD.
    """
    return ratio(rolling_sum(money_flow(bars), 5), mean_volume_20(bars))


@feature(family="volume", inputs=("high", "low", "close", "volume"), lookback=19, unit="-1 .. 1")
def cmf_20(bars: BarBlock) -> FloatArray:
    """Chaikin's money flow over 20 sessions: -1 all closes at the low, 1 all at the high.

    Formula: sum(((c - l) - (h - c)) / (h - l) volume) / sum(volume) over t-19 .. t; 0 for a bar with h = l.
    NaN: the first 19 rows; where nothing was traded for 20 sessions.
    Reference: Chaikin; 20 sessions of the change of TA-Lib AD over the volume.
    """
    return ratio(rolling_sum(money_flow(bars), 20), rolling_sum(bars.volume, 20))


@feature(family="volume", inputs=("high", "low", "close", "volume"), lookback=_CHAIKIN_ROWS, unit="mean volumes")
def chaikin_osc(bars: BarBlock) -> FloatArray:
    """Chaikin's oscillator (3, 10) over the mean volume.

    Formula: (EMA(AD, 3) - EMA(AD, 10)) / mean(volume[t-19 .. t]). With f the steps of AD, AD - EMA(AD, n) is the sum of
        d^(k+1) f[t-k], d = (n - 1) / (n + 1), so the difference is 4.5 EMA(f, 10) - EMA(f, 3), truncated to 104 rows.
    NaN: the first 19 rows; where nothing was traded for 20 sessions.
    Reference: Chaikin; times the mean it is TA-Lib ADOSC(3, 10), once that has forgotten its seed.
    """
    flow = money_flow(bars)
    slow, fast = ewm_mean(flow, span(10), 10, _LEFT_OUT), ewm_mean(flow, span(3), 10, _LEFT_OUT)
    return ratio(4.5 * slow - fast, mean_volume_20(bars))


@feature(family="volume", inputs=("close", "volume"), lookback=_FORCE_ROWS, unit="-1 .. 1")
def force_index_13(bars: BarBlock) -> FloatArray:
    """Force index over 13 sessions, as the share of the force that pushed up: -1 all down, 1 all up.

    Formula: EMA(f, 13) / EMA(|f|, 13), f = (close[i] - close[i-1]) volume[i], truncated to 135 changes; 0 where the price
        has not moved.
    NaN: the first 13 rows.
    Reference: Elder (1993), Trading for a living; the denominator takes the unit away.
    """
    force = diff(bars.close) * bars.volume
    net = ewm_mean(force, span(13), 13, _LEFT_OUT)
    return ratio(net, ewm_mean(np.abs(force), span(13), 13, _LEFT_OUT), undefined=0.0)


@feature(family="volume", inputs=("high", "low", "close", "volume"), lookback=WILDER_ROWS, unit="squared ATRs")
def ease_of_movement_14(bars: BarBlock) -> FloatArray:
    """Ease of movement over 14 sessions: far on little volume.

    Formula: mean over t-13 .. t of (m[i] - m[i-1]) (high[i] - low[i]) / volume[i], m = (high + low) / 2, times
        mean(volume[t-19 .. t]) / ATR(14)^2, ATR as in atr_14; a session without volume counts 0.
    NaN: the first 19 rows; where the price has not moved in any row of the ATR.
    Reference: Arms (1983), Volume cycles in the stock market; mean volume and ATR take the unit away.
    """
    middle = 0.5 * (bars.high + bars.low)
    ease = ratio(diff(middle) * (bars.high - bars.low), bars.volume, undefined=0.0)
    scale = atr_currency_14(bars)
    return ratio(rolling_mean(ease, 14) * mean_volume_20(bars), scale * scale)


@feature(family="volume", inputs=("high", "low", "close", "volume"), lookback=19, unit="simple return")
def vwap_dist_20(bars: BarBlock) -> FloatArray:
    """Distance of the close from the volume-weighted price of 20 sessions.

    Formula: close[t] / (sum(p volume) / sum(volume)) - 1 over t-19 .. t, p = (high + low + close) / 3 in place of the
        prices within the session, which bars do not tell.
    NaN: the first 19 rows; where nothing was traded for 20 sessions.
    Reference: Berkowitz, Logue and Noser (1988), The total cost of transactions on the NYSE.
    """
    paid = rolling_sum(typical_price(bars) * bars.volume, 20)
    return ratio(bars.close * rolling_sum(bars.volume, 20), paid) - 1.0
