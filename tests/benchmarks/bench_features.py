"""Seconds and peak memory of ingest, and of the features on DuckDB with two threads and a spill folder.

    python tests/benchmarks/bench_features.py [--events 1000000 10000000] [--only windowed visits ...] [--memory 1.5GB]

Each step runs in a process of its own on a seeded shop; ``--memory`` is what DuckDB may hold. ``windowed`` is the one
with a target: six windowed features per person over 10 million events in at most 10 s and 2 GB. ``visits`` are the
features of every visit after every event, written to a file; ``newest_visits`` those since the midnight after which two
million events lie, from which a model takes its examples. The last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.engine import DuckDB, Engine, Parameter
from features.home import home
from features.ingest import ingest
from features.lake import Lake
from features.sessions import day_since_which, resumed, session_progress
from features.shops import load_shop
from features.windows import FIRST_INSTANT
from training.propensity.config import ModelConfig

ROOT = Path(__file__).parents[2]
N_THREADS = 2
N_NEWEST = ModelConfig().most_examples
DAYS = (7, 28, 91)
TARGET_SECONDS, TARGET_GB = 10.0, 2.0


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    asked.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED), help="beside ingest")
    asked.add_argument("--memory", default="1.5GB", help="what DuckDB may hold (default: %(default)s)")
    asked.add_argument("--measure", metavar="STEP", help=argparse.SUPPRESS)
    options = asked.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure, options.memory)))
    else:
        report(row for n_events in options.events for row in rows(n_events, options.only, options.memory))


def rows(n_events: int, names: Sequence[str], memory: str) -> Iterator[dict[str, object]]:
    """One row per step over one seeded shop."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SHOPKEEPER_HOME"] = folder
        program = [sys.executable, "-m", "features.seeded", "--events", str(n_events)]
        subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for name in ("ingest", *names):
            yield {"n_events": n_events, "query": name, **in_own_process(name, memory)}
            if name == "ingest":
                shutil.rmtree(home() / "seeded" / "source")


def in_own_process(name: str, memory: str) -> dict[str, object]:
    """What the child measured, with the peak memory that the system counted for that child alone."""
    program = [sys.executable, __file__, "--measure", name, "--memory", memory]
    child = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{name} failed")
    return {**json.loads(printed), "cpu_s": round(usage.ru_utime, 2), "peak_gb": round(usage.ru_maxrss / 2**20, 2)}


def measured(name: str, memory: str) -> dict[str, object]:
    shop = load_shop("seeded")
    if name == "ingest":
        start = perf_counter()
        n_rows = sum(report.accepted for report in ingest(shop))
        return {"seconds": round(perf_counter() - start, 2), "n_rows": n_rows}
    lake = Lake(shop)
    engine, as_of = lake.bind(Engine(DuckDB(memory, home() / "spill", N_THREADS))), lake.end()
    start = perf_counter()
    n_rows = MEASURED[name](engine, as_of)
    return {"seconds": round(perf_counter() - start, 2), "n_rows": n_rows}


class Filed(DuckDB):
    """An engine that writes what it finds to a file, and answers with the number of rows."""

    def __init__(self, of: DuckDB) -> None:
        self.connection = of.connection

    def fetch(self, text: str, parameters: Mapping[str, Parameter]) -> pa.Table:
        path = home() / "found.parquet"
        self.connection.execute(f"copy ({text}) to '{path}' (format parquet)", dict(parameters))
        return pa.table({"n_rows": [pq.read_metadata(path).num_rows]})


def visits(engine: Engine, as_of: datetime) -> int:
    ready = resumed(engine, FIRST_INSTANT, as_of)
    found = replace(ready, backend=Filed(ready.backend)).query("session_progress", since=FIRST_INSTANT, as_of=as_of)
    return int(found["n_rows"][0].as_py())


def newest_visits(engine: Engine, as_of: datetime) -> int:
    return session_progress(engine, day_since_which(engine, as_of, N_NEWEST), as_of).num_rows


def of_query(name: str) -> Callable[[Engine, datetime], int]:
    return lambda engine, as_of: engine.query(name, as_of=as_of).num_rows


MEASURED: dict[str, Callable[[Engine, datetime], int]] = {
    "windowed": lambda engine, as_of: engine.select(windowed(), as_of=as_of).num_rows,
    **{name: of_query(name) for name in ("customer_features", "sessions", "item_features", "people")},
    "newest_visits": newest_visits,
    "visits": visits,
}


def windowed() -> str:
    """Events and money of each person in the last 7, 28 and 91 days before $as_of."""
    ages = "unix_date(cast(cast($as_of as timestamp) as date)) - unix_date(cast(event_timestamp as date)) as age_days"
    counts = (f"cast(sum(case when age_days <= {days} then 1 else 0 end) as bigint) as n_{days}d" for days in DAYS)
    sums = (f"sum(case when age_days <= {days} then spend else 0.0 end) as spend_{days}d" for days in DAYS)
    return (
        f"with aged as (select person_id, {ages}, quantity * coalesce(price, 0.0) as spend from known_events) "
        f"select person_id, {', '.join((*counts, *sums))} from aged group by person_id"
    )


def report(measures: Iterator[dict[str, object]]) -> None:
    """Each row as it is found: the larger shops take hours."""
    print(f"{'events':>12} {'step':<20}{'seconds':>9}{'cpu_s':>9}{'peak_gb':>9}{'rows':>12}")
    found = []
    for row in measures:
        print(
            f"{row['n_events']:>12,} {row['query']:<20}{row['seconds']:>9}{row['cpu_s']:>9}{row['peak_gb']:>9}"
            f"{row['n_rows']:>12,}",
            flush=True,
        )
        found.append(row)
    print(json.dumps({"rows": found, "target": {"query": "windowed", "seconds": TARGET_SECONDS, "gb": TARGET_GB}}))


if __name__ == "__main__":
    main()
