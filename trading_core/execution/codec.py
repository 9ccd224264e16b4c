"""Records <-> JSON documents, exactly: what is read back equals what was written, bit for bit, or an error is raised.

Supported fields: str, int, float, bool, date, aware datetime, StrEnum, nested dataclasses, `X | None`, `tuple[X, ...]`.
Dates are written as ISO text, datetimes in UTC, floats with the shortest text that reads back to the same 64 bits.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from trading_core.errors import ExecutionError

Document: TypeAlias = dict[str, Any]  # JSON values only; the record classes give it its shape
RecordT = TypeVar("RecordT")
_RESOLVED: dict[type, dict[str, Any]] = {}


@dataclass(eq=False)
class LedgerRecordError(ExecutionError):
    """A record that the ledger refuses to store or to read: wrong shape, or at odds with what is stored already."""

    what: str
    reason: str

    def __str__(self) -> str:
        way_out = "Nothing was written; correct the record, or look at the account's history first."
        return f"The ledger refuses {self.what}: {self.reason}. {way_out}"


def to_document(record: object) -> Document:
    """The fields of a record as JSON values. LedgerRecordError for a field of the wrong type or not finite."""
    name, hints = type(record).__name__, _hints(type(record))
    return {field: _encode(getattr(record, field), kind, f"{name}.{field}") for field, kind in hints.items()}


def from_document(record_type: type[RecordT], document: Mapping[str, Any]) -> RecordT:
    """The record a document holds. LedgerRecordError for missing, unknown or mistyped fields.

    A field with a default may be missing: the record was written before the field existed.
    """
    name, hints = record_type.__name__, _hints(record_type)
    fields = set(document) if isinstance(document, Mapping) else set()
    if not fields or not _required(typing.cast(Any, record_type)) <= fields <= set(hints):
        found = sorted(document) if isinstance(document, Mapping) else type(document).__name__
        raise LedgerRecordError(f"a {name}", f"its fields are {found}, expected {sorted(hints)}")
    return record_type(
        **{field: _decode(document[field], kind, f"{name}.{field}") for field, kind in hints.items() if field in fields}
    )


def to_json(document: Mapping[str, Any]) -> str:
    """Canonical JSON text (sorted keys, no spaces). LedgerRecordError for anything JSON cannot carry exactly."""
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise LedgerRecordError("a document", str(error)) from error


def _hints(record_type: type) -> dict[str, Any]:
    """The types of a record's fields; resolving them takes long, so each class is resolved once."""
    if record_type not in _RESOLVED:
        _RESOLVED[record_type] = _resolve(record_type)
    return _RESOLVED[record_type]


@functools.cache
def _required(record_type: Any) -> frozenset[str]:
    """The fields without a default."""
    missing = dataclasses.MISSING
    found = dataclasses.fields(record_type)
    return frozenset(f.name for f in found if f.default is missing and f.default_factory is missing)


def _resolve(record_type: type) -> dict[str, Any]:
    if not dataclasses.is_dataclass(record_type):
        raise LedgerRecordError(f"a {record_type.__name__}", "it is not a record dataclass")
    hints = typing.get_type_hints(record_type)
    return {field.name: hints[field.name] for field in dataclasses.fields(record_type)}


_origin = functools.cache(typing.get_origin)


@functools.cache
def _members(kind: Any) -> tuple[Any, bool]:
    """(the type without None, whether None is allowed)."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        inner = [member for member in typing.get_args(kind) if member is not type(None)]
        return inner[0], True
    return kind, False


def _encode(value: Any, kind: Any, where: str) -> Any:
    kind, optional = _members(kind)
    if value is None and optional:
        return None
    if _origin(kind) is tuple and isinstance(value, tuple):
        return [_encode(item, typing.get_args(kind)[0], f"{where}[{i}]") for i, item in enumerate(value)]
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(float(value), where)
    if kind is datetime and isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat()
    if kind is date and isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if isinstance(kind, type) and issubclass(kind, StrEnum) and isinstance(value, kind):
        return value.value
    if dataclasses.is_dataclass(kind) and type(value) is kind:
        return to_document(value)
    if kind in (str, bool, int) and type(value) is kind:
        return value
    raise LedgerRecordError(where, f"{value!r} is a {type(value).__name__}, expected {_name(kind)}")


def _decode(value: Any, kind: Any, where: str) -> Any:
    kind, optional = _members(kind)
    if value is None and optional:
        return None
    if _origin(kind) is tuple and isinstance(value, list):
        return tuple(_decode(item, typing.get_args(kind)[0], f"{where}[{i}]") for i, item in enumerate(value))
    if kind in (str, bool, int, float) and type(value) is kind:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return from_document(kind, value)
    if isinstance(value, str) and isinstance(kind, type):
        try:
            if issubclass(kind, date):  # datetime is a date
                return kind.fromisoformat(value)
            if issubclass(kind, StrEnum):
                return kind(value)
        except ValueError as error:
            raise LedgerRecordError(where, str(error)) from error
    raise LedgerRecordError(where, f"{value!r} is a {type(value).__name__}, expected {_name(kind)}")


def _finite(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise LedgerRecordError(where, f"{value} is not a finite number")
    return value


def _name(kind: Any) -> str:
    return "an aware datetime" if kind is datetime else getattr(kind, "__name__", str(kind))
