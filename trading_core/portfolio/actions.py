"""Corporate actions on an account: what a split, a dividend or a delisting does to holdings and cash.

Applied at the start of the action's session, before its open. Of one symbol on one day the split comes first, then the
dividend, then the delisting: on an ex-date the dividend is quoted per share as traded that day, so after the split.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from trading_core.errors import WrongTypeError
from trading_core.portfolio.planner import PlannedOrder
from trading_core.schema import ActionKind, CorporateAction, Order

_RANK = {ActionKind.SPLIT: 0, ActionKind.DIVIDEND: 1, ActionKind.DELISTING: 2}
OrderT = TypeVar("OrderT", PlannedOrder, Order)


def apply_actions(
    holdings: Mapping[str, float], cash: float, actions: Sequence[CorporateAction]
) -> tuple[dict[str, float], float]:
    """Holdings (shares) and cash (currency) after `actions`; those of symbols not held change nothing.

    split: quantity * value (a fraction of a share is kept, not paid out); dividend: quantity * value is paid in cash;
    delisting: quantity * value is paid and the symbol removed. Taken in the order of sessions, kinds and symbols.
    Errors: WrongTypeError for a value that is not finite, a split that is not above 0, or a payment below 0.
    """
    after = dict(holdings)
    for action in sorted(actions, key=lambda a: (a.session, _RANK[a.kind], a.symbol)):
        check_action(action)
        quantity = after.get(action.symbol, 0.0)
        if quantity == 0.0:
            continue
        if action.kind is ActionKind.SPLIT:
            after[action.symbol] = quantity * action.value
        else:
            cash += quantity * action.value
            if action.kind is ActionKind.DELISTING:
                del after[action.symbol]
    return after, cash


def adjust_orders(orders: Sequence[OrderT], actions: Sequence[CorporateAction]) -> tuple[OrderT, ...]:
    """Orders sized on D's prices, restated for splits that take effect at T's start, as brokers do with open orders.

    The quantity is multiplied and the reference price divided by the ratio; other actions leave orders alone.
    """
    ratio: dict[str, float] = {}
    for action in actions:
        check_action(action)
        if action.kind is ActionKind.SPLIT:
            ratio[action.symbol] = ratio.get(action.symbol, 1.0) * action.value
    if not ratio:
        return tuple(orders)
    return tuple(
        dataclasses.replace(
            order,
            quantity=order.quantity * ratio[order.symbol],
            reference_price=order.reference_price / ratio[order.symbol],
        )
        if order.symbol in ratio
        else order
        for order in orders
    )


def check_action(action: CorporateAction) -> None:
    """WrongTypeError for a value that is not finite, a split that is not above 0, or a payment below 0."""
    lowest = "a finite number above 0" if action.kind is ActionKind.SPLIT else "a finite number of at least 0"
    good = action.value > 0 if action.kind is ActionKind.SPLIT else action.value >= 0
    if not good or not math.isfinite(action.value):
        where = f"The {action.kind.value} of {action.symbol} on {action.session}"
        raise WrongTypeError(where, "value", str(action.value), lowest)
