"""Chooses the weights with which the tiers' scores are added, on events that the tiers did not see."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.histories import Histories, Log, log, wanted
from features.windows import Window
from serving.recommend import CONTEXT_KIND, Question, standardised
from serving.tiers import Scores, Tier

K = 10
N_PER_TIER = 100
CHUNK = 256
STEPS = (-1.0, 0.0, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.6, 2.5)
"""Weights that are tried; the negative one lets a tier speak against, as repeat does where nothing is bought twice."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked and what would have been right.

    histories : one per question
    relevant : int64, sorted, distinct ``question * n_items + item``; each question has at least one
    n_items : size of the catalogue
    user_ids : who asks, where people do
    """

    histories: Histories
    relevant: NDArray[np.int64]
    n_items: int
    user_ids: list[str]

    @property
    def n_relevant(self) -> NDArray[np.int64]:
        return np.bincount(self.relevant // self.n_items, minlength=self.histories.n_users)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the tiers would show, question by question; rows are padded with candidates of which ``real`` is False.

    items : int32, shape (n_questions, n_candidates)
    scores : float32, shape (n_tiers, n_questions, n_candidates), standardised over the catalogue
    real, relevant : bool, shape (n_questions, n_candidates)
    n_relevant : int64, shape (n_questions,), candidates or not
    """

    items: NDArray[np.int32]
    scores: Scores
    real: NDArray[np.bool_]
    relevant: NDArray[np.bool_]
    n_relevant: NDArray[np.int64]

    def ndcg(self, weights: NDArray[np.float32]) -> float:
        """Mean NDCG@10 of the candidates ranked by their weighted scores."""
        total = np.where(self.real, np.tensordot(weights, self.scores, 1), -np.inf)
        return float(ndcg(total, self.relevant, self.n_relevant).mean())


def ndcg(
    scores: NDArray[np.floating], relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64]
) -> NDArray[np.float64]:
    """NDCG@10 of each question's candidates ranked by their scores, shape (n_questions,).

    scores, relevant : shape (n_questions, n_candidates)
    n_relevant : shape (n_questions,), relevant items, candidates or not
    """
    k = min(K, scores.shape[1])
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable")
    hits = np.take_along_axis(relevant, np.take_along_axis(top, order, 1), 1)
    discounts = 1 / np.log2(np.arange(K) + 2)
    gains: NDArray[np.float64] = (hits @ discounts[:k]) / np.cumsum(discounts)[np.minimum(n_relevant, K) - 1]
    return gains


def questions(window: Window, item_ids: list[str], n_questions: int, repeats: bool) -> dict[Question, Asked | None]:
    """What to learn a blend from; None where there is nothing.

    ``personal`` asks with a person's history what it wanted in the window; ``similar`` asks with one item of a visit
    for the others of that visit or, where visits hold one item each, with a person's last item for the next.
    """
    known, truth = log(window.past, window.as_of, item_ids), wanted(window, item_ids)
    personal = asked_by_people(known, truth, n_questions, repeats)
    return {"personal": personal, "similar": asked_in_visits(truth, n_questions) or _with_the_last_item_alone(personal)}


def weights(fitted: Mapping[str, Tier], asked: Asked | None, repeats: bool) -> dict[str, float]:
    """The weight of each tier with which they rank best by NDCG@10; even ones where nothing can be learned."""
    if asked is None:
        return dict.fromkeys(fitted, 1.0)
    quality = candidates(fitted, asked, repeats).ndcg
    together, alone = np.ones(len(fitted), np.float32), np.eye(len(fitted), dtype=np.float32)
    found = climb(quality, max([together, *alone], key=quality))
    return dict(zip(fitted, found.tolist(), strict=True))


def asked_by_people(known: Log, truth: Log, n_questions: int, repeats: bool) -> Asked | None:
    """People with a history who wanted something, at most ``n_questions`` of them."""
    place = {user_id: index for index, user_id in enumerate(known.user_ids)}
    owners = np.array([place.get(user_id, -1) for user_id in truth.user_ids], np.int64)
    users, items, n_items = owners[truth.histories.users], truth.histories.items, truth.n_items
    relevant = np.unique(users[users >= 0] * n_items + items[users >= 0])
    if not repeats:
        relevant = np.setdiff1d(relevant, known.histories.users * n_items + known.histories.items)
    people = _sample(np.unique(relevant // n_items), n_questions)
    user_ids = [known.user_ids[person] for person in people]
    return _renumbered(known.histories.take(people), people, relevant, n_items, user_ids) if len(people) else None


def asked_in_visits(truth: Log, n_questions: int) -> Asked | None:
    """Visits with several items: one drawn item asks for the others."""
    n_items = truth.n_items
    pairs = np.unique(truth.visits.astype(np.int64) * n_items + truth.histories.items)
    visits, sizes = np.unique(pairs // n_items, return_counts=True)
    chosen = _sample(visits[sizes > 1], n_questions)
    if not len(chosen):
        return None
    pairs = pairs[np.isin(pairs // n_items, chosen)]
    shuffled = np.random.default_rng(0).permutation(pairs)
    _, first = np.unique(shuffled // n_items, return_index=True)
    asking = shuffled[first]
    histories = Histories.each_of(asking % n_items, CONTEXT_KIND)
    return _renumbered(histories, chosen, np.setdiff1d(pairs, asking), n_items, [])


def _with_the_last_item_alone(personal: Asked | None) -> Asked | None:
    return personal and replace(personal, histories=personal.histories.last(1))


def _sample(units: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(0).permutation(units)[:n])


def _renumbered(
    histories: Histories, units: NDArray[np.int64], relevant: NDArray[np.int64], n_items: int, user_ids: list[str]
) -> Asked:
    relevant = relevant[np.isin(relevant // n_items, units)]
    numbers = np.searchsorted(units, relevant // n_items)
    return Asked(histories, numbers * n_items + relevant % n_items, n_items, user_ids)


def candidates(fitted: Mapping[str, Tier], asked: Asked, repeats: bool) -> Candidates:
    """The union of every tier's best items, for each question."""
    found = list(_found(fitted, asked, repeats))
    items, scores, relevant = (np.concatenate(parts, axis=-1) for parts in zip(*(f[1:] for f in found), strict=True))
    rows = np.concatenate([row for row, *_ in found])
    n_questions = asked.histories.n_users
    lengths = np.bincount(rows, minlength=n_questions)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    shape = (n_questions, int(lengths.max(initial=1)))

    def padded(values: NDArray[np.generic]) -> NDArray[np.generic]:
        table = np.zeros((*values.shape[:-1], *shape), values.dtype)
        table[..., rows, places] = values
        return table

    real = padded(np.ones(len(rows), bool))
    return Candidates(padded(items), padded(scores), real, padded(relevant), asked.n_relevant)  # type: ignore[arg-type]


def _found(
    fitted: Mapping[str, Tier], asked: Asked, repeats: bool
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32], Scores, NDArray[np.bool_]]]:
    n_items = asked.n_items
    for start in range(0, asked.histories.n_users, CHUNK):
        people = np.arange(start, min(start + CHUNK, asked.histories.n_users))
        histories = asked.histories.take(people)
        scores = [standardised(tier.scores(histories)) for tier in fitted.values()]
        shown = np.zeros((len(people), n_items), bool)
        for of_tier in scores:
            if not repeats:
                of_tier[histories.users, histories.items] = -np.inf
            shown |= among_best(of_tier, N_PER_TIER)
        if not repeats:
            shown[histories.users, histories.items] = False
        rows, items = np.nonzero(shown)
        relevant = np.isin((rows + start) * n_items + items, asked.relevant)
        yield rows + start, items.astype(np.int32), np.stack([s[rows, items] for s in scores]), relevant


def among_best(scores: Scores, n: int) -> NDArray[np.bool_]:
    """Whether a score is above its row's ``n`` + 1 th best, all of a row of at most ``n``; shape as the scores.

    Where the last places are tied none of the tied is: a tier has no opinion on what it scores like most others.

    >>> among_best(np.array([[0.3, 0.1, 0.2, 0.1], [0.5, 0.0, 0.0, 0.0]], np.float32), 2)
    array([[ True, False,  True, False],
           [ True, False, False, False]])
    """
    if scores.shape[1] <= n:
        return np.ones(scores.shape, bool)
    above: NDArray[np.bool_] = scores > np.partition(scores, -n - 1, axis=1)[:, -n - 1, None]
    return above


def climb(quality: Callable[[NDArray[np.float32]], float], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coordinate ascent: each weight in turn takes the best of ``STEPS`` until a round changes nothing."""
    reached = quality(weights)
    for _ in range(4):
        before = weights.copy()
        for place in range(len(weights)):
            for step in STEPS:
                tried = weights.copy()
                tried[place] = step
                if tried.any() and (found := quality(tried)) > reached:
                    weights, reached = tried, found
        if np.array_equal(before, weights):
            break
    return weights
