"""Ten million interactions of 200,000 items: ALS beside implicit, the sequence tier's rate, and the peak of memory.

    python tests/benchmarks/bench_scale.py [--events 10000000 --items 200000 --users 500000 --factors 64]

People and items are drawn by Zipf's law. An ALS iteration is one alternation over people and items. A sample of the
sequence tier is one event that is predicted, with 2,048 drawn negatives besides those of the step. The last line is one
JSON object.
"""

import argparse
import json
import resource
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.histories import NO_ATTRIBUTES, Histories, Log
from serving.factors import Penalties, rated
from training.device import choose
from training.recommend import factors
from training.recommend.config import EventConfig
from training.recommend.sequence import SequenceConfig
from training.recommend.transformer import Trainer

EVENTS = EventConfig(purchase_half_life_days=1e9).weights()
N_ITERATIONS = 3
N_STEPS = 20
TARGET_RATIO = 1.05


def drawn(n_events: int, n_items: int, n_users: int) -> Log:
    """Purchases whose items and people are as unevenly frequent as in shops."""
    rng = np.random.default_rng(0)
    users = np.sort(zipf(rng, n_users, n_events, 0.5))
    starts = np.searchsorted(users, np.arange(n_users + 1))
    items = rng.permutation(n_items)[zipf(rng, n_items, n_events, 0.8)].astype(np.int32)
    histories = Histories(starts, items, np.full(n_events, 2, np.int8), np.zeros(n_events, np.float32))
    names = [np.arange(n).astype(str).tolist() for n in (n_users, n_items)]
    return Log(names[0], names[1], histories, np.arange(n_events, dtype=np.int32), NO_ATTRIBUTES)


def zipf(rng: np.random.Generator, n: int, size: int, power: float) -> np.ndarray:
    weights = np.cumsum(np.arange(1, n + 1) ** -power)
    return np.searchsorted(weights, rng.random(size) * weights[-1]).clip(max=n - 1)


def timed(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def als(log: Log, n_factors: int) -> dict[str, float]:
    """Seconds per iteration of ours and of implicit on the same matrix, in turns; all that ours does besides."""
    from implicit.als import AlternatingLeastSquares

    ratings = rated(log.histories, EVENTS)
    shape = (log.histories.n_users, log.n_items)
    matrix = sparse.csr_matrix((ratings.affinities * 10, ratings.columns, ratings.starts), shape)
    penalties = Penalties(10.0, 1.0)

    def ours(n: int) -> float:
        config = factors.AlsConfig(n_factors=n_factors, n_iterations=n)
        return timed(lambda: factors.alternated(ratings, log.n_items, config, penalties, choose("cpu")))

    def theirs(n: int) -> float:
        model = AlternatingLeastSquares(factors=n_factors, iterations=n, random_state=0)
        with threadpool_limits(limits=1, user_api="blas"):
            return timed(lambda: model.fit(matrix, show_progress=False))

    taken = {"ours": ours(1), "implicit": theirs(1)}
    longer = {"ours": ours(1 + N_ITERATIONS), "implicit": theirs(1 + N_ITERATIONS)}
    found = {f"{name}_als_iteration_s": (longer[name] - taken[name]) / N_ITERATIONS for name in taken}
    whole = timed(
        lambda: factors.fit_als(log, factors.AlsConfig(n_factors=n_factors, n_iterations=10), EVENTS, choose("cpu"))
    )
    return found | {
        "als_ratio": found["ours_als_iteration_s"] / found["implicit_als_iteration_s"],
        "als_whole_ratio": whole / (taken["implicit"] + 9 * found["implicit_als_iteration_s"]),
    }


def sequence(log: Log) -> dict[str, float]:
    """Events predicted per second with sampled negatives, the steps' share of laying out an epoch included."""
    config = SequenceConfig(width=64, max_length=50, n_negatives=2048, attributes=False)
    trainer = Trainer(log, config, EVENTS, choose("cpu"), 0)
    laid = perf_counter()
    tapes = list(islice(trainer.tapes(np.random.default_rng(0)), N_STEPS + 1))
    seconds = (perf_counter() - laid) * N_STEPS / trainer.steps_per_epoch
    trainer.update(*tapes[0])
    seconds += timed(lambda: [trainer.update(*tape) for tape in tapes[1:]])
    return {"sequence_samples_per_s": float(sum((weights > 0).sum() for _, _, weights in tapes[1:]) / seconds)}


def peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--factors", type=int, default=64)
    options = parser.parse_args()
    log = drawn(options.events, options.items, options.users)
    measured = sequence(log) | {"peak_gb_with_sequence": peak_gigabytes()}
    measured |= als(log, options.factors) | {"peak_gb": peak_gigabytes()}
    for name, value in measured.items():
        print(f"{name:28} {value:12,.2f}")
    print(f"an iteration of ours takes {measured['als_ratio']:.2f} of implicit's (target {TARGET_RATIO})")
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
