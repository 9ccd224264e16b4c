"""Fills joined with their intent, decision and order state: one row per execution."""

from __future__ import annotations

from collections.abc import Sequence

from trading_core.execution.codec import LedgerRecordError
from trading_core.execution.records import AccountRecord, Decision, Execution, Intent, OrderEvent
from trading_core.schema import Fill, OrderStatus


def join_executions(
    owner: AccountRecord,
    fills: Sequence[Fill],
    intents: Sequence[Intent],
    events: Sequence[OrderEvent],
    decisions: Sequence[Decision],
) -> list[Execution]:
    """Rows in the order of `fills`; `events` oldest first per order. LedgerRecordError for a fill without a decision.

    A fill whose order has no recorded state yet (a crash in between) shows UNKNOWN until the next run records it.
    """
    intent_of = {intent.client_order_id: intent for intent in intents}
    last = {event.client_order_id: event for event in events}
    decision_of = {decision.decision_id: decision for decision in decisions}
    rows = []
    for fill in fills:
        intent = intent_of.get(fill.client_order_id)
        decision = decision_of.get(intent.decision_id) if intent else None
        if intent is None or decision is None:
            reason = f"{owner.account} has no intent or decision for its order {fill.client_order_id}"
            raise LedgerRecordError(f"the fill {fill.fill_id}", reason)
        event = last.get(fill.client_order_id)
        rows.append(_row(owner, fill, decision, event.status if event else OrderStatus.UNKNOWN))
    return rows


def _row(owner: AccountRecord, fill: Fill, decision: Decision, status: OrderStatus) -> Execution:
    return Execution(
        symbol=fill.symbol,
        side=fill.side,
        quantity=fill.quantity,
        price=fill.price,
        commission=fill.commission,
        session=fill.session,
        strategy=decision.strategy,
        model=decision.model,
        model_version=decision.model_version,
        features_version=decision.features_version,
        client_order_id=fill.client_order_id,
        fill_id=fill.fill_id,
        account=owner.account,
        market=owner.market,
        decision_id=decision.decision_id,
        filled_at=fill.filled_at,
        status=status,
    )
