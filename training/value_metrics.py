"""How well predicted values order customers, and whether they keep their level."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N_DECILES = 10


def normalized_gini(predicted: Floats, realised: Floats) -> float:
    """Area between the curve of gains and the diagonal, over that of the perfect order; customers who tie share theirs.

    predicted, realised : float64, shape (n,)
    Returns a number within -1 to 1: 1 for the perfect order, 0 on average for one drawn by lot; NaN if nothing varies.

    >>> normalized_gini(np.array([3.0, 2.0, 1.0]), np.array([10.0, 5.0, 0.0]))
    1.0
    >>> normalized_gini(np.array([1.0, 1.0, 1.0]), np.array([10.0, 5.0, 0.0]))
    0.0
    """
    perfect = _covariance_with_rank(realised, realised)
    return _covariance_with_rank(predicted, realised) / perfect if perfect else float("nan")


def _covariance_with_rank(order: Floats, realised: Floats) -> float:
    _, place, counts = np.unique(order, return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(counts) - (counts - 1) / 2
    return float((mid_rank[place] - (len(order) + 1) / 2) @ realised)


def level_metrics(predicted: Floats, realised: Floats) -> dict[str, float]:
    """``mae``, ``rmse``, ``correlation`` and ``bias``, the share by which the sum of predictions is too high.

    predicted, realised : float64, shape (n,); NaN stands where nothing was realised or nothing varies
    """
    error, total = predicted - realised, realised.sum()
    varies = predicted.std() > 0 and realised.std() > 0
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "correlation": float(np.corrcoef(predicted, realised)[0, 1]) if varies else float("nan"),
        "bias": float(error.sum() / total) if total else float("nan"),
    }


def decile_table(predicted: Floats, realised: Floats) -> list[dict[str, float]]:
    """Customers in tenths of falling prediction, the first the best, with sums of what was predicted and realised.

    predicted, realised : float64, shape (n,)
    Returns ``decile``, ``n``, ``predicted`` and ``realised`` ten times.
    """
    best_first = np.argsort(-predicted, kind="stable")
    return [
        {
            "decile": decile,
            "n": len(chosen),
            "predicted": float(predicted[chosen].sum()),
            "realised": float(realised[chosen].sum()),
        }
        for decile, chosen in enumerate(np.array_split(best_first, N_DECILES), 1)
    ]
