"""Stored intervals and class probabilities judged: by hand, and on prices whose variance breaks on a known session."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from model_samples import CONFIGS, TRAINING, card_of, planted_panel, window_sets
from sklearn.metrics import log_loss, recall_score

from trading_core.calibration.conformal import Adaptive, Conformal
from trading_core.calibration.temperature import ClassCalibration
from trading_core.dataset.panel import Panel, trailing_volatility
from trading_core.inference.intervals import with_adapted_intervals
from trading_core.models.registry import MODELS
from trading_core.pipelines.stored_skill import class_rows, find_break, interval_rows
from trading_core.registry.bundle import ModelCard
from trading_core.schema import Target
from trading_core.training.data import input_spec
from trading_core.training.fit import fit

BREAK = 220  # the first decision whose next session's return is three times as large
DECISIONS = np.arange(140, 297)


def _broken() -> Panel:
    """Noise of 2 % a session, and of 6 % from the open after the decision BREAK on."""
    panel = planted_panel(sessions=300, ic=0.0)
    moves = np.diff(np.log(panel.opens), axis=1)  # moves[:, t + 1]: of the decision t
    moves[:, BREAK + 1 :] *= 3.0
    opens = panel.opens[:, :1] * np.exp(np.pad(np.cumsum(moves, axis=1), ((0, 0), (1, 0))))
    closes = opens * panel.closes / panel.opens
    return replace(panel, opens=opens, closes=closes, sigma=trailing_volatility(closes))


PANEL = _broken()
TRAIN, VALIDATION = window_sets(PANEL)
FITTED = fit(MODELS["linear"], CONFIGS["linear"], input_spec(TRAIN), TRAIN, VALIDATION, TRAINING, 7, lambda _: None)


def card() -> ModelCard:
    """Of a model that always says 0 and measures nothing in volatilities, calibrated before the break."""
    label = np.log(PANEL.opens[:, 42:137] / PANEL.opens[:, 41:136]).ravel()
    unit = np.full(len(label), 0.02)
    conformal = Conformal.fit(label, np.zeros(len(label)), np.zeros(len(label)), 0.1, unit)
    made = card_of("linear", FITTED, TRAIN)
    spec = replace(made.spec, horizons=(1,))
    intervals = (conformal.to_json(),)
    return replace(made, spec=spec, target_scale="none", intervals=intervals, adaptive=Adaptive(0.1, 0.1).to_json())


def rows(columns: np.ndarray = DECISIONS) -> pl.DataFrame:
    """Forecasts of 0 for all symbols, with the return that came."""
    days, symbols = PANEL.sessions[columns], len(PANEL.symbols)
    frame = pl.DataFrame(
        {
            "symbol": np.tile(PANEL.symbols, len(days)),
            "session": np.repeat(days, symbols),
            "label": np.log(PANEL.opens[:, columns + 2] / PANEL.opens[:, columns + 1]).T.ravel(),
        },
        schema_overrides={"session": pl.Date},
    )
    zero = pl.lit(0.0)
    return frame.with_columns(pl.lit(1, pl.Int32).alias("horizon"), q05=zero, q95=zero)


def test_the_break_is_found_in_what_was_judged() -> None:
    found = find_break(PANEL, rows())
    assert found is not None
    assert PANEL.column_of(found.session) == pytest.approx(BREAK, abs=1)
    assert (found.volatility_before, found.volatility_after) == pytest.approx((0.02, 0.06), rel=0.05)
    assert find_break(PANEL, rows(DECISIONS[:1])) is None


def test_after_a_break_stored_intervals_cover_what_static_ones_do_not() -> None:
    judged = rows()
    stored = with_adapted_intervals(card(), PANEL, judged, judged.clear())
    found_break = find_break(PANEL, judged)
    adaptive, static, quantiles = interval_rows(card(), PANEL, stored, found_break)
    assert [row.interval for row in (adaptive, static, quantiles)] == ["stored", "static", "quantiles"]
    assert {row.rows for row in (adaptive, static, quantiles)} == {len(judged)}
    inside = stored["label"].is_between(stored["low_90"], stored["high_90"]).to_numpy()
    sigma = PANEL.sigma[:, DECISIONS].T.ravel()
    assert found_break is not None
    late = (stored["session"] >= found_break.session).to_numpy()
    assert adaptive.coverage == pytest.approx(inside.mean())
    assert adaptive.after_break == pytest.approx(inside[late].mean())
    assert adaptive.before_break == pytest.approx(inside[~late].mean())
    assert adaptive.high_volatility == pytest.approx(inside[sigma > np.quantile(sigma, 2 / 3)].mean())
    assert adaptive.mean_width == pytest.approx((stored["high_90"] - stored["low_90"]).mean())
    # A band of 1.645 standard deviations holds 0.42 of what is three times as wide.
    assert 0.86 < static.before_break < 0.94
    assert static.after_break == pytest.approx(0.42, abs=0.04)
    assert adaptive.after_break > static.after_break + 0.1
    assert (quantiles.coverage, quantiles.mean_width) == (0.0, 0.0)


def test_without_a_break_neither_side_is_told() -> None:
    judged = rows()
    stored = with_adapted_intervals(card(), PANEL, judged, judged.clear())
    row = interval_rows(card(), PANEL, stored, None)[0]
    assert np.isnan([row.before_break, row.after_break]).all()
    assert 0.0 < row.coverage < 1.0


def test_classes_are_judged_as_sklearn_judges_them() -> None:
    spec = replace(card().spec, targets=(Target.QUANTILES, Target.BARRIER, Target.CLASSES))
    calibration = dict.fromkeys(("barrier", "classes"), (ClassCalibration().to_json(),))
    made = replace(card(), spec=spec, class_calibration=calibration, class_threshold=0.8, barrier_width=1.2)
    p = np.random.default_rng(5).dirichlet((2.0, 3.0, 2.0), len(rows()))
    stored = rows().with_columns(
        pl.Series("p_bear", p[:, 0]),
        pl.Series("p_bull", p[:, 2]),
        pl.Series("p_stop", p[:, 2]),
        pl.Series("p_take", p[:, 0]),
    )
    whole, single = class_rows(made, PANEL, stored)
    assert [(row.target, row.rows) for row in whole] == [("classes", len(p)), ("barrier", len(p))]
    assert [row.name for row in single] == ["bear", "neutral", "bull", "stop", "neither", "take"]
    scaled = stored["label"].to_numpy() / PANEL.sigma[:, DECISIONS].T.ravel()
    came = np.where(scaled > 0.8, 2, np.where(scaled < -0.8, 0, 1))
    assert whole[0].log_loss == pytest.approx(log_loss(came, p))
    assert [row.recall for row in single[:3]] == pytest.approx(recall_score(came, p.argmax(axis=1), average=None))
    # Over one session the path is the close before and the open at its end.
    entry, close, end = PANEL.opens[:, DECISIONS + 1], PANEL.closes[:, DECISIONS + 1], PANEL.opens[:, DECISIONS + 2]
    first, last = (np.log(price / entry).T.ravel() / PANEL.sigma[:, DECISIONS].T.ravel() for price in (close, end))
    touched = np.where(np.abs(first) >= 1.2, first, last)
    came = np.where(touched >= 1.2, 2, np.where(touched <= -1.2, 0, 1))
    assert whole[1].log_loss == pytest.approx(log_loss(came, p[:, ::-1]))
    assert class_rows(card(), PANEL, stored) == ((), ())
