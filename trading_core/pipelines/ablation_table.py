"""The cells of an ablation as one table: means and spreads over seeds, differences to the config as it stands."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import date

import numpy as np

from trading_core.metrics.forecasts import newey_west_t
from trading_core.pipelines.refs import Real
from trading_core.pipelines.skill import HorizonSkill
from trading_core.plots.ablation import AblationRow
from trading_core.schema import FloatArray

METRICS = {
    "rank_ic": "higher", "roc_auc": "higher", "pr_auc": "higher", "accuracy": "higher", "f1": "higher",
    "brier": "lower", "ece": "lower", "pinball": "lower",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """One training and how its forecasts did. sessions: those it was judged on; rank_ic: of each of them, by horizon."""

    seed: int
    inputs: int
    skill: tuple[HorizonSkill, ...]
    sessions: tuple[date, ...]
    rank_ic: dict[int, tuple[Real, ...]]
    code_version: str

    def value(self, metric: str, horizon: int) -> float:
        """NaN where the variant has no such horizon, or the metric is not defined."""
        found = [float(getattr(row, metric)) for row in self.skill if row.horizon == horizon]
        return found[0] if found else math.nan


# Variant's name, its cells by seed, and why there are none, where there are none.
Line = tuple[str, tuple[Cell, ...], str]


def rows_of(lines: Sequence[Line], metric: str, horizon: int) -> tuple[AblationRow, ...]:
    """One row per variant; the first line is the config as it stands.

    A variant without the horizon is shown at its own shortest, where it answers another question: without a difference.
    """
    base = {cell.seed: cell for cell in lines[0][1]}
    return tuple(_row(name, cells, error, base, metric, horizon) for name, cells, error in lines)


def _row(name: str, cells: Sequence[Cell], error: str, base: dict[int, Cell], metric: str, horizon: int) -> AblationRow:
    if not cells:
        return AblationRow(name, horizon, 0, 0, error=error)
    own = [row.horizon for row in cells[0].skill]
    shown = horizon if horizon in own else min(own)
    values = np.array([cell.value(metric, shown) for cell in cells])
    pairs = [(cell, base[cell.seed]) for cell in cells if cell.seed in base and shown == horizon]
    compared = bool(pairs) and pairs[0][0] is not pairs[0][1]
    gaps = np.array([a.value(metric, shown) - b.value(metric, shown) for a, b in pairs if compared])
    return AblationRow(
        variant=name,
        horizon=shown,
        inputs=cells[0].inputs,
        seeds=len(cells),
        mean=float(values.mean()),
        sd=_sd(values),
        difference=float(gaps.mean()) if len(gaps) else math.nan,
        standard_error=_sd(gaps) / math.sqrt(len(gaps)) if len(gaps) else math.nan,
        session_t=_session_t(pairs, shown) if compared and metric == "rank_ic" else math.nan,
    )


def _sd(values: FloatArray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _session_t(pairs: Sequence[tuple[Cell, Cell]], horizon: int) -> float:
    """Newey-West t (lag h - 1) over the sessions that both have, of the mean over seeds of their rank ICs' difference."""
    by_seed = []
    for variant, base in pairs:
        own, other = (dict(zip(cell.sessions, cell.rank_ic[horizon], strict=True)) for cell in (variant, base))
        by_seed.append({day: own[day] - other[day] for day in own.keys() & other.keys()})
    days = sorted(set.intersection(*(set(found) for found in by_seed)))
    return newey_west_t(np.array([np.mean([found[day] for found in by_seed]) for day in days]), horizon - 1)


# --- written ----------------------------------------------------------------------------------------------------------


def as_csv(rows: Sequence[AblationRow]) -> str:
    """One line per variant; numbers read back exactly, unknown ones are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(AblationRow)])
    for row in rows:
        writer.writerow([None if isinstance(v, float) and math.isnan(v) else v for v in astuple(row)])
    return text.getvalue()


def as_markdown(rows: Sequence[AblationRow], facts: Sequence[tuple[str, str]]) -> str:
    """A table that can be pasted into a document."""
    lines = [f"- {name}: {value}" for name, value in facts]
    lines += ["", "| variant | inputs | horizon | mean | sd over seeds | difference | ± se | t over sessions |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---:|"]
    for row in rows:
        numbers = [_shown(v) for v in (row.mean, row.sd, row.difference, row.standard_error)]
        cells = [row.variant, str(row.inputs), str(row.horizon), *numbers, _shown(row.session_t, 2)]
        lines.append("| " + " | ".join([row.variant, row.error, *[""] * 6] if row.error else cells) + " |")
    return "\n".join(lines) + "\n"


def _shown(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
