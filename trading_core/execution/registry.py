"""The brokers by name. A new one is one file that implements `Broker`, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trading_core.costs import CostModel
from trading_core.errors import InvalidConfigError, UnknownNameError
from trading_core.execution.alpaca import AlpacaBroker
from trading_core.execution.alpaca_calls import AlpacaAccess
from trading_core.execution.broker import Broker
from trading_core.execution.faulty import FaultyBroker, parse_faults
from trading_core.execution.paper import PaperBroker
from trading_core.execution.store import DocumentStore
from trading_core.sessions import Sessions

ALPACA_LIVE = "alpaca-live"


@dataclass(frozen=True, slots=True)
class BrokerRequest:
    """What a broker is built from. `capital`: cash of a new paper account, in the market's currency."""

    store: DocumentStore
    account: str
    capital: float
    costs: CostModel
    fractional: bool = True
    short: bool = False  # whether its strategy may sell what it does not hold
    calendar: str = "XNYS"  # of the market
    alpaca: AlpacaAccess | None = None
    real_money: str = ""  # the name of the broker that may trade real money: a second, explicit switch
    paper_faults: str = ""  # see execution.faulty; of the paper broker alone


@dataclass(frozen=True, slots=True)
class BrokerEntry:
    """`real`: its orders can reach a real endpoint; such a broker is a dry run unless switched on explicitly."""

    build: Callable[[BrokerRequest], Broker]
    real: bool
    description: str


def _paper(request: BrokerRequest) -> Broker:
    paper = PaperBroker(
        request.store, request.account, request.capital, request.costs, request.fractional, request.short
    )
    return FaultyBroker(paper, parse_faults(request.paper_faults), request.store) if request.paper_faults else paper


def _alpaca(request: BrokerRequest) -> Broker:
    return AlpacaBroker(request.account, request.alpaca or AlpacaAccess(), Sessions(request.calendar))


def _alpaca_live(request: BrokerRequest) -> Broker:
    if request.real_money != ALPACA_LIVE:
        problem = f"TRADING_REAL_MONEY: broker '{ALPACA_LIVE}' trades real money only where this is '{ALPACA_LIVE}'"
        raise InvalidConfigError("The environment", [problem])
    return AlpacaBroker(request.account, request.alpaca or AlpacaAccess(), Sessions(request.calendar), live=True)


BROKERS: dict[str, BrokerEntry] = {
    "paper": BrokerEntry(_paper, real=False, description="persistent paper account filled at the next open"),
    "alpaca": BrokerEntry(_alpaca, real=True, description="Alpaca's paper endpoint: US shares, no real money"),
    ALPACA_LIVE: BrokerEntry(_alpaca_live, real=True, description="Alpaca's live endpoint: US shares, real money"),
}


def broker_entry(name: str) -> BrokerEntry:
    """The entry of a broker; UnknownNameError with the names there are."""
    if name not in BROKERS:
        raise UnknownNameError("broker", name, sorted(BROKERS))
    return BROKERS[name]
