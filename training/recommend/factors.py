"""Fits the factorisation tiers: ALS by the solver that also answers, BPR through the library ``implicit``."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse
from threadpoolctl import threadpool_limits

from features.histories import EventWeights, Log
from serving.factors import CELLS, Array, Batch, Factors, Penalties, Ratings, batches, rated, solved
from training.config import Config, PositiveFloat, PositiveInt
from training.device import Device

N_STEPS = 3
"""Steps of the solver per alternation, each from where the last one ended; more give no better ranking."""
START = 0.1
"""Expected length of an item's vector at the start."""
CELLS_ON_GPU = 2**26
FOLDING = Penalties(alpha=1.0, regularization=1.0)
"""How histories are folded into the factors of BPR, which knows no least squares."""

NFactors = Annotated[int, Field(gt=0, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class AlsConfig(Config):
    """Settings of implicit alternating least squares."""

    n_factors: NFactors = 128
    """Dimensions of the factorisation."""
    regularization: PositiveFloat = 6.0
    """L2 penalty of a vector, times the square root of the affinities it explains."""
    alpha: PositiveFloat = 10.0
    """How much more a full affinity weighs than an item never touched."""
    n_iterations: PositiveInt = 5
    """Alternations between people and items."""
    seed: Seed = 0
    """Seed of the factorisation's start."""


class BprConfig(Config):
    """Settings of Bayesian personalised ranking."""

    n_factors: NFactors = 64
    """Dimensions of the factorisation."""
    learning_rate: PositiveFloat = 0.05
    """Step size."""
    regularization: PositiveFloat = 0.01
    """L2 penalty of the factorisation."""
    n_iterations: PositiveInt = 50
    """Passes over the events."""
    seed: Seed = 0
    """Seed of the factorisation's start."""


def fit_als(log: Log, config: AlsConfig, events: EventWeights, device: Device) -> Factors:
    """Item factors of implicit matrix factorisation.

    Source: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008; penalties that
    grow with what is known, and many dimensions: Rendle et al., "Revisiting the Performance of iALS", RecSys 2022.
    """
    penalties = Penalties(config.alpha, config.regularization)
    ratings = rated(log.histories, events)
    item_factors = alternated(ratings, log.n_items, config, penalties, device)
    return _folding(item_factors, penalties, events)


def alternated(
    ratings: Ratings, n_items: int, config: AlsConfig, penalties: Penalties, device: Device
) -> NDArray[np.float32]:
    """Item factors after ``n_iterations`` alternations, float32, shape (n_items, n_factors); zero for the untouched."""
    placed, cells = _on(device)

    def in_batches(side: Ratings) -> list[Batch]:
        return [Batch(*map(placed, batch)) for batch in batches(side, penalties, config.n_factors, cells)]

    of_users, of_items = in_batches(ratings), in_batches(transposed(ratings, n_items))
    start = np.random.default_rng(config.seed).normal(0, START / np.sqrt(config.n_factors), (n_items, config.n_factors))
    items = placed(start.astype(np.float32))
    users = placed(np.zeros((len(ratings.starts) - 1, config.n_factors), np.float32))
    for _ in range(config.n_iterations):
        items, gram, turn = principal(items, placed)
        users = _vectors(items, gram, of_users, users @ turn)
        users, gram, turn = principal(users, placed)
        items = _vectors(users, gram, of_items, items @ turn)
    return _on_host(items)


def _on(device: Device) -> tuple[Callable[[NDArray[Any]], Array], int]:
    """What moves an array to the device, and how many numbers may be gathered there at once."""
    if device.name == "cpu":
        return np.asarray, CELLS
    import torch

    return lambda values: torch.as_tensor(values, device=device.name), CELLS_ON_GPU


def transposed(ratings: Ratings, n_columns: int) -> Ratings:
    """The same entries, column by column."""
    order = np.argsort(ratings.columns, kind="stable")
    rows = np.repeat(np.arange(len(ratings.starts) - 1), np.diff(ratings.starts))
    starts = np.searchsorted(ratings.columns[order], np.arange(n_columns + 1))
    return Ratings(starts, rows[order], ratings.affinities[order])


def principal(factors: Array, placed: Callable[[NDArray[Any]], Array]) -> tuple[Array, Array, Array]:
    """Factors turned so that their gram matrix is diagonal; that diagonal; the turn, shape (n_factors, n_factors).

    Turning people and items alike changes no score.
    """
    diagonal, turn = np.linalg.eigh(_on_host(factors.T @ factors).astype(np.float64))
    turn = placed(turn.astype(np.float32))
    return factors @ turn, placed(diagonal.clip(min=0).astype(np.float32)), turn


def _vectors(factors: Array, gram: Array, of_rows: list[Batch], guess: Array) -> Array:
    """The least-squares vector of each row given the factors of its columns; on a CPU its cores share the batches."""
    found = 0 * guess

    def solve(batch: Batch) -> None:
        found[batch.rows] = solved(factors, gram, batch, guess[batch.rows], N_STEPS)

    n_workers = os.cpu_count() if isinstance(found, np.ndarray) else 1
    with ThreadPoolExecutor(n_workers) as workers, threadpool_limits(limits=1, user_api="blas"):
        list(workers.map(solve, of_rows))
    return found


def fit_bpr(log: Log, config: BprConfig, events: EventWeights, device: Device) -> Factors:
    """Item factors of Bayesian personalised ranking, without the items' biases, into which histories fold as in ALS.

    Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.
    """
    from implicit.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors=config.n_factors,
        learning_rate=config.learning_rate,
        regularization=config.regularization,
        iterations=config.n_iterations,
        random_state=config.seed,
        num_threads=1,
        use_gpu=device.name == "cuda",
    )
    starts, items, affinities = rated(log.histories, events)
    model.fit(sparse.csr_matrix((affinities, items, starts), (len(starts) - 1, log.n_items)), show_progress=False)
    item_factors = model.to_cpu().item_factors if device.name == "cuda" else model.item_factors
    return _folding(item_factors[:, : config.n_factors], FOLDING, events)


def _folding(item_factors: NDArray[np.float32], penalties: Penalties, events: EventWeights) -> Factors:
    turned, gram, _ = principal(item_factors, np.asarray)
    return Factors(turned, gram, events.weights, events.half_life_days, penalties.alpha, penalties.regularization)


def _on_host(values: Array) -> NDArray[Any]:
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)
