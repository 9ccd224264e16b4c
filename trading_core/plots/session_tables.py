"""The tables of a session's page: what was decided, ordered and paid, and what came of the decision before."""

from __future__ import annotations

from collections.abc import Sequence

from trading_core.plots import page, session_drawings, sortable
from trading_core.plots import session_format as f
from trading_core.plots.session_data import (
    DecisionFacts,
    FillRow,
    OrderRow,
    OutcomeFacts,
    OutcomeRow,
    RefusalRow,
    SessionPage,
    StateRow,
    TargetRow,
    Totals,
)
from trading_core.plots.sortable import Column, Row

_TARGETS = (
    Column("Score", "what the strategy's forecasts rank by; higher is better"),
    Column("Rank", "by score among all symbols with one, 1 is the best"),
    Column("Rank before", "the same at the decision of the session before"),
    Column("Forecast", "median of the return over the horizon, log"),
    Column("Weight before", "share of equity held at the decision's close, at its prices"),
    Column("Target", "share of equity wanted"),
    Column("Order", "what was decided to be traded, shares"),
    Column("Why"),
)
_ORDERS = (
    Column("Side"),
    Column("Ordered", "shares"),
    Column("Filled", "shares"),
    Column("Status", "the last state the ledger knows"),
    Column("Order id", "the first 12 characters of the client order id; `trading explain` takes them"),
    Column("History", "each state with the time the ledger learned of it, UTC"),
)
_EXECUTIONS = (
    Column("Side"),
    Column("Filled", "shares"),
    Column("Price", "average, before commission"),
    Column("Close of D", "the price it was decided at, in today's shares", "Against the decision"),
    Column("bps", "cost against the close of D, basis points of it", "Against the decision"),
    Column("Money", "the same in money", "Against the decision"),
    Column("Open", "official opening price", "Against the open"),
    Column("bps", "cost against the open: spread, slippage and impact", "Against the open"),
    Column("Money", "the same in money", "Against the open"),
    Column("Commission", "paid on top"),
)
_OUTCOMES = (
    Column("Held", "share of equity after that session; 0: not held"),
    Column("Rank", "by score, 1 is the best"),
    Column("Score"),
    Column("Forecast", "median of the return over the horizon, log"),
    Column("Low", "lower end of the 90 % interval"),
    Column("High", "upper end of the 90 % interval"),
    Column("Return", "log, splits and dividends included"),
    Column("Difference", "return less forecast"),
)


def decision_section(shown: SessionPage) -> str:
    """What is wanted, what has left the list, and what rules refused."""
    decision = shown.decision
    if decision is None:
        return page.section("Decision", "<p>Nothing has been decided yet.</p>", anchor="decision")
    parts = [_approval(decision), _targets(decision), _left(decision.left), _held(decision), _refusals(decision)]
    lead = (
        f"Decided on what was known at the close of {shown.head.decision_session}, with {f.money(decision.equity)} of "
        f"equity, {f.money(decision.cash)} of it in cash."
    )
    if decision.ranked:
        over = f.counted(decision.horizon, "session")
        lead += f" {f.counted(decision.ranked, 'symbol')} had a score; forecasts are over {over}."
    return page.section("What was decided, and why", "".join(parts), page.escape(lead), "decision")


def _approval(decision: DecisionFacts) -> str:
    return "".join(f"<p>{page.escape(text)}</p>" for text in (decision.note, decision.approval) if text)


def _targets(decision: DecisionFacts) -> str:
    wanted = [row for row in decision.targets if row.weight != 0.0]
    if not wanted:
        return "<p><b>The decision is to hold nothing.</b> No symbol has a target above or below zero.</p>"
    rows = [Row(page.escape(row.symbol), _target_cells(row)) for row in wanted[: f.LISTED]]
    table = sortable.table("Targets", Column("Symbol"), _TARGETS, rows)
    return f'<div class="words">{table}</div>{f.more(len(wanted))}'


def _target_cells(row: TargetRow) -> list[str]:
    return [
        page.number(row.score, 4),
        f.whole(row.rank),
        f.whole(row.rank_before),
        f.gain_percent(row.forecast),
        page.percent(row.weight_before, 2),
        page.percent(row.weight, 2),
        page.escape(row.order) or f.DASH,
        page.escape(row.why),
    ]


def _left(left: Sequence[TargetRow]) -> str:
    if not left:
        return ""
    heads = [(name, "") for name in ("", "Weight before", "Rank", "Rank before", "Order", "")]
    rows = "".join(
        f'<tr><th scope="row">{page.escape(row.symbol)}</th><td>{page.percent(row.weight_before, 2)}</td>'
        f"<td>{f.whole(row.rank)}</td><td>{f.whole(row.rank_before)}</td><td>{page.escape(row.order) or f.DASH}</td>"
        f'<td class="note">{page.escape(row.why)}</td></tr>'
        for row in left[: f.LISTED]
    )
    return f"<h3>Left the list</h3>{page.table(heads, rows)}{f.more(len(left))}"


def _held(decision: DecisionFacts) -> str:
    held = decision.held_without_forecast
    if not held:
        return ""
    said = f"Held because there is no forecast of them, neither bought nor sold: {f.listed(held)}."
    return f"<h3>Held without a forecast</h3><p>{page.escape(said)}</p>"


def _refusals(decision: DecisionFacts) -> str:
    if not decision.refusals:
        return '<p class="gaps">No risk rule refused or reduced an order.</p>' if decision.targets else ""
    heads = [(name, "") for name in ("", "Side", "Refused shares", "Rule", "Stage", "")]
    rows = "".join(_refusal(row) for row in decision.refusals[: f.LISTED])
    cut = f.more(len(decision.refusals))
    return f"<h3>Refused or reduced by risk rules</h3>{page.table(heads, rows)}{cut}"


def _refusal(row: RefusalRow) -> str:
    return (
        f'<tr><th scope="row">{page.escape(row.symbol)}</th><td>{page.escape(row.side)}</td><td>{f.shares(row.quantity)}</td>'
        f"<td>{page.escape(row.rule)}</td><td>{page.escape(row.stage)}</td>"
        f'<td class="note">{page.escape(row.reason)}</td></tr>'
    )


def orders_section(shown: SessionPage) -> str:
    """Every order with its history, and every fill below."""
    if not shown.orders:
        return page.section("Orders", "<p>No order was decided.</p>", anchor="orders")
    rows = [Row(page.escape(row.symbol), _order_cells(row), _kind(row)) for row in shown.orders[: f.LISTED]]
    table = sortable.table("Orders", Column("Symbol"), _ORDERS, rows)
    fills = f.folded(f.counted(len(shown.fills), "fill"), _fills(shown.fills)) if shown.fills else ""
    return page.section(
        "Orders", f'<div class="words">{table}</div>{f.more(len(shown.orders))}{fills}', anchor="orders"
    )


def _kind(row: OrderRow) -> str:
    return "alert" if row.status in ("unknown", "rejected") else ""


def _order_cells(row: OrderRow) -> list[str]:
    attempt = f' <span class="of">attempt {row.attempt}</span>' if row.attempt > 1 else ""
    short = f"<code>{page.escape(row.client_order_id[:12])}</code>" if row.client_order_id else f.DASH
    said = " ".join(page.escape(text) for text in (_reason(row), row.note) if text)
    return [
        page.escape(row.side),
        f.shares(row.quantity),
        f.shares(row.filled),
        page.escape(row.status.replace("_", " ")) + attempt,
        short,
        f"{history(row.history)}{f'<br><span class=dim>{said}</span>' if said else ''}",
    ]


def _reason(row: OrderRow) -> str:
    """The reason of its state, unless the history has said it."""
    return f"{row.reason}." if row.reason and not any(state.reason == row.reason for state in row.history) else ""


def history(states: Sequence[StateRow]) -> str:
    """The states as HTML, each with its time; the date where it changes."""
    said, day = [], ""
    for state in states:
        date, time = f"{state.at:%m-%d}", f"{state.at:%H:%M:%S}"
        stamp, day = (time if date == day else f"{date} {time}"), date
        text = state.status.replace("_", " ")
        if state.filled > 0 and state.status != "filled":
            text += f" {f.shares(state.filled)}"
        reason = f" ({state.reason})" if state.reason else ""
        said.append(f'{page.escape(text + reason)} <span class="of when">{stamp}</span>')
    return " → ".join(said) or '<span class="dim">nothing recorded</span>'


def _fills(fills: Sequence[FillRow]) -> str:
    heads = [(name, "") for name in ("", "Side", "Shares", "Price", "Notional", "Commission", "Time, UTC", "")]
    rows = "".join(
        f'<tr><th scope="row">{page.escape(row.symbol)}</th><td>{page.escape(row.side)}</td><td>{f.shares(row.quantity)}</td>'
        f"<td>{f.price(row.price)}</td><td>{f.money(row.quantity * row.price)}</td><td>{f.money(row.commission)}</td>"
        f'<td>{f.moment(row.at)}</td><td class="note">{page.escape(row.note)}</td></tr>'
        for row in fills[: f.LISTED]
    )
    return page.table(heads, rows) + f.more(len(fills))


def costs_section(shown: SessionPage) -> str:
    """Slippage per order and what trading took, split."""
    executed, totals = [row for row in shown.orders if row.filled > 0], shown.totals
    if not executed or totals is None:
        return page.section("Execution and costs", "<p>Nothing was executed.</p>", anchor="costs")
    rows = [Row(page.escape(row.symbol), _execution_cells(row)) for row in executed[: f.LISTED]]
    table = sortable.table("Execution of each order", Column("Symbol"), _EXECUTIONS, rows)
    lead = (
        "Positive is a cost: paid more than the reference, or received less. D is the session the decision was made on."
    )
    content = f.facts(_cost_facts(totals, shown), "What trading took") + table + f.more(len(executed))
    return page.section("Execution and costs", content, page.escape(lead), "costs")


def _cost_facts(totals: Totals, shown: SessionPage) -> list[tuple[str, str]]:
    cost, equity = totals.shortfall, shown.decision.equity if shown.decision else float("nan")

    def said(amount: float) -> str:
        return (
            f"{f.money(amount)} ({page.number(amount / cost.notional * 1e4, 1)}{page.NBSP}bps)"
            if cost.notional
            else f.money(amount)
        )

    unknown = f"{f.counted(cost.unknown, 'order')} without a reference price left out" if cost.unknown else ""
    return [
        ("Traded", f"{f.money(cost.notional)} ({page.percent(cost.notional / equity)} of equity)"),
        ("Commission", said(cost.commission)),
        ("Spread, slippage and impact", said(cost.execution)),
        ("Both: what trading cost", said(cost.costs)),
        ("From the close of D to the open", said(cost.delay)),
        ("All, against a free trade at the decision", said(cost.total)),
        ("Not known", unknown),
    ]


def _execution_cells(row: OrderRow) -> list[str]:
    return [
        page.escape(row.side),
        f.shares(row.filled),
        f.price(row.price),
        *_against(row.decision_price, row.decision_bps, row.decision_cash),
        *_against(row.open_price, row.open_bps, row.open_cash),
        f.money(row.commission),
    ]


def _against(price: float, bps: float, cash: float) -> list[str]:
    """The cells of one reference price: it, and what was paid more or less than it."""
    return [f.price(price), f.bps(bps), f.gain(cash)]


def outcome_section(shown: SessionPage) -> str:
    """The decision before, beside what happened."""
    outcome = shown.outcome
    if outcome is None:
        said = f"<p>{page.escape(shown.outcome_missing)}</p>"
        return page.section("Expected and realised", said, anchor="outcome")
    held = [row for row in outcome.rows if row.held != 0.0]
    table = ""
    if held:
        rows = [_outcome_row(row) for row in held[: f.LISTED]]
        table = sortable.table("Forecasts of what was held", Column("Symbol"), _OUTCOMES, rows) + f.more(len(held))
    others = sum(row.held == 0.0 for row in outcome.rows)
    note = f'<p class="gaps">{page.escape(outcome.note)}</p>' if outcome.note else ""
    parts = [f.facts(_outcome_facts(outcome), "How the forecasts did"), session_drawings.outcome_scatter(outcome.rows)]
    parts += [table or "<p>Nothing was held.</p>", _others(others), note]
    return page.section("Expected and realised", "".join(parts), page.escape(_outcome_lead(outcome)), "outcome")


def _others(count: int) -> str:
    said = f"{f.counted(count, 'symbol')} with a forecast, not held, are in the JSON file beside this page."
    return f'<p class="gaps">{said}</p>' if count else ""


def _outcome_lead(outcome: OutcomeFacts) -> str:
    return (
        f"The decision for {outcome.session}, made on {outcome.decision_session} by model version {outcome.model_version}: "
        f"its forecasts over {f.counted(outcome.horizon, 'session')} beside the returns {outcome.span}. One session says "
        "next to nothing of a model; many do."
    )


def _outcome_facts(outcome: OutcomeFacts) -> list[tuple[str, str]]:
    so_far = "" if outcome.complete else " so far"
    return [
        (f"Rank IC{so_far}", f"{page.number(outcome.rank_ic, 3)} over {outcome.pairs} symbols"),
        (f"Held that earned{so_far}", f"{page.percent(outcome.hit_rate, 0)} of {outcome.held}"),
        (f"Direction right{so_far}", f"{page.percent(outcome.right_direction, 0)} of all forecasts"),
        ("Within the 90 % interval", page.percent(outcome.covered, 0) if outcome.complete else ""),
        (f"Mean of the held{so_far}", f.gain_percent(outcome.mean_held)),
        (f"Mean of all{so_far}", f.gain_percent(outcome.mean_all)),
    ]


def _outcome_row(row: OutcomeRow) -> Row:
    cells = [
        page.percent(row.held, 2),
        f.whole(row.rank),
        page.number(row.score, 4),
        f.gain_percent(row.forecast),
        f.gain_percent(row.low),
        f.gain_percent(row.high),
        f.gain_percent(row.realised),
        f.gain_percent(row.realised - row.forecast),
    ]
    return Row(page.escape(row.symbol), cells)
