"""What every market data source keeps, whatever it is. A new source brings one line in SAMPLES."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "market"))

from alpaca_server import KEY_ID, SECRET_KEY, AlpacaServer
from yahoo_server import YahooServer

from trading_core.errors import FutureDataError, InvalidConfigError, InvalidDateRangeError
from trading_core.market import alpaca, yahoo
from trading_core.market.alpaca import AlpacaOptions
from trading_core.market.parquet import ParquetOptions
from trading_core.market.registry import SOURCES
from trading_core.market.simulated import SimulatedOptions
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA, INSTRUMENT_SCHEMA, Fetched, Source
from trading_core.market.yahoo import YahooOptions
from trading_core.schema import INTERVALS, ActionKind, PriceBasis
from trading_core.sessions import Sessions

CALENDAR = "XNYS"
START, END = date(2020, 1, 2), date(2020, 12, 31)
NOW = datetime(2021, 1, 4, 12, 0, tzinfo=UTC)
EARLY = datetime(2020, 6, 15, 15, 0, tzinfo=UTC)  # a Monday, during the session: Friday 12 June is the last closed one
SESSIONS = Sessions(CALENDAR)
HALF_HOUR_SPAN = date(2020, 12, 23), date(2020, 12, 29)  # Christmas Eve is a half day
UNKNOWN = "NOPE"  # a symbol that no sample has


@dataclass(frozen=True)
class Sample:
    """Options of a small market with bars in START..END."""

    options: Callable[[Path], Any]
    refuses_later_rows: bool = False  # a file with rows after `now` is refused as a whole
    half_hourly: Callable[[Path], Any] | None = (
        None  # of a market with bars of 30m in HALF_HOUR_SPAN; default: the same
    )


def _file(folder: Path) -> ParquetOptions:
    days = SESSIONS.between(START, END)
    rows = [
        (s, d, 10.0 + i, 11.0 + i, 9.0 + i, 10.5 + i, 100 * i) for s in ("AA", "BB", "CC") for i, d in enumerate(days)
    ]
    names = ["Symbol", "Date", "Open", "High", "Low", "Close", "Volume"]
    pl.DataFrame(rows, schema=names, orient="row").sample(fraction=1.0, shuffle=True, seed=1).write_parquet(
        folder / "b.pq"
    )
    return ParquetOptions(str(folder / "b.pq"))


def _half_hours(folder: Path) -> ParquetOptions:
    """From half an hour before the open to half an hour after the close of each session, stamped with the start."""
    rows = []
    for day in SESSIONS.between(*HALF_HOUR_SPAN):
        start, end = SESSIONS.open(day) - timedelta(minutes=30), SESSIONS.close(day) + timedelta(minutes=30)
        starts = [start + timedelta(minutes=30 * i) for i in range(int((end - start) / timedelta(minutes=30)))]
        rows += [(s, at, 10.0, 11.0, 9.0, 10.5, 100.0) for s in ("AA", "BB", "CC") for at in starts]
    names = ["symbol", "ts", "open", "high", "low", "close", "volume"]
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(folder / "h.pq")
    return ParquetOptions(str(folder / "h.pq"))


SAMPLES: dict[str, Sample] = {
    "simulated": Sample(lambda folder: SimulatedOptions(symbols=8, start=date(2019, 1, 2), splits_per_year=1.0)),
    "parquet": Sample(_file, refuses_later_rows=True, half_hourly=_half_hours),
    "yahoo": Sample(lambda folder: YahooOptions(("AAPL", "IBM", "MSFT"), START, pause_s=0.0, max_retries=0)),
    "alpaca": Sample(
        lambda folder: AlpacaOptions(
            ("AAPL", "GE", "IBM"), START, requests_per_minute=100_000, max_retries=0, symbols_per_request=2
        )
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _stand_in() -> Iterator[None]:
    with (
        YahooServer(now=NOW) as yahoo_server,
        AlpacaServer(now=NOW) as alpaca_server,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setenv(yahoo.URL_VARIABLE, yahoo_server.url)
        patched.setenv(alpaca.URL_VARIABLE, alpaca_server.url)
        for name, value in zip(alpaca.KEY_VARIABLES, (KEY_ID, SECRET_KEY), strict=True):
            patched.setenv(name, value)
        yield


@pytest.fixture(scope="module", params=sorted(SAMPLES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def options(name: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return SAMPLES[name].options(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def source(name: str, options: Any) -> Source:
    return SOURCES[name].build(options, CALENDAR)


@pytest.fixture(scope="module")
def whole(source: Source) -> Fetched:
    return source.fetch(source.symbols(), START, END, NOW)


def test_every_registered_source_has_a_sample() -> None:
    assert sorted(SAMPLES) == sorted(SOURCES)


def test_it_is_a_source_of_its_name(name: str, options: Any, source: Source) -> None:
    assert isinstance(source, Source)
    assert isinstance(options, SOURCES[name].options)
    assert source.name == name
    assert source.interval == "1d"
    assert isinstance(source.price_basis, PriceBasis)
    assert source.symbols() == sorted(set(source.symbols()))


def test_frames_have_the_columns_and_types_of_the_schema(source: Source, whole: Fetched) -> None:
    assert list(whole.bars.schema.items()) == list(pl.Schema(BAR_SCHEMA).items())
    assert list(whole.actions.schema.items()) == list(pl.Schema(ACTION_SCHEMA).items())
    assert list(source.instruments(NOW).schema.items()) == list(pl.Schema(INSTRUMENT_SCHEMA).items())
    assert whole.bars.height > 0
    assert whole.failures == {}


def test_keys_are_unique_and_sorted(source: Source, whole: Fetched) -> None:
    for frame, key in (
        (whole.bars, ["symbol", "ts"]),
        (whole.bars, ["symbol", "session"]),
        (whole.actions, ["symbol", "session", "kind"]),
        (source.instruments(NOW), ["symbol"]),
    ):
        assert not frame.select(key).is_duplicated().any()
        assert frame.equals(frame.sort(key))


def test_bars_lie_on_closed_sessions_with_their_close(whole: Fetched) -> None:
    days = whole.bars["session"].unique().sort().to_list()
    assert set(days) <= set(SESSIONS.between(START, END))
    closes = dict(zip(days, SESSIONS.closes(days), strict=True))
    assert all(closes[day] == ts for day, ts in whole.bars.select("session", "ts").iter_rows())
    assert whole.bars["ts"].max() <= NOW  # type: ignore[operator]


def test_prices_are_null_or_finite_never_nan(whole: Fetched) -> None:
    values = whole.bars.select("open", "high", "low", "close", "volume")
    assert values.select(pl.all().drop_nulls().is_finite().all()).row(0) == (True,) * 5


def test_actions_lie_in_the_range_and_are_known_by_then(whole: Fetched) -> None:
    assert set(whole.actions["kind"]) <= {kind.value for kind in ActionKind}
    assert whole.actions["session"].is_between(START, END).all()
    assert (whole.actions["known_at"] <= whole.actions["session"]).all()
    assert (whole.actions["known_at"] <= SESSIONS.last_closed(NOW)).all()
    assert (whole.actions["value"] > 0).all()


def test_nothing_later_than_now_is_shown(name: str, source: Source, whole: Fetched) -> None:
    if SAMPLES[name].refuses_later_rows:
        with pytest.raises(FutureDataError):
            source.fetch(source.symbols(), START, END, EARLY)
        return
    early = source.fetch(source.symbols(), START, END, EARLY)
    closed = pl.col("session") <= date(2020, 6, 12)
    assert_frame_equal(early.bars, whole.bars.filter(closed), check_exact=True)
    assert (early.actions["known_at"] <= date(2020, 6, 12)).all()
    # Announced events of the session that is trading may be there already; those before are all there.
    assert_frame_equal(early.actions.filter(closed), whole.actions.filter(closed), check_exact=True)


@pytest.mark.parametrize("start", [START, date(2020, 5, 4)])
@pytest.mark.parametrize("end", [date(2020, 7, 31), date(2020, 9, 7), END])  # 7 September: Labor Day
def test_a_part_is_the_part_of_the_whole(source: Source, whole: Fetched, start: date, end: date) -> None:
    some = source.symbols()[1:]
    part = source.fetch(some, start, end, NOW)
    wanted = pl.col("symbol").is_in(some) & pl.col("session").is_between(start, end)
    assert_frame_equal(part.bars, whole.bars.filter(wanted), check_exact=True)
    assert_frame_equal(part.actions, whole.actions.filter(wanted), check_exact=True)


def test_day_by_day_is_the_same_as_at_once(source: Source, whole: Fetched) -> None:
    days = SESSIONS.between(date(2020, 8, 26), date(2020, 9, 2))  # around the stand-in's split
    parts = [source.fetch(source.symbols(), day, day, NOW) for day in days]
    within = pl.col("session").is_between(days[0], days[-1])
    bars = pl.concat([part.bars for part in parts]).sort("symbol", "ts")
    assert_frame_equal(bars, whole.bars.filter(within), check_exact=True)
    actions = pl.concat([part.actions for part in parts]).sort("symbol", "session", "kind")
    assert_frame_equal(actions, whole.actions.filter(within), check_exact=True)


def test_the_order_of_the_symbols_does_not_matter(source: Source, whole: Fetched) -> None:
    turned = source.fetch([*reversed(source.symbols()), source.symbols()[0]], START, END, NOW)
    assert_frame_equal(turned.bars, whole.bars, check_exact=True)
    assert_frame_equal(turned.actions, whole.actions, check_exact=True)


def test_the_same_question_has_the_same_answer(name: str, options: Any, whole: Fetched) -> None:
    again = SOURCES[name].build(options, CALENDAR)
    assert_frame_equal(again.fetch(again.symbols(), START, END, NOW).bars, whole.bars, check_exact=True)


def test_a_symbol_that_fails_is_named_and_stops_nobody(source: Source) -> None:
    good = source.symbols()[-1]
    fetched = source.fetch([UNKNOWN, good], START, END, NOW)
    assert list(fetched.failures) == [UNKNOWN]
    assert fetched.failures[UNKNOWN].strip()
    assert fetched.bars["symbol"].unique().to_list() == [good]


def test_a_start_after_its_end_is_refused(source: Source) -> None:
    with pytest.raises(InvalidDateRangeError):
        source.fetch(source.symbols(), END, END - timedelta(days=1), NOW)


def test_a_range_without_a_session_is_empty(source: Source) -> None:
    weekend = source.fetch(source.symbols(), date(2020, 6, 13), date(2020, 6, 14), NOW)
    assert weekend.bars.is_empty()
    assert dict(weekend.bars.schema) == BAR_SCHEMA


def test_a_chunk_of_symbols_can_be_asked_for_alone(source: Source, whole: Fetched) -> None:
    """A backfill that was interrupted asks for the chunks that are missing: together they are the whole."""
    parts = [source.fetch([symbol], START, END, NOW) for symbol in source.symbols()]
    assert_frame_equal(pl.concat([part.bars for part in parts]), whole.bars, check_exact=True)
    assert_frame_equal(pl.concat([part.actions for part in parts]), whole.actions, check_exact=True)


def test_it_serves_its_intervals_and_refuses_the_others(name: str, options: Any) -> None:
    served = SOURCES[name].intervals
    assert set(served) <= set(INTERVALS)
    assert "1d" in served
    for interval in served:
        assert SOURCES[name].build(options, CALENDAR, interval).interval == interval
    for interval in {*INTERVALS, "2m", "1wk", ""} - set(served):
        with pytest.raises(InvalidConfigError, match=f"allowed: {', '.join(served)}"):
            SOURCES[name].build(options, CALENDAR, interval)


@pytest.mark.parametrize("name", sorted(name for name, entry in SOURCES.items() if "30m" in entry.intervals))
def test_intraday_bars_lie_inside_their_session_and_are_stamped_with_their_end(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    source = SOURCES[name].build((sample.half_hourly or sample.options)(tmp_path), CALENDAR, "30m")
    whole = source.fetch(source.symbols(), *HALF_HOUR_SPAN, NOW)
    assert whole.failures == {}
    assert list(whole.bars.schema.items()) == list(pl.Schema(BAR_SCHEMA).items())
    assert not whole.bars.select("symbol", "ts").is_duplicated().any()
    assert whole.bars.equals(whole.bars.sort("symbol", "ts"))
    days = SESSIONS.between(*HALF_HOUR_SPAN)
    assert whole.bars["session"].unique().sort().to_list() == days
    for session, ts in whole.bars.select("session", "ts").iter_rows():
        opened, closed = SESSIONS.open(session), SESSIONS.close(session)
        assert opened < ts <= closed
        assert (ts - opened) % timedelta(minutes=30) == timedelta(0)
    # 13 half hours a day, 7 on the half day.
    one = whole.bars.filter(pl.col("symbol") == source.symbols()[0])
    assert one.group_by("session").len().sort("session")["len"].to_list() == [13, 7, 13, 13]
    parts = [source.fetch(source.symbols(), day, day, NOW).bars for day in days]
    assert_frame_equal(pl.concat(parts).sort("symbol", "ts"), whole.bars, check_exact=True)


def test_building_reads_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (yahoo, alpaca):
        monkeypatch.setenv(module.URL_VARIABLE, "http://127.0.0.1:9")  # nothing answers there
    for variable in alpaca.KEY_VARIABLES:
        monkeypatch.delenv(variable)
    built = SOURCES[name].build(ParquetOptions("no/such/file.parquet"), CALENDAR) if name == "parquet" else None
    built = built or SOURCES[name].build(SAMPLES[name].options(Path("no/such/folder")), CALENDAR)
    assert built.name == name
