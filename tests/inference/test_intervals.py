"""Adaptive intervals of stored forecasts: who knows what when, and what it does to coverage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from model_samples import CONFIGS, TRAINING, card_of, planted_panel, scrambled_after, window_sets

from trading_core.calibration.conformal import Adaptive, Conformal
from trading_core.dataset.panel import Panel
from trading_core.inference.intervals import with_adapted_intervals
from trading_core.models.registry import MODELS
from trading_core.registry.bundle import ModelCard
from trading_core.training.data import input_spec
from trading_core.training.fit import fit

PANEL = planted_panel(sessions=160, ic=0.0)
TRAIN, VALIDATION = window_sets(PANEL)
FITTED = fit(
    MODELS["linear"], CONFIGS["linear"], input_spec(TRAIN), TRAIN, VALIDATION, TRAINING, 7, lambda _: None, device="cpu"
)
GAMMA = 0.1
CONFORMAL = Conformal(0.1, True, 201, tuple((np.arange(201) / 100.0 - 1.0).tolist()))  # scores -1.00, -0.99 .. 1.00


def card() -> ModelCard:
    made = card_of("linear", FITTED, TRAIN)
    return replace(made, intervals=(CONFORMAL.to_json(),) * 2, adaptive=Adaptive(0.1, GAMMA).to_json())


def rows(columns: list[int], half_width: float = 0.01) -> pl.DataFrame:
    """Forecasts of all symbols whose 90 % band is 0 +- half_width, for both horizons."""
    days = PANEL.sessions[columns].astype(object)
    keys = [(symbol, day, h) for day in days for symbol in PANEL.symbols for h in (1, 3)]
    frame = pl.DataFrame(keys, schema={"symbol": pl.String, "session": pl.Date, "horizon": pl.Int32}, orient="row")
    return frame.with_columns(pl.lit(-half_width).alias("q05"), pl.lit(half_width).alias("q95"))


def adapted(panel: Panel, new: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    return with_adapted_intervals(card(), panel, new, past)


def offset(level: float) -> float:
    """By how many volatilities a band is widened: the score of rank ceil(202 (1 - level))."""
    return (math.ceil(202 * (1.0 - level)) - 1) / 100.0 - 1.0


def test_the_level_follows_from_what_came_true_before() -> None:
    """By hand: one error per past date whose label was known strictly before the session."""
    day, past = 140, [136, 137, 138, 139]
    found = adapted(PANEL, rows([day]), rows(past)).filter(pl.col("horizon") == 1)
    level = 0.1
    for column in [c for c in past if c + 1 + 1 < day]:  # 136, 137
        labels = np.log(PANEL.opens[:, column + 2] / PANEL.opens[:, column + 1])
        error = float(np.mean(np.abs(labels) > 0.01 + offset(level) * PANEL.sigma[:, column]))
        level = min(max(level + GAMMA * (0.1 - error), 0.0), 1.0)
    expected = 0.01 + offset(level) * PANEL.sigma[:, day]
    np.testing.assert_allclose(found["high_90"].to_numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(found["low_90"].to_numpy(), -found["high_90"].to_numpy(), atol=1e-15)
    assert level != pytest.approx(0.1)


def test_no_later_price_and_no_later_forecast_changes_an_interval() -> None:
    past, new = rows(list(range(120, 140))), rows([140, 141])
    before = adapted(PANEL, new, past)
    assert adapted(scrambled_after(PANEL, 141), new, past).equals(before)
    last = pl.col("session") == PANEL.sessions[141].astype(object)
    # Sigma is of the close, labels of the opens up to 140: only what was seen at 141 differs.
    seen = adapted(scrambled_after(PANEL, 140), new, past)
    assert seen.filter(~last).equals(before.filter(~last))
    more = pl.concat([past, rows([150, 151], half_width=1e-6)])
    assert adapted(PANEL, new, more).equals(before)


def test_one_by_one_is_the_same_as_at_once() -> None:
    columns = list(range(120, 150))
    at_once = adapted(PANEL, rows(columns), rows([]))
    parts = [adapted(PANEL, rows([c]), rows(columns[:i])) for i, c in enumerate(columns)]
    assert pl.concat(parts).equals(at_once)


def test_too_narrow_bands_grow_until_they_hold_what_they_promise() -> None:
    columns = list(range(105, 155))
    found = adapted(PANEL, rows(columns, half_width=1e-4), rows([])).filter(pl.col("horizon") == 1)
    widths = found.group_by("session").agg((pl.col("high_90") - pl.col("low_90")).mean()).sort("session")
    assert widths["high_90"][0] < widths["high_90"][-1]


def test_forecasts_of_a_symbol_whose_bars_are_gone_are_left_out_of_the_state() -> None:
    past, new = rows(list(range(120, 140))), rows([140])
    ghost = past.head(2).with_columns(pl.lit("GONE").alias("symbol"))
    assert adapted(PANEL, new, pl.concat([past, ghost])).equals(adapted(PANEL, new, past))
