"""What the TFT's benchmark computes besides time: equality with the peer's own pipeline, live memory, the GPU's code on a CPU.

The benchmarks bring pytorch-forecasting and Lightning, so each test imports them itself: every worker collects this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from trading_core.models import forward


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with forward.torch_threads(1):
        yield


def test_forecasts_are_those_of_the_peers_own_pipeline() -> None:
    """From its TimeSeriesDataSet and model.predict(), to 1e-6: the run would end."""
    from benchmarks import tft
    from benchmarks.tft_problem import QUICK

    found = list(tft.dense(QUICK, 5, 1.0))
    assert [text.split(",")[0] for text in found] == ["dense inference", "  the same"]
    assert "outputs differ by" in found[0]


def test_gradients_are_the_peers() -> None:
    """To 1e-5 of the largest: the run would end."""
    from benchmarks import tft
    from benchmarks.tft_problem import QUICK

    found = list(tft.train(QUICK, 5, compiled=False))
    assert "gradients differ by" in found[0]
    assert len(found) == 2


def test_another_network_is_noticed() -> None:
    from benchmarks import tft
    from benchmarks.tft_problem import QUICK, Problem, block

    problem = Problem(5, QUICK, dropout=0.0)
    with torch.no_grad():
        problem.ours.past_selection.gate_weight[0] *= 1.01
    with pytest.raises(SystemExit, match=r"Gradients of .* differ by"):
        tft.gradient_difference(problem, *block(problem, 3, 4))
    with pytest.raises(SystemExit, match=r"Outputs differ by 2\.0e-06; at most 1e-06 is allowed"):
        tft.same("Outputs", np.zeros(3, dtype=np.float32), np.full(3, 2e-6, dtype=np.float32), 1e-6)
    with pytest.raises(SystemExit, match="nan"):
        tft.same("Outputs", np.zeros(1, dtype=np.float32), np.full(1, np.nan, dtype=np.float32), 1e-6)


def test_gathered_windows_end_where_they_are_asked_to() -> None:
    from benchmarks.tft_problem import QUICK, Problem, gathered

    problem = Problem(5, QUICK)
    windows = problem.windows(QUICK.days)
    x, static = gathered(problem, windows.symbol, windows.columns)
    batch = windows.gather(np.arange(len(windows)))
    np.testing.assert_array_equal(x, batch.x)
    np.testing.assert_array_equal(static, batch.static)


def test_rows_of_the_table() -> None:
    from benchmarks import tft
    from benchmarks.tft_problem import QUICK

    met, missed = (tft.line("what", 10.0, 400.0, "windows/s", goal) for goal in (40.0, 40.1))
    assert met.split()[1:] == ["10.0", "400.0", "windows/s", "40.0x", "goal", "40:", "met"]
    assert missed.endswith("goal 40.1: MISSED")
    assert tft.full(QUICK, 40.0) is None
    assert tft.full(replace(QUICK, days=6), 40.0) == 40.0


def test_memory_does_not_grow_with_the_number_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import tft_memory
    from benchmarks.tft_problem import QUICK, Problem

    monkeypatch.setattr(forward, "SESSIONS_PER_BLOCK", 8)
    monkeypatch.setattr(forward, "CPU_ROWS_PER_BLOCK", 64)
    problem = Problem(5, replace(QUICK, days=64))
    few, many = (tft_memory.peak_bytes(problem, days) for days in (16, 64))
    assert many < 1.02 * few


def test_live_tensors_are_counted_once_and_forgotten() -> None:
    from benchmarks import tft_memory

    given = torch.zeros(1000)
    with tft_memory.LiveTensors() as live:
        first = given + 1.0  # 4,000 bytes
        view = first[:10]
        given[:5].sum()  # a view of what was there, and 4 bytes
        del first, view
        second = given + 2.0
        third = second * 2.0
    assert live.peak == 8000
    assert third.shape == (1000,)


def test_the_gpus_part_runs() -> None:
    """Its moves to the device, autocast and training steps, on the device there is."""
    from benchmarks import tft_gpu
    from benchmarks.tft_problem import QUICK

    found = list(tft_gpu.measured(QUICK, 5, torch.device("cpu"), (8,)))
    assert found[0].startswith("CPU, F=5")
    hidden, *rates, ratio, difference, busy = found[2].split()
    assert (hidden, busy) == ("8", "-")
    assert len(rates) == 6
    assert all(float(rate.replace(",", "")) > 0 for rate in rates)
    assert ratio.endswith("x")
    assert 0 < float(difference) < 0.5  # bfloat16 was really used, and gives about the same


def test_three_ways_of_training_are_compared() -> None:
    from benchmarks import tft_convergence

    found = list(tft_convergence.lines(*tft_convergence.QUICK))
    assert len(found) == 4
    losses = [float(text.split("+-")[0].split()[-1]) for text in found[1:]]
    assert all(0.3 < loss < 1.5 for loss in losses)  # labels in volatilities
