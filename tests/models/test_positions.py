"""Position encodings against the formulas of their papers, computed entry by entry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trading_core.models.positions import POSITIONS, Learnable, Sinusoidal, Time2Vec, position_encoding


@pytest.mark.parametrize(("length", "width"), [(1, 1), (7, 5), (64, 16), (512, 6)])
def test_sinusoids_equal_the_formula_of_vaswani_2017(length: int, width: int) -> None:
    answer = np.empty((length, width))
    for position in range(length):
        for column in range(width):
            angle = position / 10_000.0 ** (2 * (column // 2) / width)
            answer[position, column] = math.cos(angle) if column % 2 else math.sin(angle)
    layer = Sinusoidal(length, width)
    x = torch.randn(3, length, width)
    np.testing.assert_allclose((layer(x) - x).numpy(), np.broadcast_to(answer, x.shape), atol=1e-6)
    assert layer.state_dict() == {}  # nothing to train or store


def test_sinusoids_of_a_distance_are_a_rotation() -> None:
    """Section 3.5: PE(t + k) is a linear function of PE(t), for every k the same at all t."""
    table = Sinusoidal(40, 6).table.double().numpy().reshape(40, 3, 2)
    sine, cosine = table[7, :, 0], table[7, :, 1]
    moved = np.stack(
        (table[:33, :, 0] * cosine + table[:33, :, 1] * sine, table[:33, :, 1] * cosine - table[:33, :, 0] * sine), -1
    )
    np.testing.assert_allclose(table[7:], moved, atol=1e-6)


def test_time2vec_equals_equation_1_of_kazemi_2019() -> None:
    layer = Time2Vec(5, 4)
    frequency, phase = [0.5, 2.0, -1.0, 0.1], [0.25, 0.0, 3.0, -1.0]
    with torch.no_grad():
        layer.frequency.copy_(torch.tensor(frequency))
        layer.phase.copy_(torch.tensor(phase))
    answer = np.empty((5, 4))
    for row, time in enumerate((-4, -3, -2, -1, 0)):  # sessions to the decision
        for column in range(4):
            angle = frequency[column] * time + phase[column]
            answer[row, column] = math.sin(angle) if column else angle
    x = torch.randn(2, 5, 4)
    np.testing.assert_allclose((layer(x) - x).detach().numpy(), np.broadcast_to(answer, x.shape), atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 64])
def test_time2vec_starts_with_waves_between_two_sessions_and_the_window(length: int) -> None:
    torch.manual_seed(0)
    layer = Time2Vec(length, 200)
    periods = 2.0 * math.pi / layer.frequency[1:].detach().numpy()
    assert periods.min() >= 2.0 - 1e-5
    assert periods.max() <= max(length, 2) + 1e-3
    trend = layer.encoding()[:, 0].detach().numpy()
    np.testing.assert_allclose(trend, np.arange(1 - length, 1) / length, atol=1e-6)


def test_learnable_positions_are_free_and_as_large_as_the_sinusoids() -> None:
    torch.manual_seed(0)
    layer = Learnable(50, 40)
    assert [tuple(p.shape) for p in layer.parameters()] == [(50, 40)]
    # Of 2,000 draws the mean square lies within 5 standard errors, 5 * sqrt(2 / 2000) / 2, of that of sin and cos.
    assert layer.table.square().mean().item() == pytest.approx(0.5, abs=0.08)
    layer(torch.zeros(1, 50, 40)).sum().backward()
    assert layer.table.grad is not None
    assert torch.equal(layer.table.grad, torch.ones(50, 40))


@pytest.mark.parametrize("kind", POSITIONS)
def test_each_kind_is_drawn_from_the_seed_and_keeps_the_shape(kind: str) -> None:
    def encoded(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        layer = position_encoding(kind, 6, 8)  # type: ignore[arg-type]
        output: torch.Tensor = layer(torch.zeros(2, 6, 8))
        return output

    assert encoded(0).shape == (2, 6, 8)
    assert torch.equal(encoded(0), encoded(0))
    assert torch.equal(encoded(0), encoded(1)) == (kind == "sinusoidal")
    assert len({tuple(row) for row in encoded(0)[0].tolist()}) == 6  # no two steps have the same


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(
        ValueError, match="positions is 'rotary'; it must be one of 'sinusoidal', 'learnable', 'time2vec'"
    ):
        position_encoding("rotary", 4, 4)  # type: ignore[arg-type]
