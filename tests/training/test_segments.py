import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.segments import scores, segments, tiers

SHARES = {"gold": 0.1, "silver": 0.4, "basic": 0.5}
values = st.lists(st.integers(0, 9), min_size=1, max_size=60).map(lambda drawn: np.array(drawn, float))


@given(values)
def test_scores_rise_with_values_and_never_part_who_ties(drawn):
    found = scores(drawn)
    assert set(found) <= {1, 2, 3, 4, 5}
    assert found.min() == 1
    assert (np.diff(found[np.argsort(drawn)]) >= 0).all()
    assert all(len(set(found[drawn == value])) == 1 for value in drawn)


def test_scores_of_different_values_are_fifths():
    assert np.bincount(scores(np.random.default_rng(0).permutation(100.0 * np.arange(50))))[1:].tolist() == [10] * 5


@pytest.mark.parametrize(
    ("recency", "frequency", "money", "n_orders", "name"),
    [
        (5, 1, 1, 1, "new"),
        (5, 5, 5, 9, "champions"),
        (5, 5, 1, 9, "loyal"),
        (3, 4, 5, 9, "loyal"),
        (1, 4, 1, 9, "at risk"),
        (2, 1, 5, 1, "at risk"),
        (1, 1, 1, 1, "lost"),
        (3, 2, 2, 2, "occasional"),
        (4, 2, 5, 2, "occasional"),
    ],
)
def test_segments_follow_the_rule(recency, frequency, money, n_orders, name):
    assert segments(*(np.array([score]) for score in (recency, frequency, money, n_orders))) == [name]


@given(values)
def test_tiers_hold_their_shares_but_for_ties_and_follow_value(drawn):
    found = np.array(tiers(drawn, SHARES))
    rank = np.array([list(SHARES).index(name) for name in found])
    assert (np.diff(rank[np.argsort(-drawn)]) >= 0).all()
    assert all(len(set(found[drawn == value])) == 1 for value in drawn)


def test_tiers_of_different_values_hold_their_shares():
    found = tiers(np.arange(100.0), SHARES)
    assert {name: found.count(name) for name in SHARES} == {"gold": 10, "silver": 40, "basic": 50}
    assert found[99] == "gold"
