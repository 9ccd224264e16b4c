"""Does training converge alike where overlapping windows share their rows, and with them the masks of dropout?

Three ways of training one TFT on a panel with a planted signal: decision sessions drawn at random; sessions that follow each
other; and these with their rows shared. The last two see the same batches: only the masks differ.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import mean, stdev

import numpy as np
from torch import Tensor, nn

from trading_core.dataset.panel import Panel, trailing_volatility
from trading_core.dataset.scaling import Scaler
from trading_core.dataset.windows import ScaledPanel, Vocabulary, WindowSet, WindowSpec
from trading_core.models.registry import MODELS, ModelEntry
from trading_core.models.tft import TFTConfig, TFTModel
from trading_core.schema import InputSpec
from trading_core.training.config import TrainingConfig
from trading_core.training.data import input_spec
from trading_core.training.fit import fit
from trading_core.training.progress import best_record

SYMBOLS, SESSIONS, FEATURES, ENCODER, SIGNAL_IC = 60, 300, 8, 20, 0.2
SEEDS = (1, 2, 3, 4, 5)
TRAINING = TrainingConfig(epochs=8, patience=8, learning_rate=3e-3, dates_per_batch=8, monitor="loss")

QUICK = (0.2, SEEDS[:2], replace(TRAINING, epochs=1, batches_per_epoch=2))  # arguments of `lines`


class WindowsOnly(nn.Module):
    """A TFT that cannot be asked for a panel."""

    def __init__(self, network: TFTModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        output: Tensor = self.network(x, static)
        return output


def build(config: TFTConfig, spec: InputSpec) -> nn.Module:
    return WindowsOnly(TFTModel(config, spec))


CONFIG = TFTConfig
WINDOWS = ModelEntry("tft", __name__, "the TFT without its panel")


def lines(dropout: float = 0.2, seeds: tuple[int, ...] = SEEDS, training: TrainingConfig = TRAINING) -> Iterator[str]:
    yield (
        f"convergence, dropout {dropout:g}, {len(seeds)} seeds: validation loss and rank IC of the best epoch, mean and"
        " standard deviation over seeds"
    )
    together = replace(training, consecutive_dates=True)
    ways = {
        "sessions at random": (WINDOWS, training),
        "sessions that follow each other": (WINDOWS, together),
        "the same, rows shared": (MODELS["tft"], together),
    }
    for name, (entry, config) in ways.items():
        begun = time.process_time()
        found = [trained(entry, config, dropout, seed) for seed in seeds]
        seconds = (time.process_time() - begun) / len(seeds)
        cells = (f"{mean(column):>10.4f} +- {stdev(column):.4f}" for column in zip(*found, strict=True))
        yield f"  {name:<36}{''.join(cells)}{seconds:>10.1f} CPU s a training"


def trained(entry: ModelEntry, training: TrainingConfig, dropout: float, seed: int) -> tuple[float, float]:
    """(validation loss, validation rank IC) of the best epoch."""
    train, validation = window_sets()
    config = TFTConfig(hidden_size=16, dropout=dropout)
    result = fit(entry, config, input_spec(train), train, validation, training, seed, lambda _: None, device="cpu")
    best = best_record(result.history)
    return best.val_loss, best.val_rank_ic


def window_sets() -> tuple[WindowSet, WindowSet]:
    """Two thirds of the sessions to train on, the last quarter for validation."""
    panel = planted()
    columns = np.arange(2 * SESSIONS // 3)
    scaled = ScaledPanel.of(panel, Scaler.fit(panel.values, panel.features, columns))
    spec, vocabulary = WindowSpec(ENCODER, (1, 3), "volatility", ("sector",)), Vocabulary.of(panel)
    later = np.arange(3 * SESSIONS // 4, SESSIONS)
    return tuple(WindowSet.for_training(scaled, part, spec, vocabulary) for part in (columns, later))  # type: ignore[return-value]


def planted() -> Panel:
    """The first feature of t has the correlation SIGNAL_IC with the return from open t+1 to open t+2; the others none."""
    random = np.random.default_rng(7)
    values = random.standard_normal((SYMBOLS, SESSIONS, FEATURES)).astype(np.float32)
    noise = random.standard_normal((SYMBOLS, SESSIONS))
    returns = 0.02 * noise
    returns[:, 2:] = 0.02 * (SIGNAL_IC * values[:, :-2, 0] + np.sqrt(1.0 - SIGNAL_IC**2) * noise[:, 2:])
    opens = 100.0 * np.exp(np.cumsum(returns, axis=1))
    names, days = (
        tuple(f"S{i:02d}" for i in range(SYMBOLS)),
        np.arange("2021-01-01", "2023-01-01", dtype="datetime64[D]"),
    )
    sector = 1 + np.arange(SYMBOLS, dtype=np.int64) % 3
    return Panel(
        names,
        days[:SESSIONS],
        tuple(f"f{i}" for i in range(FEATURES)),
        values,
        opens,
        opens,
        trailing_volatility(opens),
        sector,
        ("a", "b", "c"),
    )
