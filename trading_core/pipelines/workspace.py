"""A market opened for work: its configuration, artifact store, tables and calendar. Where configuration stops."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from trading_core.config import MarketConfig, Settings, load_market, parse_options, read_settings
from trading_core.costs import CostModel
from trading_core.market.registry import source_entry
from trading_core.market.source import Source
from trading_core.sessions import Sessions
from trading_core.storage.artifacts import ArtifactStore, StorageOptions
from trading_core.storage.tables import Tables

if TYPE_CHECKING:
    from trading_core.execution.store import DocumentStore
    from trading_core.registry.mlflow_registry import Registry


@dataclass(frozen=True, slots=True)
class Workspace:
    """Everything an operation on one market needs. Opening it does no network I/O."""

    settings: Settings
    market: MarketConfig
    store: ArtifactStore
    tables: Tables
    sessions: Sessions

    @property
    def costs(self) -> CostModel:
        return CostModel(**self.market.costs.model_dump())

    def path(self, *parts: str) -> str:
        """A path in the artifact store under this market's prefix."""
        return "/".join((self.market.id, *parts))

    def source(self) -> Source:
        """The market's data source, with its options validated."""
        entry = source_entry(self.market.source)
        options = parse_options(entry.options, self.market.options, f"options of market '{self.market.id}'")
        return entry.build(options, self.market.calendar, self.market.interval)

    def last_session(self, now: datetime) -> date:
        """The newest session this market can have a bar of: closed by `now`, and not after the end of its history."""
        last = self.sessions.last_closed(now)
        end = self.market.history_end
        return min(last, end) if end else last

    def registry(self) -> Registry:
        """The MLflow registry of models (imports MLflow on first use)."""
        from trading_core.registry.mlflow_registry import Registry

        return Registry(self.settings.mlflow_uri, self.settings.mlflow_artifacts)

    def ledger_store(self) -> DocumentStore:
        """The documents behind ledger and paper broker: SQLite or DynamoDB."""
        from trading_core.execution.store import LedgerOptions, open_store

        settings = self.settings
        options = LedgerOptions(
            endpoint_url=settings.dynamodb_endpoint_url or None,
            region=settings.dynamodb_region,
            access_key_id=_plain(settings.s3_access_key_id),
            secret_access_key=_plain(settings.s3_secret_access_key),
        )
        return open_store(settings.ledger, options)


def open_workspace(market: str | MarketConfig, settings: Settings | None = None) -> Workspace:
    """The workspace of a market by name, or of a configuration that travelled with a request."""
    settings = settings or read_settings()
    config = load_market(market, settings) if isinstance(market, str) else market
    store = ArtifactStore.open(settings.artifacts, storage_options(settings))
    return Workspace(settings, config, store, Tables(store, config.id), Sessions(config.calendar))


def storage_options(settings: Settings) -> StorageOptions:
    return StorageOptions(
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        access_key_id=_plain(settings.s3_access_key_id),
        secret_access_key=_plain(settings.s3_secret_access_key),
    )


def _plain(secret: object) -> str | None:
    return secret.get_secret_value() if secret is not None else None  # type: ignore[attr-defined]
