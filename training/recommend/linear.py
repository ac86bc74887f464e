"""Fits what goes with what in closed form: ridge regression from a person's decayed history to what it chose next.

With a row per moment of a history, ``X`` what had been chosen, each moment decayed, and ``Y`` what was chosen next, the
similarities are ``B = (X'X + penalty)^-1 X'Y``: what several items of a history explain together counts once. Neither X
nor Y is written down, for both products are sums over pairs of moments, as those of co-occurrence are.

Items of equal attributes ``A`` are expected to go with the same items, and with each other. So B has a Gaussian prior:
its covariance between items is ``K = I + A A'``, its mean ``M = attribute_prior * (K - D)``, D being the diagonal of K.
The penalty is then ``regularization * K^-1``, and B the mean plus the same regression on what the mean leaves over.

Sources: Choi et al., "Session-aware Linear Item-Item Models for Session-based Recommendation", WWW 2021, section 3;
Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019; Rasmussen, Williams, "Gaussian Processes for
Machine Learning", 2006, section 2.7, for the prior.
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
    best,
    choices,
    event_counts,
    later,
    moment_users,
    pair_weights,
    together,
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
    regularization: PositiveFloat = 60.0
    """Penalty on similarities, in events of average weight: an item with as many is known half."""
    attribute_weight: Annotated[float, Field(ge=0)] = 10.0
    """How alike two items are that share an attribute with no other item, where 2 is the likeness of an item to itself
    by its id; an attribute that n items share makes them alike by 2 / n of it."""
    attribute_prior: Annotated[float, Field(ge=0)] = 0.05
    """How well items go together, per likeness, before anything is known of them."""
    neighbour_power: Exponent = 0.1
    """How much a neighbour is scaled down by how often it was chosen."""
    max_items: Annotated[int, Field(gt=0, le=100_000)] = 20_000
    """Items that are fitted, the most chosen; the others are left to other tiers. Memory is 4 to 12 bytes per square of
    it, time 1 to 3 floating-point operations per cube."""
    n_neighbours: Annotated[int, Field(gt=0, le=5000)] = 200
    """Neighbours kept per item, the strongest; those that speak against each other count as well."""


def fit(log: Log, config: LinearConfig, events: EventWeights, _: Device) -> Neighbours:
    """Neighbours by ridge regression with a prior from attributes.

    Raises UserError when the regression has no solution at this regularization.
    """
    chosen = choices(log, moments(log.histories), events)
    fitted = most_chosen(event_counts(chosen), config.max_items)
    alike = likeness(described(log.attributes, log.n_items)[fitted], config.attribute_weight)
    found = regression(chosen[:, fitted], moment_users(log), alike, config)
    of_catalogue = ((int(fitted[item]), fitted, similarities) for item, similarities in enumerate(found))
    neighbours, similarities = best(of_catalogue, log.n_items, config.n_neighbours)
    return Neighbours(neighbours, similarities, events.weights, events.half_life_days, config.position_decay)


def most_chosen(counts: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """The ``n`` items that count most, in the order of the catalogue; of equals the first ones."""
    return np.sort(np.argsort(-counts, kind="stable")[:n])


def described(attributes: Attributes, n_items: int) -> sparse.csr_array:
    """1 where an item has a value, float32, shape (n_items, n_values)."""
    ones = np.ones(len(attributes.items), np.float32)
    return sparse.csr_array((ones, (attributes.items, attributes.values)), shape=(n_items, len(attributes.names)))


def likeness(described: sparse.csr_array, weight: float) -> sparse.csr_array:
    """The A of the prior: ``sqrt(weight / n)`` where an item has a value that n > 1 items have; what is rare says more.

    described : float32, shape (n_items, n_values)
    Returns float32, shape (n_items, n_shared_values).

    >>> likeness(sparse.csr_array([[1, 0], [1, 1], [0, 0]], dtype=np.float32), 8.0).toarray()
    array([[2.],
           [2.],
           [0.]], dtype=float32)
    """
    n_items_of = described.sum(axis=0)
    shared = np.flatnonzero(n_items_of > 1)
    roots = np.sqrt(weight / n_items_of[shared]).astype(np.float32)
    return (described[:, shared] @ sparse.diags_array(roots)).tocsr()


def regression(
    chosen: sparse.csr_array, users: NDArray[np.int64], alike: sparse.csr_array, config: LinearConfig
) -> Iterator[NDArray[np.float32]]:
    """The similarities of each item to all, float32, shape (n_items,).

    chosen : as from ``choices``, shape (n_moments, n_items)
    users : shape (n_moments,), whose each moment is
    alike : the A of the prior, shape (n_items, n_values)
    """
    penalty = np.float32(config.regularization) * (chosen.data**2).mean()
    past = history_weights(users, config.position_decay)
    inverted = inverse(precision(chosen.T @ past @ chosen, alike, penalty))
    own = np.float32(config.attribute_prior) * (1 + alike.power(2).sum(axis=1))
    observed = pair_weights(users, config) @ chosen + past @ chosen @ sparse.diags_array(own)
    expected = sparse.eye_array(len(own), dtype=np.float32) * (config.attribute_prior * penalty)
    targets = chosen.T @ observed + together(chosen.T.tocsr(), chosen) + expected
    scale = np.maximum(event_counts(chosen), 1) ** -np.float32(config.neighbour_power)
    for item, similarities in enumerate(rows_of_product(inverted, targets)):
        similarities[item] -= own[item]
        yield similarities * scale


def history_weights(users: NDArray[np.int64], decay: float) -> sparse.csr_array:
    """``decay ** gap`` for each two moments of one person, float32, shape (n_moments, n_moments)."""
    window = int(np.ceil(np.log(FORGOTTEN) / np.log(decay)))
    forward = later(users, np.float32(decay) ** np.arange(1, window + 1, dtype=np.float32))
    return sparse.eye_array(len(users), dtype=np.float32, format="csr") + forward + forward.T


def precision(gram: sparse.csr_array, alike: sparse.csr_array, penalty: np.float32) -> Matrix:
    """``gram + penalty * K^-1``, float32, shape (n_items, n_items)."""
    dense: Matrix = gram.toarray()
    dense[np.diag_indices_from(dense)] += penalty
    root = np.sqrt(penalty) * common_root(alike)
    for start in range(0, len(dense), BLOCK):
        dense[start : start + BLOCK] -= root[start : start + BLOCK] @ root.T
    return dense


def common_root(alike: sparse.csr_array) -> Matrix:
    """The U of ``(I + A A')^-1 = I - U U'``, float32, shape (n_items, n_values): Woodbury's identity."""
    inner = np.linalg.cholesky((alike.T @ alike).toarray() + np.eye(alike.shape[1], dtype=np.float32))
    root: Matrix = linalg.solve_triangular(inner, alike.T.toarray(), lower=True).T
    return root


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
