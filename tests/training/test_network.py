"""Deep and cross networks: numpy answers what torch learnt, and one stands beside trees only if it helps."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from serving.artifact import Artifact, Draft
from serving.network import Network, inputs
from serving.scales import Floats
from training.propensity import learning, network
from training.propensity.config import ModelConfig, NetworkConfig
from training.propensity.slices import Slices

CONFIG = NetworkConfig(n_members=3, width=16, batch_size=128)
N_LEVELS = [0, 0, 0, 4]
N = 6000


def rows_of(n: int, seed: int = 0) -> Floats:
    """Two numbers that matter as a product, one that does not, and a text with an unknown level."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.normal(0, 3, (n, 3)), rng.integers(0, 4, n)])
    rows[rng.random(n) < 0.05, 0] = np.nan
    rows[rng.random(n) < 0.05, 3] = np.nan
    return rows


def log_odds_of(rows: Floats) -> Floats:
    spread = np.sign(rows) * np.log1p(np.abs(rows))
    return 2 * np.nan_to_num(spread[:, 0]) * spread[:, 1] + (rows[:, 3] == 2)


def drawn(rows: Floats, seed: int = 1) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(len(rows)) < 1 / (1 + np.exp(-log_odds_of(rows)))


@pytest.fixture(scope="module")
def fitted() -> Network:
    rows = rows_of(N)
    return network.fit(rows, drawn(rows), N_LEVELS, CONFIG, "cpu")


def test_it_learns_what_two_numbers_make_together(fitted: Network) -> None:
    rows = rows_of(N, seed=2)
    assert np.corrcoef(fitted.log_odds(rows), log_odds_of(rows))[0, 1] > 0.95


def test_numpy_answers_as_torch_does(fitted: Network) -> None:
    rows, module = rows_of(5000, seed=3), network.DeepCross(6, [4], CONFIG).eval()
    with torch.no_grad():
        for name in ("cross", "first", "second", "head"):
            for parameter, values in zip(getattr(module, name), getattr(fitted, name), strict=True):
                parameter.copy_(torch.from_numpy(values))
        module.embeddings[0].copy_(torch.from_numpy(fitted.embeddings[0]))
        told = module(*map(torch.from_numpy, inputs(fitted.scales, fitted.texts, rows))).mean(dim=0)
    np.testing.assert_allclose(fitted.log_odds(rows), told, rtol=1e-4, atol=1e-4)


def test_the_same_rows_give_the_same_network(fitted: Network) -> None:
    torch.manual_seed(7)
    rows = rows_of(N)
    again = network.fit(rows, drawn(rows), N_LEVELS, CONFIG, "cpu")
    assert (again.log_odds(rows) == fitted.log_odds(rows)).all()


def test_it_answers_from_its_files_as_before(fitted: Network, tmp_path) -> None:
    draft = Draft(tmp_path / "artifact")
    fitted.save(draft, "network")
    rows = rows_of(100)
    assert (Network.load(Artifact(draft.folder), "network").log_odds(rows) == fitted.log_odds(rows)).all()


def test_what_does_not_matter_adds_little(fitted: Network) -> None:
    added = np.abs(fitted.contributions(rows_of(500, seed=4))).mean(axis=0)
    assert added[2] < 0.15 * added[:2].min()


def test_a_value_far_off_is_answered_like_the_furthest_known(fitted: Network) -> None:
    far = np.array([[1e300, 1.0, 0.0, 1.0], [1e30, 1.0, 0.0, 1.0]])
    assert fitted.log_odds(far)[0] == fitted.log_odds(far)[1]


def parts_of(n: int) -> Slices:
    place = np.arange(n) / n
    return Slices(place < 0.7, (place >= 0.7) & (place < 0.85), place < 0.85, place >= 0.85)


@pytest.mark.parametrize("helps", [True, False])
def test_it_stands_beside_the_trees_only_if_it_helps(helps: bool) -> None:
    rows = rows_of(N)
    outcome = drawn(rows) if helps else np.random.default_rng(5).random(N) < np.where(rows[:, 2] > 1, 0.9, 0.1)
    config = ModelConfig(network=CONFIG if helps else CONFIG.model_copy(update={"learning_rate": 1e-9}))
    learned = learning.fit(rows, outcome, parts_of(N), N_LEVELS, config)
    assert (learned.network is not None) == helps == (learned.share > 0)
    assert learned.metrics["network_share"] == learned.share
    assert ((learned.scoring().probabilities(rows) > 0.5) == outcome).mean() > 0.75


def test_together_they_are_better_than_trees_alone() -> None:
    rows, later = rows_of(N), rows_of(N, seed=6)
    outcome, parts = drawn(rows), parts_of(N)
    both, trees = (learning.fit(rows, outcome, parts, N_LEVELS, ModelConfig(network=each)) for each in (CONFIG, None))
    truth = 1 / (1 + np.exp(-log_odds_of(later)))
    off = [np.abs(each.scoring().probabilities(later) - truth).mean() for each in (both, trees)]
    assert off[0] < 0.9 * off[1]
