"""Sample paths have the forecast's quantiles at every step, and their sums are as the steps hang together."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.paths import Dependence, normal_scores, paths, scores_of

QUANTILES = (0.05, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95)
N_STEPS = 3
N_PATHS = 20_000
SHAPES = {"dtype": np.float32, "elements": st.floats(0, 1000, width=32)}


def ascending(n_series: int, n_steps: int = N_STEPS) -> st.SearchStrategy[np.ndarray]:
    shape = (n_series, n_steps, len(QUANTILES))
    return npst.arrays(shape=shape, **SHAPES).map(lambda units: np.sort(units, axis=-1))


def strictly_ascending(n_series: int) -> st.SearchStrategy[np.ndarray]:
    steps = npst.arrays(np.float32, (n_series, N_STEPS, len(QUANTILES)), elements=st.floats(0.5, 50, width=32))
    return steps.map(lambda widths: np.cumsum(widths, axis=-1, dtype=np.float32))


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@given(ascending(2), st.integers(0, 99))
def test_the_score_of_a_quantile_gives_its_units(units: np.ndarray, seed: int):
    scores = np.broadcast_to(normal_scores(QUANTILES)[None, :, None], (2, len(QUANTILES), N_STEPS))
    found = paths(units, QUANTILES, scores).transpose(0, 2, 1)
    np.testing.assert_allclose(found, units, rtol=1e-4, atol=1e-2)


@settings(max_examples=20)
@given(strictly_ascending(2))
def test_every_step_has_the_forecasts_quantiles(units: np.ndarray):
    tied = Dependence(np.linalg.cholesky(np.full((N_STEPS, N_STEPS), 0.6) + 0.4 * np.eye(N_STEPS)), 0.3)
    found = paths(units, QUANTILES, tied.scores(2, N_PATHS, seed=1))
    for column, quantile in enumerate(QUANTILES):
        below = (found <= units[:, None, :, column]).mean(axis=1)
        np.testing.assert_allclose(below, quantile, atol=0.02)


@given(ascending(3), st.floats(0, 1), st.integers(0, 99))
def test_no_path_is_negative_or_missing(units: np.ndarray, common: float, seed: int):
    found = paths(units, QUANTILES, 3 * Dependence(np.eye(N_STEPS), common).scores(3, 50, seed))
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert np.isfinite(found).all()


@given(ascending(1), st.integers(0, 99))
def test_a_higher_score_is_never_fewer_units(units: np.ndarray, seed: int):
    scores = np.sort(3 * normal((1, 40, N_STEPS), seed), axis=1)
    assert (np.diff(paths(units, QUANTILES, scores), axis=1) >= -1e-3).all()


@given(ascending(4), st.floats(0, 1), st.integers(1, 3))
def test_parts_add_up_to_the_whole_on_every_path(units: np.ndarray, common: float, n_first: int):
    found = paths(units, QUANTILES, Dependence(np.eye(N_STEPS), common).scores(4, 60, 0)).astype(np.float64)
    category = np.arange(4) >= n_first
    by_category = np.array([found[category == each].sum(axis=0) for each in (False, True)])
    weeks = found[:, :, :2].sum(axis=2), found[:, :, 2:].sum(axis=2)
    np.testing.assert_allclose(by_category.sum(axis=0), found.sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(sum(weeks), found.sum(axis=2), rtol=1e-9)
    np.testing.assert_allclose(by_category.sum(axis=(0, 2)), sum(weeks).sum(axis=0), rtol=1e-9)


@given(ascending(4), st.integers(1, 4))
def test_a_series_has_the_same_futures_whatever_comes_after_it(units: np.ndarray, n: int):
    tied = Dependence(np.eye(N_STEPS), 0.4)
    whole, part = (paths(units[:k], QUANTILES, tied.scores(k, 30, seed=3)) for k in (4, n))
    np.testing.assert_array_equal(whole[:n], part)


@settings(max_examples=20)
@given(strictly_ascending(1))
def test_tied_steps_rise_and_fall_together_and_quantiles_of_sums_are_sums_of_quantiles(units: np.ndarray):
    first = np.zeros((N_STEPS, N_STEPS))
    first[:, 0] = 1
    found = paths(units, QUANTILES, Dependence(first, 0.0).scores(1, 4001, seed=2))[0]
    ranked = found[np.argsort(found.sum(axis=1))]
    assert (np.diff(ranked, axis=0) >= -1e-3).all()
    totals = [np.quantile(found.sum(axis=1), q) for q in QUANTILES]
    of_steps = [np.quantile(found, q, axis=0).sum() for q in QUANTILES]
    np.testing.assert_allclose(totals, of_steps, rtol=1e-3)


@settings(max_examples=20)
@given(strictly_ascending(1))
def test_steps_without_dependence_are_independent_and_their_sum_is_narrower(units: np.ndarray):
    found = paths(units, QUANTILES, Dependence.none(N_STEPS).scores(1, N_PATHS, seed=2))[0].astype(np.float64)
    assert np.abs(np.corrcoef(found.T) - np.eye(N_STEPS)).max() < 0.05
    assert found.sum(axis=1).var() == pytest.approx(found.var(axis=0).sum(), rel=0.1)
    low, high = np.quantile(found.sum(axis=1), (0.05, 0.95))
    widths = np.diff(np.quantile(found, (0.05, 0.95), axis=0), axis=0).sum()
    assert high - low < widths


@pytest.mark.parametrize("common", [0.0, 0.3, 0.8])
def test_two_series_share_as_much_as_is_common(common: float):
    scores = Dependence(np.eye(N_STEPS), common).scores(2, N_PATHS, seed=0)
    assert np.corrcoef(scores[0].ravel(), scores[1].ravel())[0, 1] == pytest.approx(common, abs=0.02)
    np.testing.assert_allclose(scores.std(axis=(1, 2)), 1, atol=0.02)


@given(st.integers(1, 4), st.integers(0, 99))
def test_scores_are_those_of_the_seed(n_series: int, seed: int):
    tied = Dependence(np.eye(N_STEPS), 0.5)
    scores = tied.scores(n_series, 7, seed)
    assert scores.shape == (n_series, 7, N_STEPS)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, tied.scores(n_series, 7, seed))
    assert (scores != tied.scores(n_series, 7, seed + 1)).all()


def scored(actual: np.ndarray, units: np.ndarray, seed: int = 0) -> np.ndarray:
    return scores_of(actual, units, QUANTILES, np.random.default_rng(seed))


@given(strictly_ascending(3), npst.arrays(np.float32, (3, N_STEPS), elements=st.floats(-2.5, 2.5, width=32)))
def test_the_score_of_what_a_score_gives_is_that_score(units: np.ndarray, scores: np.ndarray):
    actual = paths(units, QUANTILES, scores[:, None, :])[:, 0]
    assume((actual > 0.01).all())
    np.testing.assert_allclose(scored(actual, units), scores, atol=0.02)


@given(strictly_ascending(3), npst.arrays(shape=(3, N_STEPS), **SHAPES))
def test_what_the_score_of_units_gives_is_those_units(units: np.ndarray, actual: np.ndarray):
    scores = scored(actual, units)
    assert (np.abs(scores) <= 3).all()
    inside = (np.abs(scores) < 3) & (actual > 0)
    again = paths(units, QUANTILES, scores[:, None, :])[:, 0]
    np.testing.assert_allclose(again[inside], actual[inside], rtol=1e-3, atol=0.02)


def test_scores_of_nothing_are_spread_below_where_something_begins():
    units = np.tile(np.float32([0, 0, 0, 0, 0, 1, 2, 3, 4]), (5_000, 1, 1))
    scores = scored(np.zeros((5_000, 1), np.float32), units)[:, 0]
    assert scores.min() == pytest.approx(-3, abs=0.01)
    assert scores.max() == pytest.approx(0, abs=0.01)
    np.testing.assert_allclose(np.quantile(scores, (0.25, 0.5, 0.75)), (-2.25, -1.5, -0.75), atol=0.1)


def test_scores_of_tied_quantiles_are_spread_between_them():
    units = np.tile(np.float32([1, 2, 3, 3, 3, 3, 4, 5, 6]), (5_000, 1, 1))
    scores = scored(np.full((5_000, 1), 3, np.float32), units)[:, 0]
    low, high = normal_scores(QUANTILES)[[2, 5]]
    assert scores.min() == pytest.approx(low, abs=0.01)
    assert scores.max() == pytest.approx(high, abs=0.01)
    assert scores.mean() == pytest.approx((low + high) / 2, abs=0.02)


@given(ascending(1, 1), st.lists(st.floats(0, 1100, width=32), min_size=2, max_size=6).map(sorted))
def test_more_units_never_have_a_lower_score(units: np.ndarray, actual: list[float]):
    scores = [float(scored(np.float32([[each]]), units)[0, 0]) for each in actual]
    assert all(low <= high + 1e-4 for low, high in pairwise(scores))


def test_more_than_a_forecast_without_spread_holds_is_as_high_as_scores_go():
    none = np.zeros((1, 1, len(QUANTILES)), np.float32)
    certain = np.full((1, 1, len(QUANTILES)), 4, np.float32)
    assert scored(np.float32([[5]]), none).tolist() == [[3]]
    assert scored(np.float32([[5]]), certain).tolist() == [[3]]
    assert scored(np.float32([[3]]), certain).tolist() == [[-3]]


def test_a_spread_too_small_to_divide_by_is_none():
    hair = np.zeros((1, 1, len(QUANTILES)), np.float32)
    hair[..., -1] = np.finfo(np.float32).smallest_subnormal
    assert scored(np.float32([[5]]), hair).tolist() == [[3]]


@given(ascending(2), npst.arrays(np.bool_, (2, N_STEPS)))
def test_what_is_not_known_has_no_score_and_changes_no_other(units: np.ndarray, missing: np.ndarray):
    actual = np.full((2, N_STEPS), 5, np.float32)
    found = scored(np.where(missing, np.float32(np.nan), actual), units)
    np.testing.assert_array_equal(np.isnan(found), missing)
    np.testing.assert_array_equal(found[~missing], scored(actual, units)[~missing])
