"""An evaluation from other sides: luck, regimes, sectors, other costs, other k."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trading_core import config
from trading_core.backtest.engine import Job, Terms, run_many
from trading_core.metrics.returns import sharpe_annual, simple_returns
from trading_core.pipelines.evaluation_inputs import Inputs
from trading_core.pipelines.evaluation_judge import Judged
from trading_core.pipelines.evaluation_runs import COST_FACTORS, OTHER_K, Simulated, varied
from trading_core.plots.evaluation_data import Breakdown, Measure, RandomPortfolios, Sensitivity, label_of
from trading_core.portfolio.random_same_turnover import RandomSameTurnover, RandomSameTurnoverParams
from trading_core.schema import BoolArray, FloatArray

REGIME_SESSIONS = 21  # the market's volatility before a session is taken over about a month
THIRDS = ("calm", "middle", "turbulent")


# --- luck -------------------------------------------------------------------------------------------------------------


def random_portfolios(inputs: Inputs, simulated: Sequence[Simulated]) -> dict[str, RandomPortfolios]:
    """What portfolios drawn at random get that hold as many names and trade as much, by label of the long-only strategies
    that hold anything; {} where the plan asks for none. Each is drawn with a seed of its own: the plan's and its number.

    Names are drawn among those with a forecast, of the strategy's own model, else of the first.
    """
    plan, per_year = inputs.plan, inputs.ws.sessions.per_year
    kind_of = {label_of(s.strategy, s.label): _alike(inputs, s) for s in simulated if not s.benchmark and not s.short}
    kinds = sorted({kind for kind in kind_of.values() if kind is not None})
    if plan.random_portfolios < 1:
        return {}
    terms = Terms(plan.capital, inputs.costs, record=False)
    sharpe = {}
    for label, horizon, k, share in kinds:
        panel = inputs.panel(label, horizon)
        jobs = [
            Job("random", RandomSameTurnover(RandomSameTurnoverParams(k, share, plan.seed + number)), terms, panel)
            for number in range(plan.random_portfolios)
        ]
        results = run_many(inputs.data, jobs, start=plan.start, end=plan.end)
        sharpe[(label, horizon, k, share)] = np.array(
            [sharpe_annual(simple_returns(result.equity), per_year) for result in results]
        )
    found = {}
    for made in simulated:
        name = label_of(made.strategy, made.label)
        kind = kind_of.get(name)
        if kind is not None:
            found[name] = _compared(sharpe[kind], sharpe_annual(made.returns, per_year), kind)
    return found


def _compared(drawn: FloatArray, own: float, kind: tuple[str, int, int, float]) -> RandomPortfolios:
    known = drawn[np.isfinite(drawn)]
    p_value = math.nan
    if len(known) and math.isfinite(own):
        p_value = (1.0 + int(np.sum(known >= own))) / (len(known) + 1.0)
    rule = (
        f"{len(drawn)} portfolios of {kind[2]} names drawn at random among those with a forecast, of which {100 * kind[3]:.2g} % "
        "leave per session on average, net of the same costs"
    )
    return RandomPortfolios(drawn, p_value, rule)


def _alike(inputs: Inputs, made: Simulated) -> tuple[str, int, int, float] | None:
    """Whose forecasts it may draw from and over which horizon, how many names it holds in mean, and what share of them it
    replaces per session; None when it holds none."""
    names = float(np.mean(made.daily["n_positions"].to_numpy()[1:]))
    turnover = float(np.mean(made.daily["turnover"].to_numpy()[1:]))
    if names < 0.5:
        return None
    label = made.label or inputs.plan.forecasts[0].label
    horizons = inputs.forecasts[label]["horizon"].unique().sort().to_list()
    horizon = config.load_strategy(made.strategy, inputs.ws.settings).horizon
    horizon = horizon if horizon in horizons else horizons[0]
    return label, horizon, max(round(names), 1), min(max(float(f"{turnover:.2g}"), 0.0), 1.0)


# --- regimes and sectors ----------------------------------------------------------------------------------------------


def breakdowns(inputs: Inputs, judged: Sequence[Judged]) -> tuple[Breakdown, ...]:
    """By the market's volatility, by its direction, and by sector where sectors are known."""
    first = inputs.data.first_at_or_after(judged[0].report.sessions[1])
    count = len(judged[0].simulated.returns)
    market = _market_returns(inputs)
    found = [_by_volatility(inputs, judged, market, first, count), _by_direction(inputs, judged, market, first, count)]
    return tuple(b for b in (*found, _by_sector(judged)) if b is not None)


def _market_returns(inputs: Inputs) -> FloatArray:
    """[T] mean return of all symbols from close to close, splits taken out; NaN for the first session."""
    data = inputs.data
    with np.errstate(divide="ignore", invalid="ignore"):
        adjusted = data.closes * data.split_factor
        returns = adjusted[1:] / adjusted[:-1] - 1.0
    known = np.isfinite(returns)
    mean = np.where(known, returns, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.concatenate([[np.nan], np.where(known.any(axis=1), mean, np.nan)])


def _by_volatility(
    inputs: Inputs, judged: Sequence[Judged], market: FloatArray, first: int, count: int
) -> Breakdown | None:
    before = np.full(count, np.nan)
    for n in range(count):
        t = first + n
        window = market[max(t - REGIME_SESSIONS, 1) : t]
        if len(window) == REGIME_SESSIONS and np.isfinite(window).all():
            before[n] = float(np.std(window))
    known = before[np.isfinite(before)]
    if len(known) < 3 * 30:
        return None
    low, high = np.quantile(known, [1 / 3, 2 / 3])
    groups = (before <= low, (before > low) & (before <= high), before > high)
    lead = (
        f"Sessions sorted into thirds by the volatility of the market's mean return over the {REGIME_SESSIONS} sessions "
        "before each; where the thirds lie is known only now."
    )
    return _regimes("By the market's volatility", lead, THIRDS, groups, judged, inputs.ws.sessions.per_year)


def _by_direction(
    inputs: Inputs, judged: Sequence[Judged], market: FloatArray, first: int, count: int
) -> Breakdown | None:
    own = market[first : first + count]
    groups = (own > 0, own <= 0)
    lead = (
        "Sessions on which the mean of all symbols rose, and the others: known only afterwards, so nothing to trade on."
    )
    names = ("rising market", "falling market")
    return _regimes("By the market's direction", lead, names, groups, judged, inputs.ws.sessions.per_year)


def _regimes(
    title: str, lead: str, names: tuple[str, ...], groups: Sequence[BoolArray], judged: Sequence[Judged], per_year: int
) -> Breakdown:
    mean = np.full((len(judged), len(names)), np.nan)
    sharpe = np.full((len(judged), len(names)), np.nan)
    for r, j in enumerate(judged):
        for g, member in enumerate(groups):
            returns = j.simulated.returns[member]
            if len(returns):
                mean[r, g], sharpe[r, g] = float(np.mean(returns)) * per_year, sharpe_annual(returns, per_year)
    measures = (
        Measure("Return", "mean return times sessions a year", mean, percent=True, digits=1),
        Measure("Sharpe", "annualised, of these sessions alone", sharpe),
    )
    sizes = tuple(f"{int(member.sum())} sessions" for member in groups)
    return Breakdown(title, lead, names, sizes, tuple(j.report.label for j in judged), measures)


def _by_sector(judged: Sequence[Judged]) -> Breakdown | None:
    with_sectors = [j for j in judged if j.report.sectors is not None]
    if not with_sectors:
        return None
    names = sorted({name for j in with_sectors for name in j.report.sectors.names})  # type: ignore[union-attr]
    earned = np.full((len(with_sectors), len(names)), np.nan)
    weight = np.full((len(with_sectors), len(names)), np.nan)
    for r, j in enumerate(with_sectors):
        sectors = j.report.sectors
        for k, name in enumerate(sectors.names if sectors else ()):
            earned[r, names.index(name)] = sectors.contribution[k]  # type: ignore[union-attr]
            weight[r, names.index(name)] = float(np.mean(sectors.weights[1:, k]))  # type: ignore[union-attr]
    measures = (
        Measure("Contribution", "sum of profits after costs over equity of the session before", earned, True, 1),
        Measure("Weight", "mean share of equity", weight, True, 1),
    )
    lead = "What each sector earned and how much of equity was in it; interest and borrowing fees belong to none."
    labels = tuple(j.report.label for j in with_sectors)
    return Breakdown("By sector", lead, tuple(names), tuple("" for _ in names), labels, measures)


# --- other settings ---------------------------------------------------------------------------------------------------


def sensitivities(inputs: Inputs, judged: Sequence[Judged]) -> tuple[Sensitivity, ...]:
    """What the strategies would have earned at other costs and, where they hold the k best, with other k."""
    per_year = inputs.ws.sessions.per_year
    costs = np.array([varied(j.simulated, "costs", 1.0, COST_FACTORS, per_year) for j in judged])
    labels = tuple(j.report.label for j in judged)
    lead = "Commission, spread, slippage, impact and borrowing fee, all times the same factor; decisions are the same."
    found = [
        Sensitivity(
            "Costs", lead, "costs, times those assumed", tuple(f"{f:g}×" for f in COST_FACTORS), COST_FACTORS.index(1.0),
            labels, costs[:, 0], costs[:, 1],
        )
    ]  # fmt: skip
    with_k = [j for j in judged if any(v.setting == "k" for v in j.simulated.variants)]
    if with_k:
        figures = np.array([varied(j.simulated, "k", np.nan, OTHER_K, per_year) for j in with_k])
        for r, j in enumerate(with_k):
            missing = [k for k in OTHER_K if k not in {v.value for v in j.simulated.variants if v.setting == "k"}]
            for k in missing:  # the strategy's own
                figures[r, 0, OTHER_K.index(k)] = j.report.returns.sharpe
                figures[r, 1, OTHER_K.index(k)] = j.report.returns.cagr
        lead = "How many names are held; the limit per position is lifted so that few names can be. Counted as trials."
        found.append(
            Sensitivity(
                "Number of names", lead, "names held (k)", tuple(f"{k}" for k in OTHER_K), None,
                tuple(j.report.label for j in with_k), figures[:, 0], figures[:, 1],
            )
        )  # fmt: skip
    return tuple(found)
