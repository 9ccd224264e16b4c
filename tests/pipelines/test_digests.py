"""The digest of rows: of what bytes it is made, and what it tells apart."""

from __future__ import annotations

import hashlib
import math
import struct
from datetime import date

import polars as pl
import pytest

from trading_core.pipelines.digests import rows_digest

DAY = date(2025, 6, 10)
KEY = ("symbol",)


def frame(**columns: object) -> pl.DataFrame:
    return pl.DataFrame({"symbol": ["B", "A"], "x": [1.5, None], **columns})


def test_it_is_the_sha256_of_the_bytes_the_docstring_tells() -> None:
    """Column names as JSON, the number of rows, then per column which are null and the values; rows by key: A, B."""
    expected = b'["day", "symbol", "x"]' + (2).to_bytes(8, "little")
    days = (DAY - date(1970, 1, 1)).days
    expected += bytes([0, 0]) + struct.pack("<ii", days, days)
    expected += bytes([0, 0]) + (1).to_bytes(8, "little") + b"A" + (1).to_bytes(8, "little") + b"B"
    expected += bytes([1, 0]) + struct.pack("<d", 1.5)
    assert rows_digest(frame(day=[DAY, DAY]), KEY) == hashlib.sha256(expected).hexdigest()


def test_the_order_of_rows_and_columns_and_the_partition_do_not_count() -> None:
    same = frame(month=["2025-06", "2025-06"]).reverse().select("x", "month", "symbol")
    assert rows_digest(same, KEY) == rows_digest(frame(), KEY)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ([1.5, None], [math.nextafter(1.5, 2.0), None]),
        ([0.0, 1.0], [-0.0, 1.0]),
        ([1.0, None], [1.0, math.nan]),
        (["a", "bc"], ["ab", "c"]),
        ([1.0, 2.0], [2.0, 1.0]),
        ([1, 2], [1.0, 2.0]),
    ],
    ids=["one bit", "sign of zero", "null and nan", "where a text ends", "whose value", "type"],
)
def test_what_differs_has_another_digest(one: list[object], two: list[object]) -> None:
    assert rows_digest(frame(y=one), KEY) != rows_digest(frame(y=two), KEY)


def test_no_rows_have_a_digest_of_their_own() -> None:
    assert rows_digest(frame().clear(), KEY) != rows_digest(frame().head(1), KEY)
    assert rows_digest(frame().clear(), KEY) == rows_digest(frame().clear(), KEY)
