"""Orders for 100,000 items in places, by 200 paths of 10 periods each: seconds, beside reading the paths once.

    python tests/benchmarks/bench_orders.py [--series 100000 --paths 200 --periods 10]

Demand is drawn by a gamma-mixed Poisson law; lead times vary, packs and minimum orders are small. The same orders are
placed by cost and by the share of demand to serve, with their reasons. The last line is one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from serving.replenish import orders, reasons
from serving.supply import Position, Supply


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--series", type=int, default=100_000)
    asked.add_argument("--paths", type=int, default=200)
    asked.add_argument("--periods", type=int, default=10)
    options = asked.parse_args()
    rng = np.random.default_rng(0)
    paths, by_cost, position = shop(rng, options.series, options.paths, options.periods)
    by_service = replace(by_cost, service_level=np.full(options.series, 0.97))
    found = {"paths_gb": paths.nbytes / 1e9, "read_once": timed(paths.sum)}
    found |= {
        "by_cost": timed(lambda: orders(paths, by_cost, position)),
        "by_service": timed(lambda: orders(paths, by_service, position)),
    }
    placed = orders(paths[:10_000], some(by_cost), Position(position.on_hand[:10_000], position.arrivals[:10_000]))
    found["reasons_of_10000"] = timed(lambda: reasons(placed, some(by_cost)))
    found["peak_gb"] = psutil.Process().memory_info().rss / 1e9
    for name, value in found.items():
        print(f"{name:18}{value:8.2f}")
    print(json.dumps(found))


def shop(rng: np.random.Generator, n: int, n_paths: int, n_periods: int) -> tuple[np.ndarray, Supply, Position]:
    mean = rng.gamma(0.5, 8, (n, 1, 1)).astype(np.float32)
    paths = np.empty((n, n_paths, n_periods), np.float32)
    for part in np.array_split(np.arange(n), max(1, n // 1000)):
        paths[part] = rng.poisson(mean[part] * rng.gamma(2, 0.5, (len(part), n_paths, n_periods)))
    supply = Supply.from_days(
        1,
        rng.integers(1, 6, n).astype(np.float64),
        lead_time_std_days=rng.choice([0.0, 0.5, 1.0], n),
        review_days=rng.integers(1, 4, n).astype(np.float64),
        pack_size=rng.choice([1.0, 6.0, 12.0], n),
        min_order_quantity=rng.choice([0.0, 12.0], n),
        holding_cost=np.full(n, 0.2),
        shortage_cost=rng.choice([1.0, 5.0], n),
    )
    return paths, supply, Position(rng.poisson(10, n).astype(np.float64), np.zeros((n, n_periods)))


def some(supply: Supply) -> Supply:
    return replace(supply, **{name: getattr(supply, name)[:10_000] for name in supply.__slots__})


def timed(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


if __name__ == "__main__":
    main()
