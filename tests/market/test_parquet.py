"""The file source: what a file may look like, and what is refused with which words."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from trading_core.errors import (
    DuplicateKeysError,
    EmptyUniverseError,
    FutureDataError,
    InvalidConfigError,
    InvalidDateRangeError,
    MissingColumnsError,
    MissingFileError,
    TradingError,
    UnreadableFileError,
    WrongTypeError,
)
from trading_core.market.parquet import ParquetOptions, build_parquet
from trading_core.market.source import BAR_SCHEMA, INSTRUMENT_SCHEMA, Fetched
from trading_core.schema import PriceBasis

PANEL = Path(__file__).resolve().parents[2].parent / "shared" / "market" / "sp500_2013_2018.parquet"
NOW = datetime(2024, 6, 3, 12, 0, tzinfo=UTC)  # a Monday before the open: Friday 31 May is the last closed session
DAYS = [date(2024, 5, 29), date(2024, 5, 30), date(2024, 5, 31)]
SMALL = pl.DataFrame(
    {
        "symbol": ["BBB", "BBB", "AAA", "AAA", "AAA"],
        "date": [DAYS[1], DAYS[2], DAYS[0], DAYS[1], DAYS[2]],
        "open": [20.0, 21.0, 10.0, 11.0, 12.0],
        "high": [20.5, 21.5, 10.5, 11.5, 12.5],
        "low": [19.5, 20.5, 9.5, 10.5, 11.5],
        "close": [20.2, 21.2, 10.2, 11.2, 12.2],
        "volume": [200, 210, 100, 110, 120],
    }
)


def fetch(path: Path, symbols: list[str] | None = None, start: date = DAYS[0], end: date = DAYS[2]) -> Fetched:
    source = build_parquet(ParquetOptions(str(path)), "XNYS")
    return source.fetch(symbols or source.symbols(), start, end, NOW)


def stored(tmp_path: Path, frame: pl.DataFrame, name: str = "bars.parquet") -> Path:
    path = tmp_path / name
    frame.write_csv(path) if name.endswith(".csv") else frame.write_parquet(path)
    return path


def test_bars_come_sorted_with_the_close_of_their_session(tmp_path: Path) -> None:
    fetched = fetch(stored(tmp_path, SMALL))
    assert dict(fetched.bars.schema) == BAR_SCHEMA
    assert fetched.bars.select("symbol", "session", "close", "volume").rows() == [
        ("AAA", DAYS[0], 10.2, 100.0),
        ("AAA", DAYS[1], 11.2, 110.0),
        ("AAA", DAYS[2], 12.2, 120.0),
        ("BBB", DAYS[1], 20.2, 200.0),
        ("BBB", DAYS[2], 21.2, 210.0),
    ]
    assert fetched.bars["ts"][0] == datetime(2024, 5, 29, 20, 0, tzinfo=UTC)  # 16:00 in New York, summer time
    assert fetched.actions.is_empty()
    assert fetched.failures == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.with_columns(pl.col("date").cast(pl.Datetime("us"))),
        lambda f: f.with_columns(pl.col("date").cast(pl.Datetime("ns"))),
        lambda f: f.with_columns(pl.col("date").cast(pl.Datetime("ms")).dt.replace_time_zone("America/New_York")),
        lambda f: f.with_columns(pl.col("date").cast(pl.String)),
        lambda f: f.with_columns(pl.col("date").dt.strftime("%Y-%m-%dT00:00:00")),
        lambda f: f.with_columns(pl.col("volume").cast(pl.Float32)),
        lambda f: f.with_columns(pl.col("symbol").cast(pl.Categorical)),
        lambda f: f.rename({"date": "session"}),
        lambda f: f.rename({name: name.upper() for name in f.columns}),
        lambda f: f.rename({name: name.title() for name in f.columns}).with_columns(pl.lit("x").alias("Name")),
        lambda f: f.reverse(),
    ],
)
@pytest.mark.parametrize("name", ["bars.parquet", "bars.csv"])
def test_the_same_bars_in_another_dress(
    tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], name: str
) -> None:
    if name == "bars.csv" and isinstance(change(SMALL).to_series(1).dtype, pl.Datetime):
        pytest.skip("a CSV holds text")
    expected = fetch(stored(tmp_path, SMALL, "plain.parquet")).bars
    assert fetch(stored(tmp_path, change(SMALL), name)).bars.equals(expected)


def test_nan_and_null_prices_are_both_null(tmp_path: Path) -> None:
    frame = SMALL.with_columns(open=pl.Series([float("nan"), None, 10.0, 11.0, 12.0]))
    opens = fetch(stored(tmp_path, frame)).bars["open"].to_list()
    assert opens == [10.0, 11.0, 12.0, None, None]
    csv = tmp_path / "nan.csv"
    csv.write_text("symbol,date,open,high,low,close,volume\nAAA,2024-05-31,NaN,,1,1,1\n")
    row = fetch(csv).bars.row(0, named=True)
    assert (row["open"], row["high"], row["low"]) == (None, None, 1.0)


def test_text_among_the_numbers_of_a_csv_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("symbol,date,open,high,low,Close,volume\nAAA,2024-05-30,1,1,1,1,5\nAAA,2024-05-31,1,1,1,n/a,5\n")
    with pytest.raises(WrongTypeError, match="column 'Close' is text such as 'n/a', expected a number"):
        fetch(path)
    path.write_text("symbol,date,open,high,low,close,volume\nAAA,2024-05-31,1e1, 11,9,10,5\n")
    assert fetch(path).bars.select("open", "high").rows() == [(10.0, 11.0)]


def test_csv_symbols_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("Symbol,Date,Open,High,Low,Close,Volume\n005930,2024-05-31,1,1,1,1,5\nTRUE,2024-05-31,1,1,1,1,5\n")
    assert build_parquet(ParquetOptions(str(path)), "XNYS").symbols() == ["005930", "TRUE"]


def test_a_symbol_that_is_not_there_is_named(tmp_path: Path) -> None:
    fetched = fetch(stored(tmp_path, SMALL), ["AAA", "ZZZ"])
    assert list(fetched.failures) == ["ZZZ"]
    assert "bars.parquet" in fetched.failures["ZZZ"]
    assert fetched.bars["symbol"].unique().to_list() == ["AAA"]


def test_a_day_without_a_session_is_handed_over_at_21_utc(tmp_path: Path) -> None:
    holiday = SMALL.with_columns(date=pl.Series([date(2024, 5, 27), *SMALL["date"].to_list()[1:]]))  # Memorial Day
    row = fetch(stored(tmp_path, holiday), ["BBB"], start=date(2024, 5, 20)).bars.row(0, named=True)
    assert (row["session"], row["ts"]) == (date(2024, 5, 27), datetime(2024, 5, 27, 21, 0, tzinfo=UTC))


def test_instruments_with_and_without_sectors(tmp_path: Path) -> None:
    path = stored(tmp_path, SMALL)
    plain = build_parquet(ParquetOptions(str(path)), "XNYS").instruments(NOW)
    assert dict(plain.schema) == INSTRUMENT_SCHEMA
    assert plain.rows() == [("AAA", None, DAYS[0], None), ("BBB", None, DAYS[1], None)]
    sectors = tmp_path / "sectors.csv"
    sectors.write_text("Symbol,Sector,Name\nBBB,Energy,B Corp\nCCC,Utilities,C Corp\n")
    rows = build_parquet(ParquetOptions(str(path), sectors=str(sectors)), "XNYS").instruments(NOW).rows()
    assert rows == [("AAA", None, DAYS[0], None), ("BBB", "Energy", DAYS[1], None)]
    sectors.write_text("symbol,sector\nBBB,Energy\nBBB,Utilities\n")
    with pytest.raises(DuplicateKeysError, match="1 duplicated keys"):
        build_parquet(ParquetOptions(str(path), sectors=str(sectors)), "XNYS").instruments(NOW)


Refused = tuple[Callable[[pl.DataFrame], pl.DataFrame], type[TradingError], str]
REFUSED: dict[str, Refused] = {
    "columns": (lambda f: f.drop("open", "volume"), MissingColumnsError, "lacks the columns open, volume"),
    "no date": (lambda f: f.drop("date"), MissingColumnsError, "lacks the column date"),
    "price text": (
        lambda f: f.with_columns(close=pl.lit("12,5")),
        WrongTypeError,
        "column 'close' is String, expected a number",
    ),
    "symbol number": (lambda f: f.with_columns(symbol=pl.lit(7)), WrongTypeError, "column 'symbol' is Int32"),
    "date number": (lambda f: f.with_columns(date=pl.lit(20240531)), WrongTypeError, "column 'date' is Int32"),
    "date text": (lambda f: f.with_columns(date=pl.lit("31/05/2024")), WrongTypeError, "no ISO date in 5 row"),
    "no symbol": (lambda f: f.with_columns(symbol=pl.lit(None, pl.String)), WrongTypeError, "empty in 5 row"),
    "duplicates": (lambda f: pl.concat([f, f.head(1)]), DuplicateKeysError, "for example BBB 2024-05-30"),
    "future": (
        lambda f: f.with_columns(date=pl.col("date").dt.offset_by("3d")),
        FutureDataError,
        "bars up to 2024-06-03, later than now",
    ),
    "no rows": (lambda f: f.head(0), EmptyUniverseError, "the file holds no row"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_refused(tmp_path: Path, case: str) -> None:
    change, error, text = REFUSED[case]
    with pytest.raises(error) as caught:
        fetch(stored(tmp_path, change(SMALL)), ["AAA"])
    assert text in str(caught.value)
    assert "bars.parquet" in str(caught.value)


def test_files_that_are_no_files_of_bars(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="There is no file of bars at"):
        fetch(tmp_path / "gone.parquet", ["AAA"])
    garbage = tmp_path / "bars.parquet"
    garbage.write_bytes(b"this is no parquet file at all")
    with pytest.raises(UnreadableFileError, match=r"bars\.parquet' cannot be read as a file of bars"):
        fetch(garbage, ["AAA"])
    whole = stored(tmp_path, SMALL, "whole.parquet").read_bytes()
    garbage.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableFileError):
        fetch(garbage, ["AAA"])
    text = "symbol,date,open,high,low,close,volume\nAAA,2024-05-31,1,1,1,1,1\n"
    zipped = tmp_path / "bars.csv.gz"
    zipped.write_bytes(gzip.compress(text.encode()))
    assert fetch(zipped).bars.height == 1
    ragged = tmp_path / "ragged.csv"
    ragged.write_text(text + "AAA,2024-05-30,1,1,1,1,1,1,1,1\n")
    with pytest.raises(UnreadableFileError):
        fetch(ragged)
    sheet = tmp_path / "bars.xlsx"
    sheet.write_bytes(b"PK")
    with pytest.raises(UnreadableFileError, match=r"must end in \.parquet"):
        fetch(sheet, ["AAA"])
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(EmptyUniverseError, match="the file is empty"):
        fetch(empty, ["AAA"])


def test_a_changed_file_is_checked_again(tmp_path: Path) -> None:
    path = stored(tmp_path, SMALL)
    source = build_parquet(ParquetOptions(str(path)), "XNYS")
    assert source.symbols() == ["AAA", "BBB"]
    stored(tmp_path, SMALL.filter(pl.col("symbol") == "BBB"))
    assert source.symbols() == ["BBB"]
    stored(tmp_path, pl.concat([SMALL, SMALL]))
    with pytest.raises(DuplicateKeysError, match="5 duplicated keys"):
        source.symbols()


def test_options_state_their_bounds() -> None:
    with pytest.raises(ValueError, match="allowed: raw, split_adjusted, total_return"):
        ParquetOptions("x.parquet", price_basis="adjusted")
    with pytest.raises(ValueError, match="path is empty"):
        ParquetOptions(" ")
    assert build_parquet(ParquetOptions("absent.parquet"), "XNYS").price_basis is PriceBasis.SPLIT_ADJUSTED


def test_a_start_after_its_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDateRangeError):
        fetch(stored(tmp_path, SMALL), ["AAA"], start=DAYS[2], end=DAYS[0])


@pytest.mark.panel
@pytest.mark.skipif(not PANEL.is_file(), reason="the shared real panel is absent")
def test_the_real_panel_comes_through_unchanged() -> None:
    """Counts and values are read from the file by pyarrow, not by the code under test."""
    table = pq.read_table(PANEL)
    source = build_parquet(ParquetOptions(str(PANEL)), "XNYS")
    bars = source.fetch(source.symbols(), date(2013, 1, 1), date(2018, 12, 31), NOW).bars
    assert bars.height == table.num_rows == 619_040
    assert bars["symbol"].n_unique() == len(set(table.column("symbol").to_pylist())) == 505
    aapl = source.fetch(["AAPL"], date(2014, 6, 9), date(2014, 6, 9), NOW).bars.row(0, named=True)
    # The day of Apple's 7:1 split, split-adjusted to that day's terms: it closed at 93.70.
    assert aapl["close"] == pytest.approx(93.70, abs=0.005)


# --- times ------------------------------------------------------------------------------------------------------------

OHLCV = "open,high,low,close,volume"


def csv(tmp_path: Path, header: str, rows: list[str], name: str = "bars.csv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def intraday(path: Path, interval: str = "30m", **options: object) -> Fetched:
    source = build_parquet(ParquetOptions(str(path), **options), "XNYS", interval)  # type: ignore[arg-type]
    return source.fetch(source.symbols(), DAYS[0], DAYS[2], NOW)


THURSDAY = ["2024-05-30T13:00:00Z", "2024-05-30T13:30:00Z", "2024-05-30T19:30:00Z", "2024-05-30T20:00:00Z"]
# 9:30 to 16:00 in New York is 13:30 to 20:00 UTC in summer: the first and the last of these half hours lie outside.
INSIDE = [datetime(2024, 5, 30, 14, 0, tzinfo=UTC), datetime(2024, 5, 30, 20, 0, tzinfo=UTC)]


@pytest.mark.parametrize("column", ["ts", "datetime", "timestamp", "Time", "Date"])
def test_intraday_bars_end_where_they_end_and_stay_inside_the_session(tmp_path: Path, column: str) -> None:
    rows = [f"AAA,{stamp},1,1,1,{i},5" for i, stamp in enumerate(THURSDAY)]
    fetched = intraday(csv(tmp_path, f"symbol,{column},{OHLCV}", rows))
    assert fetched.bars.select("ts", "session", "close").rows() == [
        (INSIDE[0], DAYS[1], 1.0),
        (INSIDE[1], DAYS[1], 2.0),
    ]
    assert fetched.outside_hours == 2


@pytest.mark.parametrize(
    ("options", "stamps"),
    [
        ({"stamped": "end"}, ["2024-05-30 14:00", "2024-05-30 20:00"]),
        ({"timezone": "America/New_York"}, ["2024-05-30 09:30:00", "2024-05-30 15:30:00.000"]),
        ({}, ["2024-05-30T09:30:00-04:00", "2024-05-30 15:30-0400"]),
    ],
)
def test_intraday_stamps_in_other_dresses(tmp_path: Path, options: dict[str, object], stamps: list[str]) -> None:
    rows = [f"AAA,{stamp},1,1,1,1,5" for stamp in stamps]
    assert intraday(csv(tmp_path, f"symbol,ts,{OHLCV}", rows), **options).bars["ts"].to_list() == INSIDE


def test_intraday_stamps_of_a_parquet_file(tmp_path: Path) -> None:
    starts = pl.Series("ts", [datetime(2024, 5, 30, 9, 30), datetime(2024, 5, 30, 15, 30)])
    frame = SMALL.head(2).drop("date").with_columns(starts)
    local = intraday(stored(tmp_path, frame), timezone="America/New_York")
    zoned = frame.with_columns(pl.col("ts").dt.replace_time_zone("America/New_York").dt.cast_time_unit("ms"))
    assert local.bars["ts"].to_list() == INSIDE == intraday(stored(tmp_path, zoned, "z.parquet")).bars["ts"].to_list()
    with pytest.raises(WrongTypeError, match=r"column 'date' is Date, expected a datetime .* as bars of 30m need"):
        intraday(stored(tmp_path, SMALL, "days.parquet"))


def test_the_last_hour_of_a_day_is_cut_at_the_close(tmp_path: Path) -> None:
    rows = [f"AAA,2024-05-30T{hour}:30:00Z,1,1,1,1,5" for hour in range(13, 20)]
    bars = intraday(csv(tmp_path, f"symbol,ts,{OHLCV}", rows), "1h").bars
    assert bars["ts"].dt.strftime("%H:%M").to_list() == [f"{h}:30" for h in range(14, 20)] + ["20:00"]


def test_intraday_duplicates_and_bars_that_have_not_ended(tmp_path: Path) -> None:
    path = csv(tmp_path, f"symbol,ts,{OHLCV}", ["AAA,2024-05-30T14:00:00Z,1,1,1,1,5"] * 2)
    with pytest.raises(DuplicateKeysError, match=r"\(symbol, ts\), for example AAA 2024-05-30 14:00:00"):
        intraday(path)
    late = csv(tmp_path, f"symbol,ts,{OHLCV}", ["AAA,2024-06-03T11:45:00Z,1,1,1,1,5"])
    with pytest.raises(FutureDataError, match="2024-06-03 11:45:00"):  # NOW is 12:00
        intraday(late)
    undated = csv(tmp_path, f"symbol,ts,{OHLCV}", ["AAA,30/05/2024 14:00,1,1,1,1,5"])
    with pytest.raises(WrongTypeError, match="no ISO time in 1 row"):
        intraday(undated)


def test_a_session_in_progress_has_no_intraday_bars_yet(tmp_path: Path) -> None:
    path = csv(tmp_path, f"symbol,ts,{OHLCV}", [f"AAA,2024-05-{day}T14:00:00Z,1,1,1,1,5" for day in (30, 31)])
    source = build_parquet(ParquetOptions(str(path)), "XNYS", "30m")
    noon = datetime(2024, 5, 31, 16, 0, tzinfo=UTC)
    assert source.fetch(["AAA"], DAYS[0], DAYS[2], noon).bars["session"].to_list() == [DAYS[1]]


def test_an_asian_session_may_begin_the_day_before_in_utc(tmp_path: Path) -> None:
    """Sydney opens at 10:00; in January that is 23:00 UTC of the day before."""
    path = csv(
        tmp_path, f"symbol,ts,{OHLCV}", ["BHP,2024-01-29T23:00:00Z,1,1,1,1,5", "BHP,2024-01-30T01:00:00Z,1,1,1,1,5"]
    )
    source = build_parquet(ParquetOptions(str(path)), "XASX", "1h")
    day = date(2024, 1, 30)
    assert source.fetch(["BHP"], day, day, NOW).bars["session"].to_list() == [day, day]
    assert source.instruments(NOW)["listed"].to_list() == [day]


@pytest.mark.parametrize(
    ("stamped", "stamp", "day"),
    [
        ("start", "2024-05-30", "2024-05-30"),
        ("end", "2024-05-30", "2024-05-30"),  # a plain date is the day itself
        ("start", "2024-05-30T00:00:00Z", "2024-05-30"),
        ("end", "2024-05-31T00:00:00Z", "2024-05-30"),  # midnight closes the day before
        ("end", "2024-05-30T16:00:00-04:00", "2024-05-30"),
    ],
)
def test_the_day_of_a_daily_stamp(tmp_path: Path, stamped: str, stamp: str, day: str) -> None:
    path = csv(tmp_path, f"symbol,timestamp,{OHLCV}", [f"AAA,{stamp},1,1,1,1,5"])
    source = build_parquet(ParquetOptions(str(path), stamped=stamped), "XNYS")  # type: ignore[arg-type]
    assert source.fetch(["AAA"], DAYS[0], DAYS[2], NOW).bars["session"].to_list() == [date.fromisoformat(day)]


def test_a_market_that_never_closes_has_weekends(tmp_path: Path) -> None:
    path = csv(tmp_path, f"symbol,date,{OHLCV}", [f"BTC,2024-06-0{day},1,1,1,1,5" for day in (1, 2)])
    bars = build_parquet(ParquetOptions(str(path)), "24/7").fetch(["BTC"], date(2024, 6, 1), date(2024, 6, 2), NOW).bars
    assert bars["ts"].to_list() == [datetime(2024, 6, day, tzinfo=UTC) for day in (2, 3)]
    hourly = csv(
        tmp_path, f"symbol,ts,{OHLCV}", [f"BTC,2024-06-01T{h:02d}:00:00Z,1,1,1,1,5" for h in range(24)], "h.csv"
    )
    fetched = build_parquet(ParquetOptions(str(hourly)), "24/7", "1h").fetch(
        ["BTC"], date(2024, 6, 1), date(2024, 6, 1), NOW
    )
    assert (fetched.bars.height, fetched.outside_hours) == (24, 0)
    assert fetched.bars["ts"].max() == datetime(2024, 6, 2, tzinfo=UTC)


def test_a_file_of_one_symbol_needs_no_column_for_it(tmp_path: Path) -> None:
    rows = [f"{day},1,1,1,1,5" for day in DAYS]
    path = csv(tmp_path, f"Date,{OHLCV}", rows, "btc-usd.csv")
    assert build_parquet(ParquetOptions(str(path)), "XNYS").symbols() == ["BTC-USD"]
    named = build_parquet(ParquetOptions(str(path), symbol="XBT"), "XNYS")
    assert named.fetch(["XBT"], DAYS[0], DAYS[2], NOW).bars["symbol"].to_list() == ["XBT"] * 3
    several = csv(tmp_path, f"Date,{OHLCV}", rows * 2, "several.csv")
    with pytest.raises(MissingColumnsError, match="lacks the column symbol"):
        build_parquet(ParquetOptions(str(several)), "XNYS").symbols()
    with pytest.raises(InvalidConfigError, match="the file has a column symbol; leave the option out"):
        build_parquet(ParquetOptions(str(stored(tmp_path, SMALL)), symbol="AAA"), "XNYS").symbols()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"stamped": "middle"}, "allowed: start, end"),
        ({"timezone": "New York"}, "give a name such as UTC"),
        ({"symbol": " "}, "symbol is empty"),
    ],
)
def test_time_options_state_their_bounds(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ParquetOptions("x.parquet", **options)  # type: ignore[arg-type]
