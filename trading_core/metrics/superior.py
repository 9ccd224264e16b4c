"""Which of several strategies are better than a benchmark, when the best of them was not known beforehand.

Sources: White (2000), "A Reality Check for Data Snooping"; Hansen (2005), "A Test for Superior Predictive Ability" (SPA);
Romano & Wolf (2005), "Stepwise Multiple Testing as Formalized Data Snooping" (StepM), and (2016), "Efficient Computation
of Adjusted p-Values for Resampling-Based Stepdown Multiple Testing"; Hsu, Hsu & Kuan (2010), who join the two.

The loss of a strategy is minus its return, so what is tested is its mean return above the benchmark's, studentised. Own
code and not `arch.bootstrap.SPA`: that one compares means that are not studentised (Hansen's point was that they should
be), needs far longer, and seconds to import. Tests hold the two side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.metrics.significance import RESAMPLES, Excluded, untestable
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class SuperiorAbility:
    """H0: no strategy has a higher mean return than the benchmark. `reason` says why the p-values are NaN, else "".

    p_lower, p_consistent, p_upper: Hansen's three. They differ in how strategies that did worse than the benchmark weigh:
    not at all, unless clearly worse, fully (White's reality check, studentised). The consistent one is the answer.
    p_adjusted: of each strategy in `strategies`, with the chance of a single false one among all of them kept at the
    level it is compared with (step-down, with the consistent centring). superior: those at or below `level`.
    """

    p_lower: float
    p_consistent: float
    p_upper: float
    statistic: float  # the largest studentised mean difference, at least 0
    best: str
    strategies: tuple[str, ...]  # those that were tested
    p_adjusted: tuple[float, ...]
    superior: tuple[str, ...]
    level: float
    returns: int
    block_length: float
    resamples: int
    excluded: tuple[Excluded, ...] = ()
    reason: str = ""


def superior_ability(
    returns: FloatArray,
    benchmark: FloatArray,
    names: Sequence[str],
    seed: int = 0,
    level: float = 0.05,
    *,
    resamples: int = RESAMPLES,
    block_length: float | None = None,
) -> SuperiorAbility:
    """Tests M strategies against a benchmark. returns: [N, M], benchmark: [N], simple returns of the same sessions.

    block_length: mean days of a block of the stationary bootstrap (default: the median over strategies of
    `optimal_block_length` of the differences). A strategy whose differences are not finite or do not vary (the benchmark
    itself) is left out and named in `excluded`; NaN with the reason when none is left, or for fewer than 30 sessions.
    One strategy alone is an ordinary one-sided test. Errors: InvalidConfigError.
    """
    if returns.shape != (len(benchmark), len(names)):
        raise InvalidConfigError(
            "The strategies", [f"returns of shape {returns.shape} for {len(benchmark)} sessions and {len(names)} names"]
        )
    if not 0.0 < level < 1.0:
        raise InvalidConfigError("The test of superior ability", [f"level: {level}; it lies between 0 and 1"])
    differences = np.asarray(returns, dtype=np.float64) - np.asarray(benchmark, dtype=np.float64)[:, None]
    reasons = [untestable(differences[:, m], what="differences") for m in range(len(names))]
    kept = [m for m, reason in enumerate(reasons) if not reason]
    excluded = tuple(Excluded(str(names[m]), reason) for m, reason in enumerate(reasons) if reason)
    if not kept:
        reason = "; ".join(dict.fromkeys(reasons)) or "there is no strategy"
        nan = math.nan
        return SuperiorAbility(nan, nan, nan, nan, "", (), (), (), level, len(benchmark), nan, 0, excluded, reason)
    tested = tuple(str(names[m]) for m in kept)
    return _tested(differences[:, kept], tested, excluded, seed, level, resamples, block_length)


def _tested(
    differences: FloatArray,
    names: tuple[str, ...],
    excluded: tuple[Excluded, ...],
    seed: int,
    level: float,
    resamples: int,
    block_length: float | None,
) -> SuperiorAbility:
    from trading_core.metrics import bootstrap  # imports numba, a second

    columns, count = range(len(names)), len(differences)
    if block_length is None:
        block_length = float(np.median([bootstrap.optimal_block_length(differences[:, m]) for m in columns]))
    drawn = bootstrap.stationary_bootstrap(differences, block_length, resamples, seed)
    means = differences.mean(axis=0)
    # The true bootstrap variance: the same for every number of resamples.
    error = np.sqrt(bootstrap.stationary_variance(differences, block_length) / count)
    statistic, null = means / error, (drawn.means - means) / error
    highest = max(float(statistic.max()), 0.0)
    bound = -math.sqrt(2.0 * math.log(math.log(count)))  # a strategy below it does not matter as N grows (Hansen 2005)
    lower, consistent = null + np.minimum(statistic, 0.0), null + np.where(statistic < bound, statistic, 0.0)
    adjusted = _step_down(consistent, statistic)
    return SuperiorAbility(
        p_lower=_p_value(lower.max(axis=1), highest),
        p_consistent=_p_value(consistent.max(axis=1), highest),
        p_upper=_p_value(null.max(axis=1), highest),
        statistic=highest,
        best=names[int(statistic.argmax())],
        strategies=names,
        p_adjusted=tuple(float(p) for p in adjusted),
        superior=tuple(name for name, p in zip(names, adjusted, strict=True) if p <= level),
        level=level,
        returns=count,
        block_length=block_length,
        resamples=resamples,
        excluded=excluded,
    )


def _p_value(null: FloatArray, observed: float) -> float:
    """The share of resampled maxima, at least 0 as the statistic is, that reach `observed`; never 0."""
    return (1.0 + float(np.sum(np.maximum(null, 0.0) >= observed))) / (1.0 + len(null))


def _step_down(null: FloatArray, statistic: FloatArray) -> FloatArray:
    """[M] adjusted p-values: each strategy against the best of it and of those behind it, null [B, M].

    With a level these are the rejections of StepM, all its rounds at once (Romano & Wolf 2016).
    """
    order = np.argsort(-statistic, kind="stable")
    best_of_rest = np.maximum.accumulate(null[:, order[::-1]], axis=1)[:, ::-1]
    p_values = [_p_value(best_of_rest[:, k], max(statistic[m], 0.0)) for k, m in enumerate(order)]
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(p_values)
    return adjusted
