"""Tables that meet killed writers, other processes, damaged files and odd folder names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from trading_core.errors import ArtifactCorruptedError, InvalidDateRangeError, StorageError, WrongTypeError
from trading_core.storage.artifacts import ArtifactStore
from trading_core.storage.tables import Predicate, Tables

D1, D2 = date(2024, 1, 2), date(2024, 1, 3)


def frame(session: date, value: int, rows: int = 3) -> pl.DataFrame:
    return pl.DataFrame({"session": [session] * rows, "value": [value] * rows})


def folder_tables(folder: Path) -> Tables:
    return Tables(ArtifactStore.open(str(folder)), "simulated")


WRITER = """
import sys
from datetime import date
import polars as pl
from trading_core.storage.artifacts import ArtifactStore
from trading_core.storage.tables import Predicate, Tables
url, first, last, rows = sys.argv[1], *map(int, sys.argv[2:])
tables = Tables(ArtifactStore.open(url), "simulated")
print("ready", flush=True)
sys.stdin.readline()
for value in range(first, last):
    day = date(2024, 1, 2 if rows > 3 else 1 + value)
    data = pl.DataFrame({"session": [day] * rows, "value": [value] * rows})
    tables.replace("t", data, Predicate(day, day))
"""


def start_writer(url: str, first: int, last: int, rows: int) -> subprocess.Popen[str]:
    arguments = [url, str(first), str(last), str(rows)]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.thorough
def test_two_processes_writing_days_of_one_month_both_survive(tmp_path: Path) -> None:
    tables = folder_tables(tmp_path)
    writers = [start_writer(str(tmp_path), first, first + 5, 3) for first in (0, 5)]
    for writer in writers:
        go(writer)
    assert [writer.wait(120) for writer in writers] == [0, 0]
    found = tables.read("t").group_by("session").agg(pl.len(), pl.col("value").first()).sort("session")
    assert found.rows() == [(date(2024, 1, 1 + value), 3, value) for value in range(10)]


@pytest.mark.thorough
def test_a_writer_killed_at_any_moment_leaves_a_whole_version(tmp_path: Path) -> None:
    tables = folder_tables(tmp_path)
    tables.replace("t", frame(D1, -1, 20_000), Predicate(D1, D1))
    writer = start_writer(str(tmp_path), 0, 10_000, 20_000)
    go(writer)
    while (tables.version("t") or 0) < 3:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(30)
    version = tables.version("t")
    assert version is not None
    for kept in (0, version - 1, version):
        values = tables.read("t", version=kept)["value"]
        assert (len(values), values.n_unique(), values[0]) == (20_000, 1, kept - 1)
    assert tables.replace("t", frame(D2, 7), Predicate(D2, D2)) == version + 1
    assert tables.read("t", where=Predicate(D2))["value"].to_list() == [7, 7, 7]


@pytest.mark.parametrize(
    "name", ["with space", "ümläut", "hash#plus+", "quote'\"", "colon:at@", "question?", "100% sure"]
)
def test_tables_work_in_folders_with_odd_names(tmp_path: Path, name: str) -> None:
    tables = folder_tables(tmp_path / name)
    tables.replace("t", frame(D1, 1), Predicate(D1, D1))
    tables.replace("t", frame(D2, 2), Predicate(D2, D2))
    assert tables.read("t", where=Predicate(D2))["value"].to_list() == [2, 2, 2]
    assert tables.names() == ["t"]


def data_file(folder: Path) -> Path:
    return next((folder / "simulated" / "tables" / "t").rglob("*.parquet"))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    tables = folder_tables(tmp_path)
    tables.replace("t", frame(D1, 1), Predicate(D1, D1))
    file = data_file(tmp_path)
    content = file.read_bytes()
    for damaged in (b"", content[:-20], b"x" * len(content)):
        file.write_bytes(damaged)
        with pytest.raises(ArtifactCorruptedError, match="tables/t"):
            tables.read("t")
    file.unlink()
    with pytest.raises(ArtifactCorruptedError, match="tables/t"):
        tables.read("t")
    file.write_bytes(content)
    assert tables.read("t")["value"].to_list() == [1, 1, 1]


def test_a_damaged_log_is_refused(tmp_path: Path) -> None:
    tables = folder_tables(tmp_path)
    tables.replace("t", frame(D1, 1), Predicate(D1, D1))
    log = tmp_path / "simulated" / "tables" / "t" / "_delta_log" / f"{0:020d}.json"
    log.write_bytes(b"{broken")
    for use in (tables.read, tables.version, lambda name: tables.replace(name, frame(D1, 2), Predicate(D1, D1))):
        with pytest.raises(StorageError):
            use("t")


def test_a_predicate_is_checked_when_it_is_made() -> None:
    with pytest.raises(InvalidDateRangeError, match=r"2024-01-03 \.\. 2024-01-02"):
        Predicate(D2, D1)
    for wrong in (
        {"start": datetime(2024, 1, 2)},
        {"end": "2024-01-02"},
        {"equals": {"x": 1.5}},
        {"equals": {"x": True}},
    ):
        with pytest.raises(WrongTypeError):
            Predicate(**wrong)  # type: ignore[arg-type]


def test_a_predicate_names_months_before_sessions() -> None:
    assert Predicate().sql() is None
    assert Predicate(D1, date(2024, 3, 5), {'na"me': "it's", "horizon": 5}).sql() == (
        "\"month\" >= '2024-01' AND \"session\" >= CAST('2024-01-02' AS DATE)"
        " AND \"month\" <= '2024-03' AND \"session\" <= CAST('2024-03-05' AS DATE)"
        ' AND "na""me" = \'it\'\'s\' AND "horizon" = 5'
    )


def test_markets_do_not_see_each_other(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path))
    one, two = Tables(store, "simulated"), Tables(store, "sp500-panel")
    one.replace("t", frame(D1, 1), Predicate())
    assert two.names() == []
    two.replace("t", frame(D1, 2), Predicate())
    assert one.read("t")["value"].to_list() == [1, 1, 1]


@pytest.mark.panel
def test_the_real_panel_comes_back_bit_for_bit(tmp_path: Path, panel_path: Path) -> None:
    panel = pl.read_parquet(panel_path).with_columns(pl.col("date").dt.date().alias("session")).drop("date")
    tables = folder_tables(tmp_path)
    tables.replace("bars", panel, Predicate(panel["session"].min(), panel["session"].max()))  # type: ignore[arg-type]
    back = tables.read("bars").drop("month").select(panel.columns)
    assert back.sort("symbol", "session").equals(panel.sort("symbol", "session"))
    assert tables.last_session("bars") == panel["session"].max()
    assert tables.sessions("bars") == panel["session"].unique().sort().to_list()
