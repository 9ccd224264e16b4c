"""Splits of the decisions in time, with a purge and an embargo between their parts.

The label of decision t is known at the open of column t + 1 + h. A part keeps t only when that column lies *strictly
before* the first decision column b of the part it is judged on: t + 1 + h <= b - 1. That drops the h + 1 decisions
b - h - 1 .. b - 1, and `embargo` more. (A label known at the open of b itself would be known at b's close; the strict
rule also lets the cut-off date be compared with `<`.)

`chronological` and `walk_forward` never learn from what comes after a test: what they score may be reported. Cross-
validation also learns from what comes after: it compares models on all of a history, and its models are never traded.
Where a training part follows a test part, the h + 1 decisions after the test are dropped too, since the test's last
labels run into them, and then `embargo` more.

Source of purge, embargo and combinatorial paths: Lopez de Prado, Advances in Financial Machine Learning (2018), chapters
7 and 12.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations

import numpy as np

from trading_core.errors import InvalidConfigError, TooShortHistoryError
from trading_core.schema import DateArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Decision columns of each part, ascending, and `cutoff`: the session of the last label end that train or
    validation uses. The cut-off lies strictly before the first test decision, except in a fold of a cross-validation."""

    train: IntArray
    validation: IntArray
    test: IntArray
    cutoff: date


def chronological(
    sessions: DateArray,
    test_start: date,
    max_horizon: int,
    validation_fraction: float = 0.1,
    embargo: int = 0,
    require_test: bool = True,
) -> Split:
    """Train | validation | test over all sessions; test decisions are every session from `test_start` on.

    sessions: [T] ascending datetime64[D]. max_horizon, embargo: in sessions. validation_fraction: share of the
    decisions usable before the test (rounded, at least 1) that validate. The last test decisions have no label yet.
    require_test=False allows an empty test, for a model that learns from all history up to the last session.
    Errors: InvalidConfigError, TooShortHistoryError when a part would be empty.
    """
    _check(max_horizon, validation_fraction, embargo)
    total = len(sessions)
    first = int(np.searchsorted(sessions, np.datetime64(test_start, "D")))
    if first >= total and require_test:
        raise TooShortHistoryError(f"A test part from {test_start} on", 0, 1)
    return _split(sessions, 0, first, total, max_horizon, validation_fraction, embargo)


def dated(
    sessions: DateArray, validation_start: date, test_start: date, test_end: date, max_horizon: int, embargo: int = 0
) -> Split:
    """Parts by date: test decisions lie in test_start .. test_end (both included), validation before it from
    `validation_start` on, training before that; purge and embargo at both borders.

    Errors: InvalidConfigError (dates not in this order), TooShortHistoryError when a part would be empty.
    """
    _check(max_horizon, 0.5, embargo)
    if not validation_start < test_start <= test_end:
        given = f"validation_start {validation_start}, test_start {test_start}, test_end {test_end}"
        raise InvalidConfigError("The split", [f"{given}: they must come in this order"])
    days = np.array([validation_start, test_start, test_end], dtype="datetime64[D]") + np.array([0, 0, 1])
    boundary, test, end = np.searchsorted(sessions, days).tolist()
    gap = max_horizon + 1 + embargo
    train, validation = np.arange(boundary - gap, dtype=np.int64), np.arange(boundary, test - gap, dtype=np.int64)
    if not len(train) or not len(validation) or test >= end:
        parts = f"train {len(train)}, validation {len(validation)}, test {max(end - test, 0)} sessions"
        raise TooShortHistoryError(
            f"A split at {validation_start} and {test_start} ({parts})", len(sessions), 2 * gap + 3
        )
    return Split(train, validation, np.arange(test, end, dtype=np.int64), sessions[test - embargo - 1].astype(object))


def walk_forward(
    sessions: DateArray,
    first_test: date,
    step: int,
    max_horizon: int,
    validation_fraction: float = 0.1,
    embargo: int = 0,
    expanding: bool = True,
    train_sessions: int | None = None,
) -> list[Split]:
    """One split per block of `step` test decisions from `first_test` to the last session (the last may be shorter).

    expanding: every fold learns from the first session on; otherwise from the last `train_sessions` decisions that may
    be used before its test (train, purge and validation together).
    Errors: InvalidConfigError, TooShortHistoryError when a part of any fold would be empty.
    """
    _check(max_horizon, validation_fraction, embargo)
    if step < 1:
        raise InvalidConfigError("The walk-forward split", [f"step: {step} is not allowed; give at least 1 session"])
    if not expanding and (train_sessions is None or train_sessions < 1):
        raise InvalidConfigError(
            "The walk-forward split", ["train_sessions: a rolling window needs its length in sessions, at least 1"]
        )
    total = len(sessions)
    first = int(np.searchsorted(sessions, np.datetime64(first_test, "D")))
    if first >= total:
        raise TooShortHistoryError(f"A walk-forward test from {first_test} on", 0, 1)
    splits = []
    for start in range(first, total, step):
        usable = start - (max_horizon + 1) - embargo
        begin = 0 if expanding or train_sessions is None else max(usable - train_sessions, 0)
        end = min(start + step, total)
        splits.append(_split(sessions, begin, start, end, max_horizon, validation_fraction, embargo))
    return splits


def first_of_last(sessions: DateArray, blocks: int, step: int) -> date:
    """The first session of the last `blocks` blocks of `step` sessions, where `walk_forward` is to begin.

    Errors: TooShortHistoryError when nothing would lie before it.
    """
    tested = blocks * step
    if tested >= len(sessions):
        raise TooShortHistoryError(f"{blocks} folds of {step}", len(sessions), tested + 1)
    first: date = sessions[-tested].astype(object)
    return first


# --- cross-validation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One split of a cross-validation: decision columns of each part, ascending, and the numbers of the tested groups.

    Neither the training nor the validation part touches a test label: no interval [t + 1, t + 1 + h] of one overlaps an
    interval of the other. Validation is the last stretch of what the test leaves over, training what lies before it.
    """

    train: IntArray
    validation: IntArray
    test: IntArray
    tested: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class CombinatorialFolds:
    """C(N, k) folds of N groups, of which each tests k, and the phi = k / N * C(N, k) = C(N-1, k-1) paths through them.

    groups: decision columns of each of the N groups. paths: [phi, N] int64; the forecasts of group g on path j are those
    of fold `paths[j, g]`, the j-th fold, in order, that tests g. Every (fold, tested group) is on exactly one path.
    """

    folds: tuple[Fold, ...]
    groups: tuple[IntArray, ...]
    paths: IntArray

    def assemble(self, values: Sequence[FloatArray]) -> FloatArray:
        """[phi, decisions, ...]: each path's values over all decisions, in order; values[f]: [len(folds[f].test), ...].

        Errors: InvalidConfigError when they are not one array per fold with one row per test decision.
        """
        found, wanted = [len(rows) for rows in values], [len(fold.test) for fold in self.folds]
        if found != wanted:
            raise InvalidConfigError(
                "The values of the folds", [f"rows of each: {found}; the test parts have {wanted}"]
            )
        pieces = [
            [values[f][np.searchsorted(self.folds[f].test, self.groups[g])] for g, f in enumerate(path)]
            for path in self.paths.tolist()
        ]
        return np.stack([np.concatenate(path) for path in pieces])


def combinatorial(
    sessions: DateArray,
    before: date,
    max_horizon: int,
    groups: int = 6,
    tested: int = 2,
    validation_fraction: float = 0.1,
    embargo: int = 0,
) -> CombinatorialFolds:
    """Combinatorial purged cross-validation over the decisions that may be used before a test from `before` on.

    sessions, max_horizon, validation_fraction (of each fold's decisions outside test, purge and embargo) and embargo: as
    in `chronological`. groups: N, consecutive and of equal size to one decision, the larger ones first; tested: k < N.
    Folds are in lexicographic order of their tested groups, as in the book's figure 12.1.
    Errors: InvalidConfigError, TooShortHistoryError when a part of any fold would be empty.
    """
    _check(max_horizon, validation_fraction, embargo)
    if not 1 <= tested < groups:
        raise InvalidConfigError(
            "The cross-validation",
            [f"{tested} of {groups} groups tested; give at least 2 groups and test fewer than all"],
        )
    purge = max_horizon + 1
    decisions = max(int(np.searchsorted(sessions, np.datetime64(before, "D"))) - purge - embargo, 0)
    parts = tuple(np.array_split(np.arange(decisions, dtype=np.int64), groups))
    chosen = list(combinations(range(groups), tested))
    folds = [_fold(parts, numbers, purge, embargo, validation_fraction) for numbers in chosen]
    if any(not len(part) for fold in folds for part in (fold.train, fold.validation, *parts)):
        # Enough, whichever groups are tested: one group between two tested ones then holds a fold's other two parts.
        left = math.ceil((purge + embargo + 2) / (1.0 - validation_fraction))
        need = groups * (left + 2 * purge + embargo) + purge + embargo
        raise TooShortHistoryError(f"A cross-validation of {groups} groups", decisions + purge + embargo, need)
    paths = np.array([[f for f, numbers in enumerate(chosen) if g in numbers] for g in range(groups)], dtype=np.int64)
    return CombinatorialFolds(tuple(folds), parts, paths.T)  # [N, phi] -> [phi, N]


def purged_k_fold(
    sessions: DateArray,
    before: date,
    max_horizon: int,
    folds: int = 5,
    validation_fraction: float = 0.1,
    embargo: int = 0,
) -> tuple[Fold, ...]:
    """Purged k-fold cross-validation with embargo: each of `folds` consecutive groups is tested once. Arguments and
    errors: see `combinatorial`."""
    return combinatorial(sessions, before, max_horizon, folds, 1, validation_fraction, embargo).folds


def _fold(
    groups: Sequence[IntArray], tested: tuple[int, ...], purge: int, embargo: int, validation_fraction: float
) -> Fold:
    """Everything outside the tested groups, their purge on both sides and the embargo after them, cut in two."""
    decisions = sum(len(group) for group in groups)
    free = np.ones(decisions, dtype=np.bool_)
    for group in (groups[number] for number in tested if len(groups[number])):
        free[max(int(group[0]) - purge, 0) : int(group[-1]) + 1 + purge + embargo] = False
    kept = np.flatnonzero(free).astype(np.int64)
    validation = kept[-max(1, round(validation_fraction * len(kept))) :]
    train = kept[kept < validation[0] - purge - embargo] if len(validation) else kept
    return Fold(train, validation, np.concatenate([groups[number] for number in tested]), tested)


# --- parts ------------------------------------------------------------------------------------------------------------


def _split(
    sessions: DateArray, begin: int, test: int, end: int, max_horizon: int, validation_fraction: float, embargo: int
) -> Split:
    """Parts inside begin .. end, with the first test decision at column `test`."""
    gap = max_horizon + 1 + embargo
    usable = test - gap  # one past the last decision that may validate
    validating = max(1, round(validation_fraction * (usable - begin)))
    boundary = usable - validating
    if boundary - gap <= begin:
        raise TooShortHistoryError(
            "A split into train, validation and test", max(test - begin, 0), 2 * gap + validating + 1
        )
    return Split(
        train=np.arange(begin, boundary - gap, dtype=np.int64),
        validation=np.arange(boundary, usable, dtype=np.int64),
        test=np.arange(test, end, dtype=np.int64),
        cutoff=sessions[usable - 1 + 1 + max_horizon].astype(object),
    )


def _check(max_horizon: int, validation_fraction: float, embargo: int) -> None:
    problems = []
    if max_horizon < 1:
        problems.append(f"max_horizon: {max_horizon} is not allowed; give at least 1 session")
    if not 0.0 < validation_fraction < 1.0:
        problems.append(f"validation_fraction: {validation_fraction} is not allowed; it lies between 0 and 1")
    if embargo < 0:
        problems.append(f"embargo: {embargo} is not allowed; give 0 or more sessions")
    if problems:
        raise InvalidConfigError("The split", problems)
