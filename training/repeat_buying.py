"""Fits how often customers order again and whether they still do: BG/NBD, and what it lacks.

While a customer is with the shop, orders come at a rate of its own; after each order it may leave for good. Rates are
gamma and leaving is beta distributed over customers (Fader, Hardie, Lee, "Counting Your Customers the Easy Way",
Marketing Science 24, 2005). Orders on one day are one. Beyond the publication, unless it is wanted as it stands:

- customers with larger orders come more often: ``alpha`` is divided by a power of the units per order;
- newcomers come more often: ``t`` weeks after the first order the rate is ``1 + burst exp(-t / burst_weeks)`` times its
  own, so that time is counted as ``t + burst burst_weeks (1 - exp(-t / burst_weeks))``;
- rates drift: of who returned, an order a half-life ago says half as much of what comes as one of today.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.signal import lfilter
from scipy.special import betaln, digamma, expit, gammaln, hyp2f1

from features.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HALF_LIFE_DAYS = 91
"""A quarter: within the first 39 weeks of the CDNOW data half and twice as long order customers worse."""
LEAST_RETURNED = 50

_DAYS_PER_WEEK = 7
_START = np.array([np.log(0.5), np.log(5.0), 0.0, np.log(2.0), 0.5, np.log(4.0), 0.0])
_START_AS_PUBLISHED = np.append(_START[:4], [0.0, 0.0, 0.0])
_BOUNDS = [(-10.0, 10.0)] * 4 + [(0.0, 5.0), (0.0, np.log(26.0)), (-3.0, 3.0)]
_BOUNDS_AS_PUBLISHED = [*_BOUNDS[:4], *[(0.0, 0.0)] * 3]
_NEAREST_TO_ONE = 1e-6


@dataclass(frozen=True, slots=True)
class OrderHistories:
    """The days with an order of each customer, counted from its first.

    to_last, to_end : int64, shape (n_customers,), days to the last order and to the last day known
    units : float64, shape (n_customers,), units per order day, > 0
    repeats : float64, shape (n_customers,), order days after the first
    repeat_ages, repeat_of : int64, shape (n_repeats,), days to each of them, and whose it is
    """

    to_last: Ints
    to_end: Ints
    units: Floats
    repeats: Floats
    repeat_ages: Ints
    repeat_of: Ints

    @classmethod
    def of(cls, purchase_days: pa.Table, as_of: datetime) -> "OrderHistories":
        """From the rows of ``purchase_days`` before an instant, ordered by person and day."""
        persons = purchase_days["person_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        days = purchase_days["day"].to_numpy().astype("datetime64[D]").astype(np.int64)
        is_first, n_days = np.diff(persons, prepend=-1) > 0, np.bincount(persons)
        first, last = days[is_first], days[np.cumsum(n_days) - 1]
        repeat_of = persons[~is_first]
        return cls(
            to_last=last - first,
            to_end=np.datetime64((as_of - timedelta(seconds=1)).date()).astype(np.int64) - first,
            units=np.bincount(persons, purchase_days["units"].to_numpy()) / n_days,
            repeats=(n_days - 1).astype(np.float64),
            repeat_ages=days[~is_first] - first[repeat_of],
            repeat_of=repeat_of,
        )

    def take(self, chosen: NDArray[np.bool_]) -> "OrderHistories":
        """Some of the customers."""
        place, kept = np.cumsum(chosen) - 1, chosen[self.repeat_of]
        return OrderHistories(
            to_last=self.to_last[chosen],
            to_end=self.to_end[chosen],
            units=self.units[chosen],
            repeats=self.repeats[chosen],
            repeat_ages=self.repeat_ages[kept],
            repeat_of=place[self.repeat_of[kept]],
        )

    def faded_repeats(self) -> Floats:
        """Repeats, each halved per half-life before the last day known, shape (n_customers,)."""
        before_end = self.to_end[self.repeat_of] - self.repeat_ages
        weights = 0.5 ** (before_end / HALF_LIFE_DAYS)
        return np.asarray(np.bincount(self.repeat_of, weights, len(self.to_end)), np.float64)


@dataclass(frozen=True, slots=True)
class Clock:
    """Weeks since the first order as newcomers' burst makes them count."""

    burst: float
    burst_weeks: float

    def __call__(self, days: NDArray[Any]) -> Floats:
        weeks = days / _DAYS_PER_WEEK
        return np.asarray(weeks - self.burst * self.burst_weeks * np.expm1(-weeks / self.burst_weeks))

    def slopes(self, days: Ints) -> Floats:
        """Derivatives in ``burst`` and in the log of ``burst_weeks``, shape (2, n)."""
        weeks = days / _DAYS_PER_WEEK
        past = -self.burst_weeks * np.expm1(-weeks / self.burst_weeks)
        return np.array([past, self.burst * (past - weeks * np.exp(-weeks / self.burst_weeks))])

    def log_speed(self, days: Ints) -> tuple[float, Floats]:
        """Sum of the logs of the clock's speed at days, and its derivatives as for ``slopes``, shape (2,)."""
        weeks = days / _DAYS_PER_WEEK / self.burst_weeks
        left = np.exp(-weeks)
        shares = left / (1 + self.burst * left)
        return float(np.log1p(self.burst * left).sum()), np.array([shares.sum(), self.burst * (shares @ weeks)])

    def faded(self, days: Ints) -> Floats:
        """The clock at days, each day before them halved per half-life."""
        ticks = np.diff(self(np.arange(days.max() + 1)), prepend=0.0)
        return np.asarray(lfilter([1.0], [1.0, -(0.5 ** (1 / HALF_LIFE_DAYS))], ticks)[days])


@dataclass(frozen=True, slots=True)
class RepeatBuying:
    """A fitted model: shape ``r`` and scale ``alpha`` (weeks) of rates, ``a`` and ``b`` of leaving.

    clock : without a burst in the model as published
    size_exponent : 0 in the model as published
    typical_units : units per order at which ``alpha`` holds
    drift_level : factor by which drifting rates are on average what they were; None: rates do not drift
    log_likelihood : of the histories that it was fitted on
    """

    r: float
    alpha: float
    a: float
    b: float
    clock: Clock
    size_exponent: float
    typical_units: float
    drift_level: float | None
    log_likelihood: float

    def probability_alive(self, histories: OrderHistories) -> Floats:
        """Probability that a customer has not left, 1 for who ordered on one day only; shape (n_customers,)."""
        stayed, left = _log_outcomes(self.r, self._alphas(histories), self.a, self.b, histories, self.clock)
        return np.asarray(expit(stayed - left))

    def expected_orders(self, histories: OrderHistories, days: float) -> Floats:
        """Expected order days within the days to come, shape (n_customers,).

        The conditional expectation of the publication, with its hypergeometric function in Euler's second form, which
        neither overflows nor cancels for a customer with hundreds of orders.
        """
        a = self.a if abs(self.a - 1) > _NEAREST_TO_ONE else 1 + _NEAREST_TO_ONE
        level, shape, scale = self._rates(histories)
        ahead = level * (self.clock(histories.to_end + days) - self.clock(histories.to_end))
        passed = ahead / (scale + ahead)
        outcomes = a + self.b + histories.repeats - 1
        series = hyp2f1(outcomes - shape, a - 1, outcomes, passed)
        if_alive = outcomes / (a - 1) * (1 - (1 - passed) ** (a - 1) * series)
        return np.asarray(if_alive * self.probability_alive(histories))

    def mean_rates(self, histories: OrderHistories) -> Floats:
        """Order days per week of the clock while a customer has not left, shape (n_customers,)."""
        level, shape, scale = self._rates(histories)
        return np.asarray(level * shape / scale)

    def _rates(self, histories: OrderHistories) -> tuple[Floats, Floats, Floats]:
        """Level, shape and scale of the gamma distribution of each customer's rate, shape (n_customers,) each."""
        alphas, returned = self._alphas(histories), histories.repeats > 0
        shape, scale = self.r + histories.repeats, alphas + self.clock(histories.to_end)
        if self.drift_level is None:
            return np.ones_like(shape), shape, scale
        return (
            np.where(returned, self.drift_level, 1.0),
            np.where(returned, self.r + histories.faded_repeats(), shape),
            np.where(returned, alphas + self.clock.faded(histories.to_end), scale),
        )

    def _alphas(self, histories: OrderHistories) -> Floats:
        return np.asarray(self.alpha * (histories.units / self.typical_units) ** -self.size_exponent)


def fit(histories: OrderHistories, as_published: bool = False) -> RepeatBuying:
    """The parameters of greatest likelihood.

    as_published : BG/NBD alone
    Raises UserError when fewer than 50 customers ordered on a second day.
    """
    n_returned = int((histories.repeats > 0).sum())
    if n_returned < LEAST_RETURNED:
        raise UserError(
            f"{n_returned} of {len(histories.repeats)} customers ordered on a second day, at least {LEAST_RETURNED} "
            "are needed to learn how customers return: give a longer history or a later --until"
        )
    found = minimize(
        negative_log_likelihood,
        _START_AS_PUBLISHED if as_published else _START,
        args=(histories,),
        jac=True,
        method="L-BFGS-B",
        bounds=_BOUNDS_AS_PUBLISHED if as_published else _BOUNDS,
        options={"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-8},
    )
    r, alpha, a, b = np.exp(found.x[:4]).tolist()
    burst, log_weeks, size_exponent = found.x[4:].tolist()
    model = RepeatBuying(
        r=r,
        alpha=alpha,
        a=a,
        b=b,
        clock=Clock(burst, float(np.exp(log_weeks))),
        size_exponent=size_exponent,
        typical_units=_typical(histories.units),
        drift_level=None,
        log_likelihood=-float(found.fun) * len(histories.repeats),
    )
    return model if as_published else _drifting(model, histories)


def _drifting(model: RepeatBuying, histories: OrderHistories) -> RepeatBuying:
    """The model whose customers' rates drift, and on average stay where they were."""
    likely = model.probability_alive(histories) * (histories.repeats > 0)
    drifting = replace(model, drift_level=1.0)
    before, after = (likely @ each.mean_rates(histories) for each in (model, drifting))
    return replace(drifting, drift_level=float(before / after))


def negative_log_likelihood(parameters: Floats, histories: OrderHistories) -> tuple[float, Floats]:
    """Per customer, with its gradient.

    parameters : log r, log alpha, log a, log b, burst, log burst_weeks, size exponent
    """
    r, base, a, b = np.exp(parameters[:4])
    burst, log_weeks, size_exponent = parameters[4:]
    clock, sizes = Clock(burst, np.exp(log_weeks)), np.log(histories.units / _typical(histories.units))
    x, alpha = histories.repeats, base * np.exp(-size_exponent * sizes)
    stayed, left = _log_outcomes(r, alpha, a, b, histories, clock)
    shared = gammaln(r + x) - gammaln(r) + r * np.log(alpha) + betaln(a, b + x) - betaln(a, b)
    speed, speed_slopes = clock.log_speed(histories.repeat_ages)
    alive, gone = expit(stayed - left), expit(left - stayed)
    to_end, to_last = alpha + clock(histories.to_end), alpha + clock(histories.to_last)
    by_end, by_last = (r + x) * alive / to_end, (r + x) * gone / to_last
    by_alpha = r - alpha * (by_end + by_last)
    by_a_and_b = digamma(a + b) - digamma(a + b + x)
    gradient = np.array(
        [
            r * (digamma(r + x) - digamma(r) + np.log(alpha) - alive * np.log(to_end) - gone * np.log(to_last)).sum(),
            by_alpha.sum(),
            (a * by_a_and_b + gone).sum(),
            b * (by_a_and_b + digamma(b + x) - digamma(b) - gone / _earlier_stays(b, x)).sum(),
            *(speed_slopes - clock.slopes(histories.to_end) @ by_end - clock.slopes(histories.to_last) @ by_last),
            -(by_alpha @ sizes),
        ]
    )
    return -float((shared + np.logaddexp(stayed, left)).sum() + speed) / len(x), -gradient / len(x)


def _log_outcomes(
    r: float, alpha: Floats, a: float, b: float, histories: OrderHistories, clock: Clock
) -> tuple[Floats, Floats]:
    """Log-likelihood, but for what they share, of having stayed and of having left after the last order."""
    x = histories.repeats
    stayed = -(r + x) * np.log(alpha + clock(histories.to_end))
    left = np.log(a / _earlier_stays(b, x)) - (r + x) * np.log(alpha + clock(histories.to_last))
    return stayed, np.where(x > 0, left, -np.inf)


def _earlier_stays(b: float, x: Floats) -> Floats:
    """``b + x - 1``; any positive number for who cannot have left."""
    return np.where(x > 0, b + x - 1, 1.0)


def _typical(units: Floats) -> float:
    return float(np.exp(np.log(units).mean()))
