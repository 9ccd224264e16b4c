"""The states of an order, and what a broker's report of it changes.

    PLANNED -> SUBMITTING -> ACCEPTED -> PARTIALLY_FILLED -> FILLED
                                         PENDING_CANCEL   -> CANCELED / FILLED
                                                          -> REJECTED / EXPIRED
    UNKNOWN: sent, and nobody knows what became of it; any word of the broker resolves it, as does a further attempt to send
    it, where that is allowed.

Reports may come twice, late and in the wrong order. What is filled never shrinks by a report (a correction of a fill does
that, see `Ledger.record_fill`), an order that has ended does not come alive again, and a fill that comes after a
cancellation counts. SUBMITTING is no report but an attempt of ours: each one counts, until the broker has spoken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trading_core.schema import OrderStatus

# How far along its life an order is: a report of an earlier stage is an old one.
STAGE: dict[OrderStatus, int] = {
    OrderStatus.PLANNED: 0,
    OrderStatus.SUBMITTING: 1,
    OrderStatus.UNKNOWN: 1,  # before or after a further attempt: in the order in which we write them
    OrderStatus.ACCEPTED: 3,
    OrderStatus.PARTIALLY_FILLED: 4,
    OrderStatus.PENDING_CANCEL: 5,
    OrderStatus.EXPIRED: 6,
    OrderStatus.CANCELED: 6,
    OrderStatus.REJECTED: 6,
    OrderStatus.FILLED: 7,
}
WHOLE = 1e-9  # relative: a quantity filled up to float noise is filled
TAKEN_BACK = "an execution was taken back"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an order stands: `filled` in shares, `average_price` of what is filled, before costs."""

    status: OrderStatus
    filled: float = 0.0
    average_price: float | None = None
    reason: str = ""


def advance(now: Progress | None, report: Progress, quantity: float, correction: bool = False) -> Progress | None:
    """What an order of `quantity` shares becomes by a report; None when the report changes nothing.

    A report with more shares filled than are known always counts. With as many, it counts when it is of a later stage, or,
    while the order lives, of the same one with another reason or price. With fewer it is an old one. `correction`: the
    report tells of restated fills, so fewer shares and, after the end, another price count as well.
    """
    if now is None:
        return _consistent(report, quantity)
    if correction and (now.filled > 0 or report.filled > 0):
        made = _corrected(now, report, quantity)
        return None if made == now else made
    if report.filled > now.filled and not _same(report.filled, now.filled):
        made = _consistent(report, quantity)
        if now.status.terminal and not made.status.terminal:
            # A fill that is learned of after the end: the end stands, with more filled.
            return _consistent(Progress(now.status, report.filled, report.average_price, now.reason), quantity)
        return made
    if not _same(report.filled, now.filled):
        return None
    if now.status.terminal or STAGE[report.status] < STAGE[now.status]:
        return None
    made = _consistent(report, quantity)
    return None if made == now and report.status is not OrderStatus.SUBMITTING else made


def _corrected(now: Progress, report: Progress, quantity: float) -> Progress:
    """An order that has ended stays so; one that was FILLED has the rest of it cancelled."""
    ended = now.status.terminal and not report.status.terminal
    status, reason = (now.status, now.reason) if ended else (report.status, report.reason)
    made = _consistent(Progress(status, report.filled, report.average_price, reason), quantity)
    if now.status.terminal and not made.status.terminal:
        return Progress(OrderStatus.CANCELED, made.filled, made.average_price, made.reason or TAKEN_BACK)
    return made


def _consistent(progress: Progress, quantity: float) -> Progress:
    """FILLED exactly when all is filled; PARTIALLY_FILLED when a living order is filled in part."""
    status = progress.status
    if progress.filled >= quantity * (1.0 - WHOLE) and quantity > 0:
        status = OrderStatus.FILLED
    elif status is OrderStatus.FILLED or (status is OrderStatus.ACCEPTED and progress.filled > 0):
        status = OrderStatus.PARTIALLY_FILLED
    return Progress(status, progress.filled, progress.average_price, progress.reason)


def _same(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=WHOLE, abs_tol=1e-12)
