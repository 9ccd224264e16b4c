"""daily_trade and controls through Airflow itself (`dag.test()`): who is asked, when orders go out, and who hears of a failure.

All runs are played once, in one process with Airflow (`trading_site`), and looked at here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass

import pytest
import trading_site
from trading_site import BEFORE_OPEN, Scenario, Told

PAPER = {"market": "tiny", "strategy": "top10"}
ASKED = {**PAPER, "approval": True}
WHOLE = {"market": "tiny", "strategy": "whole-shares"}  # the three best, as Alpaca's auction takes them
HOOK, NOWHERE = {"TRADING_ALERT_URL": "$HOOK"}, {"TRADING_ALERT_URL": "http://127.0.0.1:9/hidden-path"}
SCENARIOS = [
    Scenario("approved", ASKED, answer="Approve"),
    Scenario("refused", ASKED, answer="Reject"),
    # A second is left of the time to answer: a minute is kept before the last moment to send.
    Scenario("unanswered", ASKED, answer="nothing", now="2025-06-16T13:28:59+00:00"),
    Scenario("marked by hand", ASKED, marked="approve", env=HOOK),
    Scenario("halted", PAPER, before="halt", env=NOWHERE),
    Scenario("late", dag="late", env=HOOK),
    Scenario("late, nobody there", dag="late", env=NOWHERE),
    Scenario("backfill", WHOLE, ledger="old", backfill="2025-06-10", server=True),
    Scenario("old session", {**WHOLE, "session": "2025-06-11"}, ledger="old", server=True),
    Scenario("no order named", {"market": "tiny", "action": "resolve"}, dag="controls"),
    Scenario("no such order", {"market": "tiny", "action": "resolve", "order": "t0"}, dag="controls"),
    Scenario("at the broker", WHOLE, server=True, held=2),
]
pytestmark = [pytest.mark.airflow, pytest.mark.thorough, pytest.mark.timeout(2 * trading_site.PATIENCE_S)]


@dataclass(frozen=True)
class Played:
    told: dict[str, Told]
    output: str

    def __getitem__(self, name: str) -> Told:
        return self.told[name]

    def part(self, name: str) -> str:
        """What was printed during one run: the logs of its tasks and callbacks."""
        return self.output.split(f"--- {name}\n", 1)[1].split("\n--- ", 1)[0]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("daily-trade") / "site"
    trading_site.prepare(folder)
    return Played(trading_site.play(folder, SCENARIOS), (folder / "output.txt").read_text())


def sides(told: Told) -> Counter[str]:
    return Counter(order["side"] for order in told.orders)


# --- a person is asked ------------------------------------------------------------------------------------------------


def test_an_approved_decision_is_sent_and_the_answer_is_kept_with_its_name(played: Played) -> None:
    told = played["approved"]
    assert (told.run, set(told.tasks.values())) == ("success", {"success"})
    assert told.question.startswith("Send 10 orders of top10 for 2025-06-16?\n")
    assert told.question.count("\n| buy | SIM") == 10
    assert told.approvals == [{"approved": True, "by": "nora", "note": "in Airflow"}]
    assert told.xcoms["approve"] == {"approved": True, "by": "nora"}
    assert (told.account, told.xcoms["buy"]["submitted"], sides(told)) == ("paper-tiny-top10", 10, {"buy": 10})


def test_a_refused_decision_is_not_sent(played: Played) -> None:
    told = played["refused"]
    assert told.run == "success"
    assert told.approvals == [{"approved": False, "by": "nora", "note": "in Airflow"}]
    assert (told.orders, told.xcoms["buy"]["submitted"], told.xcoms["buy"]["refused"]) == ([], 0, 10)


def test_no_answer_in_time_is_a_no(played: Played) -> None:
    told = played["unanswered"]
    assert told.run == "success"
    assert told.question  # it was asked
    assert told.approvals == [{"approved": False, "by": "nobody in time", "note": "in Airflow"}]
    assert told.orders == []


def test_an_approval_marked_success_by_hand_sends_nothing(played: Played) -> None:
    told = played["marked by hand"]
    assert (told.run, told.tasks["approve"], told.tasks["buy"]) == ("failed", "success", "failed")
    assert (told.orders, told.approvals) == ([], [])
    assert told.tries["buy"] == 1  # refused for good: not tried again
    assert "RiskRejectionError" in played.part("marked by hand")


# --- who hears of it --------------------------------------------------------------------------------------------------


def test_a_failed_run_is_told_to_the_webhook_and_the_ledger(played: Played) -> None:
    told = played["marked by hand"]
    [text] = [json.loads(body)["text"] for body in told.hooks]
    assert re.match(r"daily_trade failed \(run manual__\S+, task buy\)\. `trading status` shows", text)
    [alert] = told.alerts
    assert alert.startswith("the task buy of daily_trade failed: RiskRejectionError: ")
    assert "asks for a person's approval, and none is recorded" in alert


def test_a_webhook_that_cannot_be_reached_is_logged_without_its_address(played: Played) -> None:
    told, printed = played["halted"], played.part("halted")
    assert (told.run, told.tasks["check"], told.hooks) == ("failed", "failed", [])
    assert "TradingHaltedError" in printed
    for name in ("halted", "late, nobody there"):
        assert "The alert could not be sent to TRADING_ALERT_URL: ConnectError" in played.part(name)
        assert "hidden-path" not in played.part(name)


def test_the_deadline_tells_the_webhook(played: Played) -> None:
    [text] = [json.loads(body)["text"] for body in played["late"].hooks]
    assert text.startswith("daily_trade is late (run scheduled__2025-06-16). ")


# --- a broker that lives in the market --------------------------------------------------------------------------------


def test_a_session_at_the_broker_sells_at_the_open_waits_and_buys_with_the_cash(played: Played) -> None:
    told = played["at the broker"]
    assert (told.run, set(told.tasks.values())) == ("success", {"success"})
    assert (told.account, told.xcoms["check"]["kind"]) == ("alpaca-tiny-whole-shares", "live")
    sent = [(post["side"], post["time_in_force"]) for post in told.posts]
    assert sent == [("sell", "opg")] * 2 + [("buy", "day")] * 3
    # One sleep until the sells have filled, one until the buys have: each gives its worker back.
    assert told.deferred == ["airflow.providers.standard.triggers.temporal.DateTimeTrigger"] * 2
    # Sent before the open, a sell is asked after at the open; there is no open ahead of the buys.
    assert told.asleep[0] == "2025-06-16T13:30:00+00:00" < told.asleep[1]
    assert (told.xcoms["wait_sold"], told.xcoms["wait_bought"], told.xcoms["settle"]["status"]) == (0, 0, "pending")
    assert {order["status"] for order in told.orders} == {"filled"}


def test_the_dag_controls_settles_it_when_its_bars_are_there(played: Played) -> None:
    told = played["at the broker"]
    settled = told.xcoms["controls"]
    assert (settled["action"], settled["status"], settled["orders"], settled["fills"]) == ("settle", "settled", 5, 5)
    assert told.status == "settled"
    assert told.cash[0] == pytest.approx(told.cash[1], abs=1e-6)  # the ledger's arithmetic, and the broker's
    assert told.alerts == []


@pytest.mark.parametrize(("name", "session"), [("backfill", "2025-06-10"), ("old session", "2025-06-11")])
def test_history_never_reaches_a_real_broker(played: Played, name: str, session: str) -> None:
    told = played[name]
    assert told.run == "success"
    opened = told.xcoms["check"]
    assert (opened["kind"], opened["broker"], opened["session"]) == ("replay", "paper", session)
    assert (told.requests, told.posts, told.status) == (0, [], "settled")


def test_these_runs_had_the_coming_session_of_the_clock() -> None:
    """What is old above is old by the calendar: on the same morning the next session is the one that is traded live."""
    from trading_core.sessions import Sessions

    assert Sessions("XNYS").tradable(trading_site.MON, BEFORE_OPEN)


def test_the_dag_controls_ends_no_order_that_is_not_named_or_not_there(played: Played) -> None:
    for name, words in (
        ("no order named", "The action resolve needs an order id"),
        ("no such order", "UnknownNameError"),
    ):
        assert (played[name].run, played[name].tasks) == ("failed", {"act": "failed"})
        assert words in played.part(name)
    assert played["no order named"].tries["act"] == 1
