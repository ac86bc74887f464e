"""Launches are counted from their beginning, and what is too young for a forecast of its own is asked for."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from features import contract
from features.engine import Engine, duckdb_engine, empty
from features.launches import LEAST_TEACHERS, Launches, launches
from features.panels import PanelSettings, panel
from features.windows import before

MONDAY = date(2024, 1, 1)
N_WEEKS, HORIZON, OLD = 60, 2, 30
AS_OF = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(weeks=N_WEEKS)
WEEKLY = PanelSettings("week", HORIZON, 20)
LAUNCHED = {f"new{n:02}": 30 + n for n in range(LEAST_TEACHERS)}


def week(number: int) -> date:
    return MONDAY + timedelta(weeks=number)


def filled(table: contract.Table, rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=empty(table).schema)


def sold(item: str, weeks: range, units: float = 2.0) -> list[dict]:
    return [{"item_id": item, "date": week(each), "quantity": units, "revenue": units} for each in weeks]


DEMAND = [row for n in range(OLD) for row in sold(f"old{n:02}", range(N_WEEKS))]
DEMAND += [row for item, begin in LAUNCHED.items() for row in sold(item, range(begin, N_WEEKS, 3))]
DEMAND += sold("gone", range(5, 20))
DEMAND += [*sold("riser", range(2, 3), 1.0), *sold("riser", range(50, N_WEEKS), 40.0)]
ITEMS = [
    *({"item_id": item, "item_category": "toys"} for item in LAUNCHED if item != "new15"),
    {"item_id": "new15", "item_category": "toys", "created_at": datetime(2024, 1, 1) + timedelta(weeks=44)},
    {"item_id": "listed", "item_category": "toys", "created_at": datetime(2024, 1, 1) + timedelta(weeks=58)},
    {"item_id": "listed long ago", "created_at": datetime(2024, 1, 1)},
    {"item_id": "later", "created_at": datetime(2024, 1, 1) + timedelta(weeks=61)},
    {"item_id": "hidden", "created_at": datetime(2024, 1, 1) + timedelta(weeks=58), "availability": "hidden"},
]


def shop(demand: list[dict], settings: PanelSettings = WEEKLY) -> Launches:
    tables = {"demand": filled(contract.DEMAND, demand), "items": filled(contract.ITEMS, ITEMS)}
    engine = duckdb_engine(memory_limit="1GB", threads=1).bind(**tables)
    return seen(engine, settings)


def seen(engine: Engine, settings: PanelSettings) -> Launches:
    past = before(engine, AS_OF)
    return launches(past, AS_OF, settings, panel(past, AS_OF, settings, None))


@pytest.fixture(scope="module")
def found() -> Launches:
    return shop(DEMAND)


def row(found: Launches, item: str) -> int:
    return list(found.keys).index((item, ""))


def test_what_has_no_forecast_of_its_own_and_is_on_sale_is_asked_for(found: Launches):
    asked = {item for item, _ in found.asked_keys}
    assert asked == {*LAUNCHED, "listed", "riser"}


def test_what_is_asked_for_counts_by_its_latest_periods(found: Launches):
    at = row(found, "riser")
    assert (found.periods[at], found.sold[at]) == (26, 40 * 10)
    assert found.squares[at] == 40**2 * 10


def test_a_launch_is_counted_from_the_period_after_its_first_sale(found: Launches):
    begun = LAUNCHED["new05"]
    at = row(found, "new05")
    assert found.periods[at] == min(26, N_WEEKS - begun - 1)
    assert found.sold[at] == 2 * len(range(begun + 3, N_WEEKS, 3))
    assert found.teaches[at]


def test_a_launch_is_counted_from_the_listing_where_the_catalogue_has_it(found: Launches):
    at = row(found, "new15")
    assert found.periods[at] == N_WEEKS - 44
    assert found.sold[at] == 2 * len(range(45, N_WEEKS, 3))
    assert found.periods[row(found, "listed")] == 2


def test_only_launches_seen_from_their_beginning_teach(found: Launches):
    assert not found.teaches[row(found, "old03")]
    assert not found.teaches[row(found, "gone")]


def test_without_launches_the_latest_periods_of_all_teach():
    found = shop([each for each in DEMAND if each["item_id"] not in list(LAUNCHED)[:2]])
    at = row(found, "old03")
    assert found.teaches[at]
    assert found.periods[at] == 26
    assert found.sold[at] == 52


def test_groups_lie_within_one_another(found: Launches):
    for wide, narrow in zip(found.groups.T, found.groups.T[1:], strict=False):
        assert len({*zip(wide, narrow, strict=True)}) == len({*narrow})
    assert len({*found.groups[:, 0]}) == 1


def test_what_comes_later_changes_nothing(found: Launches):
    later = [{"item_id": each, "date": week(61), "quantity": 99.0, "revenue": 9.0} for each in ("new01", "later", "x")]
    again = shop(DEMAND + later)
    assert again.keys == found.keys
    for one, other in ((again.sold, found.sold), (again.periods, found.periods), (again.asked, found.asked)):
        np.testing.assert_array_equal(one, other)
