"""What a person comes back for: the chance that the next visit holds a thing, had before or not."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.histories import KINDS, Histories
from serving.tiers import moments

Floats = NDArray[np.float32]

TRAITS = (
    "intercept",
    *(f"log_1_plus_n_{kind}" for kind in KINDS),
    "log_visits",
    "log_visits_since_last",
    "log_1_plus_days_since_last",
    "log_events_per_item",
)
"""What a habit is judged by, in the order of ``Repeat.coefficients``; all but the item's own are the person's."""


class Habits(NamedTuple):
    """Each item of each person's history once, by person, then item.

    users, items : int64, shape (n,)
    traits : float32, shape (n, n_traits), in the order of ``TRAITS``
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    traits: Floats


def visits(histories: Histories) -> NDArray[np.int64]:
    """Number of the visit to which each event belongs, from 0 for each person's first, int64, shape (n,).

    Events of one instant are one visit: in a log of orders the order, in a log of clicks the click.
    """
    moment, is_anybody = moments(histories), histories.lengths > 0
    return moment - np.repeat(moment[histories.starts[:-1][is_anybody]], histories.lengths[is_anybody])


def habits(histories: Histories) -> Habits:
    """What is known of each person's wish for each item of the history at the moment of asking."""
    keys = histories.users << 32 | histories.items
    order = np.argsort(keys, kind="stable")
    pairs, firsts, n_events = np.unique(keys[order], return_index=True, return_counts=True)
    users, items = pairs >> 32, pairs & 0xFFFFFFFF
    last = order[firsts + n_events - 1]
    numbers = visits(histories)
    n_visits = numbers[histories.starts[users + 1] - 1] + 1
    n_pairs = np.bincount(users, minlength=histories.n_users)
    kinds = histories.kinds[order]
    traits = [
        np.ones(len(pairs)),
        *(np.log1p(np.add.reduceat(kinds == kind, firsts, dtype=np.float32)) for kind in range(len(KINDS))),
        np.log(n_visits),
        np.log(n_visits - numbers[last]),
        np.log1p(histories.ages[last]),
        np.log(histories.lengths[users] / n_pairs[users]),
    ]
    return Habits(users, items, np.stack(traits, axis=1).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Repeat:
    """The chance that the next visit holds an item: for one of the history by the habit, else as for any stranger.

    Where people come back to items less often than strangers take to them, what they have is lowered by ``aversion``.

    coefficients : float32, shape (n_traits,), of the log-odds
    effects : float32, shape (n_items,), log of how an item's odds differ from those of its traits
    strangers : float32, shape (n_items,), chance that a visit holds an item that the person never had
    aversion : from 0, where people come back as often as strangers come or more often, to 1, where they never do
    """

    reason: ClassVar[str] = "likely on the next visit"
    coefficients: Floats
    effects: Floats
    strangers: Floats
    aversion: float

    def scores(self, histories: Histories) -> Floats:
        users, items, traits = habits(histories)
        scores = np.where(histories.lengths[:, None] > 0, self.strangers, np.float32(0))
        log_odds = traits @ self.coefficients + self.effects[items]
        scores[users, items] = (1 + np.tanh(log_odds / 2)) / 2 - np.float32(self.aversion)
        return scores
