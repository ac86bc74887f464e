"""Whether a campaign can tell what its touches did: held out at random, and enough of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from features.errors import UserError
from training import classification

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_TOUCHES = 200
LEAST_PER_OUTCOME = 20
FALSE_ALARMS = 0.001
"""How often a randomised campaign is refused."""
POWER = 0.8
SIGNIFICANCE = 0.05
N_NAMED = 3
N_TREES = 50
SETTINGS: dict[str, Any] = {
    "objective": "binary",
    "num_leaves": 4,
    "learning_rate": 0.1,
    "min_data_in_leaf": 20,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbose": -1,
}


def require_randomised(rows: Floats, treated: Bools, bought: Bools, names: Sequence[str]) -> None:
    """Refuse a campaign from which uplift cannot be learnt.

    Nothing may rank the treated above or below the held out: neither a feature by itself, nor boosted trees that learnt
    from the other half of the touches who was treated. Under randomisation, of equal or unequal shares, the area under
    the ROC curve of every such ranking is a Mann-Whitney statistic of mean 1/2 and variance
    ``(n + 1) / (12 n_treated n_held_out)``, less where values are tied; one of them is above its limit in at most
    FALSE_ALARMS of randomised campaigns (Bonferroni). The share treated must be the same for all touches, and touches
    must be drawn one by one: give one touch per customer where customers stay held out from campaign to campaign.

    rows : float64, shape (n, n_features), what was known before the touch, NaN where a value is missing
    treated, bought : bool, shape (n,)
    names : of the features
    Raises UserError when there are too few touches or outcomes of either kind, or who was treated can be told from the
    features; it names those that differ most.
    Source: Lopez-Paz, Oquab, "Revisiting classifier two-sample tests", ICLR 2017.
    """
    _require_enough(treated, bought)
    auc, limit = max(_rankings(rows, treated), key=lambda found: found[0] - found[1])
    if auc > limit:
        raise UserError(
            f"treatment is not randomised: who was treated can be told from the features with an AUC of {auc:.3f}, "
            f"chance stays below {limit:.3f} (most apart: {_most_apart(rows, treated, names)}): give a campaign whose "
            "held-out customers were drawn at random"
        )


def _require_enough(treated: Bools, bought: Bools) -> None:
    for name, arm in {"treated": treated, "held-out": ~treated}.items():
        n, n_bought = int(arm.sum()), int(bought[arm].sum())
        if n < LEAST_TOUCHES or min(n_bought, n - n_bought) < LEAST_PER_OUTCOME:
            raise UserError(
                f"{n_bought} of {n} {name} touches were followed by a purchase: uplift needs at least {LEAST_TOUCHES} "
                f"touches, {LEAST_PER_OUTCOME} with and {LEAST_PER_OUTCOME} without a purchase, among the treated and "
                "among the held out: give more campaigns or a longer horizon"
            )


def _rankings(rows: Floats, treated: Bools) -> Iterator[tuple[float, float]]:
    """How well the treated are told by each feature, rising and falling, and by trees, with the limit of chance (AUC).

    A missing value ranks below all others.
    """
    false_alarms = FALSE_ALARMS / (2 * rows.shape[1] + 2)
    for feature in np.where(np.isnan(rows), -np.inf, rows).T:
        auc = _auc(feature, treated)
        yield max(auc, 1 - auc), _limit(treated, false_alarms)
    half = np.random.default_rng(0).permutation(len(rows)) % 2
    for number in range(2):
        held = half == number
        booster = lightgbm.train(SETTINGS, lightgbm.Dataset(rows[~held], treated[~held]), N_TREES)
        yield _auc(booster.predict(rows[held]), treated[held]), _limit(treated[held], false_alarms)


def _auc(ranking: Floats, treated: Bools) -> float:
    levels, level_of = classification.levels(ranking)
    return classification.auc(levels, *classification.counts(level_of, treated, len(levels)))


def _limit(treated: Bools, false_alarms: float) -> float:
    """The AUC that a ranking exceeds by chance with a probability."""
    n, n_treated = len(treated), int(treated.sum())
    error = np.sqrt((n + 1) / (12 * n_treated * (n - n_treated)))
    return float(0.5 + norm.isf(false_alarms) * error)


def _most_apart(rows: Floats, treated: Bools, names: Sequence[str]) -> str:
    differences = standardised_differences(rows, treated)
    furthest = np.argsort(-np.abs(differences), kind="stable")[:N_NAMED]
    return ", ".join(f"{names[column]} {differences[column]:+.2f} standard deviations" for column in furthest)


def standardised_differences(rows: Floats, treated: Bools) -> Floats:
    """Means of the treated less those of the held out, in pooled standard deviations, shape (n_features,).

    Missing values are left out; a feature without variance differs by 0.
    Source: Austin, "Balance diagnostics for comparing the distribution of baseline covariates", Stat. Med. 2009.

    >>> rows = np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0], [4.0, np.nan]])
    >>> standardised_differences(rows, treated=np.array([False, False, True, True]))
    array([1., 0.])
    """
    arms = [np.ma.masked_invalid(rows[arm]) for arm in (treated, ~treated)]
    spread = np.sqrt(sum(arm.var(axis=0) for arm in arms) / 2)
    return np.asarray(((arms[0].mean(axis=0) - arms[1].mean(axis=0)) / spread).filled(0.0))


def standard_error(treated: Bools, bought: Bools) -> float:
    """Of the difference between the purchase rates of treated and held out."""
    arms = (bought[treated], bought[~treated])
    return float(np.sqrt(sum(arm.var() / len(arm) for arm in arms)))


def sufficiency(treated: Bools, bought: Bools) -> str:
    """How large an effect so many touches can show, in a sentence.

    An effect is seen in POWER of campaigns when it is ``(z_(1 - SIGNIFICANCE / 2) + z_POWER)`` standard errors large.

    treated, bought : bool, shape (n,), with both treated and held out
    """
    error = standard_error(treated, bought)
    visible = (norm.isf(SIGNIFICANCE / 2) + norm.ppf(POWER)) * error
    return (
        f"{len(treated)} touches, {int((~treated).sum())} of them held out, show an average effect of "
        f"{100 * visible:.2f} percentage points or more with {100 * POWER:.0f} % power (standard error "
        f"{100 * error:.2f}), and one of {100 * visible * np.sqrt(5):.2f} among a fifth of them"
    )
