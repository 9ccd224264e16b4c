"""Several strategies against a benchmark; arch's SPA and StepM: test_significance_peers.py."""

import math

import numpy as np
import pytest

from trading_core.errors import InvalidConfigError
from trading_core.metrics import superior
from trading_core.metrics.paired import active_return_test

NAMES = ("a", "b", "c", "d", "e")


def market(seed, better=(0.0,) * 5, count=200):
    rng = np.random.default_rng(seed)
    benchmark = rng.normal(0.0004, 0.01, count)
    return benchmark[:, None] + rng.normal(better, 0.005, (count, 5)), benchmark


def test_without_skill_the_best_of_five_is_rarely_significant():
    """300 tries at 5 % leave 1.3 % .. 9.7 % (the central 99.9 %); the best one alone would be called so in some 20 %."""
    tests = [superior.superior_ability(*market(seed), NAMES, seed, resamples=200) for seed in range(300)]
    assert 0.013 < np.mean([t.p_consistent <= 0.05 for t in tests]) < 0.097
    assert 0.013 < np.mean([len(t.superior) > 0 for t in tests]) < 0.097


def test_the_better_ones_are_named_and_the_hopeless_do_not_hide_them():
    returns, benchmark = market(1, (0.0016, -0.01, 0.0, 0.002, -0.01))
    found = superior.superior_ability(returns, benchmark, NAMES, resamples=2000)
    assert found.superior == ("a", "d")
    assert found.best in ("a", "d")
    assert found.p_lower <= found.p_consistent <= found.p_upper < 0.01
    assert found.p_adjusted[1] == found.p_adjusted[4] == 1.0
    assert found.level == 0.05


def test_the_hopeless_weigh_in_the_upper_p_value_only():
    returns, benchmark = market(2, (0.0007, -0.01, -0.01, -0.01, -0.01))
    found = superior.superior_ability(returns, benchmark, NAMES, resamples=4000)
    alone = superior.superior_ability(returns[:, :1], benchmark, NAMES[:1], resamples=4000)
    assert found.p_consistent == pytest.approx(alone.p_consistent, abs=0.02)
    assert found.p_upper > 2 * found.p_consistent


def test_one_strategy_alone_is_the_one_sided_test_of_its_mean():
    returns, benchmark = market(3, (0.0005,) * 5)
    found = superior.superior_ability(returns[:, :1], benchmark, ("a",), 4, block_length=3.0, resamples=999)
    known = active_return_test(returns[:, 0], benchmark, "bootstrap", seed=4, block_length=3.0, resamples=999)
    assert found.p_consistent == found.p_upper == found.p_adjusted[0] == known.p_value


def test_losers_are_never_superior():
    returns, benchmark = market(4, (-0.002,) * 5)
    found = superior.superior_ability(returns, benchmark, NAMES, resamples=200)
    assert (found.p_lower, found.p_consistent, found.p_upper) == (1.0, 1.0, 1.0)
    assert (found.statistic, found.superior) == (0.0, ())


def test_steps_by_hand():
    """Three strategies, four resamples. The best (3) against the maxima 1, 2, 4, 0: one of four reaches it, (1 + 1) / 5. The
    second (2) without it against 1, 2, 0, 0: again 2 / 5. The third (0.5) alone against 1, 0, 0, 0: 2 / 5 as well."""
    null = np.array([[1.0, 0.0, 0.5], [0.0, 2.0, 1.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    adjusted = superior._step_down(null, np.array([0.5, 2.0, 3.0]))
    np.testing.assert_allclose(adjusted, [0.4, 0.4, 0.4])
    # One that is ahead only by a hair cannot have a smaller p-value than the one before it.
    np.testing.assert_allclose(superior._step_down(null, np.array([0.5, 2.5, 3.0])), [0.4, 0.4, 0.4])
    np.testing.assert_allclose(superior._step_down(null, np.array([-1.0, 2.5, 9.0])), [1.0, 0.2, 0.2])


def test_what_cannot_be_tested_is_left_out_and_named():
    returns, benchmark = market(5, (0.003,) * 5)
    whole = superior.superior_ability(returns[:, [0, 4]], benchmark, ("a", "e"), resamples=200)
    returns[:, 1], returns[3, 2], returns[:, 3] = benchmark, np.nan, benchmark + 0.001
    found = superior.superior_ability(returns, benchmark, NAMES, resamples=200)
    assert {e.name: e.reason for e in found.excluded} == {
        "b": "the differences do not vary",
        "c": "some differences are not finite",
        "d": "the differences do not vary",
    }
    assert (found.strategies, found.p_adjusted) == (("a", "e"), whole.p_adjusted)
    none = superior.superior_ability(benchmark[:, None], benchmark, ("b",))
    assert math.isnan(none.p_consistent)
    assert none.reason == "the differences do not vary"
    assert superior.superior_ability(returns[:20], benchmark[:20], NAMES).reason.startswith("only 20 differences")
    assert superior.superior_ability(returns[:, :0], benchmark, ()).reason == "there is no strategy"


def test_the_seed_decides():
    returns, benchmark = market(6, (0.0005,) * 5)
    first, again, other = (superior.superior_ability(returns, benchmark, NAMES, s, resamples=300) for s in (1, 1, 2))
    assert first == again
    assert first.p_adjusted != other.p_adjusted


def test_errors():
    returns, benchmark = market(7)
    with pytest.raises(InvalidConfigError, match=r"shape \(200, 5\) for 200 sessions and 4 names"):
        superior.superior_ability(returns, benchmark, NAMES[:4])
    with pytest.raises(InvalidConfigError, match="level: 5"):
        superior.superior_ability(returns, benchmark, NAMES, level=5)
