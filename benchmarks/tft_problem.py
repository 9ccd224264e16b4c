"""What the TFT benchmarks run on: a seeded panel, our network and pytorch-forecasting's with the same weights, and its data."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
import pandas as pd
import torch
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import NaNLabelEncoder, TorchNormalizer
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.peers.forecasting_network import Reference, converted
from trading_core.dataset.panel import Panel
from trading_core.dataset.scaling import Scaler
from trading_core.dataset.windows import ScaledPanel, Vocabulary, WindowSet, WindowSpec
from trading_core.models.tft import TFTConfig, TFTModel
from trading_core.schema import QUANTILES, Float32Array, InputSpec, IntArray

HORIZONS, SECTORS = (1, 2, 3, 4, 5), 11
PEER_BATCH = 128  # windows: of 64 to 1,024 the fastest for the peer
SEED = 7


@dataclass(frozen=True, slots=True)
class Sizes:
    """symbols, days: of the dense forecast, and with one window each of the live one. peer_symbols: those of them that the
    peer forecasts densely; its windows/s do not depend on how many there are. rounds: of which medians are taken.
    train: symbols and days of a training batch; batches: other shapes of it. features: of the panels."""

    symbols: int = 500
    days: int = 250
    peer_symbols: int = 4
    rounds: int = 5
    encoder: int = 60
    features: tuple[int, int] = (120, 40)
    train: tuple[int, int] = (16, 16)
    batches: tuple[tuple[int, int], ...] = ((256, 1), (64, 4), (32, 8), (16, 16), (8, 32), (500, 1), (500, 4), (500, 8))


QUICK = Sizes(6, 5, 2, 1, 12, (7, 5), (3, 4), ((6, 1), (3, 2)))


class Problem:
    """`features` standard normal features of a panel whose labels are not looked at."""

    def __init__(self, features: int, sizes: Sizes, hidden: int = 16, dropout: float = 0.1) -> None:
        self.features, self.sizes = features, sizes
        self.scaled = ScaledPanel.of(*_panel(features, sizes))
        self.vocabulary = Vocabulary.of(self.scaled.panel)
        self.window_spec = WindowSpec(sizes.encoder, HORIZONS, "none", ("sector",))
        spec = InputSpec(self.scaled.names, sizes.encoder, HORIZONS, self.vocabulary.cardinalities(("sector",)))
        config = TFTConfig(hidden_size=hidden, dropout=dropout)
        torch.manual_seed(SEED)
        self.ours = TFTModel(config, spec).eval()
        # The peer's only known input of its decoder steps: how far they lie ahead, in encoder lengths.
        self.ours.horizon_input = torch.arange(len(HORIZONS)) / sizes.encoder
        self.theirs = Reference(config, spec, self.ours.horizon_input).eval()
        self.ours.load_state_dict(converted(self.theirs.network.state_dict()))

    @property
    def first(self) -> int:
        """The first decision's column."""
        return self.sizes.encoder - 1

    def windows(self, days: int) -> WindowSet:
        """The decisions of all symbols on the first `days` days."""
        columns = np.arange(self.first, self.first + days)
        return WindowSet.for_inference(self.scaled, columns, self.window_spec, self.vocabulary)

    def dataset(self, symbols: int, days: int) -> TimeSeriesDataSet:
        """The same windows as the peer's data: symbol by symbol, each with its label sessions behind it."""
        channels = self.scaled.channels[:symbols, : self.first + days + len(HORIZONS)]
        sessions = channels.shape[1]
        names = [f"x{i}" for i in range(self.features)]
        frame = pd.DataFrame(channels.reshape(-1, self.features), columns=names)
        sectors = np.array(self.scaled.panel.sector_names)[self.scaled.panel.sector[:symbols] - 1]
        frame["symbol"] = np.repeat(np.array(self.scaled.panel.symbols[:symbols]), sessions)
        frame["sector"] = np.repeat(sectors, sessions)
        frame["time"] = np.tile(np.arange(sessions), symbols)
        frame["label"] = np.float32(0.0)
        known = NaNLabelEncoder(add_nan=True).fit(pd.Series(self.scaled.panel.sector_names))  # 0 is unknown, as in ours
        return TimeSeriesDataSet(
            frame,
            time_idx="time",
            target="label",
            group_ids=["symbol"],
            min_encoder_length=self.sizes.encoder,
            max_encoder_length=self.sizes.encoder,
            min_prediction_length=len(HORIZONS),
            max_prediction_length=len(HORIZONS),
            static_categoricals=["sector"],
            time_varying_unknown_reals=names,
            add_relative_time_idx=True,
            categorical_encoders={"sector": known},
            scalers=dict.fromkeys([*names, "relative_time_idx"]),  # None: they are scaled
            target_normalizer=TorchNormalizer(method="identity", center=False),
        )

    def peer_predict(self, loader: DataLoader) -> Float32Array:
        """[N,H,Q] of `model.predict()`; its quantiles put in order."""
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
            made = self.theirs.network.predict(
                loader,
                mode="quantiles",
                trainer_kwargs={
                    "accelerator": "cpu",
                    "enable_checkpointing": False,
                    "default_root_dir": folder,
                    **quiet,
                },
            )
        return made.sort(dim=-1).values.numpy()


def loader_of(dataset: TimeSeriesDataSet, *, shuffled: bool = False) -> DataLoader:
    """In this process, as few windows have to be handed over; the last batch is kept."""
    return dataset.to_dataloader(train=shuffled, batch_size=PEER_BATCH, num_workers=0, drop_last=False)


def _panel(features: int, sizes: Sizes) -> tuple[Panel, Scaler]:
    random = np.random.default_rng(SEED)
    symbols, sessions = sizes.symbols, sizes.encoder - 1 + sizes.days + len(HORIZONS)
    values = random.standard_normal((symbols, sessions, features), dtype=np.float32)
    prices = np.full((symbols, sessions), 100.0)
    days = np.arange("2020-01-01", "2040-01-01", dtype="datetime64[D]")[:sessions]
    names = tuple(f"f{i}" for i in range(features))
    panel = Panel(
        symbols=tuple(f"S{i:04d}" for i in range(symbols)),
        sessions=days,
        features=names,
        values=values,
        opens=prices,
        closes=prices,
        sigma=np.full_like(prices, 0.01),
        sector=1 + np.arange(symbols, dtype=np.int64) % SECTORS,
        sector_names=tuple(f"sector {k:02d}" for k in range(SECTORS)),
    )
    return panel, Scaler.fit(values[:10], names, np.arange(sessions))


# --- a training step --------------------------------------------------------------------------------------------------


def block(problem: Problem, symbols: int, days: int) -> tuple[IntArray, IntArray]:
    """(symbol, column) of the first symbols on the first days."""
    symbol, column = np.meshgrid(np.arange(symbols), problem.first + np.arange(days), indexing="ij")
    return symbol.ravel(), column.ravel()


def gathered(problem: Problem, symbol: IntArray, column: IntArray) -> tuple[Tensor, Tensor]:
    """x [B,E,C], static [B,K] of the windows at these places."""
    steps = column[:, None] + np.arange(-problem.sizes.encoder + 1, 1)
    codes = problem.vocabulary.codes(problem.scaled.panel, ("sector",))
    return torch.from_numpy(problem.scaled.channels[symbol[:, None], steps]), torch.from_numpy(codes[symbol])


def quantile_loss(output: Tensor) -> Tensor:
    """The pinball loss of ordered quantiles, of labels that are all one."""
    levels = torch.tensor(QUANTILES, device=output.device)
    error = 1.0 - output
    return torch.maximum(levels * error, (levels - 1.0) * error).sum(dim=-1).mean()


# --- timing -----------------------------------------------------------------------------------------------------------


def interleaved(jobs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of this process for each job, one after the other in every round, after a round that is not
    counted. One thread each: CPU time is what the job takes when nothing else runs, whatever else does."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            begun = time.process_time()
            made = job()
            if number:
                seconds[name].append(time.process_time() - begun)
            del made
    return {name: median(values) for name, values in seconds.items()}
