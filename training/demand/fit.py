"""Fits the demand forecast: LightGBM over pooled series, one model for the mean and one per quantile's multiple of it.

Every example is a series at an origin in the past with a step of the horizon; units are divided by the series' own
level, or by a simpler forecast of them, and weighted so that errors count in units, or in percent. The last horizons
before the cut-off are held out first, see ``training.demand.trials``: there the mean's trees stop, and how forecasts
err there teaches the quantiles, how far they are off, how the steps hang together, and how much forecasts of sums may
correct them. Then the mean is fitted again on everything, and so are quantiles that are multiples of the base. A
network may give a share of the quantiles: as much as helps on what was held out. Pooled direct forecasts: Makridakis et
al., "M5 accuracy competition", IJF 2022.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import lightgbm
import numpy as np
from numpy.typing import NDArray

from features.engine import Engine
from features.errors import UserError
from features.launches import Launches, launches
from features.panels import PROMOTIONS, Floats, Panel, panel
from features.periods import Frequency
from serving import stored_panel
from serving.artifact import Draft, Json
from serving.paths import Dependence
from serving.quantile_network import QuantileNetwork
from serving.recipe import Recipe, in_whole_units, inputs, model_names, moved
from serving.reconcile import Reconciliation
from serving.sparse import sparse_forecast
from serving.trees import Trees
from training.demand.calibration import offsets
from training.demand.challenge import challenger
from training.demand.config import DemandConfig
from training.demand.dependence import HeldOut, dependence
from training.demand.evaluation import NAME, Judged, rows_of
from training.demand.learning import examples, mean_boosters, quantile_boosters
from training.demand.reconciliation import reconciled
from training.demand.trials import best_share, held_out, n_trees, origins, shape, trials


@dataclass(frozen=True, slots=True)
class DemandModel:
    """Fitted trees and the forecast after the cut-off; ``export`` writes what ``serving.demand`` reads.

    network, share : what gives a share of the quantiles, and which; None where it was not asked for or did not help
    reconciliation : None where it was not asked for
    """

    config: DemandConfig
    known: Panel
    texts: Mapping[str, str]
    offsets: Mapping[str, Floats]
    dependence: Dependence
    seen: Launches
    metrics: dict[str, float]
    network: QuantileNetwork | None = None
    share: float = 0.0
    reconciliation: Reconciliation | None = None
    name: str = NAME

    def export(self, draft: Draft) -> None:
        for name, text in self.texts.items():
            draft.text(name, text)
        names, rows, bases, patterns = inputs(self.known, self.known.n_periods, self.config.bases)
        draft.json("features", names)
        draft.array("rows", rows)
        draft.array("bases", bases)
        stored_panel.write(self.known, draft)
        draft.json("forecast", self._about())
        draft.json("series", {**self._series(), "patterns": patterns.tolist()})
        draft.array("dependence", self.dependence.steps)
        draft.array("offsets", np.stack(list(self.offsets.values())))
        if self.network is not None:
            self.network.save(draft, "network")
        recipe = self._recipe()
        units = recipe.units(rows, bases, patterns)
        factors = recipe.factors(units, self.known, self.known.n_periods)
        draft.array("factors", factors)
        told = in_whole_units(units * factors, self.known, self.known.n_periods)
        young = sparse_forecast(self.seen, self.known.horizon, self.config.quantiles)
        draft.array("forecast", np.concatenate([told, young]))

    def golden_requests(self) -> list[Json]:
        item_ids = self._series()["item_ids"]
        some = [*item_ids[:: max(1, len(item_ids) // 5)][:5], "nothing we know"]
        everything: Json = {
            "item_ids": [],
            "location_id": None,
            "horizon": None,
            "offset": 0,
            "limit": 20,
            "explain": False,
        }
        explained = {**everything, "item_ids": some, "horizon": 1, "explain": True}
        return [everything, explained, *self._what_if()]

    def _what_if(self) -> list[Json]:
        """What it does to the item sold in fewest places to be offered as it was on average; nothing without offers."""
        item_ids = self._series()["item_ids"][: len(rows := _forecast_rows(self.known))]
        item_id = min(item_ids, key=Counter(item_ids).__getitem__)
        row = rows[item_ids.index(item_id)]
        past = {name: self.known.offers[name][row, : self.known.n_periods] for name in ("price", *PROMOTIONS)}
        usual = {name: _mean_or_none(offered) for name, offered in past.items()}
        if all(value is None for value in usual.values()):
            return []
        change: Json = {"item_id": item_id, "location_id": None, "date": None, **usual, "covariates": {}}
        return [{"changes": [change], "horizon": 1}]

    def _recipe(self) -> Recipe:
        models = [Trees.from_text(text) for text in self.texts.values()]
        n_means, config = len(self.config.bases), self.config
        means, shape, learnt_from = models[:n_means], models[n_means:], config.quantiles_of
        network, share = self.network, self.share
        return Recipe(means, shape, config.bases, learnt_from, self.offsets, network, share, self.reconciliation)

    def _series(self) -> dict[str, list[str]]:
        """Those that the trees tell, then those that sold too little."""
        told = [(self.known.item_ids[row], self.known.location_ids[row]) for row in _forecast_rows(self.known)]
        item_ids, location_ids = zip(*told, *self.seen.asked_keys, strict=True)
        return {"item_ids": list(item_ids), "location_ids": list(location_ids)}

    def _about(self) -> Json:
        dates = self.known.dates[self.known.n_periods :].astype(str).tolist()
        settings = self.config.panel(self.known.frequency, self.known.country)
        return {
            "cutoff": dates[0],
            "dates": dates,
            "quantiles": self.config.quantiles,
            "common": self.dependence.common,
            "bases": self.config.bases,
            "offsets_of": list(self.offsets),
            "loss": self.config.loss,
            "carry": self.config.carry,
            "quantiles_of": self.config.quantiles_of,
            "network_share": self.share,
            "reconciliation": asdict(self.reconciliation) if self.reconciliation else None,
            "panel": {name: getattr(settings, name) for name in settings.__slots__},
        }


def fit(
    past: Engine,
    known_future: Engine | None,
    as_of: datetime,
    frequency: Frequency,
    config: DemandConfig,
    country: str | None = None,
    device: str = "cpu",
) -> DemandModel:
    """Fit on all whole periods before the cut-off and forecast the ``horizon`` periods after them.

    past : what was known at ``as_of``
    known_future : offers planned for the horizon; None: nothing is
    country : whose public holidays move demand, such as "DE-BW"; None: none do
    device : on which a network is fitted, "cpu" or "cuda"
    Raises UserError when the history is shorter than what is held out and two horizons, or no series has sales enough.
    """
    settings = config.panel(frequency, country)
    known = panel(past, as_of, settings, known_future)
    _demand_history(known, (config.n_validation + 2) * config.horizon)
    tried = trials(known, config, device)
    share = best_share(tried, config)
    told, reconciliation = held_out(known, tried, share), None
    if config.reconcile:
        reconciliation, told = reconciled(known, told, config.reconcile)
    taught = examples(known, origins(known, known.n_periods, config), config.bases)
    means = mean_boosters(taught, config, n_trees=n_trees(tried))
    quantiles = shape(tried, config) if config.quantiles_of == "mean" else quantile_boosters(taught, config)
    moves = offsets(told, config.quantiles)
    calibrated = told._replace(units=moved(told.units, told.pattern, moves))
    return DemandModel(
        config,
        known,
        _texts([*means, *quantiles], config),
        moves,
        dependence(calibrated, config.quantiles, config.seed),
        launches(past, as_of, settings, known),
        {
            **_metrics(told, config),
            "n_trees": float(sum(n_trees(tried))),
            "n_series": float(len(_forecast_rows(known))),
            "network_share": share,
        },
        challenger(taught, known, known.n_periods, config, device) if share else None,
        share,
        reconciliation,
    )


def _forecast_rows(known: Panel) -> NDArray[np.intp]:
    return np.flatnonzero(known.eligible(known.n_periods))


def _mean_or_none(values: Floats) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _demand_history(known: Panel, n_periods: int) -> None:
    if known.n_periods < n_periods:
        raise UserError(
            f"the history has {known.n_periods} whole {known.frequency}s and a horizon of {known.horizon} needs "
            f"{n_periods}: shorten the horizon or ingest more history"
        )


def _texts(boosters: Sequence[lightgbm.Booster], config: DemandConfig) -> dict[str, str]:
    texts = (booster.model_to_string() for booster in boosters)
    return dict(zip(model_names(config.bases, config.quantiles), texts, strict=True))


def _metrics(held_out: HeldOut, config: DemandConfig) -> dict[str, float]:
    """How the mean did on what was held out; the quantiles were learnt there."""
    judged = Judged(held_out.units[:, :, 0], held_out.units[:, :, 1:])
    rows = rows_of(NAME, "validation", judged, held_out.actual, config.quantiles)
    return {f"validation_{row.metric}": row.value for row in rows if row.metric in ("wape", "bias")}
