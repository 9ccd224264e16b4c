"""A network for each symbol: who learns from whom, and which network answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_samples import CONFIGS, TRAINING, card_of, planted_panel

from trading_core.dataset.panel import Panel
from trading_core.dataset.scaling import Scaler
from trading_core.dataset.windows import ScaledPanel, Vocabulary, WindowSet, WindowSpec
from trading_core.errors import InvalidConfigError
from trading_core.models.per_symbol import PerSymbol
from trading_core.models.registry import MODELS
from trading_core.registry.bundle import load_bundle, save_bundle
from trading_core.storage.artifacts import ArtifactStore
from trading_core.training.data import input_spec
from trading_core.training.fit import FitResult, fit


def scaler_of(panel: Panel) -> Scaler:
    return Scaler.fit(panel.values, panel.features, np.arange(100))


def windows_of(
    panel: Panel, static: tuple[str, ...] = ("symbol",), scaler: Scaler | None = None
) -> tuple[WindowSet, WindowSet]:
    columns = np.arange(100)
    scaled = ScaledPanel.of(panel, scaler or scaler_of(panel))
    spec, vocabulary = WindowSpec(5, (1, 3), "volatility", static), Vocabulary.of(panel)
    return tuple(WindowSet.for_training(scaled, c, spec, vocabulary) for c in (columns, np.arange(105, 136)))  # type: ignore[return-value]


def opposite_signs() -> Panel:
    """f0 says what comes for the first symbol, and the opposite for the second: no pooled linear model can tell them apart."""
    panel = planted_panel(symbols=2, ic=0.8)
    values = panel.values.copy()
    values[1, :, 0] *= -1.0
    return replace(panel, values=values)


def fitted(panel: Panel, scope: Any, name: str = "linear", **options: Any) -> FitResult:
    train, validation = windows_of(panel)
    spec = input_spec(train)
    quiet: Any = lambda _: None  # noqa: E731
    return fit(
        MODELS[name], CONFIGS[name], spec, train, validation, TRAINING, 7, quiet, device="cpu", scope=scope, **options
    )


def test_each_symbol_learns_its_own_rule() -> None:
    panel = opposite_signs()
    pooled, own = fitted(panel, "pooled"), fitted(panel, "symbol")
    assert pooled.skill[0].roc_auc < 0.65
    assert own.skill[0].roc_auc > 0.8
    assert list(own.by_symbol) == ["S00", "S01"]
    weights = [network.weight[-3, 0].item() for network in own.module.networks]  # type: ignore[union-attr, operator]
    assert weights[1] > 0.4
    assert weights[2] < -0.4
    assert abs(weights[0]) < 0.2  # the pooled one


def test_a_symbols_network_has_seen_no_other_symbol() -> None:
    panel = opposite_signs()
    values = panel.values.copy()
    values[1] = np.random.default_rng(0).standard_normal(values[1].shape)
    other = replace(panel, values=values)
    states = []
    for given in (panel, other):
        train, validation = windows_of(given, scaler=scaler_of(panel))  # what both are scaled with
        quiet: Any = lambda _: None  # noqa: E731
        result = fit(
            MODELS["linear"], CONFIGS["linear"], input_spec(train), train, validation, TRAINING, 7, quiet,
            device="cpu", scope="symbol",
        )  # fmt: skip
        states.append([network.state_dict() for network in result.module.networks])  # type: ignore[union-attr]
    (_, first, second), (_, same, changed) = states
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(second[key], changed[key]) for key in second)


def test_samples_go_to_the_network_of_their_code_in_any_order() -> None:
    class Constant(torch.nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
            return x.new_full((len(x), 1, 1), self.value) + x[:, :1, :1]

    module = PerSymbol([Constant(0.0), Constant(10.0), Constant(20.0)], column=1)
    codes = torch.tensor([[9, 2], [9, 0], [9, 1], [9, 2]])
    x = torch.arange(4.0).reshape(4, 1, 1)
    assert module(x, codes).flatten().tolist() == [20.0, 1.0, 12.0, 23.0]


def test_a_symbol_with_little_history_and_a_new_one_are_answered_by_the_pooled_network() -> None:
    panel = planted_panel(symbols=3)
    opens = panel.opens.copy()
    opens[2, :80] = np.nan  # 20 sessions of history
    result = fitted(replace(panel, opens=opens), "symbol")
    assert list(result.by_symbol) == ["S00", "S01"]
    x = torch.randn(2, 5, 3)
    own, new = (result.module(x, torch.full((2, 1), code)) for code in (3, 0))
    assert torch.equal(own, new)


def test_a_bundle_keeps_all_networks(tmp_path: Path) -> None:
    train, _ = windows_of(opposite_signs())
    result = fitted(opposite_signs(), "symbol", name="lstm", members=2)
    store = ArtifactStore.open(str(tmp_path))
    save_bundle(store, "m/1", result.module, card_of("lstm", result, train), datetime(2024, 1, 1, tzinfo=UTC))
    loaded = load_bundle(store, "m/1")
    batch = train.gather(np.arange(60))
    x, static = torch.from_numpy(batch.x), torch.from_numpy(batch.static)
    with torch.no_grad():
        assert torch.equal(loaded.module(x, static), result.module(x, static))


def test_what_cannot_be_trained_by_symbol_is_refused() -> None:
    train, validation = windows_of(planted_panel(symbols=2), static=())
    with pytest.raises(InvalidConfigError, match="static: must hold 'symbol'"):
        fit(
            MODELS["linear"], CONFIGS["linear"], input_spec(train), train, validation, TRAINING, 7, device="cpu",
            scope="symbol",
        )  # fmt: skip
    with pytest.raises(InvalidConfigError, match="keeps its state in files; only 'pooled' is possible"):
        fitted(planted_panel(symbols=2), "symbol", name="lightgbm")
