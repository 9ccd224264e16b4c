"""The store in memory obeys the contract of the real ones, and its faults are what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from memory_store import AFTER, BEFORE, MemoryStore

from trading_core.errors import LedgerUnreachableError
from trading_core.execution.store import DocumentStore, Key, NewDocument


def contract() -> ModuleType:
    """The contract suite, as a module of its own, that opens our store again by handing it back."""
    path = Path(__file__).resolve().parents[1] / "contracts" / "test_document_store_contract.py"
    spec = importlib.util.spec_from_file_location("contract_for_memory", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.reopened = lambda store, request: store  # type: ignore[attr-defined]
    return module


CONTRACT = contract()
CASES = sorted(
    name
    for name, case in vars(CONTRACT).items()
    if name.startswith("test_") and {"documents"} <= set(case.__annotations__) <= {"documents", "request", "return"}
)


@pytest.fixture
def documents() -> DocumentStore:
    return MemoryStore()


@pytest.mark.parametrize("case", CASES)
def test_it_keeps_the_contract(case: str, documents: DocumentStore, request: pytest.FixtureRequest) -> None:
    function = getattr(CONTRACT, case)
    given: dict[str, Any] = {"documents": documents, "request": request}
    function(**{name: given[name] for name in function.__annotations__ if name != "return"})


def test_there_are_cases() -> None:
    assert len(CASES) >= 8


def test_a_fault_before_writes_nothing_and_one_after_has_written() -> None:
    store = MemoryStore()
    for what, written in ((BEFORE, None), (AFTER, {"n": 1})):
        store.hook = lambda name, what=what: what  # type: ignore[misc]
        with pytest.raises(LedgerUnreachableError):
            store.transact_new([NewDocument("a", what, {"n": 1})], [Key("a", "other")])
        store.hook = lambda name: ""
        assert store.get("a", what) == written
    assert [(w.made, w.absent) for w in store.writes] == [((Key("a", AFTER),), (Key("a", "other"),))]
