"""Changes of what is planned: laid over a panel's offers, and which series one must know to forecast some again.

Shapes: S series, P past periods, H periods of the horizon.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from features.errors import UserError
from features.panels import PRICES, PROMOTIONS, Floats, Panel, unplanned_is_zero
from serving.artifact import Json
from serving.stored_panel import taken

_MOST_DATES_LISTED = 14


@dataclass(frozen=True, slots=True)
class Change:
    """What an item shall be offered at instead.

    location_id : None: in every location
    date : ISO date, the first day of a period; None: in every period of the horizon
    offers : new values of columns of the offers: price in money, display and mailer as shares, covariates
    """

    item_id: str
    location_id: str | None
    date: str | None
    offers: Mapping[str, float]

    @classmethod
    def of(cls, request: Json) -> Self:
        """One of the ``changes`` of ``plan_schema.WhatIfRequest``; what it does not name stays as it is planned."""
        named = {name: request[name] for name in ("price", *PROMOTIONS) if request[name] is not None}
        return cls(request["item_id"], request["location_id"], request["date"], {**named, **request["covariates"]})


def refuse_impossible(known: Panel, changes: Iterable[Change], dates: Sequence[str]) -> None:
    """Nothing where every change can be laid over a panel.

    dates : ISO dates of the periods that are asked about
    Raises UserError for the first that cannot: it names another date, a location where its item is not sold, a
        covariate that the model does not read, or a column of which it has seen nothing. An item that the panel does
        not hold is no mistake.
    """
    changes = list(changes)
    covariates = [name for name in known.offers if name not in (*PRICES, *PROMOTIONS)]
    places = _series_of(known, changes)
    for change in changes:
        if change.date not in (None, *dates):
            raise UserError(f"date {change.date} is not the first day of a period asked about: {_listed(dates)}")
        if untaught := sorted(name for name in change.offers if name in known.offers and not _is_told(known, name)):
            raise UserError(
                f"the model knows no {untaught[0]} of the past, so that it cannot say what another one does: ingest a "
                "table `offers` that has it and train again"
            )
        if unknown := sorted(change.offers.keys() - {"price", *PROMOTIONS, *covariates}):
            allowed = f"allowed are {', '.join(covariates)}" if covariates else "it reads none"
            raise UserError(f"covariate {unknown[0]} is not read by this model; {allowed}")
        there = [known.location_ids[row] for row in places[change.item_id]]
        if there and change.location_id not in (None, *there):
            raise UserError(f"item {change.item_id} is not sold at {change.location_id}; {_sold_at(there)}")


def laid_over(known: Panel, changes: Sequence[Change], series: NDArray[np.integer]) -> Panel:
    """Some series of a panel with changes laid over their offers from the cut-off on, a later one over an earlier one.

    As where a panel is built, what is promoted in a period says of everything else that it is not.
    """
    ahead = slice(known.n_periods, None)
    plan = {name: np.array(values[:, ahead]) for name, values in known.offers.items()}
    places, dates = _series_of(known, changes), known.dates[ahead].astype(str).tolist()
    for change in changes:
        rows = [row for row in places[change.item_id] if change.location_id in (None, known.location_ids[row])]
        steps = [dates.index(change.date)] if change.date else range(known.horizon)
        for name, value in change.offers.items():
            plan[name][np.ix_(rows, steps)] = value
    plan |= {name: unplanned_is_zero(plan[name]) for name in PROMOTIONS}
    some = taken(known, series)
    return replace(some, offers={name: _continued(some.offers[name], plan[name][series]) for name in plan})


def concerned(known: Panel, series: NDArray[np.integer], whole_categories: bool) -> NDArray[np.intp]:
    """Every series of which the offers of some can be compared: their own items' everywhere, and their rivals.

    whole_categories : whether a base pools its regression by category, so that all of these count too
    Returns places in the panel, ascending, among them ``series``.
    """
    items = {known.item_ids[row] for row in series.tolist()}
    same_item = np.fromiter((item in items for item in known.item_ids), bool, len(known.item_ids))
    choice = known.category if whole_categories else known.category * (known.location.max() + 1) + known.location
    return np.flatnonzero(same_item | np.isin(choice, choice[series]))


def _is_told(known: Panel, name: str) -> bool:
    """Whether the past has values of an offers' column."""
    return not bool(np.isnan(known.offers[name][:, : known.n_periods]).all())


def _series_of(known: Panel, changes: Iterable[Change]) -> Mapping[str, list[int]]:
    """The places in the panel of every item that is changed."""
    places: dict[str, list[int]] = {change.item_id: [] for change in changes}
    for row, item_id in enumerate(known.item_ids):
        if item_id in places:
            places[item_id].append(row)
    return places


def _continued(offers: Floats, plan: Floats) -> Floats:
    """Offers, shape (S, P + H), that are planned otherwise, shape (S, H)."""
    return np.concatenate([offers[:, : -plan.shape[1]], plan], axis=1)


def _listed(dates: Sequence[str]) -> str:
    few = len(dates) <= _MOST_DATES_LISTED
    return f"allowed are {', '.join(dates)}" if few else f"there are {len(dates)} from {dates[0]} to {dates[-1]}"


def _sold_at(location_ids: Sequence[str]) -> str:
    named = [location_id for location_id in location_ids if location_id]
    return f"allowed are {', '.join(named)}" if named else "all locations are one series here: leave location_id out"
