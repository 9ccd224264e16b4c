"""Bars in Qlib's binary format: calendars/day.txt, instruments/all.txt, features/<symbol>/<field>.day.bin.

A .bin file is little-endian float32: first the number of the first session in the calendar, then one value per session
from there on, NaN where the symbol has no bar (Qlib's documentation, "Data Layer", section "Qlib Format Data").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

FIELDS = ("open", "high", "low", "close", "volume", "vwap")
# Names that Windows reserves: Qlib looks for their files under a prefix of its own.
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}


def write_store(bars: pl.DataFrame, folder: Path) -> None:
    """Writes `bars` (symbol, session, open, high, low, close, volume; one row per symbol and session) into `folder`.

    The bars have no volume-weighted price, which one of Alpha158's features reads: (high + low + close) / 3 stands for it.
    """
    typical = (pl.col("high") + pl.col("low") + pl.col("close")) / 3
    bars = bars.with_columns(typical.alias("vwap")).sort("symbol", "session")
    calendar = bars["session"].unique().sort()
    days = calendar.to_numpy().astype("datetime64[D]")
    for name in ("calendars", "instruments", "features"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "calendars" / "day.txt").write_text("".join(f"{day}\n" for day in days))
    spans = []
    for (symbol,), own in bars.group_by("symbol", maintain_order=True):
        place = np.searchsorted(days, own["session"].to_numpy().astype("datetime64[D]"))
        spans.append(f"{symbol}\t{days[place[0]]}\t{days[place[-1]]}\n")
        _write_symbol(own, place, folder / "features" / _folder_name(str(symbol)))
    (folder / "instruments" / "all.txt").write_text("".join(spans))


def _write_symbol(own: pl.DataFrame, place: np.ndarray, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for field in FIELDS:
        values = np.full(1 + place[-1] - place[0] + 1, np.nan, dtype="<f4")
        values[0] = place[0]
        values[1 + place - place[0]] = own[field].to_numpy()
        values.tofile(folder / f"{field}.day.bin")


def _folder_name(symbol: str) -> str:
    return (f"_qlib_{symbol}" if symbol.upper() in RESERVED else symbol).lower()
