"""Chooses and fits a calibrator on a slice later than what the model was fitted on."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from serving.calibration import Calibrator, Kind, basis, sigmoid

Choice = Literal["auto", "none", "logistic", "quadratic", "beta"]

N_FOLDS = 10
_PROBABILITIES = np.linspace(0.001, 0.999, 999)


def log_loss(probability: NDArray[np.float64], outcome: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each row's negative log-likelihood, in nats, shape (n,)."""
    likelihood = np.where(outcome, probability, 1 - probability)
    return np.asarray(-np.log(np.maximum(likelihood, 1e-15)))


def fit(choice: Choice, probability: NDArray[np.float64], outcome: NDArray[np.bool_]) -> Calibrator:
    """The calibrator of the kind chosen; ``auto`` takes the kind of least cross-fitted log loss, ``none`` included.

    A kind whose maximum-likelihood curve falls somewhere would reorder customers and is not considered by ``auto``.

    probability : float64, shape (n,), the model's answers on rows it was not fitted on
    outcome : bool, shape (n,)
    """
    if choice != "auto":
        return fit_kind(choice, probability, outcome)
    fitted = {kind: fit_kind(kind, probability, outcome) for kind in get_args(Kind)}
    losses = {kind: cross_fitted(kind, probability, outcome) for kind in fitted if rises(fitted[kind])}
    return fitted[min(losses, key=lambda kind: losses[kind])]


def fit_kind(kind: Kind, probability: NDArray[np.float64], outcome: NDArray[np.bool_]) -> Calibrator:
    """The calibrator of a kind whose coefficients maximise the likelihood."""
    if kind == "none":
        return Calibrator()
    functions = basis(kind, probability)

    def loss_and_gradient(coefficients: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = functions @ coefficients
        loss = np.logaddexp(0, np.where(outcome, -z, z)).mean()
        return float(loss), functions.T @ (sigmoid(z) - outcome) / len(z)

    found = minimize(loss_and_gradient, _identity(kind), jac=True, method="BFGS")
    return Calibrator(kind, tuple(found.x.tolist()))


def _identity(kind: Kind) -> NDArray[np.float64]:
    """Coefficients that leave every probability as it is."""
    return np.array(
        {"none": [1.0], "logistic": [0.0, 1.0], "quadratic": [0.0, 1.0, 0.0], "beta": [0.0, 1.0, 1.0]}[kind]
    )


def cross_fitted(kind: Kind, probability: NDArray[np.float64], outcome: NDArray[np.bool_]) -> float:
    """Mean log loss of rows calibrated by what was fitted on the other nine tenths, in nats."""
    fold = np.random.default_rng(0).permutation(len(outcome)) % N_FOLDS
    losses = np.empty(len(outcome))
    for number in range(N_FOLDS):
        held = fold == number
        calibrator = fit_kind(kind, probability[~held], outcome[~held])
        losses[held] = log_loss(calibrator(probability[held]), outcome[held])
    return float(losses.mean())


def rises(calibrator: Calibrator) -> bool:
    """Whether a likelier customer stays likelier, from 0.001 to 0.999."""
    return bool((np.diff(calibrator(_PROBABILITIES)) >= 0).all())
