"""RevIN against numbers by hand and torch's instance normalisation; which channels the network gives it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from trading_core.models.kan_former import ChannelNormalisation, KANFormerConfig, build
from trading_core.models.revin import RevIN
from trading_core.schema import InputSpec

SPEC = InputSpec(("close", "volume", "dow", "close__missing"), 8, (1,), context=("dow",))


def revin(channels: int, seed: int = 0) -> RevIN:
    """With gamma and beta as training might leave them, in float64."""
    layer = RevIN(channels).double()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.gamma.copy_(0.5 + torch.rand(channels, generator=random))
        layer.beta.copy_(torch.randn(channels, generator=random))
    return layer


def test_one_window_by_hand() -> None:
    layer = RevIN(1).double()
    with torch.no_grad():
        layer.gamma.fill_(2.0)
        layer.beta.fill_(0.5)
    normal, statistics = layer(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]], dtype=torch.float64))
    std = np.sqrt(1.25 + 1e-5)  # mean 2.5, variance (1.5^2 + 0.5^2 + 0.5^2 + 1.5^2) / 4
    np.testing.assert_allclose(statistics.mean.numpy(), [[2.5]])
    np.testing.assert_allclose(statistics.std.detach().numpy(), [[std]], rtol=1e-12)
    answer = 2.0 * np.array([-1.5, -0.5, 0.5, 1.5]) / std + 0.5
    np.testing.assert_allclose(normal.detach().numpy()[0, :, 0], answer, rtol=1e-12)


def test_it_is_torchs_instance_normalisation() -> None:
    layer = revin(3)
    x = 5.0 + 2.0 * torch.randn(4, 20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    answer = F.instance_norm(x.transpose(1, 2), weight=layer.gamma, bias=layer.beta, eps=1e-5).transpose(1, 2)
    torch.testing.assert_close(layer(x)[0], answer)


def test_level_and_scale_are_gone_and_windows_do_not_meet() -> None:
    layer = revin(2)
    x = torch.randn(6, 40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    normal, _ = layer(x)
    torch.testing.assert_close(layer(50.0 + 3.0 * x)[0], normal, rtol=0, atol=1e-4)  # epsilon is not scaled
    torch.testing.assert_close(layer(x[2:3])[0], normal[2:3], rtol=0, atol=0)


def test_gradients_equal_numerical_ones() -> None:
    layer = revin(2)
    x = torch.randn(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], (x,))


@pytest.mark.parametrize(
    ("channels", "columns"),
    [("", ()), ("all", (0, 1)), ("volume", (1,)), ("volume close volume", (1, 0)), ("dow", (2,))],
)
def test_the_config_names_channels(channels: str, columns: tuple[int, ...]) -> None:
    assert KANFormerConfig(revin_channels=channels).revin_columns(SPEC) == columns


def test_an_unknown_channel_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"revin_channels names high, low; the channels are close, volume, dow, clos.*or 'all'"
    ):
        build(KANFormerConfig(revin_channels="high close low"), SPEC)


def test_only_the_named_channels_change_and_their_moments_are_handed_on() -> None:
    layer = ChannelNormalisation((2, 0))
    x = 3.0 + torch.randn(4, 16, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        normal, moments = layer(x)
    assert torch.equal(normal[..., 1], x[..., 1])
    picked = x[..., [2, 0]].numpy().astype(np.float64)
    std = np.sqrt(picked.var(axis=1) + 1e-5)
    answer = (picked - picked.mean(axis=1, keepdims=True)) / std[:, None]
    np.testing.assert_allclose(normal[..., [2, 0]].numpy(), answer, atol=1e-5)
    np.testing.assert_allclose(moments.numpy(), np.hstack((picked.mean(axis=1), np.log(std))), atol=1e-5)


def test_without_channels_nothing_is_normalised() -> None:
    x = torch.randn(2, 8, 4)
    normal, moments = ChannelNormalisation(())(x)
    assert normal is x
    assert moments.shape == (2, 0)


def test_the_network_still_knows_the_level() -> None:
    torch.manual_seed(0)
    network = build(KANFormerConfig(hidden_size=8, revin_channels="close"), SPEC).eval()
    x = torch.randn(5, 8, 4)
    shifted = x + torch.tensor([2.0, 0.0, 0.0, 0.0])
    static = torch.zeros(5, 0).long()
    with torch.no_grad():
        torch.testing.assert_close(network.normalise(x)[0], network.normalise(shifted)[0], rtol=0, atol=1e-5)
        assert (network(x, static) - network(shifted, static)).abs().max() > 1e-3
