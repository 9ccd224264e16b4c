"""From an order back to the bars, and the decision computed again: what each link says, and what a change since is told by."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from math import inf, nan, nextafter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from tiny_market import NOW, backfilled, copy_of, rewritten, traded

from trading_core import cli
from trading_core.errors import NoDataError, UnknownNameError
from trading_core.execution.ids import client_order_id
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import Decision, Intent
from trading_core.features.build import table_name
from trading_core.features.registry import FEATURES
from trading_core.pipelines import controls, deciding, lineage, lineage_replay
from trading_core.pipelines.lineage_replay import (
    check_decision,
    compare_forecasts,
    first_difference,
    inputs_of,
    replay,
)
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.portfolio.macd_confirmed import HISTOGRAM
from trading_core.schema import QUANTILE_COLUMNS, Side

TUE, WED = date(2025, 6, 10), date(2025, 6, 11)
LINKS = ["order", "intent", "risk", "target", "decision", "forecast", "model", "features", "bars", "replay"]
MON = date(2025, 6, 16)  # the coming session at NOW


@pytest.fixture(scope="module")
def sold(prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two sessions of one account and one of two others traded. Only to be read."""
    ws = copy_of(prepared.settings.var_dir, tmp_path_factory.mktemp("lineage") / "var")
    write_own_strategy(ws, 4)
    for strategy, session in (("top10", TUE), ("top10", WED), ("mine", TUE), ("macd-confirmed", TUE)):
        traded(ws, session, strategy=strategy)
    return ws


@pytest.fixture
def changeable(sold: Workspace, tmp_path: Path) -> Workspace:
    """A copy of `sold`."""
    return copy_of(sold.settings.var_dir, tmp_path / "var")


def write_own_strategy(ws: Workspace, k: int) -> None:
    """Few names, and a limit that clips every order."""
    folder = ws.settings.var_dir / "configs" / "strategies"
    folder.mkdir(parents=True, exist_ok=True)
    values = {"strategy": "top_k", "params": {"k": k}, "risk": {"max_order_notional": 100_000.0}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(values))


def intents(ws: Workspace, strategy: str = "top10", session: date = TUE) -> list[Intent]:
    ledger = Ledger(ws.ledger_store())
    found = [intent for owner in ledger.accounts("tiny") for intent in ledger.intents(owner.account)]
    return [intent for intent in found if (intent.strategy, intent.session) == (strategy, session)]


def decision_of(ws: Workspace, intent: Intent) -> Decision:
    found = Ledger(ws.ledger_store()).get_decision(intent.account, intent.session)
    assert found is not None
    return found


# --- the chain --------------------------------------------------------------------------------------------------------


def test_every_link_tells_what_is_stored(sold: Workspace) -> None:
    intent = next(found for found in intents(sold, session=WED) if found.side is Side.BUY)
    decision, symbol = decision_of(sold, intent), intent.symbol
    made = lineage.explain(sold, intent.client_order_id)
    assert made.notes == ()
    assert made.order.intent == intent
    assert [event.status.value for event in made.history][-1] == "filled"
    assert sum(fill.quantity for fill in made.fills) == made.order.filled_quantity == intent.quantity
    assert [(v.symbol, v.verdict, v.allowed) for v in made.risk] == [(symbol, "approve", intent.quantity)]
    assert made.target is not None
    assert made.target.weight == next(t.weight for t in decision.targets if t.symbol == symbol)

    rows = sold.tables.read("forecasts").filter(pl.col("session") == TUE, pl.col("model_version") == "1")
    assert made.forecasts is not None
    assert (made.forecasts.rows, made.forecasts.digest) == (len(rows), decision.forecasts_digest)
    for told in made.forecasts.symbol:
        scores = dict(rows.filter(pl.col("horizon") == told.horizon).select("symbol", "score").iter_rows())
        better = [score for score in scores.values() if score > scores[symbol]]
        assert (told.score, told.rank, told.of) == (scores[symbol], len(better) + 1, len(scores))
    assert {told.horizon for told in made.forecasts.symbol} == {1, 5}
    assert next(told.score for told in made.forecasts.symbol if told.horizon == 1) == made.target.score


def test_the_model_is_told_with_the_digest_of_its_manifest(sold: Workspace) -> None:
    made = lineage.explain(sold, intents(sold)[0].client_order_id)
    version = sold.registry().get("tiny")
    manifest = Path(sold.settings.artifacts) / version.bundle_uri / "MANIFEST.json"
    card = json.loads((manifest.parent / "config.json").read_text())
    assert made.model is not None
    assert made.model.digest == made.model.cited_digest == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert (made.model.version, str(made.model.cutoff)) == (1, card["cutoff"])
    assert (made.model.config_hash, made.model.data_versions) == (card["config_hash"], card["data_versions"])


def test_features_and_bars_are_told_at_the_versions_cited(sold: Workspace) -> None:
    intent = intents(sold)[0]
    made, day = lineage.explain(sold, intent.client_order_id), date(2025, 6, 9)
    decision = decision_of(sold, intent)
    assert made.features is not None
    assert made.features.features_version == decision.features_version
    assert made.features.tables["bars"] == sold.tables.version("bars")
    bars = sold.tables.read("bars").filter(pl.col("symbol") == intent.symbol, pl.col("session") <= day)
    (link,) = made.bars
    assert link.read_by == ("features", "decision")
    assert (link.rows, link.first) == (len(bars), bars["session"].min())
    assert link.bar is not None
    assert link.bar.close == bars.filter(pl.col("session") == day)["close"].item() == intent.reference_price


def test_a_link_that_is_gone_is_named_and_the_others_are_told(changeable: Workspace) -> None:
    ws = changeable
    intent = intents(ws)[0]
    version = decision_of(ws, intent).features_version
    ws.store.delete(ws.path("features", "versions", f"{version}.json"))
    made = lineage.explain(ws, intent.client_order_id)
    assert made.features is None
    assert made.model is not None
    assert [link.read_by for link in made.bars] == [("decision",)]
    (note,) = made.notes
    assert version in note
    found = replay(ws, decision_of(ws, intent))
    assert found.decision.identical
    assert not found.confirmed
    assert version in found.forecasts.problem


# --- which order ------------------------------------------------------------------------------------------------------


def test_an_order_is_found_by_its_id_or_by_the_only_beginning(sold: Workspace) -> None:
    ledger = Ledger(sold.ledger_store())
    for intent in intents(sold):
        for given in (intent.client_order_id, intent.client_order_id[:12], intent.client_order_id[:6]):
            assert lineage.find_order(sold, ledger, given) == intent


def test_several_orders_that_begin_so_are_listed(sold: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *others = intents(sold)
    alike = replace(second, client_order_id=first.client_order_id[:10] + second.client_order_id[10:])
    monkeypatch.setattr(Ledger, "intents", lambda self, account: [first, alike, *others])
    ledger, begin = Ledger(sold.ledger_store()), first.client_order_id[:8]
    with pytest.raises(UnknownNameError, match=r"order \(2 ids begin so; give more characters\)") as raised:
        lineage.find_order(sold, ledger, begin)
    assert set(raised.value.allowed) == {first.client_order_id, alike.client_order_id}
    assert lineage.find_order(sold, ledger, alike.client_order_id[:12]) == alike


def test_an_unknown_order_lists_those_that_begin_most_like_it(sold: Workspace) -> None:
    ledger, known = Ledger(sold.ledger_store()), intents(sold)[3].client_order_id
    wrong = known[:9] + ("0" if known[9] != "0" else "1")
    with pytest.raises(UnknownNameError, match=f"Unknown order '{wrong}'") as raised:
        lineage.find_order(sold, ledger, wrong)
    assert raised.value.allowed[0] == known
    assert len(raised.value.allowed) == 5
    with pytest.raises(UnknownNameError, match="at least 6 characters"):
        lineage.find_order(sold, ledger, known[:5])


def test_a_market_without_orders_says_so(prepared: Workspace) -> None:
    with pytest.raises(NoDataError, match="has no order yet"):
        lineage.explain(prepared, "t12345678")


# --- computed again ---------------------------------------------------------------------------------------------------


def test_a_decision_comes_out_again_to_the_bit_and_its_forecasts_to_the_tolerance(sold: Workspace) -> None:
    for intent in (intents(sold)[0], intents(sold, session=WED)[0], intents(sold, "macd-confirmed")[0]):
        found = replay(sold, decision_of(sold, intent))
        assert found.decision.problem == found.forecasts.problem == ""
        assert found.decision.changed == ()
        assert found.confirmed
        assert found.forecasts.rows == 52  # 26 symbols that may be forecast, over two horizons
        assert found.forecasts.absolute is not None
        assert found.forecasts.absolute <= 1e-6
        assert {column.column for column in found.forecasts.columns} >= {*QUANTILE_COLUMNS, "score", "p_up", "low_90"}


def test_what_is_written_later_changes_neither_the_chain_nor_the_replay(changeable: Workspace) -> None:
    """Forecasts, bars, events and features of newer versions: a decision reads what it cites."""
    ws, intent = changeable, intents(changeable, "macd-confirmed")[0]
    before = lineage.explain(ws, intent.client_order_id)
    rewritten(ws, "forecasts", lambda frame: frame.with_columns(pl.col("score") * -1.0), date(2025, 6, 1))
    rewritten(ws, "bars", lambda frame: frame.with_columns(pl.col("close") * 3.0), date(2025, 5, 1))
    rewritten(ws, "corporate_actions", lambda frame: frame.clear(), None)
    negated = pl.col(HISTOGRAM) * -1.0
    rewritten(ws, table_name(FEATURES[HISTOGRAM].family), lambda frame: frame.with_columns(negated), date(2025, 5, 1))
    assert lineage.explain(ws, intent.client_order_id) == before
    found = replay(ws, decision_of(ws, intent))
    assert found.decision.difference is None
    assert found.confirmed


def test_a_changed_strategy_file_is_named_as_the_reason(changeable: Workspace) -> None:
    ws, decision = changeable, decision_of(changeable, intents(changeable, "mine")[0])
    write_own_strategy(ws, 5)
    found = check_decision(ws, decision)
    assert not found.identical
    assert found.difference is not None
    assert found.difference.what.startswith("the target of SIM")
    weights = {target.symbol: target.weight for target in decision.targets}
    symbol = found.difference.what.split()[-1]
    assert (
        (repr(weights[symbol]) in found.difference.frozen) if symbol in weights else found.difference.frozen == "none"
    )
    (reason,) = found.changed
    assert f"the file of strategy 'mine' was changed: config hash {decision.config_hash} then" in reason
    (ws.settings.var_dir / "configs" / "strategies" / "mine.yaml").unlink()
    gone = check_decision(ws, decision)
    assert "the file of strategy 'mine' cannot be read" in gone.changed[0]
    assert "Unknown strategy config 'mine'" in gone.problem


def test_changed_costs_are_named_as_the_reason(sold: Workspace) -> None:
    costs = sold.market.costs.model_copy(update={"slippage_bps": 30.0})
    other = open_workspace(sold.market.model_copy(update={"costs": costs}), sold.settings)
    found = check_decision(other, decision_of(sold, intents(sold)[0]))
    assert found.difference is not None
    assert found.difference.what.startswith("the order of SIM")
    assert ["the costs of market 'tiny' were changed" in reason for reason in found.changed] == [True]


def test_other_code_is_named_also_where_it_changes_nothing(sold: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage_replay, "code_version", lambda: "9.9.9")
    decision = decision_of(sold, intents(sold)[0])
    found = check_decision(sold, decision)
    assert found.identical
    assert found.changed == (f"the code is another version: {decision.code_version} then, 9.9.9 now",)


def test_one_bit_is_a_difference(sold: Workspace) -> None:
    decision = decision_of(sold, intents(sold)[0])
    again = deciding.decide(sold, inputs_of(decision))
    assert first_difference(decision, again) is None
    first, *others = decision.targets
    moved = replace(first, weight=nextafter(first.weight, 1.0))
    found = first_difference(replace(decision, targets=(moved, *others)), again)
    assert found is not None
    assert (found.what, repr(moved.weight) in found.frozen) == (f"the target of {first.symbol}", True)
    sequence = first_difference(replace(decision, orders=decision.orders[::-1]), again)
    assert sequence is not None
    assert sequence.what == "the sequence of each order"
    missing = first_difference(replace(decision, orders=decision.orders[1:]), again)
    assert missing is not None
    assert (missing.what, missing.frozen) == (f"the order of {decision.orders[0].symbol} (buy)", "none")


def test_what_the_risk_rules_cut_is_kept_and_comes_out_again(sold: Workspace) -> None:
    intent = intents(sold, "mine")[0]
    made = lineage.explain(sold, intent.client_order_id)
    (verdict,) = made.risk
    assert (verdict.verdict, verdict.rule, verdict.allowed) == ("clip", "max_order_notional", intent.quantity)
    assert verdict.planned > intent.quantity
    assert intent.quantity * intent.reference_price == pytest.approx(100_000.0, rel=1e-6)
    assert "may not exceed 100,000" in verdict.reason
    assert check_decision(sold, decision_of(sold, intent)).identical


def _stored(ws: Workspace, decision: Decision, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Decision:
    """The decision after its document was changed in the store, as nothing of the program would."""
    store, pk, sk = ws.ledger_store(), f"account#{decision.account}", f"decision#{decision.session.isoformat()}"
    found = store.find(pk, sk)
    assert found is not None
    assert store.replace(pk, sk, change(dict(found.doc)), found.version)
    changed = Ledger(store).get_decision(decision.account, decision.session)
    assert changed is not None
    return changed


LATER_FIELDS = {
    "holdings", "first_decision", "bars_version", "actions_version", "quarantine_version", "columns_version",
    "forecasts_digest", "risk",
}  # fmt: skip


def test_a_decision_of_an_older_version_is_told_and_not_recomputed(changeable: Workspace) -> None:
    ws = changeable
    intent = intents(ws)[0]
    older = _stored(ws, decision_of(ws, intent), lambda doc: {k: v for k, v in doc.items() if k not in LATER_FIELDS})
    made = lineage.explain(ws, intent.client_order_id)
    assert made.risk == ()
    assert made.forecasts is not None
    assert (made.forecasts.frozen_digest, made.forecasts.changed) == ("", False)
    assert ["frozen by an older version" in note for note in made.notes] == [True]
    found = replay(ws, older)
    assert found.decision.problem == "this decision was frozen by an older version; it cannot be recomputed"
    assert found.forecasts.agrees  # they are stored all the same
    assert not found.confirmed


def test_forecasts_that_are_not_those_frozen_are_told(changeable: Workspace) -> None:
    ws = changeable
    intent = intents(ws)[0]
    changed = _stored(ws, decision_of(ws, intent), lambda doc: {**doc, "forecasts_digest": "0" * 64})
    made = lineage.explain(ws, intent.client_order_id)
    assert made.forecasts is not None
    assert made.forecasts.changed
    (reason,) = check_decision(ws, changed).changed
    assert reason.startswith(f"the stored forecasts were changed: sha256 {'0' * 64} then")


def test_a_model_whose_bundle_was_changed_is_not_believed(changeable: Workspace) -> None:
    ws = changeable
    weights = Path(ws.settings.artifacts) / ws.registry().get("tiny").bundle_uri / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    found = replay(ws, decision_of(ws, intents(ws)[0]))
    assert found.decision.identical
    assert "weights.safetensors" in found.forecasts.problem
    assert not found.confirmed


def test_forecasts_from_other_features_do_not_agree(changeable: Workspace) -> None:
    """The record under the features version is made to name a table whose values were negated."""
    ws, decision = changeable, decision_of(changeable, intents(changeable)[0])
    values = pl.col(pl.Float32) * -1.0
    rewritten(ws, "features_returns", lambda frame: frame.with_columns(values.cast(pl.Float32)), None)
    path = ws.path("features", "versions", f"{decision.features_version}.json")
    record = ws.store.read_json(path)
    ws.store.write_json(path, {**record, "tables": {**record["tables"], "features_returns": 1}})
    found = replay(ws, decision)
    assert found.decision.identical
    assert not found.forecasts.agrees
    assert found.forecasts.absolute is not None
    assert found.forecasts.absolute > 1e-6
    assert not found.confirmed


def test_an_order_of_a_flatten_was_asked_for_by_a_person(ws: Workspace) -> None:
    evening = NOW.replace(day=16)
    live = traded(ws, MON).account
    backfilled(ws, MON, MON, now=evening)
    controls.act(ws, "flatten", live, "enough", by="test", now=evening)
    ledger = Ledger(ws.ledger_store())
    order = next(found for found in ledger.intents(live) if found.strategy == "flatten")
    made = lineage.explain(ws, order.client_order_id)
    assert (made.forecasts, made.model, made.bars) == (None, None, ())
    assert ["A person closed the account (flatten)" in note for note in made.notes] == [True]
    found = replay(ws, decision_of(ws, order))
    assert found.decision.problem == found.forecasts.problem == lineage_replay.BY_HAND
    assert order.client_order_id == client_order_id(live, "flatten", order.session, order.symbol, Side.SELL)


# --- forecasts against forecasts --------------------------------------------------------------------------------------


def day_of(sold: Workspace) -> pl.DataFrame:
    return sold.tables.read("forecasts").filter(pl.col("session") == TUE).sort("symbol", "horizon")


def moved(frame: pl.DataFrame, column: str, row: int, value: float | None) -> pl.DataFrame:
    values = frame[column].to_list()
    return frame.with_columns(pl.Series(column, [*values[:row], value, *values[row + 1 :]], dtype=pl.Float64))


def test_the_largest_differences_are_found(sold: Workspace) -> None:
    stored = moved(day_of(sold), "score", 4, 0.002)
    near = compare_forecasts(stored, moved(stored, "score", 4, 0.002 + 5e-7).reverse())
    assert near.agrees
    assert near.absolute == pytest.approx(5e-7, rel=1e-6)
    assert near.relative == pytest.approx(2.5e-4, rel=1e-6)
    far = compare_forecasts(stored, moved(moved(stored, "score", 4, 0.002 + 3e-6), "p_up", 7, stored["p_up"][7] + 2e-6))
    worst = max(far.columns, key=lambda column: column.absolute)
    assert (far.agrees, worst.column, worst.symbol) == (False, "score", stored["symbol"][4])
    assert far.absolute == pytest.approx(3e-6, rel=1e-6)
    assert compare_forecasts(moved(stored, "score", 4, 0.0), moved(stored, "score", 4, 1e-9)).relative == inf


@pytest.mark.parametrize("value", [None, nan])
def test_a_value_that_only_one_has_is_infinitely_far(sold: Workspace, value: float | None) -> None:
    stored = day_of(sold)
    found = compare_forecasts(stored, moved(stored, "q50", 3, value))
    assert (found.agrees, found.absolute) == (False, inf)
    assert compare_forecasts(moved(stored, "q50", 3, value), moved(stored, "q50", 3, value)).agrees


def test_rows_that_only_one_has_are_named(sold: Workspace) -> None:
    stored = day_of(sold)
    found = compare_forecasts(stored, stored[1:])
    assert (found.agrees, found.absolute) == (False, 0.0)
    assert found.problem == f"1 row(s) are stored alone: {stored['symbol'][0]} over 1"
    assert "2 row(s) are new" in compare_forecasts(stored[2:], stored).problem
    assert not compare_forecasts(stored, stored.clear()).agrees


def test_intervals_alone_are_told_apart(sold: Workspace) -> None:
    stored = day_of(sold)
    found = compare_forecasts(stored, moved(stored, "high_90", 0, stored["high_90"][0] + 1.0))
    assert not found.agrees
    assert "only the intervals differ" in found.problem


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def trading(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`trading(ws, *arguments)`: exit code, stdout, stderr."""
    monkeypatch.setattr(cli, "_now", lambda: NOW)
    monkeypatch.setenv("TRADING_MARKET", "tiny")

    def run(ws: Workspace, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("TRADING_VAR_DIR", str(ws.settings.var_dir))
        monkeypatch.setattr(sys, "argv", ["trading", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run


Trading = Callable[..., tuple[int, str, str]]


def test_explain_prints_the_chain_in_order_with_its_hashes(sold: Workspace, trading: Trading) -> None:
    intent = intents(sold)[0]
    made = lineage.explain(sold, intent.client_order_id)
    code, out, _ = trading(sold, "explain", intent.client_order_id[:10], "--replay")
    assert code == 0
    names = [line.split()[0] for line in out.splitlines() if line and not line.startswith(" ")]
    assert names == LINKS
    assert made.decision is not None
    assert made.forecasts is not None
    assert made.model is not None
    assert made.features is not None
    digests = [
        made.decision.digest,
        made.forecasts.digest,
        made.model.digest,
        made.features.digest,
        made.bars[0].digest,
    ]
    assert [digest for digest in digests if f"sha256 {digest}" not in out] == []
    assert "the decision is bit-identical" in out
    assert "the forecasts agree to 1e-6: 52 rows" in out


def test_explain_gives_json_and_exits_with_1_where_something_differs(changeable: Workspace, trading: Trading) -> None:
    ws, key = changeable, intents(changeable, "mine")[0].client_order_id
    code, out, _ = trading(ws, "explain", key, "--json")
    plain = json.loads(out)
    assert (code, plain["replay"], plain["confirmed"]) == (0, None, None)
    assert plain["lineage"]["order"]["intent"]["client_order_id"] == key
    write_own_strategy(ws, 5)
    code, out, _ = trading(ws, "explain", key, "--replay", "--json")
    again = json.loads(out)
    assert (code, again["confirmed"], again["replay"]["decision"]["identical"]) == (1, False, False)
    assert again["replay"]["forecasts"]["agrees"]
    assert again["lineage"] == plain["lineage"]
    code, out, _ = trading(ws, "explain", key, "--replay")
    assert code == 1
    assert "the decision DIFFERS, first in the target of SIM" in out
    assert "may be why: the file of strategy 'mine' was changed" in out


def test_explain_refuses_an_order_nobody_knows(sold: Workspace, trading: Trading) -> None:
    code, out, err = trading(sold, "explain", "tnothing")
    assert (code, out) == (2, "")
    assert "Unknown order 'tnothing'" in err
