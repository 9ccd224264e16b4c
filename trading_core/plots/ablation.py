"""The page of an ablation: what leaving something out, or another value, does to a model, with its uncertainty."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trading_core.plots import page
from trading_core.plots.figures import BENCHMARK_COLOURS, STRATEGY_COLOURS, base_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_HEADS = (
    ("", ""),
    ("Inputs", "features and instrument columns that are read"),
    ("Horizon", "sessions; a variant without the config's own is shown at its shortest, where it is not comparable"),
    ("Mean", "over seeds"),
    ("Spread", "standard deviation over seeds"),
    ("Difference", "to the config as it stands, seed by seed; ± the standard error of its mean over seeds"),
    ("t over sessions", "of the difference of each session's rank ICs, mean over seeds (Newey-West)"),
    ("", ""),
)


@dataclass(frozen=True, slots=True)
class AblationRow:
    """One variant. mean, sd (ddof 1): of the metric over seeds. difference: to the config as it stands, seed by seed, with
    the standard error of its mean over seeds. session_t: of the difference of the rank ICs of each session (mean over
    seeds), see docs/ablation.md. NaN: not known, as with one seed only or at another horizon. error: why it has no cell.
    """

    variant: str
    horizon: int
    inputs: int
    seeds: int
    mean: float = math.nan
    sd: float = math.nan
    difference: float = math.nan
    standard_error: float = math.nan
    session_t: float = math.nan
    error: str = ""


def ablation_page(rows: Sequence[AblationRow], facts: Sequence[tuple[str, str]]) -> bytes:
    """The table of all variants and their differences drawn, as one HTML file. facts: (name, value) of what was run."""
    title = "Ablation"
    compared = [row for row in rows if math.isfinite(row.difference)]
    parts = [page.header(title, facts, "What was run")]
    if compared:
        lead = "To the config as it stands, seed by seed; the bars are two standard errors over seeds."
        drawn = page.chart("differences", difference_figure(compared), 110 + 30 * len(compared))
        parts.append(page.section("Differences", drawn, lead))
    table = page.table(_HEADS, "".join(_row(row) for row in rows))
    lead = "What a difference over seeds can tell, and what only one over sessions can: docs/ablation.md."
    parts.append(page.section("All variants", table, lead))
    return page.document(title, "".join(parts))


def difference_figure(rows: Sequence[AblationRow]) -> Figure:
    """A point per variant with two standard errors on each side, the first variant on top, and a line at zero."""
    figure = base_figure("")
    spread = [2.0 * row.standard_error if math.isfinite(row.standard_error) else 0.0 for row in rows]
    figure.add_scatter(
        x=[row.difference for row in rows], y=[html.escape(row.variant) for row in rows], mode="markers",
        error_x={"type": "data", "array": spread, "color": BENCHMARK_COLOURS[0], "thickness": 1.6, "width": 4},
        marker={"size": 9, "color": STRATEGY_COLOURS[0]}, showlegend=False,
        hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )  # fmt: skip
    figure.add_shape(
        type="line", x0=0.0, x1=0.0, y0=0.0, y1=1.0, yref="paper",
        line={"color": BENCHMARK_COLOURS[0], "width": 1.2, "dash": "dot"},
    )  # fmt: skip
    figure.update_layout(hovermode="closest", margin_t=12)
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _row(row: AblationRow) -> str:
    if row.error:
        return page.row(row.variant, [*[""] * 6, f'<span class="dim">{page.escape(row.error)}</span>'])
    difference = page.number(row.difference, 4)
    if math.isfinite(row.standard_error):
        difference += f' <span class="dim">± {page.number(row.standard_error, 4)}</span>'
    numbers = [page.number(row.mean, 4), page.number(row.sd, 4), difference, page.number(row.session_t)]
    return page.row(row.variant, [str(row.inputs), str(row.horizon), *numbers, ""])
