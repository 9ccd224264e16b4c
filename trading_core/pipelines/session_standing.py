"""Where a session stands, in words for a person, and what was recorded around it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trading_core.execution.records import EventLevel
from trading_core.pipelines.session_rows import NOT_SENT
from trading_core.pipelines.session_sources import LeaseChange, Sources
from trading_core.plots.page import percent
from trading_core.plots.session_data import AccountFacts, EventRow, OrderRow, Standing, StandingFacts
from trading_core.plots.session_format import counted, gain, gain_percent, listed, money
from trading_core.schema import OrderStatus

SHADOW = "shadow-"  # accounts that decide and send nothing


def standing_facts(found: Sources, orders: Sequence[OrderRow], account: AccountFacts) -> StandingFacts:
    """A person is needed wherever the ledger holds an alert, an order of unknown fate, a halt or a position without price."""
    urgent = _urgent(found, orders)
    waiting = () if found.settled else _waiting(found, orders)
    if urgent:
        there = "The session is settled" if found.settled else "The session is not settled"
        headline = f"{there}, and a person must look at {counted(len(urgent), 'thing')}."
        return StandingFacts(Standing.NEEDS_A_PERSON, headline, (*urgent, *waiting))
    if found.settled:
        warnings = sum(event.level is EventLevel.WARNING for event in found.happenings.events)
        said = (
            (f"There {'is' if warnings == 1 else 'are'} {counted(warnings, 'warning')}, see Events.",)
            if warnings
            else ()
        )
        return StandingFacts(Standing.SETTLED, _settled(found, orders, account), said)
    return StandingFacts(Standing.PENDING, _pending(found, orders), waiting)


def _urgent(found: Sources, orders: Sequence[OrderRow]) -> tuple[str, ...]:
    said = [
        f"Nobody knows what became of the order to {row.side} {row.quantity:,.6g} {row.symbol} "
        f"({row.client_order_id[:12]}): only the broker can say."
        for row in orders
        if row.status == OrderStatus.UNKNOWN.value
    ]
    said += [event.message for event in found.happenings.events if event.level is EventLevel.ALERT]
    if found.happenings.halted is not None:
        said.append(f"The account is halted: {found.happenings.halted}. Once it may trade again: trading resume.")
    summary = found.state.summary
    if summary is not None and summary.equity is None:
        said.append("A position has no known price: what the account is worth is not known.")
    return tuple(said)


def _settled(found: Sources, orders: Sequence[OrderRow], account: AccountFacts) -> str:
    change = f"{gain(account.change)}, {gain_percent(account.change_share)}" if account.before else ""
    worth = f"The account is worth {money(account.equity)}" + (
        f" ({change} since {account.before})." if change else "."
    )
    if found.record.account.startswith(SHADOW):
        return f"Decided and recorded; a shadow account sends nothing. {worth}"
    if not orders:
        return f"Nothing was traded. {worth}"
    filled = [row for row in orders if row.filled > 0]
    part = sum(row.status != OrderStatus.FILLED.value for row in filled)
    # Buys that are cut to the cash at the open all fall a little short: how much says whether that matters.
    done = math.fsum(row.filled * row.decision_price for row in filled)
    share = percent(done / math.fsum(row.quantity * row.decision_price for row in orders))
    partly = f", {part} of them in part: {share} of the value ordered" if part else ""
    return f"{len(filled)} of {counted(len(orders), 'order')} filled{partly}. {worth}"


def _pending(found: Sources, orders: Sequence[OrderRow]) -> str:
    opens = found.ws.sessions.open(found.record.session)
    if found.decision is None:
        return "Nothing has been decided yet."
    if not orders:
        return f"No order was decided; the session ends with the bars of {found.record.session}."
    count = counted(len(orders), "order")
    if found.now < opens:
        wait = "waits" if len(orders) == 1 else "wait"
        return f"{count} {wait} for the open of {found.record.session}, {opens:%H:%M} UTC."
    return f"{count} decided; what became of them is not recorded yet."


def _waiting(found: Sources, orders: Sequence[OrderRow]) -> tuple[str, ...]:
    """What has to happen before the session is settled."""
    said = []
    refused = found.approval is not None and not found.approval.approved
    if refused and found.approval is not None:
        said.append(f"{found.approval.by} refused the decision: nothing is sent.")
    unsent = [row.symbol for row in orders if row.status == NOT_SENT]
    if unsent and not refused and not found.record.account.startswith(SHADOW):
        said.append(f"{counted(len(unsent), 'order')} not sent: {listed(unsent)}.")
    living = [row.symbol for row in orders if row.status != NOT_SENT and not OrderStatus(row.status).terminal]
    if living:
        said.append(f"{counted(len(living), 'order')} not ended: {listed(living)}.")
    if not found.traded:
        closes = found.ws.sessions.close(found.record.session)
        said.append(f"The bars of {found.record.session} are not there yet; it closes at {closes:%H:%M} UTC.")
    return tuple(said)


# --- what was recorded ------------------------------------------------------------------------------------------------


def event_rows(found: Sources) -> tuple[EventRow, ...]:
    """Events, halts, approvals, adoptions, corrected fills and changes of the lease, oldest first."""
    happenings = found.happenings
    rows = [EventRow(e.at, e.level.value, e.kind, e.message) for e in happenings.events]
    for halt in happenings.halts:
        scope = "every account" if halt.scope != found.record.account else "the account"
        what, level = ("halted", EventLevel.WARNING) if halt.halted else ("resumed", EventLevel.INFO)
        reason = f": {halt.reason}" if halt.reason else ""
        rows.append(
            EventRow(halt.at, level.value, "halt" if halt.halted else "resume", f"{halt.by} {what} {scope}{reason}")
        )
    rows += [*_approvals(found), *_corrections(found), *_leases(happenings.leases)]
    return tuple(sorted(rows, key=lambda row: row.at))


def _approvals(found: Sources) -> list[EventRow]:
    rows = []
    if found.approval is not None:
        said = found.approval
        level = EventLevel.INFO if said.approved else EventLevel.WARNING
        note = f": {said.note}" if said.note else ""
        words = "approved" if said.approved else "refused"
        rows.append(EventRow(said.at, level.value, "approval", f"{said.by} {words} the decision{note}"))
    for adopted in found.happenings.adoptions:
        if adopted.session == found.record.session:
            words = f"{adopted.by} took the broker's positions and cash for the truth: {adopted.reason}"
            rows.append(EventRow(adopted.at, EventLevel.WARNING.value, "adoption", words))
    return rows


def _corrections(found: Sources) -> list[EventRow]:
    return [
        EventRow(
            made.at, EventLevel.WARNING.value, "fill_correction",
            f"The broker corrected a fill of {made.fill.symbol}: {made.fill.quantity:,.6g} at {made.fill.price:,.4f}",
        )
        for made in found.orders.corrections
    ]  # fmt: skip


def _leases(changes: Sequence[LeaseChange]) -> list[EventRow]:
    """Who took the account over from another, and in one line the steps that held it and let it go, as they should."""
    rows: list[EventRow] = []
    steps: dict[str, None] = {}
    for change in changes:
        before, record = change.before, change.record
        held = before is not None and not before.released
        if held and before is not None and before.holder != record.holder and not record.released:
            words = f"{record.holder} took the account over from {before.holder} (lease {record.number})"
            rows.append(EventRow(record.at, EventLevel.WARNING.value, "lease", words))
        elif not held:
            steps[record.holder.partition(" @")[0].partition(" of ")[0]] = None
    if steps:
        words = f"The account was held by one step after the other: {listed(list(steps))}"
        rows.append(EventRow(changes[0].record.at, EventLevel.INFO.value, "lease", words))
    return rows
