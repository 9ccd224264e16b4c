"""From a row of signals to target weights."""

from __future__ import annotations

import math

import numpy as np

from trading_core.portfolio.kernels.compiled import compiled
from trading_core.portfolio.kernels.types import GIVEN, SLACK, SLOTS, TOP_K, WEIGHTS, Allocation
from trading_core.schema import BoolArray, FloatArray, IntArray


@compiled
def _sink(scores: FloatArray, columns: IntArray, place: int) -> None:
    """Moves the entry at `place` of a heap down to where it belongs: the worst is on top, of equal ones the last column."""
    score, column, child = scores[place], columns[place], 2 * place + 1
    while child < len(scores):
        right = child + 1
        if right < len(scores) and (
            scores[right] < scores[child] or (scores[right] == scores[child] and columns[right] > columns[child])
        ):
            child = right
        if scores[child] > score or (scores[child] == score and columns[child] < column):
            break
        scores[place], columns[place] = scores[child], columns[child]
        place, child = child, 2 * child + 1
    scores[place], columns[place] = score, column


@compiled
def _bar(score: FloatArray, count: int) -> float:
    """A score that at least `count` columns reach: the lowest of the best of as many blocks. count: 1 .. all."""
    size, low = len(score) // count, math.inf
    for block in range(count):
        high = -math.inf
        for s in range(block * size, (block + 1) * size):
            high = score[s] if score[s] > high else high
        low = min(low, high)
    return low


@compiled
def _mark_best(score: FloatArray, count: int, best: BoolArray) -> IntArray:
    """Marks the `count` highest scores above -inf in `best`; of equal ones the first columns. Returns their columns.

    One pass over the scores that reach a bar, with the best so far in a heap: only few replace the worst of them.
    """
    best[:] = False
    low = _bar(score, count) if 0 < count <= len(score) else -math.inf
    scores, columns, size, s = np.empty(max(count, 0)), np.empty(max(count, 0), np.int64), 0, 0
    while s < len(score) and size < count:
        if score[s] > -math.inf and score[s] >= low:
            scores[size], columns[size] = score[s], s
            size += 1
        s += 1
    if s < len(score) and size > 0:
        for place in range(size // 2 - 1, -1, -1):
            _sink(scores, columns, place)
        worst = scores[0]
        for later in range(s, len(score)):
            if score[later] > worst:
                scores[0], columns[0] = score[later], later
                _sink(scores, columns, 0)
                worst = scores[0]
    for i in range(size):
        best[columns[i]] = True
    return columns[:size]


@compiled
def _top_k(rule: Allocation, signal: FloatArray, known: BoolArray, weights: FloatArray, target: FloatArray) -> None:
    """See `Allocation`. Of the open places each gets an equal share of the spare cash and of the weights sold."""
    count = len(signal)
    score, best = np.empty(count), np.empty(count, np.bool_)
    held, held_count = np.empty(count, np.int64), 0
    locked, locked_weight, spare = 0, 0.0, 1.0
    for s in range(count):
        score[s] = signal[s] if known[s] else -math.inf
        if weights[s] != 0.0:
            spare -= weights[s]
            held[held_count] = s
            held_count += 1
            if not known[s]:
                locked += 1
                locked_weight += weights[s]
    held = held[:held_count]
    places = max(rule.k - locked, 0)
    keep = places + rule.buffer
    if rule.keep_share > 0.0:
        keep = max(places, math.ceil(rule.keep_share * np.sum(score > -math.inf)))
    chosen = _mark_best(score, keep if places > 0 else 0, best)
    even = min(1.0 / rule.k, max(1.0 - locked_weight, 0.0) / places) if places > 0 else 0.0
    stays, budget = _keep(rule, score, best, known, weights, held, places, even, max(spare, 0.0), target)
    # Of the best that are not held there are at least as many as open places, where so many are known.
    entering = np.sort(chosen[weights[chosen] == 0.0])
    if len(entering) > places - stays:
        entering = entering[_mark_best(score[entering], places - stays, best[: len(entering)])]
    for s in entering:
        target[s] = even if rule.reweight else budget / (places - stays)


@compiled
def _keep(
    rule: Allocation,
    score: FloatArray,
    best: BoolArray,
    known: BoolArray,
    weights: FloatArray,
    held: IntArray,
    places: int,
    even: float,
    budget: float,
    target: FloatArray,
) -> tuple[int, float]:
    """Targets of what is held: at most `places` of the `best` stay, with what is not known. Returns how many of the
    best do, and `budget` with the weights of what is sold."""
    stays = 0
    for s in held:
        stays += best[s]
    if stays > places:
        among = np.full(len(score), -math.inf)
        for s in held:
            if best[s]:
                among[s] = score[s]
        stays = len(_mark_best(among, places, best))
    for s in held:
        if not known[s]:
            target[s] = weights[s]
        elif best[s]:
            target[s] = even if rule.reweight else weights[s]
        else:
            budget += weights[s]
    return stays, budget


@compiled
def _slots(signal: FloatArray, known: BoolArray, weights: FloatArray, target: FloatArray) -> None:
    """See `Allocation`. What stays is left alone; what is new gets its slot, or an equal share of what can pay for it."""
    slots, new, locked, spare, sold = 0, 0, 0.0, 1.0, 0.0
    for s in range(len(signal)):
        held, chosen = weights[s] != 0.0, known[s] and signal[s] > 0.0
        slots += known[s]
        new += chosen and not held
        spare -= weights[s]
        locked += weights[s] if held and not known[s] else 0.0
        sold += weights[s] if held and known[s] and not chosen else 0.0
        target[s] = weights[s] if chosen or not known[s] else 0.0
    for s in range(len(signal)):
        if known[s] and signal[s] > 0.0 and weights[s] == 0.0:
            target[s] = min(max(1.0 - locked, 0.0) / slots, (max(spare, 0.0) + sold) / new)


@compiled
def _weights(rule: Allocation, signal: FloatArray, known: BoolArray, weights: FloatArray, target: FloatArray) -> None:
    """See `Allocation`. What cannot be traded or is not known stays and leaves the others the rest of `gross`."""
    locked, wanted = 0.0, 0.0
    for s in range(len(signal)):
        if known[s]:
            wanted += abs(signal[s])
        else:
            locked += abs(weights[s])
    room = max(rule.gross - locked, 0.0)
    scale = room / wanted if wanted > room else 1.0
    moved = 0.0
    for s in range(len(signal)):
        goal = signal[s] * scale if known[s] else weights[s]
        target[s] = weights[s] if abs(goal - weights[s]) <= rule.band and goal != 0.0 else goal
        if target[s] != weights[s]:
            moved += abs(target[s])
        elif known[s]:
            room -= abs(weights[s])
    # What is left alone may lie above its goal, by up to the band each: then the others get what is left of the room.
    if moved > max(room, 0.0) + SLACK:
        for s in range(len(signal)):
            if target[s] != weights[s]:
                target[s] *= max(room, 0.0) / moved


@compiled
def allocate(
    rule: Allocation, signal: FloatArray, tradable: BoolArray, weights: FloatArray, ordinal: int
) -> FloatArray:
    """Target weights [S] for a row of signals [S]. `tradable`: has a bar at D; `ordinal`: decisions since the first."""
    target = np.zeros(len(signal))
    known = np.empty(len(signal), np.bool_)
    held = False
    for s in range(len(signal)):
        known[s] = tradable[s] & (not math.isnan(signal[s]))
        held |= weights[s] != 0.0
    if rule.kind == GIVEN:
        target[:] = signal
    elif ordinal % rule.every != 0:
        target[:] = weights
    elif rule.kind == TOP_K:
        _top_k(rule, signal, known, weights, target)
    elif rule.kind == SLOTS:
        _slots(signal, known, weights, target)
    elif rule.kind == WEIGHTS:
        _weights(rule, signal, known, weights, target)
    else:
        names = np.sum(known & (signal > 0.0))
        for s in range(len(signal)):
            target[s] = weights[s] if held else 1.0 / names if known[s] and signal[s] > 0.0 else 0.0
    return target


@compiled
def flawed(target: FloatArray, weights: FloatArray, tradable: BoolArray, max_gross: float, short: bool) -> bool:
    """Whether targets may not be acted on: not finite, negative where `short` is not allowed, above the limit of leverage
    (or the present gross weight, where drift has brought it higher), or moving a symbol without a bar."""
    gross, now = 0.0, 0.0
    for s in range(len(target)):
        if target[s] != 0.0 or weights[s] != 0.0:
            if not math.isfinite(target[s]) or (target[s] < 0.0 and not short):
                return True
            if not tradable[s] and target[s] != weights[s]:
                return True
            gross += abs(target[s])
            now += abs(weights[s])
    return gross > max(max_gross, now) + SLACK
