"""What the benchmarks compute besides time: Qlib's files, the table's arithmetic, the artificial bars."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import features, panels, streaming
from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.qlib_store import write_store

DAYS = [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4), date(2024, 1, 5)]


def bars() -> pl.DataFrame:
    """AAA on all four days; BBB listed on the second and without a bar on the third. Rows in no order."""
    rows = [("BBB", DAYS[3], 30.0), ("AAA", DAYS[1], 11.0), ("AAA", DAYS[0], 10.0), ("BBB", DAYS[1], 20.0)]
    rows += [("AAA", DAYS[3], 13.0), ("AAA", DAYS[2], 12.0)]
    frame = pl.DataFrame(rows, schema=["symbol", "session", "close"], orient="row")
    close = pl.col("close")
    return frame.with_columns(
        open=close - 1, high=close + 1, low=close - 3, volume=close * 100, sector=pl.lit("x")
    ).with_columns(ts=pl.col("session").cast(pl.Datetime("us", "UTC")))


def test_qlib_files_hold_the_start_and_the_bars(tmp_path: Path) -> None:
    write_store(bars(), tmp_path)
    assert (tmp_path / "calendars/day.txt").read_text() == "2024-01-02\n2024-01-03\n2024-01-04\n2024-01-05\n"
    spans = (tmp_path / "instruments/all.txt").read_text()
    assert spans == "AAA\t2024-01-02\t2024-01-05\nBBB\t2024-01-03\t2024-01-05\n"

    def read(symbol: str, field: str) -> list[float]:
        return np.fromfile(tmp_path / "features" / symbol / f"{field}.day.bin", dtype="<f4").tolist()

    assert read("aaa", "close") == [0, 10, 11, 12, 13]
    assert read("aaa", "volume") == [0, 1000, 1100, 1200, 1300]
    assert read("aaa", "vwap") == pytest.approx([0, 28 / 3, 31 / 3, 34 / 3, 37 / 3])  # (11 + 7 + 10) / 3 ...
    np.testing.assert_array_equal(read("bbb", "open"), [1, 19, np.nan, 29])
    assert sorted(path.stem for path in (tmp_path / "features/bbb").iterdir()) == [
        f"{field}.day" for field in ("close", "high", "low", "open", "volume", "vwap")
    ]


def test_a_reserved_name_gets_qlibs_prefix(tmp_path: Path) -> None:
    write_store(bars().with_columns(symbol=pl.lit("PRN")).unique("session"), tmp_path)
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["_qlib_prn"]


def test_rates_and_ratios() -> None:
    ours = features.Row("ours", rows=1_000_000, features=120, seconds=2.0, peak_mib=1500.0)
    qlib = features.Row("qlib", rows=1_000_000, features=150, seconds=30.0, peak_mib=3000.0)
    talib = features.Row("talib", rows=1_000_000, features=12, seconds=0.05, peak_mib=300.0)
    assert (ours.rate, qlib.rate, talib.rate) == (60e6, 5e6, 240e6)
    assert features.times(ours, qlib) == 12.0
    cells = [line.split()[-5:] for line in features.table([ours, qlib, talib])][1:]
    assert cells == [
        ["120", "2.00", "60.0", "1.00", "1,500"],
        ["150", "30.00", "5.0", "12.00", "3,000"],
        ["12", "0.05", "240.0", "0.25", "300"],
    ]


def test_goals_are_called_missed() -> None:
    assert features.goal("ours / Qlib", 10.0, 10.0, at_least=True).startswith("goal met")
    assert features.goal("ours / Qlib", 9.9, 10.0, at_least=True).startswith("goal MISSED")
    assert features.goal("peak MiB", 3072.1, 3072).startswith("goal MISSED")


def test_a_peer_that_read_other_bars_is_refused() -> None:
    features.check_qlib(bars(), 7, 1 / 29)  # BBB opened at 29 and closed at 30; it returns a row for its missing day
    for rows, probe in ((5, 1 / 29), (6, 1 / 12), (6, float("nan"))):
        with pytest.raises(SystemExit):
            features.check_qlib(bars(), rows, probe)


def test_random_walk_is_seeded_and_its_bars_are_possible() -> None:
    walk = panels.random_walk(3, 45)
    assert walk.equals(panels.random_walk(3, 45))
    assert not walk.equals(panels.random_walk(3, 45, seed=8))
    assert walk.group_by("symbol").len()["len"].to_list() == [45, 45, 45]
    assert walk["session"].max() == date(2025, 12, 31)
    assert walk.filter(pl.min_horizontal("open", "close") < pl.col("low")).is_empty()
    assert walk.filter(pl.max_horizontal("open", "close") > pl.col("high")).is_empty()
    moves = walk.select((pl.col("open") / pl.col("close").shift()).log().over("symbol"))["open"].drop_nulls()
    assert moves.abs().max() < 0.05  # overnight moves of 0.7 %: a month goes on where the last one ended


def test_streaming_reads_back_the_months_it_wrote(tmp_path: Path) -> None:
    streaming.write_bars(tmp_path, 3, 45)
    days = panels.sessions(45)
    read = streaming.read_bars(tmp_path, days[10], days[40])
    whole = panels.random_walk(3, 45).filter(pl.col("session").is_between(days[10], days[40]))
    assert read.sort("symbol", "session").equals(whole)


@pytest.mark.parametrize("name", ["polars", "pandas", "talib"])
def test_a_peer_computes_as_many_columns_as_it_is_credited_with(name: str) -> None:
    job = CONTENDERS[name](panels.random_walk(2, 300))
    made = job.run()
    columns = made.drop("symbol", "session").get_columns() if isinstance(made, pl.DataFrame) else list(made)
    assert len(columns) == job.features
    assert all(np.isfinite(np.asarray(column)[-1]) for column in columns)  # 300 sessions: every window is full
