"""Which run reaches which account: no backfill and no old key ever reaches a real broker."""

from __future__ import annotations

import itertools
import re

import pytest

from trading_core.execution.accounts import AccountKind, account_id, resolve_account

HASH = "0123456789ab"


def resolve(**changes: object) -> tuple[str, str, AccountKind]:
    values = {
        "market": "us-yahoo",
        "strategy": "top10",
        "strategy_hash": HASH,
        "model_policy": "champion",
        "tradable_now": True,
        "is_backfill": False,
        "broker_name": "alpaca",
        "broker_is_real": True,
    } | changes
    choice = resolve_account(**values)  # type: ignore[arg-type]
    return choice.account, choice.broker, choice.kind


def test_the_live_accounts() -> None:
    paper = {"broker_name": "paper", "broker_is_real": False}
    assert resolve(**paper) == ("paper-us-yahoo-top10", "paper", AccountKind.LIVE)
    assert resolve(mode="live") == ("alpaca-us-yahoo-top10", "alpaca", AccountKind.LIVE)


def test_a_real_broker_is_a_dry_run_unless_switched_on() -> None:
    assert resolve() == ("dry-us-yahoo-top10", "paper", AccountKind.DRY)
    assert resolve(mode="dry", broker_name="paper", broker_is_real=False)[2] is AccountKind.DRY


@pytest.mark.parametrize("why", [{"is_backfill": True}, {"tradable_now": False}])
def test_backfills_and_old_sessions_are_replays_on_paper(why: dict[str, object]) -> None:
    expected = ("replay-us-yahoo-top10-as-of-01234567", "paper", AccountKind.REPLAY)
    assert resolve(model_policy="as-of", mode="live", **why) == expected
    assert resolve(model_policy="as-of", strategy_hash="fedcba", **why)[0] == "replay-us-yahoo-top10-as-of-fedcba"


def test_a_named_replay_has_its_own_account() -> None:
    assert resolve(replay_name="march", mode="live") == ("replay-us-yahoo-march", "paper", AccountKind.REPLAY)


def test_only_a_tradable_run_that_is_no_replay_and_no_dry_run_reaches_the_real_broker() -> None:
    for tradable, backfill, name, mode in itertools.product(
        (True, False), (True, False), (None, "x"), ("", "dry", "live")
    ):
        _, broker, _ = resolve(tradable_now=tradable, is_backfill=backfill, replay_name=name, mode=mode)
        assert (broker == "alpaca") == (tradable and not backfill and name is None and mode == "live")


def test_a_shadow_reads_the_broker_under_an_id_of_its_own() -> None:
    assert resolve(mode="shadow") == ("shadow-alpaca-us-yahoo-top10", "alpaca", AccountKind.SHADOW)
    assert [kind for kind in AccountKind if not kind.sends] == [AccountKind.SHADOW]
    assert resolve(mode="shadow", is_backfill=True)[1:] == ("paper", AccountKind.REPLAY)


def test_ids_are_safe_bounded_and_distinct() -> None:
    odd = [account_id("replay", "us", name) for name in ("März #1", "M/rz #1", "x" * 300, "x" * 301, "UPPER", "upper")]
    assert len(set(odd)) == len(odd)
    assert all(re.fullmatch(r"[a-z0-9_.-]{1,96}", item) for item in odd)
    assert odd[-1] == "replay-us-upper"
