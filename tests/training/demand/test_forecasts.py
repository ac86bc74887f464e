"""A forecast is one thing, whether it is written long or wide, with overrides beside it and never in it."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import overrides
from features.errors import UserError
from serving.artifact import Artifact, Draft
from serving.demand import Forecaster
from training.demand.forecasts import Forecast, long, stored, wide

DATES = ["2023-06-05", "2023-06-12"]
QUANTILES = [0.05, 0.5, 0.995]
VALUES = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 4)
KEYS = [("a", "north"), ("a", "south"), ("b", "")]
PLAN = pa.Table.from_pylist(
    [
        {
            "item_id": "b",
            "date": date(2023, 6, 12),
            "quantity": 7.5,
            "made_at": datetime(2023, 6, 1, tzinfo=UTC),
            "made_by": "anna",
            "reason": "fair",
            "model_mean": 20.0,
            "model_version": "1",
        }
    ],
    schema=overrides.SCHEMA,
)


@pytest.fixture
def forecast() -> Forecast:
    return Forecast(KEYS, np.array(DATES, "datetime64[D]"), "week", QUANTILES, VALUES)


def test_the_stored_forecast_is_what_the_service_answers(tmp_path: Path):
    draft = Draft(tmp_path / "artifact")
    draft.array("forecast", VALUES)
    series = {"item_ids": ["a", "a", "b"], "location_ids": ["north", "south", ""], "patterns": ["smooth"] * 3}
    draft.json("series", series)
    panel = {"frequency": "week", "horizon": 2, "min_periods": 4, "covariates": []}
    about = {
        "cutoff": DATES[0],
        "dates": DATES,
        "quantiles": QUANTILES,
        "bases": ["level"],
        "carry": 0.1,
        "panel": panel,
    }
    draft.json("forecast", about)
    forecaster = Forecaster.load(Artifact(draft.folder))
    asked = {"item_ids": [], "location_id": None, "horizon": None, "offset": 0, "limit": 100, "explain": False}
    table = wide(stored(forecaster), overrides.NONE, "1").drop_columns(["override", "cutoff", "model_version"])
    rows = [{**row, "date": row["date"].isoformat(), "tier": "trees"} for row in table.to_pylist()]
    assert rows == forecaster.answer(asked)["forecasts"]


def test_wide_has_a_column_per_quantile_with_two_digits_or_as_many_as_it_needs(forecast: Forecast):
    table = wide(forecast, PLAN, "7")
    names = ["item_id", "location_id", "date", "mean", "q0.05", "q0.50", "q0.995", "override", "cutoff"]
    assert table.column_names == [*names, "model_version"]
    assert table.schema.field("date").type == table.schema.field("cutoff").type == pa.date32()
    assert table.to_pylist()[5] == {
        "item_id": "b",
        "location_id": None,
        "date": date(2023, 6, 12),
        "mean": 20.0,
        "override": 7.5,
        "q0.05": 21.0,
        "q0.50": 22.0,
        "q0.995": 23.0,
        "cutoff": date(2023, 6, 5),
        "model_version": "7",
    }
    assert table["override"].null_count == 5


def test_long_says_the_same_as_wide(forecast: Forecast):
    names = ["item_id", "location_id", "date", "quantile", "value", "mean", "override", "cutoff", "model_version"]
    table, by_series = long(forecast, PLAN, "7"), wide(forecast, PLAN, "7").to_pylist()
    assert table.column_names == names
    assert table.num_rows == len(by_series) * len(QUANTILES)
    for number, row in enumerate(table.to_pylist()):
        cell = by_series[number // len(QUANTILES)]
        column = {0.05: "q0.05", 0.5: "q0.50", 0.995: "q0.995"}[row.pop("quantile")]
        assert row.pop("value") == cell[column]
        assert row == {name: cell[name] for name in row}


def test_an_override_moves_nothing_but_its_own_column(forecast: Forecast):
    plain, planned = (wide(forecast, plan, "7").drop_columns("override") for plan in (overrides.NONE, PLAN))
    assert planned.equals(plain)


@given(st.integers(1, 2), st.sets(st.sampled_from(QUANTILES), min_size=1))
def test_a_part_of_a_forecast_is_a_part_of_its_table(horizon: int, asked: set[float]):
    whole = Forecast(KEYS, np.array(DATES, "datetime64[D]"), "week", QUANTILES, VALUES)
    part = long(whole.of_first(horizon).of_quantiles(list(asked)), PLAN, "7")
    last = date.fromisoformat(DATES[horizon - 1])
    rows = [row for row in long(whole, PLAN, "7").to_pylist() if row["quantile"] in asked and row["date"] <= last]
    assert part.to_pylist() == rows


def test_what_the_model_does_not_have_is_told(forecast: Forecast):
    with pytest.raises(UserError, match="--horizon 3 is longer than the 2 weeks of this model: ask for fewer or train"):
        forecast.of_first(3)
    with pytest.raises(UserError, match=r"the model has no quantile 0.9: it has 0.05, 0.5, 0.995; ask for some"):
        forecast.of_quantiles([0.5, 0.9])
