"""The brokers by name. A new one is one file that implements `Broker`, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trading_core.costs import CostModel
from trading_core.errors import UnknownNameError
from trading_core.execution.broker import Broker
from trading_core.execution.paper import PaperBroker
from trading_core.execution.store import DocumentStore


@dataclass(frozen=True, slots=True)
class BrokerRequest:
    """What a broker is built from. `capital`: cash of a new paper account, in the market's currency."""

    store: DocumentStore
    account: str
    capital: float
    costs: CostModel
    fractional: bool = True
    short: bool = False  # whether its strategy may sell what it does not hold


@dataclass(frozen=True, slots=True)
class BrokerEntry:
    """`real`: its orders can reach a real endpoint; such a broker is a dry run unless switched on explicitly."""

    build: Callable[[BrokerRequest], Broker]
    real: bool
    description: str


def _paper(request: BrokerRequest) -> Broker:
    return PaperBroker(
        request.store, request.account, request.capital, request.costs, request.fractional, request.short
    )


BROKERS: dict[str, BrokerEntry] = {
    "paper": BrokerEntry(_paper, real=False, description="persistent paper account filled at the next open"),
}


def broker_entry(name: str) -> BrokerEntry:
    """The entry of a broker; UnknownNameError with the names there are."""
    if name not in BROKERS:
        raise UnknownNameError("broker", name, sorted(BROKERS))
    return BROKERS[name]
