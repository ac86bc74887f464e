"""A model's forecast of every series and period, as planners take it: stored or computed again, long or wide."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.engine import Engine
from features.errors import UserError
from features.overrides import rows_of, units_of
from features.panels import Floats, Keys
from features.periods import Frequency, Span
from features.windows import before, planned
from serving.demand import Forecaster, quantile_name


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of each series in each period.

    keys : item and location of each series, length S; location "" is all together
    dates : datetime64[D], shape (H,), first day of each period; before the first of them everything was known
    quantiles : ascending, length Q
    values : float32, shape (S, H, 1 + Q), units: the mean, then the quantiles
    """

    keys: Keys
    dates: NDArray[np.datetime64]
    frequency: Frequency
    quantiles: Sequence[float]
    values: Floats

    @property
    def horizon(self) -> int:
        return len(self.dates)

    def of_first(self, horizon: int) -> "Forecast":
        """The same forecast of the first periods alone; raises UserError when it has fewer."""
        if horizon > self.horizon:
            raise UserError(
                f"--horizon {horizon} is longer than the {Span(self.horizon, self.frequency)} of this model: "
                "ask for fewer or train with a longer horizon"
            )
        return replace(self, dates=self.dates[:horizon], values=self.values[:, :horizon])

    def of_quantiles(self, asked: Sequence[float]) -> "Forecast":
        """The same forecast with some of its quantiles alone, in its order; raises UserError when it lacks one."""
        missing = [quantile for quantile in asked if quantile not in self.quantiles]
        if missing:
            raise UserError(
                f"the model has no quantile {missing[0]:g}: it has {', '.join(f'{q:g}' for q in self.quantiles)}; "
                "ask for some of these or train with other quantiles"
            )
        chosen = [place for place, quantile in enumerate(self.quantiles) if quantile in asked]
        columns = [0, *(1 + place for place in chosen)]
        return replace(self, quantiles=[self.quantiles[place] for place in chosen], values=self.values[..., columns])


def stored(forecaster: Forecaster) -> Forecast:
    """The forecast that was computed when the model was trained."""
    keys = list(zip(forecaster.item_ids, forecaster.location_ids, strict=True))
    dates = np.array(forecaster.dates, "datetime64[D]")
    return Forecast(keys, dates, forecaster.settings.frequency, forecaster.quantiles, forecaster.values)


def computed(forecaster: Forecaster, engine: Engine, as_of: datetime) -> Forecast:
    """The forecast by the same model from what was known at ``as_of`` and planned then.

    engine : everything known; nothing that happened from ``as_of`` on is read
    """
    ahead = Span(forecaster.settings.horizon, forecaster.settings.frequency)
    past = before(engine, as_of)
    known = forecaster.panel(past, as_of, planned(engine, as_of, ahead.after(as_of)))
    told = [(known.item_ids[row], known.location_ids[row]) for row in np.flatnonzero(known.eligible(known.n_periods))]
    young, expected = forecaster.sparse(past, as_of, known)
    values = np.concatenate([forecaster.forecast(known), expected])
    return Forecast([*told, *young], known.dates[known.n_periods :], known.frequency, forecaster.quantiles, values)


def long(forecast: Forecast, overrides: pa.Table, version: str) -> pa.Table:
    """A row per series, period and quantile.

    Columns ``item_id, location_id, date, quantile, value, mean, override, cutoff, model_version``; override is null
    where nobody planned, and the forecast beside it is the model's.
    """
    n_quantiles = len(forecast.quantiles)
    cells = {name: np.repeat(values, n_quantiles) for name, values in _cells(forecast, overrides).items()}
    of_quantile = {
        "quantile": np.tile(np.array(forecast.quantiles), len(forecast.keys) * forecast.horizon),
        "value": forecast.values[:, :, 1:].ravel(),
    }
    order = ("item_id", "location_id", "date", "quantile", "value", "mean", "override")
    return _table({name: (cells | of_quantile)[name] for name in order}, forecast, version)


def wide(forecast: Forecast, overrides: pa.Table, version: str) -> pa.Table:
    """A row per series and period.

    Columns ``item_id, location_id, date, mean``, each quantile as ``q0.50``, ``override, cutoff, model_version``.
    """
    cells = _cells(forecast, overrides)
    override = cells.pop("override")
    by_quantile = {
        quantile_name(quantile): forecast.values[:, :, column].ravel()
        for column, quantile in enumerate(forecast.quantiles, 1)
    }
    return _table({**cells, **by_quantile, "override": override}, forecast, version)


def _cells(forecast: Forecast, overrides: pa.Table) -> dict[str, NDArray[Any]]:
    """Columns of one value per series and period."""
    units = units_of(overrides, rows_of(overrides, forecast.keys, forecast.dates))
    return {
        "item_id": np.repeat(np.array([item_id for item_id, _ in forecast.keys], object), forecast.horizon),
        "location_id": np.repeat(np.array([place or None for _, place in forecast.keys], object), forecast.horizon),
        "date": np.tile(forecast.dates, len(forecast.keys)),
        "mean": forecast.values[:, :, 0].ravel(),
        "override": units.ravel(),
    }


def _table(columns: dict[str, NDArray[Any]], forecast: Forecast, version: str) -> pa.Table:
    """Columns as a table whose last are the cut-off and the model's version; NaN is null."""
    n_rows = len(columns["item_id"])
    texts = {name: pa.array(columns[name], pa.string()) for name in ("item_id", "location_id")}
    others = {name: pa.array(values, from_pandas=True) for name, values in columns.items() if name not in texts}
    last = {"cutoff": pa.repeat(pa.scalar(forecast.dates[0].astype(object)), n_rows)}
    return pa.table({**texts, **others, **last, "model_version": pa.repeat(version, n_rows)})
