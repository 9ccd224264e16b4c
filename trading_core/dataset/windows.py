"""Samples: windows of a scaled panel that end at a decision, gathered by index.

One float32 array of channels is shared by every split and by inference; a sample is a pair (symbol, decision column)
and its window is read out of that array when a batch is asked for. B samples, E encoder sessions, C channels,
K static columns, H horizons.
"""

from __future__ import annotations

import json
import math
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import as_strided

from trading_core.dataset.labels import (
    class_labels,
    directions,
    forward_returns,
    rank_labels,
    triple_barrier,
    volatility_labels,
)
from trading_core.dataset.panel import Panel
from trading_core.dataset.scaling import Scaler
from trading_core.errors import EmptyUniverseError, InvalidConfigError, TooShortHistoryError, UnknownNameError
from trading_core.schema import BoolArray, Float32Array, FloatArray, IntArray, Target

TargetScale = Literal["volatility", "none"]
STATIC_COLUMNS = ("sector", "symbol")
TYPICAL_VOLATILITY = 0.02  # of a session's log return
MIN_PRESENT = 0.8  # share of the window's sessions on which the symbol must have a row


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The category names a model was trained with; a code is the position + 1, and 0 is "unknown" (a new name)."""

    symbols: tuple[str, ...] = ()
    sectors: tuple[str, ...] = ()

    @classmethod
    def of(cls, panel: Panel) -> Vocabulary:
        return cls(panel.symbols, panel.sector_names)

    def cardinalities(self, static: tuple[str, ...]) -> tuple[int, ...]:
        """Number of codes of each static column, the unknown included. Errors: UnknownNameError."""
        return tuple(len(self._names(column)) + 1 for column in static)

    def codes(self, panel: Panel, static: tuple[str, ...]) -> IntArray:
        """[S, K] int64 codes of the panel's symbols. Errors: UnknownNameError."""
        out = np.zeros((len(panel.symbols), len(static)), dtype=np.int64)
        sectors = [panel.sector_names[code - 1] if code else "" for code in panel.sector.tolist()]
        for k, column in enumerate(static):
            code = {name: index for index, name in enumerate(self._names(column), start=1)}
            names = panel.symbols if column == "symbol" else sectors
            out[:, k] = [code.get(name, 0) for name in names]
        return out

    def _names(self, column: str) -> tuple[str, ...]:
        if column not in STATIC_COLUMNS:
            raise UnknownNameError("static column", column, STATIC_COLUMNS)
        return self.symbols if column == "symbol" else self.sectors

    def to_json(self) -> str:
        return json.dumps({"symbols": self.symbols, "sectors": self.sectors}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """The vocabulary of `to_json`. Errors: InvalidConfigError."""
        try:
            raw = json.loads(text)
            return cls(tuple(map(str, raw["symbols"])), tuple(map(str, raw["sectors"])))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidConfigError("A stored vocabulary", [f"{type(error).__name__}: {error}"]) from error


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """What a sample holds. The fields are those of the model config, in its words.

    encoder_length E and horizons H in sessions; static: of STATIC_COLUMNS; context: features that describe the sample;
    class_threshold: of the Bear and Bull classes, barrier_width: of the two barriers, both in units of sigma * sqrt(h).
    """

    encoder_length: int
    horizons: tuple[int, ...]
    target_scale: TargetScale = "volatility"
    static: tuple[str, ...] = ()
    targets: tuple[Target, ...] = (Target.QUANTILES,)
    score: Target = Target.QUANTILES
    context: tuple[str, ...] = ()
    class_threshold: float = 0.5
    barrier_width: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class ScaledPanel:
    """A panel with its channels [S, T, C] float32, C-contiguous: computed once, shared by all window sets."""

    panel: Panel
    channels: Float32Array
    names: tuple[str, ...]  # C channel names
    present: BoolArray  # [S, T]: see Panel.present

    @classmethod
    def of(cls, panel: Panel, scaler: Scaler) -> ScaledPanel:
        """Errors: InvalidConfigError when the panel's features are not the scaler's, in its order."""
        if panel.features != scaler.features:
            raise InvalidConfigError(
                "The panel", [f"its features {list(panel.features)} are not the scaler's {list(scaler.features)}"]
            )
        return cls(panel, scaler.apply_panel(panel.values), scaler.channels, panel.present)


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """One batch.

    x: [B, E, C] float32; the last step is the decision's own session. static: [B, K] int64.
    y: [B, H] float32 = return / scale (NaN for inference). scale: [B, H] float64; return = y * scale.
    labels: [B, H, L] float32, one column per target of the spec, NaN where it is not known; see schema.Target.
    symbol: [B] int64, row of the panel. column: [B] int64, decision column of the panel.
    """

    x: Float32Array
    static: IntArray
    y: Float32Array
    labels: Float32Array
    scale: FloatArray
    symbol: IntArray
    column: IntArray


class WindowSet:
    """All samples of some decision columns, ordered by column, then symbol.

    Build it with `for_training` or `for_inference`.

    `scaled`, `spec`, `vocabulary`: what it was built from. `symbol`, `columns`: [N] int64, of each sample.
    `static_codes`: [S, K] int64 of each symbol. `y` [N, H] float32, `labels` [N, H, L] float32 and `scale` [N, H]
    float64: as in Windows.
    """

    def __init__(
        self,
        scaled: ScaledPanel,
        spec: WindowSpec,
        vocabulary: Vocabulary,
        symbol: IntArray,
        columns: IntArray,
        returns: FloatArray | None,
    ) -> None:
        self.scaled = scaled
        self.spec = spec
        self.vocabulary = vocabulary
        self.symbol = symbol
        self.columns = columns
        self.static_codes = vocabulary.codes(scaled.panel, spec.static)
        self.scale = horizon_scale(scaled.panel, spec.target_scale, symbol, columns, spec.horizons)
        raw = np.full(self.scale.shape, np.nan) if returns is None else returns[symbol, columns]
        self.y: Float32Array = (raw / self.scale).astype(np.float32)
        self.labels = np.full((*self.y.shape, len(spec.targets)), np.nan, dtype=np.float32)
        if returns is not None:
            for position, target in enumerate(spec.targets):
                self.labels[..., position] = labels_of(scaled.panel, spec, target, returns)[symbol, columns]

    @classmethod
    def for_training(
        cls, scaled: ScaledPanel, columns: IntArray, spec: WindowSpec, vocabulary: Vocabulary
    ) -> WindowSet:
        """Samples with a full set of labels; also for validation and for scoring a test part.

        (symbol, t) is a sample when t is one of `columns`, t >= E - 1, the symbol has a row on t and on at least
        ceil(0.8 E) sessions of the window, all its returns are known in the panel and its volatility is known at t.
        Labels of further targets may be missing in a sample: a volatility needs more prices than a return.
        Errors: TooShortHistoryError (fewer sessions than E), EmptyUniverseError (no sample).
        """
        panel = scaled.panel
        returns = forward_returns(panel.opens, spec.horizons, panel.breaks)
        valid = _valid(scaled, spec) & np.isfinite(returns).all(axis=2) & np.isfinite(panel.sigma)
        symbol, chosen = _samples(valid, columns)
        if len(symbol) == 0:
            reason = f"none has a window of {spec.encoder_length} sessions and its labels in {len(columns)} decisions"
            raise EmptyUniverseError(panel.market, reason)
        return cls(scaled, spec, vocabulary, symbol, chosen, returns)

    @classmethod
    def for_inference(
        cls, scaled: ScaledPanel, columns: IntArray, spec: WindowSpec, vocabulary: Vocabulary
    ) -> WindowSet:
        """Samples of `columns` by what is known at each decision: labels are not looked at, y is NaN. May be empty.

        A symbol without a volatility is left out only where the target is scaled by it.
        Errors: TooShortHistoryError (fewer sessions than E).
        """
        valid = _valid(scaled, spec)
        if spec.target_scale == "volatility":
            valid &= np.isfinite(scaled.panel.sigma)
        symbol, chosen = _samples(valid, columns)
        return cls(scaled, spec, vocabulary, symbol, chosen, None)

    def __len__(self) -> int:
        return len(self.symbol)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """K: the number of codes of each static column."""
        return self.vocabulary.cardinalities(self.spec.static)

    @property
    def decision_columns(self) -> IntArray:
        """The distinct decision columns that have samples, ascending."""
        return np.unique(self.columns)

    def rows_of_column(self, column: int) -> IntArray:
        """The samples (rows for `gather`) of one decision column: a date-complete batch. Empty when it has none."""
        first, last = np.searchsorted(self.columns, [column, column + 1])
        return np.arange(first, last, dtype=np.int64)

    def of_symbol(self, symbol: int) -> WindowSet:
        """The samples of one row of the panel, in their order. May be empty."""
        rows = np.flatnonzero(self.symbol == symbol)
        part = copy(self)
        part.symbol, part.columns = self.symbol[rows], self.columns[rows]
        part.y, part.labels, part.scale = self.y[rows], self.labels[rows], self.scale[rows]
        return part

    def gather(self, rows: IntArray, encode: bool = True) -> Windows:
        """The samples at positions `rows` [B] (any order, repeats allowed) as one batch; without `encode`, x is [B, 0, C]."""
        symbol, column = self.symbol[rows], self.columns[rows]
        nothing = np.empty((len(rows), 0, self.scaled.channels.shape[2]), dtype=np.float32)
        return Windows(
            x=self._encode(symbol, column) if encode else nothing,
            static=self.static_codes[symbol],
            y=self.y[rows],
            labels=self.labels[rows],
            scale=self.scale[rows],
            symbol=symbol,
            column=column,
        )

    def _encode(self, symbol: IntArray, column: IntArray) -> Float32Array:
        """[B, E, C]. A window is one contiguous run of E * C floats: one copy per sample, out of overlapping views."""
        _, sessions, width = self.scaled.channels.shape
        length = self.spec.encoder_length
        flat = self.scaled.channels.reshape(-1)
        starts = len(flat) // width - length + 1
        runs = as_strided(flat, (starts, length * width), (width * flat.itemsize, flat.itemsize), writeable=False)
        return runs[symbol * sessions + column - length + 1].reshape(len(symbol), length, width)


def _valid(scaled: ScaledPanel, spec: WindowSpec) -> BoolArray:
    """[S, T]: a decision that may be made from what is known at its close."""
    length = spec.encoder_length
    sessions = scaled.present.shape[1]
    if sessions < length:
        raise TooShortHistoryError(f"An encoder of {length} sessions", sessions, length)
    counted = np.cumsum(np.pad(scaled.present, ((0, 0), (1, 0))), axis=1)  # [S, T + 1]
    valid = scaled.present.copy()
    valid[:, : length - 1] = False
    valid[:, length - 1 :] &= counted[:, length:] - counted[:, :-length] >= math.ceil(MIN_PRESENT * length)
    return valid


def _samples(valid: BoolArray, columns: IntArray) -> tuple[IntArray, IntArray]:
    """Symbol and column of every valid pair, ordered by column, then symbol."""
    wanted = np.unique(columns)
    at, symbol = np.nonzero(valid[:, wanted].T)
    return symbol.astype(np.int64), wanted[at].astype(np.int64)


def horizon_scale(
    panel: Panel, target_scale: str, symbol: IntArray, columns: IntArray, horizons: tuple[int, ...]
) -> FloatArray:
    """[N, H]: sigma * sqrt(h), the volatility of h sessions of independent returns.

    Where the target is not scaled by its own volatility, sigma is 2 % for all: the same unit for every symbol and session,
    in which labels are about one, as networks and their heads expect.
    """
    if target_scale == "none":
        return np.tile(horizon_unit(horizons), (len(symbol), 1))
    return panel.sigma[symbol, columns][:, None] * np.sqrt(np.array(horizons, dtype=np.float64))


def horizon_unit(horizons: tuple[int, ...]) -> FloatArray:
    """[H]: what returns are divided by where the target is not scaled by its own volatility."""
    return TYPICAL_VOLATILITY * np.sqrt(np.array(horizons, dtype=np.float64))


def labels_of(panel: Panel, spec: WindowSpec, target: Target, returns: FloatArray) -> FloatArray:
    """[S, T, H] labels of one target. returns: [S, T, H] forward returns."""
    if target is Target.DIRECTION:
        return directions(returns)
    if target is Target.RANK:
        return rank_labels(returns)
    if target is Target.VOLATILITY:
        return volatility_labels(panel.opens, panel.sigma, spec.horizons, panel.breaks)
    if target is Target.BARRIER:
        width = spec.barrier_width
        return triple_barrier(panel.opens, panel.closes, panel.sigma, spec.horizons, width, panel.breaks)
    in_volatilities = returns / (panel.sigma[:, :, None] * np.sqrt(np.array(spec.horizons, dtype=np.float64)))
    if target is Target.CLASSES:
        return class_labels(in_volatilities, spec.class_threshold)
    return in_volatilities if spec.target_scale == "volatility" else returns / horizon_unit(spec.horizons)
