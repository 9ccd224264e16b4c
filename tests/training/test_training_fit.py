"""Batches, early stopping, interruption and what a training run leaves behind."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model_samples import CONFIGS, TRAINING, planted_panel, window_sets
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from trading_core.errors import InvalidConfigError, TrainingFailedError
from trading_core.models import tft_selection
from trading_core.models.forward import forward_in_batches
from trading_core.models.registry import MODELS
from trading_core.models.tft import TFTModel
from trading_core.training import gradient
from trading_core.training.config import TrainingConfig, require_compilable
from trading_core.training.data import DateBatches, chunks, input_spec
from trading_core.training.device import choose_device
from trading_core.training.fit import FitResult, fit
from trading_core.training.loss import Objective
from trading_core.training.losses import LossConfig
from trading_core.training.progress import EpochRecord, epoch_line
from trading_core.training.validate import validation_loss, validation_rank_ic

TRAIN, VALIDATION = window_sets(planted_panel())
SPEC = input_spec(TRAIN)


def lstm(training: TrainingConfig, on_progress: Any = lambda _: None, seed: int = 7) -> FitResult:
    return fit(MODELS["lstm"], CONFIGS["lstm"], SPEC, TRAIN, VALIDATION, training, seed, on_progress, device="cpu")


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs is 0; it must lie between 1 and 10000"),
        ("learning_rate", 0.0, "learning_rate is 0.0; it must lie between"),
        ("learning_rate", float("nan"), "learning_rate is nan; it must lie between"),
        ("dates_per_batch", 0, "dates_per_batch is 0"),
        ("symbols_per_date", 1, "symbols_per_date is 1; it must lie between 2"),
        ("batches_per_epoch", 0, "batches_per_epoch is 0"),
        ("patience", 0, "patience is 0"),
        ("monitor", "sharpe", "monitor is 'sharpe'; it must be one of 'rank_ic', 'ic', 'loss', 'pr_auc'"),
        ("schedule", "step", "schedule is 'step'; it must be one of 'constant', 'cosine', 'plateau'"),
        ("precision", "8", "precision is '8'; it must be one of '32', 'bf16', '16'"),
        ("warmup_epochs", -1.0, "warmup_epochs is -1.0"),
        ("min_learning_rate", 1.0, "min_learning_rate is 1.0; it must lie between 0.0 and 0.001"),
        ("plateau_factor", 1.0, "plateau_factor is 1.0"),
        ("plateau_patience", -1, "plateau_patience is -1"),
        ("max_minutes", 0.0, "max_minutes is 0.0"),
        ("threads", 0, "threads is 0"),
    ],
)
def test_bounds_of_the_training_config(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        TrainingConfig(**{field: value})
    assert message in str(caught.value)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_an_epoch_holds_every_row_once_in_whole_dates() -> None:
    batches = list(DateBatches(TRAIN, TRAINING, seed=1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(TRAIN)))
    for rows in batches:
        dates = np.unique(TRAIN.columns[rows])
        assert len(dates) <= TRAINING.dates_per_batch
        assert len(rows) == sum(len(TRAIN.rows_of_column(int(column))) for column in dates)


def test_symbols_are_sampled_and_batches_capped() -> None:
    config = replace(TRAINING, symbols_per_date=5, batches_per_epoch=3)
    sampler = DateBatches(TRAIN, config, seed=1)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 3
    for rows in batches:
        assert len(np.unique(rows)) == len(rows)
        assert set(np.unique(TRAIN.columns[rows], return_counts=True)[1]) == {5}


def test_consecutive_dates_share_one_sample_of_symbols() -> None:
    """Four symbols, of which one has no label at session 12, in batches of two sessions and two symbols."""
    symbol, columns = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3]), np.repeat([10, 11, 12, 13], [4, 4, 3, 4])
    windows: Any = SimpleNamespace(
        symbol=symbol,
        decision_columns=np.arange(10, 14),
        rows_of_column=lambda column: np.flatnonzero(columns == column),
    )
    config = replace(TRAINING, dates_per_batch=2, consecutive_dates=True, symbols_per_date=2)
    drawn = set()
    for epoch in range(20):
        sampler = DateBatches(windows, config, seed=1)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == 2
        for rows in batches:
            chosen = np.unique(symbol[rows])
            assert len(chosen) == 2
            dates = np.unique(columns[rows])
            assert rows.tolist() == np.flatnonzero(np.isin(columns, dates) & np.isin(symbol, chosen)).tolist()
            assert len(rows) == 4 - (12 in dates and 3 in chosen)
            drawn.add(tuple(chosen))
    assert len(drawn) == 6  # every pair of four comes up


def test_epochs_differ_and_repeat_by_seed() -> None:
    def epoch(seed: int, number: int) -> list[int]:
        sampler = DateBatches(TRAIN, TRAINING, seed)
        sampler.set_epoch(number)
        return np.concatenate(list(sampler)).tolist()

    assert epoch(1, 0) == epoch(1, 0)
    assert epoch(1, 0) != epoch(1, 1)
    assert epoch(1, 0) != epoch(2, 0)


def test_batches_carry_the_number_of_their_date() -> None:
    from trading_core.training.module import TrainingDataModule  # not above: collecting would import Lightning

    batch = next(iter(TrainingDataModule(TRAIN, VALIDATION, TRAINING, 0).train_dataloader()))
    assert batch.x.shape[1:] == (5, 3)
    assert batch.y.shape[1:] == (2,)
    assert batch.date.unique().tolist() == list(range(6))


# --- fitting ----------------------------------------------------------------------------------------------------------


def test_the_best_epochs_weights_are_restored_and_training_stops_early() -> None:
    records: list[EpochRecord] = []
    training = replace(TRAINING, epochs=30, patience=2, monitor="loss", learning_rate=0.05)
    result = lstm(training, records.append)
    losses = [record.val_loss for record in result.history]
    assert tuple(records) == result.history
    assert [record.epoch for record in records] == list(range(1, len(records) + 1))
    assert len(losses) < 30
    assert losses[result.best_epoch - 1] == min(losses)
    assert len(losses) == result.best_epoch + 2  # patience
    batches = (VALIDATION.gather(rows) for rows in chunks(VALIDATION))
    quantiles = forward_in_batches(result.module, ((b.x, b.static) for b in batches))
    objective = Objective.of(SPEC, training.losses, torch.from_numpy(TRAIN.labels))
    again = validation_loss(quantiles, VALIDATION, objective)
    assert again == pytest.approx(min(losses), abs=1e-6)


def test_rank_ic_is_monitored_by_default() -> None:
    result = lstm(TRAINING)
    rank_ics = [record.val_rank_ic for record in result.history]
    assert rank_ics[result.best_epoch - 1] == max(rank_ics)


def test_validation_rank_ic_equals_scipy() -> None:
    from scipy.stats import spearmanr

    random = np.random.default_rng(0)
    quantiles = np.sort(random.standard_normal((len(VALIDATION), 2, 7)), axis=-1).astype(np.float32)
    score, label = quantiles[:, :, 3] * VALIDATION.scale, VALIDATION.y * VALIDATION.scale
    dates = [VALIDATION.columns == column for column in VALIDATION.decision_columns]
    expected = np.mean([spearmanr(score[d, h], label[d, h])[0] for h in range(2) for d in dates])
    assert validation_rank_ic(quantiles, VALIDATION, SPEC) == pytest.approx(expected, abs=1e-9)


def test_a_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    result = lstm(replace(TRAINING, epochs=1))
    assert torch.equal(torch.rand(3), expected)  # the caller's random state
    assert not torch.are_deterministic_algorithms_enabled()
    assert list(tmp_path.iterdir()) == []  # no lightning_logs, no checkpoints
    assert not result.module.training
    assert {tensor.device.type for tensor in result.module.state_dict().values()} == {"cpu"}


def test_a_line_per_epoch_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    result = lstm(replace(TRAINING, epochs=2), on_progress=None)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [epoch_line(record, 2) for record in result.history]
    assert lines[0].startswith("epoch 1/2  loss ")


def test_a_loss_that_is_not_a_number_fails_the_training() -> None:
    broken = planted_panel()
    train, validation = window_sets(broken)
    train.y[0, 0] = np.inf
    with pytest.raises(TrainingFailedError, match="the loss of epoch 1 is not a finite number"):
        fit(MODELS["lstm"], CONFIGS["lstm"], SPEC, train, validation, TRAINING, 7, lambda _: None, device="cpu")


def test_a_time_limit_ends_the_training_after_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(60 * i) for i in range(10_000))  # every look at the clock is a minute later
    monkeypatch.setattr("trading_core.training.watch.time.monotonic", lambda: next(clock))
    assert len(lstm(replace(TRAINING, epochs=50, patience=50, max_minutes=2.0)).history) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_training_with_an_error(number: signal.Signals, request: pytest.FixtureRequest) -> None:
    # A shell ignores Ctrl-C for what it starts in the background, and so would this process and the training in it.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, inherited))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def interrupt(record: EpochRecord) -> None:
        os.kill(os.getpid(), number)

    by = "by SIGTERM" if number == signal.SIGTERM else "from the keyboard"
    with pytest.raises(TrainingFailedError, match=rf"interrupted {by}.* No model version was registered"):
        lstm(replace(TRAINING, epochs=50, patience=50), interrupt)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_every_network_trains_by_the_same_module() -> None:
    class Constant(nn.Module):
        """Learns nothing but seven numbers; its scores never vary, so its rank IC does not exist."""

        def __init__(self) -> None:
            super().__init__()
            self.level = nn.Parameter(torch.linspace(-1, 1, 7))

        def forward(self, x: Tensor, static: Tensor) -> Tensor:
            return self.level.sort().values.expand(len(x), 2, 7)

    class Entry:
        fit_closed_form = None

        def build(self, config: Any, spec: Any) -> nn.Module:
            return Constant()

    training = replace(TRAINING, epochs=2, losses=LossConfig(ic=0.0))
    entry: Any = Entry()
    result = fit(entry, None, SPEC, TRAIN, VALIDATION, training, 7, lambda _: None, device="cpu")
    assert result.history[-1].val_loss < result.history[0].val_loss
    assert result.best_epoch >= 1


def test_with_two_symbols_a_session_the_best_epoch_is_that_of_the_loss() -> None:
    """A rank IC needs three pairs: judged by it, no epoch would be better than the first."""
    train, validation = window_sets(planted_panel(symbols=2))
    training = replace(TRAINING, epochs=4, patience=4, losses=LossConfig(ic=0.0), symbols_per_date=None)
    records: list[EpochRecord] = []
    entry, config = MODELS["lstm"], CONFIGS["lstm"]
    result = fit(entry, config, input_spec(train), train, validation, training, 7, records.append, device="cpu")
    assert all(np.isnan(record.val_rank_ic) for record in records)
    losses = [record.val_loss for record in records]
    assert result.best_epoch == 1 + int(np.argmin(losses)) > 1
    assert "rank IC not defined" in epoch_line(records[0], 4)


def test_choose_device_names_one_that_is_there() -> None:
    assert torch.zeros(1, device=choose_device()).device.type == choose_device()


@pytest.mark.parametrize("name", ["tft", "kan_former"])
def test_mixed_precision_trains_in_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 as on a GPU, by the CPU's autocast: weights, losses and forecasts stay float32, and near those of 32 bits."""
    training = replace(TRAINING, epochs=1, batches_per_epoch=3, consecutive_dates=True)
    fits = []
    for precision in ("32-true", "bf16-mixed"):
        monkeypatch.setattr(gradient, "precision_of", lambda *_, precision=precision: precision)
        fits.append(
            fit(MODELS[name], CONFIGS[name], SPEC, TRAIN, VALIDATION, training, 7, lambda _: None, device="cpu")
        )
    exact, mixed = (fitted.history[0] for fitted in fits)
    assert mixed.train_loss != exact.train_loss
    assert mixed.train_loss == pytest.approx(exact.train_loss, abs=0.02)
    assert mixed.val_loss == pytest.approx(exact.val_loss, abs=0.02)
    assert {weight.dtype for weight in fits[1].module.parameters()} == {torch.float32}


# --- names that are not known ------------------------------------------------------------------------------------------


def test_a_share_of_the_names_is_hidden_in_training() -> None:
    from trading_core.training.module import with_unknown

    torch.manual_seed(0)
    codes = torch.ones(20_000, 2, dtype=torch.int64)
    hidden = (with_unknown(codes) == 0).float().mean(dim=0)
    assert hidden.tolist() == pytest.approx([0.05, 0.05], abs=0.01)
    assert with_unknown(torch.ones(5, 0, dtype=torch.int64)).shape == (5, 0)


@pytest.mark.parametrize("name", ["lstm", "tft"])
def test_a_name_that_is_not_known_is_learned_and_forecast_among_the_known_ones(name: str) -> None:
    training = replace(TRAINING, epochs=8, patience=8)
    fitted = fit(MODELS[name], CONFIGS[name], SPEC, TRAIN, VALIDATION, training, 7, lambda _: None, device="cpu")
    batch = VALIDATION.gather(np.arange(300))
    x = torch.from_numpy(batch.x)
    with torch.no_grad():
        medians = [float(fitted.module(x, torch.full((300, 1), code)).mean(dim=0)[0, 3]) for code in range(3)]
    assert abs(medians[0] - (medians[1] + medians[2]) / 2.0) < 0.1  # in volatilities


# --- shared rows ------------------------------------------------------------------------------------------------------


def tft(training: TrainingConfig, dropout: float) -> FitResult:
    config = replace(CONFIGS["tft"], dropout=dropout)
    return fit(MODELS["tft"], config, SPEC, TRAIN, VALIDATION, training, 7, lambda _: None, device="cpu")


def test_sharing_rows_trains_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dropout nothing is drawn, and the two ways differ by roundings alone."""
    training = replace(TRAINING, consecutive_dates=True, dates_per_batch=8)
    monkeypatch.setattr("trading_core.training.module.UNKNOWN_SHARE", 0.0)
    calls = []
    whole = TFTModel.forward_panel
    monkeypatch.setattr(TFTModel, "forward_panel", lambda *a: calls.append(torch.is_grad_enabled()) or whole(*a))
    shared = tft(training, dropout=0.0)
    assert calls.count(True) == training.epochs * -(-len(TRAIN.decision_columns) // 8)
    monkeypatch.setattr(TFTModel, "forward_panel", property())  # no longer a PanelForward
    plain = tft(training, dropout=0.0)
    for one, other in zip(shared.history, plain.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-4)


def test_compiled_it_trains_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is captured without a break; which code is made of it is the backend's business."""
    training = replace(TRAINING, consecutive_dates=True, epochs=1, batches_per_epoch=3)
    backend = CompileCounterWithBackend("eager")
    monkeypatch.setattr(TFTModel, "compiled", partialmethod(TFTModel.compiled, backend=backend))
    compiled, plain = tft(replace(training, compile=True), dropout=0.1), tft(training, dropout=0.1)
    assert backend.frame_count >= 1
    assert compiled.history[0].train_loss == pytest.approx(plain.history[0].train_loss, rel=1e-6)
    assert isinstance(compiled.module, TFTModel)
    assert compiled.module.past_selection.select is tft_selection.select  # as it was
    others = plain.module.state_dict()
    for name, weight in compiled.module.state_dict().items():
        torch.testing.assert_close(weight, others[name], rtol=1e-4, atol=1e-5)


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(TFTModel, "compiled", partialmethod(TFTModel.compiled, backend=broken))
    with pytest.raises(TrainingFailedError, match=r"torch\.compile failed \(.*\); training\.compile: false"):
        tft(replace(TRAINING, compile=True), dropout=0.0)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_only_what_can_be_compiled_may_be_asked_to(name: str) -> None:
    training = replace(TRAINING, compile=True)
    if name == "tft":
        require_compilable(MODELS[name], training)
        return
    with pytest.raises(InvalidConfigError, match=rf"compile: '{name}' has no part .* \(it is for tft\)"):
        fit(MODELS[name], CONFIGS[name], SPEC, TRAIN, VALIDATION, training, 7, device="cpu")


def test_sharing_rows_with_dropout_learns_the_planted_signal_with_the_same_bits() -> None:
    training = replace(TRAINING, consecutive_dates=True, dates_per_batch=8, epochs=4)
    one, other = tft(training, dropout=0.1), tft(training, dropout=0.1)
    assert one.skill[0].mean_rank_ic > 0.4
    assert [r.val_loss for r in one.history] == [r.val_loss for r in other.history]
