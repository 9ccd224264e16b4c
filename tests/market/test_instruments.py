"""Instruments files: what holds when, on tables small enough to read."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from trading_core.errors import MissingColumnsError, MissingFileError, UnreadableFileError, WrongTypeError
from trading_core.market.instruments import facts_as_of, read_facts, read_periods, sectors_at

TIMED = """Symbol,from,to,Sector,lots
A,2020-01-02,2021-06-30,Energy,10
A,2021-07-01,,Technology,20
B,,2020-12-31,Energy,1.5
005930,,,TRUE,
"""


def written(tmp_path: Path, text: str, name: str = "instruments.csv") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_a_fact_holds_between_its_days(tmp_path: Path) -> None:
    facts = read_facts(written(tmp_path, TIMED))
    assert facts.columns == ["symbol", "valid_from", "valid_to", "sector", "lots"]

    def held(day: date) -> dict[str, tuple[str, float | None]]:
        rows = facts_as_of(facts, day).select("symbol", "sector", "lots").iter_rows()
        return {symbol: (sector, lots) for symbol, sector, lots in rows}

    always = {"005930": ("TRUE", None)}  # neither a number nor a truth value
    assert held(date(2019, 12, 31)) == {"B": ("Energy", 1.5), **always}
    assert held(date(2020, 1, 2)) == {"A": ("Energy", 10.0), "B": ("Energy", 1.5), **always}
    assert held(date(2021, 6, 30)) == {"A": ("Energy", 10.0), **always}
    assert held(date(2021, 7, 1)) == {"A": ("Technology", 20.0), **always}


def test_parquet_and_other_names_of_the_days(tmp_path: Path) -> None:
    path = tmp_path / "facts.parquet"
    frame = pl.DataFrame({"symbol": ["A"], "start": [date(2020, 1, 1)], "end": [None], "strike": [105]})
    frame.write_parquet(path)
    facts = read_facts(str(path))
    assert facts.rows() == [("A", date(2020, 1, 1), None, 105.0)]
    assert facts.schema["strike"] == pl.Float64  # so that a later file with 105.5 fits the stored table


def test_sectors_of_rows_go_by_their_own_session_and_fall_back_to_the_source(tmp_path: Path) -> None:
    facts = read_facts(written(tmp_path, TIMED))
    said = pl.DataFrame({"symbol": ["A", "B", "C"], "sector": ["Old", "Old", "Banks"]})
    rows = pl.DataFrame(
        {
            "symbol": ["C", "A", "B", "A", "B", "A", "D"],
            "session": [
                "2021-01-04",
                "2021-07-01",
                "2021-01-04",
                "2021-06-30",
                "2020-12-31",
                "2019-05-01",
                "2021-01-04",
            ],
        }
    ).with_columns(pl.col("session").str.to_date())
    expected = ["Banks", "Technology", "Old", "Energy", "Energy", "Old", None]
    assert sectors_at(rows, facts, said).to_list() == expected
    assert sectors_at(rows, None, None).to_list() == [None] * 7
    assert sectors_at(rows, facts, None).to_list() == [None, "Technology", None, "Energy", "Energy", None, None]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("ticker,sector\nA,x\n", MissingColumnsError, "lacks the column symbol"),
        ("symbol,from\nA,2020-01-01\n", MissingColumnsError, "lacks the column sector"),
        ("symbol,from,sector\nA,01/02/2020,x\n", WrongTypeError, "'01/02/2020'.*YYYY-MM-DD"),
        ("symbol,from,to,sector\nA,2020-02-01,2020-01-31,x\n", UnreadableFileError, "'A' ends on 2020-01-31"),
        ("symbol,from,to,sector\nA,2020-01-01,2020-03-01,x\nA,2020-03-01,,y\n", UnreadableFileError, "'A'.*2020-03-01"),
        ("symbol,sector\nA,x\nA,y\n", UnreadableFileError, "'A' has a period"),
        ("symbol,sector\n,x\n", UnreadableFileError, "symbol is empty in 1 row"),
    ],
)
def test_files_that_cannot_be_used_say_why(tmp_path: Path, text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        read_facts(written(tmp_path, text))


def test_a_file_that_is_not_there_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"file of instruments.*absent\.csv"):
        read_facts(str(tmp_path / "absent.csv"))
    with pytest.raises(UnreadableFileError, match=r"\.xlsx"):
        read_periods(written(tmp_path, "x", "sectors.xlsx"), "a file")
