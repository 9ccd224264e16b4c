"""Scaling and imputation: features as a model reads them. Learned from training sessions only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from trading_core.errors import InvalidConfigError, NoDataError
from trading_core.schema import Float32Array, FloatArray, IntArray

MASK_SUFFIX = "__missing"


@dataclass(frozen=True, slots=True)
class Scaler:
    """z = clip((value - mean) / std, -clip, clip); a missing value becomes 0, the training mean.

    features: F names. mean, std: F floats each. masked: the features that get a mask channel (1.0 where missing).
    clip: in standard deviations.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    masked: tuple[str, ...] = ()
    clip: float = 5.0

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
    ) -> Scaler:
        """Mean and standard deviation (ddof 0) of the finite values of the training columns, in float64.

        values: [S, T, F]. columns: the training columns; nothing else is read. A row with no known feature at all is
        an absent bar and says nothing about missing values; of the other rows, a feature that misses more than the
        share `mask_above` of them is masked. A constant feature has std 1.
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
            # The range decides, not std == 0: the mean of equal numbers may be off by one rounding.
            constant = finite.min() == finite.max()
            mean.append(float(finite[0]) if constant else float(finite.mean()))
            std.append(1.0 if constant else float(finite.std()))
            if 1.0 - finite.size / len(column) > mask_above:
                masked.append(name)
        return cls(tuple(features), tuple(mean), tuple(std), tuple(masked), clip)

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
            clip = float(raw["clip"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidConfigError("A stored scaler", [f"{type(error).__name__}: {error}"]) from error
        if not len(names) == len(mean) == len(std) or not set(masked) <= set(names):
            raise InvalidConfigError("A stored scaler", ["features, mean, std and masked do not fit together"])
        return cls(names, mean, std, masked, clip)
