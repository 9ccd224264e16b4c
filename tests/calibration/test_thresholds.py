"""The threshold search: a table worked out by hand, the choice, its JSON."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from trading_core.calibration.thresholds import (
    LongFlat,
    ThresholdChoice,
    ThresholdRow,
    candidate_thresholds,
    search_threshold,
    threshold_table,
)
from trading_core.costs import FREE, CostModel
from trading_core.errors import InvalidConfigError, UnknownNameError

TEN_BPS = CostModel(commission_bps=4.0, half_spread_bps=3.0, slippage_bps=3.0)


def _one_asset() -> LongFlat:
    """Four sessions of one asset; simple returns +10 %, -5 %, +2 %, -1 %."""
    simple = np.array([0.10, -0.05, 0.02, -0.01])
    p = np.array([0.7, 0.4, 0.6, 0.55])
    return LongFlat(
        p, (simple > 0).astype(float), np.log1p(simple), np.array([3, 4, 5, 6]), np.zeros(4, dtype=np.int64)
    )


def _market(seed: int = 0, days: int = 60, symbols: int = 7) -> LongFlat:
    rng = np.random.default_rng(seed)
    date_index, symbol = (grid.ravel() for grid in np.mgrid[0:days, 0:symbols])
    p = rng.uniform(0.3, 0.7, days * symbols)
    returns = 0.02 * (p - 0.5) + rng.normal(0, 0.01, len(p))
    return LongFlat(p, (returns > 0).astype(float), returns, date_index, symbol)


def test_one_asset_by_hand() -> None:
    always, some, never = threshold_table(_one_asset(), TEN_BPS, (0.9, 0.4, 0.55))
    # p >= 0.4: held throughout, bought once: 10 bps on the first session
    assert (always.threshold, always.n) == (0.4, 4)
    assert (always.precision, always.recall) == (0.5, 1.0)
    assert always.f1 == pytest.approx(2 / 3)
    assert always.gross_mean == pytest.approx((0.10 - 0.05 + 0.02 - 0.01) / 4)
    assert always.net_mean == pytest.approx(always.gross_mean - 0.001 / 4)
    assert always.turnover == pytest.approx(1 / 2 / 4)
    # p >= 0.55: held on the first, third and fourth session: bought, sold, bought
    net = np.array([0.10 - 0.001, -0.001, 0.02 - 0.001, -0.01])
    assert (some.n, some.precision, some.recall) == (3, pytest.approx(2 / 3), 1.0)
    assert some.gross_mean == pytest.approx(0.11 / 4)
    assert some.net_mean == pytest.approx(net.mean())
    assert some.net_sharpe_annual == pytest.approx(net.mean() / net.std(ddof=1) * math.sqrt(252))
    assert some.turnover == pytest.approx(3 / 2 / 4)
    assert (never.n, never.recall, never.f1, never.gross_mean, never.turnover) == (0, 0.0, 0.0, 0.0, 0.0)
    assert math.isnan(never.precision)
    assert math.isnan(never.net_sharpe_annual)
    yearly = threshold_table(_one_asset(), TEN_BPS, (0.55,), per_year=365)[0]
    assert yearly.net_sharpe_annual == pytest.approx(some.net_sharpe_annual * math.sqrt(365 / 252))


def test_several_symbols_share_the_capital_by_hand() -> None:
    """Two symbols on the first date, a third one beside the first on the second: slots of a half each time."""
    data = LongFlat(
        p_up=np.array([0.6, 0.4, 0.6, 0.7]),
        up=np.array([1.0, 0.0, 1.0, 0.0]),
        next_return=np.log1p(np.array([0.04, 0.5, 0.02, -0.06])),
        date_index=np.array([1, 1, 2, 2]),
        symbol=np.array([10, 11, 10, 12]),
    )
    (row,) = threshold_table(data, TEN_BPS, (0.5,))
    # date 1: half in 10. date 2: half in 10, half in 12.
    net = np.array([0.04 / 2 - 0.5 * 0.001, (0.02 - 0.06) / 2 - 0.5 * 0.001])
    assert row.gross_mean == pytest.approx((0.02 - 0.02) / 2, abs=1e-15)
    assert row.net_mean == pytest.approx(net.mean())
    assert row.turnover == pytest.approx((0.5 + 0.5) / 2 / 2)
    shuffled = np.array([2, 0, 3, 1])
    other = LongFlat(*(getattr(data, field.name)[shuffled] for field in fields(LongFlat)))
    assert threshold_table(other, TEN_BPS, (0.5,)) == (row,)


def test_classification_columns_equal_sklearns() -> None:
    data = _market()
    for row in threshold_table(data, FREE, (0.35, 0.5, 0.65)):
        predicted = data.p_up >= row.threshold
        assert row.n == predicted.sum()
        assert row.precision == pytest.approx(precision_score(data.up, predicted))
        assert row.recall == pytest.approx(recall_score(data.up, predicted))
        assert row.f1 == pytest.approx(f1_score(data.up, predicted))
        assert row.net_mean == row.gross_mean  # no costs


def test_missing_values_count_where_they_are_known() -> None:
    data = _one_asset()
    added = LongFlat(
        p_up=np.append(data.p_up, [np.nan, 0.9, 0.9]),
        up=np.append(data.up, [1.0, np.nan, 1.0]),
        next_return=np.append(data.next_return, [0.5, 0.0, np.nan]),
        date_index=np.append(data.date_index, [9, 7, 8]),
        symbol=np.append(data.symbol, [0, 0, 0]),
    )
    before, after = threshold_table(data, FREE, (0.55,))[0], threshold_table(added, FREE, (0.55,))[0]
    assert after.n == before.n + 2
    assert after.precision == pytest.approx(3 / 4)  # the row without a return
    assert after.gross_mean == pytest.approx(before.gross_mean * 4 / 5)  # the row without an outcome: a fifth session


def test_the_choice_is_the_best_of_the_table() -> None:
    data = _market(1)
    for objective in ("f1", "net_sharpe_annual"):
        choice = search_threshold(data, objective, TEN_BPS, min_share=0.2)
        assert choice.cost_bps == 10.0
        values, n = choice.column(objective), choice.column("n")
        assert choice.value == np.nanmax(values[n >= 0.2 * len(data.p_up)])
        assert choice.value == values[choice.column("threshold") == choice.threshold][0]
        assert (np.diff(choice.column("threshold")) > 0).all()
    free, dear = (search_threshold(data, "net_sharpe_annual", costs) for costs in (FREE, TEN_BPS))
    assert dear.value < free.value
    best_f1 = search_threshold(data, "f1", FREE, thresholds=tuple(data.p_up))
    assert best_f1.value == pytest.approx(max(f1_score(data.up, data.p_up >= t) for t in data.p_up))


def test_equal_values_are_decided_by_rule() -> None:
    """All of these thresholds hold the same rows: the nearest to one half wins, then the lower one."""
    data = _one_asset()
    data = replace(data, p_up=np.array([0.9, 0.1, 0.9, 0.1]))
    assert search_threshold(data, "f1", FREE, (0.2, 0.45, 0.8)).threshold == 0.45
    assert search_threshold(data, "f1", FREE, (0.8, 0.6, 0.4)).threshold == 0.4
    assert search_threshold(data, "net_sharpe_annual", FREE, (0.6, 0.3)).threshold == 0.6


def test_thresholds_that_hold_almost_nothing_are_not_chosen() -> None:
    data = _market(2)
    lucky = replace(data, p_up=np.append(data.p_up[:-1], 0.99), next_return=np.append(data.next_return[:-1], 1.0))
    choice = search_threshold(lucky, "net_sharpe_annual", FREE, min_share=0.1)
    assert choice.threshold < 0.7
    none = search_threshold(replace(data, up=np.zeros(len(data.up))), "f1", FREE, thresholds=())
    assert (none.threshold, none.rows) == (0.5, ())
    assert math.isnan(none.value)
    flat = replace(data, next_return=np.zeros(len(data.p_up)))
    assert search_threshold(flat, "net_sharpe_annual", FREE).threshold == 0.5  # nothing varies: no ratio


def test_candidates_are_values_of_p_at_equal_ranks() -> None:
    p = np.array([0.5, 0.1, np.nan, 0.4, 0.3, 0.2, 0.3])
    assert candidate_thresholds(p, 3) == (0.1, 0.3, 0.5)
    assert candidate_thresholds(p) == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert candidate_thresholds(np.full(3, np.nan)) == ()
    assert len(candidate_thresholds(np.random.default_rng(0).uniform(size=5000))) == 101


def test_json_keeps_every_digit_and_what_is_not_defined() -> None:
    choice = search_threshold(_market(3), "net_sharpe_annual", TEN_BPS, thresholds=(0.31, 0.5, 1.0))
    assert math.isnan(choice.rows[-1].precision)
    again = ThresholdChoice.from_json(choice.to_json())
    assert again.to_json() == choice.to_json()
    assert again.rows[:-1] == choice.rows[:-1]
    assert math.isnan(again.rows[-1].precision)
    assert isinstance(again.rows[0].n, int)
    assert (again.threshold, again.value, again.objective) == (choice.threshold, choice.value, "net_sharpe_annual")
    raw = json.loads(choice.to_json())
    for change in (
        {"objective": "luck"},
        {"threshold": 1.5},
        {"threshold": None},
        {"rows": [{"threshold": 0.5}]},
        {"rows": 3},
    ):
        with pytest.raises(InvalidConfigError, match="stored threshold"):
            ThresholdChoice.from_json(json.dumps({**raw, **change}))
    for text in ("x", "[]", "{}"):
        with pytest.raises(InvalidConfigError, match="stored threshold"):
            ThresholdChoice.from_json(text)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Allowed: f1, net_sharpe_annual"):
        search_threshold(_one_asset(), "luck", FREE)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfigError, match="min_share: 1"):
        search_threshold(_one_asset(), "f1", FREE, min_share=1.0)
    with pytest.raises(InvalidConfigError, match=r"thresholds from -0.1 to 0.5"):
        threshold_table(_one_asset(), FREE, (0.5, -0.1))
    choice = search_threshold(_one_asset(), "f1", FREE)
    with pytest.raises(UnknownNameError, match="column of the threshold table"):
        choice.column("luck")
    assert [field.name for field in fields(ThresholdRow)][:2] == ["threshold", "n"]
