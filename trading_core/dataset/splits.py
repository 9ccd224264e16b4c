"""Chronological splits with a purge and an embargo between their parts.

The label of decision t is known at the open of column t + 1 + h. A part keeps t only when that column lies *strictly
before* the first decision column b of the part it is judged on: t + 1 + h <= b - 1. That drops the h + 1 decisions
b - h - 1 .. b - 1, and `embargo` more. (A label known at the open of b itself would be known at b's close; the strict
rule also lets the cut-off date be compared with `<`.) Source of purge and embargo: Lopez de Prado, Advances in
Financial Machine Learning (2018), chapter 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from trading_core.errors import InvalidConfigError, TooShortHistoryError
from trading_core.schema import DateArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Decision columns of each part, ascending, and `cutoff`: the session of the last label end that train or
    validation uses. The cut-off lies strictly before the first test decision."""

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
