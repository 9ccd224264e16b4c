"""Which account, at which broker, a run trades on. Code decides, not configuration.

Only a run for the session that is tradable now, which is no backfill and names no replay, may reach the configured
broker. Every other run is a replay on a paper account of its own, so no backfill and no old key reaches a real broker.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

MAX_ACCOUNT_LENGTH = 96
PAPER = "paper"


class AccountKind(StrEnum):
    LIVE = "live"  # trades the session that comes next
    REPLAY = "replay"  # trades history, on paper
    DRY = "dry"  # as live, but its orders go to paper
    SHADOW = "shadow"  # decides for what the real broker's account holds, records, and sends nothing

    @property
    def sends(self) -> bool:
        return self is not AccountKind.SHADOW


@dataclass(frozen=True, slots=True)
class AccountChoice:
    """`broker` is the name in BROKERS to build for `account`. `reason` says why it is not the live account, else ""."""

    account: str
    broker: str
    kind: AccountKind
    reason: str


def resolve_account(
    *,
    market: str,
    strategy: str,
    strategy_hash: str,
    model_policy: str,
    tradable_now: bool,
    is_backfill: bool,
    broker_name: str,
    broker_is_real: bool,
    replay_name: str | None = None,
    mode: str = "",
) -> AccountChoice:
    """The account of one run.

    `strategy_hash`: config hash of strategy and costs. `model_policy`: how the model is chosen ("champion", "as-of").
    `tradable_now`: `Sessions.tradable(T, now)`. `mode`: dry, shadow or live; "": live for paper, dry for a real broker.

    - replay (backfill, or T not tradable now, or `replay_name` given): paper, `replay-<market>-<replay_name>`, or
      without a name `replay-<market>-<strategy>-<policy>-<hash8>`: another configuration starts another account.
    - dry: paper, `dry-<market>-<strategy>`.
    - shadow: the configured broker, to read only, `shadow-<broker>-<market>-<strategy>`.
    - else live: the configured broker, `<broker>-<market>-<strategy>`.
    """
    reason = _replay_reason(tradable_now, is_backfill, replay_name)
    if reason:
        parts = (replay_name,) if replay_name is not None else (strategy, model_policy, strategy_hash[:8])
        return AccountChoice(account_id("replay", market, *parts), PAPER, AccountKind.REPLAY, reason)
    chosen = mode or ("dry" if broker_is_real else "live")
    if chosen == "shadow":
        why = f"shadow: decided and recorded, nothing is sent to '{broker_name}'"
        return AccountChoice(account_id("shadow", broker_name, market, strategy), broker_name, AccountKind.SHADOW, why)
    if chosen == "dry":
        why = f"dry run: nothing is sent to '{broker_name}'"
        return AccountChoice(account_id("dry", market, strategy), PAPER, AccountKind.DRY, why)
    return AccountChoice(account_id(broker_name, market, strategy), broker_name, AccountKind.LIVE, "")


def _replay_reason(tradable_now: bool, is_backfill: bool, replay_name: str | None) -> str:
    if replay_name is not None:
        return f"the run names the replay '{replay_name}'"
    if is_backfill:
        return "the run is a backfill"
    return "" if tradable_now else "its session is not the one tradable now"


def kind_of(account: str) -> AccountKind:
    """What kind of account an id names, by how `resolve_account` begins it."""
    return next((kind for kind in AccountKind if account.startswith(f"{kind.value}-")), AccountKind.LIVE)


def account_id(*parts: str) -> str:
    """The parts joined by "-": lower-case letters, digits, "-", "_" and ".", at most 96 characters.

    Where characters had to be replaced or cut, eight hex digits of the original's SHA-256 keep ids apart.
    """
    raw = "-".join(parts)
    safe = re.sub(r"[^a-z0-9_.-]", "-", raw.lower())
    if safe == raw and len(safe) <= MAX_ACCOUNT_LENGTH:
        return safe
    return f"{safe[: MAX_ACCOUNT_LENGTH - 9]}-{hashlib.sha256(raw.encode()).hexdigest()[:8]}"
