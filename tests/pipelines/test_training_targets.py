"""A model of every target, with instrument columns and two members, from a config through training to stored forecasts."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from tiny_market import LAST, NOW, START, forecast, trained

from trading_core.config import load_model
from trading_core.errors import InvalidConfigError, UnknownNameError
from trading_core.pipelines import instruments, panels
from trading_core.pipelines.evaluate_model import evaluate_model
from trading_core.pipelines.refs import ModelRef
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.schema import SESSION, SYMBOL

CHANGE = date(2025, 3, 3)
CONFIG = {
    "model": "hybrid",
    "features": ["log_ret", "ret_5_rank", "dow_sin"],
    "instrument_columns": ["moneyness"],
    "context": ["dow_sin", "moneyness"],
    "static": ["sector"],
    "horizons": [1, 3],
    "encoder_length": 4,
    "targets": ["quantiles", "direction", "classes", "volatility", "barrier", "rank"],
    "score": "rank",
    "calibration": "isotonic",
    "ensemble": 2,
    "architecture": {"hidden_size": 8},
    "training": {"epochs": 1, "batches_per_epoch": 4, "losses": {"direction_loss": "focal", "pos_weight": "balanced"}},
}


@pytest.fixture
def options(ws: Workspace, tmp_path: Path) -> Workspace:
    """The market with a file that gives every symbol a moneyness, which changes in March."""
    symbols = ws.source().symbols()
    rows = [(s, START, CHANGE - timedelta(days=1), 0.9 + 0.01 * k, "call") for k, s in enumerate(symbols)]
    rows += [(s, CHANGE, None, 1.1 + 0.01 * k, "call") for k, s in enumerate(symbols)]
    path = tmp_path / "instruments.csv"
    pl.DataFrame(rows, schema=["symbol", "from", "to", "moneyness", "kind"], orient="row").write_csv(path)
    made = open_workspace(ws.market.model_copy(update={"instruments": str(path)}), ws.settings)
    instruments.new_instruments(made, made.source().instruments(NOW)).store(made)
    folder = made.settings.var_dir / "configs" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "everything.yaml").write_text(yaml.safe_dump(CONFIG))
    return made


def test_instrument_columns_are_those_of_the_session(options: Workspace) -> None:
    versions = panels.current_versions(options)
    panel = panels.load_panel(options, ["log_ret"], START, LAST, versions, ["moneyness"])
    assert panel.features == ("log_ret", "moneyness")
    k = panel.symbols.index("SIM001")
    base = float(panel.values[k, -1, 1]) - 1.1
    column = panel.column_of(CHANGE)
    assert panel.values[k, column - 1, 1] == pytest.approx(0.9 + base)
    assert panel.values[k, column, 1] == pytest.approx(1.1 + base)


def test_a_column_that_is_not_there_or_no_number_is_named(options: Workspace) -> None:
    versions = panels.current_versions(options)
    for name in ("strike", "kind"):
        with pytest.raises(UnknownNameError, match=rf"numeric instrument column of market 'tiny' '{name}'.*moneyness"):
            panels.load_panel(options, ["log_ret"], START, LAST, versions, [name])


def test_every_target_is_learned_and_forecast(options: Workspace) -> None:
    made: ModelRef = trained(options, model="everything")
    card = options.store.read_json(f"{made.bundle}/config.json")
    assert (card["members"], card["instrument_columns"]) == (2, ["moneyness"])
    assert [len(card[name]) for name in ("calibration", "intervals")] == [2, 2]
    assert sorted(card["thresholds"]) == ["f1", "net_sharpe_annual"]
    assert {name: len(texts) for name, texts in card["class_calibration"].items()} == {"classes": 2, "barrier": 2}
    found = forecast(options, version=str(made.version), start=date(2025, 6, 9))
    rows = options.tables.read("forecasts").filter(pl.col("model_version") == str(made.version))
    assert found.added == rows.height > 100
    values = rows.select("p_up", "p_bear", "p_bull", "p_stop", "p_take").to_numpy()
    assert ((values > 0.0) & (values < 1.0)).all()
    assert ((rows["p_bear"] + rows["p_bull"]) < 1.0).all()
    assert ((rows["p_stop"] + rows["p_take"]) < 1.0).all()
    # A session's volatility: near that of the market, which is simulated at 1 to 4 % a day.
    assert 0.003 < rows["volatility"].median() < 0.1  # type: ignore[operator]
    assert (rows["low_90"] < rows["high_90"]).all()
    assert not np.allclose(rows["score"], rows["q50"])  # ranked by the rank column
    assert rows.select(SYMBOL, SESSION, "horizon").is_unique().all()
    # Of the decisions since June 9 the label over one session is known of three, that over three sessions of one.
    asked = {"given": None, "start": date(2025, 6, 9), "end": None, "run_id": "judge", "now": NOW}
    judged = evaluate_model(options, model=f"everything@{made.version}", **asked)  # type: ignore[arg-type]
    assert [(row.target, row.horizon) for row in judged.classes] == [
        ("classes", 1), ("classes", 3), ("barrier", 1), ("barrier", 3)
    ]  # fmt: skip
    assert [row.sessions for row in judged.horizons] == [3, 1]
    assert [row.rows for row in judged.classes[:2]] == [row.rows for row in judged.horizons]
    assert all(0.0 < row.log_loss < 3.0 for row in judged.classes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ["direction"]}, "targets: 'quantiles' is missing"),
        ({"score": "rank", "targets": ["quantiles"]}, "score: 'rank' is none of the targets"),
        ({"context": ["moneyness", "strike"]}, r"context: \['strike'\] are none of the features"),
        ({"instrument_columns": ["log_ret"], "context": []}, r"instrument_columns: \['log_ret'\] are features too"),
        ({"scope": "symbol"}, "scope: 'symbol' needs 'symbol' among the static columns"),
        ({"targets": ["quantiles", "mood"]}, "targets.1: Input should be 'quantiles', 'direction'"),
        ({"targets": ["quantiles", "quantiles"]}, "holds repeated entries"),
    ],
)
def test_a_config_that_does_not_fit_together_is_refused(
    ws: Workspace, changes: dict[str, object], message: str
) -> None:
    folder = ws.settings.var_dir / "configs" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wrong.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    with pytest.raises(InvalidConfigError, match=message):
        load_model("wrong", ws.settings)


# --- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_intervals_are_the_same_however_forecasts_are_batched(ws: Workspace, tmp_path: Path) -> None:
    """Only rows that are stored count: a universe smaller than the panel, and one session after the other or all at once."""
    members = ws.source().symbols()[:12]
    path = tmp_path / "members.csv"
    pl.DataFrame({"symbol": members, "from": [START] * 12}).write_csv(path)
    universe = ws.market.universe.model_copy(update={"membership": str(path)})
    made = open_workspace(ws.market.model_copy(update={"universe": universe}), ws.settings)
    days = panels.feature_sessions(made)[-5:]
    found = []
    for portions in ([(days[0], days[-1])], [(day, day) for day in days]):
        version = str(trained(made, now=NOW + timedelta(seconds=len(found)), reuse=False).version)
        for start, end in portions:
            forecast(made, version=version, start=start, end=end)
        rows = made.tables.read("forecasts").filter(pl.col("model_version") == version)
        found.append(
            rows.sort(SESSION, SYMBOL, "horizon").select(SESSION, SYMBOL, "horizon", "q05", "low_90", "high_90")
        )
    at_once, one_by_one = found
    assert 5 < at_once[SYMBOL].n_unique() <= 12  # some are gone by now
    versions = made.tables.read("forecasts")["model_version"].unique()
    assert len(versions) == 3  # the prepared one, and two of the same weights
    for name in ("q05", "low_90", "high_90"):
        assert at_once[name].to_numpy() == pytest.approx(one_by_one[name].to_numpy(), rel=1e-6, abs=1e-9)
