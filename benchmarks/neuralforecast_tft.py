"""neuralforecast's TFT by its own pipeline; run by the Python of the peer environment, imports nothing of ours.

    python benchmarks/neuralforecast_tft.py SYMBOLS DAYS ENCODER HORIZON FEATURES HIDDEN STEPS

Random features of SYMBOLS series. Prints windows per CPU second of predicting from each of DAYS days of every series, and
per CPU second of training on 256 windows at a time: the time of STEPS further steps of `fit`. One thread. Scaling
of windows is off. Its weights are its own: its variables have an embedding as wide as the model instead of a narrow one.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
import warnings

import numpy as np
import pandas as pd
import torch
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MQLoss
from neuralforecast.models import TFT

WINDOWS = 256


def main() -> None:
    symbols, days, encoder, horizon, features, hidden, steps = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    frame = panel(symbols, encoder + days + horizon - 1, features)
    with tempfile.TemporaryDirectory() as folder:
        few, more = (fitted(frame, encoder, horizon, hidden, count, folder) for count in (2, 2 + steps))
        forecaster, model = more[0], more[0].models[0]
        model.set_test_size(days + horizon - 1)
        begun = time.process_time()
        made = model.predict(forecaster.dataset, test_size=days + horizon - 1, step_size=1)
        seconds = time.process_time() - begun
    windows = made.size // (horizon * len(model.loss.quantiles))
    if windows != symbols * days:
        raise SystemExit(f"{windows} windows were predicted, expected {symbols * days}")
    numbers = {"windows_per_s": windows / seconds, "train_windows_per_s": WINDOWS * steps / (more[1] - few[1])}
    print("RESULT " + json.dumps(numbers), flush=True)


def panel(symbols: int, sessions: int, features: int) -> pd.DataFrame:
    random = np.random.default_rng(7)
    columns = {f"x{i}": random.standard_normal(symbols * sessions, dtype=np.float32) for i in range(features)}
    keys = {"unique_id": np.repeat(np.arange(symbols), sessions), "ds": np.tile(np.arange(sessions), symbols)}
    return pd.DataFrame({**keys, "y": random.standard_normal(symbols * sessions), **columns})


def fitted(
    frame: pd.DataFrame, encoder: int, horizon: int, hidden: int, steps: int, folder: str
) -> tuple[NeuralForecast, float]:
    """A forecaster after so many training steps, and the CPU seconds of `fit`."""
    model = TFT(
        h=horizon,
        input_size=encoder,
        hist_exog_list=[name for name in frame if name.startswith("x")],
        hidden_size=hidden,
        n_head=2,
        loss=MQLoss(quantiles=[0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]),
        max_steps=steps,
        batch_size=frame["unique_id"].nunique(),
        windows_batch_size=WINDOWS,
        inference_windows_batch_size=WINDOWS,
        scaler_type="identity",
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    forecaster = NeuralForecast(models=[model], freq=1)
    begun = time.process_time()
    forecaster.fit(frame)
    return forecaster, time.process_time() - begun


if __name__ == "__main__":
    main()
