import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import classification
from training.classification import METRICS

SAMPLES = st.lists(
    st.tuples(st.sampled_from([0.05, 0.2, 0.5, 0.8, 0.95]), st.booleans()), min_size=2, max_size=40
).filter(lambda rows: len({outcome for _, outcome in rows}) == 2)


def measured(metric, probability, outcome):
    levels, level_of = classification.levels(probability)
    return METRICS[metric](levels, *classification.counts(level_of, outcome, len(levels)))


def arrays(rows):
    return np.array([probability for probability, _ in rows]), np.array([outcome for _, outcome in rows])


@given(SAMPLES)
def test_row_means(rows):
    probability, outcome = arrays(rows)
    likelihood = np.where(outcome, probability, 1 - probability)
    assert measured("log_loss", probability, outcome) == pytest.approx(-np.log(likelihood).mean())
    assert measured("brier", probability, outcome) == pytest.approx(((probability - outcome) ** 2).mean())
    assert measured("predicted_over_observed", probability, outcome) == pytest.approx(probability.sum() / outcome.sum())


@given(SAMPLES)
def test_auc_is_the_share_of_pairs_in_order(rows):
    probability, outcome = arrays(rows)
    pairs = [
        (above > below) + (above == below) / 2 for above in probability[outcome] for below in probability[~outcome]
    ]
    assert measured("auc", probability, outcome) == pytest.approx(np.mean(pairs))


@given(SAMPLES)
def test_pr_auc_is_average_precision(rows):
    probability, outcome = arrays(rows)
    precision = [outcome[probability >= threshold].mean() for threshold in probability[outcome]]
    assert measured("pr_auc", probability, outcome) == pytest.approx(np.mean(precision))


@given(SAMPLES, st.sampled_from(sorted(METRICS)), st.randoms())
def test_the_order_of_rows_does_not_matter(rows, metric, random):
    shuffled = random.sample(rows, len(rows))
    assert measured(metric, *arrays(shuffled)) == pytest.approx(measured(metric, *arrays(rows)))


def test_lift_of_a_perfect_ranking_and_of_a_constant():
    outcome = np.arange(100) < 20
    assert measured("lift_at_10pct", np.linspace(1, 0, 100), outcome) == pytest.approx(5.0)
    assert measured("lift_at_10pct", np.full(100, 0.2), outcome) == pytest.approx(1.0)


def test_calibration_error_of_two_bins():
    probability, outcome = np.repeat([0.9, 0.1], 50), np.tile([True, False], 50)
    assert measured("ece_15", probability, outcome) == pytest.approx(0.4)
    assert measured("ece_15", np.full(100, 0.5), outcome) == pytest.approx(0.0)


def test_calibration_error_has_15_bins_of_equal_size():
    probability = np.linspace(0.01, 0.99, 150)
    outcome = np.arange(150) % 2 == 0
    rank = np.argsort(np.argsort(-probability))
    bins = [rank // 10 == number for number in range(15)]
    expected = sum(abs((probability[chosen] - outcome[chosen]).sum()) for chosen in bins) / 150
    assert measured("ece_15", probability, outcome) == pytest.approx(expected)


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("outcome", [np.zeros(5, bool), np.ones(5, bool)])
def test_a_sample_of_one_outcome_is_measured(metric, outcome):
    assert np.isfinite(measured(metric, np.linspace(0.1, 0.9, 5), outcome))
