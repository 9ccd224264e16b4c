"""An ablation through the pipeline, and its table by hand."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from test_no_look_ahead import scrambled
from test_tuning import add_model
from tiny_market import NOW

from trading_core import cli
from trading_core.config import ModelConfig
from trading_core.errors import InvalidConfigError, TooShortHistoryError, UnknownNameError
from trading_core.pipelines import ablate, ablate_cells
from trading_core.pipelines.ablate import BASE, AblateRequest, AblationResult, Variants, variants_of, with_change
from trading_core.pipelines.ablation_table import Cell, as_csv, as_markdown, rows_of
from trading_core.pipelines.cross_validate import FoldPlan, cross_validate
from trading_core.pipelines.skill import HorizonSkill
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import TRIALS

pytestmark = pytest.mark.thorough
FIRST_UNSEEN = date(2025, 5, 1)
LINEAR: dict[str, Any] = {
    "model": "linear",
    "features": ["log_ret", "ret_3", "vol_20", "rsi_14"],
    "encoder_length": 2,
    "horizons": [1, 5],
    "architecture": {},
    "training": {},
}


def asked(ws: Workspace, variants: Variants, **changes: Any) -> AblateRequest:
    given = {"model": "small", "seeds": 1, "test_start": FIRST_UNSEEN, "now": NOW}
    return ablate.prepare(ws, variants=variants, **{**given, **changes})


def run(ws: Workspace, variants: Variants, **changes: Any) -> AblationResult:
    return ablate.run(ws, asked(ws, variants, **changes), NOW)


def trials_of(ws: Workspace) -> pl.DataFrame:
    return ws.tables.read(TRIALS.name).filter(pl.col("source").str.starts_with("ablation "))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(inputs, seed) of every training that is really done."""
    seen: list[tuple[str, int]] = []
    real = ablate_cells.fit_prepared

    def fit(prepared: Any, model: ModelConfig, *args: Any, **options: Any) -> Any:
        seen.append((" ".join(model.features), model.seed))
        return real(prepared, model, *args, **options)

    monkeypatch.setattr(ablate_cells, "fit_prepared", fit)
    return seen


# --- variants ---------------------------------------------------------------------------------------------------------

MODEL = ModelConfig(**{**LINEAR, "instrument_columns": ["strike"], "context": ["strike", "vol_20"]})


def changes(wanted: Variants) -> dict[str, dict[str, Any]]:
    return {variant.name: variant.change for variant in variants_of(MODEL, wanted)}


def test_without_a_word_every_family_and_the_instrument_columns_are_left_out() -> None:
    found = changes(Variants())
    left = {name: (change["features"], change["instrument_columns"]) for name, change in found.items() if change}
    assert next(iter(found)) == BASE
    assert found[BASE] == {}
    assert left == {
        "without returns": (["vol_20", "rsi_14"], ["strike"]),
        "without volatility": (["log_ret", "ret_3", "rsi_14"], ["strike"]),
        "without momentum": (["log_ret", "ret_3", "vol_20"], ["strike"]),
        "without strike": (LINEAR["features"], []),
    }


def test_each_variant_changes_one_thing_and_what_changes_nothing_is_left_out() -> None:
    wanted = Variants(
        drop=(("rsi_14", "strike"),),
        encoder_length=(2, 8),
        horizons=((1,), (5, 1)),
        target_scale=("none",),
        mask_above=(0.2,),
        scaler=("zscore", "robust"),
    )
    assert changes(wanted) == {
        BASE: {},
        "without rsi_14, strike": {"features": ["log_ret", "ret_3", "vol_20"], "instrument_columns": []},
        "encoder_length 8": {"encoder_length": 8},
        "horizons 1": {"horizons": [1]},
        "target_scale none": {"target_scale": "none"},
        "mask_above 0.2": {"mask_above": 0.2},
        "scaler robust": {"scaler": "robust"},
    }
    assert with_change(MODEL, {"instrument_columns": []}).context == ["vol_20"]


@pytest.mark.parametrize(
    ("wanted", "error", "reason"),
    [
        (Variants(drop_families=("trend",)), UnknownNameError, "family of the config's features 'trend'.*volatility"),
        (Variants(drop=(("macd",),)), UnknownNameError, "Unknown feature or instrument column of the config 'macd'"),
        (Variants(drop=(tuple(LINEAR["features"]),)), InvalidConfigError, "no feature is left"),
        (Variants(scaler=("minmax",)), UnknownNameError, "Unknown scaler 'minmax'.*robust, zscore"),
        (Variants(encoder_length=(0,)), InvalidConfigError, "encoder_length"),
        (Variants(target_scale=("log",)), InvalidConfigError, "target_scale"),
        (Variants(scaler=("zscore",)), InvalidConfigError, "no variant differs"),
    ],
)
def test_what_cannot_be_varied_is_refused(wanted: Variants, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=rf"(?s){reason}"):
        variants_of(MODEL, wanted)


# --- the table, by hand -----------------------------------------------------------------------------------------------


def skill(horizon: int, rank_ic: float, brier: float) -> HorizonSkill:
    nan = math.nan
    return HorizonSkill(horizon, 3, 90, rank_ic, nan, nan, nan, nan, nan, nan, brier, nan, nan, nan)


def cell(seed: int, daily: list[float], brier: float, first: int = 1, horizon: int = 2) -> Cell:
    days = tuple(date(2025, 1, first) + timedelta(k) for k in range(len(daily)))
    found = (skill(horizon, float(np.nanmean(daily)), brier),)
    return Cell(seed, 4, found, days, {horizon: tuple(daily)}, "c")


BASE_CELLS = (cell(7, [0.1, 0.2, 0.3], 0.30), cell(8, [0.2, 0.2, 0.2], 0.32))
OTHER_CELLS = (cell(8, [0.1, 0.4, 0.1], 0.31), cell(7, [0.0, 0.1, 0.5], 0.25))  # in another order


def test_differences_are_paired_by_seed() -> None:
    lines = [(BASE, BASE_CELLS, ""), ("other", OTHER_CELLS, "")]
    base, other = rows_of(lines, "brier", 2)
    assert (base.mean, base.sd) == pytest.approx((0.31, 0.01 * math.sqrt(2.0)))
    assert all(math.isnan(v) for v in (base.difference, base.standard_error, base.session_t))
    # By seed: 0.25 - 0.30 and 0.31 - 0.32; their spread is 0.04 / sqrt(2), and the error of their mean that over sqrt(2).
    assert (other.difference, other.standard_error) == pytest.approx((-0.03, 0.02))
    assert math.isnan(other.session_t)  # sessions have no Brier score here


def test_the_t_over_sessions_is_of_the_daily_differences() -> None:
    """Differences of seed 7 are .2, .2, .5 and of seed 8 .2, .5, .2: .2, .35, .35 by session.

    Mean .3, deviations -.1, .05, .05: g0 = .015 / 3, g1 = (-.005 + .0025) / 3, S = g0 + g1 (lag 1), t = .3 / sqrt(S / 3).
    """
    higher = tuple(cell(c.seed, [value + 0.3 for value in c.rank_ic[2]], 0.3) for c in OTHER_CELLS)
    _, row = rows_of([(BASE, BASE_CELLS, ""), ("higher", higher, "")], "rank_ic", 2)
    assert row.difference == pytest.approx(0.3)
    assert row.session_t == pytest.approx(0.3 / math.sqrt((0.015 - 0.0025) / 3 / 3))


def test_only_sessions_that_both_have_are_compared() -> None:
    """Differences .2 and .3 of the base's second and third session: g0 = .0025, g1 = -.00125, t = .25 / sqrt(.00125 / 2)."""
    later = (cell(7, [0.4, 0.6, 0.9], 0.3, first=2),)
    _, row = rows_of([(BASE, BASE_CELLS[:1], ""), ("later", later, "")], "rank_ic", 2)
    assert row.session_t == pytest.approx(10.0)
    assert (row.seeds, math.isnan(row.sd), math.isnan(row.standard_error)) == (1, True, True)


def test_another_horizon_is_shown_but_not_compared() -> None:
    lines = [(BASE, BASE_CELLS, ""), ("horizons 9", (cell(7, [0.1, 0.2, 0.3], 0.3, horizon=9),), "")]
    _, row = rows_of(lines, "rank_ic", 2)
    assert (row.horizon, row.mean) == (9, pytest.approx(0.2))
    assert math.isnan(row.difference)


def test_the_tables_say_what_was_found_and_what_failed() -> None:
    rows = rows_of([(BASE, BASE_CELLS, ""), ("other", OTHER_CELLS, ""), ("gone", (), "lags: 5 of 1")], "brier", 2)
    lines = as_csv(rows).splitlines()
    assert lines[0] == "variant,horizon,inputs,seeds,mean,sd,difference,standard_error,session_t,error"
    assert lines[1].startswith(f"{BASE},2,4,2,0.31,")
    assert lines[1].endswith(",,,,")
    assert lines[3] == "gone,2,0,0,,,,,,lags: 5 of 1"
    text = as_markdown(rows, [("Market", "tiny")])
    assert "- Market: tiny\n" in text
    assert "| other | 4 | 2 | 0.2800 | 0.0424 | -0.0300 | 0.0200 | – |\n" in text
    assert "| gone | lags: 5 of 1 |" in text


# --- through the pipeline ---------------------------------------------------------------------------------------------


def test_every_training_leaves_a_row_and_is_done_once(ws: Workspace, trained: list[tuple[str, int]]) -> None:
    add_model(ws, architecture={"hidden_size": 8}, encoder_length=2)
    first = run(ws, Variants(drop=(("rsi_14",),)), seeds=2)
    every, without = "log_ret ret_3 vol_20 rsi_14", "log_ret ret_3 vol_20"
    assert trained == [(every, 7), (every, 8), (without, 7), (without, 8)]
    assert [(row.variant, row.inputs, row.seeds) for row in first.rows] == [(BASE, 4, 2), ("without rsi_14", 3, 2)]
    assert first.rows[0].sd > 0.0
    assert math.isfinite(first.rows[1].standard_error)
    rows = trials_of(ws)
    assert len(rows) == 4
    assert rows["value"].mean() == pytest.approx(np.mean([row.mean for row in first.rows]))
    assert (rows["end"].unique().to_list(), rows["metric"].unique().to_list()) == ([first.end], ["rank_ic"])
    trained.clear()
    more = run(ws, Variants(drop=(("rsi_14",), ("vol_20",))), seeds=2)
    assert trained == [("log_ret ret_3 rsi_14", 7), ("log_ret ret_3 rsi_14", 8)]
    assert more.rows[:2] == first.rows
    assert len(trials_of(ws)) == 6
    trained.clear()
    assert run(ws, Variants(drop=(("rsi_14",), ("vol_20",))), seeds=3).rows[0].seeds == 3
    assert [seed for _, seed in trained] == [9, 9, 9]


def test_an_ablation_that_was_interrupted_goes_on(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    add_model(ws, **LINEAR)
    real, done = ablate_cells.fit_prepared, []

    def fit(*args: Any, **options: Any) -> Any:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(args[1].features)
        return real(*args, **options)

    wanted = Variants(drop=(("rsi_14",),))
    monkeypatch.setattr(ablate_cells, "fit_prepared", fit)
    with pytest.raises(KeyboardInterrupt):
        run(ws, wanted)
    monkeypatch.setattr(ablate_cells, "fit_prepared", lambda *a, **o: (done.append(a[1].features), real(*a, **o))[1])
    made = run(ws, wanted)
    assert [len(names) for names in done] == [4, 3]
    assert len(made.rows) == 2


@pytest.mark.parametrize("folds", [0, 2])
def test_ablation_and_cross_validation_are_blind_to_the_test_sessions(
    copied: Callable[..., Workspace], folds: int
) -> None:
    found = []
    for name, first in (("true", None), ("scrambled", FIRST_UNSEEN), ("before", date(2025, 4, 22))):
        ws = copied(name)
        add_model(ws, **LINEAR)
        if first is not None:
            scrambled(ws, first)
        made = run(ws, Variants(scaler=("robust",)), folds=folds, fold_sessions=20)
        plan = FoldPlan("combinatorial", 4) if folds else FoldPlan(folds=2)
        crossed = cross_validate(ws, model="small", plan=plan, test_start=FIRST_UNSEEN, now=NOW)
        found.append((as_csv(made.rows), crossed.parts))
        # Horizon 1: a decision is judged when the open two sessions later is known; folds keep the longest horizon's 5.
        assert ws.sessions.offset(made.end, 2) < FIRST_UNSEEN
        assert ws.sessions.offset(crossed.end, 1 + 5) < FIRST_UNSEEN
    assert found[0] == found[1]
    assert all(true != changed for true, changed in zip(found[0], found[2], strict=True))


def test_all_variants_are_judged_on_the_same_decisions(ws: Workspace) -> None:
    """A longer horizon purges more; all variants keep the distance that the longest of them needs."""
    add_model(ws, **LINEAR)
    request = asked(ws, Variants(horizons=((1,), (1, 20)), encoder_length=(5,)))
    lines = ablate_cells.train_cells(ws, request, NOW)
    sessions = {name: cells[0].sessions for name, cells, _ in lines}
    assert len(set(sessions.values())) == 1
    assert ws.sessions.offset(sessions[BASE][-1], 21) < FIRST_UNSEEN
    made = ablate.run(ws, request, NOW)
    assert {row.variant: row.horizon for row in made.rows} == {name: 1 for name, _, _ in lines}
    assert all(math.isfinite(row.difference) for row in made.rows[1:])


def test_walk_forward_folds_are_judged_out_of_sample(ws: Workspace, trained: list[tuple[str, int]]) -> None:
    add_model(ws, **LINEAR)
    made = run(ws, Variants(drop=(("rsi_14",),)), folds=3, fold_sessions=20)
    assert len(trained) == 2 * 3
    assert made.judged_on == "3 walk-forward folds"
    assert made.start == ws.sessions.offset(FIRST_UNSEEN, -60)
    assert ws.sessions.offset(made.end, 3) == FIRST_UNSEEN  # known at the last open before it
    assert len(trials_of(ws)) == 2  # three trainings are one score
    with pytest.raises(TooShortHistoryError, match="50 folds of 20"):
        run(ws, Variants(drop=(("rsi_14",),)), folds=50, fold_sessions=20)


def test_a_variant_that_cannot_be_trained_says_why_and_the_rest_goes_on(ws: Workspace) -> None:
    add_model(ws, **{**LINEAR, "architecture": {"lags": 2}})
    made = run(ws, Variants(encoder_length=(1, 3), scaler=("robust",)))
    assert [(row.variant, row.seeds) for row in made.rows] == [
        (BASE, 1), ("encoder_length 1", 0), ("encoder_length 3", 1), ("scaler robust", 1)
    ]  # fmt: skip
    assert "lags" in made.rows[1].error
    assert "encoder_length 1,1,0,0,,,,,,lags" in ws.store.read_bytes(made.csv).decode().replace('"', "")
    assert made.rows[2].difference == 0.0  # a linear model of two rows never sees the third
    assert b"lags" in ws.store.read_bytes(made.report)


def test_members_of_ensembles_are_in_one_cell_only(ws: Workspace) -> None:
    add_model(ws, ensemble=3)
    assert asked(ws, Variants(scaler=("robust",)), seeds=2).seeds == (7, 10)


def test_what_is_asked_for_wrongly_is_refused(ws: Workspace) -> None:
    add_model(ws, **LINEAR)
    wanted = Variants(scaler=("robust",))
    with pytest.raises(InvalidConfigError, match="seeds: 0 is not allowed; give 1 to 100"):
        asked(ws, wanted, seeds=0)
    with pytest.raises(InvalidConfigError, match="1 folds of 63 sessions; give 2 to 50 of at least 5"):
        asked(ws, wanted, folds=1)
    with pytest.raises(UnknownNameError, match=r"Unknown metric 'sharpe'.*rank_ic"):
        ablate.run(ws, asked(ws, wanted), NOW, metric="sharpe")
    with pytest.raises(InvalidConfigError, match="horizon: 3 is none of the config's"):
        ablate.run(ws, asked(ws, wanted), NOW, horizon=3)


def test_the_commands(ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    add_model(ws, **LINEAR)
    monkeypatch.setenv("TRADING_VAR_DIR", str(ws.settings.var_dir))
    monkeypatch.setenv("TRADING_MARKET", "tiny")
    monkeypatch.setattr(cli, "_now", lambda: NOW)

    def command(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["trading", *arguments, "--model", "small", "--test-start", "2025-05-01"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        assert stopped.value.code == 0, printed.err
        return printed.out

    made = json.loads(command("ablate", "--seeds", "1", "--drop", "rsi_14,vol_20", "--horizons", "1", "--json"))
    assert [row["variant"] for row in made["rows"]] == [BASE, "without rsi_14, vol_20", "horizons 1"]
    assert made["rows"][0]["difference"] is None
    assert ws.store.read_bytes(made["markdown"]).startswith(b"- Market: tiny\n- Model: small\n")
    assert "without momentum" in command("ablate", "--seeds", "1")
    found = json.loads(command("tune", "--trials", "2", "--save", "small-tuned", "--json"))
    assert (found["complete"], found["saved_as"]) == (2, "small-tuned")
    assert "ridge" in command("tune", "--trials", "3", "--timeout", "0")
