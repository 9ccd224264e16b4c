from datetime import date

import numpy as np
import polars as pl
import pytest

from trading_core.backtest.data import ForecastPanel, MarketData
from trading_core.errors import DuplicateKeysError, MissingColumnsError, NoDataError, WrongTypeError
from trading_core.schema import QUANTILE_COLUMNS

DAYS = [date(2020, 1, d) for d in (2, 3, 6, 7)]


def bars(rows):
    """Rows of (symbol, day number, close); open = close - 1, volume 100."""
    return pl.DataFrame(
        {
            "symbol": [r[0] for r in rows],
            "session": [DAYS[r[1]] for r in rows],
            "open": [r[2] - 1.0 for r in rows],
            "close": [float(r[2]) for r in rows],
            "volume": [100.0 for _ in rows],
        }
    )


def events(rows):
    return pl.DataFrame(rows, schema=["symbol", "session", "kind", "value"], orient="row")


ROWS = [("B", 0, 20), ("A", 0, 10), ("A", 1, 11), ("B", 2, 8), ("A", 3, 13), ("A", 2, 12), ("B", 3, 9)]


def test_bars_are_sorted_into_a_grid_with_gaps():
    data = MarketData.from_frames(bars(ROWS))
    assert data.symbols == ("A", "B")
    assert data.sessions == tuple(DAYS)
    np.testing.assert_array_equal(data.closes, [[10, 20], [11, np.nan], [12, 8], [13, 9]])
    np.testing.assert_array_equal(data.opens[2], [11, 7])


def test_marks_carry_the_last_close_in_the_basis_of_the_day():
    # B closes at 20, has no bar on the day of its 2:1 split, and is worth 10 then; later it closes at 8.
    data = MarketData.from_frames(bars(ROWS), events([("B", DAYS[1], "split", 2.0)]))
    np.testing.assert_array_equal(data.marks[:, 1], [20, 10, 8, 9])
    assert [len(a) for a in data.actions] == [0, 1, 0, 0]


def test_the_window_is_in_the_basis_of_its_last_session():
    data = MarketData.from_frames(bars(ROWS), events([("A", DAYS[2], "split", 4.0)]))
    closes, volumes = data.window(2, 3)
    np.testing.assert_array_equal(closes[:, 0], [2.5, 2.75, 12])
    np.testing.assert_array_equal(volumes[:, 0], [400, 400, 100])
    np.testing.assert_array_equal(data.window(1, 9)[0][:, 0], [10, 11])  # the split of tomorrow changes nothing today


def test_events_between_sessions_wait_for_the_next_and_unknown_symbols_are_dropped():
    rows = [
        ("A", date(2020, 1, 4), "dividend", 1.0),
        ("Z", DAYS[1], "split", 2.0),
        ("A", date(2021, 1, 1), "split", 2.0),
    ]
    data = MarketData.from_frames(bars(ROWS), events(rows))
    assert [[a.symbol for a in day] for day in data.actions] == [[], [], ["A"], []]


def test_wrong_bars_and_events_are_refused():
    with pytest.raises(MissingColumnsError, match="volume"):
        MarketData.from_frames(bars(ROWS).drop("volume"))
    with pytest.raises(NoDataError, match="feature_backfill"):
        MarketData.from_frames(bars(ROWS).clear())
    with pytest.raises(DuplicateKeysError, match="A 2020-01-02"):
        MarketData.from_frames(bars([*ROWS, ("A", 0, 99)]))
    with pytest.raises(WrongTypeError, match="split of A"):
        MarketData.from_frames(bars(ROWS), events([("A", DAYS[1], "split", -2.0)]))


def forecasts(rows):
    frame = {
        "symbol": [r[0] for r in rows],
        "session": [DAYS[r[1]] for r in rows],
        "horizon": [r[2] for r in rows],
        "score": [r[3] for r in rows],
        "p_up": [0.5 for _ in rows],
    }
    return pl.DataFrame(frame | {name: [float(i) for _ in rows] for i, name in enumerate(QUANTILE_COLUMNS)})


def test_forecasts_of_one_horizon_are_aligned():
    frame = forecasts([("B", 2, 1, 0.3), ("A", 0, 1, 0.1), ("A", 0, 5, 9.9), ("Z", 0, 1, 7.0)])
    panel = ForecastPanel.from_frame(frame, 1, ("A", "B"), tuple(DAYS))
    expected = np.full((4, 2), np.nan)
    expected[2, 1], expected[0, 0] = 0.3, 0.1
    np.testing.assert_array_equal(panel.score, expected)
    np.testing.assert_array_equal(panel.quantiles[2, 1], np.arange(7.0))
    assert panel.p_up[0, 0] == 0.5


def test_two_versions_of_one_forecast_are_refused():
    with pytest.raises(DuplicateKeysError, match="A 2020-01-02"):
        ForecastPanel.from_frame(forecasts([("A", 0, 1, 0.1), ("A", 0, 1, 0.2)]), 1, ("A",), tuple(DAYS))
