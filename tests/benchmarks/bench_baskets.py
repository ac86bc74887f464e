"""Next baskets: a configuration of ours beside TIFU-KNN, run here, and personal frequencies, person by person.

    shopkeeper ingest --shop tafeng
    python tests/benchmarks/bench_baskets.py [--shop tafeng --config configs/recommend/baskets.toml]

TIFU-KNN: Hu et al., "Modeling personalized item frequency information for next-basket recommendation", SIGIR 2020, as
the authors' code has it, with their settings for Ta-Feng and with those of ``GRID`` that rank best the baskets before
the last ones; of the grid the winner alone meets the test. The last line is one JSON object.
"""

import argparse
import json
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.histories import Histories, log, wanted
from features.lake import Lake
from features.shops import load_shop
from features.windows import Window, given
from serving.tiers import Scores, moments
from training.config import load_config
from training.device import choose
from training.recommend import evaluation, fit
from training.recommend.blend import asked_by_people, ndcg
from training.recommend.config import RecommendConfig
from training.recommend.fit import loaded

CHUNK = 500
METRICS = ("recall_at_10", "ndcg_at_10")


PUBLISHED = (7, 0.9, 0.7, 300, 0.7)
GRID = list(product((3, 7, 14), (0.9, 1.0), (0.7, 0.9), (100, 300), (0.1, 0.3, 0.5, 0.7)))
N_TUNED_ON = 2000


class TifuKnn:
    """Decayed frequencies of a person's items, averaged with those of the nearest people.

    known : histories of everybody, float weights aside the same as those asked for
    n_groups : groups into which a history's baskets are cut, the newest ones larger by the rest
    within, between : decay per basket from the last, and per group from the last of ``n_groups``
    own_share : of the person's own frequencies
    """

    def __init__(
        self,
        known: Histories,
        n_items: int,
        n_groups: int,
        within: float,
        between: float,
        n_neighbours: int,
        own_share: float,
    ) -> None:
        self.n_items, self.n_groups, self.within, self.between = n_items, n_groups, within, between
        self.n_neighbours, self.own_share = n_neighbours, own_share
        self.everybody = self.vectors(known)
        self.squares = self.everybody.power(2).sum(axis=1)

    def vectors(self, histories: Histories) -> sparse.csr_array:
        """Shape (n_users, n_items).

        >>> baskets = Histories(np.array([0, 3]), np.array([0, 1, 0]), np.zeros(3), np.array([3.0, 2.0, 1.0]))
        >>> TifuKnn(baskets, 2, 2, 0.5, 0.1, 1, 1.0).everybody.toarray()
        array([[0.2625, 0.125 ]], dtype=float32)
        """
        moment = moments(histories)
        _, once = np.unique(moment * self.n_items + histories.items, return_index=True)
        users, basket = histories.users[once], moment[once]
        first = moment[histories.starts[:-1]][users]
        number, n_baskets = (
            basket - first,
            (moment[histories.starts[1:] - 1] - moment[histories.starts[:-1]] + 1)[users],
        )
        n_groups = np.minimum(self.n_groups, n_baskets)
        size, n_larger = n_baskets // n_groups, n_baskets % n_groups
        in_smaller = size * (n_groups - n_larger)
        is_larger = number >= in_smaller
        group = np.where(is_larger, n_groups - n_larger + (number - in_smaller) // (size + 1), number // size)
        weights = self.within ** (n_baskets - 1 - number) * self.between ** (self.n_groups - 1.0 - group)
        weights /= (size + is_larger) * n_groups
        places = users, histories.items[once]
        return sparse.csr_array((weights.astype(np.float32), places), shape=(histories.n_users, self.n_items))

    def scores(self, histories: Histories) -> Scores:
        found = []
        for start in range(0, histories.n_users, CHUNK):
            own = self.vectors(histories.take(np.arange(start, min(start + CHUNK, histories.n_users))))
            distances = self.squares - 2 * (own @ self.everybody.T).toarray()
            nearest = np.argpartition(distances, self.n_neighbours + 1, axis=1)[:, : self.n_neighbours + 1]
            oneself = np.take_along_axis(distances, nearest, 1).argmin(axis=1)
            is_other = np.arange(self.n_neighbours + 1) != oneself[:, None]
            rows = np.repeat(np.arange(own.shape[0]), self.n_neighbours)
            share = np.full(len(rows), 1 / self.n_neighbours, np.float32)
            of = sparse.csr_array((share, (rows, nearest[is_other])), shape=(own.shape[0], self.everybody.shape[0]))
            found.append((self.own_share * own + (1 - self.own_share) * (of @ self.everybody)).toarray())
        return np.concatenate(found)


def tuned(window: Window, item_ids: list[str]) -> tuple[float, ...]:
    """The settings of ``GRID`` with the best NDCG@10 on what a window holds for choosing."""
    asked = asked_by_people(
        log(window.past, window.as_of, item_ids), wanted(window, item_ids), N_TUNED_ON, repeats=True
    )
    known = log(window.past, window.as_of, item_ids).histories
    places = np.arange(asked.histories.n_users)[:, None] * asked.n_items + np.arange(asked.n_items)
    relevant = np.isin(places, asked.relevant)

    def quality(settings: tuple[float, ...]) -> float:
        scores = TifuKnn(known, asked.n_items, *settings).scores(asked.histories)
        return float(ndcg(scores, relevant, asked.n_relevant).mean())

    return max(GRID, key=quality)


def judged(window: Window, config: RecommendConfig) -> list[evaluation.Row]:
    recommender = loaded(fit.fit(window, config, choose("cpu")))
    truth = evaluation.Truth.of(window, recommender.item_ids)
    best = tuned(window.inner, recommender.item_ids)
    print(f"TIFU-KNN is best with {best} on the baskets before the last")
    models = {
        "blend": recommender.scores,
        "tifu_knn": TifuKnn(truth.histories, truth.n_items, *PUBLISHED).scores,
        "tifu_knn_tuned": TifuKnn(truth.histories, truth.n_items, *best).scores,
        **evaluation.baselines(truth, config.events.weights()),
    }
    return evaluation.evaluate(models, truth, "given", masked=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shop", default="tafeng")
    parser.add_argument("--config", type=Path, default=Path("configs/recommend/baskets.toml"))
    options = parser.parse_args()
    lake = Lake(load_shop(options.shop))
    window = given(lake.engine(), lake.after_last_event())
    rows = judged(window, load_config(RecommendConfig, "recommend", options.config, []))
    shown = [row for row in rows if row.segment == "all" and not row.masked and row.metric in METRICS]
    for row in shown:
        print(f"{row.model:40} {row.metric:14} {row.value:+.4f} [{row.low:+.4f}, {row.high:+.4f}]")
    print(json.dumps({"rows": [asdict(row) for row in shown]}))


if __name__ == "__main__":
    main()
