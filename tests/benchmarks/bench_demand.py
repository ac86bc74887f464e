"""Demand on public data: stock-outs, slow sellers, prices and promotions, hierarchies, a shop whose truth is known.

    python tests/benchmarks/bench_demand.py --only freshretail [carparts carparts_cost frat aus_retail seeded]

The shops must have been ingested (`shopkeeper ingest --shop NAME`; the seeded one after `python -m features.seeded
--events 2000000 --seed 3`). Every forecast is computed by the exported artifact; the truth is in no fit.

``freshretail``: three weeks, on days on which an item was on sale all the time, stock-outs left out and ignored;
discounts and activities of the week ahead are not known there, so none are read.
``carparts``: the last six months. ``carparts_cost``: what orders would have cost in the last four times six months, on
terms that are ours, for the data have none: an order is placed every month and arrives a month later, a unit left at a
month's end costs 1, a unit of demand that is not served is lost and costs 9 or 99. Every method's quantiles become
paths by the same dependence, and orders by the same policy, from the same opening stock. ``frat``: eight windows of
four weeks, with prices and promotions known ahead, against the same model that never saw an offer. ``aus_retail``: the
last year, the sums of the parts' forecasts, alone and reconciled, beside direct forecasts of the sums: statistical, as
what is reconciled heeds them, and by the same recipe. ``seeded``: mean forecasts over the true expected demand, refunds
taken off.

The last line is one JSON object.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))

from features import contract
from features.engine import Engine, empty
from features.home import home
from features.lake import Lake
from features.panels import Panel, outcome
from features.periods import Span
from features.seeded.trade import REFUND_SHARE
from features.shops import load_shop
from features.windows import Window, before, rolling, time_window
from serving.artifact import Artifact, Draft
from serving.demand import Forecaster
from serving.paths import paths
from serving.recipe import base_of
from serving.supply import Supply
from training.config import CONFIG_FOLDER, load_config
from training.demand.config import DemandConfig
from training.demand.evaluation import baselines, evaluate
from training.demand.fit import fit
from training.evaluation import Row
from training.simulation import Policy, clairvoyant, moving_average, path_policy, simulate, steady_state

Keys = list[tuple[str, str]]

WEEKS = ("2024-05-29", "2024-06-05", "2024-06-12")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", nargs="+", default=list(BENCHMARKS), choices=list(BENCHMARKS))
    found = {name: BENCHMARKS[name]() for name in asked.parse_args().only}
    print(json.dumps(found))


def configuration(shop: str, **settings: object) -> DemandConfig:
    path = CONFIG_FOLDER / "demand" / f"{shop}.toml"
    return load_config(DemandConfig, "demand", path, [f"{key}={value}" for key, value in settings.items()])


def window_at(engine: Engine, day: str, config: DemandConfig, frequency: str) -> Window:
    as_of = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return time_window(engine, as_of, Span(config.horizon, frequency).after(as_of))


def fitted(window: Window, config: DemandConfig, shop: str, folder: str) -> Forecaster:
    found = load_shop(shop)
    model = fit(window.past, window.known_future, window.as_of, found.demand_frequency, config, found.country)
    draft = Draft(Path(folder) / "artifact")
    model.export(draft)
    return Forecaster.load(Artifact(draft.folder))


def judged(window: Window, config: DemandConfig, shop: str) -> tuple[list[Row], float]:
    started = perf_counter()
    with TemporaryDirectory() as folder:
        forecaster = fitted(window, config, shop, folder)
        seconds = perf_counter() - started
        return evaluate(forecaster, window, "time"), seconds


def value(rows: list[Row], model: str, metric: str, segment: str = "all") -> float:
    (found,) = (row.value for row in rows if (row.model, row.metric, row.segment) == (model, metric, segment))
    return found


def averaged(windows: list[list[Row]], model: str, metric: str, segment: str = "all") -> float:
    parts = [rows for rows in windows if any(row.segment == segment and row.metric == metric for row in rows)]
    return float(np.nanmean([value(rows, model, metric, segment) for rows in parts]))


def say(title: str, windows: list[list[Row]], models: tuple[str, ...], metrics: tuple[str, ...]) -> dict[str, float]:
    found = {f"{model} {metric}": averaged(windows, model, metric) for model in models for metric in metrics}
    print(f"{title:34}" + "  ".join(f"{name} {number:.4f}" for name, number in found.items()), flush=True)
    return found


def coverage(title: str, windows: list[list[Row]]) -> dict[str, float]:
    """Coverage of the model's intervals by class, of single periods and of the horizon's sum.

    Sales in whole units often equal an interval's end: ``coverage_error`` is what is wrong whether ends count or not.
    """
    segments = sorted({row.segment for rows in windows for row in rows if row.model == "trees"})
    metrics = ("coverage_90", "coverage_80", "coverage_error", "coverage_90_total", "coverage_80_total")
    n = {s: np.mean([next((r.n for r in rows if r.segment == s), 0) for rows in windows]) for s in segments}
    found = {f"{s} {m}": averaged(windows, "trees", m, s) for s in segments for m in metrics if _has(windows, m, s)}
    for segment in segments:
        numbers = (f"{m} {found[f'{segment} {m}']:.3f}" for m in metrics if f"{segment} {m}" in found)
        print(f"  {title} {segment:14} n {n[segment]:8.0f}  " + "  ".join(numbers), flush=True)
    return found


def _has(windows: list[list[Row]], metric: str, segment: str) -> bool:
    return any(row.metric == metric and row.segment == segment for rows in windows for row in rows)


def freshretail() -> dict[str, float]:
    engine, found = Lake(load_shop("freshretail")).engine().bind(offers=empty(contract.OFFERS)), {}
    for stock_outs in ("missing", "ignored"):
        config = configuration("freshretail", stock_outs=stock_outs)
        runs = [judged(window_at(engine, day, config, "day"), config, "freshretail") for day in WEEKS]
        windows = [rows for rows, _ in runs]
        for day, (rows, seconds) in zip(WEEKS, runs, strict=True):
            say(f"freshretail {stock_outs} {day} {seconds:.0f} s", [rows], ("trees",), ("wape", "bias", "pinball"))
        title = f"freshretail stock-outs {stock_outs}"
        found |= {
            f"{stock_outs} {name}": number
            for name, number in say(title, windows, ("trees", "seasonal_naive", "mean_4"), ("wape", "bias")).items()
        }
        if stock_outs == "missing":
            found |= coverage("freshretail", windows)
    found["peak_gb"] = psutil.Process().memory_info().rss / 1e9
    return found


def carparts() -> dict[str, float]:
    engine, config = Lake(load_shop("carparts")).engine(), configuration("carparts")
    rows, _ = judged(window_at(engine, "2001-10-01", config, "month"), config, "carparts")
    models = ("trees", "counts", "tsb", "croston_sba", "seasonal_naive")
    return say("carparts", [rows], models, ("pinball",))


SHORTAGE_COSTS = (9.0, 99.0)
"""Over a holding cost of 1: critical fractiles of .9 and .99."""
N_COST_WINDOWS, N_COST_MONTHS, N_COST_PATHS, WARM_UP_MONTHS = 4, 6, 500, 12
COVER = 2
"""Months that an order must last: the lead time and the review."""


def carparts_cost() -> dict[str, float]:
    lake, config, found = Lake(load_shop("carparts")), configuration("carparts"), {}
    for window in rolling(lake.engine(), lake.end(), Span(N_COST_MONTHS, "month"), N_COST_WINDOWS):
        with TemporaryDirectory() as folder:
            forecaster = fitted(window, config, "carparts", folder)
            whole = forecaster.panel(window.truth, window.end, None)
            keys, ahead = monthly_paths(lake.engine(), window, forecaster)
        for shortage_cost in SHORTAGE_COSTS:
            costs = simulated(whole, keys, ahead, shortage_cost, forecaster.carry)
            title = f"{window.name} shortage {shortage_cost:g}"
            print(f"carparts {title:24}" + "  ".join(f"{name} {cost:,.0f}" for name, cost in costs.items()), flush=True)
            found |= {f"{title} {name}": cost for name, cost in costs.items()}
    return found


def monthly_paths(engine: Engine, window: Window, forecaster: Forecaster) -> tuple[Keys, dict[str, list[np.ndarray]]]:
    """The series forecast at the window's start, and of each method each month's paths, float32 [S, N, COVER]."""
    keys, ahead, as_of = None, {}, window.as_of
    for month in range(N_COST_MONTHS):
        known = forecaster.panel(before(engine, as_of), as_of, None)
        covered = [key for key, is_in in zip(keys_of(known), known.eligible(known.n_periods), strict=True) if is_in]
        keys = keys or covered
        at = {key: row for row, key in enumerate(covered)}
        rows = [at[key] for key in keys]
        scores = forecaster.dependence.scores(len(keys), N_COST_PATHS, seed=month)[:, :, :COVER]
        methods = {"trees": forecaster.forecast(known)[:, :, 1:]}
        methods |= {name: judged.quantiles for name, judged in baselines(known, forecaster.quantiles).items()}
        for name, quantiles in methods.items():
            ahead.setdefault(name, []).append(paths(quantiles[rows, :COVER], forecaster.quantiles, scores))
        as_of = Span(1, "month").after(as_of)
    return keys, ahead


def keys_of(known: Panel) -> Keys:
    return list(zip(known.item_ids, known.location_ids, strict=True))


def simulated(
    whole: Panel, keys: Keys, ahead: dict[str, list[np.ndarray]], shortage_cost: float, carry: float
) -> dict[str, float]:
    """Money over the window by each method's orders, by the moving average that came before, and by foresight."""
    at = {key: row for row, key in enumerate(keys_of(whole))}
    rows, start = [at[key] for key in keys], whole.n_periods - N_COST_MONTHS
    sales, in_stock = np.nan_to_num(whole.sold[rows]).astype(np.float64), whole.exposure[rows] > 0
    season = np.arange(whole.n_periods + COVER) % 12
    supply = Supply.from_days(1, np.ones(len(rows)), holding_cost=1.0, shortage_cost=shortage_cost)

    def average(first: int) -> Policy:
        return moving_average(sales, in_stock, season, first, cover=COVER)

    first = start - WARM_UP_MONTHS
    opening, demand = steady_state(sales[:, first:start], supply, average(first)), sales[:, start:]
    policies = {name: path_policy(of_month.__getitem__, supply, carry) for name, of_month in ahead.items()}
    policies |= {"moving_average": average(start), "clairvoyant": clairvoyant(demand, opening, supply)}
    return {name: float(simulate(demand, opening, supply, policy).cost.sum()) for name, policy in policies.items()}


def frat() -> dict[str, float]:
    lake, config = Lake(load_shop("frat")), configuration("frat")
    plain = lake.engine().bind(offers=empty(contract.OFFERS))
    end, span, found = lake.end(), Span(config.horizon, "week"), {}
    for title, engine in (("known", lake.engine()), ("without offers", plain)):
        days = [f"{span.after(end, -back):%Y-%m-%d}" for back in range(8, 0, -1)]
        windows = [judged(window_at(engine, day, config, "week"), config, "frat")[0] for day in days]
        parts = {f"{title} {day}": [rows] for day, rows in zip(days, windows, strict=True)}
        for part, rows in {**parts, title: windows}.items():
            numbers = say(f"frat {part}", rows, ("trees", "seasonal_naive"), ("wape", "bias", "pinball"))
            found |= {f"{part} {name}": number for name, number in numbers.items()}
        if title == "known":
            found |= coverage("frat", windows)
    return found


LEVELS = {"parts": ("item_id", "location_id"), "industries": ("item_id",), "states": ("location_id",), "total": ()}


def aus_retail() -> dict[str, float]:
    engine, config, found = Lake(load_shop("aus_retail")).engine(), configuration("aus_retail"), {}
    demand, alone = engine.select("select * from demand"), config.model_copy(update={"reconcile": ()})
    ahead = {level: direct(engine.bind(demand=summed(demand, kept)), alone) for level, kept in LEVELS.items()}
    reconciled = direct(engine, config)
    for level, kept in LEVELS.items():
        base, parts = ahead[level], {"sums": ahead["parts"], "reconciled": reconciled}
        means = {name: added(of.mean, of.keys, base.keys, kept) for name, of in parts.items()}
        means |= {"statistical": base.statistical, "direct": base.mean}
        errors = {name: float(np.abs(mean - base.actual).sum() / base.actual.sum()) for name, mean in means.items()}
        found |= {f"{level} {name}": error for name, error in errors.items()}
        print(f"aus_retail {level:12} wape  " + "  ".join(f"{name} {error:.4f}" for name, error in errors.items()))
    tied, total = reconciled.paths, reconciled.paths.sum(axis=0)
    by_state = added(tied, reconciled.keys, ahead["states"].keys, ("location_id",)).sum(axis=0)
    found["incoherence"] = float(np.abs(by_state - total).max())
    print(f"aus_retail: states' paths and the total's differ by {found['incoherence']:.1e} at most")
    return found | coverage("aus_retail", [reconciled.rows])


class Direct(NamedTuple):
    """Forecasts of one level: keys, mean [S, H], paths [S, N, H], truth [S, H], and how they were judged.

    statistical : what sums are reconciled towards, units, shape (S, H)
    """

    keys: Keys
    mean: np.ndarray
    paths: np.ndarray
    actual: np.ndarray
    statistical: np.ndarray
    rows: list[Row]


def direct(engine: Engine, config: DemandConfig) -> Direct:
    window = window_at(engine, "2018-01-01", config, "month")
    with TemporaryDirectory() as folder:
        forecaster = fitted(window, config, "aus_retail", folder)
        known = forecaster.panel(window.past, window.as_of, window.known_future)
        values = np.array(forecaster.values)
        actual, _ = outcome(window.truth, window.end, known)
        keys = list(zip(forecaster.item_ids, forecaster.location_ids, strict=True))
        rows = evaluate(forecaster, window, "time")
        paths = forecaster.paths(values, 200).astype(np.float64)
        eligible = known.eligible(known.n_periods)
        statistical = base_of(known, known.n_periods, "holt_winters_additive")[eligible]
        return Direct(keys, values[:, :, 0], paths, actual[eligible], statistical, rows)


def summed(demand: pa.Table, kept: tuple[str, ...]) -> pa.Table:
    """Demand of a level, in the columns of the contract; what is summed over is called "all"."""
    sums = demand.group_by([*kept, "date"]).aggregate([("quantity", "sum"), ("revenue", "sum")])
    everybody = pa.array(["all"] * sums.num_rows)
    columns = {name: sums[name] if name in kept else everybody for name in ("item_id", "location_id")}
    columns |= {"date": sums["date"], "quantity": sums["quantity_sum"], "revenue": sums["revenue_sum"]}
    return pa.table(columns)


def added(values: np.ndarray, keys: Keys, level: Keys, kept: tuple[str, ...]) -> np.ndarray:
    row = {key: number for number, key in enumerate(level)}
    of = [row[item if "item_id" in kept else "all", place if "location_id" in kept else "all"] for item, place in keys]
    sums = np.zeros((len(level), *values.shape[1:]))
    np.add.at(sums, of, values)
    return sums


def seeded() -> dict[str, float]:
    shop = load_shop("seeded")
    lake, found = Lake(shop), {}
    truth = pq.read_table(home() / "seeded" / "source" / "truth" / "demand.parquet")
    for stock_outs in ("shared", "missing", "ignored"):
        config = configuration("seeded", stock_outs=stock_outs)
        as_of = Span(config.horizon, "day").after(lake.end(), -1)
        with TemporaryDirectory() as folder:
            forecaster = fitted(time_window(lake.engine(), as_of, lake.end()), config, "seeded", folder)
            inside = pc.and_(
                pc.and_(pc.greater_equal(truth["date"], as_of.date()), pc.less(truth["date"], lake.end().date())),
                pc.is_in(truth["item_id"], pa.array(forecaster.item_ids)),
            )
            true = pc.sum(truth.filter(inside)["expected_quantity"]).as_py() * (1 - REFUND_SHARE)
            found[stock_outs] = float(forecaster.values[:, :, 0].sum() / true - 1)
        print(f"seeded stock-outs {stock_outs:8} forecast over true demand {found[stock_outs]:+.4f}", flush=True)
    return found


BENCHMARKS = {
    "freshretail": freshretail,
    "carparts": carparts,
    "carparts_cost": carparts_cost,
    "frat": frat,
    "aus_retail": aus_retail,
    "seeded": seeded,
}


if __name__ == "__main__":
    main()
