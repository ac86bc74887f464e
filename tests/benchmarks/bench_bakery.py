"""How much to bake, 297 days ahead: the newsvendor cost on the last quarter of the bakery data, calendar alone.

    python tests/benchmarks/bench_bakery.py [--config configs/demand/bakery.toml] [--holidays with without]

The published task has 94 of the 105 series and leaves out the first 27 days: 891 days to learn from, 297 to judge. A
missing unit costs ten times the service level, one too many ten times its complement; costs are means per day and
series. The sample average (SAA) orders a quantile of all sales known; published are the best of the rows that know the
date alone, for those with lags know the day before the one to forecast. Ours knows weekday, date and public holidays.
The CSV is unpacked into the folder that the shop's configuration names, and ingested. The last line is one JSON object.

Source: the published results beside the data (best_results_bakery.csv).
"""

import argparse
import csv
import io
import json
import sys
import zipfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.home import data_folder, home
from features.ingest import ingest
from features.lake import Lake
from features.panels import outcome
from features.shops import load_shop
from features.windows import Window, time_window
from serving.artifact import Draft
from serving.demand import Forecaster
from training.config import CONFIG_FOLDER, load_config
from training.demand.config import DemandConfig
from training.demand.fit import DemandModel, fit

AS_OF, END = datetime(2018, 7, 8, tzinfo=UTC), datetime(2019, 5, 1, tzinfo=UTC)
LEVELS = (0.9, 0.5, 0.75, 0.25, 0.1)
N_LEFT_OUT = 27


def main() -> None:
    asked = arguments()
    config = load_config(DemandConfig, "demand", asked.config)
    unpack("Bakery_dataset.csv")
    shop = load_shop("bakery")
    ingest(shop)
    window = time_window(Lake(shop).engine(), AS_OF, END)
    rows = published()
    for holidays in asked.holidays:
        country = shop.country if holidays == "with" else None
        rows |= judged(window, f"ours {holidays} holidays", country, config)
    print(f"{'':24}" + "".join(f"{level:>10}" for level in LEVELS))
    for name, row in rows.items():
        print(f"{name:24}" + "".join(f"{row[f'{level}']:10.3f}" for level in LEVELS))
    print(json.dumps(rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG_FOLDER / "demand" / "bakery.toml")
    parser.add_argument("--holidays", choices=("with", "without"), nargs="+", default=["with", "without"])
    return parser.parse_args()


def unpack(name: str) -> None:
    with zipfile.ZipFile(data_folder() / "bakery" / f"{name}.zip") as archive:
        archive.extract(name, home() / "bakery")


def results() -> list[dict[str, str]]:
    """The published costs that know the date alone, a row per series, model and service level."""
    path = data_folder() / "bakery" / "best_results_bakery.csv.zip"
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as lines:
        rows = list(csv.DictReader(io.TextIOWrapper(lines)))
    return [row for row in rows if row["feature combi"] == "['calendar']"]


def published() -> dict[str, dict[str, float]]:
    """Mean cost of every published model by service level, the sample average among them."""
    costs = defaultdict(lambda: defaultdict(list))
    for row in results():
        costs[f"published {row['model']}"][f"{float(row['sl'])}"].append(float(row["average costs"]))
    return {model: {level: float(np.mean(each)) for level, each in found.items()} for model, found in costs.items()}


def judged(window: Window, name: str, country: str | None, config: DemandConfig) -> dict[str, dict[str, float]]:
    """Cost by service level of the fitted model, and of the sample average on the same panel."""
    started = perf_counter()
    model = fit(window.past, window.known_future, AS_OF, "day", config, country)
    forecaster = exported(model)
    series = zip(forecaster.location_ids, forecaster.item_ids, strict=True)
    groups = {row["group"] for row in results()}
    compared = [row for row, (shop_no, product_no) in enumerate(series) if f"({shop_no}, {product_no})" in groups]
    sold, _ = outcome(window.truth, window.end, model.known)
    eligible = model.known.eligible(model.known.n_periods)
    actual, past = sold[eligible][compared], model.known.sold[eligible][compared, N_LEFT_OUT:]
    units = {level: forecaster.values[compared, :, 1 + config.quantiles.index(level)] for level in LEVELS}
    average = {level: np.quantile(np.nan_to_num(past), level, axis=1, method="higher")[:, None] for level in LEVELS}
    seconds = perf_counter() - started
    return {"sample average": costs(average, actual), name: {**costs(units, actual), "seconds": seconds}}


def exported(model: DemandModel) -> Forecaster:
    with TemporaryDirectory() as folder:
        draft = Draft(Path(folder) / "model")
        model.export(draft)
        return Forecaster.load(draft.seal({"task": "demand"}))


def costs(units: dict[float, np.ndarray], actual: np.ndarray) -> dict[str, float]:
    short = {level: actual - ordered for level, ordered in units.items()}
    return {
        f"{level}": float(np.mean(10 * np.maximum(level * each, (level - 1) * each))) for level, each in short.items()
    }


if __name__ == "__main__":
    main()
