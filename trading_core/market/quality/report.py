"""The frames that a gate hands over: findings, quarantined rows, and the report of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from trading_core.market.quality.rules import Severity
from trading_core.schema import MONTH, QUARANTINE, SESSION, SYMBOL

FINDINGS: dict[str, pl.DataType | type[pl.DataType]] = {
    "check": pl.String,
    "severity": pl.String,
    SYMBOL: pl.String,  # null: a finding about the whole session
    SESSION: pl.Date,
    "detail": pl.String,
}
# Without the month, which storage derives.
QUARANTINE_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    name: dtype for name, dtype in QUARANTINE.columns.items() if name != MONTH
}


@dataclass(frozen=True, slots=True)
class QualityReport:
    """`clean`: bars that may be stored, columns as BAR_SCHEMA, sorted by symbol and ts.

    `quarantined`: columns as QUARANTINE_SCHEMA, one row per bar and check. A suspect that was cleared is there *and* in
    `clean`: from its `known_at` until the session before its `released_at` it was held out, and a reader of those days
    leaves it out. `findings`: columns as FINDINGS, sorted by severity, check, session and symbol. `severities`: of every
    check, as the gate ran it.

    With a blocking finding `clean` still holds the blocked rows: such bars must not be stored at all.
    """

    clean: pl.DataFrame
    quarantined: pl.DataFrame
    findings: pl.DataFrame
    severities: Mapping[str, Severity]

    @property
    def blocks(self) -> tuple[str, ...]:
        """One sentence per check that shuts the gate; empty when the bars may be stored."""
        blocking = self.findings.filter(pl.col("severity") == "block")
        groups = blocking.group_by("check", maintain_order=True).agg(
            pl.len(), pl.col(SYMBOL, SESSION, "detail").first()
        )
        return tuple(
            f"{check}: {count} finding(s), first {symbol or 'all symbols'} on {session} ({detail})"
            for check, count, symbol, session, detail in groups.iter_rows()
        )

    def summary(self) -> pl.DataFrame:
        """Columns check, severity, count: one row per check, those that found nothing with 0."""
        counts = self.findings.group_by("check").agg(pl.len().cast(pl.Int64).alias("count"))
        names = pl.DataFrame(
            {"check": list(self.severities), "severity": list(self.severities.values())},
            schema={"check": pl.String, "severity": pl.String},
        )
        return names.join(counts, on="check", how="left", maintain_order="left").with_columns(
            pl.col("count").fill_null(0)
        )
