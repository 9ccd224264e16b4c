"""The pages of runs' reports, on an artifact folder: what is shown, how it is kept apart, what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from trading_core.config import Settings
from trading_core.errors import ArtifactMissingError, StoreUnreachableError, UriEscapeError
from trading_core.serving.reports import Page, open_store, run_page
from trading_core.storage.artifacts import ArtifactStore
from trading_core.storage.run_reports import FOLDER, note_report, run_key, run_reports

DAG, RUN = "evaluate_strategies", "manual__2026-11-30T21:20:53+00:00"
REPORT, HTML = "tiny/evaluations/abc/report.html", b"<!doctype html><title>Strategies</title>"
SECRET = b"of another market"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    found = open_store(Settings(var_dir=tmp_path))
    found.write_bytes(REPORT, HTML)
    found.write_bytes("other/report.html", SECRET)
    return found


def noted(store: ArtifactStore, path: str = REPORT, title: str = "Strategies on tiny", market: str = "tiny") -> str:
    return note_report(store, run_key(DAG, RUN), market, title, path).name


def policy(page: Page) -> dict[str, str]:
    """The directives of a page's Content-Security-Policy with their values."""
    parts = [part.strip().partition(" ") for part in page.headers["Content-Security-Policy"].split(";")]
    return {name: value for name, _, value in parts}


def test_the_key_of_a_run_is_that_of_its_dags_tasks() -> None:
    digest = hashlib.sha256(b"evaluate_strategies/manual__2026-11-30T21:20:53+00:00").hexdigest()
    assert run_key(DAG, RUN) == digest[:16]


def test_the_report_of_a_run_is_shown_as_it_was_written(store: ArtifactStore) -> None:
    noted(store)
    page = run_page(store, DAG, RUN)
    assert (page.status, page.body) == (200, HTML)
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"


def test_a_report_can_send_nothing_and_belongs_to_no_origin(store: ArtifactStore) -> None:
    noted(store)
    rules = policy(run_page(store, DAG, RUN))
    assert rules["default-src"] == "'none'"  # so that connect-src, frame-src and all others are none, too
    assert set(rules["script-src"].split()) == {"'unsafe-inline'"}
    assert not any(
        "http" in value or "*" in value or "'self'" in value for name, value in rules.items() if "-src" in name
    )
    assert "allow-same-origin" not in rules["sandbox"]
    assert rules["form-action"] == rules["base-uri"] == "'none'"
    assert rules["frame-ancestors"] == "'self'"


@pytest.mark.parametrize(
    ("dag_id", "text"),
    [
        (DAG, "so far"),
        ("daily_trade", "Its task settle puts it here"),
        ("controls", "A run of controls makes no report"),
    ],
)
def test_a_run_without_a_report_says_so(store: ArtifactStore, dag_id: str, text: str) -> None:
    page = run_page(store, dag_id, RUN)
    assert page.status == 404
    assert text in page.body.decode()
    assert policy(page)["default-src"] == "'none'"
    assert "script-src" not in policy(page)


def test_the_same_run_id_of_another_dag_is_another_run(store: ArtifactStore) -> None:
    noted(store)
    assert run_page(store, "train_model", RUN).status == 404


def test_several_reports_are_linked_and_opened_by_name(store: ArtifactStore) -> None:
    second = "tiny/evaluations/def/report.html"
    store.write_bytes(second, b"second")
    first_name, second_name = noted(store, title="B"), noted(store, second, title="A <script>alert(1)</script>")
    page = run_page(store, DAG, RUN)
    text = page.body.decode()
    assert page.status == 200
    assert "<script>" not in text
    assert text.index(f'href="?report={second_name}"') < text.index(f'href="?report={first_name}"')  # by title
    assert run_page(store, DAG, RUN, second_name).body == b"second"
    assert run_page(store, DAG, RUN, first_name).body == HTML


def test_a_repeated_task_replaces_its_note(store: ArtifactStore) -> None:
    noted(store)
    store.write_bytes(REPORT, b"again")
    assert run_page(store, DAG, RUN).status == 409  # not what was noted: shown only once it is
    noted(store)
    assert run_page(store, DAG, RUN).body == b"again"
    assert len(run_reports(store, run_key(DAG, RUN))) == 1


def test_a_deleted_report_is_missed(store: ArtifactStore) -> None:
    noted(store)
    store.delete(REPORT)
    page = run_page(store, DAG, RUN)
    assert page.status == 404
    assert "deleted" in page.body.decode()


def test_a_store_that_does_not_answer_is_no_missing_report(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: ArtifactStore, prefix: str = "") -> list[str]:
        raise StoreUnreachableError("s3://secret-bucket", "no route")

    monkeypatch.setattr(ArtifactStore, "list", refuse)
    page = run_page(store, DAG, RUN)
    assert page.status == 503
    assert b"secret-bucket" not in page.body


@pytest.mark.parametrize("name", ["../../other/report.html", "0" * 16, "%2e%2e", "x" * 5000])
def test_only_what_was_noted_can_be_asked_for(store: ArtifactStore, name: str) -> None:
    noted(store)
    page = run_page(store, DAG, RUN, name)
    assert page.status == 404
    assert name.encode() not in page.body


@pytest.mark.parametrize("run_id", ["../../other", "..", "/etc/passwd", "a\0b", "", "ü" * 300])
def test_a_run_id_is_no_path(store: ArtifactStore, run_id: str) -> None:
    noted(store)
    assert run_page(store, DAG, run_id).status == 404


def test_only_reports_below_the_markets_folder_are_noted(store: ArtifactStore) -> None:
    for market, path in (
        ("tiny", "other/report.html"),
        ("tiny", "tiny/../other/report.html"),
        ("..", "../report.html"),
    ):
        with pytest.raises(UriEscapeError):
            noted(store, path, market=market)
    store.write_bytes("tiny/card.json", b"{}")
    with pytest.raises(UriEscapeError):
        noted(store, "tiny/card.json")
    with pytest.raises(UriEscapeError):
        note_report(store, "../key", "tiny", "t", REPORT)
    with pytest.raises(ArtifactMissingError):
        noted(store, "tiny/evaluations/none/report.html")
    assert store.list(FOLDER) == []


FORGED: list[Any] = [
    {"path": "other/report.html"},
    {"path": "tiny/../other/report.html"},
    {"market": "..", "path": "../report.html"},
    {"market": "", "path": "/etc/hostname.html"},
    {"sha256": ""},
    {"title": None},
    {"more": "x"},
]


@pytest.mark.parametrize("change", FORGED, ids=[next(iter(c)) + str(n) for n, c in enumerate(FORGED)])
def test_a_forged_note_opens_nothing(store: ArtifactStore, change: dict[str, Any]) -> None:
    good = {"market": "tiny", "title": "t", "path": REPORT, "sha256": hashlib.sha256(HTML).hexdigest()}
    note = {**good, **change}
    name = hashlib.sha256(str(note["path"]).encode()).hexdigest()[:16]
    store.write_bytes(f"{FOLDER}/{run_key(DAG, RUN)}/{name}.json", json.dumps(note).encode())
    page = run_page(store, DAG, RUN)
    assert page.status == 409
    assert SECRET not in page.body


def test_a_note_under_another_name_opens_nothing(store: ArtifactStore) -> None:
    name = noted(store)
    folder = f"{FOLDER}/{run_key(DAG, RUN)}"
    store.write_bytes(f"{folder}/{'0' * 16}.json", store.read_bytes(f"{folder}/{name}.json"))
    assert run_page(store, DAG, RUN).status == 409
