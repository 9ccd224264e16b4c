"""Window kernels: the arithmetic that every feature is made of.

An array holds one symbol per row and its bars, oldest first, along the last axis: [S, R] float64, NaN = missing.

The same bar must give the same bits whether it is computed alone, in a month or in ten years. So the value at t is always a
function of exactly the last `window` bars, reached by a fixed tree (or a fixed loop) of operations: never a running sum
(what was added and taken away leaves its rounding behind, so the result depends on where the frame began), never a library
reduction, whose order follows the memory layout, and never "fast math", which lets the compiler choose the order. By the
tree a window of L costs about 2 log2(L) passes: what is known of 1, 2, 4 ... bars is joined to what is known of L.

Kernels are compiled by numba, run outside Python's lock, and kept on disk: the first call after a change compiles.
"""

from trading_core.features.kernels.across import (
    Section,
    excess_across,
    excess_in_sector,
    mean_across,
    rank_across,
    rank_in_sector,
    std_across,
    zscore_across,
)
from trading_core.features.kernels.adaptive import adaptive_mean
from trading_core.features.kernels.averages import (
    TRUNCATED_WEIGHT,
    ewm_mean,
    ewm_window,
    garch_variance,
    prequential_garch,
)
from trading_core.features.kernels.compiled import compiled, fixed
from trading_core.features.kernels.entropy import rolling_entropy
from trading_core.features.kernels.joint import lowest_tail_sum, rolling_joint
from trading_core.features.kernels.lags import change, diff, exp, log, normal_cdf, ratio, shift
from trading_core.features.kernels.moments import (
    Comoments,
    rolling_comoments,
    rolling_kurtosis,
    rolling_mean_std,
    rolling_skew,
    rolling_skew_kurtosis,
    rolling_std,
)
from trading_core.features.kernels.order import (
    bars_since_max,
    bars_since_min,
    rolling_mean_deviation,
    rolling_rank,
    streak,
)
from trading_core.features.kernels.paths import rolling_max_drawdown, slope_of_sum
from trading_core.features.kernels.quantiles import rolling_quantile, rolling_quantiles
from trading_core.features.kernels.trendline import rolling_trend
from trading_core.features.kernels.windows import (
    rolling_max,
    rolling_mean,
    rolling_min,
    rolling_sum,
    weighted_mean,
)

__all__ = [
    "TRUNCATED_WEIGHT",
    "Comoments",
    "Section",
    "adaptive_mean",
    "bars_since_max",
    "bars_since_min",
    "change",
    "compiled",
    "diff",
    "ewm_mean",
    "ewm_window",
    "excess_across",
    "excess_in_sector",
    "exp",
    "fixed",
    "garch_variance",
    "log",
    "lowest_tail_sum",
    "mean_across",
    "normal_cdf",
    "prequential_garch",
    "rank_across",
    "rank_in_sector",
    "ratio",
    "rolling_comoments",
    "rolling_entropy",
    "rolling_joint",
    "rolling_kurtosis",
    "rolling_max",
    "rolling_max_drawdown",
    "rolling_mean",
    "rolling_mean_deviation",
    "rolling_mean_std",
    "rolling_min",
    "rolling_quantile",
    "rolling_quantiles",
    "rolling_rank",
    "rolling_skew",
    "rolling_skew_kurtosis",
    "rolling_std",
    "rolling_sum",
    "rolling_trend",
    "shift",
    "slope_of_sum",
    "std_across",
    "streak",
    "weighted_mean",
    "zscore_across",
]
