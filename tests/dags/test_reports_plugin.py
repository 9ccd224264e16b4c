"""The plugin that shows reports, as an app of its own: nobody is answered before the guard, and what is answered is the page.

That Airflow's login is the guard, and that Airflow shows the page, tests/e2e/test_e2e_2_main_job.py sees in a running Airflow.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from airflow_env import PLUGINS, airflow_environment
from fastapi import FastAPI, HTTPException, Request

from trading_core.config import Settings
from trading_core.serving.reports import open_store
from trading_core.storage.run_reports import note_report, run_key

Ask = Callable[..., httpx.Response]
RUN = "manual__2026-11-30T21:20:53.058606+00:00"
KNOWN = {"Authorization": "Bearer known"}
PAGE = f"/trading/report/train_model/{quote(RUN, safe='')}"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The plugin's module; Airflow is imported with a home of its own, and the environment is put back."""
    before, path = dict(os.environ), list(sys.path)
    os.environ.update(airflow_environment(tmp_path_factory.mktemp("airflow")))
    sys.path.insert(0, str(PLUGINS))
    found = importlib.import_module("reports")
    os.environ.clear()
    os.environ.update(before)
    sys.path[:] = path
    return found


@pytest.fixture
def ask(plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Asks a server with the app where Airflow mounts it, and a guard that knows one user of one DAG."""
    monkeypatch.setenv("TRADING_VAR_DIR", str(tmp_path))
    monkeypatch.delenv("TRADING_ARTIFACTS_URL", raising=False)

    def guard(request: Request) -> None:
        if request.headers.get("authorization") != "Bearer known":
            raise HTTPException(401, "Not authenticated")
        if request.path_params["dag_id"] != "train_model":
            raise HTTPException(403, "Forbidden")

    server = FastAPI()
    (mounted,) = plugin.ReportsPlugin.fastapi_apps
    monkeypatch.setattr(plugin, "made", lambda app=plugin.build(guard): app)
    server.mount(mounted["url_prefix"], mounted["app"])

    async def request(path: str, headers: dict[str, str], method: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url="http://server") as http:
            return await http.request(method, path, headers=headers)

    def ask(path: str, headers: dict[str, str] = KNOWN, method: str = "GET") -> httpx.Response:
        return asyncio.run(request(path, headers, method))

    return ask


def test_a_report_is_shown_to_who_may_see_the_dag_and_to_nobody_else(ask: Ask, tmp_path: Path) -> None:
    store = open_store(Settings(var_dir=tmp_path))
    store.write_bytes("tiny/training/abc/report.html", b"<title>linear on tiny</title>")
    note_report(store, run_key("train_model", RUN), "tiny", "Training", "tiny/training/abc/report.html")
    found = ask(PAGE)
    assert (found.status_code, found.content) == (200, b"<title>linear on tiny</title>")
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in found.headers["content-security-policy"]
    assert ask(PAGE, {}).status_code == 401
    assert ask(PAGE.replace("train_model", "daily_trade")).status_code == 403
    assert ask(f"{PAGE}?report={'0' * 16}").status_code == 404


def test_a_run_without_a_report_is_answered_with_a_sentence(ask: Ask) -> None:
    found = ask(PAGE)
    assert found.status_code == 404
    assert "no report so far" in found.text
    assert ask(PAGE, {}).status_code == 401  # who is not logged in does not learn even that


@pytest.mark.parametrize("path", ["/trading/", "/trading/report/train_model", f"{PAGE}/more", "/trading/docs"])
def test_there_is_no_other_page(ask: Ask, path: str) -> None:
    assert ask(path).status_code == 404


def test_nothing_can_be_changed(ask: Ask) -> None:
    assert {ask(PAGE, method=method).status_code for method in ("POST", "PUT", "DELETE")} == {405}
