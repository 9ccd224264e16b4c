"""Damaged files, servers that do not answer, trainings that are cut off: said once and clearly, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_market import (
    MARKET,
    NOW,
    copy_of,
    forecast,
    rewritten,
    settings_of,
    traded,
    trained,
    tree,
    versions,
    write_market,
)

from trading_core.errors import (
    ArtifactCorruptedError,
    InvalidConfigError,
    LedgerUnreachableError,
    MissingFileError,
    StoreUnreachableError,
    TradingError,
    TrainingFailedError,
)
from trading_core.execution.ledger import Ledger
from trading_core.execution.paper import PaperBroker
from trading_core.pipelines import backfill, markets, train
from trading_core.pipelines.models import reusable_version
from trading_core.pipelines.workspace import Workspace, open_workspace

Refused = Callable[..., str]


# --- damaged files ----------------------------------------------------------------------------------------------------


def flipped(path: Path) -> None:
    """Turns one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def without_forecasts(ws: Workspace) -> None:
    rewritten(ws, "forecasts", lambda frame: frame.clear(), None)


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json", "MANIFEST.json"])
def test_a_damaged_bundle_is_refused_by_inference_and_by_trading(ws: Workspace, refused: Refused, name: str) -> None:
    without_forecasts(ws)
    (bundle,) = (ws.settings.var_dir / "artifacts" / MARKET / "models" / "linear").iterdir()
    flipped(bundle / name)
    text = [name, "is corrupted", "was refused and not used", "run the step that makes it again"]
    refused(ws.settings.var_dir, "ArtifactCorruptedError", text, "predict", "--market", MARKET)
    before = versions(ws)
    with pytest.raises(ArtifactCorruptedError):
        traded(ws, date(2025, 6, 13))
    assert versions(ws) == before
    ledger = Ledger(ws.ledger_store())
    for record in ledger.accounts():
        assert ledger.get_decision(record.account, date(2025, 6, 13)) is None
        assert ledger.orders(record.account, date(2025, 6, 13)) == []


def test_training_again_restores_a_damaged_bundle(ws: Workspace) -> None:
    """What the message advises: the same request gives the same bytes, so the version that cites them is whole again."""
    made = trained(ws, test_start=date(2025, 5, 1))
    ws.registry().promote(MARKET, made.version)
    flipped(Path(ws.store.uri(made.bundle)) / "weights.safetensors")
    other = reusable_version(ws, "linear", NOW)  # the undamaged version before it
    assert other is not None
    assert other.version != made.version
    with pytest.raises(ArtifactCorruptedError):
        forecast(ws)
    assert trained(ws, test_start=date(2025, 5, 1)).digest == made.digest
    assert forecast(ws).added > 0
    again = reusable_version(ws, "linear", NOW)
    assert again is not None
    assert again.version >= made.version
    assert traded(ws, date(2025, 6, 13)).status == "settled"


def test_a_bundle_that_is_gone_is_refused(ws: Workspace, refused: Refused) -> None:
    without_forecasts(ws)
    (Path(ws.store.uri(ws.registry().get(MARKET).bundle_uri)) / "MANIFEST.json").unlink()
    text = ["no artifact at", "MANIFEST.json", "run that step again"]
    refused(ws.settings.var_dir, "ArtifactMissingError", text, "predict", "--market", MARKET)


def test_other_formulas_than_the_models_are_refused(
    ws: Workspace, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trading_core.features import build

    without_forecasts(ws)
    now = build.fingerprints

    def other_rsi(names: Sequence[str]) -> dict[str, str]:
        return {**now(names), "rsi_14": "0" * 16}

    monkeypatch.setattr(build, "fingerprints", other_rsi)
    text = ["other formulas of: rsi_14", "Train a new version"]
    refused(ws.settings.var_dir, "FormulaMismatchError", text, "predict", "--market", MARKET)


@pytest.mark.parametrize("stage", ["bars", "features"])
def test_a_damaged_staged_file_is_refused_and_no_table_changes(ws: Workspace, stage: str) -> None:
    last = date(2025, 6, 13)
    plan = backfill.plan(ws, start=last, end=last, refresh=True, fill_gap=False, run_id="damaged", now=NOW)
    before = versions(ws)
    staged = [backfill.fetch(ws, plan, chunk, NOW) for chunk in plan.chunks]
    if stage == "features":
        staged = [backfill.compute(ws, plan, span, NOW) for span in plan.ranges]
    folder = ws.settings.var_dir / "artifacts" / staged[0].prefix
    flipped(sorted(folder.glob("*.parquet"))[0])
    step = backfill.check_and_store if stage == "bars" else backfill.publish
    with pytest.raises(
        ArtifactCorruptedError, match=r"\.parquet' is corrupted: .*SHA-256.*run the step that makes it again"
    ):
        step(ws, plan, staged, NOW)
    assert versions(ws) == before


def test_a_damaged_request_is_refused(ws: Workspace, refused: Refused) -> None:
    request = train.prepare(ws, model="linear", test_start=date(2025, 5, 1), now=NOW)
    path = Path(request.request_uri)
    path.write_text(path.read_text()[:-20])
    refused(
        ws.settings.var_dir,
        "ArtifactCorruptedError",
        ["request.json", "it is not JSON"],
        "train",
        "--request",
        str(path),
    )
    path.write_text(json.dumps({"market": {}}))
    refused(
        ws.settings.var_dir,
        "InvalidConfigError",
        ["request.json' ?is not valid|request.json is not valid"],
        "train",
        "--request",
        str(path),
    )
    outside = str(ws.settings.var_dir.parent / "request.json")
    refused(ws.settings.var_dir, "UriEscapeError", ["lies outside the artifact store"], "train", "--request", outside)


# --- what cannot be reached -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def closed() -> str:
    """The URL of a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_an_s3_that_does_not_answer_is_named(
    tmp_path: Path, refused: Refused, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    var = tmp_path / "var"
    write_market(var)
    for name, value in {
        "ARTIFACTS_URL": "s3://nowhere/trading",
        "S3_ENDPOINT_URL": closed,
        "S3_ACCESS_KEY_ID": "testing",
        "S3_SECRET_ACCESS_KEY": "a-secret-key",
    }.items():
        monkeypatch.setenv(f"TRADING_{name}", value)
    text = ["s3://nowhere/trading", "cannot be reached", "Check the URL, endpoint, credentials and network"]
    printed = refused(var, "StoreUnreachableError", text, "backfill", "--market", MARKET)
    assert "a-secret-key" not in printed


def test_no_order_is_sent_when_the_artifacts_cannot_be_reached(
    copied: Callable[..., Workspace], closed: str, sent: list[str]
) -> None:
    keys = {"s3_access_key_id": "testing", "s3_secret_access_key": "testing"}
    ws = copied(artifacts_url="s3://nowhere/trading", s3_endpoint_url=closed, **keys)
    with pytest.raises(StoreUnreachableError, match=r"'s3://nowhere/trading' cannot be reached"):
        traded(ws, date(2025, 6, 13))
    assert sent == []


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The symbols of all orders that reached a broker."""
    symbols: list[str] = []
    submit = PaperBroker.submit

    def noted(self: PaperBroker, order: Any) -> Any:
        symbols.append(order.symbol)
        return submit(self, order)

    monkeypatch.setattr(PaperBroker, "submit", noted)
    return symbols


def test_no_order_is_sent_when_the_ledger_cannot_be_reached(
    copied: Callable[..., Workspace], closed: str, sent: list[str], refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"s3_access_key_id": "testing", "s3_secret_access_key": "testing"}
    ws = copied(ledger_url="dynamodb://trading-ledger", dynamodb_endpoint_url=closed, **keys)
    with pytest.raises(
        LedgerUnreachableError, match=r"'dynamodb://trading-ledger' cannot be reached.*No order is sent"
    ):
        traded(ws, date(2025, 6, 13))
    for name, value in {"LEDGER_URL": "dynamodb://trading-ledger", "DYNAMODB_ENDPOINT_URL": closed}.items():
        monkeypatch.setenv(f"TRADING_{name}", value)
    monkeypatch.setenv("TRADING_S3_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("TRADING_S3_SECRET_ACCESS_KEY", "testing")
    text = ["No order is sent without it", "run the session again"]
    refused(ws.settings.var_dir, "LedgerUnreachableError", text, "trade", "--market", MARKET)
    assert sent == []


def test_a_ledger_that_is_lost_while_orders_are_sent_stops_the_session(
    ws: Workspace, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intent of the fourth order cannot be written, so the fourth order is not sent; the next run completes."""
    record = Ledger.record_intent

    def fail_at_the_fourth(self: Ledger, intent: Any) -> bool:
        if len(sent) == 3:
            raise LedgerUnreachableError("sqlite:///ledger", "disk I/O error")
        return record(self, intent)

    monkeypatch.setattr(Ledger, "record_intent", fail_at_the_fourth)
    with pytest.raises(LedgerUnreachableError):
        traded(ws, date(2025, 6, 13))
    assert len(sent) == 3
    monkeypatch.setattr(Ledger, "record_intent", record)
    result = traded(ws, date(2025, 6, 13))
    assert (result.status, result.orders, result.fills) == ("settled", 10, 10)
    assert len(sent) == len(set(sent)) == 10


def test_a_ledger_that_is_no_database_is_refused(ws: Workspace, sent: list[str], refused: Refused) -> None:
    (ws.settings.var_dir / "ledger.sqlite").write_bytes(b"this is no database" * 100)
    text = ["ledger.sqlite", "cannot be reached", "No order is sent"]
    refused(ws.settings.var_dir, "LedgerUnreachableError", text, "trade", "--market", MARKET, "--session", "2025-06-13")
    assert sent == []


def test_a_store_url_that_is_none_is_refused(tmp_path: Path) -> None:
    for url in ("ftp://host/folder", "s3://"):
        with pytest.raises(InvalidConfigError, match=r"neither a folder nor s3://bucket/prefix"):
            open_workspace("simulated", settings_of(tmp_path, artifacts_url=url))
    with pytest.raises(InvalidConfigError, match=r"sqlite:///path/of/file or dynamodb://table"):
        open_workspace("simulated", settings_of(tmp_path, ledger_url="postgres://x")).ledger_store()


# --- training that is interrupted -------------------------------------------------------------------------------------


@pytest.fixture
def lstm(ws: Workspace) -> str:
    """A small LSTM as a model config of the workspace."""
    values = yaml.safe_load((ws.settings.config_dir / "models" / "lstm.yaml").read_text())
    values |= {
        "architecture": {"hidden_size": 8, "layers": 1},
        "training": {"epochs": 2, "batches_per_epoch": 4, "dates_per_batch": 2},
        "encoder_length": 4,
    }
    folder = ws.settings.var_dir / "configs" / "models"
    folder.mkdir()
    (folder / "small-lstm.yaml").write_text(yaml.safe_dump(values))
    return "small-lstm"


def training_process(ws: Workspace, uri: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trading_core.cli", "train", "--request", uri]
    variables = {**os.environ, "TRADING_VAR_DIR": str(ws.settings.var_dir), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.thorough
def test_an_interrupted_training_registers_nothing_and_can_be_started_again(ws: Workspace, lstm: str) -> None:
    request = train.prepare(ws, model=lstm, test_start=None, now=NOW)
    before = tree(ws.settings.var_dir)
    process = training_process(ws, request.request_uri)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("epoch 1/2"):
            process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    assert any(line.startswith("epoch 1/2") for line in lines), lines
    assert [version.version for version in ws.registry().list(MARKET)] == [1]
    left = set(tree(ws.settings.var_dir)) - set(before)
    assert left <= {f"artifacts/tiny/training/{request.request_hash}/epochs/member-1.safetensors"}
    with pytest.raises(TrainingFailedError, match=r"left no result.*start it again with the same request"):
        train.outcome(ws, request)

    made = train.run(request.request_uri, ws.settings, NOW)
    assert not any("/epochs/" in path for path in tree(ws.settings.var_dir))
    assert (made.version, made.model, made.aliases) == (2, lstm, ("challenger",))
    assert forecast(ws, version="2", start=date(2025, 6, 13)).added > 0


def test_a_training_process_that_fails_says_why(ws: Workspace) -> None:
    request = train.prepare(ws, model="linear", test_start=date(2025, 5, 1), now=NOW)
    Path(request.request_uri).unlink()
    reason = r"(?s)ended with code 2.*ArtifactMissingError.*request\.json.*No model version was registered"
    with pytest.raises(TrainingFailedError, match=reason):
        train.run_in_process(request, ws.settings)


def test_a_training_that_dies_before_it_registers_leaves_the_champion_alone(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trading_core.registry.mlflow_registry import Registry

    def fail(*_: object, **__: object) -> None:
        raise StoreUnreachableError("sqlite:///mlflow.db", "disk full")

    monkeypatch.setattr(Registry, "register", fail)
    with pytest.raises(StoreUnreachableError):
        trained(ws, test_start=date(2025, 5, 1))
    monkeypatch.undo()
    assert [v.version for v in ws.registry().list(MARKET)] == [1]
    forecast(ws, start=date(2025, 6, 13))
    made = trained(ws, test_start=date(2025, 5, 1))
    assert (made.version, made.reused) == (2, False)


def test_a_missing_config_folder_is_no_traceback(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "var", config_dir=tmp_path / "nothing")
    with pytest.raises(TradingError, match="Unknown market config 'tiny'"):
        open_workspace(MARKET, settings)
    with pytest.raises(MissingFileError, match="no panel of bars"):
        markets.resolve("missing/bars.parquet", [], settings, NOW)


@pytest.mark.thorough
def test_a_training_that_was_killed_goes_on_and_ends_with_the_same_bundle(
    ws: Workspace, lstm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 between the epochs; the same request on another copy is never interrupted."""
    straight = copy_of(ws.settings.var_dir, ws.settings.var_dir.with_name("straight"))
    request = train.prepare(ws, model=lstm, test_start=None, epochs=8, now=NOW)
    process = training_process(ws, request.request_uri)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/8"):  # the first one has been kept
            process.kill()
    assert process.wait(60) == -signal.SIGKILL
    made = train.run(request.request_uri, ws.settings, NOW)
    assert "Going on after epoch" in capsys.readouterr().out
    again = train.prepare(straight, model=lstm, test_start=None, epochs=8, now=NOW)
    assert made.digest == train.run(again.request_uri, straight.settings, NOW).digest
