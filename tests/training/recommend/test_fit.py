"""The recommender learns what the seeded shop's people like, from the past alone, the same on every run."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from features.errors import UserError
from features.lake import Lake
from features.periods import Span
from features.shops import Shop
from features.windows import Window, leave_one_out, rolling, time_window
from serving.recommend import Recommender
from serving.schema import RecommendationRequest
from training.device import choose
from training.recommend import fit as fitting
from training.recommend.config import RecommendConfig
from training.recommend.fit import Fitting, RecommendModel, evaluate, fit, loaded

CONFIG = RecommendConfig.model_validate(
    {
        "validation_days": 21,
        "rerank": {"booster": {"n_trees": 30}},
        "tiers": {
            "popularity": {},
            "cooccurrence": {},
            "als": {"n_factors": 16, "n_iterations": 4},
            "repeat": {},
        },
    }
)


@pytest.fixture(scope="module")
def window(shop: Shop) -> Window:
    lake = Lake(shop)
    return next(rolling(lake.engine(), lake.end(), Span(21, "day")))


@pytest.fixture(scope="module")
def model(window: Window) -> RecommendModel:
    return fit(window, CONFIG, choose("cpu"))


@pytest.fixture(scope="module")
def recommender(model: RecommendModel) -> Recommender:
    return loaded(model)


def test_what_is_answered_is_ahead_of_the_baselines(recommender: Recommender, window: Window) -> None:
    rows = evaluate(recommender, window, CONFIG, "time")
    found = {r.model: r for r in rows if (r.metric, r.segment, r.masked) == ("ndcg_at_10", "all", False)}
    assert found["blend"].value > found["popularity"].high
    assert found["blend"].value > found["personal_top_frequency"].value
    assert {"cooccurrence", "als", "repeat"} <= set(found)


def test_the_same_seed_gives_the_same_numbers(model: RecommendModel, window: Window) -> None:
    again = fit(window, CONFIG, choose("cpu"))
    assert again.weights == model.weights
    histories = model.known.histories
    np.testing.assert_array_equal(loaded(again).scores(histories), loaded(model).scores(histories))


def test_the_combination_is_chosen_with_tiers_that_did_not_see_its_slice(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = []
    real = Fitting.tiers

    def watched(of: Fitting, seen: Window) -> dict:
        last = seen.fitted.select("select max(event_timestamp) as at from events")["at"][0].as_py()
        latest.append(last.replace(tzinfo=UTC))
        return real(of, seen)

    monkeypatch.setattr(Fitting, "tiers", watched)
    fit(window, CONFIG, choose("cpu"))
    cut = window.as_of - timedelta(days=CONFIG.validation_days)
    assert latest[0] < cut <= latest[1] < window.as_of


def test_nothing_after_the_window_is_asked_for(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    blinded = time_window(window.past, window.as_of, window.end)
    histories = loaded(fit(window, CONFIG, choose("cpu"))).histories
    np.testing.assert_array_equal(loaded(fit(blinded, CONFIG, choose("cpu"))).histories.items, histories.items)


def test_published_protocols_fit_on_the_train_part_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events held out for validation are known when the test is asked, but no tier is fitted on them."""
    lake = Lake(shop)
    window = leave_one_out(lake.engine(), lake.after_last_event())
    n_fitted = []
    real = fitting.fit_tier
    monkeypatch.setattr(
        fitting, "fit_tier", lambda name, log, *rest: n_fitted.append(len(log.histories)) or real(name, log, *rest)
    )
    config = RecommendConfig(min_users=1)
    known = fit(window, config, choose("cpu")).known
    n_people = len(known.user_ids)
    assert len(n_fitted) == 1
    assert len(known.histories) - n_people <= n_fitted[0] < len(known.histories)


def test_hidden_items_are_never_recommended(recommender: Recommender, window: Window) -> None:
    hidden = window.past.select("select item_id from items where availability = 'hidden'")["item_id"].to_pylist()
    assert hidden
    assert not set(hidden) & set(recommender.item_ids)


def test_explained_shares_add_up_to_the_score(recommender: Recommender) -> None:
    request = RecommendationRequest(user_id=recommender.user_ids[3], n=5, explain=True).model_dump()
    for item in recommender.answer(request)["items"]:
        assert sum(item["tiers"].values()) == pytest.approx(item["score"], rel=1e-5)


def test_too_little_data_is_told(shop: Shop) -> None:
    as_of = datetime(2000, 1, 1, tzinfo=UTC)
    window = time_window(Lake(shop).engine(), as_of, Span(21, "day").after(as_of))
    with pytest.raises(UserError, match="no item was touched by 5 people before 2000-01-01"):
        fit(window, CONFIG, choose("cpu"))
