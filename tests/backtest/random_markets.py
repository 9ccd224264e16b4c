"""Small random markets with everything that goes wrong in large ones, as the engine's input and as the reference's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import polars as pl

from tests.backtest.reference_engine import Bar, Event, History, Weights
from trading_core.backtest.data import FillAt, ForecastPanel, MarketData
from trading_core.backtest.engine import Terms
from trading_core.costs import FREE, CostModel
from trading_core.portfolio.kernels.types import HOLD, SLOTS, TOP_K, WEIGHTS, Allocation
from trading_core.portfolio.risk import RiskLimits
from trading_core.portfolio.strategy import SignalInputs, SignalStrategy
from trading_core.schema import FloatArray

START = date(2021, 3, 1)


@dataclass(frozen=True, slots=True)
class RandomMarket:
    """The same bars, events and signals (NaN: not known) three times: frames, arrays, dictionaries."""

    bars: pl.DataFrame
    events: pl.DataFrame
    data: MarketData
    history: History
    signals: FloatArray  # [T, S]

    @property
    def panel(self) -> ForecastPanel:
        return panel_of(self.signals)

    @property
    def by_day(self) -> dict[date, Weights]:
        """The signals that are known."""
        return {
            day: {s: float(x) for s, x in zip(self.data.symbols, row, strict=True) if not np.isnan(x)}
            for day, row in zip(self.data.sessions, self.signals, strict=True)
        }


class Signals(SignalStrategy):
    """The panel's scores are the signals of any rule of allocation."""

    def __init__(self, allocation: Allocation, short: bool = False) -> None:
        self.allocation = allocation
        self.short = short

    def signals(self, inputs: SignalInputs) -> FloatArray:
        return inputs.score


def panel_of(signals: FloatArray) -> ForecastPanel:
    return ForecastPanel(signals, np.full((*signals.shape, 7), np.nan), np.full(signals.shape, np.nan))


def sessions_of(count: int) -> list[date]:
    """Days without Saturdays and Sundays."""
    days = (START + timedelta(days=n) for n in range(2 * count + 10))
    return [day for day in days if day.weekday() < 5][:count]


def random_market(
    seed: int, sessions: int = 26, symbols: int = 6, fill_at: FillAt = FillAt.OPEN, clean: bool = False
) -> RandomMarket:
    """`clean`: no gap, no event and every signal known."""
    rng = np.random.default_rng(seed)
    days, names = sessions_of(sessions), [f"S{i}" for i in range(symbols)]
    events = [] if clean else _events(rng, days, names)
    shape = (sessions, symbols)
    closes = rng.uniform(5, 200, symbols) * np.exp(np.cumsum(rng.normal(0, 0.03, shape), axis=0))
    opens = closes * np.exp(rng.normal(0, 0.02, shape))
    volumes = np.round(rng.lognormal(6.0, 0.7, shape))
    there = np.ones(shape, dtype=bool) if clean else rng.random(shape) > 0.06
    volumes[rng.random(shape) < (0.0 if clean else 0.05)] = 0.0
    unknown = rng.random((2, *shape)) < (0.0 if clean else 0.02)  # a bar without its open or its close
    bars: dict[tuple[str, date], Bar] = {}
    for t, day in enumerate(days):
        for s, name in enumerate(names):
            ratio = np.prod([e.value for e in events if e.symbol == name and e.kind == "split" and e.day <= day])
            over = any(e.symbol == name and e.kind == "delisting" and e.day <= day for e in events)
            if there[t, s] and not over:
                o, c = float(opens[t, s] / ratio), float(closes[t, s] / ratio)
                known = (None if unknown[0, t, s] else o, max(o, c), min(o, c), None if unknown[1, t, s] else c)
                bars[name, day] = Bar(*known, float(volumes[t, s] * ratio))
    signals = rng.normal(size=shape)
    if not clean:
        signals[rng.random(shape) < 0.1] = np.nan
        signals[rng.random(shape) < 0.03] = -np.inf
    return _three_times(days, names, bars, events, signals, fill_at)


def _events(rng: np.random.Generator, days: list[date], names: list[str]) -> list[Event]:
    """Two splits, three dividends and a delisting; half of them on days that need not be sessions."""
    found: dict[tuple[str, date, str], Event] = {}
    for kind, count in (("split", 2), ("dividend", 3), ("delisting", 1)):
        for _ in range(count):
            day = days[0] + timedelta(days=int(rng.integers(3, (days[-1] - days[0]).days)))
            value = {"split": rng.choice([0.5, 1.5, 2.0, 3.0]), "dividend": rng.uniform(0.1, 2), "delisting": 12.5}
            name = names[int(rng.integers(len(names)))]
            found[name, day, kind] = Event(name, day, kind, float(value[kind]))
    return list(found.values())


def _three_times(
    days: list[date],
    names: list[str],
    bars: dict[tuple[str, date], Bar],
    events: list[Event],
    signals: FloatArray,
    fill_at: FillAt,
) -> RandomMarket:
    rows = [(s, day, b.open, b.high, b.low, b.close, b.volume) for (s, day), b in bars.items()]
    fields = dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64)
    frame = pl.DataFrame(rows, schema={"symbol": pl.String, "session": pl.Date, **fields}, orient="row")
    happened = pl.DataFrame(
        [(e.symbol, e.day, e.kind, e.value) for e in events],
        schema={"symbol": pl.String, "session": pl.Date, "kind": pl.String, "value": pl.Float64},
        orient="row",
    )
    data = MarketData.from_frames(frame, happened, fill_at)
    assert (data.symbols, data.sessions) == (tuple(names), tuple(days)), "a symbol or a session has no bar at all"
    history = History(tuple(names), tuple(days), bars, tuple(events), fill_at.value)
    return RandomMarket(frame, happened, data, history, signals)


# --- rules of allocation with terms of trading that belong together ---

PROPORTIONAL = CostModel(commission_bps=7, half_spread_bps=5, slippage_bps=9)
EVERYTHING = CostModel(7, 5, 9, 0.8, 0.2, 250, 400)
LIMITS = RiskLimits(max_position=0.3, max_order_notional=4_000.0, restricted=frozenset({"S2"}))
LEVERAGE = RiskLimits(max_position=0.6, max_gross=1.5, max_order_notional=9_000.0)
NARROW = RiskLimits(max_position=0.5, max_names=2, max_turnover=0.6, max_volume_share=0.3)
NEUTRAL = replace(LEVERAGE, max_net=0.2, max_names=4, max_turnover=0.9)


@dataclass(frozen=True, slots=True)
class Case:
    """`scale`: signals are multiplied by it, so that they can be weights."""

    rule: Allocation
    terms: Terms
    short: bool = False
    scale: float = 1.0
    fill_at: FillAt = FillAt.OPEN

    def market(self, seed: int) -> RandomMarket:
        """One with signals that this rule can read: what is known and never held belongs to TOP_K alone."""
        made = random_market(seed, fill_at=self.fill_at)
        known = np.where(np.isinf(made.signals), np.nan, made.signals * self.scale)
        return made if self.rule.kind == TOP_K else replace(made, signals=known)


def terms(costs: CostModel = PROPORTIONAL, limits: RiskLimits | None = None, capital: float = 20_000.0) -> Terms:
    return Terms(capital, costs, limits=limits)


CASES: dict[str, Case] = {
    "top 3, free": Case(Allocation(TOP_K, k=3), terms(FREE)),
    "top 3": Case(Allocation(TOP_K, k=3), terms()),
    "top 2 with a buffer": Case(Allocation(TOP_K, k=2, buffer=2), terms()),
    "top 2 of the best half": Case(Allocation(TOP_K, k=2, keep_share=0.5), terms()),
    "top 3 reweighted, limits": Case(Allocation(TOP_K, k=3, reweight=True), terms(limits=LIMITS)),
    "top 3 every third session": Case(Allocation(TOP_K, k=3, reweight=True, every=3), terms()),
    "top 3 with everything": Case(Allocation(TOP_K, k=3), terms(EVERYTHING, LIMITS)),
    "top 2, whole shares": Case(Allocation(TOP_K, k=2), replace(terms(), fractional=False)),
    "top 2, whole shares and everything": Case(
        Allocation(TOP_K, k=2, reweight=True), replace(terms(EVERYTHING), fractional=False, min_order_notional=300.0)
    ),
    "slots": Case(Allocation(SLOTS), terms()),
    "slots with everything": Case(Allocation(SLOTS), terms(EVERYTHING)),
    "hold": Case(Allocation(HOLD), terms()),
    "hold, capped volume": Case(Allocation(HOLD), terms(EVERYTHING, capital=60_000.0)),
    "weights, long and short": Case(Allocation(WEIGHTS, gross=1.5), terms(EVERYTHING, LEVERAGE), short=True, scale=0.6),
    "weights, long and short, free": Case(Allocation(WEIGHTS), terms(FREE), short=True, scale=0.3),
    "weights with a band": Case(
        Allocation(WEIGHTS, gross=1.4, band=0.1), terms(limits=LEVERAGE), short=True, scale=0.25
    ),
    "weights, whole shares": Case(
        Allocation(WEIGHTS, gross=1.2, every=2),
        replace(terms(EVERYTHING, LEVERAGE), fractional=False, min_order_notional=200.0),
        short=True,
        scale=0.2,
    ),
    "top 3, few names and little volume": Case(
        Allocation(TOP_K, k=3, reweight=True), replace(terms(limits=NARROW), min_order_notional=400.0)
    ),
    "weights, little net": Case(
        Allocation(WEIGHTS, gross=1.5), replace(terms(limits=NEUTRAL), min_order_notional=100.0), short=True, scale=0.6
    ),
    "weights, whole shares, little of all": Case(
        Allocation(WEIGHTS, gross=1.5),
        replace(terms(EVERYTHING, replace(NEUTRAL, max_volume_share=0.2)), fractional=False, min_order_notional=300.0),
        short=True,
        scale=0.4,
    ),
    "at the close": Case(Allocation(TOP_K, k=3), terms(EVERYTHING), fill_at=FillAt.CLOSE),
    "at the vwap": Case(Allocation(TOP_K, k=3), terms(EVERYTHING), fill_at=FillAt.VWAP),
}
