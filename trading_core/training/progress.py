"""What a training run tells while it runs: one record and one line per epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch, from 1. Losses are the objective of trading_core.training.loss, lower is better.

    val_rank_ic: mean over validation sessions and horizons of Spearman's correlation of score and label; NaN when
    scores do not vary, or no session has three symbols. seconds: of this epoch, validation included.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_rank_ic: float
    learning_rate: float
    seconds: float


def epoch_line(record: EpochRecord, epochs: int) -> str:
    """One line for a log."""
    rank_ic = "not defined" if math.isnan(record.val_rank_ic) else f"{record.val_rank_ic:+.4f}"
    return (
        f"epoch {record.epoch}/{epochs}  loss {record.train_loss:.4f}  validation loss {record.val_loss:.4f}  "
        f"rank IC {rank_ic}  {record.seconds:.1f} s"
    )
