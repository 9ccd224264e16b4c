"""What every member of MODELS must do. A new member brings one small config in model_samples.CONFIGS."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from model_samples import (
    CONFIGS,
    TRAINING,
    bundle_of,
    card_of,
    closes_of,
    planted_panel,
    scrambled_after,
    window_sets,
)

from trading_core.inference.predict import ForecastLabels, predict
from trading_core.models.registry import MODELS
from trading_core.registry.bundle import load_bundle, save_bundle
from trading_core.schema import InputSpec
from trading_core.storage.artifacts import ArtifactStore
from trading_core.training.data import input_spec
from trading_core.training.fit import FitResult, fit

LABELS = ForecastLabels("1", "3", "run")
PANEL = planted_panel()
TRAIN, VALIDATION = window_sets(PANEL)
NAMES = sorted(MODELS)
_FITS: dict[str, FitResult] = {}


def fresh(name: str, seed: int = 7) -> FitResult:
    return fit(
        MODELS[name], CONFIGS[name], input_spec(TRAIN), TRAIN, VALIDATION, TRAINING, seed, lambda _: None, device="cpu"
    )


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fitted(name: str) -> FitResult:
    if name not in _FITS:
        _FITS[name] = fresh(name)
    return _FITS[name]


def test_every_model_has_a_sample() -> None:
    assert set(CONFIGS) == set(MODELS)


@pytest.mark.parametrize("static", [(), (4,), (4, 9)])
@pytest.mark.parametrize("horizons", [(1,), (1, 5, 21)])
def test_shapes_and_monotone_quantiles(name: str, static: tuple[int, ...], horizons: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    spec = InputSpec(("a", "b", "a__missing"), 6, horizons, static)
    module = MODELS[name].build(CONFIGS[name], spec).eval()
    x = 3.0 * torch.randn(11, 6, 3)
    codes = torch.stack([torch.randint(0, n, (11,)) for n in static], dim=1) if static else torch.zeros(11, 0).long()
    with torch.no_grad():
        quantiles = module(x, codes)
        alone = module(x[3:4], codes[3:4])
    assert quantiles.shape == (11, len(horizons), 7)
    assert quantiles.dtype == torch.float32
    assert torch.isfinite(quantiles).all()
    assert (quantiles.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(quantiles[3:4], alone, rtol=0, atol=1e-6)  # a batch's other samples do not matter


def test_the_config_is_frozen_has_defaults_and_bounds(name: str) -> None:
    config = MODELS[name].config()
    with pytest.raises(AttributeError):
        setattr(config, fields(config)[0].name, 1)
    for field in fields(config):
        with pytest.raises(ValueError, match=rf"{field.name} is -1; it must lie between"):
            replace(config, **{field.name: -1})


def test_it_learns_a_planted_signal(fitted: FitResult) -> None:
    # Spearman of a bivariate normal with correlation 0.6 is 6/pi * asin(0.3) = 0.58; 0 without the signal.
    assert fitted.skill[0].mean_rank_ic > 0.4
    assert fitted.skill[0].roc_auc > 0.65
    assert 0.75 < fitted.skill[0].coverage_90 <= 1.0
    assert fitted.skill[0].crossing_rate == 0.0


def test_the_same_seed_gives_the_same_bits(name: str, fitted: FitResult) -> None:
    again = fresh(name)
    state, other = fitted.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(state[key], other[key]) for key in state)
    assert [r.val_loss for r in again.history] == [r.val_loss for r in fitted.history]
    assert again.platt == fitted.platt


def test_another_seed_gives_other_weights_where_seeds_matter(name: str, fitted: FitResult) -> None:
    other = fresh(name, seed=8).module.state_dict()
    same = all(torch.equal(value, other[key]) for key, value in fitted.module.state_dict().items())
    assert same == (MODELS[name].fit_closed_form is not None)


def test_save_and_load_give_the_same_bits(name: str, fitted: FitResult, tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path))
    digest = save_bundle(store, "m/1", fitted.module, card_of(name, fitted, TRAIN), datetime(2024, 1, 1, tzinfo=UTC))
    loaded = load_bundle(store, "m/1", digest)
    batch = VALIDATION.gather(np.arange(200))
    x, static = torch.from_numpy(batch.x), torch.from_numpy(batch.static)
    with torch.no_grad():
        assert torch.equal(loaded.module(x, static), fitted.module(x, static))
    assert not loaded.module.training
    assert loaded.card == card_of(name, fitted, TRAIN)


def test_it_does_not_see_the_future(name: str, fitted: FitResult) -> None:
    bundle, closes = bundle_of(name, fitted, TRAIN), closes_of(PANEL)
    columns = np.arange(141, 150)
    before = predict(bundle, PANEL, columns, closes, LABELS, threads=1)
    after = predict(bundle, scrambled_after(PANEL, 149), columns, closes, LABELS, threads=1)
    assert before.equals(after)
    seen = predict(bundle, scrambled_after(PANEL, 148), columns, closes, LABELS, threads=1)
    last = pl.col("session") == PANEL.sessions[149].astype(object)
    assert before.filter(~last).equals(seen.filter(~last))
    assert not before.filter(last).equals(seen.filter(last))  # the scrambling would have been noticed


def test_a_new_symbol_gets_a_forecast(name: str, fitted: FitResult) -> None:
    bundle = bundle_of(name, fitted, TRAIN)
    renamed = replace(PANEL, symbols=("NEW", *PANEL.symbols[1:]), sector_names=("a", "unheard-of"))
    frame = predict(bundle, renamed, np.array([145]), closes_of(PANEL), LABELS, threads=1)
    row = frame.filter(pl.col("symbol") == "NEW")
    assert row.height == 2
    assert np.isfinite(row["score"].to_numpy()).all()


def test_missing_values_go_through_masks(name: str) -> None:
    panel = planted_panel(missing=0.15)
    train, validation = window_sets(panel)
    spec = input_spec(train)
    assert spec.channels == ("f0", "f1", "f2", "f0__missing", "f1__missing", "f2__missing")
    one_epoch = replace(TRAINING, epochs=1)
    result = fit(MODELS[name], CONFIGS[name], spec, train, validation, one_epoch, 7, lambda _: None, device="cpu")
    frame = predict(bundle_of(name, result, train), panel, np.array([145, 146]), closes_of(panel), LABELS, threads=1)
    assert frame.height > 20
    assert np.isfinite(frame.select(pl.col(pl.Float64)).to_numpy()).all()
