"""Expected beside realised: the forecasts of an account's decision before, and the returns since, as known at the session."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from trading_core.execution.records import Decision, SessionSummary
from trading_core.market.adjust import adjusted
from trading_core.metrics.execution_quality import forecast_outcome, log_returns
from trading_core.pipelines.quality import suspected_actions
from trading_core.pipelines.session_sources import Sources, ranks
from trading_core.plots.session_data import OutcomeFacts, OutcomeRow
from trading_core.schema import INTERVAL_COLUMNS, SESSION, SYMBOL, FloatArray


@dataclass(frozen=True, slots=True)
class _Span:
    """What returns reach over: from the open of `start` to the `column` of `end`; `complete`: the whole horizon."""

    start: date
    end: date
    column: str
    complete: bool

    @property
    def words(self) -> str:
        what = "open" if self.column == "open" else "close"
        return f"from the open of {self.start} to the {what} of {self.end}"


def outcome_facts(found: Sources) -> tuple[OutcomeFacts | None, str]:
    """The facts, or None and why there are none."""
    before, decision = found.before, found.decision_before
    if before is None:
        return None, "This is the account's first session: there is no decision before it."
    if decision is None or found.forecasts_before.is_empty():
        return None, f"The session before, {before.record.session}, was not decided by forecasts."
    span = _span(found, decision)
    if span is None:
        return None, f"The bars of {decision.session}, from whose open the forecasts count, are not there yet."
    frame = found.forecasts_before
    realised, suspects = _realised(found, frame[SYMBOL].to_list(), span)
    weights = _weights_after(found, before.summary)
    score, median, low, high = (_column(frame, name) for name in ("score", "q50", *INTERVAL_COLUMNS))
    held = np.array([weights.get(symbol, 0.0) for symbol in frame[SYMBOL].to_list()])
    judged = forecast_outcome(score, median, low, high, realised, held)
    place = ranks(frame)
    rows = [
        OutcomeRow(symbol, float(w), float(s), place.get(symbol), float(q), float(lo), float(hi), float(r))
        for symbol, w, s, q, lo, hi, r in zip(
            frame[SYMBOL].to_list(), held, score, median, low, high, realised, strict=True
        )
    ]
    rows.sort(key=lambda row: (row.rank is None, row.rank or 0, row.symbol))
    facts = OutcomeFacts(
        session=decision.session,
        decision_session=decision.decision_session,
        model_version=decision.model_version,
        horizon=found.horizon,
        span=span.words,
        complete=span.complete,
        rows=tuple(rows),
        rank_ic=judged.rank_ic,
        pairs=judged.pairs,
        right_direction=judged.right_direction,
        covered=judged.covered,
        held=judged.held,
        hit_rate=judged.hit_rate,
        mean_held=judged.mean_held,
        mean_all=judged.mean_all,
        note=_note(suspects, weights, frame),
    )
    return facts, ""


def _span(found: Sources, decision: Decision) -> _Span | None:
    """The longest part of the horizon that the session's bars reach; None before the first of them."""
    sessions = found.market.sessions
    if decision.session not in sessions:
        return None
    end = found.ws.sessions.offset(decision.session, found.horizon)
    if end <= sessions[-1]:
        return _Span(decision.session, end, "open", True)
    return _Span(decision.session, sessions[-1], "close", False)


def _realised(found: Sources, symbols: list[str], span: _Span) -> tuple[FloatArray, list[str]]:
    """[N] log returns, splits and dividends included, NaN where a price is missing or a level is suspected to have changed;
    and the symbols of which that is suspected."""
    first = found.ws.sessions.previous(span.start)  # an event of the first session needs the close before it
    window = found.bars.filter(pl.col(SESSION).is_between(first, span.end))
    known = adjusted(window, found.actions)
    start = dict(known.filter(pl.col(SESSION) == span.start).select(SYMBOL, "open").iter_rows())
    end = dict(known.filter(pl.col(SESSION) == span.end).select(SYMBOL, span.column).iter_rows())
    broken = suspected_actions(found.ws, {}, span.end).filter(
        (pl.col(SESSION) > span.start) & (pl.col(SESSION) <= span.end)
    )
    suspects = sorted(set(broken[SYMBOL].to_list()) & set(symbols))
    prices = [np.array([_price(side, symbol) for symbol in symbols]) for side in (start, end)]
    returns = log_returns(prices[0], prices[1])
    returns[[symbol in suspects for symbol in symbols]] = np.nan
    return returns, suspects


def _price(prices: dict[str, float | None], symbol: str) -> float:
    value = prices.get(symbol)
    return math.nan if value is None else float(value)


def _column(frame: pl.DataFrame, name: str) -> FloatArray:
    return frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64)


def _weights_after(found: Sources, summary: SessionSummary | None) -> dict[str, float]:
    """The weights that the session before ended with, at its close."""
    if summary is None or found.before is None:
        return {}
    marks = found.marks(found.before.record.session)
    values = {p.symbol: p.quantity * marks.get(p.symbol, math.nan) for p in summary.positions}
    equity = summary.equity if summary.equity is not None else math.nan
    return {symbol: value / equity if equity > 0 else math.nan for symbol, value in values.items()}


def _note(suspects: list[str], weights: dict[str, float], frame: pl.DataFrame) -> str:
    said = []
    if suspects:
        said.append(f"Left out, because a split or a distribution may be missing: {', '.join(suspects)}.")
    unforecast = sorted(set(weights) - set(frame[SYMBOL].to_list()))
    if unforecast:
        said.append(f"Held without a forecast: {', '.join(unforecast)}.")
    return " ".join(said)
