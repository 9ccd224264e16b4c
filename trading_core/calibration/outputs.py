"""What a network's numbers mean: its output columns as forecasts in the units of prices and probabilities.

Validation, calibration and inference read outputs here and nowhere else. N samples, H horizons, O output columns, Q quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

from trading_core.calibration.quantiles import p_up_from_quantiles
from trading_core.schema import Float32Array, FloatArray, InputSpec, Target


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """quantiles [N,H,Q] of the log return, ascending. p_up [N,H]: raw, not calibrated yet. score [N,H]: the higher the better.

    volatility [N,H]: of one session's log return over the horizon. classes [N,H,3]: P(Bear), P(Neutral), P(Bull).
    barrier [N,H,3]: P(stop), P(neither), P(take); both raw, too. None where the model has no such target.
    """

    quantiles: FloatArray
    p_up: FloatArray
    score: FloatArray
    volatility: FloatArray | None
    classes: FloatArray | None
    barrier: FloatArray | None

    def probabilities(self) -> dict[Target, FloatArray]:
        """[N,H,3] raw probabilities of each of CLASS_TARGETS that the model has."""
        found = {Target.CLASSES: self.classes, Target.BARRIER: self.barrier}
        return {target: values for target, values in found.items() if values is not None}


def read_outputs(output: Float32Array, spec: InputSpec, scale: FloatArray, sigma: FloatArray) -> Outputs:
    """output: [N,H,O] of the model. scale: [N,H], return = scaled return * scale. sigma: [N] trailing daily volatility."""
    values = output.astype(np.float64)

    def part(target: Target) -> FloatArray | None:  # [N,H,w]
        return values[..., spec.columns_of(target)] if target in spec.targets else None

    scaled = part(Target.QUANTILES)
    if scaled is None:
        raise ValueError(f"targets are {list(spec.targets)}; they must include '{Target.QUANTILES}'")
    quantiles = np.sort(scaled * scale[:, :, None], axis=-1)
    logit, rank, ratio = part(Target.DIRECTION), part(Target.RANK), part(Target.VOLATILITY)
    classes, barrier = part(Target.CLASSES), part(Target.BARRIER)
    scores = {Target.QUANTILES: quantiles[..., spec.median]}
    scores |= {
        name: found[..., 0] for name, found in ((Target.DIRECTION, logit), (Target.RANK, rank)) if found is not None
    }
    return Outputs(
        quantiles=quantiles,
        p_up=p_up_from_quantiles(quantiles, spec.quantiles) if logit is None else expit(logit[..., 0]),
        score=scores[spec.score],
        volatility=None if ratio is None else np.exp(ratio[..., 0]) * sigma[:, None],
        classes=None if classes is None else softmax(classes, axis=-1),
        barrier=None if barrier is None else softmax(barrier, axis=-1),
    )
