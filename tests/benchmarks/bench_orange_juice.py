"""Orange juice at planned prices, twelve rounds: 11 brands in 83 stores, as TSPerf set the task.

    shopkeeper ingest --shop orange_juice
    python tests/benchmarks/bench_orange_juice.py [--rounds 1 2 3]

Round r knows the weeks up to 133 + 2 r and forecasts the weeks 135 + 2 r and 136 + 2 r; prices, deals and advertising
of the weeks ahead are known. MAPE is the mean over all rows of all rounds; naive repeats the last sales known.
Published are 109.67 for it and 36.28 for LightGBM. The last line is one JSON object.

Source: Microsoft's TSPerf, "Retail sales forecasting: OrangeJuice_Pt_3Weeks_Weekly".
"""

import argparse
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.engine import Engine
from features.lake import Lake
from features.panels import Panel, outcome
from features.shops import load_shop
from features.windows import time_window
from serving.artifact import Draft
from serving.demand import Forecaster
from training.config import CONFIG_FOLDER, load_config
from training.demand.config import DemandConfig
from training.demand.fit import DemandModel, fit

ROUNDS = range(1, 13)
WEEK_ZERO = datetime(1989, 9, 4, tzinfo=UTC)
JUDGED = slice(1, 3)
"""Of the three weeks ahead; the first passes before an order could arrive."""


def main() -> None:
    config = load_config(DemandConfig, "demand", arguments().config)
    shop = Lake(load_shop("orange_juice")).engine()
    rows = [judged(shop, number, config) for number in arguments().rounds]
    columns = ("round", "rows", "naive", "ours", "seconds")
    print("".join(f"{name:>10}" for name in columns))
    for row in rows:
        print("".join(f"{row[name]:10.2f}" for name in columns))
    n_rows = sum(row["rows"] for row in rows)
    mape = {name: sum(row[name] * row["rows"] for row in rows) / n_rows for name in ("naive", "ours")}
    print(json.dumps({"rounds": rows, "rows": n_rows, **mape}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, nargs="+", choices=ROUNDS, default=list(ROUNDS))
    parser.add_argument("--config", type=Path, default=CONFIG_FOLDER / "demand" / "orange_juice.toml")
    return parser.parse_args()


def judged(shop: Engine, number: int, config: DemandConfig) -> dict[str, float]:
    """MAPE of one round, in percent."""
    started = perf_counter()
    as_of = WEEK_ZERO + timedelta(weeks=134 + 2 * number)
    window = time_window(shop, as_of, as_of + timedelta(weeks=config.horizon))
    model = fit(window.past, window.known_future, as_of, "week", config)
    units, _ = outcome(window.truth, window.end, model.known)
    actual = units[model.known.eligible(model.known.n_periods), JUDGED]
    ours, naive = forecast(model)[:, JUDGED], last_sales(model.known)[:, None]
    sold = actual > 0
    ape = {name: np.abs(each - actual) / np.where(sold, actual, 1) for name, each in (("naive", naive), ("ours", ours))}
    return {
        "round": number,
        "rows": int(sold.sum()),
        **{name: 100 * float(errors[sold].mean()) for name, errors in ape.items()},
        "seconds": perf_counter() - started,
    }


def forecast(model: DemandModel) -> np.ndarray:
    """The point forecast, [n_series, horizon], as the exported model answers it."""
    with TemporaryDirectory() as folder:
        draft = Draft(Path(folder) / "model")
        model.export(draft)
        forecaster = Forecaster.load(draft.seal({"task": "demand"}))
        return np.array(forecaster.values[:, :, 0])


def last_sales(known: Panel) -> np.ndarray:
    """The latest week's sales of each eligible series in which its store was open, [n_series]."""
    sold = np.where(known.exposure > 0, known.sold, np.nan)[known.eligible(known.n_periods)]
    latest = sold.shape[1] - 1 - np.argmax(~np.isnan(sold[:, ::-1]), axis=1)
    return sold[np.arange(len(sold)), latest]


if __name__ == "__main__":
    main()
