"""A cross-validation through the pipeline: its paths by hand, its labels apart.

That it is blind to the test sessions is shown beside the ablation, in test_ablation.py.
"""

from __future__ import annotations

import json
import math
import sys
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from test_ablation import FIRST_UNSEEN, LINEAR
from test_tuning import add_model
from tiny_market import NOW

from trading_core import cli
from trading_core.errors import InvalidConfigError, TooShortHistoryError, UnknownNameError
from trading_core.pipelines import cross_validate as pipeline
from trading_core.pipelines.cross_validate import CrossValidation, FoldPlan, cross_validate
from trading_core.pipelines.held_out import HeldOut
from trading_core.pipelines.workspace import Workspace


def run(ws: Workspace, now: Any = NOW, **plan: Any) -> CrossValidation:
    return cross_validate(ws, model="small", plan=FoldPlan(**plan), test_start=FIRST_UNSEEN, now=now)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, HeldOut]]:
    """What was prepared for every training that is really done, and its forecasts."""
    seen: list[tuple[Any, HeldOut]] = []
    real = pipeline.out_of_fold

    def judge(prepared: Any, fitted: Any) -> HeldOut:
        seen.append((prepared, real(prepared, fitted)))
        return seen[-1][1]

    monkeypatch.setattr(pipeline, "out_of_fold", judge)
    return seen


def daily(found: HeldOut, h: int) -> dict[int, float]:
    """Decision column -> Spearman's correlation over its symbols, by scipy."""
    values = {}
    for column in np.unique(found.windows.columns).tolist():
        at = (found.windows.columns == column) & np.isfinite(found.returns[:, h])
        values[column] = float(spearmanr(found.score[at, h], found.returns[at, h])[0])
    return values


def test_four_groups_tested_in_pairs_give_six_trainings_and_three_paths(
    ws: Workspace, judged: list[tuple[Any, HeldOut]]
) -> None:
    add_model(ws, **LINEAR)
    made = run(ws, scheme="combinatorial", folds=4, tested=2, embargo=3)
    assert (made.folds, made.paths, made.purge, made.embargo, made.horizon) == (6, 3, 6, 3, 1)
    folds = [part for part in made.parts if part.part.startswith("fold") and part.horizon == 1]
    assert [part.tested for part in folds] == ["1, 2", "1, 3", "1, 4", "2, 3", "2, 4", "3, 4"]
    assert [part.trained for part in folds] == [len(np.unique(prepared.train.columns)) for prepared, _ in judged]
    by_fold = [daily(found, 0) for _, found in judged]
    means = [float(np.mean(list(values.values()))) for values in by_fold]
    assert [part.rank_ic for part in folds] == pytest.approx(means, abs=1e-12)
    # Group g of path j is forecast by the j-th fold that tests g; folds counted from 0 in the order above.
    paths = []
    groups = np.array_split(np.arange(max(map(max, by_fold)) + 1), 4)
    for speakers in ([0, 0, 1, 2], [1, 3, 3, 4], [2, 4, 5, 5]):
        pieces = [by_fold[f][t] for f, group in zip(speakers, groups, strict=True) for t in group if t in by_fold[f]]
        paths.append(float(np.mean(pieces)))
    found = [part.rank_ic for part in made.parts if part.part.startswith("path") and part.horizon == 1]
    assert found == pytest.approx(paths, abs=1e-12)
    assert len(set(found)) == 3
    assert made.rank_ic == pytest.approx(sum(paths) / 3)
    assert made.path_spread == pytest.approx(np.std(paths, ddof=1))
    assert made.fold_spread == pytest.approx(np.std(means, ddof=1))


@pytest.mark.parametrize("plan", [{"scheme": "combinatorial", "folds": 4}, {"folds": 3}])
def test_no_label_that_was_learned_from_overlaps_a_tested_one(
    ws: Workspace, judged: list[tuple[Any, HeldOut]], plan: dict[str, Any]
) -> None:
    """The label of decision t spans the opens t + 1 .. t + 1 + h, with h = 5 the longest horizon."""
    add_model(ws, **LINEAR)
    run(ws, embargo=2, **plan)
    for prepared, found in judged:
        tested = np.unique(found.windows.columns)
        for part in (prepared.train, prepared.validation):
            learned = np.unique(part.columns)
            distance = learned[:, None] - tested[None, :]
            assert not (np.abs(distance) <= 5).any()
            assert not ((distance > 0) & (distance <= 5 + 1 + 2)).any()  # purge and embargo after a test
    assert any(prepared.train.columns.max() > found.windows.columns.max() for prepared, found in judged)


@pytest.mark.parametrize(
    ("plan", "trained", "tested"),
    [
        # 20 sessions per block before 1 May; h = 5: 6 sessions are purged twice, a tenth of the rest validates.
        ({"scheme": "expanding", "folds": 2, "fold_sessions": 20}, None, (20, 14)),
        ({"scheme": "rolling", "folds": 2, "fold_sessions": 20, "train_sessions": 100}, 100 - 10 - 6, (20, 14)),
    ],
)
def test_walk_forward_blocks_end_before_the_test(
    ws: Workspace, plan: dict[str, Any], trained: int | None, tested: tuple[int, int]
) -> None:
    add_model(ws, **LINEAR)
    made = run(ws, **plan)
    assert (made.folds, made.paths, math.isnan(made.path_spread)) == (2, 1, True)
    assert made.start == ws.sessions.offset(FIRST_UNSEEN, -40)
    assert made.end == ws.sessions.previous(FIRST_UNSEEN)
    folds = [part for part in made.parts if part.part.startswith("fold") and part.horizon == 5]
    assert tuple(part.sessions for part in folds) == tested  # the last labels are not known before the test
    counts = [part.trained for part in folds]
    assert counts == [trained, trained] if trained else counts[1] > counts[0]  # type: ignore[operator]
    with pytest.raises(TooShortHistoryError, match="2 folds of 900"):
        run(ws, **{**plan, "fold_sessions": 900})


def test_the_figures_are_stored_once(ws: Workspace) -> None:
    add_model(ws, **LINEAR, split={"embargo": 4})
    made = run(ws, folds=2)
    assert made.embargo == 4  # the config's
    again = run(ws, folds=2, now=NOW + timedelta(days=40))
    assert again.parts == made.parts
    assert ws.store.read_json(made.table)["parts"][0]["rank_ic"] == made.parts[0].rank_ic
    rows = ws.tables.read("evaluations")
    stored = {(row["subject"], row["metric"]): row["value"] for row in rows.iter_rows(named=True)}
    assert len(stored) == len(rows)
    for part in made.parts:
        assert stored[f"{part.part} h{part.horizon}", "rank_ic"] == part.rank_ic
    assert stored["fold 2 h5", "brier"] == made.parts[3].brier
    trials = [row for row in ws.tables.read("trials").iter_rows(named=True) if row["subject"] == "small"]
    assert [(row["metric"], row["value"], row["end"]) for row in trials] == [("rank_ic", made.rank_ic, made.end)]


@pytest.mark.parametrize(
    ("plan", "error", "reason"),
    [
        ({"scheme": "leave_one_out"}, UnknownNameError, "leave_one_out.*combinatorial"),
        ({"folds": 1}, InvalidConfigError, "folds: 1 is not allowed"),
        ({"scheme": "combinatorial", "folds": 20, "tested": 10}, InvalidConfigError, "184756 trainings"),
        ({"scheme": "rolling"}, InvalidConfigError, "train_sessions: the scheme 'rolling' needs it"),
        ({"train_sessions": 9}, InvalidConfigError, "no other one has it"),
    ],
)
def test_what_cannot_be_cut_is_refused(plan: dict[str, Any], error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=rf"(?s){reason}"):
        FoldPlan(**plan)


def test_the_command(ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    add_model(ws, **LINEAR)
    monkeypatch.setenv("TRADING_VAR_DIR", str(ws.settings.var_dir))
    monkeypatch.setattr(cli, "_now", lambda: NOW)
    asked = ["cross-validate", "--market", "tiny", "--model", "small", "--folds", "2", "--test-start", "2025-05-01"]
    monkeypatch.setattr(sys, "argv", ["trading", *asked, "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    assert stopped.value.code == 0, printed.err
    made = json.loads(printed.out)
    assert (made["scheme"], made["folds"], made["path_spread"]) == ("purged_k_fold", 2, None)
    assert [part["part"] for part in made["parts"]] == ["fold 1", "fold 1", "fold 2", "fold 2", "path 1", "path 1"]
    assert made["parts"][4]["rank_ic"] == made["rank_ic"]
