"""What-if on Breakfast at the Frat: how fast 1,000 series are scored again, and whether a price cut does what cuts did.

    python tests/benchmarks/bench_what_if.py

The shop must have been ingested (`shopkeeper ingest --shop frat`). Speed: another price for each of 1,000 series, one
request, beside the panel and the forecast of all series anew. Truth: models are trained to the start of each of four
windows of four weeks. A promoted row is a series in a week of the window in which its price lay 15 to 25 % below its
median of the 26 weeks before. Its uplift is what was sold over the forecast had the price been usual and nothing
promoted; the model's is its own what-if of a fifth off, with the displays and mailers that there were. Rows at their
usual price without promotion show how far that forecast itself is off. Intervals: 95 %, bootstrap over items. Quarters
are of the model's uplift. The last line is one JSON object.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.known import median
from features.lake import Lake
from features.panels import Panel, outcome
from features.periods import Span
from features.shops import load_shop
from features.windows import Window, time_window
from serving.artifact import Artifact, Draft
from serving.demand import Forecaster
from serving.what_if import Change
from training.config import CONFIG_FOLDER, load_config
from training.demand.config import DemandConfig
from training.demand.fit import fit

N_SERIES, N_WINDOWS, N_TIMES, N_RESAMPLES = 1000, 4, 5, 2000
USUAL_WEEKS = 26
CUT = 0.8
PROMOTED = (0.75, 0.85)
USUAL = (0.98, 1.02)
LEAST_ROWS_OF_A_QUARTER = 100
NOTHING = {"date": None, "display": None, "mailer": None, "covariates": {}}
EXPLAINED = {"item_ids": [], "location_id": None, "horizon": None, "offset": 0, "limit": 1000, "explain": True}
CONFIG = load_config(DemandConfig, "demand", CONFIG_FOLDER / "demand" / "frat.toml")


class Rows(NamedTuple):
    """Series in held-out weeks, all of shape (n,): item, units sold, at the usual price unpromoted, at a fifth off.

    relative_price : price over the usual one; promoted : whether on display or in a mailer
    """

    item: np.ndarray
    relative_price: np.ndarray
    promoted: np.ndarray
    sold: np.ndarray
    usual: np.ndarray
    cut: np.ndarray

    def where(self, kept: np.ndarray) -> "Rows":
        return Rows(*(column[kept] for column in self))


def main() -> None:
    lake, span, seconds, parts = Lake(load_shop("frat")), Span(CONFIG.horizon, "week"), {}, []
    for back in range(N_WINDOWS, 0, -1):
        as_of = span.after(lake.end(), -back)
        window = time_window(lake.engine(), as_of, span.after(as_of))
        with TemporaryDirectory() as folder:
            artifact = fitted(window, Path(folder) / "artifact")
            forecaster = Forecaster.load(artifact)
            known = forecaster.panel(window.past, window.as_of, window.known_future)
            parts.append(held_out(forecaster, known, window))
            seconds = timed(artifact, known, window)
    rows = Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    print(json.dumps({**seconds, **uplifts(rows)}))


def fitted(window: Window, folder: Path) -> Artifact:
    model = fit(window.past, window.known_future, window.as_of, "week", CONFIG)
    draft = Draft(folder)
    model.export(draft)
    return draft.seal({"task": "demand"})


def timed(artifact: Artifact, known: Panel, window: Window) -> dict[str, float]:
    """Seconds of a request that changes the price of 1,000 series, the first and the median of more; of all anew."""
    fresh = Forecaster.load(artifact)
    request = {"changes": cheaper(known), "horizon": None}
    first = stopwatch(lambda: fresh.answer(request))
    began = process_time()
    again = float(np.median([stopwatch(lambda: fresh.answer(request)) for _ in range(N_TIMES)]))
    cpu = (process_time() - began) / N_TIMES
    n_changed = len(fresh.answer(request)["forecasts"]) // known.horizon
    explain = stopwatch(lambda: fresh.answer(EXPLAINED))
    scored = stopwatch(lambda: fresh.forecast(known))
    anew = stopwatch(lambda: fresh.forecast(fresh.panel(window.past, window.as_of, window.known_future)))
    n_changes, n_series = len(request["changes"]), len(fresh.item_ids)
    print(f"what-if of {n_changes} changes, {n_changed} series: {again:.3f} s (CPU {cpu:.3f} s), first {first:.3f} s")
    print(f"all {n_series} series anew: {anew:.3f} s, of which features and trees {scored:.3f} s")
    print(f"{EXPLAINED['limit']} rows explained: {explain:.3f} s")
    return {
        "n_series": n_changed,
        "what_if_s": again,
        "cpu_s": cpu,
        "first_s": first,
        "anew_s": anew,
        "explain_s": explain,
    }


def cheaper(known: Panel) -> list[dict[str, object]]:
    """A fifth off the usual price of every series of the first items that have 1,000 between them."""
    usual, found = usual_price(known), []
    for row in sorted(np.flatnonzero(known.eligible(known.n_periods)), key=lambda row: known.item_ids[row]):
        if len(found) >= N_SERIES and known.item_ids[row] != found[-1]["item_id"]:
            break
        if np.isfinite(usual[row]):
            key = {"item_id": known.item_ids[row], "location_id": known.location_ids[row]}
            found.append({**NOTHING, **key, "price": float(CUT * usual[row])})
    return found


def stopwatch(call: Callable[[], object]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


def usual_price(known: Panel) -> np.ndarray:
    return median(known.offers["price"][:, known.n_periods - USUAL_WEEKS : known.n_periods])


def held_out(forecaster: Forecaster, known: Panel, window: Window) -> Rows:
    """Every week with a price of every series that is forecast; two what-ifs, of all promoted rows at once."""
    sold, _ = outcome(window.truth, window.end, known)
    series, usual = np.flatnonzero(known.eligible(known.n_periods)), usual_price(known)
    price, display, mailer = (known.offers[name][series, known.n_periods :] for name in ("price", "display", "mailer"))
    relative, promoted = price / usual[series, None], np.fmax(display, mailer) > 0
    asked = within(relative, PROMOTED)
    cells = list(zip(*np.nonzero(asked), strict=True))
    plain = {"display": 0.0, "mailer": 0.0}
    as_usual, cut = (
        forecaster.rescored([change(known, series, usual, cell, factor, also) for cell in cells], range(len(series)))
        for factor, also in ((1.0, plain), (CUT, {}))
    )
    there = ~np.isnan(relative)
    item = np.array(known.item_ids)[series][:, None].repeat(known.horizon, axis=1)
    columns = (item, relative, promoted, sold[series], as_usual[:, :, 0], cut[:, :, 0])
    return Rows(*(column[there] for column in columns))


def change(
    known: Panel, series: np.ndarray, usual: np.ndarray, cell: tuple[int, int], factor: float, also: dict[str, float]
) -> Change:
    row, step = series[cell[0]], known.n_periods + cell[1]
    price = float(factor * usual[row])
    return Change(known.item_ids[row], known.location_ids[row], str(known.dates[step]), {"price": price, **also})


def within(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    return (values >= bounds[0]) & (values <= bounds[1])


def uplifts(rows: Rows) -> dict[str, dict[str, float]]:
    promoted = within(rows.relative_price, PROMOTED)
    kinds = {
        "usual price, not promoted": within(rows.relative_price, USUAL) & ~rows.promoted,
        "a fifth off alone": promoted & ~rows.promoted,
        "a fifth off, display or mailer": promoted & rows.promoted,
    }
    found = {}
    for title, kept in kinds.items():
        some = rows.where(kept)
        found[title] = said(title, some)
        if title.startswith("a fifth") and len(some.sold) >= 4 * LEAST_ROWS_OF_A_QUARTER:
            quarter = np.searchsorted(np.quantile(some.cut / some.usual, (0.25, 0.5, 0.75)), some.cut / some.usual)
            for number in range(4):
                name = f"{title}, quarter {number + 1}"
                found[name] = said(name, some.where(quarter == number))
    return found


def said(title: str, rows: Rows) -> dict[str, float]:
    observed, model = (resampled(values, rows) for values in (rows.sold, rows.cut))
    print(
        f"{title:42} rows {len(rows.sold):6} items {len(np.unique(rows.item)):3}  "
        f"observed {observed[0]:.3f} ({observed[1]:.3f} to {observed[2]:.3f})  "
        f"model {model[0]:.3f} ({model[1]:.3f} to {model[2]:.3f})  inside: {observed[1] <= model[0] <= observed[2]}"
    )
    names = ("observed", "low", "high")
    return {"n_rows": len(rows.sold), **dict(zip(names, observed, strict=True)), "model": model[0]}


def resampled(values: np.ndarray, rows: Rows) -> tuple[float, float, float]:
    """The sum over what is usual, and its 95 % interval when items are drawn anew."""
    _, item = np.unique(rows.item, return_inverse=True)
    above, below = (np.bincount(item, each.astype(np.float64)) for each in (values, rows.usual))
    drawn = np.random.default_rng(0).integers(len(above), size=(N_RESAMPLES, len(above)))
    low, high = np.quantile(above[drawn].sum(axis=1) / below[drawn].sum(axis=1), (0.025, 0.975))
    return float(above.sum() / below.sum()), float(low), float(high)


if __name__ == "__main__":
    main()
