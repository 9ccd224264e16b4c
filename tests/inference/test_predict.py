"""Forecast rows from a bundle: units, order, refusals, and the same rows however they are asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from model_samples import CONFIGS, TRAINING, bundle_of, closes_of, planted_panel, window_sets
from torch import Tensor, nn

from trading_core.calibration.platt import Platt
from trading_core.calibration.temperature import ClassCalibration
from trading_core.errors import BundleError, InvalidConfigError, LookAheadError, NoDataError
from trading_core.inference.predict import ForecastLabels, predict
from trading_core.models.registry import MODELS
from trading_core.registry.bundle import Bundle
from trading_core.schema import FORECASTS, QUANTILE_COLUMNS, Target
from trading_core.training.data import input_spec
from trading_core.training.fit import fit

LABELS = ForecastLabels("4", "17", "run-9")
PANEL = planted_panel()
TRAIN, VALIDATION = window_sets(PANEL)
CLOSES = closes_of(PANEL)


@cache
def bundle() -> Bundle:
    """Trained when it is asked for first: not while tests are collected, which every worker does."""
    entry, config, training = MODELS["lstm"], CONFIGS["lstm"], replace(TRAINING, epochs=1)
    result = fit(entry, config, input_spec(TRAIN), TRAIN, VALIDATION, training, 7, lambda _: None)
    return bundle_of("lstm", result, TRAIN)


class Fixed(nn.Module):
    """Scaled quantiles -3 .. 3 for every sample and horizon."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.arange(-3.0, 4.0))

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        return self.level.expand(len(x), 2, 7) + 0.25  # type: ignore[operator]


class FixedClasses(Fixed):
    """Odds of 4 : 2 : 2 for Bear, Neutral, Bull, beside the quantiles."""

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        odds = torch.log(torch.tensor([4.0, 2.0, 2.0])).expand(len(x), 2, 3)
        return torch.cat((super().forward(x, static), odds), dim=-1)


def fixed(**changes: Any) -> Bundle:
    card = replace(bundle().card, calibration=(Platt().to_json(), Platt(1.0, 0.5).to_json()), **changes)
    return Bundle(Fixed(), card, "memory", "")


def test_rows_have_the_tables_columns_order_and_constants() -> None:
    frame = predict(bundle(), PANEL, np.array([151, 150]), CLOSES, LABELS, threads=1)
    assert dict(frame.schema) == {name: dtype for name, dtype in FORECASTS.columns.items() if name != "month"}
    assert frame.height == 2 * 16 * 2
    assert frame.equals(frame.sort("session", "symbol", "horizon"))
    assert frame.select("model", "model_version", "features_version", "run_id").unique().rows() == [
        ("lstm", "4", "17", "run-9")
    ]
    day = PANEL.sessions[150].astype(object)
    assert frame.filter(pl.col("session") == day)["ts"].unique().to_list() == [
        datetime(day.year, day.month, day.day, 21, tzinfo=UTC)
    ]


def test_quantiles_are_in_units_of_the_label_and_p_up_is_calibrated() -> None:
    frame = predict(fixed(), PANEL, np.array([150]), CLOSES, LABELS, threads=1)
    for horizon, platt_b in ((1, 0.0), (3, 0.5)):
        rows = frame.filter(pl.col("horizon") == horizon).sort("symbol")
        unit = PANEL.sigma[:, 150] * np.sqrt(horizon)
        np.testing.assert_allclose(rows["q05"], -2.75 * unit, rtol=1e-12)
        np.testing.assert_allclose(rows["score"], 0.25 * unit, rtol=1e-12)
        assert rows["score"].equals(rows["q50"].alias("score"))
        # F is linear between q25 = -0.75 and q50 = 0.25: F(0) = 0.25 + 0.75 * 0.25.
        odds = np.log((1 - 0.4375) / 0.4375) + platt_b
        np.testing.assert_allclose(rows["p_up"], 1 / (1 + np.exp(-odds)), rtol=1e-9)


def test_probabilities_of_classes_are_calibrated_by_horizon() -> None:
    calibration = (ClassCalibration(), ClassCalibration(2.0, (0.0, 0.0, np.log(3.0))))
    made = fixed(
        spec=replace(bundle().card.spec, targets=(Target.QUANTILES, Target.CLASSES)),
        class_calibration={"classes": tuple(fitted.to_json() for fitted in calibration)},
    )
    frame = predict(replace(made, module=FixedClasses()), PANEL, np.array([150]), CLOSES, LABELS, threads=1)
    # The odds themselves, and their square roots with Bull's times three.
    for horizon, odds in ((1, (4.0, 2.0, 2.0)), (3, (2.0, 2.0**0.5, 3.0 * 2.0**0.5))):
        rows = frame.filter(pl.col("horizon") == horizon)
        np.testing.assert_allclose(rows["p_bear"], odds[0] / sum(odds), rtol=1e-6)
        np.testing.assert_allclose(rows["p_bull"], odds[2] / sum(odds), rtol=1e-6)
    assert frame["p_stop"].null_count() == len(frame)


def test_a_target_without_its_own_volatility_is_in_units_of_two_percent_a_session() -> None:
    frame = predict(fixed(target_scale="none"), PANEL, np.array([150]), CLOSES, LABELS, threads=1)
    found = frame.filter(pl.col("horizon") == 1).select(QUANTILE_COLUMNS).unique()
    np.testing.assert_allclose(found.row(0), [0.02 * z for z in (-2.75, -1.75, -0.75, 0.25, 1.25, 2.25, 3.25)])
    assert found.height == 1


def test_one_day_a_year_or_small_batches_give_the_same_rows() -> None:
    columns = np.arange(140, 160)
    whole = predict(bundle(), PANEL, columns, CLOSES, LABELS, threads=1)
    daily = pl.concat(predict(bundle(), PANEL, np.array([c]), CLOSES, LABELS, threads=1) for c in columns)
    small = predict(bundle(), PANEL, columns, CLOSES, LABELS, batch_size=7, threads=1)
    numbers = [name for name, dtype in whole.schema.items() if dtype == pl.Float64]
    for other in (daily, small):
        assert whole.drop(numbers).equals(other.drop(numbers))
        np.testing.assert_allclose(whole.select(numbers), other.select(numbers), rtol=0, atol=1e-6)


def test_symbols_without_a_window_have_no_row() -> None:
    closes, values = PANEL.closes.copy(), PANEL.values.copy()
    closes[2, 150], values[2, 150] = np.nan, np.nan  # no bar on the decision's session
    closes[5, 147:149], values[5, 147:149] = np.nan, np.nan  # 3 of 5 sessions are fewer than 80 %
    panel = replace(PANEL, closes=closes, values=values)
    frame = predict(bundle(), panel, np.array([150]), CLOSES, LABELS, threads=1)
    assert set(PANEL.symbols) - set(frame["symbol"].to_list()) == {"S02", "S05"}


def test_nothing_asked_for_gives_no_rows() -> None:
    frame = predict(bundle(), PANEL, np.array([], dtype=np.int64), CLOSES, LABELS)
    assert frame.height == 0
    assert dict(frame.schema) == {name: dtype for name, dtype in FORECASTS.columns.items() if name != "month"}


def test_sessions_up_to_the_cut_off_are_refused() -> None:
    cutoff = PANEL.sessions[139].astype(object)
    with pytest.raises(LookAheadError, match=f"Model version 4 has used labels known at {cutoff}"):
        predict(bundle(), PANEL, np.array([139, 150]), CLOSES, LABELS)
    assert predict(bundle(), PANEL, np.array([140]), CLOSES, LABELS).height == 32


def test_wrong_inputs_are_named() -> None:
    day = PANEL.sessions[150].astype(object)
    without = {session: close for session, close in CLOSES.items() if session != day}
    with pytest.raises(NoDataError, match=f"The close of session {day} is not known"):
        predict(bundle(), PANEL, np.array([150]), without, LABELS)
    with pytest.raises(InvalidConfigError, match=r"columns 150 \.\. 900 of a panel of 160"):
        predict(bundle(), PANEL, np.array([150, 900]), CLOSES, LABELS)
    with pytest.raises(InvalidConfigError, match="are not the scaler's"):
        predict(bundle(), replace(PANEL, features=("f1", "f0", "f2")), np.array([150]), CLOSES, LABELS)


def test_a_card_that_does_not_fit_is_refused() -> None:
    spec = replace(bundle().card.spec, quantiles=(0.1, 0.5, 0.9))
    with pytest.raises(BundleError, match="the forecasts table holds"):
        predict(fixed(spec=spec), PANEL, np.array([150]), CLOSES, LABELS)
    with pytest.raises(BundleError, match="its target_scale is 'log'"):
        predict(fixed(target_scale="log"), PANEL, np.array([150]), CLOSES, LABELS)
    with pytest.raises(BundleError, match="vocabulary's sizes"):
        predict(fixed(vocabulary='{"symbols": [], "sectors": []}'), PANEL, np.array([150]), CLOSES, LABELS)
