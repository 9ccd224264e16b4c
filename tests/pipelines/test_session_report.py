"""The report of a session on the tiny market: its figures beside ones worked out here, where it lies, when it is renewed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from scipy.stats import spearmanr
from tiny_market import LAST, NOW, backfilled, copy_of, rewritten, traded

from trading_core.errors import UnknownNameError
from trading_core.execution.lease import Leases
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import ApprovalRecord, EventLevel, LedgerEvent
from trading_core.pipelines import refs, session_report
from trading_core.pipelines.refs import SessionResult
from trading_core.pipelines.run_reports import note_session
from trading_core.pipelines.workspace import Workspace
from trading_core.plots.session_data import SessionPage, Standing
from trading_core.schema import OrderStatus, Side
from trading_core.storage.run_reports import run_key, run_reports

FIRST, TUE, WED, THU = date(2025, 6, 9), date(2025, 6, 10), date(2025, 6, 11), date(2025, 6, 12)
MON, TUESDAY = date(2025, 6, 16), date(2025, 6, 17)
MONDAY_EVENING = datetime(2025, 6, 16, 22, 0, tzinfo=UTC)
LIVE, RUN = "paper-tiny-top10", run_key("daily_trade", "scheduled__2025-06-16")


@pytest.fixture(scope="module")
def sessions(prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[SessionResult]]:
    """Five settled sessions of a replay, and the pending one of the live account. Only to be read."""
    ws = copy_of(prepared.settings.var_dir, tmp_path_factory.mktemp("sessions") / "var")
    made = [traded(ws, day) for day in (FIRST, TUE, WED, THU, LAST)]
    return ws, [*made, traded(ws, MON, run_id=RUN)]


@pytest.fixture
def changed(sessions: tuple[Workspace, list[SessionResult]], tmp_path: Path) -> Workspace:
    """A copy of `sessions` that a test may change."""
    return copy_of(sessions[0].settings.var_dir, tmp_path / "changed")


def ledger_of(ws: Workspace) -> Ledger:
    return Ledger(ws.ledger_store())


def written(ws: Workspace, account: str, session: date, now: datetime = NOW) -> tuple[str, dict[str, Any]]:
    """The page and the JSON."""
    path = session_report.write(ws, account, session, now)
    html = ws.store.read_bytes(path).decode()
    return html, ws.store.read_json(session_report.json_path(ws, account, session))


def shown(ws: Workspace, account: str, session: date, now: datetime = NOW) -> SessionPage:
    return session_report.gather(ws, account, session, now)


def raw_bars(ws: Workspace, session: date, column: str) -> dict[str, float]:
    bars = ws.tables.read("bars").filter(pl.col("session") == session)
    return dict(bars.select("symbol", column).iter_rows())


# --- what was traded --------------------------------------------------------------------------------------------------


def test_slippage_and_costs_are_those_worked_out_by_hand(sessions: tuple[Workspace, list[SessionResult]]) -> None:
    ws, made = sessions
    account = made[0].account
    page = shown(ws, account, LAST)
    closes, opens = raw_bars(ws, THU, "close"), raw_bars(ws, LAST, "open")
    splits = ws.tables.read("corporate_actions").filter((pl.col("session") == LAST) & (pl.col("kind") == "split"))
    fills = ledger_of(ws).fills(account, LAST)
    assert len(fills) == 4
    delay = execution = 0.0
    for fill in fills:
        assert fill.symbol not in splits["symbol"].to_list()
        row = next(row for row in page.orders if row.symbol == fill.symbol)
        close, opened, sign = closes[fill.symbol], opens[fill.symbol], 1 if fill.side is Side.BUY else -1
        assert (row.decision_price, row.open_price, row.filled) == (close, opened, fill.quantity)
        assert row.decision_cash == pytest.approx(sign * fill.quantity * (fill.price - close))
        assert row.open_bps == pytest.approx(sign * (fill.price - opened) / opened * 1e4)
        assert row.open_bps > 3.9  # half spread and slippage are 4 bps; impact comes on top
        delay += sign * fill.quantity * (opened - close)
        execution += sign * fill.quantity * (fill.price - opened)
    assert page.totals is not None
    cost = page.totals.shortfall
    assert (cost.delay, cost.execution) == (pytest.approx(delay), pytest.approx(execution))
    assert cost.commission == pytest.approx(sum(fill.commission for fill in fills))
    assert cost.costs == pytest.approx(made[4].costs)
    assert page.totals.decision_cash == pytest.approx(delay + execution)


def test_positions_and_cash_add_up_to_the_equity(sessions: tuple[Workspace, list[SessionResult]]) -> None:
    ws, made = sessions
    page = shown(ws, made[0].account, LAST)
    closes, account = raw_bars(ws, LAST, "close"), page.account
    assert all(row.price == closes[row.symbol] and row.priced_on is None for row in account.positions)
    assert sum(row.value for row in account.positions) + account.cash == pytest.approx(account.equity)
    assert sum(row.weight for row in account.positions) == pytest.approx(1.0 - account.cash / account.equity)
    assert account.equity == made[4].equity
    assert account.change == pytest.approx(made[4].equity - made[3].equity)
    assert [day for day, _ in account.curve] == [FIRST, TUE, WED, THU, LAST]
    first, *moved, last = account.money
    assert (first.amount, last.amount) == (made[3].cash, made[4].cash)
    assert first.amount + sum(line.amount for line in moved) == pytest.approx(last.amount)


def test_every_target_has_its_rank_and_reason(sessions: tuple[Workspace, list[SessionResult]]) -> None:
    ws, made = sessions
    page = shown(ws, made[0].account, LAST)
    decision = ledger_of(ws).get_decision(made[0].account, LAST)
    assert page.decision is not None
    assert decision is not None
    known = ws.tables.read("forecasts").filter((pl.col("session") == THU) & (pl.col("horizon") == 1))
    by_score = known.sort("score", descending=True)["symbol"].to_list()
    wanted = [row for row in page.decision.targets if row.weight != 0.0]
    assert [row.symbol for row in wanted] == by_score[:10]
    assert [row.rank for row in wanted] == list(range(1, 11))
    assert page.decision.ranked == known.height
    new = next(row for row in wanted if row.weight_before == 0.0)
    assert new.why == f"new: ranks {new.rank} of {known.height} by score ({new.rank_before} before)"
    assert new.order.startswith("buy ")
    held = {row.symbol for row in page.decision.targets if row.weight_before != 0.0}
    assert {row.symbol for row in page.decision.left} == held - set(by_score[:10])
    gone = page.decision.left[0]
    assert gone.rank == by_score.index(gone.symbol) + 1
    assert gone.why.startswith(f"not wanted any more: ranks {gone.rank} of ")
    assert gone.why.endswith("the last that is wanted ranks 10")
    assert sum(row.weight_before for row in page.decision.targets) == pytest.approx(1.0, abs=0.01)


def test_what_the_decision_before_expected_beside_what_happened(
    sessions: tuple[Workspace, list[SessionResult]],
) -> None:
    ws, made = sessions
    outcome = shown(ws, made[0].account, LAST).outcome
    assert outcome is not None
    assert (outcome.session, outcome.decision_session, outcome.complete) == (THU, WED, True)
    assert outcome.span == "from the open of 2025-06-12 to the open of 2025-06-13"
    start, end = raw_bars(ws, THU, "open"), raw_bars(ws, LAST, "open")
    events = set(ws.tables.read("corporate_actions").filter(pl.col("session") == LAST)["symbol"].to_list())
    plain = [row for row in outcome.rows if row.symbol not in events and row.symbol in end]
    assert len(plain) > 20
    for row in plain:
        assert row.realised == pytest.approx(math.log(end[row.symbol] / start[row.symbol]))
    forecasts = ws.tables.read("forecasts").filter((pl.col("session") == WED) & (pl.col("horizon") == 1))
    assert {row.symbol: row.forecast for row in outcome.rows} == dict(forecasts.select("symbol", "q50").iter_rows())
    known = [row for row in outcome.rows if math.isfinite(row.realised)]
    expected = spearmanr([row.score for row in known], [row.realised for row in known]).statistic
    assert outcome.rank_ic == pytest.approx(expected)
    held = [row.realised for row in known if row.held]
    assert (outcome.held, outcome.hit_rate) == (len(held), sum(r > 0 for r in held) / len(held))


def test_a_dividend_is_part_of_the_return(sessions: tuple[Workspace, list[SessionResult]]) -> None:
    """Reinvested at the last close before the ex-date, less the dividend (CRSP)."""
    ws, made = sessions
    paid = ws.tables.read("corporate_actions").filter(pl.col("session") == TUE)
    assert paid["kind"].to_list() == ["dividend"]
    symbol, cash = paid["symbol"][0], paid["value"][0]
    outcome = shown(ws, made[0].account, TUE).outcome
    assert outcome is not None
    row = next(row for row in outcome.rows if row.symbol == symbol)
    start, close, end = (
        raw_bars(ws, day, name)[symbol] for day, name in ((FIRST, "open"), (FIRST, "close"), (TUE, "open"))
    )
    assert row.realised == pytest.approx(math.log(end / start * close / (close - cash)))


def test_a_split_overnight_restates_the_order_and_moves_no_price(
    sessions: tuple[Workspace, list[SessionResult]], ws: Workspace
) -> None:
    """Two new shares for an old one on the last session, of a symbol that is bought then."""
    usual = shown(sessions[0], sessions[1][0].account, LAST)
    symbol = next(row.symbol for row in usual.orders if row.side == "buy")
    chosen = pl.col("symbol") == symbol
    prices = [
        pl.when(chosen).then(pl.col(c) / 2).otherwise(pl.col(c)).alias(c) for c in ("open", "high", "low", "close")
    ]
    volume = pl.when(chosen).then(pl.col("volume") * 2).otherwise(pl.col("volume")).alias("volume")
    rewritten(ws, "bars", lambda bars: bars.with_columns(*prices, volume), LAST)
    split = {"symbol": symbol, "session": LAST, "kind": "split", "value": 2.0, "known_at": THU, "month": "2025-06"}
    actions = ws.tables.read("corporate_actions")
    rewritten(
        ws, "corporate_actions", lambda table: pl.concat([table, pl.DataFrame([split], schema=actions.schema)]), None
    )
    account = [traded(ws, day) for day in (THU, LAST)][-1].account
    page, orders = shown(ws, account, LAST), ledger_of(ws).orders(account, LAST)
    row = next(row for row in page.orders if row.symbol == symbol)
    (intent,) = (order.intent for order in orders if order.intent.symbol == symbol)
    close, opened = raw_bars(ws, THU, "close")[symbol], raw_bars(ws, LAST, "open")[symbol]
    assert (row.quantity, row.decision_price, row.open_price) == (2 * intent.quantity, close / 2, opened)
    assert row.decision_bps == pytest.approx((row.price / (close / 2) - 1.0) * 1e4)
    assert abs(row.decision_bps) < 1_000
    assert row.note == f"Ordered {intent.quantity:,.6g} before a split of 2 for 1."
    assert sum(p.value for p in page.account.positions) + page.account.cash == pytest.approx(page.account.equity)
    assert page.outcome is not None
    realised = next(row.realised for row in page.outcome.rows if row.symbol == symbol)
    assert realised == pytest.approx(math.log(2 * opened / raw_bars(ws, THU, "open")[symbol]))


# --- where it stands --------------------------------------------------------------------------------------------------


def test_a_settled_session_says_so_and_the_first_has_nothing_before_it(
    sessions: tuple[Workspace, list[SessionResult]],
) -> None:
    ws, made = sessions
    page = shown(ws, made[0].account, FIRST)
    assert page.standing.standing is Standing.SETTLED
    ordered, filled = (
        sum(getattr(row, what) * row.decision_price for row in page.orders) for what in ("quantity", "filled")
    )
    assert 0.9 < filled / ordered < 0.9995
    share = f"{100 * filled / ordered:.1f}\u00a0%"
    said = f"10 of 10 orders filled, 10 of them in part: {share} of the value ordered. The account is worth "
    assert page.standing.headline.startswith(said)
    assert "first session" in page.outcome_missing
    assert page.explain == f"trading explain {page.orders[0].client_order_id[:12]} --market tiny --replay"
    assert dict(page.lineage)["Model"] == "linear, version 1"


def test_a_pending_session_says_what_it_waits_for(sessions: tuple[Workspace, list[SessionResult]]) -> None:
    ws, _ = sessions
    page = shown(ws, LIVE, MON)
    assert page.standing.standing is Standing.PENDING
    assert page.standing.headline == "10 orders wait for the open of 2025-06-16, 13:30 UTC."
    assert any("not there yet; it closes at 20:00 UTC" in reason for reason in page.standing.reasons)
    assert {row.status for row in page.orders} == {"accepted"}
    assert (page.account.equity, page.account.cash, page.account.positions) == (1_000_000.0, 1_000_000.0, ())
    assert page.totals is None
    late = shown(ws, LIVE, MON, MONDAY_EVENING)
    assert late.standing.headline == "10 orders decided; what became of them is not recorded yet."


def test_alerts_unknown_orders_and_halts_need_a_person(changed: Workspace) -> None:
    ledger, account = ledger_of(changed), LIVE
    minute, hostile = timedelta(minutes=1), "<b>nobody</b> knows"
    first = ledger.orders(account, MON)[0].intent
    ledger.record_event(LedgerEvent(account, MON, "mismatch", EventLevel.ALERT, hostile, NOW + minute))
    ledger.record_event(LedgerEvent(account, MON, "late_action", EventLevel.WARNING, "a late split", NOW + minute))
    ledger.record_event(LedgerEvent(account, TUE, "other", EventLevel.ALERT, "of another session", NOW + minute))
    ledger.halt(account, "daily loss", "max_daily_loss", NOW + 2 * minute)
    ledger.record_approval(ApprovalRecord(account, MON, first.decision_id, True, "anna", "fine", NOW + minute))
    leases = Leases(changed.ledger_store())
    leases.acquire(account, "run @a:1:2", NOW + minute)
    leases.acquire(account, "run @b:3:4", NOW + 10 * minute)
    html, report = written(changed, account, MON, NOW + 20 * minute)
    page = report["page"]
    assert page["standing"]["standing"] == "needs a person"
    assert page["standing"]["reasons"][0] == hostile
    assert "daily loss" in page["standing"]["reasons"][1]
    assert hostile not in html
    assert "&lt;b&gt;nobody" in html
    told = {(event["kind"], event["level"]) for event in page["events"]}
    assert {("mismatch", "alert"), ("late_action", "warning"), ("halt", "warning"), ("approval", "info")} <= told
    assert ("other", "alert") not in told
    assert any("took the account over from run @a:1:2" in event["message"] for event in page["events"])


def test_an_order_that_nobody_can_account_for_is_named(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the ledger has it after a submit whose answer was lost."""
    traded(ws, MON)
    ledger = ledger_of(ws)
    lost = ledger.orders(LIVE, MON)[0].intent
    orders = Ledger.orders

    def unknown(self: Ledger, account: str, session: date) -> Any:
        found = orders(self, account, session)
        return [replace(o, status=OrderStatus.UNKNOWN) if o.intent == lost else o for o in found]

    monkeypatch.setattr(Ledger, "orders", unknown)
    page = shown(ws, LIVE, MON)
    assert page.standing.standing is Standing.NEEDS_A_PERSON
    assert f"buy {lost.quantity:,.6g} {lost.symbol} ({lost.client_order_id[:12]})" in page.standing.reasons[0]


def test_a_decision_to_hold_nothing_is_a_report_too(changed: Workspace) -> None:
    strategies = changed.settings.var_dir / "configs" / "strategies"
    strategies.mkdir(parents=True, exist_ok=True)
    nothing = {"strategy": "threshold_long_flat", "params": {"threshold": 0.99}}
    (strategies / "nothing.yaml").write_text(yaml.safe_dump(nothing))
    made = traded(changed, TUE, strategy="nothing")
    html, report = written(changed, made.account, TUE)
    assert "The decision is to hold nothing." in html
    assert report["page"]["standing"]["headline"].startswith("Nothing was traded. The account is worth 1,000,000.00")
    assert report["page"]["totals"] is None


# --- the files --------------------------------------------------------------------------------------------------------


def test_the_json_keeps_its_keys_and_says_what_settling_said(changed: Workspace) -> None:
    account = ledger_of(changed).accounts("tiny")[-1].account
    path = session_report.json_path(changed, account, LAST)
    before = changed.store.read_json(path)
    html, after = written(changed, account, LAST)
    assert set(after) - set(before) == {"page"}
    assert {key: after[key] for key in before if key != "result"} == {k: v for k, v in before.items() if k != "result"}
    assert refs.load(SessionResult, after["result"]) == refs.load(SessionResult, before["result"])
    assert "NaN" not in json.dumps(after)
    assert len(html.encode()) < 300_000
    assert "http" not in html.replace("http-equiv", "")


def test_later_sessions_do_not_change_a_page(sessions: tuple[Workspace, list[SessionResult]], ws: Workspace) -> None:
    """Written on its own evening, and again after others were traded: the same bytes."""
    account = [traded(ws, day) for day in (FIRST, TUE, WED)][-1].account
    then, _ = written(ws, account, WED)
    later, _ = written(sessions[0], account, WED)
    assert then == later


def test_the_page_is_renewed_when_the_next_session_settles_it_and_stays_in_its_runs_tab(changed: Workspace) -> None:
    pending = session_report.write(changed, LIVE, MON, NOW)
    (noted,) = run_reports(changed.store, RUN)
    assert (noted.path, noted.title) == (pending, f"Session {MON} of {LIVE}")
    again = run_key("daily_trade", "manual__2025-06-16")
    for _ in range(2):  # what the DAG does: a second run of the session, whose task is run again
        session_report.write(changed, LIVE, MON, NOW, again)
    assert run_reports(changed.store, again) == (noted,)
    assert note_session(changed, "cli-0123456789ab", LIVE, MON, pending) is None
    backfilled(changed, MON, MON, now=MONDAY_EVENING)
    following = run_key("daily_trade", "scheduled__2025-06-17")
    traded(changed, TUESDAY, MONDAY_EVENING, run_id=following)
    page = session_report.write(changed, LIVE, TUESDAY, MONDAY_EVENING)
    renewed = changed.store.read_json(session_report.json_path(changed, LIVE, MON))["page"]
    assert renewed["standing"]["standing"] == "settled"
    (note,) = run_reports(changed.store, RUN)
    assert note.sha256 != noted.sha256  # noted again, as it is now
    assert run_reports(changed.store, again) == (note,)
    changed.store.read_bytes(note.path, note.sha256)
    assert [report.path for report in run_reports(changed.store, following)] == [page]
    outcome = shown(changed, LIVE, TUESDAY, MONDAY_EVENING).outcome
    assert outcome is not None
    assert (outcome.complete, outcome.span) == (False, f"from the open of {MON} to the close of {MON}")
    opens, closes = raw_bars(changed, MON, "open"), raw_bars(changed, MON, "close")
    for row in outcome.rows:
        if math.isfinite(row.realised):
            assert row.realised == pytest.approx(math.log(closes[row.symbol] / opens[row.symbol]))


def test_what_is_not_there_is_named(sessions: tuple[Workspace, list[SessionResult]]) -> None:
    ws, _ = sessions
    with pytest.raises(UnknownNameError, match="Unknown account 'paper-tiny-top11'"):
        session_report.write(ws, "paper-tiny-top11", MON, NOW)
    with pytest.raises(UnknownNameError, match=r"Unknown session of paper-tiny-top10 '2025-06-13'"):
        session_report.write(ws, LIVE, LAST, NOW)
    assert not ws.store.exists(session_report.page_path(ws, LIVE, LAST))
