"""What must not happen a second time, or too late: flattens, live orders after the open, models of yesterday's formulas."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from tiny_market import NOW, backfilled, traded, trained

from trading_core.errors import EmptyUniverseError, InvalidConfigError, OrderWindowClosedError, StaleFormulasError
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import Intent
from trading_core.pipelines import controls, panels, refs, trade
from trading_core.pipelines.refs import SessionRef
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import Side

MON, TUESDAY = date(2025, 6, 16), date(2025, 6, 17)
MON_OPEN = datetime(2025, 6, 16, 13, 30, tzinfo=UTC)  # 09:30 in New York
MONDAY_EVENING = datetime(2025, 6, 16, 22, 0, tzinfo=UTC)
TUESDAY_EVENING = datetime(2025, 6, 17, 22, 0, tzinfo=UTC)
LIVE = "paper-tiny-top10"


def holding(ws: Workspace) -> None:
    """The live account bought on Monday; it is Monday evening."""
    traded(ws, MON)
    backfilled(ws, MON, MON, now=MONDAY_EVENING, run_id="monday")
    controls.act(ws, "settle", LIVE, "", by="test", now=MONDAY_EVENING)


def sells(ws: Workspace) -> list[Intent]:
    return [o.intent for o in Ledger(ws.ledger_store()).orders(LIVE, TUESDAY) if o.intent.side is Side.SELL]


def test_a_second_flatten_leaves_the_first_ones_sells_alone(ws: Workspace) -> None:
    holding(ws)
    first = controls.act(ws, "flatten", LIVE, "enough", by="test", now=MONDAY_EVENING)
    again = controls.act(ws, "flatten", LIVE, "enough", by="test", now=MONDAY_EVENING)
    assert (first["sells"], again["sells"], again["canceled"]) == (10, 0, 0)
    backfilled(ws, TUESDAY, TUESDAY, now=TUESDAY_EVENING, run_id="tuesday")
    done = controls.act(ws, "settle", LIVE, "", by="test", now=TUESDAY_EVENING)
    assert (done["status"], done["fills"]) == ("settled", 10)
    assert done["equity"] == done["cash"]


def test_a_session_that_was_flattened_sends_nothing_more_after_a_resume(ws: Workspace) -> None:
    holding(ws)
    controls.act(ws, "flatten", LIVE, "enough", by="test", now=MONDAY_EVENING)
    controls.act(ws, "resume", LIVE, "again", by="test", now=MONDAY_EVENING)
    before = sells(ws)
    traded(ws, TUESDAY, now=MONDAY_EVENING)
    assert len(before) == 10
    assert sells(ws) == before


def opened(ws: Workspace) -> SessionRef:
    found = trade.open_session(
        ws, strategy="top10", session=MON, is_backfill=False, replay=None, run_id="late", now=NOW
    )
    return trade.infer(ws, found, NOW)


@pytest.mark.parametrize("decided_in_time", [False, True])
def test_a_live_step_that_wakes_up_after_the_open_sends_nothing(ws: Workspace, decided_in_time: bool) -> None:
    ref = opened(ws)
    if decided_in_time:
        trade.decide(ws, ref, NOW)
        step: Any = trade.buy
    else:
        step = trade.decide
    with pytest.raises(OrderWindowClosedError, match=r"could be sent until 2025-06-16 13:30 UTC"):
        step(ws, ref, MON_OPEN)
    assert Ledger(ws.ledger_store()).orders(LIVE, MON) == []


def test_a_replay_may_decide_long_after_the_open(ws: Workspace) -> None:
    assert traded(ws, date(2025, 6, 10)).status == "settled"


def test_values_of_other_formulas_are_neither_learned_from_nor_forecast_with(ws: Workspace) -> None:
    path = ws.path("features", "current.json")
    current = ws.store.read_json(path)
    current["fingerprints"]["rsi_14"] = "0" * 16  # what another formula's backfill would have left
    ws.store.write_json(path, current)
    with pytest.raises(StaleFormulasError, match=r"rsi_14.*feature_backfill"):
        trained(ws, seed=3)
    with pytest.raises(StaleFormulasError, match=r"rsi_14.*feature_backfill"):
        panels.current_versions(ws)  # what forecasting asks before it reads


def test_a_horizon_that_the_model_does_not_forecast_is_refused_before_anything_is_decided(
    ws: Workspace, tmp_path: Any
) -> None:
    folder = tmp_path / "configs" / "strategies"
    settings = ws.settings.model_copy(update={"config_dir": tmp_path / "configs"})
    folder.mkdir(parents=True)
    (folder / "far.yaml").write_text("strategy: top_k\nhorizon: 3\n")
    other = Workspace(settings, ws.market, ws.store, ws.tables, ws.sessions)
    with pytest.raises(EmptyUniverseError, match=r"'far' ranks by horizon 3, the model forecasts \[1, 5\]"):
        traded(other, date(2025, 6, 10), strategy="far")
    account = trade.choose_account(other, "far", date(2025, 6, 10), is_backfill=False, replay=None, now=NOW).account
    assert Ledger(ws.ledger_store()).get_decision(account, date(2025, 6, 10)) is None


@pytest.mark.parametrize("name", ["", "Has Spaces", "-leading", "x" * 40])
def test_a_replay_name_that_is_none_never_means_the_live_account(ws: Workspace, name: str) -> None:
    with pytest.raises(InvalidConfigError, match="replay name"):
        traded(ws, MON, replay=name)
    assert Ledger(ws.ledger_store()).accounts() == []


def test_references_survive_json_with_unknown_numbers() -> None:
    row = refs.StrategyRow("flat", False, 0.0, 0.0, 0.0, float("nan"), float("nan"), 0.0, 0.0, 0.0, 0.0)
    dumped = refs.dump(row)
    assert (dumped["sharpe"], dumped["total_return"]) == (None, 0.0)
    assert refs.dump(refs.load(refs.StrategyRow, dumped)) == dumped
