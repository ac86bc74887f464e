"""Held-out errors say how far sums are heeded, and every forecast of the artifact is reconciled alike."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from panels import plain_panel
from pydantic import ValidationError

from features import contract
from features.engine import Engine, duckdb_engine, empty
from features.errors import UserError
from features.panels import Panel
from features.windows import Window, time_window
from serving.artifact import Artifact, Draft
from serving.demand import Forecaster
from serving.reconcile import direct
from training.config import BoosterConfig
from training.demand.config import DemandConfig
from training.demand.dependence import HeldOut
from training.demand.fit import fit
from training.demand.reconciliation import reconciled

MONDAY, N_WEEKS, N_ITEMS, PLACES, HORIZON = date(2022, 1, 3), 60, 6, ("north", "south", "west"), 3
AS_OF = datetime(2023, 2, 6, tzinfo=UTC)
CONFIG = DemandConfig(
    horizon=HORIZON,
    min_periods=20,
    by_location=True,
    reconcile=("item", "location"),
    trees=BoosterConfig(n_trees=20, learning_rate=0.2, min_data_in_leaf=20),
)
PAGE = {"item_ids": [], "location_id": None, "horizon": None, "offset": 0, "limit": 1000}


def panel(sold: np.ndarray) -> Panel:
    """Four series, two items in two locations, as they were sold."""
    return plain_panel(
        sold,
        HORIZON,
        since="2022-01-03",
        item_ids=("a", "a", "b", "b"),
        location_ids=("north", "south") * 2,
        category=np.array([0, 0, 1, 1]),
        location=np.array([0, 1, 0, 1]),
    )


def held_out(known: Panel, error: np.ndarray | float, origins: tuple[int, ...] = (34, 37)) -> HeldOut:
    """What came, times an error, as forecast; quantiles around it."""
    actual = np.concatenate([known.demand[:, origin : origin + HORIZON] for origin in origins])
    units = np.stack([actual * error, actual * error / 2, actual * error * 2], axis=2).astype(np.float32)
    return HeldOut(units, actual, np.repeat(origins, 4), np.repeat("smooth", len(actual)))


def test_forecasts_that_are_too_high_heed_sums_that_are_right():
    known = panel(np.tile(np.array([[4.0], [8], [16], [32]]), (1, 40)))
    found, after = reconciled(known, held_out(known, 1.5), ("item", "location"))
    assert found.series == pytest.approx(0.25 * (16 + 64 + 256 + 1024) / (1.5 * 60))
    assert found.sums == pytest.approx({"item": 0, "location": 0}, abs=1e-3)
    np.testing.assert_allclose(after.units, held_out(known, 1.0).units, rtol=1e-2)


def test_forecasts_that_are_right_stay():
    known = panel(np.random.default_rng(2).poisson(20, (4, 40)))
    told = held_out(known, 1.0)
    found, after = reconciled(known, told, ("item", "location", "shop"))
    assert found.series == 0
    assert min(found.sums.values()) > 0
    np.testing.assert_allclose(after.units, told.units, rtol=1e-6)


def test_what_is_unknown_is_no_error_and_an_order_of_rows_says_nothing():
    known = panel(np.tile(np.array([[4.0], [8], [16], [32]]), (1, 40)))
    told = held_out(known, 1.5)
    told.actual[[0, 5], 1] = np.nan
    found, after = reconciled(known, told, ("item", "shop"))
    assert found.sums == pytest.approx({"item": 0, "shop": 0}, abs=1e-3)
    order = np.array([4, 0, 5, 1, 6, 2, 7, 3])
    again, mixed = reconciled(known, HeldOut(*(each[order] for each in told)), ("item", "shop"))
    assert again.series == pytest.approx(found.series)
    np.testing.assert_allclose(mixed.units, after.units[order], rtol=1e-5)


def test_a_kind_of_sums_that_nobody_could_judge_is_refused():
    known = panel(np.full((4, 40), 5.0))
    told = held_out(known, 1.0)
    told.actual[[0, 2, 4, 6]] = np.nan
    told.actual[[1, 3, 5, 7], 1:] = np.nan
    reconciled(known, told, ("location",))
    told.actual[[1, 5], 0] = np.nan
    with pytest.raises(UserError, match="reconcile has shop, and of no such sum half was known in a held-out period"):
        reconciled(known, told, ("location", "shop"))


@pytest.fixture(scope="module")
def shop() -> Engine:
    """Weekly units in three places, with a year's season that sums show and prices that move parts."""
    rng = np.random.default_rng(5)
    rows, offers = [], []
    for item in range(N_ITEMS):
        for place in PLACES:
            price = rng.choice([1.0, 2.0], N_WEEKS)
            units = rng.poisson(rng.uniform(1, 4) * (2 + np.sin(np.arange(N_WEEKS) / 8)) / price)
            for week in range(N_WEEKS):
                key = {"item_id": f"i{item}", "location_id": place, "date": MONDAY + timedelta(weeks=week)}
                rows.append({**key, "quantity": float(units[week]), "revenue": float(units[week])})
                offers.append({**key, "price": float(price[week])})
    tables = {contract.DEMAND: rows, contract.OFFERS: offers}
    filled = {table.name: pa.Table.from_pylist(of, schema=empty(table).schema) for table, of in tables.items()}
    return duckdb_engine(memory_limit="1GB", threads=1).bind(**filled)


@pytest.fixture(scope="module")
def window(shop: Engine) -> Window:
    return time_window(shop, AS_OF, AS_OF + timedelta(weeks=HORIZON))


def exported(window: Window, config: DemandConfig, folder: Path) -> Artifact:
    draft = Draft(folder / "artifact")
    fit(window.past, window.known_future, window.as_of, "week", config).export(draft)
    return draft.seal({"task": "demand"})


@pytest.fixture(scope="module")
def artifact(window: Window, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported(window, CONFIG, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def alone(window: Window, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported(window, CONFIG.model_copy(update={"reconcile": ()}), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def forecaster(artifact: Artifact) -> Forecaster:
    return Forecaster.load(artifact)


def test_sums_come_nearer_to_their_own_forecasts(artifact: Artifact, forecaster: Forecaster, window: Window):
    known = forecaster.panel(window.past, window.as_of, window.known_future)
    factors, after = artifact.array("factors"), artifact.array("forecast")[:, :, 0]
    sums, before = direct(known, known.n_periods, CONFIG.reconcile), after / factors[:, :, 0]
    off, was_off = (np.abs(sums.of(means) - sums.ahead).sum() for means in (after, before))
    assert off < 0.95 * was_off
    assert np.abs(factors - 1).max() > 0.01


def test_every_origin_is_reconciled_as_the_cut_off_is(artifact: Artifact, forecaster: Forecaster, window: Window):
    known = forecaster.panel(window.past, window.as_of, window.known_future)
    np.testing.assert_array_equal(forecaster.forecast(known), artifact.array("forecast"))
    means = forecaster.recipe.forecast(known, known.n_periods)[:, :, 0]
    np.testing.assert_array_equal(means, artifact.array("forecast")[:, :, 0])


def test_a_what_if_moves_demand_as_it_does_without_sums(artifact: Artifact, alone: Artifact):
    change = {"item_id": "i0", "location_id": None, "date": None, "display": None, "mailer": None, "covariates": {}}
    asked = {"changes": [{**change, "price": 1.0}], "horizon": None}
    answers = [Forecaster.load(of).answer(asked)["forecasts"] for of in (artifact, alone)]
    effects = [[row["effect"] for row in rows] for rows in answers]
    assert effects[0] == pytest.approx(effects[1], rel=1e-5)
    assert max(effects[0]) > 1.1


def test_the_level_times_all_effects_is_the_mean_and_sums_are_one_of_them(forecaster: Forecaster):
    rows = forecaster.answer({**PAGE, "explain": True})["forecasts"]
    product = [row["level"] * np.prod(list(row["effects"].values())) for row in rows]
    assert product == pytest.approx([row["mean"] for row in rows], rel=1e-4)
    assert len({row["effects"]["sums"] for row in rows}) > 1


def test_without_sums_nothing_is_reconciled(artifact: Artifact, alone: Artifact):
    assert (alone.array("factors") == 1).all()
    assert alone.json("forecast")["reconciliation"] is None
    before = artifact.array("forecast")[:, :, 0] / artifact.array("factors")[:, :, 0]
    np.testing.assert_allclose(before, alone.array("forecast")[:, :, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"reconcile": ("shop", "shop")}, "each counts once"),
        ({"reconcile": ("location",)}, "reconcile has location and by_location is false"),
        ({"reconcile": ("region",)}, "'item', 'category', 'location' or 'shop'"),
    ],
)
def test_sums_that_cannot_be_are_refused(settings: dict, says: str):
    with pytest.raises(ValidationError, match=says):
        DemandConfig(**settings)
