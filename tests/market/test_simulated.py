"""The simulated market: the same bits always, no bar of the future, and the statistics that it promises."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from trading_core.config import parse_options
from trading_core.errors import InvalidConfigError, InvalidDateRangeError, UnknownNameError
from trading_core.market import simulated as module
from trading_core.market.adjust import adjusted
from trading_core.market.registry import SOURCES, source_entry
from trading_core.market.simulated import SimulatedOptions, SimulatedSource, build_simulated
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA, INSTRUMENT_SCHEMA, Fetched, Source
from trading_core.schema import PriceBasis
from trading_core.sessions import Sessions

CALENDAR = "XNYS"
START, END = date(2022, 1, 3), date(2025, 12, 31)
NOW = datetime(2026, 1, 5, tzinfo=UTC)
# Every kind of event, often enough to be met in a short panel.
BUSY = SimulatedOptions(
    symbols=40, delistings_per_year=0.15, splits_per_year=0.5, late_listings=0.3, dividend_yield=0.04
)


def source(options: SimulatedOptions = BUSY) -> SimulatedSource:
    return SimulatedSource(options, CALENDAR)


def everything(options: SimulatedOptions = BUSY, now: datetime = NOW) -> Fetched:
    market = source(options)
    return market.fetch(market.symbols(), START, END, now)


@pytest.fixture(scope="module")
def panel() -> pl.DataFrame:
    """The default market, adjusted, with log returns and the label of horizon 1."""
    fetched = everything(SimulatedOptions())
    close, before = pl.col("close").log(), pl.col("close").shift(1).log().over("symbol")
    label = (pl.col("open").shift(-2) / pl.col("open").shift(-1)).log().over("symbol")
    location = (pl.col("close") - pl.col("low")) / (pl.col("high") - pl.col("low"))
    return adjusted(fetched.bars, fetched.actions).with_columns(
        (close - before).alias("change"), label.alias("label"), location.alias("location")
    )


def mean_ic(frame: pl.DataFrame, name: str) -> float:
    rows = frame.drop_nulls([name, "label"])
    return float(rows.group_by("session").agg(pl.corr(name, "label").alias("ic"))["ic"].drop_nans().mean())  # type: ignore[arg-type]


# --- the contract -----------------------------------------------------------------------------------------------------


def test_frames_have_the_columns_keys_and_order_of_a_source() -> None:
    market, fetched = source(), everything()
    assert isinstance(market, Source)
    assert market.name == "simulated"
    assert market.price_basis is PriceBasis.RAW
    assert dict(fetched.bars.schema) == BAR_SCHEMA
    assert dict(fetched.actions.schema) == ACTION_SCHEMA
    assert dict(market.instruments(NOW).schema) == INSTRUMENT_SCHEMA
    assert fetched.bars.equals(fetched.bars.sort("symbol", "ts"))
    assert not fetched.bars.select("symbol", "ts").is_duplicated().any()
    assert not fetched.actions.select("symbol", "session", "kind").is_duplicated().any()
    assert fetched.failures == {}
    assert fetched.bars.null_count().sum_horizontal().item() == 0


def test_sessions_and_closes_are_the_calendars() -> None:
    clock = Sessions(CALENDAR)
    days = everything().bars.select("session", "ts").unique().sort("session")
    sessions = clock.between(START, END)
    assert days["session"].to_list() == sessions
    assert days["ts"].to_list() == clock.closes(sessions)
    half_day = days.filter(pl.col("session") == date(2024, 11, 29))["ts"].item()
    assert half_day == datetime(2024, 11, 29, 18, 0, tzinfo=UTC)  # Black Friday closes at 13:00 in New York


def test_unknown_symbols_fail_alone() -> None:
    fetched = source().fetch(["SIM002", "AAPL"], START, END, NOW)
    assert fetched.bars["symbol"].unique().to_list() == ["SIM002"]
    assert fetched.failures == {"AAPL": "no such symbol; the market has SIM001 to SIM040"}


def test_empty_answers_keep_their_columns() -> None:
    market = source()
    for fetched in (
        market.fetch(["SIM001"], date(2020, 1, 1), date(2020, 12, 31), NOW),
        market.fetch(["SIM001"], START, END, datetime(2021, 6, 1, tzinfo=UTC)),
        market.fetch([], START, END, NOW),
    ):
        assert fetched.bars.is_empty()
        assert dict(fetched.bars.schema) == BAR_SCHEMA
        assert dict(fetched.actions.schema) == ACTION_SCHEMA
    assert market.instruments(datetime(2021, 6, 1, tzinfo=UTC)).is_empty()
    assert market.oracle(START, END, datetime(2021, 6, 1, tzinfo=UTC)).is_empty()


def test_a_start_after_the_end_is_refused() -> None:
    with pytest.raises(InvalidDateRangeError, match=r"2025-12-31 \.\. 2022-01-03 cannot be used"):
        source().fetch(["SIM001"], END, START, NOW)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("symbols", 1, "between 2 and 5000"),
        ("signal_ic", 0.9, "between 0.0 and 0.5"),
        ("signal_ic", float("nan"), "between 0.0 and 0.5"),
        ("signal_persistence", 1.0, "between 0.0 and 0.95"),
        ("dividend_yield", -0.1, "between 0.0 and 0.2"),
        ("delistings_per_year", 2.0, "between 0.0 and 0.5"),
        ("seed", -1, "between 0 and 2147483647"),
    ],
)
def test_options_state_their_bounds(key: str, value: float, allowed: str) -> None:
    with pytest.raises(InvalidConfigError, match=rf"{key} is {value}; it must lie {allowed}"):
        parse_options(SimulatedOptions, {key: value}, "market 'm'")


def test_start_has_a_bound_too() -> None:
    with pytest.raises(ValueError, match="start is 1980-01-01; it must be 1990-01-02 or later"):
        SimulatedOptions(start=date(1980, 1, 1))


def test_registry_builds_it_from_its_options() -> None:
    entry = source_entry("simulated")
    built = entry.build(parse_options(entry.options, {"symbols": 5, "start": "2024-01-02"}, "x"), CALENDAR)
    assert built.symbols() == ["SIM001", "SIM002", "SIM003", "SIM004", "SIM005"]
    assert sorted(SOURCES) == ["alpaca", "parquet", "simulated", "yahoo"]
    with pytest.raises(UnknownNameError, match=r"Unknown source 'simulatd'\. Did you mean 'simulated'"):
        source_entry("simulatd")


# --- the same bits ----------------------------------------------------------------------------------------------------


def test_sub_ranges_and_subsets_are_bit_identical() -> None:
    whole = everything()
    some = ["SIM031", "SIM007", "SIM016"]
    start, end = date(2023, 2, 11), date(2024, 8, 18)  # neither is a session
    part = source().fetch(some, start, end, NOW)
    inside = pl.col("symbol").is_in(some) & pl.col("session").is_between(start, end)
    assert part.bars.equals(whole.bars.filter(inside))
    assert part.actions.equals(whole.actions.filter(inside))


def test_a_longer_history_leaves_the_earlier_rows_as_they_are() -> None:
    module._history.cache_clear()
    early_now = datetime(2022, 12, 31, tzinfo=UTC)
    early, market = everything(now=early_now), source()
    truth = market.oracle(START, END, early_now)
    module._history.cache_clear()
    later = everything()
    cut = date(2022, 12, 30)
    assert early.bars.equals(later.bars.filter(pl.col("session") <= cut))
    assert early.actions.equals(later.actions.filter(pl.col("known_at") <= cut))
    assert truth.equals(market.oracle(START, cut, NOW))


def test_same_seed_same_bits_other_seed_other_market() -> None:
    first = everything()
    module._history.cache_clear()
    assert everything(replace(BUSY)).bars.equals(first.bars)
    assert not everything(replace(BUSY, seed=12)).bars["close"].head(50).equals(first.bars["close"].head(50))


# --- nothing of the future --------------------------------------------------------------------------------------------


def test_a_bar_appears_when_its_session_has_closed() -> None:
    market, day = source(), date(2024, 6, 12)
    close = Sessions(CALENDAR).close(day)
    before = market.fetch(market.symbols(), START, END, close - timedelta(seconds=1))
    at = market.fetch(market.symbols(), START, END, close)
    assert before.bars["session"].max() == date(2024, 6, 11)
    assert at.bars["session"].max() == day
    assert before.actions["known_at"].max() <= date(2024, 6, 11)  # type: ignore[operator]


def test_events_are_known_at_the_close_before_their_ex_date() -> None:
    actions, clock = everything().actions, Sessions(CALENDAR)
    for session, known_at in actions.select("session", "known_at").unique().rows():
        assert known_at == clock.previous(session)
    ex_date = actions["session"].to_list()[len(actions) // 2]
    now = clock.close(clock.previous(ex_date))
    market = source()
    seen = market.fetch(market.symbols(), ex_date, ex_date, now)
    assert seen.bars.is_empty()
    assert seen.actions.equals(actions.filter(pl.col("session") == ex_date))
    assert market.fetch(market.symbols(), ex_date, ex_date, now - timedelta(seconds=1)).actions.is_empty()


def test_instruments_know_only_what_has_happened() -> None:
    market, bars = source(), everything().bars
    gone = everything().actions.filter(pl.col("kind") == "delisting").sort("known_at")
    symbol, known_at, ex_date = gone.select("symbol", "known_at", "session").row(0)
    close = Sessions(CALENDAR).close(known_at)

    def delisted(now: datetime) -> date | None:
        return market.instruments(now).filter(pl.col("symbol") == symbol)["delisted"].item()

    assert delisted(close) == ex_date
    assert delisted(close - timedelta(seconds=1)) is None
    listed = market.instruments(close).select("symbol", "listed")
    first_bars = bars.group_by("symbol").agg(pl.col("session").min().alias("listed")).sort("symbol")
    assert listed.equals(first_bars.filter(pl.col("listed") <= known_at))
    assert len(market.instruments(NOW)) == 40 > len(listed)


# --- prices and events ------------------------------------------------------------------------------------------------


def test_bars_are_coherent() -> None:
    bars = everything().bars
    assert bars.filter(pl.col("high") < pl.max_horizontal("open", "close")).is_empty()
    assert bars.filter(pl.col("low") > pl.min_horizontal("open", "close")).is_empty()
    assert bars.filter((pl.col("low") <= 0) | (pl.col("volume") < 1) | (pl.col("volume") % 1 != 0)).is_empty()
    assert bars.filter(pl.col("high") == pl.col("low")).is_empty()


def test_delisting_pays_the_last_close_and_ends_the_symbol() -> None:
    fetched = everything()
    gone = fetched.actions.filter(pl.col("kind") == "delisting")
    assert 5 <= len(gone) <= 35
    last = fetched.bars.group_by("symbol").agg(pl.col("session").max(), pl.col("close").sort_by("session").last())
    paid = gone.join(last, on="symbol", suffix="_last")
    assert (paid["session_last"] == paid["known_at"]).all()
    assert (paid["value"] == paid["close"]).all()
    others = last.filter(~pl.col("symbol").is_in(gone["symbol"].to_list()))
    assert (others["session"] == END).all()


def test_raw_prices_jump_at_splits_and_adjusted_ones_do_not() -> None:
    fetched = everything()
    splits = fetched.actions.filter(pl.col("kind") == "split")
    assert len(splits) > 30

    def overnight(bars: pl.DataFrame) -> pl.DataFrame:
        gap = (pl.col("open") / pl.col("close").shift(1)).log().over("symbol").alias("gap")
        return bars.with_columns(gap).join(splits, on=["symbol", "session"])

    raw = overnight(fetched.bars)
    clean = overnight(adjusted(fetched.bars, fetched.actions))
    assert (raw["gap"] + raw["value"].log()).abs().max() < 0.2  # type: ignore[operator]
    assert clean["gap"].abs().max() < 0.2  # type: ignore[operator]
    assert raw["gap"].abs().min() > 0.2  # type: ignore[operator]  # log 1.5 = 0.41 less a gap


def test_dividends_add_up_to_the_yield() -> None:
    fetched = everything()
    paid = fetched.actions.filter(pl.col("kind") == "dividend")
    payers = paid["symbol"].n_unique()
    assert 0.4 * 40 < payers < 0.8 * 40
    before = fetched.bars.select("symbol", pl.col("session").alias("known_at"), "close")
    splits = fetched.actions.filter(pl.col("kind") == "split").select(
        "symbol", "session", pl.col("value").alias("ratio")
    )
    share = paid.join(before, on=["symbol", "known_at"]).join(splits, on=["symbol", "session"], how="left")
    fraction = share["value"] * share["ratio"].fill_null(1.0) / share["close"]
    assert fraction.to_numpy() == pytest.approx(0.01, rel=1e-2)  # 4 % in four payments, rounded to 1/100 cent


# --- statistics -------------------------------------------------------------------------------------------------------


def test_volatility_is_an_equitys_and_clusters(panel: pl.DataFrame) -> None:
    square = pl.col("change") ** 2
    traits = panel.group_by("symbol").agg(
        (pl.col("change").std() * np.sqrt(252)).alias("vol"),
        pl.corr(square, square.shift(1)).alias("clustering"),
        pl.corr(pl.col("volume").log(), pl.col("change").abs()).alias("volume_reaction"),
        pl.col("change").kurtosis().alias("excess_kurtosis"),
    )
    assert traits["vol"].quantile(0.05) > 0.18  # type: ignore[operator]
    assert traits["vol"].quantile(0.95) < 0.45  # type: ignore[operator]
    assert traits["excess_kurtosis"].median() > 0.5  # type: ignore[operator]
    assert traits["volume_reaction"].median() > 0.2  # type: ignore[operator]
    # 200 symbols with 1,000 squares each: the standard error of the mean is about 0.03 / sqrt(200)
    assert traits["clustering"].mean() > 0.02  # type: ignore[operator]
    market = panel.group_by("session").agg(pl.col("change").mean()).sort("session")["change"].drop_nulls().to_numpy()
    assert np.corrcoef(market[1:] ** 2, market[:-1] ** 2)[0, 1] > 0.03
    assert 0.08 < market.std() * np.sqrt(252) < 0.22


def test_symbols_of_a_sector_move_together_more_than_others(panel: pl.DataFrame) -> None:
    market = SimulatedSource(SimulatedOptions(), CALENDAR)
    sectors = dict(market.instruments(NOW).select("symbol", "sector").rows())
    wide = panel.pivot(on="symbol", index="session", values="change").sort("session").drop("session")
    wide = wide.select([name for name in wide.columns if wide[name].null_count() <= 1])[1:]
    correlation = np.corrcoef(wide.to_numpy().T)
    labels = np.array([sectors[name] for name in wide.columns])
    same = labels[:, None] == labels[None, :]
    off_diagonal = ~np.eye(len(labels), dtype=bool)
    assert correlation[same & off_diagonal].mean() > correlation[~same].mean() + 0.03
    assert 0.1 < correlation[~same].mean() < 0.5


@pytest.mark.parametrize("signal_ic", [0.03, 0.1, 0.2])
def test_attainable_ic_is_what_was_asked_for(signal_ic: float) -> None:
    # 200 symbols, 1,000 dates: the standard error is 1 / sqrt(200 * 1000) = 0.002, sector dispersion on top
    market = SimulatedSource(SimulatedOptions(signal_ic=signal_ic), CALENDAR)
    assert market.attainable_ic(START, END, NOW) == pytest.approx(signal_ic, abs=0.012)


def test_the_truth_is_the_mean_of_the_label(panel: pl.DataFrame) -> None:
    # Regressing the label on the truth must give slope 1: the standard error of a slope with correlation 0.1 and
    # 190,000 rows is 0.023, and market-wide moves widen it.
    market = SimulatedSource(SimulatedOptions(), CALENDAR)
    both = panel.join(market.oracle(START, END, NOW), on=["symbol", "session"]).drop_nulls("label")
    own = [pl.col(name) - pl.col(name).mean().over("session") for name in ("expected", "label")]
    x, y = both.select(own).to_numpy().T
    assert (x @ y) / (x @ x) == pytest.approx(1.0, abs=0.1)
    # The oracle's correlation, computed here from the frames alone, is what attainable_ic says.
    assert mean_ic(both, "expected") == pytest.approx(market.attainable_ic(START, END, NOW), rel=1e-9)


def test_the_signal_shows_in_the_bars(panel: pl.DataFrame) -> None:
    # Ordinary least squares on two plain features, fitted on the first half, reaches 90 % of the truth on the second.
    market = SimulatedSource(SimulatedOptions(), CALENDAR)
    mean, deviation = pl.col("volume").rolling_mean(20), pl.col("volume").rolling_std(20)
    volume_z = ((pl.col("volume") - mean) / deviation).over("symbol").alias("volume_z")
    rows = panel.with_columns(volume_z).drop_nulls(["volume_z", "label"])
    rows = rows.with_columns(pl.lit(1.0).alias("one"))
    half = date(2024, 1, 2)
    train, test = rows.filter(pl.col("session") < half), rows.filter(pl.col("session") >= half)
    names = ["location", "volume_z", "one"]
    weights, *_ = np.linalg.lstsq(train.select(names).to_numpy(), train["label"].to_numpy(), rcond=None)
    scored = test.with_columns(pl.Series("score", test.select(names).to_numpy() @ weights))
    assert mean_ic(scored, "score") > 0.9 * market.attainable_ic(half, END, NOW)


def test_without_a_signal_there_is_nothing_to_find() -> None:
    market = SimulatedSource(SimulatedOptions(signal_ic=0.0), CALENDAR)
    assert market.attainable_ic(START, END, NOW) == 0.0
    fetched = market.fetch(market.symbols(), START, END, NOW)
    bars = adjusted(fetched.bars, fetched.actions)
    label = (pl.col("open").shift(-2) / pl.col("open").shift(-1)).log().over("symbol").alias("label")
    location = ((pl.col("close") - pl.col("low")) / (pl.col("high") - pl.col("low"))).alias("location")
    change = (pl.col("close") / pl.col("close").shift(1)).log().over("symbol").alias("change")
    frame = bars.with_columns(label, location, change)
    assert abs(mean_ic(frame, "location")) < 0.012
    assert abs(mean_ic(frame, "change")) < 0.012


def test_a_persistent_signal_lasts() -> None:
    market = build_simulated(SimulatedOptions(symbols=60, signal_persistence=0.8), CALENDAR)
    truth = market.oracle(START, END, NOW).with_columns(
        (pl.col("expected") - pl.col("expected").mean().over("session")).alias("own")
    )
    lagged = truth.with_columns(pl.col("own").shift(1).over("symbol").alias("before")).drop_nulls()
    # 0.8 from the memory, and what the tilt adds to the next close location: 0.6 * 0.1 * corr(location, return) or so.
    assert 0.8 < lagged.select(pl.corr("own", "before")).item() < 0.9
    assert market.attainable_ic(START, END, NOW) == pytest.approx(0.1, abs=0.02)


def test_other_calendars() -> None:
    market = SimulatedSource(SimulatedOptions(symbols=3, start=date(2024, 1, 6), late_listings=0.0), "24/7")
    bars = market.fetch(market.symbols(), date(2024, 1, 6), date(2024, 1, 9), datetime(2024, 1, 9, tzinfo=UTC)).bars
    assert bars["session"].unique().sort().to_list() == [date(2024, 1, 6), date(2024, 1, 7), date(2024, 1, 8)]
