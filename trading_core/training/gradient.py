"""Weights by gradients: one member's training through Lightning."""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from trading_core.errors import TrainingFailedError
from trading_core.training.checkpoint import Slot
from trading_core.training.config import TrainingConfig
from trading_core.training.device import Device
from trading_core.training.loss import Objective
from trading_core.training.module import ForecastModule, TrainingDataModule
from trading_core.training.watch import Watch

_PRECISION: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def train(
    network: nn.Module, objective: Objective, data: TrainingDataModule, device: Device, watch: Watch, slot: Slot | None
) -> None:
    """Trains `network` until `watch` says stop; `watch.best_weights` are the result. With `slot`, it goes on where an
    interrupted run of the same training stopped.

    With several devices every process but the first ends here. Errors: TrainingFailedError (interrupted, or a loss that is
    not a number).
    """
    module = ForecastModule(network, objective, data, watch)
    on_terminal = watch.on_progress is None and sys.stdout.isatty()
    with _quiet_lightning(), tempfile.TemporaryDirectory(prefix="trading-train-") as folder:
        trainer = L.Trainer(
            accelerator="gpu" if device == "cuda" else device,
            devices=data.config.devices,
            strategy=_strategy(objective, data.config),
            use_distributed_sampler=False,  # DateBatches shares its batches out itself
            max_epochs=data.config.epochs,
            precision=precision_of(data.config, device),
            gradient_clip_val=data.config.gradient_clip or None,
            deterministic="warn",
            callbacks=[_Epochs(watch, data, slot), *([RichProgressBar(leave=True)] if on_terminal else [])],
            logger=False,
            enable_checkpointing=False,  # Lightning's are pickles
            enable_model_summary=False,
            enable_progress_bar=on_terminal,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        _fit_or_fail(trainer, module, data)
    if trainer.global_rank:
        sys.exit(0)  # a helper of the process that goes on with what was learned


def _strategy(objective: Objective, config: TrainingConfig) -> str:
    if config.devices == 1:
        return "auto"
    # DDP waits for the gradient of every parameter; a target without weight has a head that gets none.
    return "ddp" if objective.uses_all_outputs else "ddp_find_unused_parameters_true"


def precision_of(config: TrainingConfig, device: Device) -> Any:
    """Lightning's name of the precision; 32 bits wherever there is no CUDA."""
    return _PRECISION[config.precision if device == "cuda" else "32"]


class _Epochs(Callback):
    """Hands Lightning's epochs to a Watch, and checkpoints them."""

    def __init__(self, watch: Watch, data: TrainingDataModule, slot: Slot | None) -> None:
        self.watch, self.data, self.slot = watch, data, slot

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            self.watch.on_progress = lambda _: None  # one process tells how it goes
        module = _forecast_module(pl_module)
        if self.slot and self.slot.resume(module.network, trainer.optimizers[0], self.watch):
            done = len(self.watch.history)
            print(f"Going on after epoch {done} of an interrupted training", flush=True)
            self.data.batches.first_epoch = done
            trainer.should_stop = self.watch.finished
            trainer.fit_loop.max_epochs = self.data.config.epochs - done

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.watch.start_epoch()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module = _forecast_module(pl_module)
        optimizer = trainer.optimizers[0]
        rate = float(optimizer.param_groups[0]["lr"])
        weights = module.network.state_dict()
        self.watch.end_epoch(module.train_loss(), module.validation_output(), rate, weights, module.figures())
        # All processes stop at the same epoch, also where only one of them thinks that its time is up.
        finished = trainer.strategy.reduce_boolean_decision(self.watch.finished, all=False)
        trainer.should_stop = trainer.should_stop or finished
        if self.slot and trainer.is_global_zero:
            self.slot.save(module.network, optimizer, self.watch)


def _forecast_module(module: L.LightningModule) -> ForecastModule:
    if not isinstance(module, ForecastModule):
        raise TypeError(f"expected a ForecastModule, not {type(module).__name__}")
    return module


def _fit_or_fail(trainer: L.Trainer, module: ForecastModule, data: TrainingDataModule) -> None:
    """Lightning turns Ctrl-C into sys.exit and SIGTERM into its own exception; both become TrainingFailedError, as does
    what the compiler raises (no C++ compiler, for one)."""
    try:
        on_interrupt = signal.getsignal(signal.SIGINT)
        trainer.fit(module, datamodule=data)
    except SIGTERMException as error:  # a SystemExit too, so it comes first
        raise TrainingFailedError("interrupted by SIGTERM (the task was stopped or its worker shut down)") from error
    except (KeyboardInterrupt, SystemExit) as error:
        # It ignores further Ctrl-C from here on; the process may live longer than the training.
        signal.signal(signal.SIGINT, on_interrupt)
        raise TrainingFailedError("interrupted from the keyboard") from error
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = (
            f"torch.compile failed ({str(error).strip().splitlines()[0]}); training.compile: false trains without it"
        )
        raise TrainingFailedError(reason) from error
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
