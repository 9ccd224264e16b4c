"""Every class of the error tree: it can be built, sent to another process and read by a person."""

from __future__ import annotations

import copy
import pickle
import re
from datetime import UTC, date, datetime

import pytest

from trading_core import errors
from trading_core.errors import TradingError

DAY, EARLIER = date(2026, 11, 27), date(2026, 11, 25)
NOW = datetime(2026, 11, 27, 18, 30, tzinfo=UTC)
# One error of each class, and what its text must hold: the values it was made with, and the way out.
SAMPLES: dict[str, tuple[TradingError, list[str]]] = {
    sample.__class__.__name__: (sample, texts)
    for sample, texts in [
        (
            errors.InvalidConfigError("configs/models/x.yaml", ["seed: too small", "colour: unknown key"]),
            ["configs/models/x.yaml", "seed: too small", "colour: unknown key", "trading config check"],
        ),
        (
            errors.UnknownNameError("strategy", "top1O", ["top10", "equal-weight"]),
            ["strategy", "'top1O'", "Did you mean 'top10'?", "Allowed: equal-weight, top10"],
        ),
        (
            errors.InvalidDateRangeError(DAY, EARLIER, "the start lies after the end"),
            ["2026-11-27", "2026-11-25", "the start lies after the end", "Give a start and an end"],
        ),
        (errors.MissingFileError("data/x.csv", "panel"), ["data/x.csv", "panel", "Check the path"]),
        (
            errors.UnreadableFileError("data/x.csv", "CSV", "line 3 is cut off"),
            ["data/x.csv", "CSV", "line 3 is cut off"],
        ),
        (
            errors.MissingColumnsError("x.csv", ["open", "close"], ["date", "px"]),
            ["x.csv", "columns open, close", "date, px", "Rename or add them"],
        ),
        (
            errors.WrongTypeError("x.csv", "open", "String", "Float64"),
            ["x.csv", "'open'", "String", "Float64", "Nothing was stored"],
        ),
        (
            errors.DuplicateKeysError("bars", ["symbol", "ts"], 4, ["A 2026-11-27"]),
            ["bars", "4 duplicated", "symbol, ts", "A 2026-11-27", "Keep one row per key"],
        ),
        (
            errors.FutureDataError("bars", DAY, NOW),
            ["bars", "2026-11-27", "2026-11-27 18:30 UTC", "check the dates and the clock"],
        ),
        (errors.EmptyUniverseError("us", "no symbol is liquid"), ["'us'", "no symbol is liquid", "Widen"]),
        (errors.TooShortHistoryError("The encoder", 10, 60), ["The encoder", "60", "10", "Backfill an earlier start"]),
        (
            errors.NoDataError("Market 'us' has no bars", "Run feature_backfill."),
            ["Market 'us' has no bars", "Run feature_backfill."],
        ),
        (
            errors.SymbolFetchError("yahoo", {"AAA": "delisted", "BBB": "no data"}),
            ["'yahoo'", "2 symbol(s)", "AAA (delisted)", "BBB (no data)", "correct or drop"],
        ),
        (errors.SourceUnavailableError("yahoo", "HTTP 429"), ["'yahoo'", "HTTP 429", "the same command resumes"]),
        (
            errors.QualityGateError("us", ["half the symbols are missing"]),
            ["'us'", "half the symbols are missing", "quality report"],
        ),
        (
            errors.StaleDataError("us", DAY, EARLIER),
            ["'us'", "2026-11-27", "end at 2026-11-25", "Run feature_backfill"],
        ),
        (errors.ArtifactMissingError("s3://b/x"), ["s3://b/x", "run that step again"]),
        (errors.ArtifactCorruptedError("s3://b/x", "sha256 differs"), ["s3://b/x", "sha256 differs", "restore it"]),
        (errors.UriEscapeError("../../etc", "s3://b/x"), ["../../etc", "s3://b/x", "Only paths inside it"]),
        (errors.StoreUnreachableError("s3://b", "timed out"), ["s3://b", "timed out", "Check the URL"]),
        (errors.CommitConflictError("forecasts", 8), ["'forecasts'", "8 attempts", "run the step again"]),
        (errors.TableMissingError("bars", "s3://b/us"), ["'bars'", "s3://b/us", "feature_backfill"]),
        (errors.BundleError("s3://b/m", "no manifest"), ["s3://b/m", "no manifest", "Train again"]),
        (errors.FormulaMismatchError("tft v3", ["rsi_14"]), ["tft v3", "rsi_14", "Train a new version"]),
        (errors.NoModelError("us", "known before 2013-01-02"), ["'us'", "known before 2013-01-02", "Train one"]),
        (
            errors.LookAheadError("3", DAY, EARLIER),
            ["version 3", "2026-11-27", "2026-11-25", "Choose sessions after its cut-off"],
        ),
        (errors.TrainingFailedError("killed by signal 9"), ["killed by signal 9", "start it again"]),
        (errors.LedgerUnreachableError("sqlite:///x", "locked"), ["sqlite:///x", "locked", "run the session again"]),
        (
            errors.SessionOrderError("paper-1", EARLIER, DAY, "a later session was traded"),
            ["'paper-1'", "2026-11-25", "2026-11-27", "a later session was traded", "--max-active-runs 1", "`replay`"],
        ),
        (
            errors.SessionNotSettledError("paper-1", DAY, EARLIER, 3),
            ["'paper-1'", "2026-11-27", "2026-11-25", "3 open order(s)", "Run feature_backfill"],
        ),
        (
            errors.OrderWindowClosedError(
                "paper-1",
                date(2026, 11, 23),
                datetime(2026, 11, 20, 21, 0, tzinfo=UTC),
                datetime(2026, 11, 23, 14, 28, tzinfo=UTC),
                datetime(2026, 11, 23, 14, 30, tzinfo=UTC),
            ),
            [
                "'paper-1'",
                "2026-11-23",
                "until 2026-11-23 14:28 UTC",
                "it is 2026-11-23 14:30 UTC",
                "the next session settles it",
            ],
        ),
        (errors.FlattenRefusedError("replay-1", "it is a replay"), ["'replay-1'", "it is a replay"]),
        (
            errors.ResolveRefusedError("tabc123", "filled"),
            ["tabc123", "it is filled", "its word counts", "Nothing was resolved by hand"],
        ),
        (
            errors.BrokerUnreachableError("alpaca", "the question for its account", "timed out"),
            ["'alpaca'", "the question for its account", "timed out", "Nothing is concluded", "run the step again"],
        ),
        (
            errors.BrokerBusyError("alpaca", "the order tabc123", "too many requests", 2.5),
            ["'alpaca'", "the order tabc123", "too many requests", "wait 2.5 s", "run the step again"],
        ),
        (
            errors.BrokerAccessError("alpaca", "the order tabc123", "the key is not valid"),
            ["'alpaca'", "the order tabc123", "the key is not valid", "Check the account's keys", "nothing was sent"],
        ),
        (
            errors.AmbiguousOrderError("alpaca", "tabc123", "the connection was reset"),
            ["'alpaca'", "tabc123", "the connection was reset", "UNKNOWN", "run the step again"],
        ),
        (
            errors.OrderRefusedError("alpaca", "tabc123", "insufficient buying power"),
            ["'alpaca'", "tabc123", "insufficient buying power"],
        ),
        (
            errors.LeaseHeldError("paper-1", "sell @host:12:34:ab", NOW),
            ["'paper-1'", "sell @host:12:34:ab", "until 18:30:00 UTC", "Nothing was done", "run the step again"],
        ),
        (
            errors.LeaseLostError("paper-1", 7, "was followed by 8 of buy @host:13:35:cd"),
            ["'paper-1'", "its lease 7 was followed by 8 of buy @host:13:35:cd", "running this step again is safe"],
        ),
        (
            errors.MarketClosedError("alpaca", DAY),
            ["'alpaca'", "does not open on 2026-11-27", "nothing is sent for it"],
        ),
        (
            errors.UnresolvedOrdersError("paper-1", DAY, ["sell 5 AAA", "sell 6 BBB"]),
            ["'paper-1'", "2026-11-27", "sell 5 AAA, sell 6 BBB", "Nothing more is sent", "docs/operations.md"],
        ),
        (errors.StaleFormulasError("simulated", ["rsi_14"]), ["'simulated'", "rsi_14", "feature_backfill"]),
        (errors.TradingHaltedError("paper-1", "by hand"), ["'paper-1'", "by hand", "trading resume"]),
        (errors.NotASessionError("XNYS", date(2026, 11, 26)), ["2026-11-26", "XNYS", "Choose a session's date"]),
        (errors.DuplicateOrderError("abc123"), ["abc123", "not sent twice"]),
        (
            errors.RiskRejectionError("paper-1", DAY, ["gross 1.2 > 1.0"]),
            ["'paper-1'", "2026-11-27", "gross 1.2 > 1.0", "Nothing was sent"],
        ),
        (
            errors.AccountMismatchError("paper-1", ["AAA: 5 vs 6"]),
            ["'paper-1'", "AAA: 5 vs 6", "until a person has resolved it"],
        ),
        (
            errors.StrategyConflictError("paper-1", "top10", "equal"),
            ["'paper-1'", "'top10'", "'equal'", "Use another account"],
        ),
        (errors.StrategyOutputError("top10", "NaN for AAA"), ["'top10'", "NaN for AAA", "Weights must be finite"]),
    ]
}


def _tree(base: type[TradingError] = TradingError) -> list[type[TradingError]]:
    """Every class of this package under `base`, parents first."""
    children = [cls for cls in base.__subclasses__() if cls.__module__.startswith(f"{errors.__name__}.")]
    return [found for cls in children for found in (cls, *_tree(cls))]


# A branch is there to be caught, and has no text of its own; a leaf is raised, even where a special case hangs on it.
BRANCHES = [cls for cls in _tree() if "__str__" not in vars(cls)]
LEAVES = [cls for cls in _tree() if cls not in BRANCHES]


def _sample(cls: type[TradingError]) -> tuple[TradingError, list[str]]:
    assert cls.__name__ in SAMPLES, f"{cls.__name__} has no sample: add one to SAMPLES"
    return SAMPLES[cls.__name__]


def test_the_tree_has_five_branches_and_every_leaf_hangs_on_one() -> None:
    assert {cls.__name__ for cls in BRANCHES} == {
        "ConfigError",
        "DataError",
        "StorageError",
        "ModelError",
        "ExecutionError",
    }
    assert all(issubclass(cls, tuple(BRANCHES)) for cls in LEAVES)
    assert set(SAMPLES) == {cls.__name__ for cls in LEAVES}
    assert all(getattr(errors, cls.__name__) is cls for cls in _tree())


@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
def test_its_text_holds_its_values_and_the_way_out(cls: type[TradingError]) -> None:
    sample, texts = _sample(cls)
    text = str(sample)
    assert [expected for expected in texts if expected not in text] == []
    assert text.endswith((".", ")"))
    assert not re.search(r"<[a-z_.]+ object|\{\}|None", text)


@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "send", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deep"]
)
def test_it_travels_between_processes(cls: type[TradingError], send: object) -> None:
    sample, _ = _sample(cls)
    other = send(sample)  # type: ignore[operator]
    assert type(other) is cls
    assert str(other) == str(sample)
    assert other.__dict__ == sample.__dict__


@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
def test_it_can_be_raised_from_another_and_caught_as_its_branch(cls: type[TradingError]) -> None:
    sample, _ = _sample(cls)
    with pytest.raises(tuple(BRANCHES)) as caught:
        raise sample from OSError("cause")
    assert isinstance(caught.value.__cause__, OSError)


def test_long_lists_are_cut() -> None:
    text = str(errors.QualityGateError("us", [f"problem-{i:02d}" for i in range(25)]))
    assert "problem-09" in text
    assert "problem-10" not in text
    assert "and 15 more" in text


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    assert "Did you mean" not in str(errors.UnknownNameError("model", "zzz", ["tft", "lstm"]))


def test_a_table_without_rows_is_called_empty() -> None:
    assert "are empty" in str(errors.StaleDataError("us", DAY, None))


def test_a_single_missing_column_is_singular() -> None:
    assert "the column open." in str(errors.MissingColumnsError("x", ["open"], ["a"]))


def test_a_window_that_has_not_opened_yet_is_not_called_closed() -> None:
    start, end = datetime(2026, 11, 26, 0, 0, tzinfo=UTC), datetime(2026, 11, 27, 14, 28, tzinfo=UTC)
    early = datetime(2026, 11, 25, 21, 0, tzinfo=UTC)
    text = str(errors.OrderWindowClosedError("paper-1", DAY, start, end, early))
    assert "may be sent from 2026-11-26 00:00 UTC on, it is 2026-11-25 21:00 UTC" in text
    assert "has sent nothing yet. Run the step again then." in text


def test_a_session_without_open_orders_is_not_said_to_have_some() -> None:
    text = str(errors.SessionNotSettledError("paper-1", DAY, EARLIER, 0))
    assert "was opened but not brought to its end. Run that session again first" in text
    assert "open order" not in text


def test_who_is_told_to_wait_is_told_that_there_is_no_answer() -> None:
    """A busy broker is caught wherever an unreachable one is: nothing may be concluded from either."""
    assert issubclass(errors.BrokerBusyError, errors.BrokerUnreachableError)
    for clear in (
        errors.OrderRefusedError,
        errors.DuplicateOrderError,
        errors.AmbiguousOrderError,
        errors.BrokerAccessError,
    ):
        assert not issubclass(clear, errors.BrokerUnreachableError)
