from datetime import UTC, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from campaigns import NAMES, Campaign, campaign, captured

from features.customers import NUMBERS, customer_features, did
from features.encoding import Encoder
from features.errors import UserError
from features.home import home
from features.ingest import ingest
from features.lake import Lake
from features.seeded.tables import write
from features.shops import load_shop
from features.windows import before
from serving.artifact import Artifact, Draft, verified
from serving.uplift import UpliftScorer
from training import uplift
from training.config import BoosterConfig
from training.qini import uplift_rows
from training.uplift import UpliftConfig, best_line

QUICK = BoosterConfig(num_leaves=7, learning_rate=0.1, n_trees=60)


@pytest.fixture(scope="module")
def touches():
    return campaign(20_000)


@pytest.fixture(scope="module")
def later():
    return campaign(8000, seed=1)


@pytest.fixture(scope="module")
def models(touches):
    known = touches.rows, touches.treated, touches.bought
    return {kind: uplift.fit(*known, NAMES, UpliftConfig(model=kind)) for kind in ("s_learner", "t_learner")}


@pytest.fixture
def score(tmp_path):
    def score(model, rows):
        draft = Draft(tmp_path / "artifact")
        model.export(draft)
        return UpliftScorer.load(verified(draft.seal({"task": "uplift"}).folder)).uplift(rows)

    return score


@pytest.mark.parametrize("kind", ["s_learner", "t_learner"])
def test_the_top_fifth_captures_within_5_points_of_the_best_possible(models, kind, later, score):
    assert captured(score(models[kind], later.rows), later.effect) > 0.95


def test_what_is_promised_is_kept(models, later, score):
    promised = score(models["s_learner"], later.rows)
    for fifth in np.array_split(np.argsort(promised), 5):
        assert promised[fifth].mean() == pytest.approx(later.effect[fifth].mean(), abs=0.03)


def test_a_later_campaign_confirms_the_order(models, later, score):
    rows = uplift_rows("s_learner", "time", score(models["s_learner"], later.rows), later.treated, later.bought)
    found = {row.metric: row for row in rows}
    assert found["qini"].low > 0.01
    assert found["uplift_at_20pct"].low > found["uplift_at_100pct"].high


def test_shuffled_treatment_gives_one_uplift_and_a_qini_of_zero(score):
    rows, treated, bought, _ = campaign(3000)
    chosen = []
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(treated)
        model = uplift.fit(rows, shuffled, bought, NAMES, UpliftConfig(trees=QUICK))
        chosen.append(model.name)
        qini = uplift_rows(model.name, "time", score(model, rows), treated, bought)[0]
        assert qini.low <= 0 <= qini.high
    assert chosen.count("constant") >= 4


def test_auto_takes_the_learner_of_the_stronger_signal():
    rows, treated, bought, _ = campaign(6000)
    fitted = {
        kind: uplift.fit(rows, treated, bought, NAMES, UpliftConfig(model=kind, trees=QUICK))
        for kind in ("s_learner", "t_learner", "auto")
    }
    auto = fitted.pop("auto")
    assert auto == max(fitted.values(), key=lambda model: model.metrics["signal"])
    assert auto.metrics["signal"] > uplift.LEAST_SIGNAL


def test_a_constant_is_the_difference_of_rates(touches, later, score):
    model = uplift.fit(*touches[:3], NAMES, UpliftConfig(model="constant"))
    average = touches.bought[touches.treated].mean() - touches.bought[~touches.treated].mean()
    assert np.unique(score(model, later.rows)) == pytest.approx([average])
    assert model.texts == {}


@pytest.mark.parametrize("told", [0.5, 1.0, 2.0])
def test_the_line_undoes_an_exaggeration_and_a_shift(told):
    _, treated, bought, effect = campaign(200_000)
    held_out = np.full_like(effect, bought[~treated].mean())
    line = best_line(np.stack([held_out, held_out + told * effect + 0.1]), treated, bought)
    assert line.slope == pytest.approx(1 / told, rel=0.06)
    assert line.intercept == pytest.approx(-0.1 / told, abs=0.01)
    assert line.signal > 30


def test_a_line_that_would_fall_is_flat():
    _, treated, bought, effect = campaign(20_000)
    line = best_line(np.stack([effect, np.zeros_like(effect)]), treated, bought)
    assert line.slope == line.signal == 0
    assert line.intercept == pytest.approx(effect.mean(), abs=0.02)


def test_the_slope_of_noise_is_significant_as_often_as_it_should():
    signals = []
    for seed in range(200):
        _, treated, bought, _ = campaign(1000, seed)
        noise = np.random.default_rng(seed).normal(size=(2, 1000))
        signals.append(best_line(noise, treated, bought).signal)
    assert np.mean(np.array(signals) > uplift.LEAST_SIGNAL) == pytest.approx(0.025, abs=0.025)


def test_the_same_touches_give_the_same_model():
    known = campaign(2000)[:3]
    one, same = (uplift.fit(*known, NAMES, UpliftConfig(trees=QUICK)) for _ in range(2))
    assert one == same


def test_a_campaign_that_is_not_randomised_is_refused(touches):
    treated = np.random.default_rng(0).random(len(touches.rows)) < 1 / (1 + np.exp(-touches.rows[:, 0]))
    with pytest.raises(UserError, match="treatment is not randomised"):
        uplift.fit(touches.rows, treated, touches.bought, NAMES, UpliftConfig())


def test_an_artifact_without_its_trees_is_incomplete(models, tmp_path):
    draft = Draft(tmp_path / "artifact")
    models["t_learner"].export(draft)
    (draft.folder / "model_treated.txt").unlink()
    with pytest.raises(Exception, match=r"has no model_treated\.txt"):
        UpliftScorer.load(Artifact(draft.folder))


@pytest.fixture
def seeded_campaigns(tmp_path, monkeypatch):
    """The campaigns of a seeded shop, oldest first, with what was known of the customers who had ordered."""
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path))
    source = home() / "seeded" / "source"
    write(source, 1_000_000, with_campaigns=True)
    shop = load_shop("campaigns")
    ingest(shop)
    engine = Lake(shop).engine()
    sent = pq.read_table(source / "truth" / "campaigns.parquet").drop_columns("sent_at")
    touches = engine.select("select * from campaign_touches").join(sent, ["user_id", "campaign_id"])
    instants = sorted(set(touches["sent_at"].to_pylist()))
    return [as_known(engine, sent_at, touches) for sent_at in instants]


def as_known(engine, sent_at, touches):
    sent, as_of = touches.filter(touches["sent_at"].to_numpy() == np.datetime64(sent_at)), sent_at.replace(tzinfo=UTC)
    customers = customer_features(before(engine, as_of), as_of)
    known = sent.join(customers, "user_id", "person_id", "inner").sort_by("user_id")
    bought = did(engine, "purchase", as_of, as_of + timedelta(days=28), known["user_id"].to_pylist())
    rows = Encoder(tuple(NUMBERS), {}).matrix(known)
    return Campaign(rows, known["treated"].to_numpy(), bought, known["effect"].to_numpy())


def together(campaigns):
    return Campaign(*map(np.concatenate, zip(*campaigns, strict=True)))


@pytest.mark.slow
def test_a_seeded_shop_learns_whom_to_treat(seeded_campaigns, score):
    known, later = together(seeded_campaigns[:-3]), together(seeded_campaigns[-3:])
    model = uplift.fit(known.rows, known.treated, known.bought, [*NUMBERS], UpliftConfig())
    assert captured(score(model, later.rows), later.effect) > 0.95
