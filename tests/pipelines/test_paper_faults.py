"""The daily trade at a paper broker that fails on purpose: run again until it is through, it ends as if nothing had failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta

import pytest
from tiny_market import NOW, traded

from trading_core.errors import ExecutionError, InvalidConfigError
from trading_core.execution.ledger import Ledger
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import Fill

TUE, WED = date(2025, 6, 10), date(2025, 6, 11)
MOST_RUNS = 60


def through(ws: Workspace, seen: Counter[str]) -> list[Fill]:
    """The fills of two sessions, each run again a minute later for as long as it fails."""
    account, minutes = "", 0
    for session in (TUE, WED):
        for _ in range(MOST_RUNS):
            minutes += 1
            try:
                account = traded(ws, session, NOW + timedelta(minutes=minutes)).account
                break
            except ExecutionError as error:
                seen[type(error).__name__] += 1
    return [fill for session in (TUE, WED) for fill in Ledger(ws.ledger_store()).fills(account, session)]


@pytest.mark.thorough
def test_lost_answers_lost_orders_and_silence_change_no_fill(copied: Callable[..., Workspace]) -> None:
    undisturbed, seen = through(copied("whole"), Counter()), Counter[str]()
    faults = "seed=7,lost_answer=0.2,lost_order=0.2,unreachable=0.2,busy=0.1"
    assert through(copied("faulty", paper_faults=faults), seen) == undisturbed
    assert undisturbed
    assert {"AmbiguousOrderError", "BrokerUnreachableError"} <= set(seen)


def test_a_plan_that_is_none_stops_a_session_before_it_is_opened(copied: Callable[..., Workspace]) -> None:
    ws = copied(paper_faults="lost=0.1")
    with pytest.raises(InvalidConfigError, match="'lost' is no key; allowed: seed, refuse"):
        traded(ws, TUE)
    assert Ledger(ws.ledger_store()).accounts() == []
