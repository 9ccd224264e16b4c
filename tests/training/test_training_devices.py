"""One training shared by several processes, here on the CPU; on a machine with GPUs it is one process for each."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_samples import CONFIGS, TRAINING, planted_panel, window_sets

from trading_core.errors import InvalidConfigError
from trading_core.models.registry import MODELS
from trading_core.training.data import DateBatches, input_spec
from trading_core.training.fit import fit

TRAIN, VALIDATION = window_sets(planted_panel())


def test_processes_share_the_batches_of_an_epoch() -> None:
    shares = []
    for rank in range(3):
        batches = DateBatches(TRAIN, replace(TRAINING, symbols_per_date=8), seed=5)
        whole = [rows.tolist() for rows in batches]
        batches.share(rank, 3)
        shares.append([rows.tolist() for rows in batches])
        assert len(shares[-1]) == len(batches) == -(-len(whole) // 3)
    dealt = [batch for turn in zip(*shares, strict=True) for batch in turn]
    assert dealt == whole + whole[: len(dealt) - len(whole)]


@pytest.mark.thorough
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_processes.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = (tmp_path / "result").read_text().splitlines()
    assert len(answers) == 1  # the second process ended when the training did
    assert (tmp_path / "epochs").read_text().split() == ["1", "2", "3"]
    answer = json.loads(answers[0])
    assert answer["losses"][-1] < answer["losses"][0]
    assert answer["rank_ic"] > 0.4  # the planted signal, as in the contract suite


def test_many_networks_are_not_shared() -> None:
    with pytest.raises(InvalidConfigError, match="devices: several share one network; give 1 for many networks"):
        fit(
            MODELS["lstm"], CONFIGS["lstm"], input_spec(TRAIN), TRAIN, VALIDATION, replace(TRAINING, devices=2), 7,
            device="cpu", members=2,
        )  # fmt: skip


def test_one_process_takes_every_batch() -> None:
    rows = np.concatenate(list(DateBatches(TRAIN, replace(TRAINING, symbols_per_date=None), seed=5)))
    assert sorted(rows.tolist()) == list(range(len(TRAIN)))
