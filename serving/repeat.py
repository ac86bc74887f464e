"""What a person comes back for: the chance that a thing bought before is bought again."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.histories import KINDS, Histories

Floats = NDArray[np.float32]

TRAITS = (
    "intercept",
    *(f"log_{kind}s" for kind in KINDS),
    "log_visits",
    "log_visits_since",
    "log_days_since",
)
"""What a habit is judged by, in the order of ``Repeat.coefficients``."""


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

    Events of one instant are one visit; in a log of orders that is the order.
    """
    new = np.diff(histories.ages, prepend=0) != 0
    new[histories.starts[:-1][histories.lengths > 0]] = False
    ordinals = np.cumsum(new)
    firsts = histories.starts[:-1].clip(max=max(len(histories) - 1, 0))
    return ordinals - np.repeat(ordinals[firsts], histories.lengths) if len(histories) else ordinals


def habits(histories: Histories) -> Habits:
    """What is known of each person's wish for each item of the history at the moment of asking."""
    ordinals = visits(histories)
    n_visits = np.zeros(histories.n_users, np.int64)
    np.maximum.at(n_visits, histories.users, ordinals + 1)
    keys = histories.users << 32 | histories.items
    order = np.argsort(keys, kind="stable")
    firsts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    lasts = np.append(firsts[1:], len(order))[: len(firsts)] - 1
    users, items = np.divmod(keys[order][firsts], 1 << 32)
    counts = [np.add.reduceat(histories.kinds[order] == kind, firsts, dtype=np.float32) for kind in range(len(KINDS))]
    since = n_visits[users] - ordinals[order][lasts]
    traits = [
        np.ones(len(firsts)),
        *map(np.log1p, counts),
        np.log(n_visits[users]),
        np.log(since),
        np.log1p(histories.ages[order][lasts]),
    ]
    return Habits(users, items, np.stack(traits, axis=1).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Repeat:
    """The chance that the next visit holds an item of the history, less the chance that a stranger's does.

    An item that nobody buys twice scores below zero for those who have it; items outside the history score zero.

    coefficients : float32, shape (n_traits,), of the log-odds
    effects : float32, shape (n_items,), log of how much the odds of an item differ from those of its traits
    strangers : float32, shape (n_items,), chance that the next visit of somebody without the item holds it
    """

    reason: ClassVar[str] = "bought before"
    coefficients: Floats
    effects: Floats
    strangers: Floats

    def scores(self, histories: Histories) -> Floats:
        users, items, traits = habits(histories)
        scores = np.zeros((histories.n_users, len(self.effects)), np.float32)
        chances = 1 / (1 + np.exp(-(traits @ self.coefficients + self.effects[items])))
        scores[users, items] = chances - self.strangers[items]
        return scores
