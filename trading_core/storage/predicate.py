"""Which rows of a table are meant, said once for delta-rs (SQL), pyarrow (reading) and polars (checking)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

import polars as pl

from trading_core.errors import InvalidDateRangeError, WrongTypeError

if TYPE_CHECKING:
    import pyarrow.compute as pc

SESSION, MONTH = "session", "month"


@dataclass(frozen=True, slots=True)
class Predicate:
    """Rows of a table: sessions `start` .. `end` (both included, None = open) and exact values of further columns.

    `Predicate()` names every row. InvalidDateRangeError when start > end.
    """

    start: date | None = None
    end: date | None = None
    equals: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, day in (("start", self.start), ("end", self.end)):
            if day is not None and (isinstance(day, datetime) or not isinstance(day, date)):
                raise WrongTypeError("The predicate", name, type(day).__name__, "a date")
        if self.start and self.end and self.start > self.end:
            raise InvalidDateRangeError(self.start, self.end, "the start lies after the end")
        for column, value in self.equals.items():
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise WrongTypeError("The predicate", column, type(value).__name__, "a string or an integer")

    @property
    def columns(self) -> tuple[str, ...]:
        return (*((SESSION, MONTH) if self.start or self.end else ()), *self.equals)

    def terms(self) -> list[tuple[str, str, str | int | date]]:
        """(column, operator, value), all of which must hold; the month first, so that whole partitions are skipped."""
        found: list[tuple[str, str, str | int | date]] = []
        for operator, day in ((">=", self.start), ("<=", self.end)):
            if day is not None:
                found += [(MONTH, operator, f"{day.year:04d}-{day.month:02d}"), (SESSION, operator, day)]
        return found + [(column, "=", value) for column, value in self.equals.items()]

    def sql(self) -> str | None:
        """The predicate for delta-rs (DataFusion SQL: quotes are doubled, a backslash is a plain character)."""
        return " AND ".join(f"{_name(column)} {op} {_literal(value)}" for column, op, value in self.terms()) or None

    def arrow(self) -> pc.Expression | None:
        """The predicate as a pyarrow expression, for reading."""
        import pyarrow.compute as pc

        found: pc.Expression | None = None
        for column, op, value in self.terms():
            left, right = pc.field(column), pc.scalar(value)
            if isinstance(value, str) and column != MONTH:
                left = left.cast("string")  # files hold string views, which pyarrow cannot compare; partitions are none
            term = left >= right if op == ">=" else left <= right if op == "<=" else left == right
            found = term if found is None else found & term
        return found

    def polars(self) -> pl.Expr:
        """The predicate as a polars expression; null where a column is null."""
        terms = [
            pl.col(column) >= value
            if op == ">="
            else pl.col(column) <= value
            if op == "<="
            else pl.col(column) == value
            for column, op, value in self.terms()
        ]
        return pl.all_horizontal(terms) if terms else pl.lit(True)


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _literal(value: str | int | date) -> str:
    if isinstance(value, date):
        return f"CAST('{value.isoformat()}' AS DATE)"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
