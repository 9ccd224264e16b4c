"""Accounts, sessions and orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from trading_core.errors.base import TradingError, some


class ExecutionError(TradingError):
    """A trading session that must not go on."""


@dataclass(eq=False)
class LedgerUnreachableError(ExecutionError):
    url: str
    reason: str

    def __str__(self) -> str:
        return f"The ledger '{self.url}' cannot be reached: {self.reason}. No order is sent without it; check its URL and network, then run the session again."


@dataclass(eq=False)
class SessionOrderError(ExecutionError):
    account: str
    session: date
    last: date
    reason: str

    def __str__(self) -> str:
        return (
            f"Account '{self.account}' cannot trade session {self.session}: {self.reason} (last session: {self.last}). "
            "Run sessions in order (airflow backfill create --max-active-runs 1), or name a new replay account with the `replay` parameter."
        )


@dataclass(eq=False)
class SessionNotSettledError(ExecutionError):
    account: str
    session: date
    unsettled: date
    open_orders: int

    def __str__(self) -> str:
        if self.open_orders == 0:
            return (
                f"Account '{self.account}' cannot trade session {self.session}: its session {self.unsettled} was opened but "
                "not brought to its end. Run that session again first; steps that are done change nothing."
            )
        return (
            f"Account '{self.account}' cannot trade session {self.session}: its session {self.unsettled} still has {self.open_orders} open order(s). "
            f"Run feature_backfill for {self.unsettled} so that its bars are there; the next run settles it."
        )


@dataclass(eq=False)
class OrderWindowClosedError(ExecutionError):
    """A decision or an order outside the time in which its session's orders may be sent."""

    account: str
    session: date
    start: datetime
    end: datetime
    now: datetime

    def __str__(self) -> str:
        if self.now < self.start:
            return f"Orders of {self.session} may be sent from {self.start:%Y-%m-%d %H:%M} UTC on, it is {self.now:%Y-%m-%d %H:%M} UTC: account '{self.account}' has sent nothing yet. Run the step again then."
        return f"Orders of {self.session} could be sent until {self.end:%Y-%m-%d %H:%M} UTC, it is {self.now:%Y-%m-%d %H:%M} UTC: account '{self.account}' sends nothing for it any more. What was sent stands; the next session settles it and trades on."


@dataclass(eq=False)
class FlattenRefusedError(ExecutionError):
    account: str
    reason: str

    def __str__(self) -> str:
        return f"Account '{self.account}' cannot be flattened now: {self.reason}."


@dataclass(eq=False)
class ResolveRefusedError(ExecutionError):
    client_order_id: str
    status: str

    def __str__(self) -> str:
        return f"The broker knows the order {self.client_order_id} (it is {self.status}): its word counts, and was recorded. Nothing was resolved by hand."


@dataclass(eq=False)
class TradingHaltedError(ExecutionError):
    account: str
    reason: str

    def __str__(self) -> str:
        return f"Trading is halted for '{self.account}': {self.reason}. Resume it with `trading resume` or the controls DAG."


@dataclass(eq=False)
class NotASessionError(ExecutionError):
    calendar: str
    day: date

    def __str__(self) -> str:
        return (
            f"{self.day} is not a trading session of {self.calendar} (a holiday or a weekend). Choose a session's date."
        )


@dataclass(eq=False)
class MarketClosedError(ExecutionError):
    broker: str
    session: date

    def __str__(self) -> str:
        return f"Broker '{self.broker}' says that its exchange does not open on {self.session}, a closure that our calendar does not know. Nothing was decided and nothing is sent for it; the next session trades on."


@dataclass(eq=False)
class DuplicateOrderError(ExecutionError):
    """A broker's refusal of a client order id it has seen before."""

    client_order_id: str

    def __str__(self) -> str:
        return f"The broker already has an order with id {self.client_order_id}; it was not sent twice."


@dataclass(eq=False)
class BrokerUnreachableError(ExecutionError):
    """A question that got no usable answer. Nothing may be concluded from it: not that an account is flat, not that an order is gone."""

    broker: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"Broker '{self.broker}' gave no usable answer to {self.what}: {self.reason}. Nothing is concluded from it and nothing was sent; run the step again when the broker answers."


@dataclass(eq=False)
class BrokerBusyError(BrokerUnreachableError):
    """The broker refused to look at a request now (too many). An order in it was certainly not taken."""

    retry_after_s: float = 1.0

    def __str__(self) -> str:
        return f"Broker '{self.broker}' asks to wait {self.retry_after_s:g} s before {self.what}: {self.reason}. The request was not carried out; run the step again after that."


@dataclass(eq=False)
class BrokerAccessError(ExecutionError):
    broker: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"Broker '{self.broker}' denies {self.what}: {self.reason}. Check the account's keys and state (docs/operations.md, Brokers); nothing was sent."


@dataclass(eq=False)
class AmbiguousOrderError(ExecutionError):
    """An order that may or may not have reached the broker."""

    broker: str
    client_order_id: str
    reason: str

    def __str__(self) -> str:
        return f"It is not known whether broker '{self.broker}' took the order {self.client_order_id}: {self.reason}. It is kept as UNKNOWN until the broker says; run the step again."


@dataclass(eq=False)
class OrderRefusedError(ExecutionError):
    """A broker's clear refusal of an order: it was not taken, and will not be by asking again."""

    broker: str
    client_order_id: str
    reason: str

    def __str__(self) -> str:
        return f"Broker '{self.broker}' refuses the order {self.client_order_id}: {self.reason}."


@dataclass(eq=False)
class LeaseHeldError(ExecutionError):
    account: str
    holder: str
    until: datetime

    def __str__(self) -> str:
        return f"Account '{self.account}' is being worked on by {self.holder} until {self.until:%H:%M:%S} UTC at the latest. Nothing was done; run the step again after that."


@dataclass(eq=False)
class LeaseLostError(ExecutionError):
    """This process was taken for dead or slow, and another one works on the account since."""

    account: str
    token: int
    reason: str

    def __str__(self) -> str:
        return f"This process no longer holds account '{self.account}' (its lease {self.token} {self.reason}): it writes nothing any more. Look at the run that holds it; running this step again is safe."


@dataclass(eq=False)
class UnresolvedOrdersError(ExecutionError):
    account: str
    session: date
    orders: Sequence[str]

    def __str__(self) -> str:
        return (
            f"Account '{self.account}' has orders of {self.session} of which nobody knows what became: {some(self.orders)}. "
            "Nothing more is sent. Look them up at the broker, then follow docs/operations.md, An order is UNKNOWN."
        )


@dataclass(eq=False)
class RiskRejectionError(ExecutionError):
    account: str
    session: date
    reasons: Sequence[str]

    def __str__(self) -> str:
        return f"The risk rules refuse the decision of '{self.account}' for {self.session}: {some(self.reasons)}. Nothing was sent; change the strategy, the limits in its config, or the account."


@dataclass(eq=False)
class AccountMismatchError(ExecutionError):
    account: str
    differences: Sequence[str]

    def __str__(self) -> str:
        return f"Broker and ledger disagree on account '{self.account}': {some(self.differences)}. Trading stops until a person has resolved it."


@dataclass(eq=False)
class StrategyConflictError(ExecutionError):
    account: str
    owner: str
    strategy: str

    def __str__(self) -> str:
        return f"Account '{self.account}' belongs to strategy '{self.owner}'; '{self.strategy}' may not trade on it (brokers net positions per account). Use another account."


@dataclass(eq=False)
class StrategyOutputError(ExecutionError):
    strategy: str
    reason: str

    def __str__(self) -> str:
        return f"Strategy '{self.strategy}' returned unusable weights: {self.reason}. Weights must be finite, one per symbol, within the leverage limit."
