"""Our TFT beside pytorch-forecasting's own pipeline, on the same weights and panel in one run: `python -m benchmarks tft`.

    --quick                                      tiny sizes: does everything run?
    --only dense|train|gather|live|memory|convergence|neuralforecast|gpu

Everything but memory and GPU runs on one thread. Figures are ratios of CPU seconds of the process, medians over
interleaved rounds, so that other processes matter little. The peer's windows/s do not depend on how many symbols there are:
of the dense forecast it computes a few. Before anything is timed, its outputs (to 1e-6) and gradients (to 1e-5 of the
largest) are compared with ours; the run ends when they differ.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import processes, tft_convergence, tft_gpu, tft_memory
from benchmarks.peers import environment
from benchmarks.peers.forecasting_network import converted, gradients
from benchmarks.tft_problem import (
    HORIZONS,
    PEER_BATCH,
    QUICK,
    SEED,
    Problem,
    Sizes,
    block,
    gathered,
    interleaved,
    loader_of,
    quantile_loss,
)
from trading_core.models.forward import forward_samples, panel_samples
from trading_core.schema import Float32Array

HIDDEN = 16
# The goals, as times the peer's speed.
MIN_DENSE, MIN_TRAIN, MIN_COMPILED, MIN_GATHER, MIN_LIVE = (40.0, 15.0), 9.0, 12.0, 25.0, 2.5
OUTPUT_ATOL, GRADIENT_RTOL = 1e-6, 1e-5
NEURALFORECAST_STEPS = 3


def line(what: str, theirs: float, ours: float, unit: str, goal: float | None = None, note: str = "") -> str:
    """One row: how often a second (or how many windows a second) the peer and we do it, and how many times that is."""
    ratio = ours / theirs
    verdict = "" if goal is None else f"  goal {goal:g}: {'met' if ratio >= goal else 'MISSED'}"
    return f"{what:<58}{theirs:>12,.1f}{ours:>12,.1f} {unit:<10}{ratio:>7.1f}x{verdict}{note}"


def full(sizes: Sizes, goal: float) -> float | None:
    """The goal; tiny sizes have none."""
    return None if sizes == QUICK else goal


def same(what: str, theirs: Float32Array, ours: Float32Array, limit: float) -> float:
    """The largest difference; exits when it is above the limit."""
    worst = float(np.abs(theirs - ours).max())
    if theirs.shape != ours.shape or not worst <= limit:
        raise SystemExit(f"{what} differ by {worst:.1e}; at most {limit:.0e} is allowed")
    return worst


def dense(sizes: Sizes, features: int, goal: float) -> Iterator[str]:
    """All symbols on all days: `model.predict()` with its loader, and forward_samples with its window set."""
    problem = Problem(features, sizes, HIDDEN)
    dataset = problem.dataset(sizes.peer_symbols, sizes.days)
    windows = problem.windows(sizes.days)
    few = np.flatnonzero(windows.symbol < sizes.peer_symbols)
    few = few[np.lexsort((windows.columns[few], windows.symbol[few]))]  # the peer's order: symbol by symbol
    found = problem.peer_predict(loader_of(dataset))
    worst = same("Outputs", found, forward_samples(problem.ours, windows)[few], OUTPUT_ATOL)
    jobs: dict[str, Callable[[], object]] = {
        "theirs": lambda: problem.peer_predict(loader_of(dataset)),
        "ours": lambda: forward_samples(problem.ours, problem.windows(sizes.days)),
        "their data": lambda: problem.dataset(sizes.peer_symbols, sizes.days),
    }
    seconds = interleaved(jobs, sizes.rounds)
    theirs, ours = len(few) / seconds["theirs"], len(windows) / seconds["ours"]
    what = f"dense inference, F={features}, {sizes.symbols} symbols x {sizes.days} days"
    yield line(what, theirs, ours, "windows/s", full(sizes, goal), f"  outputs differ by {worst:.0e}")
    with_data = len(few) / (seconds["theirs"] + seconds["their data"])
    yield line("  the same, with building the TimeSeriesDataSet", with_data, ours, "windows/s")


def train(sizes: Sizes, features: int, *, compiled: bool = True) -> Iterator[str]:
    """Forward, backward and Adam on one batch of windows. The peer's batch lies ready: its loader is not counted."""
    symbol, column = block(Problem(features, sizes, HIDDEN), *sizes.train)
    worst = gradient_difference(Problem(features, sizes, HIDDEN, dropout=0.0), symbol, column)
    problem = Problem(features, sizes, HIDDEN)
    x, static = gathered(problem, symbol, column)
    jobs: dict[str, Callable[[], object]] = {
        "theirs": training_step(problem.theirs.network, lambda: problem.theirs(x, static)),
        "ours, windows": training_step(problem.ours, lambda: problem.ours(x, static)),
        "ours": panel_step(Problem(features, sizes, HIDDEN), *sizes.train),
    }
    with ExitStack() as stack:
        if compiled:
            other = Problem(features, sizes, HIDDEN)
            stack.enter_context(other.ours.compiled())
            jobs["compiled"] = panel_step(other, *sizes.train)
        seconds = interleaved(jobs, sizes.rounds)
    rate = {name: len(symbol) / value for name, value in seconds.items()}
    shape = f"{sizes.train[0]} symbols x {sizes.train[1]} days"
    what = f"training step, F={features}, {shape}"
    yield line(
        what, rate["theirs"], rate["ours"], "windows/s", full(sizes, MIN_TRAIN), f"  gradients differ by {worst:.0e}"
    )
    if compiled:
        yield line(
            "  the same, selection compiled", rate["theirs"], rate["compiled"], "windows/s", full(sizes, MIN_COMPILED)
        )
    yield line("  the same windows, nothing shared", rate["theirs"], rate["ours, windows"], "windows/s")


def batches(sizes: Sizes, features: int) -> Iterator[str]:
    """What a training batch's shape is worth, over the first one."""
    yield f"{'training step by shape of the batch, F=' + str(features):<58}{'windows/s':>12}{'rows/window':>14}"
    for symbols, days in sizes.batches:
        step = panel_step(Problem(features, sizes, HIDDEN), symbols, days)
        seconds = interleaved({"ours": step}, 2)["ours"]
        rows = (days + sizes.encoder - 1) / days
        yield f"  {symbols:>4} symbols x {days:>2} consecutive days{symbols * days / seconds:>41,.1f}{rows:>14.1f}"


def gather(sizes: Sizes, features: int) -> Iterator[str]:
    """Batches of random windows: the peer's loader, and WindowSet.gather."""
    problem = Problem(features, sizes, HIDDEN)
    loader = loader_of(problem.dataset(sizes.peer_symbols, sizes.days), shuffled=True)
    windows = problem.windows(sizes.days)
    random = np.random.default_rng(SEED)

    def ours() -> None:
        order = random.permutation(len(windows))
        for start in range(0, len(order), PEER_BATCH):
            batch = windows.gather(order[start : start + PEER_BATCH])
            torch.from_numpy(batch.x), torch.from_numpy(batch.static)

    def theirs() -> None:
        for _ in loader:
            pass

    seconds = interleaved({"theirs": theirs, "ours": ours}, sizes.rounds)
    count = sizes.peer_symbols * sizes.days
    rates = count / seconds["theirs"], len(windows) / seconds["ours"]
    yield line(f"gathering batches of {PEER_BATCH} windows, F={features}", *rates, "windows/s", full(sizes, MIN_GATHER))


def live(sizes: Sizes, features: int) -> Iterator[str]:
    """One decision of every symbol: nothing to share."""
    problem = Problem(features, sizes, HIDDEN)
    dataset = problem.dataset(sizes.symbols, 1)
    worst = same(
        "Outputs",
        problem.peer_predict(loader_of(dataset)),
        forward_samples(problem.ours, problem.windows(1)),
        OUTPUT_ATOL,
    )
    jobs: dict[str, Callable[[], object]] = {
        "theirs": lambda: problem.peer_predict(loader_of(dataset)),
        "ours": lambda: forward_samples(problem.ours, problem.windows(1)),
    }
    seconds = interleaved(jobs, sizes.rounds)
    rates = sizes.symbols / seconds["theirs"], sizes.symbols / seconds["ours"]
    what = f"live inference, F={features}, one window of {sizes.symbols} symbols"
    yield line(what, *rates, "windows/s", full(sizes, MIN_LIVE), f"  outputs differ by {worst:.0e}")


def neuralforecast(sizes: Sizes, features: int) -> Iterator[str]:
    """neuralforecast's TFT has weights of its own: another network of the same kind and sizes, in its own process."""
    try:
        python = environment.peer_python("neuralforecast")
    except (SystemExit, subprocess.SubprocessError, OSError) as error:
        yield f"neuralforecast was not run: its environment could not be installed ({str(error)[-500:]})"
        return
    script = str(processes.ROOT / "benchmarks" / "neuralforecast_tft.py")
    shape = (sizes.peer_symbols, sizes.days, sizes.encoder, len(HORIZONS), features, HIDDEN, NEURALFORECAST_STEPS)
    theirs = processes.run([str(python), script, *map(str, shape)], library_threads=1).result
    problem = Problem(features, sizes, HIDDEN)
    jobs: dict[str, Callable[[], object]] = {
        "dense": lambda: forward_samples(problem.ours, problem.windows(sizes.days)),
        "train": panel_step(Problem(features, sizes, HIDDEN), *sizes.train),
    }
    seconds = interleaved(jobs, min(sizes.rounds, 3))
    rate = len(problem.windows(sizes.days)) / seconds["dense"]
    yield line(f"neuralforecast 3.3.0, dense inference, F={features}", theirs["windows_per_s"], rate, "windows/s")
    step = sizes.train[0] * sizes.train[1] / seconds["train"]
    yield line(f"neuralforecast 3.3.0, training step, F={features}", theirs["train_windows_per_s"], step, "windows/s")


def gradient_difference(problem: Problem, symbol: np.ndarray, column: np.ndarray) -> float:
    """The largest difference of any weight's gradient over the largest gradient; exits when it is above the limit."""
    x, static = gathered(problem, symbol, column)
    quantile_loss(problem.theirs(x, static).sort(dim=-1).values).backward()
    quantile_loss(panel_output(problem, symbol, column)).backward()
    expected = converted(gradients(problem.theirs.network))
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    found = {name: weight.grad for name, weight in problem.ours.named_parameters() if weight.grad is not None}
    return max(
        same(f"Gradients of {name}", expected[name].numpy() / largest, gradient.numpy() / largest, GRADIENT_RTOL)
        for name, gradient in found.items()
    )


def panel_output(problem: Problem, symbol: np.ndarray, column: np.ndarray) -> Tensor:
    codes = problem.vocabulary.codes(problem.scaled.panel, ("sector",))
    return problem.ours.forward_panel(
        *panel_samples(problem.scaled.channels, codes, symbol, column, problem.sizes.encoder)
    )


def panel_step(problem: Problem, symbols: int, days: int) -> Callable[[], object]:
    places = block(problem, symbols, days)
    return training_step(problem.ours, lambda: panel_output(problem, *places))


def training_step(module: nn.Module, output: Callable[[], Tensor]) -> Callable[[], object]:
    """Forward, backward and one step of Adam, in training mode."""
    module.train()
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        quantile_loss(output()).backward()
        optimiser.step()

    return step


def sections(sizes: Sizes, *, compiled: bool = True) -> dict[str, Callable[[], Iterator[str]]]:
    wide = sizes.features[0]

    def both() -> Iterator[str]:
        for features, goal in zip(sizes.features, MIN_DENSE, strict=True):
            yield from dense(sizes, features, goal)

    def training() -> Iterator[str]:
        yield from train(sizes, wide, compiled=compiled)
        yield from batches(sizes, wide)

    return {
        "dense": both,
        "train": training,
        "gather": lambda: gather(sizes, wide),
        "live": lambda: live(sizes, wide),
        "memory": lambda: tft_memory.lines(sizes, wide),
        "convergence": lambda: tft_convergence.lines(*(tft_convergence.QUICK if sizes == QUICK else ())),
        "neuralforecast": lambda: neuralforecast(sizes, wide),
        "gpu": lambda: tft_gpu.lines(sizes, wide),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tft")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=[*sections(QUICK)])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    busy = processes.busy_cores()
    print(
        f"TFT, hidden size {HIDDEN}, encoder {Sizes().encoder}, horizons 1 to 5; {busy:.1f} cores were busy at the start"
    )
    print(f"{'':<58}{'theirs':>12}{'ours':>12}")
    for name, run in sections(QUICK if chosen.quick else Sizes()).items():
        if chosen.only in (None, name):
            for text in run():
                print(text, flush=True)


if __name__ == "__main__":
    main()
