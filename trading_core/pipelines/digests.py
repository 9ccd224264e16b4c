"""SHA-256 of rows, to say in one word whether two readings of a table hold the same to the last bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import polars as pl

from trading_core.schema import MONTH


def rows_digest(frame: pl.DataFrame, key: Sequence[str]) -> str:
    """64 hex digits of the SHA-256 of a frame's rows, the same in whatever order rows and columns come.

    Rows are sorted by `key`, which must tell them apart, columns by name; `month`, which follows from the session, is left
    out. Floats count by their bits: 0.0 and -0.0 differ, and so do two NaNs of different bits, and NaN and null.
    """
    columns = sorted(name for name in frame.columns if name != MONTH)
    rows = frame.select(columns).sort(list(key), maintain_order=True)
    made = hashlib.sha256(json.dumps(columns).encode())
    made.update(len(rows).to_bytes(8, "little"))
    for name in columns:
        made.update(rows[name].is_null().to_numpy().tobytes())
        made.update(_bytes(rows[name]))
    return made.hexdigest()


def _bytes(values: pl.Series) -> bytes:
    """The values of one column, those that are not null; text with its length before it, so that "a", "bc" is not "ab", "c"."""
    known = values.drop_nulls()
    if known.dtype == pl.String:
        return b"".join(len(text).to_bytes(8, "little") + text for text in (item.encode() for item in known.to_list()))
    if known.dtype.is_temporal():
        known = known.to_physical()
    numbers = known.to_numpy()
    return bytes(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())
