"""What was read of a session, as the rows of its page: targets with their reasons, orders, costs, positions, cash."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import polars as pl

from trading_core.execution.records import DecidedOrder, Decision, OrderRecord, Target
from trading_core.metrics.execution_quality import shortfall, slippage
from trading_core.pipelines.session_sources import Sources, ranks
from trading_core.plots.session_data import (
    AccountFacts,
    DecisionFacts,
    FillRow,
    MoneyRow,
    OrderRow,
    PositionRow,
    RefusalRow,
    StateRow,
    TargetRow,
    Totals,
)
from trading_core.schema import SYMBOL, Fill, FloatArray, Position, Side

FLATTEN = "flatten"  # the model of a decision by which a person closes an account, see pipelines.controls
NOT_SENT = "not sent"
CENT = 0.005


# --- the decision -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Ranks by symbol at this decision and the one before; `lowest`: the worst rank that still has a weight."""

    now: Mapping[str, int]
    before: Mapping[str, int]
    lowest: int | None

    def words(self, symbol: str) -> str:
        if symbol not in self.now:
            return "has no score"
        was = f" ({self.before[symbol]} before)" if symbol in self.before else ""
        return f"ranks {self.now[symbol]} of {len(self.now)} by score{was}"


def decision_facts(found: Sources) -> DecisionFacts | None:
    """The decision with its reasons; None before there is one."""
    decision = found.decision
    if decision is None:
        return None
    now = ranks(found.forecasts)
    wanted = [now[t.symbol] for t in decision.targets if t.weight != 0.0 and t.symbol in now]
    ranking = _Ranking(now, ranks(found.forecasts_before), max(wanted, default=None))
    median = dict(found.forecasts.select(SYMBOL, "q50").iter_rows())
    equity, values = _equity_at_decision(found, decision), _values_at_decision(found)
    rows = []
    for target in decision.targets:
        weight = values.get(target.symbol, 0.0) / equity if equity > 0 else math.nan
        rows.append(_target_row(decision, target, weight, median.get(target.symbol), ranking))
    rows.sort(key=lambda row: (row.rank is None, row.rank or 0, row.symbol))
    return DecisionFacts(
        horizon=found.horizon,
        ranked=len(now),
        equity=equity,
        cash=decision.cash,
        targets=tuple(rows),
        held_without_forecast=decision.held_without_forecast,
        refusals=_refusals(found, decision),
        approval=_approval(found),
        note="A person closed the account: this is no decision of the strategy." if decision.model == FLATTEN else "",
    )


def _values_at_decision(found: Sources) -> dict[str, float]:
    """What each position was worth at D's close; NaN where no price is known."""
    marks = found.marks(found.record.decision_session)
    return {symbol: shares * marks.get(symbol, math.nan) for symbol, shares in found.held_at_decision().items()}


def _equity_at_decision(found: Sources, decision: Decision) -> float:
    """A flatten records the cash alone."""
    if decision.model != FLATTEN:
        return decision.equity
    return decision.cash + math.fsum(_values_at_decision(found).values())


def _approval(found: Sources) -> str:
    said = found.approval
    if said is None:
        return ""
    verdict = "approved" if said.approved else "refused"
    return (
        f"{said.by} {verdict} the decision at {said.at:%Y-%m-%d %H:%M:%S} UTC{f': {said.note}' if said.note else '.'}"
    )


def _target_row(
    decision: Decision, target: Target, weight: float, median: float | None, ranking: _Ranking
) -> TargetRow:
    order = next((o for o in decision.orders if o.symbol == target.symbol), None)
    return TargetRow(
        symbol=target.symbol,
        score=_real(target.score),
        rank=ranking.now.get(target.symbol),
        rank_before=ranking.before.get(target.symbol),
        forecast=_real(median),
        weight_before=weight,
        weight=target.weight,
        order=f"{order.side.value} {order.quantity:,.6g}" if order else "",
        why=_why(decision, target, order, weight, ranking),
    )


def _why(decision: Decision, target: Target, order: DecidedOrder | None, weight: float, ranking: _Ranking) -> str:
    """Why a symbol has the target it has, in words that hold for every strategy."""
    if decision.model == FLATTEN:
        return "a person closed the account"
    if target.symbol in decision.held_without_forecast:
        return "held: there is no forecast of it"
    rules = sorted({r.rule for r in decision.rejected if r.symbol == target.symbol})
    cut = f"; cut by {', '.join(rules)}" if rules else ""
    words = ranking.words(target.symbol)
    if target.weight == 0.0:
        last = f"; the last that is wanted ranks {ranking.lowest}" if ranking.lowest is not None else ""
        kept = "" if order or rules else "; too little to be traded"
        return f"not wanted any more: {words}{last}{cut}{kept}"
    if weight == 0.0:
        return f"new: {words}{cut}"
    if order is None:
        return f"kept as it is: {words}{cut}"
    grows = (order.side is Side.BUY) == (target.weight > 0.0)
    return f"kept and {'enlarged' if grows else 'reduced'}: {words}{cut}"


def _refusals(found: Sources, decision: Decision) -> tuple[RefusalRow, ...]:
    """Of the risk rules at the decision, and of the pre-trade rules at sending."""
    rows = [
        RefusalRow(r.symbol, r.side.value, r.quantity, r.rule, r.reason, "when it was decided")
        for r in decision.rejected
    ]
    intents = {record.intent.client_order_id: record.intent for record in found.orders.records}
    for gate in found.orders.gates:
        intent = intents.get(gate.client_order_id)
        side, quantity = (intent.side.value, intent.quantity) if intent else ("", math.nan)
        rows += [
            RefusalRow(gate.symbol, side, quantity, verdict.rule, verdict.reason, "when it was to be sent")
            for verdict in gate.verdicts
            if verdict.verdict != "approve"
        ]
    return tuple(rows)


# --- orders and costs -------------------------------------------------------------------------------------------------


def order_rows(found: Sources) -> tuple[OrderRow, ...]:
    """Every order with its state, sells first; decided ones that were never sent too. All in T's shares."""
    decided = found.decision.orders if found.decision else ()
    sent = {(record.intent.symbol, record.intent.side) for record in found.orders.records}
    fills: dict[str, list[Fill]] = {}
    for fill in found.orders.fills:
        fills.setdefault(fill.client_order_id, []).append(fill)
    rows = [_order_row(found, record, fills.get(record.intent.client_order_id, [])) for record in found.orders.records]
    rows += [_unsent(found, order) for order in decided if (order.symbol, order.side) not in sent]
    rows.sort(key=lambda row: (row.side != Side.SELL.value, row.symbol, row.attempt))
    return _with_costs(found, rows)


def _order_row(found: Sources, record: OrderRecord, fills: Sequence[Fill]) -> OrderRow:
    intent, ratio = record.intent, found.split_ratio(record.intent.symbol)
    filled = math.fsum(fill.quantity for fill in fills) if fills else record.filled_quantity
    paid = math.fsum(fill.quantity * fill.price for fill in fills) / filled if fills else _real(record.average_price)
    split = f"Ordered {intent.quantity:,.6g} before a split of {ratio:g} for 1." if ratio != 1.0 else ""
    label = f"Ordered by {intent.strategy}." if found.decision and intent.strategy != found.decision.strategy else ""
    return OrderRow(
        symbol=intent.symbol,
        side=intent.side.value,
        quantity=intent.quantity * ratio,
        status=record.status.value,
        filled=filled,
        price=paid,
        reason=record.reason,
        client_order_id=intent.client_order_id,
        attempt=intent.attempt,
        history=tuple(
            StateRow(event.status.value, event.at, event.filled_quantity, event.reason)
            for event in found.orders.history.get(intent.client_order_id, ())
        ),
        decision_price=intent.reference_price / ratio,
        commission=math.fsum(fill.commission for fill in fills),
        note=" ".join(text for text in (split, label) if text),
    )


def _unsent(found: Sources, order: DecidedOrder) -> OrderRow:
    ratio = found.split_ratio(order.symbol)
    return OrderRow(
        symbol=order.symbol,
        side=order.side.value,
        quantity=order.quantity * ratio,
        status=NOT_SENT,
        filled=0.0,
        price=math.nan,
        reason="",
        client_order_id="",
        attempt=1,
        history=(),
        decision_price=order.reference_price / ratio,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """Orders as the arrays of `metrics.execution_quality`, [N]."""

    side: FloatArray
    filled: FloatArray
    price: FloatArray
    decision: FloatArray
    opened: FloatArray
    commission: FloatArray


def _columns(rows: Sequence[OrderRow]) -> _Columns:
    return _Columns(
        np.array([1.0 if row.side == Side.BUY.value else -1.0 for row in rows]),
        np.array([row.filled for row in rows], dtype=np.float64),
        np.array([row.price for row in rows], dtype=np.float64),
        np.array([row.decision_price for row in rows], dtype=np.float64),
        np.array([row.open_price for row in rows], dtype=np.float64),
        np.array([row.commission for row in rows], dtype=np.float64),
    )


def _with_costs(found: Sources, rows: Sequence[OrderRow]) -> tuple[OrderRow, ...]:
    opens = found.opens()
    priced = [replace(row, open_price=opens.get(row.symbol, math.nan)) for row in rows]
    c = _columns(priced)
    decided, opened = (slippage(c.side, c.filled, c.price, reference) for reference in (c.decision, c.opened))
    return tuple(
        replace(
            row,
            decision_bps=float(decided.bps[i]),
            decision_cash=float(decided.cash[i]),
            open_bps=float(opened.bps[i]),
            open_cash=float(opened.cash[i]),
        )
        for i, row in enumerate(priced)
    )


def totals(rows: Sequence[OrderRow]) -> Totals | None:
    """All orders together; None when nothing was executed."""
    if not any(row.filled > 0 for row in rows):
        return None
    c = _columns(rows)
    decided, opened = (slippage(c.side, c.filled, c.price, reference) for reference in (c.decision, c.opened))
    parts = shortfall(c.side, c.filled, c.price, c.decision, c.opened, c.commission)
    return Totals(decided.total_bps, decided.total_cash, opened.total_bps, opened.total_cash, parts)


def fill_rows(found: Sources) -> tuple[FillRow, ...]:
    """The fills as they stand, sells first, with what a broker corrected."""
    corrected = {correction.fill.fill_id: correction.number for correction in found.orders.corrections}
    fills = sorted(found.orders.fills, key=lambda f: (f.side is not Side.SELL, f.symbol, f.filled_at, f.fill_id))
    return tuple(
        FillRow(
            fill.symbol, fill.side.value, fill.quantity, fill.price, fill.commission, fill.filled_at,
            f"corrected {corrected[fill.fill_id]} times" if fill.fill_id in corrected else "",
        )
        for fill in fills
    )  # fmt: skip


# --- the account ------------------------------------------------------------------------------------------------------


def account_facts(found: Sources, orders: Sequence[OrderRow]) -> AccountFacts:
    """What the account holds: at T's close when it is settled, else at D's."""
    decision, summary = found.decision, found.state.summary
    past = found.before.summary if found.before is not None else None
    decided = _equity_at_decision(found, decision) if decision else math.nan
    start_equity = past.equity if past is not None else decided
    if summary is not None:
        day, equity, cash, positions = found.record.session, _real(summary.equity), summary.cash, summary.positions
    else:
        day, positions = found.record.decision_session, _positions_before(found)
        equity, cash = (decided, decision.cash) if decision else _last_known(found)
    traded = math.fsum(row.filled * row.price for row in orders if row.filled > 0)
    before = found.before.record.session if past is not None and found.before is not None else None
    return AccountFacts(
        as_of=f"the close of {day}{'' if summary is not None else ', before this session traded'}",
        equity=equity,
        cash=cash,
        equity_before=_real(start_equity),
        before=(before or found.record.decision_session) if summary is not None else None,
        positions=_position_rows(found, positions, equity, day),
        money=_money(found) if summary is not None else (),
        curve=found.curve,
        turnover=traded / decided if decided > 0 else math.nan,
    )


def _last_known(found: Sources) -> tuple[float, float]:
    """Equity and cash before anything is decided: those of the session before."""
    past = found.before.summary if found.before is not None else None
    return (_real(past.equity), past.cash) if past is not None else (math.nan, math.nan)


def _positions_before(found: Sources) -> tuple[Position, ...]:
    """What is held at D's close, at what was paid per share of then; a split since leaves that unknown here."""
    past = found.before.summary if found.before is not None else None
    paid = {p.symbol: p for p in past.positions} if past is not None else {}
    return tuple(
        Position(symbol, quantity, paid[symbol].average_price * paid[symbol].quantity / quantity)
        if symbol in paid
        else Position(symbol, quantity, math.nan)
        for symbol, quantity in sorted(found.held_at_decision().items())
    )


def _position_rows(found: Sources, positions: Sequence[Position], equity: float, day: date) -> tuple[PositionRow, ...]:
    marks, priced_on = found.marks(day), _priced_on(found, day)
    rows = []
    for position in positions:
        price = marks.get(position.symbol, math.nan)
        value = position.quantity * price
        known = priced_on.get(position.symbol)
        rows.append(
            PositionRow(
                symbol=position.symbol,
                quantity=position.quantity,
                average_price=position.average_price,
                price=price,
                priced_on=known if known != day else None,
                value=value,
                weight=value / equity if equity > 0 else math.nan,
                profit=position.quantity * (price - position.average_price),
            )
        )
    return tuple(sorted(rows, key=lambda row: (-abs(row.value) if row.value == row.value else 0.0, row.symbol)))


def _priced_on(found: Sources, day: date) -> dict[str, date]:
    """The session of each symbol's last close up to `day`."""
    known = found.bars.filter((pl.col("session") <= day) & pl.col("close").is_finite())
    return dict(known.group_by(SYMBOL).agg(pl.col("session").max()).iter_rows())


def _money(found: Sources) -> tuple[MoneyRow, ...]:
    """From the cash of the session before to the cash now; what no record names is a line of its own."""
    summary, decision = found.state.summary, found.decision
    past = found.before.summary if found.before is not None else None
    start = past.cash if past is not None else decision.cash if decision else None
    if summary is None or start is None:
        return ()
    amount = {side: math.fsum(f.quantity * f.price for f in found.orders.fills if f.side is side) for side in Side}
    lines = [
        ("Sold", amount[Side.SELL]),
        ("Bought", -amount[Side.BUY]),
        ("Commission", -math.fsum(fill.commission for fill in found.orders.fills)),
        *((f"{flow.kind.value.capitalize()} {flow.symbol}".strip(), flow.amount) for flow in found.orders.flows),
    ]
    rest = summary.cash - math.fsum([start, *(value for _, value in lines)])
    lines.append(("Dividends, interest and fees that no record names", rest if abs(rest) >= CENT else 0.0))
    moved = [MoneyRow(name, value) for name, value in lines if value != 0.0]
    before = found.before.record.session if past is not None and found.before is not None else None
    first = f"Cash after {before}" if before else "Cash before"
    return (MoneyRow(first, start), *moved, MoneyRow(f"Cash after {found.record.session}", summary.cash))


def _real(value: float | None) -> float:
    return math.nan if value is None else float(value)
