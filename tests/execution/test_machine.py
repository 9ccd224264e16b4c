"""What a report makes of an order: tables written by hand, and what must hold for any reports in any order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_core.execution.machine import TAKEN_BACK, Progress, advance
from trading_core.schema import OrderStatus

PLANNED, SUBMITTING, UNKNOWN = OrderStatus.PLANNED, OrderStatus.SUBMITTING, OrderStatus.UNKNOWN
ACCEPTED, PARTIAL, PENDING = OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED, OrderStatus.PENDING_CANCEL
FILLED, CANCELED, EXPIRED, REJECTED = (
    OrderStatus.FILLED,
    OrderStatus.CANCELED,
    OrderStatus.EXPIRED,
    OrderStatus.REJECTED,
)
ENDED = (FILLED, CANCELED, EXPIRED, REJECTED)
QUANTITY = 10.0  # of every order here


def p(status: OrderStatus, filled: float = 0.0, price: float | None = None, reason: str = "") -> Progress:
    return Progress(status, filled, price, reason)


# (what is known, the report, what is known afterwards; None: the report changes nothing)
TABLE = [
    # the first word
    (None, p(SUBMITTING), p(SUBMITTING)),
    (None, p(FILLED, 10, 5.0), p(FILLED, 10, 5.0)),
    (None, p(ACCEPTED, 4, 5.0), p(PARTIAL, 4, 5.0)),  # what has fills is filled in part
    # a usual life
    (p(SUBMITTING), p(ACCEPTED), p(ACCEPTED)),
    (p(ACCEPTED), p(PARTIAL, 4, 5.0), p(PARTIAL, 4, 5.0)),
    (p(PARTIAL, 4, 5.0), p(PARTIAL, 7, 5.5), p(PARTIAL, 7, 5.5)),
    (p(PARTIAL, 7, 5.5), p(FILLED, 10, 5.6), p(FILLED, 10, 5.6)),
    (p(SUBMITTING), p(FILLED, 10, 5.0), p(FILLED, 10, 5.0)),  # stages may be missed
    (p(ACCEPTED), p(PARTIAL, 10, 5.0), p(FILLED, 10, 5.0)),  # whole is FILLED, whatever it is called
    (p(ACCEPTED), p(PARTIAL, 10 - 1e-12, 5.0), p(FILLED, 10 - 1e-12, 5.0)),
    (p(ACCEPTED), p(FILLED, 4, 5.0), p(PARTIAL, 4, 5.0)),  # and what is not whole is not FILLED
    # nobody knows, until the broker speaks or it is sent once more
    (p(SUBMITTING), p(UNKNOWN, reason="no answer"), p(UNKNOWN, reason="no answer")),
    (p(UNKNOWN, reason="no answer"), p(ACCEPTED), p(ACCEPTED)),
    (p(UNKNOWN, reason="no answer"), p(REJECTED, reason="no"), p(REJECTED, reason="no")),
    (p(UNKNOWN, reason="no answer"), p(SUBMITTING), p(SUBMITTING)),
    (p(SUBMITTING), p(SUBMITTING), p(SUBMITTING)),  # an attempt is an event, also the second one
    (p(ACCEPTED), p(SUBMITTING), None),
    (p(ACCEPTED), p(UNKNOWN, reason="no answer"), None),
    (p(PARTIAL, 4, 5.0), p(UNKNOWN), None),
    (p(FILLED, 10, 5.0), p(SUBMITTING), None),
    # twice, late, in the wrong order
    (p(ACCEPTED), p(ACCEPTED), None),
    (p(PARTIAL, 4, 5.0), p(ACCEPTED), None),
    (p(PARTIAL, 7, 5.5), p(PARTIAL, 4, 5.0), None),
    (p(FILLED, 10, 5.0), p(PARTIAL, 4, 5.0), None),
    (p(FILLED, 10, 5.0), p(ACCEPTED), None),
    (p(PARTIAL, 4, 5.0), p(CANCELED, 0), None),  # from before the fill: the next answer has both
    (p(ACCEPTED), p(ACCEPTED, reason="held for review"), p(ACCEPTED, reason="held for review")),
    (p(PARTIAL, 4, 5.0), p(PARTIAL, 4, 5.1), p(PARTIAL, 4, 5.1)),
    # cancellations
    (p(ACCEPTED), p(PENDING), p(PENDING)),
    (p(PARTIAL, 4, 5.0), p(PENDING, 4, 5.0), p(PENDING, 4, 5.0)),
    (p(PENDING, 4, 5.0), p(CANCELED, 4, 5.0), p(CANCELED, 4, 5.0)),
    (p(PARTIAL, 4, 5.0), p(CANCELED, 4, 5.0, "by us"), p(CANCELED, 4, 5.0, "by us")),
    (p(PENDING, 4, 5.0), p(ACCEPTED), None),
    (p(PENDING, 4, 5.0), p(PARTIAL, 7, 5.0), p(PARTIAL, 7, 5.0)),
    (p(PENDING, 4, 5.0), p(FILLED, 10, 5.0), p(FILLED, 10, 5.0)),  # it came too late
    # after the end
    (p(CANCELED), p(ACCEPTED), None),
    (p(CANCELED, 4, 5.0), p(PARTIAL, 4, 5.0), None),
    (p(CANCELED, 4, 5.0, "by us"), p(PARTIAL, 7, 5.2), p(CANCELED, 7, 5.2, "by us")),  # a late fill counts
    (p(CANCELED, 4, 5.0), p(CANCELED, 7, 5.2), p(CANCELED, 7, 5.2)),
    (p(CANCELED, 4, 5.0), p(PARTIAL, 10, 5.2), p(FILLED, 10, 5.2)),
    (p(EXPIRED, reason="too late"), p(FILLED, 10, 5.0), p(FILLED, 10, 5.0)),  # taken for lost, and it was not
    (p(REJECTED, reason="no"), p(PARTIAL, 2, 5.0), p(REJECTED, 2, 5.0, "no")),
    (p(EXPIRED), p(CANCELED), None),
    (p(EXPIRED, reason="a"), p(EXPIRED, reason="b"), None),
    (p(FILLED, 10, 5.0), p(FILLED, 10, 5.2), None),  # only a correction changes what has ended
]


@pytest.mark.parametrize(("now", "report", "expected"), TABLE)
def test_what_a_report_makes_of_an_order(now: Progress | None, report: Progress, expected: Progress | None) -> None:
    assert advance(now, report, QUANTITY) == expected


# (what is known, the report that agrees with restated fills, what is known afterwards)
CORRECTIONS = [
    (p(PARTIAL, 4, 5.0), p(PARTIAL, 3, 5.0), p(PARTIAL, 3, 5.0)),
    (p(PARTIAL, 4, 5.0), p(ACCEPTED), p(ACCEPTED)),  # all of it was taken back
    (p(CANCELED, 4, 5.0, "by us"), p(CANCELED, 3, 5.0, "by us"), p(CANCELED, 3, 5.0, "by us")),
    (p(CANCELED, 4, 5.0, "by us"), p(PARTIAL, 3, 5.0), p(CANCELED, 3, 5.0, "by us")),  # ended stays ended
    (p(FILLED, 10, 5.0), p(FILLED, 10, 5.01), p(FILLED, 10, 5.01)),  # another price
    (p(FILLED, 10, 5.0), p(FILLED, 10, 5.0), None),
    (p(FILLED, 10, 5.0), p(FILLED, 9, 5.0), p(CANCELED, 9, 5.0, TAKEN_BACK)),
    (p(FILLED, 10, 5.0), p(PARTIAL, 9, 5.0), p(CANCELED, 9, 5.0, TAKEN_BACK)),
    (p(FILLED, 10, 5.0), p(CANCELED, 9, 5.0, "bust"), p(CANCELED, 9, 5.0, "bust")),
    (p(CANCELED, 9, 5.0, TAKEN_BACK), p(FILLED, 9, 5.0), None),  # told again
    (p(CANCELED, 9, 5.0, TAKEN_BACK), p(FILLED, 10, 5.0), p(FILLED, 10, 5.0)),  # and given again
    (p(EXPIRED), p(ACCEPTED), None),  # nothing was filled: nothing can have been corrected
    (p(EXPIRED, reason="too late"), p(CANCELED, reason="by us"), None),
]


@pytest.mark.parametrize(("now", "report", "expected"), CORRECTIONS)
def test_what_a_corrected_fill_makes_of_an_order(now: Progress, report: Progress, expected: Progress | None) -> None:
    assert advance(now, report, QUANTITY, correction=True) == expected


def test_what_is_whole_is_measured_by_the_brokers_quantity() -> None:
    # An order for 10 that a 2-for-1 split made 20.
    assert advance(p(ACCEPTED), p(PARTIAL, 10, 5.0), 20.0) == p(PARTIAL, 10, 5.0)
    assert advance(p(PARTIAL, 10, 5.0), p(FILLED, 20, 5.0), 20.0) == p(FILLED, 20, 5.0)


def follow(reports: list[Progress], start: Progress | None = None) -> list[Progress]:
    """What is known after each report."""
    known, path = start, []
    for report in reports:
        known = advance(known, report, QUANTITY) or known
        path.append(known)
    return path


@st.composite
def lives(draw: st.DrawFn) -> list[Progress]:
    """What a broker says of one order, oldest first: accepted, filled bit by bit, perhaps cancelled, filled once more."""
    fills = sorted(set(draw(st.lists(st.integers(1, 9), max_size=5))))
    told = [p(ACCEPTED), *(p(PARTIAL, float(n), 5.0) for n in fills)]
    filled = float(fills[-1]) if fills else 0.0
    price = 5.0 if fills else None
    if draw(st.booleans()):
        told.append(p(PENDING, filled, price))
    if draw(st.booleans()):
        return [*told, p(FILLED, 10.0, 5.0)]
    end = draw(st.sampled_from([CANCELED, EXPIRED]))
    told.append(p(end, filled, price, "the end"))
    late = sorted(set(draw(st.lists(st.integers(1, 9), max_size=2))))
    told += [p(end, float(n), 5.0, "the end") for n in late if n > filled]
    return [*told, p(FILLED, 10.0, 5.0)] if draw(st.booleans()) else told


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_in_any_order_and_told_twice_the_last_word_is_known_in_the_end(data: st.DataObject) -> None:
    life = data.draw(lives())
    again = data.draw(st.lists(st.sampled_from(life), max_size=6))
    mixed = data.draw(st.permutations([*life, *again]))
    assert follow(list(mixed), p(SUBMITTING))[-1] == life[-1]


@given(
    st.lists(
        st.builds(
            Progress,
            st.sampled_from([s for s in OrderStatus if s is not PLANNED]),
            st.sampled_from([0.0, 0.0, 1.0, 4.0, 9.5, 10.0]),
            st.just(5.0),
            st.sampled_from(["", "because"]),
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_told_fills_never_shrink_and_the_dead_stay_dead(reports: list[Progress]) -> None:
    path = follow(reports)
    filled = [known.filled for known in path]
    assert filled == sorted(filled)
    assert filled[-1] == max(report.filled for report in reports)
    first_end = next((i for i, known in enumerate(path) if known.status in ENDED), len(path))
    assert all(known.status in ENDED for known in path[first_end:])
    assert all((known.status is FILLED) == (known.filled == 10.0) for known in path)
    last = advance(path[-1], reports[-1], QUANTITY)
    assert last is None or last.status is SUBMITTING  # told once more, it changes nothing; but an attempt is one
