"""The options of a training run. No torch here: configurations are checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trading_core.models.bounds import require_between


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How the weights of a network are found. Models with a closed form read only `ic_weight` and `threads`."""

    epochs: int = 20  # at most
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4  # of AdamW
    dates_per_batch: int = 4  # decision sessions in a batch; each brings its whole cross-section
    symbols_per_date: int | None = 256  # a fresh sample per epoch where a session has more; None: all of them
    batches_per_epoch: int | None = None  # None: every decision session once per epoch
    patience: int = 5  # epochs without a better value of `monitor` before training stops
    # Of the validation; the best epoch's weights are kept. With fewer than three symbols a session it is the loss.
    monitor: Literal["rank_ic", "loss"] = "rank_ic"
    ic_weight: float = 0.2  # weight of (1 - IC) beside the quantile loss
    gradient_clip: float = 1.0  # norm; 0: none
    max_minutes: float | None = None  # no epoch starts after it; a run that it ends is not reproducible to the bit
    # Of torch on the CPU; part of what makes a run reproducible to the bit. Small networks gain under 1.5x from a 2nd
    # thread on an idle machine, and lose 5x to 10x on a busy one, where threads spin while they wait for each other.
    threads: int = 1

    def __post_init__(self) -> None:
        require_between("epochs", self.epochs, 1, 10_000)
        require_between("learning_rate", self.learning_rate, 1e-8, 1.0)
        require_between("weight_decay", self.weight_decay, 0.0, 1.0)
        require_between("dates_per_batch", self.dates_per_batch, 1, 4096)
        if self.symbols_per_date is not None:
            require_between("symbols_per_date", self.symbols_per_date, 2, 1_000_000)
        if self.batches_per_epoch is not None:
            require_between("batches_per_epoch", self.batches_per_epoch, 1, 1_000_000)
        require_between("patience", self.patience, 1, 10_000)
        if self.monitor not in ("rank_ic", "loss"):
            raise ValueError(f"monitor is {self.monitor!r}; it must be 'rank_ic' or 'loss'")
        require_between("ic_weight", self.ic_weight, 0.0, 100.0)
        require_between("gradient_clip", self.gradient_clip, 0.0, 1e6)
        if self.max_minutes is not None:
            require_between("max_minutes", self.max_minutes, 0.01, 100_000.0)
        require_between("threads", self.threads, 1, 256)
