"""The daily trade over past sessions, on the paper broker, and the backtest over the same: they must be one."""

from __future__ import annotations

from datetime import date

import pytest
import yaml
from tiny_market import NOW

from trading_core import config
from trading_core.errors import InvalidDateRangeError, NoDataError, UnknownNameError
from trading_core.execution.ledger import Ledger
from trading_core.pipelines import controls, parity, trade
from trading_core.pipelines.account import open_account
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.schema import Side

START, END = date(2025, 5, 1), date(2025, 5, 8)


def ran(ws: Workspace, strategy: str, end: date = END) -> parity.ParityRef:
    return parity.parity(ws, strategy=strategy, start=START, end=end, run_id="parity", now=NOW)


# One that keeps what it holds, one that trades everything every session, one that is short and pays for what it borrows.
@pytest.mark.parametrize(
    "strategy", ["top10", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("proportional", "long-short"))]
)
def test_replay_and_backtest_are_the_same_to_the_bit_of_every_trade(ws: Workspace, strategy: str) -> None:
    costs = ws.market.costs.model_copy(update={"interest_bps_annual": 300.0, "borrow_bps_annual": 500.0})
    ws = open_workspace(ws.market.model_copy(update={"costs": costs}), ws.settings)
    made = ran(ws, strategy)
    assert made.difference is None
    assert made.agrees
    assert made.sessions == 6
    assert made.trades > 10
    assert made.largest_difference < 1e-12
    again = ran(ws, strategy)  # nothing is ordered twice
    assert again == made


@pytest.mark.thorough
def test_a_short_account_is_flattened_by_buying_back(ws: Workspace) -> None:
    account = ran(ws, "long-short", date(2025, 5, 2)).account
    ledger = Ledger(ws.ledger_store())
    before = ledger.session_state(account, date(2025, 5, 2))
    assert before is not None
    assert before.summary is not None
    assert any(position.quantity < 0 for position in before.summary.positions)
    broker = open_account(ws, account, "paper", config.load_strategy("long-short", ws.settings)).broker
    orders = controls._closing(
        ws, open_account(ws, account, "paper", config.load_strategy("long-short", ws.settings)), END
    )
    held = {position.symbol: position.quantity for position in broker.account().positions}
    assert {o.symbol: o.quantity if o.side is Side.SELL else -o.quantity for o in orders} == held


def test_a_difference_is_pointed_at(ws: Workspace) -> None:
    """The same account beside a backtest with other costs: its first fill is the first difference."""
    made = ran(ws, "top10", date(2025, 5, 2))
    costs = ws.market.costs.model_copy(update={"slippage_bps": 3.0})
    other = open_workspace(ws.market.model_copy(update={"costs": costs}), ws.settings)
    found = parity.compare_account(other, made.account)
    assert not found.agrees
    assert found.difference is not None
    assert found.difference.session == START
    assert found.difference.what.startswith("the buy of ")
    assert found.largest_difference > 1e-6


def test_what_cannot_be_compared_is_named(ws: Workspace) -> None:
    with pytest.raises(UnknownNameError, match="account 'nobody'"):
        parity.compare_account(ws, "nobody")
    with pytest.raises(InvalidDateRangeError, match="2025-06-13"):
        parity.parity(ws, strategy="top10", start=date(2026, 1, 1), end=date(2026, 2, 1), run_id="x", now=NOW)
    ref = trade.open_session(ws, strategy="top10", session=START, is_backfill=True, replay="begun", run_id="x", now=NOW)
    with pytest.raises(NoDataError, match="no settled session"):
        parity.compare_account(ws, ref.account)


@pytest.mark.thorough
def test_a_users_own_strategy_file_is_replayed_too(ws: Workspace) -> None:
    folder = ws.settings.var_dir / "configs" / "strategies"
    folder.mkdir(parents=True, exist_ok=True)
    values = {"strategy": "top_k", "params": {"k": 3, "buffer": 4}, "fractional": False, "risk": {"max_position": 0.2}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(values))
    made = ran(ws, "mine")
    assert made.agrees
    assert made.trades >= 3
