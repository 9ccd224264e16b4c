"""Validates configuration files to the last option: `trading config check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trading_core import config
from trading_core.config import ComparisonConfig, MarketConfig, ModelConfig, Settings, StrategyConfig
from trading_core.errors import TradingError, UnknownNameError
from trading_core.market.registry import source_entry
from trading_core.pipelines.evaluate import build_strategy, risk_limits
from trading_core.pipelines.quality_gate import rules_of
from trading_core.pipelines.train import check_model_config
from trading_core.sessions import Sessions

KINDS: dict[str, type] = {"markets": MarketConfig, "models": ModelConfig, "strategies": StrategyConfig}
# Folders of files of several kinds: in the zoo the keys say which, a template is named after its kind.
TEMPLATES: dict[str, type] = {
    "market": MarketConfig,
    "model": ModelConfig,
    "strategy": StrategyConfig,
    "comparison": ComparisonConfig,
}
FOLDERS = (*KINDS, config.ZOO, "templates")


def check_file(path: Path, folder: str) -> None:
    """Raises the error of a file, if it has one. `folder`: of FOLDERS."""
    loaded: object = config.load_file(path, _kind_of(path, folder))
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
    elif isinstance(loaded, ComparisonConfig):
        Sessions(loaded.calendar).is_session(loaded.start)
        for name, variant in loaded.variants().items():
            check_model_config(variant, f"model '{name}' of {where}")
    elif isinstance(loaded, StrategyConfig):
        build_strategy(loaded, path.stem)
        risk_limits(loaded)


def _kind_of(path: Path, folder: str) -> type:
    """Errors: UnknownNameError for a template that is named after no kind."""
    if folder == config.ZOO:
        return ComparisonConfig if path.is_file() and config.is_comparison(path) else ModelConfig
    if folder == "templates" and path.stem not in TEMPLATES:
        raise UnknownNameError("kind of template", path.stem, list(TEMPLATES))
    return TEMPLATES[path.stem] if folder == "templates" else KINDS[folder]


def check_all(settings: Settings, only: str | None = None) -> list[dict[str, Any]]:
    """One row per file: kind (its folder), file, valid, problem."""
    rows = []
    for folder, path in _files(settings, only):
        problem = ""
        try:
            check_file(path, folder)
        except (TradingError, ValueError) as error:
            problem = str(error)
        rows.append({"kind": folder, "file": str(path), "valid": not problem, "problem": problem})
    return rows


def _files(settings: Settings, only: str | None) -> list[tuple[str, Path]]:
    """(folder, file) of all files, or of one."""
    if only is not None:
        path = Path(only)
        folder = path.resolve().parent.name
        if folder not in FOLDERS:
            raise UnknownNameError("folder of configuration", folder, list(FOLDERS))
        return [(folder, path)]
    found = [(name, settings.config_dir / name) for name in FOLDERS]
    found += [(kind, settings.var_dir / "configs" / kind) for kind in KINDS]
    return [(name, path) for name, folder in found for path in sorted(folder.glob("*.yaml"))]
