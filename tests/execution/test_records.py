"""Ids that never change, and records that come back exactly or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from ledger_samples import make_decision, make_intent

from trading_core.errors import TradingError, UnknownNameError
from trading_core.execution.codec import LedgerRecordError, from_document, to_document, to_json
from trading_core.execution.ids import client_order_id, decision_id
from trading_core.execution.records import Decision, Intent
from trading_core.schema import Side


def test_a_client_order_id_is_the_sha256_of_its_key() -> None:
    # The canonical key, hashed here by hand.
    key = '["paper-simulated-top10", "top10", "2024-01-09", "AAA", "buy", 1]'
    expected = "t" + hashlib.sha256(key.encode()).hexdigest()[:47]
    made = client_order_id("paper-simulated-top10", "top10", date(2024, 1, 9), "AAA", Side.BUY, 1)
    assert made == expected
    assert len(made) == 48


def test_every_part_of_the_key_changes_the_id() -> None:
    base = ("acc", "strat", date(2024, 1, 9), "AAA", Side.BUY, 1)
    variants = [
        base,
        ("acc2", *base[1:]),
        ("a", "ccstrat", *base[2:]),
        (*base[:2], date(2024, 1, 10), *base[3:]),
        (*base[:3], "AAB", *base[4:]),
        (*base[:4], Side.SELL, 1),
        (*base[:5], 2),
    ]
    assert len({client_order_id(*variant) for variant in variants}) == len(variants)
    assert decision_id("acc", date(2024, 1, 9)) != decision_id("acc", date(2024, 1, 10))
    with pytest.raises(UnknownNameError, match="attempt '0'"):
        client_order_id("acc", "strat", date(2024, 1, 9), "AAA", Side.BUY, 0)


def test_a_decision_survives_its_json_exactly() -> None:
    decision = make_decision()
    text = to_json(to_document(decision))
    again = from_document(Decision, json.loads(text))
    assert again == decision
    assert again.targets[0].score.hex() == decision.targets[0].score.hex()
    assert to_json(to_document(again)) == text


def test_times_are_kept_in_utc_and_whole_numbers_as_floats() -> None:
    zurich = datetime(2024, 1, 9, 15, 30, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
    document = to_document(replace(make_intent(), created_at=zurich, quantity=10))
    assert document["created_at"] == "2024-01-09T14:30:00.123456+00:00"
    again = from_document(Intent, json.loads(to_json(document)))
    assert again.created_at == zurich
    assert again.created_at.tzinfo == UTC
    assert type(again.quantity) is float


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"quantity": float("nan")}, "Intent.quantity: nan is not a finite number"),
        ({"quantity": "10"}, "Intent.quantity: '10' is a str, expected float"),
        ({"attempt": True}, "Intent.attempt: True is a bool, expected int"),
        ({"created_at": datetime(2024, 1, 9)}, "expected an aware datetime"),
        ({"session": datetime(2024, 1, 9, tzinfo=UTC)}, "Intent.session: .* expected date"),
        ({"side": "buy"}, "Intent.side: 'buy' is a str, expected Side"),
    ],
)
def test_what_does_not_fit_is_not_written(changes: dict[str, object], named: str) -> None:
    with pytest.raises(LedgerRecordError, match=named) as caught:
        to_document(replace(make_intent(), **changes))  # type: ignore[arg-type]
    assert isinstance(caught.value, TradingError)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"surprise": 1}, "its fields are"),
        ({"side": "hold"}, "Intent.side: 'hold' is not a valid Side"),
        ({"session": "yesterday"}, "Intent.session"),
        ({"quantity": "10"}, "Intent.quantity: '10' is a str, expected float"),
    ],
)
def test_what_does_not_fit_is_not_read(changes: dict[str, object], named: str) -> None:
    with pytest.raises(LedgerRecordError, match=named):
        from_document(Intent, to_document(make_intent()) | changes)
