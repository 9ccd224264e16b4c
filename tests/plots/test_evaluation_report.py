"""The report: one file that asks nobody for anything, is honest about its numbers and escapes what it is given."""

import json
import math
import re
from datetime import date, timedelta
from html.parser import HTMLParser

import numpy as np
import pytest

from trading_core.metrics.significance import SharpeTest
from trading_core.plots import verdict
from trading_core.plots.figures import log_ticks, rolling_mean
from trading_core.plots.report import (
    EvaluationReport,
    IcSeries,
    SkillRow,
    evaluation_report,
    strategy_report,
)

DAYS = [date(2020, 1, 1) + timedelta(days=i) for i in range(121)]
EVIL = "<script>alert('x')</script>&\"</script>"


def curve(drift, seed):
    steps = np.random.default_rng(seed).normal(drift, 0.01, 120)
    return 1e6 * np.concatenate([[1.0], np.cumprod(1 + steps)])


def example(name="top10", title="Evaluation", note="Survivors only.", sessions=121):
    days, n = DAYS[:sessions], sessions
    bench = curve(0.0005, 1)[:n]
    zeros = np.zeros(n)
    strategies = (
        strategy_report(name, days, curve(0.001, 2)[:n], zeros + 0.1, zeros + 5.0, 40, bench),
        strategy_report("equal_weight", days, bench, zeros, zeros, 10, None, is_benchmark=True),
    )
    ic = np.random.default_rng(3).normal(0.01, 0.1, n)
    ic[4] = np.nan
    versions = (("Model version", "3"),)
    skill, series = (SkillRow(1, "Rank IC", 0.012, 0.0, "mean"),), (IcSeries(1, days, ic),)
    return EvaluationReport(
        title, "simulated", "lstm", versions, days[0], days[-1], "5 bps a side.", (note,), "equal_weight", strategies,
        skill, series, 7,
    )  # fmt: skip


class Tags(HTMLParser):
    """Counts elements and collects addresses and text outside scripts and styles."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text, self.inside = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag
        self.links += [value for key, value in attrs if key in ("src", "href", "action", "data")]

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text.append(data)


def parse(page):
    parser = Tags()
    parser.feed(page.decode())
    parser.words = re.sub(r"\s+", " ", "".join(parser.text).replace("\u00a0", " "))
    return parser


@pytest.fixture(scope="module")
def page():
    return evaluation_report(example())


def test_one_file_of_bounded_size_that_links_nowhere(page):
    parsed = parse(page)
    assert 4_000_000 < len(page) < 6_000_000
    assert parsed.links == ["data:,"]
    assert not {"img", "iframe", "object"} & set(parsed.tags)
    assert "@import" not in page.decode().split("</style>")[0]


def test_light_and_dark_and_narrow(page):
    style = page.decode().split("</style>")[0]
    for rule in ("prefers-color-scheme: dark", "width=device-width", "overflow-x: auto", "max-width: 600px"):
        assert rule in style


def test_every_part_is_there(page):
    words = parse(page).words
    parts = ("Verdict", "Strategies beside the benchmarks", "Equity", "Drawdown", "The forecasts", "Survivors only.")
    for part in (*parts, "7 models and strategies", "5 bps a side.", "2020-01-01 to 2020-04-30", "top10 grew"):
        assert part in words


def test_the_charts_hold_the_numbers(page):
    pattern = r'<script type="application/json" data-chart="(\w+)">(.*?)</script>'
    charts = dict(re.findall(pattern, page.decode(), re.S))
    assert sorted(charts) == ["drawdown", "equity", "ic1"]
    equity = json.loads(charts["equity"])
    assert [trace["name"] for trace in equity["data"]] == ["top10", "equal_weight"]
    assert equity["layout"]["yaxis"]["type"] == "log"


def test_texts_are_escaped():
    page = evaluation_report(example(name=EVIL, title=EVIL, note=EVIL))
    honest = parse(evaluation_report(example()))
    parsed = parse(page)
    assert parsed.tags.count("script") == honest.tags.count("script")
    assert parsed.words.count("alert('x')") >= 3


def test_a_short_period_says_that_it_cannot_say():
    words = parse(evaluation_report(example(sessions=12))).words
    assert "cannot be said: only 11 returns; at least 30 are needed" in words


def judged(p_value):
    return SharpeTest(1.0, 0.9, 1.0, p_value, 252, "hac")


def plain(text):
    return text.replace(verdict.NBSP, " ")


def test_growth_is_told_in_words():
    assert plain(verdict.growth_sentence("top10", 0.10, "equal_weight", -0.04)) == (
        "top10 grew 10.0 % a year after costs, 4.0 percentage points a year less than equal_weight (14.0 %)."
    )
    assert "more than" in verdict.growth_sentence("a", 0.10, "b", 0.02)
    assert "the same as" in verdict.growth_sentence("a", 0.10, "b", 0.0001)
    assert plain(verdict.growth_sentence("a", -0.10, "b", math.nan)) == "a grew −10.0 % a year after costs."


def test_significance_is_told_in_words():
    assert "p = 0.18, not significant" in plain(verdict.sharpe_sentence(judged(0.18)))
    assert "p = 0.010, significant" in plain(verdict.sharpe_sentence(judged(0.01)))
    assert "p < 0.001, significant" in plain(verdict.sharpe_sentence(judged(1e-9)))
    assert "cannot be told from luck" in verdict.active_sentence("b", judged(0.4))
    assert "does better than b" in verdict.active_sentence("b", judged(0.01))
    assert "does worse than b" in verdict.active_sentence("b", judged(0.99))


def test_many_tries_are_counted_against_the_best():
    assert "is 0.04: still significant" in verdict.trials_sentence(4, 0.01)
    assert "is 0.1: not significant" in verdict.trials_sentence(10, 0.01)
    assert verdict.trials_sentence(1, 0.01) == ""


def test_skill_is_told_in_words():
    assert "better than chance" in verdict.skill_sentence(1, 0.02, 2.5, 250)
    assert "worse than chance" in verdict.skill_sentence(5, -0.02, -2.5, 250)
    assert "cannot be told from chance" in verdict.skill_sentence(1, 0.02, 1.5, 250)
    assert "too few sessions" in verdict.skill_sentence(1, math.nan, math.nan, 1)


def test_rolling_mean_skips_what_is_missing():
    values = np.array([1.0, np.nan, 3.0, 5.0, np.nan, np.nan])
    np.testing.assert_allclose(rolling_mean(values, 2), [np.nan, 1.0, 3.0, 4.0, 5.0, np.nan])


@pytest.mark.parametrize(("low", "high"), [(0.95, 1.24), (1.0, 1.0), (0.3, 2.9), (0.5, 400.0)])
def test_log_ticks_are_round_and_few(low, high):
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 11
    assert ticks == sorted(ticks)
    assert all(len(f"{tick:.4g}") <= 6 for tick in ticks)
