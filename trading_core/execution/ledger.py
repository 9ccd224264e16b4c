"""The ledger: what every account decided, ordered, filled and holds, append-only, with full history.

Written once on `DocumentStore`. Documents:

    accounts / <account>                        who owns the account
    account#<account> / session#<T>             a session was opened
                        turn#<number>           which session is the account's number-th: two cannot both be next
                        decision#<T>            the frozen decision
                        intent#<T>#<id>         an order about to be sent
                        state#<T>#<id>#<n>      the n-th state of that order
                        fill#<T>#<id>#<fill>    an execution
                        settled#<T>             the session's summary
                        event#<at>#<digest>     things worth telling
    halt / <scope>#<n>                          halts and resumes; the last one of a scope counts

All calls raise LedgerUnreachableError when the store does not answer: then no order may be sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TypeVar

from trading_core.errors import (
    SessionNotSettledError,
    SessionOrderError,
    StrategyConflictError,
    UnknownNameError,
)
from trading_core.execution.codec import LedgerRecordError, from_document, to_document, to_json
from trading_core.execution.executions import join_executions
from trading_core.execution.records import (
    AccountRecord,
    Decision,
    Execution,
    HaltEvent,
    Intent,
    LedgerEvent,
    OrderEvent,
    OrderRecord,
    SessionRecord,
    SessionState,
    SessionStatus,
    SessionSummary,
)
from trading_core.execution.store import DocumentStore, NewDocument
from trading_core.schema import Fill, OrderStatus

ALL_ACCOUNTS = "all"  # the halt scope that covers every account
RecordT = TypeVar("RecordT")


class Ledger:
    """One ledger for all accounts of all markets. Constructing does no I/O; safe to share between threads."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self.url = store.url

    # --- accounts -----------------------------------------------------------------------------------------------------

    def claim_account(self, account: str, strategy: str, market: str, opened_at: datetime) -> AccountRecord:
        """Gives the account to a strategy of a market, or finds it already so. StrategyConflictError for another's."""
        if account == ALL_ACCOUNTS or not account or "#" in account:
            raise LedgerRecordError(f"the account id '{account}'", f"it may not be empty, '{ALL_ACCOUNTS}' or hold '#'")
        wanted = AccountRecord(account, strategy, market, opened_at)
        self._store.put_new("accounts", account, to_document(wanted))
        owner = self._owner(account)
        if (owner.strategy, owner.market) != (strategy, market):
            raise StrategyConflictError(account, f"{owner.strategy} on {owner.market}", f"{strategy} on {market}")
        return owner

    def accounts(self, market: str | None = None) -> list[AccountRecord]:
        """All accounts (of one market), by id."""
        records = [from_document(AccountRecord, item.doc) for item in self._store.query("accounts")]
        return [record for record in records if market in (None, record.market)]

    def _owner(self, account: str) -> AccountRecord:
        document = self._store.get("accounts", account)
        if document is None:
            raise UnknownNameError("account", account, [record.account for record in self.accounts()])
        return from_document(AccountRecord, document)

    # --- sessions -----------------------------------------------------------------------------------------------------

    def open_session(
        self,
        account: str,
        session: date,
        decision_session: date,
        previous_session: date,
        opened_at: datetime,
        run_id: str,
        strict: bool = False,
    ) -> SessionState:
        """Starts session T on the account, or returns it when it was started before.

        `previous_session`: the exchange's session directly before T. `strict` (replays): the account's last session
        must be that one. Errors: UnknownNameError (account never claimed), SessionOrderError (a later session exists,
        or `strict` and one was skipped), SessionNotSettledError (the last session still has open orders).
        """
        self._owner(account)
        while True:
            state = self.session_state(account, session)
            if state is not None:
                return state
            last = self.last_session(account)
            if last is not None:
                self._check_order(last, session, previous_session if strict else None)
            number = last.number + 1 if last else 1
            record = SessionRecord(account, session, decision_session, number, run_id, opened_at)
            turn = NewDocument(_pk(account), f"turn#{number:08d}", {"session": session.isoformat()})
            opened = NewDocument(_pk(account), f"session#{session.isoformat()}", to_document(record))
            if self._store.transact_new([turn, opened]):
                return SessionState(record, SessionStatus.OPEN, None, None)
            # Another run opened a session of this account in between: judge again.

    def _check_order(self, last: SessionRecord, session: date, required: date | None) -> None:
        if last.session > session:
            raise SessionOrderError(last.account, session, last.session, "a later session was already traded on it")
        if required is not None and last.session != required:
            reason = f"the session before it, {required}, was not traded on it"
            raise SessionOrderError(last.account, session, last.session, reason)
        unsettled = self._open_orders(last.account, last.session)
        if unsettled:
            raise SessionNotSettledError(last.account, session, last.session, unsettled)

    def last_session(self, account: str) -> SessionRecord | None:
        """The newest session opened on the account."""
        found = self._store.query(_pk(account), "session#", limit=1, newest_first=True)
        return from_document(SessionRecord, found[0].doc) if found else None

    def sessions(self, account: str) -> list[SessionRecord]:
        """All sessions of the account, in order."""
        return self._records(SessionRecord, account, "session#")

    def session_state(self, account: str, session: date) -> SessionState | None:
        """Where a session stands; None when it was never opened."""
        pk, day = _pk(account), session.isoformat()
        opened = self._store.get(pk, f"session#{day}")
        if opened is None:
            return None
        settled = self._store.get(pk, f"settled#{day}")
        decision = self._store.get(pk, f"decision#{day}")
        status = SessionStatus.SETTLED if settled else SessionStatus.DECIDED if decision else SessionStatus.OPEN
        return SessionState(
            record=from_document(SessionRecord, opened),
            status=status,
            decision_id=decision["decision_id"] if decision else None,
            summary=from_document(SessionSummary, settled) if settled else None,
        )

    def settle_session(self, account: str, session: date, summary: SessionSummary) -> SessionState:
        """Closes a session; a second call changes nothing. SessionNotSettledError while it has open orders."""
        self._require_session(account, session)
        open_orders = self._open_orders(account, session)
        if open_orders:
            raise SessionNotSettledError(account, session, session, open_orders)
        self._store.put_new(_pk(account), f"settled#{session.isoformat()}", to_document(summary))
        return self._require_session(account, session)

    def _require_session(self, account: str, session: date) -> SessionState:
        state = self.session_state(account, session)
        if state is None:
            raise LedgerRecordError(f"a record of {account}", f"its session {session} was never opened")
        return state

    def _open_orders(self, account: str, session: date) -> int:
        return len(open_orders(self.orders(account, session)))

    # --- the decision -------------------------------------------------------------------------------------------------

    def freeze_decision(self, decision: Decision) -> Decision:
        """Stores the decision of (account, session) and returns the one that counts: the first one ever stored.

        Errors: LedgerRecordError (session not opened, or of another market), StrategyConflictError (another's account).
        """
        owner = self._owner(decision.account)
        if (owner.strategy, owner.market) != (decision.strategy, decision.market):
            mine = f"{decision.strategy} on {decision.market}"
            raise StrategyConflictError(decision.account, f"{owner.strategy} on {owner.market}", mine)
        self._require_session(decision.account, decision.session)
        self._store.put_new(_pk(decision.account), f"decision#{decision.session.isoformat()}", to_document(decision))
        frozen = self.get_decision(decision.account, decision.session)
        return frozen if frozen is not None else decision

    def get_decision(self, account: str, session: date) -> Decision | None:
        document = self._store.get(_pk(account), f"decision#{session.isoformat()}")
        return from_document(Decision, document) if document is not None else None

    # --- orders and fills ---------------------------------------------------------------------------------------------

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
            if self._store.put_new(_pk(intent.account), key, to_document(intent)):
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
    ) -> OrderEvent:
        """Appends the state of an order, and returns the event that is now its last; the same state twice is one event.

        LedgerRecordError: there is no such intent, or an order that ended (FILLED ...) would come alive again.
        """
        self._require_intent(account, session, client_order_id)
        while True:
            history = self.order_history(account, session, client_order_id)
            last = history[-1] if history else None
            number = last.sequence + 1 if last else 1
            event = OrderEvent(client_order_id, number, status, float(filled_quantity), average_price, reason, at)
            if last is not None and replace(last, sequence=number, at=at) == event:
                return last
            if last is not None and last.status.terminal and not status.terminal:
                why = f"the order already ended as {last.status.value}"
                raise LedgerRecordError(f"the state {status.value} of {client_order_id}", why)
            key = f"state#{session.isoformat()}#{client_order_id}#{number:06d}"
            if self._store.put_new(_pk(account), key, to_document(event)):
                return event

    def order_history(self, account: str, session: date, client_order_id: str) -> list[OrderEvent]:
        """All states of one order, oldest first."""
        return self._records(OrderEvent, account, f"state#{session.isoformat()}#{client_order_id}#")

    def orders(self, account: str, session: date) -> list[OrderRecord]:
        """All intents of a session with their present state, by client order id."""
        day = session.isoformat()
        last = {event.client_order_id: event for event in self._records(OrderEvent, account, f"state#{day}#")}
        return [
            _order_record(intent, last.get(intent.client_order_id))
            for intent in self._records(Intent, account, f"intent#{day}#")
        ]

    def record_fill(self, account: str, fill: Fill) -> bool:
        """Writes an execution; False when this fill was written before.

        LedgerRecordError: there is no intent for it, or other content under the same fill id.
        """
        self._require_intent(account, fill.session, fill.client_order_id)
        key = f"fill#{fill.session.isoformat()}#{fill.client_order_id}#{fill.fill_id}"
        if self._store.put_new(_pk(account), key, to_document(fill)):
            return True
        stored = self._store.get(_pk(account), key)
        if stored != to_document(fill):
            raise LedgerRecordError(f"the fill {fill.fill_id}", f"the ledger has other content under this id: {stored}")
        return False

    def fills(self, account: str, session: date) -> list[Fill]:
        """The executions of a session, by client order id."""
        return self._records(Fill, account, f"fill#{session.isoformat()}#")

    def executions(
        self,
        account: str | None = None,
        market: str | None = None,
        start: date | None = None,
        end: date | None = None,
    ) -> list[Execution]:
        """Fills with all they came from, of one account or all (of a market), sessions start..end (both included).

        Sorted by session, account, side (sells first) and symbol.
        """
        owners = [self._owner(account)] if account is not None else self.accounts(market)
        rows: list[Execution] = []
        for owner in owners:
            day = start.isoformat() if start is not None and start == end else ""
            rows += join_executions(
                owner,
                self._records(Fill, owner.account, f"fill#{day}"),
                self._records(Intent, owner.account, f"intent#{day}"),
                self._records(OrderEvent, owner.account, f"state#{day}"),
                self._records(Decision, owner.account, f"decision#{day}"),
            )
        chosen = [r for r in rows if (start is None or r.session >= start) and (end is None or r.session <= end)]
        return sorted(chosen, key=lambda r: (r.session, r.account, r.side.value != "sell", r.symbol, r.fill_id))

    def _intent(self, account: str, session: date, client_order_id: str) -> Intent | None:
        document = self._store.get(_pk(account), f"intent#{session.isoformat()}#{client_order_id}")
        return from_document(Intent, document) if document is not None else None

    def _require_intent(self, account: str, session: date, client_order_id: str) -> None:
        if self._intent(account, session, client_order_id) is None:
            reason = f"no intent with this id was written for {account} on {session}"
            raise LedgerRecordError(f"a record of order {client_order_id}", reason)

    # --- events and halts ---------------------------------------------------------------------------------------------

    def record_event(self, event: LedgerEvent) -> bool:
        """Writes an event; False when exactly this one is there already."""
        document = to_document(event)
        digest = hashlib.sha256(to_json(document).encode()).hexdigest()[:12]
        return self._store.put_new(_pk(event.account), f"event#{document['at']}#{digest}", document)

    def events(self, account: str, session: date | None = None) -> list[LedgerEvent]:
        """The account's events, oldest first; of one session when given."""
        found = self._records(LedgerEvent, account, "event#")
        return sorted((e for e in found if session in (None, e.session)), key=lambda e: e.at)

    def halt(self, scope: str, reason: str, by: str, now: datetime) -> HaltEvent:
        """Stops trading of one account, or of "all". UnknownNameError for an account that was never claimed."""
        return self._append_halt(HaltEvent(scope, True, reason, by, now.astimezone(UTC)))

    def resume(self, scope: str, by: str, now: datetime, reason: str = "") -> HaltEvent:
        """Ends the halt of exactly this scope: an account stays halted while "all" is."""
        return self._append_halt(HaltEvent(scope, False, reason, by, now.astimezone(UTC)))

    def halted(self, account: str) -> str | None:
        """Why this account may not trade now (its own halt or that of "all"), or None."""
        for scope in (ALL_ACCOUNTS, account):
            last = self._last_halt(scope)
            if last is not None and last.halted:
                return last.reason or f"halted by {last.by}"
        return None

    def halt_history(self, scope: str) -> list[HaltEvent]:
        """All halts and resumes of a scope, oldest first."""
        return [from_document(HaltEvent, item.doc) for item in self._store.query("halt", f"{scope}#")]

    def _last_halt(self, scope: str) -> HaltEvent | None:
        found = self._store.query("halt", f"{scope}#", limit=1, newest_first=True)
        return from_document(HaltEvent, found[0].doc) if found else None

    def _append_halt(self, event: HaltEvent) -> HaltEvent:
        if event.scope != ALL_ACCOUNTS:
            self._owner(event.scope)
        while True:
            number = len(self._store.query("halt", f"{event.scope}#")) + 1
            if self._store.put_new("halt", f"{event.scope}#{number:08d}", to_document(event)):
                return event

    def _records(self, record_type: type[RecordT], account: str, prefix: str) -> list[RecordT]:
        return [from_document(record_type, item.doc) for item in self._store.query(_pk(account), prefix)]


def _pk(account: str) -> str:
    return f"account#{account}"


def _order_record(intent: Intent, event: OrderEvent | None) -> OrderRecord:
    if event is None:
        return OrderRecord(intent, OrderStatus.PLANNED, 0.0, None, "")
    return OrderRecord(intent, event.status, event.filled_quantity, event.average_price, event.reason)


def open_orders(orders: Iterable[OrderRecord]) -> list[OrderRecord]:
    """Those that have not ended; UNKNOWN counts as open."""
    return [order for order in orders if not order.status.terminal]
