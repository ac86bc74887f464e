"""Orders in 39 weeks from 39 weeks: the CDNOW data, all customers and the tenth of publications.

    shopkeeper ingest --shop cdnow
    python tests/benchmarks/bench_value.py

A model is fitted on the customers that it is judged on. ``season`` is the calendar of recreational goods, known before
the cut-off, for there is no Christmas in the weeks to fit on. The last line is one JSON object.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from cdnow import AS_OF, END, tenth

from features.customers import order_summaries, orders_between, purchase_days
from features.lake import Lake
from features.shops import load_shop
from features.windows import time_window
from training import repeat_buying
from training.customer_value import Season
from training.repeat_buying import OrderHistories, RepeatBuying
from training.value_metrics import level_metrics

DAYS = (END - AS_OF).days
N_KNOWN = (AS_OF.date() - date(1997, 1, 1)).days

Fit = Callable[[OrderHistories], RepeatBuying]
MODELS: dict[str, Fit] = {
    "bg_nbd": lambda histories: repeat_buying.fit(histories, as_published=True),
    "without drift": lambda histories: replace(repeat_buying.fit(histories), drift_level=None),
    "repeat_buying": repeat_buying.fit,
}
COLUMNS = ("mae", "rmse", "correlation", "bias", "seconds")


def main() -> None:
    shop = load_shop("cdnow")
    window = time_window(Lake(shop).engine(), AS_OF, END)
    histories = OrderHistories.of(purchase_days(window.past, AS_OF), AS_OF)
    person_ids = order_summaries(window.past, AS_OF)["person_id"].to_pylist()
    came = orders_between(window.truth, AS_OF, END, person_ids)["n_order_days"].to_numpy().astype(float)
    ahead = {"": float(DAYS), " and season": Season(shop.monthly_sales).average_days(DAYS, AS_OF, N_KNOWN)}
    groups = {"tenth": tenth(window.past), "all": np.ones(len(came), bool)}
    found = [
        {"customers": name, **row}
        for name, chosen in groups.items()
        for row in rows(histories.take(chosen), came[chosen], ahead)
    ]
    print(f"{'customers':9} {'model':26}" + "".join(f"{name:>15}" for name in COLUMNS))
    for row in found:
        print(f"{row['customers']:9} {row['model']:26}" + "".join(f"{row[name]:15.3f}" for name in COLUMNS))
    print(json.dumps({"rows": found}))


def rows(histories: OrderHistories, came: np.ndarray, ahead: dict[str, float]) -> Iterator[dict[str, object]]:
    same_rate = histories.repeats * DAYS / np.maximum(histories.to_end, 1)
    yield {"model": "same_rate", **level_metrics(same_rate, came), "seconds": 0.0}
    for name, fit in MODELS.items():
        started = perf_counter()
        model = fit(histories)
        seconds = perf_counter() - started
        for suffix, days in ahead.items():
            yield {
                "model": name + suffix,
                **level_metrics(model.expected_orders(histories, days), came),
                "seconds": seconds,
            }


if __name__ == "__main__":
    main()
