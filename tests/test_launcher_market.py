"""What `make run` makes of MARKET=, CALENDAR= and INTERVAL=, before it starts anything."""

from __future__ import annotations

import os
import sys
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "pipelines"))

from tiny_market import MARKET, write_market

from launcher import __main__ as launcher
from launcher.show import _skill
from launcher.supervisor import ServiceError
from trading_core import config
from trading_core.errors import InvalidConfigError
from trading_core.pipelines.refs import EvaluationRef


@pytest.fixture(autouse=True)
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("TRADING_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRADING_VAR_DIR", str(tmp_path))
    monkeypatch.setenv("TRADING_MARKET", MARKET)  # put back after the test, which may set another
    write_market(tmp_path)
    return tmp_path


@pytest.fixture
def bitcoin(var: Path) -> config.MarketConfig:
    days = [date(2025, 6, 12) - timedelta(days=i) for i in range(700)]
    columns = {name: [1.0 + i % 7 for i in range(700)] for name in ("open", "high", "low", "close", "volume")}
    pl.DataFrame({"date": days, **columns}).write_csv(var / "btc.csv")
    return launcher._resolve(str(var / "btc.csv"), "BTC-USD", config.read_settings(), "24/7", "")


def test_services_start_on_the_calendar_of_the_market(bitcoin: config.MarketConfig) -> None:
    """Their timetables take no session of another calendar: a Saturday is none of New York."""
    settings = config.read_settings()
    assert launcher._on_calendar_of(config.load_market(MARKET, settings), settings) is settings
    assert bitcoin.calendar == "24/7"
    assert launcher._on_calendar_of(bitcoin, settings).market == bitcoin.id
    assert os.environ["TRADING_MARKET"] == bitcoin.id


def test_running_services_of_another_calendar_are_not_used(bitcoin: config.MarketConfig) -> None:
    settings = config.read_settings()
    with pytest.raises(ServiceError, match=f"market '{MARKET}' on calendar XNYS; '{bitcoin.id}' trades on 24/7"):
        launcher._require_calendar(bitcoin, MARKET, settings)
    launcher._require_calendar(bitcoin, bitcoin.id, settings)
    launcher._require_calendar(config.load_market(MARKET, settings), "", settings)


def test_what_cannot_be_trained_is_refused_before_anything_starts(bitcoin: config.MarketConfig) -> None:
    starts = pl.Series("ts", ["2025-06-12T13:30:00Z", "2025-06-12T14:30:00Z"])
    columns = {name: [1.0, 1.0] for name in ("open", "high", "low", "close", "volume")}
    path = config.read_settings().var_dir / "hours.csv"
    pl.DataFrame({"ts": starts, **columns}).write_csv(path)
    with pytest.raises(InvalidConfigError, match=r"bars of '1h'.*allowed: 1d"):
        launcher._resolve(str(path), "", config.read_settings(), "24/7", "1h")


def test_no_rank_ic_is_not_a_rank_ic_of_zero() -> None:
    nan = float("nan")
    made = EvaluationRef(
        market="btc",
        evaluation_id="e",
        model_version="1",
        start=date(2025, 1, 1),
        end=date(2025, 6, 1),
        report="r",
        mean_rank_ic=nan,
        rank_icir=nan,
        rank_ic_t=nan,
        rank_ic_ceiling=nan,
        strategies=(),
    )
    assert _skill(made, "") == "mean rank IC not defined (fewer than three symbols a session)"
