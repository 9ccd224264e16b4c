"""A whole session at a broker that lives in the market: sells for the open, buys for the cash that came, no auction of ours."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
import yaml
from pydantic import SecretStr
from tiny_market import NOW, backfilled, rewritten

from trading_core.errors import (
    AccountMismatchError,
    AmbiguousOrderError,
    BrokerUnreachableError,
    MarketClosedError,
    OrderWindowClosedError,
)
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import EventLevel, SessionStatus
from trading_core.pipelines import refs, trade
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import OrderStatus, Side

sys.path.insert(0, str(Path(__file__).parents[1] / "execution"))
from alpaca_trading_server import KEY_ID, SECRET_KEY, AlpacaTradingServer

FRI, MON, TUE = date(2025, 6, 13), date(2025, 6, 16), date(2025, 6, 17)
BEFORE_MONDAY = datetime(2025, 6, 16, 13, 0, tzinfo=UTC)  # 09:00 in New York
ACCOUNT = "alpaca-tiny-whole-shares"


@pytest.fixture
def server() -> Iterator[AlpacaTradingServer]:
    with AlpacaTradingServer(BEFORE_MONDAY, cash="100000") as running:
        yield running


@pytest.fixture
def real(copied: Callable[..., Workspace], server: AlpacaTradingServer) -> Workspace:
    """A workspace that trades live at the stand-in, whole shares, the three best."""
    ws = copied(
        broker="alpaca",
        trade_mode="live",
        alpaca_url=server.url,
        alpaca_key_id=SecretStr(KEY_ID),
        alpaca_secret_key=SecretStr(SECRET_KEY),
    )
    folder = ws.settings.var_dir / "configs" / "strategies"
    folder.mkdir(parents=True)
    chosen = {"strategy": "top_k", "fractional": False, "params": {"k": 3}, "risk": {"max_position": 0.5}}
    (folder / "whole-shares.yaml").write_text(yaml.safe_dump(chosen))
    return ws


def closes(ws: Workspace, day: date) -> dict[str, float]:
    bars = ws.tables.read("bars").filter(pl.col("session") == day)
    return dict(bars.select("symbol", "close").iter_rows())


def decided(ws: Workspace, session: date, now: datetime) -> refs.SessionRef:
    opened = trade.open_session(
        ws, strategy="whole-shares", session=session, is_backfill=False, replay=None, run_id="run", now=now
    )
    return trade.decide(ws, trade.infer(ws, opened, now), now)


def hold(server: AlpacaTradingServer, ws: Workspace, count: int = 2) -> list[str]:
    """Lets the account hold symbols that the decision will want to sell: the worst forecasts."""
    rows = ws.tables.read("forecasts").filter((pl.col("session") == FRI) & (pl.col("horizon") == 1)).sort("score")
    prices = closes(ws, FRI)
    worst = [symbol for symbol in rows["symbol"].to_list() if symbol in prices][:count]
    for symbol in worst:
        server.positions[symbol] = [Decimal(100), Decimal(str(round(prices[symbol], 2)))]
    server.cash = Decimal("20000")
    return worst


def test_sells_at_the_open_then_buys_with_the_cash_that_is_there(real: Workspace, server: AlpacaTradingServer) -> None:
    held, prices = hold(server, real), closes(real, FRI)
    ref = decided(real, MON, BEFORE_MONDAY)
    assert (ref.account, ref.kind, ref.broker) == (ACCOUNT, "live", "alpaca")
    sold = trade.sell(real, ref, BEFORE_MONDAY)
    assert (sold.submitted, sold.known, sold.refused) == (2, 0, 0)
    assert {(p["symbol"], p["side"], p["time_in_force"]) for p in server.posts} == {(s, "sell", "opg") for s in held}
    assert trade.waiting(real, ref, "sell", BEFORE_MONDAY) == 2
    server.open_market(MON, {s: p * 0.97 for s, p in prices.items()})  # gaps down: less cash than planned
    assert trade.waiting(real, ref, "sell", server.now) == 0
    cash = float(server.cash)
    bought = trade.buy(real, ref, server.now)
    assert (bought.submitted, bought.refused) == (3, 0)
    buys = [p for p in server.posts if p["side"] == "buy"]
    spent = sum(float(p["qty"]) * prices[p["symbol"]] for p in buys)
    assert 0.9 * cash < spent < cash * 0.995  # nearly all of it, and the margin is kept
    assert all(p["time_in_force"] == "day" and float(p["qty"]).is_integer() for p in buys)
    assert trade.buy(real, ref, server.now).submitted == 0  # run again: nothing new
    assert len(server.posts) == 5
    server.trade(prices)
    assert trade.waiting(real, ref, "buy", server.now) == 0
    assert trade.settle(real, ref, server.now).status == "pending"  # the day's bars are not there yet
    server.close_market(MON, prices)
    evening = server.now + timedelta(hours=2)
    backfilled(real, MON, MON, now=evening)
    done = trade.settle(real, ref, evening)
    assert (done.status, done.orders, done.fills) == ("settled", 5, 5)
    state = Ledger(real.ledger_store()).session_state(ACCOUNT, MON)
    assert state is not None
    assert state.status is SessionStatus.SETTLED
    assert state.summary is not None
    assert state.summary.cash == pytest.approx(float(server.cash), abs=1e-6)
    assert {p.symbol: p.quantity for p in state.summary.positions} == {
        s: float(q) for s, (q, _) in server.positions.items() if q
    }


def test_the_collar_asks_for_the_last_trade(real: Workspace, server: AlpacaTradingServer) -> None:
    """It was opened ten per cent wide: one that moved further overnight is left alone, an old trade says nothing."""
    held, prices = hold(server, real, count=3), closes(real, FRI)
    ref = decided(real, MON, BEFORE_MONDAY)
    server.quote(held[0], prices[held[0]] * 0.85)
    server.quote(held[1], prices[held[1]] * 0.95)
    server.quote(held[2], prices[held[2]] * 0.5, datetime(2025, 6, 13, 19, 59, tzinfo=UTC))  # before Friday's close
    sold = trade.sell(real, ref, BEFORE_MONDAY)
    assert (sold.submitted, sold.refused) == (2, 1)
    assert sorted(p["symbol"] for p in server.posts) == sorted(held[1:])
    told = [record for record in Ledger(real.ledger_store()).gates(ACCOUNT, MON) if record.symbol == held[0]]
    (reason,) = [v.reason for record in told for v in record.verdicts if v.verdict == "reject"]
    assert "is 1,500.0 bps from" in reason


def test_nothing_is_sent_while_the_last_trades_cannot_be_asked_for(
    real: Workspace, server: AlpacaTradingServer
) -> None:
    hold(server, real)
    ref = decided(real, MON, BEFORE_MONDAY)
    server.inject("last trades", "503")
    with pytest.raises(BrokerUnreachableError, match="last trades"):
        trade.sell(real, ref, BEFORE_MONDAY)
    assert server.posts == []
    assert trade.sell(real, ref, BEFORE_MONDAY).submitted == 2  # run again


def test_a_lost_answer_is_not_sent_again(real: Workspace, server: AlpacaTradingServer) -> None:
    hold(server, real)
    ref = decided(real, MON, BEFORE_MONDAY)
    server.inject("submit", "lost answer")
    with pytest.raises(AmbiguousOrderError):
        trade.sell(real, ref, BEFORE_MONDAY)
    ledger = Ledger(real.ledger_store())
    assert [o.status for o in ledger.orders(ACCOUNT, MON)] == [OrderStatus.UNKNOWN]
    done = trade.sell(real, ref, BEFORE_MONDAY + timedelta(seconds=1))
    assert (done.submitted, done.known) == (1, 1)
    assert sorted(o["symbol"] for o in server.orders.values()) == sorted(o["symbol"] for o in server.posts)
    assert all(o.status is OrderStatus.ACCEPTED for o in ledger.orders(ACCOUNT, MON))


def test_a_broker_that_does_not_answer_is_never_flat(real: Workspace, server: AlpacaTradingServer) -> None:
    hold(server, real)
    server.inject("positions", "503", times=50)
    with pytest.raises(BrokerUnreachableError):
        decided(real, MON, BEFORE_MONDAY)
    assert Ledger(real.ledger_store()).get_decision(ACCOUNT, MON) is None
    assert server.posts == []


def test_a_session_that_the_exchange_called_off_is_not_traded(real: Workspace, server: AlpacaTradingServer) -> None:
    server.closures.add(MON)
    with pytest.raises(MarketClosedError, match="does not open on 2025-06-16"):
        decided(real, MON, BEFORE_MONDAY)
    assert Ledger(real.ledger_store()).last_session(ACCOUNT) is None


def test_orders_too_late_for_the_auction_are_refused(real: Workspace, server: AlpacaTradingServer) -> None:
    hold(server, real)
    ref = decided(real, MON, BEFORE_MONDAY)
    late = datetime(2025, 6, 16, 13, 28, tzinfo=UTC)
    with pytest.raises(OrderWindowClosedError, match="13:28"):
        trade.sell(real, ref, late)
    assert server.posts == []


def test_what_nobody_explains_stops_trading_and_says_what(real: Workspace, server: AlpacaTradingServer) -> None:
    ref = bought(real, server, closes(real, FRI))
    evening = server.now + timedelta(hours=2)
    backfilled(real, MON, MON, now=evening)
    trade.settle(real, ref, evening)
    first = next(iter(server.positions))
    server.positions[first][0] += Decimal(7)  # somebody traded by hand
    server.cash -= Decimal("5.55")
    before_tuesday = datetime(2025, 6, 17, 13, 0, tzinfo=UTC)
    server.now = before_tuesday
    with pytest.raises(AccountMismatchError, match=rf"{first}: the ledger says .*cash: the ledger says"):
        decided(real, TUE, before_tuesday)
    events = Ledger(real.ledger_store()).events(ACCOUNT, TUE)
    assert [(e.kind, e.level) for e in events] == [("mismatch", EventLevel.ALERT)]
    from trading_core.pipelines import controls

    controls.act(real, "adopt", ACCOUNT, "bought by hand", by="me", now=before_tuesday)
    assert decided(real, TUE, before_tuesday).session == TUE


def test_a_deposit_is_explained(real: Workspace, server: AlpacaTradingServer) -> None:
    prices = closes(real, FRI)
    ref = decided(real, MON, BEFORE_MONDAY)
    trade.sell(real, ref, BEFORE_MONDAY)
    server.open_market(MON, prices)
    trade.buy(real, ref, server.now)
    server.trade(prices)
    server.pay("CSD", "250.00", MON)
    server.close_market(MON, prices)
    evening = server.now + timedelta(hours=2)
    backfilled(real, MON, MON, now=evening)
    assert trade.settle(real, ref, evening).status == "settled"
    flows = Ledger(real.ledger_store()).cash_flows(ACCOUNT, MON)
    assert [(f.kind.value, f.amount) for f in flows] == [("transfer", 250.0)]


def bought(ws: Workspace, server: AlpacaTradingServer, prices: dict[str, float]) -> refs.SessionRef:
    """Monday traded to its close, not settled."""
    ref = decided(ws, MON, BEFORE_MONDAY)
    trade.sell(ws, ref, BEFORE_MONDAY)
    server.open_market(MON, prices)
    trade.buy(ws, ref, server.now)
    server.trade(prices)
    server.close_market(MON, prices)
    return ref


def test_cash_that_came_before_the_decision_is_explained_and_counts_once(
    real: Workspace, server: AlpacaTradingServer
) -> None:
    prices = closes(real, FRI)
    server.pay("DIV", "12.34", MON, symbol="SIM001")  # in the morning, before the account is opened: part of its past
    bought(real, server, prices)
    evening = server.now + timedelta(hours=2)
    backfilled(real, MON, MON, now=evening)
    server.now = before_tuesday = datetime(2025, 6, 17, 13, 0, tzinfo=UTC)
    server.pay("DIV", "56.78", TUE, symbol="SIM001")  # of Tuesday, and there already when Tuesday is decided
    ref = decided(real, TUE, before_tuesday)  # settles Monday on the way
    ledger = Ledger(real.ledger_store())
    monday = ledger.session_state(ACCOUNT, MON)
    assert monday is not None
    assert monday.summary is not None
    assert monday.summary.cash == pytest.approx(float(server.cash) - 56.78, abs=1e-6)
    trade.sell(real, ref, before_tuesday)
    server.open_market(TUE, prices)
    trade.buy(real, ref, server.now)
    server.trade(prices)
    server.close_market(TUE, prices)
    evening = server.now + timedelta(hours=2)
    backfilled(real, TUE, TUE, now=evening)
    assert trade.settle(real, ref, evening).status == "settled"
    tuesday = ledger.session_state(ACCOUNT, TUE)
    assert tuesday is not None
    assert tuesday.summary is not None
    assert tuesday.summary.cash == pytest.approx(float(server.cash), abs=1e-6)


def test_a_fee_that_is_posted_in_the_night_is_explained_and_counts_once(
    real: Workspace, server: AlpacaTradingServer
) -> None:
    prices = closes(real, FRI)
    server.pay("FEE", "-1.00", FRI)  # before the account is opened: part of its past
    ref = bought(real, server, prices)
    evening = server.now + timedelta(hours=2)
    backfilled(real, MON, MON, now=evening)
    assert trade.settle(real, ref, evening).status == "settled"
    server.now = evening + timedelta(hours=4)
    server.pay("FEE", "-0.37", MON)  # of Monday's sells
    server.pay("FEE", "-0.02", FRI)
    server.now = before_tuesday = datetime(2025, 6, 17, 13, 0, tzinfo=UTC)
    ref = decided(real, TUE, before_tuesday)
    server.pay("DIV", "5.00", MON)  # later still
    trade.sell(real, ref, before_tuesday)
    server.open_market(TUE, prices)
    trade.buy(real, ref, server.now)
    server.trade(prices)
    server.close_market(TUE, prices)
    evening = server.now + timedelta(hours=2)
    backfilled(real, TUE, TUE, now=evening)
    assert trade.settle(real, ref, evening).status == "settled"
    ledger = Ledger(real.ledger_store())
    assert [f.amount for f in ledger.cash_flows(ACCOUNT, MON)] == []
    assert sorted(f.amount for f in ledger.cash_flows(ACCOUNT, TUE)) == [-0.37, -0.02, 5.0]
    tuesday = ledger.session_state(ACCOUNT, TUE)
    assert tuesday is not None
    assert tuesday.summary is not None
    assert tuesday.summary.cash == pytest.approx(float(server.cash), abs=1e-6)
    wednesday = date(2025, 6, 18)
    server.now = datetime(2025, 6, 18, 13, 0, tzinfo=UTC)
    assert decided(real, wednesday, server.now).session == wednesday


def test_cash_that_a_person_has_adopted_is_not_late(real: Workspace, server: AlpacaTradingServer) -> None:
    from trading_core.pipelines import controls

    ref = bought(real, server, closes(real, FRI))
    server.cash -= Decimal("9.99")  # nobody says why
    server.pay("FEE", "-0.37", MON)
    evening = server.now + timedelta(hours=2)
    backfilled(real, MON, MON, now=evening)
    with pytest.raises(AccountMismatchError, match="cash: the ledger says"):
        trade.settle(real, ref, evening)
    controls.act(real, "adopt", ACCOUNT, "a fee", by="me", now=evening)
    assert trade.settle(real, ref, evening).status == "settled"
    server.now = before_tuesday = datetime(2025, 6, 17, 13, 0, tzinfo=UTC)
    server.pay("FEE", "-0.11", MON)  # this one is
    assert decided(real, TUE, before_tuesday).session == TUE
    assert [f.amount for f in Ledger(real.ledger_store()).cash_flows(ACCOUNT, TUE)] == [-0.11]


def test_a_mismatch_while_settling_can_be_adopted(real: Workspace, server: AlpacaTradingServer) -> None:
    from trading_core.pipelines import controls

    ref = bought(real, server, closes(real, FRI))
    server.cash -= Decimal("9.99")  # nobody says why
    evening = server.now + timedelta(hours=2)
    backfilled(real, MON, MON, now=evening)
    with pytest.raises(AccountMismatchError, match="cash: the ledger says"):
        trade.settle(real, ref, evening)
    controls.act(real, "adopt", ACCOUNT, "a fee", by="me", now=evening)
    assert trade.settle(real, ref, evening).status == "settled"
    server.now = before_tuesday = datetime(2025, 6, 17, 13, 0, tzinfo=UTC)
    assert decided(real, TUE, before_tuesday).session == TUE


def test_a_split_overnight_is_neither_a_mismatch_nor_a_fortune(real: Workspace, server: AlpacaTradingServer) -> None:
    """The broker restates Tuesday's split before Tuesday is decided, and before Monday is settled."""
    prices = closes(real, FRI)
    bought(real, server, prices)
    evening = server.now + timedelta(hours=2)
    backfilled(real, MON, MON, now=evening)
    symbol = next(s for s, (quantity, _) in server.positions.items() if quantity)
    before = float(server.positions[symbol][0])
    actions = real.tables.read("corporate_actions")
    split = actions.head(1).with_columns(
        symbol=pl.lit(symbol), session=pl.lit(TUE), kind=pl.lit("split"), value=pl.lit(2.0), known_at=pl.lit(MON)
    )
    rewritten(real, "corporate_actions", lambda there: pl.concat([there, split.select(there.columns)]), TUE)
    server.positions[symbol][0] *= 2
    server.positions[symbol][1] /= 2
    server.now = before_tuesday = datetime(2025, 6, 17, 13, 0, tzinfo=UTC)
    ref = decided(real, TUE, before_tuesday)
    ledger = Ledger(real.ledger_store())
    monday, decision = ledger.session_state(ACCOUNT, MON), ledger.get_decision(ACCOUNT, TUE)
    assert monday is not None
    assert monday.summary is not None
    assert decision is not None
    assert {p.symbol: p.quantity for p in monday.summary.positions}[symbol] == before
    assert {h.symbol: h.quantity for h in decision.holdings}[symbol] == before
    assert decision.equity == pytest.approx(monday.summary.equity, rel=1e-9)
    trade.sell(real, ref, before_tuesday)
    sold = {p["symbol"]: float(p["qty"]) for p in server.posts if p["side"] == "sell"}
    assert sold.get(symbol, 2 * before) == 2 * before  # in the shares that are traded now


def test_a_shadow_decides_and_sends_nothing(real: Workspace, server: AlpacaTradingServer) -> None:
    held = hold(server, real)
    ws = Workspace(
        real.settings.model_copy(update={"trade_mode": "shadow"}), real.market, real.store, real.tables, real.sessions
    )
    ref = decided(ws, MON, BEFORE_MONDAY)
    assert (ref.account, ref.kind) == ("shadow-alpaca-tiny-whole-shares", "shadow")
    server.quote(held[0], closes(ws, FRI)[held[0]] * 0.5)
    assert trade.sell(ws, ref, BEFORE_MONDAY).refused == 2
    assert trade.buy(ws, ref, BEFORE_MONDAY).refused == 3
    ledger = Ledger(ws.ledger_store())
    decision = ledger.get_decision(ref.account, MON)
    assert decision is not None
    assert {o.side for o in decision.orders} == {Side.SELL, Side.BUY}
    assert ledger.orders(ref.account, MON) == server.posts == []
    # It is judged as a live one would be.
    against = {(r.symbol, v.rule) for r in ledger.gates(ref.account, MON) for v in r.verdicts if v.verdict == "reject"}
    assert against == {(held[0], "price_collar")}
    assert len({record.symbol for record in ledger.gates(ref.account, MON)}) == 5
    said = [event.message for event in ledger.events(ref.account, MON) if event.kind == "shadow"]
    assert said == [
        "2 sell(s) not sent; the rules would have refused 1 of them",
        "3 buy(s) not sent; the rules would have refused 0 of them",
    ]


@pytest.mark.parametrize("session", [date(2025, 6, 12), FRI])
def test_no_replay_opens_a_connection(real: Workspace, server: AlpacaTradingServer, session: date) -> None:
    ref = decided(real, session, NOW)
    assert ref.kind == "replay"
    trade.sell(real, ref, NOW)
    trade.buy(real, ref, NOW)
    trade.settle(real, ref, NOW)
    assert server.requests == []
