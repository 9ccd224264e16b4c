"""The evaluation: what it writes, what it counts, and what it says of forecasts that are not whole."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from datetime import date

import numpy as np
import polars as pl
import pytest
from tiny_market import NOW, evaluated, without_run

from trading_core.errors import DuplicateKeysError, InvalidConfigError, NoDataError
from trading_core.pipelines import evaluate, refs, sweep, trials
from trading_core.pipelines.evaluation_inputs import Wanted
from trading_core.pipelines.refs import EvaluationRef
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import TRIALS
from trading_core.storage.tables import Predicate

NAMES = ("top10", "top10-reweighted", "equal-weight", "buy-and-hold")


def table(ws: Workspace, made: EvaluationRef, name: str) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(ws.store.read_bytes(made.tables[f"{name}.parquet"])))


@pytest.fixture(scope="module")
def shared(prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, EvaluationRef]:
    """A copy of the prepared workspace and an evaluation of it. Only to be read."""
    from tiny_market import copy_of

    ws = copy_of(prepared.settings.var_dir, tmp_path_factory.mktemp("evaluated") / "var")
    return ws, evaluated(ws, NAMES)


def test_the_tables_hold_what_the_daily_curves_say(shared: tuple[Workspace, EvaluationRef]) -> None:
    ws, made = shared
    strategies, daily = table(ws, made, "strategies"), table(ws, made, "daily")
    assert strategies["strategy"].to_list() == list(NAMES)
    for row in strategies.iter_rows(named=True):
        equity = daily.filter(pl.col("strategy") == row["strategy"]).sort("session")["equity"].to_numpy()
        returns = np.diff(equity) / equity[:-1]
        assert row["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(252), rel=1e-9)
        assert row["total_return"] == pytest.approx(equity[-1] / equity[0] - 1, rel=1e-9)
        assert row["max_drawdown"] == pytest.approx((equity / np.maximum.accumulate(equity) - 1).min(), rel=1e-9)
        # Three ways to test one ratio: with little autocorrelation they must be near each other.
        ways = [row[f"{name}_p_value"] for name in ("moments", "hac", "bootstrap")]
        assert max(ways) - min(ways) < 0.15, row["strategy"]


def test_json_is_strict_and_says_the_same(shared: tuple[Workspace, EvaluationRef]) -> None:
    ws, made = shared

    def refuse(text: str) -> float:
        raise ValueError(text)

    rows = json.loads(ws.store.read_bytes(made.tables["strategies.json"]), parse_constant=refuse)
    assert [row["strategy"] for row in rows] == list(NAMES)
    assert rows[0]["sharpe"] == pytest.approx(made.strategies[0].sharpe, rel=1e-12)
    verdict = json.loads(ws.store.read_bytes(made.tables["verdict.json"]), parse_constant=refuse)
    assert verdict["trials"] == made.trials
    assert verdict["joint"]["against"] == "equal-weight"


def test_every_strategy_and_every_other_k_is_a_trial(shared: tuple[Workspace, EvaluationRef]) -> None:
    ws, made = shared
    found = ws.tables.read(TRIALS.name).filter(
        (pl.col("source") == made.evaluation_id) & (pl.col("kind") == "strategy")
    )
    # Two strategies that are no benchmarks, each with its own k and four others.
    assert dict(found.group_by("subject").len().iter_rows()) == {f"{name} · linear": 5 for name in NAMES[:2]}
    assert found["trial_id"].n_unique() == len(found)
    assert made.trials == ws.tables.read(TRIALS.name).filter(pl.col("kind") == "strategy").height


def test_it_says_the_same_in_steps_as_at_once(shared: tuple[Workspace, EvaluationRef]) -> None:
    """What Airflow's tasks do: every step loads what it needs and hands on references that are plain JSON."""
    ws, made = shared
    wanted = Wanted(("champion",), NAMES, resamples=200, random_portfolios=3)
    page = ws.store.read_bytes(made.report)
    plan = refs.load(refs.EvaluationPlan, json.loads(json.dumps(refs.dump(evaluate.plan(ws, wanted, "evaluate")))))
    parts = [
        refs.dump(part) for names in (NAMES[:1], NAMES[1:]) for part in evaluate.simulate_some(ws, plan, names, NOW)
    ]
    again = evaluate.compare(ws, plan, [refs.load(refs.SimulatedRef, json.loads(json.dumps(p))) for p in parts], NOW)
    assert without_run(again) == without_run(made)
    assert ws.store.read_bytes(again.report) == page


def test_costs_can_be_replaced_and_wrong_ones_are_named(ws: Workspace) -> None:
    free = {"commission_bps": 0.0, "half_spread_bps": 0.0, "slippage_bps": 0.0, "impact_coefficient": 0.0}
    made = evaluated(ws, ["top10", "equal-weight"], costs=free)
    daily = table(ws, made, "daily")
    assert daily.select(pl.sum("commission", "concession", "impact")).row(0) == (0.0, 0.0, 0.0)
    assert made.strategies[0].total_return > evaluated(ws, ["top10"]).strategies[0].total_return
    with pytest.raises(
        InvalidConfigError, match=r"comission_bps: unknown key; allowed: commission_bps, half_spread_bps"
    ):
        evaluated(ws, ["top10"], costs={"comission_bps": 1.0})
    with pytest.raises(InvalidConfigError, match=r"capital: -1"):
        evaluated(ws, ["top10"], capital=-1)
    with pytest.raises(InvalidConfigError, match=r"fill_at: 'noon'; allowed: open, close, vwap"):
        evaluated(ws, ["top10"], fill_at="noon")
    with pytest.raises(NoDataError, match="no walk-forward yet"):
        evaluated(ws, ["top10"], walk_forwards=("0123456789abcdef",))


@pytest.mark.thorough
def test_fills_can_be_had_at_the_close(ws: Workspace) -> None:
    made = evaluated(ws, ["equal-weight"], fill_at="close", costs={"impact_coefficient": 0.0})
    first = table(ws, made, "trades").row(0, named=True)
    bar = ws.tables.read("bars").filter((pl.col("symbol") == first["symbol"]) & (pl.col("session") == first["session"]))
    assert first["price"] == pytest.approx(bar["close"][0] * 1.0004, rel=1e-12)


@pytest.mark.thorough
def test_forecasts_with_holes_are_said_to_have_them(ws: Workspace) -> None:
    days = ws.tables.read("forecasts")["session"].unique().sort().to_list()
    gone = ws.tables.read("forecasts")["symbol"].min()
    whole = ws.tables.read("forecasts")
    kept = whole.filter((pl.col("session") != days[5]) & (pl.col("symbol") != gone))
    ws.tables.replace("forecasts", kept, Predicate())
    made = evaluated(ws, ["top10", "equal-weight"])
    page = re.sub(r"<[^>]*>", "", ws.store.read_bytes(made.report).decode())
    assert f"1 of {len(days) - 1} sessions have no forecast at all ({days[5]})" in page
    assert "1 symbols with bars never have a forecast" in page
    trades = table(ws, made, "trades").filter(pl.col("strategy") == "top10")
    assert gone not in trades["symbol"].to_list()
    after = next(d for d in ws.tables.read("bars")["session"].unique().sort().to_list() if d > days[5])
    assert trades.filter(pl.col("session") == after).is_empty()  # what was held stayed


def test_a_forecast_given_twice_is_refused(ws: Workspace) -> None:
    day = ws.tables.read("forecasts")["session"].max()
    frame = ws.tables.read("forecasts").filter(pl.col("session") == day)
    ws.tables.append("forecasts", frame.head(1))
    with pytest.raises(DuplicateKeysError, match=f"{frame['symbol'][0]} {day}"):
        evaluated(ws, ["top10"])


def test_fewer_than_thirty_returns_have_no_p_value_and_a_reason(ws: Workspace) -> None:
    days = ws.tables.read("forecasts")["session"].unique().sort().to_list()
    made = evaluated(ws, ["top10", "equal-weight"], start=days[-11])
    assert all(math.isnan(row.p_value) for row in made.strategies)
    assert math.isnan(made.spa_p_value)
    rows = json.loads(ws.store.read_bytes(made.tables["strategies.json"]))
    assert rows[0]["hac_p_value"] is None
    assert rows[0]["hac_reason"] == "only 10 returns; at least 30 are needed"
    assert math.isfinite(made.strategies[0].total_return)


@pytest.mark.thorough
def test_forecasts_of_several_versions_are_stitched_and_what_needs_one_card_is_left_out(ws: Workspace) -> None:
    """Two segments of one version are its forecasts; a threshold that lies in the cards of several versions is not taken."""
    names = ("top10", "long-flat-searched", "equal-weight")
    plan = evaluate.plan(ws, Wanted(("champion",), names, resamples=200, random_portfolios=0), "whole")
    whole = evaluate.compare(ws, plan, evaluate.simulate_some(ws, plan, names, NOW), NOW)
    used = plan.forecasts[0]
    ((version, first, last),) = used.segments
    days = ws.tables.read("forecasts")["session"].unique().sort().to_list()
    parts = ((version, first, days[20]), (version, days[21], last))
    halves = dataclasses.replace(
        plan, evaluation_id="0" * 16, forecasts=(dataclasses.replace(used, segments=parts, walk_forward="w"),)
    )
    found = evaluate.compare(ws, halves, evaluate.simulate_some(ws, halves, names, NOW), NOW)
    assert [row.name for row in found.strategies] == ["top10", "equal-weight"]
    assert found.strategies[0].sharpe == whole.strategies[0].sharpe
    page = re.sub(r"<[^>]*>", "", ws.store.read_bytes(found.report).decode())
    assert "long-flat-searched · linear was left out: its threshold lies in the cards of several versions." in page


@pytest.mark.thorough
def test_a_sweep_is_every_combination_and_every_one_is_counted(ws: Workspace) -> None:
    before = len(ws.tables.read(TRIALS.name))
    wanted = Wanted(("champion",), ("top10",))
    made = sweep.sweep(ws, wanted, {"k": [3, 5], "buffer": [0, 10]}, run_id="s", now=NOW)
    assert {row.params for row in made.variants} == {f"k = {k}, buffer = {b}" for k in (3, 5) for b in (0, 10)}
    assert [row.sharpe for row in made.variants] == sorted((row.sharpe for row in made.variants), reverse=True)
    assert len(ws.tables.read(TRIALS.name)) == before + 4
    assert 0.0 <= made.pbo <= 1.0
    # The same as one by one, and no trial more.
    (alone,) = sweep.sweep(ws, wanted, {"k": [5], "buffer": [10]}, run_id="s", now=NOW).variants
    assert alone == next(row for row in made.variants if row.params == "k = 5, buffer = 10")
    with pytest.raises(InvalidConfigError, match=r"k is 0; it must lie between 1 and 1000"):
        sweep.sweep(ws, wanted, {"k": [0]}, run_id="s", now=NOW)
    with pytest.raises(InvalidConfigError, match=r"kk: unknown key; allowed: k, reweight, buffer"):
        sweep.sweep(ws, wanted, {"kk": [1]}, run_id="s", now=NOW)


def test_what_a_few_sessions_scored_counts_and_does_not_widen_the_luck_of_a_year(ws: Workspace) -> None:
    start, end = date(2024, 1, 2), date(2024, 12, 31)
    for number in range(6):
        whole = trials.Trial("strategy", "a", f"w{number}", "sharpe_annual", 0.1 * number)
        trials.record_many(ws, [whole], start=start, end=end, source="t", now=NOW)
    before = trials.sharpe_ratios(ws, start, end)
    short = trials.Trial("strategy", "a", "short", "sharpe_annual", 53.9)
    trials.record_many(ws, [short], start=date(2024, 12, 27), end=end, source="t", now=NOW)
    after = trials.sharpe_ratios(ws, start, end)
    assert len(after) == len(before) + 1
    assert np.nanvar(after) == np.nanvar(before)
    assert np.nanmax(trials.sharpe_ratios(ws, date(2024, 12, 27), end)) == 53.9


@pytest.mark.thorough
def test_a_benchmark_and_other_costs_are_no_trials(ws: Workspace) -> None:
    before = len(ws.tables.read(TRIALS.name))
    evaluated(ws, ["equal-weight", "buy-and-hold"])
    assert len(ws.tables.read(TRIALS.name)) == before + 1  # the model
    evaluated(ws, ["top10"], costs={"commission_bps": 0.0})
    assert len(ws.tables.read(TRIALS.name)) == before + 1


def test_two_names_of_one_version_are_one_and_nothing_to_simulate_is_said(ws: Workspace) -> None:
    plan = evaluate.plan(ws, Wanted(("champion", "1"), ("top10",)), "r")
    assert [used.label for used in plan.forecasts] == ["linear"]
    with pytest.raises(InvalidConfigError, match="The evaluation"):
        evaluate.compare(ws, plan, [], NOW)
