import re

import numpy as np
import pytest
from campaigns import NAMES, campaign

from features.errors import UserError
from training.randomisation import require_randomised, standard_error, standardised_differences, sufficiency

N_TOUCHES = 3000


@pytest.fixture(scope="module")
def touches():
    return campaign(N_TOUCHES)


def assigned(probability):
    return np.random.default_rng(1).random(N_TOUCHES) < probability


def sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


@pytest.mark.parametrize("share", [0.5, 0.8, 0.2])
def test_random_treatment_of_any_share_passes(share):
    assert not [seed for seed in range(20) if is_refused(*campaign(N_TOUCHES, seed, share)[:3])]


def is_refused(rows, treated, bought):
    try:
        require_randomised(rows, treated, bought, NAMES)
    except UserError:
        return True
    return False


def test_treatment_by_activity_is_refused_and_activity_is_named(touches):
    treated = assigned(sigmoid(touches.rows[:, 0]))
    with pytest.raises(UserError) as refused:
        require_randomised(touches.rows, treated, touches.bought, NAMES)
    assert re.fullmatch(
        r"treatment is not randomised: who was treated can be told from the features with an AUC of 0\.7\d\d, chance "
        r"stays below 0\.5\d\d \(most apart: activity \+0\.\d\d standard deviations, .*\): give a campaign whose "
        r"held-out customers were drawn at random",
        str(refused.value),
    )


@pytest.mark.parametrize(
    "logit",
    [
        lambda rows: 0.3 * rows[:, 0],
        lambda rows: np.where(np.isnan(rows[:, 7]), 0.5, 0.0),
        lambda rows: 2 * np.sign(rows[:, 1] * rows[:, 2]),
        lambda rows: np.abs(rows[:, 3]),
    ],
    ids=["slightly", "by what is missing", "by two features at once", "by the middle of one"],
)
def test_treatment_that_depends_on_anything_known_is_refused(touches, logit):
    with pytest.raises(UserError, match="treatment is not randomised"):
        require_randomised(touches.rows, assigned(sigmoid(logit(touches.rows))), touches.bought, NAMES)


@pytest.mark.parametrize(
    ("n_treated", "n_held_out", "rate", "told"),
    [
        (3000, 0, 0.2, "of 0 held-out touches"),
        (199, 2801, 0.2, "of 199 treated touches"),
        (1500, 1500, 0.004, "6 of 1500 treated touches"),
        (1500, 1500, 1.0, "1500 of 1500 treated touches"),
    ],
)
def test_too_few_of_anything_is_refused(touches, n_treated, n_held_out, rate, told):
    treated = np.repeat([True, False], [n_treated, n_held_out])
    bought = np.arange(N_TOUCHES) % 1500 < rate * 1500
    with pytest.raises(UserError, match=f"{told} were followed by a purchase: uplift needs at least 200 touches, 20 "):
        require_randomised(touches.rows, treated, bought, NAMES)


def test_differences_are_in_standard_deviations():
    rng = np.random.default_rng(0)
    treated = rng.random(100_000) < 0.3
    rows = np.column_stack([5 + 2 * rng.normal(size=100_000) + treated, rng.random(100_000)])
    rows[rng.random(100_000) < 0.5, 1] = np.nan
    assert standardised_differences(rows, treated).tolist() == pytest.approx([0.5, 0.0], abs=0.03)


def test_the_standard_error_is_that_of_repeated_campaigns(touches):
    campaigns = [campaign(N_TOUCHES, seed) for seed in range(300)]
    averages = [each.bought[each.treated].mean() - each.bought[~each.treated].mean() for each in campaigns]
    assert standard_error(touches.treated, touches.bought) == pytest.approx(np.std(averages), rel=0.15)


def test_what_a_campaign_can_show_is_a_sentence():
    treated, bought = np.arange(20_000) % 4 > 0, np.arange(20_000) % 100 < 20
    assert sufficiency(treated, bought) == (
        "20000 touches, 5000 of them held out, show an average effect of 1.83 percentage points or more with 80 % "
        "power (standard error 0.65), and one of 4.09 among a fifth of them"
    )
