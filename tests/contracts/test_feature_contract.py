"""What every feature promises, checked for each member of the registry. A new feature needs no line here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from trading_core.features.build import build, fingerprints, warm_up
from trading_core.features.registry import FEATURES
from trading_core.sessions import Sessions

NAMES = sorted(FEATURES)
OWN = [name for name in NAMES if FEATURES[name].across is None]
ROWS = 420
INPUTS = ("open", "high", "low", "close", "volume")


def _walk(symbol: str, stamps: list[datetime], seed: int) -> pl.DataFrame:
    """A random walk with gaps, ranges and lognormal volume."""
    r = np.random.default_rng(seed)
    n = len(stamps)
    close = 40.0 * (1 + seed) * np.exp(np.cumsum(r.normal(0.0, 0.02, n)))
    opening = np.concatenate(([close[0]], close[:-1])) * np.exp(r.normal(0.0, 0.005, n))
    return pl.DataFrame(
        {
            "symbol": [symbol] * n,
            "ts": stamps,
            "open": opening,
            "high": np.maximum(opening, close) * np.exp(np.abs(r.normal(0.0, 0.005, n))),
            "low": np.minimum(opening, close) * np.exp(-np.abs(r.normal(0.0, 0.005, n))),
            "close": close,
            "volume": np.round(np.exp(r.normal(13.0, 0.5, n))),
        }
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")), session=pl.col("ts").dt.date())


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    """Five symbols: whole, with sessions missing, listed late, halted (flat, no volume), delisted early."""
    calendar = Sessions("XNYS")
    stamps = calendar.closes(calendar.between(datetime(2015, 1, 2).date(), datetime(2016, 12, 30).date()))[:ROWS]
    holes = [stamp for i, stamp in enumerate(stamps) if i % 11 not in (3, 4)]
    halted = _walk("HALT", stamps, 4).with_row_index("i")
    flat = pl.col("i").is_between(250, 330)
    halted = halted.with_columns(
        *(pl.when(flat).then(pl.lit(55.5)).otherwise(pl.col(c)).alias(c) for c in ("open", "high", "low", "close")),
        volume=pl.when(flat).then(0.0).otherwise(pl.col("volume")),
    ).drop("i")
    return pl.concat(
        [
            _walk("AAA", stamps, 1),
            _walk("HOLE", holes, 2),
            _walk("LATE", stamps[360:], 3),
            halted,
            _walk("GONE", stamps[:390], 5),
        ]
    )


@pytest.fixture(scope="module")
def full(bars: pl.DataFrame) -> pl.DataFrame:
    return build(bars, NAMES, *_range(bars))


def _range(bars: pl.DataFrame):
    return bars["session"].min(), bars["session"].max()


def _bits(features: pl.DataFrame, name: str) -> np.ndarray:
    """The feature as stored, every NaN alike."""
    values = features.sort("symbol", "ts")[name].to_numpy().copy()
    values[np.isnan(values)] = np.nan
    return values.view(np.uint32)


def _with_warm_up(bars: pl.DataFrame, name: str, start, end) -> pl.DataFrame:
    """The rows of start .. end and exactly warm_up rows of each symbol before them."""
    before = bars.filter(pl.col("session") < start).sort("ts").group_by("symbol").tail(warm_up([name]))
    return pl.concat([before, bars.filter(pl.col("session").is_between(start, end))])


@pytest.mark.parametrize("name", NAMES)
def test_documented(name: str) -> None:
    doc = FEATURES[name].compute.__doc__ or ""
    for part in ("Formula:", "NaN:", "Reference:"):
        assert part in doc
    assert FEATURES[name].description
    assert FEATURES[name].unit


@pytest.mark.parametrize("name", NAMES)
def test_defined_on_ordinary_bars(full: pl.DataFrame, name: str) -> None:
    """After its lookback a feature is there, and it is not a constant."""
    settled = full.filter(pl.col("symbol") == "AAA")[name].to_numpy()[FEATURES[name].lookback :]
    assert not np.isnan(settled).any()
    assert len(np.unique(settled)) > 1


@pytest.mark.parametrize("name", NAMES)
def test_reads_only_its_inputs(bars: pl.DataFrame, full: pl.DataFrame, name: str) -> None:
    """Alone, with no column beyond the declared ones, it is what it is among all features."""
    alone = build(bars.select("symbol", "ts", "session", *FEATURES[name].inputs), [name], *_range(bars))
    np.testing.assert_array_equal(_bits(alone, name), _bits(full, name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [30, 300, 400])
def test_blind_to_the_future(bars: pl.DataFrame, full: pl.DataFrame, name: str, at: int) -> None:
    """Rows up to t stay the same to the bit when all later rows are scrambled, and when they do not exist."""
    day = bars.filter(pl.col("symbol") == "AAA")["session"][at]
    past, future = bars.filter(pl.col("session") <= day), bars.filter(pl.col("session") > day)
    r = np.random.default_rng(at)
    noise = pl.DataFrame({c: r.permutation(future[c].to_numpy()) * r.uniform(0.1, 10.0, len(future)) for c in INPUTS})
    scrambled = pl.concat([past, future.with_columns(noise)])
    start, end = _range(bars)
    expected = _bits(full.filter(pl.col("session") <= day), name)
    np.testing.assert_array_equal(_bits(build(past, [name], start, end), name), expected)
    after = build(scrambled, [name], start, end).filter(pl.col("session") <= day)
    np.testing.assert_array_equal(_bits(after, name), expected)


@pytest.mark.parametrize("name", NAMES)
def test_same_bits_by_day_by_month_and_at_once(bars: pl.DataFrame, full: pl.DataFrame, name: str) -> None:
    """However the history is cut, given warm_up rows before the cut, the float32 are the same."""
    days = sorted(bars["session"].unique())
    cuts = [(day, day) for day in (*days[:2], *days[22:24], *days[280:283], *days[-12:])]
    cuts += [(days[i], days[min(i + 20, len(days) - 1)]) for i in range(0, len(days), 21)]
    for start, end in cuts:
        part = build(_with_warm_up(bars, name, start, end), [name], start, end)
        whole = full.filter(pl.col("session").is_between(start, end))
        assert part["symbol"].to_list() == whole["symbol"].to_list()
        np.testing.assert_array_equal(_bits(part, name), _bits(whole, name), err_msg=f"{start} .. {end}")


@pytest.mark.parametrize("name", OWN)
def test_other_symbols_do_not_matter(bars: pl.DataFrame, full: pl.DataFrame, name: str) -> None:
    assert FEATURES[name].family != "cross_section"
    for symbol in ("AAA", "HOLE"):
        alone = build(bars.filter(pl.col("symbol") == symbol), [name], *_range(bars))
        np.testing.assert_array_equal(_bits(alone, name), _bits(full.filter(pl.col("symbol") == symbol), name))


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(OWN)))
def test_cross_section_compares_symbols(bars: pl.DataFrame, full: pl.DataFrame, name: str) -> None:
    assert FEATURES[name].family == "cross_section"
    fewer = build(bars.filter(pl.col("symbol") != "GONE"), [name], *_range(bars)).filter(pl.col("symbol") == "AAA")
    assert (_bits(fewer, name) != _bits(full.filter(pl.col("symbol") == "AAA"), name)).any()


@pytest.mark.parametrize("name", NAMES)
def test_scale_free(bars: pl.DataFrame, full: pl.DataFrame, name: str) -> None:
    """Other price and volume units change nothing: of one symbol, or of all where symbols are compared in money."""
    scaled = pl.lit(True) if name == "dollar_volume_rank" else pl.col("symbol") == "AAA"
    factor = {"volume": 3.0}
    other = bars.with_columns(
        pl.when(scaled).then(pl.col(c) * factor.get(c, 7.0)).otherwise(pl.col(c)).alias(c) for c in INPUTS
    )
    rescaled = build(other, [name], *_range(bars))
    np.testing.assert_allclose(rescaled[name].to_numpy(), full[name].to_numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_rows_does_not_matter(bars: pl.DataFrame, full: pl.DataFrame, name: str) -> None:
    shuffled = bars.sample(fraction=1.0, shuffle=True, seed=3)
    built = build(shuffled, [name], *_range(bars))
    assert built.select("symbol", "ts").equals(full.select("symbol", "ts"))
    np.testing.assert_array_equal(_bits(built, name), _bits(full, name))


@pytest.mark.parametrize(("name", "column"), [(name, column) for name in NAMES for column in FEATURES[name].inputs])
@pytest.mark.parametrize("value", [0.0, 1e-300, 1e300, None])
def test_never_infinite(bars: pl.DataFrame, name: str, column: str, value: float | None) -> None:
    """Whatever the bars hold, the feature is a number or NaN, never null or infinite."""
    every_third = pl.int_range(pl.len()) % 3 == 0
    odd = bars.with_columns(pl.when(every_third).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))
    for sick in (odd, bars.with_columns(pl.lit(value, dtype=pl.Float64).alias(column))):
        built = build(sick, [name], *_range(bars))[name]
        assert built.dtype == pl.Float32
        assert built.null_count() == 0
        assert not built.is_infinite().any()


def test_fingerprints_tell_formulas_apart() -> None:
    prints = fingerprints(NAMES)
    assert len(set(prints.values())) == len(NAMES)
    assert all(len(value) == 16 for value in prints.values())


def test_a_day_is_a_day(full: pl.DataFrame) -> None:
    """Sanity of the sample itself: the scrambles above would be empty otherwise."""
    assert full["session"].max() - full["session"].min() > timedelta(days=500)
    assert full["ts"].max() < datetime(2017, 1, 1, tzinfo=UTC)
