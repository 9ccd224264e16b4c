"""What a run of evaluate_strategies evaluates of the forecasts that were announced, and its batches of simulations."""

from __future__ import annotations

from datetime import date

from trading_core.pipelines import refs
from trading_core.pipelines.evaluation_targets import EvaluationTarget, SimulationBatch, announced, batches
from trading_core.pipelines.refs import EvaluationPlan, ForecastsRef

DAY, LATER, LAST = date(2025, 3, 20), date(2025, 4, 1), date(2025, 6, 13)


def forecasts(market: str, version: str, start: date) -> ForecastsRef:
    return ForecastsRef(market, "linear", version, 3, start, LAST, 100, 100)


def plan(*strategies: str) -> EvaluationPlan:
    given = ("tiny", "id", "run", (), strategies, DAY, LAST, 1e6, {}, "open", 7, 100, 0, {})
    return EvaluationPlan(*given)


def test_versions_and_markets_are_evaluated_each_by_itself() -> None:
    found = announced([forecasts("a", "1", DAY), forecasts("a", "2", LATER), forecasts("b", "1", LATER)])
    assert found == (
        EvaluationTarget("a", ("1",), start=DAY),
        EvaluationTarget("a", ("2",), start=LATER),
        EvaluationTarget("b", ("1",), start=LATER),
    )


def test_a_version_that_was_announced_twice_is_evaluated_once_from_its_first_session() -> None:
    found = announced([forecasts("a", "1", LATER), forecasts("a", "1", DAY)])
    assert found == (EvaluationTarget("a", ("1",), start=DAY),)


def test_a_target_comes_whole_out_of_the_json_between_tasks() -> None:
    target = EvaluationTarget("a", ("champion", "2"), ("walk",), DAY, None)
    assert refs.load(EvaluationTarget, refs.dump(target)) == target


def test_every_strategy_of_every_plan_is_in_one_batch() -> None:
    found = batches([plan("a", "b", "c"), plan("a", "b")], 2)
    expected = [(0, ("a", "b")), (0, ("c",)), (1, ("a", "b"))]
    assert found == tuple(SimulationBatch(number, names) for number, names in expected)
    assert [batch.strategies for batch in batches([plan("a", "b", "c")], 1)] == [("a",), ("b",), ("c",)]
    assert [batch.strategies for batch in batches([plan("a", "b", "c")], 100)] == [("a", "b", "c")]
