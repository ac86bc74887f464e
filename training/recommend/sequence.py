"""Settings of the sequence transformer, and its fit; torch is imported when there is something to fit."""

from typing import Annotated

from pydantic import Field, model_validator

from features.histories import EventWeights, Log
from serving.sequence import Sequence
from training.config import Config, PositiveFloat, PositiveInt
from training.device import Device


class SequenceConfig(Config):
    """Settings of the sequence tier."""

    width: Annotated[int, Field(ge=2, le=2048)] = 128
    """Dimensions of items and histories."""
    n_layers: Annotated[int, Field(ge=1, le=16)] = 2
    """Transformer blocks."""
    n_heads: PositiveInt = 2
    """Attention heads per block."""
    max_length: Annotated[int, Field(ge=1, le=4096)] = 50
    """Last events of a history that are looked at."""
    moving_average: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Share of what a block hears that is a moving average of the last events; the rest is attention."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of activations that is set to zero while training."""
    temperature: Annotated[float, Field(ge=0.02)] = 0.08
    """The cosine of history and item is divided by it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.5
    """Decoupled penalty on matrices and embeddings."""
    learning_rate: PositiveFloat = 6e-3
    """Highest step size, after 3 % of the steps; it then falls to zero along a cosine."""
    batch_size: PositiveInt = 4096
    """Events to be predicted per step."""
    n_epochs: PositiveInt = 40
    """Passes over the histories."""
    n_negatives: Annotated[int, Field(ge=0)] = 0
    """Items drawn per step against which the right ones are told apart; 0: the whole catalogue."""
    attributes: bool = True
    """Whether the items' attributes are added to their embeddings."""
    n_members: Annotated[int, Field(ge=1, le=64)] = 1
    """Models of consecutive seeds whose scores are added."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without gain on held-out last events after which training stops; 0: it does not."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the first model."""

    @model_validator(mode="after")
    def _whole_heads(self) -> "SequenceConfig":
        if self.width % self.n_heads:
            raise ValueError(f"width {self.width} is no multiple of n_heads {self.n_heads}")
        return self


def fit(log: Log, config: SequenceConfig, events: EventWeights, device: Device) -> Sequence:
    """Fit ``n_members`` transformers and export them as one encoder."""
    from training.recommend import transformer

    return transformer.fit(log, config, events, device)
