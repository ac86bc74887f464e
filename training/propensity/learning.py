"""Learns a target: trees, a network beside them where it helps, and a calibrator, each chosen on a later slice."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.calibration import Calibrator, sigmoid
from serving.network import Network, mixed
from serving.propensity import Scoring
from serving.regression import Regression
from serving.scales import Floats
from serving.trees import Trees
from training import calibration
from training.propensity.boosting import Bools, Boosted, Learner
from training.propensity.config import ModelConfig, NetworkConfig
from training.propensity.slices import Slices

SHARES = (0.25, 0.5, 0.75)
"""Of the log-odds that a network may give."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What ``serving.propensity.Scoring`` answers with, and what was measured on the slices that chose it.

    text : the trees
    network : None where none was asked for, or it did not help
    share : of the log-odds that the network gives
    """

    text: str
    start: Regression | None
    network: Network | None
    share: float
    calibrator: Calibrator
    metrics: dict[str, float]

    def scoring(self) -> Scoring:
        return Scoring(Trees.from_text(self.text), self.start, self.network, self.share, self.calibrator)


@dataclass(frozen=True, slots=True)
class Pair:
    """Trees, and what stands beside them."""

    boosted: Boosted
    network: Network | None

    def log_odds(self, rows: Floats, share: float) -> Floats:
        trees = self.boosted.log_odds(rows)
        return trees if self.network is None else mixed(trees, self.network.log_odds(rows), share)


def fit(
    rows: Floats, outcome: Bools, parts: Slices, n_levels: Sequence[int], config: ModelConfig, device: str = "cpu"
) -> Learned:
    """Learn with what was chosen on later slices, then once more from everything.

    1. The number of trees, and the network's share, are chosen on ``stopping``, with models fitted on ``fitting``;
    2. the calibrator is chosen and fitted on ``calibrating``, with models of these settings fitted on ``before``;
    3. trees and network are fitted again on every row; the calibrator stays.

    Rows are neither resampled nor weighted, so probabilities keep their level.

    rows : float64, shape (n, n_features), NaN where a value is missing
    outcome : bool, shape (n,)
    n_levels : of every feature, 0 for a number
    device : on which a network is fitted, "cpu" or "cuda"
    """
    learner, held = Learner(config, n_levels), outcome[parts.calibrating]

    def beside(chosen: Bools, asked: NetworkConfig | None) -> Network | None:
        return _network(rows[chosen], outcome[chosen], n_levels, asked, device)

    boosted = learner.stopped_early(rows, outcome, parts.fitting, parts.stopping)
    n_trees = boosted.trees.best_iteration
    first = Pair(boosted, beside(parts.fitting, config.network))
    share, stopping_loss = _best_share(first, rows[parts.stopping], outcome[parts.stopping])
    kept = config.network if share else None

    def pair(chosen: Bools) -> Pair:
        return Pair(learner.fit(rows[chosen], outcome[chosen], n_trees), beside(chosen, kept))

    raw = sigmoid(pair(parts.before).log_odds(rows[parts.calibrating], share))
    calibrator = calibration.fit(config.calibrator, raw, held)
    whole = pair(parts.everything)
    return Learned(
        text=whole.boosted.trees.model_to_string(),
        start=whole.boosted.start,
        network=whole.network,
        share=share,
        calibrator=calibrator,
        metrics={
            "n_examples": len(outcome),
            "n_positives": int(outcome.sum()),
            "n_trees": n_trees,
            "network_share": share,
            "stopping_log_loss": stopping_loss,
            "calibration_log_loss": calibration.cross_fitted(calibrator.kind, raw, held),
            "uncalibrated_log_loss": float(calibration.log_loss(raw, held).mean()),
        },
    )


def _best_share(pair: Pair, rows: Floats, outcome: Bools) -> tuple[float, float]:
    """The network's share of least log loss, 0 without one, and that loss."""
    shares = (0.0, *SHARES) if pair.network else (0.0,)
    losses = {share: _log_loss(pair.log_odds(rows, share), outcome) for share in shares}
    best = min(losses, key=lambda share: losses[share])
    return best, losses[best]


def _log_loss(log_odds: Floats, outcome: Bools) -> float:
    return float(calibration.log_loss(sigmoid(log_odds), outcome).mean())


def _network(
    rows: Floats, outcome: Bools, n_levels: Sequence[int], config: NetworkConfig | None, device: str
) -> Network | None:
    if config is None:
        return None
    from training.propensity import network  # torch takes seconds to import, and most targets ask for none

    return network.fit(rows, outcome, n_levels, config, device)
