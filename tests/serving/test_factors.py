"""Folding a history in is exact least squares, however many people are asked for at once."""

import numpy as np
import pytest

from features.histories import EventWeights, Histories
from serving.factors import Factors, Penalties, batches, rated

N_ITEMS, N_FACTORS = 300, 6
EVENTS = EventWeights(np.array([0.1, 0.5, 1.0], np.float32), np.full(3, 90.0, np.float32))
PENALTIES = Penalties(alpha=10.0, regularization=2.0)


@pytest.fixture(params=[N_FACTORS, 256])
def factors(request: pytest.FixtureRequest, rng: np.random.Generator) -> Factors:
    """Item factors whose gram matrix is diagonal, as training leaves them."""
    drawn = rng.normal(size=(N_ITEMS, request.param)) * np.linspace(1, 0.1, request.param)
    turned, scale, _ = np.linalg.svd(drawn, full_matrices=False)
    item_factors = (turned * scale).astype(np.float32)
    gram = (scale**2).astype(np.float32)
    return Factors(item_factors, gram, EVENTS.weights, EVENTS.half_life_days, PENALTIES.alpha, PENALTIES.regularization)


def histories_of(lengths: list[int], rng: np.random.Generator) -> Histories:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    n = int(starts[-1])
    items, kinds = rng.integers(0, N_ITEMS, n).astype(np.int32), rng.integers(0, 3, n).astype(np.int8)
    return Histories(starts, items, kinds, rng.uniform(0, 100, n).astype(np.float32))


def least_squares(factors: Factors, history: Histories) -> np.ndarray:
    """The same by the normal equations over the whole catalogue, in float64."""
    affinities = np.bincount(history.items, EVENTS.affinities(history), N_ITEMS)
    y, confidence = factors.item_factors.astype(np.float64), 1 + PENALTIES.alpha * affinities
    ridge = PENALTIES.regularization * np.sqrt(affinities.sum())
    left = (y * confidence[:, None]).T @ y + ridge * np.eye(y.shape[1])
    return np.linalg.solve(left, y.T @ (confidence * (affinities > 0)))


def test_a_history_is_folded_in_by_least_squares(factors: Factors, rng: np.random.Generator) -> None:
    histories = histories_of([1, 3, 30, 500], rng)
    expected = np.array([least_squares(factors, histories.take(np.array([user]))) for user in range(4)])
    errors = np.linalg.norm(factors.folded_in(histories) - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert errors.max() < 1e-3


def test_people_are_folded_in_together_as_alone(factors: Factors, rng: np.random.Generator) -> None:
    histories = histories_of([0, 2, 7, 0, 1, 200], rng)
    alone = np.concatenate([factors.folded_in(histories.take(np.array([user]))) for user in range(6)])
    np.testing.assert_allclose(factors.folded_in(histories), alone, rtol=1e-5, atol=1e-6)
    assert not alone[[0, 3]].any()


def test_batches_hold_every_row_once_within_their_limit(rng: np.random.Generator) -> None:
    histories = histories_of(list(rng.integers(0, 30, 200)), rng)
    ratings = rated(histories, EVENTS)
    found = list(batches(ratings, PENALTIES, N_FACTORS, cells=600))
    rows = np.concatenate([batch.rows for batch in found])
    assert sorted(rows) == np.flatnonzero(np.diff(ratings.starts)).tolist()
    assert all(batch.columns.size * N_FACTORS <= 600 or len(batch.rows) == 1 for batch in found)
