"""Fits by how much a touch raises the probability of a purchase, on a randomised campaign."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import lightgbm
import numpy as np
from numpy.typing import NDArray

from serving.artifact import Draft
from serving.trees import Trees
from serving.uplift import MODELS, responses, with_treatment
from training.config import BoosterConfig, Config
from training.randomisation import require_randomised, standard_error

N_FOLDS = 5
PATIENCE = 50
LEAST_SIGNAL = 1.96
"""Standard errors above 0 that a learner's slope must lie: where all uplifts are equal, 1 in 40 does."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Kind = Literal["constant", "s_learner", "t_learner"]


class UpliftConfig(Config):
    """What an uplift model is fitted with."""

    model: Literal["auto", "constant", "s_learner", "t_learner"] = "auto"
    """One model of treated and held out, a model of each, or the average; auto tries both learners. A learner that does
    not tell touches apart beyond chance gives way to the average."""
    trees: BoosterConfig = BoosterConfig(num_leaves=7, learning_rate=0.03)
    """LightGBM's settings."""


class Line(NamedTuple):
    """The best linear predictor of uplift from a learner's effect; ``signal`` is the slope in standard errors."""

    intercept: float
    slope: float
    signal: float


class Part(NamedTuple):
    """What one of a learner's models is fitted on: some of the touches, shape (n,), and the matrix of all."""

    chosen: Bools
    matrix: Floats


class Candidate(NamedTuple):
    """A kind of model, its line, and how many trees each of its models shall have."""

    kind: Kind
    line: Line
    n_trees: list[int]


@dataclass(frozen=True, slots=True)
class UpliftModel:
    """A fitted uplift model; ``export`` writes what the scorer reads."""

    name: Kind
    names: list[str]
    line: Line
    texts: dict[str, str]
    metrics: dict[str, float]

    def export(self, draft: Draft) -> None:
        for name, text in self.texts.items():
            draft.text(name, text)
        draft.json("features", self.names)
        draft.json("uplift", {"model": self.name, "intercept": self.line.intercept, "slope": self.line.slope})


def fit(rows: Floats, treated: Bools, bought: Bools, names: Sequence[str], config: UpliftConfig) -> UpliftModel:
    """Fit on touches whose horizon is over.

    Every touch gets an effect from a learner that saw neither it nor its fold: of N_FOLDS folds, one is predicted, the
    next stops the boosting early, the others are fitted on. On these effects the best linear predictor of uplift is
    estimated; its slope shrinks what a learner only imagined, and the learner whose slope is the most standard errors
    from 0 is fitted again on all touches. Where none reaches LEAST_SIGNAL, every touch gets the average.

    rows : float64, shape (n, n_features), what was known before the touch, NaN where a value is missing
    treated : bool, shape (n,)   False for a held-out customer
    bought : bool, shape (n,)   whether a purchase followed within the horizon
    names : of the features
    Raises UserError when the campaign is not randomised or too small (``require_randomised``).
    """
    require_randomised(rows, treated, bought, names)
    kind, line, n_trees = _chosen(rows, treated, bought, config)
    parts = _parts(kind, rows, treated)
    fitted = [_boosted(part, bought, config, n) for part, n in zip(parts, n_trees, strict=True)]
    return UpliftModel(
        name=kind,
        names=list(names),
        line=line,
        texts={name: booster.model_to_string() for name, booster in zip(MODELS[kind], fitted, strict=True)},
        metrics={
            "n_touches": len(treated),
            "average_uplift": _average(treated, bought),
            "standard_error": standard_error(treated, bought),
            "signal": line.signal,
        },
    )


def _chosen(rows: Floats, treated: Bools, bought: Bools, config: UpliftConfig) -> Candidate:
    constant = Candidate("constant", Line(_average(treated, bought), 0.0, 0.0), [])
    if config.model == "constant":
        return constant
    kinds: tuple[Kind, ...] = ("s_learner", "t_learner") if config.model == "auto" else (config.model,)
    candidates = [_candidate(kind, rows, treated, bought, config) for kind in kinds]
    best = max(candidates, key=lambda candidate: candidate.line.signal)
    return best if best.line.signal >= LEAST_SIGNAL else constant


def _average(treated: Bools, bought: Bools) -> float:
    return float(bought[treated].mean() - bought[~treated].mean())


def _candidate(kind: Kind, rows: Floats, treated: Bools, bought: Bools, config: UpliftConfig) -> Candidate:
    parts = _parts(kind, rows, treated)
    fold = np.random.default_rng(0).permutation(len(rows)) % N_FOLDS
    found, n_trees = np.empty((2, len(rows))), []
    for number in range(N_FOLDS):
        held, stopping = fold == number, fold == (number + 1) % N_FOLDS
        boosters = [_stopped_early(part, bought, ~held & ~stopping, stopping, config) for part in parts]
        found[:, held] = responses([Trees.from_text(each.model_to_string()) for each in boosters], rows[held])
        n_trees.append([each.best_iteration for each in boosters])
    return Candidate(kind, best_line(found, treated, bought), np.mean(n_trees, axis=0).round().astype(int).tolist())


def _parts(kind: Kind, rows: Floats, treated: Bools) -> list[Part]:
    """In the order of the texts in MODELS."""
    everybody = np.ones(len(rows), np.bool_)
    parts = {
        "constant": [],
        "s_learner": [Part(everybody, with_treatment(rows, treated))],
        "t_learner": [Part(~treated, rows), Part(treated, rows)],
    }
    return parts[kind]


def best_line(responses: Floats, treated: Bools, bought: Bools) -> Line:
    """The best linear predictor of uplift from predicted responses: least squares on what the mean does not explain.

    With e the share treated, w whether a touch was, m its mean response ``e p_treated + (1 - e) p_held_out`` and s its
    effect ``p_treated - p_held_out`` less the mean effect: ``bought - m = (w - e) (average + slope s) + error``. Under
    randomisation the line is right however wrong the responses are. A slope below 0 counts as 0.

    responses : float64, shape (2, n)   if held out, if treated, by models that did not see the touch
    Source: Chernozhukov, Demirer, Duflo, Fernández-Val, "Generic machine learning inference on heterogeneous treatment
    effects", 2018, with robust standard errors (White, Econometrica 1980).
    """
    share = treated.mean()
    held_out, if_treated = responses
    effect = if_treated - held_out
    design = (treated - share)[:, None] * np.column_stack([np.ones_like(effect), effect - effect.mean()])
    residual = bought - (share * if_treated + (1 - share) * held_out)
    inverse = np.linalg.pinv(design.T @ design)
    average, slope = inverse @ design.T @ residual
    residual = residual - design @ [average, slope]
    error = np.sqrt((inverse @ (design.T * residual**2) @ design @ inverse)[1, 1])
    if slope <= 0:
        return Line(float(average), 0.0, 0.0)
    return Line(float(average - slope * effect.mean()), float(slope), float(slope / error))


def _stopped_early(
    part: Part, bought: Bools, fitting: Bools, stopping: Bools, config: UpliftConfig
) -> lightgbm.Booster:
    data = _dataset(part, bought, fitting)
    return lightgbm.train(
        config.trees.of_outcomes(len(bought)),
        data,
        config.trees.n_trees,
        valid_sets=[_dataset(part, bought, stopping, data)],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )


def _boosted(part: Part, bought: Bools, config: UpliftConfig, n_trees: int) -> lightgbm.Booster:
    return lightgbm.train(config.trees.of_outcomes(len(bought)), _dataset(part, bought, part.chosen), n_trees)


def _dataset(part: Part, bought: Bools, among: Bools, reference: lightgbm.Dataset | None = None) -> lightgbm.Dataset:
    chosen = part.chosen & among
    return lightgbm.Dataset(part.matrix[chosen], bought[chosen], reference=reference)
