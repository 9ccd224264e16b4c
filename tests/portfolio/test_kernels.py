"""The compiled arithmetic against sums by hand, plain Python and numpy; and that no machine code outlives its source."""

from __future__ import annotations

import importlib
import math
import pkgutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from tests.backtest.random_markets import CASES, Signals
from tests.backtest.reference_engine import top_k
from trading_core.backtest.engine import Job, run_many
from trading_core.costs import FREE, CostModel
from trading_core.portfolio import kernels
from trading_core.portfolio.kernels.account import accrue, apply_action, floor_quantity, value
from trading_core.portfolio.kernels.allocation import _mark_best, allocate, flawed
from trading_core.portfolio.kernels.compiled import FOLDER, source_stamp, stamped
from trading_core.portfolio.kernels.fills import execution_price, fill
from trading_core.portfolio.kernels.sessions import Account, run_sessions
from trading_core.portfolio.kernels.types import (
    DELISTING,
    DIVIDEND,
    GIVEN,
    HOLD,
    PATHS,
    SLOTS,
    SPLIT,
    TOP_K,
    WEIGHTS,
    AccountRules,
    Allocation,
)
from trading_core.portfolio.risk import NO_LIMITS

NAN, INF = math.nan, math.inf
QUICK = settings(max_examples=60, deadline=None, derandomize=True)


# --- what is kept on disk ---------------------------------------------------------------------------------------------


def test_the_stamp_changes_with_every_file_of_the_folder_and_every_other_source(tmp_path: Path) -> None:
    folder, other = tmp_path / "kernels", tmp_path / "costs.py"
    folder.mkdir()
    for path, text in ((folder / "a.py", "A = 1"), (folder / "b.py", "B = 1"), (other, "C = 1")):
        path.write_text(text)
    seen = [source_stamp(folder, other)]
    for path in (folder / "a.py", folder / "b.py", other):
        path.write_text(path.read_text() + "  # edited")
        seen.append(source_stamp(folder, other))
    (folder / "b.py").rename(folder / "c.py")
    seen.append(source_stamp(folder, other))
    (folder / "d.py").write_text("")
    seen.append(source_stamp(folder, other))
    assert len(set(seen)) == 6
    (folder / "notes.txt").write_text("no source")
    assert source_stamp(folder, other) == seen[-1]


def _imported(name: str, stamp: str) -> Any:
    """The function of a source file as a fresh process would have it, its cache bound to `stamp`."""
    sys.modules.pop(name, None)
    return stamped(njit(cache=True)(importlib.import_module(name).three), stamp)


def test_machine_code_of_another_stamp_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"kernel_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("def three():\n    return 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    for stamp, hits in (("one", 0), ("one", 1), ("two", 0)):
        kernel = _imported(name, stamp)
        assert kernel() == 3
        assert sum(kernel.stats.cache_hits.values()) == hits, stamp
    sys.modules.pop(name)


def test_every_kernel_is_bound_to_the_sources_of_all_of_them() -> None:
    stamp = source_stamp(FOLDER, FOLDER.parents[1] / "costs.py")
    found = []
    for module in pkgutil.iter_modules(kernels.__path__):
        members = vars(importlib.import_module(f"{kernels.__name__}.{module.name}"))
        found += [(name, member) for name, member in members.items() if hasattr(member, "py_func")]
    assert len(found) > 15
    assert [name for name, kernel in found if kernel._cache._cache_file._source_stamp != stamp] == []


def test_a_dispatcher_without_a_stamp_to_set_is_refused() -> None:
    class Later:
        class _cache:
            _cache_file = object()

    with pytest.raises(AttributeError, match="old sources"):
        stamped(Later, "one")


# --- account ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "fractional", "expected"),
    [
        (0.29, True, 0.29),
        (1.9999999, True, 1.999999),
        (1.9999999999999, True, 2.0),  # short of a step by a ten-millionth of it
        (3.7, False, 3.0),
        (2.9999999, False, 3.0),
        (2.99999, False, 2.0),
        (1e14, True, 1e14),  # a coin of which a unit of currency buys billions: 1e20 steps, more than an int64 holds
        (1e20, False, 1e20),
        (0.0, True, 0.0),
    ],
)
def test_quantities_are_rounded_down(quantity: float, fractional: bool, expected: float) -> None:
    assert floor_quantity(quantity, fractional) == expected


def test_an_account_is_worth_its_cash_and_positions() -> None:
    weights = np.full(3, 9.0)
    assert value(np.array([10.0, 0.0, -5.0]), np.array([8.0, NAN, 4.0]), 40.0, weights) == 100.0
    assert weights.tolist() == [0.8, 0.0, -0.2]
    assert value(np.array([0.0, 0.0, -5.0]), np.array([8.0, 1.0, 4.0]), 20.0, weights) == 0.0
    assert weights.tolist() == [0.0, 0.0, 0.0]


def test_interest_and_fees_accrue_over_calendar_days() -> None:
    rates = CostModel(borrow_bps_annual=300, interest_bps_annual=500).rates
    quantities, marks = np.array([-10.0, 7.0, -1.0]), np.array([20.0, 9.0, 100.0])
    # Three days: 1000 * 5 % * 3 / 365 = 0.410959 and 300 * 3 % * 3 / 365 = 0.073973.
    assert accrue(quantities, marks, 1000.0, 3 / 365, rates) == pytest.approx((0.4109589041, 0.0739726027))
    assert accrue(quantities, marks, -1000.0, 3 / 365, rates)[0] == 0.0  # nothing is charged for what is overdrawn
    assert accrue(quantities, np.full(3, NAN), 0.0, 1.0, FREE.rates) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "amount", "held", "paid"),
    [(SPLIT, 3.0, -30.0, 0.0), (DIVIDEND, 0.5, -10.0, -5.0), (DELISTING, 4.0, 0.0, -40.0)],
)
def test_a_short_owes_what_a_long_is_paid(kind: int, amount: float, held: float, paid: float) -> None:
    for side in (1.0, -1.0):
        quantities = np.array([7.0, -10.0 * side])
        assert apply_action(quantities, 1, kind, amount) == paid * side
        assert quantities.tolist() == [7.0, held * side]


# --- allocation ---------------------------------------------------------------------------------------------------------


@QUICK
@given(st.lists(st.sampled_from([-INF, -2.0, 0.0, 0.5, 0.5, 3.0, 7.0]), max_size=30), st.integers(-1, 33))
def test_the_best_are_those_of_a_sort(scores: list[float], count: int) -> None:
    best = np.ones(len(scores), dtype=np.bool_)
    ranked = sorted((s for s in range(len(scores)) if scores[s] > -INF), key=lambda s: (-scores[s], s))
    expected = ranked[: max(count, 0)]
    columns = _mark_best(np.array(scores, dtype=np.float64), count, best)
    assert sorted(columns.tolist()) == sorted(expected)
    assert np.flatnonzero(best).tolist() == sorted(expected)


def allocated(rule: Allocation, signal: list[float], weights: list[float], ordinal: int = 0) -> list[float]:
    tradable = np.ones(len(signal), dtype=np.bool_)
    row, now = np.array(signal, dtype=np.float64), np.array(weights, dtype=np.float64)
    target: list[float] = allocate(rule, row, tradable, now, ordinal).tolist()
    return target


@QUICK
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(0, 4), st.sampled_from([0.0, 0.2, 0.7]), st.booleans())
def test_the_best_names_are_those_of_plain_lists(seed: int, k: int, buffer: int, share: float, reweight: bool) -> None:
    rng = np.random.default_rng(seed)
    names = [f"S{s}" for s in range(9)]
    signal = rng.choice([-INF, NAN, 0.1, 0.2, 0.2, 0.3, 0.4], 9)
    tradable = rng.random(9) > 0.15
    weights = np.where(rng.random(9) < 0.5, rng.random(9) / 9, 0.0)
    rule = Allocation(TOP_K, k=k, buffer=buffer, keep_share=share, reweight=reweight)
    known = {name: float(x) for name, x in zip(names, signal, strict=True) if not np.isnan(x)}
    there = {name for name, is_there in zip(names, tradable, strict=True) if is_there}
    expected = top_k(rule, known, there, dict(zip(names, weights.tolist(), strict=True)))
    found = allocate(rule, signal, tradable, weights, 0)
    assert found.tolist() == pytest.approx([expected[name] for name in names], rel=1e-12)


def test_a_buffer_keeps_a_name_that_only_slipped() -> None:
    rule = Allocation(TOP_K, k=2, buffer=1)
    # A is third: it stays, and so does B, though D is better. Fourth it is sold and D, the best not held, gets its weight.
    assert allocated(rule, [0.5, 0.9, 0.1, 0.8], [0.4, 0.6, 0.0, 0.0]) == [0.4, 0.6, 0.0, 0.0]
    assert allocated(rule, [0.5, 0.9, 0.6, 0.8], [0.4, 0.6, 0.0, 0.0]) == [0.0, 0.6, 0.0, pytest.approx(0.4)]


def test_a_share_of_the_ranked_names_keeps_too_and_never_more_than_k_stay() -> None:
    rule = Allocation(TOP_K, k=1, keep_share=0.5)
    assert allocated(rule, [0.5, 0.9, 0.1, 0.2], [1.0, 0.0, 0.0, 0.0]) == [1.0, 0.0, 0.0, 0.0]
    assert allocated(rule, [0.1, 0.9, 0.5, 0.2], [1.0, 0.0, 0.0, 0.0]) == [0.0, 1.0, 0.0, 0.0]
    # Two are held within the buffer, for one place: the better one stays and nothing is bought.
    assert allocated(Allocation(TOP_K, k=1, buffer=3), [0.5, 0.6, 0.9], [0.5, 0.4, 0.0]) == [0.0, 0.4, 0.0]


def test_what_is_known_and_never_held_is_sold_and_what_is_not_known_stays() -> None:
    assert allocated(Allocation(TOP_K, k=2), [-INF, NAN, 0.3], [0.4, 0.6, 0.0]) == [0.0, 0.6, pytest.approx(0.4)]
    assert allocated(Allocation(TOP_K, k=1), [-INF, NAN, 0.3], [0.4, 0.6, 0.0]) == [0.0, 0.6, 0.0]  # no place is left


def test_slots_are_of_equal_size_and_paid_by_what_is_there() -> None:
    # Four known names, a quarter each; E is locked with 0.2: four slots of 0.8 / 4.
    assert allocated(Allocation(SLOTS), [1, 0, 0, 1, NAN], [0, 0, 0, 0, 0.2]) == pytest.approx([0.2, 0, 0, 0.2, 0.2])
    # A drifted to 0.7 and stays; B is sold (0.2) and 0.1 is cash: C and D share 0.3, below their slots of 0.25.
    assert allocated(Allocation(SLOTS), [1, 0, 1, 1], [0.7, 0.2, 0.0, 0.0]) == pytest.approx([0.7, 0, 0.15, 0.15])


def test_weights_leave_alone_what_is_near_and_fit_into_what_is_left() -> None:
    near = allocated(Allocation(WEIGHTS, band=0.05), [0.30, -0.40, 0.0], [0.27, -0.30, 0.02])
    assert near == [0.27, -0.40, 0.0]  # 0.03 from its goal; 0.10 from it; a goal of 0 is gone to whatever the distance
    # B is not known and takes up 0.4 of 1: 0.9 and -0.3 are halved to fit into 0.6.
    assert allocated(Allocation(WEIGHTS), [0.9, NAN, -0.3], [0.0, -0.4, 0.0]) == pytest.approx([0.45, -0.4, -0.15])


def test_hold_buys_once_and_only_every_nth_decision_changes_anything() -> None:
    assert allocated(Allocation(HOLD), [1, 1, 0, NAN], [0, 0, 0, 0]) == [0.5, 0.5, 0.0, 0.0]
    assert allocated(Allocation(HOLD), [1, 1, 0, NAN], [0, 0, 0.1, 0]) == [0, 0, 0.1, 0]
    rule = Allocation(TOP_K, k=1, every=3)
    assert [allocated(rule, [0.1, 0.2], [1.0, 0.0], n)[0] for n in range(5)] == [0.0, 1.0, 1.0, 0.0, 1.0]


def test_flawed_targets() -> None:
    now, there = np.array([0.6, 0.5]), np.array([True, False])

    def wrong(target: list[float], max_gross: float = 1.0, short: bool = False) -> bool:
        return bool(flawed(np.array(target, dtype=np.float64), now, there, max_gross, short))

    assert not wrong([0.6, 0.5])  # 1.1, as drift has brought it
    assert wrong([0.7, 0.5])
    assert wrong([0.1, 0.4])  # has no bar
    assert wrong([NAN, 0.5])
    assert wrong([-0.1, 0.5])
    assert not wrong([-0.5, 0.5], 1.0, short=True)
    assert wrong([-1.1, 0.5], 1.5, short=True)


# --- fills --------------------------------------------------------------------------------------------------------------


def test_impact_grows_with_the_square_root_of_the_share_of_volume() -> None:
    rates = CostModel(0, 2, 3, impact_coefficient=0.5).rates
    # 100 shares of 10,000 a day: sqrt(0.01) = 0.1; half of 0.1 * 2 % is 0.1 % on top of 5 bps.
    assert execution_price(50.0, 100.0, 0.02, 1e4, rates) == pytest.approx(50.0 * 1.0015)
    assert execution_price(50.0, -100.0, 0.02, 1e4, rates) == pytest.approx(50.0 * 0.9985)
    assert execution_price(50.0, 400.0, 0.02, 1e4, rates) == pytest.approx(50.0 * 1.0025)
    assert execution_price(50.0, -1e12, 0.02, 1e4, rates) == 0.0  # never below nothing
    assert execution_price(50.0, 100.0, NAN, NAN, FREE.rates) == 50.0


@QUICK
@given(st.integers(0, 2**31), st.booleans(), st.booleans())
def test_fills_are_at_most_what_was_ordered_and_the_cash_is_that_of_the_fills(
    seed: int, fractional: bool, short: bool
) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 8))
    costs = CostModel(5, 5, 5, float(rng.choice([0.0, 1.0])), float(rng.choice([0.02, 1.0])))
    amounts = np.round(rng.normal(0, 100, count), 6 if fractional else 0)
    prices = np.where(rng.random(count) < 0.1, NAN, rng.uniform(1, 300, count))
    held, cash = np.round(np.maximum(rng.normal(0, 80, count), 0)), float(rng.uniform(0, 20_000))
    quantities, paid, flags = held.copy(), np.zeros(count), np.zeros(count, dtype=np.int64)
    filled, after = fill(
        np.arange(count), amounts, prices, rng.uniform(0, 5000, count), rng.uniform(0.01, 0.05, count),
        rng.uniform(100, 5000, count), quantities, cash, costs.rates, AccountRules(fractional, short, 0.0), paid, flags,
    )  # fmt: skip
    assert (filled * amounts >= 0).all()
    assert (np.abs(filled) <= np.abs(amounts)).all()
    assert quantities.tolist() == (held + filled).tolist()
    assert after >= 0.0
    assert after == pytest.approx(cash - filled @ paid - np.abs(filled) @ paid * costs.rates.commission, abs=1e-8)
    assert ((filled != amounts) == (flags != 0)).all()
    assert short or quantities.min() >= 0


# --- sessions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["top 3 with everything", "weights, long and short", "weights, whole shares"])
def test_sessions_in_two_parts_are_those_of_one(name: str) -> None:
    """An account is its quantities and its cash: nothing else is carried from one session to the next."""
    case = CASES[name]
    market = case.market(11)
    terms, days = case.terms, market.data.sessions
    whole = run_many(
        market.data, [Job("it", Signals(case.rule, case.short), terms, market.panel)], start=days[0], end=days[-1]
    )[0]
    rules = AccountRules(terms.fractional, case.short, terms.min_order_notional)
    assert terms.limits is not None
    mask = np.array([symbol in terms.limits.restricted for symbol in market.data.symbols])
    account = Account(case.rule, terms.costs.rates, terms.limits.numbers, rules, mask)
    quantities, cash, fills = np.zeros(len(market.data.symbols)), terms.capital, []
    arrays = market.data.for_kernels(True)
    for first, last in ((0, 10), (10, 11), (11, len(days) - 1)):
        paths = np.zeros((PATHS, last - first))
        signals = np.ascontiguousarray(market.signals[first:last])
        flaw, cash, trades, _ = run_sessions(arrays, account, signals, first, first, quantities, cash, paths, True)
        assert flaw == -1
        assert paths[0].tobytes() == whole.equity[first + 1 : last + 1].tobytes()
        fills.append(trades)
    joined = np.concatenate(fills)
    joined[:, 0] += 1  # the engine counts the sessions of fills, the kernel those of decisions
    assert joined.tobytes() == whole.fills.tobytes()
    assert quantities.tobytes() == whole.final_quantities.tobytes()


def test_a_decision_that_may_not_be_acted_on_leaves_the_account_as_it_was() -> None:
    data = CASES["hold"].market(0).data
    rules, free = AccountRules(True, False, 0.0), np.zeros(len(data.symbols), dtype=np.bool_)
    account = Account(Allocation(GIVEN), FREE.rates, NO_LIMITS, rules, free)
    signals, quantities, paths = np.zeros((4, len(data.symbols))), np.zeros(len(data.symbols)), np.zeros((PATHS, 4))
    signals[2, 0] = 1.5
    market = data.for_kernels(False)
    flaw, cash, trades, missed = run_sessions(market, account, signals, 0, 0, quantities, 500.0, paths, True)
    assert (flaw, cash, len(trades), len(missed)) == (2, 500.0, 0, 0)
    assert not quantities.any()
