"""Every feature has a group; shares of the groups multiply to the answer, whatever the link."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from panels import plain_panel

from features.demand import features, level
from features.panels import Panel
from features.periods import Frequency
from serving.explain import GROUPS, effects, group_of

N_PERIODS, HORIZON = 40, 3


def panel_of(frequency: Frequency, country: str | None) -> Panel:
    names = ("price", "base_price", "display", "mailer", "rain", "level_of_water")
    offers = dict.fromkeys(names, np.ones((2, N_PERIODS + HORIZON)))
    sold = np.ones((2, N_PERIODS))
    return plain_panel(sold, HORIZON, "2022-03-01", frequency, offers=offers, min_periods=4, country=country)


@pytest.mark.parametrize("frequency", ["day", "week", "month"])
@pytest.mark.parametrize("country", [None, "DE-BW"])
def test_every_feature_has_one_group(frequency: Frequency, country: str | None):
    names, _ = features(panel_of(frequency, country), N_PERIODS)
    groups = {name: group_of(name, ("rain", "level_of_water")) for name in names}
    assert set(groups.values()) == {*GROUPS, "covariates"}
    assert {name for name, group in groups.items() if group == "covariates"} == {"rain", "level_of_water"}


@pytest.mark.parametrize(
    ("feature", "group"),
    [
        ("mean_13", "trend"),
        ("mean_offered_alike", "promotion"),
        ("item_season", "season"),
        ("item_trend_4", "others"),
        ("periods_since_first_sale", "level"),
        ("periods_since_discount", "price"),
        ("periods_since_mailer", "promotion"),
        ("weekday_mean_182", "season"),
    ],
)
def test_names_mean_what_a_planner_calls_them(feature: str, group: str):
    assert group_of(feature) == group


def test_a_feature_of_no_group_is_refused():
    with pytest.raises(ValueError, match=r"feature moon_phase has the groups \[\], it must have one of level, trend"):
        group_of("moon_phase")


class Told:
    """Trees that are told what each feature adds."""

    def __init__(self, added: Sequence[float]) -> None:
        self.added = np.array([added], np.float64)

    def contributions(self, rows: np.ndarray) -> np.ndarray:
        return np.repeat(self.added, len(rows), axis=0)


def told(*added: Sequence[float], bases: Sequence[str] = ("level",), least: float = 0.0, logarithmic: bool = True):
    """Effects of three features of the groups level, price and price, of a level of 2 and other bases of 4."""
    units = {base: np.full(1, 2.0 if base == "level" else 4.0, np.float32) for base in bases}
    rows, groups = np.zeros((1, 3), np.float32), ("level", "price", "price")
    found = effects([Told(each) for each in added], rows, units, np.array([2.0]), groups, least, logarithmic)
    return {group: float(values[0]) for group, values in found.items()}


def test_what_is_expected_of_all_is_of_the_level():
    found = told([0.1, 0.2, 0.3, -0.4])
    assert found == pytest.approx({"level": np.exp(-0.3), "price": np.exp(0.5)})


def test_plain_multiples_are_divided_as_their_logarithms_are():
    found = told([0.5, 0.25, 0.25, 1.0], least=0.01, logarithmic=False)
    assert found == pytest.approx({"level": np.sqrt(2), "price": np.sqrt(2)})


def test_contributions_that_cancel_still_have_their_effects():
    found = told([-0.25, 0.125, 0.125, 2.0], least=0.01, logarithmic=False)
    assert found == pytest.approx({"level": 2 * np.exp(-0.125), "price": np.exp(0.125)})


def test_several_means_and_their_bases_are_averaged_in_logarithms():
    found = told([0.0, 0.5, 0.0, 0.0], [0.0, 0.1, 0.0, 0.2], bases=("level", "theta"), least=0.01)
    assert found == pytest.approx({"level": np.exp(0.1), "price": np.exp(0.3), "base": np.sqrt(2)})


@pytest.mark.parametrize("logarithmic", [True, False])
def test_a_mean_below_the_least_is_explained_as_the_least(logarithmic: bool):
    found = told([-7.0, -1.0, -1.0, 0.5], least=0.01, logarithmic=logarithmic)
    assert np.prod(list(found.values())) == pytest.approx(0.01)
    assert all(factor < 2 for factor in found.values())


def test_the_level_is_what_features_say_it_is():
    panel = replace(panel_of("week", None), sold=np.full((2, N_PERIODS), 5, np.float32))
    names, rows = features(panel, N_PERIODS)
    np.testing.assert_allclose(np.exp(rows[:, 0, names.index("level")]), level(panel, N_PERIODS), rtol=1e-6)
