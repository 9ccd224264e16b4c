"""Splits by brute force: every label that trains or validates is known before the first decision it is judged on."""

from __future__ import annotations

from datetime import date
from itertools import product

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from trading_core.dataset.splits import Split, chronological, dated, walk_forward
from trading_core.errors import InvalidConfigError, TooShortHistoryError

SESSIONS = np.busday_offset("2020-01-01", np.arange(120), roll="forward").astype("datetime64[D]")


def _day(column: int) -> date:
    return SESSIONS[column].astype(object)


def _label_sessions(decisions: np.ndarray, h: int) -> list[date]:
    """The session whose open ends each label, counted one session at a time: enter at the next, hold h."""
    ends = []
    for t in decisions:
        column = int(t) + 1  # the open of T
        for _ in range(h):
            column += 1
        ends.append(_day(column))
    return ends


def _prove(split: Split, max_horizon: int, test_start: date) -> None:
    parts = [split.train, split.validation, split.test]
    assert all(len(part) for part in parts)
    assert all((np.diff(part) == 1).all() for part in parts)
    for h in range(1, max_horizon + 1):
        assert all(end < _day(int(split.validation[0])) for end in _label_sessions(split.train, h))
        assert all(end < _day(int(split.test[0])) for end in _label_sessions(split.validation, h))
        assert all(end < _day(int(split.test[0])) for end in _label_sessions(split.train, h))
    used = _label_sessions(np.concatenate([split.train, split.validation]), max_horizon)
    assert split.cutoff == max(used)
    assert split.cutoff < _day(int(split.test[0]))
    assert _day(int(split.test[0])) >= test_start


@pytest.mark.parametrize(("horizon", "embargo", "fraction"), list(product((1, 2, 5, 10), (0, 3), (0.05, 0.3))))
def test_no_label_reaches_the_part_it_is_judged_on(horizon: int, embargo: int, fraction: float) -> None:
    for first in (70, 71, 119):
        split = chronological(SESSIONS, _day(first), horizon, fraction, embargo)
        _prove(split, horizon, _day(first))
        assert split.test.tolist() == list(range(first, 120))


def test_exactly_h_plus_1_decisions_are_purged_and_embargo_more() -> None:
    split = chronological(SESSIONS, _day(100), 5, 0.1)
    assert split.validation[-1] == 93  # 94 .. 99 purged: 6 = h + 1; its label ends at the open of 99
    assert split.validation[0] - split.train[-1] - 1 == 6
    assert len(split.validation) == 9  # a tenth of the 94 usable decisions, rounded
    assert split.cutoff == _day(99)
    wider = chronological(SESSIONS, _day(100), 5, 0.1, embargo=4)
    assert wider.validation[-1] == 89
    assert wider.validation[0] - wider.train[-1] - 1 == 10
    assert wider.cutoff == _day(95)


def test_a_test_start_between_sessions_begins_at_the_next_one() -> None:
    saturday = date(2020, 2, 1)
    assert saturday not in SESSIONS.tolist()
    split = chronological(SESSIONS, saturday, 1)
    assert _day(int(split.test[0])) == date(2020, 2, 3)


def test_a_model_may_learn_from_all_history() -> None:
    split = chronological(SESSIONS, date(2030, 1, 1), 5, require_test=False)
    assert len(split.test) == 0
    assert split.validation[-1] == 120 - 6 - 1
    assert split.cutoff == _day(119)  # known at the last session's open, before any decision after it
    with pytest.raises(TooShortHistoryError):
        chronological(SESSIONS, date(2030, 1, 1), 5)


@pytest.mark.parametrize(("horizon", "embargo"), list(product((1, 5), (0, 3))))
def test_parts_by_date_look_never_ahead(horizon: int, embargo: int) -> None:
    split = dated(SESSIONS, _day(60), _day(90), _day(109), horizon, embargo)
    _prove(split, horizon, _day(90))
    assert split.train.tolist() == list(range(60 - horizon - 1 - embargo))
    assert split.validation.tolist() == list(range(60, 90 - horizon - 1 - embargo))
    assert split.test.tolist() == list(range(90, 110))


def test_dates_between_sessions_begin_at_the_next_one_and_end_at_the_last_before() -> None:
    # 2020-05-02 is a Saturday, 2020-06-06 too; 2020-06-14 a Sunday.
    split = dated(SESSIONS, date(2020, 5, 2), date(2020, 6, 6), date(2020, 6, 14), 1)
    days = SESSIONS.astype(object)
    assert days[split.validation[0]] == date(2020, 5, 4)
    assert (days[split.test[0]], days[split.test[-1]]) == (date(2020, 6, 8), date(2020, 6, 12))


def test_parts_by_date_that_are_empty_or_in_no_order_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="must come in this order"):
        dated(SESSIONS, _day(90), _day(60), _day(109), 1)
    with pytest.raises(TooShortHistoryError, match="train 0"):
        dated(SESSIONS, _day(2), _day(60), _day(109), 1)
    with pytest.raises(TooShortHistoryError, match="validation 0"):
        dated(SESSIONS, _day(60), _day(62), _day(109), 1)
    with pytest.raises(TooShortHistoryError, match="test 0"):
        dated(SESSIONS, _day(60), date(2030, 1, 1), date(2030, 2, 1), 1)


@pytest.mark.parametrize("expanding", [True, False])
def test_walk_forward_covers_each_test_session_once_and_looks_never_ahead(expanding: bool) -> None:
    splits = walk_forward(SESSIONS, _day(60), 25, 3, 0.2, 2, expanding, None if expanding else 40)
    assert [len(split.test) for split in splits] == [25, 25, 10]
    assert np.concatenate([split.test for split in splits]).tolist() == list(range(60, 120))
    for split in splits:
        _prove(split, 3, _day(60))
        usable = split.test[0] - 6
        assert split.train[0] == (0 if expanding else usable - 40)
        assert split.validation[-1] == usable - 1


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    first=st.integers(30, 119),
    horizon=st.integers(1, 12),
    embargo=st.integers(0, 8),
    fraction=st.floats(0.01, 0.9),
    step=st.integers(1, 60),
    window=st.one_of(st.none(), st.integers(20, 90)),
)
def test_whatever_the_numbers_no_split_looks_ahead(
    first: int, horizon: int, embargo: int, fraction: float, step: int, window: int | None
) -> None:
    try:
        splits = [chronological(SESSIONS, _day(first), horizon, fraction, embargo)]
        splits += walk_forward(SESSIONS, _day(first), step, horizon, fraction, embargo, window is None, window)
    except TooShortHistoryError:
        reject()
    for split in splits:
        _prove(split, horizon, _day(first))
        assert split.validation[0] - split.train[-1] > horizon + 1 + embargo
        assert split.test[0] - split.validation[-1] > horizon + 1 + embargo


def test_too_little_history_and_wrong_numbers_are_refused() -> None:
    with pytest.raises(TooShortHistoryError, match="train, validation and test needs at least 14"):
        chronological(SESSIONS, _day(10), 5)
    assert len(chronological(SESSIONS, _day(14), 5).train) == 1  # the number the message names is enough
    with pytest.raises(TooShortHistoryError):
        chronological(SESSIONS, _day(13), 5)
    with pytest.raises(InvalidConfigError, match="max_horizon: 0"):
        chronological(SESSIONS, _day(100), 0)
    with pytest.raises(InvalidConfigError, match=r"validation_fraction: 1\.0"):
        chronological(SESSIONS, _day(100), 1, 1.0)
    with pytest.raises(InvalidConfigError, match="embargo: -1"):
        chronological(SESSIONS, _day(100), 1, embargo=-1)
    with pytest.raises(InvalidConfigError, match="step: 0"):
        walk_forward(SESSIONS, _day(100), 0, 1)
    with pytest.raises(InvalidConfigError, match="train_sessions"):
        walk_forward(SESSIONS, _day(100), 10, 1, expanding=False)
    with pytest.raises(TooShortHistoryError):
        walk_forward(SESSIONS, date(2030, 1, 1), 10, 1)
