from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import contract
from features.customers import customer_features, did, eligible
from features.engine import duckdb_engine, empty
from features.windows import before, time_window

AS_OF = datetime(2024, 6, 3, tzinfo=UTC)
PEOPLE = ("ann", "bob", "cy")
ENGINE = duckdb_engine(memory_limit="1GB", threads=1)


def row(days_before, person="ann", name="purchase", item="i1", order=None, quantity=1.0, price=2.0, late_days=0.0):
    at = AS_OF.replace(tzinfo=None) - timedelta(days=days_before)
    return {
        "event_name": name,
        "event_timestamp": at,
        "received_at": at + timedelta(days=late_days) if late_days else None,
        "user_id": person,
        "item_id": item,
        "transaction_id": order or f"{person} {days_before}",
        "quantity": quantity,
        "price": price,
    }


def shop(rows):
    numbered = [{**event, "event_id": f"e{number}"} for number, event in enumerate(rows)]
    return ENGINE.bind(events=pa.Table.from_pylist(numbered, schema=empty(contract.EVENTS).schema))


def features_of(rows, person="ann"):
    (found,) = [one for one in customer_features(shop(rows), AS_OF).to_pylist() if one["person_id"] == person]
    return found


def events(days):
    return st.lists(
        st.builds(
            row,
            days,
            st.sampled_from(PEOPLE),
            st.sampled_from(["purchase", "view_item", "add_to_cart", "refund"]),
            st.sampled_from(["i1", "i2"]),
            st.sampled_from(["o1", "o2", None]),
            late_days=st.sampled_from([0.0, 0.25]),
        ),
        max_size=12,
    )


@settings(max_examples=30, deadline=None)
@given(
    known=events(st.floats(0.5, 400.0)),
    later=events(st.floats(-60.0, 0.0)),
    other=events(st.floats(-60.0, 0.0)),
)
def test_events_from_the_cut_off_on_change_nothing(known, later, other):
    alone = customer_features(shop(known), AS_OF)
    assert customer_features(shop(known + later), AS_OF).equals(alone)
    assert customer_features(shop(other + known), AS_OF).equals(alone)
    assert customer_features(before(shop(known + later), AS_OF), AS_OF).equals(alone)
    past = time_window(shop(known + later), AS_OF, AS_OF + timedelta(days=28)).past
    assert customer_features(past, AS_OF).equals(alone)


def test_an_event_that_arrives_after_the_cut_off_is_not_known():
    assert features_of([row(10), row(2, late_days=3)])["days_since_last_order"] == 10


def test_recency_frequency_and_money():
    found = features_of([row(2, price=3.0), row(2, item="i2", price=4.0, quantity=2.0), row(30), row(60), row(100)])
    expected = {
        "days_since_last_order": 2,
        "n_orders_28d": 1,
        "n_orders_91d": 3,
        "n_order_days_182d": 4,
        "n_order_weeks_91d": 3,
        "spend_28d": 11.0,
        "spend_91d": 15.0,
        "n_lines_28d": 2,
        "last_order_day_spend": 11.0,
        "mean_order_spend": 17.0 / 4,
    }
    assert {name: found[name] for name in expected} == expected


def test_pace():
    found = features_of([row(5), row(8), row(28), row(30)])
    assert found["mean_days_between_orders"] == pytest.approx((3 + 20 + 2) / 3)
    assert found["longest_days_between_orders"] == 20
    assert found["share_of_longer_gaps"] == pytest.approx(1 / 3)


def test_what_was_returned():
    bought = [row(10, quantity=3.0), row(400, quantity=9.0), row(20, "bob")]
    returned = [row(5, name="refund", order="credit note"), row(0.5, name="refund", late_days=1)]
    assert features_of(bought)["share_of_units_returned"] == 0
    assert features_of(bought + returned)["share_of_units_returned"] == pytest.approx(1 / 3)
    assert features_of([*bought, row(5, name="refund", quantity=4.0)])["share_of_units_returned"] == 1


def test_what_was_bought_at_a_discount():
    paid = [row(days, "bob", price=2.0) for days in range(30, 40)]
    ann = [row(10, price=1.5), row(5, price=2.0), row(3, item="bought once", price=1.0), row(2, price=None)]
    assert features_of(paid + ann)["share_of_lines_at_discount"] == 1 / 2
    assert features_of(paid + ann, "bob")["share_of_lines_at_discount"] == 0
    assert features_of(ann[2:])["share_of_lines_at_discount"] is None


def test_a_price_that_never_changes_is_no_discount():
    paid = [row(days, price=0.1) for days in range(1, 30)]
    assert features_of(paid)["share_of_lines_at_discount"] == 0


def test_a_single_order_has_no_pace():
    found = features_of([row(5)])
    assert found["mean_days_between_orders"] is found["longest_days_between_orders"] is None
    assert found["share_of_longer_gaps"] is None


def test_browsing():
    found = features_of([row(200), row(3, name="view_item"), row(1, name="add_to_cart"), row(40, name="view_item")])
    assert (found["days_since_last_visit"], found["n_views_28d"], found["n_carts_28d"]) == (1, 1, 1)
    assert features_of([row(200)])["days_since_last_visit"] is None


@pytest.mark.parametrize(("days", "known"), [(364, True), (365, False)])
def test_a_customer_is_known_for_a_year(days, known):
    assert (customer_features(shop([row(days)]), AS_OF).num_rows == 1) is known


def test_eligible_customers_bought_lately():
    found = customer_features(shop([row(91, "ann"), row(92, "bob")]), AS_OF)
    assert eligible(found, 91)["person_id"].to_pylist() == ["ann"]
    assert eligible(found, 92)["person_id"].to_pylist() == ["ann", "bob"]


@settings(max_examples=20, deadline=None)
@given(rows=events(st.floats(-60.0, 20.0)))
def test_labels_are_purchases_within_the_horizon(rows):
    end = AS_OF.replace(tzinfo=None) + timedelta(days=28)
    known = [event for event in rows if (event["received_at"] or event["event_timestamp"]) < end]
    bought = {
        event["user_id"]
        for event in known
        if event["event_name"] == "purchase" and AS_OF.replace(tzinfo=None) <= event["event_timestamp"] < end
    }
    labels = did(shop(rows), "purchase", AS_OF, AS_OF + timedelta(days=28), PEOPLE)
    assert labels.dtype == bool
    assert labels.tolist() == [person in bought for person in PEOPLE]
