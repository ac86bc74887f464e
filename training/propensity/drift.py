"""How far features have moved from those that a model was fitted on."""

import numpy as np
from numpy.typing import NDArray

from serving.artifact import Json

N_BINS = 10
_LEAST_SHARE = 1e-4

Floats = NDArray[np.float64]


def profile(rows: Floats, names: list[str], n_levels: list[int]) -> list[Json]:
    """How each feature was spread: ``name``, ``edges`` of bins, ``shares`` in them, the last of missing, ``n`` rows.

    rows : float64, shape (n, n_features), NaN where a value is missing
    n_levels : of every feature, 0 for a number, whose bins are tenths; a text has one for each level
    """
    described = zip(names, n_levels, rows.T, strict=True)
    return [_spread(name, _edges(values, levels), values) for name, levels, values in described]


def _edges(values: Floats, n_levels: int) -> Floats:
    if n_levels:
        return np.arange(0.5, n_levels - 1)
    known = values[~np.isnan(values)]
    tenths = np.quantile(known, np.arange(1, N_BINS) / N_BINS) if len(known) else np.empty(0)
    return np.asarray(np.unique(tenths), np.float64)


def _spread(name: str, edges: Floats, values: Floats) -> Json:
    return {"name": name, "edges": edges.tolist(), "shares": _shares(edges, values).tolist(), "n": len(values)}


def _shares(edges: Floats, values: Floats) -> Floats:
    missing = np.isnan(values)
    counts = np.bincount(np.searchsorted(edges, values[~missing], side="right"), minlength=len(edges) + 1)
    return np.append(counts, missing.sum()) / max(1, len(values))


def stability_indices(spreads: list[Json], rows: Floats) -> dict[str, float]:
    """The population stability index of each feature: ``sum (now - then) ln(now / then)`` over its bins, less chance.

    Two samples of one population differ by about ``(n_bins - 1) (1 / n_then + 1 / n_now)``, which is taken off. Below
    0.1 little has changed, above 0.25 much has. Source: Siddiqi, "Credit Risk Scorecards", 2006.

    >>> then = profile(np.array([[1.0], [2.0], [3.0], [4.0]]), ["x"], [0])
    >>> stability_indices(then, np.array([[4.0], [3.0], [2.0], [1.0]]))
    {'x': 0.0}
    """
    return {each["name"]: max(0.0, _index(each, values)) for each, values in zip(spreads, rows.T, strict=True)}


def _index(spread: Json, values: Floats) -> float:
    then = np.maximum(spread["shares"], _LEAST_SHARE)
    now = np.maximum(_shares(np.array(spread["edges"]), values), _LEAST_SHARE)
    by_chance = (np.count_nonzero(spread["shares"]) - 1) * (1 / spread["n"] + 1 / len(values))
    return float(((now - then) * np.log(now / then)).sum() - by_chance)
