"""The panel against hand-made tables, pandas' rolling standard deviation and the real panel."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from trading_core.dataset.panel import VOLATILITY_FLOOR, Panel, trailing_volatility
from trading_core.errors import DuplicateKeysError, EmptyUniverseError, MissingColumnsError

PANEL = Path(__file__).resolve().parents[2] / ".." / "shared" / "market" / "sp500_2013_2018.parquet"

D1, D2, D3 = date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4)


def _bars() -> pl.DataFrame:
    # B does not trade on D2; D2 is a session because A trades. Rows are in no order on purpose.
    return pl.DataFrame(
        {
            "symbol": ["B", "A", "A", "B", "A"],
            "session": [D3, D1, D3, D1, D2],
            "open": [50.0, 10.0, 12.0, 49.0, 0.0],
            "close": [51.0, 11.0, 13.0, 52.0, 12.5],
        }
    )


def _features() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "symbol": ["A", "A", "B", "B", "Z", "A"],
            "session": [D1, D2, D1, D2, D1, date(2024, 2, 1)],
            "f": [1.0, None, 3.0, 99.0, 7.0, 8.0],
            "g": [0.1, 0.2, float("inf"), 99.0, 7.0, 8.0],
        }
    )


def test_scatter_matches_hand_written_arrays() -> None:
    instruments = pl.DataFrame({"symbol": ["A", "B", "Y"], "sector": ["Utilities", None, "Energy"]})
    panel = Panel.from_frames(_features(), _bars(), instruments, ["g", "f"])
    nan = np.nan
    assert panel.symbols == ("A", "B")
    assert panel.sessions.tolist() == [D1, D2, D3]
    assert panel.features == ("g", "f")
    np.testing.assert_array_equal(panel.opens, [[10.0, nan, 12.0], [49.0, nan, 50.0]])  # an open of 0 is no price
    np.testing.assert_array_equal(panel.closes, [[11.0, 12.5, 13.0], [52.0, nan, 51.0]])
    expected = np.array(
        # the infinite value is missing; B has a feature row on D2 but no bar; Z and the later session are not in it
        [[[0.1, 1.0], [0.2, nan], [nan, nan]], [[nan, 3.0], [nan, nan], [nan, nan]]],
        dtype=np.float32,
    )
    assert panel.values.dtype == np.float32
    np.testing.assert_array_equal(panel.values, expected)
    np.testing.assert_array_equal(panel.present, [[True, True, False], [True, False, False]])
    assert panel.sector.tolist() == [1, 0]
    assert panel.sector_names == ("Utilities",)
    assert panel.column_of(D2) == 1
    assert panel.column_of(date(2024, 1, 6)) == -1
    assert panel.column_of(date(2024, 1, 1)) == -1


def test_sector_codes_are_in_the_order_of_the_names() -> None:
    instruments = pl.DataFrame({"symbol": ["B", "A"], "sector": ["Energy", "Utilities"]})
    panel = Panel.from_frames(_features(), _bars(), instruments, ["f"])
    assert panel.sector_names == ("Energy", "Utilities")
    assert panel.sector.tolist() == [2, 1]
    assert Panel.from_frames(_features(), _bars(), None, ["f"]).sector.tolist() == [0, 0]


def test_wrong_tables_are_refused() -> None:
    with pytest.raises(MissingColumnsError, match="lacks the column nope"):
        Panel.from_frames(_features(), _bars(), None, ["nope"])
    twice = pl.concat([_bars(), _bars().head(1)])
    with pytest.raises(DuplicateKeysError, match="B 2024-01-04"):
        Panel.from_frames(_features(), twice, None, ["f"])
    with pytest.raises(EmptyUniverseError, match="'us'"):
        Panel.from_frames(_features(), _bars().clear(), None, ["f"], market="us")


def test_volatility_equals_pandas_over_the_symbols_own_bars() -> None:
    rng = np.random.default_rng(0)
    closes = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.02, (3, 80)), axis=1))
    closes[1, [5, 30, 31, 60]] = np.nan  # gaps: one longer return
    closes[2, :50] = np.nan  # listed late
    got = trailing_volatility(closes)
    for row, sigma in zip(closes, got, strict=True):
        own = pd.Series(row).dropna()
        expected = np.log(own).diff().rolling(20).std().reindex(range(80))
        np.testing.assert_allclose(sigma, expected.to_numpy(), rtol=1e-9)
    assert np.flatnonzero(np.isfinite(got[2]))[0] == 70  # 20 returns need 21 closes


def test_volatility_has_a_floor_and_knows_no_future_and_no_far_past() -> None:
    assert trailing_volatility(np.full((1, 25), 7.0))[0, 20:].tolist() == [VOLATILITY_FLOOR] * 5
    rng = np.random.default_rng(1)
    closes = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.02, (4, 90)), axis=1))
    whole = trailing_volatility(closes)
    scrambled = closes.copy()
    scrambled[:, 61:] = rng.uniform(1, 1000, (4, 29))
    np.testing.assert_array_equal(trailing_volatility(scrambled)[:, :61], whole[:, :61])
    np.testing.assert_array_equal(trailing_volatility(closes[:, 40:])[:, 20:], whole[:, 60:])  # to the bit


@pytest.mark.panel
def test_real_panel_keeps_every_bar() -> None:
    if not PANEL.is_file():
        pytest.skip("the shared real panel is not on this machine")
    raw = pl.read_parquet(PANEL).with_columns(pl.col("date").cast(pl.Date).alias("session"))
    features = raw.select("symbol", "session", (pl.col("close") / pl.col("open") - 1.0).alias("body"))
    panel = Panel.from_frames(features, raw, None, ["body"])
    assert panel.opens.shape == (raw["symbol"].n_unique(), raw["session"].n_unique())
    assert np.isfinite(panel.closes).sum() == raw.filter(pl.col("close") > 0).height
    sample = raw.filter((pl.col("symbol") == "MSFT") & (pl.col("session") == date(2016, 3, 1)))
    s, t = panel.symbols.index("MSFT"), panel.column_of(date(2016, 3, 1))
    assert panel.opens[s, t] == sample["open"].item()
    assert panel.values[s, t, 0] == np.float32(sample["close"].item() / sample["open"].item() - 1.0)
