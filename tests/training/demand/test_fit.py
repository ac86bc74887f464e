"""The forecast beats its baselines where there is something to learn, and knows nothing from the cut-off on."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from features import contract, overrides
from features.engine import Engine, duckdb_engine, empty
from features.errors import UserError
from features.windows import Window, time_window
from serving.artifact import Artifact, Draft, replay
from serving.demand import Forecaster
from training.config import BoosterConfig, load_config
from training.demand.config import DemandConfig, NetworkConfig
from training.demand.evaluation import LADDER, evaluate, value_added
from training.demand.fit import DemandModel, fit
from training.evaluation import Row

MONDAY = date(2022, 1, 3)
N_WEEKS, N_ITEMS, HORIZON = 60, 60, 3
AS_OF = datetime(2023, 2, 6, tzinfo=UTC)
END = AS_OF + timedelta(weeks=HORIZON)
CONFIG = DemandConfig(
    horizon=HORIZON,
    min_periods=20,
    n_origins=8,
    trees=BoosterConfig(n_trees=40, learning_rate=0.2, min_data_in_leaf=20),
)


def filled(table: contract.Table, rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=empty(table).schema)


def weeks() -> list[date]:
    return [MONDAY + timedelta(weeks=week) for week in range(N_WEEKS)]


@pytest.fixture(scope="module")
def sold() -> np.ndarray:
    """Units, shape (N_ITEMS, N_WEEKS): Poisson around a rate of the item's own, three times as many when advertised."""
    rng = np.random.default_rng(5)
    rates = rng.uniform(1, 8, N_ITEMS)[:, None]
    return rng.poisson(rates * np.where(advertised(), 3.0, 1.0)).astype(float)


def advertised() -> np.ndarray:
    return np.random.default_rng(6).random((N_ITEMS, N_WEEKS)) < 0.2


@pytest.fixture(scope="module")
def shop(sold: np.ndarray) -> Engine:
    cells = [(item, week) for item in range(N_ITEMS) for week in range(N_WEEKS)]
    demand = [
        {"item_id": f"i{i:02}", "date": weeks()[w], "quantity": sold[i, w], "revenue": sold[i, w]} for i, w in cells
    ]
    offers = [{"item_id": f"i{i:02}", "date": weeks()[w], "mailer": float(advertised()[i, w])} for i, w in cells]
    return duckdb_engine(memory_limit="1GB", threads=1).bind(
        demand=filled(contract.DEMAND, demand), offers=filled(contract.OFFERS, offers)
    )


@pytest.fixture(scope="module")
def window(shop: Engine) -> Window:
    return time_window(shop, AS_OF, END)


@pytest.fixture(scope="module")
def model(window: Window) -> DemandModel:
    return fitted(window)


@pytest.fixture(scope="module")
def artifact(model: DemandModel, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported(model, tmp_path_factory.mktemp("model") / "artifact")


@pytest.fixture(scope="module")
def rows(artifact: Artifact, window: Window) -> list[Row]:
    return evaluate(Forecaster.load(artifact), window, "time")


def fitted(window: Window, config: DemandConfig = CONFIG) -> DemandModel:
    return fit(window.past, window.known_future, window.as_of, "week", config)


def exported(model: DemandModel, folder: Path) -> Artifact:
    draft = Draft(folder)
    model.export(draft)
    draft.golden(Forecaster.load, model.golden_requests())
    return draft.seal({"task": "demand"})


def value(rows: list[Row], model: str, metric: str) -> float:
    (found,) = [row.value for row in rows if (row.model, row.metric, row.segment) == (model, metric, "all")]
    return found


@pytest.mark.parametrize("metric", ["wape", "pinball"])
@pytest.mark.parametrize("baseline", ["seasonal_naive", "mean_4"])
def test_it_learns_what_the_baselines_cannot_know(rows: list[Row], baseline: str, metric: str):
    assert value(rows, "trees", metric) < 0.8 * value(rows, baseline, metric)


def test_its_bias_is_small_and_its_quantiles_cover(rows: list[Row]):
    assert abs(value(rows, "trees", "bias")) < 0.1
    assert 0.8 < value(rows, "trees", "coverage_90") <= 1


def test_what_if_is_among_the_golden_requests_where_offers_are_known(artifact: Artifact, shop: Engine, tmp_path: Path):
    (what_if,) = [case for case in artifact.json("golden") if "changes" in case["request"]]
    assert what_if["answer"]["forecasts"]
    bare = time_window(shop.bind(offers=empty(contract.OFFERS)), AS_OF, END)
    assert not any("changes" in case["request"] for case in exported(fitted(bare), tmp_path / "bare").json("golden"))


def test_without_offers_it_still_forecasts(shop: Engine):
    bare = time_window(shop.bind(offers=empty(contract.OFFERS)), AS_OF, END)
    assert np.isfinite(fitted(bare).metrics["validation_wape"])


def test_quantiles_ascend_and_nothing_is_negative_or_missing(artifact: Artifact):
    values = artifact.array("forecast")
    assert values.shape == (N_ITEMS, HORIZON, 10)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (np.diff(values[:, :, 1:], axis=-1) >= 0).all()


def test_the_same_data_and_seed_give_the_same_trees(model: DemandModel, window: Window):
    assert fitted(window).texts == model.texts


def test_what_happens_from_the_cut_off_on_changes_nothing(model: DemandModel, shop: Engine):
    known = shop.narrow(
        {
            "demand": "select * from demand where date < cast($as_of as date)",
            "offers": "select * from offers where date < cast($end as date)",
        },
        as_of=AS_OF,
        end=END,
    )
    assert fitted(time_window(known, AS_OF, END)).texts == model.texts


def test_the_stored_trees_give_the_stored_forecast_again(artifact: Artifact, window: Window):
    forecaster = Forecaster.load(artifact)
    known = forecaster.panel(window.past, window.as_of, window.known_future)
    np.testing.assert_array_equal(forecaster.forecast(known), artifact.array("forecast"))
    replay(artifact, forecaster)


def test_bases_are_averaged_and_a_mean_for_percentages_is_the_point(window: Window, rows: list[Row], tmp_path: Path):
    config = CONFIG.model_copy(update={"loss": "mape", "bases": ("theta", "level"), "patience": 0})
    model = fitted(window, config)
    assert [name for name in model.texts if name.startswith("mean")] == ["mean_theta", "mean_level"]
    assert model.metrics["n_trees"] == 2 * CONFIG.trees.n_trees
    artifact = exported(model, tmp_path / "artifact")
    forecaster = Forecaster.load(artifact)
    known = forecaster.panel(window.past, window.as_of, window.known_future)
    np.testing.assert_array_equal(forecaster.forecast(known), artifact.array("forecast"))
    assert value(evaluate(forecaster, window, "time"), "trees", "bias") < value(rows, "trees", "bias")


def test_a_server_knows_the_holidays_that_the_model_was_taught(window: Window, tmp_path: Path):
    model = fit(window.past, window.known_future, window.as_of, "week", CONFIG, country="DE-BW")
    artifact = exported(model, tmp_path / "artifact")
    assert "holidays" in artifact.json("features")
    forecaster = Forecaster.load(artifact)
    known = forecaster.panel(window.past, window.as_of, window.known_future)
    np.testing.assert_array_equal(forecaster.forecast(known), artifact.array("forecast"))


def test_quantiles_learnt_from_every_example_cover_too(window: Window, tmp_path: Path):
    shape = BoosterConfig(n_trees=60, learning_rate=0.2, min_data_in_leaf=20)
    model = fitted(window, CONFIG.model_copy(update={"quantiles_of": "base", "shape": shape}))
    rows = evaluate(Forecaster.load(exported(model, tmp_path / "artifact")), window, "time")
    assert 0.75 < value(rows, "trees", "coverage_90") < 1
    assert value(rows, "trees", "pinball") < 0.8 * value(rows, "mean_4", "pinball")


def test_a_network_that_helps_gives_its_share_wherever_forecasts_are_made(window: Window, tmp_path: Path):
    stumps = BoosterConfig(n_trees=2, learning_rate=0.02, num_leaves=2, min_data_in_leaf=20)
    weak = CONFIG.model_copy(update={"trees": stumps, "shape": stumps})
    config = weak.model_copy(update={"network": NetworkConfig(n_members=1, n_steps=200, batch_size=256)})
    model, trees = fitted(window, config), fitted(window, weak)
    artifact = exported(model, tmp_path / "artifact")
    assert 0 < artifact.json("forecast")["network_share"] == model.share == model.metrics["network_share"] <= 1
    forecaster = Forecaster.load(artifact)
    replay(artifact, forecaster)
    known = forecaster.panel(window.past, window.as_of, window.known_future)
    np.testing.assert_array_equal(forecaster.forecast(known), artifact.array("forecast"))
    alone = evaluate(Forecaster.load(exported(trees, tmp_path / "trees")), window, "time")
    assert value(evaluate(forecaster, window, "time"), "trees", "pinball") < value(alone, "trees", "pinball")


def test_a_network_that_does_not_help_is_not_in_the_artifact(window: Window, tmp_path: Path):
    blind = NetworkConfig(n_members=1, n_steps=1)
    artifact = exported(fitted(window, CONFIG.model_copy(update={"network": blind})), tmp_path / "artifact")
    assert artifact.json("forecast")["network_share"] == 0
    assert not list(artifact.folder.glob("network.*"))


def test_the_answer_says_what_was_exported(artifact: Artifact):
    answer = Forecaster.load(artifact).answer(
        {"item_ids": ["i07"], "location_id": None, "horizon": 2, "offset": 0, "limit": 10, "explain": False}
    )
    assert answer["cutoff"] == "2023-02-06"
    assert [row["date"] for row in answer["forecasts"]] == ["2023-02-06", "2023-02-13"]
    assert answer["forecasts"][1]["q0.95"] == artifact.array("forecast")[7, 1, -1]


def test_baselines_are_what_they_are_named(rows: list[Row], sold: np.ndarray):
    origin = (AS_OF.date() - MONDAY).days // 7
    actual = sold[:, origin : origin + HORIZON]
    expected = {
        "seasonal_naive": sold[:, origin - 52 : origin - 52 + HORIZON],
        "mean_4": sold[:, origin - 4 : origin].mean(1)[:, None],
    }
    for name, units in expected.items():
        assert value(rows, name, "wape") == pytest.approx(np.abs(units - actual).sum() / actual.sum(), rel=1e-5)
        assert value(rows, name, "bias") == pytest.approx((units - actual).sum() / actual.sum(), abs=1e-5)


def test_each_step_adds_what_the_error_falls_by(rows: list[Row]):
    assert LADDER == ("seasonal_naive", "theta", "trees")
    for before, step in pairwise(LADDER):
        fallen = value(rows, before, "wape") - value(rows, step, "wape")
        assert value(rows, step, "value_added") == pytest.approx(fallen, abs=1e-6)
    assert not [row for row in rows if (row.model, row.metric) == ("seasonal_naive", "value_added")]
    assert not [row for row in rows if row.segment == "overridden"]


def test_a_step_that_always_helps_a_little_has_an_interval_above_nothing():
    actual = np.random.default_rng(4).gamma(2, 10, (40, 3)).astype(np.float32)
    worse = (actual * np.float32([[0.5], [1.5]] * 20)).astype(np.float32)
    (row,) = value_added({"before": worse, "after": worse * 0.98 + actual * 0.02}, actual, "time")
    assert (row.model, row.metric, row.n) == ("after", "value_added", 40)
    assert row.value == pytest.approx(0.01, rel=1e-3)
    assert 0 < row.low <= row.value <= row.high < 0.02


def planned(cells: dict[tuple[int, int], float]) -> pa.Table:
    """Overrides by item number and week of the horizon."""
    said = {"made_at": AS_OF, "made_by": "anna", "reason": "fair", "model_mean": 1.0, "model_version": "1"}
    rows = [
        {"item_id": f"i{item:02}", "date": AS_OF.date() + timedelta(weeks=week), "quantity": units, **said}
        for (item, week), units in cells.items()
    ]
    return pa.Table.from_pylist(rows, schema=overrides.SCHEMA)


def test_overrides_are_judged_where_they_are_and_all_else_stays(
    artifact: Artifact, window: Window, rows: list[Row], sold: np.ndarray
):
    origin = (AS_OF.date() - MONDAY).days // 7
    actual = sold[:, origin : origin + HORIZON]
    cells = {(3, 0): 5.0, (3, 2): 0.0, (40, 1): 9.0, (7, 5): 100.0}
    found = evaluate(Forecaster.load(artifact), window, "time", planned(cells))
    assert found[: len(rows)] == rows
    assert {row.segment for row in found[len(rows) :]} == {"overridden"}
    by_name = {(row.model, row.metric): row for row in found if row.segment == "overridden"}
    inside = {cell: units for cell, units in cells.items() if cell[1] < HORIZON}
    whole = sum(actual[cell] for cell in inside)
    forecast = artifact.array("forecast")[:, :, 0]
    errors = {
        "override": sum(abs(units - actual[cell]) for cell, units in inside.items()),
        "trees": sum(abs(forecast[cell] - actual[cell]) for cell in inside),
    }
    for name, error in errors.items():
        assert by_name[name, "wape"].value == pytest.approx(error / whole, rel=1e-4)
        assert by_name[name, "wape"].n == 2
    added = by_name["override", "value_added"].value
    assert added == pytest.approx((errors["trees"] - errors["override"]) / whole, abs=1e-4)


def test_a_planner_who_knows_the_truth_adds_all_that_the_model_lacks(
    artifact: Artifact, window: Window, sold: np.ndarray
):
    origin = (AS_OF.date() - MONDAY).days // 7
    truth = {(item, week): sold[item, origin + week] for item in range(0, N_ITEMS, 2) for week in range(HORIZON)}
    found = evaluate(Forecaster.load(artifact), window, "time", planned(truth))
    by_name = {(row.model, row.metric): row for row in found if row.segment == "overridden"}
    assert by_name["override", "wape"].value == 0
    assert by_name["override", "value_added"].value == pytest.approx(by_name["trees", "wape"].value)
    assert by_name["override", "value_added"].low > 0


def test_losses_are_those_of_the_stored_forecast(artifact: Artifact, rows: list[Row], sold: np.ndarray):
    origin = (AS_OF.date() - MONDAY).days // 7
    actual = sold[:, origin : origin + HORIZON]
    values = artifact.array("forecast")
    losses = {
        quantile: sum(
            (quantile if unit > q else quantile - 1) * (unit - q)
            for unit, q in zip(actual.flat, values[..., column].flat, strict=True)
        )
        / actual.sum()
        for column, quantile in enumerate(CONFIG.quantiles, 1)
    }
    for quantile, loss in losses.items():
        assert value(rows, "trees", f"pinball_{quantile:g}") == pytest.approx(loss, rel=1e-4)
    assert value(rows, "trees", "pinball") == pytest.approx(np.mean(list(losses.values())), rel=1e-4)


def test_only_whole_periods_of_the_window_count(artifact: Artifact, shop: Engine, sold: np.ndarray):
    wednesday = time_window(shop, AS_OF + timedelta(days=2), END + timedelta(days=2))
    rows = evaluate(Forecaster.load(artifact), wednesday, "time")
    origin = (AS_OF.date() - MONDAY).days // 7
    second_and_third = sold[:, origin + 1 : origin + HORIZON]
    units = sold[:, origin - 4 : origin].mean(1)[:, None]
    expected = np.abs(units - second_and_third).sum() / second_and_third.sum()
    assert value(rows, "mean_4", "wape") == pytest.approx(expected, rel=1e-5)


def test_a_window_without_a_whole_period_is_refused(artifact: Artifact, shop: Engine):
    short = time_window(shop, AS_OF + timedelta(days=2), AS_OF + timedelta(days=9))
    with pytest.raises(UserError, match="holds no whole week"):
        evaluate(Forecaster.load(artifact), short, "time")


def test_a_model_is_not_judged_on_what_it_knows(artifact: Artifact, shop: Engine):
    earlier = time_window(shop, AS_OF - timedelta(weeks=3), AS_OF)
    with pytest.raises(UserError, match="knows everything before 2023-02-06 and the window starts at 2023-01-16"):
        evaluate(Forecaster.load(artifact), earlier, "time")


def test_a_short_history_is_the_users_mistake(window: Window):
    config = CONFIG.model_copy(update={"horizon": 20})
    with pytest.raises(UserError, match="the history has 57 whole weeks and a horizon of 20 needs 80"):
        fitted(window, config)


@pytest.mark.parametrize("quantiles", [(0.5, 0.1), (0.1, 0.9), (0.5, 0.5), (0.5, 1.5), ()])
def test_quantiles_that_make_no_distribution_are_refused(quantiles: tuple[float, ...]):
    with pytest.raises(ValidationError):
        DemandConfig(quantiles=quantiles)


@pytest.mark.parametrize("bases", [(), ("level", "level"), ("mean",)])
def test_bases_that_cannot_be_averaged_are_refused(bases: tuple[str, ...]):
    with pytest.raises(ValidationError):
        DemandConfig(bases=bases)


def test_the_recommended_configuration_loads():
    assert load_config(DemandConfig, "demand").horizon == 4
