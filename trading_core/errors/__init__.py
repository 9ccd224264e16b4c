"""Every error a user can meet, in one tree.

An error class keeps the values it was raised with and builds its own message: what was wrong, what is allowed, what to
do. Callers raise `SomeError(value, ...)` and never write the sentence themselves, so the text is tested once.
The classes lie by area in the modules of this package, and are imported from the package itself.
"""

from __future__ import annotations

from trading_core.errors.base import TradingError
from trading_core.errors.configuration import (
    ConfigError,
    InvalidConfigError,
    InvalidDateRangeError,
    UnknownNameError,
)
from trading_core.errors.data import (
    DataError,
    DuplicateKeysError,
    EmptyUniverseError,
    FutureDataError,
    MissingColumnsError,
    MissingFileError,
    NoDataError,
    QualityGateError,
    SourceUnavailableError,
    StaleDataError,
    StaleFormulasError,
    SymbolFetchError,
    TooShortHistoryError,
    UnreadableFileError,
    WrongTypeError,
)
from trading_core.errors.execution import (
    AccountMismatchError,
    DuplicateOrderError,
    ExecutionError,
    FlattenRefusedError,
    LedgerUnreachableError,
    NotASessionError,
    OrderWindowClosedError,
    RiskRejectionError,
    SessionNotSettledError,
    SessionOrderError,
    StrategyConflictError,
    StrategyOutputError,
    TradingHaltedError,
)
from trading_core.errors.models import (
    BundleError,
    FormulaMismatchError,
    LookAheadError,
    ModelError,
    NoModelError,
    TrainingFailedError,
)
from trading_core.errors.storage import (
    ArtifactCorruptedError,
    ArtifactMissingError,
    CommitConflictError,
    StorageError,
    StoreUnreachableError,
    TableMissingError,
    UriEscapeError,
)

__all__ = [
    "AccountMismatchError",
    "ArtifactCorruptedError",
    "ArtifactMissingError",
    "BundleError",
    "CommitConflictError",
    "ConfigError",
    "DataError",
    "DuplicateKeysError",
    "DuplicateOrderError",
    "EmptyUniverseError",
    "ExecutionError",
    "FlattenRefusedError",
    "FormulaMismatchError",
    "FutureDataError",
    "InvalidConfigError",
    "InvalidDateRangeError",
    "LedgerUnreachableError",
    "LookAheadError",
    "MissingColumnsError",
    "MissingFileError",
    "ModelError",
    "NoDataError",
    "NoModelError",
    "NotASessionError",
    "OrderWindowClosedError",
    "QualityGateError",
    "RiskRejectionError",
    "SessionNotSettledError",
    "SessionOrderError",
    "SourceUnavailableError",
    "StaleDataError",
    "StaleFormulasError",
    "StorageError",
    "StoreUnreachableError",
    "StrategyConflictError",
    "StrategyOutputError",
    "SymbolFetchError",
    "TableMissingError",
    "TooShortHistoryError",
    "TradingError",
    "TradingHaltedError",
    "TrainingFailedError",
    "UnknownNameError",
    "UnreadableFileError",
    "UriEscapeError",
    "WrongTypeError",
]
