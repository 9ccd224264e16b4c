"""Heads, the closed form against scikit-learn, and what importing the registry costs."""

from __future__ import annotations

import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest
import torch

from trading_core.errors import TrainingFailedError, UnknownNameError
from trading_core.models.heads import MonotoneQuantileHead, StaticEmbedding
from trading_core.models.linear import LinearConfig, LinearModel, build, fit_closed_form
from trading_core.models.registry import MODELS, model_entry
from trading_core.models.tft import TFTConfig
from trading_core.schema import QUANTILES, InputSpec


def test_listing_the_models_does_not_import_torch() -> None:
    code = (
        "import sys; from trading_core.models.registry import MODELS; assert 'torch' not in sys.modules; print(*MODELS)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(MODELS)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown model 'tfd'\. Did you mean 'tft'"):
        model_entry("tfd")


def test_the_head_starts_at_the_quantiles_of_a_standard_normal() -> None:
    head = MonotoneQuantileHead(4, InputSpec(("a",), 1, (1, 5)))
    quantiles = head(torch.zeros(3, 4))  # only the biases speak
    expected = torch.tensor([NormalDist().inv_cdf(q) for q in QUANTILES])
    torch.testing.assert_close(quantiles, expected.expand(3, 2, 7), rtol=0, atol=1e-5)


def test_the_head_cannot_cross_whatever_its_input() -> None:
    torch.manual_seed(0)
    quantiles = MonotoneQuantileHead(4, InputSpec(("a",), 1, (1,), quantiles=(0.1, 0.9)))(100.0 * torch.randn(1000, 4))
    assert (quantiles.diff(dim=-1) >= 0).all()


def test_static_columns_are_embedded_side_by_side() -> None:
    layer = StaticEmbedding((3, 12), limit=16)
    assert layer(torch.tensor([[0, 11], [2, 0]])).shape == (2, layer.width)
    assert StaticEmbedding((), 16)(torch.zeros(2, 0).long()).shape == (2, 0)


def test_heads_must_divide_the_hidden_size() -> None:
    with pytest.raises(ValueError, match="hidden_size 9 must be a multiple of attention_heads 2"):
        TFTConfig(hidden_size=9, attention_heads=2)


def test_ridge_equals_scikit_learn_and_numpy() -> None:
    from sklearn.linear_model import Ridge

    random = np.random.default_rng(0)
    x = random.standard_normal((500, 4, 3)).astype(np.float32)
    y = (x[:, -1] @ random.standard_normal((3, 2)) + 0.5 + random.standard_normal((500, 2))).astype(np.float32)
    module = build(LinearConfig(ridge=0.1, lags=2), InputSpec(("a", "b", "c"), 4, (1, 2)))
    assert isinstance(module, LinearModel)
    parts = [
        (torch.from_numpy(x[i]), torch.zeros(len(i), 0).long(), torch.from_numpy(y[i]), torch.from_numpy(y[i, :, None]))
        for i in np.split(np.arange(500), [200])
    ]
    fit_closed_form(module, lambda: parts, list)

    # scikit-learn penalises the summed squared error, so its alpha is ridge * N.
    answer = Ridge(alpha=0.1 * 500).fit(x[:, 2:].reshape(500, 6).astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(module.weight.T, answer.coef_, atol=1e-6)
    np.testing.assert_allclose(module.bias, answer.intercept_, atol=1e-6)
    residuals = y - answer.predict(x[:, 2:].reshape(500, 6))
    np.testing.assert_allclose(module.residual_quantiles, np.quantile(residuals, QUANTILES, axis=0).T, atol=1e-6)


def test_ridge_without_samples_or_with_bad_numbers_fails() -> None:
    module = build(LinearConfig(), InputSpec(("a",), 2, (1,)))
    with pytest.raises(TrainingFailedError, match="no training sample"):
        fit_closed_form(module, list, list)
    bad = (torch.full((5, 2, 1), torch.nan), torch.zeros(5, 0).long(), torch.zeros(5, 1), torch.zeros(5, 1, 1))
    with pytest.raises(TrainingFailedError, match="no finite solution"):
        fit_closed_form(module, lambda: [bad], list)


def test_lags_beyond_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="lags is 3; it must not exceed the encoder length 2"):
        build(LinearConfig(lags=3), InputSpec(("a",), 2, (1,)))
