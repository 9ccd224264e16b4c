"""The report: one file that asks nobody for anything, is honest about its numbers and escapes what it is given."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from html.parser import HTMLParser

import numpy as np
import pytest
from evaluation_sample import MODELS, STRATEGIES, sample, sessions
from plotly.offline import get_plotlyjs

from trading_core.plots import evaluation_data as data
from trading_core.plots import strategy_panels
from trading_core.plots.report import evaluation_report

EVIL = "<script>alert('x')</script>&\"</script>"
DATA = re.compile(r'<script type="application/json"([^>]*)>(.*?)</script>', re.S)


class Tags(HTMLParser):
    """Counts elements and collects addresses and text outside scripts and styles."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.anchors, self.text, self.inside = [], [], set(), [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag
        self.links += [value for key, value in attrs if key in ("src", "href", "action", "data")]
        self.anchors |= {value for key, value in attrs if key == "id"}

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text.append(data)


@lru_cache
def own(page):
    """The page without the plotting script, which is somebody else's."""
    return page.decode().replace(get_plotlyjs(), "")


@lru_cache
def parse(page):
    parser = Tags()
    parser.feed(own(page))
    parser.words = re.sub(r"\s+", " ", " ".join(parser.text).replace("\u00a0", " "))
    return parser


@lru_cache
def charts(page):
    """The figures of a page by name, as they are drawn before anybody touches a list."""
    found = {}
    for attributes, text in DATA.findall(own(page)):
        if name := re.search(r'data-chart="([\w-]+)"', attributes):
            found[name[1]] = json.loads(text)
    return found


def embedded(page, attribute):
    """The data embedded under an attribute: `data-entries="strategy"`, `data-shared="days0"` ..."""
    return next(json.loads(text) for attributes, text in DATA.findall(own(page)) if attribute in attributes)


report = lru_cache(sample)


def small(count=80):
    return sample(count, STRATEGIES[:2], MODELS[:2])


def bare(count=121):
    """One strategy, no benchmark, and nothing that one may leave out."""
    days = sessions(count)
    equity = 1e6 * np.cumprod(np.concatenate([[1.0], 1 + np.random.default_rng(1).normal(0, 0.01, count - 1)]))
    unknown = np.full(count, np.nan)
    strategy = data.StrategyReport(
        "top10", "lstm", False, days, equity, data.ReturnFigures(cagr=0.1, sharpe=0.8), data.RiskFigures(),
        data.TradingFigures(), data.SignificanceFigures(), data.DailySeries(*[unknown] * 10),
    )  # fmt: skip
    run = data.RunFacts(
        "m", (data.ModelFacts("lstm", "3"),), days[0], days[-1], 20, "5 bps.", "at the open", 1e6, "c", None, 1
    )
    return data.EvaluationReport("Evaluation", run, (strategy,), "")


@pytest.fixture(scope="module")
def page():
    return evaluation_report(report())


@pytest.fixture(scope="module")
def little():
    return evaluation_report(small())


def test_one_file_of_bounded_size_with_36_strategies_over_1000_sessions(page):
    assert 4_000_000 < len(page) < 6_000_000


def test_nothing_leads_out_of_it(page):
    parsed = parse(page)
    assert set(parsed.links) == {"data:,", *(f"#{link[1:]}" for link in parsed.links if link.startswith("#"))}
    assert not {"img", "iframe", "object", "embed"} & set(parsed.tags)
    assert not re.search(r"https?:|//\w+\.\w|@import|url\(|fetch\(|XMLHttpRequest", own(page))


def test_every_link_of_the_contents_leads_somewhere(page):
    parsed = parse(page)
    links = [link[1:] for link in parsed.links if link.startswith("#")]
    assert len(links) == len(set(links)) == 15
    assert set(links) <= parsed.anchors


def test_light_dark_narrow_and_paper(page):
    style = own(page).split("</style>")[0]
    for rule in (
        "prefers-color-scheme: dark",
        "width=device-width",
        "overflow-x: auto",
        "max-width: 600px",
        "@media print",
    ):
        assert rule in style


def test_every_part_is_there(page):
    words = parse(page).words
    for part in (
        "Verdict", "Strategies beside the benchmarks", "How sure that is", "Trading and its costs", "Equity and drawdown",
        "Strategy by strategy", "Return by month", "The forecasts", "Volatility of the market", "Number of positions",
        "Overfitting", "What stands out in this run", "Quality of the bars", "(survivorship)",
        "2,000 of 100,000 fills, newest first. The last of all strategies. The whole list",
        "412 strategies", "1,000,000 USD", "at the next open", "Each side pays 1 bps commission", "version 31",
        "retrained every 126 sessions", "lightgbm, version 3 to 9", "0.4.1 (4f2c1aa)", "trades.parquet",
    ):  # fmt: skip
        assert part in words, part


def test_the_same_input_gives_the_same_bytes(little):
    assert evaluation_report(small()) == little


def test_only_the_best_and_the_benchmarks_are_drawn_at_first(page):
    equity = charts(page)["equity"]
    shown = [trace["name"] for trace in equity["data"] if trace["visible"]]
    whole = report()
    best = sorted((s for s in whole.strategies if not s.benchmark), key=lambda s: -s.returns.sharpe)[:5]
    assert len(equity["data"]) == 39
    assert shown == [s.label for s in best] + ["equal-weight", *shown[-2:]]
    assert own(page).count('aria-pressed="true"') == 8
    assert "bring the other 31" in parse(page).words
    assert equity["layout"]["yaxis"]["type"] == "log"


def test_curves_are_thinned_out_and_end_where_the_money_ends(page):
    whole = report()
    found = charts(page)
    top = max((s for s in whole.strategies if not s.benchmark), key=lambda s: s.returns.sharpe)
    trace, fall = found["equity"]["data"][0], found["drawdown"]["data"][0]
    days = embedded(page, f'data-shared="{trace["x"]}"')
    assert len(trace["y"]) == len(fall["y"]) == len(days) == 334  # every third of 1,000, back from the last
    assert (days[0], days[-1]) == (str(top.sessions[0]), str(top.sessions[-1]))
    assert trace["y"][-1] == pytest.approx(top.equity[-1] / top.equity[0], abs=1e-4)
    assert min(fall["y"]) == pytest.approx(100 * top.returns.max_drawdown, abs=0.06)  # no trough is lost
    assert "Drawn every 3 sessions" in parse(page).words


def test_out_of_sample_is_shaded_and_retraining_marked(page):
    shapes = charts(page)["equity"]["layout"]["shapes"]
    schedule = report().run.walk_forward
    assert shapes[0]["x0"] == schedule.out_of_sample.isoformat()
    assert [shape["x0"] for shape in shapes[1:]] == [day.isoformat() for day in schedule.retrained]


def test_a_list_switches_the_figures_of_every_strategy(page):
    entries = embedded(page, 'data-entries="strategy"')
    assert len(entries) == 39
    names = {"years", "rolling", "distribution", "exposure", "activity", "random", "sectors", "contribution"}
    assert set(entries[0]) == names <= set(charts(page))
    templates = charts(page)
    for entry in entries:
        for name, turn in entry.items():
            assert turn is None or len(turn["traces"]) == len(templates[name]["data"])
    assert sum(entry["random"] is None for entry in entries) == 3  # benchmarks have no random portfolios


def test_the_last_fills_are_embedded_as_columns(page):
    whole = report()
    found = json.loads(next(text for attributes, text in DATA.findall(own(page)) if not attributes))
    last, columns = whole.blotter.fills[-1], found["columns"]
    assert {len(column) for column in columns} == {2_000}
    said = [found["words"][k][columns[k][-1]] for k in range(4)]
    assert said == [str(last.session), last.strategy, last.symbol, last.side]
    assert [column[-1] for column in columns[4:]] == [
        last.quantity,
        last.price,
        round(last.quantity * last.price),
        last.cost,
    ]


def evil(value):
    """The same report with every text made dangerous; names stay names of each other."""
    if isinstance(value, str):
        return " · ".join(f"{EVIL}{part}" for part in value.split(" · ")) if value else value
    if isinstance(value, tuple):
        return tuple(evil(item) for item in value)
    if is_dataclass(value):
        return replace(value, **{field.name: evil(getattr(value, field.name)) for field in fields(value)})
    return value


def texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def test_every_text_is_escaped(little):
    page = evaluation_report(evil(small()))
    honest, parsed = parse(little), parse(page)
    assert Counter(parsed.tags) == Counter(honest.tags)
    assert parsed.words.count("alert('x')") > 200
    for _, figure in charts(page).items():
        assert not any("<script" in text for text in texts(figure))  # plotly reads some tags in what it draws
    assert not any("<script" in text for text in texts(embedded(page, 'data-entries="strategy"')))


def test_what_is_not_there_leaves_its_part_out():
    page = evaluation_report(bare())
    parsed = parse(page)
    assert {"years", "distribution"} == set(embedded(page, 'data-entries="strategy"')[0])
    assert parsed.anchors >= {"verdict", "strategies", "significance", "risk", "trading", "limits"}
    assert not parsed.anchors & {
        "forecasts",
        "breakdowns",
        "sensitivity",
        "overfitting",
        "findings",
        "quality",
        "fills",
    }
    assert "Nothing can be said about luck: it was not tested" in parsed.words
    assert "top10 · lstm grew 10.0 % a year after costs. " in parsed.words


def test_a_number_that_is_not_defined_is_a_dash():
    page = evaluation_report(bare())
    parsed = parse(page)
    assert not re.search(r"\b(nan|NaN|inf|None)\b", parsed.words)
    row = re.search(r"<tbody><tr>(.*?)</tr></tbody>", own(page), re.S)[1]
    assert row.count("<td>–</td>") == 12  # all but the two that are known
    for attributes, text in DATA.findall(own(page)):
        assert "NaN" not in text, attributes


def test_sections_say_why_they_have_nothing_to_show():
    nothing = data.Overfitting(math.nan, np.zeros(0), 1, 0, reason="one strategy only")
    made = replace(bare(), overfitting=nothing, blotter=data.Blotter((), 0))
    words = parse(evaluation_report(made)).words
    assert "Not computed: one strategy only." in words
    assert "Nothing was traded." in words


def test_a_short_period_says_that_it_cannot_say():
    few = data.SharpeWay(reason="only 11 returns; at least 30 are needed")
    made = bare(12)
    short = replace(made.strategies[0], significance=data.SignificanceFigures(few, few, few))
    words = parse(evaluation_report(replace(made, strategies=(short,)))).words
    assert "Nothing can be said about luck: only 11 returns; at least 30 are needed." in words


def test_a_report_without_strategies_is_a_page():
    words = parse(evaluation_report(replace(bare(), strategies=()))).words
    assert "There are only benchmarks here: nothing to judge." in words


def test_strategies_over_different_sessions_have_their_own_days():
    made = small()
    shorter = made.strategies[0]
    cut = replace(
        shorter, sessions=shorter.sessions[30:], equity=shorter.equity[30:], sectors=None,
        daily=data.DailySeries(*[getattr(shorter.daily, field.name)[30:] for field in fields(shorter.daily)]),
    )  # fmt: skip
    page = evaluation_report(replace(made, strategies=(cut, *made.strategies[1:])))
    traces = {trace["name"]: trace for trace in charts(page)["equity"]["data"]}
    days = embedded(page, f'data-shared="{traces[cut.label]["x"]}"')
    assert len(days) == len(traces[cut.label]["y"]) == 50
    assert len(traces["equal-weight"]["y"]) == 80


def test_many_strategies_are_listed_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(strategy_panels, "DETAILED", 3)
    one = bare()
    page = evaluation_report(replace(one, strategies=tuple(replace(one.strategies[0], name=f"s{k}") for k in range(5))))
    assert len(embedded(page, 'data-entries="strategy"')) == 3
    assert "Of 5 strategies and benchmarks the first 3 by Sharpe ratio." in parse(page).words
    assert len(charts(page)["equity"]["data"]) == 5
