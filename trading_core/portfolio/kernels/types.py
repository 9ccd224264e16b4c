"""What the kernels hand to each other: flags, and parameters as named tuples of numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

# How targets follow from signals, see `Allocation`.
GIVEN, TOP_K, SLOTS, WEIGHTS, HOLD = 0, 1, 2, 3, 4
SPLIT, DIVIDEND, DELISTING = 0, 1, 2  # corporate actions, in the order in which one symbol's are applied on a day
# What happened to an order: flags, since more than one may apply.
NO_TRADE, NOTHING_HELD, NO_CASH, PART_HELD, SHRUNK, VOLUME_CAP, NO_LIQUIDITY = 1, 2, 4, 8, 16, 32, 64
# The risk rules, in the order in which they are applied: what each order may be, then what all of them together may be.
# The last one, MIN_ORDER_NOTIONAL, is asked after every cut of the others.
RULES = 10
(
    UNKNOWN_PRICE, RESTRICTED, MAX_ORDER_NOTIONAL, MAX_VOLUME_SHARE, MAX_POSITION, MAX_NAMES, MAX_GROSS, MAX_TURNOVER,
    MAX_NET, MIN_ORDER_NOTIONAL,
) = range(RULES)  # fmt: skip
SLACK = 1e-9  # a limit met exactly is not exceeded by float noise
TRADE_FIELDS = (
    8  # row of D, column, signed quantity, price, commission, reference price, price before costs, impact paid
)
UNFILLED_FIELDS = 6  # row of D, column, planned signed quantity, what was left of it, flags or bits of rules, stage
AUCTION_STAGE, RISK_STAGE = 0, 1
# What is kept of every session: at its close equity and cash; of the session turnover, and in currency commission, spread
# with slippage, impact, borrowing fee, interest, dividends and delisting proceeds; at its close, as fractions of equity,
# gross and net exposure, and the number of positions.
PATHS = 13
(
    EQUITY, CASH, TURNOVER, COMMISSION, CONCESSION, IMPACT, BORROW, INTEREST, DIVIDENDS, PROCEEDS, GROSS, NET, POSITIONS,
) = range(PATHS)  # fmt: skip


class Allocation(NamedTuple):
    """How target weights follow from a row of signals and what is held.

    `kind`: GIVEN, the signals are the targets. TOP_K, hold the `k` highest signals: a held name stays while it is among the
    best k + `buffer`, or, where `keep_share` is above 0, among that share of the ranked names. SLOTS, hold what has a
    signal above 0, one slot of equal size per known name. WEIGHTS, go to the signals as weights, leaving alone what is
    within `band` of them. HOLD, buy what has a signal above 0 at equal weights once.
    A NaN signal: not known, what is held stays. TOP_K: -inf is known and never held.
    """

    kind: int
    k: int = 0
    buffer: int = 0
    keep_share: float = 0.0
    reweight: bool = False
    band: float = 0.0
    gross: float = 1.0  # WEIGHTS: what the absolute weights may add up to
    every: int = 1  # sessions between two decisions that change anything, counted from the first


class Limits(NamedTuple):
    """Of `risk.RiskLimits`, in its units; infinite where a rule is off. `active` False: no rule applies."""

    active: bool
    max_position: float
    max_gross: float
    max_order_notional: float
    max_net: float = math.inf
    max_names: float = math.inf
    max_turnover: float = math.inf
    max_volume_share: float = math.inf


class AccountRules(NamedTuple):
    """What an account may do: fractions of shares, negative positions; the least notional of an order (currency)."""

    fractional: bool
    short: bool
    min_order_notional: float
