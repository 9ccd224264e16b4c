"""The search itself, with trainings that are formulas: proposals, pruning, counting, and workers that die."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trading_core.errors import InvalidConfigError, TrainingFailedError
from trading_core.models.registry import MODELS
from trading_core.models.search import Choice, Real, SearchSpace, Value, Whole
from trading_core.training import tune, workers
from trading_core.training.tune import Measured, Pruner, Report, Study, StudySpec, contains, distributions, open_study

SPACE: SearchSpace = {"a.x": Real(1e-3, 1.0, log=True), "a.n": Whole(1, 8), "b.word": Choice(("low", None, True))}


def spec(name: str = "s", seed: int = 1, pruner: Pruner = "none", space: SearchSpace = SPACE) -> StudySpec:
    return StudySpec(name, distributions(space), seed, pruner)


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'deep' / 'tuning.sqlite'}"


def opened(folder: Path, **changes: Any) -> Study:
    return open_study(url(folder), spec(**changes))


def value_of(options: dict[str, Value]) -> float:
    """Highest at x = 0.1, many n, and the word None."""
    x, n = options["a.x"], options["a.n"]
    assert isinstance(x, float)
    assert isinstance(n, int)
    return -abs(math.log10(x) + 1.0) + 0.05 * n + (0.1 if options["b.word"] is None else 0.0)


def measured(number: int, options: dict[str, Value], report: Report) -> Measured:
    return Measured(value_of(options), facts={"rank_ic": 0.5})


def told(study: Study) -> list[tuple[Any, ...]]:
    """What a search came to, whatever became of workers on the way: by trial that counts."""
    return [(r.state, r.value, r.options, r.facts) for r in study.rows() if r.state != "lost"]


# --- ranges -----------------------------------------------------------------------------------------------------------


def test_ranges_become_the_distributions_of_optuna() -> None:
    found = {name: json.loads(text) for name, text in distributions(SPACE).items()}
    assert found["a.x"] == {
        "name": "FloatDistribution",
        "attributes": {"low": 0.001, "high": 1.0, "log": True, "step": None},
    }
    assert found["a.n"]["attributes"] == {"low": 1, "high": 8, "log": False, "step": 1}
    assert found["b.word"]["attributes"] == {"choices": ["low", None, True]}


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.search])
def test_every_model_can_be_searched(name: str, tmp_path: Path) -> None:
    space = {**MODELS[name].search, **tune.TRAINING_SEARCH}
    study = opened(tmp_path, space=space)
    assert study.run(2, lambda number, options, report: Measured(float(number)))
    assert all(contains(space, row.options) for row in study.rows())
    for row in study.rows():
        MODELS[name].config(**{key: value for key, value in row.options.items() if key in MODELS[name].search})


def test_what_lies_within_the_ranges() -> None:
    inside: dict[str, Value] = {"a.x": 0.5, "a.n": 8, "b.word": None}
    assert contains(SPACE, inside)
    for change in ({"a.x": 2.0}, {"a.n": 9}, {"a.n": 2.5}, {"a.n": True}, {"b.word": 1}, {"b.word": "high"}, {"c": 1}):
        assert not contains(SPACE, inside | change), change


# --- proposals --------------------------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_trials_and_another_one_others(tmp_path: Path) -> None:
    found = []
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        study = opened(tmp_path / name, seed=seed)
        study.run(14, measured)  # past the ten that are drawn at random
        found.append(told(study))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert len({str(options) for _, _, options, _ in found[0]}) == 14


def test_a_search_in_pieces_goes_the_way_of_one_in_a_run(tmp_path: Path) -> None:
    """Each piece opens the study anew, as another process would: it must not begin its random numbers again."""
    whole = opened(tmp_path / "whole")
    whole.run(13, measured)
    for trials in (1, 4, 5, 12, 13):
        opened(tmp_path / "pieces").run(trials, measured)
    assert told(opened(tmp_path / "pieces")) == told(whole)


def test_the_search_finds_what_is_better_than_chance(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.run(40, measured)
    values = [row.value for row in study.rows()]
    assert sum(values[25:]) / 15 > sum(values[:10]) / 10 + 0.2
    best = study.best()
    assert best is not None
    assert best.value == max(values)
    assert best.options["b.word"] is None


def test_the_first_trial_is_what_it_is_told_to_begin_with(tmp_path: Path) -> None:
    standing: dict[str, Value] = {"a.x": 0.25, "a.n": 3, "b.word": "low"}
    for _ in range(2):  # a study that has trials keeps them
        study = opened(tmp_path)
        study.begin_with(standing)
        study.run(2, measured)
    assert [row.number for row in study.rows()] == [0, 1]
    assert study.rows()[0].options == standing
    assert study.rows()[1].options != standing


# --- ends of a trial --------------------------------------------------------------------------------------------------


def test_a_trial_far_below_the_others_is_pruned_and_what_it_reached_is_kept(tmp_path: Path) -> None:
    def train(number: int, options: dict[str, Value], report: Report) -> Measured:
        level = -1.0 if number == 4 else 1.0
        for epoch in range(1, 6):
            try:
                report(epoch, level + 0.1 * (epoch == 1), epoch == 5)
            except tune.PrunedError:
                return Measured(level, pruned=True, facts={"epochs": epoch})
        return Measured(level)

    study = opened(tmp_path, pruner="median")
    study.run(6, train)
    assert [row.state for row in study.rows()] == ["complete"] * 4 + ["pruned", "complete"]
    assert study.rows()[4].facts == {"epochs": 2}
    assert study.rows()[4].value == -0.9  # its best epoch's


def test_the_last_epoch_is_never_pruned_and_an_undefined_value_is_no_reason(tmp_path: Path) -> None:
    def train(number: int, options: dict[str, Value], report: Report) -> Measured:
        for epoch in (1, 2, 3):
            report(epoch, math.nan if number == 4 else float(-number), epoch == 3)
        report(4, -100.0, True)
        return Measured(float(-number))

    study = opened(tmp_path, pruner="median")
    study.run(5, train)
    assert [row.state for row in study.rows()] == ["complete"] * 5


def test_options_that_fail_count_with_their_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    def train(number: int, options: dict[str, Value], report: Report) -> Measured:
        if number == 0:
            raise TrainingFailedError("the loss of epoch 1 is not a finite number")
        if number == 1:
            raise InvalidConfigError("The architecture", ["lags: 5 rows of 1"])
        return Measured(math.nan if number == 2 else 1.0)

    study = opened(tmp_path)
    assert study.run(4, train)
    rows = study.rows()
    assert [row.state for row in rows] == ["failed", "failed", "failed", "complete"]
    assert "not a finite number" in rows[0].error
    assert "lags: 5 rows of 1" in rows[1].error
    assert "not defined" in rows[2].error


def test_no_trial_is_begun_when_the_time_is_up(tmp_path: Path) -> None:
    study = opened(tmp_path)
    assert not study.run(3, measured, timeout=-1.0)
    assert study.rows() == []


# --- workers that die -------------------------------------------------------------------------------------------------


def _interrupted() -> TrainingFailedError:
    try:
        raise TrainingFailedError("interrupted from the keyboard") from KeyboardInterrupt()
    except TrainingFailedError as error:
        return error


@pytest.mark.parametrize("error", [RuntimeError("disk full"), KeyboardInterrupt(), _interrupted()], ids=repr)
def test_a_trial_that_was_interrupted_is_tried_again_with_its_options(tmp_path: Path, error: BaseException) -> None:
    def train(number: int, options: dict[str, Value], report: Report) -> Measured:
        if number == 2:
            raise error
        return measured(number, options, report)

    with pytest.raises(type(error)):
        opened(tmp_path / "cut").run(4, train)
    study = opened(tmp_path / "cut")
    study.run(4, measured)
    straight = opened(tmp_path / "straight")
    straight.run(4, measured)
    assert [row.state for row in study.rows()] == ["complete", "complete", "lost", "complete", "complete"]
    assert study.rows()[2].options == study.rows()[3].options
    assert told(study) == told(straight)


@pytest.mark.thorough
def test_a_trial_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    begun = []

    def train(number: int, options: dict[str, Value], report: Report) -> Measured:
        begun.append(options)
        if options == begun[0]:
            raise RuntimeError
        return measured(number, options, report)

    for _ in range(tune.MAX_ATTEMPTS):
        with pytest.raises(RuntimeError):
            opened(tmp_path).run(2, train)
    study = opened(tmp_path)
    assert study.run(2, train)
    assert [row.state for row in study.rows()] == ["lost"] * tune.MAX_ATTEMPTS + ["complete"] * 2


WORKER = """
import sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}]
from training.test_tune import measured, opened
def train(number, options, report):
    if number == int(sys.argv[2]):
        print("begun", flush=True)
        time.sleep(600)
    return measured(number, options, report)
opened(Path(sys.argv[1])).run(int(sys.argv[3]), train)
"""


def start_worker(folder: Path, hangs_at: int, trials: int) -> subprocess.Popen[str]:
    program = WORKER.format(tests=str(Path(__file__).resolve().parents[1]))
    command = [sys.executable, "-c", program, str(folder), str(hangs_at), str(trials)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed_at(folder: Path, number: int, trials: int) -> None:
    process = start_worker(folder, number, trials)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "begun\n":
            process.kill()
    assert process.wait(60) == -signal.SIGKILL


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a dead worker is known by its missing heartbeats only")
def test_after_a_kill_the_search_goes_the_way_it_would_have_gone(tmp_path: Path) -> None:
    killed_at(tmp_path / "killed", 11, 13)
    study = opened(tmp_path / "killed")
    assert [row.state for row in study.rows()] == ["complete"] * 11 + ["running"]
    assert study.run(13, measured)
    straight = opened(tmp_path / "straight")
    straight.run(13, measured)
    assert [row.state for row in study.rows()][10:] == ["complete", "lost", "complete", "complete"]
    assert study.rows()[12].options == study.rows()[11].options
    assert told(study) == told(straight)


@pytest.mark.thorough
def test_a_worker_of_another_machine_is_known_by_its_heartbeats(tmp_path: Path) -> None:
    killed_at(tmp_path, 1, 2)
    with sqlite3.connect(tmp_path / "deep" / "tuning.sqlite") as database:
        database.execute("UPDATE trial_user_attributes SET value_json = '\"elsewhere pid 7 8\"' WHERE key = 'worker'")
    study = opened(tmp_path)
    study._reclaim()
    assert [row.state for row in study.rows()] == ["complete", "running"]  # it may well be alive
    with sqlite3.connect(tmp_path / "deep" / "tuning.sqlite") as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-61 seconds')")
    assert opened(tmp_path).run(2, measured)
    assert [row.state for row in study.rows()] == ["complete", "lost", "complete"]


@pytest.mark.thorough
def test_a_worker_that_died_before_it_could_say_who_it_is(tmp_path: Path) -> None:
    killed_at(tmp_path, 1, 2)
    with sqlite3.connect(tmp_path / "deep" / "tuning.sqlite") as database:
        database.execute("DELETE FROM trial_user_attributes WHERE key = 'worker'")
        database.execute("DELETE FROM trial_heartbeats")
    study = opened(tmp_path)
    study._reclaim()
    with sqlite3.connect(tmp_path / "deep" / "tuning.sqlite") as database:
        assert database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-61 seconds')").rowcount == 1
    assert study.run(2, measured)
    assert [row.state for row in study.rows()] == ["complete", "lost", "complete"]


@pytest.mark.thorough
def test_several_workers_make_exactly_as_many_trials_as_asked_for(tmp_path: Path) -> None:
    opened(tmp_path)
    processes = [start_worker(tmp_path, -1, 12) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    rows = [row for row in opened(tmp_path).rows() if row.state != "lost"]
    assert [row.state for row in rows] == ["complete"] * 12
    assert all(row.value == value_of(row.options) for row in rows)


def test_a_worker_is_told_apart_from_others() -> None:
    own = workers.this_worker()
    assert not workers.has_ended(own)
    assert not workers.has_ended("another-machine pid 1 1")
    assert not workers.has_ended("")
    process = subprocess.Popen(["sleep", "600"])
    boot, space, _, _ = own.split(" ")
    started = workers._started(process.pid)
    name = f"{boot} {space} {process.pid} {started}"
    assert not workers.has_ended(name)
    assert workers.has_ended(f"{boot} {space} {process.pid} {int(started) - 1}")  # another process had the number
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert workers.has_ended(name)  # a zombie still
    process.wait()
    assert workers.has_ended(name)


# --- storage ----------------------------------------------------------------------------------------------------------


def test_the_database_holds_text_and_numbers_only(tmp_path: Path) -> None:
    """Nothing that could be a pickle: no binary value, and every text that is read back as a value is JSON."""
    opened(tmp_path, pruner="halving").run(3, measured)
    with sqlite3.connect(tmp_path / "deep" / "tuning.sqlite") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        texts = 0
        for table in tables:
            found = database.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in found.description]
            for row in found:
                assert not any(isinstance(value, bytes) for value in row)
                for name, value in zip(names, row, strict=True):
                    if name.endswith("_json"):
                        json.loads(value)
                        texts += 1
    assert texts >= 3 * (len(SPACE) + 2)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("no-such-database", "cannot be opened: Could not parse"),
        ("sqlite:////proc/nothing/tuning.sqlite", "cannot be opened"),
        ("nodb://host/x", "cannot be opened"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named(wrong: str, reason: str) -> None:
    with pytest.raises(InvalidConfigError, match=reason) as caught:
        open_study(wrong, spec())
    assert caught.value.where == "TRADING_TUNING_URL"
