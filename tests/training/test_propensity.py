"""Targets of propensity: fitted on matured examples, judged on the truth, exported as they were fitted."""

import tomllib
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from features import contract
from features.customers import NUMBERS
from features.encoding import Encoder
from features.engine import duckdb_engine, empty
from features.errors import UserError
from features.targets import Examples, Target
from features.units import UNITS
from features.windows import before, time_window
from serving.artifact import Artifact, Draft, replay, verified
from serving.propensity import PropensityScorer
from serving.trees import Trees
from training import classification
from training.classification import METRICS
from training.config import CONFIG_FOLDER, BoosterConfig, configurations, load_config
from training.families import family
from training.propensity import evaluation, fit, logistic
from training.propensity.boosting import Learner
from training.propensity.config import ModelConfig, PropensityConfig
from training.propensity.monitor import monitor
from training.propensity.slices import slices

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
AS_OF = FIRST_DAY + timedelta(days=240)
WINDOW = timedelta(days=28)
N_CUSTOMERS = 300
N_DAYS = 268
TREES = BoosterConfig(num_leaves=4, min_data_in_leaf=50, n_trees=60)
CONFIG = PropensityConfig(
    targets={
        "repurchase": Target(unit="user"),
        "churn": Target(unit="user", happens=False, horizon_days=21),
        "category": Target(unit="user_category", horizon_days=14),
        "response": Target(unit="touch", horizon_days=7),
        "visit": Target(unit="session"),
    },
    models={
        name: ModelConfig(trees=TREES, span_days=150)
        for name in ("repurchase", "churn", "category", "response", "visit")
    },
)
ONE = PropensityConfig(targets={"repurchase": Target(unit="user")}, models={"repurchase": ModelConfig(trees=TREES)})


def log(n_customers=N_CUSTOMERS, n_days=N_DAYS):
    """Half of the customers buy about weekly, half about every two months; each order follows a visit with a cart."""
    rng = np.random.default_rng(0)
    rate = np.where(np.arange(n_customers) % 2 == 0, 1 / 7, 1 / 60)
    days, customers = np.nonzero(rng.random((n_days, n_customers)) < rate)
    bought = visit(days, customers, "purchase", 3)
    looked = [visit(days, customers, "view_item", 1), visit(days, customers, "add_to_cart", 2)]
    days, customers = np.nonzero(rng.random((n_days, n_customers)) < 1 / 30)
    looked.append(visit(days, customers, "view_item", 10))
    table = pa.concat_tables([bought, *looked])
    return table.append_column("event_id", pa.array([f"e{number}" for number in range(table.num_rows)]))


def visit(days, customers, name, minute):
    orders = days * 1000 + customers
    at = np.datetime64("2024-01-01T12", "us") + days.astype("timedelta64[D]") + np.timedelta64(minute, "m")
    return pa.table(
        {
            "event_name": [name] * len(days),
            "event_timestamp": at,
            "user_id": [f"u{customer:03}" for customer in customers],
            "item_id": [f"i{customer % 3}" for customer in customers],
            "transaction_id": pa.array([f"t{n}" if name == "purchase" else None for n in orders], pa.string()),
            "price": np.full(len(days), 5.0),
        }
    )


def touches():
    rows = [
        {
            "user_id": f"u{customer:03}",
            "campaign_id": f"c{day}",
            "sent_at": FIRST_DAY.replace(tzinfo=None) + timedelta(day),
        }
        for day in range(30, N_DAYS, 10)
        for customer in range(0, N_CUSTOMERS, 3)
    ]
    return pa.Table.from_pylist(rows, schema=empty(contract.CAMPAIGN_TOUCHES).schema)


def whole(table, rows):
    schema = empty(table).schema
    columns = [rows[n] if n in rows.column_names else pa.nulls(len(rows), schema.field(n).type) for n in schema.names]
    return pa.Table.from_arrays([column.cast(f.type) for column, f in zip(columns, schema, strict=True)], schema=schema)


def shop(events, sent=None):
    items = pa.table({"item_id": ["i0", "i1", "i2"], "item_category": ["food", "toys", "books"]})
    engine = duckdb_engine(memory_limit="1GB", threads=1)
    bound = engine.bind(events=whole(contract.EVENTS, events), items=whole(contract.ITEMS, items))
    return bound.bind(campaign_touches=touches() if sent is None else sent)


@pytest.fixture(scope="module")
def engine():
    return shop(log())


@pytest.fixture(scope="module")
def window(engine):
    return time_window(engine, AS_OF, AS_OF + WINDOW)


@pytest.fixture(scope="module")
def model(window):
    return fit.fit(window.past, AS_OF, CONFIG)


@pytest.fixture(scope="module")
def artifact(model, tmp_path_factory):
    draft = Draft(tmp_path_factory.mktemp("propensity") / "artifact")
    model.export(draft)
    draft.golden(PropensityScorer.load, model.golden_requests())
    return draft.seal({"task": "propensity"})


@pytest.fixture(scope="module")
def scorer(artifact):
    return PropensityScorer.load(artifact)


@pytest.fixture(scope="module")
def rows(scorer, window):
    found = evaluation.evaluate(scorer, window, CONFIG, "time")
    return {(row.model, row.segment, row.metric): row for row in found}


@pytest.mark.parametrize("name", CONFIG.targets)
def test_every_target_beats_its_base_rate(rows, name):
    assert rows[name, "all", "log_loss"].value < rows[f"{name} base_rate", "all", "log_loss"].low
    assert rows[name, "all", "auc"].low > 0.6
    assert rows[f"{name} base_rate", "all", "auc"].value == 0.5


@pytest.mark.parametrize("name", CONFIG.targets)
def test_promises_are_kept(rows, name):
    assert rows[name, "all", "predicted_over_observed"].value == pytest.approx(1, abs=0.15)


def test_every_metric_has_an_interval_but_the_calibration_error(rows):
    judged = {metric for _, _, metric in rows} - {evaluation.GATE}
    assert judged == set(METRICS)
    without = {metric for (_, _, metric), row in rows.items() if row.low is None}
    assert without == {"ece_15"}
    assert all(row.low <= row.value <= row.high for row in rows.values() if row.low is not None)


def test_the_gate_is_the_mean_of_what_each_target_leaves_of_its_base_rates_loss(rows):
    shares = [
        rows[name, "all", "log_loss"].value / rows[f"{name} base_rate", "all", "log_loss"].value
        for name in CONFIG.targets
    ]
    assert rows["propensity", "all", evaluation.GATE].value == pytest.approx(np.mean(shares))


def test_visits_are_judged_by_step_and_all_by_week(rows):
    segments = {segment for model, segment, _ in rows if model == "visit"}
    assert {"all", "step 1"} <= segments
    assert sum(segment.startswith("week") for segment in segments) == 4
    assert not any(segment.startswith("week") for model, segment, _ in rows if model == "visit base_rate")


def test_probabilities_come_near_the_truth(scorer):
    table = scorer.targets["repurchase"].table().to_pydict()
    rare = np.array([int(user_id[1:]) % 2 == 1 for user_id in table["user_id"]])
    probability = np.array(table["probability"])
    assert probability[~rare].mean() == pytest.approx(1 - (1 - 1 / 7) ** 28, abs=0.05)
    assert probability[rare].mean() == pytest.approx(1 - (1 - 1 / 60) ** 28, abs=0.1)


def test_the_artifact_answers_as_it_did_at_export(artifact):
    assert len(artifact.json("golden")) == len(CONFIG.targets)
    replay(verified(artifact.folder), PropensityScorer.load(Artifact(artifact.folder)))


def test_what_comes_after_the_cut_off_does_not_reach_the_fit(engine, model):
    def texts(engine):
        found = fit.fit(before(engine, AS_OF), AS_OF, CONFIG)
        return {name: each.learned.boosted.text for name, each in found.fits.items()}

    known = log().filter(pc.less(log()["event_timestamp"], pa.scalar(AS_OF.replace(tzinfo=None))))
    sent = touches().filter(pc.less(touches()["sent_at"], pa.scalar(AS_OF.replace(tzinfo=None))))
    fitted = {name: each.learned.boosted.text for name, each in model.fits.items()}
    assert texts(engine) == texts(shop(known, sent)) == fitted


@pytest.mark.parametrize("name", CONFIG.targets)
def test_shuffled_outcomes_teach_nothing(window, name):
    """A leak would show as an order that survives: features that know outcomes, or rows on both sides of a cut."""
    target = CONFIG.targets[name]
    found = UNITS[target.unit].examples(window.past, target, AS_OF - timedelta(days=150), AS_OF, timedelta(days=14))
    shuffled = np.random.default_rng(0).permutation(found.outcome)
    parts = slices(Examples(found.table, found.moment, found.matured, shuffled))
    encoder = Encoder.fitted(found.table, list(UNITS[target.unit].numbers), list(UNITS[target.unit].texts))
    learner = Learner(CONFIG.model(name), encoder.n_levels)
    rows, held = encoder.matrix(found.table), shuffled[parts.calibrating]
    trees = Trees.from_text(learner.fit(rows[parts.before], shuffled[parts.before], 50).text)
    levels, level_of = classification.levels(trees.predict(rows[parts.calibrating]))
    auc = classification.auc(levels, *classification.counts(level_of, held, len(levels)))
    assert auc == pytest.approx(0.5, abs=4 * np.sqrt(len(held) / (12 * held.sum() * (~held).sum())))


@pytest.mark.parametrize("name", CONFIG.targets)
def test_slices_never_share_an_outcome(window, name):
    target = CONFIG.targets[name]
    found = UNITS[target.unit].examples(window.past, target, AS_OF - timedelta(days=150), AS_OF, timedelta(days=14))
    parts = slices(found)
    assert found.matured[parts.fitting].max() <= found.moment[parts.stopping].min()
    assert found.matured[parts.before].max() <= found.moment[parts.calibrating].min()
    assert found.matured.max() <= np.datetime64(AS_OF.replace(tzinfo=None))
    assert parts.calibrating.mean() >= 0.15


@pytest.mark.parametrize("name", CONFIG.targets)
def test_examples_do_not_depend_on_what_came_after_them(engine, name):
    """Those asked before a moment, with outcomes certain by then, are the same when the log goes on."""
    target, since, until = CONFIG.targets[name], AS_OF - timedelta(days=84), AS_OF
    unit = UNITS[target.unit]
    part = unit.examples(before(engine, until), target, since, until, timedelta(days=14))
    after = unit.examples(engine, target, since, until, timedelta(days=14))
    assert part.table.equals(after.table)
    assert (part.outcome == after.outcome).all()


@pytest.mark.parametrize("name", CONFIG.targets)
def test_a_number_of_examples_is_reached_from_the_newest_back(window, name):
    target, since, step = CONFIG.targets[name], AS_OF - timedelta(days=150), timedelta(days=14)
    unit = UNITS[target.unit]
    found = unit.examples(window.past, target, since, AS_OF, step)
    few = unit.examples(window.past, target, since, AS_OF, step, len(found) // 3)
    newest = found.take(found.moment >= few.moment.min())
    assert len(found) // 5 <= len(few) < len(found)
    assert few.table.equals(newest.table)
    assert (few.outcome == newest.outcome).all()


def test_uncertain_outcomes_are_left_out_and_counted(engine):
    target = CONFIG.targets["response"]
    until = AS_OF - timedelta(days=5)
    found = UNITS["touch"].examples(engine, target, AS_OF - timedelta(days=20), until, timedelta(days=14))
    assert found.n_censored == 100
    assert len(found) == 100
    assert found.moment.max() <= np.datetime64("2024-08-16")


def test_churn_is_what_repurchase_is_not(window):
    step, since = timedelta(days=14), AS_OF - timedelta(days=84)
    bought = UNITS["user"].examples(window.past, Target(unit="user"), since, AS_OF, step)
    left = UNITS["user"].examples(window.past, Target(unit="user", happens=False), since, AS_OF, step)
    assert (bought.outcome == ~left.outcome).all()
    assert 0.2 < left.outcome.mean() < 0.4


def test_the_base_rate_is_that_of_the_examples(window, model):
    found = UNITS["user"].examples(
        window.past, CONFIG.targets["repurchase"], AS_OF - timedelta(days=150), AS_OF, timedelta(days=14)
    )
    assert model.fits["repurchase"].base_rate == pytest.approx(found.outcome.mean())
    assert len(model.fits["repurchase"].encoder.names) == len(NUMBERS)


def test_only_the_newest_examples_are_taken(window):
    few = ModelConfig(trees=TREES, span_days=150, most_examples=1500)
    found = fit.fit_target(window.past, AS_OF, CONFIG.targets["repurchase"], few)
    assert 1000 < found.learned.metrics["n_examples"] <= 1500


def test_customers_who_have_not_bought_for_long_are_not_asked(window):
    lately = CONFIG.targets["repurchase"].model_copy(update={"eligible_days": 28})
    ids = fit.fit_target(window.past, AS_OF, lately, ONE.model("repurchase")).asked["person_id"].to_pylist()
    assert 150 < len(ids) < 250
    assert ids == sorted(ids)


def test_guests_teach_but_are_in_no_audience(window):
    events = log()
    guest = pc.is_in(events["user_id"], pa.array(["u000", "u001"]))
    devices, nobody = pc.if_else(guest, events["user_id"], None), pc.if_else(guest, None, events["user_id"])
    events = events.set_column(events.column_names.index("user_id"), "user_id", nobody)
    unnamed = shop(events.append_column("user_pseudo_id", devices))
    target, config = CONFIG.targets["repurchase"], ONE.model("repurchase")
    found, all_named = (fit.fit_target(before(each, AS_OF), AS_OF, target, config) for each in (unnamed, window.past))
    assert found.learned.metrics["n_examples"] == all_named.learned.metrics["n_examples"]
    left_out = set(all_named.asked["person_id"].to_pylist()) - set(found.asked["person_id"].to_pylist())
    assert left_out == {"u000", "u001"}


def test_trees_may_start_from_a_regression(window):
    config = ModelConfig(trees=TREES, span_days=150, start="regression")
    found = fit.fit_target(window.past, AS_OF, CONFIG.targets["repurchase"], config)
    assert found.learned.boosted.start is not None
    assert found.learned.metrics["calibration_log_loss"] < 0.6


def test_a_target_that_cannot_be_fitted_is_absent_with_its_reason(engine, tmp_path):
    config = PropensityConfig(targets={"rare": Target(unit="user", event="refund"), **ONE.targets}, models=ONE.models)
    model = fit.fit(engine, AS_OF, config)
    assert list(model.fits) == ["repurchase"]
    assert "0 had the outcome" in model.absent["rare"]
    draft = Draft(tmp_path / "artifact")
    model.export(draft)
    with pytest.raises(UserError, match=r"named rare: of .* examples"):
        PropensityScorer(Artifact(draft.folder)).answer({"target": "rare", "user_ids": ["u"]})


@pytest.mark.parametrize("days", [0, 20, 70])
def test_a_short_history_is_refused(engine, days):
    with pytest.raises(UserError, match=r"repurchase: of .* examples for .* had the outcome"):
        fit.fit(engine, FIRST_DAY + timedelta(days=days), ONE)


def test_a_window_of_another_instant_is_refused(scorer, engine):
    with pytest.raises(UserError, match="answers from 2024-08-28"):
        evaluation.evaluate(scorer, time_window(engine, FIRST_DAY, AS_OF), CONFIG, "time")
    with pytest.raises(UserError, match="raise window_days"):
        evaluation.evaluate(scorer, time_window(engine, AS_OF, AS_OF + WINDOW / 100), CONFIG, "time")


def test_a_target_that_cannot_be_judged_yet_counts_as_knowing_nothing(scorer, engine):
    found = evaluation.evaluate(scorer, time_window(engine, AS_OF, AS_OF + timedelta(days=15)), CONFIG, "time")
    judged = {row.model for row in found if row.metric == "log_loss" and row.segment == "all"} & set(CONFIG.targets)
    assert judged == {"category", "response", "visit"}
    assert 0.4 < found[0].value < 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"targets": {"x": {"unit": "shop"}}}, "user_category"),
        ({"targets": {"x": {"unit": "user", "event": "sneeze"}}}, "it is one of page_view"),
        ({"targets": {"a b": {"unit": "user"}}}, "name it in letters"),
        ({"targets": {}}, "at least 1"),
        ({"targets": {"x": {"unit": "user"}}, "models": {"y": {}}}, "models.y has no target; targets are x"),
    ],
)
def test_a_wrong_configuration_is_told_why(content, message):
    with pytest.raises(ValueError, match=message):
        PropensityConfig.model_validate(content)


def test_every_shipped_configuration_names_known_targets():
    for path in configurations("propensity"):
        config = load_config(PropensityConfig, "propensity", path)
        assert set(config.models) <= set(config.targets), path
    assert (CONFIG_FOLDER / "propensity" / "best.toml").is_file()
    assert tomllib.loads((CONFIG_FOLDER / "propensity" / "best.toml").read_text())["targets"]["repurchase_28d"]


def test_a_version_that_holds_passes_no_limit_of_level(scorer, engine):
    findings = monitor(scorer, engine, CONFIG, AS_OF + WINDOW)
    levels = [each for each in findings if not each.measure.startswith("stability")]
    assert {each.target for each in findings} == set(CONFIG.targets)
    assert {each.measure for each in levels} == {"predicted_over_observed", "rate_over_base_rate"}
    assert not any(each.is_past for each in levels)


def test_a_shop_where_nobody_buys_any_more_is_past_its_limits(scorer):
    cut = pa.scalar(AS_OF.replace(tzinfo=None), pa.timestamp("us"))
    events = log()
    closed = shop(
        events.filter(pc.or_(pc.less(events["event_timestamp"], cut), pc.equal(events["event_name"], "view_item")))
    )
    past = {(each.target, each.measure) for each in monitor(scorer, closed, CONFIG, AS_OF + WINDOW) if each.is_past}
    assert ("repurchase", "predicted_over_observed") in past
    assert ("visit", "rate_over_base_rate") in past


def test_before_any_outcome_is_certain_monitoring_says_so(scorer, engine):
    findings = monitor(scorer, engine, CONFIG, AS_OF + timedelta(days=3))
    (told,) = [each for each in findings if each.target == "repurchase"]
    assert (told.measure, told.value, told.is_past) == ("outcomes certain since training", 0.0, False)


def test_a_version_answers_the_targets_of_another_as_it_would_fit_them():
    paths = (CONFIG_FOLDER / "propensity" / f"{name}.toml" for name in ("best", "campaigns"))
    ours, other = (load_config(PropensityConfig, "propensity", path).model_dump(mode="json") for path in paths)
    question = {key: other[key] for key in ("window_days", "targets")}
    asked = PropensityConfig.model_validate(family("propensity").recipe(ours, question))
    assert asked.targets.keys() == other["targets"].keys()
    assert asked.window_days == other["window_days"]
    assert asked.models.keys() == {"repurchase_28d"}
    assert asked.model("repurchase_28d").model_dump(mode="json") == ours["models"]["repurchase_28d"]


def test_the_newest_examples_are_taken_also_when_one_moment_has_more():
    n = 300
    moment = np.repeat(np.array(["2024-01-01", "2024-01-02", "2024-01-03"], "datetime64[us]"), 100)
    every = Examples(pa.table({"x": range(n)}), moment, moment, np.zeros(n, bool), 5)
    for most in (50, 100, 150, 300):
        found = fit._newest(every, most)
        assert (len(found), found.n_censored) == (most, 5)
        assert found.moment.min() == np.sort(moment)[-most]


def test_a_regression_does_not_learn_from_what_never_varied():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=1000), np.full(1000, 12.0)])
    regression = logistic.fit(rows, rng.random(1000) < 0.5, range(2), [0, 0])
    other = rows.copy()
    other[:, 1] = 13.0
    np.testing.assert_allclose(regression.probabilities(other), regression.probabilities(rows), rtol=1e-6)
