"""What the forecast's orders would have cost: ways of ordering side by side on windows of the past.

In every window the model is fitted on what came before it; then each review sees the periods that have passed since, as
recorded sales tell them. Whatever the way of ordering, a window opens where the benchmark's orders had led.
"""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from features.engine import Engine
from features.errors import UserError
from features.panels import Keys, Panel, panel
from features.periods import DAYS, Frequency, Span, first_day, number
from features.windows import planned, rolling
from serving.artifact import Artifact, Draft
from serving.demand import Forecaster
from serving.recipe import in_whole_units
from serving.replenish import z_sigma_level
from serving.supply import Floats, Ints, Paths, Supply
from training.demand.config import DemandConfig
from training.demand.fit import fit
from training.demand.ordering import N_PATHS, require_reach, terms
from training.evaluation import Row
from training.simulation import Outcome, Policy, clairvoyant, moving_average, path_policy, simulate, steady_state

WARM_UP = {"day": 91, "week": 26, "month": 12}
WINDOW = {"day": 28, "week": 8, "month": 6}
BENCHMARK = "moving_average"
SPARE = 1
"""Periods beyond lead time and review that the benchmark orders up to: four weeks for an order that must last three, as
the challenge's organisers do."""


def replayed(
    engine: Engine,
    frequency: Frequency,
    config: DemandConfig,
    until: datetime,
    n_windows: int,
    country: str | None = None,
) -> list[Row]:
    """Cost, fill rate and cycle service level of each way of ordering in each of the last windows before ``until``.

    Ways: ``paths``, the forecast's sample paths; ``z_sigma``, its mean and deviation by the classical formula;
    ``moving_average``, the benchmark; ``clairvoyant``, which knows demand and shows what nobody can beat. Segments are
    the windows, ``after_lead_time`` their periods that orders of the window can reach. Lead times last whole periods,
    fractions rounded up. Sales of periods in which an item was out of stock are demand here as they were recorded.

    Raises UserError when the lake has no terms of supply or too little history, or an order must last longer than the
    forecast reaches.
    """
    rows: list[Row] = []
    for window in rolling(engine, until, Span(WINDOW[frequency], frequency), n_windows):
        model = fit(window.past, window.known_future, window.as_of, frequency, config, country)
        with TemporaryDirectory() as folder:
            draft = Draft(Path(folder) / "artifact")
            model.export(draft)
            forecaster = Forecaster.load(Artifact(draft.folder))
            ahead = planned(engine, window.end, Span(config.horizon, frequency).after(window.end))
            whole = panel(window.truth, window.end, forecaster.settings, ahead)
            outcomes = _outcomes(forecaster, whole, model.known, engine)
        for name, outcome in outcomes.items():
            rows += _rows(name, window.name, outcome)
    return rows


def _outcomes(forecaster: Forecaster, whole: Panel, known: Panel, engine: Engine) -> dict[str, Outcome]:
    chosen = np.flatnonzero(known.eligible(known.n_periods))
    keys = [(known.item_ids[row], known.location_ids[row]) for row in chosen]
    placed, supply = terms(engine, keys, DAYS[known.frequency])
    ordered = [keys[row] for row in placed]
    require_reach(supply, known.horizon, known.frequency, ordered)
    supply = replace(supply, lead_time=np.ceil(supply.lead_time))
    _require_costs(supply, [keys[row] for row in placed])
    rows = _same(whole, ordered)
    start, before = int(np.searchsorted(whole.dates, known.dates[known.n_periods])), WARM_UP[known.frequency]
    if start <= before:
        raise UserError(
            f"the window starts after {start} {known.frequency}s and the opening stock needs {before} more before: "
            "simulate fewer windows or ingest more history"
        )
    sales = np.nan_to_num(whole.sold[rows]).astype(np.float64)
    cover = (supply.lead_time + supply.review).astype(np.int64) + SPARE
    in_stock, season = whole.exposure[rows] > 0, _season(whole, int(cover.max()))

    def benchmark(first: int) -> Policy:
        return moving_average(sales, in_stock, season, first, cover=cover)

    opening = steady_state(sales[:, start - before : start], supply, benchmark(start - before))
    demand = sales[:, start:]
    ahead = _Ahead(forecaster, whole, rows, start)
    policies = {
        "paths": path_policy(ahead.paths, supply, forecaster.carry),
        "z_sigma": _z_sigma(ahead, supply),
        BENCHMARK: benchmark(start),
        "clairvoyant": clairvoyant(demand, opening, supply),
    }
    return {name: simulate(demand, opening, supply, policy) for name, policy in policies.items()}


def _require_costs(supply: Supply, keys: Keys) -> None:
    without = np.isnan(supply.holding_cost) | np.isnan(supply.shortage_cost)
    if without.any():
        raise UserError(
            f"supply gives item {keys[int(without.argmax())][0]} no holding_cost or shortage_cost, and a replay counts "
            "money: add both"
        )


class _Ahead:
    """The model's paths of the chosen series from any period of the window, each origin forecast once."""

    def __init__(self, forecaster: Forecaster, whole: Panel, rows: Ints, start: int) -> None:
        self._forecaster, self._whole, self._rows, self._start = forecaster, whole, rows, start
        self._found: dict[int, Paths] = {}

    def paths(self, period: int) -> Paths:
        if period not in self._found:
            origin = self._start + period
            covered = np.flatnonzero(self._whole.eligible(origin))
            values = in_whole_units(self._forecaster.recipe.forecast(self._whole, origin), self._whole, origin)
            everybody = np.zeros((len(self._whole.item_ids), *values.shape[1:]), np.float32)
            everybody[covered] = values
            self._found[period] = self._forecaster.paths(everybody[self._rows], N_PATHS, seed=period)
        return self._found[period]


def _z_sigma(ahead: _Ahead, supply: Supply) -> Policy:
    """Order up to the mean and some standard deviations of the demand until the next order's arrival."""
    cover = (supply.lead_time + supply.review).astype(np.int64)

    def policy(period: int, on_hand: Floats, on_order: Floats) -> Floats:
        paths = ahead.paths(period)
        covered = np.arange(paths.shape[2]) < cover[:, None]
        total = (paths * covered[:, None, :]).sum(axis=2)
        level = z_sigma_level(total.mean(axis=1) / cover, total.std(axis=1) / np.sqrt(cover), supply)
        missing: Floats = np.rint(np.maximum(level - on_hand - on_order.sum(axis=1), 0))
        return missing

    return policy


def _same(whole: Panel, keys: Keys) -> Ints:
    at = {key: row for row, key in enumerate(zip(whole.item_ids, whole.location_ids, strict=True))}
    return np.array([at[key] for key in keys])


def _season(whole: Panel, longest: int) -> Ints:
    """The place of each period, and of those that the benchmark covers after it, in its season."""
    place = {"day": "%w", "week": "%V", "month": "%m"}[whole.frequency]
    first = int(number(whole.dates[0], whole.frequency))
    days = first_day(np.arange(first, first + whole.n_periods + longest), whole.frequency)
    return np.array([int(day.strftime(place)) for day in days.astype(object)])


def _rows(name: str, window: str, outcome: Outcome) -> list[Row]:
    reached = int(outcome.supply.lead_time.max())
    n, n_periods = outcome.demand.shape
    parts = {"all": slice(None)} | ({"after_lead_time": slice(reached, None)} if reached < n_periods else {})
    return [
        Row(name, "simulated", f"{window} {segment}", False, metric, float(value), None, None, n)
        for segment, part in parts.items()
        for metric, value in {
            "cost": outcome.cost[part].sum(),
            "holding_cost": outcome.holding_cost[part].sum(),
            "shortage_cost": outcome.shortage_cost[part].sum(),
            "fill_rate": 1 - outcome.lost[:, part].sum() / max(outcome.demand[:, part].sum(), 1e-9),
            "cycle_service_level": outcome.cycle_service_level[part].mean(),
        }.items()
    ]
