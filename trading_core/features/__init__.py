"""Adjusted bars -> scale-free features: one small function per feature, a registry, the build.

Importing the package registers every family, and what makes the derived inputs; a new family is one more line here.
"""

from trading_core.features import (  # noqa: F401
    calendar,
    calendar_sessions,
    cross_section,
    cross_section_market,
    market_inputs,
    microstructure,
    momentum,
    momentum_bars,
    price_action,
    price_action_levels,
    price_action_patterns,
    regime,
    returns,
    statistics,
    statistics_returns,
    trend,
    trend_ranges,
    trend_strength,
    volatility,
    volatility_model,
    volatility_range,
    volume,
    volume_flow,
)
