"""Windows against a plain loop over the panel, and against the future."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from trading_core.dataset.panel import Panel, trailing_volatility
from trading_core.dataset.scaling import Scaler
from trading_core.dataset.windows import ScaledPanel, Vocabulary, WindowSet, WindowSpec
from trading_core.errors import EmptyUniverseError, InvalidConfigError, TooShortHistoryError, UnknownNameError

E, HORIZONS = 10, (1, 3)
TRAIN = np.arange(0, 45)


def _panel(seed: int = 0, sessions: int = 60) -> Panel:
    rng = np.random.default_rng(seed)
    closes = 50.0 * np.exp(np.cumsum(rng.normal(0, 0.02, (5, sessions)), axis=1))
    opens = closes * np.exp(rng.normal(0, 0.005, closes.shape))
    values = rng.normal(0, 1, (5, sessions, 3)).astype(np.float32)
    values[3, 30:33, 1] = np.nan  # a feature that is missing although the symbol trades
    for s, gap in ((1, slice(0, 15)), (2, slice(35, 37)), (4, slice(28, 31))):
        closes[s, gap] = opens[s, gap] = np.nan
        values[s, gap] = np.nan
    days = np.arange("2021-01-01", "2021-12-01", dtype="datetime64[D]")[:sessions]
    sector = np.array([1, 2, 0, 2, 1])
    return Panel(
        ("A", "B", "C", "D", "E"),
        days,
        ("f", "g", "h"),
        values,
        opens,
        closes,
        trailing_volatility(closes),
        sector,
        ("Energy", "Tech"),
    )


def _scaled(panel: Panel) -> ScaledPanel:
    return ScaledPanel.of(panel, Scaler.fit(panel.values, panel.features, TRAIN))


def _expected_samples(panel: Panel, columns: np.ndarray, labelled: bool) -> list[tuple[int, int]]:
    """(column, symbol) of every sample, by the sentences of the docstring."""
    found = []
    for t in columns:
        for s in range(len(panel.symbols)):
            window = range(t - E + 1, t + 1)
            if window[0] < 0 or math.isnan(panel.closes[s, t]) or math.isnan(panel.sigma[s, t]):
                continue
            if sum(not math.isnan(panel.closes[s, u]) for u in window) < 8:
                continue
            ends = [t + 1] + [t + 1 + h for h in HORIZONS]
            if labelled and (ends[-1] >= panel.opens.shape[1] or np.isnan(panel.opens[s, ends]).any()):
                continue
            found.append((int(t), s))
    return found


@pytest.mark.parametrize("labelled", [True, False])
def test_samples_and_windows_equal_a_plain_loop(labelled: bool) -> None:
    panel = _panel()
    scaled, spec = _scaled(panel), WindowSpec(E, HORIZONS, "volatility", ("sector", "symbol"))
    build = WindowSet.for_training if labelled else WindowSet.for_inference
    columns = np.arange(20, 60)
    windows = build(scaled, columns, spec, Vocabulary.of(panel))
    expected = _expected_samples(panel, columns, labelled)
    assert list(zip(windows.columns.tolist(), windows.symbol.tolist(), strict=True)) == expected
    rows = np.random.default_rng(1).permutation(len(windows))
    batch = windows.gather(rows)
    assert (batch.x.shape, batch.x.dtype) == ((len(rows), E, 4), np.float32)
    assert (batch.y.dtype, batch.scale.dtype, batch.static.dtype) == (np.float32, np.float64, np.int64)
    for b, row in enumerate(rows):
        t, s = expected[row]
        assert (batch.column[b], batch.symbol[b]) == (t, s)
        np.testing.assert_array_equal(batch.x[b], scaled.channels[s, t - E + 1 : t + 1])
        np.testing.assert_array_equal(batch.static[b], [panel.sector[s], s + 1])
        for k, h in enumerate(HORIZONS):
            assert batch.scale[b, k] == pytest.approx(panel.sigma[s, t] * math.sqrt(h), rel=1e-15)
            if labelled:
                label = math.log(panel.opens[s, t + 1 + h] / panel.opens[s, t + 1])
                assert batch.y[b, k] * batch.scale[b, k] == pytest.approx(label, rel=1e-6, abs=1e-9)
            else:
                assert math.isnan(batch.y[b, k])


def test_absent_rows_are_imputed_and_masked() -> None:
    panel = _panel()
    windows = WindowSet.for_inference(_scaled(panel), np.array([40]), WindowSpec(E, HORIZONS), Vocabulary())
    assert windows.scaled.names == ("f", "g", "h", "g__missing")
    (row,) = np.flatnonzero(windows.symbol == 2)  # C has no bar on 35 and 36: steps 4 and 5 of 31 .. 40
    x = windows.gather(np.array([row])).x[0]
    np.testing.assert_array_equal(x[4:6], [[0, 0, 0, 1], [0, 0, 0, 1]])
    assert x[[3, 6], 3].tolist() == [0.0, 0.0]


def test_nothing_after_the_decision_reaches_its_inputs() -> None:
    panel, rng = _panel(), np.random.default_rng(5)
    later = slice(46, 60)
    values, opens, closes = panel.values.copy(), panel.opens.copy(), panel.closes.copy()
    values[:, later] = rng.normal(0, 9, values[:, later].shape)
    opens[:, later], closes[:, later] = rng.uniform(1, 99, (2, 5, 14))
    opens[3, later] = closes[3, later] = np.nan  # delisted
    other = replace(panel, values=values, opens=opens, closes=closes, sigma=trailing_volatility(closes))
    spec = WindowSpec(E, HORIZONS, "volatility", ("symbol",))
    one, two = (WindowSet.for_inference(_scaled(p), np.arange(30, 46), spec, Vocabulary.of(p)) for p in (panel, other))
    np.testing.assert_array_equal(one.symbol, two.symbol)
    a, b = (w.gather(np.arange(len(w))) for w in (one, two))
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.scale, b.scale)


def test_rows_of_a_column_are_its_whole_cross_section() -> None:
    panel = _panel()
    windows = WindowSet.for_training(_scaled(panel), np.arange(60), WindowSpec(E, (1,)), Vocabulary())
    seen = np.concatenate([windows.rows_of_column(int(t)) for t in windows.decision_columns])
    assert seen.tolist() == list(range(len(windows)))
    rows = windows.rows_of_column(36)
    # C does not trade on column 36; E misses three of the ten sessions 27 .. 36, one more than may be missing
    assert windows.symbol[rows].tolist() == [0, 1, 3]
    assert len(windows.rows_of_column(3)) == 0
    assert len(windows.rows_of_column(59)) == 0  # its label is not known yet


def test_a_bar_whose_features_are_all_unknown_is_no_row() -> None:
    panel = _panel()
    values = panel.values.copy()
    values[0, 40] = np.nan  # traded, but its features were not built
    scaled = _scaled(replace(panel, values=values))
    windows = WindowSet.for_inference(scaled, np.array([40, 41]), WindowSpec(E, (1,)), Vocabulary())
    assert 0 not in windows.symbol[windows.rows_of_column(40)]
    assert 0 in windows.symbol[windows.rows_of_column(41)]


def test_target_scale_none_needs_no_volatility_at_inference() -> None:
    panel = _panel()
    scaled = _scaled(panel)
    plain, scaled_target = (
        WindowSet.for_inference(scaled, np.array([24]), WindowSpec(E, (1, 3), kind), Vocabulary())
        for kind in ("none", "volatility")
    )
    assert plain.symbol.tolist() == [0, 1, 2, 3, 4]  # B, listed on column 15, has ten bars but not twenty returns
    assert scaled_target.symbol.tolist() == [0, 2, 3, 4]
    np.testing.assert_allclose(plain.scale, [[0.02, 0.02 * 3**0.5]] * 5)  # 2 % a session for all


def test_names_a_model_has_not_seen_are_unknown() -> None:
    panel = _panel()
    words = Vocabulary(("D", "A"), ("Tech",))
    assert words.cardinalities(("sector", "symbol")) == (2, 3)
    expected = [[0, 2], [1, 0], [0, 0], [1, 1], [0, 0]]
    np.testing.assert_array_equal(words.codes(panel, ("sector", "symbol")), expected)
    assert Vocabulary.from_json(words.to_json()) == words
    with pytest.raises(UnknownNameError, match="static column 'country'"):
        words.codes(panel, ("country",))
    with pytest.raises(InvalidConfigError, match="stored vocabulary"):
        Vocabulary.from_json("{}")
    windows = WindowSet.for_inference(_scaled(panel), np.array([40]), WindowSpec(E, (1,)), words)
    assert windows.cardinalities == ()
    assert windows.gather(np.arange(2)).static.shape == (2, 0)


def test_empty_and_too_short() -> None:
    panel = _panel()
    scaled, spec = _scaled(panel), WindowSpec(E, HORIZONS)
    with pytest.raises(EmptyUniverseError, match="10 sessions and its labels in 2 decisions"):
        WindowSet.for_training(scaled, np.array([58, 59]), spec, Vocabulary())
    none = WindowSet.for_inference(scaled, np.array([2]), spec, Vocabulary())
    assert len(none) == 0
    assert none.gather(np.arange(0)).x.shape == (0, E, 4)
    with pytest.raises(TooShortHistoryError, match="encoder of 61 sessions needs at least 61"):
        WindowSet.for_inference(scaled, np.array([2]), WindowSpec(61, (1,)), Vocabulary())
    with pytest.raises(InvalidConfigError, match="not the scaler's"):
        ScaledPanel.of(replace(panel, features=("g", "f", "h")), Scaler(("f", "g", "h"), (0.0,) * 3, (1.0,) * 3))
