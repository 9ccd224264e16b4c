"""The two networks that end in a mixture of experts, and the blocks they share."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn

from trading_core.models import hybrid, kan_former, lstm
from trading_core.models.auxiliary import HasAuxiliary
from trading_core.models.blocks import SampleEmbedding, SwiGLU
from trading_core.models.hybrid import HybridConfig
from trading_core.models.kan_former import KANFormerConfig
from trading_core.models.search import Choice
from trading_core.schema import InputSpec, Target

SPEC = InputSpec(("a", "b", "dow", "a__missing"), 6, (1, 5), (4, 9), targets=tuple(Target), context=("dow",))
SIZES: dict[str, Any] = {"hidden_size": 8, "attention_heads": 2, "feed_forward_size": 8, "expert_size": 4}
NETWORKS = [
    (hybrid, HybridConfig(**SIZES)),
    (hybrid, HybridConfig(**SIZES, top_k=2, lstm_layers=2, encoder_layers=2, positions="learnable")),
    (kan_former, KANFormerConfig(**SIZES)),
    (kan_former, KANFormerConfig(**SIZES, top_k=2, revin_channels="a", lstm_layers=2, positions="time2vec")),
]


def inputs(rows: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    static = torch.stack([torch.randint(0, n, (rows,), generator=random) for n in SPEC.static_cardinalities], dim=1)
    return torch.randn(rows, 6, 4, generator=random), static


def built(module: Any, config: Any, spec: InputSpec = SPEC) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = module.build(config, spec)
    return network


@pytest.mark.parametrize(("module", "config"), NETWORKS)
def test_all_targets_come_out_and_every_weight_learns(module: Any, config: Any) -> None:
    network = built(module, config)
    assert isinstance(network, HasAuxiliary)
    output = network(*inputs())
    assert output.shape == (9, 2, SPEC.outputs)
    assert (output[..., SPEC.columns_of(Target.QUANTILES)].diff(dim=-1) >= 0).all()
    (output.square().sum() + network.auxiliary_loss()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    usage = network.figures()
    assert len(usage) == 2 * 4
    assert sum(usage.values()) == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize(("module", "config"), NETWORKS)
def test_the_gradient_equals_the_numerical_one_in_one_direction(module: Any, config: Any) -> None:
    network = built(module, config).double().eval()
    (x, static), step = inputs(), 1e-6
    x = x.double().requires_grad_()
    weight = torch.randn(9, 2, SPEC.outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    direction = torch.randn(9, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (network(x, static) * weight).sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        ahead, behind = ((network(x + s * direction, static) * weight).sum() for s in (step, -step))
    assert (x.grad * direction).sum().item() == pytest.approx((ahead - behind).item() / (2.0 * step), rel=1e-5)


@pytest.mark.parametrize(("module", "config"), NETWORKS)
def test_static_codes_and_context_are_read(module: Any, config: Any) -> None:
    network = built(module, config).eval()
    x, static = inputs()
    with torch.no_grad():
        output = network(x, static)
        assert not torch.allclose(network(x, (static + 1) % 4), output)
        other = x.clone()
        other[:, -1, 2] += 1.0
        assert not torch.allclose(network(other, static), output)


def test_a_network_without_experts_has_no_auxiliary() -> None:
    assert not isinstance(built(lstm, lstm.LSTMConfig()), HasAuxiliary)


@pytest.mark.parametrize("config", [HybridConfig, KANFormerConfig])
def test_options_that_do_not_fit_each_other_are_refused(config: type[Any]) -> None:
    with pytest.raises(ValueError, match="top_k is 5; it must lie between 0 and 4"):
        config(experts=4, top_k=5)
    with pytest.raises(ValueError, match="hidden_size 30 must be a multiple of attention_heads 4"):
        config(hidden_size=30, attention_heads=4)
    with pytest.raises(
        ValueError, match="positions is 'none'; it must be one of 'sinusoidal', 'learnable', 'time2vec'"
    ):
        config(positions="none")


@pytest.mark.parametrize("module", [hybrid, kan_former])
def test_every_point_of_the_search_space_is_a_config(module: Any) -> None:
    random = np.random.default_rng(0)
    names = {field.name for field in fields(module.CONFIG)}
    assert set(module.SEARCH) <= names
    for _ in range(100):
        drawn = {
            name: where.values[random.integers(len(where.values))]
            if isinstance(where, Choice)
            else (where.low if random.random() < 0.5 else where.high)
            for name, where in module.SEARCH.items()
        }
        config = module.CONFIG(**drawn)
        assert all(getattr(config, name) == value for name, value in drawn.items())


def test_the_lstm_of_two_directions_needs_an_even_size() -> None:
    with pytest.raises(ValueError, match="hidden_size 9 must be a multiple of the LSTM's directions 2"):
        KANFormerConfig(hidden_size=9, attention_heads=3)


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_swiglu_by_hand() -> None:
    torch.manual_seed(0)
    layer, x = SwiGLU(3, 4, 2), torch.randn(5, 3)
    both, out = layer.gate_and_value.weight.detach().numpy(), layer.out.weight.detach().numpy()
    gate, value = x.numpy() @ both[:4].T, x.numpy() @ both[4:].T
    answer = (gate * expit(gate) * value) @ out.T  # Shazeer 2020, equation 6
    np.testing.assert_allclose(layer(x).detach().numpy(), answer, atol=1e-6)


def test_a_samples_embedding_reads_context_at_the_last_step_alone() -> None:
    torch.manual_seed(0)
    layer = SampleEmbedding(SPEC, 8, dropout=0.0)
    x, static = inputs()
    changed = torch.randn(9, 6, 4)
    changed[:, -1, 2] = x[:, -1, 2]
    assert torch.equal(layer(changed, static), layer(x, static))
    changed[:, -1, 2] += 1.0
    assert not torch.allclose(layer(changed, static), layer(x, static))


def test_a_sample_of_which_nothing_is_known_is_the_learned_vector() -> None:
    layer = SampleEmbedding(InputSpec(("a",), 6, (1,)), 8, dropout=0.0)
    embedded = layer(torch.randn(3, 6, 1), torch.zeros(3, 0).long())
    assert torch.equal(embedded, layer.query.expand(3, 8))
    assert sum(p.numel() for p in layer.parameters()) == 8
