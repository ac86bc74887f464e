"""Judges recommenders on a window: where each placed what people wanted, for whom, and how surely one is ahead.

Whatever gives scores of all items for histories can be judged. A wanted item's place is counted, not looked up in a
list (``training.ranking``); what can only be said of lists is said of those of some people.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.errors import UserError
from features.histories import KINDS, EventWeights, Histories, catalogue, log, wanted
from features.windows import Window
from serving.tiers import Popularity, Scores
from training.evaluation import Row, mean_row, mean_rows, minus, ratio_rows
from training.ranking import METRICS, Pairs, Places, best, places

Score = Callable[[Histories], Scores]
"""From histories to float32, shape (n_users, n_items); higher is better."""

LENGTHS = (10, 20)
"""The k at which places are judged."""
LIST_LENGTH = 10
"""Items of a list whose coverage, novelty and popularity are judged."""
N_LISTS = 1000
"""People, drawn at random, whose lists are judged."""
CHUNK_SCORES = 2**23
"""Scores that a model is asked for at once."""
SEGMENTS: Mapping[str, tuple[float, float]] = {
    "all": (0, np.inf),
    "cold": (0, 2),
    "warm": (3, 20),
    "heavy": (21, np.inf),
}
"""The least and the most known events of a segment's people."""
NEW_ITEMS = "new_items"
"""The segment in which only items are wanted that no fitted event touched."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Who wanted what in a window, and what was known of them when they were asked.

    histories : of the judged people, from the window's past; who wanted most comes first
    wanted : items bought in the window (touched, in a shop without purchases); -1 is an item outside the catalogue
    seen : items of the histories, each once
    is_new : bool, shape (n_wanted,); no fitted event touched the item
    kinds : bool, shape (n_kinds,); kinds of events by which items were wanted
    popularity : float32, shape (n_items,), people in the fitted events who touched each item
    """

    histories: Histories
    wanted: Pairs
    seen: Pairs
    is_new: NDArray[np.bool_]
    kinds: NDArray[np.bool_]
    popularity: Scores

    @classmethod
    def of(cls, window: Window, item_ids: list[str]) -> "Truth":
        """The truth of a window, for models that score the items of a catalogue.

        Raises UserError when nobody wanted anything.
        """
        touched = catalogue(window.truth, window.end, min_users=1, untouched=False)
        found = wanted(window, touched)
        if not found.user_ids:
            raise UserError(
                f"nobody bought between {window.since:%Y-%m-%d} and {window.end:%Y-%m-%d}: choose another --until"
            )
        most_first = np.argsort(-found.histories.lengths, kind="stable")
        pairs = distinct(found.histories.take(most_first), len(touched))
        histories = known(window, [found.user_ids[user] for user in most_first], item_ids)
        n_users = _people_by_item(window)
        return cls(
            histories,
            wanted=Pairs(pairs.users, _places_in(item_ids, touched)[pairs.items]),
            seen=distinct(histories, len(item_ids)),
            is_new=np.array([item_id not in n_users for item_id in touched])[pairs.items],
            kinds=np.bincount(found.histories.kinds, minlength=len(KINDS)) > 0,
            popularity=np.array([n_users.get(item_id, 0) for item_id in item_ids], np.float32),
        )

    @property
    def n_items(self) -> int:
        return len(self.popularity)

    def segments(self) -> dict[str, NDArray[np.bool_]]:
        """Which of the wanted items count in each segment, bool, shape (n_wanted,)."""
        n_known = self.histories.lengths[self.wanted.users]
        by_known = {name: (least <= n_known) & (n_known <= most) for name, (least, most) in SEGMENTS.items()}
        return {**by_known, NEW_ITEMS: self.is_new}


def distinct(histories: Histories, n_items: int) -> Pairs:
    """The items of histories, each once per person."""
    users, items = np.divmod(np.unique(histories.users * n_items + histories.items), n_items)
    return Pairs(users, items)


def known(window: Window, user_ids: list[str], item_ids: list[str]) -> Histories:
    """What a window's past holds of some people with the items of a catalogue; nothing of strangers."""
    past = log(window.past, window.as_of, item_ids)
    with_stranger = replace(past.histories, starts=np.append(past.histories.starts, past.histories.starts[-1]))
    return with_stranger.take(_places_in(past.user_ids, user_ids))


def _places_in(ids: list[str], asked: list[str]) -> NDArray[np.int64]:
    """Where ids stand among others, int64; -1 where they do not."""
    found = pc.index_in(pa.array(asked, pa.string()), pa.array(ids, pa.string()))
    places: NDArray[np.int64] = found.fill_null(-1).to_numpy().astype(np.int64)
    return places


def _people_by_item(window: Window) -> dict[str, int]:
    """How many people touched each item of the fitted events."""
    people = "select item_id, count(distinct person_id) as n_users from histories group by item_id"
    table = window.fitted.select(people, as_of=window.as_of)
    return dict(zip(table["item_id"].to_pylist(), table["n_users"].to_pylist(), strict=True))


# Baselines


TIE_BREAK = np.float32(1e-3)
"""What at most decides between items, against one event: little, and enough that float32 keeps them apart."""


@dataclass(frozen=True, slots=True)
class PersonalTopFrequency:
    """What a person chose most and nothing else; of equals what was chosen first, as the published baseline has it."""

    events: EventWeights
    n_items: int

    def scores(self, histories: Histories) -> Scores:
        counted = histories.where(self.events.weights[histories.kinds] > 0)
        pairs, first, of = np.unique(
            counted.users * self.n_items + counted.items, return_index=True, return_inverse=True
        )
        earliness = (counted.from_last + 1) / counted.lengths[counted.users]
        scores = np.full(histories.n_users * self.n_items, -np.inf, np.float32)
        scores[pairs] = np.bincount(of, self.events.affinities(counted)) + TIE_BREAK * earliness[first]
        return scores.reshape(histories.n_users, self.n_items)


@dataclass(frozen=True, slots=True)
class PersonalFrequency:
    """What a person chose most; equals, and all that it never chose, stand in order of popularity.

    popularity : float32, shape (n_items,)
    """

    events: EventWeights
    popularity: Scores

    def scores(self, histories: Histories) -> Scores:
        popular = TIE_BREAK * self.popularity / max(self.popularity.max(), 1)
        scores = np.tile(popular, (histories.n_users, 1))
        np.add.at(scores, (histories.users, histories.items), self.events.affinities(histories))
        return scores


def baselines(truth: Truth, events: EventWeights) -> dict[str, Score]:
    """What a model must be ahead of: what most people chose, and what the person itself chose most.

    events : how ``personal_recent_frequency`` weighs; the other two count alike every event of the truth's kinds
    """
    alike = EventWeights(truth.kinds.astype(np.float32), np.full(len(KINDS), np.inf, np.float32))
    return {
        "popularity": Popularity(truth.popularity).scores,
        "personal_top_frequency": PersonalTopFrequency(alike, truth.n_items).scores,
        "personal_frequency": PersonalFrequency(alike, truth.popularity).scores,
        "personal_recent_frequency": PersonalFrequency(events, truth.popularity).scores,
    }


# Judgement


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model did; the first row of each among all items, the second (masked) among those not seen.

    places : float64, shape (2, n_wanted), as ``ranking.places`` gives them
    lists : int64, shape (2, n_lists, LIST_LENGTH), as ``ranking.best`` gives them
    """

    places: Places
    lists: NDArray[np.int64]


def evaluate(models: Mapping[str, Score], truth: Truth, split: str, masked: bool) -> list[Row]:
    """Rows of every model, beginning with everybody's, masked or not as asked.

    models : by name; the first is compared with each other one, person by person
    masked : whether the rankings that are reported first leave out what a person has seen; the others follow
    """
    listed = np.sort(np.random.default_rng(0).permutation(truth.histories.n_users)[:N_LISTS])
    found = judge(models, truth, listed)
    return [
        row
        for is_masked in (masked, not masked)
        for row in (*_place_rows(found, truth, split, is_masked), *_list_rows(found, truth, listed, split, is_masked))
    ]


def judge(models: Mapping[str, Score], truth: Truth, listed: NDArray[np.int64]) -> dict[str, Judged]:
    """Ask every model for everybody, chunk by chunk; all models are asked for a chunk with the same histories.

    listed : int64, ascending; the people whose lists are kept
    """
    step, n_users = max(1, CHUNK_SCORES // truth.n_items), truth.histories.n_users
    found: dict[str, list[Judged]] = {name: [] for name in models}
    for first in range(0, n_users, step):
        last = min(first + step, n_users)
        histories, seen = truth.histories.take(np.arange(first, last)), truth.seen.between(first, last)
        rows = listed[slice(*np.searchsorted(listed, [first, last]))] - first
        for name, score in models.items():
            scores = score(histories)
            placed = places(scores, truth.wanted.between(first, last), seen)
            found[name].append(Judged(placed, _lists(scores[rows], seen.take(rows))))
    return {
        name: Judged(*(np.concatenate([getattr(part, field) for part in parts], axis=1) for field in Judged.__slots__))
        for name, parts in found.items()
    }


def _lists(scores: Scores, seen: Pairs) -> NDArray[np.int64]:
    everything = best(scores, LIST_LENGTH)
    scores[seen.users, seen.items] = -np.inf
    return np.stack([everything, best(scores, LIST_LENGTH)])


def _place_rows(found: Mapping[str, Judged], truth: Truth, split: str, masked: bool) -> Iterator[Row]:
    fresh = ~truth.wanted.among(truth.seen) if masked else np.ones(len(truth.wanted.users), bool)
    for segment, counted in truth.segments().items():
        chosen = fresh & counted
        if chosen.any():
            values = _values(found, truth.wanted.users[chosen], chosen, masked)
            compared = minus(values) if segment == "all" else {}
            yield from mean_rows(values | compared, split, masked, segment)


def _values(
    found: Mapping[str, Judged], owners: NDArray[np.int64], chosen: NDArray[np.bool_], masked: bool
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """The metrics of each (model, metric) for everybody who has a chosen item, float64, shape (n_owners,) each."""
    _, users = np.unique(owners, return_inverse=True)
    return {
        (model, f"{name}_at_{k}"): metric(of_model.places[int(masked), chosen], users, k)
        for model, of_model in found.items()
        for k in LENGTHS
        for name, metric in METRICS.items()
    }


def _list_rows(
    found: Mapping[str, Judged], truth: Truth, listed: NDArray[np.int64], split: str, masked: bool
) -> Iterator[Row]:
    """Coverage, novelty and popularity bias of the lists; people to whom nothing is left to show are left out.

    coverage         share of the catalogue that is shown to somebody of those listed
    novelty          mean self-information of what is shown, in bits: ``-log2`` of an item's share of all touches
    popularity_bias  popularity of what is shown over that of what the same people had; 1 is faithful

    Sources: Vargas, Castells, "Rank and relevance in novelty and diversity metrics for recommender systems", RecSys
    2011; Abdollahpouri et al., "The unfairness of popularity bias in recommendation", RMSE at RecSys 2019.
    """
    touches = np.maximum(truth.popularity, 1)
    bits, n_lists = np.log2(touches.sum() / touches), len(listed)
    own = _means(truth.popularity, truth.seen.take(listed), n_lists)
    for model, of_model in found.items():
        lists = of_model.lists[int(masked)]
        shown = Pairs(np.nonzero(lists >= 0)[0], lists[lists >= 0])
        novelty, popularity = _means(bits, shown, n_lists), _means(truth.popularity, shown, n_lists)
        some, both = np.isfinite(popularity), np.isfinite(popularity) & np.isfinite(own)
        if some.any():
            coverage = len(np.unique(shown.items)) / truth.n_items
            yield Row(model, split, "all", masked, f"coverage_at_{LIST_LENGTH}", coverage, None, None, int(some.sum()))
            yield mean_row(model, split, f"novelty_at_{LIST_LENGTH}", novelty[some], masked)
        if both.any():
            bias = {(model, f"popularity_bias_at_{LIST_LENGTH}"): popularity[both]}
            yield from ratio_rows(bias, own[both], split, masked=masked)


def _means(values: Scores, pairs: Pairs, n_users: int) -> NDArray[np.float64]:
    """Mean value of each person's items, float64, shape (n_users,); NaN for who has none."""
    sums = np.bincount(pairs.users, values[pairs.items], n_users)
    counts = np.bincount(pairs.users, minlength=n_users)
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(n_users, np.nan), where=counts > 0)
    return means
