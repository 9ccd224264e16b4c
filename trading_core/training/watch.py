"""What a training run remembers from epoch to epoch: its history, the best weights, and when to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

from trading_core.dataset.windows import WindowSet
from trading_core.errors import TrainingFailedError
from trading_core.schema import Float32Array, InputSpec
from trading_core.training.config import TrainingConfig
from trading_core.training.loss import Objective
from trading_core.training.progress import EpochRecord, epoch_line
from trading_core.training.validate import monitored_value, ranks_are_defined, validation_loss, validation_rank_ic

OnProgress: TypeAlias = Callable[[EpochRecord], None]


def watched(config: TrainingConfig, validation: WindowSet) -> str:
    """What early stopping watches: the config's `monitor`, and the loss where that is a rank IC which no session has, since
    no epoch would ever be better than the first."""
    ranked = config.monitor not in ("rank_ic", "ic") or ranks_are_defined(validation)
    return config.monitor if ranked else "loss"


class Watch:
    """Keeps the history and the best epoch's weights, and says when to stop."""

    def __init__(
        self,
        spec: InputSpec,
        validation: WindowSet,
        config: TrainingConfig,
        objective: Objective,
        on_progress: OnProgress | None,
        member: int = 1,
        members: int = 1,
    ) -> None:
        self.spec, self.validation, self.config, self.objective = spec, validation, config, objective
        self.on_progress, self.member, self.members = on_progress, member, members
        self.epochs = config.epochs
        self.history: list[EpochRecord] = []
        self.best_epoch, self.best_value = 0, -math.inf
        self.best_weights: dict[str, Tensor] = {}
        self.monitor = watched(config, validation)
        self.spent = 0.0  # seconds of a run before this one, where it goes on
        self._began = self._epoch_began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent on this training so far, in all runs of it."""
        return self.spent + time.monotonic() - self._began

    def start_epoch(self) -> None:
        self._epoch_began = time.monotonic()

    def end_epoch(
        self,
        train_loss: float,
        output: Float32Array,
        learning_rate: float,
        weights: Mapping[str, Tensor],
        figures: Mapping[str, float],
    ) -> None:
        """Records the epoch. TrainingFailedError when a loss is not a finite number. output: [N,H,O] of the validation."""
        epoch = len(self.history) + 1
        val_loss = validation_loss(output, self.validation, self.objective)
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            reason = f"the loss of epoch {epoch} is not a finite number (training {train_loss}, validation {val_loss})"
            raise TrainingFailedError(f"{reason}; lower the learning rate or set a gradient clip")
        rank_ic = validation_rank_ic(output, self.validation, self.spec)
        value = (
            -val_loss if self.monitor == "loss" else monitored_value(self.monitor, output, self.validation, self.spec)
        )
        seconds = time.monotonic() - self._epoch_began
        record = EpochRecord(
            epoch, train_loss, val_loss, rank_ic, learning_rate, seconds, value, self.member, dict(figures)
        )
        self.history.append(record)
        if epoch == 1 or value > self.best_value:  # NaN (constant scores) is never better
            self.best_epoch, self.best_value = epoch, -math.inf if math.isnan(value) else value
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        self._tell(record)

    @property
    def finished(self) -> bool:
        """All epochs done, no better one for `patience` epochs, or the time is up."""
        limit = self.config.max_minutes
        late = limit is not None and self.seconds > 60.0 * limit
        done = len(self.history)
        return done >= self.epochs or late or done - self.best_epoch >= self.config.patience

    def _tell(self, record: EpochRecord) -> None:
        if self.on_progress is not None:
            self.on_progress(record)
        else:
            print(epoch_line(record, self.epochs, self.members), flush=True)
