"""Searches configurations on windows that lie before the one that judges them; Optuna keeps the trials."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from pydantic import Field, model_validator

from features.errors import UserError
from features.home import home
from features.shops import Shop, checked, read_toml
from features.windows import Window
from training import pipeline
from training.config import CONFIG_FOLDER, Config, load_config
from training.device import Device
from training.evaluation import averaged
from training.families import Family

Report = Callable[[int, float, Mapping[str, Any]], None]


class Range(Config):
    """Values to search: either ``choices`` or everything from ``low`` to ``high``."""

    choices: list[bool | int | float | str] | None = None
    """The values themselves."""
    low: int | float | None = None
    """The least value; whole if both bounds are."""
    high: int | float | None = None
    """The highest value."""
    log: bool = False
    """Whether to search on a logarithmic scale."""

    @model_validator(mode="after")
    def _one_way(self) -> "Range":
        bounded = self.low is not None and self.high is not None
        if bounded == bool(self.choices):
            raise ValueError("give either choices, or low and high")
        return self

    def suggested(self, trial: optuna.Trial, key: str) -> Any:  # noqa: ANN401
        if self.choices:
            return trial.suggest_categorical(key, self.choices)
        assert self.low is not None, "checked when it was read"
        assert self.high is not None, "checked when it was read"
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)


class Search(Config):
    """What to search, from which configuration."""

    config: str = "best.toml"
    """The configuration over which trials are laid, in the same folder; as it stands it is trial 0."""
    metric: str
    """Metric by which trials are judged, as in evaluation tables."""
    model: str
    """Row of evaluation tables that is judged."""
    higher_is_better: bool
    """Direction of the metric."""
    space: dict[str, Range] = Field(min_length=1)
    """Key of the configuration, with dots = its range."""


def load_search(task: str, path: Path | None) -> tuple[Search, Path]:
    """The search of a TOML file, absent: ``configs/TASK/best.search.toml``; and where the file is."""
    path = path or CONFIG_FOLDER / task / "best.search.toml"
    if not path.is_file():
        known = ", ".join(str(file) for file in sorted((CONFIG_FOLDER / task).glob("*.search.toml")))
        raise UserError(f"no search {path}: there are {known or 'none'}")
    return checked(Search, read_toml(path), path), path


def tune(
    shop: Shop,
    family: Family,
    search: Search,
    path: Path,
    windows: list[Window],
    split: pipeline.Split,
    device: Device,
    n_trials: int,
    report: Report = lambda *_: None,
) -> dict[str, Any]:
    """The best values found so far, by key; trials of earlier runs of the same study count.

    windows : to judge on, none of them the one on which the result will be judged
    report : called after each trial with its number, value and values
    """
    folder = home() / shop.name
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=f"{shop.name}.{family.task}.{path.name}.{split}.{windows[-1].name}",
        storage=f"sqlite:///{folder / 'tuning.db'}",
        load_if_exists=True,
        direction="maximize" if search.higher_is_better else "minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    # A later run that began with the same seed would try what the first one tried.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), multivariate=True)
    base = path.parent / search.config
    if not study.trials:
        study.enqueue_trial(_as_it_stands(load_config(family.config, family.task, base), search))

    def quality(trial: optuna.Trial) -> float:
        values = {key: span.suggested(trial, key) for key, span in search.space.items()}
        config = laid_over(family, base, values)
        found: list[float] = []
        for step, window in enumerate(windows):
            rows = pipeline.evaluate(shop, family, config, device, [window], split)
            found.append(averaged([row for row in rows if row.segment == "all"], search.model)[search.metric])
            trial.report(fmean(found), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        report(trial.number, fmean(found), values)
        return fmean(found)

    study.optimize(quality, n_trials=n_trials)
    return dict(study.best_params)


def _as_it_stands(config: Config, search: Search) -> dict[str, Any]:
    """The searched values of a configuration; a key that it lacks is left to the search."""
    found = {}
    for key in search.space:
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        if value is not None:
            found[key] = value
    return found


def laid_over(family: Family, base: Path, values: Mapping[str, Any]) -> Config:
    """The configuration of a file with values laid over it, by key."""
    return load_config(
        family.config, family.task, base, [f"{key}={json.dumps(value)}" for key, value in values.items()]
    )
