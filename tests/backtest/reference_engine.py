"""The backtest once more, by hand: one session after the other, one symbol after the other, in dictionaries.

Written from what the docstrings of portfolio/ and backtest/ promise and for nothing but to be compared with the engine: no
arrays, nothing compiled, none of their functions. Money is in currency, quantities in shares (below 0: sold or sold short).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

from trading_core.costs import CostModel
from trading_core.portfolio.kernels.types import HOLD, SLOTS, TOP_K, WEIGHTS, Allocation
from trading_core.portfolio.risk import RiskLimits

Weights = dict[str, float]
KIND_ORDER = {"split": 0, "dividend": 1, "delisting": 2}


@dataclass(frozen=True, slots=True)
class Bar:
    open: float | None
    high: float
    low: float
    close: float | None
    volume: float


@dataclass(frozen=True, slots=True)
class Event:
    symbol: str
    day: date
    kind: str
    value: float


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill; `quantity` is signed. `before`: the price before costs."""

    day: date
    symbol: str
    quantity: float
    price: float
    commission: float
    reference: float
    before: float
    impact: float


@dataclass(frozen=True, slots=True)
class Miss:
    """An order that did not fill as ordered: `quantity` is what was ordered, signed; `why`: words of the reasons."""

    day: date
    symbol: str
    quantity: float
    stage: str
    why: tuple[str, ...]


@dataclass(slots=True)
class Session:
    """What an account was at a close and what happened to it since the close before."""

    day: date
    equity: float
    cash: float
    held: dict[str, float]
    turnover: float = 0.0
    commission: float = 0.0
    concession: float = 0.0
    impact: float = 0.0
    borrow: float = 0.0
    interest: float = 0.0
    dividends: float = 0.0
    proceeds: float = 0.0
    trades: list[Trade] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class History:
    """Bars by (symbol, day) and events; `days` are those with any bar."""

    symbols: tuple[str, ...]
    days: tuple[date, ...]
    bars: Mapping[tuple[str, date], Bar]
    events: tuple[Event, ...]
    fill_at: str = "open"

    def close(self, symbol: str, t: int) -> float | None:
        bar = self.bars.get((symbol, self.days[t]))
        return bar.close if bar else None

    def events_of(self, t: int) -> list[Event]:
        """What takes effect at the start of session t: its own events, and those of days without a session before it."""
        after = self.days[t - 1] if t > 0 else date.min
        due = [e for e in self.events if after < e.day <= self.days[t] and e.symbol in self.symbols]
        return sorted(due, key=lambda e: (e.day, KIND_ORDER[e.kind], e.symbol))

    def splits(self, symbol: str, start: int, end: int) -> float:
        """New shares per old, of all splits that take effect after session `start` and up to session `end`."""
        ratio = 1.0
        for t in range(start + 1, end + 1):
            for event in self.events_of(t):
                if event.symbol == symbol and event.kind == "split":
                    ratio *= event.value
        return ratio

    def mark(self, symbol: str, t: int) -> float | None:
        """The last known close, divided by the splits since."""
        for past in range(t, -1, -1):
            close = self.close(symbol, past)
            if close is not None:
                return close / self.splits(symbol, past, t)
        return None

    def price(self, symbol: str, t: int) -> float | None:
        """At which an order fills before costs; None where nothing traded."""
        bar = self.bars.get((symbol, self.days[t]))
        if bar is None or not bar.volume > 0:
            return None
        if self.fill_at == "open":
            return bar.open
        if self.fill_at == "close":
            return bar.close
        if bar.open is None or bar.close is None:
            return None
        return (bar.open + bar.high + bar.low + bar.close) / 4.0

    def liquidity(self, symbol: str, t: int) -> tuple[float | None, float | None]:
        """Volatility about zero of the returns over the last 20 sessions (at least 5 of them) and their average volume
        in the basis of t, both as known at the close of t."""
        squares, volumes = [], []
        for past in range(max(t - 19, 0), t + 1):
            bar = self.bars.get((symbol, self.days[past]))
            if bar is not None:
                volumes.append(bar.volume * self.splits(symbol, past, t))
            now, before = self.close(symbol, past), self.close(symbol, past - 1) if past > 0 else None
            if now is not None and before is not None:
                squares.append(math.log(now * self.splits(symbol, past - 1, past) / before) ** 2)
        sigma = math.sqrt(sum(squares) / len(squares)) if len(squares) >= 5 else None
        return sigma, sum(volumes) / len(volumes) if volumes else None


# --- decisions --------------------------------------------------------------------------------------------------------


def top_k(rule: Allocation, signal: Weights, tradable: set[str], weights: Weights) -> Weights:
    known = {s for s in signal if s in tradable}
    ranked = sorted((s for s in known if signal[s] > -math.inf), key=lambda s: (-signal[s], s))
    locked = [s for s in weights if weights[s] and s not in known]
    places = max(rule.k - len(locked), 0)
    reach = places + rule.buffer if rule.keep_share == 0 else max(places, math.ceil(rule.keep_share * len(ranked)))
    stay = [s for s in ranked[:reach] if weights[s]][:places]
    enter = [s for s in ranked if not weights[s]][: places - len(stay)]
    gone = [s for s in weights if weights[s] and s not in locked and s not in stay]
    budget = max(1.0 - sum(weights.values()), 0.0) + sum(weights[s] for s in gone)
    even = min(1.0 / rule.k, max(1.0 - sum(weights[s] for s in locked), 0.0) / places) if places else 0.0
    target = dict.fromkeys(weights, 0.0) | {s: weights[s] for s in locked}
    for s in stay:
        target[s] = even if rule.reweight else weights[s]
    for s in enter:
        target[s] = even if rule.reweight else budget / (places - len(stay))
    return target


def slots(rule: Allocation, signal: Weights, tradable: set[str], weights: Weights) -> Weights:
    known = {s for s in signal if s in tradable}
    wanted = {s for s in known if signal[s] > 0}
    locked = sum(weights[s] for s in weights if s not in known)
    sold = sum(weights[s] for s in known - wanted)
    target = {s: weights[s] if s not in known or (s in wanted and weights[s]) else 0.0 for s in weights}
    enter = [s for s in wanted if not weights[s]]
    for s in enter:
        slot = max(1.0 - locked, 0.0) / len(known)
        target[s] = min(slot, (max(1.0 - sum(weights.values()), 0.0) + sold) / len(enter))
    return target


def towards(rule: Allocation, signal: Weights, tradable: set[str], weights: Weights) -> Weights:
    known = {s for s in signal if s in tradable}
    room = max(rule.gross - sum(abs(weights[s]) for s in weights if s not in known), 0.0)
    wanted = sum(abs(signal[s]) for s in known)
    goal = {s: signal[s] * min(1.0, room / wanted) if wanted > 0 else 0.0 for s in known}
    left_alone = {s for s in known if goal[s] != 0.0 and abs(goal[s] - weights[s]) <= rule.band}
    moved = sum(abs(goal[s]) for s in known - left_alone)
    room = max(room - sum(abs(weights[s]) for s in left_alone), 0.0)
    scale = room / moved if moved > room + 1e-9 else 1.0
    return {s: goal[s] * scale if s in known - left_alone else weights[s] for s in weights}


def hold(rule: Allocation, signal: Weights, tradable: set[str], weights: Weights) -> Weights:
    if any(weights.values()):
        return dict(weights)
    names = [s for s in signal if s in tradable and signal[s] > 0]
    return {s: 1.0 / len(names) if s in names else 0.0 for s in weights}


ALLOCATIONS: dict[int, Callable[[Allocation, Weights, set[str], Weights], Weights]] = {
    TOP_K: top_k,
    SLOTS: slots,
    WEIGHTS: towards,
    HOLD: hold,
}


# --- one account ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Reference:
    """An account of `capital` that trades by `costs`, `limits` and the strategy's rule of allocation."""

    history: History
    capital: float
    costs: CostModel
    fractional: bool = True
    short: bool = False
    min_order_notional: float = 0.0
    limits: RiskLimits | None = None

    def run(self, rule: Allocation, signals: Mapping[date, Weights], first: int = 0) -> list[Session]:
        """signals: by day of decision, without the symbols whose signal is not known."""
        days = self.history.days
        now = Session(days[first], self.capital, self.capital, {})
        sessions = [now]
        for t in range(first + 1, len(days)):
            weights = self._weights(now, t - 1)
            target = dict(weights)
            if now.equity > 0 and (t - 1 - first) % rule.every == 0:
                tradable = {s for s in self.history.symbols if (self.history.close(s, t - 1) or 0.0) > 0}
                target = ALLOCATIONS[rule.kind](rule, signals.get(days[t - 1], {}), tradable, weights)
            now = self._session(now, t, weights, target)
            sessions.append(now)
        return sessions

    def _session(self, before: Session, t: int, weights: Weights, target: Weights) -> Session:
        now = Session(self.history.days[t], 0.0, before.cash, dict(before.held))
        orders = self._plan(before, t - 1, weights, target)
        if self.limits is not None:
            orders = self._check(before, now, t - 1, orders)
        self._night(now, t)
        self._auction(now, t, {s: q * self.history.splits(s, t - 1, t) for s, q in orders.items()})
        now.held = {s: q for s, q in now.held.items() if q != 0.0}
        now.equity = now.cash + sum(q * self._mark(s, t) for s, q in now.held.items())
        traded = sum(abs(trade.quantity) * trade.price for trade in now.trades)
        now.turnover = 0.5 * traded / before.equity if before.equity > 0 else 0.0
        return now

    def _mark(self, symbol: str, t: int) -> float:
        mark = self.history.mark(symbol, t)
        assert mark is not None, f"{symbol} is held without ever having had a price"
        return mark

    def _weights(self, now: Session, d: int) -> Weights:
        worth = {s: now.held.get(s, 0.0) * self._mark(s, d) if now.held.get(s) else 0.0 for s in self.history.symbols}
        return {s: value / now.equity if now.equity > 0 else 0.0 for s, value in worth.items()}

    def _floor(self, quantity: float) -> float:
        """To whole shares or millionths of one, a millionth of a step being forgiven."""
        steps = 1e6 if self.fractional else 1.0
        return math.floor(quantity * steps + 1e-6) / steps

    def _rate(self, name: str) -> float:
        return float(getattr(self.costs, name)) * 1e-4

    def _plan(self, now: Session, d: int, weights: Weights, target: Weights) -> dict[str, float]:
        concession = self._rate("half_spread_bps") + self._rate("slippage_bps")
        buying = (1.0 + concession) * (1.0 + self._rate("commission_bps"))
        selling = (1.0 - concession) * (1.0 - self._rate("commission_bps"))
        orders: dict[str, float] = {}
        cash, covers, amounts = now.cash, {}, {}
        for s in self.history.symbols:
            price, held = self.history.close(s, d), now.held.get(s, 0.0)
            if target[s] == weights[s] or price is None or price <= 0:
                continue
            if target[s] > weights[s]:
                crosses = held < 0 <= target[s]
                covers[s] = -held if crosses else 0.0
                amounts[s] = (target[s] - (0.0 if crosses else weights[s])) * now.equity
                continue
            if target[s] == 0.0:
                quantity = held
            elif held > 0 > target[s]:
                quantity = held + self._floor(-target[s] * now.equity / price)
            else:
                quantity = self._floor((weights[s] - target[s]) * now.equity / price)
                quantity = min(quantity, held) if held > 0 else quantity
            if quantity > 0 and (target[s] == 0.0 or quantity * price >= self.min_order_notional):
                orders[s] = -quantity
                cash += quantity * price * selling
        price_of = {s: self.history.close(s, d) or math.nan for s in amounts}
        need = sum(covers[s] * price_of[s] * buying + amounts[s] for s in amounts)
        scale = min(1.0, max(cash, 0.0) / need) if need > 0 else 0.0
        for s, amount in amounts.items():
            size = amount / (price_of[s] * buying)
            quantity = covers[s] + self._floor(size) if scale == 1.0 else self._floor(scale * (covers[s] + size))
            if quantity > 0 and (target[s] == 0.0 or quantity * price_of[s] >= self.min_order_notional):
                orders[s] = quantity
        return orders

    def _check(self, before: Session, now: Session, d: int, orders: dict[str, float]) -> dict[str, float]:
        limits = self.limits
        assert limits is not None
        allowed, why = dict(orders), {s: [] for s in orders}  # type: ignore[var-annotated]
        price = {s: self._mark(s, d) for s in orders}

        def closes(s: str) -> float:
            """How much of the order only closes a position."""
            held = before.held.get(s, 0.0)
            return min(abs(allowed[s]), abs(held)) if held * allowed[s] < 0 else 0.0

        def cut(name: str, most: Callable[[str], float]) -> None:
            for s in orders:
                limit = most(s) if allowed[s] else 0.0
                if abs(allowed[s]) > limit * (1.0 + 1e-9):
                    allowed[s] = math.copysign(self._floor(limit), allowed[s])
                    why[s].append(name)
                    closes_all = allowed[s] == -before.held.get(s, 0.0)
                    if 0.0 < abs(allowed[s]) * price[s] < self.min_order_notional and not closes_all:
                        allowed[s] = 0.0
                        why[s].append("min_order_notional")

        def room_of_position(s: str) -> float:
            side = math.copysign(1.0, allowed[s])
            room = limits.max_position * before.equity / price[s] - side * before.held.get(s, 0.0)
            return max(room, closes(s))

        cut("restricted", lambda s: 0.0 if s in limits.restricted else abs(allowed[s]))
        cut("max_order_notional", lambda s: limits.max_order_notional / price[s])
        if limits.max_volume_share is not None:
            share = limits.max_volume_share
            cut("max_volume_share", lambda s: share * (self.history.liquidity(s, d)[1] or 0.0))
        cut("max_position", room_of_position)
        if limits.max_names is not None:
            left = {s for s, q in before.held.items() if q != 0.0 and allowed.get(s, 0.0) != -q}
            new = [s for s in orders if allowed[s] != 0.0 and not before.held.get(s)]
            new.sort(key=lambda s: (-abs(orders[s]) * price[s], s))
            dropped = new[max(limits.max_names - len(left), 0) :]
            cut("max_names", lambda s: 0.0 if s in dropped else abs(allowed[s]))

        def opens(s: str) -> float:
            """Currency of what the order opens or enlarges."""
            return (abs(allowed[s]) - closes(s)) * price[s]

        def scale(name: str, room: float, names: list[str]) -> None:
            opened = sum(opens(s) for s in names)
            share = max(room, 0.0) / opened if opened > max(room, 0.0) * (1.0 + 1e-9) else 1.0
            cut(name, lambda s: closes(s) + (abs(allowed[s]) - closes(s)) * (share if s in names else 1.0))

        kept = sum(abs(q) * self._mark(s, d) for s, q in before.held.items())
        kept -= sum(closes(s) * price[s] for s in orders)
        scale("max_gross", limits.max_gross * before.equity - kept, list(orders))
        if limits.max_turnover is not None:
            closed = sum(closes(s) * price[s] for s in orders)
            scale("max_turnover", limits.max_turnover * before.equity - closed, list(orders))
        if limits.max_net is not None:
            net = sum(q * self._mark(s, d) for s, q in before.held.items())
            net += sum(allowed[s] * price[s] for s in orders)
            side = [s for s in orders if allowed[s] * net > 0]
            wanted = limits.max_net * before.equity - (abs(net) - sum(opens(s) for s in side))
            if abs(net) > limits.max_net * before.equity * (1.0 + 1e-9):
                scale("max_net", wanted, side)
        now.misses += [Miss(now.day, s, orders[s], "risk", tuple(why[s])) for s in orders if why[s]]
        return {s: quantity for s, quantity in allowed.items() if quantity != 0.0}

    def _night(self, now: Session, t: int) -> None:
        years = (self.history.days[t] - self.history.days[t - 1]).days / 365.0
        lent = sum(-q * self._mark(s, t - 1) for s, q in now.held.items() if q < 0)
        now.interest = max(now.cash, 0.0) * self._rate("interest_bps_annual") * years
        now.borrow = lent * self._rate("borrow_bps_annual") * years
        now.cash += now.interest - now.borrow
        for event in self.history.events_of(t):
            held = now.held.get(event.symbol, 0.0)
            if event.kind == "split":
                now.held[event.symbol] = held * event.value
            else:
                now.cash += held * event.value
            if event.kind == "dividend":
                now.dividends += held * event.value
            if event.kind == "delisting":
                now.proceeds += held * event.value
                now.held[event.symbol] = 0.0

    # --- the auction ---

    def _auction(self, now: Session, t: int, orders: dict[str, float]) -> None:
        wanted, why = dict(orders), {s: [] for s in orders}  # type: ignore[var-annotated]
        for s in orders:
            price, (sigma, adv) = self.history.price(s, t), self._liquidity(s, t)
            if price is None or price <= 0:
                wanted[s] = 0.0
                why[s].append("no trade at the open")
            elif self.costs.impact_coefficient > 0 and (sigma is None or not adv):
                wanted[s] = 0.0
                why[s].append("no known volume or volatility")
            elif self.costs.max_participation is not None:
                volume = self.history.bars[s, self.history.days[t]].volume
                cap = self._floor(self.costs.max_participation * volume)
                if abs(wanted[s]) > cap:
                    wanted[s] = math.copysign(cap, wanted[s])
                    why[s].append("capped at the largest share")
        self._sell(now, t, {s: -q for s, q in wanted.items() if q < 0}, why)
        self._buy(now, t, {s: q for s, q in wanted.items() if q > 0}, why)
        now.misses += [Miss(now.day, s, orders[s], "auction", tuple(why[s])) for s in sorted(orders) if why[s]]

    def _liquidity(self, symbol: str, t: int) -> tuple[float | None, float | None]:
        if self.costs.impact_coefficient == 0:
            return None, None
        sigma, adv = self.history.liquidity(symbol, t - 1)
        return sigma, None if adv is None else adv * self.history.splits(symbol, t - 1, t)

    def _fill(self, now: Session, t: int, symbol: str, quantity: float) -> Trade:
        """What a signed quantity costs at T; nothing is booked."""
        before = self.history.price(symbol, t)
        assert before is not None
        concession, impact = self._rate("half_spread_bps") + self._rate("slippage_bps"), 0.0
        sigma, adv = self._liquidity(symbol, t)
        if sigma is not None and adv is not None:
            impact = self.costs.impact_coefficient * sigma * math.sqrt(abs(quantity) / adv)
        away = concession + impact if quantity > 0 else min(concession + impact, 1.0)
        price = before * (1.0 + math.copysign(away, quantity))
        pushed = abs(quantity) * (abs(price - before) - before * concession) if impact else 0.0
        reference = (self.history.close(symbol, t - 1) or math.nan) / self.history.splits(symbol, t - 1, t)
        commission = abs(quantity) * price * self._rate("commission_bps")
        return Trade(now.day, symbol, quantity, price, commission, reference, before, pushed)

    def _book(self, now: Session, trade: Trade) -> None:
        now.cash -= trade.quantity * trade.price + trade.commission
        now.held[trade.symbol] = now.held.get(trade.symbol, 0.0) + trade.quantity
        now.commission += trade.commission
        now.concession += abs(trade.quantity) * abs(trade.price - trade.before) - trade.impact
        now.impact += trade.impact
        now.trades.append(trade)

    def _sell(self, now: Session, t: int, sizes: Mapping[str, float], why: Mapping[str, list[str]]) -> None:
        for s in sorted(sizes):
            size, held = sizes[s], now.held.get(s, 0.0)
            if size > held and not self.short:
                why[s].append("only what is held" if held > 0 else "nothing held to sell")
                size = max(held, 0.0)
            if size > 0:
                self._book(now, self._fill(now, t, s, -size))

    def _buy(self, now: Session, t: int, sizes: Mapping[str, float], why: Mapping[str, list[str]]) -> None:
        def bill(trades: Iterable[Trade]) -> float:
            return sum(trade.quantity * trade.price + trade.commission for trade in trades)

        fills = [self._fill(now, t, s, sizes[s]) for s in sorted(sizes)]
        if fills and bill(fills) > now.cash:
            scale = max(now.cash, 0.0) / bill(fills)
            while True:  # what float noise makes too dear by a hair shrinks by a hair more
                shrunk = {s: self._floor(sizes[s] * scale) for s in sorted(sizes)}
                fills = [self._fill(now, t, s, quantity) for s, quantity in shrunk.items() if quantity > 0]
                if not fills or bill(fills) <= now.cash:
                    break
                scale *= 1.0 - 1e-9
            for s in sizes:
                why[s].append("all buys shrunk alike" if shrunk[s] > 0 else "no cash left")
        for trade in fills:
            self._book(now, trade)
