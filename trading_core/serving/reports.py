"""The pages that Airflow shows of a run: its HTML report, or a sentence that says why there is none.

What is answered is decided here; plugins/reports.py only puts it behind Airflow's login. A report runs scripts, and so it is sent
with rules that keep it apart from the page it is shown in: no request leaves it, and it belongs to no origin, so that its scripts
cannot act as the reader.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from trading_core.config import Settings, read_settings
from trading_core.errors import ArtifactMissingError, StorageError, StoreUnreachableError
from trading_core.storage.artifacts import ArtifactStore, StorageOptions
from trading_core.storage.run_reports import RunReport, run_key, run_reports

# DAGs, and the task that notes the report.
REPORTING = {"evaluate_strategies": "compare", "train_model": "register", "daily_trade": "settle"}
# `sandbox` without allow-same-origin: the document gets an origin of its own, also where a reader opens it outside of Airflow.
REPORT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts allow-modals"
)
PLAIN_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_STYLE = (
    ":root { color-scheme: light dark } body { font: 16px/1.55 system-ui, sans-serif; max-width: 46rem; "
    "margin: 3rem auto; padding: 0 1.25rem } h1 { font-size: 1.3rem } li + li { margin-top: .5rem }"
)


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP answer: status, HTML as UTF-8, and the headers that belong to it."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def open_store(settings: Settings | None = None) -> ArtifactStore:
    """The artifact store of these settings (default: the environment's). Errors: InvalidConfigError; nothing is read yet."""
    settings = settings or read_settings()
    key, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    options = StorageOptions(
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        access_key_id=key.get_secret_value() if key else None,
        secret_access_key=secret.get_secret_value() if secret else None,
    )
    return ArtifactStore.open(settings.artifacts, options)


def run_page(store: ArtifactStore, dag_id: str, run_id: str, name: str = "") -> Page:
    """What there is to see of an Airflow run: its report, or links to its reports where it has made several.

    name: which of them, see storage.run_reports.RunReport.name. 404: the run has noted no report, or none of that name;
    409: it is not what the run wrote any more; 503: the store does not answer.
    """
    try:
        found = run_reports(store, run_key(dag_id, run_id))
        chosen = [report for report in found if name in ("", report.name)]
        if not chosen:
            return _sentence(404, _why_none(dag_id, name))
        if len(chosen) > 1:
            return _links(chosen)
        body = store.read_bytes(chosen[0].path, chosen[0].sha256)
    except ArtifactMissingError:
        return _sentence(404, "The report of this run has been deleted from the artifact store.")
    except StoreUnreachableError:
        return _sentence(503, "The artifact store does not answer. The report is shown once it does.")
    except StorageError:
        # Its message names places in the store: it belongs in the server's log, if anywhere.
        return _sentence(409, "What lies in the report's place is not what this run wrote: it was replaced since.")
    return Page(200, body, _headers(REPORT_POLICY))


def _why_none(dag_id: str, name: str) -> str:
    if name:
        return "This run has made no report of that name."
    if dag_id in REPORTING:
        return f"This run of {dag_id} has no report so far. Its task {REPORTING[dag_id]} puts it here when it succeeds."
    *others, last = REPORTING
    return f"A run of {dag_id} makes no report to look at; those of {', '.join(others)} and {last} do."


def _links(reports: Sequence[RunReport]) -> Page:
    items = "".join(f'<li><a href="?report={report.name}">{html.escape(report.title)}</a></li>' for report in reports)
    return _plain(200, f"<h1>Reports of this run</h1><ul>{items}</ul>")


def _sentence(status: int, text: str) -> Page:
    return _plain(status, f"<p>{html.escape(text)}</p>")


def _plain(status: int, content: str) -> Page:
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Report</title>'
        f"<style>{_STYLE}</style></head><body>{content}</body></html>"
    )
    return Page(status, page.encode(), _headers(PLAIN_POLICY))


def _headers(policy: str) -> Mapping[str, str]:
    return MappingProxyType(
        {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "private, no-store",  # of who is logged in, and a cleared run writes another one
        }
    )
