"""A walk-forward through the pipeline: interrupted, taken up again and extended, it is one lived history."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from test_ablation import LINEAR
from test_tuning import add_model
from tiny_market import LAST, MARKET, NOW, copy_of, new_market, rewritten

from trading_core import cli
from trading_core.config import ModelConfig
from trading_core.errors import (
    InvalidConfigError,
    InvalidDateRangeError,
    LookAheadError,
    NoDataError,
    StaleDataError,
    TooShortHistoryError,
    TrainingFailedError,
    UnknownNameError,
    UnreadableFileError,
)
from trading_core.features.build import families, table_name
from trading_core.pipelines import fit, infer, refs, train
from trading_core.pipelines import walk_forward as pipeline
from trading_core.pipelines.models import reusable_version
from trading_core.pipelines.refs import Segment, WalkForwardRef
from trading_core.pipelines.walk_forward import WalkForward, load, stitched, walk_forward
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.storage.tables import Predicate

EVERY = 8
START = date(2025, 3, 1)  # a Saturday: the first block begins on Monday
# The sessions of the New York Stock Exchange from 3 March 2025 on, eight by eight, counted in a calendar by hand.
BLOCKS = [
    (date(2025, 3, 3), date(2025, 3, 12)),
    (date(2025, 3, 13), date(2025, 3, 24)),
    (date(2025, 3, 25), date(2025, 4, 3)),
]
SYMBOLS = 27  # of 30, those that are not delisted by then
HALF_WAY, LATER = date(2025, 3, 18), date(2025, 3, 26)  # inside the second and the third block


def walked(ws: Workspace, end: date | None = LATER, **changes: Any) -> WalkForwardRef:
    given = {"model": "small", "start": START, "every": EVERY, "run_id": "walk", "now": NOW, **changes}
    return walk_forward(ws, end=end, **given)


@dataclass
class Trainings:
    """The trainings that are really done. `allowed`: how many before the next one is killed."""

    allowed: int = 99
    done: int = 0


@pytest.fixture(scope="module")
def trainings() -> Iterator[Trainings]:
    """Counts and kills trainings; their pages, which nobody reads here, are not drawn."""
    counted, real = Trainings(), fit.fit_and_register

    def fit_or_die(*arguments: Any) -> Any:
        if counted.allowed == 0:
            raise TrainingFailedError("it was killed")
        counted.allowed -= 1
        counted.done += 1
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "model_report", lambda report: b"<!doctype html>")
        patch.setattr(fit, "fit_and_register", fit_or_die)
        yield counted


@dataclass(frozen=True)
class Lived:
    """What each of three runs returned: killed in its second training, taken up again, extended."""

    ws: Workspace
    resumed: WalkForwardRef
    extended: WalkForwardRef
    lines: list[str]
    counts: list[int]

    @property
    def walk(self) -> WalkForward:
        return load(self.ws, self.extended.id)


@pytest.fixture(scope="module")
def lived(prepared: Workspace, trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    ws = copy_of(prepared.settings.var_dir, tmp_path_factory.mktemp("lived") / "var")
    add_model(ws, **LINEAR)
    lines: list[str] = []
    counts = []
    trainings.allowed = 1
    with pytest.raises(TrainingFailedError, match="killed"):
        walked(ws, HALF_WAY)
    counts.append(trainings.done)
    trainings.allowed = 99
    resumed = walked(ws, HALF_WAY)
    counts.append(trainings.done)
    rewritten(ws, "bars", lambda frame: frame, LAST)  # a backfill between them: the table has another version
    extended = walked(ws, progress=lines.append)
    counts.append(trainings.done)
    return Lived(ws, resumed, extended, lines, counts)


@pytest.fixture
def copied_walk(lived: Lived, tmp_path: Path) -> Workspace:
    """A copy of the walk that may be changed."""
    return copy_of(lived.ws.settings.var_dir, tmp_path / "var")


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_each_block_is_forecast_by_a_version_that_was_trained_before_it(lived: Lived) -> None:
    spans = [(segment.first_decision, segment.last_decision) for segment in lived.walk.segments]
    assert spans == [*BLOCKS[:2], (BLOCKS[2][0], LATER)]
    for segment in lived.walk.segments:
        version = lived.ws.registry().version(MARKET, segment.version)
        assert (version.digest, version.cutoff) == (segment.digest, segment.cutoff)
        # The last session before the block, by the purge of the longest horizon; no embargo in this config.
        assert segment.cutoff == lived.ws.sessions.previous(segment.first_decision)
        card = lived.ws.store.read_json(f"{version.bundle_uri}/config.json")
        assert date.fromisoformat(card["validation_end"]) < lived.ws.sessions.offset(segment.first_decision, -5)
    assert [segment.version for segment in lived.walk.segments] == [2, 3, 4]


def test_an_interrupted_walk_goes_on_where_it_stopped(lived: Lived) -> None:
    assert lived.counts == [1, 2, 3]  # trainings after the kill, the second run and the third
    assert (lived.resumed.trained, len(lived.resumed.segments), lived.resumed.end) == (1, 2, HALF_WAY)
    assert (lived.extended.trained, len(lived.extended.segments), lived.extended.end) == (1, 3, LATER)
    assert lived.resumed.id == lived.extended.id
    assert lived.extended.segments[0] == lived.resumed.segments[0]
    assert replace(lived.extended.segments[1], last_decision=HALF_WAY) == lived.resumed.segments[1]
    assert [re.findall(r"block \d of \d|taken|trained|\d+ new", line) for line in lived.lines] == [
        ["block 1 of 3", "taken", "0 new"],
        ["block 2 of 3", "taken", "216 new"],  # 4 sessions, 27 symbols, two horizons
        ["block 3 of 3", "trained", "108 new"],
    ]


def test_an_earlier_end_takes_nothing_away(lived: Lived, trainings: Trainings) -> None:
    done = trainings.done
    again = walked(lived.ws, BLOCKS[0][0])
    assert again == replace(lived.extended, trained=0, added=0)
    assert trainings.done == done
    assert refs.load(WalkForwardRef, json.loads(json.dumps(refs.dump(again)))) == again


def test_what_trades_is_not_touched_and_what_is_replayed_is_that_days_version(lived: Lived) -> None:
    registry = lived.ws.registry()
    assert {version.version: version.aliases for version in registry.list(MARKET)} == {
        1: ("challenger", "champion"), 2: (), 3: (), 4: (),
    }  # fmt: skip
    assert registry.resolve(MARKET, BLOCKS[1][0]).version == 3
    assert registry.resolve(MARKET, LATER).version == 4


def test_an_ordinary_training_of_the_same_config_is_one_of_its_own(lived: Lived) -> None:
    """It shall be a challenger, so it is not given the version without an alias."""
    asked = {"model": "small", "test_start": BLOCKS[2][0], "now": NOW}
    hashes = [train.prepare(lived.ws, **asked, candidate=candidate).request_hash for candidate in (False, True)]
    found = [lived.ws.registry().find(MARKET, train.REQUEST_TAG, request) for request in hashes]
    assert (found[0] and found[0].version, found[1]) == (4, None)
    assert reusable_version(lived.ws, "small", NOW) is None  # nor is it what `make run` goes on with


# --- forecasts --------------------------------------------------------------------------------------------------------


def test_stitched_rows_are_those_of_each_sessions_own_version(lived: Lived) -> None:
    first, second, third = lived.walk.segments
    # Version 1 and the first block's have forecasts of the same sessions, too.
    infer.infer(lived.ws, version=str(first.version), start=BLOCKS[1][0], end=LATER, run_id="x", now=NOW)
    infer.infer(lived.ws, version="1", start=LATER, end=LATER, run_id="x", now=NOW)
    rows = stitched(lived.ws, lived.walk)
    keys = ["session", "symbol", "horizon"]
    assert rows.select(keys).is_duplicated().sum() == 0
    assert rows.select(keys).equals(rows.select(keys).sort(keys))
    spoken = {
        day: version
        for segment in (first, second, third)
        for day in lived.ws.sessions.between(segment.first_decision, segment.last_decision)
        for version in [str(segment.version)]
    }
    assert dict(rows.select("session", "model_version").unique().iter_rows()) == spoken
    assert len(rows) == 18 * SYMBOLS * 2  # horizons
    stored = lived.ws.tables.read("forecasts").filter(pl.col("model_version") == str(second.version)).sort(keys)
    part = stitched(lived.ws, lived.walk, *BLOCKS[1])
    assert part.equals(stored.select(part.columns))
    assert stitched(lived.ws, lived.walk, HALF_WAY, HALF_WAY)["session"].unique().to_list() == [HALF_WAY]
    with pytest.raises(NoDataError, match=r"no segment from 2025-03-27.*reaches from 2025-03-03 to 2025-03-26"):
        stitched(lived.ws, lived.walk, date(2025, 3, 27))


def other_numbers(frame: pl.DataFrame) -> pl.DataFrame:
    """Every number times one of its own."""
    draw = np.random.default_rng(5).uniform
    numbers = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    return frame.with_columns((pl.col(n) * draw(0.3, 3.0, len(frame))).cast(frame.schema[n]).alias(n) for n in numbers)


def test_what_comes_after_a_session_changes_no_bit_of_its_forecasts(
    lived: Lived, prepared: Workspace, trainings: Trainings, tmp_path: Path
) -> None:
    """One run at once, of a market whose numbers are others from the middle of the block on."""
    ws = copy_of(prepared.settings.var_dir, tmp_path / "var")
    add_model(ws, **LINEAR)
    for name in ("bars", *(table_name(family) for family in families(LINEAR["features"]))):
        rewritten(ws, name, other_numbers, HALF_WAY)
    start, end = BLOCKS[1]
    other = stitched(ws, load(ws, walked(ws, end, start=start).id), start, end)
    true = stitched(lived.ws, lived.walk, start, end)
    assert true["session"].n_unique() == EVERY
    named = ["model_version", "features_version", "run_id"]
    before = [frame.filter(pl.col("session") < HALF_WAY).drop(named) for frame in (true, other)]
    assert before[0].equals(before[1])
    after = [frame.filter(pl.col("session") >= HALF_WAY)["score"] for frame in (true, other)]
    assert not after[0].equals(after[1])


def test_a_version_whose_forecasts_are_gone_is_named(copied_walk: Workspace, lived: Lived) -> None:
    walk = lived.walk
    copied_walk.tables.replace("forecasts", pl.DataFrame(), Predicate(None, None, {"model_version": "3"}))
    with pytest.raises(NoDataError, match=r"Version 3 .* from 2025-03-13 to 2025-03-24.*stores what is missing"):
        stitched(copied_walk, walk)
    assert len(stitched(copied_walk, walk, *BLOCKS[0])) > 0
    assert walked(copied_walk).added == EVERY * SYMBOLS * 2  # by the version there is
    assert stitched(copied_walk, walk)["session"].n_unique() == 18


# --- what is taken again ----------------------------------------------------------------------------------------------


def test_a_run_that_lost_its_last_line_finds_its_version_from_another_process(
    copied_walk: Workspace, lived: Lived, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the registration and the record; Airflow's tasks train in a process of their own."""
    walk = lived.walk
    path = f"{MARKET}/walk-forward/{walk.id}.json"
    copied_walk.store.write_json(path, refs.dump(replace(walk, segments=walk.segments[:-1])))
    asked = []

    def in_process(ref: Any, settings: Any) -> None:
        asked.append(ref.request_hash)
        train.run(ref.request_uri, settings, NOW)

    monkeypatch.setattr(train, "run_in_process", in_process)
    done = trainings.done
    again = walked(copied_walk, own_process=True)
    assert (len(asked), trainings.done, again.trained) == (1, done, 0)
    assert load(copied_walk, walk.id) == walk


@pytest.mark.thorough
def test_a_lost_bundle_is_trained_again_only_where_it_is_needed(
    copied_walk: Workspace, lived: Lived, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = lived.walk
    for segment in walk.segments:
        copied_walk.store.delete(copied_walk.registry().version(MARKET, segment.version).bundle_uri)
    assert walked(copied_walk).trained == 0  # all is forecast
    monkeypatch.setattr(trainings, "allowed", 0)
    with pytest.raises(TrainingFailedError):
        walked(copied_walk, BLOCKS[2][1])
    assert load(copied_walk, walk.id) == walk


def test_what_makes_it_another_walk(lived: Lived) -> None:
    model = ModelConfig(**LINEAR)
    market = lived.ws.market
    dearer = market.model_copy(update={"costs": market.costs.model_copy(update={"commission_bps": 9.0})})
    day = BLOCKS[0][0]
    made = [
        pipeline._new(lived.ws, "small", model, day, 8),
        pipeline._new(lived.ws, "small", model, day, 9),
        pipeline._new(lived.ws, "small", model, BLOCKS[1][0], 8),
        pipeline._new(lived.ws, "other", model, day, 8),
        pipeline._new(lived.ws, "small", model.model_copy(update={"seed": 8}), day, 8),
        pipeline._new(lived.ws, "small", train.with_overrides(model, None, 3, None), day, 8),
        pipeline._new(open_workspace(dearer, lived.ws.settings), "small", model, day, 8),
    ]
    assert len({walk.id for walk in made}) == len(made)


# --- what is refused --------------------------------------------------------------------------------------------------

SEARCHED = ModelConfig(**{**LINEAR, "selected_until": BLOCKS[0][0]})


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"every": 4}, InvalidConfigError, "every: 4 is not allowed; give at least 5 sessions"),
        ({"model": "liner"}, UnknownNameError, "Did you mean 'linear'"),
        ({"start": date(2024, 7, 8)}, TooShortHistoryError, "from 2024-07-08.*later start.*has 4"),
        ({"start": date(2020, 1, 1)}, TooShortHistoryError, "from 2020-01-02.*later start.*has 0"),
        ({"end": date(2025, 2, 28)}, InvalidDateRangeError, "the start lies after the end"),
        ({"end": date(2025, 6, 16)}, StaleDataError, "features of session 2025-06-16, but they end at 2025-06-13"),
        ({"start": date(2025, 7, 1)}, StaleDataError, "features of session 2025-07-01"),
        ({"given": SEARCHED}, InvalidConfigError, "chosen by labels up to 2025-03-03; start later"),
        ({"seed": -1, "given": ModelConfig(**{**LINEAR, "model": "linaer"})}, UnknownNameError, "'linear'"),
    ],
)
def test_what_cannot_be_walked_is_refused_before_anything_is_trained(
    prepared: Workspace, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=rf"(?s){text}"):
        walked(prepared, **{"model": "linear", "end": None, **changes})
    assert prepared.store.list(f"{MARKET}/walk-forward") == []


def segment(version: int, cutoff: int, first: int, last: int) -> Segment:
    return Segment(version, "d" * 64, date(2025, 3, cutoff), date(2025, 3, first), date(2025, 3, last))


@pytest.mark.parametrize(
    ("segments", "error", "text"),
    [
        ([segment(2, 3, 4, 6), segment(3, 10, 10, 14)], LookAheadError, "version 3 .* may not forecast .*2025-03-10"),
        ([segment(2, 3, 4, 6), segment(3, 4, 6, 10)], InvalidConfigError, "segments: their sessions overlap"),
        ([{"version": 2}], UnreadableFileError, "as a walk-forward"),
    ],
)
def test_a_record_that_looks_ahead_is_not_read(
    tmp_path: Path, segments: list[Any], error: type[Exception], text: str
) -> None:
    ws = new_market(tmp_path)
    with pytest.raises(NoDataError, match="no walk-forward yet"):
        load(ws, "abc")
    rows = [part if isinstance(part, dict) else refs.dump(part) for part in segments]
    values = {"id": "abc", "market": MARKET, "model": "m", "config_hash": "c", "seed": 1, "every": 5, "segments": rows}
    ws.store.write_json(f"{MARKET}/walk-forward/abc.json", values)
    with pytest.raises(error, match=text):
        load(ws, "abc")
    with pytest.raises(UnknownNameError, match="Did you mean 'abc'"):
        load(ws, "abd")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(lived: Lived, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRADING_VAR_DIR", str(lived.ws.settings.var_dir))
    monkeypatch.setattr(cli, "_now", lambda: NOW)
    asked = ["--market", MARKET, "--model", "small", "--start", "2025-03-03", "--end", "2025-03-26", "--every", "8"]
    monkeypatch.setattr(sys, "argv", ["trading", "walk-forward", *asked, "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    assert stopped.value.code == 0, printed.err
    assert json.loads(printed.out) == refs.dump(replace(lived.extended, trained=0, added=0))
    assert len(re.findall(r"^block \d of 3 .* taken", printed.err, re.MULTILINE)) == 3
