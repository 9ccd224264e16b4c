"""Validates configuration files to the last option: `trading config check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trading_core import config
from trading_core.config import ComparisonConfig, MarketConfig, ModelConfig, Settings, StrategyConfig
from trading_core.errors import InvalidConfigError, TradingError
from trading_core.market.registry import source_entry
from trading_core.pipelines.quality_gate import rules_of
from trading_core.pipelines.strategies import gate_limits, risk_limits, strategy_params
from trading_core.pipelines.train import check_model_config
from trading_core.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file. key: which only files of this kind have."""

    name: str
    key: str
    type: type


KINDS = (
    Kind("market", "source", MarketConfig),
    Kind("model", "model", ModelConfig),
    Kind("strategy", "strategy", StrategyConfig),
    Kind("comparison", "models", ComparisonConfig),
)
# Folders of one kind; the zoo, the templates and any other folder have files of several.
OF_FOLDER = {"markets": KINDS[0], "models": KINDS[1], "strategies": KINDS[2]}
FOLDERS = (*OF_FOLDER, config.ZOO, "templates")


def kind_of(path: Path) -> Kind:
    """By the folder that a file lies in, else by its keys. Errors: those of `config.read_yaml`, InvalidConfigError."""
    folder = path.resolve().parent.name
    if folder in OF_FOLDER:
        return OF_FOLDER[folder]
    keys = config.read_yaml(path)
    found = [kind for kind in KINDS if kind.key in keys]
    if len(found) != 1:
        allowed = ", ".join(f"`{kind.key}` (a {kind.name})" for kind in KINDS)
        raise InvalidConfigError(
            str(path), [f"one key says what a file is about: {allowed}; this has {len(found)} of them"]
        )
    return found[0]


def check_file(path: Path, kind: Kind) -> None:
    """Raises the error of a file, if it has one."""
    loaded: object = config.load_file(path, kind.type)
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
        strategy_params(loaded, path.stem)
        risk_limits(loaded)
        gate_limits(loaded, path.stem)


def check_all(settings: Settings, only: str | None = None) -> list[dict[str, Any]]:
    """One row per file, or of the one file `only`, which may lie anywhere: kind, file, valid, problem."""
    rows = []
    for path in _files(settings) if only is None else [Path(only)]:
        kind, problem = "", ""
        try:
            found = kind_of(path)
            kind = found.name
            check_file(path, found)
        except (TradingError, ValueError) as error:
            problem = str(error)
        rows.append({"kind": kind, "file": str(path), "valid": not problem, "problem": problem})
    return rows


def _files(settings: Settings) -> list[Path]:
    folders = [settings.config_dir / name for name in FOLDERS]
    folders += [settings.var_dir / "configs" / name for name in OF_FOLDER]
    return [path for folder in folders for path in sorted(folder.glob("*.yaml"))]
