"""Scaling against sklearn's StandardScaler, and what it learns from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.preprocessing import RobustScaler, StandardScaler

from trading_core.dataset.scaling import Scaler
from trading_core.errors import InvalidConfigError, NoDataError

NAMES = ("a", "b", "c")


def _values(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal([0.0, 100.0, -3.0], [1.0, 25.0, 0.01], (6, 40, 3)).astype(np.float32)
    values[0, :10] = np.nan  # no bar: says nothing about a mask
    values[2, 5:9, 1] = np.nan  # b is missing although the symbol trades
    return values


def test_moments_equal_sklearns_over_the_training_columns() -> None:
    values, train = _values(), np.arange(25)
    scaler = Scaler.fit(values, NAMES, train)
    reference = StandardScaler().fit(values[:, :25].reshape(-1, 3).astype(np.float64))
    np.testing.assert_allclose(scaler.mean, reference.mean_, rtol=1e-12)
    np.testing.assert_allclose(scaler.std, reference.scale_, rtol=1e-9)
    channels = scaler.apply_panel(values)
    expected = np.clip(np.nan_to_num(reference.transform(values.reshape(-1, 3).astype(np.float64))), -5, 5)
    np.testing.assert_allclose(channels[:, :, :3].reshape(-1, 3), expected, atol=1e-5)


def test_only_training_columns_are_read() -> None:
    values = _values()
    other = values.copy()
    other[:, 25:] = 1e6
    assert Scaler.fit(values, NAMES, np.arange(25)) == Scaler.fit(other, NAMES, np.arange(25))


def test_masks_mark_what_was_missing() -> None:
    values = _values()
    scaler = Scaler.fit(values, NAMES, np.arange(25))
    assert scaler.masked == ("b",)
    assert scaler.channels == ("a", "b", "c", "b__missing")
    channels = scaler.apply_panel(values)
    assert channels.dtype == np.float32
    assert channels.flags.c_contiguous
    np.testing.assert_array_equal(channels[2, 4:10, 3], [0, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(channels[0, :10], np.tile([0.0, 0.0, 0.0, 1.0], (10, 1)))
    # 4 of 140 rows that exist miss b: not above a twentieth
    assert Scaler.fit(values, NAMES, np.arange(25), mask_above=0.05).masked == ()


def test_clip_and_constant_features() -> None:
    values = np.zeros((1, 4, 2), dtype=np.float32)
    values[0, :, 0] = [1.0, -1.0, 1.0, -1.0]
    values[0, :, 1] = 0.1  # constant: the mean of equal float32 numbers must not leave a tiny deviation
    scaler = Scaler.fit(values, ("x", "k"), np.arange(4))
    assert scaler.mean == (0.0, float(np.float32(0.1)))
    assert scaler.std == (1.0, 1.0)
    channels = scaler.apply_panel(np.array([[[70.0, 0.1], [-70.0, 0.1], [2.0, np.inf]]], dtype=np.float32))
    np.testing.assert_array_equal(channels[0], [[5.0, 0.0], [-5.0, 0.0], [2.0, 0.0]])


def test_any_slice_gives_the_same_bits() -> None:
    values = _values()
    scaler = Scaler.fit(values, NAMES, np.arange(25))
    whole = scaler.apply_panel(values)
    np.testing.assert_array_equal(scaler.apply_panel(values[3:4, 17:18]), whole[3:4, 17:18])


def test_json_round_trip_is_exact() -> None:
    scaler = Scaler.fit(_values(3), NAMES, np.arange(30))
    assert Scaler.from_json(scaler.to_json()) == scaler
    assert Scaler.from_json(Scaler(("x",), (0.1 + 0.2,), (1 / 3,), (), 4.0).to_json()).mean == (0.30000000000000004,)
    for text in ("{}", "nonsense", scaler.to_json().replace('"a"', '"a", "d"')):
        with pytest.raises(InvalidConfigError, match="stored scaler"):
            Scaler.from_json(text)


def test_a_feature_without_values_is_refused() -> None:
    values = _values()
    values[:, :25, 2] = np.nan
    with pytest.raises(NoDataError, match="Feature 'c' has no value in the 25 training sessions"):
        Scaler.fit(values, NAMES, np.arange(25))
    with pytest.raises(InvalidConfigError, match="2 feature names for 3 features"):
        Scaler.fit(values, ("a", "b"), np.arange(25))
    with pytest.raises(InvalidConfigError, match="fitted on 3"):
        Scaler.fit(_values(), NAMES, np.arange(25)).apply_panel(values[:, :, :2])


def test_robust_equals_sklearns_and_hardly_feels_a_wild_value() -> None:
    values, train = _values(), np.arange(25)
    scaler = Scaler.fit(values, NAMES, train, kind="robust")
    reference = RobustScaler(unit_variance=True).fit(values[:, :25].reshape(-1, 3).astype(np.float64))
    np.testing.assert_allclose(scaler.mean, reference.center_, rtol=1e-12)
    np.testing.assert_allclose(scaler.std, reference.scale_, rtol=1e-9)
    wild = values.copy()
    wild[1, 3, 0] = 1e6
    assert abs(Scaler.fit(wild, NAMES, train, kind="robust").std[0] / scaler.std[0] - 1.0) < 0.05
    assert Scaler.fit(wild, NAMES, train).std[0] > 1000.0


def test_robust_falls_back_where_half_of_all_values_are_the_same() -> None:
    values = np.zeros((1, 8, 2), dtype=np.float32)
    values[0, 0, 0] = 8.0  # seven zeros and an eight: no interquartile range, standard deviation sqrt(7)
    scaler = Scaler.fit(values, ("x", "k"), np.arange(8), kind="robust")
    assert scaler.mean == (0.0, 0.0)
    np.testing.assert_allclose(scaler.std, (np.sqrt(7.0), 1.0))


def test_the_kind_is_stored() -> None:
    robust = Scaler(("x",), (0.5,), (2.0,), (), 5.0, "robust")
    assert Scaler.from_json(robust.to_json()) == robust


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"robust"', '"minmax"', r"kind: 'minmax' is not known; known are zscore, robust"),
        ('"kind": "robust", ', "", "KeyError: 'kind'"),
        ("{", '{"__class__": "os", "by": 1, ', "unknown keys __class__, by"),
        ("0.5", "Infinity", "must be finite"),
        ("2.0", "NaN", "must be finite"),
        ("2.0", "1" + "0" * 400, "OverflowError"),
        ("2.0", "0.0", "std and clip positive"),
        ("5.0", "-1.0", "std and clip positive"),
    ],
)
def test_a_stored_scaler_is_read_strictly(old: str, new: str, reason: str) -> None:
    text = Scaler(("x",), (0.5,), (2.0,), (), 5.0, "robust").to_json()
    assert old in text
    with pytest.raises(InvalidConfigError, match=reason):
        Scaler.from_json(text.replace(old, new))


def test_the_normal_interquartile_range() -> None:
    from trading_core.dataset.scaling import IQR_OF_NORMAL

    assert abs(2.0 * norm.ppf(0.75) - IQR_OF_NORMAL) < 1e-15
