"""An account with its ledger and its broker, opened on the market's stores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from trading_core.config import StrategyConfig
from trading_core.errors import LeaseHeldError
from trading_core.execution.accounts import AccountKind, kind_of
from trading_core.execution.alpaca_calls import AlpacaAccess
from trading_core.execution.broker import Broker
from trading_core.execution.lease import FencedStore, Leases, this_process
from trading_core.execution.ledger import Ledger
from trading_core.execution.registry import BrokerRequest, broker_entry
from trading_core.execution.session import SessionPolicy, TradingSession
from trading_core.execution.shadow import ReadOnlyBroker
from trading_core.execution.store import DocumentStore
from trading_core.pipelines.strategies import may_short
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import OrderKind
from trading_core.sessions import Sessions

LEASE_WAIT_S, LEASE_POLL_S = 90.0, 0.2  # how long a step waits for another one that works on its account


@dataclass(frozen=True, slots=True, eq=False)
class TradingAccount:
    """`name`: the account's id at `broker` and in `ledger`. `policy`: how its orders are sent."""

    name: str
    ledger: Ledger
    broker: Broker
    policy: SessionPolicy
    sessions: Sessions
    keep: Callable[[datetime], None] = lambda at: None  # renews the lease under which it was opened

    @property
    def kind(self) -> AccountKind:
        return kind_of(self.name)

    def session(self, day: date) -> TradingSession:
        return TradingSession(self.ledger, self.broker, self.sessions, self.name, day, self.policy)


@contextmanager
def leased(
    ws: Workspace,
    name: str,
    broker: str,
    strategy: StrategyConfig,
    label: str,
    now: datetime,
    wait_s: float = LEASE_WAIT_S,
) -> Iterator[TradingAccount]:
    """The account, held for as long as the block runs: nobody else writes to its ledger meanwhile, and once somebody else
    has taken it over every write here fails (LeaseLostError). Errors: LeaseHeldError after `wait_s`; those of open_account.
    """
    store = ws.ledger_store()
    leases, holder = Leases(store), this_process(label)
    started = time.monotonic()
    while True:
        waited = time.monotonic() - started
        try:
            lease = leases.acquire(name, holder, now + timedelta(seconds=waited))
            break
        except LeaseHeldError:
            if waited >= wait_s:
                raise
            time.sleep(LEASE_POLL_S)
    fenced = FencedStore(store, leases, lease)

    def keep(at: datetime) -> None:
        fenced.lease = leases.renew(fenced.lease, at)

    try:
        yield replace(open_account(ws, name, broker, strategy, fenced), keep=keep)
    finally:
        leases.release(fenced.lease, now + timedelta(seconds=time.monotonic() - started))


def open_account(
    ws: Workspace, name: str, broker: str, strategy: StrategyConfig, ledger_store: DocumentStore | None = None
) -> TradingAccount:
    """For reading, unless `ledger_store` is a fenced one (see `leased`). Does no I/O.

    Errors: UnknownNameError for a broker; InvalidConfigError for the strategy's parameters.
    """
    store = ws.ledger_store()
    short = may_short(strategy, strategy.strategy)
    settings = ws.settings
    request = BrokerRequest(
        store,
        name,
        strategy.capital,
        ws.costs,
        strategy.fractional,
        short,
        calendar=ws.market.calendar,
        alpaca=AlpacaAccess(
            settings.alpaca_key_id, settings.alpaca_secret_key, settings.alpaca_url, settings.alpaca_data_url
        ),
        real_money=settings.real_money,
        paper_faults=settings.paper_faults,
    )
    kind = kind_of(name)
    policy = SessionPolicy(
        kind=OrderKind(strategy.execution.order),
        collar_bps=strategy.execution.collar_bps,
        cash_margin_bps=strategy.execution.cash_margin_bps,
        cancel_leftovers=strategy.execution.leftovers == "cancel",
        replay=kind is AccountKind.REPLAY,
    )
    ledger = Ledger(ledger_store or store)
    built = broker_entry(broker).build(request)
    reached = built if kind.sends else ReadOnlyBroker(built)
    return TradingAccount(name, ledger, reached, policy, ws.sessions)
