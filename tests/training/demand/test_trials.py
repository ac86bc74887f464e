"""A trial's means know nothing of its block, however short the history; trees stop by all that is held out."""

from dataclasses import replace

import numpy as np
import pytest
from panels import plain_panel

from features.errors import UserError
from features.panels import Panel
from training.config import BoosterConfig
from training.demand.config import DemandConfig
from training.demand.trials import MOST_BLOCKS, held_out, n_trees, origins, trials

FEW = BoosterConfig(n_trees=10, learning_rate=0.3, num_leaves=4, min_data_in_leaf=10)
CONFIG = DemandConfig(horizon=4, n_validation=3, patience=0, trees=FEW, shape=FEW, quantiles=(0.1, 0.5, 0.9))


def known(n_periods: int) -> Panel:
    rng = np.random.default_rng(6)
    return plain_panel(1 + rng.poisson(rng.uniform(2, 9, 30)[:, None], (30, n_periods)), CONFIG.horizon, min_periods=5)


@pytest.mark.parametrize("n_periods", [20, 24, 60])
def test_what_comes_from_a_block_on_changes_none_of_its_means(n_periods: int):
    panel = known(n_periods)
    start = n_periods - CONFIG.n_validation * CONFIG.horizon
    later = np.concatenate([panel.sold[:, :start], 10 * panel.sold[:, start:]], axis=1)
    means = [
        trials(each, CONFIG, "cpu")[0].recipe.forecast(each, start)[:, :, 0]
        for each in (panel, replace(panel, sold=later))
    ]
    np.testing.assert_array_equal(*means)


@pytest.mark.parametrize("n_periods", [20, 24, 60])
def test_targets_of_origins_lie_before_what_they_are_for(n_periods: int):
    for before in (n_periods - 12, n_periods - 4, n_periods):
        assert max(origins(known(n_periods), before, CONFIG)) + CONFIG.horizon <= before


def test_every_held_out_horizon_is_asked_for_once():
    panel, config = known(60), CONFIG.model_copy(update={"n_validation": MOST_BLOCKS + 2})
    tried = trials(panel, config, "cpu")
    assert len(tried) == MOST_BLOCKS
    assert [origin for trial in tried for origin in trial.origins] == list(range(60 - 6 * 4, 60, 4))
    told = held_out(panel, tried, 0.0)
    np.testing.assert_array_equal(told.origin, np.repeat(np.arange(36, 60, 4), 30))
    np.testing.assert_array_equal(told.actual[:30], panel.demand[:, 36:40])


def test_trees_stop_by_all_that_is_held_out():
    """Mailers triple what is sold, which trees learn step by step; in the last horizon they do the opposite."""
    panel, rng = known(60), np.random.default_rng(7)
    mailed = rng.random((30, 64)) < 0.3
    offers = panel.offers | {"mailer": mailed.astype(np.float32)}
    helped = panel.sold * np.where(mailed[:, :60], 3, 1).astype(np.float32)
    harmed = np.concatenate([helped[:, :-4], panel.sold[:, -4:] * np.where(mailed[:, 56:60], 0, 3)], axis=1)
    config = CONFIG.model_copy(update={"patience": 3, "trees": FEW.model_copy(update={"n_trees": 60})})
    steady, broken = (
        trials(replace(panel, sold=sold.astype(np.float32), offers=offers), config, "cpu") for sold in (helped, harmed)
    )
    assert n_trees(steady) == steady[0].n_trees
    assert broken[0].n_trees[0] < steady[0].n_trees[0]


def test_where_nothing_could_be_forecast_there_is_no_trial():
    panel = known(60)
    sold = np.where(np.arange(60) < 59, 0, panel.sold)
    with pytest.raises(UserError, match="no series had sales enough 12 weeks before the cut-off"):
        trials(replace(panel, sold=sold), CONFIG, "cpu")
