"""What an account must hold by the ledger's own arithmetic, and where the broker says otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trading_core.portfolio.actions import apply_actions
from trading_core.schema import AccountState, CashFlow, CorporateAction, Fill, Side

QUANTITY_TOLERANCE = 1e-9  # shares, relative: float noise of splits
CASH_TOLERANCE = 0.005  # currency: to the cent


@dataclass(frozen=True, slots=True)
class Holdings:
    """`positions`: shares by symbol, below 0 for shorts; `cash` in currency."""

    positions: Mapping[str, float]
    cash: float


def expected(
    before: Holdings, actions: Sequence[CorporateAction], fills: Sequence[Fill], flows: Sequence[CashFlow]
) -> Holdings:
    """Holdings after corporate actions (positions only: their cash is among the flows), fills and cash flows."""
    held, _ = apply_actions(before.positions, 0.0, actions)
    moves = [before.cash, *(flow.amount for flow in flows)]
    for fill in fills:
        sign = 1.0 if fill.side is Side.BUY else -1.0
        held[fill.symbol] = held.get(fill.symbol, 0.0) + sign * fill.quantity
        moves += [-sign * fill.quantity * fill.price, -fill.commission]
    return Holdings(held, math.fsum(moves))


def differences(
    wanted: Holdings,
    there: AccountState,
    foreign: Sequence[str] = (),
    overnight: Sequence[CorporateAction] = (),
) -> list[str]:
    """Where the broker's word differs from `wanted`, as sentences; empty when all is explained.

    `foreign`: ids of orders at the broker that nobody here sent. `overnight`: corporate actions that the broker may or may
    not have applied already: either is right, symbol by symbol.
    """
    after, _ = apply_actions(wanted.positions, 0.0, overnight)
    actual = {position.symbol: position.quantity for position in there.positions}
    found = [f"order {order} at the broker was not sent from here" for order in foreign]
    for symbol in sorted({*wanted.positions, *actual}):
        has, should = actual.get(symbol, 0.0), wanted.positions.get(symbol, 0.0)
        if not _same(has, should) and not _same(has, after.get(symbol, 0.0)):
            found.append(f"{symbol}: the ledger says {should:g} shares, the broker {has:g}")
    if not abs(there.cash - wanted.cash) <= CASH_TOLERANCE + 1e-9 * abs(wanted.cash):
        found.append(f"cash: the ledger says {wanted.cash:,.2f}, the broker {there.cash:,.2f}")
    return found


def _same(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=QUANTITY_TOLERANCE, abs_tol=QUANTITY_TOLERANCE)
