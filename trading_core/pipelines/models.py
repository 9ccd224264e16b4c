"""Model versions of a market: listing, promotion, and whether the champion is fit to be used again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from trading_core import config
from trading_core.errors import NoModelError, StorageError
from trading_core.features import build as features
from trading_core.pipelines.workspace import Workspace
from trading_core.registry.mlflow_registry import CHAMPION, ModelVersion

FRESH_SESSIONS = 63  # a model is taken again for a quarter beyond the market's test sessions


@dataclass(frozen=True, slots=True)
class ReusableModel:
    model: str
    version: int
    cutoff: date
    reason: str


def versions(ws: Workspace) -> list[ModelVersion]:
    """All versions of the market, oldest first."""
    return ws.registry().list(ws.market.id)


def promote(ws: Workspace, version: int) -> ModelVersion:
    """Makes a version the champion. Errors: NoModelError."""
    return ws.registry().promote(ws.market.id, version)


def reusable_champion(ws: Workspace, model: str, now: datetime) -> ReusableModel | None:
    """The champion, if it was trained with today's config and formulas and its cut-off is recent; else None.

    Its bundle is opened and verified: a corrupted one is not taken again.
    """
    if not _registry_exists(ws):
        return None
    try:
        champion = ws.registry().get(ws.market.id, CHAMPION)
    except NoModelError:
        return None
    chosen = config.load_model(model, ws.settings)
    if not bundle_is_whole(ws, champion):
        return None
    card = ws.store.read_json(f"{ws.store.path_of(champion.bundle_uri)}/config.json")
    same = card["config_hash"] == config.config_hash(chosen)
    same = same and card["fingerprints"] == features.fingerprints(chosen.features)
    age = len(ws.sessions.between(champion.cutoff, ws.last_session(now))) - 1
    if not same or age > ws.market.test_sessions + FRESH_SESSIONS:
        return None
    return ReusableModel(
        champion.model, champion.version, champion.cutoff, f"same configuration, cut-off {champion.cutoff}"
    )


def bundle_is_whole(ws: Workspace, version: ModelVersion) -> bool:
    """Whether all files of a version's bundle are there and are what was registered."""
    try:
        published = ws.store.open_published(ws.store.path_of(version.bundle_uri), version.digest)
        for name in published.names:
            published.read(name)
    except StorageError:
        return False
    return True


def _registry_exists(ws: Workspace) -> bool:
    """Whether there is a registry to ask: a fresh SQLite file is not created by a question."""
    prefix = "sqlite:///"
    if not ws.settings.mlflow_uri.startswith(prefix):
        return True
    from pathlib import Path

    return Path(ws.settings.mlflow_uri[len(prefix) :]).is_file()
