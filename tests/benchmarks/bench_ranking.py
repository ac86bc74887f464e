"""Seconds of a full ranking, 22,363 people over 12,101 items, from vectors of 128 numbers to metrics, masked and not.

    python tests/benchmarks/bench_ranking.py [--users 22363 --items 12101 --width 128]

Nothing is sorted and no list is made, so the floor is the product of the vectors alone; ``product_share`` is what part
of a run's seconds goes there. ``lists`` is the usual way, a mask and the 20 best, for comparison. BLAS takes the
threads that it is given (``OPENBLAS_NUM_THREADS``). The last line is one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from training.ranking import METRICS, Pairs, best, places

CHUNK = 660
K = 10
N_SEEN = 8
TARGET_SECONDS = 2.0


class Vectors:
    """Random people and items; each person wants one item and has seen some others."""

    def __init__(self, n_users: int, n_items: int, width: int) -> None:
        rng = np.random.default_rng(0)
        self.users = rng.standard_normal((n_users, width), dtype=np.float32)
        self.items = rng.standard_normal((width, n_items), dtype=np.float32)
        self.wanted = Pairs(np.arange(n_users), rng.integers(n_items, size=n_users))
        drawn = np.unique(rng.integers(n_users * n_items, size=n_users * N_SEEN))
        self.seen = Pairs(*np.divmod(drawn, n_items))
        self.product_seconds = 0.0

    def chunks(self) -> Iterator[tuple[np.ndarray, Pairs, Pairs]]:
        """Scores with what is wanted and seen; the scores stand where those of the chunk before stood."""
        scores = np.empty((CHUNK, self.items.shape[1]), np.float32)
        self.product_seconds = 0.0
        for first in range(0, len(self.users), CHUNK):
            users, last = self.users[first : first + CHUNK], first + CHUNK
            start = perf_counter()
            np.matmul(users, self.items, out=scores[: len(users)])
            self.product_seconds += perf_counter() - start
            yield scores[: len(users)], self.wanted.between(first, last), self.seen.between(first, last)


def ranking(vectors: Vectors) -> None:
    found = np.concatenate([places(*chunk) for chunk in vectors.chunks()], axis=1)
    for ranked in found:
        for metric in METRICS.values():
            metric(ranked, vectors.wanted.users, K)


def lists(vectors: Vectors) -> None:
    for scores, _, seen in vectors.chunks():
        best(scores, 2 * K)
        scores[seen.users, seen.items] = -np.inf
        best(scores, 2 * K)


def fastest(run: Callable[[Vectors], None], vectors: Vectors, n_runs: int) -> tuple[float, float]:
    """(seconds, of which in the product) of the shortest run: whatever else the machine does only adds."""
    times = []
    for _ in range(n_runs):
        start = perf_counter()
        run(vectors)
        times.append((perf_counter() - start, vectors.product_seconds))
    return min(times)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    for name, default in (("users", 22_363), ("items", 12_101), ("width", 128)):
        asked.add_argument(f"--{name}", type=int, default=default)
    options = asked.parse_args()
    vectors = Vectors(options.users, options.items, options.width)
    (taken, product), (usual, _) = fastest(ranking, vectors, n_runs=5), fastest(lists, vectors, n_runs=1)
    for name, seconds in (("ranking", taken), ("product", product), ("lists", usual)):
        print(f"{name:<10}{seconds:>8.3f} s")
    measured = {"ranking_s": taken, "product_s": product, "product_share": product / taken, "lists_s": usual}
    rounded = {name: round(value, 3) for name, value in measured.items()}
    print(json.dumps({**vars(options), **rounded, "target_s": TARGET_SECONDS}))


if __name__ == "__main__":
    main()
