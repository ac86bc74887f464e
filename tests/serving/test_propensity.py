import subprocess
import sys

import lightgbm
import numpy as np
import orjson
import pytest

from features.customers import NUMBERS as CUSTOMER_NUMBERS
from features.errors import UserError
from features.sessions import NUMBERS, TEXTS
from serving.artifact import Artifact, Draft, equal
from serving.calibration import Calibrator
from serving.propensity import PropensityScorer, expected_on, number_in_words
from serving.regression import Regression
from serving.scales import Scales
from serving.schema import SessionRequest

N_CUSTOMERS = 40
WORDS = ["ordered {} days ago", "{} orders in 28 days", "spent {} in 28 days", "orders every {} days"]
CALIBRATOR = Calibrator("logistic", (0.3, 0.8))
AS_OF = "2024-06-03T00:00:00+00:00"
SUFFICIENCY = {
    "enough": True,
    "verdict": "enough",
    "n_examples": 9,
    "n_rarer_outcomes": 4,
    "n_days": 9,
    "n_censored": 0,
}
EVENT_NAMES = ("view_item", "add_to_cart")


def trees(rows, outcome, texts=()):
    settings = {"objective": "binary", "num_leaves": 7, "verbose": -1, "num_threads": 1}
    return lightgbm.train(settings, lightgbm.Dataset(rows, outcome, categorical_feature=list(texts)), 20)


def write(draft, name, unit, features, booster, rows, keys, calibrator=CALIBRATOR, start=None):
    facts = {
        "unit": unit,
        "as_of": AS_OF,
        "horizon_days": 28,
        "eligible_days": 91,
        "base_rate": 0.4,
        "calibrator": {"kind": calibrator.kind, "coefficients": calibrator.coefficients},
        "starts_from_regression": start is not None,
        "network_share": 0.0,
        "sufficiency": SUFFICIENCY,
    }
    draft.json(name, facts)
    draft.json(f"{name}.features", features)
    draft.text(f"{name}.model", booster.model_to_string())
    draft.json(f"{name}.keys", keys)
    draft.array(f"{name}.rows", rows)
    draft.array(
        f"{name}.percentiles", np.sort(calibrator(booster.predict(rows))) if len(rows) else np.linspace(0, 1, 9)
    )
    if start is not None:
        start.save(draft, f"{name}.start")


@pytest.fixture(scope="module")
def customers():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(1, 60, N_CUSTOMERS), rng.integers(0, 9, N_CUSTOMERS), rng.random(N_CUSTOMERS)])
    return np.column_stack([rows, np.where(rng.random(N_CUSTOMERS) < 0.3, np.nan, rng.integers(1, 30, N_CUSTOMERS))])


@pytest.fixture(scope="module")
def booster(customers):
    rng = np.random.default_rng(1)
    rows = customers[rng.integers(0, N_CUSTOMERS, 2000)]
    return trees(rows, rng.random(2000) < 1 / (1 + np.exp(0.1 * rows[:, 0] - rows[:, 1] + np.isnan(rows[:, 3]))))


@pytest.fixture(scope="module")
def expected(customers, booster):
    return CALIBRATOR(booster.predict(customers, num_threads=1))


@pytest.fixture(scope="module")
def regression():
    scales = Scales(np.arange(4), np.full(4, 2.0), np.full(4, 1.0), np.full(4, 0.5))
    coefficients = np.array([-0.5, 0.4, 0.1, -0.3, 0.2, 0.1, 0.0, 0.7, -0.2])
    return Regression(scales, np.zeros(0, int), np.zeros(0, int), coefficients)


@pytest.fixture(scope="module")
def visits():
    """Trees that know a visit by its carts and its latest step."""
    rng = np.random.default_rng(2)
    rows = np.full((4000, len(NUMBERS) + len(TEXTS)), np.nan)
    carts, step = list(NUMBERS).index("n_carts"), len(NUMBERS)
    rows[:, carts], rows[:, step] = rng.integers(0, 3, 4000), rng.integers(0, 2, 4000)
    return trees(rows, rng.random(4000) < 0.1 + 0.2 * rows[:, carts] + 0.2 * rows[:, step], [step])


@pytest.fixture(scope="module")
def artifact(customers, booster, regression, visits, tmp_path_factory):
    draft = Draft(tmp_path_factory.mktemp("propensity") / "artifact")
    user_ids = [f"u{number}" for number in range(N_CUSTOMERS)]
    told = [{"name": f"f{number}", "words": words, "levels": None} for number, words in enumerate(WORDS)]
    named = [*told[:3], {"name": "medium", "words": "came by {}", "levels": [str(number) for number in range(30)]}]
    pairs = {"person_id": [f"u{number // 4}" for number in range(N_CUSTOMERS)], "category": [*"abcd"] * 10}
    write(draft, "repurchase_28d", "user", told, booster, customers, {"person_id": user_ids})
    write(draft, "category", "user_category", told, booster, customers, pairs)
    write(draft, "response", "touch", told, booster, customers, {"user_id": user_ids}, start=regression)
    write(draft, "texts", "user", named, booster, customers, {"person_id": user_ids})
    seen = [{"name": name, "words": words, "levels": None} for name, words in NUMBERS.items()]
    seen += [{"name": n, "words": w, "levels": [*EVENT_NAMES] if n == "event_name" else []} for n, w in TEXTS.items()]
    write(draft, "session", "session", seen, visits, np.empty((0, len(seen))), {"visitor_id": []}, Calibrator())
    items = {"item_id": ["i"], "category": ["food"], "price": [2.0]}
    weeks = ("n_views_4w", "n_carts_4w", "n_purchases_4w", "n_purchases_1w", "mean_price_4w", "on_hand")
    draft.json("session.items", items | {name: [4] for name in weeks})
    totals = {"n_visits": [3], "n_views": [6], "n_carted_visits": [2], "n_orders": [1]}
    totals |= {"spend": [9.0], "ordered_us": [0], "seen_us": [0]}
    draft.json("session.people", {"person_id": ["ann"], **totals, "transaction_id": ["t"]})
    targets = ["repurchase_28d", "category", "response", "texts", "session"]
    draft.json("session.owners", {"device_id": ["anns_phone"], "person_id": ["ann"]})
    draft.json("propensity", {"targets": targets, "absent": {"churn": "of 3 examples none had the outcome"}})
    return draft.seal({"task": "propensity"})


@pytest.fixture(scope="module")
def scorer(artifact):
    return PropensityScorer.load(artifact)


def scores(scorer, *user_ids, target="repurchase_28d"):
    return scorer.answer({"target": target, "user_ids": list(user_ids)})["scores"]


def visit(*names, **fields):
    at = "2024-06-03T10:{:02}:00Z"
    events = [{"event_name": name, "event_timestamp": at.format(n), "item_id": "i"} for n, name in enumerate(names)]
    return SessionRequest.model_validate({"events": events, **fields}).model_dump(mode="json")


def everybody(scorer):
    return scorer.targets["repurchase_28d"].user_ids


def test_probabilities_are_the_calibrated_models(scorer, expected):
    found = [score["probability"] for score in scores(scorer, *everybody(scorer))]
    assert found == pytest.approx(expected.tolist(), rel=1e-12)


def test_one_row_is_scored_as_in_a_batch(scorer, customers):
    for name in ("repurchase_28d", "response"):
        scoring = scorer.targets[name].scoring
        one_by_one = [scoring.probability(row) for row in customers]
        np.testing.assert_allclose(one_by_one, scoring.probabilities(customers), rtol=1e-12)


def test_trees_that_start_from_a_regression_add_to_its_log_odds(scorer, customers, booster, regression):
    raw = booster.predict(customers, raw_score=True) + regression.log_odds(customers)
    scoring = scorer.targets["response"].scoring
    np.testing.assert_allclose(scoring.probabilities(customers), CALIBRATOR(1 / (1 + np.exp(-raw))), rtol=1e-9)
    contributions = scoring.contributions(customers)
    expected_raw = booster.predict(customers, pred_contrib=True)[:, -1] + regression.coefficients[0]
    np.testing.assert_allclose(contributions.sum(axis=1) + expected_raw, raw, rtol=1e-9)


def test_a_batch_is_the_same_one_by_one(scorer):
    one_by_one = [scores(scorer, person)[0] for person in everybody(scorer)]
    assert equal(scores(scorer, *everybody(scorer)), one_by_one)


def test_answers_come_in_the_order_asked_for(scorer):
    asked = ["u3", "nobody", "u1", "u3"]
    assert [score["user_id"] for score in scores(scorer, *asked)] == asked


def test_the_percentile_counts_who_is_at_most_as_likely(scorer, expected):
    for score, probability in zip(scores(scorer, *everybody(scorer)), expected, strict=True):
        assert score["percentile"] == pytest.approx(100 * (expected <= probability + 1e-9).mean(), abs=0.01)


def test_the_batch_table_is_the_answers(scorer):
    answers = scores(scorer, *everybody(scorer))
    for row, answer in zip(scorer.targets["repurchase_28d"].table().to_pylist(), answers, strict=True):
        assert row == {name: pytest.approx(answer[name]) if name != "user_id" else answer[name] for name in row}


def test_an_unknown_customer_gets_the_base_rate_and_is_told_so(scorer):
    (score,) = scores(scorer, "nobody")
    assert (score["tier"], score["probability"]) == ("base_rate", 0.4)
    assert score["reasons"] == ["no customer who ordered in the 91 days before 2024-06-03: the average of all"]
    assert scores(scorer, "u0")[0]["tier"] == "model"


def test_reasons_are_the_strongest_contributions(scorer, customers, booster):
    contributions = booster.predict(customers, pred_contrib=True, num_threads=1)[:, :-1]
    for score, row, moved in zip(scores(scorer, *everybody(scorer)), customers, contributions, strict=True):
        known = [column for column in np.argsort(-np.abs(moved)) if not np.isnan(row[column])]
        assert score["reasons"] == [number_in_words(WORDS[column], row[column], moved[column]) for column in known[:3]]


def test_a_text_is_told_by_its_name(scorer, customers):
    told = [reason for score in scores(scorer, *everybody(scorer), target="texts") for reason in score["reasons"]]
    places = {f"came by {int(place)}" for place in customers[:, 3] if not np.isnan(place)}
    found = {reason.rsplit(" ", 1)[0] for reason in told if reason.startswith("came")}
    assert found
    assert found <= places


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
    assert number_in_words(words, value, contribution) == told


def test_every_word_of_a_feature_takes_a_value():
    for words in (*CUSTOMER_NUMBERS.values(), *NUMBERS.values(), *TEXTS.values()):
        assert words.count("{}") == 1


def test_categories_come_likeliest_first_with_the_day_to_expect(scorer):
    found = scores(scorer, "u2", "u1", target="category")
    assert [score["user_id"] for score in found] == ["u2"] * 4 + ["u1"] * 4
    chances = [score["probability"] for score in found[:4]]
    assert chances == sorted(chances, reverse=True)
    assert {score["category"] for score in found[:4]} == set("abcd")
    days = [score["expected_on"] for score in found[:4]]
    assert days == sorted(days)
    assert days == [expected_on(AS_OF, 28, chance) for chance in chances]


@pytest.mark.parametrize(("chance", "day"), [(1.0, "2024-06-03"), (0.75, "2024-06-17"), (0.0, None)])
def test_the_day_to_expect(chance, day):
    assert expected_on(AS_OF, 28, chance) == day


def test_a_visit_is_scored_as_it_is_now(scorer):
    looked, carted = (
        scorer.answer(visit(*names))["scores"][0]["probability"]
        for names in (["view_item"], ["view_item", "add_to_cart"])
    )
    assert carted > looked + 0.2


def test_a_visit_knows_its_visitors_past(scorer):
    visits = scorer._visits["session"]
    seen, week = visits.seen(visit("view_item", user_id="ann"))
    numbers = dict(zip(NUMBERS, seen.numbers(week), strict=True))
    assert (numbers["n_earlier_visits"], numbers["n_earlier_orders"], numbers["last_price"]) == (3, 1, 2.0)
    assert (numbers["n_earlier_views"], numbers["n_earlier_carted_visits"]) == (6, 2)
    assert (numbers["item_views_4w"], numbers["price_over_past_price"], numbers["is_known_customer"]) == (4, 0.5, 1)
    assert scorer.answer(visit("view_item", user_id="ann"))["scores"][0]["user_id"] == "ann"


def test_what_is_remembered_of_people_is_not_changed_by_a_question(scorer):
    asked = visit("view_item", "add_to_cart", user_id="ann")
    assert scorer.answer(asked) == scorer.answer(asked)


def test_a_device_is_known_by_whom_it_belonged_to(scorer):
    seen, week = scorer._visits["session"].seen(visit("view_item", user_pseudo_id="anns_phone"))
    numbers = dict(zip(NUMBERS, seen.numbers(week), strict=True))
    assert (seen.person_id, numbers["n_earlier_orders"], numbers["is_known_customer"]) == ("ann", 1, 1)


def test_a_visit_that_bought_already_is_refused(scorer):
    with pytest.raises(UserError, match="holds a purchase already"):
        scorer.answer(visit("view_item", "purchase"))


def test_events_out_of_order_are_put_in_order(scorer):
    request = visit("view_item", "add_to_cart")
    assert scorer.answer({**request, "events": request["events"][::-1]}) == scorer.answer(request)


def test_the_first_fitting_target_answers_when_none_is_named(scorer):
    assert scorer.answer({"target": None, "user_ids": ["u0"]})["target"] == "repurchase_28d"
    assert scorer.answer(visit("page_view"))["target"] == "session"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"target": "session", "user_ids": ["u"]},
            "no target of customers named session: there are repurchase",
        ),
        ({"target": "churn", "user_ids": ["u"]}, "named churn: of 3 examples none had the outcome"),
        (visit("page_view", target="category"), "no target of a visit named category: there are session"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(scorer, request_, message):
    with pytest.raises(UserError, match=message):
        scorer.answer(request_)


def test_the_answer_names_its_target_and_instant_and_is_json(scorer):
    answer = scorer.answer({"target": None, "user_ids": ["u0"]})
    assert (answer["target"], answer["as_of"], answer["sufficiency"]) == ("repurchase_28d", AS_OF, SUFFICIENCY)
    assert orjson.loads(orjson.dumps(answer)) == answer


def test_it_answers_without_the_training_stack(artifact):
    script = (
        "import sys; from pathlib import Path; from serving.artifact import Artifact;"
        "from serving.propensity import PropensityScorer;"
        "PropensityScorer.load(Artifact(Path(sys.argv[1]))).answer({'target': None, 'user_ids': ['u0', 'x']});"
        "assert not {'pandas', 'lightgbm', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(artifact.folder)], check=True)


def test_loading_reads_arrays_in_place(artifact):
    assert isinstance(PropensityScorer.load(Artifact(artifact.folder)).targets["repurchase_28d"].rows, np.memmap)
