"""Run by test_training_devices.py: one training shared by two processes. Lightning starts this file again for the second."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model_samples import CONFIGS, TRAINING, planted_panel, window_sets

from trading_core.models.registry import MODELS
from trading_core.training.data import input_spec
from trading_core.training.fit import fit
from trading_core.training.progress import EpochRecord


def main(folder: Path) -> None:
    train, validation = window_sets(planted_panel())
    training = replace(TRAINING, devices=2, epochs=3)

    def note(record: EpochRecord) -> None:
        with (folder / "epochs").open("a") as file:
            file.write(f"{record.epoch}\n")

    result = fit(MODELS["lstm"], CONFIGS["lstm"], input_spec(train), train, validation, training, 7, note, device="cpu")
    answer = {"losses": [record.val_loss for record in result.history], "rank_ic": result.skill[0].mean_rank_ic}
    with (folder / "result").open("a") as file:
        file.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
