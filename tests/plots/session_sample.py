"""A session's page with a bit of everything, made by hand; every text holds what must be escaped."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime

from trading_core.metrics.execution_quality import Shortfall
from trading_core.plots.session_data import (
    AccountFacts,
    DecisionFacts,
    EventRow,
    FillRow,
    MoneyRow,
    OrderRow,
    OutcomeFacts,
    OutcomeRow,
    PositionRow,
    RefusalRow,
    SessionHead,
    SessionPage,
    Standing,
    StandingFacts,
    StateRow,
    TargetRow,
    Totals,
)

HOSTILE = "<script>alert('x')</script>&\""
NAN = math.nan
D, T = date(2026, 3, 5), date(2026, 3, 6)
EVENING, OPEN = datetime(2026, 3, 5, 22, 0, tzinfo=UTC), datetime(2026, 3, 6, 14, 30, tzinfo=UTC)


def order(symbol: str = "AAA", status: str = "filled", **changes: object) -> OrderRow:
    """A purchase of 100 shares at 10.05, decided at 10.00, opened at 10.02; `changes` of its fields."""
    states = (StateRow("submitting", EVENING, 0.0, ""), StateRow(status, OPEN, 100.0, HOSTILE))
    made = OrderRow(
        symbol, "buy", 100.0, status, 100.0, 10.05, HOSTILE, "t0123456789abcdef", 1, states,
        10.0, 10.02, 50.0, 5.0, 29.94, 3.0, 1.0, HOSTILE,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def sample(rows: int = 2) -> SessionPage:
    """`rows`: of the tables that may be long."""
    symbols = [HOSTILE if k == 0 else f"S{k:03d}" for k in range(rows)]
    targets = [
        *(TargetRow(s, 0.01, k + 1, None, 0.002, 0.1, 0.2, "buy 100", HOSTILE) for k, s in enumerate(symbols)),
        TargetRow("OUT", -0.01, 30, 3, -0.001, 0.1, 0.0, "sell 7", HOSTILE),
    ]
    return SessionPage(
        head=SessionHead(HOSTILE, HOSTILE, HOSTILE, HOSTILE, T, D, 3, OPEN, EVENING, OPEN, OPEN),
        standing=StandingFacts(Standing.NEEDS_A_PERSON, HOSTILE, (HOSTILE,)),
        decision=DecisionFacts(
            5, 30, 10_000.0, 500.0, tuple(targets), (HOSTILE,),
            (RefusalRow(HOSTILE, HOSTILE, 12.5, HOSTILE, HOSTILE, HOSTILE),), HOSTILE, HOSTILE,
        ),
        orders=(*(order(s) for s in symbols), order("UNK", "unknown", filled=0.0, client_order_id=HOSTILE)),
        fills=(FillRow(HOSTILE, HOSTILE, 100.0, 10.05, 1.0, OPEN, HOSTILE),),
        totals=Totals(50.0, 5.0, 29.94, 3.0, Shortfall(2.0, 3.0, 1.0, 1005.0, 1)),
        account=AccountFacts(
            HOSTILE, 10_100.0, 495.0, 10_000.0, D,
            tuple(PositionRow(s, -5.0, 10.0, 11.0, D, -55.0, -0.0055, -5.0) for s in symbols),
            (MoneyRow(HOSTILE, -12.34),), ((D, 10_000.0), (T, 10_100.0)), 0.1,
        ),
        outcome=OutcomeFacts(
            D, D, HOSTILE, 5, HOSTILE, False,
            tuple(OutcomeRow(s, 0.1, 0.01, k + 1, 0.002, -0.01, 0.01, 0.001 * k) for k, s in enumerate([*symbols, "Z"])),
            0.25, 3, 0.5, 0.9, 2, 0.5, 0.001, NAN, HOSTILE,
        ),
        outcome_missing="",
        events=(EventRow(OPEN, "alert", HOSTILE, HOSTILE),),
        lineage=((HOSTILE, HOSTILE),),
        explain=HOSTILE,
    )  # fmt: skip


def bare() -> SessionPage:
    """A session that was opened and not decided: nothing is known."""
    full = sample()
    return replace(
        full,
        head=replace(full.head, decided_at=None, settled_at=None),
        standing=StandingFacts(Standing.PENDING, "Nothing has been decided yet."),
        decision=None,
        orders=(),
        fills=(),
        totals=None,
        account=AccountFacts("the close of D", NAN, NAN, NAN, None, (), (), ()),
        outcome=None,
        outcome_missing="This is the first session.",
        events=(),
        lineage=(),
        explain="",
    )
