"""The forecaster pages through stored forecasts, and computes them again from a panel with ordered quantiles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from panels import plain_panel

from features.demand import level
from features.errors import UserError
from features.panels import Panel
from serving.artifact import Artifact, ArtifactError, Draft
from serving.demand import Forecaster
from serving.recipe import Recipe

DATES = ["2023-06-05", "2023-06-12", "2023-06-19"]
SERIES = {
    "item_ids": ["a", "a", "b", "c"],
    "location_ids": ["north", "south", "north", ""],
    "patterns": ["smooth", "lumpy", "smooth"],
}
VALUES = np.arange(4 * 3 * 3, dtype=np.float32).reshape(4, 3, 3)
PANEL = {"frequency": "week", "horizon": 3, "min_periods": 4, "covariates": []}
EVERYTHING = {"item_ids": [], "location_id": None, "horizon": None, "offset": 0, "limit": 1000, "explain": False}


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    draft = Draft(tmp_path / "artifact")
    draft.array("forecast", VALUES)
    draft.json("series", SERIES)
    draft.json("features", ["something", "else"])
    about = {"cutoff": DATES[0], "dates": DATES, "quantiles": [0.05, 0.5], "bases": ["level"], "carry": 0.1}
    draft.json("forecast", {**about, "panel": PANEL})
    return draft


@pytest.fixture
def forecaster(draft: Draft) -> Forecaster:
    return Forecaster.load(Artifact(draft.folder))


def test_a_row_is_one_series_in_one_period(forecaster: Forecaster):
    answer = forecaster.answer({**EVERYTHING, "offset": 4, "limit": 1})
    units = {"mean": 12.0, "q0.05": 13.0, "q0.50": 14.0}
    row = {"item_id": "a", "location_id": "south", "date": "2023-06-12", "tier": "trees", **units}
    assert answer == {"cutoff": "2023-06-05", "total": 12, "unknown_item_ids": [], "forecasts": [row]}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 13), horizon=st.none() | st.integers(1, 3), location=st.sampled_from([None, "north", "x"]))
def test_pages_together_are_the_whole(forecaster: Forecaster, limit: int, horizon: int | None, location: str | None):
    asked = {**EVERYTHING, "horizon": horizon, "location_id": location}
    whole = forecaster.answer(asked)
    offsets = range(0, whole["total"], limit)
    pages = [forecaster.answer({**asked, "offset": offset, "limit": limit})["forecasts"] for offset in offsets]
    assert [row for page in pages for row in page] == whole["forecasts"]
    assert len(whole["forecasts"]) == whole["total"]
    assert {row["location_id"] for row in whole["forecasts"]} <= ({location} if location else {"north", "south", None})


def test_items_come_in_the_order_asked_for_and_strangers_are_named(forecaster: Forecaster):
    answer = forecaster.answer({**EVERYTHING, "item_ids": ["c", "new", "a", "c"], "horizon": 1})
    assert [row["item_id"] for row in answer["forecasts"]] == ["c", "a", "a"]
    assert [row["location_id"] for row in answer["forecasts"]] == [None, "north", "south"]
    assert answer["unknown_item_ids"] == ["new"]
    assert answer["total"] == 3


def test_only_strangers_give_an_empty_page(forecaster: Forecaster):
    answer = forecaster.answer({**EVERYTHING, "item_ids": ["new"]})
    assert (answer["total"], answer["forecasts"]) == (0, [])


def test_a_horizon_beyond_the_models_is_refused(forecaster: Forecaster):
    with pytest.raises(UserError, match="horizon 4 is longer than the 3 periods of this model: ask for fewer"):
        forecaster.answer({**EVERYTHING, "horizon": 4})


class Constant:
    def __init__(self, value: float) -> None:
        self.value = value

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), self.value)


@pytest.fixture
def known() -> Panel:
    """Two series of eight weeks, the second of which sells too rarely to be forecast."""
    sold = np.array([[2, 4] * 4, [0, 0, 0, 1, 0, 0, 1, 0]], np.float32)
    return plain_panel(sold, 3, since="2023-04-10", item_ids=("often", "rarely"), min_periods=4)


def test_forecasts_are_levels_times_multiples_ordered_and_never_negative(known: Panel):
    values = Recipe([Constant(1.5)], [Constant(-1.0), Constant(2.0), Constant(1.0)]).forecast(known, 8)
    assert level(known, 8)[0] == 3.0
    assert values.dtype == np.float32
    assert values.tolist() == [[[4.5, 0.0, 4.5, 9.0]] * 3]


def test_the_mean_over_several_bases_is_the_geometric_mean_of_their_units(known: Panel):
    one = [
        Recipe([Constant(c)], [Constant(1.0)], (base,)).forecast(known, 8)
        for c, base in ((1.5, "level"), (2.0, "theta"))
    ]
    both = Recipe([Constant(1.5), Constant(2.0)], [Constant(2.0)], ("level", "theta")).forecast(known, 8)
    np.testing.assert_allclose(both[:, :, 0], np.sqrt(one[0] * one[1])[:, :, 0], rtol=1e-5)
    np.testing.assert_allclose(both[:, :, 1], 2 * both[:, :, 0], rtol=1e-5)


def test_a_mean_of_nothing_still_has_quantiles_that_ascend(known: Panel):
    values = Recipe([Constant(-1.0)], [Constant(1.0), Constant(0.0)]).forecast(known, 8)
    assert values[0, 0].tolist() == pytest.approx([0.0, 0.0, 0.03])


def test_quantiles_of_the_base_do_not_move_with_the_mean(known: Panel):
    values = Recipe([Constant(0.5)], [Constant(2.0), Constant(-1.0)], quantiles_of="base").forecast(known, 8)
    assert values.tolist() == [[[1.5, 0.0, 6.0]] * 3]


def test_what_was_not_on_sale_is_in_no_level(known: Panel):
    out_of_stock = replace(known, exposure=np.array([[1, 0] * 4, [1] * 8], np.float32))
    assert level(out_of_stock, 8)[0] == 2.0
    assert np.isnan(out_of_stock.demand[0, 1::2]).all()


def test_trees_of_other_features_are_refused(forecaster: Forecaster, known: Panel):
    with pytest.raises(ArtifactError, match="was trained with other features: train the model again"):
        forecaster.forecast(known)


def test_a_series_beyond_those_that_the_trees_tell_sold_too_little(forecaster: Forecaster):
    rows = forecaster.answer({**EVERYTHING, "horizon": 1})["forecasts"]
    assert [row["tier"] for row in rows] == ["trees", "trees", "trees", "sparse"]
