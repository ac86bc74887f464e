from datetime import UTC, datetime, timedelta
from time import perf_counter

import cdnow
import numpy as np
import pyarrow as pa
import pytest

from features import contract
from features.customers import order_summaries, orders_between, purchase_days
from features.engine import duckdb_engine, empty
from features.errors import UserError
from features.home import data_folder
from features.ingest import ingest
from features.lake import Lake
from features.shops import load_shop
from features.windows import before, time_window
from training import customer_value, order_value, repeat_buying
from training.customer_value import CustomersConfig, Season
from training.repeat_buying import OrderHistories
from training.value_metrics import level_metrics

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
AS_OF = FIRST_DAY + timedelta(days=364)
CONFIG = CustomersConfig(tiers={"gold": 0.1, "basic": 0.9})
FLAT, DECEMBER = Season(None), Season((1.0,) * 11 + (3.0,))


def purchases(n_customers=300, n_days=420):
    """Customers who order every week, every month or hardly ever, and pay 10, 20 or 30."""
    rng = np.random.default_rng(0)
    kind = np.arange(n_customers) % 3
    days, customers = np.nonzero(rng.random((n_days, n_customers)) < np.array([1 / 7, 1 / 30, 1 / 200])[kind])
    return pa.table(
        {
            "event_id": [f"e{number}" for number in range(len(days))],
            "event_name": ["purchase"] * len(days),
            "event_timestamp": np.datetime64("2024-01-01T12", "us") + days.astype("timedelta64[D]"),
            "user_id": [f"u{customer:03}" for customer in customers],
            "item_id": ["i1"] * len(days),
            "transaction_id": [f"t{number}" for number in range(len(days))],
            "price": 10.0 * (1 + kind[customers]) * rng.gamma(9, 1 / 9, len(days)),
        }
    )


def shop(events, users=None):
    missing = empty(contract.EVENTS)
    columns = {
        name: events[name] if name in events.column_names else pa.nulls(len(events), missing.schema.field(name).type)
        for name in missing.column_names
    }
    engine = duckdb_engine(memory_limit="1GB", threads=1).bind(events=pa.table(columns))
    return engine.bind(users=users) if users else engine


@pytest.fixture(scope="module")
def engine():
    return shop(purchases(), pa.table({"user_id": ["u001", "stranger"], "membership_tier": ["silver", "gold"]}))


@pytest.fixture(scope="module")
def model(engine):
    return customer_value.fit(before(engine, AS_OF), AS_OF, FLAT)


@pytest.fixture(scope="module")
def table(engine, model):
    return customer_value.customer_table(before(engine, AS_OF), model, CONFIG).to_pandas().set_index("person_id")


def test_every_buyer_has_one_row_with_what_was_and_what_is_expected(engine, table):
    known = order_summaries(before(engine, AS_OF), AS_OF).to_pandas().set_index("person_id")
    assert table.index.is_unique
    assert (table.realised_revenue == known.net_spend).all()
    assert (table.realised_orders == known.n_orders).all()
    assert table.probability_alive.between(0, 1).all()
    assert (table.predicted_value_12m >= 0).all()
    assert table.suggested_tier.value_counts()["gold"] == round(0.1 * len(table))
    assert table.membership_tier.dropna().to_dict() == {"u001": "silver"}


def test_predictions_tell_customers_apart(table):
    kind = table.index.str[1:].astype(int) % 3
    yearly = table.groupby(kind).expected_orders_12m.mean()
    assert yearly[0] == pytest.approx(365 / 7, rel=0.15)
    assert yearly[1] == pytest.approx(365 / 30, rel=0.3)
    per_order = (table.predicted_value_12m / table.expected_orders_12m).groupby(kind).mean()
    assert per_order[0] == pytest.approx(10, rel=0.1)
    assert per_order[1] == pytest.approx(20, rel=0.1)


def test_what_comes_after_the_cut_off_changes_nothing(engine, model):
    later = purchases().to_pandas()
    known = shop(pa.Table.from_pandas(later[later.event_timestamp < "2024-12-30"], preserve_index=False))
    again = customer_value.fit(known, AS_OF, FLAT)
    assert again.buying == model.buying
    assert again.order_value == model.order_value
    assert again.summaries.equals(model.summaries)


def test_a_discount_takes_off_at_most_itself(model):
    whole, discounted = model.yearly_value(0.0), model.yearly_value(0.2)
    np.testing.assert_allclose(whole, model.expected_orders(365) * model.expected_spend())
    assert (0.8 * whole < discounted).all()
    assert (discounted < whole).all()


def test_the_season_counts_days_in_average_days_of_the_history():
    assert DECEMBER.average_days(31, datetime(2024, 12, 1, tzinfo=UTC), n_known=335) == 93
    assert DECEMBER.average_days(365, datetime(2025, 1, 1, tzinfo=UTC), n_known=366) == pytest.approx(365, abs=0.5)
    assert FLAT.average_days(31, datetime(2024, 12, 1, tzinfo=UTC), n_known=335) == 31


def test_orders_between_midnights(engine):
    end = AS_OF + timedelta(days=30)
    events = purchases().to_pandas()
    within = events[events.event_timestamp.between(AS_OF.replace(tzinfo=None), end.replace(tzinfo=None))]
    found = orders_between(before(engine, end), AS_OF, end, ["u000", "nobody", "u001"])
    expected = [len(within[within.user_id == name]) for name in ("u000", "nobody", "u001")]
    assert found["n_order_days"].to_pylist() == expected
    assert found["spend"].to_pylist()[0] == pytest.approx(within[within.user_id == "u000"].price.sum())


def test_the_back_test_is_an_honest_one(engine):
    judged = customer_value.back_test(before(engine, AS_OF), AS_OF, FLAT)
    assert (judged.as_of, judged.days) == (AS_OF - timedelta(days=182), 182)
    assert {(row["model"], row["target"]) for row in judged.rows} == {
        (name, target) for name in ("repeat_buying", "bg_nbd", "same_rate") for target in ("orders", "value")
    }
    ours = judged.rows[0]
    assert ours["correlation"] > 0.85
    assert ours["bias"] == pytest.approx(0, abs=0.1)
    window = time_window(engine, judged.as_of, AS_OF)
    assert customer_value.judge(window, FLAT) == judged


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        (purchases(0), "nobody has ordered before 2024-12-30"),
        (purchases(1), "1 of 1 customers ordered on a second day"),
        (purchases(300, 1), "0 of .* customers ordered on a second day"),
        (purchases().drop_columns("price"), "0 customers paid for an order on a second day"),
    ],
)
def test_a_shop_that_says_too_little_is_told_so(events, sentence):
    with pytest.raises(UserError, match=f"^{sentence}"):
        customer_value.back_test(shop(events), AS_OF, FLAT)


def test_tiers_must_be_of_everybody():
    with pytest.raises(ValueError, match=r"shares sum to 0\.5, not to 1"):
        CustomersConfig(tiers={"gold": 0.5})


@pytest.fixture(scope="module")
def cdnow_window(tmp_path_factory):
    if not (data_folder() / "cdnow").is_dir():
        pytest.skip("the CDNOW data ($SHOPKEEPER_DATA) are not on this machine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPKEEPER_HOME", str(tmp_path_factory.mktemp("cdnow")))
        found = load_shop("cdnow")
        (report,) = ingest(found)
        assert (report.read, report.accepted) == (69_659, 69_659)
        return time_window(Lake(found).engine(), cdnow.AS_OF, cdnow.END)


@pytest.fixture(scope="module")
def summaries(cdnow_window):
    return order_summaries(cdnow_window.past, cdnow.AS_OF)


@pytest.fixture(scope="module")
def histories(cdnow_window):
    return OrderHistories.of(purchase_days(cdnow_window.past, cdnow.AS_OF), cdnow.AS_OF)


@pytest.fixture(scope="module")
def is_tenth(cdnow_window):
    return cdnow.tenth(cdnow_window.past)


def test_bg_nbd_and_gamma_gamma_on_the_tenth_are_those_of_the_publications(summaries, histories, is_tenth):
    of_tenth = histories.take(is_tenth)
    found = repeat_buying.fit(of_tenth, as_published=True)
    assert round(found.log_likelihood, 1) == -9582.4
    assert (found.r, found.alpha, found.a, found.b) == pytest.approx((0.243, 4.414, 0.793, 2.426), abs=5e-4)
    money = order_value.fit(of_tenth.repeats, summaries["repeat_day_spend"].to_numpy()[is_tenth])
    assert (of_tenth.repeats > 0).sum() == 946
    assert (money.p, money.q, money.gamma) == pytest.approx((6.25, 3.74, 15.45), rel=5e-3)


@pytest.mark.parametrize(("share", "least_correlation"), [("tenth", 0.635), ("all", 0.68)])
def test_ours_beats_bg_nbd_on_the_39_weeks_that_follow(
    cdnow_window, summaries, histories, is_tenth, share, least_correlation
):
    chosen = is_tenth if share == "tenth" else np.full(len(is_tenth), True)
    came = orders_between(cdnow_window.truth, cdnow.AS_OF, cdnow.END, summaries["person_id"].to_pylist())
    orders, customers = came["n_order_days"].to_numpy()[chosen].astype(float), histories.take(chosen)
    season, days = Season(load_shop("cdnow").monthly_sales), (cdnow.END - cdnow.AS_OF).days
    started = perf_counter()
    model = repeat_buying.fit(customers)
    assert perf_counter() - started < 2
    ahead = season.average_days(days, cdnow.AS_OF, n_known=int(histories.to_end.max()) + 1)
    ours = level_metrics(model.expected_orders(customers, ahead), orders)
    published = repeat_buying.fit(customers, as_published=True).expected_orders(customers, days)
    theirs = level_metrics(published, orders)
    assert ours["correlation"] > max(least_correlation, theirs["correlation"])
    assert ours["rmse"] < theirs["rmse"]
    assert abs(ours["bias"]) < 0.05
