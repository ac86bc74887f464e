"""A randomised campaign whose effect on every customer is known."""

from typing import NamedTuple

import numpy as np

NAMES = ("activity", "recency", "spend", "views", "carts", "age", "tier", "pause")


class Campaign(NamedTuple):
    """An entry per touch; ``effect`` is what treatment adds to the probability of a purchase."""

    rows: np.ndarray
    treated: np.ndarray
    bought: np.ndarray
    effect: np.ndarray


def campaign(n, seed=0, share=0.5):
    """Spend makes persuadable, views annoy the others; tier 2 does not care; activity and recency raise all purchases.

    A pause is missing for three in ten.
    """
    rng = np.random.default_rng(seed)
    pause = np.where(rng.random(n) < 0.3, np.nan, rng.exponential(size=n))
    rows = np.column_stack([rng.normal(size=(n, 6)), rng.integers(0, 3, n), pause])
    activity, recency, spend, views, _, _, tier, _ = rows.T
    response = (tier < 2) * np.where(spend > 0.5, 1.8, np.where(views > 1, -1.2, 0.0))
    logit = -1.5 + 0.8 * activity + 0.4 * recency
    held_out, if_treated = (1 / (1 + np.exp(-logit - added)) for added in (0, response))
    treated = rng.random(n) < share
    bought = rng.random(n) < np.where(treated, if_treated, held_out)
    return Campaign(rows, treated, bought, if_treated - held_out)


def captured(uplift, effect, share=0.2):
    """The true effect on a share of highest predicted uplift, over that on as many of highest true effect."""
    n = round(share * len(effect))
    return effect[np.argsort(-uplift, kind="stable")[:n]].sum() / np.sort(effect)[-n:].sum()
