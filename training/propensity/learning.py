"""Learns a target: trees, a network beside them where it helps, and a calibrator, each chosen on a later slice."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.calibration import Calibrator
from serving.network import Network
from serving.propensity import Scoring
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

    network : None where none was asked for, or it did not help
    share : of the log-odds that the network gives
    """

    boosted: Boosted
    network: Network | None
    share: float
    calibrator: Calibrator
    metrics: dict[str, float]

    def scoring(self) -> Scoring:
        return _scoring(self.boosted, self.network, self.share, self.calibrator)


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

    first = learner.stopped_early(rows, outcome, parts.fitting, parts.stopping)
    challenger = beside(parts.fitting, config.network)
    share, stopping_loss = _best_share(first, challenger, rows[parts.stopping], outcome[parts.stopping])
    kept = config.network if share else None

    def fitted(chosen: Bools) -> tuple[Boosted, Network | None]:
        return learner.fit(rows[chosen], outcome[chosen], first.n_trees), beside(chosen, kept)

    raw = _scoring(*fitted(parts.before), share, Calibrator()).probabilities(rows[parts.calibrating])
    calibrator = calibration.fit(config.calibrator, raw, held)
    boosted, network = fitted(parts.everything)
    return Learned(
        boosted=boosted,
        network=network,
        share=share,
        calibrator=calibrator,
        metrics={
            "n_examples": len(outcome),
            "n_positives": int(outcome.sum()),
            "n_trees": boosted.n_trees,
            "network_share": share,
            "stopping_log_loss": stopping_loss,
            "calibration_log_loss": calibration.cross_fitted(calibrator.kind, raw, held),
            "uncalibrated_log_loss": float(calibration.log_loss(raw, held).mean()),
        },
    )


def _best_share(boosted: Boosted, network: Network | None, rows: Floats, outcome: Bools) -> tuple[float, float]:
    """The network's share of least log loss, 0 without one, and that loss."""
    losses = {}
    for share in (0.0, *SHARES) if network else (0.0,):
        probability = _scoring(boosted, network, share, Calibrator()).probabilities(rows)
        losses[share] = float(calibration.log_loss(probability, outcome).mean())
    best = min(losses, key=lambda share: losses[share])
    return best, losses[best]


def _scoring(boosted: Boosted, network: Network | None, share: float, calibrator: Calibrator) -> Scoring:
    return Scoring(Trees.from_text(boosted.text), boosted.start, network, share, calibrator)


def _network(
    rows: Floats, outcome: Bools, n_levels: Sequence[int], config: NetworkConfig | None, device: str
) -> Network | None:
    if config is None:
        return None
    from training.propensity import network  # torch takes seconds to import, and most targets ask for none

    return network.fit(rows, outcome, n_levels, config, device)
