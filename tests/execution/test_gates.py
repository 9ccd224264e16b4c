"""Every pre-trade control: what passes, what is refused just beyond its boundary, what is not known, and in which words."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_core import config
from trading_core.errors import InvalidConfigError
from trading_core.execution.gates import (
    GATES,
    GateFacts,
    GateIntent,
    GateLimits,
    GateOrder,
    Scope,
    age_in_sessions,
    check_order,
    refusals,
)
from trading_core.pipelines.strategies import gate_limits
from trading_core.schema import Side
from trading_core.sessions import Sessions

NOW = datetime(2024, 3, 5, 14, 0, tzinfo=UTC)
DAY = date(2024, 3, 5)
LIMITS = GateLimits()
BUY = GateOrder("t1", "paper-x", DAY, "AAPL", Side.BUY, 10.0, 100.0)
SELL = replace(BUY, side=Side.SELL)
CLOSE = replace(SELL, flatten=True)


def intent(key: str = "t2", ago: float = 600.0, **changes: Any) -> GateIntent:
    made = GateIntent(key, "paper-x", DAY, "MSFT", Side.BUY, NOW - timedelta(seconds=ago))
    return replace(made, **changes)


FACTS = GateFacts(
    now=NOW, halted=False, last_price=100.0, position=10.0, price_age_sessions=0, intents=(), equity=1000.0,
    settled_equities=(1000.0,), model_age_sessions=20, model_approved=True, decided_config_hash="aa", current_config_hash="aa",
)  # fmt: skip


def refused(
    order: GateOrder = BUY, limits: GateLimits = LIMITS, facts: GateFacts = FACTS, **changes: Any
) -> dict[str, str]:
    """The reasons by rule."""
    verdicts = refusals(check_order(order, replace(facts, **changes), limits))
    return {verdict.rule: str(verdict.reason) for verdict in verdicts}


def only(rule: str, *args: Any, **changes: Any) -> str:
    """The reason of the rule that alone refuses."""
    found = refused(*args, **changes)
    assert list(found) == [rule]
    return found[rule]


def test_an_order_on_known_facts_within_all_limits_passes_every_rule_by_name() -> None:
    verdicts = check_order(BUY, FACTS, LIMITS)
    assert [verdict.rule for verdict in verdicts] == list(GATES)
    assert refusals(verdicts) == ()
    assert not any(verdict.pauses for verdict in verdicts)
    assert all(build(LIMITS).name == name for name, build in GATES.items())


def test_which_rules_stop_the_session_and_which_pause_the_account() -> None:
    rules = [build(LIMITS) for build in GATES.values()]
    assert {rule.name for rule in rules if rule.scope is Scope.SESSION} == {
        "kill_switch", "config_changed", "model_not_approved", "stale_model", "max_daily_loss", "max_drawdown",
    }  # fmt: skip
    assert {rule.name for rule in rules if rule.pauses} == {"max_daily_loss", "max_drawdown"}


# --- what is not known --------------------------------------------------------------------------------------------------

UNKNOWN = {
    "now": {"max_orders_per_minute": "The time is not known.", "duplicate_intent": "The time is not known."},
    "halted": {"kill_switch": "Whether trading is halted is not known."},
    "last_price": {"price_collar": "The last price of AAPL is not known."},
    "price_age_sessions": {"stale_price": "The session of the last bar of AAPL is not known."},
    "intents": {
        "max_orders_per_session": "How many orders the session has sent is not known.",
        "max_orders_per_minute": "How many orders were sent in the last minute is not known.",
        "duplicate_intent": "Which other orders of AAPL were sent is not known.",
    },
    "equity": dict.fromkeys(("max_daily_loss", "max_drawdown"), "The equity of the account is not known."),
    "settled_equities": dict.fromkeys(
        ("max_daily_loss", "max_drawdown"), "The equity of the account at its settled sessions is not known."
    ),
    "model_age_sessions": {"stale_model": "The age of the model is not known."},
    "model_approved": {"model_not_approved": "Whether the model is approved is not known."},
    "decided_config_hash": {"config_changed": "The configuration of the decision, or that of today, is not known."},
    "current_config_hash": {"config_changed": "The configuration of the decision, or that of today, is not known."},
}
STRICT = GateLimits(max_drawdown=0.5)


@pytest.mark.parametrize("fact", UNKNOWN)
def test_what_is_not_known_refuses_in_these_words(fact: str) -> None:
    assert refused(BUY, STRICT, **{fact: None}) == UNKNOWN[fact]


def test_nothing_known_refuses_all_that_depends_on_facts() -> None:
    assert {field.name for field in fields(GateFacts)} - set(UNKNOWN) == {"halt_reason", "position"}
    nothing = check_order(BUY, GateFacts(), STRICT)
    assert {verdict.rule for verdict in nothing if verdict.reason is None} == {
        "restricted", "max_order_notional", "only_closes",
    }  # fmt: skip
    assert not any(verdict.pauses for verdict in nothing)  # nobody knows of a loss


@pytest.mark.parametrize("price", [math.nan, 0.0, -1.0, math.inf])
def test_a_price_that_is_none_is_not_known(price: float) -> None:
    assert only("price_collar", last_price=price) == "The last price of AAPL is not known."
    found = refused(replace(BUY, reference_price=price))
    assert found == {
        "price_collar": "The reference price of AAPL is not known.",
        "max_order_notional": "The notional of the order of AAPL is not known.",
    }


@pytest.mark.parametrize("quantity", [math.nan, 0.0, -5.0, math.inf])
def test_a_quantity_that_is_none_has_no_notional(quantity: float) -> None:
    assert "is not known" in only("max_order_notional", replace(BUY, quantity=quantity))


@pytest.mark.parametrize("equities", [(), (math.nan,), (1000.0, 0.0), (math.nan, 1000.0), (1000.0, math.nan)])
def test_an_account_without_a_settled_equity_is_not_known(equities: tuple[float, ...]) -> None:
    assert "at its settled sessions is not known" in only("max_daily_loss", settled_equities=equities)
    assert "The equity of the account is not known." in only("max_daily_loss", equity=math.nan)


def test_a_time_without_a_zone_is_no_time() -> None:
    assert set(refused(now=NOW.replace(tzinfo=None))) == {"max_orders_per_minute", "duplicate_intent"}


# --- the session --------------------------------------------------------------------------------------------------------


def test_the_kill_switch_tells_its_reason() -> None:
    assert only("kill_switch", halted=True, halt_reason="drill") == "Trading is halted: drill."
    assert only("kill_switch", halted=True) == "Trading is halted: no reason was given."


def test_daily_loss_since_the_last_settled_close() -> None:
    assert refused(equity=900.0) == {}  # 10 %, as much as is allowed
    assert (
        only("max_daily_loss", equity=899.0)
        == "The account has lost 10.10% in one session; more than 10.00% pauses it."
    )
    assert refused(BUY, GateLimits(max_daily_loss=0.05), equity=950.0) == {}  # 1 - 0.95 is above 0.05 in floats
    assert refused(BUY, GateLimits(max_daily_loss=0.05), equity=949.9) != {}


def test_daily_loss_of_the_session_settled_last_counts_until_the_next_one_is() -> None:
    crash = (1000.0, 1100.0, 970.0)  # the last session has lost 11.8 %
    assert "11.82%" in only("max_daily_loss", equity=970.0, settled_equities=crash)
    assert "11.82%" in only("max_daily_loss", equity=1200.0, settled_equities=crash)
    assert refused(equity=960.0, settled_equities=(*crash, 965.0)) == {}
    # Two losses of 6 % are no loss of 12 %.
    assert refused(equity=0.94 * 940.0, settled_equities=(1000.0, 940.0)) == {}


def test_drawdown_from_the_highest_settled_equity() -> None:
    limits, path = GateLimits(max_drawdown=0.2, max_daily_loss=1.0), (500.0, 1000.0, 850.0)
    assert refused(BUY, limits, equity=800.0, settled_equities=path) == {}
    assert only("max_drawdown", BUY, limits, equity=790.0, settled_equities=path) == (
        "The account is 21.00% below its highest settled equity; more than 20.00% pauses it."
    )
    assert refused(equity=800.0, settled_equities=(500.0, 2000.0, 850.0, 840.0)) == {}  # off by default


def test_a_session_that_was_not_priced_refuses_until_two_others_are_settled() -> None:
    limits, path = GateLimits(max_drawdown=0.2, max_daily_loss=0.5), (1000.0, math.nan)
    for more in ((), (990.0,)):
        assert "is not known" in only("max_daily_loss", BUY, limits, equity=980.0, settled_equities=(*path, *more))
    assert refused(BUY, limits, equity=980.0, settled_equities=(*path, 990.0, 985.0)) == {}
    assert list(refused(BUY, limits, equity=790.0, settled_equities=(*path, 800.0, 795.0))) == ["max_drawdown"]


@pytest.mark.parametrize("equity", [0.0, -100.0])
def test_an_account_that_has_lost_everything_is_paused(equity: float) -> None:
    verdicts = refusals(check_order(BUY, replace(FACTS, equity=equity), STRICT))
    assert [(v.rule, v.pauses, v.scope) for v in verdicts] == [
        ("max_daily_loss", True, Scope.SESSION), ("max_drawdown", True, Scope.SESSION),
    ]  # fmt: skip


def test_stale_model() -> None:
    limits = GateLimits(max_model_age_sessions=60)
    assert refused(BUY, limits, model_age_sessions=60) == {}
    assert only("stale_model", BUY, limits, model_age_sessions=61) == (
        "The model's information cut-off lies 61 sessions back; at most 60 are allowed."
    )
    assert refused(model_age_sessions=1) == {}
    for age in (0, -3):
        assert "does not lie before the decision's session" in only("stale_model", model_age_sessions=age)


def test_a_model_that_is_not_the_champion_and_a_config_that_has_changed() -> None:
    assert only("model_not_approved", model_approved=False) == (
        "The model of the decision is not the approved one (the champion)."
    )
    assert only("config_changed", current_config_hash="bb") == (
        "Strategy, costs or limits were changed after the decision (aa, now bb)."
    )
    assert "is not known" in only("config_changed", decided_config_hash="", current_config_hash="")


# --- one order ----------------------------------------------------------------------------------------------------------


def test_a_restricted_symbol_is_refused_on_both_sides() -> None:
    limits = GateLimits(restricted=frozenset({"AAPL"}))
    for order in (BUY, SELL, CLOSE):
        assert only("restricted", order, limits) == "AAPL is restricted."
    assert refused(replace(BUY, symbol="MSFT"), limits) == {}


def test_price_collar() -> None:
    limits = GateLimits(price_collar_bps=500.0)
    assert refused(BUY, limits, last_price=105.0) == refused(BUY, limits, last_price=95.0) == {}
    assert only("price_collar", BUY, limits, last_price=105.02) == (
        "The last price of AAPL, 105.02, is 502.0 bps from the 100 it was sized with; at most 500.0 are allowed."
    )
    assert "502.0 bps" in only("price_collar", SELL, limits, last_price=94.98)
    assert "5,000.0 bps" in only("price_collar", last_price=50.0)  # a split that nobody applied


def test_max_order_notional() -> None:
    limits = GateLimits(max_order_notional=1000.0)
    assert refused(BUY, limits) == {}
    assert only("max_order_notional", replace(BUY, quantity=10.01), limits) == (
        "The order of AAPL is worth 1,001.00; at most 1,000.00 are allowed."
    )


def test_max_orders_per_session() -> None:
    limits = GateLimits(max_orders_per_session=3)
    sent = tuple(intent(f"t{n}") for n in range(2, 5))
    assert refused(BUY, limits, intents=sent[:2]) == {}
    assert only("max_orders_per_session", BUY, limits, intents=sent) == (
        "Session 2024-03-05 has sent 3 orders; at most 3 are allowed."
    )
    # The order itself (sent again under its id), another session's and another account's do not count.
    others = (intent("t1"), intent("t8", session=date(2024, 3, 4)), intent("t9", account="other"))
    assert refused(BUY, limits, intents=(*sent[:2], *others)) == {}


def test_max_orders_per_minute() -> None:
    limits = GateLimits(max_orders_per_minute=2)
    assert refused(BUY, limits, intents=(intent("t2", 60.0), intent("t3", 59.0))) == {}
    assert only("max_orders_per_minute", BUY, limits, intents=(intent("t2", 59.9), intent("t3", 0.0))) == (
        "2 orders were sent in the last minute; at most 2 are allowed."
    )
    assert refused(BUY, limits, intents=(intent("t2", -5.0), intent("t3", -500.0))) != {}  # a clock that was ahead
    other_session = intent("t2", 1.0, session=date(2024, 3, 4))
    assert refused(BUY, limits, intents=(other_session, intent("t3", 1.0))) != {}


def test_duplicate_intent() -> None:
    twin = intent("t2", 29.0, symbol="AAPL")
    assert only("duplicate_intent", intents=(twin,)) == ("Another buy of AAPL, t2, was sent less than 30 seconds ago.")
    for other in (
        replace(twin, at=NOW - timedelta(seconds=30)), replace(twin, client_order_id="t1"), replace(twin, symbol="MSFT"),
        replace(twin, side=Side.SELL), replace(twin, account="other"),
    ):  # fmt: skip
        assert refused(intents=(other,)) == {}
    assert "duplicate_intent" in refused(intents=(replace(twin, at=NOW + timedelta(hours=1)),))
    assert "duplicate_intent" in refused(intents=(replace(twin, session=date(2024, 3, 6)),))
    again = replace(BUY, client_order_id="t3", earlier_attempts=frozenset({"t2"}))
    assert refused(again, intents=(twin,)) == {}
    assert "duplicate_intent" in refused(again, intents=(twin, replace(twin, client_order_id="t7")))


def test_stale_price_lets_a_held_symbol_be_left_for_a_while() -> None:
    assert only("stale_price", price_age_sessions=1) == (
        "The last bar of AAPL is 1 session(s) older than the decision; at most 0 are allowed."
    )
    assert refused(SELL, price_age_sessions=5) == {}  # 10 are held, 10 are sold
    assert "6 session(s) older than the decision; at most 5" in only("stale_price", SELL, price_age_sessions=6)
    assert "at most 0" in only("stale_price", replace(SELL, quantity=10.5), price_age_sessions=1)
    assert refused(BUY, price_age_sessions=1, position=-10.0) == {}  # covers a short
    assert only("stale_price", SELL, price_age_sessions=1, position=None) == (
        "The last bar of AAPL is 1 session(s) older than the decision, and the position is not known."
    )
    assert "lies after the decision's session" in only("stale_price", SELL, price_age_sessions=-1)
    assert refused(BUY, GateLimits(max_price_age_sessions=2), price_age_sessions=2) == {}


# --- closing by hand ----------------------------------------------------------------------------------------------------


def test_a_flatten_passes_what_asks_for_the_strategy_and_nothing_else() -> None:
    bad = replace(
        FACTS, halted=True, equity=100.0, model_age_sessions=None, model_approved=None, current_config_hash=None,
        intents=tuple(intent(f"x{n}") for n in range(3)),
    )  # fmt: skip
    limits = GateLimits(max_order_notional=5.0, max_orders_per_session=2)
    assert len(refused(SELL, limits, facts=bad)) == 7
    assert refused(CLOSE, limits, facts=bad) == {}
    assert set(refused(CLOSE, facts=replace(bad, last_price=None, price_age_sessions=None, now=None))) == {
        "price_collar", "stale_price", "max_orders_per_minute", "duplicate_intent",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("order", "position"),
    [
        (CLOSE, 9.9), (CLOSE, -10.0), (CLOSE, 0.0), (replace(CLOSE, side=Side.BUY), 10.0),
        (replace(CLOSE, quantity=math.nan), 10.0), (replace(CLOSE, quantity=-1.0), 10.0),
    ],
)  # fmt: skip
def test_a_flatten_that_would_do_more_than_close_is_refused(order: GateOrder, position: float) -> None:
    assert "A flatten only closes what is held" in only("only_closes", order, position=position)


def test_a_flatten_needs_a_known_position() -> None:
    assert only("only_closes", CLOSE, position=None) == "The position in AAPL is not known."
    assert refused(replace(CLOSE, side=Side.BUY), position=-10.0) == {}
    said = only("only_closes", CLOSE, position=3.0)
    assert said == "A flatten only closes what is held: the sell of 10 AAPL does not, with 3 held."


# --- properties ---------------------------------------------------------------------------------------------------------

NUMBER = st.none() | st.floats(allow_nan=True, allow_infinity=True)
COUNT = st.none() | st.integers(-3, 1000)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.builds(
        GateFacts, now=st.none() | st.just(NOW), halted=st.sampled_from([None, True, False]), last_price=NUMBER,
        position=NUMBER, price_age_sessions=COUNT, equity=NUMBER, model_age_sessions=COUNT,
        settled_equities=st.none() | st.lists(st.floats(), max_size=4).map(tuple),
        model_approved=st.sampled_from([None, True, False]), intents=st.none() | st.just((intent(ago=1.0),)),
        decided_config_hash=st.sampled_from([None, "", "aa"]), current_config_hash=st.sampled_from([None, "aa", "bb"]),
    ),
    st.builds(
        replace, st.sampled_from([BUY, SELL, CLOSE]), quantity=st.floats(), reference_price=NUMBER,
    ),
)  # fmt: skip
def test_whatever_the_facts_every_rule_answers_and_a_pass_means_all_is_known(
    facts: GateFacts, order: GateOrder
) -> None:
    verdicts = check_order(order, facts, STRICT)
    if refusals(verdicts):
        assert all(v.reason.endswith(".") for v in refusals(verdicts) if v.reason)
        return
    assert facts.now == NOW
    assert facts.last_price is not None
    assert order.reference_price is not None
    assert abs(facts.last_price / order.reference_price - 1.0) <= 0.1 + 1e-9
    assert facts.price_age_sessions is not None
    assert facts.intents is not None
    if order.flatten:
        assert facts.position is not None
        assert order.quantity <= facts.position
    else:
        assert facts.halted is False
        assert facts.model_approved is True
        assert facts.decided_config_hash == facts.current_config_hash == "aa"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(1.0, 1e7), min_size=1, max_size=6), st.floats(0.0, 1e7), st.floats(1e-3, 1e3))
def test_losses_do_not_depend_on_the_currency(path: list[float], equity: float, rate: float) -> None:
    def rules(factor: float) -> set[str]:
        limits = GateLimits(max_drawdown=0.123456)
        return set(refused(BUY, limits, equity=equity * factor, settled_equities=tuple(x * factor for x in path)))

    lost = [1 - after / before for before, after in zip(path, [*path[1:], equity], strict=True)]
    clear = all(abs(x - 0.1) > 1e-6 for x in lost) and abs(1 - equity / max(path) - 0.123456) > 1e-6
    assert not clear or rules(1.0) == rules(rate)


# --- limits and their config --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"price_collar_bps": 0.0}, {"price_collar_bps": math.inf}, {"max_order_notional": math.inf},
        {"max_order_notional": math.nan}, {"max_orders_per_session": 0}, {"max_orders_per_minute": 0},
        {"duplicate_window_seconds": 0.0}, {"max_price_age_sessions": -1}, {"max_closing_price_age_sessions": -1},
        {"max_model_age_sessions": 0}, {"max_daily_loss": 0.0}, {"max_daily_loss": 1.1}, {"max_drawdown": 0.0},
        {"max_drawdown": math.nan}, {"max_closing_price_age_sessions": 2, "max_price_age_sessions": 3},
    ],
)  # fmt: skip
def test_limits_state_their_bounds_and_none_can_be_switched_off_by_an_infinite_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GateLimits(**wrong)


def test_the_limits_of_a_config_are_the_defaults_here_and_every_field_is_taken() -> None:
    given_limits = {"strategy": "top_k"}
    default = config.validate(config.StrategyConfig, given_limits, "the test")
    assert gate_limits(default, "it") == LIMITS
    other = {
        "restricted": ["X"], "price_collar_bps": 11.0, "max_order_notional": 12.0, "max_orders_per_session": 13,
        "max_orders_per_minute": 14, "duplicate_window_seconds": 15.0, "max_price_age_sessions": 1,
        "max_closing_price_age_sessions": 17, "max_daily_loss": 0.18, "max_drawdown": 0.19, "max_model_age_sessions": 20,
    }  # fmt: skip
    chosen = config.validate(config.StrategyConfig, {**given_limits, "risk": other}, "the test")
    assert gate_limits(chosen, "it") == GateLimits(**{**other, "restricted": frozenset({"X"})})
    assert set(other) == {field.name for field in fields(GateLimits)}
    at_odds = config.validate(
        config.StrategyConfig, {**given_limits, "risk": {"max_price_age_sessions": 9}}, "the test"
    )
    with pytest.raises(InvalidConfigError, match=r"(?s)risk of strategy 'it'.*max_closing_price_age_sessions is 5"):
        gate_limits(at_odds, "it")


def test_ages_count_sessions_not_days() -> None:
    sessions = Sessions("XNYS")
    friday, tuesday = date(2024, 1, 12), date(2024, 1, 16)  # Monday was Martin Luther King Day
    assert age_in_sessions(sessions, friday, tuesday) == 1
    assert age_in_sessions(sessions, date(2024, 1, 14), tuesday) == 1  # a Sunday
    assert age_in_sessions(sessions, tuesday, tuesday) == 0
    assert age_in_sessions(sessions, tuesday, friday) == -1
