"""Learns the order of the blend's best items from what people wanted next, by LambdaRank.

Where the shop logged what it showed (``view_item_list`` with ``index``), an item may have been wanted because it was
seen first: a bias per place is learned beside the order and left out of the answers. Source: Ai et al., "Unbiased
Learning to Rank with Unbiased Propensity Estimation", SIGIR 2018; LightGBM's ``position``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, NamedTuple

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from features.engine import Engine
from features.histories import Attributes
from features.windows import Window
from serving.ranking import top
from serving.recommend import standardised, total_of
from serving.rerank import ITEM_FEATURES, Items, candidate_features, names, neighbours_among
from serving.tiers import Tier
from training.config import BoosterConfig, Config, PositiveInt
from training.recommend.blend import Asked, ndcg

CHUNK = 256
GAIN_IN_ERRORS = 2.0
"""Standard errors by which an order must gain to be kept."""
LAST_PLACE = 30
"""Places of lists from this one on share one bias; what was not shown has another."""
SHARE_HELD = 0.2
"""Of the people, for early stopping; as many others decide whether the order gains anything."""


class RerankConfig(Config):
    """Settings of the re-ranker."""

    booster: BoosterConfig = BoosterConfig(learning_rate=0.05, num_leaves=31, n_trees=300, min_data_in_leaf=100)
    """The trees."""
    n_candidates: Annotated[int, Field(ge=2, le=1000)] = 100
    """The blend's best items that are put in a new order."""
    patience: PositiveInt = 30
    """Trees without gain on held-out people after which no more are added."""


@dataclass(frozen=True, slots=True)
class Table:
    """Candidates with their features, person by person.

    names : of the features
    features : float64, shape (n_users, n_candidates, n_features)
    relevant : bool, shape (n_users, n_candidates)
    n_relevant : int64, shape (n_users,), candidates or not
    shown : int32, shape (n_users, n_candidates), as from ``Shown.of``
    """

    names: list[str]
    features: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    n_relevant: NDArray[np.int64]
    shown: NDArray[np.int32]

    @property
    def has_places(self) -> bool:
        """Whether any candidate is known to have been shown."""
        return bool((self.shown <= LAST_PLACE).any())


class Shown(NamedTuple):
    """The best place at which each item was shown to each person of ``Asked`` in the window.

    keys : int64, sorted, ``question * n_items + item``
    places : int32, shape (n_keys,), from 0, at most ``LAST_PLACE``
    """

    keys: NDArray[np.int64]
    places: NDArray[np.int32]

    def of(self, questions: NDArray[np.int64], items: NDArray[np.int64], n_items: int) -> NDArray[np.int32]:
        """The place of each item for each question, int32 (n_questions, n_candidates); ``LAST_PLACE + 1`` if unseen."""
        asked = questions[:, None] * n_items + items
        keys, places = np.append(self.keys, np.iinfo(np.int64).max), np.append(self.places, LAST_PLACE + 1)
        found = np.searchsorted(keys, asked)
        return np.where(keys[found] == asked, places[found], LAST_PLACE + 1).astype(np.int32)


def shown_in(window: Window, user_ids: list[str], item_ids: list[str]) -> Shown:
    """What lists that were logged within a window showed some people before they bought it.

    user_ids : the people, in the order of ``Asked``
    """
    table = window.truth.select(
        """
        select known_events.person_id, known_events.item_id, min(place_shown) as place
        from known_events
        left join (
            select person_id, item_id, min(event_timestamp) as bought_at
            from known_events
            where event_name = 'purchase' and event_timestamp >= cast($since as timestamp)
            group by person_id, item_id
        ) bought on known_events.person_id = bought.person_id and known_events.item_id = bought.item_id
        where event_name = 'view_item_list' and place_shown is not null
            and event_timestamp >= cast($since as timestamp)
            and (bought_at is null or event_timestamp <= bought_at)
        group by known_events.person_id, known_events.item_id
        """,
        as_of=window.end,
        since=window.since,
    )
    people, items = (
        pc.index_in(table[name], pa.array(ids, pa.string())).fill_null(-1).to_numpy().astype(np.int64)
        for name, ids in (("person_id", user_ids), ("item_id", item_ids))
    )
    known = (people >= 0) & (items >= 0)
    keys, places = people[known] * len(item_ids) + items[known], table["place"].to_numpy()[known]
    order = np.argsort(keys)
    return Shown(keys[order], np.minimum(places[order], LAST_PLACE).astype(np.int32))


def item_table(past: Engine, as_of: datetime, item_ids: list[str], attributes: Attributes) -> Items:
    """What is known of each item of a catalogue before ``as_of``."""
    table = past.query("item_features", as_of=as_of)
    places = pc.index_in(pa.array(item_ids, pa.string()), table["item_id"])
    columns = [pc.take(table[name], places).to_numpy(zero_copy_only=False) for name in ITEM_FEATURES]
    features = np.stack(columns, 1).astype(np.float64)
    return Items(features, attributes.padded(len(item_ids)), len(attributes.names))


def table(
    tiers: Mapping[str, Tier],
    weights: Mapping[str, float],
    asked: Asked,
    shown: Shown,
    items: Items,
    repeats: bool,
    n: int,
) -> Table:
    """The blend's ``n`` best items for each question, with their features and whether they were right."""
    features, relevant, places = [], [], []
    used, neighbours = [name for name, weight in weights.items() if weight], neighbours_among(tiers)
    for start in range(0, asked.histories.n_users, CHUNK):
        people = np.arange(start, min(start + CHUNK, asked.histories.n_users))
        histories = asked.histories.take(people)
        parts = {name: np.float32(weights[name]) * standardised(tiers[name].scores(histories)) for name in used}
        total = total_of(parts)
        if not repeats:
            total[histories.users, histories.items] = -np.inf
        candidates = top(total, n)
        features.append(candidate_features(histories, candidates, parts, total, neighbours, items))
        relevant.append(np.isin(people[:, None] * asked.n_items + candidates, asked.relevant))
        places.append(shown.of(people, candidates, asked.n_items))
    feature_names = names(used, neighbours)
    return Table(
        feature_names, np.concatenate(features), np.concatenate(relevant), asked.n_relevant, np.concatenate(places)
    )


def fit(found: Table, config: RerankConfig, seed: int = 0) -> str | None:
    """The trees as text; None unless they gain NDCG@10 on held-out people by more than two of its standard errors."""
    rng = np.random.default_rng(seed)
    lot, has_any = rng.random(len(found.relevant)), found.relevant.any(axis=1)
    stopping, deciding = lot < SHARE_HELD, lot > 1 - SHARE_HELD
    learned, stopping = has_any & ~stopping & ~deciding, has_any & stopping
    if not (learned.any() and stopping.any() and deciding.any()):
        return None
    booster = config.booster.model_dump(exclude={"n_trees"})
    trained = lgb.train(
        {
            **booster,
            "objective": "lambdarank",
            "metric": "ndcg",
            "eval_at": [10],
            "lambdarank_truncation_level": 20,
            "verbosity": -1,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
        },
        _dataset(found, learned),
        config.booster.n_trees,
        valid_sets=[_dataset(found, stopping)],
        callbacks=[lgb.early_stopping(config.patience, verbose=False)],
    )
    rows, relevant, n_relevant = found.features[deciding], found.relevant[deciding], found.n_relevant[deciding]
    before = ndcg(rows[:, :, found.names.index("blend_score")], relevant, n_relevant)
    after = ndcg(trained.predict(rows.reshape(-1, rows.shape[2])).reshape(relevant.shape), relevant, n_relevant)
    gain = after - before
    text: str = trained.model_to_string()
    return text if gain.mean() > GAIN_IN_ERRORS * gain.std() / np.sqrt(len(gain)) else None


def _dataset(found: Table, people: NDArray[np.bool_]) -> lgb.Dataset:
    rows = found.features[people]
    return lgb.Dataset(
        rows.reshape(-1, rows.shape[2]),
        found.relevant[people].ravel().astype(np.int32),
        group=np.full(len(rows), rows.shape[1]),
        position=found.shown[people].ravel() if found.has_places else None,
        feature_name=found.names,
        free_raw_data=True,
    )
