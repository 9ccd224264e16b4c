"""Every error a user can meet, in one tree.

An error class keeps the values it was raised with and builds its own message: what was wrong, what is allowed, what to
do. Callers raise `SomeError(value, ...)` and never write the sentence themselves, so the text is tested once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from difflib import get_close_matches


def _some(items: Sequence[object], limit: int = 10) -> str:
    """The first `limit` items, and how many more there are."""
    head = ", ".join(str(item) for item in items[:limit])
    return head if len(items) <= limit else f"{head} and {len(items) - limit} more"


def _rebuild(cls: type[TradingError], state: dict[str, object]) -> TradingError:
    error = cls.__new__(cls)
    error.__dict__.update(state)
    return error


class TradingError(Exception):
    """Base of all errors this platform raises on purpose. The CLI prints it without a traceback and exits with 2."""

    def __reduce__(self) -> tuple[object, ...]:
        # A dataclass exception leaves `args` empty, so the default reduction cannot rebuild it in another process.
        return (_rebuild, (type(self), dict(self.__dict__)))


# --- configuration ---------------------------------------------------------------------------------------------------


class ConfigError(TradingError):
    """A configuration file, form or environment variable is wrong."""


@dataclass(eq=False)
class InvalidConfigError(ConfigError):
    """Values that a configuration schema refused."""

    where: str
    problems: Sequence[str]

    def __str__(self) -> str:
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        return f"{self.where} is not valid:\n{lines}\nCorrect the keys named above; `trading config check` validates every file."


@dataclass(eq=False)
class UnknownNameError(ConfigError):
    """A name that no registry or folder holds (a model, feature, strategy, market, source, broker ...)."""

    kind: str
    name: str
    allowed: Sequence[str]
    listed_by: str = ""  # the command that prints all, where they are many

    def __str__(self) -> str:
        close = get_close_matches(self.name, list(self.allowed), n=5, cutoff=0.5)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        if self.listed_by:
            others = f" Close to it: {', '.join(close)}." if len(close) > 1 else ""
            return f"Unknown {self.kind} '{self.name}'.{hint}{others} `{self.listed_by}` prints all {len(self.allowed)} allowed."
        return f"Unknown {self.kind} '{self.name}'.{hint} Allowed: {_some(sorted(self.allowed), 60)}."


@dataclass(eq=False)
class InvalidDateRangeError(ConfigError):
    """A start after its end, or a range without a session."""

    start: date
    end: date
    reason: str

    def __str__(self) -> str:
        return f"The range {self.start} .. {self.end} cannot be used: {self.reason}. Give a start and an end that hold at least one session."


# --- data ------------------------------------------------------------------------------------------------------------


class DataError(TradingError):
    """Market data or features that cannot be used as they are."""


@dataclass(eq=False)
class MissingFileError(DataError):
    path: str
    what: str

    def __str__(self) -> str:
        return (
            f"There is no {self.what} at '{self.path}'. Check the path; it is read from the folder the command runs in."
        )


@dataclass(eq=False)
class UnreadableFileError(DataError):
    path: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"'{self.path}' cannot be read as {self.what}: {self.reason}. Correct the file and run again; nothing was stored."


@dataclass(eq=False)
class MissingColumnsError(DataError):
    where: str
    missing: Sequence[str]
    found: Sequence[str]

    def __str__(self) -> str:
        return (
            f"{self.where} lacks the column{'s' if len(self.missing) > 1 else ''} {_some(self.missing)}. "
            f"It has: {_some(self.found, 30)}. Rename or add them and run again; nothing was stored."
        )


@dataclass(eq=False)
class WrongTypeError(DataError):
    where: str
    column: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: column '{self.column}' is {self.found}, expected {self.expected}. Nothing was stored; correct it and run again."


@dataclass(eq=False)
class DuplicateKeysError(DataError):
    where: str
    key: Sequence[str]
    count: int
    sample: Sequence[str]

    def __str__(self) -> str:
        return (
            f"{self.where} holds {self.count} duplicated keys ({', '.join(self.key)}), for example {_some(self.sample, 3)}. "
            "Keep one row per key and run again; nothing was stored."
        )


@dataclass(eq=False)
class FutureDataError(DataError):
    where: str
    latest: datetime | date
    now: datetime

    def __str__(self) -> str:
        return (
            f"{self.where} holds bars up to {self.latest}, later than now ({self.now:%Y-%m-%d %H:%M} UTC). "
            "A bar that has not closed cannot be stored: check the dates and the clock. Nothing was stored."
        )


@dataclass(eq=False)
class EmptyUniverseError(DataError):
    market: str
    reason: str

    def __str__(self) -> str:
        return f"Market '{self.market}' has no symbol left to work with: {self.reason}. Widen the universe, the dates or the quality limits."


@dataclass(eq=False)
class TooShortHistoryError(DataError):
    what: str
    have: int
    need: int

    def __str__(self) -> str:
        return (
            f"{self.what} needs at least {self.need} sessions of history but has {self.have}. "
            "Backfill an earlier start, or choose shorter lookbacks, encoder length or splits."
        )


@dataclass(eq=False)
class NoDataError(DataError):
    """A table or range that should hold rows holds none."""

    what: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.what}. {self.way_out}"


@dataclass(eq=False)
class SymbolFetchError(DataError):
    """Symbols that a source could not deliver, each with its reason."""

    source: str
    failures: Mapping[str, str]

    def __str__(self) -> str:
        lines = _some([f"{symbol} ({reason})" for symbol, reason in self.failures.items()])
        return f"Source '{self.source}' could not deliver {len(self.failures)} symbol(s): {lines}. Nothing was stored for them; correct or drop these symbols, or try again later."


@dataclass(eq=False)
class SourceUnavailableError(DataError):
    """The source as a whole refuses or fails (rate limit, outage)."""

    source: str
    reason: str

    def __str__(self) -> str:
        return f"Source '{self.source}' does not answer: {self.reason}. Nothing was stored; the same command resumes when it is back."


@dataclass(eq=False)
class QualityGateError(DataError):
    market: str
    problems: Sequence[str]

    def __str__(self) -> str:
        return f"The quality gate of market '{self.market}' is shut: {_some(self.problems)}. Nothing was stored; see the quality report."


@dataclass(eq=False)
class StaleFormulasError(DataError):
    """Stored features that other formulas made than those of today's code."""

    market: str
    features: Sequence[str]

    def __str__(self) -> str:
        return f"The stored features of market '{self.market}' were made with other formulas than today's code has: {_some(self.features)}. Run feature_backfill (or `trading backfill`): it computes them anew."


@dataclass(eq=False)
class StaleDataError(DataError):
    market: str
    needed: date
    latest: date | None

    def __str__(self) -> str:
        have = f"end at {self.latest}" if self.latest else "are empty"
        return f"Market '{self.market}' needs features of session {self.needed}, but they {have}. Run feature_backfill for {self.needed} first."


# --- storage ---------------------------------------------------------------------------------------------------------


class StorageError(TradingError):
    """Artifacts or tables that cannot be read or written."""


@dataclass(eq=False)
class ArtifactMissingError(StorageError):
    uri: str

    def __str__(self) -> str:
        return f"There is no artifact at '{self.uri}'. It was never published, or the run that makes it did not finish: run that step again."


@dataclass(eq=False)
class ArtifactCorruptedError(StorageError):
    uri: str
    reason: str

    def __str__(self) -> str:
        return f"The artifact '{self.uri}' is corrupted: {self.reason}. It was refused and not used; restore it from a backup or run the step that makes it again."


@dataclass(eq=False)
class UriEscapeError(StorageError):
    uri: str
    root: str

    def __str__(self) -> str:
        return (
            f"'{self.uri}' lies outside the artifact store '{self.root}'. Only paths inside it may be read or written."
        )


@dataclass(eq=False)
class StoreUnreachableError(StorageError):
    url: str
    reason: str

    def __str__(self) -> str:
        return f"The artifact store '{self.url}' cannot be reached: {self.reason}. Check the URL, endpoint, credentials and network; the step can be run again unchanged."


@dataclass(eq=False)
class CommitConflictError(StorageError):
    table: str
    attempts: int

    def __str__(self) -> str:
        return f"Table '{self.table}' kept changing under this writer ({self.attempts} attempts). Nothing of this write is visible; run the step again."


@dataclass(eq=False)
class TableMissingError(StorageError):
    table: str
    uri: str

    def __str__(self) -> str:
        return f"Table '{self.table}' does not exist yet at '{self.uri}'. Run the step that fills it (feature_backfill for bars and features, batch_inference for forecasts)."


# --- models ----------------------------------------------------------------------------------------------------------


class ModelError(TradingError):
    """A model, bundle or version that cannot be used."""


@dataclass(eq=False)
class BundleError(ModelError):
    uri: str
    reason: str

    def __str__(self) -> str:
        return f"The model bundle '{self.uri}' is refused: {self.reason}. No code of it was run. Train again, or restore the bundle."


@dataclass(eq=False)
class FormulaMismatchError(ModelError):
    bundle: str
    features: Sequence[str]

    def __str__(self) -> str:
        return f"The model '{self.bundle}' was trained with other formulas of: {_some(self.features)}. Train a new version with today's features; this one cannot be used with them."


@dataclass(eq=False)
class NoModelError(ModelError):
    market: str
    wanted: str

    def __str__(self) -> str:
        return f"Market '{self.market}' has no model {self.wanted}. Train one (`train_model` in Airflow, or `trading train`), or choose later dates."


@dataclass(eq=False)
class LookAheadError(ModelError):
    version: str
    cutoff: date
    session: date

    def __str__(self) -> str:
        return f"Model version {self.version} has used labels known at {self.cutoff}: it may not forecast session {self.session}. Choose sessions after its cut-off, or an older version."


@dataclass(eq=False)
class TrainingFailedError(ModelError):
    reason: str

    def __str__(self) -> str:
        return f"The training did not finish: {self.reason}. No model version was registered; start it again with the same request."


# --- execution -------------------------------------------------------------------------------------------------------


class ExecutionError(TradingError):
    """A trading session that must not go on."""


@dataclass(eq=False)
class LedgerUnreachableError(ExecutionError):
    url: str
    reason: str

    def __str__(self) -> str:
        return f"The ledger '{self.url}' cannot be reached: {self.reason}. No order is sent without it; check its URL and network, then run the session again."


@dataclass(eq=False)
class SessionOrderError(ExecutionError):
    account: str
    session: date
    last: date
    reason: str

    def __str__(self) -> str:
        return (
            f"Account '{self.account}' cannot trade session {self.session}: {self.reason} (last session: {self.last}). "
            "Run sessions in order (airflow backfill create --max-active-runs 1), or name a new replay account with the `replay` parameter."
        )


@dataclass(eq=False)
class SessionNotSettledError(ExecutionError):
    account: str
    session: date
    unsettled: date
    open_orders: int

    def __str__(self) -> str:
        if self.open_orders == 0:
            return (
                f"Account '{self.account}' cannot trade session {self.session}: its session {self.unsettled} was opened but "
                "not brought to its end. Run that session again first; steps that are done change nothing."
            )
        return (
            f"Account '{self.account}' cannot trade session {self.session}: its session {self.unsettled} still has {self.open_orders} open order(s). "
            f"Run feature_backfill for {self.unsettled} so that its bars are there; the next run settles it."
        )


@dataclass(eq=False)
class OrderWindowClosedError(ExecutionError):
    """A decision or an order for an open that has passed."""

    account: str
    session: date
    opened: datetime

    def __str__(self) -> str:
        return f"The open of {self.session} passed at {self.opened:%Y-%m-%d %H:%M} UTC: account '{self.account}' sends nothing for it any more. What was sent stands; the next session settles it and trades on."


@dataclass(eq=False)
class FlattenRefusedError(ExecutionError):
    account: str
    reason: str

    def __str__(self) -> str:
        return f"Account '{self.account}' cannot be flattened now: {self.reason}."


@dataclass(eq=False)
class TradingHaltedError(ExecutionError):
    account: str
    reason: str

    def __str__(self) -> str:
        return f"Trading is halted for '{self.account}': {self.reason}. Resume it with `trading resume` or the controls DAG."


@dataclass(eq=False)
class NotASessionError(ExecutionError):
    calendar: str
    day: date

    def __str__(self) -> str:
        return (
            f"{self.day} is not a trading session of {self.calendar} (a holiday or a weekend). Choose a session's date."
        )


@dataclass(eq=False)
class DuplicateOrderError(ExecutionError):
    """A broker's refusal of a client order id it has seen before."""

    client_order_id: str

    def __str__(self) -> str:
        return f"The broker already has an order with id {self.client_order_id}; it was not sent twice."


@dataclass(eq=False)
class RiskRejectionError(ExecutionError):
    account: str
    session: date
    reasons: Sequence[str]

    def __str__(self) -> str:
        return f"The risk rules refuse the decision of '{self.account}' for {self.session}: {_some(self.reasons)}. Nothing was sent; change the strategy, the limits in its config, or the account."


@dataclass(eq=False)
class AccountMismatchError(ExecutionError):
    account: str
    differences: Sequence[str]

    def __str__(self) -> str:
        return f"Broker and ledger disagree on account '{self.account}': {_some(self.differences)}. Trading stops until a person has resolved it."


@dataclass(eq=False)
class StrategyConflictError(ExecutionError):
    account: str
    owner: str
    strategy: str

    def __str__(self) -> str:
        return f"Account '{self.account}' belongs to strategy '{self.owner}'; '{self.strategy}' may not trade on it (brokers net positions per account). Use another account."


@dataclass(eq=False)
class StrategyOutputError(ExecutionError):
    strategy: str
    reason: str

    def __str__(self) -> str:
        return f"Strategy '{self.strategy}' returned unusable weights: {self.reason}. Weights must be finite, one per symbol, within the leverage limit."
