"""`trading compare`: models beside each other on one asset that never stops trading, trained, calibrated and traded alike."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.btc import garch_bars
from trading_core import config
from trading_core.config import ComparisonConfig, Settings
from trading_core.errors import InvalidDateRangeError, UnknownNameError
from trading_core.pipelines import compare as pipeline
from trading_core.pipelines.compare import ComparedModel, Comparison
from trading_core.pipelines.workspace import open_workspace

FIRST, LAST = date(2019, 1, 1), date(2021, 12, 31)
TEST = date(2021, 4, 1)
NOW = datetime(2022, 1, 5, tzinfo=UTC)
CHOSEN = config.validate(
    ComparisonConfig,
    {
        "calendar": "24/7",
        "symbol": "BTC-USD",
        "start": "2019-06-01",
        "test_start": TEST.isoformat(),
        "costs": {"commission_bps": 10.0, "half_spread_bps": 0.0, "slippage_bps": 0.0, "impact_coefficient": 0.0},
        "shared": {
            "features": ["log_ret", "vol_20", "rsi_14", "dow_sin"],
            "encoder_length": 8,
            "targets": ["quantiles", "direction"],
            "score": "direction",
            "training": {"epochs": 2, "dates_per_batch": 64, "monitor": "loss"},
        },
        "models": {
            "base_rate": {"model": "base_rate"},
            "sma_cross": {"model": "sma_cross", "features": ["log_ret", "golden_cross_50_200"]},
            "logistic": {"model": "logistic"},
            "lstm": {"model": "lstm", "architecture": {"hidden_size": 8}},
        },
    },
    "the test's comparison",
)


def bars() -> pl.DataFrame:
    """A momentum that anybody can see, in heavy-tailed returns."""
    return garch_bars(FIRST, LAST, seed=3, momentum=0.4)


def compared(folder: Path, frame: pl.DataFrame, **changes: Any) -> Comparison:
    folder.mkdir(exist_ok=True)
    frame.write_csv(folder / "btc.csv")
    given = {"only": (), "run_id": "run", "now": NOW, **changes}
    return pipeline.compare("test", CHOSEN, str(folder / "btc.csv"), Settings(var_dir=folder / "var"), **given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def made(folder: Path) -> Comparison:
    return compared(folder, bars())


@pytest.fixture(scope="module")
def rows(made: Comparison) -> dict[str, ComparedModel]:
    return {row.model: row for row in made.models}


def test_every_model_has_its_row_and_the_benchmark_closes_the_table(made: Comparison) -> None:
    assert [row.model for row in made.models] == [*CHOSEN.models, "buy_and_hold"]
    assert (made.test_start, made.test_end, made.cost_bps) == (TEST, LAST, 10.0)
    assert made.cutoff == date(2021, 3, 31)  # the last label that was learned from ends before the first test decision
    assert made.forecasts == 273  # 275 test days; the labels of the last two end after the file
    opens = np.log(bars()["Open"].to_numpy()[-275:])
    assert made.rises == pytest.approx(np.mean(opens[2:] > opens[1:-1]))


def test_a_planted_momentum_is_found_and_what_reads_no_input_finds_nothing(rows: dict[str, ComparedModel]) -> None:
    assert rows["base_rate"].roc_auc == 0.5
    assert rows["logistic"].roc_auc > 0.6
    assert rows["logistic"].accuracy > 0.55
    assert rows["logistic"].brier < rows["base_rate"].brier
    assert rows["logistic"].sharpe > rows["buy_and_hold"].sharpe
    assert 0.0 < rows["logistic"].held < 1.0


def test_one_asset_has_no_rank_ic_and_the_benchmark_no_forecast(rows: dict[str, ComparedModel]) -> None:
    assert all(math.isnan(row.rank_ic) for row in rows.values())
    assert all(0.0 <= rows[name].ece <= 1.0 for name in CHOSEN.models)
    hold = rows["buy_and_hold"]
    assert all(math.isnan(value) for value in (hold.accuracy, hold.f1, hold.roc_auc, hold.brier, hold.threshold))


def test_buying_and_holding_pays_the_costs_once(rows: dict[str, ComparedModel]) -> None:
    """Sized by the close of the first test day, filled at the next open (for less, had it gapped up), kept to the end."""
    frame = bars()
    close, opened, last = frame["Close"][-275], frame["Open"][-274], frame["Close"][-1]
    quantity = 1.0 / (1.001 * max(close, opened))
    cash = 1.0 - quantity * opened * 1.001
    assert rows["buy_and_hold"].total_return == pytest.approx(cash + quantity * last - 1.0, rel=1e-9)


def test_what_comes_in_the_test_changes_neither_weights_nor_thresholds(
    rows: dict[str, ComparedModel], tmp_path: Path
) -> None:
    frame, random = bars(), np.random.default_rng(0)
    later = pl.Series(frame["Date"] > TEST)
    factor = pl.Series(np.exp(np.cumsum(np.where(later, 0.03 * random.standard_normal(len(frame)), 0.0))))
    prices = ("Open", "High", "Low", "Close", "Adj Close")
    found = compared(tmp_path / "scrambled", frame.with_columns(pl.col(name) * factor for name in prices))
    scrambled = {row.model: row for row in found.models}
    assert {name: row.threshold for name, row in scrambled.items() if name != "buy_and_hold"} == {
        name: row.threshold for name, row in rows.items() if name != "buy_and_hold"
    }
    assert scrambled["logistic"].total_return != rows["logistic"].total_return


def test_the_same_comparison_again_gives_the_same_table_and_no_further_trials(
    made: Comparison, rows: dict[str, ComparedModel], folder: Path
) -> None:
    ws = open_workspace(made.market, Settings(var_dir=folder / "var"))
    trials = ws.tables.read("trials")
    assert len(trials) == 2 * len(CHOSEN.models)
    assert dict(trials.filter(pl.col("kind") == "model").select("subject", "value").iter_rows()) == {
        name: rows[name].roc_auc for name in CHOSEN.models
    }
    again = compared(folder, bars(), only=("logistic", "lstm"), now=datetime(2022, 1, 6, tzinfo=UTC))
    assert [row.model for row in again.models] == ["logistic", "lstm", "buy_and_hold"]
    for row in again.models:
        assert repr(row) == repr(rows[row.model])  # to the bit; NaN is equal to NaN here
    assert len(ws.tables.read("trials")) == 2 * len(CHOSEN.models)
    written = json.loads(ws.store.read_bytes(made.table))
    assert [row["model"] for row in written["models"]] == [*CHOSEN.models, "buy_and_hold"]
    assert written["models"][-1]["roc_auc"] is None


def test_an_unknown_model_and_a_panel_without_a_test_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'lstm'"):
        compared(tmp_path / "unknown", bars(), only=("lstn",))
    with pytest.raises(InvalidDateRangeError, match="ends before the test begins"):
        compared(tmp_path / "short", bars().filter(pl.col("Date") <= TEST))
