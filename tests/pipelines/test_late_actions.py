"""Corporate actions that are stored after their session was traded, or dated on a day without one: what the account gets,
what the ledger reckons, and what it says of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl
import pytest
from tiny_market import LAST, NOW, rewritten, traded

from trading_core import config
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import EventLevel, SessionSummary
from trading_core.pipelines import parity, settlement
from trading_core.pipelines.account import open_account
from trading_core.pipelines.corporate_actions import actions_of
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import ActionKind, CashFlowKind, CorporateAction, Fill, Side

TUE, WED, THU, FRI = date(2025, 6, 10), date(2025, 6, 11), date(2025, 6, 12), LAST
SATURDAY, SUNDAY, MONDAY = date(2025, 6, 7), date(2025, 6, 8), date(2025, 6, 9)
KINDS = {"split": 3.0, "dividend": 1.5, "delisting": 40.0}


def stored(ws: Workspace, events: Sequence[CorporateAction], known: date) -> None:
    """Events reach the table, learned of at the close of `known`."""
    table = ws.tables.read("corporate_actions").drop("month")
    rows = [(event.symbol, event.session, event.kind.value, event.value, known) for event in events]
    added = pl.DataFrame(rows, schema=table.schema, orient="row")
    first = min(event.session for event in events)
    rewritten(ws, "corporate_actions", lambda frame: pl.concat([frame.drop("month"), added]), first)


def summary(ws: Workspace, account: str, session: date) -> SessionSummary:
    state = Ledger(ws.ledger_store()).session_state(account, session)
    assert state is not None
    assert state.summary is not None
    return state.summary


def held(ws: Workspace, account: str, session: date) -> dict[str, float]:
    return {position.symbol: position.quantity for position in summary(ws, account, session).positions}


def signed(fill: Fill) -> float:
    return fill.quantity if fill.side is Side.BUY else -fill.quantity


def test_what_is_learned_after_two_sessions_takes_effect_on_what_they_left_of_it(ws: Workspace) -> None:
    """The strategy trades everything every session, so what is held since before Wednesday is less than what is held."""
    account = [traded(ws, day, strategy="proportional") for day in (TUE, WED, THU)][-1].account
    ledger, quantities = Ledger(ws.ledger_store()), [held(ws, account, day) for day in (TUE, WED, THU)]
    least = {s: min(q.get(s, 0.0) for q in quantities) for s in quantities[0]}
    sold = [s for s, q in least.items() if 0.0 < q < quantities[-1][s]]
    untouched = [s for s in sold if not any(a.symbol == s for day in (WED, THU, FRI) for a in actions_of(ws, day))]
    events = [
        CorporateAction(symbol, WED, ActionKind(kind), KINDS[kind])
        for symbol, kind in zip(untouched, KINDS, strict=False)
    ]
    assert len(events) == 3
    stored(ws, events, known=THU)
    assert traded(ws, FRI, strategy="proportional").status == "settled"  # so broker and ledger agree on every share

    split, dividend, delisted = (event.symbol for event in events)
    fills = ledger.fills(account, FRI)
    bought = {s: sum(signed(fill) for fill in fills if fill.symbol == s) for s in (split, dividend, delisted)}
    expected = {
        split: quantities[-1][split] + 2.0 * least[split] + bought[split],
        dividend: quantities[-1][dividend] + bought[dividend],
        delisted: quantities[-1][delisted] - least[delisted] + bought[delisted],
    }
    after = held(ws, account, FRI)
    assert {s: after.get(s, 0.0) for s in expected} == pytest.approx(expected)

    flows = ledger.cash_flows(account, FRI)
    paid = {(f.symbol, f.kind): f.amount for f in flows}
    assert paid[dividend, CashFlowKind.DIVIDEND] == pytest.approx(1.5 * least[dividend])
    assert paid[delisted, CashFlowKind.PROCEEDS] == pytest.approx(40.0 * least[delisted])
    spent = sum(signed(fill) * fill.price + fill.commission for fill in fills)
    moved = summary(ws, account, FRI).cash - summary(ws, account, THU).cash
    assert moved == pytest.approx(sum(f.amount for f in flows) - spent, abs=1e-6)

    told = [event for event in ledger.events(account, FRI) if event.kind == "late_action"]
    assert {event.level for event in told} == {EventLevel.WARNING}
    assert len(told) == 3
    words = f"the split of {split} on 2025-06-11 (3) was learned of late: it took effect on the {least[split]:g} shares"
    assert any(event.message.startswith(words) for event in told)
    traded(ws, FRI, strategy="proportional")
    assert ledger.events(account, FRI) == told  # run again, nothing is told twice


@pytest.mark.thorough
def test_what_comes_between_the_broker_and_the_ledger_waits_for_the_next_session(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run dies after the paper broker has settled; before the next run a split of the same session is stored."""

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    account = traded(ws, TUE).account
    before = held(ws, account, TUE)
    monkeypatch.setattr(settlement, "reconcile", die)
    with pytest.raises(Killed):
        traded(ws, WED)
    monkeypatch.undo()
    broker = open_account(ws, account, "paper", config.load_strategy("top10", ws.settings)).broker
    symbol = next(p.symbol for p in broker.account().positions if p.quantity == before.get(p.symbol))
    stored(ws, [CorporateAction(symbol, WED, ActionKind.SPLIT, 2.0)], known=THU)
    assert traded(ws, WED).status == "settled"
    assert held(ws, account, WED)[symbol] == before[symbol]
    traded(ws, THU)
    fills = [fill for fill in Ledger(ws.ledger_store()).fills(account, THU) if fill.symbol == symbol]
    expected = 2.0 * before[symbol] + sum(map(signed, fills))
    assert held(ws, account, THU).get(symbol, 0.0) == pytest.approx(expected)


@pytest.mark.thorough
def test_an_action_of_a_weekend_is_the_next_sessions_as_in_the_backtest(ws: Workspace) -> None:
    symbols = ws.tables.read("bars")["symbol"].unique().sort().to_list()
    events = [CorporateAction(symbol, SATURDAY, ActionKind.SPLIT, 2.0) for symbol in symbols[::2]]
    events += [CorporateAction(symbol, SUNDAY, ActionKind.DIVIDEND, 1.0) for symbol in symbols]
    stored(ws, events, known=SATURDAY)
    assert [a for a in actions_of(ws, MONDAY) if a.session < MONDAY] == sorted(
        events, key=lambda a: (a.symbol, a.session)
    )
    made = parity.parity(ws, strategy="top10", start=date(2025, 6, 5), end=TUE, run_id="weekend", now=NOW)
    assert made.difference is None
    assert made.sessions == 4
    ledger = Ledger(ws.ledger_store())
    dividends = [f for f in ledger.cash_flows(made.account, MONDAY) if f.kind is CashFlowKind.DIVIDEND]
    friday = held(ws, made.account, date(2025, 6, 6))
    split = set(symbols[::2])
    assert {f.symbol: f.amount for f in dividends} == pytest.approx(
        {symbol: quantity * (2.0 if symbol in split else 1.0) for symbol, quantity in friday.items()}
    )
    assert [event for event in ledger.events(made.account) if event.kind == "late_action"] == []
