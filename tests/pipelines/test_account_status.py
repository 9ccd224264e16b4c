"""Where accounts stand, told from the ledger alone: every part is written by hand and must be read back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from tiny_market import NOW, new_market

from trading_core import cli
from trading_core.errors import UnknownNameError
from trading_core.execution.accounts import kind_of
from trading_core.execution.lease import Leases
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import (
    AdoptionRecord,
    DecidedOrder,
    Decision,
    EventLevel,
    Intent,
    LedgerEvent,
    SessionSummary,
)
from trading_core.pipelines.account_status import AccountStatus, statuses
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import OrderStatus, Position, Side

FRI, MON, TUE = date(2025, 6, 13), date(2025, 6, 16), date(2025, 6, 17)
LIVE, REPLAY = "paper-tiny-top10", "replay-tiny-second"


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """A market without any data: none is read."""
    return new_market(tmp_path / "var")


@pytest.fixture
def ledger(ws: Workspace) -> Ledger:
    """The live account settled on Monday and decided for Tuesday, and a replay that was only claimed."""
    made = Ledger(ws.ledger_store())
    made.claim_account(LIVE, "top10", "tiny", NOW)
    made.claim_account(REPLAY, "momentum", "tiny", NOW)
    made.claim_account("paper-other-top10", "top10", "other", NOW)
    made.open_session(LIVE, MON, FRI, FRI, NOW, "run")
    made.freeze_decision(decision(MON, FRI))
    made.settle_session(LIVE, MON, SessionSummary(1000.0, 5000.0, (Position("AAA", 4.0, 900.0),), 0, 0, 0.0, NOW))
    made.open_session(LIVE, TUE, MON, MON, NOW, "run")
    made.freeze_decision(decision(TUE, MON))
    return made


def decision(session: date, before: date) -> Decision:
    return Decision(
        decision_id=f"d{session}", account=LIVE, market="tiny", session=session, decision_session=before, strategy="top10",
        strategy_hash="s", model="linear", model_version="1", model_digest="d", features_version="f", forecasts_version=0,
        run_id="run", equity=5000.0, cash=1000.0, targets=(), orders=(DecidedOrder("AAA", Side.BUY, 1.0, 100.0),),
        held_without_forecast=(), rejected=(), decided_at=NOW, code_version="c", config_hash="h",
    )  # fmt: skip


def ordered(ledger: Ledger, key: str, symbol: str, quantity: float) -> None:
    ledger.record_intent(Intent(key, LIVE, TUE, "top10", symbol, Side.BUY, quantity, 100.0, 1, f"d{TUE}", NOW))


def of_live(ws: Workspace, now: datetime = NOW) -> AccountStatus:
    (found,) = statuses(ws, LIVE, now)
    return found


def test_every_account_of_the_market_is_told(ws: Workspace, ledger: Ledger) -> None:
    live, replay = statuses(ws, None, NOW)
    assert (live.account, live.kind, live.strategy, live.session, live.status) == (
        LIVE,
        "live",
        "top10",
        TUE,
        "decided",
    )
    assert (live.settled, live.cash, live.equity) == (MON, 1000.0, 5000.0)
    assert (live.orders, live.unknown, live.halts, live.lease, live.events, live.adopted) == ((), 0, (), None, (), None)
    assert (replay.account, replay.kind, replay.strategy) == (REPLAY, "replay", "momentum")
    assert (replay.session, replay.status, replay.settled, replay.cash, replay.equity) == (None, "", None, None, None)


def test_an_account_that_is_none_is_named(ws: Workspace, ledger: Ledger) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown account 'paper-tiny-top11'\. Did you mean 'paper-tiny-top10'"):
        statuses(ws, "paper-tiny-top11", NOW)


@pytest.mark.parametrize(
    ("account", "kind"),
    [
        (LIVE, "live"),
        (REPLAY, "replay"),
        ("dry-tiny-top10", "dry"),
        ("shadow-alpaca-tiny-top10", "shadow"),
        ("x", "live"),
    ],
)
def test_the_kind_follows_from_the_id(account: str, kind: str) -> None:
    assert kind_of(account) == kind


def test_orders_that_have_not_ended_are_told_and_unknown_ones_counted(ws: Workspace, ledger: Ledger) -> None:
    for key, symbol, states in (
        ("t1", "AAA", [(OrderStatus.ACCEPTED, 0.0, ""), (OrderStatus.PARTIALLY_FILLED, 2.0, "")]),
        ("t2", "BBB", [(OrderStatus.UNKNOWN, 0.0, "no answer")]),
        ("t3", "CCC", [(OrderStatus.FILLED, 5.0, "")]),
        ("t4", "DDD", []),
    ):
        ordered(ledger, key, symbol, 5.0)
        for status, filled, reason in states:
            ledger.record_order_state(LIVE, TUE, key, status, NOW, filled, 100.0 if filled else None, reason)
    found = of_live(ws)
    assert [(o.client_order_id, o.symbol, o.status.value, o.filled, o.reason) for o in found.orders] == [
        ("t1", "AAA", "partially_filled", 2.0, ""),
        ("t2", "BBB", "unknown", 0.0, "no answer"),
        ("t4", "DDD", "planned", 0.0, ""),
    ]
    assert found.unknown == 1


def test_halts_in_force_are_told_with_who_why_and_when(ws: Workspace, ledger: Ledger) -> None:
    ledger.halt(LIVE, "first", "ann", NOW)
    ledger.resume(LIVE, "ann", NOW)
    assert of_live(ws).halts == ()
    ledger.halt(LIVE, "a loss", "max_daily_loss", NOW + timedelta(minutes=1))
    ledger.halt("all", "the news", "bob", NOW + timedelta(minutes=2))
    assert [(h.scope, h.reason, h.by, h.at) for h in of_live(ws).halts] == [
        (LIVE, "a loss", "max_daily_loss", NOW + timedelta(minutes=1)),
        ("all", "the news", "bob", NOW + timedelta(minutes=2)),
    ]
    assert [h.scope for h in statuses(ws, REPLAY, NOW)[0].halts] == ["all"]


def test_a_lease_is_told_while_it_lasts(ws: Workspace, ledger: Ledger) -> None:
    leases = Leases(ws.ledger_store(), seconds=60.0)
    lease = leases.acquire(LIVE, "decide of 2025-06-17 @another-host:1:2:3", NOW)
    held = of_live(ws, NOW + timedelta(seconds=59)).lease
    assert held is not None
    assert (held.holder, held.until, held.dead) == (lease.holder, NOW + timedelta(seconds=60), False)
    assert of_live(ws, NOW + timedelta(seconds=60)).lease is None
    leases.release(lease, NOW)
    assert of_live(ws).lease is None


def test_the_last_warnings_and_alerts_come_newest_first(ws: Workspace, ledger: Ledger) -> None:
    levels = [EventLevel.ALERT, EventLevel.INFO, *[EventLevel.WARNING] * 5]
    for minute, level in enumerate(levels):
        ledger.record_event(LedgerEvent(LIVE, TUE, "test", level, f"event {minute}", NOW + timedelta(minutes=minute)))
    assert [event.message for event in of_live(ws).events] == [f"event {minute}" for minute in (6, 5, 4, 3, 2)]


def test_what_a_person_has_adopted_counts_until_a_session_is_settled_after_it(ws: Workspace, ledger: Ledger) -> None:
    ledger.adopt(AdoptionRecord(LIVE, TUE, (), 1234.5, "ann", "the broker is right", NOW))
    found = of_live(ws)
    assert (found.settled, found.cash, found.equity, found.adopted) == (MON, 1234.5, None, NOW)
    ledger.settle_session(LIVE, TUE, SessionSummary(900.0, None, (), 0, 0, 0.0, NOW))
    ledger.open_session(LIVE, date(2025, 6, 18), TUE, TUE, NOW, "run")
    ledger.settle_session(LIVE, date(2025, 6, 18), SessionSummary(800.0, None, (), 0, 0, 0.0, NOW))
    after = of_live(ws)
    assert (after.settled, after.cash, after.equity, after.adopted) == (date(2025, 6, 18), 800.0, None, None)


# --- the command ------------------------------------------------------------------------------------------------------

Status = Callable[..., str]


@pytest.fixture
def status(ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Status:
    """`status(*arguments)`: what `trading status` prints, ending well."""
    monkeypatch.setattr(cli, "_now", lambda: NOW.astimezone(UTC))
    monkeypatch.setenv("TRADING_VAR_DIR", str(ws.settings.var_dir))
    monkeypatch.setenv("TRADING_MARKET", "tiny")

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["trading", "status", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert not stopped.value.code
        return capsys.readouterr().out

    return run


def test_status_says_when_there_is_no_account(status: Status) -> None:
    assert status() == "No account yet. Trade a session with `trading trade`.\n"
    assert json.loads(status("--json")) == []


def test_status_prints_what_a_person_must_see(status: Status, ledger: Ledger) -> None:
    ordered(ledger, "t2", "BBB", 5.0)
    ledger.record_order_state(LIVE, TUE, "t2", OrderStatus.UNKNOWN, NOW, reason="no answer")
    ledger.halt("all", "the news", "bob", NOW)
    ledger.record_event(LedgerEvent(LIVE, TUE, "unknown_order", EventLevel.ALERT, "look at t2", NOW))
    lines = status("--account", LIVE).splitlines()
    assert lines == [
        "paper-tiny-top10 (live): top10 on tiny",
        "HALTED      all: the news (by bob, 2025-06-13 22:00 UTC)",
        "session     2025-06-17, decided, open orders: 1, of them UNKNOWN: 1",
        "            unknown: buy 5 BBB, 0 filled (no answer), t2",
        "equity      5,000.00, cash 1,000.00, at the end of 2025-06-16",
        "alert       2025-06-13 22:00 UTC unknown_order: look at t2",
    ]
    rows = json.loads(status("--json"))
    assert [row["account"] for row in rows] == [LIVE, REPLAY]
    assert (rows[0]["unknown"], rows[0]["halts"][0]["reason"], rows[0]["cash"]) == (1, "the news", 1000.0)
