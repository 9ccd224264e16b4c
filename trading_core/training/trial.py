"""One training as a trial of a search: watched epoch by epoch, stopped where it is not worth going on with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from trading_core.errors import TrainingFailedError
from trading_core.training.fit import FitResult
from trading_core.training.progress import EpochRecord, best_record
from trading_core.training.tune import Measured, PrunedError, Report
from trading_core.training.watch import OnProgress


def measure(fit: Callable[[OnProgress], FitResult], epochs: int, report: Report) -> Measured:
    """Trains by `fit`, which takes what is told of every epoch and makes at most `epochs` of them.

    The objective is the best epoch's value of what early stopping watches. facts: `rank_ic` (mean over the validation
    sessions: of the shortest horizon, or, of a pruned training, which has no forecasts of its own, of all horizons at its
    best epoch; None where it is not defined), `epochs` and `best_epoch`.
    Errors: InvalidConfigError, TrainingFailedError, also for a network that does not fit into the GPU's memory.
    """
    history: list[EpochRecord] = []

    def on_progress(record: EpochRecord) -> None:
        history.append(record)
        report(record.epoch, record.monitored, record.epoch >= epochs)

    try:
        fitted = fit(on_progress)
    except PrunedError:
        best = best_record(history)
        return Measured(best.monitored, pruned=True, facts=_facts(history, best.val_rank_ic))
    except torch.OutOfMemoryError as error:
        raise TrainingFailedError(str(error).splitlines()[0]) from error
    return Measured(best_record(history).monitored, facts=_facts(history, fitted.skill[0].mean_rank_ic))


def _facts(history: Sequence[EpochRecord], rank_ic: float) -> dict[str, float | int | None]:
    known = float(rank_ic) if math.isfinite(rank_ic) else None
    return {"rank_ic": known, "epochs": len(history), "best_epoch": best_record(history).epoch}
