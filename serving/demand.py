"""Answers how much will be bought: forecasts computed at export, and the trees that compute them again from a panel.

``forecast.npy``        float32 [n_series, horizon, 1 + n_quantiles], units: the mean, then the quantiles
``series.json``         item_ids and location_ids, one each per series; location "" is all together
``forecast.json``       cutoff and dates, the settings of the panel, the quantiles, which column is the point forecast
``features.json``       names of the features in the order in which the trees read them
``mean.txt``, ``quantile_0.05.txt`` ...   LightGBM models of units divided by the series' level
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from features.demand import Floats, Panel, features, level, panel
from features.engine import Engine
from features.errors import UserError
from serving.artifact import Artifact, ArtifactError, Json
from serving.trees import Trees


class Regressor(Protocol):
    """What predicts units divided by the level: float64 [n, n_features] to float64 [n]."""

    def predict(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """One prediction per row."""


def forecast(known: Panel, origin: int, mean: Regressor, quantiles: Sequence[Regressor]) -> Floats:
    """Forecasts of every series that is eligible at an origin; quantiles ascend and nothing is below zero.

    origin : periods known
    quantiles : models of ascending quantiles
    Returns float32, shape (n_eligible, horizon, 1 + n_quantiles), units: the mean, then the quantiles.
    """
    eligible = known.eligible(origin)
    _, values = features(known, origin)
    rows = values[eligible].reshape(-1, values.shape[-1]).astype(np.float64)
    relative = np.stack([model.predict(rows) for model in (mean, *quantiles)], axis=-1)
    units = relative.reshape(-1, known.horizon, relative.shape[-1]) * level(known, origin)[eligible, None, None]
    units[:, :, 1:].sort(axis=-1)
    return np.maximum(units, 0).astype(np.float32)


def model_names(quantiles: Sequence[float]) -> list[str]:
    """The texts' names, in the order of the forecast's columns.

    >>> model_names([0.05, 0.5])
    ['mean', 'quantile_0.05', 'quantile_0.5']
    """
    return ["mean", *(f"quantile_{quantile:g}" for quantile in quantiles)]


class Forecaster:
    """The forecasts of one artifact.

    values : float32, shape (n_series, horizon, 1 + n_quantiles), units, memory-mapped
    item_ids, location_ids : one each per series
    dates : ISO dates, the first day of each period of the horizon
    quantiles : ascending
    point : column of ``values`` that is the point forecast
    """

    def __init__(self, artifact: Artifact) -> None:
        series, about = artifact.json("series"), artifact.json("forecast")
        self.values: Floats = artifact.array("forecast")
        self.item_ids: list[str] = series["item_ids"]
        self.location_ids: list[str] = series["location_ids"]
        self.cutoff: str = about["cutoff"]
        self.dates: list[str] = about["dates"]
        self.quantiles: list[float] = about["quantiles"]
        self.point: int = about["point"]
        self._panel: Json = about["panel"]
        self._artifact = artifact
        self._columns = ["mean", *(f"q{quantile:g}" for quantile in self.quantiles)]
        self._positions: dict[str, list[int]] = {}
        for position, item_id in enumerate(self.item_ids):
            self._positions.setdefault(item_id, []).append(position)

    @classmethod
    def load(cls, artifact: Artifact) -> Self:
        return cls(artifact)

    def answer(self, request: Json) -> Json:
        """One page of the forecasts of some items, or of all when ``item_ids`` is empty, in the order of the series.

        request : ``item_ids``, ``location_id`` or None, ``horizon`` in periods or None, rows' ``offset`` and ``limit``
        Raises UserError when the horizon is longer than the artifact's.
        """
        horizon = self._horizon(request["horizon"])
        item_ids = dict.fromkeys(request["item_ids"])
        chosen = self._chosen(item_ids, request["location_id"])
        n_rows = len(chosen) * horizon
        page = range(n_rows)[request["offset"] : request["offset"] + request["limit"]]
        return {
            "cutoff": self.cutoff,
            "total": n_rows,
            "unknown_item_ids": [item_id for item_id in item_ids if item_id not in self._positions],
            "forecasts": [self._row(chosen[row // horizon], row % horizon) for row in page],
        }

    def table(self) -> dict[str, NDArray[Any]]:
        """The whole forecast, one row per series and period.

        Returns arrays of n_series x horizon: ``item_id`` and ``location_id`` (None: all together) of objects, ``date``
        datetime64[D], ``mean`` and each quantile (``q0.05`` ...) float32, units.
        """
        horizon, n_series = len(self.dates), len(self.item_ids)
        places = [location_id or None for location_id in self.location_ids]
        return {
            "item_id": np.repeat(np.array(self.item_ids, object), horizon),
            "location_id": np.repeat(np.array(places, object), horizon),
            "date": np.tile(np.array(self.dates, "datetime64[D]"), n_series),
            **{name: self.values[:, :, column].ravel() for column, name in enumerate(self._columns)},
        }

    def panel(self, past: Engine, as_of: datetime, known_future: Engine | None) -> Panel:
        """The panel that this model reads, as of any instant."""
        return panel(past, as_of, known_future=known_future, **self._panel)

    def forecast(self, known: Panel) -> Floats:
        """Forecasts after the end of a panel by the artifact's trees; see ``forecast``.

        Raises ArtifactError when this release computes other features than the model was trained with.
        """
        names, _ = features(known, known.n_periods)
        if list(names) != self._artifact.json("features"):
            raise ArtifactError(f"{self._artifact.folder} was trained with other features: train the model again")
        mean, *quantiles = self._trees
        return forecast(known, known.n_periods, mean, quantiles)

    @cached_property
    def _trees(self) -> list[Trees]:
        return [Trees.from_text(self._artifact.text(name)) for name in model_names(self.quantiles)]

    def _horizon(self, asked: int | None) -> int:
        longest = len(self.dates)
        if asked is not None and asked > longest:
            raise UserError(
                f"horizon {asked} is longer than the {longest} periods of this model: "
                "ask for fewer or train with a longer horizon"
            )
        return asked or longest

    def _chosen(self, item_ids: Mapping[str, None], location_id: str | None) -> Sequence[int]:
        found = [position for item_id in item_ids for position in self._positions.get(item_id, ())]
        among = found if item_ids else range(len(self.item_ids))
        return [row for row in among if self.location_ids[row] == location_id] if location_id else among

    def _row(self, series: int, step: int) -> Json:
        units = self.values[series, step].tolist()
        return {
            "item_id": self.item_ids[series],
            "location_id": self.location_ids[series] or None,
            "date": self.dates[step],
            **dict(zip(self._columns, units, strict=True)),
        }
