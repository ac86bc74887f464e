import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from features import contract
from features.customers import FEATURES
from features.engine import duckdb_engine, empty
from features.errors import UserError
from features.windows import before, time_window
from serving.artifact import Artifact, Draft, replay, verified
from serving.propensity import PropensityScorer
from training import propensity
from training.classification import METRICS
from training.config import BoosterConfig
from training.propensity import PropensityConfig

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
AS_OF = FIRST_DAY + timedelta(days=240)
HORIZON = timedelta(days=28)
CONFIG = PropensityConfig(n_snapshots=10, trees=BoosterConfig(num_leaves=4, min_data_in_leaf=50, n_trees=60))
N_CUSTOMERS = 300


def purchases(n_customers=N_CUSTOMERS, n_days=268):
    """Half of the customers buy about weekly, half about every two months; who is who stays."""
    rng = np.random.default_rng(0)
    rate = np.where(np.arange(n_customers) % 2 == 0, 1 / 7, 1 / 60)
    days, customers = np.nonzero(rng.random((n_days, n_customers)) < rate)
    return pa.table(
        {
            "event_id": [f"e{number}" for number in range(len(days))],
            "event_name": ["purchase"] * len(days),
            "event_timestamp": np.datetime64("2024-01-01T12", "us") + days.astype("timedelta64[D]"),
            "user_id": [f"u{customer:03}" for customer in customers],
            "item_id": ["i1"] * len(days),
            "transaction_id": [f"t{number}" for number in range(len(days))],
            "price": np.full(len(days), 5.0),
        }
    )


def shop(events):
    missing = empty(contract.EVENTS)
    columns = {
        name: events[name] if name in events.column_names else pa.nulls(len(events), missing.schema.field(name).type)
        for name in missing.column_names
    }
    return duckdb_engine(memory_limit="1GB", threads=1).bind(events=pa.table(columns))


@pytest.fixture(scope="module")
def engine():
    return shop(purchases())


@pytest.fixture(scope="module")
def window(engine):
    return time_window(engine, AS_OF, AS_OF + HORIZON)


@pytest.fixture(scope="module")
def model(window):
    return propensity.fit(window.past, AS_OF, CONFIG)


@pytest.fixture(scope="module")
def artifact(model, tmp_path_factory):
    draft = Draft(tmp_path_factory.mktemp("propensity") / "artifact")
    model.export(draft)
    draft.golden(PropensityScorer.load, model.golden_requests())
    return draft.seal({"task": "propensity"})


@pytest.fixture(scope="module")
def rows(artifact, window):
    scorer = PropensityScorer.load(artifact)
    return {(row.model, row.metric): row for row in propensity.evaluate(scorer, window, CONFIG, "time")}


def test_the_model_beats_the_base_rate(rows):
    assert rows["trees", "log_loss"].high < rows["base_rate", "log_loss"].low
    assert rows["trees", "auc"].low > 0.8
    assert rows["base_rate", "auc"].value == 0.5


def test_promises_are_kept(rows):
    assert rows["trees", "predicted_over_observed"].value == pytest.approx(1, abs=0.1)


def test_every_metric_of_both_models_has_an_interval_but_the_calibration_error(rows, model):
    assert set(rows) == {(model, metric) for model in ("trees", "base_rate") for metric in METRICS}
    assert {key[1] for key, row in rows.items() if row.low is None} == {"ece_15"}
    assert all(row.low <= row.value <= row.high for row in rows.values() if row.low is not None)
    assert {(row.split, row.n) for row in rows.values()} == {("time", len(model.person_ids))}


def test_probabilities_come_near_the_truth(artifact):
    table = PropensityScorer.load(artifact).table().to_pydict()
    rare = np.array([int(user_id[1:]) % 2 == 1 for user_id in table["user_id"]])
    probability = np.array(table["probability"])
    assert probability[~rare].mean() == pytest.approx(1 - (1 - 1 / 7) ** 28, abs=0.05)
    assert probability[rare].mean() == pytest.approx(1 - (1 - 1 / 60) ** 28, abs=0.1)


def test_the_artifact_answers_as_it_did_at_export(artifact):
    replay(verified(artifact.folder), PropensityScorer.load(Artifact(artifact.folder)))


def test_what_comes_after_the_cut_off_does_not_reach_the_fit(engine, model):
    assert propensity.fit(before(engine, AS_OF), AS_OF, CONFIG).text == model.text
    later = purchases().to_pandas()
    changed = later[later.event_timestamp < "2024-08-28"]
    assert propensity.fit(shop(pa.Table.from_pandas(changed, preserve_index=False)), AS_OF, CONFIG).text == model.text


def test_slices_never_share_an_outcome(window):
    snapshots = list(propensity._snapshots(window.past, AS_OF, CONFIG))
    stopping, fitting = propensity._slices(snapshots, AS_OF, CONFIG)
    assert snapshots[0].as_of + HORIZON == AS_OF
    assert stopping.as_of + HORIZON <= snapshots[0].as_of
    assert max(snapshot.as_of for snapshot in fitting) + HORIZON <= stopping.as_of


def test_the_base_rate_is_that_of_the_training_labels(window, model):
    snapshots = list(propensity._snapshots(window.past, AS_OF, CONFIG))
    assert model.base_rate == pytest.approx(np.concatenate([snapshot.bought for snapshot in snapshots]).mean())
    assert [snapshot.rows.shape[1] for snapshot in snapshots] == [len(FEATURES)] * CONFIG.n_snapshots


def test_customers_who_have_not_bought_for_long_are_not_modelled(window):
    lately = CONFIG.model_copy(update={"eligible_days": 28})
    ids = propensity.fit(window.past, AS_OF, lately).person_ids
    assert 150 < len(ids) < 250
    assert ids == sorted(ids)


@pytest.mark.parametrize("days", [0, 20, 70])
def test_a_short_history_is_refused(engine, days):
    with pytest.raises(UserError, match="do not span three horizons of 28 days"):
        propensity.fit(engine, FIRST_DAY + timedelta(days=days), CONFIG)


def test_too_few_outcomes_are_counted():
    with pytest.raises(UserError, match=r"of 12 customers .* at least 20 of each"):
        propensity.fit(shop(purchases(n_customers=12)), AS_OF, CONFIG)


def test_a_window_of_another_instant_is_refused(artifact, engine):
    scorer = PropensityScorer.load(artifact)
    with pytest.raises(UserError, match="answers for 28 days from 2024-08-28"):
        propensity.evaluate(scorer, time_window(engine, FIRST_DAY, AS_OF), CONFIG, "time")
    with pytest.raises(UserError, match="evaluate on a window"):
        propensity.evaluate(scorer, time_window(engine, AS_OF, AS_OF + HORIZON / 2), CONFIG, "time")


def test_the_recommended_configuration_is_the_default():
    path = Path(propensity.__file__).parents[1] / "configs" / "propensity" / "best.toml"
    assert PropensityConfig(**tomllib.loads(path.read_text())) == PropensityConfig()
