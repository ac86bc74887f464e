"""Alternating least squares finds what it minimises, as well as exact alternation does."""

import numpy as np
import pytest

from serving.factors import Penalties, Ratings
from training.device import choose
from training.recommend.factors import AlsConfig, alternated, principal, transposed

N_USERS, N_ITEMS, N_FACTORS = 120, 50, 8
PENALTIES = Penalties(alpha=10.0, regularization=2.0)


@pytest.fixture
def ratings(rng: np.random.Generator) -> Ratings:
    """Two tastes, each with half of the items."""
    taste = rng.random((N_USERS, 1)) < 0.5
    chosen = rng.random((N_USERS, N_ITEMS)) < np.where(taste == (np.arange(N_ITEMS) < N_ITEMS // 2), 0.3, 0.03)
    users, items = np.nonzero(chosen)
    starts = np.searchsorted(users, np.arange(N_USERS + 1))
    return Ratings(starts, items, rng.uniform(0.2, 1, len(items)).astype(np.float32))


def dense(ratings: Ratings) -> np.ndarray:
    affinities = np.zeros((N_USERS, N_ITEMS))
    affinities[np.repeat(np.arange(N_USERS), np.diff(ratings.starts)), ratings.columns] = ratings.affinities
    return affinities


def exact(affinities: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The least-squares vector of each row by the normal equations."""
    found = np.zeros((len(affinities), factors.shape[1]))
    for row, of_row in enumerate(affinities):
        confidence = 1 + PENALTIES.alpha * of_row
        ridge = PENALTIES.regularization * np.sqrt(of_row.sum()) * np.eye(factors.shape[1])
        left = (factors * confidence[:, None]).T @ factors + ridge
        found[row] = np.linalg.solve(left, factors.T @ (confidence * (of_row > 0))) if of_row.any() else 0
    return found


def loss(affinities: np.ndarray, items: np.ndarray) -> float:
    """What alternation minimises, people being at their best for these items."""
    users = exact(affinities, items)
    errors = (1 + PENALTIES.alpha * affinities) * ((affinities > 0) - users @ items.T) ** 2
    norms = [np.sqrt(affinities.sum(axis)) @ (found**2).sum(1) for axis, found in ((1, users), (0, items))]
    return float(errors.sum() + PENALTIES.regularization * sum(norms))


def test_alternation_gets_as_low_as_exact_alternation(ratings: Ratings) -> None:
    def after(n: int) -> float:
        config = AlsConfig(n_factors=N_FACTORS, n_iterations=n)
        return loss(dense(ratings), alternated(ratings, N_ITEMS, config, PENALTIES, choose("cpu")))

    reached = [after(n) for n in (1, 3, 10)]
    assert reached == sorted(reached, reverse=True)
    items = np.random.default_rng(0).normal(0, 0.1, (N_ITEMS, N_FACTORS))
    for _ in range(10):
        items = exact(dense(ratings).T, exact(dense(ratings), items))
    assert reached[-1] < 1.01 * loss(dense(ratings), items)


def test_columns_become_rows(ratings: Ratings) -> None:
    back = transposed(transposed(ratings, N_ITEMS), N_USERS)
    for got, expected in zip(back, ratings, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_turned_factors_score_as_before_and_share_no_direction(rng: np.random.Generator) -> None:
    factors, others = rng.normal(size=(2, 30, N_FACTORS)).astype(np.float32)
    turned, gram, turn = principal(factors, np.asarray)
    np.testing.assert_allclose(turned @ (others @ turn).T, factors @ others.T, atol=1e-4)
    np.testing.assert_allclose(turned.T @ turned, np.diag(gram), atol=1e-4)
