"""`python -m trading_core.features.compile`: compiles all kernels now, for every later process of this installation.

Otherwise the first build does it, and processes that build at the same time each do it for themselves.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from trading_core.features.build import build
from trading_core.features.registry import FEATURES
from trading_core.schema import SESSION, SYMBOL, TS, UTC_TS

SYMBOLS, DAYS = 3, 40


def any_bars() -> pl.DataFrame:
    """A few bars with every input of a feature: what they hold does not matter, only their types."""
    stamps = [datetime(2024, 1, 1, 21, tzinfo=UTC) + timedelta(days=day) for day in range(DAYS)]
    close = 100.0 + np.arange(DAYS) % 7
    one = pl.DataFrame(
        {
            TS: pl.Series(stamps, dtype=UTC_TS),
            SESSION: [stamp.date() for stamp in stamps],
            "open": close,
            "high": close + 1.0,
            "low": close - 1.0,
            "close": close,
            "volume": close * 10.0,
        }
    )
    names = (pl.lit(f"S{number}").alias(SYMBOL) for number in range(SYMBOLS))
    return pl.concat([one.with_columns(name, sector=pl.lit("any")) for name in names])


def main() -> None:
    build(any_bars(), sorted(FEATURES), date(2024, 1, 1), date(2024, 12, 31))


if __name__ == "__main__":
    main()
