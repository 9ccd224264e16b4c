"""Daily trading as a sequence of sessions: their order, what is pending, whose account it is, and the kill switch."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from tiny_market import LAST, NOW, backfilled, forecast, paid_for, rewritten, traded, trained, versions

from trading_core import config
from trading_core.errors import (
    FlattenRefusedError,
    LookAheadError,
    NoModelError,
    NotASessionError,
    SessionNotSettledError,
    SessionOrderError,
    StaleDataError,
    StrategyConflictError,
    TradingHaltedError,
    UnknownNameError,
)
from trading_core.execution.ledger import Ledger
from trading_core.execution.paper import PaperBroker
from trading_core.execution.registry import BROKERS, BrokerEntry, BrokerRequest
from trading_core.pipelines import controls, trade
from trading_core.pipelines.account import open_account
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import AccountState, Fill, Order, OrderState, OrderStatus, Side

TUE, WED, THU, FRI = date(2025, 6, 10), date(2025, 6, 11), date(2025, 6, 12), LAST
MON = date(2025, 6, 16)  # the coming session at NOW
MONDAY_EVENING = datetime(2025, 6, 16, 22, 0, tzinfo=UTC)
MON_OPEN, MON_CLOSE = datetime(2025, 6, 16, 13, 30, tzinfo=UTC), datetime(2025, 6, 16, 20, 0, tzinfo=UTC)
TUESDAY = date(2025, 6, 17)
LIVE = "paper-tiny-top10"


def ledger_of(ws: Workspace) -> Ledger:
    return Ledger(ws.ledger_store())


def replay_account(ws: Workspace) -> str:
    return trade.choose_account(ws, "top10", TUE, is_backfill=True, replay=None, now=NOW).account


def recorded(ws: Workspace) -> dict[str, Any]:
    """Everything the ledger and the paper broker hold of every account, but who held it when (leases)."""
    store = ws.ledger_store()
    names = [record.account for record in ledger_of(ws).accounts()]
    found = {pk: store.query(pk) for name in names for pk in (f"account#{name}", f"paper#{name}")}
    return {pk: [item for item in items if not item.sk.startswith("lease#")] for pk, items in found.items()}


def without_orders_in(state: dict[str, Any]) -> dict[str, Any]:
    return {pk: [item for item in items if item.sk.startswith("order#")] for pk, items in state.items()}


# --- order of sessions ------------------------------------------------------------------------------------------------


def test_an_earlier_session_is_refused_and_nothing_changes(ws: Workspace) -> None:
    traded(ws, WED)
    before = recorded(ws)
    with pytest.raises(SessionOrderError, match=r"cannot trade session 2025-06-10.*2025-06-11.*replay"):
        traded(ws, TUE)
    assert recorded(ws) == before


def test_a_gap_in_a_replay_is_refused_and_the_skipped_session_can_still_be_traded(
    ws: Workspace, copied: Callable[..., Workspace]
) -> None:
    traded(ws, TUE)
    before = recorded(ws)
    with pytest.raises(SessionOrderError, match=r"cannot trade session 2025-06-12.*2025-06-11, was not traded"):
        traded(ws, THU)
    assert recorded(ws) == before
    in_order = copied("in-order")
    for session in (TUE, WED, THU):
        traded(in_order, session)
    for session in (WED, THU):
        traded(ws, session)
    assert [row_of(e) for e in trade.executions(ws)] == [row_of(e) for e in trade.executions(in_order)]


def row_of(execution: Any) -> tuple[Any, ...]:
    e = execution
    return (e.session, e.symbol, e.side, e.quantity, e.price, e.commission, e.client_order_id)


def test_a_named_replay_starts_an_account_of_its_own(ws: Workspace) -> None:
    traded(ws, WED)
    again = traded(ws, TUE, replay="second")
    assert (again.account, again.kind, again.status) == ("replay-tiny-second", "replay", "settled")


def test_days_that_are_no_session_or_have_no_features_are_refused(ws: Workspace) -> None:
    with pytest.raises(NotASessionError, match="2025-06-15 is not a trading session of XNYS"):
        traded(ws, date(2025, 6, 15))
    with pytest.raises(StaleDataError, match="needs features of session 2025-06-16"):
        traded(ws, TUESDAY)
    assert ledger_of(ws).accounts() == []


def test_missing_features_of_the_decision_session_name_the_session(ws: Workspace) -> None:
    for name in ws.tables.names():
        if name.startswith("features_"):
            rewritten(ws, name, lambda frame: frame.clear(), LAST)
    with pytest.raises(StaleDataError, match=r"needs features of session 2025-06-13, but they end at 2025-06-12"):
        traded(ws, MON)
    assert ledger_of(ws).accounts() == []


# --- pending sessions -------------------------------------------------------------------------------------------------


def test_a_session_without_a_bar_stays_pending_and_is_settled_at_its_own_open(ws: Workspace) -> None:
    pending = traded(ws, MON)
    assert (pending.account, pending.kind, pending.status) == (LIVE, "live", "pending")
    assert (pending.orders, pending.fills, pending.cash) == (10, 0, 1_000_000.0)
    assert traded(ws, MON) == pending  # again: nothing new
    with pytest.raises(StaleDataError):  # no bar of Monday yet, so nobody can decide for Tuesday
        traded(ws, TUESDAY, MONDAY_EVENING)

    backfilled(ws, MON, MON, now=MONDAY_EVENING)
    following = traded(ws, TUESDAY, MONDAY_EVENING)
    assert (following.account, following.status) == (LIVE, "pending")
    fills = ledger_of(ws).fills(LIVE, MON)
    opens = dict(ws.tables.read("bars").filter(pl.col("session") == MON).select("symbol", "open").iter_rows())
    assert len(fills) == 10
    for fill in fills:
        # Buys pay half a spread of 2 bps and 2 bps of slippage above the open, and 1 bp of commission on top.
        assert fill.price == pytest.approx(paid_for(ws, fill.symbol, fill.session, fill.quantity), rel=1e-12)
        assert fill.price > opens[fill.symbol] * 1.0004
        assert fill.commission == pytest.approx(fill.quantity * fill.price * 1e-4, rel=1e-12)
        assert fill.filled_at == MON_OPEN
    state = ledger_of(ws).session_state(LIVE, MON)
    assert state is not None
    assert state.summary is not None
    spent = sum(fill.quantity * fill.price + fill.commission for fill in fills)
    assert state.summary.cash == pytest.approx(1_000_000.0 - spent, abs=1e-6)
    assert {(p.symbol, p.quantity) for p in state.summary.positions} == {(f.symbol, f.quantity) for f in fills}


def test_the_next_session_is_refused_while_the_one_before_is_unfilled(ws: Workspace) -> None:
    """Monday's features are there but its bars are not: its orders cannot be filled, so Tuesday must wait."""
    traded(ws, MON)
    backfilled(ws, MON, MON, now=MONDAY_EVENING)
    rewritten(ws, "bars", lambda frame: frame.clear(), MON)
    before = recorded(ws)
    with pytest.raises(SessionNotSettledError, match=r"session 2025-06-16 still has 10 open order.*feature_backfill"):
        traded(ws, TUESDAY, MONDAY_EVENING)
    assert recorded(ws) == before


def test_settle_by_hand_fills_what_is_pending_without_a_new_session(ws: Workspace) -> None:
    traded(ws, MON)
    backfilled(ws, MON, MON, now=MONDAY_EVENING)
    done = controls.act(ws, "settle", LIVE, "", by="test", now=MONDAY_EVENING)
    assert (done["status"], done["fills"]) == ("settled", 10)
    assert [record.session for record in ledger_of(ws).sessions(LIVE)] == [MON]


def test_a_split_and_a_dividend_between_two_sessions_reach_the_account(ws: Workspace) -> None:
    traded(ws, TUE)
    account = replay_account(ws)
    state = ledger_of(ws).session_state(account, TUE)
    assert state is not None
    assert state.summary is not None
    held = {p.symbol: p.quantity for p in state.summary.positions}
    first, second = sorted(held)[:2]
    events = [(first, WED, "split", 3.0, TUE), (second, WED, "dividend", 1.5, TUE)]
    known = ws.tables.read("corporate_actions").drop("month")
    added = pl.DataFrame(events, schema=known.schema, orient="row")
    rewritten(ws, "corporate_actions", lambda frame: pl.concat([frame.drop("month"), added]), WED)
    traded(ws, WED)
    after = ledger_of(ws).session_state(account, WED)
    assert after is not None
    assert after.summary is not None
    fills = ledger_of(ws).fills(account, WED)
    bought = {f.symbol: f.quantity * (1 if f.side is Side.BUY else -1) for f in fills}
    expected = {**held, first: held[first] * 3.0}
    for symbol, quantity in bought.items():
        expected[symbol] = expected.get(symbol, 0.0) + quantity
    assert {p.symbol: p.quantity for p in after.summary.positions} == pytest.approx(
        {s: q for s, q in expected.items() if abs(q) > 1e-9}
    )
    flow = sum((-1 if f.side is Side.BUY else 1) * f.quantity * f.price - f.commission for f in fills)
    assert after.summary.cash == pytest.approx(state.summary.cash + 1.5 * held[second] + flow, abs=1e-6)


# --- what an interruption leaves --------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a process that ends: no handler of ordinary errors sees it."""


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`killed_after(n)`: the process ends when the n-th order has been sent, before its answer was recorded."""

    def arm(count: int) -> None:
        submit, sent = PaperBroker.submit, [0]

        def submit_then_die(self: PaperBroker, order: Order) -> OrderState:
            if sent[0] == count:
                raise Killed
            sent[0] += 1
            state = submit(self, order)
            if sent[0] == count:
                raise Killed
            return state

        monkeypatch.setattr(PaperBroker, "submit", submit_then_die)

    return arm


def test_a_run_that_dies_while_it_sends_is_completed_by_the_next(
    ws: Workspace,
    copied: Callable[..., Workspace],
    killed_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed_after(4)
    with pytest.raises(Killed):
        traded(ws, TUE)
    monkeypatch.undo()
    finished = traded(ws, TUE)
    whole = copied("whole")
    undisturbed = traded(whole, TUE)
    assert finished == undisturbed
    assert [row_of(e) for e in trade.executions(ws)] == [row_of(e) for e in trade.executions(whole)]


def test_a_later_session_does_not_settle_one_whose_orders_are_still_being_sent(
    ws: Workspace,
    copied: Callable[..., Workspace],
    killed_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow runs the sessions of a backfill side by side when it is told to: the later one has to wait."""
    killed_after(4)
    with pytest.raises(Killed):
        traded(ws, TUE)
    monkeypatch.undo()
    with pytest.raises(SessionNotSettledError):
        traded(ws, WED)
    whole = copied("whole")
    for session in (TUE, WED):
        traded(ws, session)
        traded(whole, session)
    assert [row_of(e) for e in trade.executions(ws)] == [row_of(e) for e in trade.executions(whole)]


def test_a_live_session_that_died_undecided_does_not_block_the_account(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trade, "decide", _die)
    with pytest.raises(Killed):
        traded(ws, MON)
    monkeypatch.undo()
    backfilled(ws, MON, MON, now=MONDAY_EVENING)
    following = traded(ws, TUESDAY, MONDAY_EVENING)
    assert (following.account, following.orders, following.status) == (LIVE, 10, "pending")
    state = ledger_of(ws).session_state(LIVE, MON)
    assert state is not None
    assert state.summary is not None
    assert (state.summary.orders, state.summary.fills, state.summary.cash) == (0, 0, 1_000_000.0)


def _die(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize("count", [0, 4])
def test_a_live_session_that_died_while_sending_goes_on_with_what_was_sent(
    ws: Workspace, killed_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    killed_after(count)
    with pytest.raises(Killed):
        traded(ws, MON)
    monkeypatch.undo()
    backfilled(ws, MON, MON, now=MONDAY_EVENING)
    following = traded(ws, TUESDAY, MONDAY_EVENING)
    assert (following.account, following.status) == (LIVE, "pending")
    orders = ledger_of(ws).orders(LIVE, MON)
    assert sum(order.status is OrderStatus.FILLED for order in orders) == count
    assert {order.status for order in orders} <= {OrderStatus.FILLED, OrderStatus.EXPIRED}
    assert len(ledger_of(ws).fills(LIVE, MON)) == count


def test_an_undecided_replay_session_is_not_skipped(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    traded(ws, TUE)
    monkeypatch.setattr(trade, "decide", _die)
    with pytest.raises(Killed):
        traded(ws, WED)
    monkeypatch.undo()
    with pytest.raises(SessionNotSettledError, match="2025-06-11"):
        traded(ws, THU)
    assert traded(ws, WED).status == "settled"
    assert traded(ws, THU).status == "settled"


# --- whose account ----------------------------------------------------------------------------------------------------


class RealBroker:
    """A broker with a real endpoint, as far as the platform can tell: it notes everything that reaches it."""

    name = "fake-real"
    real = True
    calls: list[str] = []  # noqa: RUF012 - one list for all instances, emptied by the fixture

    def __init__(self, request: BrokerRequest) -> None:
        self._account = request.account

    def account(self) -> AccountState:
        return AccountState(self._account, 0.0, ())

    def submit(self, order: Order) -> OrderState:
        self.calls.append(f"submit {order.symbol}")
        return OrderState(order, OrderStatus.ACCEPTED)

    def order(self, client_order_id: str) -> OrderState | None:
        self.calls.append("order")
        return None

    def orders(self, session: date) -> list[OrderState]:
        self.calls.append("orders")
        return []

    def fills(self, session: date) -> list[Fill]:
        return []

    def cancel(self, client_order_id: str) -> OrderState:
        raise UnknownNameError("order", client_order_id, [])


@pytest.fixture
def real_broker(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(BROKERS, "fake-real", BrokerEntry(RealBroker, real=True, description="for a test"))
    monkeypatch.setattr(RealBroker, "calls", [])
    return RealBroker.calls


def test_nothing_but_a_live_session_could_reach_a_real_broker(
    copied: Callable[..., Workspace], real_broker: list[str]
) -> None:
    ws = copied(broker="fake-real")
    old = traded(ws, TUE)
    backfill = traded(ws, MON, is_backfill=True, replay="backfill")
    named = traded(ws, MON, replay="named")
    dry = traded(ws, MON)
    assert [r.kind for r in (old, backfill, named, dry)] == ["replay", "replay", "replay", "dry"]
    assert dry.account == "dry-tiny-top10"
    with pytest.raises(FlattenRefusedError, match="it is a replay"):
        controls.act(ws, "flatten", old.account, "test", by="test", now=NOW)
    controls.act(ws, "settle", dry.account, "test", by="test", now=NOW)
    assert real_broker == []


def test_live_and_replay_use_accounts_of_their_own(ws: Workspace) -> None:
    live, replay = traded(ws, MON), traded(ws, TUE)
    assert (live.account, live.kind) == (LIVE, "live")
    assert replay.kind == "replay"
    assert replay.account.startswith("replay-tiny-top10-as-of-")
    assert trade.choose_account(ws, "top10", MON, is_backfill=True, replay=None, now=NOW).account == replay.account
    late = NOW + timedelta(days=3)  # Monday evening: Monday's open has passed
    assert trade.choose_account(ws, "top10", MON, is_backfill=False, replay=None, now=late).account == replay.account


def test_other_costs_or_parameters_make_another_replay_account(ws: Workspace) -> None:
    names = {
        trade.choose_account(ws, strategy, TUE, is_backfill=True, replay=None, now=NOW).account
        for strategy in config.names("strategies", ws.settings)
    }
    assert len(names) == len(config.names("strategies", ws.settings))


def test_another_strategy_may_not_trade_on_an_account(ws: Workspace) -> None:
    traded(ws, TUE, replay="shared")
    before = recorded(ws)
    with pytest.raises(StrategyConflictError, match=r"'replay-tiny-shared' belongs to strategy 'top10 on tiny'"):
        traded(ws, WED, replay="shared", strategy="equal-weight")
    assert recorded(ws) == before


def test_unknown_names_are_refused_before_anything_is_opened(copied: Callable[..., Workspace]) -> None:
    ws = copied()
    with pytest.raises(UnknownNameError, match=r"'top11'. Did you mean 'top10'\?"):
        traded(ws, TUE, strategy="top11")
    with pytest.raises(UnknownNameError, match=r"Unknown broker 'papr'.*Did you mean 'paper'"):
        traded(copied("other", broker="papr"), TUE)
    assert ledger_of(ws).accounts() == []


# --- halt, resume, flatten --------------------------------------------------------------------------------------------


def test_a_halt_stops_a_session_before_it_opens_and_a_resume_lets_it(ws: Workspace) -> None:
    controls.act(ws, "halt", "all", "the news", by="test", now=NOW)
    with pytest.raises(TradingHaltedError, match=r"halted.*the news.*resume"):
        traded(ws, TUE)
    assert ledger_of(ws).accounts() == []
    controls.act(ws, "resume", "all", "calm again", by="test", now=NOW)
    assert traded(ws, TUE).status == "settled"


def test_a_halt_between_two_orders_stops_the_second(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, sent = PaperBroker.submit, []

    def submit_then_halt(self: PaperBroker, order: Order) -> OrderState:
        sent.append(order.symbol)
        ledger_of(ws).halt("all", "stop", "test", NOW)
        return submit(self, order)

    monkeypatch.setattr(PaperBroker, "submit", submit_then_halt)
    with pytest.raises(TradingHaltedError):
        traded(ws, MON)
    assert len(sent) == 1
    monkeypatch.undo()
    with pytest.raises(TradingHaltedError):
        traded(ws, MON)
    ledger_of(ws).resume("all", "test", NOW, "")
    resumed = traded(ws, MON)
    assert (resumed.orders, resumed.status) == (10, "pending")


def test_flatten_sells_everything_and_leaves_the_account_halted(ws: Workspace) -> None:
    traded(ws, MON)
    backfilled(ws, MON, MON, now=MONDAY_EVENING)
    traded(ws, TUESDAY, MONDAY_EVENING)  # Tuesday's orders are out
    held = {p.symbol: p.quantity for p in broker_of(ws).account().positions}
    assert len(held) == 10
    done = controls.act(ws, "flatten", LIVE, "enough", by="test", now=MONDAY_EVENING)
    assert done["sells"] == 10
    assert done["canceled"] == len(ledger_of(ws).orders(LIVE, TUESDAY)) - 10
    with pytest.raises(TradingHaltedError, match="flatten: enough"):
        traded(ws, TUESDAY, MONDAY_EVENING)
    evening = MONDAY_EVENING + timedelta(days=1)
    backfilled(ws, TUESDAY, TUESDAY, now=evening)
    settled = controls.act(ws, "settle", LIVE, "", by="test", now=evening)
    assert settled["status"] == "settled"
    assert broker_of(ws).account().positions == ()
    assert {f.side for f in ledger_of(ws).fills(LIVE, TUESDAY)} == {Side.SELL}
    again = controls.act(ws, "flatten", LIVE, "once more", by="test", now=evening)
    assert again["sells"] == 0


def broker_of(ws: Workspace) -> Any:
    return open_account(ws, LIVE, "paper", config.load_strategy("top10", ws.settings)).broker


def test_flatten_works_after_a_run_that_died_while_sending(
    ws: Workspace, killed_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An intent that never reached the broker has nothing to cancel there."""
    killed_after(0)
    with pytest.raises(Killed):
        traded(ws, MON)
    monkeypatch.undo()
    done = controls.act(ws, "flatten", LIVE, "after a crash", by="test", now=NOW)
    assert (done["canceled"], done["sells"]) == (0, 0)
    backfilled(ws, MON, MON, now=MONDAY_EVENING)
    assert controls.act(ws, "settle", LIVE, "", by="test", now=MONDAY_EVENING)["status"] == "settled"
    assert broker_of(ws).account().cash == 1_000_000.0


def test_controls_name_what_they_do_not_know(ws: Workspace) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown action 'stop'.*halt, resume, settle"):
        controls.act(ws, "stop", "all", "", by="test", now=NOW)
    with pytest.raises(UnknownNameError, match="Unknown account 'paper-tiny-top11'"):
        controls.act(ws, "flatten", "paper-tiny-top11", "", by="test", now=NOW)


# --- which model ------------------------------------------------------------------------------------------------------


def test_sessions_up_to_the_cut_off_are_refused(ws: Workspace) -> None:
    champion = ws.registry().get("tiny")
    with pytest.raises(LookAheadError, match=rf"labels known at {champion.cutoff}.*may not forecast"):
        forecast(ws, start=champion.cutoff)
    with pytest.raises(NoModelError, match="whose cut-off lies before session"):
        traded(ws, ws.sessions.next(champion.cutoff))  # D is the cut-off itself
    first = traded(ws, ws.sessions.offset(champion.cutoff, 2), replay="first")
    assert first.decision_session == ws.sessions.next(champion.cutoff)


def test_a_replay_takes_the_newest_model_of_its_day_and_live_takes_the_champion(ws: Workspace) -> None:
    second = trained(ws, test_start=date(2025, 5, 1))
    assert (second.version, second.aliases) == (2, ("challenger",))
    assert second.cutoff < date(2025, 5, 1)
    before = ws.sessions.offset(second.cutoff, 1)  # D = the cut-off: version 2 has seen it
    for session, expected in ((before, "1"), (ws.sessions.next(before), "2")):
        traded(ws, session)
        decision = ledger_of(ws).get_decision(replay_account(ws), session)
        assert decision is not None
        assert decision.model_version == expected
    live = traded(ws, MON)
    decision = ledger_of(ws).get_decision(live.account, MON)
    assert decision is not None
    assert decision.model_version == "1"


def test_a_champion_that_has_seen_the_day_is_not_used_live(ws: Workspace) -> None:
    """Its labels end after D when the clock was turned back, or a version was promoted that knows more than it may."""
    late = trained(ws, test_start=MON)
    ws.registry().promote("tiny", late.version)
    thursday_evening = NOW - timedelta(days=1)
    if late.cutoff < THU:
        pytest.fail("the cut-off of a training up to Friday lies at Thursday or later")
    with pytest.raises(LookAheadError):
        traded(ws, FRI, thursday_evening)


# --- schedules --------------------------------------------------------------------------------------------------------


def test_a_scheduled_run_is_told_why_it_must_not_trade(ws: Workspace) -> None:
    assert trade.why_not_now(ws, MON, NOW) == ""
    assert "not the next one any more" in trade.why_not_now(ws, FRI, NOW)
    assert "not the next one any more" in trade.why_not_now(ws, MON, MON_OPEN)


def test_a_second_run_of_every_session_changes_nothing(ws: Workspace) -> None:
    results = [traded(ws, session) for session in (THU, FRI, MON)]
    ledger, tables = recorded(ws), versions(ws)
    for session, result in zip((MON, FRI, THU), reversed(results), strict=True):
        if session == THU:
            continue
        assert traded(ws, session) == result
    assert recorded(ws) == ledger
    assert versions(ws) == tables
