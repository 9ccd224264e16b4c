"""What a training run tells while it runs: one record and one line per epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CSV_COLUMNS = ("member", "epoch", "train_loss", "val_loss", "val_rank_ic", "monitored", "learning_rate", "seconds")


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch, from 1. Losses are the objective of trading_core.training.loss, lower is better.

    val_rank_ic: mean over validation sessions and horizons of Spearman's correlation of score and label; NaN when
    scores do not vary, or no session has three symbols. monitored: what early stopping watches, higher is better.
    learning_rate: at the epoch's end. seconds: of this epoch, validation included. member: of the ensemble, from 1.
    figures: what the network tells of itself, such as the use of its experts.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_rank_ic: float
    learning_rate: float
    seconds: float
    monitored: float = math.nan
    member: int = 1
    figures: Mapping[str, float] = field(default_factory=dict)


def best_record(history: Sequence[EpochRecord]) -> EpochRecord:
    """The epoch of one network whose weights are kept: the first of the highest monitored value; NaN is never better."""
    return max(history, key=lambda record: -math.inf if math.isnan(record.monitored) else record.monitored)


def best_epoch(history: Sequence[EpochRecord]) -> int:
    """The number of `best_record`."""
    return best_record(history).epoch


def epoch_line(record: EpochRecord, epochs: int, members: int = 1) -> str:
    """One line for a log."""
    rank_ic = "not defined" if math.isnan(record.val_rank_ic) else f"{record.val_rank_ic:+.4f}"
    member = f"member {record.member}/{members}  " if members > 1 else ""
    return (
        f"{member}epoch {record.epoch}/{epochs}  loss {record.train_loss:.4f}  "
        f"validation loss {record.val_loss:.4f}  rank IC {rank_ic}  {record.seconds:.1f} s"
    )


def history_csv(history: Sequence[EpochRecord]) -> str:
    """The records as CSV with a header; numbers are written so that they read back exactly."""
    names = sorted({name for record in history for name in record.figures})
    lines = [",".join((*CSV_COLUMNS, *names))]
    for record in history:
        values = [getattr(record, column) for column in CSV_COLUMNS] + [record.figures.get(n, math.nan) for n in names]
        lines.append(",".join(map(repr, values)))
    return "\n".join(lines) + "\n"
