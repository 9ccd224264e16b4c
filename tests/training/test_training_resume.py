"""An interrupted training goes on where it was, ensembles, and what a training tells while it runs."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import torch
from model_samples import CONFIGS, TRAINING, planted_panel, window_sets
from torch import Tensor

from trading_core.errors import InvalidConfigError, TrainingFailedError
from trading_core.models.registry import MODELS
from trading_core.training.config import TrainingConfig
from trading_core.training.data import DateBatches, input_spec
from trading_core.training.fit import FitResult, fit
from trading_core.training.progress import EpochRecord, history_csv

TRAIN, VALIDATION = window_sets(planted_panel())
SPEC = input_spec(TRAIN)
# Everything that the next epoch depends on is at work: dropout, a plateau, an optimiser with momentum.
LONG = replace(TRAINING, epochs=5, patience=5, schedule="plateau", plateau_patience=0, warmup_epochs=1.0)


class Kept(dict[str, bytes]):
    """Checkpoints in memory."""

    def load(self, name: str) -> bytes | None:
        return self.get(name)

    def save(self, name: str, data: bytes) -> None:
        self[name] = data


def train(training: TrainingConfig = LONG, on_progress: Any = lambda _: None, **options: Any) -> FitResult:
    return fit(
        MODELS["lstm"], CONFIGS["lstm"], SPEC, TRAIN, VALIDATION, training, 7, on_progress, device="cpu", **options
    )


class _Killed(RuntimeError):
    pass


def killed_after(epoch: int, kept: Kept, member: int = 1, **options: Any) -> None:
    """A training that ends abruptly while epoch + 1 is under way."""

    def kill(record: EpochRecord) -> None:
        if record.epoch == epoch + 1 and record.member == member:
            raise _Killed  # before the checkpoint of this epoch

    with pytest.raises(_Killed):
        train(on_progress=kill, resume=(kept, "key"), **options)


def state_of(result: FitResult) -> dict[str, Tensor]:
    return dict(result.module.state_dict())


def same(one: FitResult, other: FitResult) -> bool:
    a, b = state_of(one), state_of(other)
    timeless = [[replace(r, seconds=0.0) for r in result.history] for result in (one, other)]
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) and timeless[0] == timeless[1]


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_killed_training_ends_with_the_bits_it_would_have_had(epoch: int) -> None:
    kept = Kept()
    killed_after(epoch, kept)
    seen: list[EpochRecord] = []
    resumed = train(resume=(kept, "key"), on_progress=seen.append)
    assert [record.epoch for record in seen] == list(range(epoch + 1, 6))
    assert same(resumed, train())


def test_a_training_that_ended_is_not_trained_again() -> None:
    kept, seen = Kept(), list[EpochRecord]()
    first = train(resume=(kept, "key"))
    assert same(train(resume=(kept, "key"), on_progress=seen.append), first)
    assert seen == []


@pytest.mark.parametrize("what", ["another key", "cut off", "another network", "text"])
def test_a_checkpoint_that_does_not_fit_is_not_taken(what: str) -> None:
    kept = Kept()
    killed_after(2, kept)
    key = "key"
    if what == "another key":
        key = "other"
    elif what == "cut off":
        kept["member-1"] = kept["member-1"][:-10]
    elif what == "text":
        kept["member-1"] = b"not a checkpoint"
    else:
        data = kept["member-1"]
        tensors = safetensors.torch.load(data)
        tensors["network.recurrence.weight_ih_l0"] = torch.zeros(1, 1)
        header = safetensors.torch.save(tensors, {"training": _header(data)})
        kept["member-1"] = header
    seen: list[EpochRecord] = []
    result = train(resume=(kept, key), on_progress=seen.append)
    assert [record.epoch for record in seen] == [1, 2, 3, 4, 5]
    assert same(result, train())


def _header(data: bytes) -> str:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])["__metadata__"]["training"]
    assert isinstance(header, str)
    return header


def test_an_ensemble_is_the_mean_of_its_members_and_resumes_member_by_member() -> None:
    short = replace(LONG, epochs=2)
    both = train(short, members=2)
    one = train(short)
    other = fit(MODELS["lstm"], CONFIGS["lstm"], SPEC, TRAIN, VALIDATION, short, 8, lambda _: None, device="cpu")
    batch = VALIDATION.gather(np.arange(50))
    x, static = torch.from_numpy(batch.x), torch.from_numpy(batch.static)
    with torch.no_grad():
        expected = (one.module(x, static) + other.module(x, static)) / 2.0
        torch.testing.assert_close(both.module(x, static), expected, rtol=0, atol=1e-6)
    assert [(record.member, record.epoch) for record in both.history] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    kept = Kept()
    killed_after(1, kept, member=2, training=short, members=2)
    seen: list[EpochRecord] = []
    assert same(train(short, members=2, resume=(kept, "key"), on_progress=seen.append), both)
    assert [(record.member, record.epoch) for record in seen] == [(2, 2)]


def test_models_without_epochs_have_one_member() -> None:
    entry, config = MODELS["linear"], CONFIGS["linear"]
    with pytest.raises(InvalidConfigError, match="ensemble: a model without epochs has 1 member"):
        fit(entry, config, SPEC, TRAIN, VALIDATION, TRAINING, 7, lambda _: None, device="cpu", members=3)


def test_the_history_reads_back_from_its_csv() -> None:
    result = train(replace(LONG, epochs=2))
    frame = pl.read_csv(io.StringIO(history_csv(result.history)))
    assert frame["epoch"].to_list() == [1, 2]
    assert frame["val_loss"].to_list() == [record.val_loss for record in result.history]
    assert frame["learning_rate"].to_list() == [record.learning_rate for record in result.history]


@pytest.mark.parametrize("monitor", ["ic", "pr_auc", "roc_auc", "accuracy", "brier"])
def test_the_best_epoch_is_the_best_by_what_the_config_watches(monitor: Any) -> None:
    result = train(replace(LONG, epochs=3, monitor=monitor))
    values = [record.monitored for record in result.history]
    assert values[result.best_epoch - 1] == max(values)
    assert all(np.isfinite(values))


def test_consecutive_dates_follow_each_other_and_every_session_comes_once() -> None:
    training = replace(TRAINING, dates_per_batch=8, consecutive_dates=True, symbols_per_date=None)
    batches = DateBatches(TRAIN, training, seed=3)
    seen = [np.unique(TRAIN.columns[rows]) for rows in batches]
    columns = TRAIN.decision_columns
    assert sorted(np.concatenate(seen).tolist()) == columns.tolist()
    broken = sum(bool((np.diff(np.searchsorted(columns, dates)) != 1).any()) for dates in seen)
    assert broken <= 1  # the batch over the seam
    batches.set_epoch(1)
    assert [dates.tolist() for dates in seen] != [np.unique(TRAIN.columns[rows]).tolist() for rows in batches]


def test_an_interrupted_first_epoch_leaves_no_checkpoint() -> None:
    kept = Kept()
    with pytest.raises(TrainingFailedError, match="not a finite number"):
        _diverging(kept)
    assert kept == {}


def _diverging(kept: Kept) -> FitResult:
    train_set, validation = window_sets(planted_panel())
    train_set.y[0, 0] = np.inf
    entry, config = MODELS["lstm"], CONFIGS["lstm"]
    return fit(entry, config, SPEC, train_set, validation, LONG, 7, lambda _: None, device="cpu", resume=(kept, "key"))
