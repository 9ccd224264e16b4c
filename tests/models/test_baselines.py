"""base_rate, sma_cross and logistic against counts by hand and scikit-learn."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from trading_core.dataset.scaling import Scaler
from trading_core.errors import TrainingFailedError
from trading_core.models import logistic
from trading_core.models.linear import LinearConfig
from trading_core.models.logistic import LogisticConfig
from trading_core.models.registry import MODELS
from trading_core.models.sma_cross import SMACrossConfig
from trading_core.schema import QUANTILES, Float32Array, InputSpec, Target

if TYPE_CHECKING:
    from trading_core.models.registry import Batches

NAN = float("nan")
ALL = (Target.QUANTILES, Target.DIRECTION, Target.CLASSES, Target.VOLATILITY, Target.BARRIER, Target.RANK)


def batches_of(
    x: Float32Array, y: Float32Array, labels: Float32Array | None = None, cuts: tuple[int, ...] = ()
) -> Batches:
    """x: [N,E,C]; y: [N,H]; labels: [N,H,L]; cuts: where one batch ends."""
    known = y[..., None] if labels is None else labels
    parts = [
        tuple(torch.from_numpy(part[i].astype(np.float32)) for part in (x, np.zeros((len(x), 0)), y, known))
        for i in np.split(np.arange(len(x)), list(cuts))
    ]
    return lambda: [(a, b.long(), c, d) for a, b, c, d in parts]


def fitted(name: str, config: object, spec: InputSpec, train: Batches) -> nn.Module:
    module = MODELS[name].build(config, spec)
    solve = MODELS[name].fit_closed_form
    assert solve is not None
    solve(module, train, list)
    return module


def output_of(module: nn.Module, x: Float32Array) -> Float32Array:
    with torch.no_grad():
        found: Float32Array = module(torch.from_numpy(x.astype(np.float32)), torch.zeros(len(x), 0).long()).numpy()
    return found


# --- base rate --------------------------------------------------------------------------------------------------------


def test_the_base_rate_counts_every_target_by_hand() -> None:
    spec = InputSpec(("a",), 1, (1,), quantiles=(0.25, 0.5, 0.75), targets=ALL)
    y = np.array([[-2.0], [0.0], [1.0], [3.0], [5.0]])
    labels = np.full((5, 1, 6), NAN)
    labels[:, 0, 1] = [0, 0, 1, 1, 1]
    labels[:, 0, 2] = [0, 1, 2, 2, NAN]
    labels[:, 0, 3] = [NAN, 0.5, 0.1, NAN, 0.3]
    labels[:, 0, 4] = [2, 2, 2, 2, 2]  # never stopped, never neither
    labels[:, 0, 5] = [-1, -0.5, 0, 0.5, 1.5]
    module = fitted("base_rate", MODELS["base_rate"].config(), spec, batches_of(np.zeros((5, 1, 1)), y, labels, (2,)))
    never = log(0.5 / 5)  # counts as half a time
    expected = [
        *(0.0, 1.0, 3.0),  # the second, third and fourth of five ordered values
        log(3 / 2),
        *(log(1 / 4), log(1 / 4), log(2 / 4)),
        0.3,
        *(never, never, 0.0),
        0.1,
    ]
    for sample in output_of(module, np.ones((2, 1, 1))):
        np.testing.assert_allclose(sample[0], expected, rtol=1e-6)


def test_the_base_rate_covers_as_often_as_it_says() -> None:
    y = np.random.default_rng(1).standard_t(3, (4001, 2))
    module = fitted(
        "base_rate", MODELS["base_rate"].config(), InputSpec(("a",), 1, (1, 5)), batches_of(np.zeros((4001, 1, 1)), y)
    )
    quantiles = output_of(module, np.zeros((1, 1, 1)))[0]  # [H,Q]
    for h in range(2):
        below = (y[:, h, None].astype(np.float32) <= quantiles[h]).mean(axis=0)
        np.testing.assert_allclose(below, QUANTILES, atol=1 / 4001)


@pytest.mark.parametrize("name", ["base_rate", "sma_cross", "logistic", "lightgbm"])
def test_no_sample_is_an_error(name: str) -> None:
    config = SMACrossConfig("a") if name == "sma_cross" else MODELS[name].config()
    with pytest.raises(TrainingFailedError, match="there is no training sample"):
        fitted(name, config, InputSpec(("a",), 1, (1,)), list)


@pytest.mark.parametrize("name", ["base_rate", "sma_cross"])
def test_a_target_without_any_label_is_an_error(name: str) -> None:
    spec = InputSpec(("a",), 1, (5,), targets=(Target.QUANTILES, Target.VOLATILITY))
    config = SMACrossConfig("a") if name == "sma_cross" else MODELS[name].config()
    with pytest.raises(TrainingFailedError, match="no training sample has a label of 'volatility' at horizon 5"):
        fitted(name, config, spec, batches_of(np.zeros((3, 1, 1)), np.zeros((3, 1)), np.full((3, 1, 2), NAN)))


# --- 50/200 -----------------------------------------------------------------------------------------------------------


def test_the_rule_gives_each_state_what_followed_it() -> None:
    """The raw feature is 1 or 0 or missing; beside it lies one that is always there, or the row would be no sample."""
    raw = np.array([1, 1, 1, 1, 0, 0, np.nan, 1, 0], dtype=np.float32)
    panel = np.stack((raw, np.arange(9, dtype=np.float32)), axis=-1)[None]  # [S,T,F]
    scaler = Scaler.fit(panel, ["golden_cross_50_200", "other"], np.arange(9))
    x = scaler.apply_panel(panel)[0][:, None, :]  # [9,1,3]
    assert scaler.channels[2] == "golden_cross_50_200__missing"
    y = np.array([[2.0], [-1.0], [4.0], [6.0], [-3.0], [1.0], [-9.0], [8.0], [-5.0]])
    labels = np.stack((y, (y > 0).astype(float)), axis=-1)
    spec = InputSpec(scaler.channels, 1, (1,), quantiles=(0.5,), targets=(Target.QUANTILES, Target.DIRECTION))
    module = fitted("sma_cross", SMACrossConfig(), spec, batches_of(x, y, labels, (4,)))
    found = output_of(module, x)[:, 0]
    above, below, unknown = [4.0, log(4 / 1)], [-3.0, log(1 / 2)], [1.0, log(5 / 4)]
    expected = [above if value == 1 else below if value == 0 else unknown for value in raw]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("center", "spread"), [(0.0, 1.0), (1.0, 0.5), (0.3, 0.46), (0.5, 0.5), (2.0, 7.0)])
def test_the_rule_knows_its_states_however_they_are_scaled(center: float, spread: float) -> None:
    """A robust scaler puts the more frequent state at 0 exactly."""
    x = ((np.array([1, 1, 1, 0, 0]) - center) / spread)[:, None, None]
    y = np.array([[1.0], [2.0], [3.0], [10.0], [12.0]])
    spec = InputSpec(("a",), 1, (1,), quantiles=(0.5,))
    module = fitted("sma_cross", SMACrossConfig("a"), spec, batches_of(x, y))
    np.testing.assert_array_equal(output_of(module, x)[:, 0, 0], [2.0, 2.0, 2.0, 11.0, 11.0])


def test_the_rule_reads_the_last_step_only() -> None:
    x = np.random.default_rng(2).choice([-1.0, 1.0], (200, 4, 1))
    y = x[:, -1] * 2.0
    spec = InputSpec(("a",), 4, (1,), quantiles=(0.5,))
    module = fitted("sma_cross", SMACrossConfig("a"), spec, batches_of(x, y))
    np.testing.assert_array_equal(output_of(module, x)[:, :, 0], y)


def test_a_state_that_training_has_not_seen_gets_all_samples() -> None:
    """A feature that was 0 on all training days is scaled to 0; on a day with 1 it is positive."""
    scaler = Scaler.fit(np.zeros((1, 5, 1), np.float32), ["a"], np.arange(5))
    y = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
    spec = InputSpec(("a",), 1, (1,), quantiles=(0.5,))
    module = fitted("sma_cross", SMACrossConfig("a"), spec, batches_of(np.zeros((5, 1, 1)), y))
    new = scaler.apply_panel(np.array([[[0.0], [1.0]]], np.float32))[0][:, None]
    assert new[1, 0, 0] > 0
    np.testing.assert_array_equal(output_of(module, new)[:, 0, 0], [3.0, 3.0])


def test_the_rule_names_the_feature_that_it_needs() -> None:
    with pytest.raises(ValueError, match="add 'golden_cross_50_200' to its features"):
        MODELS["sma_cross"].build(SMACrossConfig(), InputSpec(("sma_cross_50_200",), 1, (1,)))
    with pytest.raises(ValueError, match="channel is ''; it must be the name of a feature"):
        SMACrossConfig("")


def test_the_rule_finds_its_feature_on_the_platform() -> None:
    from trading_core.features.registry import FEATURES

    assert FEATURES[SMACrossConfig().channel].unit == "0 or 1"


# --- logistic ---------------------------------------------------------------------------------------------------------


def sample(n: int = 600, seed: int = 0) -> tuple[Float32Array, Float32Array]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, 4, 3)).astype(np.float32)
    y = x[:, -1] @ random.standard_normal((3, 2)) + 0.4 + 1.5 * random.standard_normal((n, 2))
    return x, y.astype(np.float32)


@pytest.mark.parametrize("ridge", [1e-4, 0.1])
def test_logistic_equals_scikit_learn(ridge: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LinearRegression, LogisticRegression

    monkeypatch.setattr(logistic, "ROWS", 250)  # sums go over several parts
    x, y = sample()
    spec = InputSpec(("a", "b", "c"), 4, (1, 2), targets=(Target.QUANTILES, Target.DIRECTION))
    module = fitted("logistic", LogisticConfig(ridge, lags=2), spec, batches_of(x, y, np.stack((y, y > 0), -1), (100,)))
    found = output_of(module, x)
    rows = x[:, 2:].reshape(600, 6).astype(np.float64)
    for h in range(2):
        # scikit-learn multiplies the summed loss by C and penalises |w|^2 / 2.
        answer = LogisticRegression(C=1 / (600 * ridge), tol=1e-12, max_iter=1000).fit(rows, y[:, h] > 0)
        logit = answer.decision_function(rows)
        np.testing.assert_allclose(module.state_dict()["weight"][:, h], answer.coef_[0], atol=2e-5)
        np.testing.assert_allclose(found[:, h, 7], logit, atol=1e-4)
        residuals = y[:, h] - LinearRegression().fit(logit[:, None], y[:, h]).predict(logit[:, None])
        offset = found[:, h, :7] - np.quantile(residuals, QUANTILES)
        np.testing.assert_allclose(offset, (y[:, h] - residuals)[:, None].repeat(7, 1), atol=1e-3)


def test_logistic_without_a_direction_forecasts_the_same_quantiles() -> None:
    x, y = sample(200)
    both = InputSpec(("a", "b", "c"), 4, (1, 2), targets=(Target.DIRECTION, Target.QUANTILES))
    alone = InputSpec(("a", "b", "c"), 4, (1, 2))
    first = fitted("logistic", LogisticConfig(), both, batches_of(x, y, np.stack((y > 0, y), -1)))
    second = fitted("logistic", LogisticConfig(), alone, batches_of(x, y))
    np.testing.assert_array_equal(output_of(first, x)[..., 1:], output_of(second, x))


def test_logistic_ends_where_classes_can_be_told_apart() -> None:
    """Without a penalty the weights would grow for ever."""
    x = np.linspace(-1.0, 1.0, 40).reshape(40, 1, 1)
    spec = InputSpec(("a",), 1, (1,), targets=(Target.QUANTILES, Target.DIRECTION))
    module = fitted(
        "logistic", LogisticConfig(ridge=0.0), spec, batches_of(x, x[:, 0], np.stack((x[:, 0], x[:, 0] > 0), -1))
    )
    logit = output_of(module, x)[:, 0, 7]
    assert np.isfinite(logit).all()
    assert ((logit > 0) == (x[:, 0, 0] > 0)).all()


def test_logistic_of_one_outcome_and_of_constant_inputs_is_its_share() -> None:
    spec = InputSpec(("a", "b"), 1, (1,), targets=(Target.QUANTILES, Target.DIRECTION))
    y = np.ones((10, 1))
    module = fitted("logistic", LogisticConfig(), spec, batches_of(np.ones((10, 1, 2)), y, np.ones((10, 1, 2))))
    # Ten rises of ten count as nine and a half.
    np.testing.assert_allclose(output_of(module, np.ones((1, 1, 2)))[0, 0, 7], log(9.5 / 0.5), rtol=1e-6)
    y[:3] = -1.0
    module = fitted(
        "logistic", LogisticConfig(ridge=0.0), spec, batches_of(np.ones((10, 1, 2)), y, np.ones((10, 1, 2)))
    )
    np.testing.assert_allclose(output_of(module, np.ones((1, 1, 2)))[0, 0, 7], log(7 / 3), rtol=1e-5)


def test_inputs_that_are_not_finite_fail() -> None:
    x, y = sample(20)
    x[3, -1, 1] = np.nan
    with pytest.raises(TrainingFailedError, match="has no solution"):
        fitted("logistic", LogisticConfig(), InputSpec(("a", "b", "c"), 4, (1, 2)), batches_of(x, y))


# --- what they cannot do ----------------------------------------------------------------------------------------------


def test_a_target_that_a_baseline_does_not_give_is_refused() -> None:
    spec = InputSpec(("a",), 1, (1,), targets=(Target.QUANTILES, Target.VOLATILITY, Target.RANK))
    with pytest.raises(
        ValueError, match="targets name volatility, rank, which 'linear' does not give; it gives quantiles"
    ):
        MODELS["linear"].build(LinearConfig(), spec)
    with pytest.raises(ValueError, match="'logistic' does not give; it gives quantiles, direction"):
        MODELS["logistic"].build(LogisticConfig(), spec)


def test_lags_beyond_the_window_are_refused() -> None:
    for name in ("logistic", "lightgbm"):
        with pytest.raises(ValueError, match="lags is 3; it must not exceed the encoder length 2"):
            MODELS[name].build(MODELS[name].config(lags=3), InputSpec(("a",), 2, (1,)))
