"""The options of a training run. No torch here: configurations are checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from trading_core.errors import InvalidConfigError
from trading_core.models.bounds import require_between
from trading_core.models.registry import MODELS, ModelEntry
from trading_core.training.losses import LossConfig

# What early stopping may watch. All but "loss" are means over horizons of the validation part; PR-AUC and ROC-AUC are of
# the raw probability of a rise, so that they need no calibration.
Monitor = Literal["rank_ic", "ic", "loss", "pr_auc", "roc_auc", "accuracy", "brier"]
Schedule = Literal["constant", "cosine", "plateau"]
Precision = Literal["32", "bf16", "16"]


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How the weights of a network are found. Models with a closed form read only `losses` and `threads`."""

    epochs: int = 20  # at most
    learning_rate: float = 1e-3  # at its highest
    # cosine: down to `min_learning_rate` over all epochs (Loshchilov and Hutter 2017); plateau: times `plateau_factor` after
    # `plateau_patience` epochs without a better value of `monitor`, as torch's ReduceLROnPlateau.
    schedule: Schedule = "constant"
    warmup_epochs: float = 0.0  # the rate rises linearly from 0 over these first epochs, with every schedule
    min_learning_rate: float = 0.0
    plateau_factor: float = 0.5
    plateau_patience: int = 2
    weight_decay: float = 1e-4  # of AdamW
    dates_per_batch: int = 4  # decision sessions in a batch; each brings its whole cross-section
    # The sessions of a batch follow each other, so that windows overlap and what they share is computed once (TFT). What
    # is drawn is the batches' order and where the first one starts.
    consecutive_dates: bool = False
    # A fresh sample per epoch where a session has more; None: all of them. Of consecutive dates it is one for the whole
    # batch, and a session at which one of its symbols has no label has fewer.
    symbols_per_date: int | None = 256
    # The network's most expensive part by torch.compile, where it has one (tft): some 10 s more at the first step and at the
    # first validation, then up to a third faster. On a CPU it needs a C++ compiler.
    compile: bool = False
    batches_per_epoch: int | None = None  # None: every decision session once per epoch
    patience: int = 5  # epochs without a better value of `monitor` before training stops
    # Of the validation; the best epoch's weights are kept. With fewer than three symbols a session, where there is no
    # information coefficient, it is the loss.
    monitor: Monitor = "rank_ic"
    losses: LossConfig = field(default_factory=LossConfig)
    gradient_clip: float = 1.0  # norm; 0: none
    precision: Precision = "32"  # "bf16", "16": mixed, on CUDA only; elsewhere they are slower than 32 or fail
    # GPUs (where there are none: processes) that share each step, through Lightning's DDP: batch k of `devices` goes to the
    # k-th, their gradients are averaged. Not for ensembles and networks per symbol, which are many small trainings.
    devices: int = 1
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
        for name, kind in (("monitor", Monitor), ("schedule", Schedule), ("precision", Precision)):
            if getattr(self, name) not in get_args(kind):
                allowed = ", ".join(map(repr, get_args(kind)))
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {allowed}")
        require_between("warmup_epochs", self.warmup_epochs, 0.0, 1000.0)
        require_between("min_learning_rate", self.min_learning_rate, 0.0, self.learning_rate)
        require_between("plateau_factor", self.plateau_factor, 0.01, 0.99)
        require_between("plateau_patience", self.plateau_patience, 0, 1000)
        require_between("gradient_clip", self.gradient_clip, 0.0, 1e6)
        if self.max_minutes is not None:
            require_between("max_minutes", self.max_minutes, 0.01, 100_000.0)
        require_between("devices", self.devices, 1, 64)
        require_between("threads", self.threads, 1, 256)


def require_compilable(entry: ModelEntry, training: TrainingConfig) -> None:
    """Errors: InvalidConfigError where `compile` is asked of a model that has nothing to compile."""
    if training.compile and not entry.compiles:
        able = ", ".join(name for name, other in MODELS.items() if other.compiles)
        reason = f"compile: '{entry.name}' has no part that torch.compile makes faster; leave it out (it is for {able})"
        raise InvalidConfigError(f"The training of '{entry.name}'", [reason])
