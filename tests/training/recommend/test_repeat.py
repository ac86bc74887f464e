"""People come back for what they came back for, by habit and by item."""

import numpy as np
import pytest

from features.histories import NO_ATTRIBUTES, Attributes, EventWeights, Histories, Log
from serving.repeat import TRAITS, habits
from training.device import choose
from training.recommend.repeat import RepeatConfig, examples, fit, logistic, of_attributes, shrunk

EVENTS = EventWeights(np.ones(3, np.float32), np.full(3, 90.0, np.float32))
N_ITEMS = 30


def log_of(visits_by_user: list[list[list[int]]]) -> Log:
    """A purchase log; a visit a day, the last one today."""
    items, ages, starts, visits = [], [], [0], []
    for user in visits_by_user:
        for place, visit in enumerate(user):
            items += visit
            ages += [float(len(user) - 1 - place)] * len(visit)
            visits += [len(visits)] * len(visit)
        starts.append(len(items))
    histories = Histories(
        np.array(starts), np.array(items, np.int32), np.full(len(items), 2, np.int8), np.array(ages, np.float32)
    )
    users = [f"u{user}" for user in range(len(visits_by_user))]
    return Log(users, [f"i{i}" for i in range(N_ITEMS)], histories, np.array(visits, np.int32), NO_ATTRIBUTES)


@pytest.fixture(scope="module")
def shoppers() -> Log:
    """Item 0 is bought at every visit, items 1 to 9 at every third, each other item once in a life."""
    rng = np.random.default_rng(0)
    return log_of(
        [
            [[0, *rng.permutation(np.arange(1, 10))[:3], 10 + (user + visit) % 20] for visit in range(12)]
            for user in range(80)
        ]
    )


def test_what_is_bought_at_every_visit_comes_first(shoppers: Log) -> None:
    tier = fit(shoppers, RepeatConfig(), EVENTS, choose("cpu"))
    scores = tier.scores(shoppers.histories)
    assert (scores.argmax(axis=1) == 0).mean() > 0.9


def test_what_nobody_buys_twice_falls_behind(shoppers: Log) -> None:
    tier = fit(shoppers, RepeatConfig(), EVENTS, choose("cpu"))
    scores = tier.scores(Histories.of([0, 5, 15]))[0]
    assert scores[0] > scores[5] > scores[16] > scores[15]


def test_where_nobody_comes_back_for_anything_what_is_had_comes_last() -> None:
    rng = np.random.default_rng(0)
    log = log_of([[[item] for item in rng.permutation(N_ITEMS)[:12]] for _ in range(60)])
    tier = fit(log, RepeatConfig(), EVENTS, choose("cpu"))
    assert tier.aversion == 1
    scores = tier.scores(Histories.of([0, 5]))[0]
    assert scores[[0, 5]].max() < np.delete(scores, [0, 5]).min()


def test_a_stranger_has_the_scores_of_nobody(shoppers: Log) -> None:
    assert not fit(shoppers, RepeatConfig(), EVENTS, choose("cpu")).scores(Histories.of([])).any()


def test_habits_are_counted_as_stated() -> None:
    log = log_of([[[3, 4], [4], [5]]])
    found = habits(log.histories)
    traits = dict(zip(TRAITS, found.traits.T, strict=True))
    assert found.items.tolist() == [3, 4, 5]
    np.testing.assert_allclose(np.expm1(traits["log_1_plus_n_purchase"]), [1, 2, 1], rtol=1e-5)
    np.testing.assert_allclose(np.exp(traits["log_visits"]), [3, 3, 3], rtol=1e-5)
    np.testing.assert_allclose(np.exp(traits["log_visits_since_last"]), [3, 2, 1], rtol=1e-5)
    np.testing.assert_allclose(np.expm1(traits["log_1_plus_days_since_last"]), [2, 1, 0], atol=1e-5)


def test_examples_see_nothing_of_the_visit_that_they_predict() -> None:
    log = log_of([[[1, 2], [2], [1, 7]]])
    last, second, first = examples(log.histories, 3)
    assert (last.items.tolist(), last.held.tolist()) == ([1, 2], [True, False])
    assert (second.items.tolist(), second.held.tolist()) == ([1, 2], [False, True])
    assert len(first.items) == 0
    days = last.traits[:, TRAITS.index("log_1_plus_days_since_last")]
    np.testing.assert_allclose(np.expm1(days), [2, 1], atol=1e-5)


def test_the_regression_finds_the_coefficients_that_made_the_labels() -> None:
    rng = np.random.default_rng(1)
    traits = np.column_stack([np.ones(200_000), rng.normal(size=(200_000, len(TRAITS) - 1))])
    truth, offset = np.linspace(-1, 1, len(TRAITS)), rng.normal(size=200_000)
    labels = rng.random(200_000) < 1 / (1 + np.exp(-traits @ truth - offset))
    np.testing.assert_allclose(logistic(traits, labels, offset, np.zeros(len(TRAITS))), truth, atol=0.03)


def test_what_is_known_little_of_is_as_its_attributes_are() -> None:
    rng = np.random.default_rng(2)
    n_items, n_values = 2000, 2
    attributes = Attributes(
        np.arange(n_items, dtype=np.int32), np.arange(n_items, dtype=np.int32) % n_values, ["a", "b"]
    )
    factors = np.where(np.arange(n_items) % 2, 2.0, 0.5)
    expected = np.full(n_items, 0.2)
    observed = rng.poisson(expected * factors).astype(float)
    centres = of_attributes(observed, expected, attributes)
    np.testing.assert_allclose(centres, factors, rtol=0.25)
    np.testing.assert_allclose(shrunk(observed, expected, centres), factors, rtol=0.4)


def test_a_log_of_single_visits_teaches_nothing_and_harms_nothing() -> None:
    log = log_of([[[1, 2]], [[3]]])
    assert np.isfinite(fit(log, RepeatConfig(), EVENTS, choose("cpu")).scores(log.histories)).all()
