"""How much forecasts of sums err, beside those of the series, and what was held out as it is with their help."""

from collections.abc import Mapping, Sequence

import numpy as np

from features.errors import UserError
from features.panels import Floats, Panel
from serving.reconcile import LEAST_KNOWN, Doubles, Reconciliation, Sums, SumsOf, direct
from training.demand.dependence import HeldOut


def reconciled(known: Panel, told: HeldOut, kinds: Sequence[SumsOf]) -> tuple[Reconciliation, HeldOut]:
    """What reconciles forecasts of a panel, and what was held out with reconciled forecasts.

    Raises UserError when there are more sums than can be reconciled, or too little is known to judge a kind of them.
    """
    ahead = {origin: direct(known, origin, kinds) for origin in np.unique(told.origin).tolist()}
    found = Reconciliation(_of_series(told), _of_sums(told, ahead))
    units = told.units.copy()
    for origin, sums in ahead.items():
        at = told.origin == origin
        units[at] *= found.towards(sums, units[at, :, 0])[:, :, None]
    return found, told._replace(units=units)


def _of_series(told: HeldOut) -> float:
    means, there = told.units[:, :, 0], ~np.isnan(told.actual)
    return _dispersion(means[there], told.actual[there])


def _of_sums(told: HeldOut, ahead: Mapping[int, Sums]) -> dict[SumsOf, float]:
    """Of what is known of the sums, where that is ``LEAST_KNOWN`` of them by the series' forecasts or more."""
    parts = []
    for origin, sums in ahead.items():
        means, actual = (each[told.origin == origin] for each in (told.units[:, :, 0], told.actual))
        there = ~np.isnan(actual)
        whole, known = sums.of(means), sums.of(np.where(there, means, 0))
        share = np.where(whole > 0, known / np.where(whole > 0, whole, 1), 0)
        enough = (share >= LEAST_KNOWN) & ~np.isnan(sums.ahead)
        of = np.broadcast_to(sums.kind[:, None], enough.shape)[enough]
        parts.append((of, (sums.ahead * share)[enough], sums.of(np.nan_to_num(actual))[enough]))
    kind, expected, came = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    kinds = next(iter(ahead.values())).kinds
    if unjudged := [of for place, of in enumerate(kinds) if not (kind == place).any()]:
        raise UserError(
            f"reconcile has {unjudged[0]}, and of no such sum half was known in a held-out period: leave it out"
        )
    return {of: _dispersion(expected[kind == place], came[kind == place]) for place, of in enumerate(kinds)}


def _dispersion(expected: Floats | Doubles, came: Floats | Doubles) -> float:
    """Squared errors over what was expected, units."""
    return float(np.square(came - expected).sum() / max(float(expected.sum()), 1.0))
