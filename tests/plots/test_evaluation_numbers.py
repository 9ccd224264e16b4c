"""What the evaluation report computes for its charts and tables: thinning, periods, distributions, costs a year."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest
from scipy import stats

from trading_core.plots import embedding, evaluation_tables, sortable, strategy_figures, strategy_panels
from trading_core.plots import evaluation_data as data
from trading_core.plots.evaluation_breakdowns import _logits_figure
from trading_core.plots.evaluation_order import costs_a_year, ranked
from trading_core.plots.figures import rolling_mean
from trading_core.plots.sortable import Column, Row
from trading_core.plots.strategy_periods import grid


def strategy(days, equity, sharpe=1.0, **changes):
    nothing = np.zeros(len(equity))
    daily = data.DailySeries(*[changes.get(name, nothing) for name in data.DailySeries.__dataclass_fields__])
    return data.StrategyReport(
        changes.get("name", "s"), "", False, tuple(days), np.asarray(equity, dtype=float),
        data.ReturnFigures(sharpe=sharpe), changes.get("risk", data.RiskFigures()), data.TradingFigures(),
        data.SignificanceFigures(), daily, random=changes.get("random"),
    )  # fmt: skip


def test_numbers_are_short_and_what_is_not_finite_is_none():
    assert embedding.numbers([1.23456, 2.0, -0.00001, math.nan, math.inf], 3) == [1.235, 2, 0, None, None]
    assert embedding.compact({"a": "</script>", "b": [1, None]}) == '{"a":"\\u003c/script>","b":[1,null]}'


@pytest.mark.parametrize(
    ("count", "step", "kept"),
    [(0, 2, []), (1, 3, [0]), (6, 2, [0, 1, 3, 5]), (7, 3, [0, 3, 6]), (5, 1, [0, 1, 2, 3, 4])],
)
def test_the_first_and_the_last_value_are_always_drawn(count, step, kept):
    assert embedding.kept(count, step).tolist() == kept


def test_a_stride_keeps_to_the_limit():
    assert [embedding.stride(count, 400) for count in (1, 400, 401, 1000, 2520)] == [1, 1, 2, 3, 7]


def test_the_lowest_value_between_two_drawn_ones_is_not_lost():
    values = np.array([0.0, -3.0, -1.0, -2.0, np.nan, -9.0, np.nan])
    np.testing.assert_array_equal(embedding.lowest(values, np.array([0, 2, 4, 6])), [0.0, -3.0, -2.0, -9.0])
    np.testing.assert_array_equal(embedding.lowest(np.array([1.0, np.nan]), np.array([0, 1])), [1.0, np.nan])


def test_periods_are_months_until_there_are_too_many():
    days = (date(2020, 1, 30), date(2020, 1, 31), date(2020, 2, 3), date(2020, 4, 1))
    made = grid(3, days)
    assert (made.labels, made.unit, made.days) == (("2020-01", "2020-02", "2020-04"), "month", "days3")
    np.testing.assert_array_equal(made.sums(np.array([1.0, 2.0, 4.0, 8.0])), [3.0, 4.0, 8.0])
    np.testing.assert_array_equal(made.ends(np.array([1.0, 2.0, 4.0, 8.0])), [2.0, 4.0, 8.0])
    ten_years = tuple(date(2010 + k // 12, k % 12 + 1, 1) for k in range(120))
    assert (grid(0, ten_years).unit, grid(0, ten_years).labels[:2]) == ("quarter", ("2010 Q1", "2010 Q2"))
    assert grid(0, tuple(date(1950 + k, 6, 1) for k in range(70))).unit == "year"


def test_costs_a_year_are_shares_of_the_equity_before():
    found = costs_a_year(
        strategy(
            [date(2020, 1, 1), date(2020, 1, 2), date(2020, 1, 3)], [100.0, 200.0, 200.0],
            commission=np.array([0.0, 1.0, 4.0]), impact=np.array([0.0, 0.5, 0.0]), interest=np.array([0.0, 2.0, 0.0]),
        ), 252,
    )  # fmt: skip
    assert found.commission == pytest.approx(252 * (1 / 100 + 4 / 200) / 2)
    assert found.trading == pytest.approx(252 * (1 / 100 + 4 / 200 + 0.5 / 100) / 2)
    assert found.interest == pytest.approx(252 * 2 / 100 / 2)


def test_the_best_come_first_and_the_unknown_last():
    days = [date(2020, 1, 1)]
    made = [
        strategy(days, [1.0], sharpe, name=name)
        for name, sharpe in (("b", math.nan), ("a", -1.0), ("d", 2.0), ("c", 2.0))
    ]
    assert [s.name for s in ranked(made)] == ["c", "d", "a", "b"]


def test_the_distribution_is_that_of_the_returns_beside_the_normal_curve():
    returns = np.random.default_rng(1).standard_t(4, 2000) * 0.01
    made = strategy([date(2020, 1, 1)] * 2001, np.cumprod(np.concatenate([[1.0], 1 + returns])),
                    risk=data.RiskFigures(var=-0.02, cvar=-0.03))  # fmt: skip
    bars, curve = strategy_figures.distribution_turn(made).traces
    centre = bars["x0"] + bars["dx"] * np.arange(len(bars["y"]))
    assert sum(bars["y"]) == pytest.approx(1.0, abs=2e-3)
    inside = np.abs(returns - centre[20]) <= bars["dx"] / 2
    assert bars["y"][20] == pytest.approx(inside.mean(), abs=2e-3)
    expected = stats.norm(returns.mean(), returns.std(ddof=1)).pdf(centre) * bars["dx"]
    np.testing.assert_allclose(curve["y"], expected, atol=2e-4)
    layout = strategy_figures.distribution_turn(made).layout
    assert [(shape["x0"], note["text"]) for shape, note in zip(layout["shapes"], layout["annotations"], strict=True)] == [
        (-0.02, "VaR"), (-0.03, "CVaR"),
    ]  # fmt: skip


def test_returns_that_do_not_vary_have_no_distribution():
    assert strategy_figures.distribution_turn(strategy([date(2020, 1, 1)] * 40, np.ones(40))) is None


def test_random_portfolios_are_counted_and_the_strategy_marked():
    made = strategy([], [], 1.5, random=data.RandomPortfolios(np.array([0.0, 1.0, 1.0, 3.0, math.nan]), 0.4, ""))
    turn = strategy_figures.random_turn(made)
    assert len(turn.traces[0]["y"]) == 30
    assert [y for y in turn.traces[0]["y"] if y] == [0.25, 0.5, 0.25]
    assert turn.layout["shapes"][0]["x0"] == 1.5
    assert strategy_figures.random_turn(strategy([], [])) is None


def test_costs_go_up_and_interest_goes_down():
    days = (date(2020, 1, 30), date(2020, 1, 31), date(2020, 2, 3))
    made = strategy(days, [100.0, 200.0, 200.0], commission=np.array([0.0, 1.0, 4.0]), interest=np.array([0.0, 0.0, 2.0]),
                    turnover=np.array([0.0, 0.5, 0.25]))  # fmt: skip
    turnover, commission, interest = strategy_figures.activity_turn(
        made, grid(0, days), ("commission", "interest")
    ).traces
    assert (turnover["x"], turnover["y"]) == ("periods0", [50, 25])  # per cent
    assert commission["y"] == [100, 200]  # bps of the equity before
    assert interest["y"] == [0, -100]


def test_the_share_of_logits_below_zero_is_the_probability_of_overfitting():
    logits = np.array([-2.0, -0.1, -0.1, 0.5, 1.0, 3.0, 3.0, 3.0])
    bars = _logits_figure(logits).data[0]
    below = [y for x, y in zip(bars.x, bars.y, strict=True) if x < 0]
    assert sum(below) == pytest.approx(3 / 8)
    assert sum(bars.y) == pytest.approx(1.0)


def test_months_are_shaded_by_size_and_sign():
    days = (date(2020, 1, 31), date(2020, 2, 28), date(2020, 3, 31), date(2021, 1, 29))
    table = strategy_panels._months(strategy(days, [100.0, 108.0, 106.92, 106.92]))
    assert '<td class="g8">8.0</td><td class="l1">−1.0</td>' in table
    assert '<th scope="row">2020</th><td></td>' in table  # no return before the first close
    assert "<td>6.9</td></tr>" in table


def test_cells_of_tables():
    assert evaluation_tables.p_cell(0.04999) == "<b>0.050</b>"
    assert evaluation_tables.p_cell(0.0004) == "<b>&lt;0.001</b>"
    assert evaluation_tables.p_cell(0.2) == "0.200"
    assert [evaluation_tables.signed_percent(v).replace("\u00a0", " ") for v in (0.012, -0.012, 0.0001, math.nan)] == [
        "+1.2 %", "−1.2 %", "0.0 %", "–",
    ]  # fmt: skip
    assert [evaluation_tables.count(v) for v in (12345.0, math.nan)] == ["12,345", "–"]
    assert [evaluation_tables.times(v) for v in (12.34, math.nan)] == ["12.3×", "–"]


def test_a_table_groups_its_columns_and_says_what_they_mean():
    columns = (Column("p", "of a", "A"), Column("SE", "", "A"), Column("p", "of b", "B"))
    made = sortable.table("T", Column("Name"), columns, [Row("x", ["1", "2", "3"])])
    assert '<th scope="colgroup" colspan="2">A</th><th scope="colgroup" colspan="1">B</th>' in made
    assert "<dt>A: p</dt><dd>of a</dd>" in made
    assert made.count('aria-sort="none"') == 4
    assert "tall" not in made
    assert "tall" in sortable.table("T", Column("Name"), columns, [Row("x", ["1", "2", "3"])] * 17)


def test_rolling_mean_skips_what_is_missing():
    values = np.array([1.0, np.nan, 3.0, 5.0, np.nan, np.nan])
    np.testing.assert_allclose(rolling_mean(values, 2), [np.nan, 1.0, 3.0, 4.0, 5.0, np.nan])
