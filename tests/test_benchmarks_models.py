"""What the comparisons of models compute besides models: jobs, splits, tables, and artificial bars of one asset."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from model_samples import SEEDLESS

from benchmarks import btc, zoo
from benchmarks.documents import DOCS, write_between
from benchmarks.zoo import CPU, FULL, Found, Job
from trading_core.models.registry import MODELS

SESSIONS = np.busday_offset("2013-02-08", np.arange(1305), roll="forward").astype("datetime64[D]")


@pytest.fixture(autouse=True)
def _panel_of_the_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(zoo, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(zoo, "data_digest", lambda: "a panel")


def found(rank_ic: float, seconds: float = 10.0, epochs: int = 5) -> Found:
    names = ("rank_ic", "rank_icir", "rank_ic_t", "roc_auc", "pr_auc", "brier", "coverage_90")
    row = {**dict.fromkeys(names, rank_ic), "sessions": 250.0, "rows": 1000.0}
    return Found([{"horizon": 1.0, **row}, {"horizon": 5.0, **row}], seconds, 2.0, epochs, 1, 30, "0.1.0+abc", "one")


# --- the zoo on the real panel ----------------------------------------------------------------------------------------


def test_every_model_is_compared_and_only_those_that_draw_numbers_with_every_seed() -> None:
    assert set(zoo.MODELS) == set(MODELS)
    assert zoo.SEEDLESS == SEEDLESS
    jobs = zoo.jobs_of(CPU, zoo.MODELS)
    assert len(jobs) == len(set(jobs)) == 8 * 2 * 3 + 4 * 2
    assert [(job.fold.name, job.seed) for job in zoo.jobs_of(CPU, ["linear"])] == [("2017", 1), ("2016", 1)]


def test_a_result_is_kept_under_all_that_determines_it(monkeypatch: pytest.MonkeyPatch) -> None:
    job = zoo.jobs_of(CPU, ["lstm"])[0]
    others = [Job(CPU, "gru", job.fold, 1), Job(CPU, "lstm", CPU.folds[1], 1), Job(CPU, "lstm", job.fold, 2)]
    others += [Job(zoo.QUICK, "lstm", job.fold, 1)]
    names = {item.file.name for item in (job, *others)}
    assert len(names) == 5
    assert job.file == zoo.jobs_of(CPU, ["lstm"])[0].file
    monkeypatch.setattr(zoo, "data_digest", lambda: "another panel")
    assert job.file.name not in names
    assert zoo.kept(job) is None


def test_the_test_of_the_full_protocol_is_cut_into_quarters_that_cover_it_once() -> None:
    for fold in FULL.folds:
        job = Job(FULL, "linear", fold, 1)
        parts = list(zoo.splits(job, SESSIONS))
        days = np.concatenate([SESSIONS[part.test] for part in parts])
        assert days.tolist() == [day for day in SESSIONS.tolist() if fold.test <= day <= fold.end]
        assert len(parts) >= 4
        for part in parts:
            assert SESSIONS[part.test[0]] - SESSIONS[part.test[-1]] >= -np.timedelta64(91, "D")
            assert np.datetime64(part.cutoff) < SESSIONS[part.test[0]]


def test_the_cpu_protocol_learns_once_for_each_test() -> None:
    (split,) = zoo.splits(zoo.jobs_of(CPU, ["lstm"])[0], SESSIONS)
    days = SESSIONS.astype(object)
    assert (days[split.validation[0]].year, days[split.test[0]].year) == (2016, 2017)
    assert days[split.train[-1]].year == 2015
    # Horizon 5: six decisions are purged at each border.
    assert split.validation[0] - split.train[-1] == split.test[0] - split.validation[-1] == 7


def test_tables_show_the_mean_and_its_spread_over_seeds() -> None:
    jobs = zoo.jobs_of(CPU, ["lstm", "linear"])
    results = {job: found(0.01 * job.seed if job.model == "lstm" else -0.02) for job in jobs}
    lines = list(zoo.tables(CPU, results))
    assert sum(line.startswith("| model |") for line in lines) == 4  # two folds, two horizons
    rows = [line for line in lines if line.startswith(("| linear", "| lstm"))]
    # 0.01, 0.02, 0.03: mean 0.02, standard deviation 0.01.
    assert rows[0].startswith("| linear | -0.0200 | -0.020 |")
    assert rows[1].startswith("| lstm | 0.0200 ± 0.0100 | 0.020 ± 0.010 |")
    assert "Tested 2017-01-01 to 2018-02-07, 1 session ahead (250 sessions, 1,000 forecasts):" in "\n".join(lines)
    assert zoo.cell([float("nan"), None], 2) == "–"
    assert zoo.cell([float("nan"), 0.5], 2) == "0.50"


def test_the_estimate_counts_all_epochs_of_all_jobs() -> None:
    quick = zoo.jobs_of(zoo.QUICK, ["lstm"])[0]
    # 2 s an epoch, ten epochs, 2 s of test, six jobs: 132 s on one worker.
    assert zoo.estimate({quick: found(0.0)}, CPU, 1).startswith(
        "All of it would take at most 2 minutes with 1 worker(s)"
    )


def test_results_of_other_code_or_of_a_dirty_tree_are_named() -> None:
    one, two, three = zoo.jobs_of(CPU, ["lstm"])[:3]
    # Another commit with the same code of the models is the same code.
    same = {one: found(0.1), two: replace(found(0.2), code="0.1.0+def")}
    assert zoo.unfit(same) == []
    assert zoo.unfit({**same, three: replace(found(0.3), digest="two")}) == [
        "code one: lstm, tested 2017, seed 1; lstm, tested 2017, seed 2",
        "code two: lstm, tested 2017, seed 3",
    ]
    assert zoo.unfit({**same, three: replace(found(0.3), code="0.1.0+abc-dirty")}) == [
        "0.1.0+abc-dirty, changes that were not committed: lstm, tested 2017, seed 3"
    ]


def test_the_document_is_not_written_from_a_dirty_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("<!-- zoo -->\nold\n<!-- /zoo -->\n")
    for name, value in (("DOCS", page), ("ROOT", tmp_path), ("panels.REAL", page)):
        monkeypatch.setattr(f"benchmarks.zoo.{name}", value)
    results = {job: found(0.1) for job in zoo.jobs_of(CPU, zoo.MODELS)}
    monkeypatch.setattr(zoo, "run", lambda *_: results)
    monkeypatch.setattr(sys, "argv", ["zoo"])
    last = next(reversed(results))
    results[last] = replace(found(0.1), code="0.1.0+abc-dirty")
    with pytest.raises(SystemExit, match=f"benchmarks.md is left as it is.*\n.*not committed: {last.label}$"):
        zoo.main()
    assert page.read_text() == "<!-- zoo -->\nold\n<!-- /zoo -->\n"
    results[last] = found(0.1)
    zoo.main()
    assert "| lstm | 0.1000 ± 0.0000 |" in page.read_text()


def test_only_what_stands_between_the_marks_is_written(tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    path.write_text("before\n<!-- zoo -->\nold\n<!-- /zoo -->\nafter <!-- zoo-full -->\n<!-- /zoo-full -->\n")
    for _ in range(2):
        write_between(path, "zoo", ["| a |", "| b |"])
        assert path.read_text() == (
            "before\n<!-- zoo -->\n| a |\n| b |\n<!-- /zoo -->\nafter <!-- zoo-full -->\n<!-- /zoo-full -->\n"
        )
    with pytest.raises(SystemExit, match="needs one line '<!-- other -->'"):
        write_between(path, "other", [])


def test_the_document_has_a_place_for_every_table() -> None:
    text = DOCS.read_text()
    for name in (CPU.name, FULL.name, "attainable"):
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- /{name} -->") == 1


@pytest.mark.panel
def test_a_job_on_the_real_panel_is_computed_and_kept(panel_path: Path) -> None:
    job = zoo.jobs_of(CPU, ["base_rate"])[0]
    made = zoo.compute(job)
    assert zoo.kept(job) == made
    one, five = made.skill
    # 2017-01-03 .. 2018-02-07 are 277 sessions; the labels of the last h + 1 end after the panel.
    assert (one["horizon"], one["sessions"], five["sessions"]) == (1, 275, 271)
    assert one["roc_auc"] == 0.5
    assert 0.85 < one["coverage_90"] < 0.95


# --- bars of one asset ------------------------------------------------------------------------------------------------


def test_artificial_bars_are_seeded_possible_and_leave_out_no_day() -> None:
    made = btc.garch_bars()
    assert made.equals(btc.garch_bars())
    assert not made.equals(btc.garch_bars(seed=8))
    days = made["Date"].to_list()
    assert days == [date(2017, 1, 1) + timedelta(days=i) for i in range(len(days))]
    assert days[-1] == date(2024, 12, 31)
    assert made.filter(pl.col("High") < pl.max_horizontal("Open", "Close")).is_empty()
    assert made.filter(pl.col("Low") > pl.min_horizontal("Open", "Close")).is_empty()
    assert made.select(pl.col("Open", "High", "Low", "Close", "Volume").min()).min_horizontal()[0] > 0


def test_artificial_returns_cluster_have_fat_tails_and_the_momentum_asked_for() -> None:
    days = date(2017, 1, 1), date(2072, 12, 31)  # 20,000 days, so that moments are steady
    for momentum in (0.0, 0.3):
        close = btc.garch_bars(*days, momentum=momentum)["Close"].to_numpy()
        r = np.diff(np.log(close))
        assert np.corrcoef(r[1:], r[:-1])[0, 1] == pytest.approx(momentum, abs=0.05)
        surprise = r[1:] - momentum * r[:-1]
        assert surprise.std() == pytest.approx(btc.VOLATILITY, rel=0.15)
        assert np.mean((surprise / surprise.std()) ** 4) > 4.0  # 3: normal
        size = np.abs(surprise)
        assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.1
