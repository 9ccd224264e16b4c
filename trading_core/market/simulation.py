"""The law of the simulated market: plain numpy, one session after the other.

For symbol i and session t, in total log returns (dividends included), all rates per session:

    overnight   drift/4   + sqrt(1/4) * noise + jump
    intraday    3/4 drift + sqrt(3/4) * noise + ic / sqrt(1 - ic^2) * z[i, t-1] * sigma[i, t]
    noise       beta_i * m[t] + sector factor + idiosyncratic part; m and the last follow GARCH(1,1) (Bollerslev 1986)
    sigma^2     variance of the noise and jumps beside the market's mean move, known at the close of t-1

z[i, t] is the *signal*: a standardised mix of two things that the bar of t shows, its close location
(close - low) / (high - low) and its log volume less the mean of the 20 before. It moves the session after, between its
open and its close, so it is in the label log(open(t+2) / open(t+1)) of the decision at t's close. Highs and lows are
those of a Brownian bridge from open to close (density of the maximum: Karatzas & Shreve, 4.3.40), stretched
by a pressure that makes the close location more than a second look at the return.

The draws of a session come from a generator seeded with (seed, the session's day number) and every step reads only
the state before it: more sessions at the end leave the earlier rows as they are, bit for bit (on one machine; another
CPU's exp and log may differ in the last bit).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from trading_core.schema import BoolArray, FloatArray, IntArray

SESSIONS_PER_YEAR = 252
OVERNIGHT = 0.25  # share of a session's variance that falls between the close before and its open
GARCH_ALPHA, GARCH_BETA = 0.08, 0.90
CLOSE_LOCATION_WEIGHT = 0.9  # of the signal; the volume surprise has sqrt(1 - 0.9^2) = 0.44
VOLUME_WINDOW = 20
PRESSURE = 0.6  # log stretch of the room above (below) open and close per unit of pressure
PAYMENT_SPACING = SESSIONS_PER_YEAR // 4  # dividends are quarterly
_STATIC_STREAM = 0  # a day number that no session has: the draws that belong to no session


@dataclass(frozen=True, slots=True)
class SimulatedOptions:
    """The simulated market. Volatilities and rates are annual fractions; the bounds are in `__post_init__`."""

    symbols: int = 200
    start: date = date(2022, 1, 3)  # the recursions begin here: another start is another market
    seed: int = 11
    signal_ic: float = 0.10  # cross-sectional correlation of the true conditional mean with the one-session label
    signal_persistence: float = 0.0  # weight of yesterday's signal in today's (autocorrelation is a little more)
    sectors: int = 10
    drift: float = 0.05  # of the log price
    market_vol: float = 0.14
    sector_vol: float = 0.08
    idiosyncratic_vol: float = 0.22  # of the median symbol
    jumps_per_year: float = 1.5
    jump_vol: float = 0.05  # standard deviation of a jump, a log return
    late_listings: float = 0.10  # fraction of the symbols that list during the first three years
    delistings_per_year: float = 0.01  # hazard of a listed symbol
    splits_per_year: float = 0.05  # hazard of a listed symbol
    dividend_payers: float = 0.6  # fraction of the symbols
    dividend_yield: float = 0.02  # of a payer; in four payments

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[float, float]] = {
            "symbols": (2, 5000), "seed": (0, 2**31 - 1), "signal_ic": (0.0, 0.5), "signal_persistence": (0.0, 0.95),
            "sectors": (1, 100), "drift": (-0.5, 0.5), "market_vol": (0.0, 1.0), "sector_vol": (0.0, 1.0),
            "idiosyncratic_vol": (0.01, 2.0), "jumps_per_year": (0.0, 50.0), "jump_vol": (0.0, 0.5),
            "late_listings": (0.0, 0.9), "delistings_per_year": (0.0, 0.5), "splits_per_year": (0.0, 4.0),
            "dividend_payers": (0.0, 1.0), "dividend_yield": (0.0, 0.2),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must lie between {low} and {high}")
        if self.start < date(1990, 1, 2):
            raise ValueError(f"start is {self.start}; it must be 1990-01-02 or later, where the calendars begin")


@dataclass(frozen=True, slots=True)
class SimulatedPanel:
    """What happened on T sessions to N symbols; NaN (False in masks) where a symbol was not listed.

    `split`, `dividend` [T, N]: events announced at the close of row t, effective on the session after: new shares per
    old (1.0 = none) and cash per new share (0.0 = none). `last` [T, N]: the row is the symbol's last.
    `expected` [T, N]: mean of the label of row t, given everything up to its close.
    """

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    split: FloatArray
    dividend: FloatArray
    expected: FloatArray
    last: BoolArray
    sector: IntArray  # [N]


def simulate(options: SimulatedOptions, sessions: Sequence[date]) -> SimulatedPanel:
    """The market on `sessions`, which begin at the first session on or after `options.start`."""
    traits = _Traits.draw(options)
    state = _State.initial(options, traits)
    size = (len(sessions), options.symbols)
    fields = ("open", "high", "low", "close", "volume", "split", "dividend", "expected")
    out: dict[str, FloatArray] = {name: np.full(size, np.nan) for name in fields}
    last = np.zeros(size, dtype=np.bool_)
    for row, session in enumerate(sessions):
        listed = state.alive & (traits.listing <= row)
        shocks = _Shocks.draw(options, session)
        moves = _move(options, traits, state, shocks)
        bar = _trade(options, traits, state, shocks, moves)
        _advance_variances(options, traits, state, moves)
        _observe(options, traits, state, bar, listed)
        last[row] = _announce(options, traits, state, bar, shocks, listed, row)
        expected = options.drift / SESSIONS_PER_YEAR + state.tilt
        values = (bar.open, bar.high, bar.low, bar.close, bar.volume, state.split, state.dividend, expected)
        for name, value in zip(fields, values, strict=True):
            np.copyto(out[name][row], value, where=listed)
    return SimulatedPanel(**out, last=last, sector=traits.sector)


def _generator(options: SimulatedOptions, stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((options.seed, stream)))


@dataclass(frozen=True, slots=True)
class _Traits:
    """What never changes about the symbols, arrays [N]."""

    sector: IntArray
    beta: FloatArray
    base_variance: FloatArray  # idiosyncratic, per session
    price: FloatArray  # of the first open
    log_dollar_volume: FloatArray
    listing: IntArray  # row of the first bar
    dividend: FloatArray  # fraction of the price per payment, 0 for who pays none
    phase: IntArray  # of the payments

    @classmethod
    def draw(cls, options: SimulatedOptions) -> _Traits:
        rng, n = _generator(options, _STATIC_STREAM), options.symbols
        late = rng.permutation(n) < round(options.late_listings * n)
        return cls(
            sector=rng.integers(0, options.sectors, n),
            beta=np.clip(rng.normal(1.0, 0.25, n), 0.3, 1.8),
            base_variance=(options.idiosyncratic_vol * np.exp(rng.normal(0.0, 0.2, n))) ** 2 / SESSIONS_PER_YEAR,
            price=np.exp(rng.normal(np.log(60.0), 0.6, n)),
            log_dollar_volume=rng.normal(np.log(3e7), 1.0, n),
            listing=np.where(late, rng.integers(1, 3 * SESSIONS_PER_YEAR, n), 0),
            dividend=np.where(rng.random(n) < options.dividend_payers, options.dividend_yield / 4.0, 0.0),
            phase=rng.integers(0, PAYMENT_SPACING, n),
        )


@dataclass(slots=True)
class _State:
    """What one session hands to the next; arrays [N] unless noted."""

    alive: BoolArray  # not delisted
    reference: FloatArray  # the close before on the coming session's basis: split, less the dividend
    total_split: FloatArray  # shares now per share at listing
    market_variance: float  # of the coming session
    variance: FloatArray  # idiosyncratic, of the coming session
    activity: FloatArray  # slow part of log volume
    log_volumes: FloatArray  # [VOLUME_WINDOW, N], split-adjusted, NaN before listing, oldest row first
    signal: FloatArray
    tilt: FloatArray  # mean return that the signal adds to the coming session
    split: FloatArray  # announced for the coming session
    dividend: FloatArray

    @classmethod
    def initial(cls, options: SimulatedOptions, traits: _Traits) -> _State:
        n = options.symbols
        return cls(
            alive=np.ones(n, dtype=np.bool_),
            reference=traits.price.copy(),
            total_split=np.ones(n),
            market_variance=options.market_vol**2 / SESSIONS_PER_YEAR,
            variance=traits.base_variance.copy(),
            activity=np.zeros(n),
            log_volumes=np.full((VOLUME_WINDOW, n), np.nan),
            signal=np.zeros(n),
            tilt=np.zeros(n),
            split=np.ones(n),
            dividend=np.zeros(n),
        )


@dataclass(frozen=True, slots=True)
class _Shocks:
    """The draws of one session: standard normals and uniforms in [0, 1)."""

    normal: FloatArray  # [6, N] overnight, intraday, size of a jump, pressure, volume, activity
    uniform: FloatArray  # [6, N] jump, high, low, delisting, split, ratio of the split
    market: FloatArray  # [2] overnight, intraday
    sector: FloatArray  # [2, sectors]

    @classmethod
    def draw(cls, options: SimulatedOptions, session: date) -> _Shocks:
        rng = _generator(options, session.toordinal())
        market, sector = rng.standard_normal(2), rng.standard_normal((2, options.sectors))
        return cls(rng.standard_normal((6, options.symbols)), rng.random((6, options.symbols)), market, sector)


@dataclass(frozen=True, slots=True)
class _Bar:
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray  # shares
    log_volume: FloatArray  # of shares as they were at listing


@dataclass(frozen=True, slots=True)
class _Moves:
    """Log returns of one session."""

    overnight: FloatArray  # [N]
    intraday: FloatArray  # [N]
    market: float  # the GARCH part of the market factor, whole session
    idiosyncratic: FloatArray  # [N] the GARCH part of each symbol, whole session


def _move(options: SimulatedOptions, traits: _Traits, state: _State, shocks: _Shocks) -> _Moves:
    night, day = np.sqrt(OVERNIGHT), np.sqrt(1.0 - OVERNIGHT)
    drift = options.drift / SESSIONS_PER_YEAR
    market = np.sqrt(state.market_variance) * np.array([night, day]) * shocks.market
    sector = options.sector_vol / np.sqrt(SESSIONS_PER_YEAR) * shocks.sector[:, traits.sector]
    own = np.sqrt(state.variance) * shocks.normal[:2]
    jumps = shocks.uniform[0] < options.jumps_per_year / SESSIONS_PER_YEAR
    jump = np.where(jumps, options.jump_vol * shocks.normal[2], 0.0)
    noise_night = traits.beta * market[0] + night * (sector[0] + own[0])
    noise_day = traits.beta * market[1] + day * (sector[1] + own[1])
    return _Moves(
        overnight=OVERNIGHT * drift + noise_night + jump,
        intraday=(1.0 - OVERNIGHT) * drift + noise_day + state.tilt,
        market=float(market.sum()),
        idiosyncratic=night * own[0] + day * own[1],
    )


def _trade(options: SimulatedOptions, traits: _Traits, state: _State, shocks: _Shocks, moves: _Moves) -> _Bar:
    """Prices, with the range of a Brownian bridge of the session's own variance, and the volume."""
    sector_variance = options.sector_vol**2 / SESSIONS_PER_YEAR
    variance = state.variance + traits.beta**2 * state.market_variance + sector_variance
    opening = state.reference * np.exp(moves.overnight)
    closing = opening * np.exp(moves.intraday)
    size = np.abs(moves.intraday)
    # log1p(-u): u lies in [0, 1), so the logarithm is always finite
    room = -2.0 * (1.0 - OVERNIGHT) * variance * np.log1p(-shocks.uniform[1:3])
    above, below = 0.5 * (np.sqrt(size**2 + room) - size)
    pressure = np.exp(PRESSURE * shocks.normal[3])
    state.activity = 0.97 * state.activity + 0.08 * shocks.normal[5]
    surprise = np.minimum(np.abs(moves.overnight + moves.intraday) / np.sqrt(variance), 5.0)
    log_dollars = traits.log_dollar_volume + state.activity + 0.3 * shocks.normal[4] + 0.35 * (surprise - 0.8)
    volume = np.maximum(np.rint(np.exp(log_dollars) / closing), 1.0)
    return _Bar(
        open=opening,
        high=np.maximum(opening, closing) * np.exp(above / pressure),
        low=np.minimum(opening, closing) * np.exp(-below * pressure),
        close=closing,
        volume=volume,
        log_volume=np.log(volume / state.total_split),
    )


def _advance_variances(options: SimulatedOptions, traits: _Traits, state: _State, moves: _Moves) -> None:
    """GARCH(1,1) around the long-run variances; jumps, sector moves and the signal's tilt do not feed it."""
    rest = 1.0 - GARCH_ALPHA - GARCH_BETA
    base = options.market_vol**2 / SESSIONS_PER_YEAR
    state.market_variance = rest * base + GARCH_ALPHA * moves.market**2 + GARCH_BETA * state.market_variance
    state.variance = rest * traits.base_variance + GARCH_ALPHA * moves.idiosyncratic**2 + GARCH_BETA * state.variance


def _observe(options: SimulatedOptions, traits: _Traits, state: _State, bar: _Bar, listed: BoolArray) -> None:
    """The signal that the bar shows, and the mean return that it adds to the coming session."""
    location = (bar.close - bar.low) / np.maximum(bar.high - bar.low, 1e-300)
    seen = np.isfinite(state.log_volumes)
    past = np.where(seen, state.log_volumes, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    surprise = np.where(seen.any(axis=0), bar.log_volume - past, 0.0)
    weight = CLOSE_LOCATION_WEIGHT
    mix = weight * _standardised(location, listed) + np.sqrt(1.0 - weight**2) * _standardised(surprise, listed)
    memory = options.signal_persistence
    fresh = np.sqrt(1.0 - memory**2) * _standardised(mix, listed)
    # Standardised again: the tilt of today shows in today's close location, so the two parts are a little correlated.
    state.signal = _standardised(memory * state.signal + fresh, listed)
    state.log_volumes = np.vstack([state.log_volumes[1:], np.where(listed, bar.log_volume, np.nan)[None]])
    # Calibrated so that the cross-sectional correlation with the label is signal_ic: sigma is the noise beside the
    # market's mean move, which every symbol shares and a cross-section cannot see.
    spread = traits.beta - np.where(listed, traits.beta, 0.0).sum() / max(int(listed.sum()), 1)
    sector_variance = options.sector_vol**2 * (1.0 - 1.0 / options.sectors) / SESSIONS_PER_YEAR
    jump_variance = options.jumps_per_year / SESSIONS_PER_YEAR * options.jump_vol**2
    sigma = np.sqrt(state.variance + spread**2 * state.market_variance + sector_variance + jump_variance)
    state.tilt = options.signal_ic / np.sqrt(1.0 - options.signal_ic**2) * state.signal * sigma


def _standardised(values: FloatArray, listed: BoolArray) -> FloatArray:
    """Mean 0 and standard deviation 1 over the listed symbols; 0 for the others, and for all where nothing varies."""
    count = max(int(listed.sum()), 1)
    centred = np.where(listed, values - np.where(listed, values, 0.0).sum() / count, 0.0)
    deviation = float(np.sqrt((centred**2).sum() / count))
    return centred / deviation if deviation > 1e-12 else np.zeros_like(centred)


def _announce(
    options: SimulatedOptions,
    traits: _Traits,
    state: _State,
    bar: _Bar,
    shocks: _Shocks,
    listed: BoolArray,
    row: int,
) -> BoolArray:
    """Events announced at this close for the coming session; gives the symbols whose last bar this was."""
    leaving = listed & (shocks.uniform[3] < options.delistings_per_year / SESSIONS_PER_YEAR)
    staying = listed & ~leaving
    splitting = staying & (shocks.uniform[4] < options.splits_per_year / SESSIONS_PER_YEAR)
    forward = np.array([1.5, 2.0, 3.0])[(shocks.uniform[5] * 3.0).astype(np.int64)]
    ratio = np.where(bar.close < 10.0, 0.1, forward)  # a penny stock is consolidated, not split further
    paying = staying & ((traits.phase + row) % PAYMENT_SPACING == 0)
    state.split = np.where(splitting, ratio, 1.0)
    state.dividend = np.where(paying, np.round(traits.dividend * bar.close / state.split, 4), 0.0)
    state.total_split = state.total_split * state.split
    state.reference = np.where(listed, bar.close / state.split - state.dividend, state.reference)
    state.alive = state.alive & ~leaving
    return leaving
