"""A strategy whose threshold is the one that the model's card holds: evaluated and traded like the number itself."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest
import yaml
from tiny_market import evaluated, traded

from trading_core import config
from trading_core.errors import InvalidConfigError
from trading_core.execution.ledger import Ledger
from trading_core.pipelines.infer import find_version
from trading_core.pipelines.strategies import build_strategy, strategy_params
from trading_core.pipelines.workspace import Workspace
from trading_core.portfolio.threshold_long_flat import ThresholdLongFlat, ThresholdLongFlatParams

SEARCHED, NUMBER = "long-flat-searched", "by-number"
TUE = date(2025, 6, 10)


def threshold_of(ws: Workspace, objective: str, position: int = 0) -> float:
    """What the champion's card says, read as plain JSON; position: of the horizon."""
    bundle = ws.store.path_of(find_version(ws, "champion").bundle_uri)
    card = ws.store.read_json(f"{bundle}/config.json")
    return float(json.loads(card["thresholds"][objective][position])["threshold"])


def with_number(ws: Workspace, threshold: float) -> None:
    values = yaml.safe_load(config.path_of("strategies", SEARCHED, ws.settings).read_text())
    folder = ws.settings.var_dir / "configs" / "strategies"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NUMBER}.yaml").write_text(yaml.safe_dump(values | {"params": {"threshold": threshold}}))


def test_it_decides_as_the_number_in_the_card_does(ws: Workspace) -> None:
    with_number(ws, threshold_of(ws, "net_sharpe_annual"))
    made = evaluated(ws, [SEARCHED, NUMBER])
    searched, number = made.strategies
    assert replace(searched, name=NUMBER) == number
    assert searched.turnover > 0.0
    decisions = []
    for name in (SEARCHED, NUMBER):
        account = traded(ws, TUE, strategy=name).account
        decisions.append(Ledger(ws.ledger_store()).get_decision(account, TUE))
    assert decisions[0] is not None
    assert decisions[1] is not None
    assert decisions[0].orders == decisions[1].orders
    assert decisions[0].targets == decisions[1].targets != ()


def test_the_threshold_is_that_of_the_objective_and_the_strategys_horizon(ws: Workspace) -> None:
    chosen = config.load_strategy(SEARCHED, ws.settings)
    for position, horizon in enumerate((1, 5)):
        for objective in ("f1", "net_sharpe_annual"):
            asked = chosen.model_copy(update={"horizon": horizon, "params": {"threshold": objective}})
            built = build_strategy(ws, asked, "mine", lambda: find_version(ws, "champion"))
            assert isinstance(built, ThresholdLongFlat)
            assert built.threshold == threshold_of(ws, objective, position)
    missing = chosen.model_copy(update={"horizon": 3})
    with pytest.raises(InvalidConfigError, match=r"'net_sharpe_annual' over 3 sessions is not in the card of .* 1 "):
        build_strategy(ws, missing, "mine", lambda: find_version(ws, "champion"))


def test_what_is_neither_a_number_nor_an_objective_is_refused(ws: Workspace) -> None:
    chosen = config.load_strategy(SEARCHED, ws.settings)
    assert strategy_params(chosen, "mine") == ThresholdLongFlatParams("net_sharpe_annual")
    for wrong, problem in (("mcc", "'f1' or 'net_sharpe_annual'"), (1.5, "between 0 and 1")):
        with pytest.raises(InvalidConfigError, match=problem):
            strategy_params(chosen.model_copy(update={"params": {"threshold": wrong}}), "mine")
    with pytest.raises(ValueError, match="take the number from the model's card"):
        ThresholdLongFlat(ThresholdLongFlatParams("f1"))
