"""What happens to an account between D's close and T's open, before T's corporate actions: interest and borrowing fees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trading_core.costs import CostModel
from trading_core.errors import NoDataError
from trading_core.portfolio.auction import Liquidity
from trading_core.portfolio.kernels import account as kernels


@dataclass(frozen=True, slots=True)
class Night:
    """What an account's costs depend on besides T's prices.

    `years`: calendar time since the session before, in years of 365 days. `marks`: the last known close at D by symbol, in
    D's basis. `liquidity`: by symbol, in T's basis.
    """

    years: float = 0.0
    marks: Mapping[str, float] = field(default_factory=dict)
    liquidity: Mapping[str, Liquidity] = field(default_factory=dict)


QUIET = Night()  # nothing accrues, and nothing is known of the volume


def accrue(holdings: Mapping[str, float], cash: float, night: Night, costs: CostModel) -> tuple[float, float]:
    """Interest earned on `cash` and the fee for shares sold short, both in currency and not below 0.

    Errors: NoDataError when a short position has no known price.
    """
    symbols = sorted(holdings)
    marks = np.array([float(night.marks.get(symbol, math.nan)) for symbol in symbols])
    quantities = np.array([float(holdings[symbol]) for symbol in symbols])
    if costs.borrow_bps_annual > 0 and bool((~np.isfinite(marks[quantities < 0])).any()):
        lacking = symbols[int(np.flatnonzero((quantities < 0) & ~np.isfinite(marks))[0])]
        raise NoDataError(
            f"The short position in {lacking} has no known price to charge its fee by", "Backfill its bars."
        )
    interest, fee = kernels.accrue(quantities, marks, float(cash), float(night.years), costs.rates)
    return float(interest), float(fee)
