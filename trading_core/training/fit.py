"""One entry for every model of the zoo: weights by gradients or in closed form, then calibration and skill."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from trading_core.calibration.calibrators import Calibrator
from trading_core.dataset.windows import WindowSet
from trading_core.errors import InvalidConfigError, TrainingFailedError
from trading_core.metrics.forecasts import ForecastSkill
from trading_core.models.ensemble import joined
from trading_core.models.forward import PanelForward, forward_samples, torch_threads
from trading_core.models.per_symbol import PerSymbol
from trading_core.models.registry import Compilable, HasFiles, ModelEntry
from trading_core.schema import Float32Array, InputSpec
from trading_core.training.checkpoint import Checkpoints, Slot
from trading_core.training.config import TrainingConfig, require_compilable
from trading_core.training.data import chunks
from trading_core.training.device import Device, choose_device
from trading_core.training.loss import Objective
from trading_core.training.progress import EpochRecord
from trading_core.training.validate import judge, validation_loss
from trading_core.training.watch import OnProgress, Watch

if TYPE_CHECKING:
    from trading_core.models.registry import Batch, Batches, FitClosedForm


Scope = Literal["pooled", "symbol"]
# A symbol with fewer samples keeps the pooled network: less than a quarter of sessions teaches nothing of its own.
MIN_SYMBOL_SAMPLES, MIN_SYMBOL_VALIDATION = 60, 10


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
    scope: Scope = "pooled"
    by_symbol: Mapping[str, tuple[EpochRecord, ...]] = field(
        default_factory=dict
    )  # of symbols with networks of their own


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
    scope: Scope = "pooled",
    resume: tuple[Checkpoints, str] | None = None,
) -> FitResult:
    """Build `entry` with `config` (its own config class) and find its weights.

    Same arguments, same bits on a CPU. on_progress is called after every epoch; without it a line per epoch is printed
    (a progress bar on a terminal). members: trained with seed, seed + 1, ... and joined as one ensemble. calibration: of
    p_up, a name of CALIBRATORS. scope: "symbol" trains a network for each symbol besides the pooled one. resume: where
    each epoch is kept, and the key of this very training; an interrupted one goes on after its last whole epoch and ends
    with the bits it would have had. Errors: InvalidConfigError (config, spec and scope do not fit), TrainingFailedError
    (interrupted, or a loss that is not a number); nothing is to be registered then.
    """
    started = time.monotonic()
    device = device or choose_device()
    problem = Problem(entry, config, spec, train, validation, training)
    if entry.fit_closed_form is not None:
        device = "cpu"
        if members > 1:
            raise InvalidConfigError(
                f"The ensemble of '{entry.name}'", ["ensemble: a model without epochs has 1 member"]
            )
    if scope == "symbol":
        _check_per_symbol(problem)
    require_compilable(entry, training)
    if training.devices > 1 and (members > 1 or scope == "symbol"):
        raise InvalidConfigError("The training", ["devices: several share one network; give 1 for many networks"])
    run = _Run(seed, members, device, on_progress, resume)
    with torch_threads(training.threads):
        network, pooled = _network(problem, run)
        by_symbol: dict[str, tuple[EpochRecord, ...]] = {}
        if scope == "symbol":
            network, by_symbol = _per_symbol(problem, run, network)
        module = network.to("cpu").eval()
        # Once more with the weights that are kept, on the device that will forecast.
        verdict = judge(forecast(module, validation), validation, spec, calibration)
    return FitResult(
        module=module,
        history=tuple(record for watch in pooled for record in watch.history),
        best_epoch=pooled[0].best_epoch,
        device=device,
        seconds=time.monotonic() - started,
        calibration=verdict.calibration,
        skill=verdict.skill,
        members=members,
        scope=scope,
        by_symbol=by_symbol,
    )


def forecast(module: nn.Module, windows: WindowSet) -> Float32Array:
    """[N,H,O] outputs of all rows of `windows`."""
    return forward_samples(module, windows)


@dataclass(frozen=True, slots=True)
class _Run:
    """What all networks of one fit share."""

    seed: int
    members: int
    device: Device
    on_progress: OnProgress | None
    resume: tuple[Checkpoints, str] | None


def _network(problem: Problem, run: _Run, label: str = "") -> tuple[nn.Module, list[Watch]]:
    """All members, trained and joined. label: of their checkpoints."""
    fitted = [_member(problem, run, k, label) for k in range(1, run.members + 1)]
    return joined([network for network, _ in fitted]), [watch for _, watch in fitted]


def _member(problem: Problem, run: _Run, member: int, label: str) -> tuple[nn.Module, Watch]:
    """The member'th network (from 1), trained, and what was seen of it."""
    training, spec = problem.training, problem.spec
    seed = run.seed + member - 1
    with _seeded(seed, run.device):
        network = _built(problem)
        objective = Objective.of(spec, training.losses, torch.from_numpy(problem.train.labels))
        watch = Watch(spec, problem.validation, training, objective, run.on_progress, member, run.members)
        solve = problem.entry.fit_closed_form
        if solve is not None:
            _solve(network, solve, problem, watch)
        else:
            slot = None if run.resume is None else Slot(run.resume[0], f"{label}member-{member}", run.resume[1])
            _descend(network, objective, problem, seed, run.device, watch, slot)
            network.load_state_dict(watch.best_weights)
    return network, watch


def _descend(
    network: nn.Module,
    objective: Objective,
    problem: Problem,
    seed: int,
    device: Device,
    watch: Watch,
    slot: Slot | None,
) -> None:
    """Training by gradients. Lightning takes ten seconds to import, which a closed form need not wait for."""
    from trading_core.training.gradient import train
    from trading_core.training.module import TrainingDataModule

    training = problem.training
    shares_rows = training.consecutive_dates and isinstance(network, PanelForward)
    data = TrainingDataModule(problem.train, problem.validation, training, seed, shares_rows)
    with network.compiled() if training.compile and isinstance(network, Compilable) else nullcontext():
        train(network, objective, data, device, watch, slot)


# --- one network per symbol -------------------------------------------------------------------------------------------


def _check_per_symbol(problem: Problem) -> None:
    """Errors: InvalidConfigError."""
    where = f"The scope 'symbol' of '{problem.entry.name}'"
    if "symbol" not in problem.train.spec.static:
        raise InvalidConfigError(where, ["static: must hold 'symbol', by which a sample finds its network"])
    if isinstance(_built(problem), HasFiles):
        raise InvalidConfigError(where, ["scope: this model keeps its state in files; only 'pooled' is possible"])


def _per_symbol(problem: Problem, run: _Run, pooled: nn.Module) -> tuple[PerSymbol, dict[str, tuple[EpochRecord, ...]]]:
    """The pooled network and one for each symbol of the vocabulary, and how their training went."""
    column = problem.train.spec.static.index("symbol")
    names, rows = problem.train.vocabulary.symbols, problem.train.scaled.panel.symbols
    networks, histories = [pooled], {}
    for name in names:
        at = rows.index(name) if name in rows else -1
        own = replace(problem, train=problem.train.of_symbol(at), validation=problem.validation.of_symbol(at))
        if len(own.train) < MIN_SYMBOL_SAMPLES or len(own.validation) < MIN_SYMBOL_VALIDATION:
            networks.append(deepcopy(pooled))
            continue
        network, watches = _network(own, run, label=f"{len(networks)}-")
        networks.append(network)
        histories[name] = tuple(record for watch in watches for record in watch.history)
    return PerSymbol(networks, column), histories


def _built(problem: Problem) -> nn.Module:
    try:
        return problem.entry.build(problem.config, problem.spec)
    except ValueError as error:  # each option is valid alone, but not with this spec
        raise InvalidConfigError(f"The architecture of '{problem.entry.name}'", [str(error)]) from error


@contextmanager
def _seeded(seed: int, device: Device) -> Iterator[None]:
    """Torch's random state set to `seed` inside and put back afterwards; deterministic kernels where they exist."""
    before = _determinism()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device == "cuda" else []):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            if (
                before != _determinism()
            ):  # the call imports torch's compiler: seconds that a closed form need not wait for
                torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _batches(windows: WindowSet) -> Batches:
    def batches() -> Iterator[Batch]:
        for rows in chunks(windows):
            batch = windows.gather(rows)
            x, static, y, labels = map(torch.from_numpy, (batch.x, batch.static, batch.y, batch.labels))
            yield x, static, y, labels

    return batches


def _solve(network: nn.Module, solve: FitClosedForm, problem: Problem, watch: Watch) -> None:
    """A closed form is one epoch."""
    watch.epochs = 1
    watch.start_epoch()
    try:
        solve(network, _batches(problem.train), _batches(problem.validation))
    except KeyboardInterrupt as error:
        raise TrainingFailedError("interrupted from the keyboard") from error
    train_loss = validation_loss(forecast(network, problem.train), problem.train, watch.objective)
    watch.end_epoch(train_loss, forecast(network, problem.validation), 0.0, weights={}, figures={})
