"""What every member of MODELS must do. A new member brings one small config in model_samples.CONFIGS.

Each test runs with that config and once more for every other value of its words and switches (`choices_of`).
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import polars as pl
import pytest
import torch
from model_samples import (
    BLIND,
    CONFIGS,
    GIVES,
    SEEDLESS,
    TRAINING,
    bundle_of,
    card_of,
    choices_of,
    closes_of,
    planted_panel,
    scrambled_after,
    variants,
    window_sets,
)
from torch import nn

from trading_core.inference.predict import ForecastLabels, predict
from trading_core.models.registry import MODELS, HasFiles
from trading_core.models.search import Choice, Real, Whole
from trading_core.registry.bundle import load_bundle, save_bundle
from trading_core.schema import QUANTILE_COLUMNS, InputSpec, Target
from trading_core.storage.artifacts import ArtifactStore
from trading_core.training.data import input_spec
from trading_core.training.fit import FitResult, fit

LABELS = ForecastLabels("1", "3", "run")
PANEL = planted_panel()
TRAIN, VALIDATION = window_sets(PANEL)
NAMES = sorted(MODELS)
VARIANTS = variants()
_FITS: dict[str, FitResult] = {}


def fresh(name: str, config: Any, seed: int = 7) -> FitResult:
    return fit(MODELS[name], config, input_spec(TRAIN), TRAIN, VALIDATION, TRAINING, seed, lambda _: None, device="cpu")


def same_state(one: nn.Module, other: nn.Module) -> bool:
    state, others = one.state_dict(), other.state_dict()
    files, other_files = (module.files() if isinstance(module, HasFiles) else {} for module in (one, other))
    assert state or files  # there is something to compare
    return all(torch.equal(value, others[key]) for key, value in state.items()) and files == other_files


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def name(variant: str) -> str:
    return VARIANTS[variant][0]


@pytest.fixture
def config(variant: str) -> Any:
    return VARIANTS[variant][1]


@pytest.fixture
def fitted(variant: str, name: str, config: Any) -> FitResult:
    if variant not in _FITS:
        _FITS[variant] = fresh(name, config)
    return _FITS[variant]


def test_every_model_has_a_sample() -> None:
    assert set(CONFIGS) == set(MODELS)


def output_of(name: str, config: Any, spec: InputSpec, samples: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of fresh weights for random samples, and that for the fourth of them alone."""
    torch.manual_seed(0)
    module = MODELS[name].build(config, spec).eval()
    x = 3.0 * torch.randn(samples, spec.encoder_length, len(spec.channels))
    codes = torch.zeros(samples, len(spec.static_cardinalities), dtype=torch.int64)
    for k, count in enumerate(spec.static_cardinalities):
        codes[:, k] = torch.randint(0, count, (samples,))
    with torch.no_grad():
        return module(x, codes), module(x[3:4], codes[3:4])


@pytest.mark.parametrize("static", [(), (4,), (4, 9)])
@pytest.mark.parametrize("horizons", [(1,), (1, 5, 21)])
def test_shapes_and_monotone_quantiles(
    name: str, config: Any, static: tuple[int, ...], horizons: tuple[int, ...]
) -> None:
    quantiles, alone = output_of(name, config, InputSpec(("f0", "f1", "f0__missing"), 6, horizons, static))
    assert quantiles.shape == (11, len(horizons), 7)
    assert quantiles.dtype == torch.float32
    assert torch.isfinite(quantiles).all()
    assert (quantiles.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(quantiles[3:4], alone, rtol=0, atol=1e-6)  # a batch's other samples do not matter


@pytest.mark.parametrize(
    "targets",
    [(Target.QUANTILES, Target.DIRECTION), tuple(Target), tuple(reversed(Target))],
    ids=["two", "all", "reversed"],
)
def test_every_target_has_its_columns(name: str, config: Any, targets: tuple[Target, ...]) -> None:
    spec = InputSpec(("f0", "f1", "f0__missing"), 6, (1, 5, 21), (4,), targets=targets)
    refused = [str(target) for target in targets if target not in GIVES.get(name, tuple(Target))]
    if refused:
        with pytest.raises(ValueError, match=f"targets name {', '.join(refused)}, which '{name}' does not give"):
            MODELS[name].build(config, spec)
        return
    output, alone = output_of(name, config, spec)
    widths = {Target.QUANTILES: 7, Target.CLASSES: 3, Target.BARRIER: 3}  # the others: one column
    assert output.shape == (11, 3, sum(widths.get(target, 1) for target in targets))
    assert torch.isfinite(output).all()
    torch.testing.assert_close(output[3:4], alone, rtol=0, atol=1e-6)
    assert (output[..., spec.columns_of(Target.QUANTILES)].diff(dim=-1) >= 0).all()
    if Target.CLASSES in targets and MODELS[name].fit_closed_form is None:  # their logits have no order
        assert (output[..., spec.columns_of(Target.CLASSES)].diff(dim=-1) < 0).any()


# --- the config -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", NAMES)
def test_the_config_is_frozen_has_defaults_and_bounds(model: str) -> None:
    config = MODELS[model].config()
    for field in fields(config):
        with pytest.raises(AttributeError):
            setattr(config, field.name, 1)
        with pytest.raises(ValueError, match=rf"{field.name} is -1; it must"):
            replace(config, **{field.name: -1})


@pytest.mark.parametrize("model", NAMES)
def test_words_and_switches_name_what_is_allowed(model: str) -> None:
    config = MODELS[model].config()
    for key, allowed in choices_of(model).items():
        listed = re.escape(", ".join(map(repr, allowed)))
        for wrong in ("sideways", "", 1, None):  # 1 == True, but it is no switch
            with pytest.raises(ValueError, match=rf"{key} is {wrong!r}; it must be one of {listed}"):
                replace(config, **{key: wrong})
        for value in allowed:
            assert getattr(replace(config, **{key: value}), key) == value


@pytest.mark.parametrize("model", NAMES)
def test_every_corner_of_the_search_space_is_a_valid_config(model: str) -> None:
    space, config = MODELS[model].search, MODELS[model].config
    default, hints = config(), get_type_hints(config)
    ends: list[tuple[Any, ...]] = []
    for key, span in space.items():
        value = getattr(default, key)  # a search may begin with the default
        if isinstance(span, Choice):
            assert value in span.values
            ends.append(span.values)
        else:
            assert isinstance(span, Whole | Real)
            assert hints[key] is (int if isinstance(span, Whole) else float)
            assert span.low <= value <= span.high
            ends.append((span.low, span.high))
    corners = [config(**dict(zip(space, values, strict=True))) for values in product(*ends)]
    spec = InputSpec(tuple(f"f{i}" for i in range(12)), 20, (1, 5), (4,))
    for corner in (corners[0], corners[-1]) if space else ():
        assert isinstance(MODELS[model].build(corner, spec), nn.Module)


# --- what it learns ---------------------------------------------------------------------------------------------------


def test_it_learns_a_planted_signal(name: str, fitted: FitResult) -> None:
    assert 0.75 < fitted.skill[0].coverage_90 <= 1.0
    assert fitted.skill[0].crossing_rate == 0.0
    if name in BLIND:
        batch = VALIDATION.gather(np.arange(200))
        with torch.no_grad():
            output = fitted.module(torch.from_numpy(batch.x), torch.from_numpy(batch.static))
        assert torch.equal(output, output[:1].expand_as(output))  # it says the same of every sample
        assert fitted.skill[0].roc_auc == 0.5
        return
    # Spearman of a bivariate normal with correlation 0.6 is 6/pi * asin(0.3) = 0.58; 0 without the signal.
    assert fitted.skill[0].mean_rank_ic > 0.4
    assert fitted.skill[0].roc_auc > 0.65


def test_the_same_seed_gives_the_same_bits(name: str, config: Any, fitted: FitResult) -> None:
    again = fresh(name, config)
    assert same_state(fitted.module, again.module)
    assert [r.val_loss for r in again.history] == [r.val_loss for r in fitted.history]
    assert again.calibration == fitted.calibration


def test_another_seed_gives_other_weights_where_seeds_matter(name: str, config: Any, fitted: FitResult) -> None:
    assert same_state(fitted.module, fresh(name, config, seed=8).module) == (name in SEEDLESS)


def test_save_and_load_give_the_same_bits(name: str, config: Any, fitted: FitResult, tmp_path: Path) -> None:
    store, card = ArtifactStore.open(str(tmp_path)), card_of(name, fitted, TRAIN, config)
    digest = save_bundle(store, "m/1", fitted.module, card, datetime(2024, 1, 1, tzinfo=UTC))
    loaded = load_bundle(store, "m/1", digest)
    batch = VALIDATION.gather(np.arange(200))
    x, static = torch.from_numpy(batch.x), torch.from_numpy(batch.static)
    with torch.no_grad():
        assert torch.equal(loaded.module(x, static), fitted.module(x, static))
    assert not loaded.module.training
    assert loaded.card == card


def test_it_does_not_see_the_future(name: str, config: Any, fitted: FitResult) -> None:
    bundle, closes = bundle_of(name, fitted, TRAIN, config), closes_of(PANEL)
    columns = np.arange(141, 150)
    before = predict(bundle, PANEL, columns, closes, LABELS, threads=1)
    after = predict(bundle, scrambled_after(PANEL, 149), columns, closes, LABELS, threads=1)
    assert before.equals(after)
    seen = predict(bundle, scrambled_after(PANEL, 148), columns, closes, LABELS, threads=1)
    last = pl.col("session") == PANEL.sessions[149].astype(object)
    assert before.filter(~last).equals(seen.filter(~last))
    assert not before.filter(last).equals(seen.filter(last))  # the scrambling would have been noticed


def test_a_new_symbol_gets_a_forecast(name: str, config: Any, fitted: FitResult) -> None:
    bundle = bundle_of(name, fitted, TRAIN, config)
    renamed = replace(PANEL, symbols=("NEW", *PANEL.symbols[1:]), sector_names=("a", "unheard-of"))
    frame = predict(bundle, renamed, np.array([145]), closes_of(PANEL), LABELS, threads=1)
    row = frame.filter(pl.col("symbol") == "NEW")
    assert row.height == 2
    assert np.isfinite(row["score"].to_numpy()).all()


def test_missing_values_go_through_masks(name: str, config: Any) -> None:
    panel = planted_panel(missing=0.15)
    train, validation = window_sets(panel)
    spec = input_spec(train)
    assert spec.channels == ("f0", "f1", "f2", "f0__missing", "f1__missing", "f2__missing")
    one_epoch = replace(TRAINING, epochs=1)
    result = fit(MODELS[name], config, spec, train, validation, one_epoch, 7, lambda _: None, device="cpu")
    frame = predict(
        bundle_of(name, result, train, config), panel, np.array([145, 146]), closes_of(panel), LABELS, threads=1
    )
    assert frame.height > 20
    assert np.isfinite(frame.select(*QUANTILE_COLUMNS, "score", "p_up").to_numpy()).all()
