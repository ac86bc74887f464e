"""A visit's features: the query over a log and the fold over events are one definition."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import contract
from features.engine import Engine, empty
from features.home import data_folder
from features.ingest import ingest
from features.lake import Lake
from features.seeded.tables import write
from features.sessions import (
    NUMBERS,
    TEXTS,
    Event,
    Item,
    ItemWeek,
    Visit,
    VisitFold,
    logged,
    session_progress,
    week_of,
)
from features.shops import load_shop
from features.windows import FIRST_INSTANT, before

AS_OF = datetime(2024, 6, 1, tzinfo=UTC)
COUNTS = [name for name in NUMBERS if name.startswith(("n_", "item_", "is_")) or name in ("hour_of_day", "day_of_week")]


def folded(log: Engine, as_of: datetime) -> tuple[np.ndarray, list[list[str | None]]]:
    """Numbers and texts after every event of a visit, from the fold."""
    items = log.select("select item_id, item_category, price from items").to_pylist()
    weeks = log.query("item_weeks", as_of=as_of).to_pylist()
    of_week = {(row.pop("item_id"), row.pop("week")): ItemWeek(**row) for row in weeks}
    fold = VisitFold({item["item_id"]: Item(item["item_category"], item["price"]) for item in items})
    numbers, texts = [], []
    for event in logged(before(log, as_of).select("select * from events")):
        visit = fold.update(event)
        if visit is not None:
            numbers.append(visit.numbers(of_week.get((visit.item_id, week_of(visit.known_us)))))
            texts.append(visit.texts())
    return np.array(numbers, np.float64), texts


def assert_fold_equals_batch(log: Engine, as_of: datetime) -> int:
    batch = session_progress(log, FIRST_INSTANT, as_of)
    numbers, texts = folded(log, as_of)
    assert len(numbers) == batch.num_rows > 0
    for column, name in enumerate(NUMBERS):
        found = batch[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        if name in COUNTS:
            np.testing.assert_array_equal(numbers[:, column], found, err_msg=name)
        else:
            np.testing.assert_allclose(numbers[:, column], found, rtol=1e-9, atol=1e-9, err_msg=name)
    assert texts == [list(row.values()) for row in batch.select(list(TEXTS)).to_pylist()]
    return len(set(zip(batch["visitor_id"].to_pylist(), batch["started_us"].to_pylist(), strict=True)))


@pytest.fixture(scope="session")
def tiny_shop(duckdb_shop: Engine, events: pa.Table, items: pa.Table, stock: pa.Table) -> Engine:
    return duckdb_shop.bind(events=events, items=items, stock=stock)


def test_fold_equals_batch_in_the_tiny_shop(tiny_shop: Engine) -> None:
    assert_fold_equals_batch(tiny_shop, AS_OF)


def test_fold_equals_batch_on_ten_thousand_visits(duckdb_shop: Engine, tmp_path: Path) -> None:
    write(tmp_path, n_events=56_000, seed=3)
    tables = {
        "events": (contract.EVENTS, "events"),
        "items": (contract.ITEMS, "items.parquet"),
        "stock": (contract.STOCK, "stock.parquet"),
    }
    read = {
        name: pa.concat_tables([empty(table), pq.read_table(tmp_path / path)], promote_options="permissive").select(
            empty(table).column_names
        )
        for name, (table, path) in tables.items()
    }
    log = duckdb_shop.bind(**read)
    assert assert_fold_equals_batch(log, AS_OF) > 10_000
    assert_the_same_from(log, datetime(2023, 8, 1, 12, tzinfo=UTC))


def test_fold_equals_batch_on_rees46(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (data_folder() / "rees46").is_dir():
        pytest.skip(f"no data set rees46 under {data_folder()}: set SHOPKEEPER_DATA")
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path))
    shop = load_shop("rees46")
    ingest(shop)
    assert assert_fold_equals_batch(Lake(shop).engine(), AS_OF) > 5_000


@settings(max_examples=15)
@given(since=st.datetimes(datetime(2024, 1, 20), datetime(2024, 5, 10)))
def test_visits_from_a_moment_on_are_what_they_are_in_the_whole_log(tiny_shop: Engine, since: datetime) -> None:
    assert_the_same_from(tiny_shop, since.replace(tzinfo=UTC))


@pytest.mark.parametrize("seed", range(8))
def test_it_does_not_matter_where_a_log_of_shared_devices_is_resumed(duckdb_shop: Engine, seed: int) -> None:
    """Devices change hands, visits go on across the moment, orders have lines, events come late or in no session."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.integers(0, 4 * 24 * 60, 80)).tolist()
    rows = [
        {
            "event_id": f"e{number}",
            "event_name": rng.choice(["page_view", "login", "purchase", "refund"], p=[0.4, 0.3, 0.2, 0.1]),
            "event_timestamp": datetime(2024, 2, 1) + timedelta(minutes=minute),
            "received_at": datetime(2024, 2, 1) + timedelta(minutes=minute + int(rng.choice([0, 0, 10, 90]))),
            "user_pseudo_id": str(rng.choice(["d", "e"])),
            "user_id": rng.choice([None, "ann", "bob"], p=[0.5, 0.3, 0.2]),
            "session_id": rng.choice([None, "s0", "s1", "s2", "s3"]),
            "item_id": "i",
            "transaction_id": f"t{rng.integers(4)}",
            "price": float(rng.integers(1, 9)),
        }
        for number, minute in enumerate(at)
    ]
    log = duckdb_shop.bind(events=pa.Table.from_pylist(rows, schema=empty(contract.EVENTS).schema))
    for hours in (1, 30, 50, 80):
        assert_the_same_from(log, datetime(2024, 2, 1, tzinfo=UTC) + timedelta(hours=hours))


def assert_the_same_from(log: Engine, since: datetime) -> None:
    whole, part = (session_progress(log, begins, AS_OF) for begins in (FIRST_INSTANT, since))
    whole = whole.filter(pc.field("started_us") >= int(since.timestamp() * 1e6))
    assert whole.num_rows == part.num_rows
    for name in whole.column_names:
        if pa.types.is_floating(whole.schema.field(name).type):
            found = (table[name].to_numpy(zero_copy_only=False) for table in (whole, part))
            np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-9, err_msg=name)
        else:
            assert whole[name].equals(part[name]), name


@settings(max_examples=15)
@given(cut=st.datetimes(datetime(2024, 1, 20), datetime(2024, 5, 10)))
def test_what_follows_changes_no_feature(tiny_shop: Engine, cut: datetime) -> None:
    """Every row at a moment is the same whether or not the log goes on after it."""
    at = cut.replace(tzinfo=UTC)
    known = ["event_id", "person_id", "item_id", "n_purchases", "started_us", *NUMBERS, *TEXTS]
    whole, part = (session_progress(log, FIRST_INSTANT, AS_OF) for log in (tiny_shop, before(tiny_shop, at)))
    early = whole.slice(0, part.num_rows)
    assert early["known_at"][-1].as_py() < cut if part.num_rows else True
    for name in known:
        if pa.types.is_floating(part.schema.field(name).type):
            found = (table[name].to_numpy(zero_copy_only=False) for table in (early, part))
            np.testing.assert_allclose(*found, rtol=1e-9, err_msg=name)
        else:
            assert early[name].equals(part[name]), name


def event(minutes: float, name: str = "view_item", late: float = 0.0, **fields) -> Event:
    at = int(minutes * 60_000_000)
    return Event(at, at + int(late * 60_000_000), name, **{"user_pseudo_id": "d", "item_id": "i", **fields})


def after(*events: Event) -> dict[str, float | str | None]:
    fold = VisitFold({"i": Item("food", 2.0), "j": Item("toys", None)})
    visits = [visit for visit in map(fold.update, events) if visit is not None]
    return {
        **dict(zip(NUMBERS, visits[-1].numbers(None), strict=True)),
        **dict(zip(TEXTS, visits[-1].texts(), strict=True)),
    }


def test_a_visit_in_numbers() -> None:
    found = after(
        event(0, "page_view", item_id=None, medium="email"),
        event(1),
        event(3, item_id="j", price=10.0),
        event(4, "add_to_cart", quantity=3.0),
        event(5, "add_to_cart", item_id="j", price=10.0),
        event(6, "remove_from_cart"),
    )
    assert (found["n_events"], found["n_views"], found["n_carts"], found["n_removals"]) == (6, 2, 2, 1)
    assert (found["n_items"], found["n_categories"], found["n_events_of_last_item"]) == (2, 2, 3)
    assert (found["seconds_since_start"], found["longest_pause_seconds"], found["seconds_since_cart"]) == (360, 120, 60)
    assert (found["cart_value"], found["last_price"], found["mean_price"], found["highest_price"]) == (14, 2, 5.2, 10)
    assert (found["medium"], found["item_category"], found["event_name"]) == ("email", "food", "remove_from_cart")


@pytest.mark.parametrize(("pause", "n_events"), [(30.0, 2), (30.1, 1)])
def test_a_pause_of_more_than_half_an_hour_begins_a_new_visit(pause: float, n_events: int) -> None:
    assert after(event(0), event(pause))["n_events"] == n_events


def test_a_named_session_outlasts_a_pause() -> None:
    assert after(event(0, session_id="s"), event(60, session_id="s"))["n_events"] == 2


def test_what_came_too_late_and_refunds_are_not_part_of_a_visit() -> None:
    assert after(event(0), event(1, late=31), event(2, "refund", transaction_id="t"), event(3))["n_events"] == 2


def test_a_guest_who_logs_in_keeps_the_visit_and_becomes_the_customer() -> None:
    buys = event(-1000, "purchase", user_pseudo_id="other", user_id="ann", transaction_id="t")
    guest, customer = after(buys, event(0)), after(buys, event(0), event(1, "login", item_id=None, user_id="ann"))
    assert (guest["is_known_customer"], guest["n_earlier_orders"]) == (0, 0)
    assert (customer["is_known_customer"], customer["n_earlier_orders"], customer["n_events"]) == (1, 1, 2)
    assert customer["days_since_last_order"] == pytest.approx(1000 / 1440)


def test_an_order_of_several_lines_is_one_order() -> None:
    lines = [event(0, "purchase", transaction_id="t", price=3.0) for _ in range(3)]
    found = after(*lines, event(100, "purchase", transaction_id="u"), event(200))
    assert (found["n_earlier_orders"], found["n_earlier_visits"], found["earlier_spend"]) == (2, 2, 11)


def test_a_visit_with_several_carts_is_one_carted_visit_of_each_whose_it_was() -> None:
    carts = [event(0, "add_to_cart"), event(1, "add_to_cart"), event(2, user_id="ann"), event(3, "add_to_cart")]
    ann, guest = after(*carts, event(100)), after(*carts[:2], event(100))
    assert (guest["n_earlier_carted_visits"], guest["n_earlier_views"], guest["n_earlier_visits"]) == (1, 0, 1)
    assert (ann["n_earlier_carted_visits"], ann["n_earlier_views"], ann["n_earlier_visits"]) == (1, 1, 1)
    assert (ann["share_of_carted_visits"], ann["earlier_views_per_visit"]) == (2 / 6, 16 / 6)


def test_a_visit_of_a_hundred_thousand_events_stays_exact() -> None:
    fold = VisitFold({})
    visit: Visit | None = None
    for number in range(100_000):
        visit = fold.update(event(number / 100, session_id="s", item_id=f"i{number % 100}"))
    assert visit is not None
    assert (visit.n_events, len(visit.events_of_item)) == (100_000, 100)


@pytest.mark.parametrize(
    ("day", "place", "on_hand"),
    [
        (datetime(2024, 1, 7), "south", 9.0),
        (datetime(2024, 1, 8), "south", 4.0),
        (datetime(2024, 1, 7), "north", 5.0),
        (datetime(2023, 12, 30), "north", 4.0),
    ],
    ids=["of a second place", "dated within the week", "later at the place", "earlier at the place"],
)
def test_stock_is_the_last_that_was_noted_before_the_week(
    engine: Engine, day: datetime, place: str, on_hand: float
) -> None:
    seen = {"event_id": "e", "event_name": "view_item", "user_id": "u", "item_id": "i"}
    noted = [(datetime(2023, 12, 31), "north", 4.0), (day, place, 5.0)]
    rows = [{"item_id": "i", "location_id": at, "date": on.date(), "on_hand": units} for on, at, units in noted]
    shop = engine.bind(
        events=pa.Table.from_pylist(
            [{**seen, "event_timestamp": datetime(2024, 1, 3)}], schema=empty(contract.EVENTS).schema
        ),
        stock=pa.Table.from_pylist(rows, schema=empty(contract.STOCK).schema),
    )
    weeks = shop.query("item_weeks", as_of=AS_OF)
    monday = week_of(int(datetime(2024, 1, 8, tzinfo=UTC).timestamp() * 1e6))
    assert weeks.filter(pc.field("week") == monday)["on_hand"].to_pylist() == [on_hand]
    without = shop.bind(stock=empty(contract.STOCK)).query("item_weeks", as_of=AS_OF)
    assert without["on_hand"].null_count == without.num_rows == weeks.num_rows


def test_a_week_begins_on_monday() -> None:
    monday = datetime(2024, 1, 1, tzinfo=UTC)
    us = [int((monday + timedelta(days=day)).timestamp() * 1e6) for day in (-1, 0, 6, 7)]
    assert np.diff([week_of(each) for each in us]).tolist() == [1, 0, 1]
