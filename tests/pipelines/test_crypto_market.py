"""A market that never closes, end to end: BTC-USD daily bars from a CSV without a column symbol, weekends included."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from tiny_market import backfilled, evaluated, forecast, paid_for, settings_of, traded, trained

from trading_core import config
from trading_core.errors import InvalidConfigError, OrderWindowClosedError
from trading_core.pipelines import backfill, markets, summary, trade, tune
from trading_core.pipelines.markets import Trading
from trading_core.pipelines.workspace import Workspace, open_workspace

DAYS = 900
FIRST = date(2022, 12, 28)
LAST = FIRST + timedelta(days=DAYS - 1)  # 2025-06-14, a Saturday
NOW = datetime(2025, 6, 15, 0, 20, tzinfo=UTC)  # Sunday, 20 minutes after Saturday has closed and Sunday opened
SUNDAY = date(2025, 6, 15)


def walk(days: int = DAYS) -> pl.DataFrame:
    """A random walk as Yahoo's download page writes it: no symbol, a capital first letter, one row a day."""
    rng = np.random.default_rng(5)
    close = 20_000.0 * np.exp(np.cumsum(0.03 * rng.standard_normal(days)))
    opened = np.concatenate([[20_000.0], close[:-1]]) * np.exp(0.0005 * rng.standard_normal(days))
    wick = np.abs(0.01 * rng.standard_normal((2, days)))
    return pl.DataFrame(
        {
            "Date": [FIRST + timedelta(days=i) for i in range(days)],
            "Open": opened,
            "High": np.maximum(opened, close) * (1 + wick[0]),
            "Low": np.minimum(opened, close) * (1 - wick[1]),
            "Close": close,
            "Adj Close": close,
            "Volume": np.round(3e10 * np.exp(0.3 * rng.standard_normal(days))),
        }
    )


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Backfilled, trained and forecast. Only to be read, except by `test_weekends_trade`."""
    folder = tmp_path_factory.mktemp("crypto")
    walk().write_csv(folder / "btc-usd.csv")
    settings = settings_of(folder / "var")
    market = markets.resolve(str(folder / "btc-usd.csv"), [], settings, NOW, Trading("24/7"))
    ws = open_workspace(market.id, settings)
    backfilled(ws, now=NOW)
    trained(ws, NOW)
    forecast(ws, now=NOW)
    return ws


def test_the_market_is_what_was_asked_for(ws: Workspace) -> None:
    assert (ws.market.calendar, ws.market.interval, ws.market.source) == ("24/7", "1d", "parquet")
    assert (ws.market.history_start, ws.market.history_end) == (FIRST, LAST)
    assert ws.source().symbols() == ["BTC-USD"]
    assert config.load_market(ws.market.id, ws.settings) == ws.market


def test_every_day_has_its_bar_and_its_features(ws: Workspace) -> None:
    bars = ws.tables.read("bars").sort("session")
    assert bars["session"].to_list() == [FIRST + timedelta(days=i) for i in range(DAYS)]
    assert bars["symbol"].unique().to_list() == ["BTC-USD"]
    # A day ends where the next begins: midnight UTC.
    assert bars["ts"][0] == datetime(2022, 12, 29, tzinfo=UTC)
    features = ws.tables.read("features_returns").sort("session")
    assert features["session"].to_list() == bars["session"].to_list()
    closes = bars["close"].to_numpy()
    assert features["log_ret"].to_numpy()[1:] == pytest.approx(np.log(closes[1:] / closes[:-1]), rel=1e-5, abs=1e-7)


def test_forecasts_exist_on_weekends_too(ws: Workspace) -> None:
    found = ws.tables.read("forecasts").sort("session")
    sessions = found["session"].unique().sort().to_list()
    assert sessions[-1] == LAST
    assert sessions == [sessions[0] + timedelta(days=i) for i in range(len(sessions))]  # no day is left out
    assert len(sessions) >= 200
    assert found.select(pl.col("q05", "q50", "q95", "score", "p_up").is_finite().all()).row(0) == (True,) * 5
    assert found["score"].n_unique() > 100


def test_the_evaluation_says_that_a_rank_of_one_is_not_defined(ws: Workspace) -> None:
    made = evaluated(ws, ["top10", "equal-weight", "buy-and-hold"], now=NOW)
    assert math.isnan(made.mean_rank_ic)
    assert math.isnan(made.rank_icir)
    assert {row.name for row in made.strategies} == {"top10", "equal-weight", "buy-and-hold"}
    held = next(row for row in made.strategies if row.name == "buy-and-hold")
    # Bought once and held: compound growth over a year of 365 sessions.
    sessions = (made.end - made.start).days
    assert held.cagr == pytest.approx((1 + held.total_return) ** (365 / sessions) - 1, rel=1e-9)
    assert held.total_return != 0.0
    stored = ws.tables.read("evaluations").filter(pl.col("metric") == "mean_rank_ic")
    assert stored["value"].is_nan().all()
    report = ws.store.read_bytes(made.report).decode()
    row = report[report.index("Mean rank IC") :].split("</tr>")[0]
    assert "not defined" in row
    assert "<td>–</td>" in row  # no number where there is none


def test_weekends_trade(ws: Workspace) -> None:
    """Friday's decision fills at Saturday's open, Saturday's at Sunday's."""
    saturday, friday = date(2025, 6, 7), date(2025, 6, 6)
    opens = dict(ws.tables.read("bars").select("session", "open").iter_rows())
    results = [traded(ws, session, NOW, replay="weekend", strategy="equal-weight") for session in (friday, saturday)]
    assert [result.status for result in results] == ["settled", "settled"]
    fills = ws.tables.read("bars").filter(pl.col("session") == friday)
    assert len(fills) == 1
    executions = trade.executions(ws)
    assert [(e.session, e.symbol) for e in executions][:1] == [(friday, "BTC-USD")]
    assert executions[0].price == pytest.approx(paid_for(ws, "BTC-USD", friday, executions[0].quantity), rel=1e-12)
    assert executions[0].price > opens[friday] * 1.0004  # half a spread and the slippage, and some impact


def open_ended(ws: Workspace) -> Workspace:
    """The same market, had its file no end."""
    return open_workspace(ws.market.model_copy(update={"history_end": None}), ws.settings)


def test_the_live_session_is_decided_just_after_midnight(ws: Workspace) -> None:
    plan = summary.sessions_to_trade(ws, "top10", 3, NOW)
    assert plan.sessions == (date(2025, 6, 12), date(2025, 6, 13), date(2025, 6, 14), SUNDAY)
    assert ws.sessions.tradable(SUNDAY, NOW)
    assert backfill.why_not_yet(ws, LAST, NOW) == ""
    assert "closes at 2025-06-16 00:00 UTC" in backfill.why_not_yet(open_ended(ws), SUNDAY, NOW)
    pending = traded(ws, None, NOW)
    assert (pending.session, pending.status) == (SUNDAY, "pending")
    assert not pending.account.startswith("replay-")
    late = datetime(2025, 6, 15, 2, 0, tzinfo=UTC)
    assert not ws.sessions.tradable(SUNDAY, late)
    assert "The open of 2025-06-15 is not the next one any more" in trade.why_not_now(open_ended(ws), SUNDAY, late)


def test_a_decision_that_comes_too_late_is_refused(ws: Workspace) -> None:
    opened = trade.open_session(
        ws, strategy="buy-and-hold", session=SUNDAY, is_backfill=False, replay=None, run_id="late", now=NOW
    )
    assert opened.kind == "live"
    inferred = trade.infer(ws, opened, NOW)
    with pytest.raises(OrderWindowClosedError, match="could be sent until 2025-06-15 02:00 UTC"):
        trade.decide(ws, inferred, datetime(2025, 6, 15, 2, 0, tzinfo=UTC))
    trade.decide(ws, inferred, datetime(2025, 6, 15, 1, 59, tzinfo=UTC))


def test_intraday_bars_are_not_trained_or_traded(ws: Workspace) -> None:
    hourly = open_workspace(ws.market.model_copy(update={"interval": "1h"}), ws.settings)
    for refused in (
        lambda: trained(hourly, NOW),
        lambda: forecast(hourly, now=NOW),
        lambda: traded(hourly, None, NOW),
    ):
        with pytest.raises(InvalidConfigError, match=r"bars of '1h' are stored.*allowed: 1d"):
            refused()


def test_a_search_on_one_symbol_says_that_it_watched_the_loss(ws: Workspace) -> None:
    """The config watches the rank IC, which one symbol has not."""
    ref = tune.prepare(ws, model="linear", trials=1, test_start=None, now=NOW)
    assert tune.run(ref.request_uri, 1, ws.settings, NOW)
    made = tune.result(ws, ref)
    assert made.monitor == "loss"
    assert made.best_value < 0.0  # a loss, the other way round
