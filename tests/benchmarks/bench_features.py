"""Seconds and peak memory of ingest, and of the feature queries on DuckDB with 1.5 GB, two threads and a spill folder.

    python tests/benchmarks/bench_features.py [--events 1000000 10000000]

Each step runs in a process of its own on a seeded shop. ``windowed`` is the one with a target: six windowed features
per person over 10 million events in at most 10 s and 2 GB. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.engine import DuckDB, Engine
from features.home import home
from features.ingest import ingest
from features.lake import Lake
from features.shops import load_shop

ROOT = Path(__file__).parents[2]
MEMORY_LIMIT = "1.5GB"
N_THREADS = 2
MEASURED = ("ingest", "windowed", "customer_features", "sessions", "item_features")
DAYS = (7, 28, 91)
TARGET_SECONDS, TARGET_GB = 10.0, 2.0


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    asked.add_argument("--measure", metavar="STEP", help=argparse.SUPPRESS)
    options = asked.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure)))
    else:
        report([row for n_events in options.events for row in rows(n_events)])


def rows(n_events: int) -> Iterator[dict[str, object]]:
    """One row per query over one seeded shop."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SHOPKEEPER_HOME"] = folder
        program = [sys.executable, "-m", "features.seeded", "--events", str(n_events)]
        subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for name in MEASURED:
            yield {"n_events": n_events, "query": name, **in_own_process(name)}


def in_own_process(name: str) -> dict[str, object]:
    """What the child measured, with the peak memory that the system counted for that child alone."""
    child = subprocess.Popen([sys.executable, __file__, "--measure", name], stdout=subprocess.PIPE, text=True)
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{name} failed")
    return {**json.loads(printed), "cpu_s": round(usage.ru_utime, 2), "peak_gb": round(usage.ru_maxrss / 2**20, 2)}


def measured(name: str) -> dict[str, object]:
    shop = load_shop("seeded")
    if name == "ingest":
        start = perf_counter()
        n_rows = sum(report.accepted for report in ingest(shop))
        return {"seconds": round(perf_counter() - start, 2), "n_rows": n_rows}
    lake = Lake(shop)
    engine, as_of = lake.bind(Engine(DuckDB(MEMORY_LIMIT, home() / "spill", N_THREADS))), lake.end()
    start = perf_counter()
    found = engine.select(windowed(), as_of=as_of) if name == "windowed" else engine.query(name, as_of=as_of)
    return {"seconds": round(perf_counter() - start, 2), "n_rows": found.num_rows}


def windowed() -> str:
    """Events and money of each person in the last 7, 28 and 91 days before $as_of."""
    ages = "unix_date(cast(cast($as_of as timestamp) as date)) - unix_date(cast(event_timestamp as date)) as age_days"
    counts = (f"cast(sum(case when age_days <= {days} then 1 else 0 end) as bigint) as n_{days}d" for days in DAYS)
    sums = (f"sum(case when age_days <= {days} then spend else 0.0 end) as spend_{days}d" for days in DAYS)
    return (
        f"with aged as (select person_id, {ages}, quantity * coalesce(price, 0.0) as spend from known_events) "
        f"select person_id, {', '.join((*counts, *sums))} from aged group by person_id"
    )


def report(found: list[dict[str, object]]) -> None:
    print(f"{'events':>12} {'step':<20}{'seconds':>9}{'cpu_s':>9}{'peak_gb':>9}{'rows':>12}")
    for row in found:
        print(
            f"{row['n_events']:>12,} {row['query']:<20}{row['seconds']:>9}{row['cpu_s']:>9}{row['peak_gb']:>9}"
            f"{row['n_rows']:>12,}"
        )
    print(json.dumps({"rows": found, "target": {"query": "windowed", "seconds": TARGET_SECONDS, "gb": TARGET_GB}}))


if __name__ == "__main__":
    main()
