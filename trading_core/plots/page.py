"""The look of all pages: the style sheet, the script that draws the charts in the reader's theme, the parts of a page."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NBSP = "\u00a0"  # keeps a number and its unit on one line
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_UNBROKEN = r'<span class="date">\g<0></span>'

STYLE = """
:root, :root.paper { color-scheme: light; --bg: #f6f7f9; --card: #ffffff; --text: #1b2330; --dim: #5d6878;
  --line: #dfe3ea; --grid: #e8ebf0; --accent: #2563eb; --soft: #eef3fe; }
@media (prefers-color-scheme: dark) { :root:not(.paper) { color-scheme: dark; --bg: #0f131a; --card: #171c25;
  --text: #e4e8ef; --dim: #98a3b5; --line: #2a3240; --grid: #262d39; --accent: #6ea0ff; --soft: #182338; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 16px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 10px; }
h3 { font-size: 0.95rem; margin: 14px 0 4px; color: var(--dim); font-weight: 600; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px;
  margin-top: 18px; }
.lead { color: var(--dim); margin: -4px 0 12px; font-size: 0.92rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(205px, 1fr)); gap: 12px 24px; margin: 0; }
.facts dt { color: var(--dim); font-size: 0.78rem; }
.facts dd { margin: 0; font-weight: 550; overflow-wrap: anywhere; }
.verdict { list-style: none; margin: 0; padding: 14px 18px; background: var(--soft); border-radius: 8px;
  border-left: 4px solid var(--accent); }
.verdict li + li { margin-top: 10px; }
ul { margin: 0; padding-left: 20px; }
li + li { margin-top: 4px; }
.scroll { overflow-x: auto; margin: 0 -22px; padding: 0 22px; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
table { border-collapse: collapse; width: 100%; font-size: 0.84rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 8px 6px; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { color: var(--dim); font-weight: 550; font-size: 0.78rem; white-space: normal;
  vertical-align: bottom; }
thead th[title]:not([title=""]) { text-decoration: underline dotted var(--line); text-underline-offset: 4px;
  cursor: help; }
tbody tr:last-child > * { border-bottom: 0; }
th:first-child { text-align: left; padding-left: 0; font-weight: 600; }
th.note, td.note { text-align: left; color: var(--dim); white-space: normal; min-width: 220px; }
th.unit, td.unit { text-align: left; padding-left: 16px; }
tr.benchmark th, tr.benchmark td, .dim { color: var(--dim); }
.tag { display: block; font-size: 0.7rem; font-weight: 500; }
.date { white-space: nowrap; }
.chart { width: 100%; }
@media (max-width: 600px) { main { padding: 20px 10px 40px; } section { padding: 16px 14px; border-radius: 10px; }
  .scroll { margin: 0 -14px; padding: 0 14px; } h1 { font-size: 1.4rem; } .facts { grid-template-columns: 1fr 1fr; }
  th:first-child { position: sticky; left: 0; background: var(--card); padding-right: 10px; white-space: normal; }
}
@media print { body { background: #fff; } main { max-width: none; padding: 0; } section { break-inside: avoid; } }
"""

# What further scripts of a page may use: `draw(name, figure)` puts a figure into a place (again), `later(job)` runs jobs one
# after the other without holding the page up, `charts` are the places. A trace whose x or y is a name takes shared numbers;
# `meta.tick` of a layout: how many pixels a tick of the x axis takes.
SCRIPT = """
var tradingPage = (function () {
  var charts = [], jobs = [], shared = {}, PAPER = 680;
  function theme() {
    var css = getComputedStyle(document.documentElement);
    function c(name) { return css.getPropertyValue(name).trim(); }
    var axis = { gridcolor: c('--grid'), linecolor: c('--line'), tickcolor: c('--line'), zerolinecolor: c('--line') };
    return { font: c('--text'), dim: c('--dim'), card: c('--card'), line: c('--line'), axis: axis };
  }
  function paint(layout, width) {
    var t = theme(), dim = { color: t.dim }, room = (layout.meta && layout.meta.tick) || 130;
    layout.font = Object.assign({}, layout.font, { color: t.font });
    layout.hoverlabel = { bgcolor: t.card, bordercolor: t.line, font: { color: t.font } };
    Object.keys(layout).filter(function (key) { return /^[xy]axis\\d*$/.test(key); }).forEach(function (key) {
      var axis = layout[key] = Object.assign({}, layout[key], t.axis, { tickfont: dim, spikecolor: t.dim });
      if (key[0] === 'x') axis.nticks = Math.max(3, Math.floor(width / room));
      axis.title = Object.assign({}, axis.title, { font: { color: t.dim, size: 12 } });
    });
    return layout;
  }
  function filled(trace) {
    var whole = Object.assign({}, trace);
    ['x', 'y'].forEach(function (key) { if (typeof whole[key] === 'string') whole[key] = shared[whole[key]]; });
    return whole;
  }
  function draw(name, figure) {
    var place = document.getElementById(name), layout = JSON.parse(JSON.stringify(figure.layout));
    Plotly.react(place, figure.data.map(filled), paint(layout, place.clientWidth), { responsive: true, displayModeBar: false });
    if (charts.indexOf(place) < 0) charts.push(place);
  }
  function work() {
    var job = jobs[0];
    if (!job) return;
    try { job(); } finally { jobs.shift(); setTimeout(work, 0); }
  }
  function later(job) { if (jobs.push(job) === 1) setTimeout(work, 0); }
  function repaint(width) {
    charts.forEach(function (place) {
      if (!place.clientWidth) return;
      var layout = paint(place.layout, Math.min(width || Infinity, place.clientWidth));
      layout.width = width && Math.min(width, place.clientWidth);
      layout.autosize = !width;
      Plotly.relayout(place, layout);
    });
  }
  document.querySelectorAll('script[data-shared]').forEach(function (source) {
    shared[source.dataset.shared] = JSON.parse(source.textContent);
  });
  document.querySelectorAll('script[data-chart]:not([data-switch])').forEach(function (source) {
    later(function () { draw(source.dataset.chart, JSON.parse(source.textContent)); });
  });
  var resized;
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', function () { repaint(); });
  addEventListener('resize', function () { clearTimeout(resized); resized = setTimeout(function () { repaint(); }, 120); });
  addEventListener('beforeprint', function () { document.documentElement.classList.add('paper'); repaint(PAPER); });
  addEventListener('afterprint', function () { document.documentElement.classList.remove('paper'); repaint(); });
  return { charts: charts, draw: draw, later: later };
})();
"""


def document(title: str, body: str, style: str = "", script: str = "", charts: bool = True) -> bytes:
    """A whole page as UTF-8 HTML (about 5 MB: the plotting script): no request leaves it. `body` is HTML, `title` text.

    style, script: further rules and code of this page; the code may use `tradingPage`, see SCRIPT. charts: False for a page
    without one: it has neither the plotting script nor `tradingPage`, and is as small as its text.
    """
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body><main>{body}</main>"
        f"{_plotting() if charts else ''}<script>{SCRIPT if charts else ''}{script}</script></body></html>\n"
    )
    return page.encode("utf-8")


def _plotting() -> str:
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def header(title: str, facts: Sequence[tuple[str, str]], label: str) -> str:
    """The top of a page: its title and (name, value) pairs; `label` says what these are. Dates stay on one line."""
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{_DATE.sub(_UNBROKEN, escape(value))}</dd></div>" for name, value in facts
    )
    return f'<header><h1>{escape(title)}</h1><dl class="facts" aria-label="{escape(label)}">{rows}</dl></header>'


def section(title: str, content: str, lead: str = "", anchor: str = "") -> str:
    """A titled card; `content` and `lead` are HTML. anchor: the name by which links reach it."""
    lead = f'<p class="lead">{lead}</p>' if lead else ""
    named = f' id="{anchor}"' if anchor else ""
    return f"<section{named}><h2>{escape(title)}</h2>{lead}{content}</section>"


def chart(name: str, figure: Figure, height: int) -> str:
    """A place for a figure and its JSON; "<" is written as an escape so that no text can close the script element."""
    data = figure.to_json().replace("<", "\\u003c")
    return (
        f'<div class="chart" id="{name}" style="height:{height}px"></div>'
        f'<script type="application/json" data-chart="{name}">{data}</script>'
    )


def table(heads: Sequence[tuple[str, str]], rows: str) -> str:
    """A table that scrolls on its own where it is wide. heads: (name, what it means) of each column; rows: HTML."""
    head = "".join(f'<th scope="col" title="{escape(title)}">{escape(name)}</th>' for name, title in heads)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def row(name: str, cells: Sequence[str], kind: str = "") -> str:
    """A row of `table`: its name as text, its cells as HTML; kind: a class of the style sheet."""
    data = "".join(f"<td>{cell}</td>" for cell in cells)
    marked = f' class="{kind}"' if kind else ""
    return f'<tr{marked}><th scope="row">{escape(name)}</th>{data}</tr>'


def bullets(sentences: Sequence[str], kind: str = "") -> str:
    """Texts as a list; empty ones are left out."""
    marked = f' class="{kind}"' if kind else ""
    return f"<ul{marked}>" + "".join(f"<li>{escape(item)}</li>" for item in sentences if item) + "</ul>"


def number(value: float, digits: int = 2) -> str:
    """1.234 -> "1.23"; a dash where there is no number."""
    if not math.isfinite(value):
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero


def percent(value: float, digits: int = 1) -> str:
    """0.1234 -> "12.3 %"; a dash where there is no number."""
    return f"{number(100.0 * value, digits)}\u00a0%" if math.isfinite(value) else "–"


def escape(text: object) -> str:
    """Text as HTML."""
    return html.escape(str(text))
