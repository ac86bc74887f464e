import subprocess
import sys

import lightgbm
import numpy as np
import orjson
import pytest

from serving.artifact import Artifact, Draft, equal
from serving.calibration import Calibrator
from serving.propensity import PropensityScorer, _reason

N_CUSTOMERS = 40
WORDS = ["ordered {} days ago", "{} orders in 28 days", "spent {} in 28 days", "orders every {} days"]
CALIBRATOR = Calibrator("logistic", (0.3, 0.8))


@pytest.fixture(scope="module")
def customers():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(1, 60, N_CUSTOMERS), rng.integers(0, 9, N_CUSTOMERS), rng.random(N_CUSTOMERS)])
    return np.column_stack([rows, np.where(rng.random(N_CUSTOMERS) < 0.3, np.nan, rng.integers(1, 30, N_CUSTOMERS))])


@pytest.fixture(scope="module")
def booster(customers):
    rng = np.random.default_rng(1)
    rows = customers[rng.integers(0, N_CUSTOMERS, 2000)]
    bought = rng.random(2000) < 1 / (1 + np.exp(0.1 * rows[:, 0] - rows[:, 1] + np.isnan(rows[:, 3])))
    settings = {"objective": "binary", "num_leaves": 7, "verbose": -1, "num_threads": 1}
    return lightgbm.train(settings, lightgbm.Dataset(rows, bought), 20)


@pytest.fixture(scope="module")
def expected(customers, booster):
    return CALIBRATOR(booster.predict(customers, num_threads=1))


@pytest.fixture(scope="module")
def artifact(customers, booster, expected, tmp_path_factory):
    draft = Draft(tmp_path_factory.mktemp("propensity") / "artifact")
    draft.text("model", booster.model_to_string())
    draft.json("ids", [f"u{number}" for number in range(N_CUSTOMERS)])
    draft.json("features", [{"name": f"f{number}", "words": words} for number, words in enumerate(WORDS)])
    draft.array("customers", customers)
    draft.array("probabilities", np.sort(expected))
    draft.json(
        "propensity",
        {
            "target": "repurchase_28d",
            "as_of": "2024-06-03T00:00:00+00:00",
            "horizon_days": 28,
            "eligible_days": 91,
            "base_rate": 0.4,
            "calibrator": {"kind": CALIBRATOR.kind, "coefficients": CALIBRATOR.coefficients},
        },
    )
    return draft.seal({"task": "propensity"})


@pytest.fixture(scope="module")
def scorer(artifact):
    return PropensityScorer.load(artifact)


def scores(scorer, *user_ids):
    return scorer.answer({"user_ids": list(user_ids)})["scores"]


def test_probabilities_are_the_calibrated_models(scorer, expected):
    found = [score["probability"] for score in scores(scorer, *scorer.person_ids)]
    assert found == pytest.approx(expected.tolist(), rel=1e-12)


def test_a_batch_is_the_same_one_by_one(scorer):
    one_by_one = [scores(scorer, person)[0] for person in scorer.person_ids]
    assert equal(scores(scorer, *scorer.person_ids), one_by_one)


def test_answers_come_in_the_order_asked_for(scorer):
    asked = ["u3", "nobody", "u1", "u3"]
    assert [score["user_id"] for score in scores(scorer, *asked)] == asked


def test_the_percentile_counts_who_is_at_most_as_likely(scorer, expected):
    for score, probability in zip(scores(scorer, *scorer.person_ids), expected, strict=True):
        assert score["percentile"] == pytest.approx(100 * (expected <= probability + 1e-9).mean(), abs=0.01)


def test_the_batch_table_is_the_answers(scorer):
    answers = scores(scorer, *scorer.person_ids)
    for row, answer in zip(scorer.table().to_pylist(), answers, strict=True):
        assert row == {name: pytest.approx(answer[name]) if name != "user_id" else answer[name] for name in row}


def test_an_unknown_customer_gets_the_base_rate_and_is_told_so(scorer):
    (score,) = scores(scorer, "nobody")
    assert (score["tier"], score["probability"]) == ("base_rate", 0.4)
    assert score["reasons"] == ["no order known in the 91 days before 2024-06-03: the average of customers"]
    assert scores(scorer, "u0")[0]["tier"] == "model"


def test_reasons_are_the_strongest_contributions(scorer, customers, booster):
    contributions = booster.predict(customers, pred_contrib=True, num_threads=1)[:, :-1]
    for score, row, moved in zip(scores(scorer, *scorer.person_ids), customers, contributions, strict=True):
        known = [column for column in np.argsort(-np.abs(moved)) if not np.isnan(row[column])]
        assert score["reasons"] == [_reason(WORDS[column], row[column], moved[column]) for column in known[:3]]


@pytest.mark.parametrize(
    ("words", "value", "contribution", "told"),
    [
        ("ordered {} days ago", 3.0, 0.5, "ordered 3 days ago (+)"),
        ("ordered {} days ago", 1.0, 0.5, "ordered 1 day ago (+)"),
        ("ordered {} days ago", 11.0, -0.5, "ordered 11 days ago (-)"),
        ("orders every {} days", 2.1, -0.5, "orders every 2.1 days (-)"),
        ("{} orders in 28 days", 1.0, -0.5, "1 order in 28 days (-)"),
        ("spent {} in 28 days", 20.0, 0.1, "spent 20 in 28 days (+)"),
    ],
)
def test_values_are_told_in_words(words, value, contribution, told):
    assert _reason(words, value, contribution) == told


def test_the_answer_names_its_target_and_instant_and_is_json(scorer):
    answer = scorer.answer({"user_ids": ["u0"]})
    assert (answer["target"], answer["as_of"]) == ("repurchase_28d", "2024-06-03T00:00:00+00:00")
    assert orjson.loads(orjson.dumps(answer)) == answer


def test_nobody_asked_for_is_nobody_answered(scorer):
    assert scores(scorer) == []


def test_it_answers_without_the_training_stack(artifact):
    script = (
        "import sys; from pathlib import Path; from serving.artifact import Artifact;"
        "from serving.propensity import PropensityScorer;"
        "PropensityScorer.load(Artifact(Path(sys.argv[1]))).answer({'user_ids': ['u0', 'x']});"
        "assert not {'pandas', 'lightgbm', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(artifact.folder)], check=True)


def test_loading_reads_arrays_in_place(artifact):
    assert isinstance(PropensityScorer.load(Artifact(artifact.folder))._customers, np.memmap)
