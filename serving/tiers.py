"""The tiers of a recommender: each scores the whole catalogue for a batch of histories, from arrays alone.

A tier is a frozen dataclass of arrays and numbers. ``training.recommend`` fits it, ``save`` writes it into an artifact,
``load`` reads it back memory-mapped, and the same ``scores`` answers in training, evaluation and the service.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.histories import EventWeights, Histories
from serving.artifact import Artifact, Draft

Scores = NDArray[np.float32]


class Tier(Protocol):
    """What every tier can do, whatever it was fitted by."""

    reason: ClassVar[str]
    """Why an item is recommended when this tier speaks for it, for people."""

    def scores(self, histories: Histories) -> Scores:
        """How well each item suits each person, float32, shape (n_users, n_items); higher is better, any scale.

        A person without events gets a row of equal scores, except from tiers that need no history.
        """


T = TypeVar("T")


def save(draft: Draft, name: str, tier: Any) -> None:  # noqa: ANN401
    """Write a tier's arrays as ``NAME.FIELD.npy``, its encoder as ``NAME.FIELD.onnx``, its numbers as ``NAME.json``."""
    numbers = {}
    for field in fields(tier):
        value = getattr(tier, field.name)
        if isinstance(value, np.ndarray):
            draft.array(f"{name}.{field.name}", value)
        elif isinstance(value, bytes):
            draft.onnx(f"{name}.{field.name}", value)
        else:
            numbers[field.name] = value
    draft.json(name, numbers)


def load(artifact: Artifact, name: str, kind: type[T]) -> T:
    """A tier as ``save`` wrote it; arrays stay memory-mapped.

    Raises ArtifactError when a file is missing.
    """
    numbers = artifact.json(name)
    rest = {
        field.name: (artifact.onnx if field.type is bytes else artifact.array)(f"{name}.{field.name}")
        for field in fields(kind)  # type: ignore[arg-type]
        if field.name not in numbers
    }
    return kind(**numbers, **rest)


@dataclass(frozen=True, slots=True)
class Popularity:
    """What everybody wants now.

    popularity : float32, shape (n_items,)
    """

    reason: ClassVar[str] = "popular now"
    popularity: Scores

    def scores(self, histories: Histories) -> Scores:
        return np.broadcast_to(self.popularity, (histories.n_users, len(self.popularity)))


@dataclass(frozen=True, slots=True)
class PopularAlike:
    """What everybody wants now of what is like the history: popularity within each attribute value that it has.

    values : int32, shape (n_items, n_slots), attribute values; where an item has fewer, ``n_values``
    shares : float32, shape (n_items, n_slots), the item's part of the popularity of all items of the value; zero there
    n_values : number of attribute values
    event_weights, half_life_days : float32, shape (n_kinds,), as in ``EventWeights``
    """

    reason: ClassVar[str] = "popular among what is like it"
    values: NDArray[np.int32]
    shares: Scores
    n_values: int
    event_weights: Scores
    half_life_days: Scores

    def scores(self, histories: Histories) -> Scores:
        width, weights = self.n_values + 1, EventWeights(self.event_weights, self.half_life_days).affinities(histories)
        places = histories.users[:, None] * width + self.values[histories.items]
        spread = np.broadcast_to(weights[:, None], places.shape).ravel()
        profile = np.bincount(places.ravel(), spread, histories.n_users * width).reshape(-1, width).astype(np.float32)
        scores = np.zeros((histories.n_users, len(self.values)), np.float32)
        for values, shares in zip(self.values.T, self.shares.T, strict=True):
            scores += profile[:, values] * shares
        return scores


def moments(histories: Histories) -> NDArray[np.int64]:
    """The number of the moment of each event, counted through all people, int64, shape (n,).

    Events of one person of the same age are of one moment, as the lines of an order are.

    >>> moments(Histories(np.array([0, 3]), np.arange(3), np.zeros(3, np.int8), np.array([2.0, 2.0, 1.0])))
    array([0, 0, 1])
    """
    begins = np.diff(histories.ages, prepend=np.float32(np.nan)) != 0
    begins[histories.starts[:-1][histories.lengths > 0]] = True
    return np.cumsum(begins) - 1


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Items that go with those of the history: ``score_j = sum_h weight_h * similarity_hj``.

    neighbours : int32, shape (n_items, n_neighbours)
    similarities : float32, shape (n_items, n_neighbours); zero where there are fewer neighbours
    event_weights, half_life_days : float32, shape (n_kinds,), as in ``EventWeights``
    position_decay : an event after which there were m other moments counts ``position_decay ** m``
    """

    reason: ClassVar[str] = "goes with what was chosen before"
    neighbours: NDArray[np.int32]
    similarities: Scores
    event_weights: Scores
    half_life_days: Scores
    position_decay: float

    def scores(self, histories: Histories) -> Scores:
        n_items, weights = len(self.neighbours), self._weights(histories)
        heard = weights > 1e-6
        places, of_event = np.unique(histories.users[heard] * n_items + histories.items[heard], return_inverse=True)
        weights = np.bincount(of_event, weights[heard], len(places)).astype(np.float32)
        users, items = np.divmod(places, n_items)
        found = self.similarities[items] * weights[:, None]
        to = self.neighbours[items] + (users * n_items)[:, None]
        flat = np.bincount(to.ravel(), found.ravel(), histories.n_users * n_items)
        return flat.reshape(histories.n_users, n_items).astype(np.float32)

    def links(self, histories: Histories, candidates: NDArray[np.int64], n: int) -> Scores:
        """The positive similarities of each candidate to the items of the history, the ``n`` largest, largest first.

        An item of the history counts once and whole, however often and long ago it was met.

        candidates : int64, shape (n_users, n_candidates), each once per user
        Returns float32, shape (n_users, n_candidates, n); zero where there are fewer.
        """
        n_items, n_users = len(self.neighbours), histories.n_users
        users, items = np.divmod(np.unique(histories.users * n_items + histories.items), n_items)
        cells = np.full((n_users, n_items), -1, np.int32)
        np.put_along_axis(cells, candidates, np.arange(candidates.size).reshape(candidates.shape), 1)
        cell, similarity = cells[users[:, None], self.neighbours[items]], self.similarities[items]
        is_link = (cell >= 0) & (similarity > 0)
        cell, similarity = cell[is_link], similarity[is_link]
        order = np.lexsort((-similarity, cell))
        cell, similarity = cell[order], similarity[order]
        place = np.arange(len(cell)) - np.searchsorted(cell, cell)
        found = np.zeros((candidates.size, n), np.float32)
        found[cell[place < n], place[place < n]] = similarity[place < n]
        return found.reshape(*candidates.shape, n)

    def _weights(self, histories: Histories) -> NDArray[np.float32]:
        """What each event counts, float32, shape (n,)."""
        moment, lengths = moments(histories), histories.lengths
        last = moment[histories.starts[1:][lengths > 0] - 1]
        n_later = np.repeat(last, lengths[lengths > 0]) - moment
        weights = EventWeights(self.event_weights, self.half_life_days).affinities(histories)
        return weights * np.float32(self.position_decay) ** n_later
