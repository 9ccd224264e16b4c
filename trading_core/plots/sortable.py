"""Wide tables of a page: grouped columns, heads that sort (`page_scripts.SORT`), and what each column means below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from trading_core.plots import page

TALL = 16  # rows; a table with more scrolls within its own frame


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, what it means (a sentence), and the group that it stands in with its neighbours."""

    name: str
    meaning: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its name as HTML, one cell per column as HTML, and a class of the style sheet."""

    head: str
    cells: Sequence[str]
    kind: str = ""


def table(caption: str, first: Column, columns: Sequence[Column], rows: Sequence[Row], meanings: bool = True) -> str:
    """A table whose heads sort it. caption: what it shows, read aloud only; first: the column of the rows' names.

    meanings: list what the columns mean below, for those who cannot point at a head.
    """
    tall = " tall" if len(rows) > TALL else ""
    body = "".join(_row(row) for row in rows)
    listed = _meanings(columns) if meanings else ""
    return (
        f'<div class="scroll wide{tall}" tabindex="0" role="region" aria-label="{page.escape(caption)}">'
        f'<table class="sortable"><caption>{page.escape(caption)}</caption>{_frames(columns)}'
        f"<thead>{_groups(columns)}<tr>{_head(first)}{''.join(_head(c) for c in columns)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>{listed}"
    )


def _runs(columns: Sequence[Column]) -> list[tuple[str, int]]:
    return [(group, len(list(members))) for group, members in groupby(columns, key=lambda column: column.group)]


def _frames(columns: Sequence[Column]) -> str:
    """Where groups begin, for the line between them."""
    frames = "".join(f'<colgroup class="group" span="{count}"></colgroup>' for _, count in _runs(columns))
    return f"<colgroup></colgroup>{frames}"


def _groups(columns: Sequence[Column]) -> str:
    if not any(column.group for column in columns):
        return ""
    heads = "".join(
        f'<th scope="colgroup" colspan="{count}">{page.escape(group)}</th>' for group, count in _runs(columns)
    )
    return f'<tr class="groups"><td></td>{heads}</tr>'


def _head(column: Column) -> str:
    title = f' title="{page.escape(column.meaning)}"' if column.meaning else ""
    return f'<th scope="col" aria-sort="none"><button type="button"{title}>{page.escape(column.name)}</button></th>'


def _row(row: Row) -> str:
    kind = f' class="{row.kind}"' if row.kind else ""
    return f'<tr{kind}><th scope="row">{row.head}</th>{"".join(f"<td>{cell}</td>" for cell in row.cells)}</tr>'


def _meanings(columns: Sequence[Column]) -> str:
    items = "".join(
        f"<div><dt>{page.escape(f'{c.group}: {c.name}' if c.group and _twice(c, columns) else c.name)}</dt>"
        f"<dd>{page.escape(c.meaning)}</dd></div>"
        for c in columns
        if c.meaning
    )
    if not items:
        return ""
    return f'<details class="meanings"><summary>What the columns mean</summary><dl>{items}</dl></details>'


def _twice(column: Column, columns: Sequence[Column]) -> bool:
    return sum(other.name == column.name for other in columns) > 1
