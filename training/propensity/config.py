"""What propensity models are asked and how they are fitted."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from features.targets import Target
from serving.artifact import Json
from training import calibration
from training.config import BoosterConfig, Config, PositiveFloat, PositiveInt

TREES = BoosterConfig(num_leaves=7, learning_rate=0.03, min_data_in_leaf=200, feature_fraction=0.5)


class NetworkConfig(Config):
    """A deep and cross network, which stands beside the trees where that pays."""

    n_members: PositiveInt = 8
    """Networks that learn side by side and are averaged."""
    width: PositiveInt = 64
    """Units of each of the two deep layers."""
    embedding: PositiveInt = 3
    """Numbers that stand for a text, at most."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of units left out at each step."""
    learning_rate: PositiveFloat = 0.003
    """Highest step size."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """What weights lose at each step, in step sizes."""
    batch_size: PositiveInt = 256
    """Examples of a step."""
    n_epochs: PositiveInt = 24
    """Times that every example is seen, at most."""
    most_steps: PositiveInt = 10_000
    """Steps at most, however many examples there are."""


class ModelConfig(Config):
    """How the model of one target is fitted."""

    span_days: PositiveInt = 182
    """Days before the cut-off from which examples are taken."""
    step_days: PositiveInt = 14
    """Days between two moments at which customers are asked."""
    most_examples: PositiveInt = 2_000_000
    """Examples at most; the newest are kept."""
    calibrator: calibration.Choice = "auto"
    """Correction of the probabilities; auto keeps one only if held-out log loss improves."""
    start: Literal["rate", "regression"] = "rate"
    """What the trees correct: the rate of all, or a logistic regression on everything, which needs fewer examples."""
    trees: BoosterConfig = TREES
    """LightGBM's settings."""
    network: NetworkConfig | None = None
    """A challenger on the same features, kept with the share in which it helps the trees; absent: none is fitted."""


class LimitsConfig(Config):
    """Past which measures `shopkeeper monitor` exits with 3."""

    stability: PositiveFloat = 0.25
    """Population stability index of a feature."""
    calibration: Annotated[float, Field(gt=1)] = 1.25
    """Factor by which predicted over observed may leave 1, beyond chance."""
    rate: Annotated[float, Field(gt=1)] = 1.5
    """Factor by which the rate may leave that of training, beyond chance."""


class PropensityConfig(Config):
    """The targets of a propensity version."""

    window_days: PositiveInt = 28
    """Days of a window of evaluation; units are asked in it as long as their horizon ends in it."""
    targets: Annotated[dict[str, Target], Field(min_length=1)]
    """What is asked, by name."""
    models: dict[str, ModelConfig] = Field(default_factory=dict)
    """How each target's model is fitted; absent: as ``ModelConfig`` has it."""
    limits: LimitsConfig = LimitsConfig()
    """What monitoring allows."""

    @field_validator("targets")
    @classmethod
    def _plain_names(cls, targets: dict[str, Target]) -> dict[str, Target]:
        if odd := [name for name in targets if not name.isidentifier() or name == "propensity"]:
            raise ValueError(f"target {odd[0]!r}: name it in letters, digits and _, and not propensity")
        return targets

    @model_validator(mode="after")
    def _models_of_targets(self) -> "PropensityConfig":
        if unknown := sorted(set(self.models) - set(self.targets)):
            raise ValueError(f"models.{unknown[0]} has no target; targets are {', '.join(self.targets)}")
        return self

    def model(self, target: str) -> ModelConfig:
        return self.models.get(target, ModelConfig())


def recipe(config: Json, question: Json) -> Json:
    """A configuration that is asked another one's targets: those it fitted as it did, others by default."""
    models = {name: model for name, model in config["models"].items() if name in question["targets"]}
    return {**config, **question, "models": models}
