"""A forecast of one symbol as a fan: its price so far, and the bands it is expected in."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.plots.figures import BENCHMARK_COLOURS, STRATEGY_COLOURS, base_figure
from trading_core.schema import FloatArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_FILLS = ("rgba(59,130,246,0.14)", "rgba(59,130,246,0.20)", "rgba(59,130,246,0.28)")  # from the outermost band inwards


@dataclass(frozen=True, slots=True, eq=False)
class Fan:
    """One symbol's forecast, made after the close of the last of `sessions`.

    sessions, closes: [N] the past, adjusted. entry: the session after it, at whose open, `entry_open`, every label begins.
    ends: [H] sessions at whose open each horizon's label ends, ascending. quantiles: [H, Q] of the log return from open to
    open, of the ascending `levels` (Q). outcome: [H] the price at each end, NaN where it is not known yet, or None.
    """

    symbol: str
    sessions: Sequence[date]
    closes: FloatArray
    entry: date
    entry_open: float
    ends: Sequence[date]
    quantiles: FloatArray
    levels: tuple[float, ...]
    outcome: FloatArray | None = None


def fan_chart(fan: Fan) -> Figure:
    """The past, the bands between quantiles of opposite levels (0.05 and 0.95, ...), and the median where it is one.

    Returns count from the open that follows the decision, so the fan opens there, a night after the last close.
    Errors: InvalidConfigError when the shapes do not fit.
    """
    _check(fan)
    prices = fan.entry_open * np.exp(np.vstack([np.zeros(len(fan.levels)), fan.quantiles]))  # [H, Q] -> [1 + H, Q]
    days = [fan.entry, *fan.ends]
    figure = base_figure("price: closes, then opens")
    for k in range(len(fan.levels) // 2):
        low, high = prices[:, k], prices[:, -1 - k]
        share = fan.levels[-1 - k] - fan.levels[k]
        figure.add_scatter(
            x=[*days, *reversed(days)], y=np.concatenate([high, low[::-1]]), name=f"{share:.0%}", mode="lines",
            fill="toself", fillcolor=_FILLS[min(k, len(_FILLS) - 1)], line={"width": 0}, hoverinfo="skip",
        )  # fmt: skip
    if len(fan.levels) % 2:
        figure.add_scatter(
            x=days, y=prices[:, len(fan.levels) // 2], name="median", mode="lines",
            line={"color": STRATEGY_COLOURS[0], "width": 2.2}, hovertemplate="%{y:.2f}",
        )  # fmt: skip
    figure.add_scatter(
        x=list(fan.sessions), y=fan.closes, name=html.escape(fan.symbol), mode="lines",
        line={"color": BENCHMARK_COLOURS[0], "width": 1.8}, hovertemplate="%{y:.2f}", connectgaps=False,
    )  # fmt: skip
    if fan.outcome is not None:
        figure.add_scatter(
            x=list(fan.ends), y=fan.outcome, name="what came", mode="markers", hovertemplate="%{y:.2f}",
            marker={"color": STRATEGY_COLOURS[1], "size": 7},
        )  # fmt: skip
    return figure


def _check(fan: Fan) -> None:
    problems = []
    if not len(fan.sessions) or len(fan.sessions) != len(fan.closes):
        problems.append(f"{len(fan.closes)} closes for {len(fan.sessions)} sessions; give at least one of each")
    if len(fan.sessions) and not fan.sessions[-1] < fan.entry:
        problems.append(f"entry {fan.entry}: it must come after the last close, of {fan.sessions[-1]}")
    if fan.quantiles.shape != (len(fan.ends), len(fan.levels)):
        problems.append(f"quantiles {fan.quantiles.shape} for {len(fan.ends)} horizons and {len(fan.levels)} levels")
    if not np.allclose(np.add(fan.levels, fan.levels[::-1]), 1.0) or (np.diff(fan.levels) <= 0.0).any():
        problems.append(f"levels {fan.levels}: they must ascend and lie opposite each other about one half")
    if fan.outcome is not None and len(fan.outcome) != len(fan.ends):
        problems.append(f"{len(fan.outcome)} outcomes for {len(fan.ends)} horizons")
    if problems:
        raise InvalidConfigError("The fan chart", problems)
