"""Answers how much will be bought: forecasts computed at export, and the trees that compute them again from a panel.

``forecast.npy``        float32 [n_series, horizon, 1 + n_quantiles], units: the mean, then the quantiles
``series.json``         item_ids and location_ids, one each per series; location "" is all together
``forecast.json``       cutoff and dates, the settings of the panel, the quantiles, the bases
``dependence.npy``      float64 [horizon, horizon]: see ``serving.paths.Dependence``
``features.json``       names of the features in the order in which the trees read them
``mean_BASE.txt``       one LightGBM model per base, ``quantile_0.05.txt`` ... one per quantile: see ``Recipe``
``network.*.npy``       where it has a share of the quantiles: see ``serving.quantile_network``
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from features.demand import features, level
from features.engine import Engine
from features.errors import UserError
from features.known import Known
from features.panels import Floats, Panel, PanelSettings, panel
from features.periods import SEASON
from serving.artifact import Artifact, ArtifactError, Json
from serving.paths import Dependence, paths
from serving.price_response import price_response
from serving.quantile_network import QuantileNetwork
from serving.smoothing import MEMBERS
from serving.trees import Trees


class Regressor(Protocol):
    """What predicts multiples: float64 [n, n_features] to float64 [n]."""

    def predict(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """One prediction per row."""


ROWS_AT_ONCE = 200_000
LEAST_MEAN = np.float32(0.01)
"""Share of its base below which a mean does not fall where quantiles are multiples of it."""

Base = Literal["level", "price_response", "theta", "holt", "holt_winters_additive", "holt_winters_multiplicative"]

QuantilesOf = Literal["mean", "base"]
"""What quantiles are multiples of: the mean, learnt from how forecasts of held-out horizons erred; or the base, learnt
from every example as the mean is, for a horizon so long that little can be held out."""


def base_of(known: Panel, origin: int, base: Base) -> Floats:
    """What trees correct, float32, shape (S, horizon), units, > 0: a series' level, or a forecast of another kind.

    "price_response" is told by prices and promotions, see ``serving.price_response``; the others are statistical
    forecasts, which do not fall below a tenth of the level.
    """
    flat = np.repeat(level(known, origin)[:, None], known.horizon, axis=1)
    if base == "level":
        return flat
    if base == "price_response":
        return price_response(Known(known, origin, flat[:, :1]))
    ahead = MEMBERS[base].forecast(known.demand[:, :origin], known.horizon, SEASON[known.frequency])
    return np.maximum(ahead.astype(np.float32), flat / 10)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What turns a panel into a forecast: the mean, and quantiles as multiples of it or of what it is a multiple of.

    means : one for each base, from features to units over it; the mean is their geometric mean in units
    shape : for each quantile, ascending, from ``shape_rows`` to its multiple of the mean, or from features to units
        over the first base
    bases : what the means are multiples of, see ``base_of``
    quantiles_of : see ``QuantilesOf``
    network, share : what gives a share of the quantiles, and which; None: there is none
    """

    means: Sequence[Regressor]
    shape: Sequence[Regressor]
    bases: tuple[Base, ...] = ("level",)
    quantiles_of: QuantilesOf = "mean"
    network: QuantileNetwork | None = None
    share: float = 0.0

    def forecast(self, known: Panel, origin: int) -> Floats:
        """Forecasts of every series that is eligible at an origin; quantiles ascend and nothing is below zero.

        origin : periods known
        Returns float32, shape (n_eligible, horizon, 1 + n_quantiles), units: the mean, then the quantiles.
        """
        eligible = known.eligible(origin)
        _, values = features(known, origin)
        rows = values[eligible].reshape(-1, values.shape[-1])
        scales = np.stack([base_of(known, origin, base)[eligible].ravel() for base in self.bases], axis=1)
        parts = [slice(i, i + ROWS_AT_ONCE) for i in range(0, len(rows), ROWS_AT_ONCE)]
        units = np.concatenate([self.units(rows[part], scales[part]) for part in parts])
        return units.reshape(-1, known.horizon, units.shape[-1])

    def units(self, rows: Floats, scales: Floats) -> Floats:
        """The same of rows, float32, shape (n, 1 + n_quantiles), units.

        rows : float32, shape (n, F), features; scales : float32, shape (n, n_bases), units
        """
        relative, scale = mean_of(self.means, rows, scales), scales[:, 0]
        of_base = self.quantiles_of == "base"
        read = (rows if of_base else shape_rows(rows, relative, scale)).astype(np.float64)
        multiples = np.stack([model.predict(read) for model in self.shape], axis=-1).astype(np.float32)
        multiples.sort(axis=-1)
        unit = scale if of_base else floored(relative) * scale
        quantiles = np.maximum(multiples, 0) * unit[:, None]
        if self.network is not None:
            quantiles = (1 - self.share) * quantiles + self.share * self.network.quantiles(rows, scales)
        return np.concatenate([np.maximum(relative * scale, 0)[:, None], quantiles], axis=1)


def mean_of(means: Sequence[Regressor], rows: Floats, scales: Floats) -> Floats:
    """What several models say together, over the first base: the geometric mean of their units.

    rows : float32, shape (n, F); scales : float32, shape (n, n_bases), units
    Returns float32, shape (n,); the answer of one model alone as it is, of several at least ``LEAST_MEAN`` each.
    """
    wide = rows.astype(np.float64)
    relative = [model.predict(wide).astype(np.float32) for model in means]
    if len(relative) == 1:
        return relative[0]
    units = floored(np.stack(relative, axis=1)) * scales
    together: Floats = np.exp(np.log(units).mean(axis=1))
    return together / scales[:, 0]


def in_whole_units(values: Floats, known: Panel) -> Floats:
    """The same forecast with whole quantiles for series that have only sold in whole units, for so are theirs.

    values : float32, shape (n_eligible, horizon, 1 + n_quantiles), of the end of the panel
    """
    past = known.sold[known.eligible(known.n_periods)]
    whole = (np.isnan(past) | (past == np.rint(past))).all(axis=1)
    rounded = np.concatenate([values[:, :, :1], np.rint(values[:, :, 1:])], axis=2)
    return np.where(whole[:, None, None], rounded, values)


def floored(relative: Floats) -> Floats:
    """A mean over its base that quantiles can be multiples of."""
    return np.maximum(relative, LEAST_MEAN)


def shape_rows(rows: Floats, relative: Floats, scale: Floats) -> Floats:
    """What the shape of a distribution is told from: the features, and the mean over the base and in units.

    rows : float32, shape (n, F)
    relative, scale : float32, shape (n,), the mean over the base, and the base in units
    """
    return np.column_stack([rows, np.log(floored(relative)), np.log(floored(relative) * scale)])


def model_names(bases: Sequence[Base], quantiles: Sequence[float]) -> list[str]:
    """The texts' names: of the means, then of the quantiles in the order of the forecast's columns.

    >>> model_names(["level"], [0.05, 0.5])
    ['mean_level', 'quantile_0.05', 'quantile_0.5']
    """
    return [*(f"mean_{base}" for base in bases), *(f"quantile_{quantile:g}" for quantile in quantiles)]


class Forecaster:
    """The forecasts of one artifact.

    values : float32, shape (n_series, horizon, 1 + n_quantiles), units, memory-mapped
    item_ids, location_ids : one each per series
    dates : ISO dates, the first day of each period of the horizon
    carry : as for ``serving.replenish.orders``
    quantiles : ascending
    """

    def __init__(self, artifact: Artifact) -> None:
        series, about = artifact.json("series"), artifact.json("forecast")
        self.values: Floats = artifact.array("forecast")
        self.item_ids: list[str] = series["item_ids"]
        self.location_ids: list[str] = series["location_ids"]
        self.cutoff: str = about["cutoff"]
        self.dates: list[str] = about["dates"]
        self.quantiles: list[float] = about["quantiles"]
        self.carry: float = about["carry"]
        self.settings = PanelSettings(**{**about["panel"], "covariates": tuple(about["panel"]["covariates"])})
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
        return panel(past, as_of, self.settings, known_future)

    def forecast(self, known: Panel) -> Floats:
        """Forecasts after the end of a panel by the artifact's models; see ``Recipe.forecast``.

        Raises ArtifactError when this release computes other features than the model was trained with.
        """
        names, _ = features(known, known.n_periods)
        if list(names) != self._artifact.json("features"):
            raise ArtifactError(f"{self._artifact.folder} was trained with other features: train the model again")
        return in_whole_units(self.recipe.forecast(known, known.n_periods), known)

    def paths(self, values: Floats, n_paths: int, seed: int = 0) -> Floats:
        """Futures of forecasts that lie on the same series as ``values`` do, whose sums are distributed too.

        values : float32, shape (n_series, horizon, 1 + n_quantiles), units
        Returns float32, shape (n_series, n_paths, horizon), units.
        """
        scores = self.dependence.scores(len(values), n_paths, seed)
        return paths(values[:, :, 1:], self.quantiles, scores)

    @cached_property
    def dependence(self) -> Dependence:
        return Dependence(np.array(self._artifact.array("dependence")), self._artifact.json("forecast")["common"])

    @cached_property
    def recipe(self) -> Recipe:
        about = self._artifact.json("forecast")
        bases = tuple(about["bases"])
        models = [Trees.from_text(self._artifact.text(name)) for name in model_names(bases, self.quantiles)]
        share: float = about["network_share"]
        network = QuantileNetwork.load(self._artifact, "network") if share else None
        return Recipe(models[: len(bases)], models[len(bases) :], bases, about["quantiles_of"], network, share)

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
