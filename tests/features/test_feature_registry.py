"""Adding a feature, and the fingerprint of a formula."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from trading_core.errors import InvalidConfigError, MissingColumnsError, UnknownNameError
from trading_core.features import kernels, registry
from trading_core.features.kernels import change, ewm_window
from trading_core.features.registry import FEATURES, BarBlock, feature, get
from trading_core.schema import FloatArray


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    before = dict(FEATURES)
    yield
    FEATURES.clear()
    FEATURES.update(before)


def _one() -> None:
    @feature(family="mine", inputs=("close",), lookback=2, unit="simple return")
    def my_ret(bars: BarBlock) -> FloatArray:
        """Return over two sessions."""
        return change(bars.close, 2)


def _commented() -> None:
    @feature(family="another", inputs=("close",), lookback=2, unit="%")
    def my_ret(bars: BarBlock) -> FloatArray:
        """Another text.

        Formula: the same.
        """
        # a comment
        return change(
            bars.close,
            2,
        )


def _other_formula() -> None:
    @feature(family="mine", inputs=("close",), lookback=2, unit="simple return")
    def my_ret(bars: BarBlock) -> FloatArray:
        """Return over two sessions."""
        return change(bars.close, 1)


def _other_lookback() -> None:
    @feature(family="mine", inputs=("close",), lookback=3, unit="simple return")
    def my_ret(bars: BarBlock) -> FloatArray:
        """Return over two sessions."""
        return change(bars.close, 2)


def _fingerprint(define: Callable[[], None]) -> str:
    FEATURES.pop("my_ret", None)
    define()
    return get("my_ret").fingerprint


def test_a_feature_is_one_function() -> None:
    _one()
    added = get("my_ret")
    assert (added.family, added.inputs, added.lookback, added.unit) == ("mine", ("close",), 2, "simple return")
    assert added.description == "Return over two sessions"


def test_fingerprint_is_of_the_formula_only() -> None:
    """Text, unit, family, comments and layout are not part of it; arithmetic and lookback are."""
    assert re.fullmatch("[0-9a-f]{16}", _fingerprint(_one))
    assert _fingerprint(_commented) == _fingerprint(_one)
    assert _fingerprint(_other_formula) != _fingerprint(_one)
    assert _fingerprint(_other_lookback) != _fingerprint(_one)


def test_fingerprint_reaches_kernels_and_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    before = get("rsi_14").fingerprint
    assert get("rsi_14").fingerprint == before
    registry._code_of.cache_clear()
    monkeypatch.setattr(kernels, "TRUNCATED_WEIGHT", 1e-8)
    changed = get("rsi_14").fingerprint
    untouched = get("ret_1").fingerprint
    monkeypatch.undo()
    registry._code_of.cache_clear()
    assert changed != before
    assert get("ret_1").fingerprint == untouched
    assert get("rsi_14").fingerprint == before


def test_fingerprint_is_the_same_in_another_process() -> None:
    code = (
        "from trading_core.features.build import fingerprints; from trading_core.features.registry import FEATURES;"
        "print(sorted(fingerprints(sorted(FEATURES)).items()))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == str(sorted((name, f.fingerprint) for name, f in FEATURES.items()))


def test_refuses_a_name_twice() -> None:
    _one()
    with pytest.raises(InvalidConfigError, match="name: taken by the feature of family 'mine'"):
        _one()


def test_refuses_wrong_declarations() -> None:
    with pytest.raises(InvalidConfigError) as caught:

        @feature(family="mine", inputs=("vwap",), lookback=-1, unit="-")
        def nameless(bars: BarBlock) -> FloatArray:
            return bars.close

    assert len(caught.value.problems) == 3
    assert "inputs: 'vwap' is no column of bars" in str(caught.value)
    assert "nameless" not in FEATURES


def test_undeclared_input_is_refused() -> None:
    block = BarBlock(sessions=np.empty((1, 1), dtype="datetime64[D]"), columns={"close": np.ones((1, 1))})
    assert block.close.shape == (1, 1)
    with pytest.raises(MissingColumnsError, match="lacks the column high"):
        _ = block.high


def test_unknown_name_names_the_allowed() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown feature 'macdd'. Did you mean 'macd'"):
        get("macdd")


def test_ewm_window_holds_all_but_a_ten_millionth() -> None:
    for decay in (0.8, 11 / 13, 25 / 27, 13 / 14):
        window = ewm_window(decay)
        assert decay**window <= 1e-7 < decay ** (window - 1)
