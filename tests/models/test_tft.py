"""The TFT beside pytorch-forecasting's: the same numbers from the same weights, and what its rows share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from trading_core.models import tft_selection
from trading_core.models.tft import TFTConfig, TFTModel
from trading_core.schema import InputSpec, Target

if TYPE_CHECKING:
    from benchmarks.peers.forecasting_network import Reference

SMALL = TFTConfig(hidden_size=8, attention_heads=2, hidden_continuous_size=4, dropout=0.0)


def spec_of(channels: int = 5, static: tuple[int, ...] = (4, 9), context: tuple[str, ...] = ()) -> InputSpec:
    return InputSpec(tuple(f"c{i}" for i in range(channels)), 6, (1, 5, 21), static, context=context)


SPEC = spec_of()
CASES: dict[str, tuple[TFTConfig, InputSpec]] = {
    "several of all": (SMALL, SPEC),
    "no static column": (SMALL, spec_of(static=())),
    "one static column": (SMALL, spec_of(static=(4,))),
    "one channel": (SMALL, spec_of(channels=1)),
    "more channels than hidden columns": (SMALL, spec_of(channels=11)),
    "no resampling": (replace(SMALL, hidden_continuous_size=8), SPEC),
    "resampled to fewer columns": (replace(SMALL, hidden_continuous_size=11), SPEC),
    "two columns, always parallel": (replace(SMALL, hidden_continuous_size=2), SPEC),
    "one column": (replace(SMALL, hidden_continuous_size=1), SPEC),
    "layers and heads": (replace(SMALL, lstm_layers=2, attention_heads=4), SPEC),
    "one head": (replace(SMALL, attention_heads=1), SPEC),
    "context": (SMALL, spec_of(context=("c1", "c4"))),
}


def model(config: TFTConfig = SMALL, spec: InputSpec = SPEC) -> TFTModel:
    torch.manual_seed(3)
    return TFTModel(config, spec)


def peer() -> Any:
    """The module, and pytorch-forecasting and Lightning with it: not while tests are collected, which every worker does."""
    from benchmarks.peers import forecasting_network

    return forecasting_network


def pair(config: TFTConfig, spec: InputSpec, moved: float = 0.2) -> tuple[TFTModel, Reference]:
    """Ours with the weights of theirs, which are moved away from their first values of zero and one."""
    ours = model(config, spec)
    theirs = peer().Reference(config, spec, ours.horizon_input)
    with torch.no_grad():
        for weight in theirs.parameters():
            weight += moved * torch.randn(weight.shape)
    ours.load_state_dict(peer().converted(theirs.network.state_dict()))
    return ours, theirs


def windows(spec: InputSpec, samples: int = 20, seed: int = 1) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = 2.0 * torch.randn(samples, spec.encoder_length, len(spec.channels), generator=random)
    codes = [torch.randint(0, count, (samples,), generator=random) for count in spec.static_cardinalities]
    return x, torch.stack(codes, dim=1) if codes else torch.zeros(samples, 0, dtype=torch.int64)


def panel(spec: InputSpec, symbols: int = 4, sessions: int = 20) -> tuple[Tensor, Tensor]:
    """channels [S,T,C], static [S,K]."""
    return windows(replace(spec, encoder_length=sessions), symbols, seed=2)


def gathered(channels: Tensor, symbol: Tensor, column: Tensor, length: int) -> Tensor:
    ends = zip(symbol.tolist(), column.tolist(), strict=True)
    return torch.stack([channels[s, t - length + 1 : t + 1] for s, t in ends])


PLACES = torch.tensor([3, 1, 1, 1, 0, 3, 1]), torch.tensor([19, 5, 7, 6, 18, 12, 7])  # any order, one of them twice


# --- the same network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_network_of_pytorch_forecasting(name: str) -> None:
    """In float64, where rounding hides nothing: outputs, and the gradient of every weight."""
    ours, theirs = pair(*CASES[name])
    spec = CASES[name][1]
    ours.double()
    theirs.network.double()
    x, static = windows(spec)
    output = theirs(x.double(), static)
    factor = torch.randn(output.shape, dtype=torch.float64)
    (output.sort(dim=-1).values * factor).sum().backward()
    expected = peer().converted(peer().gradients(theirs.network))
    mine = ours(x.double(), static)
    (mine * factor).sum().backward()
    torch.testing.assert_close(mine, output.sort(dim=-1).values, rtol=0, atol=1e-12)
    assert {key for key, _ in ours.named_parameters()} == set(expected)
    for key, weight in ours.named_parameters():
        found = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(found, expected[key], rtol=1e-8, atol=1e-10, msg=key)


def test_it_is_so_in_float32_too() -> None:
    spec = spec_of(channels=30)
    ours, theirs = pair(replace(SMALL, hidden_size=16, hidden_continuous_size=8), spec, moved=0.0)
    x, static = windows(spec, 64)
    output, mine = theirs(x, static).sort(dim=-1).values, ours(x, static)
    torch.testing.assert_close(mine, output, rtol=0, atol=1e-6)
    factor = torch.randn(output.shape)
    (output * factor).sum().backward()
    (mine * factor).sum().backward()
    expected = peer().converted(peer().gradients(theirs.network))
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for key, weight in ours.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, expected[key], rtol=0, atol=1e-5 * largest, msg=key)


def test_a_flat_or_sloping_skip_connection_has_finite_gradients() -> None:
    """Where a prescaler's slope is nothing, or follows its offset, the variance of the skip connection is nearly zero."""
    ours, theirs = pair(SMALL, SPEC)
    with torch.no_grad():
        theirs.network.prescalers["x0"].weight.zero_()
        theirs.network.prescalers["x1"].weight.copy_(theirs.network.prescalers["x1"].bias.unsqueeze(1))
        theirs.network.prescalers["x2"].bias.zero_()
        theirs.network.prescalers["x3"].weight.mul_(1e-4)
    ours.load_state_dict(peer().converted(theirs.network.state_dict()))
    x, static = windows(SPEC)
    x[:10, :, 1] = -1.0  # exactly where slope and offset cancel
    output = ours(x, static)
    torch.testing.assert_close(output, theirs(x, static).sort(dim=-1).values, rtol=0, atol=1e-6)
    output.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in ours.parameters() if weight.grad is not None)


@pytest.mark.parametrize("name", ["several of all", "context", "one channel"])
def test_what_it_looks_at_is_what_theirs_reports(name: str) -> None:
    config, spec = CASES[name]
    ours, theirs = (module.eval() for module in pair(config, spec))
    x, static = windows(spec)
    with torch.no_grad():
        found, expected = ours.interpret(x, static), theirs.outputs(x, static)
    attention = torch.cat((expected["encoder_attention"], expected["decoder_attention"]), dim=-1).mean(dim=2)
    torch.testing.assert_close(found.attention, attention, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.channels, expected["encoder_variables"].squeeze(-2).mean(dim=1))
    torch.testing.assert_close(found.static, expected["static_variables"].squeeze(-2))
    torch.testing.assert_close(found.future, expected["decoder_variables"].squeeze(-2).mean(dim=1))
    for part in (found.attention, found.channels, found.static, found.future):
        torch.testing.assert_close(part.sum(dim=-1), torch.ones(part.shape[:-1]))


def test_only_quantiles_are_put_in_order() -> None:
    spec = replace(SPEC, targets=(Target.CLASSES, Target.QUANTILES, Target.VOLATILITY))
    ours, theirs = pair(SMALL, spec)
    x, static = windows(spec)
    raw, output = theirs(x, static), ours(x, static)
    assert output.shape == (20, 3, 3 + 7 + 1)
    torch.testing.assert_close(output[..., :3], raw[..., :3], rtol=0, atol=1e-6)
    torch.testing.assert_close(output[..., 3:10], raw[..., 3:10].sort(dim=-1).values, rtol=0, atol=1e-6)
    torch.testing.assert_close(output[..., 10:], raw[..., 10:], rtol=0, atol=1e-6)
    without = model(SMALL, replace(SPEC, targets=(Target.DIRECTION,)))
    assert without(x, static).shape == (20, 3, 1)


# --- rows are shared --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["several of all", "no static column", "one channel", "context"])
def test_out_of_a_panel_it_gives_what_it_gives_of_windows(name: str) -> None:
    config, spec = CASES[name]
    module = model(config, spec).double()
    channels, static = panel(spec)
    x = gathered(channels, *PLACES, spec.encoder_length)
    expected, found = (
        run(module)
        for run in (
            lambda m: m(x.double(), static[PLACES[0]]),
            lambda m: m.forward_panel(channels.double(), static, *PLACES),
        )
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradient = [
        torch.autograd.grad(out.square().sum(), list(module.parameters()), allow_unused=True)
        for out in (found, expected)
    ]
    for one, other in zip(*gradient, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def counted(module: TFTModel) -> list[int]:
    """Grows by the rows of every call of the window's variable selection."""
    rows: list[int] = []
    inner = module.past_selection.select

    def select(x: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
        rows.append(len(x))
        return inner(x, *rest)  # type: ignore[arg-type]

    module.past_selection.select = select
    return rows


def test_a_row_is_worked_on_once_however_many_windows_cover_it() -> None:
    module = model().eval()
    rows = counted(module)
    module.forward_panel(*panel(SPEC), *PLACES)
    # Symbol 3: 7 .. 12 and 14 .. 19; symbol 1: 0 .. 7; symbol 0: 13 .. 18.
    assert sum(rows) == (6 + 6) + 8 + 6


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    module = model().eval()
    channels, static = panel(SPEC, symbols=9, sessions=60)
    symbol, column = (part.flatten() for part in torch.meshgrid(torch.arange(9), torch.arange(5, 60), indexing="ij"))
    with torch.no_grad():
        whole = module.forward_panel(channels, static, symbol, column)
        monkeypatch.setattr(tft_selection, "CPU_NUMBERS", 1)
        rows = counted(module)
        parts = module.forward_panel(channels, static, symbol, column)
    assert sum(rows) == 9 * 60
    assert max(rows) == 32  # the least that is worked on together
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


def test_dropout_has_the_same_distribution_either_way() -> None:
    """Each symbol holds the same rows, so that its windows differ by their masks only."""
    module = model(replace(SMALL, dropout=0.2)).train()
    draws = 1000
    channels, static = (part[:1].expand(draws, *part.shape[1:]) for part in panel(SPEC, sessions=6))
    with torch.no_grad():
        panels = module.forward_panel(channels, static, torch.arange(draws), torch.full((draws,), 5))
        plain = module(channels, static)
    assert (plain.std(dim=0) > 0.01).all()
    error = ((plain.var(dim=0) + panels.var(dim=0)) / draws).sqrt()  # standard error of the difference of the means
    assert ((plain.mean(dim=0) - panels.mean(dim=0)).abs() < 4.5 * error).all()
    torch.testing.assert_close(panels.std(dim=0), plain.std(dim=0), rtol=0.15, atol=0)


def test_dropout_follows_from_the_seed() -> None:
    module = model(replace(SMALL, dropout=0.2)).train()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(module.forward_panel(*panel(SPEC), *PLACES))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


# --- where it runs ----------------------------------------------------------------------------------------------------

RUNS: dict[str, Callable[[TFTModel], Tensor]] = {
    "windows": lambda module: module(*windows(SPEC)),
    "panel": lambda module: module.forward_panel(*panel(SPEC), *PLACES),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("training", [True, False])
def test_every_tensor_it_makes_is_on_its_inputs_device(run: Callable[[TFTModel], Tensor], training: bool) -> None:
    """A tensor made on the default device would meet those on the other one, as on a GPU."""
    module = model(replace(SMALL, dropout=0.1)).train(training)
    arguments = windows(SPEC), (*panel(SPEC), *PLACES)
    with torch.device("meta"):
        outputs = [module(*arguments[0]), module.forward_panel(*arguments[1]), *module.interpret(*arguments[0])]
    assert {output.device.type for output in outputs} == {"cpu"}
    assert run(module).shape[1:] == (3, 7)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_mixed_precision(run: Callable[[TFTModel], Tensor]) -> None:
    module = model()
    with torch.no_grad():
        exact = run(module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(module)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), exact, rtol=0, atol=0.05)  # bfloat16 has 8 bits
    output.float().sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in module.parameters() if weight.grad is not None)


def test_it_needs_no_pytorch_forecasting() -> None:
    code = """
import sys
sys.modules["pytorch_forecasting"] = None  # importing it fails from here on
import torch
from trading_core.models.registry import MODELS
from trading_core.schema import InputSpec
entry = MODELS["tft"]
module = entry.build(entry.config(), InputSpec(("a", "b"), 4, (1,), (3,)))
print(tuple(module(torch.zeros(2, 4, 2), torch.zeros(2, 1, dtype=torch.int64)).shape))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 1, 7)"
