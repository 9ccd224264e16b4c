"""Running modules over samples: by windows or by blocks of a panel, the same rows however they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_samples import CONFIGS, planted_panel, window_sets
from torch import Tensor, nn

from trading_core.dataset.windows import WindowSet
from trading_core.models import forward
from trading_core.models.ensemble import Ensemble, joined
from trading_core.models.forward import PanelForward, forward_in_batches, forward_samples, panel_samples
from trading_core.models.registry import MODELS
from trading_core.training.data import input_spec

TRAIN, VALIDATION = window_sets(planted_panel(missing=0.05))
DAYS = np.arange(108, 120)  # enough for a block to end and another to begin


def samples_of(columns: np.ndarray) -> WindowSet:
    return WindowSet.for_training(VALIDATION.scaled, columns, VALIDATION.spec, VALIDATION.vocabulary)


def network(name: str = "tft", seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name].build(CONFIGS[name], input_spec(TRAIN)).eval()


def by_windows(module: nn.Module, samples: WindowSet) -> np.ndarray:
    batch = samples.gather(np.arange(len(samples)))
    return forward_in_batches(module, [(batch.x, batch.static)])


@pytest.fixture(params=["one block", "blocks", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "one block":
        sessions, rows = (8, 64) if request.param == "blocks" else (3, 20)
        monkeypatch.setattr(forward, "SESSIONS_PER_BLOCK", sessions)
        monkeypatch.setattr(forward, "CPU_ROWS_PER_BLOCK", rows)
    return str(request.param)


def test_a_network_that_shares_rows_gives_what_it_gives_of_windows(blocks: str) -> None:
    module, samples = network(), samples_of(DAYS)
    found = forward_samples(module, samples)
    assert found.shape == (len(samples), 2, 7)
    np.testing.assert_allclose(found, by_windows(module, samples), rtol=0, atol=1e-6)


def _has_bf16_lstm() -> bool:
    """Whether this processor's oneDNN can run an LSTM in bfloat16: without AVX-512 it cannot."""
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            torch.nn.LSTM(2, 2, batch_first=True)(torch.zeros(1, 2, 2))
    except RuntimeError as error:
        if "primitive descriptor" in str(error):
            return False
        raise
    return True


@pytest.mark.parametrize("name", ["tft", "lstm", "gru", "transformer", "mlp", "hybrid", "kan_former"])
def test_mixed_precision_gives_float32_near_the_exact_values(name: str) -> None:
    """As validation runs on a GPU in bf16; bfloat16 has 8 bits."""
    if name == "lstm" and not _has_bf16_lstm():
        pytest.skip("this processor has no LSTM in bfloat16")
    module, samples = network(name), samples_of(DAYS[:2])
    exact = forward_samples(module, samples)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = forward_samples(module, samples)
    assert coarse.dtype == np.float32
    assert not np.array_equal(coarse, exact)
    np.testing.assert_allclose(coarse, exact, rtol=0, atol=0.05)
    assert (np.diff(coarse, axis=-1) >= 0).all()


def test_a_sample_does_not_depend_on_the_others(blocks: str) -> None:
    module, samples = network(), samples_of(DAYS)
    whole = forward_samples(module, samples)
    assert np.array_equal(forward_samples(module, samples), whole)  # the same call, the same bits
    two = np.array([110, 117])
    rows = np.concatenate([samples.rows_of_column(column) for column in two])
    np.testing.assert_allclose(forward_samples(module, samples_of(two)), whole[rows], rtol=0, atol=1e-6)


def test_blocks_hold_a_bounded_part_of_the_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many samples there are: twice the sessions make more blocks, not larger ones."""
    monkeypatch.setattr(forward, "SESSIONS_PER_BLOCK", 10)
    monkeypatch.setattr(forward, "CPU_ROWS_PER_BLOCK", 60)
    module = network()
    shapes: list[tuple[int, ...]] = []
    inner = module.forward_panel

    def forward_panel(channels: Tensor, static: Tensor, symbol: Tensor, column: Tensor) -> Tensor:
        shapes.append(tuple(channels.shape))
        return inner(channels, static, symbol, column)  # type: ignore[operator]

    module.forward_panel = forward_panel  # type: ignore[assignment]
    counts = []
    for columns in (np.arange(20, 40), np.arange(20, 60)):
        shapes.clear()
        samples = WindowSet.for_inference(TRAIN.scaled, columns, TRAIN.spec, TRAIN.vocabulary)
        forward_samples(module, samples)
        assert max(s * t for s, t, _ in shapes) <= 60
        counts.append(len(shapes))
    assert counts == [8, 16]  # 10 + 4 sessions of 4 symbols are 56 rows: 16 symbols make 4 blocks per 10 sessions


@pytest.mark.parametrize("name", ["tft", "lstm"])
def test_no_sample_gives_no_row(name: str) -> None:
    nothing = WindowSet.for_inference(TRAIN.scaled, np.array([2]), TRAIN.spec, TRAIN.vocabulary)
    assert len(nothing) == 0
    assert forward_samples(network(name), nothing).shape == (0, 0, 0)


def test_a_network_that_shares_nothing_reads_windows_in_batches() -> None:
    module = network("lstm")
    assert not isinstance(module, PanelForward)
    small = forward_samples(module, VALIDATION, batch_size=7)
    np.testing.assert_allclose(small, by_windows(module, VALIDATION), rtol=0, atol=1e-6)


def test_an_ensemble_shares_rows_where_its_members_do() -> None:
    members = [network(seed=seed) for seed in (1, 2)]
    ensemble = joined(members)
    assert isinstance(ensemble, Ensemble)
    assert isinstance(ensemble, PanelForward)
    expected = (by_windows(members[0], VALIDATION) + by_windows(members[1], VALIDATION)) / 2
    np.testing.assert_allclose(forward_samples(ensemble, VALIDATION), expected, rtol=0, atol=1e-6)
    assert not isinstance(joined([network("lstm"), network("lstm", seed=4)]), PanelForward)


def test_the_part_of_the_panel_that_samples_need_is_a_view() -> None:
    channels, static = VALIDATION.scaled.channels, VALIDATION.static_codes
    found = panel_samples(channels, static, np.array([4, 2]), np.array([20, 30]), 5)
    assert found.channels.shape == (3, 15, channels.shape[2])  # symbols 2 .. 4, sessions 16 .. 30
    assert np.shares_memory(found.channels.numpy(), channels)
    np.testing.assert_array_equal(found.channels[2, :5], channels[4, 16:21])
    np.testing.assert_array_equal(found.static, static[2:5])
    assert found.symbol.tolist() == [2, 0]
    assert found.column.tolist() == [4, 14]
