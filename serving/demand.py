"""Answers how much will be bought: forecasts computed at export, and the trees that compute them again from a panel.

``forecast.npy``        float32 [n_series, horizon, 1 + n_quantiles], units: the mean, then the quantiles
``series.json``         item_ids and location_ids, one each per series, location "" is all together; patterns, one per
                        series that the trees tell: the others, after these, are ``serving.sparse``
``forecast.json``       cutoff and dates, the settings of the panel, the quantiles, the bases, the loss
``dependence.npy``      float64 [horizon, horizon]: see ``serving.paths.Dependence``
``offsets.npy``         float32 [n_patterns, horizon, n_quantiles]: see ``serving.recipe.moved``
``features.json``       names of the features in the order in which the trees read them
``factors.npy``         float32 [n_told, horizon, 1]: see ``serving.recipe.Recipe.factors``
``rows.npy``            float32 [n_told, horizon, n_features], the features at the cut-off
``bases.npy``           float32 [n_told, horizon, n_bases], units, what the means are multiples of
``panel.json`` ...      the panel of which they are, see ``serving.stored_panel``
``mean_BASE.txt``       one LightGBM model per base, ``quantile_0.05.txt`` ... one per quantile: see ``Recipe``
``network.*.npy``       where it has a share of the quantiles: see ``serving.quantile_network``
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from features.demand import offered_features
from features.demand_classes import Classes
from features.engine import Engine
from features.errors import UserError
from features.launches import launches
from features.panels import Floats, Keys, Panel, PanelSettings, panel
from serving import explain, stored_panel
from serving.artifact import Artifact, ArtifactError, Json
from serving.paths import Dependence, paths
from serving.quantile_network import QuantileNetwork
from serving.recipe import LEAST_MEAN, Base, Recipe, base_of, in_whole_units, inputs, model_names
from serving.reconcile import Reconciliation
from serving.sparse import sparse_forecast
from serving.trees import Trees
from serving.what_if import Change, concerned, laid_over, refuse_impossible

TREES, SPARSE = "trees", "sparse"
"""What tells a series: its past, by trees; or, where that is too little, what its like sold when it was new too."""
MOST_CHANGED_ROWS = 20_000
"""Series times periods that one what-if answers."""


def quantile_name(quantile: float) -> str:
    """What a quantile is called at the interface, with two digits after the point or as many as it needs.

    >>> quantile_name(0.5), quantile_name(0.995)
    ('q0.50', 'q0.995')
    """
    return f"q{np.format_float_positional(quantile, min_digits=2)}"


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
        self._patterns: Classes = np.array(series["patterns"], str)
        self.cutoff: str = about["cutoff"]
        self.dates: list[str] = about["dates"]
        self.quantiles: list[float] = about["quantiles"]
        self.carry: float = about["carry"]
        self.bases: tuple[Base, ...] = tuple(about["bases"])
        self.settings = PanelSettings(**{**about["panel"], "covariates": tuple(about["panel"]["covariates"])})
        self._artifact = artifact
        self._columns = ["mean", *map(quantile_name, self.quantiles)]
        self._positions: dict[str, list[int]] = {}
        for position, item_id in enumerate(self.item_ids):
            self._positions.setdefault(item_id, []).append(position)

    @classmethod
    def load(cls, artifact: Artifact) -> Self:
        return cls(artifact)

    def answer(self, request: Json) -> Json:
        """What ``changes`` do to the forecasts of the items that they change; without any, a page of forecasts.

        A page is of some items, or of all when ``item_ids`` is empty, in the order of the series.

        request : ``horizon`` in periods or None, and either ``changes`` as ``plan_schema.WhatIfRequest`` has them, or
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
        if request["explain"]:
            told = [place for place, (series, _) in enumerate(cells) if self._is_told(series)]
            for place, why in zip(told, self._explained([cells[place] for place in told]), strict=True):
                forecasts[place] |= why
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
        chosen = [series for series in self._chosen(item_ids, None) if self._is_told(series)]
        known = {self.item_ids[series] for series in chosen}
        if len(chosen) * horizon > MOST_CHANGED_ROWS:
            raise UserError(
                f"the changes ask for {len(chosen)} series and {horizon} periods, {MOST_CHANGED_ROWS} rows are "
                "allowed: ask for fewer items or a shorter horizon"
            )
        before = self.values[chosen]
        after = self.rescored(changes, chosen) if chosen else before
        return {
            "cutoff": self.cutoff,
            "unknown_item_ids": [item_id for item_id in item_ids if item_id not in known],
            "forecasts": [
                {**self._key(series, step), **self._compared(before[place, step], after[place, step])}
                for place, series in enumerate(chosen)
                for step in range(horizon)
            ],
        }

    def panel(self, past: Engine, as_of: datetime, known_future: Engine | None) -> Panel:
        """The panel that this model reads, as of any instant."""
        return panel(past, as_of, self.settings, known_future)

    def forecast(self, known: Panel) -> Floats:
        """Forecasts after the end of a panel, by the artifact's trees, of what sold enough; see ``Recipe.forecast``.

        Raises ArtifactError when this release computes other features than the model was trained with.
        """
        names, rows, bases, patterns = inputs(known, known.n_periods, self.bases)
        if list(names) != self._artifact.json("features"):
            raise ArtifactError(f"{self._artifact.folder} was trained with other features: train the model again")
        units = self.recipe.units(rows, bases, patterns)
        return in_whole_units(units * self.recipe.factors(units, known, known.n_periods), known, known.n_periods)

    def sparse(self, past: Engine, as_of: datetime, known: Panel) -> tuple[Keys, Floats]:
        """The series that ``forecast`` leaves out of a panel although they are on sale, and their forecasts.

        Returns keys, length A, and float32, shape (A, horizon, 1 + n_quantiles), units.
        """
        seen = launches(past, as_of, self.settings, known)
        return seen.asked_keys, sparse_forecast(seen, self.settings.horizon, self.quantiles)

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
        found = self.recipe.units(rows, bases, self._patterns[chosen]) * self._artifact.array("factors")[chosen]
        return in_whole_units(found, stored_panel.taken(plan, asked), plan.n_periods)

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
        n_means, about = len(self.bases), self._artifact.json("forecast")
        offsets = dict(zip(about["offsets_of"], self._artifact.array("offsets"), strict=True))
        share: float = about["network_share"]
        network = QuantileNetwork.load(self._artifact, "network") if share else None
        means, shape = self._trees[:n_means], self._trees[n_means:]
        dispersions = about["reconciliation"]
        reconciliation = Reconciliation(**dispersions) if dispersions else None
        return Recipe(means, shape, self.bases, about["quantiles_of"], offsets, network, share, reconciliation)

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
            "tier": TREES if self._is_told(series) else SPARSE,
        }

    def _is_told(self, series: int) -> bool:
        return series < len(self._patterns)

    def _named(self, units: Floats) -> Json:
        return dict(zip(self._columns, units.tolist(), strict=True))

    def _compared(self, before: Floats, after: Floats) -> Json:
        effect = float(after[0] / before[0]) if before[0] > 0 else None
        return {"before": self._named(before), "after": self._named(after), "effect": effect}

    def _explained(self, cells: Sequence[tuple[int, int]]) -> list[Json]:
        """``level`` and ``effects`` of some series and steps that the trees tell."""
        if not cells:
            return []
        series, steps = (list(each) for each in zip(*cells, strict=True))
        rows, bases = (self._artifact.array(name)[series, steps] for name in ("rows", "bases"))
        level = np.exp(rows[:, self._features.index("level")].astype(np.float64))
        named_bases = dict(zip(self.bases, bases.T, strict=True))
        groups = [explain.group_of(name, self.settings.covariates) for name in self._features]
        logarithmic = self._artifact.json("forecast")["loss"] == "tweedie"
        least = 0.0 if logarithmic and len(named_bases) == 1 else float(LEAST_MEAN)
        means = self._trees[: len(named_bases)]
        factors = explain.effects(means, rows, named_bases, level, groups, least, logarithmic)
        if self.recipe.reconciliation is not None:
            factors["sums"] = self._artifact.array("factors")[series, steps, 0]
        each = zip(*(values.tolist() for values in factors.values()), strict=True)
        return [
            {"level": units, "effects": dict(zip(factors, row, strict=True))}
            for units, row in zip(level.tolist(), each, strict=True)
        ]
