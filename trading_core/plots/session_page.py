"""The page of one trading session: what a person reads in the evening. One small HTML file, no request leaves it.

What it shows is in `session_data.py`; the tables are in `session_tables.py`. Every text that comes from data is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence

from trading_core.plots import page, page_scripts, page_style, session_drawings, session_tables, sortable
from trading_core.plots import session_format as f
from trading_core.plots.session_data import AccountFacts, EventRow, PositionRow, SessionPage, Standing
from trading_core.plots.sortable import Column, Row

STYLE = """
.pill { display: inline-block; font-size: 0.8rem; font-weight: 650; padding: 3px 11px; border-radius: 999px;
  border: 1px solid var(--accent); color: var(--accent); background: var(--soft); margin-bottom: 8px; }
.pill.pending { border-color: var(--dim); color: var(--dim); background: none; }
.pill.person, .level.alert { border-color: var(--warn); color: var(--warn); background: var(--warnsoft); }
.verdict.person { border-left-color: var(--warn); background: var(--warnsoft); }
:root { --warn: #c2410c; --warnsoft: #fff4ec; }
@media (prefers-color-scheme: dark) { :root:not(.paper) { --warn: #fb923c; --warnsoft: #2c1d14; } }
.facts.figures { margin: 14px 0 16px; }
.verdict + .facts.figures { margin-top: 18px; }
figure.small { margin: 10px 0 14px; }
figure.small figcaption { color: var(--dim); font-size: 0.8rem; margin-top: 4px; }
svg.curve { display: block; width: 100%; height: 72px; }
svg.scatter { display: block; width: 100%; max-width: 620px; height: auto; }
svg.scatter line { stroke: var(--line); }
svg.scatter text { fill: var(--dim); font-size: 11px; }
svg.scatter circle { fill: none; stroke: var(--dim); stroke-width: 1.2; }
svg.scatter circle.held { fill: var(--accent); stroke: var(--card); }
.words td:last-child, .words th:last-child { text-align: left; white-space: normal; min-width: 270px; }
.bar { display: inline-block; height: 9px; border-radius: 3px; background: var(--accent); min-width: 1px; }
.bar.short { background: var(--warn); }
section > p:last-child { margin-bottom: 0; }
#account .wide td:last-child { text-align: left; min-width: 130px; }
code { font-size: 0.92em; }
pre { overflow-x: auto; background: var(--bg); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px;
  margin: 12px 0 0; font-size: 0.84rem; }
tr.alert th, tr.alert td { color: var(--warn); }
.level { font-size: 0.74rem; font-weight: 600; padding: 1px 8px; border-radius: 999px; border: 1px solid var(--line);
  color: var(--dim); }
.level.warning { color: var(--text); border-color: var(--dim); }
.when { white-space: nowrap; }
table.plain { max-width: 560px; }
table.plain th:first-child { font-weight: 500; }
table.plain tr:last-child > * { font-weight: 650; }
"""

_POSITIONS = (
    Column("Shares", "below 0 for a short"),
    Column("Paid", "average price per share, costs included"),
    Column("Close", "the last known"),
    Column("Value"),
    Column("Weight", "share of equity"),
    Column("Profit", "against what was paid, dividends left out"),
    Column(""),
)


def session_page(shown: SessionPage) -> bytes:
    """The page as UTF-8 HTML: well below 300 KB, light and dark as the reader's system is."""
    sections = [
        ("Status", _standing(shown)),
        ("Decision", session_tables.decision_section(shown)),
        ("Orders", session_tables.orders_section(shown)),
        ("Costs", session_tables.costs_section(shown)),
        ("Account", _account(shown.account)),
        ("Expected and realised", session_tables.outcome_section(shown)),
        ("Events", _events(shown.events)),
        ("Lineage", _lineage(shown)),
    ]
    body = "\n".join([_head(shown), _contents(sections), *(content for _, content in sections)])
    return page.document(title(shown), body, page_style.STYLE + STYLE, page_scripts.SORT, charts=False)


def title(shown: SessionPage) -> str:
    """What the page is called."""
    return f"Session {shown.head.session} of {shown.head.account}"


def _head(shown: SessionPage) -> str:
    head = shown.head
    facts = [
        ("Market", head.market),
        ("Account", f"{head.account} ({head.kind})"),
        ("Strategy", head.strategy),
        ("Traded session", f"{head.session}, opens {head.opens_at:%H:%M} UTC"),
        ("Decided on the close of", f"{head.decision_session}"),
        ("Session of the account", f"number {head.number}"),
        ("Decided at", f"{f.moment(head.decided_at)}{' UTC' if head.decided_at else ''}"),
        ("Page written", f"{f.moment(head.written_at)} UTC"),
    ]
    return page.header(title(shown), facts, "Whose session it is")


def _contents(sections: Sequence[tuple[str, str]]) -> str:
    """Links to the parts."""
    links = []
    for name, content in sections:
        anchor = content.partition('id="')[2].partition('"')[0]
        links.append(f'<a href="#{anchor}">{page.escape(name)}</a>')
    return f'<nav aria-label="Parts of the page">{"".join(links)}</nav>'


def _standing(shown: SessionPage) -> str:
    """Where the session stands in words, and the figures that matter."""
    standing, account = shown.standing, shown.account
    kinds = {Standing.PENDING: "pending", Standing.NEEDS_A_PERSON: "person"}
    kind = kinds.get(standing.standing, "")
    reasons = page.bullets(standing.reasons, f"verdict {kind}") if standing.reasons else ""
    done = sum(row.filled > 0 for row in shown.orders)
    change = f"{f.gain(account.change)} ({f.gain_percent(account.change_share)})" if account.before else ""
    figures = [
        ("Equity", f.money(account.equity)),
        (f"Change since {account.before}", change),
        ("Cash", f.money(account.cash)),
        ("Positions", str(len(account.positions))),
        ("Orders filled", f"{done} of {len(shown.orders)}" if shown.orders else ""),
        ("Turnover", page.percent(account.turnover) if shown.fills else ""),
        ("Cost of trading", f.money(shown.totals.shortfall.costs) if shown.totals else ""),
        ("Against the decision", f"{f.bps(shown.totals.decision_bps)}{page.NBSP}bps" if shown.totals else ""),
    ]
    content = (
        f'<span class="pill {kind}">{page.escape(standing.standing.value)}</span>'
        f'<p class="headline">{f.dated(standing.headline)}</p>{reasons}{f.facts(figures, "Figures of the session")}'
        f"{session_drawings.equity_line(account.curve)}"
    )
    return page.section("Where it stands", content, anchor="status")


def _account(account: AccountFacts) -> str:
    """Positions, and the way from the cash before to the cash now."""
    lead = page.escape(f"As of {account.as_of}.")
    if not account.positions:
        table = "<p>The account holds cash only.</p>"
    else:
        largest = max((abs(row.weight) for row in account.positions if row.weight == row.weight), default=0.0)
        rows = [Row(page.escape(row.symbol), _position_cells(row, largest)) for row in account.positions[: f.LISTED]]
        table = sortable.table("Positions", Column("Symbol"), _POSITIONS, rows) + f.more(len(account.positions))
    return page.section("Positions, cash and equity", table + _money(account), lead, "account")


def _position_cells(row: PositionRow, largest: float) -> list[str]:
    stale = f' <span class="of">{row.priced_on}</span>' if row.priced_on else ""
    return [
        f.shares(row.quantity),
        f.price(row.average_price),
        f.price(row.price) + stale,
        f.money(row.value),
        page.percent(row.weight, 2),
        f.gain(row.profit),
        session_drawings.weight_bar(row.weight, largest),
    ]


def _money(account: AccountFacts) -> str:
    if not account.money:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{page.escape(row.name)}</th><td>{f.money(row.amount)}</td></tr>' for row in account.money
    )
    return f'<h3>Cash, line by line</h3><div class="scroll" tabindex="0"><table class="plain"><tbody>{rows}</tbody></table></div>'


def _events(events: Sequence[EventRow]) -> str:
    """Oldest first."""
    if not events:
        said = "<p>Nothing was recorded: no warning, no halt, no other holder of the account.</p>"
        return page.section("Events", said, anchor="events")
    heads = (("Time, UTC", ""), ("Level", ""), ("Kind", ""), ("", ""))
    rows = "".join(
        f'<tr><th scope="row"><span class="when">{f.moment(row.at)}</span></th>'
        f'<td><span class="level {page.escape(row.level)}">{page.escape(row.level)}</span></td>'
        f'<td>{page.escape(row.kind)}</td><td class="note">{page.escape(row.message)}</td></tr>'
        for row in events[-f.LISTED :]
    )
    lead = "What the ledger recorded of the session, halts, resumes, approvals and changes of hands included."
    return page.section("Events", page.table(heads, rows) + f.more(len(events)), lead, "events")


def _lineage(shown: SessionPage) -> str:
    rows = "".join(
        f"<dt>{page.escape(name)}</dt><dd>{page.escape(value)}</dd>" for name, value in shown.lineage if value
    )
    lead = "What made the decision. From any order the whole chain, with hashes:" if shown.explain else ""
    command = f"<pre>{page.escape(shown.explain)}</pre>" if shown.explain else ""
    listed = f'<dl class="long">{rows}</dl>' if rows else "<p>There is no decision yet.</p>"
    return page.section("Lineage", command + listed, lead, "lineage")
