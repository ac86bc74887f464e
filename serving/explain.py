"""Why a mean is what it is: the factors, by groups of features, that lead from a series' level to it.

``mean = level * product of the factors``. Every feature has a share of its own in what a model says (SHAP values); the
shares of a group add up, in logarithms. A model of the logarithm has them there. Of one of plain multiples the change
of the logarithm is divided among the features as the change of the multiple is (logarithmic mean Divisia index).

Sources: Lundberg, Erion, Lee, "Consistent Individualized Feature Attribution for Tree Ensembles", 2018; Ang,
"Decomposition analysis for policymaking in energy: which is the preferred method?", Energy Policy 2004.
"""

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.panels import Floats
from serving.trees import Trees

GROUPS: Mapping[str, str] = {
    "level": r"step|level|std_\d+|zero_share_\d+|periods_since_first_sale",
    "trend": r"lag_\d+|mean_\d+|periods_since_last_sale",
    "season": r"season_1|season_mean_4|.*_season|(.*_)?growth_a_year_ago|day_of_(year|month)|weekday.*"
    r"|holiday.*|sunday_on_holiday|days_since_easter",
    "price": r"price.*|.*discount.*|share_of_cheaper_rivals",
    "promotion": r".*display.*|.*mailer.*|promoted_last|mean_(promoted|offered)_alike",
    "availability": r"exposure_\d+",
    "others": r"(item|category|location|shop)_trend_\d+",
}
"""What a planner calls them, and the features that are meant: "trend" is the series' own recent sales over its level,
"others" those of the same item, category, place and shop. "level" also has what the model says of any series of the
level. Beside these there are "covariates", "base" where a mean corrects another forecast than the level, and "sums"
where forecasts of sums correct the means, see ``serving.reconcile``."""

Doubles = NDArray[np.float64]

_NO_MOVE = 1e-9


def group_of(feature: str, covariates: Collection[str] = ()) -> str:
    """The group of a feature.

    Raises ValueError when it has none, or several.

    >>> group_of("discount_of_rivals"), group_of("lag_2"), group_of("rain", ["rain"])
    ('price', 'trend', 'covariates')
    """
    if feature in covariates:
        return "covariates"
    found = [group for group, pattern in GROUPS.items() if re.fullmatch(pattern, feature)]
    if len(found) != 1:
        raise ValueError(f"feature {feature} has the groups {found}, it must have one of {', '.join(GROUPS)}")
    return found[0]


def effects(
    means: Sequence[Trees],
    rows: Floats,
    bases: Mapping[str, Floats],
    level: Doubles,
    groups: Sequence[str],
    least: float,
    logarithmic: bool,
) -> dict[str, Doubles]:
    """The factor of every group, and of "base" where means are over another forecast than the level, for every row.

    means : one for each base, from features to units over it
    rows : float32, shape (n, F)
    bases : float32, shape (n,), units, > 0, by name
    level : float64, shape (n,), units, > 0
    groups : the group of each feature, length F
    least : what a model says at least; above 0 unless ``logarithmic``
    logarithmic : whether the models' raw scores are logarithms
    Returns float64, shape (n,), each, > 0: ``level`` times their product is the geometric mean of the models' units.
    """
    wide = rows.astype(np.float64)
    shares = np.mean([_logarithms(model.contributions(wide), least, logarithmic) for model in means], axis=0)
    logs = {
        group: shares[:, [*(each == group for each in groups), False]].sum(axis=1) for group in dict.fromkeys(groups)
    }
    logs["level"] = logs["level"] + shares[:, -1]
    if set(bases) != {"level"}:
        logs["base"] = np.mean([np.log(units.astype(np.float64)) for units in bases.values()], axis=0) - np.log(level)
    return {group: np.exp(values) for group, values in logs.items()}


def _logarithms(added: Doubles, least: float, logarithmic: bool) -> Doubles:
    """What each feature adds to the logarithm of a model's answer; the last column is that of what is expected of all.

    added : float64, shape (n, F + 1), what each adds to the raw score
    """
    expected, answer = added[:, -1], added.sum(axis=1)
    if logarithmic:
        start, end, limit = expected, np.maximum(answer, np.log(least) if least else -np.inf), np.ones(len(added))
    else:
        start, end = (np.log(np.maximum(multiple, least)) for multiple in (expected, answer))
        limit = np.exp(-start)
    moved = answer - expected
    moves = np.abs(moved) > _NO_MOVE
    slope = np.where(moves, (end - start) / np.where(moves, moved, 1), limit)
    return np.column_stack([added[:, :-1] * slope[:, None], start])
