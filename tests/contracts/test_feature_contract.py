"""What every feature promises, checked for each member of the registry. A new feature needs no line here.

The promises are checked by name. A build of all features costs little more than one of a single feature, so builds that
many names can share are made once (`Builds`): sharing never hands a feature more history than it declares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

import numpy as np
import polars as pl
import pytest

from trading_core.features.build import build, fingerprints, warm_up
from trading_core.features.registry import FEATURES, SECTOR, Feature
from trading_core.sessions import Sessions

NAMES = sorted(FEATURES)


def _looks_at_others(f: Feature) -> bool:
    return f.across is not None or f.on == "market" or f.needs_market


OWN = [name for name in NAMES if not _looks_at_others(FEATURES[name])]
OTHERS = [name for name in NAMES if _looks_at_others(FEATURES[name])]
# Families whose values change with the universe; see docs of `cross_section` and `regime`.
COMPARING_FAMILIES = {"cross_section", "regime"}
# Symbols are compared in money: the unit must be the same for all of them, whichever it is.
IN_MONEY = {"dollar_volume_rank", "amihud_21_rank"}
ROWS = max(420, warm_up(NAMES) + 80)
INPUTS = ("open", "high", "low", "close", "volume")
ODD = [(column, value) for column in INPUTS for value in (0.0, 1e-300, 1e300, None)]
SECTORS = {"AAA": "tech", "HOLE": "tech", "LATE": "energy", "HALT": "energy", "GONE": "tech"}


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
            SECTOR: [SECTORS[symbol]] * n,
        }
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")), session=pl.col("ts").dt.date())


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    """Five symbols of two sectors: whole, with sessions missing, listed late, halted (flat, no volume), delisted early."""
    calendar = Sessions("XNYS")
    stamps = calendar.closes(calendar.between(date(2013, 1, 2), date(2017, 12, 29)))[:ROWS]
    assert len(stamps) == ROWS, "the features look back further than the sample's sessions: let it begin earlier"
    holes = [stamp for i, stamp in enumerate(stamps) if i % 11 not in (3, 4)]
    halted = _walk("HALT", stamps, 4).with_row_index("i")
    flat = pl.col("i").is_between(ROWS - 170, ROWS - 90)
    halted = halted.with_columns(
        *(pl.when(flat).then(pl.lit(55.5)).otherwise(pl.col(c)).alias(c) for c in ("open", "high", "low", "close")),
        volume=pl.when(flat).then(0.0).otherwise(pl.col("volume")),
    ).drop("i")
    return pl.concat(
        [
            _walk("AAA", stamps, 1),
            _walk("HOLE", holes, 2),
            _walk("LATE", stamps[ROWS - 60 :], 3),
            halted,
            _walk("GONE", stamps[: ROWS - 30], 5),
        ]
    )


@pytest.fixture(scope="module")
def full(bars: pl.DataFrame) -> pl.DataFrame:
    return build(bars, NAMES, *_range(bars))


def _range(bars: pl.DataFrame) -> tuple[date, date]:
    days = bars["session"].to_list()
    return min(days), max(days)


def _bits(features: pl.DataFrame, name: str) -> np.ndarray:
    """The feature as stored, every NaN alike."""
    values = features[name].to_numpy().copy()
    values[np.isnan(values)] = np.nan
    return values.view(np.uint32)


class Builds:
    """Frames of all features that many tests compare with `full`, each made when it is first asked for."""

    def __init__(self, bars: pl.DataFrame, full: pl.DataFrame) -> None:
        self.bars, self.full = bars, full
        self._made: dict[object, list[tuple[str, pl.DataFrame, pl.DataFrame]]] = {}

    def once(
        self, key: object, make: Callable[[], list[tuple[str, pl.DataFrame, pl.DataFrame]]]
    ) -> list[tuple[str, pl.DataFrame, pl.DataFrame]]:
        """What `make` gives: (label, frame, the frame it must be equal to)."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def of_the_past(self, at: int) -> list[tuple[str, pl.DataFrame, pl.DataFrame]]:
        """All features where all rows after session number `at` do not exist, and where they are scrambled."""
        day = self.days[at]
        past, future = self.bars.filter(pl.col("session") <= day), self.bars.filter(pl.col("session") > day)
        r = np.random.default_rng(at)
        noise = {c: r.permutation(future[c].to_numpy()) * r.uniform(0.1, 10.0, len(future)) for c in INPUTS}
        scrambled = pl.concat([past, future.with_columns(pl.DataFrame(noise))])
        expected = self.full.filter(pl.col("session") <= day)
        after = build(scrambled, NAMES, *_range(self.bars)).filter(pl.col("session") <= day)
        return [("cut", build(past, NAMES, *_range(self.bars)), expected), ("scrambled", after, expected)]

    def of_cuts(self, spare: int, market: bool) -> list[tuple[str, pl.DataFrame, pl.DataFrame]]:
        """The features with a warm-up of `spare` rows, over days and months, each with just that history before it."""
        names = [name for name in NAMES if (warm_up([name]), FEATURES[name].needs_market) == (spare, market)]
        days = self.days
        cuts = [(day, day) for day in (*days[:2], *days[22:24], *days[ROWS // 2 : ROWS // 2 + 2], *days[-12:])]
        cuts += [(days[i], days[min(i + 20, ROWS - 1)]) for i in range(0, ROWS, 21)]
        out = []
        for start, end in cuts:
            part = build(_with_warm_up(self.bars, spare, start, end, whole_sessions=market), names, start, end)
            out.append((f"{start} .. {end}", part, self.full.filter(pl.col("session").is_between(start, end))))
        return out

    def of_rescaled(self, names: Sequence[str], only: str | None) -> list[tuple[str, pl.DataFrame, pl.DataFrame]]:
        """Prices times 7 and volumes times 3, of one symbol or of all."""
        scaled = pl.lit(True) if only is None else pl.col("symbol") == only
        factors = {c: 3.0 if c == "volume" else 7.0 for c in INPUTS}
        other = self.bars.with_columns(
            pl.when(scaled).then(pl.col(c) * factor).otherwise(pl.col(c)).alias(c) for c, factor in factors.items()
        )
        return [("rescaled", build(other, names, *_range(self.bars)), self.full)]

    def of_symbols(self, names: Sequence[str], keep: pl.Expr) -> list[tuple[str, pl.DataFrame, pl.DataFrame]]:
        """`names` on the bars of the kept symbols alone."""
        return [("alone", build(self.bars.filter(keep), names, *_range(self.bars)), self.full.filter(keep))]

    def of_shuffled(self) -> list[tuple[str, pl.DataFrame, pl.DataFrame]]:
        shuffled = self.bars.sample(fraction=1.0, shuffle=True, seed=3)
        return [("shuffled", build(shuffled, NAMES, *_range(self.bars)), self.full)]

    def of_odd(self, column: str, value: float | None) -> list[tuple[str, pl.DataFrame, pl.DataFrame]]:
        """All features where a column holds `value` in every third row, and in all rows."""
        every_third = pl.int_range(pl.len()) % 3 == 0
        odd = self.bars.with_columns(pl.when(every_third).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))
        all_odd = self.bars.with_columns(pl.lit(value, dtype=pl.Float64).alias(column))
        return [
            (label, build(sick, NAMES, *_range(self.bars)), self.full)
            for label, sick in (("every third", odd), ("all", all_odd))
        ]

    @cached_property
    def days(self) -> list[date]:
        return sorted(self.bars["session"].unique())


@pytest.fixture(scope="module")
def builds(bars: pl.DataFrame, full: pl.DataFrame) -> Builds:
    return Builds(bars, full)


def _with_warm_up(bars: pl.DataFrame, spare: int, start: date, end: date, *, whole_sessions: bool) -> pl.DataFrame:
    """The rows of start .. end and exactly `spare` rows of each symbol before them.

    whole_sessions: also the other symbols' rows from the earliest of those on, as the build asks for the market's sake.
    """
    before = bars.filter(pl.col("session") < start)
    # For 0 rows, polars' tail of a group is a row of nulls.
    tail = before.sort("ts").group_by("symbol").tail(spare) if spare else before.clear()
    if whole_sessions and len(tail):
        tail = before.filter(pl.col("ts") >= tail["ts"].min())
    return pl.concat([tail, bars.filter(pl.col("session").is_between(start, end))])


def _same_bits(name: str, made: list[tuple[str, pl.DataFrame, pl.DataFrame]]) -> None:
    for label, built, expected in made:
        assert built["symbol"].equals(expected["symbol"]), label
        np.testing.assert_array_equal(_bits(built, name), _bits(expected, name), err_msg=label)


@pytest.mark.parametrize("name", NAMES)
def test_documented(name: str) -> None:
    doc = FEATURES[name].compute.__doc__ or ""
    for part in ("Formula:", "NaN:", "Reference:"):
        assert part in doc
    assert FEATURES[name].description
    assert FEATURES[name].unit


@pytest.mark.parametrize("name", NAMES)
def test_defined_on_ordinary_bars(full: pl.DataFrame, name: str) -> None:
    """After its warm-up a feature is there, and it is not a constant."""
    settled = full.filter(pl.col("symbol") == "AAA")[name].to_numpy()[warm_up([name]) :]
    assert not np.isnan(settled).any()
    assert len(np.unique(settled)) > 1


@pytest.mark.parametrize("name", NAMES)
def test_reads_only_its_inputs(bars: pl.DataFrame, full: pl.DataFrame, name: str) -> None:
    """Alone, with no column beyond the declared ones, it is what it is among all features."""
    f = FEATURES[name]
    sector = [SECTOR] if SECTOR in f.inputs else []
    alone = build(bars.select("symbol", "ts", "session", *f.columns, *sector), [name], *_range(bars))
    np.testing.assert_array_equal(_bits(alone, name), _bits(full, name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [30, ROWS - 120, ROWS - 20])
def test_blind_to_the_future(builds: Builds, name: str, at: int) -> None:
    """Rows up to t stay the same to the bit when all later rows are scrambled, and when they do not exist."""
    _same_bits(name, builds.once(("past", at), lambda: builds.of_the_past(at)))


@pytest.mark.parametrize("name", NAMES)
def test_same_bits_by_day_by_month_and_at_once(builds: Builds, name: str) -> None:
    """However the history is cut, given warm_up rows before the cut, the float32 are the same."""
    key = (warm_up([name]), FEATURES[name].needs_market)
    _same_bits(name, builds.once(("cuts", key), lambda: builds.of_cuts(*key)))


@pytest.mark.parametrize("name", OWN)
def test_other_symbols_do_not_matter(builds: Builds, name: str) -> None:
    assert FEATURES[name].family not in COMPARING_FAMILIES
    for symbol in ("AAA", "HOLE"):
        _same_bits(name, builds.once(("alone", symbol), lambda s=symbol: builds.of_symbols(OWN, pl.col("symbol") == s)))


@pytest.mark.parametrize("name", OTHERS)
def test_what_looks_at_others_changes_with_the_universe(builds: Builds, name: str) -> None:
    assert FEATURES[name].family in COMPARING_FAMILIES
    ((_, fewer, before),) = builds.once("fewer", lambda: builds.of_symbols(OTHERS, pl.col("symbol") != "GONE"))
    changed = (_bits(fewer, name) != _bits(before, name)) & (before["symbol"] == "AAA").to_numpy()
    assert changed.any()


@pytest.mark.parametrize("name", NAMES)
def test_scale_free(builds: Builds, name: str) -> None:
    """Other price and volume units change nothing: of one symbol, or of all where symbols are compared in money."""
    only = None if name in IN_MONEY else "AAA"
    names = [n for n in NAMES if (n in IN_MONEY) == (name in IN_MONEY)]
    ((_, rescaled, before),) = builds.once(("scaled", only), lambda: builds.of_rescaled(names, only))
    np.testing.assert_allclose(rescaled[name].to_numpy(), before[name].to_numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_rows_does_not_matter(builds: Builds, name: str) -> None:
    made = builds.once("shuffled", builds.of_shuffled)
    assert made[0][1].select("symbol", "ts").equals(builds.full.select("symbol", "ts"))
    _same_bits(name, made)


@pytest.mark.parametrize(("column", "value"), ODD)
def test_never_infinite(builds: Builds, column: str, value: float | None) -> None:
    """Whatever the bars hold, every feature is a number or NaN, never null or infinite."""
    for label, built, _ in builds.of_odd(column, value):
        features = built.select(NAMES)
        assert set(features.dtypes) == {pl.Float32}, label
        assert [name for name in NAMES if features[name].null_count()] == [], label
        assert [name for name in NAMES if features[name].is_infinite().any()] == [], label


def test_fingerprints_tell_formulas_apart() -> None:
    prints = fingerprints(NAMES)
    assert len(set(prints.values())) == len(NAMES)
    assert all(len(value) == 16 for value in prints.values())


def test_the_sample_is_long_enough(full: pl.DataFrame) -> None:
    """Sanity of the sample itself: the scrambles above would be empty otherwise."""
    assert full["session"].max() - full["session"].min() > timedelta(days=500)
    assert full["ts"].max() < datetime(2018, 1, 1, tzinfo=UTC)
    assert {FEATURES[name].family for name in OTHERS} == COMPARING_FAMILIES
    assert set(NAMES) >= IN_MONEY
