"""What the benchmark of the backtest computes besides time: that trades are the same, that turns are taken, the ratios."""

from __future__ import annotations

import sys
from typing import Any, cast

import pytest

from benchmarks.backtest import check_same
from benchmarks.backtest_ours import variants
from benchmarks.turns import Timed, Worker, in_turns
from trading_core.backtest.data import ForecastPanel

OURS = {"trades": [10, 20], "ends": [1000.0, 2e6], "capital": 1e6}


def test_a_peer_with_other_trades_or_another_end_is_refused() -> None:
    assert check_same(OURS, {"trades": [10, 20], "ends": [1000.5, 2e6]}, "numba") == pytest.approx(5e-7)
    for other in ({"trades": [10, 19], "ends": [1000.0, 2e6]}, {"trades": [10, 20], "ends": [1000.0, 2e6 + 3.0]}):
        with pytest.raises(SystemExit, match=r"variant 1: .* trades"):
            check_same(OURS, other, "numba")
    with pytest.raises(SystemExit):
        check_same(OURS, {"trades": [10, 20], "ends": [float("nan"), 2e6]}, "numba")


def test_ratios_are_of_the_best_and_of_the_medians() -> None:
    ours, theirs = Timed((2.0, 1.0, 3.0), (0.5, 0.5, 1.0)), Timed((9.0, 4.0, 5.0), (4.0, 3.0, 5.0))
    assert theirs.times(ours) == (4.0, 2.5, 6.0)


def test_jobs_take_turns_and_a_first_round_is_not_counted() -> None:
    asked = []

    class Counting:
        def ask(self, job: str) -> dict[str, Any]:
            asked.append(job)
            return {"seconds": float(len(asked)), "cpu": 1.0}

    worker = cast(Worker, Counting())
    timed = in_turns({"a": (worker, "x"), "b": (worker, "y")}, 2)
    assert asked == ["x", "y"] * 3
    assert (timed["a"].seconds, timed["b"].seconds) == ((3.0, 5.0), (4.0, 6.0))


def test_a_worker_answers_and_a_broken_one_says_why() -> None:
    program = (
        "import json, sys\n"
        "print('RESULT ' + json.dumps({'ready': 1}), flush=True)\n"
        "for line in sys.stdin:\n"
        "    print('some noise')\n"
        "    print('RESULT ' + json.dumps({'seconds': 1 / int(line)}), flush=True)\n"
    )
    with Worker([sys.executable, "-c", program]) as worker:
        assert worker.ready == {"ready": 1}
        assert worker.ask("4") == {"seconds": 0.25}
        with pytest.raises(SystemExit, match="ZeroDivisionError"):
            worker.ask("0")


def test_the_hundred_variants_differ() -> None:
    jobs = variants(cast(ForecastPanel, None))
    assert len({job.name for job in jobs}) == len(jobs) == 100
    assert jobs[0].name == "top 10, buffer 0, 5 bps"
    assert jobs[0].terms.costs.total_bps == 5.0
