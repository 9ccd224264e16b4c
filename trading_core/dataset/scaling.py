"""Scaling and imputation: features as a model reads them. Learned from training sessions only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import numpy as np

from trading_core.errors import InvalidConfigError, NoDataError
from trading_core.schema import MASK_SUFFIX, Float32Array, FloatArray, IntArray

ScalerKind = Literal["zscore", "robust"]
IQR_OF_NORMAL = 1.3489795003921634  # interquartile range of the standard normal distribution


@dataclass(frozen=True, slots=True)
class Scaler:
    """z = clip((value - mean) / std, -clip, clip); a missing value becomes 0, the training mean.

    features: F names. mean, std: F floats each; of the kind "robust" they are the median and the interquartile range over
    1.349, which estimate the same two of normal values and hardly feel a few wild ones. masked: the features that get a
    mask channel (1.0 where missing). clip: in standard deviations.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    masked: tuple[str, ...] = ()
    clip: float = 5.0
    kind: ScalerKind = "zscore"

    @property
    def channels(self) -> tuple[str, ...]:
        """The C channel names: the features, then `<feature>__missing` for each masked one."""
        return (*self.features, *(name + MASK_SUFFIX for name in self.masked))

    @classmethod
    def fit(
        cls,
        values: Float32Array,
        features: Sequence[str],
        columns: IntArray,
        clip: float = 5.0,
        mask_above: float = 0.0,
        kind: ScalerKind = "zscore",
    ) -> Scaler:
        """Mean and standard deviation (ddof 0), or their robust kin, of the finite values of the training columns.

        values: [S, T, F]. columns: the training columns; nothing else is read. A row with no known feature at all is
        an absent bar and says nothing about missing values; of the other rows, a feature that misses more than the
        share `mask_above` of them is masked. A constant feature has std 1; where half of all values are the same, so that
        the interquartile range is 0, "robust" takes the standard deviation. Computed in float64.
        Errors: NoDataError when a feature has no finite value in the training columns.
        """
        if values.shape[2] != len(features):
            raise InvalidConfigError("The scaler", [f"{len(features)} feature names for {values.shape[2]} features"])
        part = values[:, columns].reshape(-1, len(features))
        part = part[np.isfinite(part).any(axis=1)]
        mean, std, masked = [], [], []
        for f, name in enumerate(features):
            column = part[:, f]
            finite = column[np.isfinite(column)].astype(np.float64)
            if finite.size == 0:
                raise NoDataError(
                    f"Feature '{name}' has no value in the {len(columns)} training sessions",
                    "Backfill it from an earlier start, or take it out of the model's features.",
                )
            center, spread = _moments(finite, kind)
            mean.append(center)
            std.append(spread)
            if 1.0 - finite.size / len(column) > mask_above:
                masked.append(name)
        return cls(tuple(features), tuple(mean), tuple(std), tuple(masked), clip, kind)

    def apply_panel(self, values: Float32Array) -> Float32Array:
        """[S, T, C] float32 channels of values [S, T, F]; no NaN. Elementwise: any slice gives the same bits."""
        if values.shape[2] != len(self.features):
            raise InvalidConfigError(
                "The scaler", [f"{values.shape[2]} features given, fitted on {len(self.features)}"]
            )
        out = np.empty((*values.shape[:2], len(self.channels)), dtype=np.float32)
        mean, std = np.array(self.mean), np.array(self.std)
        positions = [self.features.index(name) for name in self.masked]
        width = len(self.features)
        for row, channels in zip(values, out, strict=True):  # symbol by symbol: the float64 copy stays small
            missing = ~np.isfinite(row)  # [T, F]
            z: FloatArray = np.clip((row.astype(np.float64) - mean) / std, -self.clip, self.clip)
            z[missing] = 0.0
            channels[:, :width] = z
            channels[:, width:] = missing[:, positions]
        return out

    def to_json(self) -> str:
        """JSON that `from_json` turns into an equal scaler (Python writes floats so that they read back exactly)."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Scaler:
        """The scaler of `to_json`. Errors: InvalidConfigError."""
        try:
            raw = json.loads(text)
            names, masked = tuple(map(str, raw["features"])), tuple(map(str, raw["masked"]))
            mean, std = tuple(map(float, raw["mean"])), tuple(map(float, raw["std"]))
            clip, kind = float(raw["clip"]), raw["kind"]
        except (ArithmeticError, KeyError, TypeError, ValueError) as error:
            raise InvalidConfigError("A stored scaler", [f"{type(error).__name__}: {error}"]) from error
        if unknown := sorted(set(raw) - {field.name for field in fields(cls)}):
            raise InvalidConfigError("A stored scaler", [f"unknown keys {', '.join(unknown)}"])
        if not len(names) == len(mean) == len(std) or not set(masked) <= set(names):
            raise InvalidConfigError("A stored scaler", ["features, mean, std and masked do not fit together"])
        if not np.isfinite((*mean, *std, clip)).all() or min((*std, clip)) <= 0.0:
            raise InvalidConfigError("A stored scaler", ["mean, std and clip must be finite, std and clip positive"])
        if kind not in get_args(ScalerKind):
            known = ", ".join(get_args(ScalerKind))
            raise InvalidConfigError("A stored scaler", [f"kind: {kind!r} is not known; known are {known}"])
        return cls(names, mean, std, masked, clip, kind)


def _moments(values: FloatArray, kind: ScalerKind) -> tuple[float, float]:
    """Center and spread of one feature's finite values [N], N >= 1."""
    # The range decides, not std == 0: the mean of equal numbers may be off by one rounding.
    if values.min() == values.max():
        return float(values[0]), 1.0
    if kind == "zscore":
        return float(values.mean()), float(values.std())
    low, median, high = np.percentile(values, [25.0, 50.0, 75.0])
    spread = (high - low) / IQR_OF_NORMAL
    return float(median), float(spread if spread > 0.0 else values.std())
