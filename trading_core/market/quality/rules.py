"""What can be configured about the quality gate: how grave each check is, and the thresholds of the checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["block", "quarantine", "warn", "off"]


@dataclass(frozen=True, slots=True)
class QualityRules:
    """`severities`: check name -> severity, for checks that are not to have their default one.

    The defaults of the jump's thresholds were set on 619,040 real daily bars of 505 US stocks (2013-2018): the 25 rows
    that they hold there for good are 9 bad ticks and 16 splits, spin-offs and special dividends on their ex-dates.
    """

    severities: Mapping[str, Severity] = field(default_factory=dict)
    jump: float = 0.13  # least size of a suspect's log return, beyond the market's own median move
    jump_sigmas: float = 9.0  # and its least size in standard deviations of the symbol's own trailing returns
    sigmas_per_volume: float = 8.0  # genuine news trades: a jump of z sigmas comes on z / 8 times the usual volume
    window: int = 60  # bars before the jump that say what is usual
    reverted: float = 0.4  # a suspect whose jump is undone but for this share by the next bar was a bad tick
    gap_share: float = 0.5  # share of an event's jump that is there at the open: the price of an ex-date opens new
    stale_closes: int = 5  # equal closes in a row, with volume, that make a stale series
    universe_loss: float = 0.2  # fraction of the symbols lost from one session to the next
