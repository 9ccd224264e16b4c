"""The daily trade replayed beside the backtest: the same sessions, forecasts, costs and capital must give the same trades."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from trading_core import config
from trading_core.backtest import engine
from trading_core.backtest.data import ForecastPanel
from trading_core.backtest.result import BacktestResult
from trading_core.errors import InvalidConfigError, InvalidDateRangeError, NoDataError, UnknownNameError
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import Decision, SessionStatus
from trading_core.pipelines import trade
from trading_core.pipelines.market_data import load_market_data, load_strategy_columns
from trading_core.pipelines.refs import ParityRef, ParityRow
from trading_core.pipelines.strategies import build_strategy, needs_card, risk_limits
from trading_core.pipelines.train import code_version
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, CORPORATE_ACTIONS, FORECASTS, QUARANTINE, SESSION, SYMBOL, Fill
from trading_core.storage.tables import Predicate

TOLERANCE = 1e-9  # relative: of equity, quantities and prices
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Replayed:
    """What an account did in one session."""

    decision: Decision
    fills: tuple[Fill, ...]
    equity: float


def _silent(message: str) -> None:
    """No progress."""


def parity(
    ws: Workspace,
    *,
    strategy: str,
    start: date,
    end: date,
    run_id: str,
    now: datetime,
    progress: Progress = _silent,
) -> ParityRef:
    """Trades the sessions start .. end one by one on a paper account of their own, then the same with the engine.

    The account is named after the strategy, the costs, the first session, the versions of the data and the code: run again it
    goes on where it stopped, and what was revised since is traded anew.
    Models are those that replays resolve: the newest whose cut-off lies before each decision.
    Errors: InvalidDateRangeError (no session between), and those of `trade.run`.
    """
    sessions = ws.sessions.between(start, min(end, ws.last_session(now)))
    if not sessions:
        raise InvalidDateRangeError(start, end, f"sessions up to {ws.last_session(now)}")
    data = {table: ws.tables.version(table) for table in (BARS.name, CORPORATE_ACTIONS.name, QUARANTINE.name)}
    key = config.config_hash([trade.strategy_hash(ws, strategy), str(sessions[0]), code_version(), data], 12)
    account = ""
    for session in sessions:
        result = trade.run(
            ws, strategy=strategy, session=session, is_backfill=True, replay=f"parity-{key}", run_id=run_id, now=now
        )
        account = result.account
        progress(f"session {session}: {result.fills} fills, equity {result.equity:,.2f}")
    return compare_account(ws, account, through=sessions[-1])


def compare_account(ws: Workspace, account: str, through: date | None = None) -> ParityRef:
    """What an account of replayed sessions did, beside the engine over the same sessions and the forecasts it decided with.

    Errors: UnknownNameError (no such account), NoDataError (no settled session).
    """
    ledger = Ledger(ws.ledger_store())
    owner = next((owner for owner in ledger.accounts(ws.market.id) if owner.account == account), None)
    if owner is None:
        raise UnknownNameError("account", account, [found.account for found in ledger.accounts(ws.market.id)])
    replayed = _replayed(ledger, account, through)
    result = _backtest(ws, owner.strategy, replayed)
    difference = _first_difference(replayed, result)
    there = dict(zip(result.sessions[1:], result.equity[1:].tolist(), strict=True))
    distance = [
        abs(session.equity / there[session.decision.session] - 1.0)
        for session in replayed
        if session.decision.session in there
    ]
    return ParityRef(
        market=ws.market.id,
        strategy=owner.strategy,
        account=account,
        start=replayed[0].decision.session,
        end=replayed[-1].decision.session,
        sessions=len(replayed),
        trades=sum(len(session.fills) for session in replayed),
        equity=replayed[-1].equity,
        largest_difference=max(distance, default=math.nan),
        agrees=difference is None,
        difference=difference,
    )


def _replayed(ledger: Ledger, account: str, through: date | None) -> list[_Replayed]:
    """Its settled sessions in order, up to the first that is not, or that a person flattened."""
    found = []
    for record in ledger.sessions(account):
        state = ledger.session_state(account, record.session)
        decision = ledger.get_decision(account, record.session)
        settled = state is not None and state.status is SessionStatus.SETTLED and state.summary is not None
        if not settled or decision is None or (through is not None and record.session > through):
            break
        if decision.model == trade.FLATTEN:  # a person's decision, which no strategy makes
            break
        summary = state.summary  # type: ignore[union-attr]
        equity = summary.equity if summary is not None and summary.equity is not None else math.nan
        found.append(_Replayed(decision, tuple(ledger.fills(account, record.session)), equity))
    if not found:
        raise NoDataError(f"Account '{account}' has no settled session", "Trade one first: `trading trade --session`.")
    return found


def _backtest(ws: Workspace, strategy: str, replayed: list[_Replayed]) -> BacktestResult:
    chosen = config.load_strategy(strategy, ws.settings)
    first, last = replayed[0].decision, replayed[-1].decision
    data, _, _ = load_market_data(ws, last.session)
    frame = pl.concat([_forecasts(ws, session.decision) for session in replayed])
    panel = ForecastPanel.from_frame(frame, chosen.horizon, data.symbols, data.sessions)
    versions = {session.decision.model_version for session in replayed}
    if needs_card(chosen, strategy) and len(versions) > 1:
        problem = f"its threshold lies in the cards of versions {', '.join(sorted(versions))}: compare a range that one decided"
        raise InvalidConfigError(f"Strategy '{strategy}'", [problem])
    version = int(first.model_version)
    built = build_strategy(ws, chosen, strategy, lambda: ws.registry().version(ws.market.id, version))
    start, end = first.decision_session, last.session
    return engine.run(
        data,
        panel,
        built,
        name=strategy,
        start=start,
        end=end,
        capital=chosen.capital,
        costs=ws.costs,
        fractional=chosen.fractional,
        min_order_notional=chosen.min_order_notional,
        limits=risk_limits(chosen),
        columns=load_strategy_columns(ws, built, data, start, end),
    )


def _forecasts(ws: Workspace, decision: Decision) -> pl.DataFrame:
    """The rows that a decision was made with, at the version of the table it cites."""
    day = decision.decision_session
    where = Predicate(day, day, {"model_version": decision.model_version})
    return ws.tables.read(FORECASTS.name, where=where, version=decision.forecasts_version)


def _first_difference(replayed: list[_Replayed], result: BacktestResult) -> ParityRow | None:
    """The first session on which fills or equity differ, and by what."""
    for n, session in enumerate(replayed, start=1):
        day = session.decision.session
        if n >= len(result.sessions) or result.sessions[n] != day:
            there = str(result.sessions[n]) if n < len(result.sessions) else "none"
            return ParityRow(day, "the session", str(day), there)
        rows = result.trades.filter(pl.col(SESSION) == day)
        simulated = {(row[SYMBOL], row["side"]): (row["quantity"], row["price"]) for row in rows.iter_rows(named=True)}
        traded = {(fill.symbol, fill.side.value): (fill.quantity, fill.price) for fill in session.fills}
        for key in sorted({*simulated, *traded}):
            one, two = traded.get(key), simulated.get(key)
            same = one is not None and two is not None and all(map(_close, one, two))
            if not same:
                return ParityRow(day, f"the {key[1]} of {key[0]}", _words(one), _words(two))
        if not _close(session.equity, float(result.equity[n])):
            return ParityRow(day, "equity", f"{session.equity!r}", f"{float(result.equity[n])!r}")
    return None


def _close(one: float, two: float) -> bool:
    return math.isclose(one, two, rel_tol=TOLERANCE)


def _words(fill: tuple[float, float] | None) -> str:
    return "none" if fill is None else f"{fill[0]!r} shares at {fill[1]!r}"
