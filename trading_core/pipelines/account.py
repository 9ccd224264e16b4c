"""An account with its ledger and its broker, opened on the market's stores."""

from __future__ import annotations

from dataclasses import dataclass

from trading_core.config import StrategyConfig
from trading_core.execution.broker import Broker
from trading_core.execution.ledger import Ledger
from trading_core.execution.registry import BrokerRequest, broker_entry
from trading_core.pipelines.strategies import may_short
from trading_core.pipelines.workspace import Workspace


@dataclass(frozen=True, slots=True, eq=False)
class TradingAccount:
    """`name`: the account's id at `broker` and in `ledger`."""

    name: str
    ledger: Ledger
    broker: Broker


def open_account(ws: Workspace, name: str, broker: str, strategy: StrategyConfig) -> TradingAccount:
    """Does no I/O. Errors: UnknownNameError for a broker; InvalidConfigError for the strategy's parameters."""
    store = ws.ledger_store()
    short = may_short(strategy, strategy.strategy)
    request = BrokerRequest(store, name, strategy.capital, ws.costs, strategy.fractional, short)
    return TradingAccount(name, Ledger(store), broker_entry(broker).build(request))
