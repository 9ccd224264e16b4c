"""The backtest: the decision, actions and fill rule of a live session, over history.

Of every pair of neighbouring sessions D, T: decide with what was known at D's close, let the night pass (interest, borrowing
fees, T's corporate actions), fill at T's price (sells first, then buys with the cash that is really there), value at T's close.

A strategy made of signals is run in one compiled pass over the panel; any other one session by session through the views that
a live session gets. What happens to its orders is the same code in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date

import numpy as np

from trading_core.backtest.data import ForecastPanel, MarketData
from trading_core.backtest.result import BacktestResult
from trading_core.costs import CostModel
from trading_core.errors import InvalidDateRangeError, StrategyOutputError
from trading_core.portfolio.decision import AccountWeights, valued
from trading_core.portfolio.kernels import types as fields
from trading_core.portfolio.kernels.allocation import allocate
from trading_core.portfolio.kernels.sessions import Account, Market, run_sessions
from trading_core.portfolio.kernels.types import GIVEN, PATHS, AccountRules, Allocation
from trading_core.portfolio.risk import NO_LIMITS, RiskLimits, restricted_mask
from trading_core.portfolio.strategy import (
    SessionView,
    SignalInputs,
    SignalStrategy,
    Strategy,
    session_view,
    validate_weights,
)
from trading_core.schema import FloatArray

NO_COLUMNS: Mapping[str, FloatArray] = {}


@dataclass(frozen=True, slots=True)
class Terms:
    """How an account trades. `capital`: cash at the start, `min_order_notional`: currency. `limits` None: no risk rule,
    and positions may not exceed equity. `record` False: paths only, for sweeps."""

    capital: float
    costs: CostModel
    fractional: bool = True
    min_order_notional: float = 0.0
    limits: RiskLimits | None = None
    record: bool = True

    @property
    def needs_liquidity(self) -> bool:
        """Whether fills or risk rules depend on the volume and volatility before them."""
        return self.costs.needs_liquidity or (self.limits is not None and self.limits.needs_volumes)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One strategy of `run_many`, as the arguments of `run`."""

    name: str
    strategy: Strategy
    terms: Terms
    forecasts: ForecastPanel | None = None
    columns: Mapping[str, FloatArray] | None = None
    signals: FloatArray | None = None  # [R, S] of `signals_of`, where they are known already; else computed


def run(
    data: MarketData,
    forecasts: ForecastPanel | None,
    strategy: Strategy,
    *,
    name: str,
    start: date,
    end: date,
    capital: float,
    costs: CostModel,
    fractional: bool = True,
    min_order_notional: float = 0.0,
    limits: RiskLimits | None = None,
    columns: Mapping[str, FloatArray] | None = None,
) -> BacktestResult:
    """Trades `strategy` from `capital` (currency) in cash.

    `start`: the first decision is made at the close of the first session at or after it; `end`: the last session traded
    is the last one at or before it. `forecasts` None: no forecasts (benchmarks). `columns`: the features [T, S] that the
    strategy declares, see `data.aligned_columns`. Without `limits` no risk rule applies.
    Errors: InvalidDateRangeError when fewer than two sessions lie in start..end; StrategyOutputError.
    """
    terms = Terms(capital, costs, fractional, min_order_notional, limits)
    return run_many(data, [Job(name, strategy, terms, forecasts, columns)], start=start, end=end, threads=1)[0]


def run_many(
    data: MarketData, jobs: Sequence[Job], *, start: date, end: date, threads: int = 2
) -> list[BacktestResult]:
    """The result of each job, in their order; compiled passes run on `threads` threads at once, which changes no bit.

    Errors: those of `run`.
    """
    first, last = decided_range(data, start, end)
    market = data.for_kernels(any(job.terms.needs_liquidity for job in jobs))
    lacking = [job for job in jobs if job.forecasts is None]
    empty = ForecastPanel.empty(data) if lacking else None  # nine arrays of the panel's size: only where one is needed

    def one(job: Job) -> BacktestResult:
        panel = job.forecasts or empty or ForecastPanel.empty(data)
        if isinstance(job.strategy, SignalStrategy) and decides_by_signals(job.strategy):
            return _run_signals(data, market, panel, job, job.strategy, first, last)
        return _run_views(data, market, panel, job, first, last)

    if threads == 1 or len(jobs) == 1:
        return [one(job) for job in jobs]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, jobs))


def decided_range(data: MarketData, start: date, end: date) -> tuple[int, int]:
    """The index of the first decision session and of the last session traded. Errors: InvalidDateRangeError."""
    first = data.first_at_or_after(start)
    last = min(data.first_at_or_after(end), len(data.sessions) - 1)
    if data.sessions[last] > end:
        last -= 1
    if last - first < 1:
        held = f"the bars hold {data.sessions[0]} .. {data.sessions[-1]} and a backtest needs two sessions of them"
        raise InvalidDateRangeError(start, end, held)
    return first, last


def signal_inputs(
    data: MarketData, panel: ForecastPanel, columns: Mapping[str, FloatArray], first: int, last: int
) -> SignalInputs:
    """What the signals of the decisions first .. last - 1 may be made of: no row from `last` on."""
    return SignalInputs(
        data.symbols,
        data.sessions[first:last],
        tuple(range(last - first)),
        panel.score[first:last],
        panel.quantiles[first:last],
        panel.p_up[first:last],
        data.closes[:last],
        data.volumes[:last],
        data.split_factor[:last],
        {name: values[:last] for name, values in columns.items()},
    )


def signals_of(data: MarketData, job: Job, *, start: date, end: date) -> FloatArray | None:
    """The signals [R, S] of a job, to be reused by others that differ in terms or allocation alone; None where the strategy
    has none. Errors: those of `run`."""
    if not isinstance(job.strategy, SignalStrategy) or not decides_by_signals(job.strategy):
        return None
    first, last = decided_range(data, start, end)
    panel = job.forecasts or ForecastPanel.empty(data)
    inputs = signal_inputs(data, panel, _declared(job), first, last)
    return _checked(job.name, job.strategy.signals(inputs), (last - first, len(data.symbols)))


def decides_by_signals(strategy: Strategy) -> bool:
    """Whether its signals are all there is to its decisions: not where a subclass decides otherwise, live and here."""
    return isinstance(strategy, SignalStrategy) and type(strategy).decide is SignalStrategy.decide


def _checked(name: str, signals: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """As the kernels take them, which write nothing to them: a copy only where they are of another type or order.

    Errors: StrategyOutputError for another shape; compiled code would read past their end.
    """
    if np.shape(signals) != shape:
        raise StrategyOutputError(name, f"its signals have shape {np.shape(signals)}; expected {shape}")
    return np.require(signals, np.float64, ["C", "W"])


def _account(data: MarketData, job: Job, allocation: Allocation) -> Account:
    terms = job.terms
    rules = AccountRules(bool(terms.fractional), bool(job.strategy.short), float(terms.min_order_notional))
    limits = terms.limits.numbers if terms.limits else NO_LIMITS
    return Account(allocation, terms.costs.rates, limits, rules, restricted_mask(data.symbols, terms.limits))


def _run_signals(
    data: MarketData, market: Market, panel: ForecastPanel, job: Job, strategy: SignalStrategy, first: int, last: int
) -> BacktestResult:
    columns = _declared(job)
    signals = job.signals
    if signals is None:
        inputs = signal_inputs(data, panel, columns, first, last)
        signals = strategy.signals(inputs)
    signals = _checked(job.name, signals, (last - first, len(data.symbols)))
    account = _account(data, job, strategy.allocation)
    quantities, paths = np.zeros(len(data.symbols)), np.zeros((PATHS, last - first))
    flaw, cash, trades, missed = run_sessions(
        market, account, signals, first, 0, quantities, float(job.terms.capital), paths, job.terms.record
    )
    if flaw >= 0:
        _name_the_flaw(data, panel, job, strategy.allocation, first + flaw, flaw, signals[flaw], quantities, cash)
    return _result(data, job, first, last, paths, trades, missed, quantities)


def _name_the_flaw(
    data: MarketData, panel: ForecastPanel, job: Job, rule: Allocation, d: int, ordinal: int, signal: FloatArray,
    quantities: FloatArray, cash: float,
) -> None:  # fmt: skip
    """Raises the StrategyOutputError of a decision that the kernel refused."""
    account = valued(quantities, cash, data.marks[d])
    view = view_of(data, panel, job.strategy, account, d, data.sessions[d + 1], ordinal)
    target = allocate(rule, signal.copy(), view.tradable, np.array(account.weights), ordinal)
    limit = max(job.terms.limits.max_gross, 1.0) if job.terms.limits else NO_LIMITS.max_gross
    validate_weights(job.name, target, view, limit, job.strategy.short)
    raise StrategyOutputError(job.name, f"those of {data.sessions[d]} break a limit by float noise alone")


def _run_views(
    data: MarketData, market: Market, panel: ForecastPanel, job: Job, first: int, last: int
) -> BacktestResult:
    """A strategy that knows views only: asked once per session, its answer checked, then the same kernel for that session."""
    account = _account(data, job, Allocation(GIVEN))
    limit = max(account.limits.max_gross, 1.0)
    columns = _declared(job)
    quantities, cash = np.zeros(len(data.symbols)), float(job.terms.capital)
    paths = np.zeros((PATHS, last - first))
    trades, missed = [], []
    for n, d in enumerate(range(first, last)):
        state = valued(quantities, cash, data.marks[d])
        target = state.weights
        if state.equity > 0:
            view = view_of(data, panel, job.strategy, state, d, data.sessions[d + 1], n, columns)
            target = validate_weights(job.name, job.strategy.decide(view), view, limit, job.strategy.short)
        path = np.zeros((PATHS, 1))
        flaw, cash, filled, unfilled = run_sessions(
            market, account, target[None], d, n, quantities, cash, path, job.terms.record
        )
        if flaw >= 0:
            raise StrategyOutputError(job.name, f"those of {data.sessions[d]} break a limit by float noise alone")
        paths[:, n : n + 1] = path
        trades.append(filled)
        missed.append(unfilled)
    return _result(data, job, first, last, paths, np.concatenate(trades), np.concatenate(missed), quantities)


def _declared(job: Job) -> Mapping[str, FloatArray]:
    """The columns that the strategy declares, and no other. ValueError when one was not handed in (the caller's fault)."""
    given = job.columns or NO_COLUMNS
    if lacking := [name for name in job.strategy.columns if name not in given]:
        raise ValueError(f"strategy '{job.name}' declares the columns {lacking}, which were not handed in")
    return {name: given[name] for name in job.strategy.columns}


def view_of(
    data: MarketData,
    panel: ForecastPanel,
    strategy: Strategy,
    account: AccountWeights,
    d: int,
    trade_session: date,
    ordinal: int,
    columns: Mapping[str, FloatArray] = NO_COLUMNS,
) -> SessionView:
    """The view of the decision made at the close of session index `d` for `trade_session`, which `data` need not hold.

    `panel` and `columns` must be aligned with `data`; `ordinal`: sessions since the account's first decision.
    """
    closes, volumes = data.window(d, strategy.lookback)
    rows = slice(d + 1 - len(closes), d + 1)
    return session_view(
        data.sessions[d],
        trade_session,
        ordinal,
        data.symbols,
        panel.score[d],
        panel.quantiles[d],
        panel.p_up[d],
        closes,
        volumes,
        account.weights,
        account.cash_weight,
        {name: values[rows] for name, values in columns.items()},
    )


def _result(
    data: MarketData, job: Job, first: int, last: int, paths: FloatArray, trades: FloatArray, missed: FloatArray,
    quantities: FloatArray,
) -> BacktestResult:  # fmt: skip
    start = np.zeros((PATHS, 1))
    start[fields.EQUITY] = start[fields.CASH] = job.terms.capital
    whole = np.concatenate([start, paths], axis=1)
    for records in (trades, missed):
        records[:, 0] -= first - 1  # from the row of D in the market to the row of T in the result
    return BacktestResult(
        name=job.name,
        sessions=data.sessions[first : last + 1],
        symbols=data.symbols,
        equity=whole[fields.EQUITY],
        cash=whole[fields.CASH],
        turnover=whole[fields.TURNOVER],
        commission=whole[fields.COMMISSION],
        concession=whole[fields.CONCESSION],
        impact=whole[fields.IMPACT],
        borrow=whole[fields.BORROW],
        interest=whole[fields.INTEREST],
        dividends=whole[fields.DIVIDENDS],
        proceeds=whole[fields.PROCEEDS],
        gross=whole[fields.GROSS],
        net=whole[fields.NET],
        n_positions=whole[fields.POSITIONS],
        fills=trades,
        misses=missed,
        final_quantities=quantities,
        limits=job.terms.limits,
    )
