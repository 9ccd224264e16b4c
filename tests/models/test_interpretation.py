"""Mean weights of a network: of its own, of an ensemble's members, of networks per symbol, and of none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trading_core.models.ensemble import Ensemble
from trading_core.models.interpretation import Interpretable, mean_weights
from trading_core.models.lstm import LSTMConfig
from trading_core.models.lstm import build as build_lstm
from trading_core.models.per_symbol import PerSymbol
from trading_core.models.tft import TFTConfig
from trading_core.models.tft import build as build_tft
from trading_core.schema import InputSpec

SPEC = InputSpec(("a", "b", "c"), 5, (1, 3), (4, 3), context=("c",))
RANDOM = np.random.default_rng(2)
X = RANDOM.standard_normal((7, 5, 3)).astype(np.float32)
STATIC = np.stack([np.arange(7) % 3, np.arange(7) % 2], axis=1)


class Looks(NamedTuple):
    attention: Tensor
    channels: Tensor
    static: Tensor
    future: Tensor


class Fixed(nn.Module):
    """Looks at channel 0 with the weight w of every sample, at channel 1 with the rest; counts what it is asked."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w, self.asked = nn.Parameter(torch.tensor(w)), 0

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        return x[:, -1:, :1]

    def interpret(self, x: Tensor, static: Tensor) -> Looks:
        self.asked += len(x)
        row = torch.stack([self.w, 1.0 - self.w])
        return Looks(row.expand(len(x), 1, 2), row.expand(len(x), 2), static.float(), row.expand(len(x), 2))


def whole(module: nn.Module, x: np.ndarray = X, static: np.ndarray = STATIC) -> list[np.ndarray]:
    found = mean_weights(module, [(x, static)])
    assert found is not None
    return [found.attention, found.channels, found.static, found.future]


def tft(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_tft(TFTConfig(hidden_size=8, hidden_continuous_size=4, dropout=0.3), SPEC)


def test_a_tfts_weights_are_the_means_of_what_it_says_and_sum_to_one() -> None:
    module = tft(1)
    assert isinstance(module, Interpretable)
    found = mean_weights(module, [(X[:4], STATIC[:4]), (X[4:], STATIC[4:])])
    assert found is not None
    assert found.samples == 7
    assert not module.training  # dropout would have drawn other weights
    shapes = [part.shape for part in (found.attention, found.channels, found.static, found.future)]
    assert shapes == [(2, 7), (3,), (2,), (2,)]  # H x (E + H), C, K, the horizon and one context channel
    with torch.no_grad():
        said = module.interpret(torch.from_numpy(X), torch.from_numpy(STATIC))
    for mean, part in zip(whole(module), said, strict=True):
        np.testing.assert_allclose(mean, part.numpy().astype(np.float64).mean(axis=0), atol=1e-7)
        np.testing.assert_allclose(mean.sum(axis=-1), 1.0, atol=1e-6)


def test_an_ensembles_weights_are_the_mean_of_its_members() -> None:
    members = [tft(1), tft(2)]
    for mean, one, other in zip(whole(Ensemble(members)), whole(members[0]), whole(members[1]), strict=True):
        np.testing.assert_allclose(mean, (one + other) / 2.0, atol=1e-7)


def test_each_sample_is_looked_into_by_its_symbols_own_network() -> None:
    networks = [Fixed(0.25), Fixed(0.5), Fixed(1.0)]
    found = mean_weights(PerSymbol(networks, column=0), [(X, STATIC)])
    assert found is not None
    assert [network.asked for network in networks] == [3, 2, 2]  # codes 0 1 2 0 1 2 0
    expected = (3 * 0.25 + 2 * 0.5 + 2 * 1.0) / 7
    np.testing.assert_allclose(found.channels, [expected, 1.0 - expected])
    np.testing.assert_allclose(found.static, STATIC.mean(axis=0))


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: Ensemble([m, m]), lambda m: PerSymbol([m, m, m], 0)])
def test_a_network_without_such_weights_has_none(wrap: type) -> None:
    assert mean_weights(wrap(build_lstm(LSTMConfig(hidden_size=4), SPEC)), [(X, STATIC)]) is None


def test_no_sample_has_no_mean() -> None:
    assert mean_weights(tft(1), []) is None
