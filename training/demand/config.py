"""The configuration of the demand family."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from features.panels import PanelSettings, StockOuts
from features.periods import Frequency
from serving.recipe import Base, QuantilesOf
from serving.reconcile import SumsOf
from training.config import BoosterConfig, Config, PositiveFloat, PositiveInt

Loss = Literal["tweedie", "mape"]
Quantile = Annotated[float, Field(gt=0, lt=1)]


class NetworkConfig(Config):
    """A network of quantiles, which stands beside the trees where that pays."""

    n_members: PositiveInt = 3
    """Networks that learn side by side and are averaged."""
    width: PositiveInt = 64
    """Units of each of the two layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of units left out at each step."""
    learning_rate: PositiveFloat = 0.002
    """Highest step size."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """What weights lose at each step, in step sizes."""
    batch_size: PositiveInt = 1024
    """Examples of a step."""
    n_steps: PositiveInt = 600
    """Steps, however many examples there are."""


class DemandConfig(Config):
    """What the demand forecast is fitted with; a period is the shop's ``demand_frequency``."""

    horizon: PositiveInt = 4
    """Periods to forecast."""
    quantiles: Annotated[tuple[Quantile, ...], Field(min_length=2)] = (0.05, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95)
    """Quantiles to forecast, ascending, the median among them."""
    min_periods: PositiveInt = 26
    """Periods with a sale that a series needs to be forecast."""
    by_location: bool = False
    """Whether each location has its own series, or an item has one for all."""
    covariates: tuple[str, ...] = ()
    """Further columns of ``offers``, known ahead, that the forecast may use."""
    n_origins: PositiveInt = 6
    """Instants of the past from which examples are made, spread over the later part of the history."""
    first_origin: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the history before the first of them."""
    n_validation: PositiveInt = 2
    """Horizons before the cut-off that are held out to stop the trees and to learn how forecasts err."""
    tweedie_variance_power: Annotated[float, Field(ge=1, lt=2)] = 1.5
    """Of the mean's objective: 1 is Poisson, near 2 is gamma."""
    stock_outs: StockOuts = "shared"
    """What a period counts for in which an item was not on sale all the time: "shared", as much as it was, from half
    on, which gives the demand that there was; "missing", nothing, which gives that of periods without a stock-out;
    "ignored", as much as any, to see what the correction brings."""
    loss: Loss = "tweedie"
    """What the mean is fitted for: "tweedie" for errors in units, by Tweedie's deviance; "mape" for errors in percent
    of what came, by their absolute mean, which a forecast below the mean has least of. Periods without a sale count
    for nothing there, so it is for goods that sell in every period; it is the point forecast too."""
    bases: Annotated[tuple[Base, ...], Field(min_length=1)] = ("level",)
    """What the trees correct: a series' recent level, the response to its prices and promotions, or one of
    ``serving.smoothing``'s forecasts. Each has its own trees, and the mean is the geometric mean of what they say."""
    reconcile: tuple[SumsOf, ...] = ()
    """Sums that have forecasts of their own, by which the series' are corrected: of an item in all locations, of a
    category, of a location, of the whole shop."""
    quantiles_of: QuantilesOf = "mean"
    """What quantiles are multiples of: "mean", learnt from held-out errors; "base", the first of them, learnt from
    every example, for a horizon so long that little can be held out."""
    patience: Annotated[int, Field(ge=0)] = 15
    """Trees of the mean without a gain on what is held out after which it stops; 0: it takes all of ``n_trees``."""
    carry: Annotated[float, Field(ge=0)] = 0.125
    """Share of the lead time for which an order is charged for what is left over; see ``serving.replenish.orders``."""
    seed: int = 0
    """Seed of the features that a tree may use."""
    trees: BoosterConfig = BoosterConfig(n_trees=200, learning_rate=0.1, min_data_in_leaf=100)
    """Of the mean."""
    shape: BoosterConfig = BoosterConfig(n_trees=60, learning_rate=0.1, num_leaves=8, min_data_in_leaf=100)
    """Of each quantile's multiple of the mean or of the base."""
    network: NetworkConfig | None = None
    """A challenger on the same features, kept with the share of the quantiles in which it helps the trees; absent: none
    is fitted."""

    @model_validator(mode="after")
    def _what_is_listed_makes_sense(self) -> Self:
        if len(set(self.bases)) < len(self.bases):
            raise ValueError(f"bases are {self.bases}: each counts once")
        if len(set(self.reconcile)) < len(self.reconcile):
            raise ValueError(f"reconcile is {self.reconcile}: each counts once")
        if not self.by_location and (pointless := {"item", "location"} & set(self.reconcile)):
            raise ValueError(
                f"reconcile has {min(pointless)} and by_location is false: there are no series of locations to add up; "
                "leave it out or set by_location"
            )
        if list(self.quantiles) != sorted(set(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError(f"quantiles are {self.quantiles}: they must ascend and hold 0.5")
        return self

    def panel(self, frequency: Frequency, country: str | None = None) -> PanelSettings:
        return PanelSettings(
            frequency, self.horizon, self.min_periods, self.by_location, self.covariates, self.stock_outs, country
        )
