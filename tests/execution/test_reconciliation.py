"""What an account must hold, reckoned by hand, and where the broker's word differs from it."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from trading_core.execution.reconciliation import Holdings, differences, expected
from trading_core.schema import (
    AccountState,
    ActionKind,
    CashFlow,
    CashFlowKind,
    CorporateAction,
    Fill,
    Position,
    Side,
)

DAY, BEFORE = date(2024, 1, 9), date(2024, 1, 8)
AT = datetime(2024, 1, 9, 14, 30, tzinfo=UTC)
START = Holdings({"AAA": 10.0, "BBB": -4.0, "CCC": 7.5}, 1_000.0)


def fill(symbol: str, side: Side, quantity: float, price: float, commission: float = 0.0) -> Fill:
    return Fill(f"{symbol}-{side}-{price}", "t1", symbol, side, quantity, price, commission, DAY, AT)


def flow(amount: float, kind: CashFlowKind = CashFlowKind.DIVIDEND, symbol: str = "") -> CashFlow:
    return CashFlow(f"{kind}{amount}", DAY, kind, symbol, amount)


def split(symbol: str, ratio: float, day: date = DAY) -> CorporateAction:
    return CorporateAction(symbol, day, ActionKind.SPLIT, ratio)


def says(cash: float, **held: float) -> AccountState:
    return AccountState("paper-1", cash, tuple(Position(s, q, 1.0) for s, q in sorted(held.items())))


# --- what must be there -----------------------------------------------------------------------------------------------


def test_nothing_happened() -> None:
    assert expected(START, [], [], []) == START


def test_fills_move_shares_and_cash() -> None:
    fills = [
        fill("AAA", Side.SELL, 10.0, 20.0, 1.0),  # 1,000 + 200 - 1 = 1,199
        fill("DDD", Side.BUY, 3.0, 100.5, 0.5),  # - 301.5 - 0.5 = 897
        fill("DDD", Side.BUY, 1.0, 97.0),  # - 97 = 800
    ]
    after = expected(START, [], fills, [])
    assert after.positions == {"AAA": 0.0, "BBB": -4.0, "CCC": 7.5, "DDD": 4.0}
    assert after.cash == 800.0


def test_a_short_is_enlarged_covered_and_turned_round() -> None:
    more = expected(START, [], [fill("BBB", Side.SELL, 6.0, 50.0)], [])
    assert (more.positions["BBB"], more.cash) == (-10.0, 1_300.0)
    covered = expected(START, [], [fill("BBB", Side.BUY, 4.0, 50.0)], [])
    assert (covered.positions["BBB"], covered.cash) == (0.0, 800.0)
    turned = expected(START, [], [fill("BBB", Side.BUY, 5.0, 50.0)], [])
    assert (turned.positions["BBB"], turned.cash) == (1.0, 750.0)


def test_a_split_comes_before_the_fills_of_its_session() -> None:
    # 10 AAA become 30, 12 of them are sold at the new price; 4 BBB that are owed become 2.
    after = expected(
        START, [split("AAA", 3.0), split("BBB", 0.5), split("ZZZ", 9.0)], [fill("AAA", Side.SELL, 12.0, 7.0)], []
    )
    assert after.positions == {"AAA": 18.0, "BBB": -2.0, "CCC": 7.5}
    assert after.cash == 1_084.0


def test_two_splits_in_two_sessions_multiply() -> None:
    assert expected(START, [split("AAA", 2.0, BEFORE), split("AAA", 3.0)], [], []).positions["AAA"] == 60.0


def test_dividends_and_delistings_pay_as_flows_and_not_twice() -> None:
    actions = [
        CorporateAction("AAA", DAY, ActionKind.DIVIDEND, 0.5),
        CorporateAction("BBB", DAY, ActionKind.DIVIDEND, 0.25),
        CorporateAction("CCC", DAY, ActionKind.DELISTING, 4.0),
    ]
    # Received 5, owed 1, 30 for the delisted shares, an overnight charge, a deposit.
    flows = [
        flow(5.0, symbol="AAA"),
        flow(-1.0, symbol="BBB"),
        flow(30.0, CashFlowKind.PROCEEDS, "CCC"),
        flow(-0.07, CashFlowKind.BORROW),
        flow(500.0, CashFlowKind.TRANSFER),
    ]
    after = expected(START, actions, [], flows)
    assert after.positions == {"AAA": 10.0, "BBB": -4.0}
    assert after.cash == pytest.approx(1_533.93, abs=1e-9)
    assert expected(START, actions, [], []).cash == 1_000.0


def test_a_split_and_a_dividend_of_one_day_leave_the_split_shares() -> None:
    actions = [CorporateAction("AAA", DAY, ActionKind.DIVIDEND, 0.5), split("AAA", 2.0)]
    assert expected(START, actions, [], [flow(10.0)]) == Holdings({"AAA": 20.0, "BBB": -4.0, "CCC": 7.5}, 1_010.0)


def test_cents_do_not_get_lost_among_many_fills() -> None:
    # 10,000 fills of a tenth of a share at 0.10: 100 in all, where a running sum of floats drifts.
    fills = [fill("EEE", Side.BUY, 0.1, 0.1) for _ in range(10_000)]
    assert expected(Holdings({}, 1e9), [], fills, []).cash == pytest.approx(1e9 - 100.0, abs=1e-6)


# --- where the broker differs -----------------------------------------------------------------------------------------

WANTED = Holdings({"AAA": 10.0, "BBB": -4.0, "OLD": 0.0}, 1_000.0)


def test_what_agrees_is_not_mentioned() -> None:
    assert differences(WANTED, says(1_000.0, AAA=10.0, BBB=-4.0)) == []
    assert differences(Holdings({}, 0.0), says(0.0)) == []


@pytest.mark.parametrize(
    ("there", "sentences"),
    [
        (says(1_000.0, AAA=9.0, BBB=-4.0), ["AAA: the ledger says 10 shares, the broker 9"]),
        (says(1_000.0, AAA=10.0, BBB=4.0), ["BBB: the ledger says -4 shares, the broker 4"]),
        (says(1_000.0, BBB=-4.0), ["AAA: the ledger says 10 shares, the broker 0"]),
        (says(1_000.0, AAA=10.0, BBB=-4.0, NEW=2.0), ["NEW: the ledger says 0 shares, the broker 2"]),
        (says(1_000.0, AAA=10.0, BBB=-4.0, OLD=1.0), ["OLD: the ledger says 0 shares, the broker 1"]),
        (says(-5.0, AAA=10.0, BBB=-4.0), ["cash: the ledger says 1,000.00, the broker -5.00"]),
        (
            says(0.0),
            [
                "AAA: the ledger says 10 shares, the broker 0",
                "BBB: the ledger says -4 shares, the broker 0",
                "cash: the ledger says 1,000.00, the broker 0.00",
            ],
        ),
    ],
)
def test_every_difference_is_a_sentence(there: AccountState, sentences: list[str]) -> None:
    assert differences(WANTED, there) == sentences


@pytest.mark.parametrize(
    ("off", "found"), [(0.0, 0), (0.004, 0), (-0.004, 0), (0.01, 1), (-0.01, 1), (0.006, 1), (float("nan"), 1)]
)
def test_cash_agrees_to_the_cent(off: float, found: int) -> None:
    assert len(differences(WANTED, says(1_000.0 + off, AAA=10.0, BBB=-4.0))) == found


@pytest.mark.parametrize(("off", "found"), [(1e-12, 0), (1e-6, 1), (-1e-6, 1), (float("nan"), 1)])
def test_shares_agree_to_float_noise(off: float, found: int) -> None:
    assert len(differences(WANTED, says(1_000.0, AAA=10.0 + off, BBB=-4.0))) == found


def test_orders_that_were_not_sent_from_here_are_told_first() -> None:
    found = differences(WANTED, says(1_000.0, AAA=10.0, BBB=-4.0), foreign=["by-hand-7"])
    assert found == ["order by-hand-7 at the broker was not sent from here"]


def test_an_overnight_split_may_be_there_or_not_symbol_by_symbol() -> None:
    tonight = [split("AAA", 2.0), split("BBB", 3.0)]
    for a, b in ((10.0, -4.0), (20.0, -4.0), (10.0, -12.0), (20.0, -12.0)):
        assert differences(WANTED, says(1_000.0, AAA=a, BBB=b), overnight=tonight) == []
    assert differences(WANTED, says(1_000.0, AAA=30.0, BBB=-4.0), overnight=tonight) == [
        "AAA: the ledger says 10 shares, the broker 30"
    ]
    assert differences(WANTED, says(1_000.0, AAA=20.0, BBB=-4.0)) == ["AAA: the ledger says 10 shares, the broker 20"]


def test_an_overnight_delisting_may_have_taken_the_shares_already() -> None:
    gone = [CorporateAction("AAA", DAY, ActionKind.DELISTING, 0.0)]
    assert differences(WANTED, says(1_000.0, BBB=-4.0), overnight=gone) == []
    assert differences(WANTED, says(1_000.0, AAA=10.0, BBB=-4.0), overnight=gone) == []
    assert len(differences(WANTED, says(1_000.0, AAA=5.0, BBB=-4.0), overnight=gone)) == 1


def test_nothing_that_is_handed_in_is_changed() -> None:
    positions = {"AAA": 10.0}
    expected(Holdings(positions, 1.0), [split("AAA", 2.0)], [fill("BBB", Side.BUY, 1.0, 1.0)], [])
    differences(Holdings(positions, 1.0), says(1.0, AAA=20.0), overnight=[split("AAA", 2.0)])
    assert positions == {"AAA": 10.0}
