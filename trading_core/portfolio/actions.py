"""Corporate actions on an account: what a split, a dividend or a delisting does to holdings and cash.

Applied at the start of the action's session, before its open. Of one symbol on one day the split comes first, then the
dividend, then the delisting: on an ex-date the dividend is quoted per share as traded that day, so after the split.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from trading_core.errors import WrongTypeError
from trading_core.portfolio.kernels import account
from trading_core.portfolio.kernels.types import DELISTING, DIVIDEND, SPLIT
from trading_core.portfolio.planner import PlannedOrder
from trading_core.schema import ActionKind, CorporateAction, Order

ACTION_CODES = {ActionKind.SPLIT: SPLIT, ActionKind.DIVIDEND: DIVIDEND, ActionKind.DELISTING: DELISTING}
OrderT = TypeVar("OrderT", PlannedOrder, Order)


def in_order(actions: Sequence[CorporateAction]) -> list[CorporateAction]:
    """By session, then kind, then symbol: the order in which they are applied."""
    return sorted(actions, key=lambda a: (a.session, ACTION_CODES[a.kind], a.symbol))


def apply_actions(
    holdings: Mapping[str, float], cash: float, actions: Sequence[CorporateAction]
) -> tuple[dict[str, float], float]:
    """Holdings (shares) and cash (currency) after `actions`; those of symbols not held change nothing.

    split: quantity * value (a fraction of a share is kept, not paid out); dividend: quantity * value is paid in cash
    (a short position owes it); delisting: quantity * value is paid and the symbol removed. Taken in the order of
    sessions, kinds and symbols.
    Errors: WrongTypeError for a value that is not finite, a split that is not above 0, or a payment below 0.
    """
    column = {symbol: s for s, symbol in enumerate(holdings)}
    quantities = np.array(list(holdings.values()), dtype=np.float64)
    gone = set()
    for action in in_order(actions):
        check_action(action)
        s = column.get(action.symbol)
        if s is None or quantities[s] == 0.0:
            continue
        cash += float(account.apply_action(quantities, s, ACTION_CODES[action.kind], float(action.value)))
        if action.kind is ActionKind.DELISTING:
            gone.add(action.symbol)
    return {symbol: float(quantities[s]) for symbol, s in column.items() if symbol not in gone}, cash


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
