"""Whether a visit ends in a purchase, scored after every event: quality on REES46 and a seeded shop, and microseconds.

    python tests/benchmarks/bench_sessions.py [--data FOLDER] [--events 1050000] [--only rees46 seeded speed]

Both shops are learnt on the first three fifths, of REES46 of its visits, of the seeded shop of its days, and judged on
the others by the visit's start, beside the base rate, a logistic regression and, in the seeded shop, the generator's
own probability (``tests/seeded_truth.py``). There weeks and tenths are held against what was drawn and against the
generator, which has no chance in it. ``speed`` times one event folded and one row of 500 trees scored.
The last line is one JSON object.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter_ns

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from seeded_truth import InStock, best_possible

from features.encoding import Encoder
from features.engine import Engine
from features.home import home
from features.ingest import ingest
from features.lake import Lake
from features.seeded.shop import Shop
from features.seeded.tables import write
from features.sessions import NUMBERS, TEXTS, Item, VisitFold, logged
from features.shops import load_shop
from features.targets import Examples, Target
from features.units import UNITS
from features.windows import FIRST_INSTANT, before
from serving.calibration import Calibrator
from serving.propensity import Scoring
from serving.trees import Trees
from training import classification
from training.config import BoosterConfig, load_config
from training.propensity import learning, logistic
from training.propensity.config import ModelConfig, PropensityConfig
from training.propensity.fit import TargetFit, fit_target
from training.propensity.slices import Slices

TARGET = Target(unit="session")
STEPS = (1, 3, 5)
STEP = timedelta(days=1)
FEW = ModelConfig(start="regression", trees=BoosterConfig(num_leaves=4, min_data_in_leaf=50, learning_rate=0.03))
FIRST_SHARE = 0.6
N_TREES, N_TIMED = 500, 20_000
SEED = 5
"""Settings and features were chosen on the shop of seed 4."""


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--data", help="folder of the data sets; absent: $SHOPKEEPER_DATA")
    asked.add_argument("--events", type=int, default=1_050_000)
    asked.add_argument("--only", nargs="+", default=["rees46", "seeded", "speed"])
    options = asked.parse_args()
    if options.data:
        os.environ["SHOPKEEPER_DATA"] = options.data
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SHOPKEEPER_HOME"] = folder
        if "rees46" in options.only:
            found["rees46"] = rees46()
        if {"seeded", "speed"} & set(options.only):
            write(home() / "seeded" / "source", options.events, SEED)
            ingest(load_shop("seeded"))
        if "seeded" in options.only:
            found["seeded"] = seeded(options.events)
        if "speed" in options.only:
            found["speed"] = speed()
    print(json.dumps(found))


def rees46() -> dict[str, object]:
    """Three hours hold no slices of time, and a cut in time leaves 18 purchases to learn from.

    Visits are split by their start and learnt from to their end, which may lie after the first judged ones began; the
    number of trees and the calibrator are chosen on visits drawn from the first part.
    """
    shop = load_shop("rees46")
    ingest(shop)
    end = Lake(shop).after_last_event() + timedelta(days=1)
    everything = UNITS["session"].examples(Lake(shop).engine(), TARGET, FIRST_INSTANT, end, STEP)
    visits = np.unique(everything.moment)
    first_part = everything.moment < visits[int(len(visits) * FIRST_SHARE)]
    known, judged = everything.take(first_part), everything.take(~first_part)
    encoder = Encoder.fitted(known.table, list(NUMBERS), list(TEXTS))
    rows, n_levels = encoder.matrix(known.table), encoder.n_levels
    learned = learning.fit(rows, known.outcome, drawn(known), n_levels, FEW)
    regression = logistic.fit(rows, known.outcome, range(rows.shape[1]), n_levels)
    asked = encoder.matrix(judged.table)
    predicted = {
        "trees": learned.scoring().probabilities(asked),
        "base_rate": np.full(len(judged), known.outcome.mean()),
        "logistic": regression.probabilities(asked),
    }
    return report("REES46", judged, predicted)


def drawn(known: Examples) -> Slices:
    visit = np.unique(known.moment.astype(np.int64), return_inverse=True)[1]
    place = np.random.default_rng(0).random(visit.max() + 1)[visit]
    return Slices(place < 0.7, (place >= 0.7) & (place < 0.85), place < 0.85, place >= 0.85)


def seeded(n_events: int) -> dict[str, object]:
    lake = Lake(load_shop("seeded"))
    log, end = lake.engine(), lake.end()
    first = datetime(2023, 1, 2, tzinfo=UTC)
    cut = first + timedelta(days=int((end - first).days * FIRST_SHARE))
    config = load_config(PropensityConfig, "propensity").model("session_purchase")
    fitted, judged = learnt(log, cut, end, config)
    in_stock = InStock(carted=stocked(log, cut, True), all=stocked(log, cut, False))
    best = best_possible(Shop(n_events, SEED, with_campaigns=False), judged.table, in_stock)
    predicted = predictions(fitted, judged) | {"generator": best}
    found = report("seeded", judged, predicted)
    found["over_generator"] = found["log_loss"]["trees"] / found["log_loss"]["generator"]
    print(f"log loss over the generator's: {found['over_generator']:.4f}")
    weeks = (judged.moment - judged.moment.min()) // np.timedelta64(7, "D")
    tenths = np.argsort(np.argsort(predicted["trees"], kind="stable")) * 10 // len(judged)
    for name, part in {"week": weeks, "tenth": tenths}.items():
        found[name] = [kept(predicted["trees"], judged.outcome, best, part == each) for each in np.unique(part)]
        shown = " ".join(f"{drawn:.3f}/{true:.3f}" for drawn, true in found[name])
        print(f"predicted over drawn / over the generator's, by {name}: {shown}")
    return found


def learnt(log: Engine, cut: datetime, end: datetime, config: ModelConfig) -> tuple[TargetFit, Examples]:
    fitted = fit_target(before(log, cut), cut, TARGET, config)
    return fitted, UNITS["session"].examples(log, TARGET, cut, end, STEP)


def predictions(fitted: TargetFit, judged: Examples) -> dict[str, np.ndarray]:
    rows = fitted.encoder.matrix(judged.table)
    constant = np.full(len(judged), fitted.base_rate)
    return {
        "trees": fitted.learned.scoring().probabilities(rows),
        "base_rate": constant,
        "logistic": fitted.rules["logistic"].probabilities(rows),
    }


def stocked(log: Engine, cut: datetime, carted_alone: bool) -> float:
    """The share of visits before the cut, of all or of those with a cart alone, whose basket was in stock."""
    truth = pq.read_table(home() / "seeded" / "source" / "truth" / "sessions.parquet")
    truth = truth.filter(pc.field("started_at") < pa.scalar(cut.replace(tzinfo=None), pa.timestamp("us")))
    carts = log.select("select distinct session_id from events where event_name = 'add_to_cart'")["session_id"]
    chosen = truth.filter(pc.is_in(truth["session_id"], value_set=carts.combine_chunks())) if carted_alone else truth
    return float(pc.mean(pc.greater(chosen["purchase_probability"], 0)).as_py())


def report(name: str, judged: Examples, predicted: dict[str, np.ndarray]) -> dict[str, object]:
    n_events = judged.table["n_events"].to_numpy()
    segments = {"all": n_events > 0} | {f"step {step}": n_events == step for step in STEPS}
    print(f"{name}: {len(judged):,} rows, {judged.outcome.sum():,} before a purchase")
    losses = {}
    for segment, chosen in segments.items():
        for model, probability in predicted.items():
            levels, level_of = classification.levels(probability[chosen])
            counts = classification.counts(level_of, judged.outcome[chosen], len(levels))
            loss, ranked = (metric(levels, *counts) for metric in (classification.log_loss, classification.pr_auc))
            losses[segment, model] = loss
            share = judged.outcome[chosen].mean()
            print(
                f"{segment:8} {model:10} n {chosen.sum():7,} rate {share:.4f} log loss {loss:.4f} PR-AUC {ranked:.4f}"
            )
    return {"log_loss": {model: losses["all", model] for model in predicted}, "rows": len(judged)}


def kept(predicted: np.ndarray, outcome: np.ndarray, best: np.ndarray, part: np.ndarray) -> tuple[float, float]:
    """What was predicted over what was drawn, and over what the generator expected."""
    return predicted[part].sum() / outcome[part].sum(), predicted[part].sum() / best[part].sum()


def speed() -> dict[str, object]:
    log = Lake(load_shop("seeded")).engine()
    items = log.select("select item_id, item_category, price from items").to_pylist()
    events = logged(log.select("select * from events"))[:N_TIMED]
    fold = VisitFold({item["item_id"]: Item(item["item_category"], item["price"]) for item in items})
    rng = np.random.default_rng(0)
    rows = rng.random((5000, len(NUMBERS) + len(TEXTS)))
    settings = {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, rng.random(5000) < rows[:, 0]), N_TREES)
    scoring = Scoring(Trees.from_text(booster.model_to_string()), None, None, 0.0, Calibrator("beta", (0.1, 0.9, 1.1)))
    np.testing.assert_allclose([scoring.probability(row) for row in rows[:100]], scoring.probabilities(rows[:100]))
    visit = next(each for each in map(fold.update, events) if each is not None)
    found = {
        "fold_us": timed(fold.update, events),
        "features_us": timed(lambda _: visit.numbers(None), events),
        "score_us": timed(scoring.probability, rows[np.arange(N_TIMED) % len(rows)]),
    }
    for name, (median, p99) in found.items():
        print(f"{name:12} median {median:6.1f} p99 {p99:6.1f}")
    return found


def timed(call: object, arguments: object) -> tuple[float, float]:
    """Median and 99th percentile of a call, in us."""
    return tuple(np.percentile(list(durations(call, arguments)), [50, 99]).tolist())


def durations(call: object, arguments: object) -> Iterator[float]:
    for argument in arguments:
        began = perf_counter_ns()
        call(argument)
        yield (perf_counter_ns() - began) / 1000


if __name__ == "__main__":
    main()
