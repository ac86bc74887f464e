"""A what-if answers what a whole forecast from other offers would; explanations multiply to the mean."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import plain_panel

from features.demand import features, offered_features
from features.errors import UserError
from features.launches import Launches
from features.panels import Panel
from serving.artifact import Draft
from serving.demand import Forecaster
from serving.paths import Dependence
from serving.recipe import ALL, mean_of, model_names
from training.config import BoosterConfig
from training.demand.config import DemandConfig
from training.demand.fit import DemandModel
from training.demand.learning import examples, mean_boosters, shape_boosters

N_ITEMS, N_PLACES, N_WEEKS, HORIZON = 7, 3, 40, 3
RARE, HARDLY, ALONE = 3, (0, 2), 6
DATES = ["2023-10-09", "2023-10-16", "2023-10-23"]
TREES = BoosterConfig(n_trees=30, learning_rate=0.2, num_leaves=15, min_data_in_leaf=5)
CONFIGS = {
    "level": DemandConfig(),
    "two bases": DemandConfig(bases=("level", "price_response")),
    "percent": DemandConfig(loss="mape", bases=("price_response", "theta")),
}
NOTHING = {"location_id": None, "date": None, "price": None, "display": None, "mailer": None, "covariates": {}}
PAGE = {"item_ids": [], "location_id": None, "horizon": None, "offset": 0, "limit": 1000}


@cache
def panel() -> Panel:
    """Seven items of three categories in three places, mailers of the future unknown.

    Item 3 is too rare to be forecast, and item 0 in the last place, though not too rare to count; item 6 is in one
    place. Demand falls with the square of the price, and rises with displays, mailers and rain.
    """
    rng = np.random.default_rng(4)
    cells = [(i, p) for i in range(N_ITEMS) for p in range(N_PLACES) if i != ALONE or p == 0]
    item, place = np.array(cells).T
    shape = (len(cells), N_WEEKS + HORIZON)
    price, rain = rng.choice([1.0, 1.5, 2.0], shape), rng.random(shape)
    display, mailer = (rng.random(shape) < 0.3).astype(float), (rng.random(shape) < 0.2).astype(float)
    sold = rng.poisson(10 * np.exp(-2 * np.log(price) + display / 2 + mailer + rain))[:, :N_WEEKS]
    sold[item == RARE, 4:] = 0
    sold[cells.index(HARDLY), 8:] = 0
    mailer[:, N_WEEKS:] = np.nan
    exposure = np.where(rng.random(sold.shape) < 0.1, 0.5, 1.0)
    offers = {"price": price, "base_price": np.full(shape, 2.0), "display": display, "mailer": mailer, "rain": rain}
    return plain_panel(
        sold,
        HORIZON,
        item_ids=tuple(f"i{each}" for each in item),
        location_ids=tuple(f"p{each}" for each in place),
        exposure=exposure.astype(np.float32),
        revenue=(sold * price[:, :N_WEEKS]).astype(np.float32),
        category=item % 3,
        location=place,
        offers=offers,
    )


@pytest.fixture(scope="module", params=CONFIGS)
def forecaster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Forecaster:
    config = CONFIGS[request.param].model_copy(
        update={
            "horizon": HORIZON,
            "by_location": True,
            "min_periods": 10,
            "covariates": ("rain",),
            "quantiles": (0.1, 0.5, 0.9),
            "trees": TREES,
            "shape": TREES,
        }
    )
    return exported(config, tmp_path_factory.mktemp("model") / "artifact")


NO_LAUNCHES = Launches([], np.zeros((0, 1), int), *np.zeros((3, 0)), *np.zeros((3, 0), bool))


def exported(config: DemandConfig, folder: Path) -> Forecaster:
    taught = examples(panel(), range(20, N_WEEKS - HORIZON, 2), config.bases)
    means = mean_boosters(taught, config)
    shape = shape_boosters(taught, mean_of(means, taught.rows, taught.bases), config)
    texts = (booster.model_to_string() for booster in (*means, *shape))
    named = dict(zip(model_names(config.bases, config.quantiles), texts, strict=True))
    draft = Draft(folder)
    wider = {ALL: np.tile(np.float32([-0.1, 0, 0.1]), (HORIZON, 1))}
    DemandModel(config, panel(), named, wider, Dependence(np.eye(HORIZON), 0.5), NO_LAUNCHES, {}).export(draft)
    return Forecaster.load(draft.seal({"task": "demand"}))


def what_if(forecaster: Forecaster, *changes: dict, horizon: int | None = None) -> dict:
    return forecaster.answer({"changes": [{**NOTHING, **change} for change in changes], "horizon": horizon})


def planned(changes: list[dict]) -> Panel:
    """The panel with other offers, cell by cell; where one thing is promoted, whatever is not told of is not."""
    offers = {name: values.copy() for name, values in panel().offers.items()}
    for change in changes:
        values = {name: change.get(name) for name in ("price", "display", "mailer")} | change.get("covariates", {})
        for row in range(len(panel().item_ids)):
            for step, date in enumerate(DATES):
                here = change["item_id"] == panel().item_ids[row]
                there = change.get("location_id") in (None, panel().location_ids[row])
                if here and there and change.get("date") in (None, date):
                    for name, value in values.items():
                        if value is not None:
                            offers[name][row, N_WEEKS + step] = value
    for name in ("display", "mailer"):
        for period in range(N_WEEKS, N_WEEKS + HORIZON):
            column = offers[name][:, period]
            if not np.isnan(column).all():
                column[np.isnan(column)] = 0
    return replace(panel(), offers=offers)


def units(rows: list[dict], when: str) -> np.ndarray:
    return np.array([value for row in rows for value in row[when].values()], np.float32)


def changes() -> st.SearchStrategy[list[dict]]:
    change = st.fixed_dictionaries(
        {"item_id": st.sampled_from([f"i{item}" for item in range(N_ITEMS)])},
        optional={
            "location_id": st.sampled_from([f"p{place}" for place in range(N_PLACES)]),
            "date": st.sampled_from(DATES),
            "price": st.floats(0.5, 4, width=32),
            "display": st.floats(0, 1, width=32),
            "mailer": st.sampled_from([0.0, 1.0]),
            "covariates": st.fixed_dictionaries({"rain": st.floats(-1, 2, width=32)}),
        },
    )
    return st.lists(change.filter(sold_there), min_size=1, max_size=5)


def sold_there(change: dict) -> bool:
    return change["item_id"] != f"i{ALONE}" or change.get("location_id", "p0") == "p0"


@settings(max_examples=40, deadline=None)
@given(changed=changes())
def test_it_is_the_forecast_of_a_panel_with_those_offers(forecaster: Forecaster, changed: list[dict]):
    answer = what_if(forecaster, *changed)
    whole = forecaster.forecast(planned(changed))
    items = dict.fromkeys(change["item_id"] for change in changed)
    chosen = [row for item in items for row, known in enumerate(forecaster.item_ids) if known == item]
    np.testing.assert_array_equal(units(answer["forecasts"], "before"), forecaster.values[chosen].ravel())
    np.testing.assert_array_equal(units(answer["forecasts"], "after"), whole[chosen].ravel())


def test_it_can_differ_from_the_forecast(forecaster: Forecaster):
    answer = what_if(forecaster, {"item_id": "i0", "price": 1.0, "display": 1.0}, {"item_id": "i1", "price": 4.0})
    effect = np.array([row["effect"] for row in answer["forecasts"]]).reshape(-1, HORIZON)
    assert effect[:2].mean() > 1.05
    assert effect[2:].mean() < 0.95


def test_a_plan_as_it_is_changes_nothing(forecaster: Forecaster):
    prices = panel().offers["price"][:, N_WEEKS:].tolist()
    now = [
        {"item_id": item, "location_id": place, "date": date, "price": price}
        for item, place, row in zip(panel().item_ids, panel().location_ids, prices, strict=True)
        for date, price in zip(DATES, row, strict=True)
    ]
    rows = what_if(forecaster, *now)["forecasts"]
    assert len(rows) == forecaster.values[:, :, 0].size
    assert all(row["before"] == row["after"] for row in rows)
    assert all(row["effect"] == 1 for row in rows if row["before"]["mean"] > 0)


def test_of_two_changes_of_the_same_the_later_counts(forecaster: Forecaster):
    once = what_if(forecaster, {"item_id": "i0", "price": 3.0})
    assert what_if(forecaster, {"item_id": "i0", "price": 1.0}, {"item_id": "i0", "price": 3.0}) == once


def test_a_change_of_the_last_period_leaves_the_others(forecaster: Forecaster):
    rows = what_if(forecaster, {"item_id": "i0", "date": DATES[-1], "price": 0.5, "display": 1.0})["forecasts"]
    assert {row["date"] for row in rows if row["before"] != row["after"]} == {DATES[-1]}


def test_items_without_a_forecast_are_named(forecaster: Forecaster):
    answer = what_if(forecaster, *({"item_id": item, "price": 1.0} for item in ("new", f"i{RARE}", "i0")), horizon=1)
    assert answer["unknown_item_ids"] == ["new", f"i{RARE}"]
    assert [row["location_id"] for row in answer["forecasts"]] == ["p0", "p1"]
    assert what_if(forecaster, {"item_id": "new", "price": 1.0})["forecasts"] == []


@pytest.mark.parametrize(
    ("change", "horizon", "message"),
    [
        ({"date": "2023-10-10"}, None, "date 2023-10-10 is not the first day .* 2023-10-09, 2023-10-16, 2023-10-23$"),
        ({"date": "2023-10-23"}, 2, "date 2023-10-23 is not the first day .*: allowed are 2023-10-09, 2023-10-16$"),
        ({"covariates": {"sun": 1.0}}, None, "covariate sun is not read by this model; allowed are rain"),
        ({"covariates": {"base_price": 1.0}}, None, "covariate base_price is not read"),
        ({"location_id": "p9"}, None, "item i0 is not sold at p9; allowed are p0, p1, p2"),
        ({}, 4, "horizon 4 is longer than the 3 periods of this model"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(forecaster: Forecaster, change: dict, horizon: int, message: str):
    with pytest.raises(UserError, match=message):
        what_if(forecaster, {"item_id": "i0", "price": 1.0, **change}, horizon=horizon)


def test_more_rows_than_one_answer_holds_are_refused(forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serving.demand.MOST_CHANGED_ROWS", 8)
    with pytest.raises(UserError, match="ask for 3 series and 3 periods, 8 rows are allowed: ask for fewer items"):
        what_if(forecaster, {"item_id": "i1", "price": 1.0})
    assert len(what_if(forecaster, {"item_id": "i1", "price": 1.0}, horizon=2)["forecasts"]) == 6


@settings(max_examples=30, deadline=None)
@given(changed=changes())
def test_a_plan_moves_no_other_features_than_those_of_offers(changed: list[dict]):
    names, before = features(panel(), N_WEEKS)
    _, after = features(planned(changed), N_WEEKS)
    offered, values = offered_features(planned(changed), N_WEEKS)
    moved = {name for at, name in enumerate(names) if not np.array_equal(before[..., at], after[..., at], True)}
    assert moved <= set(offered)
    np.testing.assert_array_equal(after[..., [names.index(name) for name in offered]], values)


def test_the_level_times_all_effects_is_the_mean(forecaster: Forecaster):
    rows = forecaster.answer({**PAGE, "explain": True})["forecasts"]
    product = [row["level"] * np.prod(list(row["effects"].values())) for row in rows]
    np.testing.assert_allclose(product, [row["mean"] for row in rows], rtol=2e-5)
    assert ("base" in rows[0]["effects"]) == (forecaster.bases != ("level",))
    assert {"level", "trend", "season", "price", "promotion", "availability", "others"} < rows[0]["effects"].keys()


def test_explanations_are_those_of_the_page(forecaster: Forecaster):
    rows = forecaster.answer({**PAGE, "explain": True})["forecasts"]
    page = forecaster.answer({**PAGE, "explain": True, "offset": 4, "limit": 3})["forecasts"]
    assert [row["effects"] for row in page] == [row["effects"] for row in rows[4:7]]
    plain = forecaster.answer({**PAGE, "explain": False})["forecasts"]
    assert plain == [{name: row[name] for name in row if name not in ("level", "effects")} for row in rows]
    assert forecaster.answer({**PAGE, "explain": True, "item_ids": ["new"]})["forecasts"] == []
