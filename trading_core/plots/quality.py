"""The report's section on the bars: what the quality gate has set aside, and what waits for a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from trading_core.plots import page

LISTED = 40  # rows that the section spells out


@dataclass(frozen=True, slots=True)
class CheckRow:
    """What one check has set aside: `rows` in all, of which `released` turned out genuine and `waiting` are open."""

    check: str
    rows: int
    released: int
    waiting: int


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A bar that waits for a person or an event, or whose next bar is not there yet."""

    symbol: str
    session: date
    check: str
    reason: str


@dataclass(frozen=True, slots=True)
class QualitySection:
    """`bars`: stored ones up to the end of the report. `notes`: what the gate cannot tell."""

    bars: int
    checks: tuple[CheckRow, ...]
    held: tuple[HeldRow, ...]
    notes: tuple[str, ...]


def quality_section(section: QualitySection) -> str:
    """The section as HTML; every text is escaped."""
    parts = [_checks(section.checks), _held(section.held)]
    parts.append(page.bullets(section.notes))
    return page.section("Quality of the bars", "".join(parts), page.escape(_lead(section)))


def _checks(checks: tuple[CheckRow, ...]) -> str:
    if not checks:
        return ""
    heads = (("", ""), ("Bars", "set aside"), ("Released", "turned out genuine"), ("Open", "nobody knows yet"))
    rows = "".join(
        f'<tr><th scope="row">{page.escape(c.check)}</th><td>{c.rows:,}</td><td>{c.released:,}</td>'
        f"<td>{c.waiting:,}</td></tr>"
        for c in checks
    )
    return page.table(heads, rows)


def _held(held: tuple[HeldRow, ...]) -> str:
    if not held:
        return ""
    heads = [(name, "") for name in ("", "Session", "Check", "")]
    rows = "".join(
        f'<tr><th scope="row">{page.escape(row.symbol)}</th><td>{row.session}</td><td>{page.escape(row.check)}</td>'
        f'<td class="note">{page.escape(row.reason)}</td></tr>'
        for row in held[:LISTED]
    )
    more = f"<p>and {len(held) - LISTED} more</p>" if len(held) > LISTED else ""
    return "<h3>Waiting for an answer (trading quality resolve)</h3>" + page.table(heads, rows) + more


def _lead(section: QualitySection) -> str:
    aside = sum(check.rows for check in section.checks)
    if aside == 0:
        return f"The quality gate has set none of {section.bars:,} bars aside."
    return f"Of {section.bars + aside:,} bars the quality gate has set {aside:,} aside, each on the session named."
