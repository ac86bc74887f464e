"""What a way of ordering would have cost: periodic review with lost sales, replayed on demand that is known.

Shapes: N series, T periods. Before every period that is a review each policy sees the stock and what is on order and
places an order; what arrives then is on the shelf at the start of the period, sales are the lesser of stock and demand,
what is not served is lost and what is left is held. An order placed before period t with a lead time of L arrives at
the start of period t + L.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from serving.replenish import orders
from serving.supply import Bools, Floats, Ints, Paths, Position, Supply

Policy = Callable[[int, Floats, Floats], Floats]
"""Orders, float64 [N] in units >= 0, from the period's number, the stock on hand, float64 [N], and what is on order,
float64 [N, A], whose column a arrives at the start of the period numbered a further."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened under one policy.

    demand, lost, left, ordered : float64, shape (N, T), units demanded, lost and left at each period's end, and ordered
        before it
    closing : what is there and on order after the last period
    supply : the costs
    """

    demand: Floats
    lost: Floats
    left: Floats
    ordered: Floats
    closing: Position
    supply: Supply

    @property
    def holding_cost(self) -> Floats:
        """Money per period, shape (T,)."""
        return self.supply.holding_cost @ self.left

    @property
    def shortage_cost(self) -> Floats:
        """Money per period, shape (T,)."""
        return self.supply.shortage_cost @ self.lost

    @property
    def cost(self) -> Floats:
        """Money per period, shape (T,)."""
        return self.holding_cost + self.shortage_cost

    @property
    def fill_rate(self) -> Floats:
        """Share of demand served, per period, shape (T,); 1 where nothing was demanded."""
        demanded = self.demand.sum(axis=0)
        served: Floats = 1 - self.lost.sum(axis=0) / np.where(demanded > 0, demanded, 1)
        return served

    @property
    def cycle_service_level(self) -> Floats:
        """Share of series that lost nothing, per period, shape (T,)."""
        share: Floats = (self.lost == 0).mean(axis=0)
        return share


def simulate(demand: Floats, opening: Position, supply: Supply, policy: Policy) -> Outcome:
    """Replay demand under a policy, from a position before the first period.

    demand : float64, shape (N, T), units, >= 0
    opening : ``arrivals`` of shape (N, A), A free: what arrives at the start of the first A periods; owed units are
        served from the first arrivals
    supply : whole lead times, taken as certain; packs and minimum are the policy's to keep
    Raises ValueError when a lead time is a fraction or the policy orders what is negative or missing.

    >>> supply = Supply.from_days(1, [1.0], holding_cost=1.0, shortage_cost=1.0)
    >>> opening = Position(np.array([1.0]), np.zeros((1, 1)))
    >>> simulate(np.array([[2.0, 2.0]]), opening, supply, lambda period, on_hand, on_order: np.array([3.0])).cost
    array([1., 1.])
    """
    lead_time, review = _whole(supply.lead_time), supply.review.astype(np.int64)
    n_series, n_periods = demand.shape
    width = max(opening.arrivals.shape[1], int(lead_time.max(initial=0)) + 1)
    due = np.zeros((n_series, n_periods + width))
    due[:, : opening.arrivals.shape[1]] = opening.arrivals
    lost, left, ordered = (np.zeros_like(demand, np.float64) for _ in range(3))
    stock = opening.on_hand.astype(np.float64)
    for period in range(n_periods):
        placed = _checked(policy(period, stock.copy(), due[:, period : period + width].copy()))
        ordered[:, period] = np.where(period % review == 0, placed, 0)
        due[np.arange(n_series), period + lead_time] += ordered[:, period]
        stock = stock + due[:, period]
        sold = np.clip(stock, 0, demand[:, period])
        stock = stock - sold
        lost[:, period], left[:, period] = demand[:, period] - sold, np.maximum(stock, 0)
    return Outcome(demand, lost, left, ordered, Position(stock, due[:, n_periods:]), supply)


def steady_state(demand: Floats, supply: Supply, policy: Policy) -> Position:
    """The position in which a policy stands after a warm-up that starts from nothing.

    demand : float64, shape (N, T), units, of the periods before the ones to be replayed; T well above the lead time
    """
    nothing = Position(np.zeros(len(demand)), np.zeros((len(demand), 1)))
    return simulate(demand, nothing, supply, policy).closing


def clairvoyant(demand: Floats, opening: Position, supply: Supply) -> Policy:
    """The policy that knows demand: no policy costs less in ``simulate``, without packs and minimum.

    Without fixed costs each demanded unit stands for itself: what the opening position leaves unserved is best served
    from the latest order that arrives in time, if holding it until then costs less than losing it.

    demand, opening, supply : as for ``simulate``, ``opening`` without debts
    Raises ValueError when the opening owes units.
    """
    if (opening.on_hand < 0).any():
        raise ValueError(
            f"on_hand reaches {opening.on_hand.min():g}, foresight needs zero or more: settle what is owed"
        )
    lead_time, review = _whole(supply.lead_time), supply.review.astype(np.int64)
    unserved = simulate(demand, opening, supply, lambda _period, on_hand, _on_order: np.zeros_like(on_hand)).lost
    until = np.pad(unserved.cumsum(axis=1), ((0, 0), (1, 0)))
    worth_holding = (np.arange(review.max())[:, None] * supply.holding_cost < supply.shortage_cost).sum(axis=0)
    covers = np.minimum(review, worth_holding)

    def policy(period: int, on_hand: Floats, on_order: Floats) -> Floats:  # noqa: ARG001 - it knows what comes
        arrival = np.minimum(period + lead_time, demand.shape[1])
        return _at(until, np.minimum(arrival + covers, demand.shape[1])) - _at(until, arrival)

    return policy


def path_policy(paths: Callable[[int], Paths], supply: Supply, carry: float = 0.125) -> Policy:
    """The policy that orders from sample paths; see ``serving.replenish.orders``.

    paths : from the period's number, float32 [N, n_paths, n_steps], units demanded from that period on
    carry : as for ``orders``
    """

    def policy(period: int, on_hand: Floats, on_order: Floats) -> Floats:
        ahead = paths(period)
        coming = np.zeros((len(ahead), ahead.shape[2]))
        n_known = min(coming.shape[1], on_order.shape[1])
        coming[:, :n_known] = on_order[:, :n_known]
        return orders(ahead, supply, Position(on_hand, coming), carry).order_quantity

    return policy


def moving_average(
    sales: Floats,
    in_stock: Bools,
    season: Ints,
    first_period: int,
    *,
    window: int = 13,
    cover: Ints | int = 4,
    pack_size: float = 1.0,
) -> Policy:
    """The benchmark of the VN2 challenge: order up to some periods of a de-seasonalised moving average.

    Periods out of stock count as missing. The seasonal factor is the mean over series of each period, averaged over the
    periods of the same season and divided by the mean of all seasons; 1 for a season not yet seen.

    sales : float64, shape (N, P), units; period t of the simulation is column ``first_period + t``, and nothing from
        there on is read
    in_stock : bool, shape (N, P)
    season : int64, shape (P + the longest cover,) or longer, >= 0, for instance the ISO week
    window : periods averaged
    cover : int64, shape (N,) or one for all, periods of forecast to order up to, from the one that is about to begin
    pack_size : units; the order is rounded to the nearest pack
    Source: the organisers' published code of the VN2 Inventory Planning Challenge, 2025 (Vandeput).
    """
    longest = int(np.max(cover))

    def policy(period: int, on_hand: Floats, on_order: Floats) -> Floats:
        now = first_period + period
        known = np.where(in_stock, sales, np.nan)[:, :now]
        factors = seasonal_factors(known, season[: now + longest])
        level = _mean(known[:, -window:] / factors[now - known[:, -window:].shape[1] : now], axis=1)
        up_to = level * factors[now:].cumsum()[np.asarray(cover) - 1]
        missing: Floats = np.maximum(up_to - on_hand - on_order.sum(axis=1), 0)
        return pack_size * np.rint(missing / pack_size)

    return policy


def seasonal_factors(known: Floats, season: Ints) -> Floats:
    """The factor of every period from the periods known: its season's mean over the mean of all seasons seen.

    known : float64, shape (N, P), units, NaN where missing
    season : int64, shape (P + H,), >= 0
    Returns float64, shape (P + H,); 1 for a season not yet seen and where nothing is known.

    >>> seasonal_factors(np.array([[1.0, 3.0, 1.0]]), np.array([0, 1, 0, 1, 2]))
    array([0.5, 1.5, 0.5, 1.5, 1. ])
    """
    total = _mean(known, axis=0)
    past = season[: known.shape[1]]
    n_seasons = int(season.max()) + 1
    seen = np.bincount(past, minlength=n_seasons)
    mean = np.divide(np.bincount(past, total, n_seasons), seen, out=np.full(n_seasons, np.nan), where=seen > 0)
    overall = _mean(mean[None], axis=1)[0]
    factors = mean / overall if overall > 0 else np.ones(n_seasons)
    return np.where(factors > 0, factors, 1.0)[season]


def _mean(values: Floats, axis: int) -> Floats:
    """The mean of what is known, 0 where nothing is."""
    known = ~np.isnan(values)
    mean: Floats = np.where(known, values, 0).sum(axis=axis) / np.maximum(known.sum(axis=axis), 1)
    return mean


def _at(values: Floats, column: Ints) -> Floats:
    """One column of each row: (N, T) and (N,) to (N,)."""
    chosen: Floats = values[np.arange(len(values)), column]
    return chosen


def _whole(lead_time: Floats) -> Ints:
    whole = lead_time.astype(np.int64)
    if (whole != lead_time).any():
        first = int((whole != lead_time).argmax())
        raise ValueError(
            f"lead_time of series {first} is {lead_time[first]:g} periods, the simulator takes whole ones: round it"
        )
    return whole


def _checked(ordered: Floats) -> Floats:
    if not (ordered >= 0).all():
        first = int((~(ordered >= 0)).argmax())
        raise ValueError(f"the policy orders {ordered[first]:g} of series {first}: an order must be zero or more units")
    return ordered
