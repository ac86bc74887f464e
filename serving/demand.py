"""Answers how much will be bought: forecasts computed at export, and the trees that compute them again from a panel.

``forecast.npy``        float32 [n_series, horizon, 1 + n_quantiles], units: the mean, then the quantiles
``series.json``         item_ids and location_ids, one each per series; location "" is all together
``forecast.json``       cutoff and dates, the settings of the panel, the quantiles, the bases
``dependence.npy``      float64 [horizon, horizon]: see ``serving.paths.Dependence``
``features.json``       names of the features in the order in which the trees read them
``rows.npy``            float32 [n_series, horizon, n_features], the features at the cut-off
``bases.npy``           float32 [n_series, horizon, n_bases], units, what the means are multiples of
``panel.json`` ...      the panel of which they are, see ``serving.stored_panel``
``mean_BASE.txt``       one LightGBM model per base, ``quantile_0.05.txt`` ... one per quantile: see ``Recipe``
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from features.demand import features, level, offered_features
from features.engine import Engine
from features.errors import UserError
from features.known import Known
from features.panels import Floats, Panel, PanelSettings, panel
from features.periods import SEASON
from serving import explain, stored_panel
from serving.artifact import Artifact, ArtifactError, Json
from serving.paths import Dependence, paths
from serving.price_response import price_response
from serving.smoothing import MEMBERS
from serving.trees import Trees
from serving.what_if import Change, concerned, laid_over, refuse_impossible


class Regressor(Protocol):
    """What predicts multiples: float64 [n, n_features] to float64 [n]."""

    def predict(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """One prediction per row."""


ROWS_AT_ONCE = 200_000
LEAST_MEAN = np.float32(0.01)
"""Share of its base below which a mean does not fall where quantiles are multiples of it."""

Base = Literal["level", "price_response", "theta", "holt", "holt_winters_additive", "holt_winters_multiplicative"]

MOST_CHANGED_ROWS = 20_000
"""Series times periods that one what-if answers."""

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


class Inputs(NamedTuple):
    """What a forecast is computed from, of every eligible series: what ``features`` says, and the bases.

    names : of the features
    rows : float32, shape (n_eligible, horizon, F)
    bases : float32, shape (n_eligible, horizon, n_bases), units
    """

    names: tuple[str, ...]
    rows: Floats
    bases: Floats


def inputs(known: Panel, origin: int, bases: Sequence[Base]) -> Inputs:
    """What the forecast at an origin is computed from."""
    eligible = known.eligible(origin)
    names, rows = features(known, origin)
    scales = np.stack([base_of(known, origin, base)[eligible] for base in bases], axis=-1)
    return Inputs(names, rows[eligible], scales)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What turns a panel into a forecast: the mean, and quantiles as multiples of it or of what it is a multiple of.

    means : one for each base, from features to units over it; the mean is their geometric mean in units
    shape : for each quantile, ascending, from ``shape_rows`` to its multiple of the mean, or from features to units
        over the first base
    bases : what the means are multiples of, see ``base_of``
    quantiles_of : see ``QuantilesOf``
    """

    means: Sequence[Regressor]
    shape: Sequence[Regressor]
    bases: tuple[Base, ...] = ("level",)
    quantiles_of: QuantilesOf = "mean"

    def forecast(self, known: Panel, origin: int) -> Floats:
        """Forecasts of every series that is eligible at an origin; quantiles ascend and nothing is below zero.

        origin : periods known
        Returns float32, shape (n_eligible, horizon, 1 + n_quantiles), units: the mean, then the quantiles.
        """
        _, rows, bases = inputs(known, origin, self.bases)
        return self.units(rows, bases)

    def units(self, rows: Floats, bases: Floats) -> Floats:
        """The same from ``Inputs.rows`` and ``Inputs.bases`` of any one or more series."""
        flat, scales = rows.reshape(-1, rows.shape[-1]), bases.reshape(-1, bases.shape[-1])
        parts = [slice(i, i + ROWS_AT_ONCE) for i in range(0, len(flat), ROWS_AT_ONCE)]
        units = np.concatenate([self._units(flat[part], scales[part]) for part in parts])
        return units.reshape(*rows.shape[:2], units.shape[-1])

    def _units(self, rows: Floats, scales: Floats) -> Floats:
        relative, scale = mean_of(self.means, rows, scales), scales[:, 0]
        of_base = self.quantiles_of == "base"
        read = (rows if of_base else shape_rows(rows, relative, scale)).astype(np.float64)
        multiples = np.stack([model.predict(read) for model in self.shape], axis=-1).astype(np.float32)
        multiples.sort(axis=-1)
        unit = scale if of_base else floored(relative) * scale
        quantiles = np.maximum(multiples, 0) * unit[:, None]
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
        self.bases: tuple[Base, ...] = tuple(about["bases"])
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
        """What ``changes`` do to the forecasts of the items that they change; without any, a page of forecasts.

        A page is of some items, or of all when ``item_ids`` is empty, in the order of the series.

        request : ``horizon`` in periods or None, and either ``changes`` as ``schema.WhatIfRequest`` has them, or
            ``item_ids``, ``location_id`` or None, rows' ``offset`` and ``limit``, and whether to ``explain`` them
        Raises UserError when the horizon is longer than the artifact's, or a change cannot be.
        """
        horizon = self._horizon(request["horizon"])
        return self._what_if(request["changes"], horizon) if "changes" in request else self._page(request, horizon)

    def _page(self, request: Json, horizon: int) -> Json:
        item_ids = dict.fromkeys(request["item_ids"])
        chosen = self._chosen(item_ids, request["location_id"])
        n_rows = len(chosen) * horizon
        page = range(n_rows)[request["offset"] : request["offset"] + request["limit"]]
        cells = [(chosen[row // horizon], row % horizon) for row in page]
        forecasts = [{**self._key(*cell), **self._named(self.values[cell])} for cell in cells]
        if request["explain"] and cells:
            forecasts = [row | why for row, why in zip(forecasts, self._explained(cells), strict=True)]
        return {
            "cutoff": self.cutoff,
            "total": n_rows,
            "unknown_item_ids": self._unknown(item_ids),
            "forecasts": forecasts,
        }

    def _what_if(self, asked: Sequence[Json], horizon: int) -> Json:
        changes = [Change.of(each) for each in asked]
        refuse_impossible(self._panel, changes, self.dates[:horizon])
        item_ids = dict.fromkeys(change.item_id for change in changes)
        chosen = self._chosen(item_ids, None)
        if len(chosen) * horizon > MOST_CHANGED_ROWS:
            raise UserError(
                f"the changes ask for {len(chosen)} series and {horizon} periods, {MOST_CHANGED_ROWS} rows are "
                "allowed: ask for fewer items or a shorter horizon"
            )
        before = self.values[chosen]
        after = self.rescored(changes, chosen) if chosen else before
        return {
            "cutoff": self.cutoff,
            "unknown_item_ids": self._unknown(item_ids),
            "forecasts": [
                {**self._key(series, step), **self._compared(before[place, step], after[place, step])}
                for place, series in enumerate(chosen)
                for step in range(horizon)
            ],
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
        names, rows, bases = inputs(known, known.n_periods, self.bases)
        if list(names) != self._artifact.json("features"):
            raise ArtifactError(f"{self._artifact.folder} was trained with other features: train the model again")
        return in_whole_units(self.recipe.units(rows, bases), known)

    def rescored(self, changes: Sequence[Change], chosen: Sequence[int]) -> Floats:
        """The forecasts of some series had the changes been planned at the cut-off.

        Only what offers say is computed again, from the series that can be compared with those asked for.

        changes : such as ``serving.what_if.refuse_impossible`` lets pass
        chosen : places among the series, at least one
        Returns float32, shape (n_chosen, horizon, 1 + n_quantiles), units.
        """
        rows, bases = (self._artifact.array(name)[chosen] for name in ("rows", "bases"))
        series = self._eligible[chosen]
        around = concerned(self._panel, series, "price_response" in self.bases)
        plan, asked = laid_over(self._panel, changes, around), np.searchsorted(around, series)
        names, offered = offered_features(plan, plan.n_periods)
        rows[:, :, [self._features.index(name) for name in names]] = offered[asked]
        if "price_response" in self.bases:
            response = base_of(plan, plan.n_periods, "price_response")
            bases[:, :, self.bases.index("price_response")] = response[asked]
        return in_whole_units(self.recipe.units(rows, bases), stored_panel.taken(plan, asked))

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
        n_means, quantiles_of = len(self.bases), self._artifact.json("forecast")["quantiles_of"]
        return Recipe(self._trees[:n_means], self._trees[n_means:], self.bases, quantiles_of)

    @cached_property
    def _trees(self) -> list[Trees]:
        return [Trees.from_text(self._artifact.text(name)) for name in model_names(self.bases, self.quantiles)]

    @cached_property
    def _panel(self) -> Panel:
        return stored_panel.read(self._artifact)

    @cached_property
    def _eligible(self) -> NDArray[np.intp]:
        """The place in the panel of each series that is forecast."""
        return np.flatnonzero(self._panel.eligible(self._panel.n_periods))

    @cached_property
    def _features(self) -> list[str]:
        return list(self._artifact.json("features"))

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

    def _unknown(self, item_ids: Mapping[str, None]) -> list[str]:
        return [item_id for item_id in item_ids if item_id not in self._positions]

    def _key(self, series: int, step: int) -> Json:
        return {
            "item_id": self.item_ids[series],
            "location_id": self.location_ids[series] or None,
            "date": self.dates[step],
        }

    def _named(self, units: Floats) -> Json:
        return dict(zip(self._columns, units.tolist(), strict=True))

    def _compared(self, before: Floats, after: Floats) -> Json:
        effect = float(after[0] / before[0]) if before[0] > 0 else None
        return {"before": self._named(before), "after": self._named(after), "effect": effect}

    def _explained(self, cells: Sequence[tuple[int, int]]) -> list[Json]:
        """``level`` and ``effects`` of some series and steps."""
        series, steps = (list(each) for each in zip(*cells, strict=True))
        rows, bases = (self._artifact.array(name)[series, steps] for name in ("rows", "bases"))
        level = np.exp(rows[:, self._features.index("level")].astype(np.float64))
        named_bases = dict(zip(self.bases, bases.T, strict=True))
        groups = [explain.group_of(name, self.settings.covariates) for name in self._features]
        logarithmic = self._artifact.json("forecast")["loss"] == "tweedie"
        least = 0.0 if logarithmic and len(named_bases) == 1 else float(LEAST_MEAN)
        means = self._trees[: len(named_bases)]
        factors = explain.effects(means, rows, named_bases, level, groups, least, logarithmic)
        each = zip(*(values.tolist() for values in factors.values()), strict=True)
        return [
            {"level": units, "effects": dict(zip(factors, row, strict=True))}
            for units, row in zip(level.tolist(), each, strict=True)
        ]
