"""Validates configuration files to the last option: `trading config check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trading_core import config
from trading_core.config import MarketConfig, ModelConfig, Settings, StrategyConfig
from trading_core.errors import TradingError, UnknownNameError
from trading_core.market.registry import source_entry
from trading_core.pipelines.evaluate import build_strategy, risk_limits
from trading_core.pipelines.quality_gate import rules_of
from trading_core.pipelines.train import check_model_config
from trading_core.sessions import Sessions

KINDS: dict[str, type] = {"markets": MarketConfig, "models": ModelConfig, "strategies": StrategyConfig}


def check_file(path: Path, kind: str) -> None:
    """Raises the error of a file, if it has one. `kind`: the name of its folder."""
    loaded: object = config.load_file(path, KINDS[kind])
    where = f"'{path.stem}'"
    if isinstance(loaded, MarketConfig):
        config.require_own_id(loaded, path.stem)
        options = config.parse_options(
            source_entry(loaded.source).options, loaded.options, f"options of market {where}"
        )
        source_entry(loaded.source).build(options, loaded.calendar, loaded.interval)
        rules_of(loaded)
        Sessions(loaded.calendar).is_session(loaded.history_start)
    elif isinstance(loaded, ModelConfig):
        check_model_config(loaded, f"model {where}")
    elif isinstance(loaded, StrategyConfig):
        build_strategy(loaded, path.stem)
        risk_limits(loaded)


def check_all(settings: Settings, only: str | None = None) -> list[dict[str, Any]]:
    """One row per file: kind, file, valid, problem."""
    rows = []
    for kind, path in _files(settings, only):
        problem = ""
        try:
            check_file(path, kind)
        except (TradingError, ValueError) as error:
            problem = str(error)
        rows.append({"kind": kind, "file": str(path), "valid": not problem, "problem": problem})
    return rows


def _files(settings: Settings, only: str | None) -> list[tuple[str, Path]]:
    if only is not None:
        path = Path(only)
        kind = path.resolve().parent.name
        if kind not in KINDS:
            raise UnknownNameError("folder of configuration", kind, list(KINDS))
        return [(kind, path)]
    folders = [(kind, root / kind) for root in (settings.config_dir, settings.var_dir / "configs") for kind in KINDS]
    return [(kind, path) for kind, folder in folders for path in sorted(folder.glob("*.yaml"))]
