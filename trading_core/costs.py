"""What a trade costs: one object for the backtest, the planner, the paper broker and the thresholds.

All rates are in basis points (1 bps = 1e-4) of the traded notional. A buy executes at open * (1 + half spread +
slippage), a sell at open * (1 - half spread - slippage); commission is paid in cash on top.
"""

from __future__ import annotations

from dataclasses import dataclass

from trading_core.schema import Side


@dataclass(frozen=True, slots=True)
class CostModel:
    """Proportional costs per side of a trade, in bps of its notional. All rates must lie in [0, 1000]."""

    commission_bps: float = 1.0
    half_spread_bps: float = 2.0
    slippage_bps: float = 2.0

    def __post_init__(self) -> None:
        for name in ("commission_bps", "half_spread_bps", "slippage_bps"):
            rate = getattr(self, name)
            if not 0.0 <= rate <= 1000.0:
                raise ValueError(f"{name} is {rate}; it must lie between 0 and 1000 bps")

    @property
    def total_bps(self) -> float:
        """All costs of one side, in bps."""
        return self.commission_bps + self.half_spread_bps + self.slippage_bps

    def execution_price(self, side: Side, open_price: float) -> float:
        """The price per share at which a market order at the open executes, commission excluded."""
        sign = 1.0 if side is Side.BUY else -1.0
        return open_price * (1.0 + sign * (self.half_spread_bps + self.slippage_bps) * 1e-4)

    def commission(self, notional: float) -> float:
        """Commission in cash on `notional` = quantity * execution price."""
        return abs(notional) * self.commission_bps * 1e-4

    def cash_per_share(self, side: Side, open_price: float) -> float:
        """Cash that leaves (buy, positive) or arrives (sell, positive) per share, all costs included."""
        price = self.execution_price(side, open_price)
        sign = 1.0 if side is Side.BUY else -1.0
        return price * (1.0 + sign * self.commission_bps * 1e-4)


FREE = CostModel(commission_bps=0.0, half_spread_bps=0.0, slippage_bps=0.0)
