"""The launcher's client of Airflow's API against a server that answers as Airflow does when its database is busy."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from launcher import airflow_api, environment
from launcher.airflow_api import AirflowApi, AirflowApiError
from trading_core.config import Settings

BUSY = {"detail": {"reason": "Database error", "statement": "INSERT ...", "orig_error": "database is locked"}}


class _Airflow(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[list[tuple[int, object]]] = []  # of /api/v2, in order; the last one stays
    seen: ClassVar[list[str]] = []
    errors: ClassVar[list[list[dict[str, str]]]] = []  # of imports, look by look

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/auth/token":
            return self._answer(201, {"access_token": "t"})
        self.seen.append(self.path)
        return self._answer(*(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]))

    def do_PUT(self) -> None:
        self.seen.append(self.path)
        self._answer(201, None)

    def do_GET(self) -> None:
        """A form that offers what was asked for once its file was parsed again, after one more look; import errors."""
        self.seen.append(self.path)
        if "importErrors" in self.path:
            return self._answer(200, {"import_errors": self.errors.pop(0) if self.errors else []})
        if self.path.startswith("/api/v2/dags?"):
            return self._answer(200, {"dags": [{"dag_id": "daily_trade"}]})
        enum = ["old", "new"] if len(self.seen) > 3 else ["old"]
        return self._answer(200, {"file_token": "f.t", "params": {"market": {"schema": {"enum": enum}}}})

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowApi]:
    monkeypatch.setattr(airflow_api.time, "sleep", lambda _: None)
    _Airflow.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Airflow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = environment.Installation(Settings(var_dir=tmp_path), server.server_port, 1)
    home.airflow_home.mkdir()
    yield AirflowApi(home)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("busy", [(500, BUSY), (503, {"detail": "try again"})])
def test_a_request_is_repeated_while_the_database_is_busy(api: AirflowApi, busy: tuple[int, object]) -> None:
    _Airflow.answers = [busy, busy, (200, {"dag_run_id": "manual__1"})]
    assert api.trigger("train_model", {}) == "manual__1"
    assert _Airflow.seen == ["/api/v2/dags/train_model/dagRuns"] * 3


def test_a_database_that_stays_busy_is_reported_with_what_airflow_said(api: AirflowApi) -> None:
    _Airflow.answers = [(500, BUSY)]
    with pytest.raises(AirflowApiError, match=r"HTTP 500: .*Database error.*database is locked"):
        api.trigger("train_model", {})
    assert len(_Airflow.seen) == airflow_api.ATTEMPTS


@pytest.mark.parametrize("status", [400, 409, 500])
def test_any_other_refusal_is_final(api: AirflowApi, status: int) -> None:
    _Airflow.answers = [(status, {"detail": "epochs: 0 is less than the minimum of 1"})]
    with pytest.raises(AirflowApiError, match=f"HTTP {status}: .*epochs"):
        api.trigger("train_model", {})
    assert len(_Airflow.seen) == 1


def test_a_choice_that_is_missing_is_asked_for_once(api: AirflowApi) -> None:
    api.wait_for_choice("train_model", "market", "new")
    look, ask = "/api/v2/dags/train_model/details", "/api/v2/parseDagFile/f.t"
    assert _Airflow.seen == [look, ask, look, look]


def test_a_choice_that_is_there_is_not_asked_for(api: AirflowApi) -> None:
    api.wait_for_choice("train_model", "market", "old")
    assert _Airflow.seen == ["/api/v2/dags/train_model/details"]


def test_an_import_error_of_before_a_file_was_mended_is_waited_out(api: AirflowApi) -> None:
    def error(at: datetime) -> dict[str, str]:
        return {"filename": "daily_trade.py", "stack_trace": "ImportError: x", "timestamp": at.isoformat()}

    _Airflow.errors = [[error(datetime(2026, 11, 30, tzinfo=UTC))]] * 2
    api.wait_for_dags(["daily_trade"])
    assert _Airflow.errors == []
    _Airflow.errors = [[error(datetime(2026, 11, 30, tzinfo=UTC))], [error(datetime.now(UTC) + timedelta(seconds=1))]]
    with pytest.raises(AirflowApiError, match=r"daily_trade\.py: ImportError: x"):
        api.wait_for_dags(["daily_trade"])
    _Airflow.errors = [[error(datetime(2026, 11, 30, tzinfo=UTC))]] * 3
    with pytest.raises(AirflowApiError, match="ImportError: x"):
        api.wait_for_dags(["daily_trade"], within_s=0)  # it stays
    _Airflow.errors = []


def test_airflows_database_is_a_file_of_its_own_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = environment.Installation(Settings(var_dir=tmp_path), 1, 2)
    home.airflow_home.mkdir()
    # Of another Airflow on this machine: its records are not ours to migrate.
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://another")
    monkeypatch.delenv("TRADING_SQLITE_GATE", raising=False)
    own = home.environment()
    assert own["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{tmp_path.resolve()}/airflow/airflow.db"
    assert own["TRADING_SQLITE_GATE"] == "1"
    monkeypatch.setenv("AIRFLOW_DATABASE_URL", "postgresql+psycopg2://me@127.0.0.1/airflow")
    monkeypatch.setenv("AIRFLOW_PARALLELISM", "16")
    named = home.environment()
    assert named["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql+psycopg2://me@127.0.0.1/airflow"
    assert named["AIRFLOW__CORE__PARALLELISM"] == "16"
    assert "TRADING_SQLITE_GATE" not in named
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS" not in named
