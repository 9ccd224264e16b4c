"""A canary in every secret the platform knows: it must be found nowhere that a run of daily_trade leaves behind.

Every file of the installation is searched, byte by byte: Airflow's database (XCom, rendered templates, run conf, audit log),
MLflow's, the ledger, reports and tables; and all that was printed, which is the logs of tasks and callbacks. The runs use the
secrets: the broker's stand-in takes its keys and sends them back in an error, the webhook's address and DynamoDB's are dead.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import trading_site
from alpaca_trading_server import KEY_ID, SECRET_KEY
from trading_site import Scenario, Told

WHOLE = {"market": "tiny", "strategy": "whole-shares"}
S3_KEY, S3_SECRET, HOOK, PASSWORD = (
    "AKIACANARYOFSTHREE",
    "canary-of-s3-9f2c",
    "canary-of-hook-77aa",
    "canary-of-mlflow-31bd",
)
CONNECTIONS = {
    "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(
        {"conn_type": "aws", "login": "LOGINOFCANARY", "password": "canary-of-aws-5d0e"}
    ),
    "AIRFLOW_CONN_ALPACA_DEFAULT": json.dumps({"conn_type": "generic", "login": KEY_ID, "password": SECRET_KEY}),
}
SECRETS = {
    "TRADING_S3_ACCESS_KEY_ID": S3_KEY,
    "TRADING_S3_SECRET_ACCESS_KEY": S3_SECRET,
    "TRADING_ALERT_URL": f"http://127.0.0.1:9/services/{HOOK}",
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    **CONNECTIONS,
}
CANARIES = [S3_KEY, S3_SECRET, HOOK, PASSWORD, "LOGINOFCANARY", "canary-of-aws-5d0e", KEY_ID, SECRET_KEY]
NO_KEYS = {"TRADING_ALPACA_KEY_ID": "", "TRADING_ALPACA_SECRET_KEY": ""}  # then they come from the connection
NO_S3_KEYS = {"TRADING_S3_ACCESS_KEY_ID": "", "TRADING_S3_SECRET_ACCESS_KEY": ""}
DEAD_LEDGER = {"TRADING_LEDGER_URL": "dynamodb://canary", "TRADING_DYNAMODB_ENDPOINT_URL": "http://127.0.0.1:9"}
SCENARIOS = [
    Scenario("sent", WHOLE, server=True, env=NO_KEYS),
    # The broker answers the order with both keys in its words.
    Scenario("echoed", WHOLE, ledger="echoed", server=True, faults={"submit": "echo"}),
    Scenario("echoed at once", WHOLE, server=True, faults={"account": "echo"}),
    Scenario("no ledger", WHOLE, env={**DEAD_LEDGER, **NO_S3_KEYS}),
]


@dataclass(frozen=True)
class Left:
    folder: Path
    told: dict[str, Told]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("canary") / "site"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():  # the training has them in its environment too
            patch.setenv(name, value)
        trading_site.prepare(folder, **SECRETS)
    return Left(folder, trading_site.play(folder, SCENARIOS, **SECRETS))


pytestmark = [pytest.mark.airflow, pytest.mark.thorough, pytest.mark.timeout(2 * trading_site.PATIENCE_S)]


def spellings(secret: str) -> set[bytes]:
    """As it is, in a URL, and in JSON."""
    return {text.encode() for text in (secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1])}


def findings(content: bytes) -> list[str]:
    return [secret for secret in CANARIES if any(spelling in content for spelling in spellings(secret))]


def test_the_runs_came_to_where_the_secrets_are_used(left: Left) -> None:
    assert left.told["sent"].run == "success"
    assert len(left.told["sent"].posts) == 3  # with the keys of the connection: others are refused
    assert (left.told["echoed"].run, left.told["echoed"].tasks["buy"]) == ("success", "success")
    assert {order["status"] for order in left.told["echoed"].orders} == {"rejected"}
    for name in ("echoed at once", "no ledger"):
        assert (left.told[name].run, left.told[name].tasks["check"]) == ("failed", "failed")
    printed = (left.folder / "output.txt").read_text()
    assert "LedgerUnreachableError" in printed
    assert "bad header" in printed  # the broker's words, with something in place of the keys
    assert "The alert could not be sent to TRADING_ALERT_URL: ConnectError" in printed


def test_nothing_that_was_printed_holds_a_secret(left: Left) -> None:
    assert findings((left.folder / "output.txt").read_bytes()) == []


def test_no_file_holds_a_secret(left: Left) -> None:
    files = [path for path in left.folder.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"airflow.db", "mlflow.db", "ledger-sent.sqlite", "2025-06-16.html", "2025-06-16.json"} <= names
    found = {str(path.relative_to(left.folder)): findings(path.read_bytes()) for path in files}
    assert {name: secrets for name, secrets in found.items() if secrets} == {}


@pytest.mark.parametrize(
    "command", [["status"], ["executions", "list"], ["models", "list"], ["trade", "--replay", "x"]]
)
def test_no_command_prints_a_secret(left: Left, command: list[str]) -> None:
    ledger = f"sqlite:///{left.folder / 'var' / 'ledger-echoed.sqlite'}"
    found = trading_site.variables(left.folder / "airflow", left.folder / "var", **SECRETS, TRADING_LEDGER_URL=ledger)
    run = [sys.executable, "-m", "trading_core.cli", *command, "--json"]
    done = subprocess.run(run, env=found, capture_output=True, check=False, cwd=trading_site.REPOSITORY)
    assert done.stdout or done.stderr
    assert findings(done.stdout + done.stderr) == []


def test_the_search_finds_what_is_there() -> None:
    assert findings(b"key=canary%2Fsecret%2B0123456789abcdefABCDEF&x=1") == [SECRET_KEY]
    assert findings(b'{"url": "http://127.0.0.1:9/services/canary-of-hook-77aa"}') == [HOOK]
    assert findings(b"nothing") == []
