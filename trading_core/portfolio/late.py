"""Corporate actions as they really reached an account: most on their day, some later, when they were learned of late.

An action that comes late takes effect on what has been held without a break since before its session: the smallest
quantity that any session since then ended with. What was bought later was bought at prices that knew of it already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from trading_core.portfolio.actions import apply_actions
from trading_core.schema import ActionKind, CorporateAction

WHOLE = 1e-9  # relative: a quantity that differs by float noise is the same
RE_DATED_WITHIN = timedelta(days=10)  # a source moves the date of an event by days, not by a quarter


@dataclass(frozen=True, slots=True)
class AppliedAction:
    """An action that took effect on an account, and on how many of its shares.

    `shares`: counted right before it, below 0 for a short position. `late`: learned of after its session. `splits`: of a
    late one, the product of the split ratios between its session and then: its value is per share of its own session.
    """

    action: CorporateAction
    shares: float
    late: bool = False
    splits: float = 1.0

    @property
    def cash(self) -> float:
        """What it paid, in currency; below 0: a short position owed it."""
        return 0.0 if self.action.kind is ActionKind.SPLIT else self.shares * (self.action.value / self.splits)

    def after(self, held: float) -> float:
        """What it left of the `held` shares of its symbol."""
        if self.action.kind is ActionKind.SPLIT:
            grown = held * self.action.value
            return grown if self.shares == held else held + self.shares * (self.action.value - 1.0)
        return held - self.shares if self.action.kind is ActionKind.DELISTING else held

    def on_all(self, held: float) -> CorporateAction:
        """The action on all `held` shares that leaves the same quantity as this one on some of them; cash aside."""
        action, whole = self.action, math.isclose(held, self.shares, rel_tol=WHOLE)
        if whole or held == 0.0 or action.kind is ActionKind.DIVIDEND:
            return action
        return CorporateAction(action.symbol, action.session, ActionKind.SPLIT, self.after(held) / held)


@dataclass(frozen=True, slots=True)
class Step:
    """What a position went through in one session: the `ratio` of its splits, then the `quantity` after its fills."""

    ratio: float
    quantity: float


def kept_since(before: float, steps: Sequence[Step]) -> float:
    """How many of the `before` shares are still held after `steps`, in shares of the last one.

    The smallest quantity on the way, restated for splits; 0 once the position was closed or turned round.
    """
    kept = before
    for step in steps:
        kept *= step.ratio
        if kept * step.quantity <= 0.0:
            return 0.0
        kept = math.copysign(min(abs(kept), abs(step.quantity)), kept)
    return kept


def apply_one_by_one(
    holdings: Mapping[str, float], cash: float, actions: Sequence[CorporateAction]
) -> tuple[dict[str, float], float, tuple[AppliedAction, ...]]:
    """As `apply_actions` on actions in the order given, with what each took effect on; those of nothing held left out."""
    held, applied = dict(holdings), []
    for action in actions:
        shares = held.get(action.symbol, 0.0)
        held, cash = apply_actions(held, cash, [action])
        if shares != 0.0:
            applied.append(AppliedAction(action, shares))
    return held, cash, tuple(applied)


def key_of(action: CorporateAction) -> tuple[str, date, ActionKind]:
    """What an action is known by: its value may be corrected later, which changes nothing any more."""
    return action.symbol, action.session, action.kind


def re_dated(
    action: CorporateAction, applied: Sequence[CorporateAction], given: Sequence[CorporateAction]
) -> CorporateAction | None:
    """The applied action that `action` is, under another date; None when it is one of its own.

    It is one that the source gives no more (`given`: all it gives), of the same symbol and kind and a date close by.
    """
    keys = {key_of(other) for other in given}
    for other in applied:
        same = (other.symbol, other.kind) == (action.symbol, action.kind) and key_of(other) not in keys
        if same and abs(other.session - action.session) <= RE_DATED_WITHIN:
            return other
    return None
