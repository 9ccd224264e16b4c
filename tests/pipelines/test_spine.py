"""From bars to recorded fills on a folder with SQLite and on S3 with DynamoDB: the same code, the same result."""

from __future__ import annotations

import json
import re
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny_market import LAST, MARKET, NOW, backfilled, evaluated, forecast, settings_of, traded, trained, write_market

from trading_core import cli
from trading_core.execution.ledger import Ledger
from trading_core.pipelines import summary, trade
from trading_core.pipelines.refs import EvaluationRef
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.schema import FORECASTS
from trading_core.storage.options import StorageOptions

# Its prepared stores are costly: one worker builds them once.

SESSIONS = 2  # settled ones; a pending one comes after them


STRATEGIES = ("top10", "top10-weekly-horizon", "long-flat", "equal-weight", "buy-and-hold")


@dataclass(frozen=True)
class Spine:
    ws: Workspace
    evaluation: EvaluationRef


def run_spine(ws: Workspace) -> Spine:
    """Every operation once, through the same functions that the DAGs and the commands call."""
    backfilled(ws)
    trained(ws)
    forecast(ws)
    evaluation = evaluated(ws, STRATEGIES)
    for session in summary.sessions_to_trade(ws, "top10", SESSIONS, NOW).sessions:
        traded(ws, session)
    return Spine(ws, evaluation)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Spine:
    var = tmp_path_factory.mktemp("local") / "var"
    write_market(var)
    return run_spine(open_workspace(MARKET, settings_of(var)))


@pytest.fixture(scope="module")
def remote(
    tmp_path_factory: pytest.TempPathFactory, s3_client: Any, s3_options: StorageOptions, dynamodb_endpoint: str
) -> Spine:
    bucket = f"spine-{uuid.uuid4().hex}"
    s3_client.create_bucket(Bucket=bucket)
    var = tmp_path_factory.mktemp("remote") / "var"
    write_market(var)
    settings = settings_of(
        var,
        artifacts_url=f"s3://{bucket}/trading",
        s3_endpoint_url=s3_options.endpoint_url,
        s3_access_key_id=s3_options.access_key_id,
        s3_secret_access_key=s3_options.secret_access_key,
        ledger_url=f"dynamodb://ledger-{uuid.uuid4().hex}",
        dynamodb_endpoint_url=dynamodb_endpoint,
    )
    return run_spine(open_workspace(MARKET, settings))


def forecasts_of(spine: Spine) -> pl.DataFrame:
    return spine.ws.tables.read(FORECASTS.name).select(list(FORECASTS.columns)).sort(FORECASTS.key)


@pytest.mark.thorough
def test_both_stores_hold_the_same_forecasts(local: Spine, remote: Spine) -> None:
    left, right = forecasts_of(local), forecasts_of(remote)
    assert left.equals(right)
    assert left["session"].n_unique() == 60
    assert set(left["horizon"]) == {1, 5}
    absent = ("volatility", "p_bear", "p_bull", "p_stop", "p_take")  # targets that this model was not asked for
    assert left.select(pl.col(absent).is_null().all()).row(0) == (True,) * 5
    assert left.drop(absent).select(pl.col(pl.Float64).is_finite().all()).row(0) == (True,) * 11
    assert (left["low_90"] < left["high_90"]).all()


@pytest.mark.thorough
def test_both_stores_hold_the_same_tables(local: Spine, remote: Spine) -> None:
    assert local.ws.tables.names() == remote.ws.tables.names()
    for name in local.ws.tables.names():
        frames = [s.ws.tables.read(name).select(local.ws.tables.read(name).columns) for s in (local, remote)]
        if name == "trials":  # a model's trial names its MLflow run
            frames = [frame.drop("source") for frame in frames]
        assert frames[0].sort(pl.all()).equals(frames[1].sort(pl.all())), name


@pytest.mark.thorough
def test_both_ledgers_hold_the_same_orders_and_fills(local: Spine, remote: Spine) -> None:
    found = [trade.executions(spine.ws) for spine in (local, remote)]
    assert found[0] == found[1]
    assert len(found[0]) > 10
    ledgers = [Ledger(spine.ws.ledger_store()) for spine in (local, remote)]
    accounts = [[record.account for record in ledger.accounts()] for ledger in ledgers]
    assert accounts[0] == accounts[1]
    assert len(accounts[0]) == 2  # the replay of the past sessions, and the live one
    for account in accounts[0]:
        for record in ledgers[0].sessions(account):
            assert ledgers[0].orders(account, record.session) == ledgers[1].orders(account, record.session)
            states = [ledger.session_state(account, record.session) for ledger in ledgers]
            assert states[0] == states[1]


def test_the_coming_session_is_pending_and_the_past_ones_are_settled(local: Spine) -> None:
    outcome = summary.collect(local.ws, 1, LAST.replace(day=1))
    assert [line.state.status.value for line in outcome.sessions] == ["settled", "settled", "decided"]
    assert [line.account for line in outcome.sessions][-1] == "paper-tiny-top10"
    assert [line.fills for line in outcome.sessions][-1] == 0
    assert outcome.sessions[-1].orders == 10
    assert outcome.model.version == 1
    assert outcome.evaluation == local.evaluation


def test_executions_name_everything_that_made_them(
    local: Spine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRADING_VAR_DIR", str(local.ws.settings.var_dir))
    monkeypatch.setattr(sys, "argv", ["trading", "executions", "list", "--market", MARKET, "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(trade.executions(local.ws)) > 10
    for row in rows:
        for key in ("symbol", "strategy", "model_version", "features_version", "client_order_id"):
            assert isinstance(row[key], str)
            assert row[key] != ""
        assert row["side"] in ("buy", "sell")
        assert row["quantity"] > 0
        assert row["price"] > 0
        assert re.fullmatch(r"2025-06-1[0-3]", row["session"])
        assert len(row["client_order_id"]) <= 48
    assert len({row["client_order_id"] for row in rows}) == len(rows)


def test_from_an_execution_one_can_walk_back_to_its_forecast(local: Spine) -> None:
    ledger = Ledger(local.ws.ledger_store())
    for execution in trade.executions(local.ws):
        decision = ledger.get_decision(execution.account, execution.session)
        assert decision is not None
        assert decision.decision_id == execution.decision_id
        rows = local.ws.tables.read(FORECASTS.name, version=decision.forecasts_version).filter(
            (pl.col("session") == decision.decision_session)
            & (pl.col("symbol") == execution.symbol)
            & (pl.col("horizon") == 1)
            & (pl.col("model_version") == execution.model_version)
        )
        assert rows["features_version"].to_list() == [execution.features_version]
        recorded = local.ws.store.read_json(f"tiny/features/versions/{execution.features_version}.json")
        assert recorded["tables"]["bars"] is not None


def test_the_decision_ranks_by_the_stored_forecasts(local: Spine) -> None:
    """The first session buys the ten names whose forecast of the day before is highest."""
    ledger = Ledger(local.ws.ledger_store())
    account = next(r.account for r in ledger.accounts() if r.account.startswith("replay-"))
    first = ledger.sessions(account)[0]
    rows = forecasts_of(local).filter((pl.col("session") == first.decision_session) & (pl.col("horizon") == 1))
    best = set(rows.sort("score", descending=True).head(10)["symbol"])
    assert {fill.symbol for fill in ledger.fills(account, first.session)} == best


def test_money_is_conserved(local: Spine) -> None:
    """Equity of the last settled session: capital less what was spent plus what was got, and the shares at the close."""
    ledger = Ledger(local.ws.ledger_store())
    account = next(r.account for r in ledger.accounts() if r.account.startswith("replay-"))
    cash, held = 1_000_000.0, {}
    actions = local.ws.tables.read("corporate_actions")
    for record in ledger.sessions(account):
        today = actions.filter((pl.col("session") == record.session) & pl.col("symbol").is_in(list(held)))
        assert today.is_empty(), "choose sessions in which no held symbol has an event"
        for fill in ledger.fills(account, record.session):
            sign = 1 if fill.side.value == "buy" else -1
            cash -= sign * fill.quantity * fill.price + fill.commission
            held[fill.symbol] = held.get(fill.symbol, 0.0) + sign * fill.quantity
    state = ledger.session_state(account, LAST)
    assert state is not None
    assert state.summary is not None
    closes = dict(local.ws.tables.read("bars").filter(pl.col("session") == LAST).select("symbol", "close").iter_rows())
    assert state.summary.cash == pytest.approx(cash, abs=1e-6)
    worth = cash + sum(quantity * closes[symbol] for symbol, quantity in held.items() if quantity)
    assert state.summary.equity == pytest.approx(worth, rel=1e-12)


@pytest.mark.parametrize("where", ["local", pytest.param("remote", marks=pytest.mark.thorough)])
def test_the_report_is_one_page_that_asks_nobody(where: str, request: pytest.FixtureRequest) -> None:
    spine: Spine = request.getfixturevalue(where)
    page = spine.ws.store.read_bytes(spine.evaluation.report).decode()
    assert page.lstrip().lower().startswith("<!doctype html")
    markup = re.sub(r"<script\b[^>]*>.*?</script>", "<script></script>", page, flags=re.S | re.I)
    assert re.findall(r"""(?:src|href|action|data)\s*=\s*["']?\s*(?:https?:)?//""", markup, flags=re.I) == []
    assert re.findall(r"<script[^>]*\bsrc\b|<iframe\b|@import|url\(\s*['\"]?(?:https?:)?//", page, flags=re.I) == []
    for strategy in STRATEGIES:
        assert strategy in markup
    assert "simulated" in markup


def test_the_evaluation_knows_the_ceiling_and_the_trials(local: Spine) -> None:
    rows = {row.name: row for row in local.evaluation.strategies}
    assert {name for name, row in rows.items() if row.benchmark} == {"buy-and-hold", "equal-weight"}
    assert 0.05 < local.evaluation.rank_ic_ceiling < 0.15  # the signal that was planted is 0.1
    trials = local.ws.tables.read("trials")
    # One training, one scoring of the model, one of each strategy that is no benchmark, and four other k of two of them.
    assert sorted(trials["kind"]) == ["model"] * 2 + ["strategy"] * (3 + 2 * 4)


@pytest.mark.thorough
def test_what_a_folder_and_a_bucket_hold_has_the_same_names(local: Spine, remote: Spine) -> None:
    """No path knows where it is stored; Delta's own file names are random, evaluations are not."""
    names = [
        {name for name in spine.ws.store.list("") if "/tables/" not in name and "/models/" not in name}
        for spine in (local, remote)
    ]
    assert names[0] == names[1]
    models = [[n for n in spine.ws.store.list("") if "/models/" in n] for spine in (local, remote)]
    assert [Path(n).name for n in models[0]] == ["MANIFEST.json", "config.json", "weights.safetensors"]
    weights = [
        spine.ws.store.read_bytes(next(n for n in found if n.endswith(".safetensors")))
        for spine, found in zip((local, remote), models, strict=True)
    ]
    assert weights[0] == weights[1]
