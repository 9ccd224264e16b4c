"""Credentials from Airflow connections: only where the environment has none, only for whom they are, never shown.

Airflow itself is a stub here; that a real connection is found, test_train_on_kubernetes shows with `aws_default`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

RUNTIME = Path(__file__).resolve().parents[2] / "dags" / "runtime.py"


class NotFound(Exception):
    """Stands for AirflowNotFoundException."""


@dataclass
class Airflow:
    """The connections there are, and which ones were asked for."""

    connections: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    runtime: Any = None

    def get_connection(self, name: str) -> Any:
        self.asked.append(name)
        if name not in self.connections:
            raise NotFound(name)
        return self.connections[name]


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Airflow:
    for name in [name for name in os.environ if name.startswith("TRADING_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRADING_VAR_DIR", str(tmp_path))
    made = Airflow({"alpaca_default": SimpleNamespace(login="PKOFCONNECTION", password="secret-of-connection")})
    sdk, exceptions = ModuleType("airflow.sdk"), ModuleType("airflow.sdk.exceptions")
    sdk.__dict__.update(Param=None, get_current_context=None, BaseHook=made)
    exceptions.__dict__.update(AirflowNotFoundException=NotFound)
    for module in (ModuleType("airflow"), sdk, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = importlib.util.spec_from_file_location("runtime_under_test", RUNTIME)
    assert spec is not None
    assert spec.loader is not None
    made.runtime = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made.runtime)
    return made


def test_the_alpaca_broker_finds_its_keys_in_the_connection(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    for broker in ("alpaca", "alpaca-live"):
        monkeypatch.setenv("TRADING_BROKER", broker)
        found = airflow.runtime.settings()
        keys = (found.alpaca_key_id.get_secret_value(), found.alpaca_secret_key.get_secret_value())
        assert keys == ("PKOFCONNECTION", "secret-of-connection")
        assert "secret-of-connection" not in repr(found)
        assert found.real_money == ""  # a connection is no switch
    assert airflow.asked == ["alpaca_default", "alpaca_default"]


def test_keys_of_the_environment_win_and_are_never_mixed(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADING_BROKER", "alpaca")
    monkeypatch.setenv("TRADING_ALPACA_KEY_ID", "PKOFENVIRONMENT")
    found = airflow.runtime.settings()
    assert (found.alpaca_key_id.get_secret_value(), found.alpaca_secret_key) == ("PKOFENVIRONMENT", None)
    assert airflow.asked == []


def test_without_the_broker_or_the_connection_nothing_changes(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert airflow.runtime.settings().alpaca_key_id is None
    assert airflow.asked == []
    airflow.connections.clear()
    monkeypatch.setenv("TRADING_BROKER", "alpaca")
    assert airflow.runtime.settings().alpaca_key_id is None
