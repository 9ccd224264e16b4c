"""The ledger: what every account decided, ordered, filled and holds, append-only, with full history.

Written once on `DocumentStore`. Documents:

    accounts / <account>                        who owns the account
    account#<account> / session#<T>             a session was opened
                        turn#<number>           which session is the account's number-th: two cannot both be next
                        decision#<T>            the frozen decision
                        intent#<T>#<id>         an order about to be sent
                        gate#<T>#<id>#<n>       what the pre-trade rules said of that order
                        state#<T>#<id>#<n>      the n-th state of that order
                        fill#<T>#<id>#<fill>    an execution
                        correction#<T>#<id>#<fill>#<n>  its n-th correction
                        cash#<T>#<flow>         cash that moved without an order
                        approval#<T>            what a person said of the decision
                        settled#<T>             the session's summary
                        adopted#<n>             the broker's word taken for the truth, by a person
                        event#<at>#<digest>     things worth telling
                        lease#<n>               who may write (see lease.py)
    identities / <broker's account>             which account of ours it is
    halt / <scope>#<n>                          halts and resumes; the last one of a scope counts

All calls raise LedgerUnreachableError when the store does not answer: then no order may be sent. On a `FencedStore` they
raise LeaseLostError once another process has taken the account over.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime

from trading_core.errors import (
    SessionNotSettledError,
    SessionOrderError,
    StrategyConflictError,
    UnknownNameError,
)
from trading_core.execution.codec import LedgerRecordError, from_document, to_document, to_json
from trading_core.execution.executions import join_executions
from trading_core.execution.order_records import OrderRecords, account_pk, open_orders
from trading_core.execution.records import (
    AccountRecord,
    AdoptionRecord,
    ApprovalRecord,
    Decision,
    Execution,
    HaltEvent,
    Intent,
    LedgerEvent,
    OrderEvent,
    SessionRecord,
    SessionState,
    SessionStatus,
    SessionSummary,
)
from trading_core.execution.store import DocumentStore, NewDocument

ALL_ACCOUNTS = "all"  # the halt scope that covers every account


class Ledger(OrderRecords):
    """One ledger for all accounts of all markets. Constructing does no I/O; safe to share between threads."""

    def __init__(self, store: DocumentStore) -> None:
        super().__init__(store)
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

    def claim_identity(self, identity: str, account: str) -> None:
        """Binds an account at a broker to an account of ours, for ever. StrategyConflictError when it is another's."""
        self._store.put_new("identities", identity, {"account": account})
        document = self._store.get("identities", identity)
        owner = document["account"] if document else account
        if owner != account:
            raise StrategyConflictError(identity, owner, account)

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
            turn = NewDocument(account_pk(account), f"turn#{number:08d}", {"session": session.isoformat()})
            opened = NewDocument(account_pk(account), f"session#{session.isoformat()}", to_document(record))
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
        found = self._store.query(account_pk(account), "session#", limit=1, newest_first=True)
        return from_document(SessionRecord, found[0].doc) if found else None

    def sessions(self, account: str) -> list[SessionRecord]:
        """All sessions of the account, in order."""
        return self._records(SessionRecord, account, "session#")

    def session_state(self, account: str, session: date) -> SessionState | None:
        """Where a session stands; None when it was never opened."""
        pk, day = account_pk(account), session.isoformat()
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
        self._store.put_new(account_pk(account), f"settled#{session.isoformat()}", to_document(summary))
        return self._require_session(account, session)

    def summaries(self, account: str) -> list[SessionSummary]:
        """Of all settled sessions, in order."""
        return self._records(SessionSummary, account, "settled#")

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
        self._store.put_new(
            account_pk(decision.account), f"decision#{decision.session.isoformat()}", to_document(decision)
        )
        frozen = self.get_decision(decision.account, decision.session)
        return frozen if frozen is not None else decision

    def get_decision(self, account: str, session: date) -> Decision | None:
        document = self._store.get(account_pk(account), f"decision#{session.isoformat()}")
        return from_document(Decision, document) if document is not None else None

    def record_approval(self, approval: ApprovalRecord) -> ApprovalRecord:
        """Keeps what a person said of a decision; the first word stands and is returned."""
        self._require_session(approval.account, approval.session)
        self._store.put_new(
            account_pk(approval.account), f"approval#{approval.session.isoformat()}", to_document(approval)
        )
        found = self.approval(approval.account, approval.session)
        return found if found is not None else approval

    def approval(self, account: str, session: date) -> ApprovalRecord | None:
        document = self._store.get(account_pk(account), f"approval#{session.isoformat()}")
        return from_document(ApprovalRecord, document) if document is not None else None

    def adopt(self, adoption: AdoptionRecord) -> AdoptionRecord:
        """Keeps that a person took the broker's positions and cash for the truth: later sessions reckon from them."""
        self._owner(adoption.account)
        while True:
            number = len(self._store.query(account_pk(adoption.account), "adopted#")) + 1
            if self._store.put_new(account_pk(adoption.account), f"adopted#{number:06d}", to_document(adoption)):
                return adoption

    def adoptions(self, account: str) -> list[AdoptionRecord]:
        """Oldest first."""
        return self._records(AdoptionRecord, account, "adopted#")

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
                self._effective(owner.account, day),
                self._records(Intent, owner.account, f"intent#{day}"),
                self._records(OrderEvent, owner.account, f"state#{day}"),
                self._records(Decision, owner.account, f"decision#{day}"),
            )
        chosen = [r for r in rows if (start is None or r.session >= start) and (end is None or r.session <= end)]
        return sorted(chosen, key=lambda r: (r.session, r.account, r.side.value != "sell", r.symbol, r.fill_id))

    # --- events and halts ---------------------------------------------------------------------------------------------

    def record_event(self, event: LedgerEvent) -> bool:
        """Writes an event; False when exactly this one is there already."""
        document = to_document(event)
        digest = hashlib.sha256(to_json(document).encode()).hexdigest()[:12]
        return self._store.put_new(account_pk(event.account), f"event#{document['at']}#{digest}", document)

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
