"""Model versions of a market: listing, promotion, and whether one of them is fit to be used again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from trading_core import config
from trading_core.calibration.thresholds import ThresholdChoice
from trading_core.config import ModelConfig
from trading_core.errors import StorageError
from trading_core.features import build as features
from trading_core.pipelines.workspace import Workspace
from trading_core.registry.mlflow_registry import ModelVersion
from trading_core.schema import BUNDLE_FORMAT

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


def reusable_version(ws: Workspace, model: str, now: datetime) -> ReusableModel | None:
    """The newest version trained with today's config and formulas and a recent cut-off; None when there is none.

    Its bundle is opened and verified: a corrupted one is not taken again.
    """
    if not _registry_exists(ws):
        return None
    chosen = config.load_model(model, ws.settings)
    for version in reversed(versions(ws)):
        if version.model == model and version.candidate and _is_fit(ws, version, chosen, now):
            reason = f"same configuration, cut-off {version.cutoff}"
            return ReusableModel(version.model, version.version, version.cutoff, reason)
    return None


def _is_fit(ws: Workspace, version: ModelVersion, chosen: ModelConfig, now: datetime) -> bool:
    if not bundle_is_whole(ws, version):
        return False
    card = ws.store.read_json(f"{ws.store.path_of(version.bundle_uri)}/config.json")
    age = len(ws.sessions.between(version.cutoff, ws.last_session(now))) - 1
    return (
        card["config_hash"] == config.config_hash(chosen)
        and card["fingerprints"] == features.fingerprints(chosen.features)
        and all(ThresholdChoice.from_json(text).cost_bps == ws.costs.total_bps for text in _thresholds(card))
        and age <= ws.market.test_sessions + FRESH_SESSIONS
    )


def _thresholds(card: Mapping[str, Any]) -> list[str]:
    return [text for texts in card["thresholds"].values() for text in texts]


def bundle_is_whole(ws: Workspace, version: ModelVersion) -> bool:
    """Whether all files of a version's bundle are there, are what was registered, and are of the format that is read."""
    try:
        published = ws.store.open_published(ws.store.path_of(version.bundle_uri), version.digest)
        files = {name: published.read(name) for name in published.names}
        return bool(json.loads(files["config.json"])["format_version"] == BUNDLE_FORMAT)
    except (StorageError, KeyError, TypeError, ValueError):
        return False


def _registry_exists(ws: Workspace) -> bool:
    """Whether there is a registry to ask: a fresh SQLite file is not created by a question."""
    prefix = "sqlite:///"
    if not ws.settings.mlflow_uri.startswith(prefix):
        return True
    from pathlib import Path

    return Path(ws.settings.mlflow_uri[len(prefix) :]).is_file()
