"""What every DAG file shares: form fields, defaults, and the bridge from Airflow connections to settings.

Nothing heavy is imported at module level; the task bodies import `trading_core.pipelines` when they run.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, get_current_context

from trading_core import config

if TYPE_CHECKING:
    from trading_core.pipelines.workspace import Workspace

SETTINGS = config.read_settings()
DEFAULT_ARGS = {
    "owner": "trading",
    "retries": 2,
    "retry_delay": timedelta(seconds=10),
    "execution_timeout": timedelta(minutes=30),
}
LONG_ARGS = {**DEFAULT_ARGS, "execution_timeout": timedelta(hours=2)}  # of what reads or writes years of forecasts
DATE_HELP = "YYYY-MM-DD; empty for the default"


def market_param() -> Param:
    """The market a run works on: one of `configs/markets`, or one added by `trading market add`."""
    return name_param("markets", SETTINGS.market, "Market", "Scopes tables, models and accounts.")


def name_param(kind: config.Kind, default: str, title: str, description: str) -> Param:
    """A choice among the config files of one kind. A default that is none of them is an import error, never another one."""
    config.path_of(kind, default, SETTINGS)
    return Param(default, type="string", enum=config.names(kind, SETTINGS), title=title, description=description)


def date_param(title: str, description: str) -> Param:
    return Param(None, type=["null", "string"], format="date", title=title, description=f"{description} {DATE_HELP}.")


def version_param(description: str) -> Param:
    """A model version of the run's market; `description`: what is done with it."""
    return Param(
        "champion",
        type="string",
        pattern=r"^(champion|challenger|[1-9][0-9]*)$",
        title="Model version",
        description=f"{description} champion, challenger or a version number.",
    )


def form() -> dict[str, Any]:
    """The run's form. Airflow takes unknown keys in a run's conf without a word; here they fail the run at once."""
    from airflow.sdk.exceptions import AirflowFailException

    context = get_current_context()
    known = list(context["dag"].params)
    unknown = sorted(set(context["dag_run"].conf or {}) - set(known))
    if unknown:
        raise AirflowFailException(
            f"Unknown key(s) in the run's conf: {', '.join(unknown)}. Allowed: {', '.join(known)}."
        )
    return dict(context["params"])


def workspace(market: str | None = None) -> Workspace:
    """The workspace of this run's market (from its form unless given)."""
    from trading_core.pipelines.workspace import open_workspace

    return open_workspace(market or get_current_context()["params"]["market"], settings())


def settings() -> config.Settings:
    """Settings from the environment; where credentials are not set there, those of S3 come from the Airflow connection
    `aws_default`, those of the broker Alpaca from `alpaca_default`."""
    return _with_alpaca_keys(_with_aws_keys(config.read_settings()))


def _with_alpaca_keys(found: config.Settings) -> config.Settings:
    if not found.broker.startswith("alpaca") or found.alpaca_key_id is not None or found.alpaca_secret_key is not None:
        return found
    connection = _connection("alpaca_default")
    if connection is None:
        return found
    keys = {"alpaca_key_id": _secret(connection.login), "alpaca_secret_key": _secret(connection.password)}
    return found.model_copy(update=keys)


def _with_aws_keys(found: config.Settings) -> config.Settings:
    import os

    uses_aws = found.artifacts.startswith("s3://") or found.ledger.startswith("dynamodb://")
    if not uses_aws or found.s3_access_key_id is not None or os.environ.get("AWS_ACCESS_KEY_ID"):
        return found
    connection = _connection("aws_default")
    if connection is None:
        return found  # then boto3's own chain applies (instance role, profile)
    extra = connection.extra_dejson
    endpoint = extra.get("endpoint_url") or ""
    return found.model_copy(
        update={
            "s3_access_key_id": _secret(connection.login),
            "s3_secret_access_key": _secret(connection.password),
            "s3_endpoint_url": found.s3_endpoint_url or endpoint,
            "dynamodb_endpoint_url": found.dynamodb_endpoint_url or endpoint,
            "s3_region": extra.get("region_name") or found.s3_region,
        }
    )


def _connection(name: str) -> Any:
    """An Airflow connection, or None where there is none of that name."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None


def _secret(value: str | None) -> Any:
    from pydantic import SecretStr

    return SecretStr(value) if value else None


def now() -> datetime:
    """The clock is read here, at the edge, and handed on as an argument."""
    return datetime.now(UTC)


def parse_date(value: str | None) -> date | None:
    return date.fromisoformat(value) if value else None


def partition_session() -> date | None:
    """The session this run is partitioned by, if any."""
    return parse_date(get_current_context()["dag_run"].partition_key)


def run_type() -> str:
    """scheduled, manual, backfill or asset_triggered."""
    return str(getattr(get_current_context()["dag_run"].run_type, "value", get_current_context()["dag_run"].run_type))


def triggered_by() -> str:
    """The name of the user who started this run, as Airflow knows it."""
    return getattr(get_current_context()["dag_run"], "triggering_user_name", None) or "somebody"


def safe_run_id() -> str:
    """The run's id as a path-safe token, unique per DAG run."""
    import hashlib

    context = get_current_context()
    text = f"{context['dag_run'].dag_id}/{context['dag_run'].run_id}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def triggering_extras(asset_name: str) -> list[dict[str, Any]]:
    """The `extra` of each asset event that started this run, oldest first; empty for a manual run."""
    events = get_current_context().get("triggering_asset_events") or {}
    found = []
    for asset, received in events.items():
        if asset.name == asset_name:
            found += [dict(event.extra) for event in received]
    return found
