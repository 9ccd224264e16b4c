"""The part of the ledger that keeps what was ordered: intents, states, fills, corrections, and cash that moved by itself.

`ledger.Ledger` is the whole, and lists the documents.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime
from enum import StrEnum
from typing import TypeVar

from trading_core.execution.codec import LedgerRecordError, from_document, to_document
from trading_core.execution.machine import Progress, advance
from trading_core.execution.records import (
    FillCorrection,
    GateRecord,
    Intent,
    OrderEvent,
    OrderRecord,
    SessionState,
    SessionStatus,
)
from trading_core.execution.store import DocumentStore
from trading_core.schema import CashFlow, Fill, OrderStatus

RecordT = TypeVar("RecordT")


class FillChange(StrEnum):
    """What an execution was to the ledger."""

    NEW = "new"
    SAME = "same"
    CORRECTED = "corrected"


class OrderRecords:
    """Orders of every account. Constructing does no I/O."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    def _require_session(self, account: str, session: date) -> SessionState:
        raise NotImplementedError

    def record_intent(self, intent: Intent) -> bool:
        """Writes an intent before anything is sent; False when it was written before.

        LedgerRecordError: its session is not open with that decision, is settled, or the id stands for another order.
        """
        key = f"intent#{intent.session.isoformat()}#{intent.client_order_id}"
        stored = self._intent(intent.account, intent.session, intent.client_order_id)
        if stored is None:
            state = self._require_session(intent.account, intent.session)
            if state.status is not SessionStatus.DECIDED or state.decision_id != intent.decision_id:
                reason = f"its session {intent.session} is {state.status.value} with decision {state.decision_id}"
                raise LedgerRecordError(f"the intent {intent.client_order_id}", reason)
            if self._store.put_new(account_pk(intent.account), key, to_document(intent)):
                return True
            stored = self._intent(intent.account, intent.session, intent.client_order_id)
        if stored is None or replace(stored, created_at=intent.created_at) != intent:
            reason = f"the ledger has another order under this id: {stored}"
            raise LedgerRecordError(f"the intent {intent.client_order_id}", reason)
        return False

    def record_order_state(
        self,
        account: str,
        session: date,
        client_order_id: str,
        status: OrderStatus,
        at: datetime,
        filled_quantity: float = 0.0,
        average_price: float | None = None,
        reason: str = "",
        ordered: float | None = None,
        correction: bool = False,
    ) -> OrderEvent:
        """Appends what a report says of an order, and returns the event that is now its last: `machine.advance` decides.

        `ordered`: the order's quantity as the broker has it (restated for a split), where it is not the intent's.
        `correction`: the report agrees with fills that were restated: fewer filled shares than before are no old report.
        LedgerRecordError: there is no such intent.
        """
        intent = self._require_intent(account, session, client_order_id)
        report = Progress(status, float(filled_quantity), average_price, reason)
        quantity = ordered if ordered is not None else intent.quantity
        while True:
            history = self.order_history(account, session, client_order_id)
            last = history[-1] if history else None
            known = Progress(last.status, last.filled_quantity, last.average_price, last.reason) if last else None
            made = advance(known, report, quantity, correction)
            if made is None and last is not None:
                return last
            if made is None:  # never: the first report always counts
                raise LedgerRecordError(f"the report {status.value} of {client_order_id}", "it says nothing")
            number = last.sequence + 1 if last else 1
            event = OrderEvent(client_order_id, number, made.status, made.filled, made.average_price, made.reason, at)
            key = f"state#{session.isoformat()}#{client_order_id}#{number:06d}"
            if self._store.put_new(account_pk(account), key, to_document(event)):
                return event

    def order_history(self, account: str, session: date, client_order_id: str) -> list[OrderEvent]:
        """All states of one order, oldest first."""
        return self._records(OrderEvent, account, f"state#{session.isoformat()}#{client_order_id}#")

    def order(self, account: str, session: date, client_order_id: str) -> OrderRecord | None:
        """One intent with its present state; None when it was never written."""
        intent = self._intent(account, session, client_order_id)
        if intent is None:
            return None
        history = self.order_history(account, session, client_order_id)
        return _order_record(intent, history[-1] if history else None)

    def orders(self, account: str, session: date) -> list[OrderRecord]:
        """All intents of a session with their present state, by client order id."""
        day = session.isoformat()
        last = {event.client_order_id: event for event in self._records(OrderEvent, account, f"state#{day}#")}
        return [
            _order_record(intent, last.get(intent.client_order_id))
            for intent in self._records(Intent, account, f"intent#{day}#")
        ]

    def intents(self, account: str) -> list[Intent]:
        """All orders of an account as they were meant, by session and client order id."""
        return self._records(Intent, account, "intent#")

    def record_fill(self, account: str, fill: Fill, at: datetime | None = None) -> FillChange:
        """Writes an execution, or the correction of one that is known under its id; SAME when nothing is new.

        `at`: when a correction was learned of. LedgerRecordError: there is no intent for it.
        """
        self._require_intent(account, fill.session, fill.client_order_id)
        key = f"{fill.session.isoformat()}#{fill.client_order_id}#{fill.fill_id}"
        if self._store.put_new(account_pk(account), f"fill#{key}", to_document(fill)):
            return FillChange.NEW
        while True:
            corrections = self._records(FillCorrection, account, f"correction#{key}#")
            stored = corrections[-1].fill if corrections else self._fill(account, f"fill#{key}")
            if stored == fill:
                return FillChange.SAME
            number = len(corrections) + 1
            made = FillCorrection(fill, number, at or fill.filled_at)
            if self._store.put_new(account_pk(account), f"correction#{key}#{number:04d}", to_document(made)):
                return FillChange.CORRECTED

    def fills(self, account: str, session: date) -> list[Fill]:
        """The executions of a session as they stand, by client order id; one that was taken back (0 shares) is left out."""
        return self._effective(account, session.isoformat())

    def corrections(self, account: str, session: date) -> list[FillCorrection]:
        """Oldest first per fill."""
        return self._records(FillCorrection, account, f"correction#{session.isoformat()}#")

    def _effective(self, account: str, day: str) -> list[Fill]:
        """The fills of one day, or of all (""), with their last corrections in their place."""
        known = {(f.session, f.client_order_id, f.fill_id): f for f in self._records(Fill, account, f"fill#{day}")}
        for made in self._records(FillCorrection, account, f"correction#{day}"):
            known[made.fill.session, made.fill.client_order_id, made.fill.fill_id] = made.fill
        return [fill for fill in known.values() if fill.quantity > 0]

    def record_gates(self, record: GateRecord) -> None:
        """Keeps what the pre-trade rules said of an order; the same words twice are one record."""
        prefix = f"gate#{record.session.isoformat()}#{record.client_order_id}#"
        while True:
            known = self._records(GateRecord, record.account, prefix)
            if known and known[-1].verdicts == record.verdicts:
                return
            if self._store.put_new(account_pk(record.account), f"{prefix}{len(known) + 1:04d}", to_document(record)):
                return

    def gates(self, account: str, session: date) -> list[GateRecord]:
        """By client order id, oldest first."""
        return self._records(GateRecord, account, f"gate#{session.isoformat()}#")

    def record_cash_flow(self, account: str, flow: CashFlow) -> bool:
        """Writes cash that moved without an order; False when it was written before. LedgerRecordError for other content."""
        key = f"cash#{flow.session.isoformat()}#{flow.flow_id}"
        if self._store.put_new(account_pk(account), key, to_document(flow)):
            return True
        stored = self._store.get(account_pk(account), key)
        if stored != to_document(flow):
            raise LedgerRecordError(f"the cash flow {flow.flow_id}", f"the ledger has other content: {stored}")
        return False

    def cash_flows(self, account: str, session: date) -> list[CashFlow]:
        return self._records(CashFlow, account, f"cash#{session.isoformat()}#")

    # --- reading ------------------------------------------------------------------------------------------------------

    def _fill(self, account: str, key: str) -> Fill | None:
        document = self._store.get(account_pk(account), key)
        return from_document(Fill, document) if document is not None else None

    def _intent(self, account: str, session: date, client_order_id: str) -> Intent | None:
        document = self._store.get(account_pk(account), f"intent#{session.isoformat()}#{client_order_id}")
        return from_document(Intent, document) if document is not None else None

    def _require_intent(self, account: str, session: date, client_order_id: str) -> Intent:
        found = self._intent(account, session, client_order_id)
        if found is None:
            reason = f"no intent with this id was written for {account} on {session}"
            raise LedgerRecordError(f"a record of order {client_order_id}", reason)
        return found

    def _records(self, record_type: type[RecordT], account: str, prefix: str) -> list[RecordT]:
        return [from_document(record_type, item.doc) for item in self._store.query(account_pk(account), prefix)]


def account_pk(account: str) -> str:
    return f"account#{account}"


def _order_record(intent: Intent, event: OrderEvent | None) -> OrderRecord:
    if event is None:
        return OrderRecord(intent, OrderStatus.PLANNED, 0.0, None, "")
    return OrderRecord(intent, event.status, event.filled_quantity, event.average_price, event.reason)


def open_orders(orders: Iterable[OrderRecord]) -> list[OrderRecord]:
    """Those that have not ended; UNKNOWN counts as open."""
    return [order for order in orders if not order.status.terminal]
