"""Next baskets: a configuration of ours beside TIFU-KNN, run here, and personal frequencies, person by person.

    shopkeeper ingest --shop tafeng
    python tests/benchmarks/bench_baskets.py [--shop tafeng --config configs/recommend/baskets.toml]

TIFU-KNN: Hu et al., "Modeling personalized item frequency information for next-basket recommendation", SIGIR 2020, with
the settings that they give for Ta-Feng and with those that were best for the baskets before the last ones. The last
line is one JSON object.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.histories import Histories
from features.lake import Lake
from features.shops import load_shop
from features.windows import Window, given
from serving.tiers import Scores, moments
from training.config import load_config
from training.device import choose
from training.recommend import evaluation, fit
from training.recommend.config import RecommendConfig
from training.recommend.fit import loaded

CHUNK = 500
METRICS = ("recall_at_10", "ndcg_at_10")


@dataclass(frozen=True, slots=True)
class TifuKnn:
    """Baskets in groups of ``group``, decayed within and between groups, averaged with those of the nearest people."""

    n_items: int
    known: Histories
    group: int
    within: float
    between: float
    n_neighbours: int
    own_share: float

    def vectors(self, histories: Histories) -> sparse.csr_array:
        moment, lengths = moments(histories), histories.lengths
        last = moment[histories.starts[1:] - 1]
        first = moment[histories.starts[:-1]]
        back, n_baskets = np.repeat(last, lengths) - moment, np.repeat(last - first + 1, lengths)
        group, n_groups = back // self.group, -(-n_baskets // self.group)
        in_group = np.minimum(self.group, n_baskets - group * self.group)
        weights = self.within ** (back % self.group) * self.between**group / in_group / n_groups
        places = histories.users, histories.items
        return sparse.csr_array((weights.astype(np.float32), places), shape=(histories.n_users, self.n_items))

    def scores(self, histories: Histories) -> Scores:
        everybody = self.vectors(self.known)
        squares = everybody.power(2).sum(axis=1)
        found = []
        for start in range(0, histories.n_users, CHUNK):
            own = self.vectors(histories.take(np.arange(start, min(start + CHUNK, histories.n_users))))
            distances = squares - 2 * (own @ everybody.T).toarray()
            nearest = np.argpartition(distances, self.n_neighbours + 1, axis=1)[:, : self.n_neighbours + 1]
            nearest_first = np.take_along_axis(distances, nearest, 1).argmin(axis=1)
            is_other = np.arange(self.n_neighbours + 1) != nearest_first[:, None]
            rows = np.repeat(np.arange(own.shape[0]), self.n_neighbours)
            share = np.full(len(rows), 1 / self.n_neighbours, np.float32)
            of = sparse.csr_array((share, (rows, nearest[is_other])), shape=(own.shape[0], everybody.shape[0]))
            found.append((self.own_share * own + (1 - self.own_share) * (of @ everybody)).toarray())
        return np.concatenate(found)


def judged(window: Window, config: RecommendConfig) -> list[evaluation.Row]:
    recommender = loaded(fit.fit(window, config, choose("cpu")))
    truth = evaluation.Truth.of(window, recommender.item_ids)
    published = TifuKnn(truth.n_items, truth.histories, 7, 0.9, 0.7, 300, 0.7)
    tuned = TifuKnn(truth.n_items, truth.histories, 7, 1.0, 0.7, 300, 0.1)
    models = {
        "blend": recommender.scores,
        "tifu_knn": published.scores,
        "tifu_knn_tuned": tuned.scores,
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
