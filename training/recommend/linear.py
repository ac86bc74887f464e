"""Fits what goes with what in closed form: ridge regression from a person's decayed history to what it chose next.

With a row per moment of a history, ``X`` what had been chosen, each moment decayed, and ``Y`` what was chosen next, the
similarities are ``B = (X'X + penalty)^-1 X'Y``, so that what several items of a history explain together counts once.
Neither X nor Y is written down: both products are sums over pairs of moments, as those of co-occurrence are.

Items of equal attributes are expected to go with the same items and with each other: B has a Gaussian prior with
covariance ``K = I + attribute_weight * A A'`` between items and mean ``attribute_prior * (K - I)``. The penalty is then
``regularization * K^-1``, and the mean adds ``attribute_prior * (X'X + regularization * I)`` to X'Y.

Sources: Choi et al., "Session-aware Linear Item-Item Models for Session-based Recommendation", WWW 2021, section 3;
Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019; the prior: Rasmussen, Williams, "Gaussian
Processes for Machine Learning", 2006, section 2.7.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import linalg, sparse

from features.errors import UserError
from features.histories import Attributes, EventWeights, Log
from serving.tiers import Neighbours, moments
from training.config import PositiveFloat
from training.device import Device
from training.recommend.cooccurrence import (
    Exponent,
    PairConfig,
    Similar,
    best,
    choices,
    event_counts,
    later,
    moment_users,
    pair_weights,
)

BLOCK = 1024
"""Items that are worked on at once where the whole matrix would need memory a second time."""

FORGOTTEN = 1e-3
"""What an event of a history counts when it is left out of the Gram matrix."""

DENSE = 0.05
"""Share of entries from which on the product with a dense matrix is the faster one."""

Matrix = NDArray[np.float32]


class LinearConfig(PairConfig):
    """Settings of the linear tier."""

    position_decay: Annotated[float, Field(gt=0, le=0.9)] = 0.55
    """An event after which there were m other moments counts this to the power of m."""
    regularization: PositiveFloat = 5.0
    """Penalty on similarities, in units of what an item's events count on average."""
    attribute_weight: Annotated[float, Field(ge=0)] = 10.0
    """How alike two items are that alone share an attribute, beside 1 for an item and itself; n items share 1 / n."""
    attribute_prior: Annotated[float, Field(ge=0)] = 0.05
    """How well items that are alike by attributes go together before anything is known of them."""
    neighbour_power: Exponent = 0.1
    """How much a neighbour is scaled down by how often it was chosen."""
    max_items: Annotated[int, Field(gt=0, le=100_000)] = 20_000
    """Items that are fitted, the most chosen; the others are left to other tiers. Memory is 4 to 8 bytes, time some
    10 floating-point operations, per cube of it."""
    n_neighbours: Annotated[int, Field(gt=0, le=5000)] = 200
    """Neighbours kept per item."""


def fit(log: Log, config: LinearConfig, events: EventWeights, _: Device) -> Neighbours:
    """Neighbours by ridge regression with a prior from attributes.

    Raises UserError when the regression has no solution at this regularization.
    """
    chosen = choices(log, moments(log.histories), events)
    fitted = most_chosen(event_counts(chosen), config.max_items)
    described = attribute_values(log.attributes, log.n_items)[fitted]
    found = regression(chosen[:, fitted], moment_users(log), described, config)
    of_catalogue = ((int(fitted[item]), fitted[others], values) for item, others, values in found)
    neighbours, similarities = best(of_catalogue, log.n_items, config.n_neighbours)
    return Neighbours(neighbours, similarities, events.weights, events.half_life_days, config.position_decay)


def most_chosen(counts: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """The ``n`` items that count most, in the order of the catalogue; of equals the first ones."""
    return np.sort(np.argsort(-counts, kind="stable")[:n])


def attribute_values(attributes: Attributes, n_items: int) -> sparse.csr_array:
    """Which item has which value, float32, shape (n_items, n_values)."""
    ones = np.ones(len(attributes.items), np.float32)
    return sparse.csr_array((ones, (attributes.items, attributes.values)), shape=(n_items, len(attributes.names)))


def regression(
    chosen: sparse.csr_array, users: NDArray[np.int64], described: sparse.csr_array, config: LinearConfig
) -> Iterator[Similar]:
    """What goes with each item.

    chosen : as from ``choices``, shape (n_moments, n_items)
    users : shape (n_moments,), whose each moment is
    described : shape (n_items, n_values)
    """
    counts = event_counts(chosen)
    mean_count = counts[counts > 0].mean() if chosen.nnz else np.float32(1)
    penalty = np.float32(config.regularization) * mean_count
    common = common_root(described, config.attribute_weight)
    prior = np.float32(config.attribute_prior if common.size else 0)

    past, pairs = history_weights(users, config.position_decay), pair_weights(users, config)
    gram = dense_product(chosen, past)
    gram[np.diag_indices_from(gram)] += penalty
    targets = (chosen.T @ (pairs + prior * past) @ chosen + chosen.T @ chosen).tocsr()
    targets.setdiag(prior * gram.diagonal())

    subtract_square(gram, np.sqrt(penalty) * common)
    scale = np.maximum(counts / mean_count, 1e-3) ** -np.float32(config.neighbour_power)
    for item, similarities in enumerate(rows_of_product(inverse(gram), targets)):
        similarities *= scale
        similarities[item] = 0
        others = np.flatnonzero(similarities > 0)
        yield item, others, similarities[others]


def history_weights(users: NDArray[np.int64], decay: float) -> sparse.csr_array:
    """``decay ** gap`` for each two moments of one person, float32, shape (n_moments, n_moments)."""
    window = int(np.ceil(np.log(FORGOTTEN) / np.log(decay)))
    forward = later(users, np.float32(decay) ** np.arange(1, window + 1, dtype=np.float32))
    return sparse.eye_array(len(users), dtype=np.float32, format="csr") + forward + forward.T


def dense_product(chosen: sparse.csr_array, weights: sparse.csr_array) -> Matrix:
    """``chosen' weights chosen``, block by block, float32, shape (n_items, n_items)."""
    by_item = chosen.T.tocsr()
    product = np.empty((chosen.shape[1],) * 2, np.float32)
    for start in range(0, len(product), BLOCK):
        product[start : start + BLOCK] = (by_item[start : start + BLOCK] @ weights @ chosen).toarray()
    return product


def common_root(described: sparse.csr_array, weight: float) -> Matrix:
    """The U of ``(I + A A')^-1 = I - U U'``, float32, shape (n_items, n_values shared by two items or more).

    ``A`` holds ``sqrt(weight / n)`` where an item has a value that n items have: what is rare says more.
    """
    n_items_of = described.sum(axis=0)
    shared = described[:, np.flatnonzero((n_items_of > 1) & (weight > 0))]
    scaled = shared.multiply(np.sqrt(weight / n_items_of[(n_items_of > 1) & (weight > 0)])).toarray()
    inner = np.linalg.cholesky(scaled.T @ scaled + np.eye(scaled.shape[1]))
    root: Matrix = linalg.solve_triangular(inner, scaled.T, lower=True).T.astype(np.float32)
    return root


def subtract_square(matrix: Matrix, root: Matrix) -> None:
    """``matrix -= root root'`` in place."""
    for start in range(0, len(matrix), BLOCK):
        matrix[start : start + BLOCK] -= root[start : start + BLOCK] @ root.T


def inverse(matrix: Matrix) -> Matrix:
    """The inverse of a symmetric positive definite matrix, by Cholesky, in the matrix' own memory.

    Raises UserError when it is not positive definite.
    """
    factor, failed = linalg.lapack.spotrf(matrix.T, lower=True, overwrite_a=True, clean=False)
    if failed:
        raise UserError("the linear tier has no solution: raise tiers.linear.regularization")
    triangle, _ = linalg.lapack.spotri(factor, lower=True, overwrite_c=True)
    inverted: Matrix = triangle.T
    for start in range(0, len(inverted), BLOCK):
        block = slice(start, start + BLOCK)
        inverted[block, block] = np.triu(inverted[block, block]) + np.triu(inverted[block, block], 1).T
        inverted[start + BLOCK :, block] = inverted[block, start + BLOCK :].T
    return inverted


def rows_of_product(symmetric: Matrix, right: sparse.csr_array) -> Iterator[NDArray[np.float32]]:
    """The rows of ``symmetric right``, one after the other."""
    transposed = right.T.tocsr()
    if right.nnz > DENSE * right.shape[0] * right.shape[1]:
        transposed = transposed.toarray()
    for start in range(0, len(symmetric), BLOCK):
        yield from np.ascontiguousarray((transposed @ symmetric[:, start : start + BLOCK]).T)
