"""What the build knows besides a symbol's own bars: the market's series, the calendar, the sectors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import polars as pl

from trading_core.features.kernels import Section, compiled, fixed, mean_across, std_across
from trading_core.features.registry import CALENDAR_INPUTS, MARKET_INPUTS, SECTOR, makes
from trading_core.schema import SESSION, TS, DateArray, FloatArray, IntArray
from trading_core.sessions import Sessions


@dataclass(frozen=True, slots=True)
class MarketBars:
    """The bars of the market: every `ts` that some symbol has, ascending [T]; the rows are sorted by symbol and ts [N]."""

    row: IntArray  # number of each row's ts [N]
    sector: IntArray  # number of each row's sector [N]
    sessions: DateArray  # [T]
    series: dict[str, FloatArray]  # the derived inputs that are asked for [T]

    @classmethod
    def of(cls, rows: pl.DataFrame, starts: IntArray, inputs: Collection[str], calendar: str) -> MarketBars:
        """`starts`: the first row of each symbol. `inputs`: names; those that are not derived are passed over."""
        stamps = rows.select(TS, SESSION).unique(TS, keep="first").sort(TS)
        row = np.searchsorted(stamps[TS].to_physical().to_numpy(), rows[TS].to_physical().to_numpy())
        series: dict[str, FloatArray] = {}
        if any(name in MARKET_INPUTS for name in inputs):
            series |= _market_series(rows["close"].to_numpy(), row, starts, len(stamps))
        if any(name in CALENDAR_INPUTS for name in inputs):
            series |= _calendar_series(stamps, Sessions(calendar))
        sector = np.zeros(len(rows), np.int64)
        if SECTOR in inputs and SECTOR in rows.columns:
            sector = rows[SECTOR].rank("dense").to_numpy().astype(np.int64) - 1
        sessions = stamps[SESSION].to_numpy().astype("datetime64[D]")
        return cls(row, sector, sessions, {name: x for name, x in series.items() if name in inputs})

    def by_row(self) -> dict[str, FloatArray]:
        """The derived inputs at every row [N]."""
        return {name: np.take(x, self.row) for name, x in self.series.items()}


@makes(MARKET_INPUTS)
def _market_series(close: FloatArray, row: IntArray, starts: IntArray, size: int) -> dict[str, FloatArray]:
    """MARKET_INPUTS. A return counts only over adjacent bars of the market: it then needs no older bar than the last."""
    returns = _adjacent_returns(fixed(close), row, starts)
    order = np.argsort(row, kind="stable")
    group, values = row[order], returns[order]
    section = Section(group, group)
    at = np.searchsorted(group, np.arange(size))
    with np.errstate(all="ignore"):
        rising = np.where(np.isfinite(values), (values > 0.0).astype(np.float64), np.nan)
        return {
            "market_ret": mean_across(values, section)[at],
            "market_up_share": mean_across(rising, section)[at],
            "market_dispersion": std_across(values, section)[at],
        }


@compiled
def _adjacent_returns(close: FloatArray, row: IntArray, starts: IntArray) -> FloatArray:
    out = np.full(len(close), np.nan)
    for s in range(len(starts)):
        last = starts[s + 1] if s + 1 < len(starts) else len(close)
        for i in range(starts[s] + 1, last):
            if row[i] == row[i - 1] + 1:
                out[i] = close[i] / close[i - 1] - 1.0
    return out


@makes(CALENDAR_INPUTS)
def _calendar_series(stamps: pl.DataFrame, sessions: Sessions) -> dict[str, FloatArray]:
    """CALENDAR_INPUTS. Days to and since sessions are NaN on a day that is no session of the exchange."""
    local = stamps[TS].dt.convert_time_zone(sessions.timezone)
    minute = (local.dt.hour().cast(pl.Float64) * 60.0 + local.dt.minute().cast(pl.Float64)).to_numpy()
    since, until = np.full(len(stamps), np.nan), np.full(len(stamps), np.nan)
    days = stamps[SESSION].to_numpy().astype("datetime64[D]")
    if len(days):
        first, last = days[0].item(), days[-1].item()
        known = np.array(sessions.between(sessions.previous(first), sessions.next(last)), dtype="datetime64[D]")
        at = np.clip(np.searchsorted(known, days), 1, len(known) - 2)
        real = known[at] == days
        since[real] = (days - known[at - 1])[real].astype(np.float64)
        until[real] = (known[at + 1] - days)[real].astype(np.float64)
    return {"local_minute": minute, "days_since_last": since, "days_to_next": until}
