"""Applies a calibrator: a logistic model over a few functions of the probability it corrects."""

from dataclasses import dataclass
from math import log, log1p, tanh
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["none", "logistic", "quadratic", "beta"]

_LEAST_PROBABILITY = 1e-9


def log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(probability, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * log_odds)))


def basis(kind: Kind, probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """The functions that a calibrator weights.

    With z the log-odds: ``none`` z; ``logistic`` 1, z; ``quadratic`` 1, z, z^2; ``beta`` 1, ln p, -ln(1 - p).

    probability : float64, shape (n,), in [0, 1]
    Returns float64, shape (n, n_functions).
    Source: Kull, Silva Filho, Flach, "Beta calibration", AISTATS 2017; Platt, 1999, on log-odds instead of margins.
    """
    z = log_odds(probability)
    functions = {
        "none": (z,),
        "logistic": (np.ones_like(z), z),
        "quadratic": (np.ones_like(z), z, z * z),
        "beta": (np.ones_like(z), -np.logaddexp(0, -z), np.logaddexp(0, z)),
    }
    return np.column_stack(functions[kind])


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A probability as the model gives it in, the probability to believe out.

    >>> float(Calibrator("logistic", (0.0, 2.0))(np.array([0.8]))[0])  # odds 4:1 become 16:1
    0.9411764705882353
    """

    kind: Kind = "none"
    coefficients: tuple[float, ...] = (1.0,)

    def __call__(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities, float64 of the same shape (n,)."""
        return sigmoid(basis(self.kind, probability) @ np.array(self.coefficients))

    def one(self, probability: float) -> float:
        """The same of one probability, without setting arrays up.

        >>> Calibrator("logistic", (0.0, 2.0)).one(0.8)
        0.9411764705882353
        """
        p = min(max(probability, _LEAST_PROBABILITY), 1 - _LEAST_PROBABILITY)
        hit, miss = log(p), log1p(-p)
        z = hit - miss
        functions = {"none": (z,), "logistic": (1.0, z), "quadratic": (1.0, z, z * z), "beta": (1.0, hit, -miss)}
        weighted = sum(c * value for c, value in zip(self.coefficients, functions[self.kind], strict=True))
        return 0.5 * (1.0 + tanh(0.5 * weighted))
