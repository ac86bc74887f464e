import numpy as np
import pytest
from campaigns import campaign
from hypothesis import given
from hypothesis import strategies as st

from training import qini
from training.qini import METRICS, counts, qini_curve, uplift_at, uplift_rows

TOUCHES = st.lists(
    st.tuples(st.sampled_from([-0.1, 0.0, 0.2, 0.3]), st.booleans(), st.booleans()), min_size=2, max_size=40
).filter(lambda rows: len({treated for _, treated, _ in rows}) == 2)


def columns(rows):
    uplift, treated, bought = zip(*rows, strict=True)
    return np.array(uplift), np.array(treated), np.array(bought)


def slow_gain(rows, least):
    """Purchases that treating every touch of at least so much predicted uplift adds, per treated touch."""
    top = [(treated, bought) for uplift, treated, bought in rows if uplift >= least]
    treated = [bought for arm, bought in top if arm]
    held_out = [bought for arm, bought in top if not arm]
    usual = sum(held_out) / len(held_out) * len(treated) if held_out else 0
    return (sum(treated) - usual) / sum(arm for _, arm, _ in rows)


@given(TOUCHES)
def test_the_curve_is_what_a_loop_over_thresholds_gives(rows):
    share, gain = qini_curve(counts(*columns(rows)))
    thresholds = sorted({uplift for uplift, _, _ in rows}, reverse=True)
    assert gain.tolist() == pytest.approx([0, *(slow_gain(rows, least) for least in thresholds)])
    assert share.tolist() == pytest.approx([0, *(np.mean([row[0] >= least for row in rows]) for least in thresholds)])


@given(TOUCHES, st.randoms())
def test_the_order_of_touches_does_not_matter(rows, random):
    shuffled = random.sample(rows, len(rows))
    for metric in METRICS.values():
        assert metric(counts(*columns(rows))) == pytest.approx(metric(counts(*columns(shuffled))))


def test_the_order_of_touches_does_not_matter_to_intervals():
    _, treated, bought, effect = campaign(500)
    order = np.random.default_rng(1).permutation(500)
    shuffled = uplift_rows("m", "time", effect[order], treated[order], bought[order])
    assert shuffled == uplift_rows("m", "time", effect, treated, bought)


def test_uplift_at_is_the_difference_of_rates_among_the_first():
    _, treated, bought, effect = campaign(1000)
    effect = effect + 1e-9 * np.arange(1000)  # no ties
    top = np.argsort(-effect)[:200]
    expected = bought[top][treated[top]].mean() - bought[top][~treated[top]].mean()
    assert uplift_at(0.2, counts(effect, treated, bought)) == pytest.approx(expected)


def test_a_constant_is_a_random_order():
    _, treated, bought, _ = campaign(1000)
    whole = counts(np.zeros(1000), treated, bought)
    average = bought[treated].mean() - bought[~treated].mean()
    assert qini.qini(whole) == pytest.approx(0)
    assert [uplift_at(share, whole) for share in (0.1, 0.5, 1.0)] == pytest.approx([average] * 3)


def test_the_true_order_has_the_largest_qini_and_its_reverse_the_smallest():
    _, treated, bought, effect = campaign(50_000)
    rng = np.random.default_rng(0)
    noises = (0.0, 0.05, 0.2, 1.0, 10.0)
    found = [qini.qini(counts(effect + noise * rng.normal(size=50_000), treated, bought)) for noise in noises]
    found.append(qini.qini(counts(-effect, treated, bought)))
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.02
    assert found[-1] < -0.02


def test_a_perfect_campaign_has_the_qini_of_its_triangle():
    """Treatment sells to the first half of a hundred, and to nobody else: a gain of 1/2 after half of the touches."""
    uplift, treated = np.repeat([1.0, 0.0], 50), np.arange(100) % 2 == 0
    whole = counts(uplift, treated, treated & (uplift > 0))
    assert qini.qini(whole) == pytest.approx(0.5 * 0.5 / 2)
    assert uplift_at(0.5, whole) == 1
    assert uplift_at(1.0, whole) == 0.5


def test_95_percent_of_intervals_hold_zero_where_treatment_is_shuffled():
    _, treated, bought, effect = campaign(1000)
    ranks = np.round(effect, 2)
    held = 0
    for seed in range(100):
        shuffled = np.random.default_rng(seed).permutation(treated)
        row = uplift_rows("m", "time", ranks, shuffled, bought)[0]
        held += row.low <= 0 <= row.high
    assert row.metric == "qini"
    assert 88 <= held <= 99


def test_every_metric_has_an_interval_around_it():
    _, treated, bought, effect = campaign(2000)
    rows = {row.metric: row for row in uplift_rows("t_learner", "time", effect, treated, bought)}
    assert set(rows) == {"qini", "uplift_at_10pct", "uplift_at_20pct", "uplift_at_30pct", "uplift_at_100pct"}
    assert all(row.low < row.value < row.high and row.n == 2000 for row in rows.values())
    assert rows["uplift_at_10pct"].low > rows["uplift_at_100pct"].high
