"""Rules of a page with many strategies, beside those of all pages (`page.STYLE`)."""

from __future__ import annotations

_GAIN, _LOSS = "59,130,246", "249,115,22"  # blue and orange: told apart by everybody
_SHADES = "".join(
    f"td.{kind}{k}{{background:rgba({colour},{0.07 * k:.2f})}}"
    for kind, colour in (("g", _GAIN), ("l", _LOSS))
    for k in range(1, 9)
)

STYLE = (
    """
.long { display: grid; grid-template-columns: max-content 1fr; gap: 5px 20px; margin: 16px 0 0; font-size: 0.9rem; }
.long dt { color: var(--dim); font-size: 0.84rem; padding-top: 1px; }
.long dd { margin: 0; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 6px 8px; margin: 20px 0 0; font-size: 0.84rem; }
nav a { color: var(--accent); text-decoration: none; padding: 4px 10px; border: 1px solid var(--line);
  border-radius: 999px; background: var(--card); }
nav a:hover { border-color: var(--accent); }
.headline { font-size: 1.22rem; line-height: 1.35; font-weight: 650; margin: 0 0 14px; letter-spacing: -0.005em; }
.verdict { font-size: 0.95rem; }
.lead.under { margin: 0 0 8px; }
section > h3:not(:first-of-type), section > details + h3, .scroll + h3 { margin-top: 24px; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--accent); font-size: 0.9rem; font-weight: 550; }
details > ul, details > .scroll { margin-top: 8px; }
.each { font-size: 0.92rem; margin-top: 12px; }
.each li + li { margin-top: 8px; }
.gaps { margin-top: 10px; color: var(--dim); font-size: 0.9rem; }
.yes { color: var(--accent); font-weight: 600; }
.no { color: var(--dim); }

.wide th, .wide td { padding: 7px 10px; }
.wide caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.wide { padding: 0; border-top: 1px solid var(--line); }
.wide th:first-child, .wide td:first-child { position: sticky; left: 0; z-index: 1; background: var(--card);
  padding-left: 22px; min-width: 150px; }
.wide thead { position: sticky; top: 0; z-index: 2; background: var(--card); box-shadow: 0 1px 0 var(--line); }
.wide thead tr:last-child > * { border-bottom: 0; white-space: nowrap; }
.wide tr > :last-child { padding-right: 22px; }
.wide .groups th { text-align: left; color: var(--text); font-weight: 600; padding-bottom: 0; border-bottom: 0;
  white-space: nowrap; }
.wide .groups td { border-bottom: 0; }
.wide colgroup.group { border-left: 1px solid var(--line); }
.wide th button { all: unset; cursor: pointer; color: inherit; font: inherit; white-space: nowrap; }
.wide th button[title] { text-decoration: underline dotted var(--dim); text-underline-offset: 4px; }
.wide th button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 3px; }
.wide th[aria-sort=ascending] button::after { content: " ▲"; font-size: 0.7em; }
.wide th[aria-sort=descending] button::after { content: " ▼"; font-size: 0.7em; }
.wide tbody tr:hover > * { background: var(--soft); }
.wide tbody th { font-weight: 600; }
.wide b { font-weight: 700; color: var(--accent); }
.tall { max-height: 600px; overflow-y: auto; border-bottom: 1px solid var(--line); }
.of { color: var(--dim); font-weight: 450; font-size: 0.92em; margin-left: 2px; }
tr.benchmark th { font-style: italic; }
.meanings dl { columns: 3 270px; column-gap: 28px; margin: 8px 0 0; font-size: 0.82rem; }
.meanings dl > div { break-inside: avoid; margin-bottom: 6px; }
.meanings dt { font-weight: 600; }
.meanings dd { margin: 0; color: var(--dim); }

.legend { border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; margin-bottom: 8px; }
.chips { display: grid; grid-template-columns: 96px 1fr; gap: 4px 6px; align-items: baseline; }
.chips > div, .sets { display: flex; flex-wrap: wrap; gap: 4px 6px; }
.chips + .chips, .sets + .chips { margin-top: 7px; }
.chips > span { font-size: 0.78rem; color: var(--dim); font-weight: 600; overflow-wrap: anywhere; }
.legend button, .pages button { font: inherit; font-size: 0.78rem; color: var(--text); background: none; cursor: pointer;
  border: 1px solid var(--line); border-radius: 6px; padding: 3px 8px; line-height: 1.35; }
.legend button:hover, .pages button:hover:enabled { border-color: var(--accent); }
.legend button:focus-visible, .pages button:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.sets button { color: var(--accent); border-color: transparent; padding-left: 0; }
.chips i { display: inline-block; width: 18px; margin-right: 6px; vertical-align: middle; }
.chips button[aria-pressed=true] { background: var(--soft); border-color: var(--accent); }
.chips button[aria-pressed=false] { color: var(--dim); }
.chips button[aria-pressed=false] i { opacity: 0.35; }

.chooser { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; margin: 0 0 14px; font-size: 0.88rem;
  font-weight: 550; }
.chooser select, .chooser input { font: inherit; font-weight: 450; color: var(--text); background: var(--bg); padding: 6px 9px;
  border: 1px solid var(--line); border-radius: 7px; max-width: 100%; }
.chooser select:focus-visible, .chooser input:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.facts.small { grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 8px 18px; margin-bottom: 4px; }
.chooser input { width: 250px; }
.meanings + .chooser { margin-top: 20px; }
#each-strategy > .chooser { position: sticky; top: 0; z-index: 3; background: var(--card); padding: 8px 0; margin-bottom: 6px; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 18px 26px;
  margin-top: 16px; }
.panel { margin: 0; min-width: 0; }
.panel figcaption { font-size: 0.86rem; font-weight: 600; color: var(--dim); margin-bottom: 2px; }
.panel figcaption span { font-weight: 400; }
.key { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 0.8rem; margin: 4px 0 2px; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
.panel [data-turn] { color: var(--dim); font-size: 0.8rem; line-height: 1.4; }
.panel .missing { display: none; color: var(--dim); font-size: 0.9rem; }
.panel.empty .chart, .panel.empty .key { display: none; }
.panel.empty .missing { display: block; }
table.months { table-layout: fixed; min-width: 560px; }
table.months th, table.months td { text-align: center; padding: 5px 4px; border-bottom: 0; }
table.months th:first-child { text-align: left; }
table.months td:last-child { font-weight: 650; padding-left: 10px; }
table.fills .word { text-align: left; }
table.fills td:first-child { padding-left: 0; }
.pages { display: flex; gap: 12px; align-items: center; margin-top: 10px; font-size: 0.86rem; color: var(--dim); }
.pages button:disabled { opacity: 0.45; cursor: default; }
@media (max-width: 600px) { .wide { padding: 0; } .wide th:first-child, .wide td:first-child { padding-left: 14px;
    min-width: 118px; max-width: 38vw; white-space: normal; overflow-wrap: anywhere; }
  .chips { grid-template-columns: 1fr; } .headline { font-size: 1.08rem; } .tall { max-height: 520px; }
  .long { grid-template-columns: 1fr; gap: 0; } .long dd { margin-bottom: 7px; }
  .facts.small { grid-template-columns: repeat(3, 1fr); } }
#breakdowns .tall { max-height: 420px; }
@media print { #each-strategy > .chooser { position: static; }
  nav, [data-blotter] .chooser, .sets, .pages, .chips button[aria-pressed=false] { display: none; }
  .tall, #breakdowns .tall { max-height: none; } .scroll { overflow: visible; } section { break-inside: auto; }
  .wide table, table.fills { font-size: 6.2pt; } .wide th, .wide td, .wide tr > :last-child { padding: 2px 2px; }
  .wide thead th, .wide thead tr:last-child > * { font-size: inherit; white-space: normal; }
  .wide th button { white-space: normal; }
  .wide th:first-child, .wide td:first-child { min-width: 0; position: static; padding-left: 0; }
  h2, h3, figcaption { break-after: avoid; } .wide thead { position: static; } .panel, .chart, tr { break-inside: avoid; } }
"""
    + _SHADES
    + "\n"
)
