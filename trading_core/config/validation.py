"""Values of a file against the class that describes them: every problem named at once, wrong keys refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from trading_core.errors import InvalidConfigError

OptionsT = TypeVar("OptionsT")
ModelT = TypeVar("ModelT", bound=BaseModel)


class Strict(BaseModel):
    """A file's envelope: frozen, and no key but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validate(model: type[ModelT], values: Mapping[str, Any], where: str) -> ModelT:
    """`values` as `model`; `InvalidConfigError` names every wrong key and value, and the allowed keys."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidConfigError(where, _problems(error, tuple(model.model_fields))) from error


def parse_options(options_type: type[OptionsT], values: Mapping[str, Any], where: str) -> OptionsT:
    """`values` as the frozen dataclass `options_type`. Unknown keys are refused with the allowed ones named.

    Values are coerced as pydantic does (YAML's `1` is a float's 1.0); a dataclass that raises ValueError in
    `__post_init__` states its own bounds.
    """
    allowed = [f.name for f in dataclasses.fields(options_type)]  # type: ignore[arg-type]
    if problems := _unknown_keys(options_type, values):
        raise InvalidConfigError(where, problems)
    try:
        return TypeAdapter(options_type).validate_python(dict(values))
    except ValidationError as error:
        raise InvalidConfigError(where, _problems(error, tuple(allowed))) from error


def _unknown_keys(options_type: Any, values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keys that are no field, also inside fields that are dataclasses: pydantic skips them there without a word."""
    allowed = [f.name for f in dataclasses.fields(options_type)]
    known = ", ".join(allowed) or "(none)"
    problems = [f"{prefix}{key}: unknown key; allowed: {known}" for key in sorted(set(values) - set(allowed))]
    for name, kind in get_type_hints(options_type).items():
        if dataclasses.is_dataclass(kind) and isinstance(values.get(name), Mapping):
            problems += _unknown_keys(kind, values[name], f"{prefix}{name}.")
    return problems


def _problems(error: ValidationError, allowed: tuple[str, ...]) -> list[str]:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole)"
        if item["type"] == "extra_forbidden":
            known = f"; allowed: {', '.join(allowed)}" if len(item["loc"]) == 1 else ""
            lines.append(f"{key}: unknown key{known}")
        else:
            given = "" if item["type"] in ("missing", "dataclass_type") else f" (given: {item['input']!r})"
            lines.append(f"{key}: {item['msg']}{given}")
    return lines
