"""What a trade costs: one object for the backtest, the planner, the paper broker and the thresholds.

Rates are in basis points (1 bps = 1e-4). With `away` = half spread + slippage + impact, a buy executes at open * (1 + away),
a sell at open * (1 - away); commission is paid in cash on top.

The impact of Q shares is the square-root law, impact_coefficient * sigma * sqrt(Q / ADV), with sigma the daily volatility and
ADV the average daily volume, both over `LIQUIDITY_SESSIONS` up to the decision (Grinold & Kahn 2000, ch. 16: with a
coefficient of 1, trading a day's volume costs a day's volatility; Almgren et al. 2005 measure the same order).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from trading_core.schema import Side

LIQUIDITY_SESSIONS = 20  # about a month
RATES = (
    "commission_bps", "half_spread_bps", "slippage_bps", "impact_coefficient", "borrow_bps_annual", "interest_bps_annual",
)  # fmt: skip
DAYS_PER_YEAR = 365.0  # interest and borrowing fees accrue over calendar days (ACT/365)


class CostRates(NamedTuple):
    """The same as plain fractions, for compiled code. `participation` is infinite where nothing is capped."""

    commission: float
    concession: float  # half spread + slippage
    impact: float
    borrow: float  # a year
    interest: float  # a year
    participation: float
    buy: float  # cash that leaves per currency unit bought at the open, but for the impact
    sell: float  # cash that arrives per currency unit sold at the open, but for the impact


@dataclass(frozen=True, slots=True)
class CostModel:
    """Costs per side of a trade in bps of its notional, and what depends on size and time; all finite and not below 0.

    `impact_coefficient`: of the square-root law; 0: no impact. `max_participation`: the largest share of a session's volume
    that an order may fill, above 0 and up to 1; None: no cap. `borrow_bps_annual`: fee on the value of shares sold short;
    `interest_bps_annual`: earned on cash, proceeds of short sales included; cash below 0 costs nothing. What is plausible
    is bounded where a person writes it, in a market's config; a sensitivity may go beyond.
    """

    commission_bps: float = 1.0
    half_spread_bps: float = 2.0
    slippage_bps: float = 2.0
    impact_coefficient: float = 0.0
    max_participation: float | None = None
    borrow_bps_annual: float = 0.0
    interest_bps_annual: float = 0.0

    def __post_init__(self) -> None:
        for name in RATES:
            rate = getattr(self, name)
            if not (math.isfinite(rate) and rate >= 0.0):
                raise ValueError(f"{name} is {rate}; it must be a finite number of at least 0")
        if self.max_participation is not None and not 0.0 < self.max_participation <= 1.0:
            raise ValueError(f"max_participation is {self.max_participation}; it must lie above 0 and be at most 1")

    @property
    def total_bps(self) -> float:
        """All proportional costs of one side, in bps."""
        return self.commission_bps + self.half_spread_bps + self.slippage_bps

    @property
    def rates(self) -> CostRates:
        commission, concession = self.commission_bps * 1e-4, (self.half_spread_bps + self.slippage_bps) * 1e-4
        return CostRates(
            commission,
            concession,
            float(self.impact_coefficient),
            self.borrow_bps_annual * 1e-4,
            self.interest_bps_annual * 1e-4,
            math.inf if self.max_participation is None else float(self.max_participation),
            (1.0 + concession) * (1.0 + commission),
            (1.0 - concession) * (1.0 - commission),
        )

    @property
    def needs_liquidity(self) -> bool:
        """Whether a fill depends on the volatility and volume before it."""
        return self.impact_coefficient > 0.0

    @property
    def accrues(self) -> bool:
        """Whether an account changes over night."""
        return self.borrow_bps_annual > 0.0 or self.interest_bps_annual > 0.0

    def scaled(self, factor: float) -> CostModel:
        """All costs of trading and borrowing times `factor`, for sensitivities; interest and the volume cap stay."""
        return CostModel(
            self.commission_bps * factor,
            self.half_spread_bps * factor,
            self.slippage_bps * factor,
            self.impact_coefficient * factor,
            self.max_participation,
            self.borrow_bps_annual * factor,
            self.interest_bps_annual,
        )

    def execution_price(self, side: Side, open_price: float) -> float:
        """The price per share at which a small market order at the open executes, commission and impact excluded."""
        sign = 1.0 if side is Side.BUY else -1.0
        return open_price * (1.0 + sign * self.rates.concession)

    def commission(self, notional: float) -> float:
        """Commission in cash on `notional` = quantity * execution price."""
        return abs(notional) * self.rates.commission

    def cash_per_share(self, side: Side, open_price: float) -> float:
        """Cash that leaves (buy, positive) or arrives (sell, positive) per share, all proportional costs included."""
        return open_price * (self.rates.buy if side is Side.BUY else self.rates.sell)


FREE = CostModel(commission_bps=0.0, half_spread_bps=0.0, slippage_bps=0.0)
