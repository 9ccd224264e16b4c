"""The mixture of experts against numpy by hand: gates, mixed heads, load balance, usage."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from torch import Tensor, nn

from trading_core.models.moe import (
    CLASSIFICATION,
    REGRESSION,
    MixtureOfExperts,
    convex_combination,
    importance_loss,
    keep_top,
    mix,
    routing_balance_loss,
)
from trading_core.schema import InputSpec, Target

HORIZONS = (1, 5)
WIDTH, SIZE = 6, 3


def mixture(
    experts: int = 3, top_k: int = 0, targets: tuple[Target, ...] = (Target.QUANTILES,), seed: int = 0
) -> MixtureOfExperts:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(WIDTH, len(HORIZONS) * experts * SIZE), nn.Tanh())
    return MixtureOfExperts(WIDTH, body, SIZE, experts, top_k, InputSpec(("a",), 2, HORIZONS, targets=targets))


def features(rows: int = 7, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(1))


def balance(values: list[list[float]]) -> float:
    return float(importance_loss(torch.tensor(values, dtype=torch.float64)))


# --- what is mixed ----------------------------------------------------------------------------------------------------


def test_every_target_has_one_kind() -> None:
    assert sorted((*REGRESSION, *CLASSIFICATION)) == sorted(Target)


@pytest.mark.parametrize(
    ("targets", "heads"),
    [
        ((Target.QUANTILES,), 1),
        ((Target.BARRIER,), 1),
        ((Target.CLASSES, Target.RANK, Target.QUANTILES), 2),
        (tuple(Target), 2),
    ],
)
def test_only_the_heads_of_named_targets_are_built(targets: tuple[Target, ...], heads: int) -> None:
    module = mixture(targets=targets)
    spec = InputSpec(("a",), 2, HORIZONS, targets=targets)
    assert len(module.heads) == heads
    columns = sum(head.layer.weight.shape[-1] for head in module.heads)  # type: ignore[union-attr, operator]
    assert columns == spec.outputs
    assert module(features()).shape == (7, 2, spec.outputs)


@pytest.mark.parametrize("top_k", [0, 1, 2])
def test_the_output_is_the_experts_weighted_by_their_gates(top_k: int) -> None:
    targets = (Target.RANK, Target.CLASSES, Target.VOLATILITY, Target.DIRECTION)
    module, x = mixture(top_k=top_k, targets=targets), features(scale=2.0)
    weights = {name: value.numpy().astype(np.float64) for name, value in module.state_dict().items()}
    gate = (x.numpy() @ weights["gate.weight"].T + weights["gate.bias"]).reshape(7, 2, 3)
    hidden = np.tanh(x.numpy() @ weights["body.0.weight"].T + weights["body.0.bias"]).reshape(7, 6, SIZE)
    said = [
        np.einsum("bgd,gdo->bgo", hidden, weights[f"heads.{i}.layer.weight"]) + weights[f"heads.{i}.layer.bias"]
        for i in (0, 1)
    ]
    with torch.no_grad():
        output = module(x).numpy()
    for b in range(7):
        for h in range(2):
            kept = np.argsort(-gate[b, h])[: top_k or 3]
            shares = softmax(gate[b, h, kept])
            regression, classes = said[0][b, 3 * h + kept], said[1][b, 3 * h + kept]  # [k,2], [k,4]
            mine = output[b, h]  # rank, three classes, volatility, direction
            np.testing.assert_allclose(mine[[0, 4]], shares @ regression, atol=1e-5)
            np.testing.assert_allclose(softmax(mine[1:4]), shares @ softmax(classes[:, :3], axis=1), atol=1e-5)
            np.testing.assert_allclose(expit(mine[5]), shares @ expit(classes[:, 3]), atol=1e-5)


def test_classes_are_mixed_as_probabilities_even_where_they_are_extreme() -> None:
    values = torch.tensor([[[[200.0, 0.0, -200.0], [-200.0, 0.0, 200.0]]]], dtype=torch.float64)  # [1,1,2,3]
    log_gates = torch.tensor([[[0.25, 0.75]]], dtype=torch.float64).log()
    mixed = mix(Target.CLASSES, values, log_gates).numpy()[0, 0]
    np.testing.assert_allclose(log_softmax(mixed)[[0, 2]], np.log([0.25, 0.75]), atol=1e-12)
    up = mix(Target.DIRECTION, values[..., :1], log_gates).numpy()
    np.testing.assert_allclose(expit(up), [[[0.25]]], atol=1e-12)


def test_a_mixture_of_monotone_quantiles_is_monotone() -> None:
    module = mixture(experts=4)
    with torch.no_grad():
        module.gate.weight.mul_(30.0)
        for parameter in module.heads.parameters():
            parameter.mul_(50.0)
        quantiles = module(features(rows=3000, scale=20.0))
    assert torch.isfinite(quantiles).all()
    assert (quantiles.diff(dim=-1) >= 0).all()


def test_no_rounding_makes_equal_quantiles_cross() -> None:
    random = torch.Generator().manual_seed(0)
    gates = torch.rand(4000, 2, 5, generator=random).softmax(dim=-1)
    level = torch.randn(4000, 2, 5, 1, generator=random).expand(-1, -1, -1, 7)
    assert (convex_combination(level, gates).diff(dim=-1) == 0).all()
    values = torch.randn(4000, 2, 5, 7, generator=random).sort(dim=-1).values
    mixed = convex_combination(values, gates)
    assert (mixed.diff(dim=-1) >= 0).all()
    assert (mixed >= values.amin(dim=2) - 1e-6).all()
    assert (mixed <= values.amax(dim=2) + 1e-6).all()


def test_experts_start_at_the_quantiles_of_a_standard_normal() -> None:
    module = mixture(targets=(Target.RANK, Target.QUANTILES))
    with torch.no_grad():
        module.heads[0].layer.weight.zero_()  # type: ignore[union-attr, operator]
        quantiles = module(features())[..., 1:]
    answer = [-1.64485, -1.28155, -0.67449, 0.0, 0.67449, 1.28155, 1.64485]  # a table of the normal distribution
    np.testing.assert_allclose(quantiles.numpy(), np.broadcast_to(answer, (7, 2, 7)), atol=1e-4)


# --- gates ------------------------------------------------------------------------------------------------------------


def test_exactly_k_are_kept_also_among_equal_ones() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0]])
    kept = keep_top(logits, 2)
    assert kept[0].tolist() == [-torch.inf, 3.0, 2.0, -torch.inf]
    assert kept.isfinite().sum(dim=-1).tolist() == [2, 2]
    assert keep_top(logits, 4) is logits


def test_an_expert_that_is_left_out_learns_nothing() -> None:
    module, x = mixture(experts=3, top_k=1), features(rows=1)
    module(x).sum().backward()
    chosen = module.gate(x).view(2, 3).argmax(dim=-1)
    gradient = module.heads[0].layer.weight.grad.abs().sum(dim=(1, 2)).view(2, 3)  # type: ignore[union-attr, operator]
    assert torch.isfinite(gradient).all()
    assert (gradient > 0).sum() == 2
    assert (gradient.argmax(dim=-1) == chosen).all()


def test_more_than_all_experts_cannot_be_mixed() -> None:
    with pytest.raises(ValueError, match="top_k is 4; it must not exceed the number of experts 3"):
        mixture(experts=3, top_k=4)


# --- load balance -----------------------------------------------------------------------------------------------------


def test_importance_is_the_squared_coefficient_of_variation() -> None:
    # Shazeer et al. 2017, equations 6 and 7. Sums over the batch (1.5, 0.5): mean 1, variance 0.25.
    assert balance([[1.0, 0.0], [0.5, 0.5]]) == pytest.approx(0.25)
    assert balance([[1.0, 0.0, 0.0, 0.0]] * 5) == pytest.approx(3.0)  # one of N gets all: N - 1
    gates = np.random.default_rng(0).dirichlet(np.ones(5), size=30)
    answer = (gates.sum(axis=0).std() / gates.sum(axis=0).mean()) ** 2
    assert balance(gates.tolist()) == pytest.approx(answer)


def test_routing_balance_is_the_switch_transformers() -> None:
    def loss(probabilities: list[list[float]], chosen: list[int]) -> float:
        mask = torch.zeros(len(chosen), len(probabilities[0]), dtype=torch.bool)
        mask[torch.arange(len(chosen)), torch.tensor(chosen)] = True
        return float(routing_balance_loss(torch.tensor(probabilities), mask))

    # Fedus et al. 2021, equation 4: N * sum f_i P_i. Here f = (2/3, 1/3, 0) and P = (0.5, 0.3, 0.2).
    by_hand = 3.0 * (2.0 / 3.0 * 0.5 + 1.0 / 3.0 * 0.3)
    assert loss([[0.6, 0.2, 0.2], [0.1, 0.7, 0.2], [0.8, 0.0, 0.2]], [0, 1, 0]) == pytest.approx(by_hand)
    assert loss([[0.5, 0.5], [0.5, 0.5]], [0, 1]) == pytest.approx(1.0)
    assert loss([[1.0, 0.0, 0.0]] * 4, [0] * 4) == pytest.approx(3.0)
    both = torch.tensor([[True, True, False], [True, False, True]])  # two choices per sample
    answer = 3.0 * (0.5 * 0.5 + 0.25 * 0.3 + 0.25 * 0.2)
    assert float(routing_balance_loss(torch.tensor([[0.5, 0.3, 0.2]] * 2), both)) == pytest.approx(answer)


def test_uniform_use_is_the_least_loss() -> None:
    uniform = [[0.25] * 4] * 3
    assert balance(uniform) == pytest.approx(0.0, abs=1e-15)
    assert balance(np.eye(4).tolist()) == pytest.approx(0.0, abs=1e-15)  # each sample its own expert: also even
    random = np.random.default_rng(0)
    for _ in range(200):
        gates = random.dirichlet(np.ones(4), size=6)
        assert balance(gates.tolist()) > 0.0
        # A gate that chooses with the probabilities it states has f = P: N * sum P^2 is least where P is uniform.
        shares = gates.mean(axis=0)
        assert 4.0 * (shares**2).sum() > 1.0


@pytest.mark.parametrize("top_k", [0, 1])
def test_training_on_the_loss_alone_evens_the_use_out(top_k: int) -> None:
    module, x = mixture(experts=4, top_k=top_k), features(rows=400)
    with torch.no_grad():
        module.gate.bias.copy_(torch.tensor([2.0, 0.0, 0.0, -1.0] * 2))
    optimiser = torch.optim.Adam(module.gate.parameters(), lr=0.05)
    losses, spreads = [], []
    for _ in range(60):
        module(x)
        spreads.append(np.ptp(list(module.figures().values())))
        losses.append(module.auxiliary_loss())
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
        module.eval().train()
    least = 0.0 if top_k == 0 else 1.0
    assert losses[0].item() > least + 0.5
    assert losses[-1].item() < least + 0.05
    assert spreads[0] > 0.4
    assert all(later <= 0.3 for later in spreads[-5:])


# --- what training reads ----------------------------------------------------------------------------------------------


def test_the_auxiliary_loss_is_of_the_last_training_forward() -> None:
    module = mixture()
    assert module.auxiliary_loss().item() == 0.0
    module.eval()(features())
    assert module.auxiliary_loss().item() == 0.0
    module.train()(features())
    loss = module.auxiliary_loss()
    gates = softmax(module.gate(features()).detach().numpy().reshape(7, 2, 3), axis=-1).sum(axis=0)  # [H,N]
    assert loss.item() == pytest.approx(np.mean(gates.var(axis=1) / gates.mean(axis=1) ** 2), rel=1e-4)
    loss.backward()
    assert module.gate.weight.grad is not None
    module.eval()(features(rows=3))
    assert module.auxiliary_loss() is loss


@pytest.mark.parametrize("top_k", [0, 1])
def test_usage_sums_to_one_and_covers_all_batches_of_a_mode(top_k: int) -> None:
    module = mixture(top_k=top_k).eval()
    assert module.figures() == {}
    x = features(rows=30)
    with torch.inference_mode():
        module(x)
    whole = module.figures()
    assert list(whole) == [f"expert_usage/h{h}/e{n}" for h in HORIZONS for n in range(3)]
    for shares in (list(whole.values())[:3], list(whole.values())[3:]):
        assert sum(shares) == pytest.approx(1.0, abs=1e-6)
    logits = (x @ module.gate.weight.T + module.gate.bias).detach().numpy().reshape(30, 2, 3)
    gates = softmax(logits, axis=-1) if top_k == 0 else np.eye(3)[logits.argmax(axis=-1)]
    np.testing.assert_allclose(list(whole.values()), gates.mean(axis=0).ravel(), atol=1e-6)

    module.train()(x[:5])  # another mode: what was counted before is gone
    module.eval()
    with torch.no_grad():
        for start, end in pairwise((0, 4, 21, 30)):
            module(x[start:end])
    assert module.figures() == pytest.approx(whole)


def test_a_network_can_be_copied_after_a_training_step() -> None:
    module = mixture()
    (module(features()).sum() + module.auxiliary_loss()).backward()
    twin = copy.deepcopy(module)
    assert torch.equal(twin(features()), module(features()))
    assert copy.deepcopy(module).figures() == {}
