"""Configurations: TOML files checked by pydantic; a key has the name of what it sets and of the tracked parameter."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from features.errors import UserError
from features.home import ROOT
from features.shops import checked, read_toml

Task = Literal["recommend", "propensity", "demand"]
TASKS: tuple[Task, ...] = ("recommend", "propensity", "demand")

CONFIG_FOLDER = ROOT / "configs"

_ROWS_WORTH_THREADS = 200_000

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Config(BaseModel):
    """A configuration that refuses unknown keys and does not change after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BoosterConfig(Config):
    """LightGBM's settings, under its own names."""

    num_leaves: Annotated[int, Field(gt=1, le=4096)] = 31
    """Leaves of one tree."""
    learning_rate: PositiveFloat = 0.05
    """Share of each tree's answer that is added."""
    min_data_in_leaf: PositiveInt = 50
    """Rows a leaf needs at least."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of features that a tree may use."""
    lambda_l2: Annotated[float, Field(ge=0)] = 1.0
    """L2 penalty on leaf values."""
    n_trees: PositiveInt = 400
    """Trees at most; early stopping may take fewer."""

    def of_outcomes(self, n_rows: int) -> dict[str, Any]:
        """LightGBM's parameters for the probability of an outcome, the same trees on any number of cores."""
        return {
            **self.model_dump(exclude={"n_trees"}),
            "objective": "binary",
            "num_threads": 0 if n_rows >= _ROWS_WORTH_THREADS else 1,
            "deterministic": True,
            "force_row_wise": True,
            "seed": 0,
            "verbose": -1,
        }


Loaded = TypeVar("Loaded", bound=Config)


def load_config(model: type[Loaded], task: Task, path: Path | None = None, settings: Sequence[str] = ()) -> Loaded:
    """The configuration in a TOML file (absent: ``configs/TASK/best.toml``) with ``a.b=c`` settings laid over it.

    Raises UserError for a missing file, an unknown key or a value out of bounds, naming the key and what is allowed.
    """
    path = path or CONFIG_FOLDER / task / "best.toml"
    if not path.is_file():
        known = ", ".join(str(file) for file in configurations(task))
        raise UserError(f"no configuration {path}: there are {known}")
    content = read_toml(path)
    for setting in settings:
        _lay_over(content, setting)
    return checked(model, content, path)


def configurations(task: str) -> list[Path]:
    """The configurations that are shipped for a task, without its searches."""
    return sorted(path for path in (CONFIG_FOLDER / task).glob("*.toml") if not path.stem.endswith(".search"))


def _lay_over(content: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    if not equals:
        raise UserError(f"--set {setting}: write it as key=value, for instance booster.num_leaves=31")
    *parents, last = key.strip().split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
    content[last] = _toml_value(value.strip())


def _toml_value(text: str) -> Any:  # noqa: ANN401
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def to_toml(content: Mapping[str, Any], heading: str = "") -> str:
    """Nested tables as TOML, without what is None.

    >>> print(to_toml({"a": 1, "b": {"c": [True, "x"]}}))
    a = 1
    <BLANKLINE>
    [b]
    c = [true, "x"]
    """
    values = {key: value for key, value in content.items() if value is not None and not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    tables = [(f"{heading}{key}", value) for key, value in content.items() if isinstance(value, dict)]
    below = [f"[{name}]\n{to_toml(value, f'{name}.')}".strip() for name, value in tables]
    return "\n\n".join(part for part in ["\n".join(lines), *below] if part)


def flat(config: Config) -> dict[str, Any]:
    """The configuration as ``{"a.b": c}``, the names under which its parameters are tracked.

    >>> class Inner(Config):
    ...     leaves: int = 3
    >>> class Outer(Config):
    ...     inner: Inner = Inner()
    >>> flat(Outer())
    {'inner.leaves': 3}
    """
    return dict(_flattened("", config.model_dump(mode="json")))


def _flattened(prefix: str, content: dict[str, Any]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in content.items():
        pairs += _flattened(f"{prefix}{key}.", value) if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return pairs
