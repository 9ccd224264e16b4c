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
    """A decision or an order for an open that has passed."""

    account: str
    session: date
    opened: datetime

    def __str__(self) -> str:
        return f"The open of {self.session} passed at {self.opened:%Y-%m-%d %H:%M} UTC: account '{self.account}' sends nothing for it any more. What was sent stands; the next session settles it and trades on."


@dataclass(eq=False)
class FlattenRefusedError(ExecutionError):
    account: str
    reason: str

    def __str__(self) -> str:
        return f"Account '{self.account}' cannot be flattened now: {self.reason}."


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
class DuplicateOrderError(ExecutionError):
    """A broker's refusal of a client order id it has seen before."""

    client_order_id: str

    def __str__(self) -> str:
        return f"The broker already has an order with id {self.client_order_id}; it was not sent twice."


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
