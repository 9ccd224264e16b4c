"""From simulations to figures: what each strategy earned, risked and traded, and how sure one can be of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from trading_core.backtest.positions import Positions, positions_of
from trading_core.costs import DAYS_PER_YEAR, CostModel
from trading_core.metrics.deflated import TrialStats, deflated_sharpe, probabilistic_sharpe_test
from trading_core.metrics.multiple import adjusted_p_values
from trading_core.metrics.overfitting import backtest_overfitting
from trading_core.metrics.paired import active_return_test
from trading_core.metrics.returns import ReturnSummary, summarize
from trading_core.metrics.significance import SharpeTest, sharpe_test
from trading_core.metrics.superior import superior_ability
from trading_core.metrics.trades import capacity, closed_trades, summarize_trades
from trading_core.pipelines.evaluation_inputs import Inputs
from trading_core.pipelines.evaluation_runs import Simulated
from trading_core.plots.evaluation_data import (
    DailySeries,
    JointTests,
    Overfitting,
    RandomPortfolios,
    ReturnFigures,
    RiskFigures,
    SectorSeries,
    SharpeWay,
    SignificanceFigures,
    StrategyReport,
    TradingFigures,
    label_of,
)
from trading_core.schema import SESSION, FloatArray

CAPACITY_RULE = "at which 5 % of the fills would exceed 1 % of the symbol's average daily volume"
LEVEL = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A strategy of the report with what it was made of."""

    report: StrategyReport
    simulated: Simulated
    positions: Positions


def judge(
    inputs: Inputs,
    simulated: Sequence[Simulated],
    main_benchmark: str,
    trials: TrialStats,
    sectors: pl.DataFrame,
    random: dict[str, RandomPortfolios],
) -> list[Judged]:
    """The figures of every simulation. main_benchmark: its strategy's name, "" for none; sectors: SYMBOL and sector;
    random: by label. What needs all strategies at once is put in by `together`."""
    benchmark = next((s for s in simulated if s.strategy == main_benchmark), None)
    return [_judged(inputs, s, benchmark, trials, sectors, random) for s in simulated]


def _judged(
    inputs: Inputs,
    made: Simulated,
    benchmark: Simulated | None,
    trials: TrialStats,
    sectors: pl.DataFrame,
    random: dict[str, RandomPortfolios],
) -> Judged:
    per_year = inputs.ws.sessions.per_year
    first = inputs.data.first_at_or_after(made.daily[SESSION][0])
    positions = positions_of(inputs.data, made.trades, first, first + len(made.daily) - 1)
    other = benchmark.equity if benchmark is not None and benchmark is not made else None
    series = {name: made.daily[name].to_numpy() for name in ("turnover", "gross", "net")}
    summary = summarize(made.equity, series["turnover"], other, per_year, series["gross"], series["net"])
    sessions = tuple(made.daily[SESSION].to_list())
    report = StrategyReport(
        name=made.strategy,
        model=made.label,
        benchmark=made.benchmark,
        sessions=sessions,
        equity=made.equity,
        returns=_returns(summary),
        risk=_risk(summary, made.returns, sessions),
        trading=_trading(inputs, made, positions, summary, first),
        significance=_significance(inputs, made, benchmark, trials),
        daily=_daily(inputs, made),
        sectors=_sectors(inputs, made, positions, sectors),
        random=random.get(label_of(made.strategy, made.label)),
    )
    return Judged(report, made, positions)


def _returns(s: ReturnSummary) -> ReturnFigures:
    return ReturnFigures(
        s.total_return, s.cagr, s.volatility_annual, s.sharpe_annual, s.sortino_annual, s.calmar, s.max_drawdown,
        s.hit_ratio, s.active_cagr, s.information_ratio, s.alpha_annual,
    )  # fmt: skip


def _risk(s: ReturnSummary, returns: FloatArray, sessions: Sequence[date]) -> RiskFigures:
    fell = s.max_drawdown < 0
    return RiskFigures(
        var=-s.value_at_risk,
        cvar=-s.conditional_value_at_risk,
        skew=s.skewness,
        kurtosis=s.kurtosis,
        worst=float(np.min(returns)),
        best=float(np.max(returns)),
        drawdown_peak=sessions[s.drawdown_peak] if fell else None,
        drawdown_trough=sessions[s.drawdown_trough] if fell else None,
        drawdown_recovered=sessions[s.drawdown_recovered] if fell and s.drawdown_recovered is not None else None,
        drawdown_sessions=float((s.drawdown_recovered or len(sessions) - 1) - s.drawdown_peak) if fell else 0.0,
        under_water=float(s.under_water_sessions),
        beta=s.beta,
        tracking_error=s.tracking_error_annual,
    )


def _trading(
    inputs: Inputs, made: Simulated, positions: Positions, summary: ReturnSummary, first: int
) -> TradingFigures:
    fills = positions.executions
    trades = summarize_trades(closed_trades(fills.row, fills.column, fills.quantity, fills.price, fills.commission))
    counts = made.daily["n_positions"].to_numpy()[1:]
    return TradingFigures(
        turnover=summary.turnover_annual,
        gross=summary.mean_gross_exposure,
        net=summary.mean_net_exposure,
        positions=float(np.mean(counts)),
        fills=float(len(made.trades)),
        unfilled=float(len(made.unfilled)),
        trades=float(trades.closed_trades),
        win_rate=trades.win_rate,
        profit_factor=trades.profit_factor,
        payoff=trades.payoff_ratio,
        expectancy=trades.expectancy_on_peak,
        holding=trades.mean_sessions,
        capacity=_capacity(inputs, made, positions, first),
        capacity_rule=CAPACITY_RULE,
    )


def _capacity(inputs: Inputs, made: Simulated, positions: Positions, first: int) -> float:
    fills = positions.executions
    if not len(fills.row):
        return math.nan
    data = inputs.data
    decided = first + fills.row - 1
    adv = data.liquidity[1][decided, fills.column] * data.marks[decided, fills.column]
    known = np.isfinite(adv) & (adv > 0)
    notional, capital = np.abs(fills.quantity * fills.price), made.equity[fills.row - 1]
    return capacity(notional[known], capital[known], adv[known]) if known.any() else math.nan


def _significance(
    inputs: Inputs, made: Simulated, benchmark: Simulated | None, trials: TrialStats
) -> SignificanceFigures:
    per_year, plan, returns = inputs.ws.sessions.per_year, inputs.plan, made.returns
    cash = inputs.costs.interest_bps_annual * 1e-4
    per_session = cash_per_session(inputs.costs, made.daily[SESSION].to_list())
    moments = sharpe_test(returns, "moments", per_year=per_year, cash=per_session)
    robust = sharpe_test(returns, "hac", per_year=per_year, cash=per_session)
    drawn = sharpe_test(
        returns, "bootstrap", per_year=per_year, cash=per_session, seed=plan.seed, resamples=plan.resamples
    )
    record = probabilistic_sharpe_test(returns, per_year=per_year, cash=per_session)
    deflated = None if made.benchmark else deflated_sharpe(returns, trials, per_year, cash=per_session)
    active = None
    if benchmark is not None and benchmark is not made:
        active = active_return_test(returns, benchmark.returns, per_year=per_year)
    return SignificanceFigures(
        moments=_way(moments),
        hac=_way(robust),
        bootstrap=_way(drawn),
        psr=record.probability,
        min_track_record=record.minimum_track_record,
        deflated=deflated.probability if deflated else math.nan,
        deflated_reason=deflated.reason if deflated else "a benchmark is not chosen among trials",
        active_p=active.p_value if active else math.nan,
        active_reason=active.reason if active else "",
        cash_rate=cash,
        tested_sharpe=moments.sharpe_annual,
    )


def cash_per_session(costs: CostModel, sessions: Sequence[date]) -> FloatArray:
    """[N - 1] what cash earned between the closes of neighbouring sessions [N]."""
    days = np.diff(np.array(sessions, dtype="datetime64[D]")).astype(np.float64)
    return costs.interest_bps_annual * 1e-4 * days / DAYS_PER_YEAR


def _way(test: SharpeTest) -> SharpeWay:
    return SharpeWay(test.standard_error_annual, test.p_value, test.reason)


def _daily(inputs: Inputs, made: Simulated) -> DailySeries:
    costs, column = inputs.costs, {name: made.daily[name].to_numpy() for name in made.daily.columns if name != SESSION}
    away = costs.half_spread_bps + costs.slippage_bps
    spread = costs.half_spread_bps / away if away > 0 else 0.0
    return DailySeries(
        turnover=column["turnover"],
        gross=column["gross"],
        net=column["net"],
        positions=column["n_positions"],
        commission=column["commission"],
        spread=column["concession"] * spread,
        slippage=column["concession"] * (1.0 - spread),
        impact=column["impact"],
        borrow=column["borrow"],
        interest=column["interest"],
    )


def _sectors(inputs: Inputs, made: Simulated, positions: Positions, sectors: pl.DataFrame) -> SectorSeries | None:
    """None where no symbol's sector is known."""
    known = dict(sectors.drop_nulls().iter_rows()) if not sectors.is_empty() else {}
    names = sorted({known.get(symbol, "unknown") for symbol in inputs.data.symbols})
    if not known or names == ["unknown"]:
        return None
    member = np.zeros((len(inputs.data.symbols), len(names)))
    for s, symbol in enumerate(inputs.data.symbols):
        member[s, names.index(known.get(symbol, "unknown"))] = 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = (positions.values @ member) / made.equity[:, None]
        earned = (positions.profit[1:] @ member) / made.equity[:-1, None]
    held = np.flatnonzero(np.abs(weights).sum(axis=0) > 0)
    return SectorSeries(tuple(names[k] for k in held), weights[:, held], earned.sum(axis=0)[held])


# --- all of them together ---------------------------------------------------------------------------------------------


def together(inputs: Inputs, judged: Sequence[Judged], benchmark: str) -> tuple[list[Judged], JointTests | None]:
    """Adds what depends on all strategies: p-values adjusted for their number, and who is superior to the benchmark."""
    tested = [j for j in judged if not j.report.benchmark]
    adjusted = adjusted_p_values(np.array([j.report.significance.hac.p_value for j in tested], dtype=np.float64))
    joint = _joint(inputs, tested, judged, benchmark)
    fdr = {j.report.label: float(p) for j, p in zip(tested, adjusted, strict=True)}
    found = []
    for j in judged:
        if j.report.label in fdr:
            superior = None if joint is None or joint.reason else j.report.label in joint.stepm
            figures = dataclasses.replace(j.report.significance, fdr_p=fdr[j.report.label], stepm=superior)
            j = dataclasses.replace(j, report=dataclasses.replace(j.report, significance=figures))
        found.append(j)
    return found, joint


def _joint(inputs: Inputs, tested: Sequence[Judged], judged: Sequence[Judged], benchmark: str) -> JointTests | None:
    against = next((j for j in judged if j.report.label == benchmark), None)
    if against is None or not tested:
        return None
    matrix = np.column_stack([j.simulated.returns for j in tested])
    labels = [j.report.label for j in tested]
    found = superior_ability(
        matrix, against.simulated.returns, labels, inputs.plan.seed, LEVEL, resamples=inputs.plan.resamples
    )
    return JointTests(
        against=benchmark,
        spa_lower=found.p_lower,
        spa_consistent=found.p_consistent,
        spa_upper=found.p_upper,
        stepm=found.superior,
        level=found.level,
        resamples=found.resamples,
        reason=found.reason,
    )


def overfitting(inputs: Inputs, judged: Sequence[Judged]) -> Overfitting | None:
    """CSCV over all strategies and their variants with other k; None where there is only one."""
    names, columns = [], []
    for j in judged:
        if j.report.benchmark:
            continue
        names.append(j.report.label)
        columns.append(j.simulated.returns)
        for variant in j.simulated.variants:
            if variant.setting == "k":
                names.append(f"{j.report.label}, k = {variant.value:g}")
                columns.append(variant.equity[1:] / variant.equity[:-1] - 1.0)
    if len(names) < 2:
        return None
    found = backtest_overfitting(np.column_stack(columns), names, per_year=inputs.ws.sessions.per_year)
    return Overfitting(
        pbo=found.pbo,
        logits=found.logits,
        variants=found.variants,
        blocks=found.blocks,
        slope=found.slope,
        loss_probability=found.probability_of_loss,
        reason=found.reason,
    )


def held_at_the_end(inputs: Inputs, judged: Sequence[Judged]) -> tuple[str, ...]:
    """Positions that had no bar on the last session, in sentences: their value is that of an older close."""
    last = inputs.data.closes[len(inputs.data.sessions) - 1]
    found = []
    for j in judged:
        stale = (j.positions.values[-1] != 0) & ~np.isfinite(last)
        if stale.any():
            share = float(np.abs(j.positions.values[-1][stale]).sum() / j.simulated.equity[-1])
            names = [inputs.data.symbols[s] for s in np.flatnonzero(stale)]
            shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
            found.append(
                f"{j.report.label} ends with {len(names)} positions without a bar ({shown}), {share:.1%} of its equity at "
                "their last known price."
            )
    return tuple(found)
