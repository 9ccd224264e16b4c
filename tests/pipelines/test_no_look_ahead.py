"""A decision and a training see nothing of what comes after them: it is scrambled, and they stay the same to the bit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import polars as pl
import pytest
from tiny_market import NOW, forecast, rewritten, traded, trained

from trading_core.execution.ledger import Ledger
from trading_core.execution.records import Decision
from trading_core.pipelines import trade
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import Fill

D, T = date(2025, 5, 28), date(2025, 5, 29)
KEYS = ("symbol", "session", "ts", "month", "known_at")


def scrambled(ws: Workspace, start: date) -> None:
    """Multiplies every number of bars, features and events from `start` on; swaps what is known of the future lists."""
    random = np.random.default_rng(5)

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        numbers = [name for name, dtype in frame.schema.items() if dtype.is_float()]
        factors = [
            (pl.col(name) * pl.Series(random.uniform(0.3, 3.0, frame.height)).cast(frame.schema[name])).alias(name)
            for name in numbers
        ]
        return frame.with_columns(factors)

    for name in ws.tables.names():
        if name in ("bars", "corporate_actions") or name.startswith("features_"):
            assert not ws.tables.read(name).filter(pl.col("session") >= start).is_empty()
            rewritten(ws, name, change, start)
    gone = pl.lit(start).alias("delisted")
    rewritten(ws, "instruments", lambda frame: frame.with_columns(gone), None)


def without_forecasts(ws: Workspace, start: date) -> None:
    rewritten(ws, "forecasts", lambda frame: frame.clear(), start)


def decided(ws: Workspace) -> tuple[Decision, list[Fill], pl.DataFrame]:
    """Trades T; its decision, its fills, and the forecasts it was made of."""
    without_forecasts(ws, D)
    result = traded(ws, T)
    ledger = Ledger(ws.ledger_store())
    decision = ledger.get_decision(result.account, T)
    assert decision is not None
    rows = ws.tables.read("forecasts").filter(pl.col("session") == D).drop("features_version")
    return decision, ledger.fills(result.account, T), rows.sort("symbol", "horizon")


@pytest.mark.parametrize("held", [False, True], ids=["an empty account", "an account that holds shares"])
def test_a_decision_is_blind_to_the_future(copied: Callable[..., Workspace], held: bool) -> None:
    results = []
    for name in ("true", "scrambled"):
        ws = copied(name)
        if held:
            traded(ws, ws.sessions.previous(D))
            traded(ws, D)
        if name == "scrambled":
            scrambled(ws, T)
        results.append(decided(ws))
    (true, true_fills, true_rows), (other, other_fills, other_rows) = results
    assert true_rows.equals(other_rows)
    assert true.targets == other.targets
    assert true.orders == other.orders
    assert (true.equity, true.cash) == (other.equity, other.cash)
    assert true.rejected == other.rejected
    assert len(true.orders) > (0 if held else 9)
    # The fills are the market's answer, which is another one.
    assert [f.client_order_id for f in true_fills] == [f.client_order_id for f in other_fills]
    assert all(a.price != b.price for a, b in zip(true_fills, other_fills, strict=True))


def test_scrambling_the_decision_session_itself_is_seen(copied: Callable[..., Workspace]) -> None:
    """The check above has teeth: what D's close shows does change the decision."""
    true, _, _ = decided(copied("true"))
    ws = copied("scrambled")
    scrambled(ws, D)
    other, _, _ = decided(ws)
    assert true.orders != other.orders


def test_a_replay_with_the_market_of_its_day_decides_as_one_with_the_market_of_today(
    copied: Callable[..., Workspace],
) -> None:
    """Tables that end at D, as they did that evening, give the decision that the whole tables give later."""
    today, _, _ = decided(copied("today"))
    ws = copied("that-evening")
    for name in ws.tables.names():
        if name in ("bars", "corporate_actions", "forecasts") or name.startswith("features_"):
            rewritten(ws, name, lambda frame: frame.clear(), T)
    then, fills, _ = decided(ws)
    assert fills == []  # T has no bar yet
    assert (then.orders, then.targets) == (today.orders, today.targets)


@pytest.mark.parametrize("first_unseen", [date(2025, 3, 3), date(2025, 5, 1)])
def test_a_training_is_blind_to_its_test_sessions(copied: Callable[..., Workspace], first_unseen: date) -> None:
    weights, cutoffs = [], []
    for name in ("true", "scrambled"):
        ws = copied(name)
        if name == "scrambled":
            scrambled(ws, first_unseen)
        made = trained(ws, test_start=first_unseen)
        weights.append(ws.store.read_bytes(f"{ws.store.path_of(made.bundle)}/weights.safetensors"))
        card = ws.store.read_json(f"{ws.store.path_of(made.bundle)}/config.json")
        cutoffs.append((made.cutoff, card["scaler"], card["calibration"], card["validation_end"]))
    assert weights[0] == weights[1]
    assert cutoffs[0] == cutoffs[1]
    assert cutoffs[0][0] < first_unseen


def test_the_last_label_of_a_training_ends_before_the_first_unseen_session(ws: Workspace) -> None:
    """Horizon 5 from D needs the open of D + 6: the purge keeps the last validation decision that far away."""
    first_unseen = date(2025, 5, 1)
    made = trained(ws, test_start=first_unseen)
    card = ws.store.read_json(f"{ws.store.path_of(made.bundle)}/config.json")
    last_decision = date.fromisoformat(card["validation_end"])
    assert ws.sessions.offset(last_decision, 6) <= made.cutoff < first_unseen
    forecast(ws, version=str(made.version), start=first_unseen, end=first_unseen)
    assert trade.why_not_now(ws, T, NOW) != ""
