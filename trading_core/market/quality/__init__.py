"""The quality gate: what is wrong with bars before they are stored, and when that was known.

`rules`    what can be configured: the severity of each check and the thresholds
`report`   the frames that a gate hands over
`rows`     checks that look at one row, or at which rows are there
`series`   checks that look at a symbol's history: stale closes, dividends that stay away
`jumps`    closes that jump without volume: suspects, held on their day and judged by the next bar
`gate`     the registry of the checks, and `check_bars`, which runs them
"""

from trading_core.market.quality.gate import CHECKS, Check, check_bars
from trading_core.market.quality.jumps import ANSWER_SCHEMA, JUMP_CHECKS, WAITING_CHECKS, Verdict, judge_jumps
from trading_core.market.quality.report import FINDINGS, QUARANTINE_SCHEMA, QualityReport
from trading_core.market.quality.rules import QualityRules, Severity

__all__ = [
    "ANSWER_SCHEMA",
    "CHECKS",
    "FINDINGS",
    "JUMP_CHECKS",
    "QUARANTINE_SCHEMA",
    "WAITING_CHECKS",
    "Check",
    "QualityReport",
    "QualityRules",
    "Severity",
    "Verdict",
    "check_bars",
    "judge_jumps",
]
