"""The search for better options: Optuna proposes, the caller measures, and the study outlives every process.

A study lies in a relational database as numbers and JSON; samplers and pruners are made anew by each process, so nothing is
ever unpickled. Any number of processes may work on one study, on one machine or on many, and may die at any moment.
Nothing of torch is loaded here: who opens a study need not be who trains.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from trading_core.errors import InvalidConfigError, TrainingFailedError
from trading_core.models.search import Choice, Real, SearchSpace, Value, Whole
from trading_core.training.workers import has_ended, this_worker

Pruner = Literal["median", "halving", "none"]
State = Literal["complete", "pruned", "failed", "running", "waiting", "lost"]
# (epoch, monitored value, whether it is the last epoch). Raises PrunedError when the trial is not worth going on with.
Report: TypeAlias = Callable[[int, float, bool], None]

# Of every model that is trained by gradients, beside what its own file says.
TRAINING_SEARCH: SearchSpace = {
    "learning_rate": Real(1e-4, 3e-2, log=True),
    "weight_decay": Real(1e-6, 1e-1, log=True),
    "dates_per_batch": Whole(1, 16, log=True),
}

HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60  # without a heartbeat; then a worker that cannot be seen from here counts as dead
POLL_SECONDS = 0.5
MAX_ATTEMPTS = 3  # a trial whose worker died that often is not tried again
# What is kept of a trial beside its options and values.
_WORKER, _ORIGIN, _ATTEMPT, _ERROR, _FACTS = "worker", "retry_of", "attempt", "error", "facts"


class PrunedError(Exception):
    """Carries "stop here" from a report through the training that reported."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one training showed. `value`: the objective, higher is better, NaN where it was never defined. facts: JSON."""

    value: float
    pruned: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


# (trial's number, its options, report) -> what it showed. InvalidConfigError, TrainingFailedError: these options fail.
Measure: TypeAlias = Callable[[int, dict[str, Value], Report], Measured]


@dataclass(frozen=True, slots=True)
class StudySpec:
    """What a study is about. `name` names it in the storage: whatever changes its results must change its name.

    space: each option's distribution, as `distributions` writes it. seed: of the proposals.
    """

    name: str
    space: Mapping[str, str]
    seed: int
    pruner: Pruner = "median"


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial. `value`: of a pruned one what it had reached. lost: its worker died, and another trial took its place."""

    number: int
    state: State
    value: float
    options: dict[str, Value]
    facts: dict[str, Any]
    error: str = ""


def distributions(space: SearchSpace) -> dict[str, str]:
    """Each range as Optuna's distribution, in Optuna's own JSON."""
    return {name: distribution_to_json(_distribution(found)) for name, found in space.items()}


def _distribution(found: Choice | Whole | Real) -> BaseDistribution:
    if isinstance(found, Choice):
        return CategoricalDistribution(found.values)
    if isinstance(found, Whole):
        return IntDistribution(found.low, found.high, log=found.log)
    return FloatDistribution(found.low, found.high, log=found.log)


def contains(space: SearchSpace, options: Mapping[str, Value]) -> bool:
    """Whether `options` names exactly the options of `space`, each within its range."""
    return options.keys() == space.keys() and all(_within(space[name], value) for name, value in options.items())


def _within(found: Choice | Whole | Real, value: Value) -> bool:
    if isinstance(found, Choice):
        return any(value == known and type(value) is type(known) for known in found.values)
    if isinstance(value, bool) or not isinstance(value, int if isinstance(found, Whole) else int | float):
        return False
    return found.low <= value <= found.high


class Study:
    """One search in its storage. Made by `open_study`."""

    def __init__(self, study: optuna.Study, storage: RDBStorage, spec: StudySpec) -> None:
        self._study, self._storage, self.spec = study, storage, spec
        self._space = {name: json_to_distribution(text) for name, text in spec.space.items()}
        self._met: set[int] = set()

    def begin_with(self, options: Mapping[str, Value]) -> None:
        """Makes `options` the first trial of a study that has none yet."""
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(dict(options))

    def rows(self) -> list[TrialRow]:
        """All trials by number, those that nobody has begun yet left out."""
        found = self._study.get_trials(deepcopy=False)
        return [_row(trial) for trial in found if trial.state != TrialState.WAITING]

    def done(self) -> int:
        """How many trials are complete, pruned or failed."""
        return _ended([row.state for row in self.rows()])

    def best(self) -> TrialRow | None:
        """The complete trial of the highest value, the earliest of equal ones; None while there is none."""
        complete = [row for row in self.rows() if row.state == "complete"]
        return max(complete, key=lambda row: (row.value, -row.number), default=None)

    def run(self, trials: int, measure: Measure, timeout: float | None = None) -> bool:
        """Works until the study holds `trials` trials that are complete, pruned or failed; True when it does.

        timeout: seconds after which no trial is begun any more. While others work on the last trials this waits for
        them, and takes over what a worker that dies leaves behind.
        """
        started = time.monotonic()
        while True:
            self._reclaim()
            states = [row.state for row in self.rows()]
            done = _ended(states)
            if done >= trials:
                return True
            if timeout is not None and time.monotonic() - started > timeout:
                return False
            if done + states.count("running") < trials:
                self._attempt(trials, measure)
            else:
                time.sleep(POLL_SECONDS)

    def _attempt(self, trials: int, measure: Measure) -> None:
        """One trial, from its options to its end."""
        trial = self._ask()
        if self._before(trial.number) >= trials:  # another worker took the last place in the same moment
            self._study.tell(trial, state=TrialState.FAIL)
            return
        with self._heartbeats(trial.number):
            try:
                measured = measure(trial.number, dict(trial.params), partial(_report, trial))
            except (InvalidConfigError, TrainingFailedError) as error:
                if was_interrupted(error):
                    self._give_back(trial.number)
                    raise
                trial.set_user_attr(_ERROR, str(error))
                self._tell(trial, TrialState.FAIL)
            except BaseException:  # not these options' fault: somebody else shall try them again
                self._give_back(trial.number)
                raise
            else:
                self._keep(trial, measured)

    def _keep(self, trial: optuna.Trial, measured: Measured) -> None:
        trial.set_user_attr(_FACTS, dict(measured.facts))
        if measured.pruned:
            self._tell(trial, TrialState.PRUNED)
        elif math.isfinite(measured.value):
            self._tell(trial, TrialState.COMPLETE, measured.value)
        else:
            trial.set_user_attr(_ERROR, "the value was not defined in any epoch (all forecasts of a session are equal)")
            self._tell(trial, TrialState.FAIL)

    def _tell(self, trial: optuna.Trial, state: TrialState, value: float | None = None) -> None:
        # Others may have given up on this worker while its machine slept; then their answer stands.
        told = self._study.tell(trial, value, state, skip_if_finished=True)
        shown = "" if told.value is None else f"  {told.value:+.5f}"
        options = "  ".join(f"{name.partition('.')[2]}={_short(value)}" for name, value in told.params.items())
        print(f"trial {told.number}  {state.name.lower()}{shown}  {options}", flush=True)

    def _ask(self) -> optuna.Trial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that heartbeats are the caller's business here: see `_heartbeats`
            trial = self._study.ask(dict(self._space))
        trial.set_user_attr(_WORKER, this_worker())
        return trial

    def _before(self, number: int) -> int:
        """How many trials that count have a smaller number."""
        return sum(row.state != "lost" and row.number < number for row in self.rows())

    @contextmanager
    def _heartbeats(self, number: int) -> Iterator[None]:
        """Says that the trial's worker lives, again and again, while the block runs."""
        over, trial_id = threading.Event(), self._id(number)

        def beat() -> None:
            while not over.wait(HEARTBEAT_SECONDS):
                self._storage.record_heartbeat(trial_id)

        self._storage.record_heartbeat(trial_id)
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(self.spec.name)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)

    def _reclaim(self) -> None:
        """Gives back the trials of workers that are gone: at once where that can be seen, else by their last heartbeat."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get(_WORKER)
            if worker and has_ended(worker):
                self._give_back(trial.number)
            elif worker is None and trial.number not in self._met:
                # It may have died before it could say who it is: it is given a first heartbeat, from which it ages.
                self._met.add(trial.number)
                self._storage.record_heartbeat(self._id(trial.number))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)

    def _give_back(self, number: int) -> None:
        if self._storage.get_trial(self._id(number)).state == TrialState.RUNNING:
            self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            _retry(self._study, self._storage.get_trial(self._id(number)))


def _ended(states: Sequence[State]) -> int:
    return sum(state in ("complete", "pruned", "failed") for state in states)


def open_study(url: str, spec: StudySpec) -> Study:
    """The study of `spec` in the database at `url` (any URL of SQLAlchemy), made when it is not there.

    Errors: InvalidConfigError when the database cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        place = make_url(url)
        sqlite = place.get_backend_name() == "sqlite"
        if sqlite and place.database:
            Path(place.database).parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = RDBStorage(
                url,
                # Workers wait for each other's commits; each takes milliseconds.
                engine_kwargs={"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=_retry,
            )
        study = optuna.create_study(
            storage=storage,
            study_name=spec.name,
            sampler=_Proposals(spec.seed),
            pruner=_pruner(spec.pruner),
            direction="maximize",
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidConfigError("TRADING_TUNING_URL", [f"the database cannot be opened: {reason}"]) from error
    return Study(study, storage, spec)


class _Proposals(BaseSampler):
    """TPE whose random numbers follow from the seed and the trial's place, not from which process asks how often.

    Optuna's own sampler starts from its seed in every process, so a resumed search would propose its first trials again.
    A retry has the place of the trial that it stands for: interrupted or not, a search goes the same way.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self._of, self._tpe = seed, -1, TPESampler(seed=seed)

    def _sampler(self, study: optuna.Study, trial: FrozenTrial) -> TPESampler:
        if self._of != trial.number:
            origin = trial.user_attrs.get(_ORIGIN, trial.number)
            earlier = [t for t in study.get_trials(deepcopy=False) if t.number < origin and _ORIGIN not in t.user_attrs]
            seed = int(np.random.SeedSequence([self._seed, len(earlier)]).generate_state(1)[0])
            self._of, self._tpe = trial.number, TPESampler(seed=seed)
        return self._tpe

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler(study, trial).sample_independent(study, trial, param_name, param_distribution)


def _pruner(name: Pruner) -> BasePruner:
    """median: below the median of the complete trials at the same epoch, once there are four, from the second epoch on.

    halving: only the best third goes on past epochs 1, 3, 9 ... (asynchronous successive halving, Li et al. 2020).
    """
    if name == "median":
        return MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    if name == "halving":
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return NopPruner()


def _report(trial: optuna.Trial, epoch: int, value: float, last: bool) -> None:
    if math.isfinite(value):
        trial.report(value, epoch)
        if not last and trial.should_prune():  # nothing is saved by pruning what is done
            raise PrunedError


def _retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Puts the options of a trial whose worker died back in the queue, where the next worker takes them first."""
    attempt = trial.user_attrs.get(_ATTEMPT, 1)
    if attempt >= MAX_ATTEMPTS:
        return
    whole = _WORKER in trial.user_attrs  # it has taken all of its options
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params if whole else {},
            distributions=trial.distributions if whole else {},
            user_attrs={_ORIGIN: trial.user_attrs.get(_ORIGIN, trial.number), _ATTEMPT: attempt + 1},
            # What the first trial was told to take.
            system_attrs={key: value for key, value in trial.system_attrs.items() if key == "fixed_params"},
        )
    )


def was_interrupted(error: BaseException) -> bool:
    """Whether a training ended because somebody stopped it (Ctrl-C, SIGTERM), not because of its options."""
    return isinstance(error.__cause__, BaseException) and not isinstance(error.__cause__, Exception)


def _row(trial: FrozenTrial) -> TrialRow:
    error = trial.user_attrs.get(_ERROR, "")
    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
        TrialState.FAIL: "failed" if error else "lost",
    }
    reached = max(trial.intermediate_values.values(), default=math.nan)
    value = reached if trial.state != TrialState.COMPLETE or trial.value is None else trial.value
    facts = trial.user_attrs.get(_FACTS, {})
    return TrialRow(trial.number, states[trial.state], value, dict(trial.params), facts, error)


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
