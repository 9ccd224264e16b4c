"""Purged k-fold and combinatorial cross-validation: by hand, against the book's example, and label by label."""

from __future__ import annotations

from datetime import date
from math import comb

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from trading_core.dataset.splits import Fold, combinatorial, purged_k_fold
from trading_core.errors import InvalidConfigError, TooShortHistoryError

SESSIONS = np.busday_offset("2020-01-01", np.arange(150), roll="forward").astype("datetime64[D]")
AFTER_ALL = date(2030, 1, 1)


def _day(column: int) -> date:
    return SESSIONS[column].astype(object)


def _opens(decisions: np.ndarray, h: int) -> set[int]:
    """The columns whose opens the labels of these decisions span: t + 1 .. t + 1 + h, counted one by one."""
    return {int(t) + 1 + step for t in decisions for step in range(h + 1)}


def _prove(fold: Fold, h: int, embargo: int) -> None:
    tested, validated = _opens(fold.test, h), _opens(fold.validation, h)
    for part in (fold.train, fold.validation):
        assert len(part)
        assert not _opens(part, h) & tested
        # Nor does a test label end, or a label of this part begin, at the open before the other's decision is made.
        assert not {int(t) for t in part} & tested
        assert not {int(t) for t in fold.test} & _opens(part, h)
        for t in part.tolist():
            earlier = [end for end in tested if end < t]
            assert not earlier or t - max(earlier) > embargo
    assert not _opens(fold.train, h) & validated
    assert fold.train[-1] + 1 + h + embargo < fold.validation[0]


def test_three_folds_by_hand() -> None:
    """20 sessions, h = 1: decisions 0 .. 17 have labels before session 20; 6 to a group, 2 purged on each side."""
    first, second, third = purged_k_fold(SESSIONS[:20], AFTER_ALL, 1, 3, 0.25)
    assert [fold.tested for fold in (first, second, third)] == [(0,), (1,), (2,)]
    assert first.test.tolist() == [0, 1, 2, 3, 4, 5]
    # free of the test: 8 .. 17; a quarter of these 10 validates, rounded to 2; 2 purged before it
    assert (first.train.tolist(), first.validation.tolist()) == ([8, 9, 10, 11, 12, 13], [16, 17])
    assert second.test.tolist() == [6, 7, 8, 9, 10, 11]
    # free: 0 .. 3 and 14 .. 17; 2 of 8 validate; 14 and 15 are purged before them
    assert (second.train.tolist(), second.validation.tolist()) == ([0, 1, 2, 3], [16, 17])
    assert third.test.tolist() == [12, 13, 14, 15, 16, 17]
    # free: 0 .. 9
    assert (third.train.tolist(), third.validation.tolist()) == ([0, 1, 2, 3, 4, 5], [8, 9])


def test_an_embargo_follows_the_test_by_hand() -> None:
    """Embargo 2: decisions 0 .. 15, groups 6, 5, 5. The first group's labels reach the open of 7 = 5 + 1 + h."""
    first, second, _ = purged_k_fold(SESSIONS[:20], AFTER_ALL, 1, 3, 0.1, embargo=2)
    assert first.test.tolist() == [0, 1, 2, 3, 4, 5]
    assert (first.train.tolist(), first.validation.tolist()) == (
        [10],
        [15],
    )  # 6, 7 purged, 8, 9 embargoed; 11 .. 14 too
    assert second.test.tolist() == [6, 7, 8, 9, 10]
    assert (second.train.tolist(), second.validation.tolist()) == (
        [0, 1, 2, 3],
        [15],
    )  # 11, 12 purged, 13, 14 embargoed


def test_the_test_that_follows_is_left_alone() -> None:
    """Nothing of a cross-validation before session b knows a label that ends at b or later."""
    for b, h, embargo in ((100, 5, 0), (120, 2, 3)):
        folds = purged_k_fold(SESSIONS, _day(b), h, 4, embargo=embargo)
        used = np.concatenate([part for fold in folds for part in (fold.train, fold.validation, fold.test)])
        assert max(_opens(used, h)) == b - 1 - embargo
        assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(b - h - 1 - embargo))


def test_six_groups_two_tested_is_the_books_example() -> None:
    """Lopez de Prado (2018), section 12.4.1: 15 splits, 5 paths; figure 12.2 says what path 1 and path 2 are made of."""
    made = combinatorial(SESSIONS, AFTER_ALL, 2, 6, 2)
    assert len(made.folds) == 15
    assert made.paths.shape == (5, 6)
    # (G1,S1) (G2,S1) (G3,S2) (G4,S3) (G5,S4) (G6,S5), and (G1,S2) (G2,S6) (G3,S6) (G4,S7) (G5,S8) (G6,S9)
    assert (made.paths[0] + 1).tolist() == [1, 1, 2, 3, 4, 5]
    assert (made.paths[1] + 1).tolist() == [2, 6, 6, 7, 8, 9]
    assert made.folds[0].tested == (0, 1)
    assert made.folds[14].tested == (4, 5)


@pytest.mark.parametrize(("groups", "tested"), [(4, 1), (4, 2), (5, 3), (6, 5)])
def test_every_tested_group_is_on_exactly_one_path(groups: int, tested: int) -> None:
    made = combinatorial(SESSIONS, AFTER_ALL, 1, groups, tested)
    assert len(made.folds) == comb(groups, tested)
    assert len(made.paths) == tested * comb(groups, tested) // groups  # phi = k / N * C(N, k)
    on_paths = [(f, g) for path in made.paths.tolist() for g, f in enumerate(path)]
    assert sorted(on_paths) == sorted((f, g) for f, fold in enumerate(made.folds) for g in fold.tested)


def test_paths_are_assembled_group_by_group() -> None:
    """Each fold forecasts 1000 * its number + the decision: a path shows which fold spoke at every decision."""
    made = combinatorial(SESSIONS[:40], AFTER_ALL, 1, 4, 2)
    values = [1000.0 * f + fold.test for f, fold in enumerate(made.folds)]
    paths = made.assemble(values)
    assert paths.shape == (3, 38)
    np.testing.assert_array_equal(paths % 1000, np.tile(np.arange(38.0), (3, 1)))
    sizes = [10, 10, 9, 9]
    # folds: 0 = groups 0 1, 1 = 0 2, 2 = 0 3, 3 = 1 2, 4 = 1 3, 5 = 2 3
    for row, speakers in zip(paths, [[0, 0, 1, 2], [1, 3, 3, 4], [2, 4, 5, 5]], strict=True):
        np.testing.assert_array_equal(row // 1000, np.repeat(speakers, sizes))
    pairs = made.assemble([np.stack([value, -value], axis=1) for value in values])
    np.testing.assert_array_equal(pairs, np.stack([paths, -paths], axis=2))
    with pytest.raises(InvalidConfigError, match="rows of each"):
        made.assemble(values[:-1])
    with pytest.raises(InvalidConfigError, match="rows of each"):
        made.assemble([value[1:] for value in values])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    horizon=st.integers(1, 8),
    embargo=st.integers(0, 6),
    fraction=st.floats(0.01, 0.6),
    groups=st.integers(2, 6),
    data=st.data(),
)
def test_whatever_the_numbers_no_label_overlaps_a_test_label(
    horizon: int, embargo: int, fraction: float, groups: int, data: st.DataObject
) -> None:
    tested = data.draw(st.integers(1, groups - 1))
    try:
        made = combinatorial(SESSIONS, _day(140), horizon, groups, tested, fraction, embargo)
    except TooShortHistoryError:
        reject()
    for fold in made.folds:
        _prove(fold, horizon, embargo)
        np.testing.assert_array_equal(fold.test, np.concatenate([made.groups[g] for g in fold.tested]))


def test_no_more_is_dropped_than_purge_and_embargo() -> None:
    """Every decision outside the test is trained on, validated on, purged or embargoed, and for a reason."""
    h, embargo = 3, 2
    made = combinatorial(SESSIONS, AFTER_ALL, h, 5, 2, 0.1, embargo)
    for fold in made.folds:
        near = {int(t) + step for t in fold.test for step in range(-h - 1, h + 1 + embargo + 1)}
        before = {int(fold.validation[0]) - step for step in range(1, h + 1 + embargo + 1)}
        dropped = set(range(sum(map(len, made.groups)))) - set(fold.train.tolist()) - set(fold.validation.tolist())
        assert dropped <= near | before


def test_wrong_numbers_and_too_little_history_are_refused() -> None:
    for groups, tested in ((3, 3), (3, 0), (1, 1)):
        with pytest.raises(InvalidConfigError, match=f"{tested} of {groups} groups"):
            combinatorial(SESSIONS, AFTER_ALL, 1, groups, tested)
    with pytest.raises(InvalidConfigError, match="max_horizon: 0"):
        purged_k_fold(SESSIONS, AFTER_ALL, 0)
    for groups, tested, h, embargo in ((5, 1, 5, 0), (4, 2, 3, 4), (6, 3, 1, 1)):
        with pytest.raises(TooShortHistoryError, match=f"of {groups} groups") as refused:
            combinatorial(SESSIONS[:14], AFTER_ALL, h, groups, tested, 0.2, embargo)
        assert refused.value.have == 14
        enough = np.arange(refused.value.need).astype("datetime64[D]")  # the number the message names is enough
        for fold in combinatorial(enough, AFTER_ALL, h, groups, tested, 0.2, embargo).folds:
            _prove(fold, h, embargo)
    with pytest.raises(TooShortHistoryError):
        purged_k_fold(SESSIONS, date(2000, 1, 1), 5)
