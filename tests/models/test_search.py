"""Ranges of a search that cannot be searched are refused where they are written."""

from __future__ import annotations

import pytest

from trading_core.models.search import Choice, Real, Whole


def test_a_choice_needs_values_that_differ() -> None:
    assert Choice((1, 5, None)).values == (1, 5, None)
    with pytest.raises(ValueError, match="values is empty; name at least one"):
        Choice(())
    with pytest.raises(ValueError, match=r"values \('mean', 'cls', 'mean'\) name one twice"):
        Choice(("mean", "cls", "mean"))


@pytest.mark.parametrize("kind", [Whole, Real])
def test_a_range_has_two_ends_and_logarithms_need_both_above_zero(kind: type[Whole] | type[Real]) -> None:
    assert (kind(0, 3).low, kind(0, 3).high, kind(0, 3).log) == (0, 3, False)
    for low, high in ((3, 3), (4, 3), (float("nan"), 1)):
        with pytest.raises(ValueError, match=f"low is {low} and high {high}; low must lie below high"):
            kind(low, high)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="low is 0; a logarithmic range must begin above 0"):
        kind(0, 3, log=True)
