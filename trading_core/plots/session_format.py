"""Numbers, times and pieces of text on a session's page, as HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime

from trading_core.plots import page

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
LISTED = 120  # rows of a table; the JSON beside the page has all
DASH = "–"


def money(value: float) -> str:
    """1234.5 -> "1,234.50"; a dash where there is no number."""
    return f"{round(value, 2) + 0.0:,.2f}".replace("-", "−") if math.isfinite(value) else DASH


def gain(value: float) -> str:
    """As `money`, with a plus sign for a gain."""
    return f"+{money(value)}" if math.isfinite(value) and round(value, 2) > 0 else money(value)


def gain_percent(value: float, digits: int = 2) -> str:
    """0.0123 -> "+1.23 %"."""
    sign = "+" if math.isfinite(value) and round(100.0 * value, digits) > 0 else ""
    return f"{sign}{page.percent(value, digits)}"


def bps(value: float) -> str:
    """12.34 -> "+12.3": a cost is positive."""
    return f"{'+' if math.isfinite(value) and round(value, 1) > 0 else ''}{page.number(value, 1)}"


def shares(value: float) -> str:
    """Up to four digits after the point, none that say nothing."""
    if not math.isfinite(value):
        return DASH
    text = f"{round(value, 4) + 0.0:,.4f}".rstrip("0").rstrip(".")
    return text.replace("-", "−")


def price(value: float) -> str:
    return f"{value:,.4f}" if math.isfinite(value) else DASH


def dated(text: str) -> str:
    """A sentence as HTML whose dates stay on one line."""
    return _DATE.sub(r'<span class="date">\g<0></span>', page.escape(text))


def whole(value: int | None) -> str:
    return str(value) if value is not None else DASH


def moment(at: datetime | None) -> str:
    """In UTC, to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at is not None else DASH


def counted(count: int, one: str, many: str = "") -> str:
    """1 -> "1 order", 2 -> "2 orders"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(names: Sequence[str], limit: int = 12) -> str:
    """A list of names, cut with how many more there are."""
    head = ", ".join(names[:limit])
    return head if len(names) <= limit else f"{head} and {len(names) - limit} more"


def more(total: int) -> str:
    """The sentence under a table that was cut, as HTML; "" where none was."""
    left = total - LISTED
    return f'<p class="gaps">{counted(left, "more row")} in the JSON file beside this page.</p>' if left > 0 else ""


def facts(pairs: Sequence[tuple[str, str]], label: str) -> str:
    """(name, value) pairs as a grid. Values are text."""
    rows = "".join(f"<div><dt>{dated(name)}</dt><dd>{page.escape(value)}</dd></div>" for name, value in pairs if value)
    return f'<dl class="facts figures" aria-label="{page.escape(label)}">{rows}</dl>'


def folded(title: str, content: str) -> str:
    """content: HTML."""
    return f"<details><summary>{page.escape(title)}</summary>{content}</details>"
