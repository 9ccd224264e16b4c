"""The quality gate on hand-made bars: which check speaks, about which row, and what stays."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from trading_core.market.parquet import ParquetOptions, build_parquet
from trading_core.market.quality import CHECKS, JUMP_CHECKS, QUARANTINE_SCHEMA, QualityReport, check_bars
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA, empty_actions
from trading_core.sessions import Sessions

PANEL = Path(__file__).resolve().parents[2].parent / "shared" / "market" / "sp500_2013_2018.parquet"
SESSIONS = Sessions("XNYS")
# Monday 8 to Friday 12 January 2024, and the Tuesday after Martin Luther King Day (Monday 15, no session).
DAYS = [date(2024, 1, day) for day in (8, 9, 10, 11, 12, 16)]
NOW = datetime(2024, 1, 17, 12, 0, tzinfo=UTC)


def bar(symbol: str, session: date, **changes: Any) -> dict[str, Any]:
    ts = datetime(session.year, session.month, session.day, 21, 0, tzinfo=UTC)
    row = {"symbol": symbol, "ts": ts, "session": session, "open": 10.0, "high": 11.0, "low": 9.0, "close": 10.0}
    return {**row, "volume": 100.0, **changes}


def judged(rows: list[dict[str, Any]], actions: pl.DataFrame | None = None, now: datetime = NOW) -> QualityReport:
    bars = pl.DataFrame(rows, schema=BAR_SCHEMA)
    return check_bars(bars, empty_actions() if actions is None else actions, SESSIONS, now)


def found(report: QualityReport) -> list[tuple[str, str, str | None, date]]:
    return report.findings.select("check", "severity", "symbol", "session").rows()


def clean_rows(symbol: str = "AAA") -> list[dict[str, Any]]:
    return [bar(symbol, day, close=10.0 + 0.05 * number) for number, day in enumerate(DAYS)]


def test_clean_bars_pass_untouched() -> None:
    report = judged(clean_rows("AAA") + clean_rows("BBB"))
    assert report.clean.equals(pl.DataFrame(clean_rows("AAA") + clean_rows("BBB"), schema=BAR_SCHEMA))
    assert report.quarantined.is_empty()
    assert found(report) == []
    assert report.blocks == ()
    assert report.summary()["count"].sum() == 0


@pytest.mark.parametrize(
    ("changes", "check", "reason"),
    [
        ({"open": None}, "missing_price", "no open"),
        ({"open": float("nan"), "low": None}, "missing_price", "no open, low"),
        ({"close": float("inf")}, "missing_price", "no close"),
        ({"low": 0.0}, "non_positive_price", "lowest price 0.0"),
        ({"low": -1.0}, "non_positive_price", "lowest price -1.0"),
        ({"high": 9.5}, "ohlc_order", "open 10.0, high 9.5, low 9.0, close 10.0"),
        ({"low": 10.5}, "ohlc_order", "open 10.0, high 11.0, low 10.5, close 10.0"),
        ({"open": None, "high": 8.0}, "missing_price", "no open"),
    ],
)
def test_a_bad_row_is_set_aside_alone(changes: dict[str, Any], check: str, reason: str) -> None:
    rows = clean_rows()
    rows[2] = bar("AAA", DAYS[2], **changes)
    report = judged(rows)
    assert dict(report.quarantined.schema) == QUARANTINE_SCHEMA
    aside = report.quarantined.filter(pl.col("check") == check).row(0, named=True)
    assert (aside["symbol"], aside["session"], aside["known_at"]) == ("AAA", DAYS[2], DAYS[2])
    assert aside["reason"] == reason
    assert report.clean["session"].to_list() == DAYS[:2] + DAYS[3:]
    assert report.blocks == ()


def test_rounding_of_adjusted_prices_is_no_disorder() -> None:
    rows = clean_rows()
    rows[1] = bar("AAA", DAYS[1], open=11.0 * (1 + 5e-7), close=9.0 * (1 - 5e-7))
    rows[2] = bar("AAA", DAYS[2], open=11.0 * (1 + 5e-6))
    assert judged(rows).quarantined["session"].to_list() == [DAYS[2]]


def test_a_row_on_a_holiday_is_set_aside() -> None:
    report = judged([*clean_rows(), bar("AAA", date(2024, 1, 15)), bar("AAA", date(2024, 1, 13))])
    assert report.quarantined.select("session", "check").rows() == [
        (date(2024, 1, 13), "not_a_session"),
        (date(2024, 1, 15), "not_a_session"),
    ]
    assert report.clean.height == 6


def test_duplicates_shut_the_gate() -> None:
    rows = clean_rows()
    report = judged([*rows[:4], bar("AAA", DAYS[3], close=10.5), *rows[4:]])
    assert found(report) == [("duplicate_key", "block", "AAA", DAYS[3])]
    closes = "2 bars for one time, closes 10.15, 10.5"
    assert report.blocks == (f"duplicate_key: 1 finding(s), first AAA on 2024-01-11 ({closes})",)


def test_a_bar_that_has_not_closed_shuts_the_gate() -> None:
    before_close = datetime(2024, 1, 16, 20, 59, tzinfo=UTC)
    assert found(judged(clean_rows(), now=before_close)) == [("future_bar", "block", "AAA", DAYS[5])]
    assert found(judged(clean_rows(), now=datetime(2024, 1, 16, 21, 0, tzinfo=UTC))) == []
    everything_later = judged(clean_rows(), now=datetime(2023, 1, 3, tzinfo=UTC))
    assert everything_later.summary().filter(pl.col("count") > 0)["check"].to_list() == ["future_bar"]


def test_zero_volume_is_only_a_warning() -> None:
    rows = clean_rows()
    rows[1] = bar("AAA", DAYS[1], volume=0.0)
    rows[4] = bar("AAA", DAYS[4], volume=None)
    report = judged(rows)
    assert found(report) == [("zero_volume", "warn", "AAA", DAYS[1]), ("zero_volume", "warn", "AAA", DAYS[4])]
    assert report.clean.height == 6


def test_gaps_inside_a_history_are_found_and_its_ends_are_not() -> None:
    rows = clean_rows("AAA") + clean_rows("CCC") + [bar("BBB", DAYS[1]), bar("BBB", DAYS[4])]
    rows += clean_rows("DDD") + clean_rows("EEE") + clean_rows("FFF") + clean_rows("GGG") + clean_rows("HHH")
    assert found(judged(rows)) == [
        ("missing_session", "warn", "BBB", DAYS[2]),
        ("missing_session", "warn", "BBB", DAYS[3]),
    ]


def test_a_lost_universe_is_reported_once_per_session() -> None:
    rows = [bar(f"S{i:02d}", day) for i in range(10) for day in DAYS if day != DAYS[2] or i < 8]
    assert not [f for f in found(judged(rows)) if f[0] == "universe_loss"]  # 8 of 10 is 20 %, not over
    rows = [bar(f"S{i:02d}", day) for i in range(10) for day in DAYS if day not in DAYS[2:4] or i < 7]
    assert [f for f in found(judged(rows)) if f[0] == "universe_loss"] == [("universe_loss", "warn", None, DAYS[2])]
    rows = [bar(f"S{i:02d}", day) for i in range(10) for day in DAYS if day != DAYS[4]]
    assert [f for f in found(judged(rows)) if f[0] == "universe_loss"] == [("universe_loss", "warn", None, DAYS[4])]


@pytest.mark.parametrize(
    ("kind", "value", "warned"),
    [
        ("split", 0.0, True),
        ("split", float("nan"), True),
        ("split", 2.0, False),
        ("dividend", -0.5, True),
        ("dividend", 12.0, True),  # the close before is 10.05
        ("dividend", 0.1, False),
    ],
)
def test_an_event_that_nothing_can_be_adjusted_by_is_reported(kind: str, value: float, warned: bool) -> None:
    event = pl.DataFrame([("AAA", DAYS[2], kind, value, DAYS[1])], schema=ACTION_SCHEMA, orient="row")
    report = judged(clean_rows(), event)
    expected = [("event_value", "warn", "AAA", DAYS[2])] if warned else []
    assert [row for row in found(report) if row[0] == "event_value"] == expected


def test_no_bars_give_an_empty_report() -> None:
    report = judged([])
    assert report.clean.is_empty()
    assert dict(report.clean.schema) == BAR_SCHEMA
    assert report.summary().select("check", "severity").rows() == [(c.name, c.severity) for c in CHECKS]


def test_setting_aside_does_not_depend_on_later_rows() -> None:
    """What is known at a session's close stays: rows after it change no blocking or quarantining verdict."""
    rng = np.random.default_rng(3)
    values = rng.choice([10.0, 9.5, float("nan"), -1.0], size=(len(DAYS), 4), p=[0.6, 0.2, 0.1, 0.1])
    rows = [
        bar("AAA", d, **dict(zip(("open", "high", "low", "close"), v, strict=True)))
        for d, v in zip(DAYS, values, strict=True)
    ]
    whole = judged(rows).quarantined
    for cut in range(1, len(DAYS)):
        assert judged(rows[:cut]).quarantined.equals(whole.filter(pl.col("session") < DAYS[cut]))


def test_a_simulated_market_is_clean() -> None:
    from trading_core.market.simulated import SimulatedOptions, build_simulated

    source = build_simulated(SimulatedOptions(symbols=25, start=date(2022, 1, 3)), "XNYS")
    fetched = source.fetch(source.symbols(), date(2022, 1, 3), date(2024, 1, 16), NOW)
    report = check_bars(fetched.bars, fetched.actions, SESSIONS, NOW)
    assert report.quarantined.is_empty()
    assert report.blocks == ()
    assert report.clean.equals(fetched.bars)


@pytest.mark.panel
@pytest.mark.skipif(not PANEL.is_file(), reason="the shared real panel is absent")
def test_the_real_panel_loses_exactly_its_broken_rows() -> None:
    """The expected rows are counted in numpy from the file, not by the checks."""
    table = pq.read_table(PANEL, columns=["open", "high", "low", "close"])
    o, h, lo, c = (table.column(name).to_numpy() for name in ("open", "high", "low", "close"))
    missing = np.isnan(o) | np.isnan(h) | np.isnan(lo) | np.isnan(c)
    with np.errstate(invalid="ignore"):
        disorder = (h < np.fmax(np.fmax(o, c), lo) * (1 - 1e-6)) | (lo > np.fmin(np.fmin(o, c), h) * (1 + 1e-6))
    source = build_parquet(ParquetOptions(str(PANEL)), "XNYS")
    bars = source.fetch(source.symbols(), date(2013, 1, 1), date(2018, 12, 31), NOW).bars
    report = check_bars(bars, empty_actions(), SESSIONS, NOW)
    counts = dict(report.summary().select("check", "count").rows())
    assert counts["missing_price"] == int(missing.sum()) == 11
    assert counts["ohlc_order"] == int(disorder.sum())
    assert (counts["not_a_session"], counts["duplicate_key"], counts["future_bar"]) == (0, 0, 0)
    jumps = report.quarantined.filter(pl.col("check").is_in(JUMP_CHECKS) & pl.col("released_at").is_null())
    assert report.clean.height == int((~(missing | disorder)).sum()) - jumps.height
    assert report.clean.select(pl.col("open", "high", "low", "close").null_count()).row(0) == (0, 0, 0, 0)
