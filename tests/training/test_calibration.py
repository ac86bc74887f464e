import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.calibration import Calibrator, basis, log_odds, sigmoid
from training import calibration

KINDS = ("none", "logistic", "quadratic", "beta")
ANSWERS = np.linspace(0.02, 0.98, 4000)


def outcomes(truth):
    return np.random.default_rng(0).random(len(truth)) < truth


def scrambled(probability):
    """Over-confident and too high: log-odds doubled and raised."""
    return sigmoid(2 * log_odds(probability) + 0.7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_identity_is_in_every_kind(kind):
    identity = Calibrator(kind, tuple(calibration._identity(kind).tolist()))
    assert np.allclose(identity(ANSWERS), ANSWERS)


@pytest.mark.parametrize("kind", ["logistic", "quadratic", "beta"])
def test_the_fit_is_a_maximum_of_the_likelihood(kind):
    answers, outcome = scrambled(ANSWERS), outcomes(ANSWERS)
    fitted = calibration.fit_kind(kind, answers, outcome)
    residual = fitted(answers) - outcome
    assert np.abs(basis(kind, answers).T @ residual / len(residual)).max() < 1e-4


def test_a_known_distortion_is_undone():
    fitted = calibration.fit_kind("logistic", scrambled(ANSWERS), outcomes(ANSWERS))
    assert np.abs(fitted(scrambled(ANSWERS)) - ANSWERS).max() < 0.04


def test_auto_calibrates_what_is_wrong():
    answers, outcome = scrambled(ANSWERS), outcomes(ANSWERS)
    chosen = calibration.fit("auto", answers, outcome)
    assert chosen.kind != "none"
    assert calibration.log_loss(chosen(answers), outcome).mean() < calibration.log_loss(answers, outcome).mean() - 0.02


def test_auto_keeps_the_least_cross_fitted_loss():
    for truth in (ANSWERS, scrambled(ANSWERS), np.clip(ANSWERS**3, 0, 1)):
        outcome = outcomes(truth)
        chosen = calibration.cross_fitted(calibration.fit("auto", ANSWERS, outcome).kind, ANSWERS, outcome)
        assert chosen <= calibration.cross_fitted("none", ANSWERS, outcome)


def test_no_calibrator_where_it_would_only_follow_noise():
    outcome = np.arange(200) % 4 == 0
    assert calibration.fit("auto", np.full(200, 0.25), outcome).kind == "none"


def test_a_named_kind_is_obeyed():
    assert calibration.fit("beta", ANSWERS, outcomes(ANSWERS)).kind == "beta"


def test_a_curve_that_falls_is_recognised():
    assert calibration.rises(Calibrator("quadratic", (0.0, 1.0, 0.05)))
    assert not calibration.rises(Calibrator("quadratic", (0.0, 1.0, 0.5)))


def test_auto_never_reorders_customers():
    outcome = np.random.default_rng(1).random(len(ANSWERS)) < 0.1 + 3 * (ANSWERS - 0.5) ** 2
    assert calibration.rises(calibration.fit("auto", ANSWERS, outcome))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.sampled_from(KINDS))
def test_probabilities_stay_probabilities(probabilities, kind):
    calibrated = Calibrator(kind, (1.5, 1.0, 0.3)[: basis(kind, np.zeros(1)).shape[1]])(np.array(probabilities))
    assert ((calibrated >= 0) & (calibrated <= 1)).all()


def test_sigmoid_undoes_log_odds():
    assert np.allclose(sigmoid(log_odds(ANSWERS)), ANSWERS)
