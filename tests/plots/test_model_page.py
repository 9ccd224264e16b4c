"""The page of one training: it holds the numbers it was given, says what they are of, and escapes every text."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from datetime import date, timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from trading_core.metrics.classification import binary_skill, class_skill, reliability
from trading_core.metrics.forecasts import summary
from trading_core.metrics.intervals import IntervalSkill
from trading_core.plots import verdict
from trading_core.plots.forecasts import Fan
from trading_core.plots.model_report import (
    AgainstShare,
    ExpertUse,
    HorizonReport,
    Looked,
    MemberCurves,
    ModelReport,
    ThresholdCurves,
    Weights,
    model_report,
)

NAN = float("nan")
EVIL = "<script>alert('x')</script>&\"</script>"
DAYS = [date(2024, 7, 1) + timedelta(days=i) for i in range(12)]
RANDOM = np.random.default_rng(5)
SCORE = RANDOM.standard_normal(200)
LABEL = 0.3 * SCORE + RANDOM.standard_normal(200)
DATE = np.repeat(np.arange(20), 10)
UP = (LABEL > 0.0).astype(np.float64)
RAW, CALIBRATED = np.clip(0.5 + 0.2 * SCORE, 0.0, 1.0), np.clip(0.5 + 0.1 * SCORE, 0.0, 1.0)


def thresholds(words: str, *beside: str) -> ThresholdCurves:
    levels = np.array([0.4, 0.5, 0.6])
    curves = {name: levels + k for k, name in enumerate((words, *beside))}
    return ThresholdCurves(words, levels, curves, 0.5, 0.625, 7.5)


def horizon(h: int) -> HorizonReport:
    return HorizonReport(
        horizon=h,
        skill=summary(SCORE, LABEL, DATE, h, p_up=CALIBRATED),
        against_share=AgainstShare(0.512, 0.2491, 0.2502, 2.5, 20),
        raw=binary_skill(RAW, UP),
        calibrated=binary_skill(CALIBRATED, UP),
        reliability={"raw": reliability(RAW, UP, 4), "calibrated": reliability(CALIBRATED, UP, 4)},
        thresholds=(thresholds("F1", "precision"), thresholds("net Sharpe", "turnover")),
        intervals={
            "forecast quantiles": IntervalSkill(200, 0.871, 0.95, 0.88, 0.783, 0.0312, 0.0451),
            "conformal": IntervalSkill(200, 0.9, 0.911, 0.902, 0.887, 0.0345, 0.0432),
        },
    )


def member(k: int) -> MemberCurves:
    losses = {"training": np.array([3.0, 2.0, 1.5]) + k, "validation": np.array([3.1, 2.5, 2.6]) + k}
    return MemberCurves(k, losses, {"rank IC": np.array([NAN, 0.02, 0.01])}, np.array([1e-3, 1e-3, 5e-4]), 2)


def example(**changes: Any) -> ModelReport:
    made: dict[str, Any] = {
        "title": "tft on tiny",
        "facts": (("Market", "tiny"), ("Cut-off", "2024-06-28")),
        "validation": (date(2024, 5, 1), date(2024, 6, 20)),
        "closed_form": False,
        "calibration": "isotonic",
        "alpha": 0.1,
        "horizons": (horizon(1), horizon(5)),
        "members": (member(1), member(2)),
        "looked": Looked(
            2048,
            (Weights("Channels of the window", ("f0", "f1"), np.array([0.75, 0.25])),),
            np.array([[0.2, 0.3, 0.4], [0.1, 0.1, 0.6]]),
            0.15,
        ),
        "experts": (ExpertUse(1, 1, (0.625, 0.375)), ExpertUse(1, 5, (0.5, 0.5))),
        "fan": Fan(
            "S01",
            DAYS[:3],
            np.array([99.0, 98.0, 100.0]),
            DAYS[3],
            101.0,
            DAYS[4:6],
            np.log([[0.9, 1, 1.1]] * 2),
            (0.1, 0.5, 0.9),
        ),
        "notes": ("One seed says little.",),
    }
    return ModelReport(**{**made, **changes})


def of_one_horizon(report: HorizonReport, **changes: Any) -> ModelReport:
    looked = Looked(5, (Weights("Channels", ("f0", "f1"), np.ones(2)),), np.ones((1, 3)), 0.1)
    return example(**{"horizons": (report,), "members": (member(1),), "looked": looked, **changes})


class Text(HTMLParser):
    """Elements, addresses, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.parts: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag
        self.links += [value for key, value in attrs if key in ("src", "href", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.parts.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.parts).replace("\u00a0", " "))


def parsed(page: bytes) -> Text:
    parser = Text()
    parser.feed(page.decode())
    return parser


def charts(page: bytes) -> dict[str, Any]:
    pattern = r'<script type="application/json" data-chart="(\w+)">(.*?)</script>'
    return {name: json.loads(text) for name, text in re.findall(pattern, page.decode(), re.S)}


def numbers(values: Any) -> np.ndarray:
    """An array as plotly writes it: a list, or typed bytes in base 64."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=np.dtype(values["dtype"]))
    return np.array([NAN if value is None else value for value in values])


@pytest.fixture(scope="module")
def page() -> bytes:
    return model_report(example())


def test_one_file_that_asks_nobody(page: bytes) -> None:
    found = parsed(page)
    assert 4_000_000 < len(page) < 6_000_000
    assert found.links == ["data:,"]
    assert not {"img", "iframe", "object"} & set(found.tags)


def test_the_verdict_says_what_was_found_and_on_what(page: bytes) -> None:
    words = parsed(page).words
    skill = example().horizons[0].skill
    assert skill.rank_t_stat > 1.96
    assert (
        f"The forecasts over 1 session ranked outcomes better than chance: mean rank IC {skill.mean_rank_ic:.3f} over 20 "
        f"sessions, t = {skill.rank_t_stat:.1f}."
    ) in words
    assert (
        "The probabilities of a rise over 5 sessions, before calibration, came closer to what happened than always saying "
        "51.2 %, the share of rises in training: Brier score 0.2491 beside 0.2502, t = 2.5."
    ) in words
    assert (
        words.count("On the validation part, 2024-05-01 to 2024-06-20, which also stopped the training and calibrated")
        == 2
    )
    assert "What counts is later sessions" in words
    assert "One seed says little." in words


def test_the_tables_hold_the_numbers(page: bytes) -> None:
    words = parsed(page).words
    raw, calibrated = example().horizons[0].raw, example().horizons[0].calibrated
    for name, skill in (("raw", raw), ("calibrated", calibrated)):
        assert f"{name} {skill.ece:.4f} {skill.mce:.4f} {skill.brier:.4f} {skill.log_loss:.4f}" in words
    assert "forecast quantiles 87.1 % 95.0 % 88.0 % 78.3 % 0.0312 0.0451" in words
    assert "conformal 90.0 % 91.1 % 90.2 % 88.7 % 0.0345 0.0432" in words
    assert "90 % is meant" in words
    assert "(isotonic), which was fitted on these rows" in words
    assert "Over 1 session, by F1: 0.5, F1 0.625" in words
    assert "Over 5 sessions, by net Sharpe: 0.5, net Sharpe 0.625" in words
    assert "Chosen on the validation part and frozen into the bundle" in words
    assert "Trades pay 7.5 bps a side" in words
    assert "Over 1 session 62.5 % 37.5 % Over 5 sessions 50.0 % 50.0 %" in words
    assert "Mean weights over 2,048 validation forecasts" in words
    assert "another 15 % of all attention" in words
    assert "S01 after the close of 2024-07-03" in words


def test_the_charts_hold_the_numbers(page: bytes) -> None:
    found = charts(page)
    assert list(found) == [
        "training1", "training2", "reliability1", "reliability5", "threshold1x0", "threshold1x1", "threshold5x0",
        "threshold5x1", "importance0", "attention", "fan",
    ]  # fmt: skip
    names = [trace["name"] for trace in found["training2"]["data"]]
    assert names == ["training", "validation", "rank IC", "learning rate"]
    np.testing.assert_array_equal(numbers(found["training2"]["data"][0]["y"]), [5.0, 4.0, 3.5])
    np.testing.assert_array_equal(numbers(found["training1"]["data"][2]["y"]), [NAN, 0.02, 0.01])
    assert found["training1"]["layout"]["shapes"][0]["x0"] == 2
    table = reliability(RAW, UP, 4)
    np.testing.assert_array_equal(numbers(found["reliability1"]["data"][1]["x"]), table.probability)
    np.testing.assert_array_equal(numbers(found["reliability1"]["data"][1]["y"]), table.frequency)
    f1, sharpe = found["threshold1x0"], found["threshold1x1"]
    assert [trace["name"] for trace in f1["data"]] == ["F1", "precision"]
    assert [trace["name"] for trace in sharpe["data"]] == ["net Sharpe", "turnover"]
    np.testing.assert_array_equal(numbers(sharpe["data"][1]["y"]), [1.4, 1.5, 1.6])
    assert sharpe["layout"]["shapes"][0]["x0"] == 0.5
    assert found["importance0"]["data"][0]["y"] == ["f1", "f0"]
    np.testing.assert_allclose(numbers(found["attention"]["data"][1]["y"]), [0.125, 0.125, 0.75])


def test_what_a_network_does_not_have_is_left_out() -> None:
    bare = model_report(example(looked=None, experts=(), fan=None, members=(member(1),)))
    words = parsed(bare).words
    for title in ("What it looked at", "Experts", "One forecast", "Network 1"):
        assert title not in words
    assert "attention" not in charts(bare)


def test_a_closed_form_has_losses_and_no_epochs() -> None:
    solved = MemberCurves(1, {"training": np.array([0.51234]), "validation": np.array([0.6])}, {}, np.zeros(1), 1)
    made = model_report(example(closed_form=True, members=(solved,)))
    words = parsed(made).words
    assert "Solved in closed form: there are no epochs." in words
    assert "training 0.51234 validation 0.60000" in words
    assert "also stopped the training" not in words
    assert "training1" not in charts(made)


def test_a_market_of_one_symbol_is_judged_by_its_direction() -> None:
    alone = horizon(1)
    skill = summary(SCORE[:20], LABEL[:20], np.arange(20), 1, p_up=CALIBRATED[:20])
    words = parsed(model_report(of_one_horizon(replace(alone, skill=skill)))).words
    assert "mean rank IC" not in words.split("Skill")[0]
    assert "No session has three symbols with different forecasts: there is nothing to rank." in words
    assert "The probabilities of a rise over 1 session" in words


def test_a_long_ensemble_draws_some_of_its_networks() -> None:
    made = model_report(example(members=tuple(member(k) for k in range(1, 12))))
    assert [name for name in charts(made) if name.startswith("training")] == [f"training{k}" for k in range(1, 9)]
    assert "and 3 more: see history.csv." in parsed(made).words


def test_equal_probabilities_leave_no_threshold_to_draw() -> None:
    one = ThresholdCurves("F1", np.array([0.52]), {"F1": np.array([0.7])}, 0.52, 0.7, 5.0)
    made = model_report(of_one_horizon(replace(horizon(1), thresholds=(one,))))
    assert "The calibrated probabilities are all the same: there is nothing to choose." in parsed(made).words
    assert not [name for name in charts(made) if name.startswith("threshold")]


def test_classes_are_told_by_target_and_one_by_one() -> None:
    assert "Classes" not in parsed(model_report(of_one_horizon(horizon(1)))).words
    # Three of four right; a row of each class and a second Bull, which is said to be a Bear.
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.1, 0.4]])
    skill = class_skill(p, np.array([0.0, 1.0, 2.0, 2.0]), ("bear", EVIL, "bull"))
    made = parsed(model_report(of_one_horizon(replace(horizon(5), classes={"classes": {"raw": skill}}))))
    assert f"Over 5 sessions: bear, {EVIL}, bull" in made.words
    assert "raw 75.0 % 83.3 %" in made.words  # recalls 1, 1 and 1/2
    assert "bear 1 0.500 1.000 0.667" in made.words
    assert "bull 2 1.000 0.500 0.667" in made.words


def test_texts_are_escaped() -> None:
    h = horizon(1)
    changed = replace(
        h,
        thresholds=(thresholds(EVIL, EVIL + "2"),),
        reliability={EVIL: h.reliability["raw"]},
        intervals={EVIL: h.intervals["conformal"]},
    )
    fan = example().fan
    assert fan is not None
    evil = of_one_horizon(
        changed,
        title=EVIL,
        facts=((EVIL, EVIL),),
        calibration=EVIL,
        notes=(EVIL,),
        members=(replace(member(1), losses={EVIL: np.ones(3)}, metrics={EVIL: np.ones(3)}),),
        looked=Looked(1, (Weights(EVIL, (EVIL, "b"), np.ones(2)),), np.ones((1, 3)), 0.0),
        fan=replace(fan, symbol=EVIL),
    )
    honest = parsed(model_report(of_one_horizon(horizon(1))))
    found = parsed(model_report(evil))
    # One threshold chart fewer than the honest page, nothing more.
    assert found.tags.count("script") == honest.tags.count("script") - 1
    assert found.words.count("alert('x')") >= 8


def test_the_direction_is_told_in_words() -> None:
    def said(t: float, brier: float = 0.25) -> str:
        return verdict.direction_sentence(1, brier, 0.24, 0.5, t, 60).replace(verdict.NBSP, " ")

    assert "cannot be told from always saying 50.0 %" in said(1.9)
    assert "were further from what happened than always saying" in said(-2.0)
    assert "came closer to what happened than always saying" in said(2.0)
    assert "t = 0.0." in said(-0.01)
    assert (
        said(NAN, 0.24) == "The probability of a rise over 1 session is always 50.0 %, the share of rises in training."
    )
    assert "cannot be judged: too few sessions (60)" in said(NAN)
