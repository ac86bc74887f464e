"""Fits how likely a customer is to buy again within the horizon: gradient-boosted trees, calibrated on a later slice."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from features.customers import (
    FEATURES,
    LOOKBACK_DAYS,
)
from serving.artifact import Draft, Json
from serving.calibration import Calibrator
from training import calibration
from training.config import BoosterConfig, Config, PositiveInt

RISING = ("n_orders_28d", "n_orders_91d", "n_order_days_182d", "n_order_weeks_91d", "share_of_longer_gaps")
FALLING = ("days_since_last_order",)

LEAST_PER_OUTCOME = 20
PATIENCE = 50
_ROWS_WORTH_THREADS = 200_000

Floats = NDArray[np.float64]


class PropensityConfig(Config):
    """What a propensity model is fitted with."""

    model: Literal["trees"] = "trees"
    """Gradient-boosted trees with log loss."""
    horizon_days: PositiveInt = 28
    """Within how many days a purchase counts."""
    eligible_days: Annotated[int, Field(gt=0, le=LOOKBACK_DAYS)] = LOOKBACK_DAYS
    """Customers who bought in the last so many days are modelled; others get the base rate."""
    step_days: PositiveInt = 7
    """Days between two snapshots of all customers."""
    n_snapshots: PositiveInt = 40
    """Snapshots at most; those before the first purchase do not exist."""
    monotone: bool = True
    """Hold the trees to: more lately never means less likely."""
    calibrator: calibration.Choice = "auto"
    """Correction of the probabilities; auto keeps one only if held-out log loss improves."""
    trees: BoosterConfig = BoosterConfig(num_leaves=7, learning_rate=0.03, min_data_in_leaf=200, feature_fraction=0.5)
    """LightGBM's settings."""

    @property
    def target(self) -> str:
        return f"repurchase_{self.horizon_days}d"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All eligible customers at an instant and whether each bought within the horizon.

    rows : float64, shape (n, n_features)
    bought : bool, shape (n,)
    """

    as_of: datetime
    rows: Floats
    bought: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PropensityModel:
    """Fitted trees, their calibrator, and the customers to score; ``export`` writes what the scorer reads."""

    config: PropensityConfig
    as_of: datetime
    text: str
    calibrator: Calibrator
    base_rate: float
    person_ids: list[str]
    customers: Floats
    metrics: dict[str, float]
    name: str = "trees"

    def export(self, draft: Draft) -> None:
        draft.text("model", self.text)
        draft.json("ids", self.person_ids)
        draft.json("features", [{"name": name, "words": words} for name, words in FEATURES.items()])
        draft.array("customers", self.customers)
        draft.json("propensity", self._facts())
        draft.array("probabilities", np.sort(self.calibrator(_booster(self.text).predict(self.customers))))

    def _facts(self) -> Json:
        return {
            "target": self.config.target,
            "as_of": self.as_of.isoformat(),
            "horizon_days": self.config.horizon_days,
            "eligible_days": self.config.eligible_days,
            "base_rate": self.base_rate,
            "calibrator": {"kind": self.calibrator.kind, "coefficients": self.calibrator.coefficients},
        }

    def golden_requests(self) -> list[Json]:
        every = max(1, len(self.person_ids) // 5)
        return [{"user_ids": [*self.person_ids[::every][:5], "nobody we know"]}]
