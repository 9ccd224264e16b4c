"""A made-up evaluation: strategies of several models over years of sessions, every part of the report filled.

`python tests/plots/evaluation_sample.py PATH` writes the report, to look at it.
"""

from __future__ import annotations

import math
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from trading_core.metrics.returns import max_drawdown, simple_returns
from trading_core.plots import evaluation_data as data
from trading_core.plots.quality import CheckRow, HeldRow, QualitySection

STRATEGIES = (
    "top10", "top20", "top50", "top10-reweighted", "top10-volatility", "long-short", "long-short-sectors", "threshold",
    "kelly", "mean-variance", "sector-neutral", "hysteresis",
)  # fmt: skip
MODELS = ("linear", "lightgbm", "tft")
SECTORS = (
    "Energy",
    "Financials",
    "Health Care",
    "Industrials",
    "Information Technology",
    "Utilities",
    "Consumer Staples",
)
BENCHMARK = "equal-weight"


def sessions(count: int) -> tuple[date, ...]:
    """Weekdays from 2014."""
    start = date(2014, 1, 2)
    days = (start + timedelta(days=k) for k in range(2 * count + 10))
    return tuple(day for day in days if day.weekday() < 5)[:count]


def curve(rng: np.random.Generator, market: np.ndarray, drift: float, noise: float) -> np.ndarray:
    """An equity curve that follows the market's returns [N - 1] with its own drift and noise."""
    returns = 0.9 * market + rng.normal(drift, noise, len(market))
    return 1e6 * np.concatenate([[1.0], np.cumprod(1.0 + returns)])


def daily(rng: np.random.Generator, equity: np.ndarray, turnover: float, short: bool) -> data.DailySeries:
    """Costs in proportion to turnover."""
    n = len(equity)
    traded = np.concatenate([[0.0], rng.gamma(2.0, turnover / 2.0, n - 1)])
    base = traded * equity * 2e-4
    gross = np.concatenate([[0.0], 1.0 + 0.02 * rng.standard_normal(n - 1)])
    return data.DailySeries(
        turnover=traded, gross=gross, net=0.05 * gross if short else gross,
        positions=np.concatenate([[0.0], rng.integers(8, 13, n - 1).astype(float)]),
        commission=0.5 * base, spread=base, slippage=base, impact=0.3 * base * np.sqrt(traded),
        borrow=(1e-5 if short else 0.0) * equity, interest=3e-6 * equity,
    )  # fmt: skip


def sectors(rng: np.random.Generator, n: int, short: bool) -> data.SectorSeries:
    """Weights that wander."""
    steps = np.cumsum(0.02 * rng.standard_normal((n, len(SECTORS))), axis=0)
    weights = np.exp(steps) / np.exp(steps).sum(axis=1, keepdims=True)
    weights = weights - 1.0 / len(SECTORS) if short else weights
    return data.SectorSeries(SECTORS, weights, 0.05 * rng.standard_normal(len(SECTORS)))


def significance(rng: np.random.Generator, returns: np.ndarray) -> data.SignificanceFigures:
    """Figures of about the right size."""
    sharpe = float(returns.mean() / returns.std() * math.sqrt(252))
    error = math.sqrt(252 / len(returns))
    p_value = 0.5 * math.erfc(sharpe / error / math.sqrt(2))
    ways = [data.SharpeWay(error * k, min(p_value * k, 1.0)) for k in (1.0, 1.1, 1.05)]
    return data.SignificanceFigures(
        *ways, psr=1 - p_value, min_track_record=252 * (1.645 / sharpe) ** 2 if sharpe > 0 else math.nan,
        deflated=max(0.0, 0.97 - 6 * p_value), fdr_p=min(4 * p_value, 1.0), stepm=p_value < 0.002,
        active_p=float(rng.uniform(0.02, 0.98)),
    )  # fmt: skip


def strategy(
    name: str, model: str, days: tuple[date, ...], market: np.ndarray, seed: int, benchmark: bool = False
) -> data.StrategyReport:
    """One strategy with every figure."""
    rng = np.random.default_rng(seed)
    short = name.startswith("long-short")
    turnover = float(rng.uniform(0.01, 0.3))
    equity = curve(
        rng, 0.1 * market if short else market, float(rng.normal(0.0001, 0.0002)), 0.001 if benchmark else 0.004
    )
    returns = simple_returns(equity)
    fall, growth = max_drawdown(equity), equity[-1] / equity[0]
    years = len(returns) / 252
    var = float(np.quantile(returns, 0.05))
    sharpe = float(returns.mean() / returns.std(ddof=1) * math.sqrt(252))
    base = float(np.prod(1 + market) ** (1 / years) - 1)
    cagr = float(growth ** (1 / years) - 1)
    return data.StrategyReport(
        name, model, benchmark, days, equity,
        data.ReturnFigures(
            float(growth - 1), cagr, float(returns.std() * math.sqrt(252)), sharpe, 1.4 * sharpe, cagr / -fall.depth,
            fall.depth, float((returns > 0).mean()), cagr - base, float(rng.normal(0, 0.6)), cagr - 0.9 * base,
        ),
        data.RiskFigures(
            var, float(returns[returns <= var].mean()), -0.3, 5.2, float(returns.min()), float(returns.max()),
            days[fall.peak], days[fall.trough], None if fall.recovered is None else days[fall.recovered],
            (fall.recovered or len(days) - 1) - fall.peak, 210.0, 0.1 if short else 0.9, 0.06,
        ),
        data.TradingFigures(
            turnover * 252, 1.0, 0.05 if short else 1.0, 10.0, 9000 * turnover, 12.0, 800.0, 0.53, 1.12, 1.05, 0.0021,
            1 / turnover, 2.5e7 * (0.3 - turnover + 0.02),
            "at which 5 % of the fills would exceed 1 % of the day's volume",
        ),
        significance(rng, returns), daily(rng, equity, turnover, short), sectors(rng, len(days), short),
        None if benchmark else data.RandomPortfolios(
            rng.normal(0.5, 0.35, 500), float(rng.uniform(0.02, 0.9)),
            f"500 portfolios of 10 names drawn at random, of which {turnover:.0%} leave per session",
        ),
    )  # fmt: skip


def forecasts(
    rng: np.random.Generator, days: tuple[date, ...], models: tuple[str, ...]
) -> tuple[data.ForecastReport, ...]:
    """Three horizons of every model, with a weak signal."""
    found = []
    for k, model in enumerate(models):
        for horizon in (1, 5, 20):
            ic = rng.normal(0.004 * (k + 1), 0.1, len(days))
            ic[:3] = np.nan
            means = 1e-4 * horizon * (np.arange(10) - 4.5) * 0.3 * (k + 1) + 2e-4 * rng.standard_normal(10)
            skill = (
                data.SkillRow("Mean rank IC", float(np.nanmean(ic)), 0.0),
                data.SkillRow("Brier score of p_up", 0.2497, 0.25, "lower is better"),
                data.SkillRow("Coverage of q05 to q95", 0.893, note="0.90 is exact"),
                data.SkillRow("Crossing quantiles", math.nan, 0.0),
            )
            buckets = data.Buckets(
                means, np.full(10, 2e-4 * horizon), means[9] - means[0], 1.4 * k, 0.9, len(days) - 3, 0
            )
            gaps = ("no forecast on 2 sessions, 2015-03-02 and 2015-03-03.",) if (k, horizon) == (1, 5) else ()
            found.append(data.ForecastReport(model, horizon, data.IcSeries(days, ic), buckets, skill, gaps))
    return tuple(found)


def breakdowns(rng: np.random.Generator, labels: tuple[str, ...]) -> tuple[data.Breakdown, ...]:
    """By volatility, by direction of the market, by sector."""

    def measures(groups: int) -> tuple[data.Measure, ...]:
        shape = (len(labels), groups)
        return (
            data.Measure("Sharpe a year", "Sharpe ratio within the group", rng.normal(0.5, 0.6, shape)),
            data.Measure("Return a year", "mean return, annual", rng.normal(0.07, 0.1, shape), percent=True, digits=1),
        )

    shares = rng.normal(0.03, 0.03, (len(labels), len(SECTORS)))
    shares[0, 0] = math.nan
    part = data.Measure("Contribution", "to the total return, after costs", shares, percent=True, digits=1)
    return (
        data.Breakdown("Volatility of the market", "Thirds of the 21-session volatility before each session.",
                       ("calm", "middle", "wild"), ("333 sessions", "333 sessions", "333 sessions"), labels, measures(3)),
        data.Breakdown("Direction of the market", "Whether the 126-session return of equal-weight was above zero.",
                       ("up", "down"), ("702 sessions", "297 sessions"), labels, measures(2)),
        data.Breakdown("Sectors", "Sectors as of today.", SECTORS, (), labels, (part,)),
    )  # fmt: skip


def sensitivities(rng: np.random.Generator, labels: tuple[str, ...]) -> tuple[data.Sensitivity, ...]:
    """To costs and to the number of positions."""
    base = rng.normal(0.6, 0.3, (len(labels), 1))
    costs, drag = np.array([0.0, 1.0, 2.0, 5.0]), rng.uniform(0.02, 0.2, (len(labels), 1))
    held = np.log10(np.array([1, 5, 10, 20, 50], dtype=float))
    some = labels[:3]
    return (
        data.Sensitivity("Costs", "All costs of trading and borrowing times the same factor, everything else unchanged.",
                         "costs, times those assumed", ("0×", "1×", "2×", "5×"), 1, labels, base - drag * costs,
                         0.1 * (base - drag * costs)),
        data.Sensitivity("Number of positions", "The k highest forecasts, equally weighted.", "k",
                         ("1", "5", "10", "20", "50"), None, some, base[:3] * 0.3 + 0.4 * held, 0.1 * held + 0 * base[:3]),
    )  # fmt: skip


def blotter(
    rng: np.random.Generator, days: tuple[date, ...], labels: tuple[str, ...], count: int = 2_500
) -> data.Blotter:
    """Fills of all strategies, of which the report keeps the last."""
    at = np.sort(rng.integers(1, len(days), count))
    fills = tuple(
        data.FillRow(
            days[k], labels[int(rng.integers(len(labels)))], f"S{int(rng.integers(500)):03d}",
            ("buy", "sell")[int(rng.integers(2))], float(rng.integers(1, 900)), round(float(rng.uniform(5, 400)), 2),
            round(float(rng.uniform(0, 40)), 2),
        )
        for k in at.tolist()
    )  # fmt: skip
    return data.Blotter(fills, 40 * count, note="The last of all strategies.")


def sample(
    count: int = 1_000, names: tuple[str, ...] = STRATEGIES, models: tuple[str, ...] = MODELS
) -> data.EvaluationReport:
    """Every part filled: `names` of each of `models` and three benchmarks, over `count` sessions."""
    rng, days = np.random.default_rng(7), sessions(count)
    market = rng.normal(0.0004, 0.009, count - 1)
    made = [
        strategy(name, model, days, market, 10 + k * 100 + j)
        for k, model in enumerate(models)
        for j, name in enumerate(names)
    ]
    kept = [
        strategy(name, "", days, market, 900 + k, True)
        for k, name in enumerate((BENCHMARK, "buy-and-hold", "momentum"))
    ]
    labels = tuple(s.label for s in (*made, *kept))
    retrained = tuple(days[k] for k in range(count // 4 + 126, count, 126))
    run = data.RunFacts(
        "simulated",
        tuple(data.ModelFacts(model, "3 to 9, one per retraining", days[count // 4 - 30], f"zoo/{model}") for model in models),
        days[0], days[-1], 470, "Each side pays 1 bps commission, 2 bps half spread and 2 bps slippage; impact 0.1 σ √(Q/ADV).",
        "at the next open", 1e6, "0.4.1 (4f2c1aa)", 7, 412, "USD", 31, (("Forecasts table", "version 12"),),
        data.WalkForward("retrained every 126 sessions on all sessions before, 20 embargoed", days[count // 4], retrained),
    )  # fmt: skip
    return data.EvaluationReport(
        title="Strategies on simulated",
        run=run,
        strategies=(*made, *kept),
        benchmark=BENCHMARK,
        forecasts=forecasts(rng, days, models),
        joint=data.JointTests(BENCHMARK, 0.21, 0.34, 0.48, (), 0.05, 1000),
        overfitting=data.Overfitting(0.44, rng.logistic(0.2, 1.0, 12_870), len(made), 16, -0.2, 0.31),
        breakdowns=breakdowns(rng, labels),
        sensitivities=sensitivities(rng, labels),
        blotter=blotter(rng, days, labels),
        findings=("3 positions had no bar at the end; they are valued at their last close.",),
        notes=("The symbols are those that exist today: what was delisted before is missing (survivorship).",),
        quality=QualitySection(
            470_000, (CheckRow("spike", 14, 9, 2),), (HeldRow("S044", days[-3], "spike", "waits for the next bar"),), ()
        ),
    )


if __name__ == "__main__":
    from trading_core.plots.report import evaluation_report

    Path(sys.argv[1]).write_bytes(evaluation_report(sample()))
