"""Adjusted bars -> scale-free features: one small function per feature, a registry, the build.

Importing the package registers every family; a new family is one more line here.
"""

from trading_core.features import (  # noqa: F401
    calendar,
    cross_section,
    momentum,
    price_action,
    returns,
    trend,
    volatility,
    volume,
)
