"""The closed-form tiers are what their formulas say, written out with dense matrices and loops."""

import numpy as np
import pytest
from scipy import sparse

from features.errors import UserError
from training.recommend.cooccurrence import CooccurrenceConfig, best, event_counts, pair_weights, rules
from training.recommend.linear import LinearConfig, inverse, likeness, regression

N_ITEMS = 9
USERS = np.repeat(np.arange(6), [1, 2, 3, 5, 8, 4])
CONFIG = LinearConfig(window=3, regularization=2.0, attribute_weight=4.0, attribute_prior=0.3, neighbour_power=0.2)


@pytest.fixture
def chosen(rng: np.random.Generator) -> sparse.csr_array:
    """Moments of six people; some hold several items, as orders do, and some items come again."""
    held = rng.random((len(USERS), N_ITEMS)) < 0.25
    held[np.arange(len(USERS)), rng.integers(0, N_ITEMS, len(USERS))] = True
    return sparse.csr_array(held * rng.uniform(0.3, 1, held.shape).astype(np.float32))


@pytest.fixture
def alike(rng: np.random.Generator) -> sparse.csr_array:
    described = sparse.csr_array((rng.random((N_ITEMS, 4)) < 0.5).astype(np.float32))
    return likeness(described, CONFIG.attribute_weight)


def gaps() -> np.ndarray:
    """How many moments from one (row) to the other of the same person; infinite between people and backwards."""
    place = np.arange(len(USERS))
    gap = place - place[:, None].astype(float)
    return np.where((USERS[:, None] == USERS) & (gap > 0), gap, np.inf)


def pairs_of(chosen: np.ndarray, config: CooccurrenceConfig | LinearConfig) -> np.ndarray:
    """What pairs of items count, shape (n_items, n_items): of one moment, and of one person's moments by their gap."""
    weights = np.where(gaps() <= config.window, gaps() ** -config.gap_power, 0)
    at_once = chosen.T @ chosen
    np.fill_diagonal(at_once, 0)
    return at_once + chosen.T @ (weights + config.backward * weights.T) @ chosen


def test_similarities_are_the_mean_of_the_posterior(chosen: sparse.csr_array, alike: sparse.csr_array) -> None:
    x, covariance = chosen.toarray().astype(float), np.eye(N_ITEMS) + (alike @ alike.T).toarray()
    mean = CONFIG.attribute_prior * (covariance - np.diag(np.diag(covariance)))
    forward = np.where(np.isfinite(gaps()), CONFIG.position_decay ** gaps(), 0)
    gram = x.T @ (np.eye(len(x)) + forward + forward.T) @ x
    penalty = CONFIG.regularization * (chosen.data**2).mean() * np.linalg.inv(covariance)
    expected = np.linalg.solve(gram + penalty, pairs_of(x, CONFIG) + penalty @ mean)
    expected *= np.maximum(event_counts(chosen), 1) ** -CONFIG.neighbour_power
    found = np.stack(list(regression(chosen, USERS, alike, CONFIG)))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_pairs_are_counted_by_their_gaps(chosen: sparse.csr_array) -> None:
    config = CooccurrenceConfig(window=2, item_power=0.5, neighbour_power=0.25)
    expected = pairs_of(chosen.toarray().astype(float), config)
    counts = event_counts(chosen)
    expected /= counts[:, None] ** 0.5 * counts**0.25
    found = np.zeros((N_ITEMS, N_ITEMS))
    for item, others, values in rules(chosen, pair_weights(USERS, config), config):
        found[item, others] = values
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_bought_together_asks_for_support_and_lift() -> None:
    """Items 0 and 1 are three times in one order, 2 is everywhere, 3 once with 0."""
    held = np.zeros((12, 4), np.float32)
    held[:3, :2] = held[:, 2] = held[3, [0, 3]] = 1
    config = CooccurrenceConfig(within="visit", min_support=2, min_lift=1.5)
    found = {item: set(others.tolist()) for item, others, _ in rules(sparse.csr_array(held), None, config)}
    assert found == {0: {1}, 1: {0}, 2: set(), 3: set()}


def test_the_strongest_neighbours_are_kept_best_first_for_or_against() -> None:
    neighbours, similarities = best([(1, np.array([5, 6, 7]), np.array([0.2, -0.9, 0.4], np.float32))], 3, 2)
    assert neighbours[1].tolist() == [6, 7]
    np.testing.assert_allclose(similarities, [[0, 0], [-0.9, 0.4], [0, 0]], rtol=1e-6)


def test_a_matrix_without_an_inverse_is_told() -> None:
    with pytest.raises(UserError, match=r"raise tiers\.linear\.regularization"):
        inverse(np.zeros((3, 3), np.float32))
