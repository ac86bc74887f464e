"""Fits how often customers order again and whether they still do: BG/NBD, and what it lacks.

While a customer is with the shop, orders come at a rate of its own; after each order it may leave for good. Rates are
gamma and leaving is beta distributed over customers (Fader, Hardie, Lee, "Counting Your Customers the Easy Way",
Marketing Science 24, 2005). Orders on one day are one. Beyond the publication, unless it is wanted as it stands:

- customers with larger orders come more often: ``alpha`` is divided by a power of the units per order;
- customers slow down: ``t`` weeks after the first order stand for ``((1 + t)^(1 - slowing) - 1) / (1 - slowing)``;
- rates drift: of who returned, an order a half-life ago says half as much of what comes as one of today.
"""

from dataclasses import dataclass, fields, replace
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
LEAST_RETURNED = 50

_DAYS_PER_WEEK = 7
_START = np.array([np.log(0.5), np.log(5.0), 0.0, np.log(2.0), 0.0, 0.0])
_BOUNDS = [(-10.0, 10.0)] * 4 + [(0.0, 0.9), (-3.0, 3.0)]
_BOUNDS_AS_PUBLISHED = [*_BOUNDS[:4], (0.0, 0.0), (0.0, 0.0)]
_NEAREST_TO_ONE = 1e-6


@dataclass(frozen=True, slots=True)
class OrderHistories:
    """What the days with an order say of each customer; all arrays have shape (n_customers,).

    repeats : float64, order days after the first
    days_to_last, days_to_end : int64, from the first order to the last one and to the last day known
    log_weeks : float64, sum over order days of log(1 + weeks since the first)
    faded_repeats : float64, repeats, each halved per half-life of its age
    units : float64, units per order day, > 0
    """

    repeats: Floats
    days_to_last: Ints
    days_to_end: Ints
    log_weeks: Floats
    faded_repeats: Floats
    units: Floats

    @classmethod
    def of(cls, summaries: pa.Table) -> "OrderHistories":
        """From the rows of ``order_summaries`` with a half-life of HALF_LIFE_DAYS."""
        column = {name: summaries[name].to_numpy() for name in summaries.column_names}
        return cls(
            repeats=column["n_order_days"] - 1.0,
            days_to_last=column["days_since_first_order"] - column["days_since_last_order"],
            days_to_end=column["days_since_first_order"],
            log_weeks=column["log_weeks"],
            faded_repeats=column["faded_repeats"],
            units=column["units_per_order_day"],
        )

    def take(self, chosen: NDArray[np.bool_]) -> "OrderHistories":
        """Some of the customers."""
        return OrderHistories(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class RepeatBuying:
    """A fitted model: shape ``r`` and scale ``alpha`` (weeks) of rates, ``a`` and ``b`` of leaving.

    slowing, size_exponent : 0 in the model as published
    typical_units : units per order at which ``alpha`` holds
    drift_level : factor by which drifting rates are on average what they were; None: rates do not drift
    log_likelihood : of the histories that it was fitted on
    """

    r: float
    alpha: float
    a: float
    b: float
    slowing: float
    size_exponent: float
    typical_units: float
    drift_level: float | None
    log_likelihood: float

    def probability_alive(self, histories: OrderHistories) -> Floats:
        """Probability that a customer has not left, 1 for who ordered on one day only; shape (n_customers,)."""
        stayed, left = _log_outcomes(self.r, self._alphas(histories), self.a, self.b, histories, self.slowing)
        return np.asarray(expit(stayed - left))

    def expected_orders(self, histories: OrderHistories, days: float) -> Floats:
        """Expected order days within the days to come, shape (n_customers,).

        The conditional expectation of the publication, with its hypergeometric function in Euler's second form, which
        neither overflows nor cancels for a customer with hundreds of orders.
        """
        a = self.a if abs(self.a - 1) > _NEAREST_TO_ONE else 1 + _NEAREST_TO_ONE
        level, shape, scale = self._rates(histories)
        end = _clock(histories.days_to_end, self.slowing)
        ahead = level * (_clock(histories.days_to_end + days, self.slowing) - end)
        passed = ahead / (scale + ahead)
        outcomes = a + self.b + histories.repeats - 1
        series = hyp2f1(outcomes - shape, a - 1, outcomes, passed)
        if_alive = outcomes / (a - 1) * (1 - (1 - passed) ** (a - 1) * series)
        return np.asarray(if_alive * self.probability_alive(histories))

    def mean_rates(self, histories: OrderHistories) -> Floats:
        """Order days per week on the slowing clock of a customer who has not left, shape (n_customers,)."""
        level, shape, scale = self._rates(histories)
        return np.asarray(level * shape / scale)

    def _rates(self, histories: OrderHistories) -> tuple[Floats, Floats, Floats]:
        """Level, shape and scale of the gamma distribution of each customer's rate, shape (n_customers,) each."""
        alphas, returned = self._alphas(histories), histories.repeats > 0
        shape, scale = self.r + histories.repeats, alphas + _clock(histories.days_to_end, self.slowing)
        if self.drift_level is None:
            return np.ones_like(shape), shape, scale
        return (
            np.where(returned, self.drift_level, 1.0),
            np.where(returned, self.r + histories.faded_repeats, shape),
            np.where(returned, alphas + _faded_clock(histories.days_to_end, self.slowing), scale),
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
        _START,
        args=(histories,),
        jac=True,
        method="L-BFGS-B",
        bounds=_BOUNDS_AS_PUBLISHED if as_published else _BOUNDS,
        options={"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-8},
    )
    r, alpha, a, b = np.exp(found.x[:4]).tolist()
    slowing, size_exponent = found.x[4:].tolist()
    model = RepeatBuying(
        r=r,
        alpha=alpha,
        a=a,
        b=b,
        slowing=slowing,
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

    parameters : log r, log alpha, log a, log b, slowing, size exponent
    """
    r, base, a, b = np.exp(parameters[:4])
    slowing, size_exponent = parameters[4:]
    sizes = np.log(histories.units / _typical(histories.units))
    x, alpha = histories.repeats, base * np.exp(-size_exponent * sizes)
    stayed, left = _log_outcomes(r, alpha, a, b, histories, slowing)
    shared = gammaln(r + x) - gammaln(r) + r * np.log(alpha) + betaln(a, b + x) - betaln(a, b)
    likelihood = shared + np.logaddexp(stayed, left) - slowing * histories.log_weeks
    alive, gone = expit(stayed - left), expit(left - stayed)
    to_end, to_last = (alpha + _clock(days, slowing) for days in (histories.days_to_end, histories.days_to_last))
    end_slope, last_slope = (_clock_slope(days, slowing) for days in (histories.days_to_end, histories.days_to_last))
    by_alpha = r - (r + x) * alpha * (alive / to_end + gone / to_last)
    by_a_and_b = digamma(a + b) - digamma(a + b + x)
    gradient = (
        r * (digamma(r + x) - digamma(r) + np.log(alpha) - alive * np.log(to_end) - gone * np.log(to_last)),
        by_alpha,
        a * by_a_and_b + gone,
        b * (by_a_and_b + digamma(b + x) - digamma(b) - gone / _earlier_stays(b, x)),
        -(r + x) * (alive * end_slope / to_end + gone * last_slope / to_last) - histories.log_weeks,
        -by_alpha * sizes,
    )
    return -float(likelihood.mean()), -np.mean(gradient, axis=1)


def _log_outcomes(
    r: float, alpha: Floats, a: float, b: float, histories: OrderHistories, slowing: float
) -> tuple[Floats, Floats]:
    """Log-likelihood, but for what they share, of having stayed and of having left after the last order."""
    x = histories.repeats
    stayed = -(r + x) * np.log(alpha + _clock(histories.days_to_end, slowing))
    left = np.log(a / _earlier_stays(b, x)) - (r + x) * np.log(alpha + _clock(histories.days_to_last, slowing))
    return stayed, np.where(x > 0, left, -np.inf)


def _earlier_stays(b: float, x: Floats) -> Floats:
    """``b + x - 1``; any positive number for who cannot have left."""
    return np.where(x > 0, b + x - 1, 1.0)


def _typical(units: Floats) -> float:
    return float(np.exp(np.log(units).mean()))


def _clock(days: NDArray[Any], slowing: float) -> Floats:
    """Weeks since the first order, counted slower and slower."""
    return np.asarray(np.expm1((1 - slowing) * np.log1p(days / _DAYS_PER_WEEK)) / (1 - slowing))


def _clock_slope(days: Ints, slowing: float) -> Floats:
    """Derivative of the clock in ``slowing``."""
    grown = (1 - slowing) * np.log1p(days / _DAYS_PER_WEEK)
    return np.asarray((np.expm1(grown) - grown * np.exp(grown)) / (1 - slowing) ** 2)


def _faded_clock(days: Ints, slowing: float) -> Floats:
    """The clock, each of its days halved per half-life of its age."""
    ticks = np.diff(_clock(np.arange(days.max() + 1), slowing), prepend=0.0)
    return np.asarray(lfilter([1.0], [1.0, -(0.5 ** (1 / HALF_LIFE_DAYS))], ticks)[days])
