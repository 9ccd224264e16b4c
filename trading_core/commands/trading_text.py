"""The lineage of an order and the state of an account, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trading_core.pipelines.account_status import AccountStatus
    from trading_core.pipelines.lineage import BarsLink, DecisionLink, FeaturesLink, ForecastsLink, Lineage, ModelLink
    from trading_core.pipelines.lineage_replay import DecisionCheck, Explained, ForecastCheck

WIDTH = 12  # of the names at the left
COLUMNS = 120


def _line(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}".rstrip()


def _more(text: str) -> str:
    return " " * WIDTH + text


def _wrapped(text: str) -> Iterator[str]:
    for part in wrap(text, COLUMNS - WIDTH, break_long_words=False, break_on_hyphens=False):
        yield _more(part)


def _shares(quantity: float) -> str:
    return f"{quantity:.6f}".rstrip("0").rstrip(".")


def _versions(versions: Mapping[str, int]) -> str:
    return ", ".join(f"{table} {version}" for table, version in versions.items())


# --- an order ---------------------------------------------------------------------------------------------------------


def lineage_lines(made: Explained) -> Iterator[str]:
    """From the order back to the bars; then, where it was asked for, what recomputing it gave."""
    found = made.lineage
    yield from _order(found)
    yield from _risk(found)
    if found.target is not None:
        score = "no forecast" if found.target.score is None else f"score {found.target.score!r}"
        yield _line("target", f"{found.target.weight:.4%} of equity ({found.target.weight!r}), {score}")
    if found.decision is not None:
        yield from _decision(found.decision)
    if found.forecasts is not None:
        yield from _forecasts(found.forecasts)
    if found.model is not None:
        yield from _model(found.model)
    if found.features is not None:
        yield from _features(found.features)
    for bars in found.bars:
        yield from _bars(bars)
    for note in found.notes:
        yield _line("note", note)
    if made.replay is not None:
        yield ""
        yield from _decision_check(made.replay.decision)
        yield from _forecast_check(made.replay.forecasts)


def _order(found: Lineage) -> Iterator[str]:
    order, intent = found.order, found.order.intent
    price = "" if order.average_price is None else f" at {order.average_price:.6g}"
    yield _line("order", intent.client_order_id)
    yield _more(
        f"{intent.side.value} {_shares(intent.quantity)} {intent.symbol} for {intent.session}, account {intent.account}"
    )
    yield _more(f"{order.status.value}: {_shares(order.filled_quantity)} filled{price}{_because(order.reason)}")
    for event in found.history:
        filled = f", {_shares(event.filled_quantity)} filled" if event.filled_quantity else ""
        yield _more(f"{event.at:%Y-%m-%d %H:%M:%S} UTC  {event.status.value}{filled}{_because(event.reason)}")
    for fill in found.fills:
        paid = f"{_shares(fill.quantity)} at {fill.price!r}, commission {fill.commission:.2f}"
        yield _more(f"{fill.filled_at:%Y-%m-%d %H:%M:%S} UTC  fill {fill.fill_id}: {paid}")
    written = f"written {intent.created_at:%Y-%m-%d %H:%M:%S} UTC before it was sent, attempt {intent.attempt}"
    yield _line("intent", f"{written}, close of D {intent.reference_price!r}")
    for record in found.gates:
        asked = f"asked {record.at:%Y-%m-%d %H:%M:%S} UTC"
        passed = [verdict.rule for verdict in record.verdicts if verdict.verdict == "approve"]
        yield from _wrapped(f"pre-trade rules {asked}: {len(passed)} approve ({', '.join(passed)})")
        for verdict in record.verdicts:
            if verdict.verdict != "approve":
                yield _more(f"{verdict.verdict} by {verdict.rule}{_because(verdict.reason)}")


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _risk(found: Lineage) -> Iterator[str]:
    for verdict in found.risk:
        by = f" by {verdict.rule}" if verdict.rule else ""
        quantities = f"{_shares(verdict.allowed)} of {_shares(verdict.planned)} shares planned"
        yield _line("risk", f"{verdict.verdict}{by}: {verdict.side.value} {quantities}{_because(verdict.reason)}")


def _decision(link: DecisionLink) -> Iterator[str]:
    made = f"{link.decided_at:%Y-%m-%d %H:%M:%S} UTC by {link.strategy}"
    yield _line(
        "decision", f"{link.decision_id}, {made}, from what was known at the close of {link.decision_session} (D)"
    )
    yield _more(f"equity {link.equity:,.2f}, cash {link.cash:,.2f}, {link.orders} orders; code {link.code_version}")
    yield _more(f"config {link.config_hash}, with costs {link.strategy_hash}")
    read = {"bars": link.bars_version, "corporate_actions": link.actions_version, "quarantine": link.quarantine_version}
    known = _versions({table: version for table, version in read.items() if version >= 0})
    columns = f"; features {link.columns_version} read by the strategy" if link.columns_version else ""
    yield _more(f"tables: forecasts {link.forecasts_version}{', ' if known else ''}{known}{columns}")
    yield _more(f"sha256 {link.digest}")


def _forecasts(link: ForecastsLink) -> Iterator[str]:
    same = "NOT those it was frozen with" if link.changed else "as frozen" if link.frozen_digest else "none was frozen"
    yield _line("forecast", f"table version {link.table_version}, {link.rows} rows of D")
    yield _more(f"sha256 {link.digest} ({same})")
    if link.changed:
        yield _more(f"frozen {link.frozen_digest}")
    for row in link.symbol:
        place = f"rank {row.rank} of {row.of}"
        yield _more(f"over {row.horizon}: score {row.score!r}, {place}; median {row.median!r}, p_up {row.p_up:.4f}")
        yield _more(f"sha256 {row.digest}")


def _model(link: ModelLink) -> Iterator[str]:
    aliases = f" ({', '.join(link.aliases)})" if link.aliases else ""
    learned = f"learned {link.train_start} to {link.train_end}, cut-off {link.cutoff}, seed {link.seed}"
    yield _line("model", f"{link.model} version {link.version}{aliases}, {learned}")
    yield _more(f"manifest sha256 {link.digest}")
    if link.digest != link.cited_digest:
        yield _more(f"the decision cites ANOTHER bundle: {link.cited_digest}")
    yield _more(f"config {link.config_hash}, code {link.code_version}")
    yield from _wrapped(f"tables: {_versions(link.data_versions)}")


def _features(link: FeaturesLink) -> Iterator[str]:
    yield _line("features", f"{link.features_version}, {link.count} values of D, {link.missing} missing")
    yield _more(f"sha256 {link.digest}")
    yield from _wrapped(f"tables: {_versions(link.tables)}")


def _bars(link: BarsLink) -> Iterator[str]:
    yield _line("bars", f"table version {link.table_version}, read by the {' and by the '.join(link.read_by)}")
    if link.bar is None:
        yield _more("no bar of D")
    else:
        bar = link.bar
        yield _more(f"D: open {bar.open}, high {bar.high}, low {bar.low}, close {bar.close}, volume {bar.volume}")
        yield _more(f"sha256 {link.bar_digest}")
    yield _more(f"{link.rows} bars from {link.first} to D: sha256 {link.digest}")


def _decision_check(check: DecisionCheck) -> Iterator[str]:
    if check.problem:
        yield _line("replay", f"the decision: {check.problem}")
    elif check.identical:
        yield _line("replay", "the decision is bit-identical: targets, orders, rejections and risk decisions")
    elif check.difference is not None:
        yield _line("replay", f"the decision DIFFERS, first in {check.difference.what}")
        yield _more(f"frozen:     {check.difference.frozen}")
        yield _more(f"recomputed: {check.difference.recomputed}")
        if not check.changed:
            yield _more("nothing that is recorded has changed since")
    for text in check.changed:
        yield _more(f"{'changed since' if check.identical else 'may be why'}: {text}")


def _forecast_check(check: ForecastCheck) -> Iterator[str]:
    if check.absolute is None:
        yield _line("", f"the forecasts: {check.problem}")
        return
    verdict = "agree to 1e-6" if check.agrees else "DIFFER by more than 1e-6, or in their rows"
    worst = max(check.columns, key=lambda column: column.absolute)
    yield _line("", f"the forecasts {verdict}: {check.rows} rows recomputed with the stored model")
    where = f" ({worst.column} of {worst.symbol})" if worst.absolute > 0 else ""
    yield _more(f"largest difference {check.absolute:.3g}{where}, largest relative one {check.relative:.3g}")
    if check.problem:
        yield _more(check.problem)


# --- an account -------------------------------------------------------------------------------------------------------


def account_lines(row: AccountStatus) -> Iterator[str]:
    """One account: what matters most comes first."""
    yield f"{row.account} ({row.kind}): {row.strategy} on {row.market}"
    for halt in row.halts:
        yield _line("HALTED", f"{halt.scope}: {halt.reason} (by {halt.by}, {halt.at:%Y-%m-%d %H:%M} UTC)")
    session = "none yet" if row.session is None else f"{row.session}, {row.status}"
    waiting = f", open orders: {len(row.orders)}" if row.orders else ""
    unknown = f", of them UNKNOWN: {row.unknown}" if row.unknown else ""
    yield _line("session", f"{session}{waiting}{unknown}")
    for order in row.orders:
        text = f"{order.status.value}: {order.side} {_shares(order.quantity)} {order.symbol}, {_shares(order.filled)} filled"
        yield _more(f"{text}{_because(order.reason)}, {order.client_order_id}")
    if row.adopted is not None:
        yield _line("cash", f"{row.cash:,.2f}, adopted from the broker {row.adopted:%Y-%m-%d %H:%M} UTC")
    elif row.settled is not None and row.cash is not None:
        equity = "a position has no price" if row.equity is None else f"{row.equity:,.2f}"
        yield _line("equity", f"{equity}, cash {row.cash:,.2f}, at the end of {row.settled}")
    if row.lease is not None:
        ended = ", a process that has ended" if row.lease.dead else ""
        yield _line("lease", f"{row.lease.holder} until {row.lease.until:%Y-%m-%d %H:%M:%S} UTC{ended}")
    for event in row.events:
        yield _line(event.level.value, f"{event.at:%Y-%m-%d %H:%M} UTC {event.kind}: {event.message}")
