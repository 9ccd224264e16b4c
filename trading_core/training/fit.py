"""One entry for every model of the zoo: weights by gradients or in closed form, then calibration and skill."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trading_core.calibration.calibrators import Calibrator
from trading_core.dataset.windows import WindowSet
from trading_core.errors import InvalidConfigError, TrainingFailedError
from trading_core.metrics.forecasts import ForecastSkill
from trading_core.models.ensemble import joined
from trading_core.models.forward import forward_in_batches, torch_threads
from trading_core.models.registry import ModelEntry
from trading_core.schema import Float32Array, InputSpec
from trading_core.training.checkpoint import Checkpoints, Slot
from trading_core.training.config import TrainingConfig
from trading_core.training.data import TrainingDataModule, chunks
from trading_core.training.gradient import Device, choose_device, train
from trading_core.training.loss import Objective
from trading_core.training.progress import EpochRecord
from trading_core.training.validate import judge, validation_loss
from trading_core.training.watch import OnProgress, Watch

if TYPE_CHECKING:
    from trading_core.models.registry import Batch, Batches, FitClosedForm


@dataclass(frozen=True, slots=True, eq=False)
class FitResult:
    """A trained model. `module`: the best epoch's weights, in eval mode, on the CPU; of several members their ensemble.

    history: one record per epoch and member. best_epoch: of the first member. calibration, skill: per horizon, fitted and
    measured on the validation part. seconds: of the whole fit. members: how many networks `module` averages.
    """

    module: nn.Module
    history: tuple[EpochRecord, ...]
    best_epoch: int
    device: str
    seconds: float
    calibration: tuple[Calibrator, ...]
    skill: tuple[ForecastSkill, ...]
    members: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What one fit is about: label windows of one panel, whose shapes `spec` describes (`input_spec(train)`)."""

    entry: ModelEntry
    config: Any  # of the entry's own config class
    spec: InputSpec
    train: WindowSet
    validation: WindowSet
    training: TrainingConfig


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
    members: int = 1,
    calibration: str = "platt",
    resume: tuple[Checkpoints, str] | None = None,
) -> FitResult:
    """Build `entry` with `config` (its own config class) and find its weights.

    Same arguments, same bits on a CPU. on_progress is called after every epoch; without it a line per epoch is printed
    (a progress bar on a terminal). members: trained with seed, seed + 1, ... and joined as one ensemble. calibration: of
    p_up, a name of CALIBRATORS. resume: where each epoch is kept, and the key of this very training; an interrupted one
    goes on after its last whole epoch and ends with the bits it would have had. Errors: InvalidConfigError (config and
    spec do not fit), TrainingFailedError (interrupted, or a loss that is not a number); nothing is to be registered then.
    """
    started = time.monotonic()
    device = device or choose_device()
    problem = Problem(entry, config, spec, train, validation, training)
    if entry.fit_closed_form is not None:
        device, members = "cpu", 1  # most of them are the same from every seed
    with torch_threads(training.threads):
        fitted = [_member(problem, seed, k, members, device, on_progress, resume) for k in range(1, members + 1)]
        module = joined([network for network, _ in fitted]).to("cpu").eval()
        # Once more with the weights that are kept, on the device that will forecast.
        verdict = judge(forecast(module, validation), validation, spec, calibration)
    history = tuple(record for _, watch in fitted for record in watch.history)
    seconds = time.monotonic() - started
    best_epoch = fitted[0][1].best_epoch
    return FitResult(module, history, best_epoch, device, seconds, verdict.calibration, verdict.skill, members)


def forecast(module: nn.Module, windows: WindowSet) -> Float32Array:
    """[N,H,O] outputs of all rows of `windows`."""
    batches = (windows.gather(rows) for rows in chunks(windows))
    return forward_in_batches(module, ((batch.x, batch.static) for batch in batches))


def _member(
    problem: Problem,
    seed: int,
    member: int,
    members: int,
    device: Device,
    on_progress: OnProgress | None,
    resume: tuple[Checkpoints, str] | None,
) -> tuple[nn.Module, Watch]:
    """The member'th network (from 1), trained, and what was seen of it."""
    training, spec = problem.training, problem.spec
    seed = seed + member - 1
    with _seeded(seed, device):
        network = _built(problem)
        objective = Objective.of(spec, training.losses, torch.from_numpy(problem.train.labels))
        watch = Watch(spec, problem.validation, training, objective, on_progress, member, members)
        solve = problem.entry.fit_closed_form
        if solve is not None:
            _solve(network, solve, problem, watch)
        else:
            data = TrainingDataModule(problem.train, problem.validation, training, seed)
            slot = None if resume is None else Slot(resume[0], f"member-{member}", resume[1])
            train(network, objective, data, device, watch, slot)
            network.load_state_dict(watch.best_weights)
    return network, watch


def _built(problem: Problem) -> nn.Module:
    try:
        return problem.entry.build(problem.config, problem.spec)
    except ValueError as error:  # each option is valid alone, but not with this spec
        raise InvalidConfigError(f"The architecture of '{problem.entry.name}'", [str(error)]) from error


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


def _batches(windows: WindowSet) -> Batches:
    def batches() -> Iterator[Batch]:
        for rows in chunks(windows):
            batch = windows.gather(rows)
            x, static, y, labels = map(torch.from_numpy, (batch.x, batch.static, batch.y, batch.labels))
            yield x, static, y, labels

    return batches


def _solve(network: nn.Module, solve: FitClosedForm, problem: Problem, watch: Watch) -> None:
    """A closed form is one epoch."""
    watch.start_epoch()
    try:
        solve(network, _batches(problem.train), _batches(problem.validation))
    except KeyboardInterrupt as error:
        raise TrainingFailedError("interrupted from the keyboard") from error
    train_loss = validation_loss(forecast(network, problem.train), problem.train, watch.objective)
    watch.end_epoch(train_loss, forecast(network, problem.validation), 0.0, weights={}, figures={})
