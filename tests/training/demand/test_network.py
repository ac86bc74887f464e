"""Quantile networks: numpy answers what torch learnt, quantiles ascend, and trees give one a share only if it helps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from panels import plain_panel

from features.demand import features
from features.panels import Panel
from serving.artifact import Artifact, Draft
from serving.quantile_network import LAYERS, QuantileNetwork, numbers, read
from serving.recipe import Recipe, mean_of
from training.config import BoosterConfig
from training.demand import network
from training.demand.challenge import challenger, columns
from training.demand.config import DemandConfig, NetworkConfig
from training.demand.learning import Examples, mean_boosters, quantile_boosters, shape_boosters
from training.demand.trials import Trial, best_share, pinball_loss

QUANTILES = (0.1, 0.5, 0.9)
SETTINGS = NetworkConfig(n_members=2, width=24, batch_size=256, n_steps=500, learning_rate=0.01)
FEW = BoosterConfig(n_trees=30, learning_rate=0.2, num_leaves=4, min_data_in_leaf=50)
CONFIG = DemandConfig(quantiles=QUANTILES, trees=FEW, shape=FEW, network=SETTINGS)
COLUMNS = np.arange(3)
N = 6000


def rates(rows: np.ndarray) -> np.ndarray:
    """What the exponential demand over a base is on average: a product, which trees make of many steps."""
    return np.exp(np.clip(np.nan_to_num(rows[:, 0]) * rows[:, 1], -2, 2))


def drawn(n: int = N, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 2)).astype(np.float32)
    rows[rng.random(n) < 0.05, 0] = np.nan
    bases = rng.uniform(1, 20, (n, 1)).astype(np.float32)
    units = (rng.exponential(rates(rows)) * bases[:, 0]).astype(np.float32)
    return Examples(rows, units, bases, np.ones(n, np.float32))


@pytest.fixture(scope="module")
def fitted() -> QuantileNetwork:
    return network.fit(drawn(), COLUMNS, CONFIG, SETTINGS, "cpu")


def test_it_learns_the_quantiles_of_what_two_numbers_make_together(fitted: QuantileNetwork) -> None:
    later = drawn(seed=1)
    said = fitted.quantiles(later.rows, later.bases)
    truth = -np.log1p(-np.array(QUANTILES)) * (rates(later.rows) * later.bases[:, 0])[:, None]
    pooled = np.quantile(later.relative(), QUANTILES) * later.bases
    reached, possible, known = (pinball_loss(units, later, QUANTILES) for units in (said, truth, pooled))
    assert reached - possible < 0.3 * (known - possible)
    assert (later.units[:, None] <= said).mean(axis=0) == pytest.approx(QUANTILES, abs=0.04)


def test_numpy_answers_as_torch_does(fitted: QuantileNetwork) -> None:
    asked = drawn(5000, seed=2)
    module = network.IncrementalQuantiles(6, np.array([0.0, 0.5, 1.0]), SETTINGS).eval()
    module.unit = float(fitted.unit[0])
    with torch.no_grad():
        for name in LAYERS:
            for parameter, values in zip(getattr(module, name), getattr(fitted, name), strict=True):
                parameter.copy_(torch.from_numpy(values))
        said = module(torch.from_numpy(numbers(fitted.scales, read(asked.rows, asked.bases)))).mean(dim=0)
    expected = np.maximum(said.numpy(), 0) * asked.bases
    np.testing.assert_allclose(fitted.quantiles(asked.rows, asked.bases), expected, rtol=1e-4, atol=1e-4)


@given(arrays(np.float32, (3, 2), elements=st.floats(width=32)), st.floats(0.01, 1e6))
def test_quantiles_ascend_and_none_is_below_zero(fitted: QuantileNetwork, rows: np.ndarray, base: float) -> None:
    said = fitted.quantiles(rows, np.full((3, 1), base, np.float32))
    assert said.dtype == np.float32
    assert (said >= 0).all()
    assert (np.diff(said) >= 0).all()


def test_no_rows_have_no_quantiles(fitted: QuantileNetwork) -> None:
    none = drawn(0)
    assert fitted.quantiles(none.rows, none.bases).shape == (0, len(QUANTILES))


def test_the_same_examples_give_the_same_network(fitted: QuantileNetwork) -> None:
    torch.manual_seed(7)
    again, asked = network.fit(drawn(), COLUMNS, CONFIG, SETTINGS, "cpu"), drawn(100, seed=3)
    assert (again.quantiles(asked.rows, asked.bases) == fitted.quantiles(asked.rows, asked.bases)).all()


def test_it_answers_from_its_files_as_before(fitted: QuantileNetwork, tmp_path) -> None:
    draft, asked = Draft(tmp_path / "artifact"), drawn(100, seed=4)
    fitted.save(draft, "network")
    loaded = QuantileNetwork.load(Artifact(draft.folder), "network")
    assert (loaded.quantiles(asked.rows, asked.bases) == fitted.quantiles(asked.rows, asked.bases)).all()


def test_what_was_hardly_on_sale_hardly_teaches() -> None:
    """A hundred times the units in rows on sale for a ten-thousandth of the time leave the quantiles alone."""
    taught = drawn()
    seldom = np.arange(N) % 2 == 0
    units = np.where(seldom, 100 * taught.units, taught.units)
    exposure = np.where(seldom, np.float32(1e-4), np.float32(1))
    found = network.fit(taught._replace(units=units, exposure=exposure), COLUMNS, CONFIG, SETTINGS, "cpu")
    asked = drawn(seed=5)
    assert (asked.units <= found.quantiles(asked.rows, asked.bases)[:, 1]).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("learnt_from", ["mean", "base"])
@pytest.mark.parametrize("helps", [True, False])
def test_it_gets_a_share_only_if_it_helps(fitted: QuantileNetwork, helps: bool, learnt_from: str) -> None:
    taught, judged = drawn(), drawn(seed=6)
    config = CONFIG.model_copy(update={"quantiles_of": learnt_from})
    means = mean_boosters(taught, config)
    if learnt_from == "mean":
        shape = shape_boosters(taught, mean_of(means, taught.rows, taught.bases), config)
    else:
        shape = quantile_boosters(taught, config)
    blind = replace(fitted, head=(np.zeros_like(fitted.head[0]), np.full_like(fitted.head[1], 9)))
    recipe = Recipe(means, shape, config.bases, learnt_from, network=fitted if helps else blind)
    trial = Trial([], judged, mean_of(means, judged.rows, judged.bases), [], recipe)
    assert (best_share([trial], config) > 0) == helps


def test_nothing_asked_for_is_no_network_and_no_share() -> None:
    alone = CONFIG.model_copy(update={"network": None})
    assert challenger(drawn(), panel(), 60, alone, "cpu") is None
    assert best_share([], alone) == 0


def panel() -> Panel:
    sold = np.random.default_rng(8).poisson(3, (5, 60)).astype(np.float32)
    return plain_panel(sold, 2, min_periods=4)


def test_it_reads_what_tells_series_apart_and_what_comes_back() -> None:
    known = panel()
    names = (*features(known, known.n_periods)[0], "first base", "second base")
    read_names = [names[column] for column in columns(known, known.n_periods, 2)]
    assert {"step", "shop_season", "lag_1", "level", "first base", "second base"} <= set(read_names)
    assert not {"shop_trend_1", "day_of_year", "price", "periods_since_first_sale"} & set(read_names)
