"""The three families of models behind one interface: how each is configured, fitted, judged and gated."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any, Protocol

from features import overrides
from features.engine import Engine
from features.errors import UserError
from features.periods import Span
from features.shops import Shop
from features.windows import Window
from serving.artifact import Draft, Json, Scorer
from serving.scorers import LOADERS
from training.config import Config, Task
from training.device import Device
from training.evaluation import Row


class Model(Protocol):
    """What a fit gives."""

    @property
    def name(self) -> str:
        """Name of the model in evaluation tables."""

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured while fitting, for tracking."""

    def export(self, draft: Draft) -> None:
        """Write the arrays, lists and texts that the scorer reads."""

    def golden_requests(self) -> list[Json]:
        """Requests whose answers are recorded in the artifact."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A measure in which a candidate may be worse than the champion by a tolerance at most.

    tolerance : in the measure's own unit; ``relative``: in shares of the champion's
    """

    metric: str
    tolerance: float
    relative: bool = False
    higher_is_better: bool = False

    def allows(self, candidate: float, champion: float) -> bool:
        """Whether a candidate's value will do beside the champion's; never where one of them is no number.

        >>> Guard("cost", 0.01, relative=True).allows(203.0, 200.0), Guard("cost", 4.0).allows(203.0, 200.0)
        (False, True)
        """
        loss = champion - candidate if self.higher_is_better else candidate - champion
        return isfinite(loss) and loss <= self.tolerance * (abs(champion) if self.relative else 1)


@dataclass(frozen=True, slots=True)
class Family:
    """One task's functions.

    fit : (window whose past is fitted on, shop, config, device) -> model; it never touches ``window.truth``
    evaluate : (scorer, window, shop, config, split) -> rows of the model and its baselines
    length : how long a window of evaluation is
    judged_by : keys of the configuration that say what is predicted and for whom, not how
    gate : metric by which a candidate is compared with the champion
    higher_is_better : direction of the gate
    guards : further measures in which a candidate must hold its own
    """

    task: Task
    config: type[Config]
    fit: Callable[[Window, Shop, Any, Device], Model]
    evaluate: Callable[[Any, Window, Shop, Any, str], list[Row]]
    length: Callable[[Shop, Any], Span]
    judged_by: tuple[str, ...]
    gate: str
    higher_is_better: bool
    guards: tuple[Guard, ...] = ()
    at_gate: Callable[[Engine, Shop, Any, datetime], list[Row]] = lambda *_: []
    """(engine, shop, config, until) -> rows of guards that no backtest gives, none where they play no part."""
    recipe: Callable[[Json, Json], Json] = operator.or_
    """A version's configuration and another's question -> the configuration with which it answers that."""
    absent: Callable[[Any], Mapping[str, str]] = lambda _: {}
    """What of a model was asked for and could not be fitted, each with why."""

    def load(self, artifact: Any) -> Scorer:  # noqa: ANN401
        return LOADERS[self.task](artifact)


def family(task: str) -> Family:
    """The family of a task.

    Raises UserError for an unknown task, naming those there are.
    """
    if task not in _FAMILIES:
        raise UserError(f"no task {task}: tasks are {', '.join(_FAMILIES)}")
    return _FAMILIES[task]()


def _recommend() -> Family:
    from training.recommend import config, fit

    return Family(
        task="recommend",
        config=config.RecommendConfig,
        fit=lambda window, _, config, device: fit.fit(window, config, device),
        evaluate=lambda scorer, window, _, config, split: fit.evaluate(scorer, window, config, split),
        length=lambda _, config: Span(config.validation_days, "day"),
        judged_by=("validation_days", "repeats"),
        gate="ndcg_at_10",
        higher_is_better=True,
    )


def _propensity() -> Family:
    from training.propensity import config, evaluation, fit

    return Family(
        task="propensity",
        config=config.PropensityConfig,
        fit=lambda window, _, config, device: fit.fit(window.past, window.as_of, config, device.name),
        evaluate=lambda scorer, window, _, config, split: evaluation.evaluate(scorer, window, config, split),
        length=lambda _, config: Span(config.window_days, "day"),
        judged_by=("window_days", "targets"),
        gate=evaluation.GATE,
        higher_is_better=False,
        recipe=config.recipe,
        absent=lambda model: model.absent,
    )


def _demand() -> Family:
    from training.demand import config, evaluation, fit, gate

    return Family(
        task="demand",
        config=config.DemandConfig,
        fit=lambda window, shop, config, device: fit.fit(
            window.past, window.known_future, window.as_of, shop.demand_frequency, config, shop.country, device.name
        ),
        evaluate=lambda scorer, window, shop, _, split: evaluation.evaluate(
            scorer, window, split, overrides.standing(overrides.folder(shop), window.as_of)
        ),
        length=lambda shop, config: Span(config.horizon, shop.demand_frequency),
        judged_by=("horizon", "quantiles", "min_periods", "by_location"),
        gate="pinball",
        higher_is_better=False,
        guards=(Guard("coverage_error", 0.01), Guard("cost", 0.01, relative=True)),
        at_gate=gate.cost_rows,
    )


_FAMILIES = {"recommend": _recommend, "propensity": _propensity, "demand": _demand}
