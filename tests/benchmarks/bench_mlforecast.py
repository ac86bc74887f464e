"""Rows per second of features and trees, ours and mlforecast's, on the same sales with the same LightGBM settings.

    python -m venv PEERS && PEERS/bin/pip install mlforecast lightgbm
    python tests/benchmarks/bench_mlforecast.py --peers PEERS/bin/python [--series 50000 --days 83]

Both start from daily sales in memory, sides one after the other, each in a process of its own whose peak memory is
told. Ours makes examples at five origins of seven steps each; of mlforecast's rows those without their longest lag are
dropped, which leaves 35 days of 83 to each series: as many rows. mlforecast is given as many features as ours have that
say anything here (ours compute those of prices and promotions too, which are all unknown), lags and rolling statistics
of a series' own; ours also hold trends of its item, category and place. Trees, leaves, bins, threads and objective are
the same; ours weigh rows. Seconds are of the clock; those of the processors are told too, for a machine that is busy
otherwise. The last line is one JSON object.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

HORIZON, N_ORIGINS = 7, 5
LONGEST_LAG = 48
N_PLACES, N_CATEGORIES = 900, 30
FIRST_DAY = np.datetime64("2024-03-28")
INSTALL = "python -m venv PEERS && PEERS/bin/pip install mlforecast lightgbm, then --peers PEERS/bin/python"


def sales(n_series: int, n_days: int) -> np.ndarray:
    """Units, float32 [n_series, n_days]: slow sellers and fast ones, half as much again at the weekend."""
    rng = np.random.default_rng(0)
    weekend = np.where(np.arange(n_days) % 7 >= 5, 1.5, 1.0)
    return rng.poisson((0.3 + rng.gamma(1.0, 1.5, n_series))[:, None] * weekend).astype(np.float32)


def ours(sold: np.ndarray, _: dict[str, Any]) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from features.panels import PRICES, PROMOTIONS, Panel
    from training.config import CONFIG_FOLDER, load_config
    from training.demand.config import DemandConfig
    from training.demand.learning import examples, mean_boosters

    config = load_config(DemandConfig, "demand", CONFIG_FOLDER / "demand" / "freshretail.toml")
    n_series, n_days = sold.shape
    number = np.arange(n_series)
    unknown = np.full((n_series, n_days + HORIZON), np.nan, np.float32)
    known = Panel(
        item_ids=tuple(f"i{item}" for item in number // N_PLACES),
        location_ids=tuple(f"l{place}" for place in number % N_PLACES),
        dates=FIRST_DAY + np.arange(n_days + HORIZON),
        sold=sold,
        exposure=np.ones_like(sold),
        revenue=np.zeros_like(sold),
        category=number % N_CATEGORIES,
        location=number % N_PLACES,
        offers=dict.fromkeys((*PRICES, *PROMOTIONS), unknown),
        frequency="day",
        min_periods=1,
    )
    origins = [round(origin) for origin in np.linspace(n_days / 2, n_days - HORIZON, N_ORIGINS)]
    taught, feature_s = timed(lambda: examples(known, origins, config.bases))
    (booster,), fit_s = timed(lambda: mean_boosters(taught, config))
    says = sum(bool(np.nanmin(column) < np.nanmax(column)) for column in taught.rows.T if not np.isnan(column).all())
    settings = {"n_estimators": booster.params.pop("num_iterations"), **booster.params}
    return told(len(taught.rows), says, feature_s, fit_s) | {"settings": settings}


def theirs(sold: np.ndarray, settings: dict[str, Any]) -> dict[str, Any]:
    import lightgbm
    import pandas as pd
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import (
        ExpandingMean,
        ExponentiallyWeightedMean,
        RollingMax,
        RollingMean,
        RollingMin,
        RollingStd,
        SeasonalRollingMean,
    )

    n_series, n_days = sold.shape
    number = np.repeat(np.arange(n_series), n_days)
    codes = {"item": number // N_PLACES, "category": number % N_CATEGORIES, "place": number % N_PLACES}
    days = np.tile((FIRST_DAY + np.arange(n_days)).astype("datetime64[ns]"), n_series)
    frame = pd.DataFrame({"unique_id": number, "ds": days, "y": sold.ravel(), **codes})
    rolling = [of(days) for of in (RollingMean, RollingStd) for days in (7, 14, 28)]
    extremes = [of(days) for of in (RollingMin, RollingMax) for days in (7, 28)]
    seasonal = [SeasonalRollingMean(7, weeks) for weeks in (2, 3, 4)]
    smooth = [ExpandingMean(), ExponentiallyWeightedMean(0.1), ExponentiallyWeightedMean(0.3)]
    model = MLForecast(
        models=[lightgbm.LGBMRegressor(**settings)],
        freq="D",
        lags=[*range(1, 8), 14, 21, 28, 35, 42, LONGEST_LAG],
        lag_transforms={
            1: [*rolling, *extremes, *seasonal, *smooth],
            7: [*rolling, RollingMin(7), RollingMax(7)],
            14: [RollingMean(7), RollingMean(28)],
            21: [RollingMean(7), RollingMean(14), RollingMean(28), RollingStd(14), RollingStd(28)],
        },
        date_features=["dayofweek", "day"],
        num_threads=settings["num_threads"],
    )
    (rows, units), feature_s = timed(
        lambda: model.preprocess(frame, static_features=[*codes], return_X_y=True, as_numpy=True)
    )
    _, fit_s = timed(lambda: model.fit_models(rows, units))
    return told(*rows.shape, feature_s, fit_s)


def timed(work: Callable[[], Any]) -> tuple[Any, np.ndarray]:
    """What the work gives, and its seconds by the clock and of the processors."""
    started = np.array([perf_counter(), process_time()])
    done = work()
    return done, np.array([perf_counter(), process_time()]) - started


def told(n_rows: int, n_features: int, feature_s: np.ndarray, fit_s: np.ndarray) -> dict[str, Any]:
    seconds, processor_s = (feature_s + fit_s).tolist()
    return {
        "rows": n_rows,
        "features": n_features,
        "feature_s": float(feature_s[0]),
        "fit_s": float(fit_s[0]),
        "rows_per_s": n_rows / seconds,
        "feature_processor_s": float(feature_s[1]),
        "rows_per_processor_s": n_rows / processor_s,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


SIDES = {"ours": ours, "mlforecast": theirs}


def run(python: str, side: str, options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    size = ["--series", str(options.series), "--days", str(options.days)]
    command = [python, __file__, "--side", side, *size, "--settings", json.dumps(settings)]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1])
    numbers = (f"{name} {value:,.5g}" for name, value in found.items() if name != "settings")
    print(f"{side:12}" + "  ".join(numbers), flush=True)
    return found


def require(python: str) -> None:
    for name in ("mlforecast", "lightgbm"):
        if subprocess.run([python, "-c", f"import {name}"], stderr=subprocess.DEVNULL, check=False).returncode:
            raise SystemExit(f"{python} has no {name}: {INSTALL}")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--peers", default=sys.executable, help="Python of an environment that holds mlforecast.")
    asked.add_argument("--series", type=int, default=50_000)
    asked.add_argument("--days", type=int, default=83)
    asked.add_argument("--side", choices=[*SIDES], help=argparse.SUPPRESS)
    asked.add_argument("--settings", type=json.loads, default={}, help=argparse.SUPPRESS)
    options = asked.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](sales(options.series, options.days), options.settings)))
        return
    require(options.peers)
    found = {"ours": run(sys.executable, "ours", options, {})}
    found["mlforecast"] = run(options.peers, "mlforecast", options, found["ours"].pop("settings"))
    for rate in ("rows_per_s", "rows_per_processor_s"):
        found[f"ratio {rate}"] = found["ours"][rate] / found["mlforecast"][rate]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
