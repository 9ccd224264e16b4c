"""Figures of models: they hold the numbers they were given, in the right panels, and escape every name."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from trading_core.errors import InvalidConfigError
from trading_core.metrics.classification import reliability
from trading_core.plots.calibration import reliability_figure, threshold_figure
from trading_core.plots.figures import stacked_figure
from trading_core.plots.forecasts import Fan, fan_chart
from trading_core.plots.interpretation import attention_figure, importance_figure
from trading_core.plots.training import training_figure

NAN = np.nan
EVIL = "<b>evil</b>"
DAYS = [date(2024, 7, 1) + timedelta(days=i) for i in range(12)]


def _line_at(figure: Any) -> float:
    (shape,) = figure.layout.shapes
    assert shape.x0 == shape.x1
    assert (shape.yref, shape.y0, shape.y1) == ("paper", 0.0, 1.0)
    return float(shape.x0)


def test_panels_lie_under_each_other_without_touching() -> None:
    layout = stacked_figure(("a", "b", "c"), (2.0, 1.0, 1.0)).layout
    domains = [layout[axis].domain for axis in ("yaxis", "yaxis2", "yaxis3")]
    assert domains[0][1] == 1.0
    assert domains[2][0] == pytest.approx(0.0)
    assert domains[0][0] > domains[1][1] > domains[1][0] > domains[2][1]
    heights = [high - low for low, high in domains]
    assert heights[0] == pytest.approx(2 * heights[1])
    assert heights[1] == pytest.approx(heights[2])
    assert layout.xaxis.anchor == "y3"
    assert layout.yaxis2.title.text == "b"


def test_the_reliability_diagram_holds_the_tables() -> None:
    p, outcome = np.array([0.2, 0.4, 0.6, 0.8, 1.0]), np.array([0.0, 1, 1, 1, 0])
    raw, calibrated = reliability(p, outcome, 2), reliability(p / 2, outcome, 4)
    figure = reliability_figure({"raw": raw, EVIL: calibrated})
    diagonal, line, bars, other_line, _ = figure.data
    assert tuple(diagonal.x) == tuple(diagonal.y) == (pytest.approx(0.15 - 0.02), pytest.approx(0.82))
    np.testing.assert_allclose(line.x, [0.3, 0.8])
    np.testing.assert_allclose(line.y, [0.5, 2 / 3])
    np.testing.assert_array_equal(line.customdata, [2, 3])
    # A bar over each bin whose area is the bin's share of the rows, 2 and 3 of 5.
    np.testing.assert_allclose(bars.x, [0.25, 0.75])
    np.testing.assert_allclose(bars.width, [0.5, 0.5])
    np.testing.assert_allclose(bars.y, [0.4 / 0.5, 0.6 / 0.5])
    np.testing.assert_allclose(bars.customdata, [0.4, 0.6])
    assert (bars.type, bars.yaxis, line.yaxis) == ("bar", "y2", None)
    np.testing.assert_array_equal(other_line.x, calibrated.probability)
    np.testing.assert_array_equal(other_line.y, calibrated.frequency)
    assert other_line.name == "&lt;b&gt;evil&lt;/b&gt;"
    assert figure.layout.xaxis.range == figure.layout.yaxis.range == tuple(diagonal.x)
    for nothing in ({}, {"raw": reliability(np.zeros(0), np.zeros(0))}):
        with pytest.raises(InvalidConfigError, match="no bin"):
            reliability_figure(nothing)


def test_a_bin_of_one_probability_is_drawn_too() -> None:
    same = reliability(np.full(4, 0.5), np.array([0.0, 1, 1, 1]), 10, "mass")
    bars = reliability_figure({"calibrated": same}).data[2]
    assert bars.x[0] == 0.5
    assert bars.width[0] == pytest.approx(0.005 * (0.77 - 0.48))  # of the stretch that is drawn
    assert bars.y[0] * bars.width[0] == pytest.approx(1.0)


def test_threshold_curves_hold_the_table_and_the_choice() -> None:
    threshold = np.array([0.4, 0.5, 0.6])
    curves = {"F1": np.array([0.6, 0.7, NAN]), "net Sharpe": np.array([-0.1, 0.8, 0.2])}
    figure = threshold_figure(threshold, curves, 0.5)
    for trace, axis, (name, values) in zip(figure.data, ("y", "y2"), curves.items(), strict=True):
        np.testing.assert_array_equal(trace.x, threshold)
        np.testing.assert_array_equal(trace.y, values)
        assert (trace.name, trace.yaxis) == (name, axis)
    assert [figure.layout.yaxis.title.text, figure.layout.yaxis2.title.text] == list(curves)
    assert _line_at(figure) == 0.5
    assert figure.layout.annotations[0].text == "chosen: 0.5"
    with pytest.raises(InvalidConfigError, match="F1: 3 values for 2 thresholds"):
        threshold_figure(threshold[:2], curves, 0.5)
    with pytest.raises(InvalidConfigError, match="at least one curve"):
        threshold_figure(threshold, {}, 0.5)


def _fan(**changes: Any) -> Fan:
    made: dict[str, Any] = {
        "symbol": EVIL,
        "sessions": DAYS[:3],
        "closes": np.array([98.0, NAN, 100.0]),
        "entry": DAYS[3],
        "entry_open": 110.0,
        "ends": [DAYS[4], DAYS[8]],
        "quantiles": np.log([[0.9, 0.95, 1.0, 1.05, 1.1], [0.8, 0.9, 1.01, 1.1, 1.2]]),
        "levels": (0.05, 0.25, 0.5, 0.75, 0.95),
    }
    return Fan(**{**made, **changes})


def test_the_fan_opens_at_the_open_that_returns_count_from() -> None:
    """The open of 110 times each quantile's simple return; the last close was 100."""
    figure = fan_chart(_fan(outcome=np.array([97.0, NAN])))
    outer, inner, median, past, outcome = figure.data
    assert [trace.name for trace in (outer, inner, median)] == ["90%", "50%", "median"]
    # once along the upper edge and back along the lower one
    assert list(outer.x) == [DAYS[3], DAYS[4], DAYS[8], DAYS[8], DAYS[4], DAYS[3]]
    np.testing.assert_allclose(outer.y, [110, 121, 132, 88, 99, 110])
    np.testing.assert_allclose(inner.y, [110, 115.5, 121, 99, 104.5, 110])
    assert outer.fill == inner.fill == "toself"
    assert list(median.x) == [DAYS[3], DAYS[4], DAYS[8]]
    np.testing.assert_allclose(median.y, [110, 110, 111.1])
    assert list(past.x) == DAYS[:3]
    np.testing.assert_array_equal(past.y, [98.0, NAN, 100.0])
    assert past.name == "&lt;b&gt;evil&lt;/b&gt;"
    assert list(outcome.x) == [DAYS[4], DAYS[8]]
    np.testing.assert_array_equal(outcome.y, [97.0, NAN])
    pair = fan_chart(_fan(levels=(0.1, 0.9), quantiles=np.log([[0.9, 1.1], [0.8, 1.2]])))
    assert [trace.name for trace in pair.data] == ["80%", "&lt;b&gt;evil&lt;/b&gt;"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"closes": np.ones(2)}, "2 closes for 3 sessions"),
        ({"entry": DAYS[2]}, "it must come after the last close"),
        ({"ends": DAYS[4:5]}, r"quantiles \(2, 5\) for 1 horizons"),
        ({"levels": (0.05, 0.2, 0.5, 0.75, 0.95)}, "opposite each other"),
        ({"outcome": np.ones(3)}, "3 outcomes for 2 horizons"),
    ],
)
def test_a_fan_whose_parts_do_not_fit_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidConfigError, match=problem):
        fan_chart(_fan(**changes))


def test_training_curves_hold_every_epoch() -> None:
    losses = {"training": np.array([3.0, 2.0, 1.5]), "validation": np.array([3.1, 2.5, 2.6])}
    metrics = {"rank IC": np.array([NAN, 0.02, 0.01])}
    figure = training_figure(losses, metrics, np.array([1e-3, 1e-3, 5e-4]), best_epoch=2)
    expected = {**losses, **metrics, "learning rate": np.array([1e-3, 1e-3, 5e-4])}
    for trace, (name, values), axis in zip(figure.data, expected.items(), ("y", "y", "y2", "y3"), strict=True):
        assert (trace.name, trace.yaxis, list(trace.x)) == (name, axis, [1, 2, 3])
        np.testing.assert_array_equal(trace.y, values)
    assert (figure.layout.yaxis.type, figure.layout.yaxis2.type, figure.layout.yaxis3.type) == (None, None, "log")
    assert _line_at(figure) == 2
    assert (figure.layout.yaxis3.tickvals, figure.layout.yaxis3.ticktext) == ((5e-4, 1e-3), ("0.0005", "0.001"))
    bare = training_figure(losses, {}, np.ones(3))
    assert [trace.yaxis for trace in bare.data] == ["y", "y", "y2"]
    assert (bare.layout.yaxis2.type, bare.layout.yaxis2.tickvals, bare.layout.shapes) == ("log", (1.0,), ())
    with pytest.raises(InvalidConfigError, match="training: 3 epochs, not 2"):
        training_figure(losses, {}, np.ones(2))
    with pytest.raises(InvalidConfigError, match="no epoch"):
        training_figure({}, {}, np.zeros(0))


def test_importance_is_sorted_and_sums_to_one() -> None:
    (bars,) = importance_figure(["a", EVIL, "c", "d"], np.array([1.0, 4.0, 2.0, 3.0]), top=2).data
    # from below: the rest, then up to the heaviest
    assert list(bars.y) == ["2 others", "d", "&lt;b&gt;evil&lt;/b&gt;"]
    np.testing.assert_allclose(bars.x, [0.3, 0.3, 0.4])
    (whole,) = importance_figure(["a", "b"], np.array([1.0, 3.0])).data
    assert list(whole.y) == ["a", "b"]
    np.testing.assert_allclose(whole.x, [0.25, 0.75])
    for weights in (np.array([1.0, -1.0]), np.zeros(2), np.array([NAN, 1.0])):
        with pytest.raises(InvalidConfigError, match="at least 0 and not all 0"):
            importance_figure(["a", "b"], weights)
    with pytest.raises(InvalidConfigError, match="one of each"):
        importance_figure(["a"], np.ones(2))


def test_attention_ends_at_the_decision() -> None:
    (bars,) = attention_figure(np.array([1.0, 1.0, 2.0])).data
    assert list(bars.x) == [-2, -1, 0]
    np.testing.assert_allclose(bars.y, [0.25, 0.25, 0.5])
    both = attention_figure(np.array([[1.0, 1.0], [3.0, 1.0]]), (1, 5))
    assert [trace.name for trace in both.data] == ["h = 1", "h = 5"]
    np.testing.assert_allclose(both.data[1].y, [0.75, 0.25])
    assert both.layout.showlegend
    with pytest.raises(InvalidConfigError, match="2 rows for 1 horizons"):
        attention_figure(np.ones((2, 3)), (1,))
    with pytest.raises(InvalidConfigError, match="at least 0"):
        attention_figure(np.zeros(3))


def test_every_figure_is_plain_json() -> None:
    p = np.linspace(0.1, 0.9, 50)
    for figure in (
        reliability_figure({"raw": reliability(p, (p > 0.4).astype(float))}),
        threshold_figure(p, {"F1": p}, 0.5),
        fan_chart(_fan()),
        training_figure({"training": p}, {}, p),
        importance_figure(["a"], np.ones(1)),
        attention_figure(np.ones(4)),
    ):
        drawn = json.loads(figure.to_json())
        assert drawn["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"  # the page's theme shows through
        assert drawn["data"]
