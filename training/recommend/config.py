"""What a recommender is fitted with: which tiers, on which events, blended on what."""

from typing import Annotated

import numpy as np
from pydantic import Field

from features.histories import EventWeights
from training.config import Config, PositiveFloat, PositiveInt
from training.recommend.cooccurrence import CooccurrenceConfig
from training.recommend.factors import AlsConfig, BprConfig
from training.recommend.linear import LinearConfig
from training.recommend.pooled import PooledConfig
from training.recommend.popularity import PopularAlikeConfig, PopularityConfig
from training.recommend.repeat import RepeatConfig
from training.recommend.rerank import RerankConfig
from training.recommend.sequence import SequenceConfig

Weight = Annotated[float, Field(ge=0)]


class EventConfig(Config):
    """What the events of a history count."""

    view: Weight = 0.1
    """What a view counts."""
    cart: Weight = 0.5
    """What an item put in the cart counts."""
    purchase: Weight = 1.0
    """What a purchase counts."""
    view_half_life_days: PositiveFloat = 90.0
    """After so many days a view counts half."""
    cart_half_life_days: PositiveFloat = 90.0
    """After so many days an item put in the cart counts half."""
    purchase_half_life_days: PositiveFloat = 90.0
    """After so many days a purchase counts half."""

    def weights(self) -> EventWeights:
        return EventWeights(
            np.array([self.view, self.cart, self.purchase], np.float32),
            np.array([self.view_half_life_days, self.cart_half_life_days, self.purchase_half_life_days], np.float32),
        )


class TiersConfig(Config):
    """The tiers, each with its own settings; one that is absent is not fitted."""

    popularity: PopularityConfig = PopularityConfig()
    popular_alike: PopularAlikeConfig | None = None
    cooccurrence: CooccurrenceConfig | None = None
    linear: LinearConfig | None = None
    als: AlsConfig | None = None
    bpr: BprConfig | None = None
    pooled: PooledConfig | None = None
    repeat: RepeatConfig | None = None
    sequence: SequenceConfig | None = None

    def chosen(self) -> dict[str, Config]:
        """The settings of the tiers that are to be fitted, by the tier's name."""
        return {name: settings for name in type(self).model_fields if (settings := getattr(self, name)) is not None}


class RecommendConfig(Config):
    """What the recommender is fitted with."""

    events: EventConfig = EventConfig()
    """What counts how much."""
    tiers: TiersConfig = TiersConfig()
    """What scores the items."""
    attributes: tuple[str, ...] = ("item_brand", "item_category", "item_category2", "item_category3")
    """Columns of items that describe them; a cell may hold several values with | between them."""
    min_users: PositiveInt = 5
    """People who must have touched an item for it to be recommended."""
    untouched_items: bool = False
    """Whether items that nobody touched yet are recommended too, for what is known of their attributes."""
    repeats: bool = True
    """Whether what a person already has may be recommended again."""
    rerank: RerankConfig | None = None
    """How the blend's best items are put in a better order; absent: they are not."""
    validation_days: PositiveInt = 28
    """Days before the cut-off on which the blend is chosen."""
    n_validation_users: PositiveInt = 20_000
    """People, drawn at random, on whom the blend is chosen."""
