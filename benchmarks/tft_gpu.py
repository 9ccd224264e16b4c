"""The TFT on a GPU: windows per second by hidden size and precision, dense inference, live windows and training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.tft_problem import Problem, Sizes, block, gathered, quantile_loss
from trading_core.models.forward import PanelSamples, panel_samples
from trading_core.models.tft import TFTModel

HIDDEN_SIZES = (16, 32, 64, 128, 256)
TRAIN_DAYS = 8
ROUNDS = 5


def lines(sizes: Sizes, features: int) -> Iterator[str]:
    if not torch.cuda.is_available():
        yield "GPU: not run, there is no CUDA device"
        return
    yield from measured(sizes, features, torch.device("cuda"), HIDDEN_SIZES)


def measured(sizes: Sizes, features: int, device: torch.device, hidden_sizes: Sequence[int]) -> Iterator[str]:
    """Ours in fp32 and bf16 (autocast), its selection also compiled, and pytorch-forecasting's network in fp32 on windows
    that lie on the device already, so without its loader. Utilisation: what the driver saw at the end of each series."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    yield f"{name}, F={features}, windows/s; difference: of bf16 and fp32 outputs, in units of their standard deviation"
    heads = (
        "dense fp32",
        "dense bf16",
        "live fp32",
        "train fp32",
        "train bf16",
        "theirs",
        "ratio",
        "difference",
        "busy %",
    )
    yield f"  {'hidden':>6}" + "".join(f"{head:>13}" for head in heads)
    for hidden in hidden_sizes:
        problem = Problem(features, sizes, hidden)
        yield f"  {hidden:>6}" + "".join(f"{cell:>13}" for cell in _cells(problem, device))


def _cells(problem: Problem, device: torch.device) -> Iterator[str]:
    sizes, ours = problem.sizes, problem.ours.to(device)
    dense, live = (_samples(problem, sizes.symbols, days, device) for days in (sizes.days, 1))
    batch = _samples(problem, sizes.symbols, min(TRAIN_DAYS, sizes.days), device)
    exact, rough = (_inferred(ours, dense, device, bf16=bf16).float() for bf16 in (False, True))
    rates = {
        "dense": _rate(lambda: _inferred(ours, dense, device, bf16=False), len(dense.symbol), device),
        "dense bf16": _rate(lambda: _inferred(ours, dense, device, bf16=True), len(dense.symbol), device),
        "live": _rate(lambda: _inferred(ours, live, device, bf16=False), len(live.symbol), device),
        "train": _rate(_training(ours, batch, device, bf16=False), len(batch.symbol), device),
        "train bf16": _rate(_training(ours, batch, device, bf16=True), len(batch.symbol), device),
    }
    busy = _busy(device)
    theirs = _peer_rate(problem, device)
    yield from (f"{rate:,.0f}" for rate in (*rates.values(), theirs))
    yield f"{rates['dense'] / theirs:.1f}x"
    yield f"{float((exact - rough).abs().max() / exact.std()):.0e}"
    yield busy


def _samples(problem: Problem, symbols: int, days: int, device: torch.device) -> PanelSamples:
    codes = problem.vocabulary.codes(problem.scaled.panel, ("sector",))
    found = panel_samples(problem.scaled.channels, codes, *block(problem, symbols, days), problem.sizes.encoder)
    return PanelSamples(*(tensor.to(device) for tensor in found))


def _autocast(device: torch.device, bf16: bool) -> Any:
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def _inferred(module: TFTModel, samples: PanelSamples, device: torch.device, *, bf16: bool) -> Tensor:
    module.eval()
    with torch.inference_mode(), _autocast(device, bf16):
        return module.forward_panel(*samples)


def _training(module: TFTModel, samples: PanelSamples, device: torch.device, *, bf16: bool) -> Callable[[], None]:
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-4)

    def step() -> None:
        module.train()
        optimiser.zero_grad()
        with _autocast(device, bf16):
            output = module.forward_panel(*samples)
        quantile_loss(output.float()).backward()
        optimiser.step()

    return step


def _peer_rate(problem: Problem, device: torch.device) -> float:
    x, static = (
        part.to(device) for part in gathered(problem, *block(problem, problem.sizes.peer_symbols, problem.sizes.days))
    )
    theirs = problem.theirs.to(device)
    theirs.network.to(device)

    def run() -> None:
        with torch.inference_mode():
            for part, codes in zip(x.split(1024), static.split(1024), strict=True):
                theirs(part, codes)

    return _rate(run, len(x), device)


def _busy(device: torch.device) -> str:
    """Per cent of the last second or so that kernels ran, as the driver counts; needs its Python bindings."""
    try:
        return str(torch.cuda.utilization(device)) if device.type == "cuda" else "-"
    except ModuleNotFoundError:
        return "not known"


def _rate(job: Callable[[], object], windows: int, device: torch.device) -> float:
    """Windows per second of wall clock, median; the first two calls (kernels are chosen, memory is taken) do not count."""
    seconds = []
    for number in range(ROUNDS + 2):
        begun = time.perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number > 1:
            seconds.append(time.perf_counter() - begun)
    return windows / median(seconds)
