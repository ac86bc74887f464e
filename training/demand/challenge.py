"""How much of the quantiles a network gives: as much as helps on held-out horizons, or nothing."""

from collections.abc import Sequence

import lightgbm
import numpy as np

from features.demand import features
from features.panels import Floats, Ints, Panel
from serving.demand import Recipe, mean_of
from serving.quantile_network import QuantileNetwork
from training.demand.config import DemandConfig
from training.demand.learning import Examples, shape_boosters

SHARES = (0.0, 0.25, 0.5, 0.75)
"""Of the quantiles that a network may give: never all, for held-out horizons are few."""

_TELLS_TIME = ("periods_since_first_sale",)
_TELLS_SEASON = ("step", "shop_season")


def challenger(taught: Examples, known: Panel, config: DemandConfig, device: str) -> QuantileNetwork | None:
    """The network that is asked for, fitted; ``known`` is the panel that the examples are of."""
    if config.network is None:
        return None
    from training.demand import network  # torch takes seconds to import, and most forecasts ask for none

    return network.fit(taught, columns(known, len(config.bases)), config, config.network, device)


def columns(known: Panel, n_bases: int) -> Ints:
    """What a network reads of ``serving.quantile_network.read``: the features that tell series apart, and the bases.

    What all series share tells which of a few origins an example is of; beyond those a network goes on along the line
    it found there, where a tree stays at its last leaf. The step and the shop's season come back, so they stay.
    """
    names, values = features(known, known.n_periods)
    told = np.nan_to_num(values, nan=-np.inf)
    differs = (told != told[:1]).any(axis=(0, 1))
    kept = (differs | np.isin(names, _TELLS_SEASON)) & ~np.isin(names, _TELLS_TIME)
    return np.flatnonzero(np.r_[kept, np.ones(n_bases, bool)])


def best_share(
    network: QuantileNetwork | None,
    judged: Examples,
    means: Sequence[lightgbm.Booster],
    shape: Sequence[lightgbm.Booster],
    config: DemandConfig,
) -> float:
    """The network's share of least pinball loss on examples that neither it nor the trees were taught with.

    shape : the quantiles' trees; where held-out errors taught them, each half of these is judged by what the other
        half teaches, so that trees are not judged by what they know
    """
    if network is None:
        return 0.0
    trees = _quantiles(judged, means, shape, config)
    beside = network.quantiles(judged.rows, judged.bases)
    losses = [pinball_loss((1 - share) * trees + share * beside, judged, config.quantiles) for share in SHARES]
    return SHARES[int(np.argmin(losses))]


def pinball_loss(units: Floats, judged: Examples, quantiles: Sequence[float]) -> float:
    """Mean pinball loss of quantiles [n, n_quantiles], units, each row as much as it was on sale."""
    levels, short = np.array(quantiles), judged.units[:, None] - units
    losses = np.maximum(levels * short, (levels - 1) * short).mean(axis=1)
    return float(np.average(losses, weights=judged.exposure))


def _quantiles(
    judged: Examples, means: Sequence[lightgbm.Booster], shape: Sequence[lightgbm.Booster], config: DemandConfig
) -> Floats:
    if config.quantiles_of == "base":
        return Recipe(means, shape, config.bases, "base").units(judged.rows, judged.bases)[:, 1:]
    found = np.empty((len(judged.units), len(config.quantiles)), np.float32)
    halves = np.array_split(np.arange(len(found)), 2)
    for one, other in (halves, halves[::-1]):
        taught = Examples(*(column[one] for column in judged))
        crossed = shape_boosters(taught, mean_of(means, taught.rows, taught.bases), config)
        found[other] = Recipe(means, crossed, config.bases).units(judged.rows[other], judged.bases[other])[:, 1:]
    return found
