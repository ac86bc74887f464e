"""Settings of the pooled tier, and its fit; torch is imported when there is something to fit."""

from typing import Annotated

from pydantic import Field

from features.histories import EventWeights, Log
from serving.pooled import Pooled
from training.config import Config, PositiveFloat, PositiveInt
from training.device import Device


class PooledConfig(Config):
    """Settings of the pooled tier."""

    width: Annotated[int, Field(ge=1, le=4096)] = 256
    """Dimensions of items and histories."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of a history's items that is left out while training."""
    temperature: Annotated[float, Field(ge=0.02)] = 0.08
    """The cosine of history and item is divided by it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.5
    """Decoupled penalty on the vectors."""
    learning_rate: PositiveFloat = 4e-3
    """Highest step size, after 3 % of the steps; it then falls to zero along a cosine."""
    batch_size: PositiveInt = 8192
    """Items to be predicted per step."""
    n_epochs: PositiveInt = 20
    """Passes over the histories."""
    n_negatives: Annotated[int, Field(ge=0)] = 0
    """Items drawn per step from which the right ones are told apart, beside the step's own; 0: the whole catalogue."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the start and of what is left out."""


def fit(log: Log, config: PooledConfig, events: EventWeights, device: Device) -> Pooled:
    """Vectors of the items, fitted by ``pooling``."""
    from training.recommend import pooling

    return pooling.fit(log, config, events, device)
