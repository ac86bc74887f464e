"""Examples weigh what the loss says: units, or shares of the demand."""

import numpy as np
import pytest

from training.config import BoosterConfig
from training.demand.config import DemandConfig
from training.demand.learning import Examples, mean_boosters

FEW = BoosterConfig(n_trees=60, learning_rate=0.3, min_data_in_leaf=1, lambda_l2=0.0)


def of(units: np.ndarray, bases: np.ndarray) -> Examples:
    return Examples(np.zeros((len(units), 1), np.float32), units, bases, np.ones(len(units), np.float32))


def test_a_base_weighs_its_units_and_a_percentage_its_inverse():
    some = of(np.float32([2, 0, 8]), np.float32([[4, 1], [4, 1], [4, 2]]))
    assert some.relative(1).tolist() == [2, 0, 4]
    assert some.weight().tolist() == [4, 4, 4]
    assert some.weight("mape").tolist() == [2, 0, 0.5]
    assert some.weight("mape", 1).tolist() == [0.5, 0, 0.25]


def test_the_mean_of_percentage_errors_is_least_where_it_is_said_to_be():
    """Of constants, the median weighted by the inverse: of 1, 2 and 100 it is 1 alone that outweighs the others."""
    some = of(np.float32([1, 2, 100] * 40), np.ones((120, 1), np.float32))
    (booster,) = mean_boosters(some, DemandConfig(loss="mape", trees=FEW))
    assert booster.predict(np.zeros((1, 1)))[0] == pytest.approx(1, abs=0.05)


def test_each_base_has_its_own_trees_over_the_same_rows():
    units, bases = np.float32([4] * 60), np.repeat(np.float32([[1, 8]]), 60, axis=0)
    config = DemandConfig(loss="mape", bases=("level", "price_response"), trees=FEW)
    both = [booster.predict(np.zeros((1, 1)))[0] for booster in mean_boosters(of(units, bases), config)]
    assert both == pytest.approx([4, 0.5], rel=1e-3)
