import numpy as np
import pytest

from training.propensity.drift import profile, stability_indices

RNG = np.random.default_rng(0)
THEN = np.column_stack([RNG.normal(size=5000), np.where(RNG.random(5000) < 0.2, np.nan, 1.0), RNG.integers(0, 3, 5000)])
NAMES, N_LEVELS = ["spend", "price", "medium"], [0, 0, 3]


@pytest.fixture(scope="module")
def spreads():
    return profile(THEN, NAMES, N_LEVELS)


def test_shares_of_every_feature_sum_to_one(spreads):
    assert [each["name"] for each in spreads] == NAMES
    assert all(sum(each["shares"]) == pytest.approx(1) for each in spreads)
    assert [len(each["shares"]) for each in spreads] == [11, 3, 4]


def test_the_same_population_is_stable(spreads):
    other = np.random.default_rng(1)
    now = np.column_stack(
        [other.normal(size=5000), np.where(other.random(5000) < 0.2, np.nan, 1.0), other.integers(0, 3, 5000)]
    )
    assert max(stability_indices(spreads, now).values()) < 0.02


@pytest.mark.parametrize(
    ("column", "values"),
    [(0, THEN[:, 0] + 1), (1, np.full(5000, np.nan)), (2, np.zeros(5000)), (2, np.full(5000, np.nan))],
)
def test_what_moved_is_found_and_nothing_else(spreads, column, values):
    now = THEN.copy()
    now[:, column] = values
    found = stability_indices(spreads, now)
    assert found.pop(NAMES[column]) > 0.25
    assert set(found.values()) == {0.0}


def test_a_shift_by_bins_is_the_formula(spreads):
    shares = np.array(spreads[2]["shares"])
    now = np.repeat([0.0, 1.0, 2.0], [2500, 1250, 1250])[:, None]
    expected = sum((n - t) * np.log(n / t) for n, t in zip([0.5, 0.25, 0.25], shares[:3], strict=True))
    assert stability_indices([spreads[2]], now)["medium"] == pytest.approx(expected - 2 * 2 / 5000)


def test_a_few_rows_of_the_same_population_are_no_alarm(spreads):
    other = np.random.default_rng(2)
    few = [stability_indices(spreads, THEN[other.integers(0, 5000, 50)])["spend"] for _ in range(200)]
    assert np.mean(np.array(few) > 0.25) < 0.1
