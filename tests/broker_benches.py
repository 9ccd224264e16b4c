"""What a broker brings to the contract suite: an account on a market that a test can open."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

import pytest
from ledger_samples import ACCOUNT, NOW, opened_store, reopened
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).resolve().parent / "execution"))  # a program beside the tests, not a package

from alpaca_trading_server import KEY_ID, NEW_YORK, SECRET_KEY, AlpacaTradingServer

from trading_core.costs import FREE
from trading_core.execution.alpaca_calls import AlpacaAccess
from trading_core.execution.broker import Broker, SimulatedBroker
from trading_core.execution.registry import BrokerRequest, broker_entry
from trading_core.execution.store import DocumentStore

CASH = 10_000.0
NOWHERE: Any = None  # a store, for brokers that keep their books themselves


class BrokerBench(Protocol):
    """One account with CASH and no positions. It is NOW: before the open of TUE, in the order windows for it."""

    def broker(self) -> Broker:
        """A new client of the account, as another process builds it."""
        ...

    def play_open(self, session: date, opens: Mapping[str, float]) -> None:
        """Lets a session open: what is ordered for it and fills does so at these prices, without costs."""
        ...


BenchMaker = Callable[[pytest.FixtureRequest, Path], AbstractContextManager[BrokerBench]]


class PaperBench:
    """Clients take turns on two stores that were opened apart, as by two processes; opening one takes its time."""

    def __init__(self, *stores: DocumentStore) -> None:
        self._turns = cycle(stores)

    def broker(self) -> Broker:
        return broker_entry("paper").build(BrokerRequest(next(self._turns), ACCOUNT, capital=CASH, costs=FREE))

    def play_open(self, session: date, opens: Mapping[str, float]) -> None:
        broker = self.broker()
        assert isinstance(broker, SimulatedBroker)
        broker.settle_open(session, opens, (), NOW)


def paper_on(kind: str) -> BenchMaker:
    @contextmanager
    def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerBench]:
        with opened_store(kind, request, tmp_path) as documents:
            yield PaperBench(documents, reopened(documents, request))

    return opened


@dataclass(frozen=True)
class AlpacaBench:
    """Alpaca's stand-in over HTTP. After an open it is the evening of that session: the next one may be ordered for."""

    name: str
    server: AlpacaTradingServer

    def broker(self) -> Broker:
        access = AlpacaAccess(SecretStr(KEY_ID), SecretStr(SECRET_KEY), self.server.url)
        request = BrokerRequest(NOWHERE, ACCOUNT, CASH, FREE, alpaca=access, real_money=self.name)
        return broker_entry(self.name).build(request)

    def play_open(self, session: date, opens: Mapping[str, float]) -> None:
        self.server.open_market(session, opens)
        self.server.close_market(session, {})
        self.server.now = datetime.combine(session, time(20, 0), NEW_YORK)


def alpaca(name: str) -> BenchMaker:
    @contextmanager
    def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerBench]:
        with AlpacaTradingServer(NOW, cash=str(CASH)) as server:
            yield AlpacaBench(name, server)

    return opened


# The first word is the broker's name in the registry.
BENCHES: dict[str, BenchMaker] = {
    "paper on sqlite": paper_on("sqlite"),
    "paper on dynamodb": paper_on("dynamodb"),
    "alpaca": alpaca("alpaca"),
    "alpaca-live": alpaca("alpaca-live"),
}
