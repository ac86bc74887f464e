"""Features of what is offered: prices and promotions of a target, of what preceded it and of what stands beside it.

Prices and promotions are planned, so all of this is known of a target at its origin. Rivals are the other series of the
same category at the same location. Prices are compared as logarithms; NaN is unknown.

Shapes: S series, H horizon steps, W the periods of a window and the horizon after it.
"""

import numpy as np

from features.known import Known, latest, mean, median, ratio, summed
from features.panels import PRICES, PROMOTIONS, Floats, Ints
from features.periods import DAYS

WINDOW = 26
"""Periods before the origin that say what a price usually is, and what sold on which offer."""
_DISCOUNTED = np.float32(-0.08)
_LIKENESS = {"price": np.float32(1 / 0.05), "mailer": np.float32(1.5), "display": np.float32(0.7)}
_ANALOGUES = 104
_WEEKLY_DECAY = 0.97


def price_features(known: Known) -> dict[str, Floats]:
    """Prices of the target beside what was paid, was asked, and is asked for rivals."""
    offers = known.panel.offers
    revenue = known.panel.revenue[:, : known.origin]
    usual, recent = (
        ratio(latest(revenue, n).sum(axis=1, keepdims=True), latest(known.sold, n).sum(axis=1, keepdims=True))
        for n in (known.origin, 4)
    )
    planned, base = (offers[name][:, known.ahead] for name in PRICES)
    listed = mean(latest(offers["price"][:, : known.origin], WINDOW))[:, None]
    return {
        "price": usual,
        "price_recent": ratio(recent, usual),
        "price_planned": ratio(planned, np.where(np.isnan(listed), usual, listed)),
        "price_off_base": ratio(planned, base),
        "price_off_last": ratio(planned, _before(offers["price"], known, 1)),
        **_discounts(known),
        **_among_rivals(known),
    }


def promotion_features(known: Known) -> dict[str, Floats]:
    """Display and mailer of the target, before it and around it, and what sold in periods that were offered alike."""
    offers = known.panel.offers
    share = np.fmax(offers["display"], offers["mailer"])
    columns = {
        "mean_promoted_alike": _promoted_alike(known, share),
        "mean_offered_alike": _offered_alike(known),
        "promoted_last": _before(share, known, 1),
    }
    for name in PROMOTIONS:
        ahead = offers[name][:, known.ahead]
        columns |= {
            name: ahead,
            f"{name}_usual": mean(latest(offers[name][:, : known.origin], 8))[:, None],
            f"{name}_of_rivals": mean_of_rivals(ahead, known),
            f"{name}_of_item": _mean_of_item(ahead, known),
            f"{name}_1": _before(offers[name], known, 1),
            f"{name}_2": _before(offers[name], known, 2),
            f"periods_since_{name}": _periods_since(offers[name] > 0, known),
        }
    return columns


def _discounts(known: Known) -> dict[str, Floats]:
    """Price over the usual one, at the target and before it."""
    discount = known.log_price - _usual(known)
    ahead = discount[:, known.ahead]
    lags = {f"discount_{k}": _before(discount, known, k) for k in (1, 2, 3)}
    return {
        "discount": ahead,
        **lags,
        "periods_since_discount": _periods_since(discount < _DISCOUNTED, known),
        "discount_of_item": _mean_of_item(ahead, known),
        "discount_of_rivals": mean_of_rivals(ahead, known),
        "deepest_discount_of_rivals": _least_of_rivals(ahead, known),
    }


def _among_rivals(known: Known) -> dict[str, Floats]:
    prices = known.log_price[:, max(0, known.origin - WINDOW) : known.ahead.stop]
    over_rivals = prices - mean_of_rivals(prices, known)
    planned, ahead = prices[:, -known.panel.horizon :], over_rivals[:, -known.panel.horizon :]
    return {
        "price_over_rivals": ahead,
        "price_over_rivals_change": ahead - mean(over_rivals[:, : -known.panel.horizon])[:, None],
        "price_over_cheapest_rival": planned - _least_of_rivals(planned, known),
        "share_of_cheaper_rivals": _share_below(planned, known),
    }


def _usual(known: Known) -> Floats:
    """Logarithm of the median price of the latest ``WINDOW`` periods before the origin, shape (S, 1)."""
    return median(latest(known.log_price[:, : known.origin], WINDOW))[:, None]


def _before(values: Floats, known: Known, k: int) -> Floats:
    """Each target's value ``k`` periods earlier, shape (S, H)."""
    missing = np.full((len(values), max(0, k - known.origin)), np.nan, np.float32)
    return np.concatenate([missing, values[:, max(0, known.origin - k) : known.ahead.stop - k]], axis=1)


def _periods_since(happened: np.ndarray, known: Known) -> Floats:
    """Periods from the latest one before each target in which something happened, within the window; shape (S, H)."""
    start = max(0, known.origin - WINDOW)
    there = happened[:, start : known.ahead.stop - 1]
    at = np.maximum.accumulate(np.where(there, np.arange(there.shape[1], dtype=np.int32), np.int32(-1)), axis=1)
    last = at[:, known.origin - start - 1 :]
    since = np.arange(known.panel.horizon) + known.origin - start - last
    return np.where(last >= 0, since, np.nan).astype(np.float32)


def _mean_of_item(values: Floats, known: Known) -> Floats:
    """Mean over the series of the same item, shape of the values."""
    there = ~np.isnan(values) * known.held
    return ratio(*(summed(each, known.item)[known.item] for each in (np.nan_to_num(values) * there, there)))


def mean_of_rivals(values: Floats, known: Known) -> Floats:
    """Mean over the other series of the same category and place, shape of the values."""
    there = ~np.isnan(values) * known.held
    own = np.nan_to_num(values) * there
    total, counted = (summed(each, known.rivals)[known.rivals] - each for each in (own, there))
    return ratio(total, counted)


def _least_of_rivals(values: Floats, known: Known) -> Floats:
    """Least value of the others: the least of the group, for the one whose it is the second."""
    there = np.where(~np.isnan(values) & (known.held > 0), values, np.float32(np.inf))
    found = np.stack([_least_of_others(column, known.rivals) for column in there.T], axis=1)
    return np.where(np.isfinite(found), found, np.float32(np.nan))


def _least_of_others(values: Floats, group: Ints) -> Floats:
    """The same of one column without NaN, shape (S,)."""
    order = np.lexsort((values, group))
    ascending, sizes = values[order], np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    second = np.where(sizes > 1, ascending[np.minimum(starts + 1, len(values) - 1)], np.float32(np.inf))
    least = ascending[starts][group]
    return np.where(values == least, second[group], least)


def _share_below(values: Floats, known: Known) -> Floats:
    """Share of the others of a group that have less, NaN where nobody knows."""
    there = ~np.isnan(values) * known.held
    others = summed(there, known.rivals)[known.rivals] - there
    below = np.stack([_n_below(*pair, known.rivals) for pair in zip(values.T, there.T, strict=True)], axis=1)
    return np.where(np.isnan(values), np.float32(np.nan), ratio(below, others))


def _n_below(values: Floats, counted: Floats, group: Ints) -> Floats:
    """How many that count have less than each one in its group, shape (S,)."""
    order = np.lexsort((values, group))
    ascending, groups = values[order], group[order]
    begins = np.diff(groups, prepend=-1) > 0
    rises = begins | (np.diff(ascending, prepend=np.nan) != 0)
    before = np.cumsum(counted[order]) - counted[order]
    first, start = (before[np.maximum.accumulate(np.where(at, np.arange(len(at)), 0))] for at in (rises, begins))
    below = np.empty_like(values)
    below[order] = first - start
    return below


def _promoted_alike(known: Known, share: Floats) -> Floats:
    """Mean relative demand, shape (S, H), of the latest periods that were promoted at all, or not, as the target is."""
    before, ahead = latest(share[:, : known.origin], WINDOW), share[:, known.ahead]
    past = latest(known.relative, WINDOW)
    promoted, usual = (mean(np.where(alike, past, np.nan))[:, None] for alike in (before > 0, before == 0))
    return np.where(ahead > 0, promoted, np.where(ahead == 0, usual, np.nan)).astype(np.float32)


def _offered_alike(known: Known) -> Floats:
    """Mean relative demand of the past, shape (S, H), a period weighing as much as its offer was like the target's.

    The weight falls by e with 5 % of price, two thirds of a mailer or 1.4 of a display, and by 3 % a week of age.
    What is unknown of an offer makes no difference.
    """
    start = max(0, known.origin - _ANALOGUES)
    offered = {"price": known.log_price, **{name: known.panel.offers[name] for name in PROMOTIONS}}
    decay = _WEEKLY_DECAY ** (DAYS[known.panel.frequency] / 7)
    recent = (decay ** np.arange(known.origin - start, 0, -1)).astype(np.float32)
    sold, promised = known.sold[:, start:], (known.exposure * known.level)[:, start:]
    columns = []
    for period in range(known.ahead.start, known.ahead.stop):
        unlike = sum(
            np.nan_to_num(np.abs(values[:, start : known.origin] - values[:, period, None])) * _LIKENESS[name]
            for name, values in offered.items()
        )
        weight = np.exp(-np.asarray(unlike)) * recent
        columns.append(ratio((weight * sold).sum(axis=1), (weight * promised).sum(axis=1)))
    return np.stack(columns, axis=1)
