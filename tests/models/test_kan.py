"""The KAN layer against scipy's B-splines, numpy by hand and numerical gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline, make_lsq_spline
from scipy.special import expit

from trading_core.models.kan import GroupedKANLayer, KANLayer, cubic_basis, spline_centres

GRIDS = [(1, 1.0), (5, 3.0), (8, 2.0)]


def knots_of(intervals: int, limit: float) -> np.ndarray:
    """The uniform grid of -limit..limit, with three further knots on either side (Liu et al. 2024, section 2.2)."""
    width = 2.0 * limit / intervals
    return -limit + width * np.arange(-3, intervals + 4)


def basis_of(x: np.ndarray, intervals: int, limit: float) -> np.ndarray:
    """[N] -> [K,N] by this layer, in float64."""
    centres = spline_centres(intervals, limit)
    return cubic_basis(torch.from_numpy(x), centres, 2.0 * limit / intervals).numpy()


@pytest.mark.parametrize(("intervals", "limit"), GRIDS)
def test_the_basis_is_scipys_within_the_grid(intervals: int, limit: float) -> None:
    x = np.linspace(-limit, limit, 301)
    answer = BSpline.design_matrix(x, knots_of(intervals, limit), 3).toarray().T
    assert answer.shape == (intervals + 3, 301)
    np.testing.assert_allclose(basis_of(x, intervals, limit), answer, atol=1e-12)
    np.testing.assert_allclose(basis_of(x, intervals, limit).sum(axis=0), 1.0, atol=1e-12)


@pytest.mark.parametrize(("intervals", "limit"), GRIDS)
def test_each_basis_function_is_scipys_everywhere(intervals: int, limit: float) -> None:
    knots = knots_of(intervals, limit)
    x = np.linspace(knots[0] - 1.0, knots[-1] + 1.0, 500)
    answer = [
        np.nan_to_num(BSpline.basis_element(knots[i : i + 5], extrapolate=False)(x)) for i in range(intervals + 3)
    ]
    np.testing.assert_allclose(basis_of(x, intervals, limit), answer, atol=1e-12)
    assert (basis_of(np.array([knots[0] - 0.01, knots[-1] + 0.01, 1e6]), intervals, limit) == 0.0).all()


def test_the_layer_is_the_published_sum() -> None:
    torch.manual_seed(0)
    layer = KANLayer(3, 2, intervals=5, limit=3.0).double()
    x = 2.0 * torch.randn(4, 6, 3, dtype=torch.float64)
    base, coefficients = layer.base.detach().numpy(), layer.coefficients.detach().numpy()
    answer = np.zeros((4, 6, 2))
    for o in range(2):
        for d in range(3):
            value = x[..., d].numpy()
            spline = sum(
                coefficients[o, k, d]
                * np.nan_to_num(BSpline.basis_element(knots_of(5, 3.0)[k : k + 5], extrapolate=False)(value))
                for k in range(8)
            )
            answer[..., o] += base[o, d] * value * expit(value) + spline
    with torch.no_grad():
        np.testing.assert_allclose(layer(x).numpy(), answer, atol=1e-6)  # the grid is stored in float32


def test_each_group_has_a_layer_of_its_own() -> None:
    torch.manual_seed(0)
    layers = [KANLayer(3, 2, intervals=4, limit=2.0) for _ in range(5)]
    grouped, x = GroupedKANLayer(5, 3, 2, intervals=4, limit=2.0), 2.0 * torch.randn(7, 5, 3)
    with torch.no_grad():
        grouped.base.copy_(torch.stack([layer.base.T for layer in layers]))  # [O,D] -> [D,O]
        grouped.coefficients.copy_(torch.stack([layer.coefficients.flatten(1).T for layer in layers]))
        grouped.bias.copy_(torch.arange(10.0).view(5, 2))
        answer = torch.stack([layer(x[:, g]) for g, layer in enumerate(layers)], dim=1) + grouped.bias
        torch.testing.assert_close(grouped(x), answer)


def test_coefficients_of_scipy_make_the_same_curve() -> None:
    x = np.linspace(-3.0, 3.0, 400)
    fitted = make_lsq_spline(x, np.sin(2.0 * x), knots_of(12, 3.0), k=3)
    layer = KANLayer(1, 1, intervals=12, limit=3.0).double()
    with torch.no_grad():
        layer.base.zero_()
        layer.coefficients.copy_(torch.from_numpy(fitted.c)[None, :, None])
        curve = layer(torch.from_numpy(x)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(curve, fitted(x), atol=1e-6)
    np.testing.assert_allclose(curve, np.sin(2.0 * x), atol=0.01)


def test_the_slope_is_scipys() -> None:
    x = torch.linspace(-2.99, 2.99, 97, dtype=torch.float64, requires_grad=True)
    weights = np.random.default_rng(0).standard_normal(8)
    basis = cubic_basis(x.unsqueeze(-1), spline_centres(5, 3.0), 1.2)  # [N,1] -> [N,K,1]
    (basis.squeeze(-1) @ torch.from_numpy(weights)).sum().backward()
    assert x.grad is not None
    answer = BSpline(knots_of(5, 3.0), weights, 3).derivative()(x.detach().numpy())
    np.testing.assert_allclose(x.grad.numpy(), answer, atol=1e-12)


def test_gradients_equal_numerical_ones() -> None:
    torch.manual_seed(0)
    layer = KANLayer(3, 2, intervals=4, limit=1.5).double()
    x = (1.5 * torch.randn(5, 3, dtype=torch.float64)).requires_grad_()  # some lie outside the grid
    assert (x.abs() > 1.5).any()

    def run(x: torch.Tensor, base: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(layer, {"base": base, "coefficients": coefficients}, (x,))
        return result

    assert torch.autograd.gradcheck(run, (x, layer.base, layer.coefficients))


def test_it_is_no_less_exact_under_autocast_than_half_precision_allows() -> None:
    torch.manual_seed(0)
    layer, x = KANLayer(4, 3), torch.randn(50, 4).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        coarse = layer(x)
    torch.testing.assert_close(coarse.float(), layer(x.float()), rtol=0.02, atol=0.02)


def test_a_fresh_layer_has_outputs_of_moderate_size() -> None:
    # The scale of a KAN's start is what keeps a stack of them trainable: unit inputs, outputs of order one.
    torch.manual_seed(0)
    with torch.no_grad():
        output = KANLayer(256, 64)(torch.randn(2000, 256))
        grouped = GroupedKANLayer(8, 256, 64)(torch.randn(200, 8, 256))
    assert 0.1 < float(output.std()) < 2.0
    assert 0.1 < float(grouped.std()) < 2.0
