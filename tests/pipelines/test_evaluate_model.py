"""`trading evaluate-model`: a registered version's forecasts judged on sessions after its cut-off, and on no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from scipy.stats import spearmanr
from tiny_market import NOW, OPTIONS, backfilled, contents, new_market

from trading_core import cli, config
from trading_core.errors import InvalidConfigError, LookAheadError, NoModelError
from trading_core.market.adjust import adjusted
from trading_core.pipelines import train
from trading_core.pipelines.evaluate_model import ModelEvaluation, choose_version, evaluate_model
from trading_core.pipelines.workspace import Workspace


def judged(ws: Workspace, model: str = "linear@champion", **changes: object) -> ModelEvaluation:
    given = {"given": None, "start": None, "end": None, "run_id": "judge", "now": NOW, **changes}
    return evaluate_model(ws, model=model, **given)  # type: ignore[arg-type]


def own_config(ws: Workspace, tmp_path: Path) -> tuple[Path, config.ModelConfig]:
    """Another ridge regression, trained from a file that no folder of configs holds."""
    path = tmp_path / "ridge_of_mine.yaml"
    path.write_text("model: linear\nfeatures: [log_ret, close_location, volume_z_20]\nencoder_length: 1\n")
    name, given = config.load_model_file(path, settings=ws.settings)
    request = train.prepare(ws, model=name, given=given, test_start=None, now=NOW)
    assert train.run(request.request_uri, ws.settings, NOW).model == "ridge_of_mine"
    return path, given


def test_the_figures_are_those_of_the_stored_forecasts(ws: Workspace) -> None:
    before = contents(ws, "forecasts")
    made = judged(ws)
    assert contents(ws, "forecasts").equals(before)  # all of them were stored already
    assert (made.model, made.version, made.computed, made.forecasts) == ("linear", 1, 0, len(before))
    assert made.start > made.cutoff
    assert [row.horizon for row in made.horizons] == [1, 5]
    bars = adjusted(ws.tables.read("bars"), ws.tables.read("corporate_actions")).sort("symbol", "session")
    # The opens of the two sessions after the decision, symbol by symbol.
    label = (pl.col("open").shift(-2) / pl.col("open").shift(-1)).log().over("symbol")
    rows = before.filter(pl.col("horizon") == 1).join(
        bars.select("symbol", "session", label=label), on=["symbol", "session"]
    )
    ics = [
        spearmanr(part["score"], part["label"])[0]
        for _, part in rows.drop_nulls("label").group_by("session")
        if len(part) > 2
    ]
    assert made.horizons[0].sessions == len(ics)
    assert made.horizons[0].rank_ic == pytest.approx(sum(ics) / len(ics), abs=1e-12)


def test_stored_intervals_are_judged_by_hand_and_recorded(ws: Workspace) -> None:
    made = judged(ws)
    assert [(row.horizon, row.interval) for row in made.intervals] == [
        (h, name) for h in (1, 5) for name in ("stored", "static", "quantiles")
    ]
    bars = adjusted(ws.tables.read("bars"), ws.tables.read("corporate_actions")).sort("symbol", "session")
    label = (pl.col("open").shift(-2) / pl.col("open").shift(-1)).log().over("symbol")
    rows = ws.tables.read("forecasts").filter(pl.col("horizon") == 1).join(
        bars.select("symbol", "session", label=label).drop_nulls(), on=["symbol", "session"]
    )  # fmt: skip
    inside = rows.select(pl.col("label").is_between("low_90", "high_90"))["label"]
    stored = made.intervals[0]
    assert stored.rows == pytest.approx(len(rows), abs=5)  # a symbol that comes back after a halt has another next open
    assert stored.coverage == pytest.approx(inside.mean(), abs=2e-3)
    assert stored.mean_width == pytest.approx((rows["high_90"] - rows["low_90"]).mean(), rel=2e-3)
    assert made.break_session is None or made.start < made.break_session <= made.end
    assert made.classes == ()  # the model forecasts none
    recorded = ws.tables.read("evaluations").filter(
        (pl.col("subject") == "stored interval h1") & (pl.col("metric") == "coverage")
    )
    assert recorded["value"].to_list() == [stored.coverage]


def test_sessions_up_to_the_cutoff_are_refused(ws: Workspace) -> None:
    cutoff = judged(ws).cutoff
    with pytest.raises(LookAheadError, match=f"labels known at {cutoff}"):
        judged(ws, start=cutoff)
    first = ws.sessions.next(cutoff)
    later = judged(ws, start=ws.sessions.offset(first, 10), end=ws.sessions.offset(first, 20))
    assert later.horizons[0].sessions == 11


def test_missing_forecasts_are_computed_and_stored_and_the_figures_recorded_once(ws: Workspace, tmp_path: Path) -> None:
    _, given = own_config(ws, tmp_path)
    one = judged(ws, "ridge_of_mine")
    assert one.computed == one.forecasts > 0
    # In another month, too: tables are replaced within a month.
    again = judged(ws, "@2", given=given, now=NOW + timedelta(days=40))
    assert again.computed == 0
    assert again.horizons == one.horizons
    recorded = ws.tables.read("evaluations").filter(pl.col("model_version") == "2")
    assert recorded.filter(pl.col("metric") == "rank_ic")["value"].to_list() == [one.horizons[0].rank_ic]
    trials = ws.tables.read("trials").filter((pl.col("subject") == "ridge_of_mine") & (pl.col("start") == one.start))
    assert trials["value"].to_list() == [one.horizons[0].rank_ic]


def test_a_version_is_named_by_alias_number_name_or_config(ws: Workspace, tmp_path: Path) -> None:
    _, given = own_config(ws, tmp_path)
    linear = config.load_model("linear")
    first = [
        ("linear@champion", None),
        ("linear@1", None),
        ("@1", None),
        ("linear", None),
        ("linear", linear),
        ("", linear),
    ]
    assert [choose_version(ws, *asked).version for asked in first] == [1] * 6
    second = [("ridge_of_mine@challenger", None), ("ridge_of_mine", None), ("", given), ("@2", given)]
    assert [choose_version(ws, *asked).version for asked in second] == [2] * 4
    with pytest.raises(
        InvalidConfigError, match="version 2 of market 'tiny' is a 'ridge_of_mine'; say ridge_of_mine@2"
    ):
        choose_version(ws, "linear@2", None)
    with pytest.raises(InvalidConfigError, match="version 1 was trained with other values than the config given"):
        choose_version(ws, "linear@1", given)
    for model, other in (("tft", None), ("linear", given), ("linear@7", None), ("linear@nobody", None)):
        with pytest.raises(NoModelError):
            choose_version(ws, model, other)


def test_a_config_of_the_zoo_is_trained_and_judged_by_its_name(tmp_path: Path) -> None:
    """Its name has a slash, which paths of bundles, tags and references have to bear. Its features look back 200 sessions."""
    start = "2024-01-02"
    ws = new_market(tmp_path / "var", history_start=start, options={**OPTIONS, "symbols": 12, "start": start})
    backfilled(ws)
    request = train.prepare(ws, model="zoo/base_rate", test_start=None, now=NOW)
    made = train.run(request.request_uri, ws.settings, NOW)
    assert (made.model, made.version) == ("zoo/base_rate", 1)
    assert train.run(request.request_uri, ws.settings, NOW).reused
    found = judged(ws, "zoo/base_rate@challenger", given=config.load_model("zoo/base_rate"))
    assert found.computed > 0
    assert [row.roc_auc for row in found.horizons] == [0.5, 0.5]  # it says the same of every symbol and session


def test_the_command_prints_a_row_for_each_horizon(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    refused: Callable[..., str],
) -> None:  # fmt: skip
    path = config.path_of("models", "linear", ws.settings)
    monkeypatch.setenv("TRADING_VAR_DIR", str(ws.settings.var_dir))
    monkeypatch.setattr(cli, "_now", lambda: NOW)
    arguments = ["evaluate-model", "--market", "tiny", "--model", "linear@champion", "--config", str(path)]
    monkeypatch.setattr("sys.argv", ["trading", *arguments, "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    answer = json.loads(capsys.readouterr().out)
    assert [row["horizon"] for row in answer["horizons"]] == [1, 5]
    assert {
        "rank_ic",
        "rank_icir",
        "rank_ic_t",
        "roc_auc",
        "pr_auc",
        "f1",
        "brier",
        "ece",
        "coverage_90",
        "pinball",
    } <= set(answer["horizons"][0])
    assert {"coverage", "low_volatility", "after_break", "mean_width"} <= set(answer["intervals"][0])
    cutoff = answer["cutoff"]
    refused(
        ws.settings.var_dir, "LookAheadError", [f"labels known at {cutoff}"], *arguments, "--start", cutoff
    )  # fmt: skip
