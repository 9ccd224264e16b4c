"""lstm, gru, transformer and mlp, each computed once more by hand from its weights."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import erf, expit, softmax
from torch import nn

from trading_core.models import gru, lstm, mlp, transformer
from trading_core.models.encoder import EncoderBlock, FeedForward, SelfAttention
from trading_core.models.gru import GRUConfig
from trading_core.models.lstm import LSTMConfig
from trading_core.models.mlp import MLPConfig
from trading_core.models.positions import POSITIONS
from trading_core.models.transformer import TransformerConfig
from trading_core.schema import InputSpec

Array: TypeAlias = npt.NDArray[np.float64]
Weights: TypeAlias = dict[str, Array]

SPEC = InputSpec(("a", "b", "c"), 6, (1, 5), (4,))
SMALL = TransformerConfig(hidden_size=8, attention_heads=2, layers=2, feed_forward_size=5)


def built(module: Any, config: Any, spec: InputSpec = SPEC) -> nn.Module:
    """Weights in float64, in eval mode."""
    torch.manual_seed(3)
    network: nn.Module = module.build(config, spec)
    return network.double().eval()


def inputs(samples: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 6, 3, dtype=torch.float64, generator=random)
    return x, torch.randint(0, 4, (samples, 1), generator=random)


def weights_of(module: nn.Module) -> Weights:
    return {name: value.numpy() for name, value in module.state_dict().items()}


def output_of(network: nn.Module, features: Array) -> Array:
    """What the head makes of features; it has tests of its own."""
    with torch.no_grad():
        head: torch.Tensor = network.head(torch.from_numpy(features))  # type: ignore[operator]
    return head.numpy()


def embedded(weights: Weights, static: torch.Tensor) -> Array:
    return weights["static.tables.0.weight"][static[:, 0].numpy()]


def linear(weights: Weights, name: str, x: Array) -> Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


# --- recurrences ------------------------------------------------------------------------------------------------------


def lstm_step(x: Array, state: tuple[Array, ...], w: list[Array]) -> tuple[Array, ...]:
    """Hochreiter and Schmidhuber with the forget gate of Gers 2000; torch stacks the gates as i, f, g, o."""
    hidden, cell = state
    i, f, g, o = np.split(x @ w[0].T + w[2] + hidden @ w[1].T + w[3], 4, axis=1)
    cell = expit(f) * cell + expit(i) * np.tanh(g)
    return expit(o) * np.tanh(cell), cell


def gru_step(x: Array, state: tuple[Array, ...], w: list[Array]) -> tuple[Array, ...]:
    """Cho et al. in the variant whose reset gate acts after the matrix; torch stacks the gates as r, z, n."""
    (hidden,) = state
    from_x, from_hidden = np.split(x @ w[0].T + w[2], 3, axis=1), np.split(hidden @ w[1].T + w[3], 3, axis=1)
    reset, update = expit(from_x[0] + from_hidden[0]), expit(from_x[1] + from_hidden[1])
    new = np.tanh(from_x[2] + reset * from_hidden[2])
    return ((1.0 - update) * new + update * hidden,)


RECURRENCES = [(lstm, LSTMConfig, lstm_step, 2), (gru, GRUConfig, gru_step, 1)]


@pytest.mark.parametrize(("module", "config", "step", "states"), RECURRENCES, ids=["lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_recurrence_step_by_step(
    module: Any, config: Any, step: Any, states: int, layers: int, bidirectional: bool
) -> None:
    network = built(module, config(hidden_size=5, layers=layers, bidirectional=bidirectional))
    (x, static), weights = inputs(), weights_of(network)
    path, last = x.numpy(), []
    for layer in range(layers):
        outputs, last = [], []
        for suffix in ("", "_reverse")[: 1 + bidirectional]:
            names = (f"recurrence.{part}_l{layer}{suffix}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            w = [weights[name] for name in names]
            state, seen = (np.zeros((4, 5)),) * states, np.zeros((4, 6, 5))
            for t in range(6) if not suffix else reversed(range(6)):
                state = step(path[:, t], state, w)
                seen[:, t] = state[0]
            outputs.append(seen)
            last.append(state[0])  # the state that has read the whole window
        path = np.concatenate(outputs, axis=2)
    answer = output_of(network, np.concatenate((*last, embedded(weights, static)), axis=1))
    with torch.no_grad():
        np.testing.assert_allclose(network(x, static).numpy(), answer, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("module", "config"), [(lstm, LSTMConfig), (gru, GRUConfig)])
def test_dropout_falls_in_training_only_and_without_a_warning(module: Any, config: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's, of a dropout between layers where there is one layer
        network = built(module, config(dropout=0.5))
    x, static = inputs()
    assert torch.equal(network(x, static), network(x, static))
    network.train()
    assert not torch.equal(network(x, static), network(x, static))


# --- transformer ------------------------------------------------------------------------------------------------------


def layer_norm(weights: Weights, name: str, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def encoder_block(weights: Weights, name: str, x: Array, heads: int) -> Array:
    """softmax(Q K' / sqrt(d)) V of each head, then GELU's network, each added to what went in (pre-norm)."""
    width = x.shape[2] // heads
    normal = layer_norm(weights, f"{name}.attention_norm", x)
    query, key, value = np.split(linear(weights, f"{name}.attention.inputs", normal), 3, axis=2)
    mixed = np.zeros_like(x)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        scores = query[..., own] @ key[..., own].transpose(0, 2, 1) / np.sqrt(width)  # [B,E,E]
        mixed[..., own] = softmax(scores, axis=2) @ value[..., own]
    x = x + linear(weights, f"{name}.attention.output", mixed)
    hidden = linear(weights, f"{name}.feed_forward.0", layer_norm(weights, f"{name}.feed_forward_norm", x))
    gelu = 0.5 * hidden * (1.0 + erf(hidden / np.sqrt(2.0)))
    return x + linear(weights, f"{name}.feed_forward.3", gelu)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_the_transformer_layer_by_layer(pooling: Any, positions: Any) -> None:
    network = built(transformer, replace(SMALL, pooling=pooling, positions=positions))
    (x, static), weights = inputs(), weights_of(network)
    with torch.no_grad():
        encoding = network.positions(torch.zeros(1, 6, 8).double()).numpy()  # type: ignore[operator]
    steps = linear(weights, "inputs", x.numpy()) + encoding
    if pooling == "cls":
        first = np.broadcast_to(weights["summary"], (4, 1, 8))
        steps = np.concatenate((first, steps), axis=1)
    for layer in range(2):
        steps = encoder_block(weights, f"blocks.{layer}", steps, heads=2)
    steps = layer_norm(weights, "norm", steps)
    pooled = steps[:, 0] if pooling == "cls" else steps.sum(axis=1) / 6.0
    answer = output_of(network, np.concatenate((pooled, embedded(weights, static)), axis=1))
    with torch.no_grad():
        np.testing.assert_allclose(network(x, static).numpy(), answer, rtol=0, atol=1e-12)


def test_the_block_and_its_gradients_equal_torchs_own_layer() -> None:
    torch.manual_seed(0)
    block = EncoderBlock(8, 2, FeedForward(8, 12, 0.3), 0.3).double().eval()
    other = nn.TransformerEncoderLayer(8, 2, 12, 0.3, "gelu", batch_first=True, norm_first=True).double().eval()
    names = {
        "self_attn.in_proj_": "attention.inputs.",
        "self_attn.out_proj.": "attention.output.",
        "linear1.": "feed_forward.0.",
        "linear2.": "feed_forward.3.",
        "norm1.": "attention_norm.",
        "norm2.": "feed_forward_norm.",
    }
    own = dict(block.named_parameters())
    pairs = [
        (own[ours + name.removeprefix(theirs)], value)
        for name, value in other.named_parameters()
        for theirs, ours in names.items()
        if name.startswith(theirs)
    ]
    assert len(pairs) == len(own) == 12
    with torch.no_grad():
        for mine, its in pairs:
            its.copy_(mine)
    x = torch.randn(3, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(block(x), other(x), rtol=0, atol=1e-12)
    (block(x) ** 2).sum().backward()
    (other(x) ** 2).sum().backward()
    for mine, its in pairs:
        torch.testing.assert_close(mine.grad, its.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_the_order_of_steps_matters_by_their_positions_alone(pooling: Any, positions: Any) -> None:
    network = built(transformer, replace(SMALL, pooling=pooling, positions=positions))
    (x, static), order = inputs(), torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        assert not torch.allclose(network(x[:, order], static), network(x, static), atol=1e-4)
        network.positions = nn.Identity()
        torch.testing.assert_close(network(x[:, order], static), network(x, static), rtol=0, atol=1e-12)


def test_dropout_of_the_transformer_falls_in_training_only() -> None:
    network = built(transformer, replace(SMALL, dropout=0.5))
    x, static = inputs()
    assert torch.equal(network(x, static), network(x, static))
    network.train()
    assert not torch.equal(network(x, static), network(x, static))


def test_blocks_start_with_weights_of_their_own() -> None:
    weights = weights_of(built(transformer, SMALL))
    assert not np.allclose(weights["blocks.0.attention.inputs.weight"], weights["blocks.1.attention.inputs.weight"])


def test_heads_that_do_not_divide_the_size_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden_size 30 must be a multiple of attention_heads 4"):
        TransformerConfig(hidden_size=30, attention_heads=4)
    with pytest.raises(ValueError, match="width 9 must be a multiple of heads 2"):
        SelfAttention(9, 2, 0.0)


# --- mlp --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lags", [1, 2, None])
def test_the_mlp_layer_by_layer(lags: int | None) -> None:
    network = built(mlp, MLPConfig(hidden_size=7, layers=2, lags=lags))
    (x, static), weights = inputs(), weights_of(network)
    rows = x.numpy()[:, -(lags or 6) :].reshape(4, -1)
    features = np.concatenate((rows, embedded(weights, static)), axis=1)
    for name in ("hidden.0", "hidden.3"):
        hidden = linear(weights, name, features)
        features = 0.5 * hidden * (1.0 + erf(hidden / np.sqrt(2.0)))
    with torch.no_grad():
        np.testing.assert_allclose(network(x, static).numpy(), output_of(network, features), rtol=0, atol=1e-12)
    network.train()
    assert not torch.equal(network(x, static), network(x, static))


def test_more_lags_than_the_window_has_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="lags is 7; it must not exceed the encoder length 6"):
        mlp.build(MLPConfig(lags=7), SPEC)
