"""Configuration: YAML files under `configs/` plus environment variables, validated, with wrong keys refused.

Four kinds of file: markets, models, strategies, and comparisons of models. A file's envelope is a pydantic model here;
the options of a source, architecture or strategy are validated by the frozen dataclass in that member's own file
(`parse_options`), so that a new member never touches this module. This module imports nothing heavy: DAG files read the
names of configs from it.

A config is named after its file. `configs/zoo` holds further models, one of each architecture, named with their folder
(`zoo/gru`), and comparisons, which are known by their key `models` and have no name: they are given as a file.

Environment: every field of `Settings` as `TRADING_<FIELD>` (for example `TRADING_ARTIFACTS_URL`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel

from trading_core.config.files import (
    NAME_PATTERN,
    ComparisonConfig,
    CostConfig,
    ExecutionConfig,
    MarketConfig,
    ModelConfig,
    QualityConfig,
    RiskConfig,
    SplitConfig,
    StrategyConfig,
    TargetName,
    UniverseConfig,
)
from trading_core.config.settings import PROJECT_ROOT, Settings, read_settings
from trading_core.config.validation import ModelT, parse_options, validate
from trading_core.errors import InvalidConfigError, MissingFileError, UnknownNameError, UnreadableFileError

__all__ = [
    "NAME_PATTERN", "PROJECT_ROOT", "ComparisonConfig", "CostConfig", "ExecutionConfig", "MarketConfig", "ModelConfig",
    "QualityConfig", "RiskConfig", "Settings", "SplitConfig", "StrategyConfig", "TargetName", "UniverseConfig",
    "parse_options", "read_settings", "validate",
]  # fmt: skip
Kind = Literal["markets", "models", "strategies"]
ZOO = "zoo"  # the folder of further model configs, and the first part of their names
_FILES: dict[Kind, type[BaseModel]] = {"markets": MarketConfig, "models": ModelConfig, "strategies": StrategyConfig}


def _folders(kind: Kind, settings: Settings) -> list[Path]:
    """Where configs of a kind live; markets added at run time (`trading market add`) lie under var/."""
    return [settings.config_dir / kind, settings.var_dir / "configs" / kind]


def _files(kind: Kind, settings: Settings) -> dict[str, Path]:
    """Every config of a kind by name; of two files of one name the repository's counts."""
    found: dict[str, Path] = {}
    for folder in _folders(kind, settings):
        found = {path.stem: path for path in folder.glob("*.yaml")} | found
    if kind == "models":
        zoo = (settings.config_dir / ZOO).glob("*.yaml")
        found |= {f"{ZOO}/{path.stem}": path for path in zoo if not is_comparison(path)}
    return found


def is_comparison(path: Path) -> bool:
    """Whether a file compares models: whether `models` is one of its keys. It is not parsed: DAG files ask at every parse."""
    return any(line.startswith("models:") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())


def names(kind: Kind, settings: Settings | None = None) -> list[str]:
    """The names of the configs of one kind, sorted: file names without `.yaml`; those of the zoo begin with `zoo/`."""
    return sorted(_files(kind, settings or read_settings()))


def path_of(kind: Kind, name: str, settings: Settings | None = None) -> Path:
    """The file of a config; `UnknownNameError` with the allowed names when there is none."""
    found = _files(kind, settings or read_settings())
    if name not in found:
        raise UnknownNameError(f"{kind[:-1] if kind != 'strategies' else 'strategy'} config", name, sorted(found))
    return found[name]


def load(kind: Kind, name: str, settings: Settings | None = None) -> Any:
    """The validated config of a kind by name: MarketConfig, ModelConfig or StrategyConfig."""
    return load_file(path_of(kind, name, settings), _FILES[kind])


def load_market(name: str, settings: Settings | None = None) -> MarketConfig:
    """A market by name. Its id is its file's name: two files with one id would share tables, models and accounts."""
    loaded: MarketConfig = load("markets", name, settings)
    require_own_id(loaded, name)
    return loaded


def require_own_id(market: MarketConfig, name: str) -> None:
    if market.id != name:
        raise InvalidConfigError(f"markets/{name}.yaml", [f"id: '{market.id}' must be the file's name, '{name}'"])


def load_model(name: str, settings: Settings | None = None) -> ModelConfig:
    return load("models", name, settings)


def load_model_file(path: Path, variant: str = "", settings: Settings | None = None) -> tuple[str, ModelConfig]:
    """A model config given as a file, and its name: that under which it is known, else its file's.

    `variant`: of a comparison, one of its models, which is named `<file>-<variant>`.
    Errors: those of `load_file`, UnknownNameError (variant), InvalidConfigError (a file name that is no name).
    """
    known = {file.resolve(): name for name, file in _files("models", settings or read_settings()).items()}
    name = known.get(path.resolve(), path.stem)
    if not re.fullmatch(r"(zoo/)?[a-z0-9][a-z0-9_-]{0,62}", name):
        allowed = "small letters, digits, - and _; the model is registered under it"
        raise InvalidConfigError(str(path), [f"the file's name '{name}' names the model: it may hold {allowed}"])
    if not path.is_file() or not is_comparison(path):
        if variant:
            raise InvalidConfigError(str(path), [f"variant: '{variant}' is asked for, but the file compares no models"])
        return name, load_file(path, ModelConfig)
    variants = load_file(path, ComparisonConfig).variants()
    if variant not in variants:
        raise UnknownNameError(f"model of the comparison '{name}'", variant, list(variants))
    return f"{name}-{variant}", variants[variant]


def load_strategy(name: str, settings: Settings | None = None) -> StrategyConfig:
    return load("strategies", name, settings)


def load_file(path: Path, model: type[ModelT]) -> ModelT:
    """Reads one YAML file into `model`. Errors: MissingFileError, UnreadableFileError, InvalidConfigError."""
    return validate(model, read_yaml(path), str(path))


def read_yaml(path: Path) -> Mapping[str, Any]:
    """The keys and values of one YAML file. Errors: MissingFileError, UnreadableFileError."""
    if not path.is_file():
        raise MissingFileError(str(path), "configuration file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UnreadableFileError(str(path), "YAML", str(error).replace("\n", " ")) from error
    if not isinstance(content, Mapping):
        raise UnreadableFileError(str(path), "a configuration", "it must be a mapping of keys to values")
    return content


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; dataclasses, pydantic models, dates and paths are written plainly."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def config_hash(value: Any, length: int = 12) -> str:
    """The first `length` hex digits of the SHA-256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, date | Path):
        return str(value)
    return value
