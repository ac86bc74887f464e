"""Fits the factorisation tiers through the library ``implicit``."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse
from threadpoolctl import threadpool_limits

from features.histories import EventWeights, Log
from serving.factors import Factors
from serving.tiers import Scores
from training.config import Config, PositiveFloat, PositiveInt
from training.device import Device


class AlsConfig(Config):
    """Settings of implicit alternating least squares."""

    n_factors: Annotated[int, Field(gt=0, le=2048)] = 64
    """Dimensions of the factorisation."""
    regularization: PositiveFloat = 10.0
    """L2 penalty of the factorisation."""
    alpha: PositiveFloat = 20.0
    """How much more a full affinity weighs than an item never touched."""
    n_iterations: PositiveInt = 10
    """Alternations of the factorisation."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the factorisation's start."""


class BprConfig(Config):
    """Settings of Bayesian personalised ranking."""

    n_factors: Annotated[int, Field(gt=0, le=2048)] = 64
    """Dimensions of the factorisation."""
    learning_rate: PositiveFloat = 0.05
    """Step size."""
    regularization: PositiveFloat = 0.01
    """L2 penalty of the factorisation, and of folding a history into it."""
    n_iterations: PositiveInt = 50
    """Passes over the events."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the factorisation's start."""


def fit_als(log: Log, config: AlsConfig, events: EventWeights, device: Device) -> Factors:
    """Item factors of implicit matrix factorisation.

    Source: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
    """
    from implicit.als import AlternatingLeastSquares

    with threadpool_limits(limits=1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=config.n_factors,
            regularization=config.regularization,
            alpha=config.alpha,
            iterations=config.n_iterations,
            random_state=config.seed,
            use_gpu=device.name == "cuda",
        )
        model.fit(user_items(log, events), show_progress=False)
    return _factors(_on_host(model.item_factors), config.regularization, config.alpha, events)


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
    model.fit(user_items(log, events), show_progress=False)
    return _factors(_on_host(model.item_factors)[:, : config.n_factors], config.regularization, 1.0, events)


def user_items(log: Log, events: EventWeights) -> Any:  # noqa: ANN401
    """Summed affinities, sparse float32 (n_users, n_items)."""
    histories = log.histories
    shape = (histories.n_users, log.n_items)
    matrix = sparse.csr_matrix((events.affinities(histories), (histories.users, histories.items)), shape=shape)
    matrix.sum_duplicates()
    return matrix


def _on_host(factors: Any) -> NDArray[np.float32]:  # noqa: ANN401
    return np.asarray(factors.to_numpy() if hasattr(factors, "to_numpy") else factors, dtype=np.float32)


def _factors(item_factors: Scores, regularization: float, alpha: float, events: EventWeights) -> Factors:
    gram = item_factors.T @ item_factors + np.float32(regularization) * np.eye(item_factors.shape[1], dtype=np.float32)
    return Factors(item_factors, gram, events.weights, events.half_life_days, alpha)
