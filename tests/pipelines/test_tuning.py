"""A search through the pipeline: what trials see, what they leave, what becomes of them after a kill."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from typing import Any

import polars as pl
import pytest
import yaml
from test_no_look_ahead import scrambled
from tiny_market import MARKET, NOW

from trading_core import cli, config
from trading_core.config import ModelConfig
from trading_core.errors import InvalidConfigError, NoDataError, TrainingFailedError
from trading_core.pipelines import train, tune
from trading_core.pipelines.refs import TuneRef, TuneResult
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import TRIALS
from trading_core.training.tune import Measured, TrialRow

BASE: dict[str, Any] = {
    "model": "lstm",
    "features": ["log_ret", "ret_3", "vol_20", "rsi_14"],
    "encoder_length": 3,
    "static": ["sector"],
    "architecture": {"hidden_size": 8, "layers": 1},
    "training": {"epochs": 1, "batches_per_epoch": 2, "dates_per_batch": 2},
}
SOLVED: dict[str, Any] = {"model": "linear", "architecture": {}, "training": {}}
FIRST_UNSEEN = date(2025, 5, 1)


def add_model(ws: Workspace, name: str = "small", **changes: Any) -> str:
    folder = ws.settings.var_dir / "configs" / "models"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**BASE, **changes}))
    return name


def asked(ws: Workspace, **changes: Any) -> TuneRef:
    given = {"model": "small", "trials": 3, "test_start": FIRST_UNSEEN, "seed": 3, "now": NOW}
    return tune.prepare(ws, **{**given, **changes})


def searched(ws: Workspace, **changes: Any) -> TuneResult:
    ref = asked(ws, **changes)
    assert tune.run(ref.request_uri, ref.trials, ws.settings, NOW)
    return tune.result(ws, ref)


def trials_of(ws: Workspace) -> pl.DataFrame:
    return ws.tables.read(TRIALS.name).filter(pl.col("source").str.starts_with("tuning ")).sort("source")


def rows_of(ws: Workspace, ref: TuneRef) -> list[TrialRow]:
    _, request = tune.requests.read_request(ref.request_uri, tune.TuneRequest, ws.settings)
    return tune.study_of(ws, request).rows()


# --- what trials see --------------------------------------------------------------------------------------------------


def test_trials_are_blind_to_the_test_sessions_and_not_to_those_before(copied: Callable[..., Workspace]) -> None:
    """Everything from the first unseen session on is scrambled, and no figure of any trial moves by a bit."""
    found = []
    for name, first in (("true", None), ("scrambled", FIRST_UNSEEN), ("before", date(2025, 4, 22))):
        ws = copied(name)
        add_model(ws)
        if first is not None:
            scrambled(ws, first)
        ref = asked(ws, trials=2)
        tune.run(ref.request_uri, 2, ws.settings, NOW)
        rows = trials_of(ws)
        found.append(([(r.value, r.options, r.facts) for r in rows_of(ws, ref)], rows["value"].to_list()))
        assert (rows["end"] < FIRST_UNSEEN).all()
        assert ws.sessions.offset(rows["end"].max(), 2) < FIRST_UNSEEN  # horizon 1: known at the open of end + 2
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_the_same_seed_makes_the_same_trials(copied: Callable[..., Workspace]) -> None:
    found = []
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        ws = copied(name)
        add_model(ws)
        made = searched(ws, seed=seed, trials=2)
        found.append((made.best_options, made.best_value, ws.store.read_bytes(made.table)))
    assert found[0] == found[1]
    assert found[0][2] != found[2][2]


def test_the_search_finds_the_better_of_two_learning_rates(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is so small that the network stays as it was drawn; the market has a signal to learn."""
    from trading_core.models.search import Choice

    add_model(ws, training={"epochs": 3, "dates_per_batch": 8, "learning_rate": 1e-8, "monitor": "loss"})
    rates = {"training.learning_rate": Choice((1e-8, 0.02))}
    monkeypatch.setattr(tune, "search_space", lambda *_: rates)
    made = searched(ws, trials=6, seed=1)
    assert made.first_value < made.best_value
    assert made.best_options == {"training.learning_rate": 0.02}


# --- what they leave --------------------------------------------------------------------------------------------------


def test_every_trial_leaves_a_row_and_the_best_config_can_be_trained(ws: Workspace) -> None:
    add_model(ws, ensemble=2)
    before = len(ws.tables.read(TRIALS.name))
    made = searched(ws)
    rows = trials_of(ws)
    assert len(rows) == 3 == len(ws.tables.read(TRIALS.name)) - before
    assert rows["kind"].unique().to_list() == ["model"]
    assert rows["metric"].unique().to_list() == ["rank_ic"]
    assert rows["subject"].unique().to_list() == ["small"]
    assert (made.complete, made.pruned, made.failed, made.monitor) == (3, 0, 0, "rank_ic")
    listed = pl.read_csv(ws.store.read_bytes(made.table))
    assert listed["trial"].to_list() == [0, 1, 2]
    assert listed["rank_ic"].to_list() == rows["value"].to_list()
    assert listed["value"].max() == made.best_value
    # One epoch of one horizon: what early stopping watches is the trial's rank IC.
    assert listed["value"].to_list() == pytest.approx(rows["value"].to_list(), abs=1e-6)
    standing = {"architecture.hidden_size": 8, "training.learning_rate": 0.001, "training.dates_per_batch": 2}
    assert rows_of(ws, asked(ws))[0].options.items() >= standing.items()
    assert made.first_value == listed["value"][0]

    ref = asked(ws)
    saved = tune.result(ws, ref, "small-tuned")
    assert saved.saved_as == "small-tuned"
    tuned = config.load_model("small-tuned", ws.settings)
    assert tuned.ensemble == 2  # trials had one network each; the config keeps its own
    assert tuned.features == BASE["features"]
    for name, value in made.best_options.items():
        part, _, key = name.partition(".")
        assert getattr(tuned, part)[key] == value
    train.check_model_config(tuned, "small-tuned")


def test_a_trained_trial_scores_as_its_config_does_when_it_is_trained_alone(ws: Workspace) -> None:
    add_model(ws)
    made = searched(ws, trials=2)
    tune.result(ws, asked(ws, trials=2), "alone")
    request = train.prepare(ws, model="alone", test_start=FIRST_UNSEEN, now=NOW)
    registered = train.run(request.request_uri, ws.settings, NOW)
    rank_ic = trials_of(ws)["value"][made.best_trial]
    assert registered.metrics["validation_mean_rank_ic_h1"] == rank_ic


def test_a_pruned_trial_leaves_the_rank_ic_it_had_reached(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from trading_core.training import tune as search

    def report(trial: Any, epoch: int, value: float, last: bool) -> None:
        trial.report(value, epoch)
        if trial.number == 1 and epoch == 2:
            raise search.PrunedError

    monkeypatch.setattr(search, "_report", report)
    add_model(ws, training={"epochs": 4, "batches_per_epoch": 2})
    made = searched(ws)
    assert (made.complete, made.pruned) == (2, 1)
    row = rows_of(ws, asked(ws))[1]
    assert (row.state, row.facts["epochs"]) == ("pruned", 2)
    assert trials_of(ws)["value"][1] == row.facts["rank_ic"] == pytest.approx(row.value)


def test_a_training_that_fails_leaves_a_row_without_a_value(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from trading_core.training import watch

    monkeypatch.setattr(watch, "validation_loss", lambda *_: math.inf)  # bounds and clips keep real ones from it
    add_model(ws)
    ref = asked(ws, trials=2)
    assert tune.run(ref.request_uri, 2, ws.settings, NOW)
    assert {row.state for row in rows_of(ws, ref)} == {"failed"}
    assert trials_of(ws)["value"].is_nan().to_list() == [True, True]
    with pytest.raises(NoDataError, match=r"No trial .* is complete; the last one failed: .*not a finite number"):
        tune.result(ws, ref)


def test_options_that_cannot_be_built_leave_no_row(ws: Workspace) -> None:
    """Five rows of a window of three: such a network never saw the data."""
    add_model(ws, model="mlp", architecture={"lags": 5})
    ref = asked(ws, trials=2)
    assert tune.run(ref.request_uri, 2, ws.settings, NOW)
    rows = rows_of(ws, ref)
    failed = [row for row in rows if row.state == "failed"]
    assert rows[0] in failed  # the config as it stands
    assert all(row.options["architecture.lags"] == 5 and "lags" in row.error for row in failed)
    assert len(trials_of(ws)) == 2 - len(failed)


# --- one study, whoever works on it -----------------------------------------------------------------------------------


def test_the_same_request_goes_on_and_another_one_is_another_study(ws: Workspace) -> None:
    add_model(ws)
    first = searched(ws, trials=2)
    more = searched(ws, trials=3)
    assert more.study == first.study
    assert len(trials_of(ws)) == 3
    assert asked(ws, trials=2).request_uri == asked(ws, trials=3).request_uri
    others = {asked(ws, seed=4).request_hash, asked(ws, test_start=date(2025, 5, 2)).request_hash}
    add_model(ws, encoder_length=4)
    others.add(asked(ws).request_hash)
    assert len(others - {asked(ws, trials=2, seed=3, model=add_model(ws)).request_hash}) == 3


def test_other_data_begin_another_study(ws: Workspace) -> None:
    add_model(ws)
    before = asked(ws)
    scrambled(ws, date(2025, 4, 1))
    assert asked(ws).request_hash != before.request_hash


def search_process(ws: Workspace, ref: TuneRef) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trading_core.cli", "tune", "--request", ref.request_uri, "--trials", "3"]
    variables = {**os.environ, "TRADING_VAR_DIR": str(ws.settings.var_dir), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a dead worker is known by its missing heartbeats only")
def test_after_a_kill_the_search_ends_as_it_would_have(copied: Callable[..., Workspace]) -> None:
    """kill -9 after the first trial, most likely in the second; the same search on another copy is never interrupted."""
    ws, straight = copied("killed"), copied("straight")
    for each in (ws, straight):
        add_model(each)
    ref = asked(ws)
    process = search_process(ws, ref)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("trial 0  complete"):
            process.kill()
    assert process.wait(60) == -signal.SIGKILL, lines
    assert tune.run(ref.request_uri, 3, ws.settings, NOW)
    searched(straight)
    left, right = (
        [(r.state, r.value, r.options, r.facts) for r in rows_of(each, asked(each)) if r.state != "lost"]
        for each in (ws, straight)
    )
    assert left == right
    assert trials_of(ws)["value"].sort().to_list() == trials_of(straight)["value"].sort().to_list()
    assert trials_of(ws)["trial_id"].sort().to_list() == trials_of(straight)["trial_id"].sort().to_list()


def dying(monkeypatch: pytest.MonkeyPatch, living: Callable[..., None]) -> None:
    """The first of the workers dies at once; the others are `living`."""
    started = iter(range(16))

    def work(ref: TuneRef, settings: Any, timeout: float | None) -> None:
        if next(started) == 0:
            raise TrainingFailedError("its process ended with code -9:\nKilled")
        living(ref, settings)

    monkeypatch.setattr(tune, "run_in_process", work)


def test_a_dead_worker_does_not_spoil_a_search_that_others_complete(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_model(ws, **SOLVED)
    dying(monkeypatch, lambda ref, settings: tune.run(ref.request_uri, ref.trials, settings, NOW))
    command = ["tune", "--market", "tiny", "--model", "small", "--trials", "2", "--test-start", "2025-05-01"]
    monkeypatch.setenv("TRADING_VAR_DIR", str(ws.settings.var_dir))
    monkeypatch.setattr(cli, "_now", lambda: NOW)
    monkeypatch.setattr(sys, "argv", ["trading", *command, "--workers", "2"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    assert stopped.value.code == 0, printed.err
    assert re.search(r"worker [12] of 2: its process ended with code -9", printed.out)
    assert re.search(r"complete +2\n", printed.out)


def test_dead_workers_are_an_error_where_trials_are_missing(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    add_model(ws, **SOLVED)
    dying(monkeypatch, lambda ref, settings: tune.run(ref.request_uri, 1, settings, NOW))
    with pytest.raises(TrainingFailedError, match=r"(?s)holds 1 of 2 trials.*worker [12] of 2: .*code -9.*Killed"):
        tune.run_in_processes(ws, asked(ws, trials=2), 2)
    tune.run_in_processes(ws, asked(ws, trials=1), 1)  # it is complete, whoever died before


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_cannot_be_searched_is_refused_with_the_reason(ws: Workspace) -> None:
    add_model(ws, "rate", model="base_rate", architecture={}, training={})
    with pytest.raises(InvalidConfigError, match="'base_rate' has no option to search for"):
        asked(ws, model="rate")
    add_model(ws)
    for trials in (0, 501):
        with pytest.raises(InvalidConfigError, match=f"trials: {trials} is not allowed; give 1 to 500"):
            asked(ws, trials=trials)
    with pytest.raises(NoDataError, match=r"No trial of study .* is complete\. Run `trading tune` for more"):
        tune.result(ws, asked(ws))


def test_a_config_is_never_overwritten(ws: Workspace) -> None:
    folder = ws.settings.var_dir / "configs" / "models"
    tune.save_config(ws.settings, "new", "model: lstm\n")
    tune.save_config(ws.settings, "new", "model: lstm\n")
    for name in ("new", "lstm"):  # the second is the repository's
        with pytest.raises(InvalidConfigError, match="is there and says something else"):
            tune.save_config(ws.settings, name, "model: gru\n")
    with pytest.raises(InvalidConfigError, match="lower-case letters"):
        tune.save_config(ws.settings, "../escape", "model: gru\n")
    assert sorted(path.name for path in folder.iterdir()) == ["new.yaml"]
    assert (folder / "new.yaml").read_text() == "model: lstm\n"


def test_no_rate_lies_below_the_one_a_schedule_ends_at() -> None:
    from trading_core.models.search import Real

    values = {**BASE, "training": {"min_learning_rate": 1e-3}}
    space = tune.search_space(ModelConfig(**values), "small")
    assert space["training.learning_rate"] == Real(1e-3, 3e-2, log=True)


def test_one_network_per_trial_whatever_the_config_says() -> None:
    from trading_core.pipelines.tune_trials import one_network

    values = {**BASE, "ensemble": 5, "scope": "symbol", "static": ["symbol"], "training": {"devices": 2, "epochs": 3}}
    lean = one_network(ModelConfig(**values))
    assert (lean.ensemble, lean.scope, lean.training) == (1, "pooled", {"epochs": 3})


def test_measured_needs_no_torch() -> None:
    code = "import sys, trading_core.training.tune, trading_core.pipelines.tune; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert Measured(1.0).facts == {}
    assert MARKET == "tiny"
