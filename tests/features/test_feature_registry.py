"""Adding a feature, and the fingerprint of a formula."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date

import numpy as np
import polars as pl
import pytest

from trading_core.errors import InvalidConfigError, MissingColumnsError, UnknownNameError
from trading_core.features import market_inputs, registry
from trading_core.features.build import build, warm_up
from trading_core.features.kernels import averages, change, compiled, ewm_window, rank_across
from trading_core.features.registry import FEATURES, Across, BarBlock, feature, get, shared
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
    monkeypatch.setattr(averages, "TRUNCATED_WEIGHT", 1e-8)
    changed = get("rsi_14").fingerprint
    untouched = get("ret_1").fingerprint
    monkeypatch.undo()
    registry._code_of.cache_clear()
    assert changed != before
    assert get("ret_1").fingerprint == untouched
    assert get("rsi_14").fingerprint == before


def _changed(names: tuple[str, ...], before: dict[str, str]) -> set[str]:
    registry._code_of.cache_clear()
    return {name for name in names if get(name).fingerprint != before[name]}


def test_fingerprint_reaches_what_derived_inputs_are_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """A beta to a market that is made otherwise is another formula, though its own code is the same."""
    names = ("beta_63", "market_vol_20", "hour_sin", "before_holiday", "sector_rel_ret_5", "ret_1", "dow")
    before = {name: get(name).fingerprint for name in names}
    with monkeypatch.context() as patch:
        patch.setattr(market_inputs, "_adjacent_returns", change)
        assert _changed(names, before) == {"beta_63", "market_vol_20"}
    with monkeypatch.context() as patch:
        patch.setitem(registry._MADE_BY, "local_minute", change)
        assert _changed(names, before) == {"hour_sin"}
    assert _changed(names, before) == set()


def test_every_derived_input_but_the_sector_is_part_of_the_formula() -> None:
    assert set(registry._MADE_BY) == {*registry.MARKET_INPUTS, *registry.CALENDAR_INPUTS}


@compiled
def _doubled(x: FloatArray) -> FloatArray:
    return x * 2.0


@compiled
def _tripled(x: FloatArray) -> FloatArray:
    return x * 3.0


@shared
def _half(bars: BarBlock) -> FloatArray:
    return bars.close / 2.0


@shared
def _third(bars: BarBlock) -> FloatArray:
    return bars.close / 3.0


_step, _source = _doubled, _half


def _through(step: Callable[[FloatArray], FloatArray], source: Callable[[BarBlock], FloatArray]) -> str:
    """The fingerprint of a feature that calls `step` and `source` under the same names, whichever they are."""

    def my_ret(bars: BarBlock) -> FloatArray:
        """Steps."""
        return _step(_source(bars))

    before = dict(globals())
    globals().update(_step=step, _source=source)
    registry._code_of.cache_clear()
    FEATURES.pop("my_ret", None)
    feature(family="mine", inputs=("close",), lookback=2, unit="-")(my_ret)
    try:
        return get("my_ret").fingerprint
    finally:
        globals().update(before)
        registry._code_of.cache_clear()


def test_fingerprint_reaches_beneath_compiled_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels, or two shared series, under one name are two formulas; the decorators themselves are none."""
    monkeypatch.setattr(registry, "_HOUSE", __name__.partition(".")[0])  # this file is the house
    one = _through(_doubled, _half)
    assert _through(_tripled, _half) != one
    assert _through(_doubled, _third) != one
    assert _through(_doubled.py_func, _half.__wrapped__) == one


def test_fingerprint_depends_on_what_is_done_across_and_on_which_bars() -> None:
    def my_ret(bars: BarBlock) -> FloatArray:
        """Market."""
        return bars.market_ret

    prints = set()
    for across, on in ((None, "symbol"), (rank_across, "symbol"), (None, "market")):
        FEATURES.pop("my_ret", None)
        feature(family="mine", inputs=("market_ret",), lookback=2, unit="-", across=across, on=on)(my_ret)
        prints.add(get("my_ret").fingerprint)
    assert len(prints) == 3


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


def test_refusals_name_the_way_out() -> None:
    with pytest.raises(InvalidConfigError) as caught:

        @feature(family="mine", inputs=("vwap",), lookback=-1, unit="-")
        def another(bars: BarBlock) -> FloatArray:
            return bars.close

    text = str(caught.value)
    assert "Feature 'another'" in text
    for column in (*registry.BAR_INPUTS, *registry.DERIVED_INPUTS):
        assert f"'{column}'" in text  # what is allowed
    assert "lookback: -1 rows; it cannot be negative" in text
    assert "docstring: missing; its first line is the description" in text


def test_a_feature_of_the_market_reads_the_market_only() -> None:
    with pytest.raises(InvalidConfigError, match="inputs: 'close' is no column of bars") as caught:

        @feature(family="mine", inputs=("market_ret", "close"), lookback=1, unit="-", on="market")
        def of_the_market(bars: BarBlock) -> FloatArray:
            """Both."""
            return bars.close

    assert "'market_dispersion'" in str(caught.value)
    assert "'local_minute'" not in str(caught.value)


def test_derived_inputs_are_made_of_columns() -> None:
    """The market's return needs closes; the calendar and the sector need no column that a source must have."""

    @feature(family="mine", inputs=("volume", "market_ret", "days_to_next", "sector", "close"), lookback=7, unit="-")
    def mixed(bars: BarBlock) -> FloatArray:
        """Mixed."""
        return bars.close

    @feature(family="mine", inputs=("days_to_next",), lookback=0, unit="-")
    def dated(bars: BarBlock) -> FloatArray:
        """Dated."""
        return bars.column("days_to_next")

    assert get("mixed").columns == ("volume", "close")
    assert get("mixed").needs_market
    assert warm_up(["mixed"]) == 8  # the market's return at the first of 8 bars needs the bar before
    assert get("dated").columns == ()
    assert not get("dated").needs_market
    assert warm_up(["dated"]) == 0


def _block(close: object) -> BarBlock:
    values = np.array(close, dtype=float)
    return BarBlock(np.zeros(values.shape, dtype="datetime64[D]"), {"close": values})


def test_shared_series_are_computed_once_per_block() -> None:
    calls: list[BarBlock] = []

    @shared
    def squares(bars: BarBlock) -> FloatArray:
        """Squares of the close."""
        calls.append(bars)
        return bars.close * bars.close

    one, other = _block([[1.0, 2.0]]), _block([[3.0, 4.0]])
    assert squares(one) is squares(one)
    np.testing.assert_array_equal(squares(other), [[9.0, 16.0]])
    np.testing.assert_array_equal(squares(one), [[1.0, 4.0]])
    assert calls == [one, other]
    assert (squares.__name__, squares.__doc__) == ("squares", "Squares of the close.")


def test_shared_series_survive_every_feature_unchanged() -> None:
    """No feature writes into a series that others read: all of them give the same in either order."""
    r = np.random.default_rng(3)
    close = 50.0 * np.exp(np.cumsum(r.normal(0.0, 0.02, (2, 90)), axis=1))
    width = 1.0 + np.abs(r.normal(0.0, 0.01, close.shape))
    columns = {"open": close / width**0.5, "high": close * width, "low": close / width, "close": close}
    columns |= {"volume": np.exp(r.normal(10.0, 1.0, close.shape))}
    columns |= {name: r.normal(0.0, 0.01, close.shape) for name in registry.MARKET_INPUTS}
    columns |= {name: np.full(close.shape, 1.0) for name in registry.CALENDAR_INPUTS}
    days = np.tile(np.datetime64("2024-01-01") + np.arange(90), (2, 1))
    own = [f for f in FEATURES.values() if f.on == "symbol"]
    there, back = (BarBlock(days, {name: x.copy() for name, x in columns.items()}) for _ in range(2))
    with np.errstate(all="ignore"):
        first = {f.name: f.compute(there) for f in own}
        second = {f.name: f.compute(back) for f in reversed(own)}
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    for name, x in columns.items():
        np.testing.assert_array_equal(there.columns[name], x, err_msg=name)


def test_a_feature_of_the_market_gives_its_value_to_every_symbol() -> None:
    @feature(family="mine", inputs=("market_ret",), lookback=0, unit="simple return", on="market")
    def market_itself(bars: BarBlock) -> FloatArray:
        """The market's return."""
        assert bars.market_ret.shape == (1, 3)  # one symbol, the market
        return bars.market_ret

    days = [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4)]
    frame = pl.DataFrame(
        {"symbol": ["A"] * 3 + ["B"] * 2, "session": [*days, *days[1:]], "close": [1.0, 2.0, 3.0, 4.0, 8.0]}
    ).with_columns(ts=pl.col("session").cast(pl.Datetime("us", "UTC")))
    built = build(frame, ["market_itself"], frame["session"].min(), frame["session"].max())
    np.testing.assert_array_equal(built["market_itself"], np.float32([np.nan, 1.0, 0.75, 1.0, 0.75]))


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


def test_fingerprint_sees_a_formula_without_a_name() -> None:
    def print_of(across: Across) -> str:
        FEATURES.pop("my_ret", None)

        @feature(family="mine", inputs=("close",), lookback=1, unit="simple return", across=across)
        def my_ret(bars: BarBlock) -> FloatArray:
            """Return over one session."""
            return change(bars.close, 1)

        return get("my_ret").fingerprint

    plain = print_of(lambda values, _: values)
    halved = print_of(lambda values, _: values / 2.0)
    assert plain != halved
