"""CSCV against a case done by hand, sums written out, noise, and a variant that is truly better."""

import math
from itertools import combinations

import numpy as np
import pytest

from trading_core.errors import InvalidConfigError
from trading_core.metrics.overfitting import backtest_overfitting

LETTERS = tuple("abcdefghijkl")


def waves(means):
    """Blocks of ten sessions that go up and down by 1 around their mean."""
    return np.concatenate([np.tile([mean - 1.0, mean + 1.0], 5) for mean in means])


def test_by_hand():
    """Four blocks, two variants: `a` earns 4, 1.5, -1 and -2 in them, `b` always 0. Chosen in, then the rank out:

    blocks 1 2: a, -1.5 out: worse, a loss    blocks 1 3: a, -0.25: worse, a loss    blocks 1 4: a, 0.25: better
    blocks 3 4: b, beside a's 2.75: worse     blocks 2 4: b, beside 1.5: worse       blocks 2 3: a, 1: better
    """
    found = backtest_overfitting(np.column_stack([waves([4, 1.5, -1, -2]), waves([0] * 4)]), ("a", "b"), 4, per_year=1)
    log2 = math.log(2)  # ranks 1 and 2 of 2: shares 1 / 3 and 2 / 3
    np.testing.assert_allclose(found.logits, [-log2, -log2, log2, log2, -log2, -log2])
    assert (found.pbo, found.combinations, found.blocks, found.variants) == (4 / 6, 6, 4, 2)
    assert found.probability_of_loss == 2 / 6
    # Blocks 1 and 2: ten values each around 4 and 1.5, so mean 2.75 and squared deviations 20 * (1 + 1.25^2) over 19.
    assert found.in_sample[0] == pytest.approx(2.75 / math.sqrt(20 * (1 + 1.25**2) / 19))
    assert found.out_of_sample[0] == pytest.approx(-1.5 / math.sqrt(20 * (1 + 0.5**2) / 19))


def test_every_half_written_out():
    """45 sessions in 4 blocks of 11 or 12, 7 variants."""
    returns = np.random.default_rng(1).standard_t(4, (45, 7)) + 0.1
    found = backtest_overfitting(returns, LETTERS[:7], 4, per_year=252)
    edges = [0, 11, 22, 33, 45]
    inside, outside, logits = [], [], []
    for chosen in combinations(range(4), 2):
        mask = np.concatenate([np.full(edges[k + 1] - edges[k], k in chosen) for k in range(4)])
        seen, unseen = (
            r.mean(axis=0) / r.std(axis=0, ddof=1) * math.sqrt(252) for r in (returns[mask], returns[~mask])
        )
        best = seen.argmax()
        share = (unseen <= unseen[best]).sum() / 8
        inside.append(seen[best])
        outside.append(unseen[best])
        logits.append(math.log(share / (1 - share)))
    np.testing.assert_allclose(found.in_sample, inside)
    np.testing.assert_allclose(found.out_of_sample, outside)
    np.testing.assert_allclose(found.logits, logits)
    slope, intercept = np.polyfit(inside, outside, 1)
    assert (found.slope, found.intercept) == (pytest.approx(slope), pytest.approx(intercept))
    assert found.pbo == np.mean(np.array(logits) <= 0)
    assert found.probability_of_loss == np.mean(np.array(outside) < 0)


def test_choosing_among_noise_is_worth_nothing():
    """The mean over 40 markets; one alone is anywhere between 0.1 and 0.9."""
    rng = np.random.default_rng(2)
    tests = [backtest_overfitting(rng.normal(0, 0.01, (160, 10)), LETTERS[:10], 8) for _ in range(40)]
    assert np.mean([t.pbo for t in tests]) == pytest.approx(0.5, abs=0.1)
    assert np.mean([t.probability_of_loss for t in tests]) == pytest.approx(0.5, abs=0.1)
    assert tests[0].combinations == 70


def test_one_that_is_better_is_better_afterwards():
    returns = np.random.default_rng(3).normal(0, 0.01, (640, 12))
    returns[:, 4] += 0.003
    found = backtest_overfitting(returns, LETTERS)
    assert found.pbo < 0.01
    assert found.probability_of_loss < 0.01
    assert (found.combinations, found.blocks) == (12_870, 16)


def test_a_variant_that_is_another_one_counts_once():
    """Copies would rank in the middle wherever they are chosen, and each such split count as overfitted."""
    one, two = np.random.default_rng(4).normal(0, 0.01, (2, 80))
    alone = backtest_overfitting(np.column_stack([one, one, one]), ("a", "b", "c"), 4)
    assert math.isnan(alone.pbo)
    assert alone.reason == "fewer than two variants can be compared"
    assert [(e.name, e.reason) for e in alone.excluded] == [(n, "its returns are those of a") for n in ("b", "c")]
    pair = backtest_overfitting(np.column_stack([one, two]), ("a", "b"), 4)
    tripled = backtest_overfitting(np.column_stack([one, one, two]), ("a", "b", "c"), 4)
    assert tripled.pbo == pair.pbo
    np.testing.assert_array_equal(tripled.logits, pair.logits)


def test_a_short_record_is_cut_into_fewer_blocks():
    returns = np.random.default_rng(5).normal(0, 0.01, (90, 3))
    assert backtest_overfitting(returns, ("a", "b", "c")).blocks == 8
    assert backtest_overfitting(returns, ("a", "b", "c"), min_block=20).blocks == 4
    short = backtest_overfitting(returns[:35], ("a", "b", "c"))
    assert math.isnan(short.pbo)
    assert short.reason == "only 35 returns; at least 40 are needed"
    assert (
        backtest_overfitting(returns[:29], ("a", "b", "c"), min_block=5).reason
        == "only 29 returns; at least 30 are needed"
    )


def test_what_cannot_be_compared_is_left_out_and_named():
    returns = np.random.default_rng(6).normal(0, 0.01, (120, 5))
    returns[4, 0], returns[:, 1], returns[:60, 2] = np.nan, 0.001, 0.0
    found = backtest_overfitting(returns, LETTERS[:5], 4)
    assert {e.name: e.reason for e in found.excluded} == {
        "a": "some returns are not finite",
        "b": "the returns do not vary",
        "c": "the returns do not vary in some half of the blocks",
    }
    np.testing.assert_array_equal(found.logits, backtest_overfitting(returns[:, 3:], ("d", "e"), 4).logits)
    one = backtest_overfitting(returns[:, :4], LETTERS[:4], 4)
    assert math.isnan(one.pbo)
    assert one.reason == "fewer than two variants can be compared"


@pytest.mark.parametrize("blocks", [3, 2, 22])
def test_blocks_that_cannot_be_halved(blocks):
    with pytest.raises(InvalidConfigError, match=f"blocks: {blocks}"):
        backtest_overfitting(np.zeros((50, 2)), ("a", "b"), blocks)


def test_names_and_columns_belong_together():
    with pytest.raises(InvalidConfigError, match=r"shape \(50, 2\) for 1 names"):
        backtest_overfitting(np.zeros((50, 2)), ("a",))
