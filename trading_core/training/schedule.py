"""The learning rate as a function of how far training is: nothing to save, so a resumed training has the same rates."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi

from trading_core.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int, steps_per_epoch: int, reductions: int = 0) -> float:
    """The rate of optimiser step `step` (from 0). reductions: how often a plateau has lowered it, see `plateau_reductions`.

    Warm-up multiplies the rate by (step + 1) / (warmup_epochs * steps_per_epoch) while that is below 1. After it, cosine is
    min + (max - min) (1 + cos(pi * done)) / 2, `done` rising from 0 to 1 over the remaining steps of all epochs
    (Loshchilov and Hutter 2017, eq. 5, one cycle).
    """
    low, high = config.min_learning_rate, config.learning_rate
    warm = config.warmup_epochs * steps_per_epoch
    rate = high
    if config.schedule == "plateau":
        rate = max(high * config.plateau_factor**reductions, low)
    elif config.schedule == "cosine":
        done = max(step - warm, 0.0) / max(config.epochs * steps_per_epoch - warm, 1.0)
        rate = low + (high - low) * (1.0 + cos(pi * min(done, 1.0))) / 2.0
    return rate * min((step + 1) / warm, 1.0) if warm else rate


def plateau_reductions(values: Sequence[float], patience: int) -> int:
    """How often the rate was lowered after epochs with these values (higher is better): each time more than `patience`
    epochs in a row were no better than the best before them, as torch's ReduceLROnPlateau with threshold 0.
    """
    best, bad, reductions = float("-inf"), 0, 0
    for value in values:
        if value > best:  # NaN never is
            best, bad = value, 0
        else:
            bad += 1
        if bad > patience:
            reductions, bad = reductions + 1, 0
    return reductions
