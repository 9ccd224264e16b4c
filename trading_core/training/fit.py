"""One entry for every model of the zoo: weights by gradients or in closed form, then calibration and skill."""

from __future__ import annotations

import logging
import math
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from trading_core.calibration.platt import Platt
from trading_core.dataset.windows import WindowSet
from trading_core.errors import TrainingFailedError
from trading_core.metrics.forecasts import ForecastSkill
from trading_core.models.forward import forward_in_batches, torch_threads
from trading_core.models.registry import ModelEntry
from trading_core.schema import Float32Array, InputSpec
from trading_core.training.config import TrainingConfig
from trading_core.training.data import TrainingDataModule, chunks
from trading_core.training.module import ForecastModule
from trading_core.training.progress import EpochRecord, epoch_line
from trading_core.training.validate import judge, ranks_are_defined, validation_loss, validation_rank_ic

if TYPE_CHECKING:
    from trading_core.models.registry import Batches

Device = Literal["cuda", "mps", "cpu"]
OnProgress: TypeAlias = Callable[[EpochRecord], None]


@dataclass(frozen=True, slots=True, eq=False)
class FitResult:
    """A trained model. `module`: the best epoch's weights, in eval mode, on the CPU. `history`: one record per epoch.

    platt, skill: per horizon, fitted and measured on the validation part. seconds: of the whole fit.
    """

    module: nn.Module
    history: tuple[EpochRecord, ...]
    best_epoch: int
    device: str
    seconds: float
    platt: tuple[Platt, ...]
    skill: tuple[ForecastSkill, ...]


def choose_device() -> Device:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def fit(
    entry: ModelEntry,
    config: Any,
    spec: InputSpec,
    train: WindowSet,
    validation: WindowSet,
    training: TrainingConfig,
    seed: int,
    on_progress: OnProgress | None = None,
    device: Device | None = None,
) -> FitResult:
    """Build `entry` with `config` (its own config class) and find its weights; nothing is written to disk.

    train, validation: label windows of one panel whose shapes `spec` describes (`input_spec(train)`).
    Same arguments, same bits on a CPU. on_progress is called after every epoch; without it a line per epoch is printed
    (a progress bar on a terminal). Errors: ValueError (config and spec do not fit), TrainingFailedError (interrupted,
    or a loss that is not a number); nothing is to be registered then.
    """
    started = time.monotonic()
    device = device or choose_device()
    with torch_threads(training.threads), _seeded(seed, device):
        module = entry.build(config, spec)
        solve = entry.fit_closed_form
        if solve is not None:
            device = "cpu"
            watch = _solve(module, solve, spec, train, validation, training, on_progress)
        else:
            watch = _train(module, spec, TrainingDataModule(train, validation, training, seed), device, on_progress)
            module.load_state_dict(watch.best_weights)
        module.to("cpu").eval()
        # Once more with the weights that are kept, on the device that will forecast.
        verdict = judge(_forecast(module, validation), validation, spec.quantiles)
    seconds = time.monotonic() - started
    return FitResult(module, tuple(watch.history), watch.best_epoch, device, seconds, verdict.platt, verdict.skill)


def _forecast(module: nn.Module, windows: WindowSet) -> Float32Array:
    batches = (windows.gather(rows) for rows in chunks(windows))
    return forward_in_batches(module, ((batch.x, batch.static) for batch in batches))


@contextmanager
def _seeded(seed: int, device: Device) -> Iterator[None]:
    """Torch's random state set to `seed` inside and put back afterwards; deterministic kernels where they exist."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device == "cuda" else []):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


# --- closed form ------------------------------------------------------------------------------------------------------


def _solve(
    module: nn.Module,
    solve: Callable[[nn.Module, Batches], None],
    spec: InputSpec,
    train: WindowSet,
    validation: WindowSet,
    training: TrainingConfig,
    on_progress: OnProgress | None,
) -> _Watch:
    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for rows in chunks(train):
            batch = train.gather(rows)
            yield torch.from_numpy(batch.x), torch.from_numpy(batch.static), torch.from_numpy(batch.y)

    watch = _Watch(spec, validation, training, on_progress, epochs=1)
    watch.start_epoch()
    try:
        solve(module, batches)
    except KeyboardInterrupt as error:
        raise TrainingFailedError("interrupted from the keyboard") from error
    train_loss = validation_loss(_forecast(module, train), train, spec.quantiles, training.ic_weight)
    watch.end_epoch(train_loss, _forecast(module, validation), learning_rate=0.0, weights={})
    return watch


# --- gradients --------------------------------------------------------------------------------------------------------


class _Watch:
    """Keeps the history and the best weights, and says when to stop."""

    def __init__(
        self,
        spec: InputSpec,
        validation: WindowSet,
        config: TrainingConfig,
        on_progress: OnProgress | None,
        epochs: int,
    ) -> None:
        self.spec, self.validation, self.config, self.epochs = spec, validation, config, epochs
        self.on_progress = on_progress
        self.history: list[EpochRecord] = []
        self.best_epoch, self.best_value = 0, -math.inf
        self.best_weights: dict[str, Tensor] = {}
        # Without a rank IC no epoch would ever be better than the first.
        self.by_loss = config.monitor == "loss" or not ranks_are_defined(validation)
        self._began = self._epoch_began = time.monotonic()

    def start_epoch(self) -> None:
        self._epoch_began = time.monotonic()

    def end_epoch(
        self, train_loss: float, quantiles: Float32Array, learning_rate: float, weights: dict[str, Tensor]
    ) -> None:
        """Records the epoch. TrainingFailedError when a loss is not a finite number."""
        epoch = len(self.history) + 1
        levels, windows = self.spec.quantiles, self.validation
        val_loss = validation_loss(quantiles, windows, levels, self.config.ic_weight)
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            reason = f"the loss of epoch {epoch} is not a finite number (training {train_loss}, validation {val_loss})"
            raise TrainingFailedError(f"{reason}; lower the learning rate or set a gradient clip")
        rank_ic = validation_rank_ic(quantiles, windows, levels)
        seconds = time.monotonic() - self._epoch_began
        record = EpochRecord(epoch, train_loss, val_loss, rank_ic, learning_rate, seconds)
        self.history.append(record)
        value = -val_loss if self.by_loss else rank_ic
        if epoch == 1 or value > self.best_value:  # a NaN rank IC (constant scores) is never better
            self.best_epoch, self.best_value = epoch, -math.inf if math.isnan(value) else value
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        self._tell(record)

    @property
    def finished(self) -> bool:
        """No better epoch for `patience` epochs, or the time is up."""
        limit = self.config.max_minutes
        late = limit is not None and time.monotonic() - self._began > 60.0 * limit
        return late or len(self.history) - self.best_epoch >= self.config.patience

    def _tell(self, record: EpochRecord) -> None:
        if self.on_progress is not None:
            self.on_progress(record)
        else:
            print(epoch_line(record, self.epochs), flush=True)


class _Epochs(Callback):
    """Hands Lightning's epochs to a _Watch."""

    def __init__(self, watch: _Watch) -> None:
        self.watch = watch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.watch.start_epoch()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, ForecastModule):
            raise TypeError(f"expected a ForecastModule, not {type(pl_module).__name__}")
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        weights = pl_module.network.state_dict()
        self.watch.end_epoch(pl_module.train_loss(), pl_module.validation_quantiles(), rate, weights)
        trainer.should_stop = trainer.should_stop or self.watch.finished


def _train(
    module: nn.Module, spec: InputSpec, data: TrainingDataModule, device: Device, on_progress: OnProgress | None
) -> _Watch:
    training = data.config
    watch = _Watch(spec, data.validation, training, on_progress, training.epochs)
    on_terminal = on_progress is None and sys.stdout.isatty()
    with _quiet_lightning(), tempfile.TemporaryDirectory(prefix="trading-train-") as folder:
        trainer = L.Trainer(
            accelerator="gpu" if device == "cuda" else device,
            devices=1,
            max_epochs=training.epochs,
            gradient_clip_val=training.gradient_clip or None,
            deterministic="warn",
            callbacks=[_Epochs(watch), *([RichProgressBar(leave=True)] if on_terminal else [])],
            logger=False,
            enable_checkpointing=False,  # checkpoints are pickles; the best weights stay in memory
            enable_model_summary=False,
            enable_progress_bar=on_terminal,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        _fit_or_fail(trainer, ForecastModule(module, spec, training), data)
    return watch


def _fit_or_fail(trainer: L.Trainer, module: ForecastModule, data: TrainingDataModule) -> None:
    """Lightning turns Ctrl-C into sys.exit and SIGTERM into its own exception; both become TrainingFailedError."""
    try:
        on_interrupt = signal.getsignal(signal.SIGINT)
        trainer.fit(module, datamodule=data)
    except (KeyboardInterrupt, SystemExit) as error:
        # It ignores further Ctrl-C from here on; the process may live longer than the training.
        signal.signal(signal.SIGINT, on_interrupt)
        raise TrainingFailedError("interrupted from the keyboard") from error
    except SIGTERMException as error:
        raise TrainingFailedError("interrupted by SIGTERM (the task was stopped or its worker shut down)") from error
    if trainer.interrupted:
        raise TrainingFailedError("interrupted")


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's device banners, and its advice on loader workers, which these batches do not need."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
