"""The verdict in words: what holds up against luck, and what cannot be said."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluation_sample import MODELS, STRATEGIES, sample, sessions

from trading_core.plots import evaluation_data as data
from trading_core.plots import evaluation_verdict, verdict

GOOD = data.SharpeWay(0.4, 0.001)
BAD = data.SharpeWay(0.4, 0.3)
DAYS = sessions(3)
UNKNOWN = data.DailySeries(*[np.full(3, math.nan)] * 10)


def plain(text):
    return text.replace(verdict.NBSP, " ")


def strategy(name, way=GOOD, active=0.02, **sure):
    figures = data.SignificanceFigures(way, way, way, **sure)
    returns = data.ReturnFigures(cagr=0.10 + active, sharpe=1.2, active_cagr=active)
    return data.StrategyReport(
        name, "", False, DAYS, np.array([1.0, 1.1, 1.2]), returns, data.RiskFigures(), data.TradingFigures(), figures, UNKNOWN
    )  # fmt: skip


def words(report):
    return plain(evaluation_verdict.section(report))


def report(*strategies, **changes):
    run = data.RunFacts("m", (), DAYS[0], DAYS[-1], 1, "", "", 1.0, "", None, 40)
    return replace(data.EvaluationReport("t", run, strategies, ""), **changes)


def test_the_headline_counts_what_stands_up_to_every_check():
    known = {"deflated": 0.97, "fdr_p": 0.01, "stepm": True}
    held = replace(strategy("a", **known), random=data.RandomPortfolios(np.zeros(99), 0.01, ""))
    assert evaluation_verdict.headline([held]) == "a stands up to every check."
    few = replace(held, random=data.RandomPortfolios(np.zeros(9), 0.1, ""))  # nine cannot show one in twenty
    assert evaluation_verdict.headline([few]) == "a stands up to the 5 of 6 checks that could be made."
    some = [strategy("a", **known), strategy("b", BAD, **known)]
    assert evaluation_verdict.headline(some) == (
        "1 of 2 strategies stands up to the 5 of 6 checks that could be made: a."
    )  # nobody drew random portfolios


def test_the_headline_says_when_nothing_can_be_told_from_luck():
    assert evaluation_verdict.headline([strategy("a", BAD)]) == "a cannot be told from luck here."
    assert evaluation_verdict.headline([strategy("a", BAD), strategy("b", BAD)]) == (
        "None of the 2 strategies can be told from luck here."
    )
    one_way = replace(strategy("a"), significance=data.SignificanceFigures(GOOD, GOOD, BAD))
    assert "cannot be told from luck" in evaluation_verdict.headline([one_way])  # all three ways are asked
    lucky = strategy("a", deflated=0.4)
    assert "cannot be told from luck" in evaluation_verdict.headline([lucky])  # one of 40 tries


def test_the_headline_names_what_the_closest_one_fails():
    found = [strategy("a", active=-0.01, stepm=False), strategy("b", active=-0.01, stepm=True)]
    assert evaluation_verdict.headline(found) == (
        "None of the 2 strategies stands up to every check. Closest is b: it fails “Grew more”."
    )
    assert evaluation_verdict.headline(found[:1]) == (
        "a does not stand up to every check: it fails “Grew more” and “StepM”."
    )


def test_the_headline_says_why_nothing_can_be_said():
    short = data.SharpeWay(reason="only 11 returns; at least 30 are needed")
    assert "luck: only 11 returns" in evaluation_verdict.headline([strategy("a", short)])
    assert "nothing to judge" in evaluation_verdict.headline([])


def test_many_strategies_are_told_together_first():
    made = sample(80, STRATEGIES, MODELS)
    said = words(made)
    assert said.count("<li>") == 7 + 36  # the summary, and one sentence or two of each, folded away
    assert "of 36 grew more than equal-weight" in said
    assert "luck alone would give about 1.8" in said
    assert "Counting all 412 strategies tried here" in said
    assert (
        "cannot be rejected once the search for it is counted (Hansen&#x27;s SPA, p = 0.34); StepM names none" in said
    )
    assert "in 44 % of splits" in said
    assert "Of 9 forecasts" in said
    assert said.count("<summary>") == 3  # one of them tells what the columns mean


def test_a_few_strategies_are_told_one_by_one():
    said = words(report(strategy("a"), strategy("b", BAD)))
    assert "<summary>In words" not in said
    assert "a grew 12.0 % a year after costs, 2.0 percentage points a year more than" in said


def test_without_deflated_ratios_bonferroni_counts_the_trials():
    assert "40 strategies have been tried on this market" in words(report(strategy("a"), strategy("b")))
    assert "is 0.04: still significant" in verdict.trials_sentence(4, 0.01)
    assert "is 0.1: not significant" in verdict.trials_sentence(10, 0.01)
    assert verdict.trials_sentence(1, 0.01) == ""


def test_what_could_not_be_tested_says_why():
    joint = data.JointTests("equal-weight", reason="only one strategy")
    nothing = data.Overfitting(math.nan, np.zeros(0), 1, 0, reason="fewer than 2 variants")
    said = words(report(strategy("a"), strategy("b"), joint=joint, overfitting=nothing))
    assert "against equal-weight at once cannot be tested: only one strategy." in said
    assert "overfitting cannot be said: fewer than 2 variants." in said


def test_random_portfolios_are_counted():
    own = replace(strategy("a"), random=data.RandomPortfolios(np.array([0.3, 1.2, 1.5, math.nan]), 0.75, ""))
    assert "2 of 3 random portfolios with the same turnover did at least as well." in words(report(own))
    assert verdict.random_sentence(0, 0) == ""


def test_random_portfolios_without_a_sharpe_ratio_prove_nothing():
    own = replace(strategy("a"), random=data.RandomPortfolios(np.full(99, math.nan), 0.01, ""))
    assert evaluation_verdict.checks_of(own).random is None


def test_growth_is_told_in_words():
    assert plain(verdict.growth_sentence("top10", 0.10, "equal_weight", -0.04)) == (
        "top10 grew 10.0 % a year after costs, 4.0 percentage points a year less than equal_weight (14.0 %)."
    )
    assert "more than" in verdict.growth_sentence("a", 0.10, "b", 0.02)
    assert "the same as" in verdict.growth_sentence("a", 0.10, "b", 0.0001)
    assert plain(verdict.growth_sentence("a", -0.10, "b", math.nan)) == "a grew −10.0 % a year after costs."


def test_a_sharpe_ratio_is_told_in_its_three_ways():
    three = data.SignificanceFigures(data.SharpeWay(0.5, 0.01), data.SharpeWay(0.6, 0.18), data.SharpeWay(0.55, 1e-9))
    assert plain(verdict.sharpe_sentence(-0.8, three)) == (
        "Its Sharpe ratio is −0.80 ± 0.60; against zero p = 0.010 (independent returns), p = 0.18 (autocorrelated), "
        "p < 0.001 (bootstrap): significant at the 5 % level in 2 of 3 ways only."
    )
    assert "in all three ways" in verdict.sharpe_sentence(1.0, data.SignificanceFigures(GOOD, GOOD, GOOD))
    assert ": not significant" in verdict.sharpe_sentence(1.0, data.SignificanceFigures(BAD))
    assert "cannot be said: it was not tested" in verdict.sharpe_sentence(1.0, data.SignificanceFigures())


def test_the_difference_to_the_benchmark_is_told_in_words():
    assert "cannot be told from luck" in verdict.active_sentence("b", 0.4)
    assert "does better than b" in verdict.active_sentence("b", 0.01)
    assert "does worse than b" in verdict.active_sentence("b", 0.99)
    assert verdict.active_sentence("b", math.nan, "too short").endswith("cannot be said: too short.")


def test_trials_deflate_a_ratio_in_words():
    assert plain(verdict.deflated_sentence(0.61, 412)).endswith("is 61.0 %: 95 % would be needed.")
    assert verdict.deflated_sentence(0.96, 412).endswith("enough.")
    assert "cannot be said: one trial" in verdict.deflated_sentence(math.nan, 1, "one trial")


def test_skill_is_told_in_words():
    assert "better than chance" in verdict.skill_sentence(1, 0.02, 2.5, 250)
    assert "worse than chance" in verdict.skill_sentence(5, -0.02, -2.5, 250)
    assert "cannot be told from chance" in verdict.skill_sentence(1, 0.02, 1.5, 250)
    assert "too few sessions" in verdict.skill_sentence(1, math.nan, math.nan, 1)


@pytest.mark.parametrize("count", [1, 4])
def test_forecasts_without_skill_figures_do_not_stop_the_verdict(count):
    empty = data.IcSeries(DAYS, np.full(3, math.nan))
    forecasts = tuple(data.ForecastReport("m", k + 1, empty, None, ()) for k in range(count))
    said = words(report(strategy("a"), forecasts=forecasts))
    assert ("cannot be judged" if count == 1 else "Of 4 forecasts") in said
    assert "nan" not in said
