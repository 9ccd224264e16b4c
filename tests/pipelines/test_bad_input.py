"""What goes wrong is said once and clearly, through the command a person types, and leaves nothing half-written."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_market import (
    MARKET,
    NOW,
    backfilled,
    evaluated,
    new_market,
    trained,
)

from trading_core.errors import (
    InvalidDateRangeError,
)
from trading_core.pipelines import refs, train
from trading_core.pipelines.refs import EvaluationRef
from trading_core.pipelines.workspace import Workspace

Refused = Callable[..., str]


# --- names and values -------------------------------------------------------------------------------------------------


def test_unknown_names_are_answered_with_the_known_ones(ws: Workspace, refused: Refused) -> None:
    var = ws.settings.var_dir
    at = ("--market", MARKET)
    refused(
        var, "", ["Unknown market config 'tinny'.", "Did you mean 'tiny'", "simulated"], "backfill", "--market", "tinny"
    )
    refused(
        var,
        "",
        ["Unknown model config 'linaer'.", "Did you mean 'linear'", "lstm, tft"],
        "train",
        *at,
        "--model",
        "linaer",
    )
    refused(var, "", ["Unknown strategy config 'top11'.", "Did you mean 'top10'"], "trade", *at, "--strategy", "top11")
    refused(var, "", ["Unknown strategy config 'best'"], "evaluate", *at, "--strategy", "best")
    refused(var, "NoModelError", ["no model version 7", "Train one"], "predict", *at, "--version", "7")
    refused(var, "NoModelError", ["alias 'best'", "Train one"], "predict", *at, "--version", "best")
    refused(var, "", ["Unknown account 'nobody'", "Allowed"], "flatten", *at, "--account", "nobody")


@pytest.mark.parametrize(
    ("change", "error", "fragments"),
    [
        (
            {"features": ["log_ret", "rsi_15"]},
            "",
            ["Unknown feature 'rsi_15'", "Did you mean 'rsi_14'", "`trading features list` prints all"],
        ),
        ({"model": "lstn"}, "", ["Unknown model 'lstn'", "Did you mean 'lstm'", "tft"]),
        ({"architecture": {"rigde": 1.0}}, "InvalidConfigError", ["rigde: unknown key; allowed: .*ridge"]),
        ({"horizons": [0]}, "InvalidConfigError", ["horizons.0", "greater than or equal to 1", "given: 0"]),
        ({"training": {"epoch": 3}}, "InvalidConfigError", ["epoch: unknown key; allowed: .*epochs"]),
        ({"featurse": []}, "InvalidConfigError", ["featurse: unknown key; allowed: .*features"]),
    ],
    ids=["a feature", "an architecture", "an option", "a horizon", "a training option", "a key"],
)
def test_a_wrong_model_config_is_refused_before_a_request_is_written(
    ws: Workspace, refused: Refused, change: dict[str, Any], error: str, fragments: list[str]
) -> None:
    values = yaml.safe_load((ws.settings.config_dir / "models" / "linear.yaml").read_text())
    folder = ws.settings.var_dir / "configs" / "models"
    folder.mkdir()
    (folder / "mine.yaml").write_text(yaml.safe_dump({**values, **change}))
    refused(ws.settings.var_dir, error, fragments, "train", "--market", MARKET, "--model", "mine")


def test_a_market_with_too_short_a_history_is_not_trained_on(tmp_path: Path, refused: Refused) -> None:
    ws = new_market(tmp_path / "var")
    refused(
        tmp_path / "var",
        "NoDataError",
        ["'tiny' has no table", "trading backfill"],
        "train",
        "--market",
        MARKET,
        "--model",
        "linear",
    )
    backfilled(ws, None, date(2024, 12, 31))
    text = [
        r"Training on market 'tiny' needs at least 160 sessions of history but has 128",
        "Backfill an earlier start",
    ]
    refused(tmp_path / "var", "TooShortHistoryError", text, "train", "--market", MARKET, "--model", "linear")
    assert list((tmp_path / "var").rglob("request.json")) == []


def test_a_test_start_that_leaves_too_little_is_refused_without_a_version(ws: Workspace, refused: Refused) -> None:
    request = train.prepare(ws, model="linear", test_start=date(2024, 7, 15), now=NOW)
    text = [r"needs at least \d+ sessions of history but has \d+"]
    refused(ws.settings.var_dir, "TooShortHistoryError", text, "train", "--request", request.request_uri)
    assert len(ws.registry().list(MARKET)) == 1


def test_dates_that_cannot_be_are_refused(ws: Workspace, refused: Refused) -> None:
    var, at = ws.settings.var_dir, ("--market", MARKET)
    text = ["2025-06-13 .. 2025-06-02", "start lies after the end", "Give a start and an end"]
    refused(var, "InvalidDateRangeError", text, "backfill", *at, "--start", "2025-06-13", "--end", "2025-06-02")
    text = ["last closed session is 2025-06-13"]
    refused(var, "InvalidDateRangeError", text, "backfill", *at, "--end", "2025-06-16")
    refused(
        var,
        "InvalidDateRangeError",
        ["no session in it"],
        "backfill",
        *at,
        "--start",
        "2025-06-07",
        "--end",
        "2025-06-08",
    )
    refused(var, "NotASessionError", ["2025-06-15 is not a trading session"], "trade", *at, "--session", "2025-06-15")
    refused(
        var,
        "StaleDataError",
        ["2025-06-16", "end at 2025-06-13", "feature_backfill"],
        "predict",
        *at,
        "--end",
        "2025-06-16",
    )
    text = ["labels known at", "may not forecast session 2024-09-03", "after its cut-off"]
    refused(var, "LookAheadError", text, "predict", *at, "--start", "2024-09-03")
    with pytest.raises(InvalidDateRangeError, match="no session after the first forecast"):
        _evaluated(ws, date(2025, 6, 13))


def _evaluated(ws: Workspace, start: date) -> EvaluationRef:
    return evaluated(ws, ["top10"], start=start)


def test_forecasts_whose_labels_are_not_known_yet_are_no_reason_to_crash(ws: Workspace) -> None:
    """A decision of Thursday is filled on Friday; its label needs Monday's open: no skill is known, which is not zero."""
    made = _evaluated(ws, date(2025, 6, 12))
    assert math.isnan(made.mean_rank_ic)
    assert len(made.strategies) == 1
    written = refs.load(EvaluationRef, ws.store.read_json("tiny/evaluations/latest-v1.json"))
    assert refs.dump(written) == refs.dump(made)
    assert ws.store.exists(made.report)


def test_operations_in_the_wrong_order_name_the_one_that_is_missing(tmp_path: Path, refused: Refused) -> None:
    ws = new_market(tmp_path / "var")
    var, at = tmp_path / "var", ("--market", MARKET)
    refused(var, "StaleDataError", ["needs features of session", "are empty", "Run feature_backfill"], "trade", *at)
    backfilled(ws)
    ws.registry().list(MARKET)  # creates the registry's file
    refused(var, "NoModelError", ["'tiny' has no model", "Train one"], "predict", *at)
    refused(var, "NoModelError", ["'tiny' has no model", "Train one"], "evaluate", *at)
    trained(ws)
    refused(var, "NoDataError", ["has no forecasts yet", "trading predict"], "evaluate", *at)
