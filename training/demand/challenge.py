"""The network that stands beside the trees, where one is asked for."""

import numpy as np

from features.demand import features
from features.panels import Ints, Panel
from serving.quantile_network import QuantileNetwork
from training.demand.config import DemandConfig
from training.demand.learning import Examples

_TELLS_TIME = ("periods_since_first_sale",)
_TELLS_SEASON = ("step", "shop_season")


def challenger(
    taught: Examples, known: Panel, origin: int, config: DemandConfig, device: str
) -> QuantileNetwork | None:
    """The network that is asked for, fitted on examples of what a panel held before an origin."""
    if config.network is None:
        return None
    from training.demand import network  # torch takes seconds to import, and most forecasts ask for none

    return network.fit(taught, columns(known, origin, len(config.bases)), config, config.network, device)


def columns(known: Panel, origin: int, n_bases: int) -> Ints:
    """What a network reads of ``serving.quantile_network.read``: the features that tell series apart, and the bases.

    What all series share tells which of a few origins an example is of; beyond those a network goes on along the line
    it found there, where a tree stays at its last leaf. The step and the shop's season come back, so they stay.
    """
    names, values = features(known, origin)
    told = np.nan_to_num(values, nan=-np.inf)
    differs = (told != told[:1]).any(axis=(0, 1))
    kept = (differs | np.isin(names, _TELLS_SEASON)) & ~np.isin(names, _TELLS_TIME)
    return np.flatnonzero(np.r_[kept, np.ones(n_bases, bool)])
