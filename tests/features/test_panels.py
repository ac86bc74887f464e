"""A panel keeps apart what nobody wanted, what could not be bought and what nobody knows."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import contract
from features.demand import features
from features.engine import Engine, duckdb_engine, empty
from features.errors import UserError
from features.ingest import TableReport, ingest
from features.lake import Lake
from features.panels import Panel, PanelSettings, StockOuts, demand, outcome, panel
from features.shops import load_shop
from features.windows import before, planned

MONDAY = date(2024, 1, 1)
N_WEEKS, HORIZON = 6, 2
AS_OF = datetime(2024, 2, 12, tzinfo=UTC)
END = AS_OF + timedelta(weeks=HORIZON)
WEEKLY = PanelSettings("week", HORIZON, 1)
SHARES = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
ON_HAND = st.one_of(st.none(), st.sampled_from([-4.0, 0.0, 7.0]))

Row = dict[str, object]


@pytest.fixture(scope="module")
def bare() -> Engine:
    return duckdb_engine(memory_limit="1GB", threads=1)


def week(number: int, day: int = 0) -> date:
    return MONDAY + timedelta(weeks=number, days=day)


def filled(table: contract.Table, rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=empty(table).schema)


def sales(units: Mapping[str, list[float]], place: str | None = None) -> list[Row]:
    """Rows of ``demand``, one per item and week from the first on; None leaves the row out."""
    return [
        {"item_id": item, "location_id": place, "date": week(number), "quantity": quantity, "revenue": 2 * quantity}
        for item, weeks in units.items()
        for number, quantity in enumerate(weeks)
        if quantity is not None
    ]


def stocked(rows: list[tuple[str, date, float | None, float | None]], place: str | None = None) -> list[Row]:
    names = ("item_id", "date", "available_fraction", "on_hand")
    return [{"location_id": place, **dict(zip(names, row, strict=True))} for row in rows]


def shop(bare: Engine, **tables: list[Row]) -> Engine:
    return bare.bind(**{name: filled(contract.TABLES[name], rows) for name, rows in tables.items()})


def known_at(engine: Engine, asked: PanelSettings = WEEKLY, as_of: datetime = AS_OF) -> Panel:
    end = as_of + timedelta(days=70)
    return panel(before(engine, as_of), as_of, asked, planned(engine, as_of, end))


def by_key(known: Panel, values: np.ndarray) -> dict[tuple[str, str], list[float]]:
    keys = zip(known.item_ids, known.location_ids, strict=True)
    return {key: row.tolist() for key, row in zip(keys, values, strict=True)}


@pytest.mark.parametrize(
    ("stock_outs", "exposure"),
    [
        ("shared", [1, 0.5, 0, 0.75, 1, 1]),
        ("missing", [1, 0, 0, 0, 1, 1]),
        ("ignored", [1, 1, 1, 1, 1, 1]),
    ],
)
def test_a_period_counts_for_the_share_in_which_the_item_could_be_bought(
    bare: Engine, stock_outs: StockOuts, exposure: list[float]
):
    noted = stocked([("a", week(1), 0.5, None), ("a", week(2), 0.25, None), ("a", week(3), 0.75, None)])
    engine = shop(bare, demand=sales({"a": [6.0] * N_WEEKS}), stock=noted)
    known = known_at(engine, replace(WEEKLY, stock_outs=stock_outs))
    assert known.exposure[0].tolist() == exposure
    assert known.sold[0].tolist() == [6] * N_WEEKS
    expected = [6 / share if share else np.nan for share in exposure]
    np.testing.assert_allclose(known.demand[0], expected)


Noted = list[tuple[int, float | None, float | None]]


@settings(max_examples=10)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 7 * N_WEEKS - 1), SHARES, ON_HAND), max_size=12, unique_by=lambda row: row[0]
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["shared", "missing", "ignored"]),
)
def test_exposure_is_the_mean_of_the_days_that_were_noted(bare: Engine, noted: list[Noted], stock_outs: StockOuts):
    rows = [
        (f"i{item}", week(0, day), share, on_hand) for item, days in enumerate(noted) for day, share, on_hand in days
    ]
    sold = sales({f"i{item}": [5.0] * N_WEEKS for item in range(len(noted))})
    found = known_at(shop(bare, demand=sold, stock=stocked(rows)), replace(WEEKLY, stock_outs=stock_outs)).exposure
    for item, days in enumerate(noted):
        assert found[item].tolist() == pytest.approx([expected_exposure(days, n, stock_outs) for n in range(N_WEEKS)])


def expected_exposure(noted: Noted, number: int, stock_outs: StockOuts) -> float:
    shares = [
        share if share is not None else float(on_hand is None or on_hand > 0)
        for day, share, on_hand in noted
        if day // 7 == number
    ]
    mean = float(np.mean(shares)) if shares and stock_outs != "ignored" else 1.0
    least = {"shared": 0.5, "missing": 1.0, "ignored": 0.0}[stock_outs]
    return mean if mean >= least - 1e-9 else 0.0


def test_stock_of_another_place_says_nothing_of_this_one_and_all_places_share(bare: Engine):
    both = sales({"a": [4.0] * N_WEEKS}, "north") + sales({"a": [2.0] * N_WEEKS}, "south")
    noted = stocked([("a", week(2), 0.0, None)], "north") + stocked([("a", week(2), 1.0, None)], "south")
    engine = shop(bare, demand=both, stock=noted)
    placed = known_at(engine, replace(WEEKLY, by_location=True))
    assert by_key(placed, placed.exposure) == {("a", "north"): [1, 1, 0, 1, 1, 1], ("a", "south"): [1] * N_WEEKS}
    together = known_at(engine)
    assert by_key(together, together.exposure) == {("a", ""): [1, 1, 0.5, 1, 1, 1]}


@pytest.mark.parametrize("on_hand", [0.0, -3.0])
def test_stock_of_nothing_or_less_is_a_stock_out_unless_a_share_says_otherwise(bare: Engine, on_hand: float):
    noted = stocked([("a", week(1), None, on_hand), ("a", week(2), 1.0, on_hand), ("a", week(3), None, None)])
    engine = shop(bare, demand=sales({"a": [3.0, 0.0, 3.0, 3.0, 3.0, 3.0]}), stock=noted)
    known = known_at(engine)
    assert known.exposure[0].tolist() == [1, 0, 1, 1, 1, 1]
    assert np.isnan(known.demand[0, 1])
    assert np.isfinite(features(known, N_WEEKS)[1][:, :, 1]).all()


@pytest.mark.parametrize(("n_items", "counted"), [(9, 1.0), (10, 0.0)])
def test_a_period_without_any_sale_of_many_items_is_a_closed_location(bare: Engine, n_items: int, counted: float):
    closed = {f"i{n}": [1.0, 2.0, 0.0, 1.0, 1.0, 1.0] for n in range(n_items)}
    elsewhere = sales({"i0": [1.0] * N_WEEKS}, "south")
    known = known_at(shop(bare, demand=sales(closed, "north") + elsewhere), replace(WEEKLY, by_location=True))
    exposure = by_key(known, known.exposure)
    assert {exposure[f"i{n}", "north"][2] for n in range(n_items)} == {counted}
    assert exposure["i0", "north"][3:] == [1, 1, 1]
    assert exposure["i0", "south"] == [1] * N_WEEKS


def test_one_sale_shows_that_a_location_was_open(bare: Engine):
    units = {f"i{n}": [1.0, 1.0, float(n == 3), 1.0, 1.0, 1.0] for n in range(12)}
    known = known_at(shop(bare, demand=sales(units)))
    assert (known.exposure == 1).all()


def test_items_not_yet_listed_do_not_count_towards_a_closed_location(bare: Engine):
    units = {f"i{n}": [1.0, 0.0, 1.0, 1.0, 1.0, 1.0] if n < 9 else [0.0, 0.0, 1.0, 1.0, 1.0, 1.0] for n in range(12)}
    known = known_at(shop(bare, demand=sales(units)))
    assert known.exposure[0, 1] == 1


def test_before_the_first_sale_nothing_is_known(bare: Engine):
    known = known_at(shop(bare, demand=sales({"a": [1.0] * N_WEEKS, "late": [0.0, 0.0, 4.0, 0.0, 0.0, 2.0]})))
    late = known.item_ids.index("late")
    assert np.isnan(known.sold[late, :2]).all()
    assert known.sold[late, 2:].tolist() == [4, 0, 0, 2]
    assert known.exposure[late].tolist() == [0, 0, 1, 1, 1, 1]
    np.testing.assert_array_equal(np.isnan(known.demand[late]), [True, True, False, False, False, False])


def test_months_are_periods(bare: Engine):
    days = [(1, 1), (1, 31), (2, 1), (2, 29), (3, 31), (4, 1), (4, 30)]
    rows = [{"item_id": "a", "date": date(2024, *day), "quantity": 1.0} for day in days]
    offers = [{"item_id": "a", "date": date(2024, 5, 31), "price": 3.0}]
    known = known_at(
        shop(bare, demand=rows, offers=offers), PanelSettings("month", 2, 1), datetime(2024, 4, 20, tzinfo=UTC)
    )
    assert known.dates.astype(str).tolist() == ["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01", "2024-05-01"]
    assert known.sold[0].tolist() == [2, 2, 1]
    assert known.offers["price"][0, 3:].tolist() == pytest.approx([np.nan, 3], nan_ok=True)


def test_a_month_that_begins_unseen_is_left_out(bare: Engine):
    rows = [{"item_id": "a", "date": date(2024, month, 2), "quantity": 1.0} for month in (1, 2, 3)]
    known = known_at(shop(bare, demand=rows), PanelSettings("month", 1, 1), datetime(2024, 4, 1, tzinfo=UTC))
    assert known.dates.astype(str).tolist() == ["2024-02-01", "2024-03-01", "2024-04-01"]


@settings(max_examples=12)
@given(st.datetimes(datetime(2024, 2, 5), datetime(2024, 2, 25)), st.integers(0, 6))
def test_a_sale_counts_in_the_period_of_its_day_and_not_before_that_has_ended(
    bare: Engine, sold_at: datetime, later: int
):
    events = [event(sold_at, 0), *(event(datetime(2024, 1, 1 + 7 * n), n + 1) for n in range(4))]
    as_of = datetime(2024, 2, 19, tzinfo=UTC) + timedelta(days=later)
    known = known_at(shop(bare, events=events), as_of=as_of)
    assert known.dates[known.n_periods] == np.datetime64("2024-02-19")
    expected = [1.0] * 4 + [0.0] * 3
    number = (sold_at.date() - MONDAY).days // 7
    if number < len(expected):
        expected[number] += 1
    assert known.sold[0].tolist() == expected


def event(sold_at: datetime, number: int) -> Row:
    return {
        "event_id": f"e{number}",
        "event_name": "purchase",
        "event_timestamp": sold_at,
        "user_id": "u",
        "item_id": "a",
        "transaction_id": f"t{number}",
        "quantity": 1.0,
        "price": 2.0,
    }


def with_weather(engine: Engine, rows: list[Row]) -> Engine:
    """Offers with one column that the contract does not know."""
    schema = empty(contract.OFFERS).schema.append(pa.field("warmth", pa.float64()))
    return engine.bind(offers=pa.Table.from_pylist(rows, schema=schema))


def test_a_further_column_of_offers_reaches_panel_and_features(bare: Engine):
    rows = [{"item_id": "a", "date": week(n), "warmth": 10.0 + n} for n in range(N_WEEKS + HORIZON)]
    engine = with_weather(shop(bare, demand=sales({"a": [1.0] * N_WEEKS})), rows)
    known = known_at(engine, replace(WEEKLY, covariates=("warmth",)))
    assert known.offers["warmth"][0].tolist() == [10 + n for n in range(N_WEEKS + HORIZON)]
    names, values = features(known, N_WEEKS)
    assert values[0, :, names.index("warmth")].tolist() == [16, 17]
    assert "warmth" not in known_at(engine).offers


def test_a_covariate_that_offers_lack_is_told_with_what_there_is(bare: Engine):
    engine = with_weather(shop(bare, demand=sales({"a": [1.0] * N_WEEKS})), [])
    with pytest.raises(UserError, match=r"offers have no column moon, tide: covariates can be .*warmth"):
        known_at(engine, replace(WEEKLY, covariates=("tide", "warmth", "moon")))


def test_a_covariate_of_words_is_told(bare: Engine):
    words = pa.table({**{name: [None] for name in empty(contract.OFFERS).schema.names}, "mood": ["good"]})
    rows = words.set_column(0, "item_id", pa.array(["a"])).set_column(2, "date", pa.array([week(1)]))
    engine = shop(bare, demand=sales({"a": [1.0] * N_WEEKS})).bind(offers=rows)
    with pytest.raises(UserError, match="column mood of offers says good, a covariate is a number"):
        known_at(engine, replace(WEEKLY, covariates=("mood",)))


def test_a_covariate_that_is_read_anyway_changes_nothing(bare: Engine):
    engine = shop(bare, demand=sales({"a": [1.0] * N_WEEKS}), offers=[{"item_id": "a", "date": week(2), "price": 3.0}])
    np.testing.assert_equal(known_at(engine, replace(WEEKLY, covariates=("price",))).offers, known_at(engine).offers)


@pytest.mark.parametrize("by_location", [False, True])
def test_the_truth_is_what_was_sold_of_the_panels_series_and_when_it_could_be(bare: Engine, by_location: bool):
    units = [1.0] * N_WEEKS
    rows = [
        *sales({"a": [*units, 7.0, 8.0, 90.0], "b": [*units, None, 2.0]}, "north"),
        *sales({"a": [*units, 100.0], "new": [*[0.0] * N_WEEKS, 5.0]}, "south"),
    ]
    noted = stocked([("a", week(6), 0.5, None), ("a", week(0), 0.0, None), ("a", week(8), 0.0, None)], "north")
    engine = shop(bare, demand=rows, stock=noted)
    known = known_at(engine, replace(WEEKLY, by_location=by_location))
    sold, exposure = outcome(before(engine, END), END, known)
    assert sold.dtype == exposure.dtype == np.float32
    if by_location:
        assert by_key(known, sold) == {("a", "north"): [7, 8], ("a", "south"): [100, 0], ("b", "north"): [0, 2]}
        assert by_key(known, exposure) == {("a", "north"): [0.5, 1], ("a", "south"): [1, 1], ("b", "north"): [1, 1]}
    else:
        assert by_key(known, sold) == {("a", ""): [107, 8], ("b", ""): [0, 2]}
        assert by_key(known, exposure) == {("a", ""): [0.5, 1], ("b", ""): [1, 1]}


def test_a_sale_without_a_place_is_no_sale_of_every_place(bare: Engine):
    units = [1.0] * (N_WEEKS + HORIZON)
    engine = shop(bare, demand=sales({"a": units}, "north") + sales({"a": units}))
    known = known_at(engine, replace(WEEKLY, by_location=True))
    sold, _ = outcome(before(engine, END), END, known)
    assert by_key(known, sold) == {("a", ""): [1, 1], ("a", "north"): [1, 1]}


def test_more_returned_than_sold_is_a_truth_of_nothing(bare: Engine):
    bought = [event(datetime(2024, 1, 1 + 7 * n), n) for n in range(5)]
    returned = {**event(datetime(2024, 2, 14), 9), "event_name": "refund", "quantity": 3.0}
    engine = shop(bare, events=[*bought, returned])
    assert outcome(before(engine, END), END, known_at(engine))[0].tolist() == [[0, 0]]


@settings(max_examples=30)
@given(
    st.lists(st.floats(0, 1e5, width=32), min_size=N_WEEKS, max_size=N_WEEKS),
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=N_WEEKS, max_size=N_WEEKS),
)
def test_demand_is_at_least_what_was_sold_and_missing_without_exposure(sold: list[float], exposure: list[float]):
    found = demand(np.float32([sold]), np.float32([exposure]))[0]
    np.testing.assert_array_equal(np.isnan(found), np.array(exposure) == 0)
    counted = np.array(exposure) > 0
    assert (found[counted] >= np.float32(sold)[counted]).all()


def test_a_series_with_one_sale_has_features_and_no_warnings(bare: Engine):
    known = known_at(shop(bare, demand=sales({"a": [1.0] * N_WEEKS, "once": [0.0, 0.0, 0.0, 0.0, 0.0, 3.0]})))
    once = known.item_ids.index("once")
    assert known.eligible(N_WEEKS)[once]
    names, values = features(known, N_WEEKS)
    column = dict(zip(names, values[once, 0], strict=True))
    assert np.exp(column["level"]) == pytest.approx(3)
    assert column["lag_1"] == pytest.approx(1)
    assert np.isnan(column["lag_2"])


def test_a_series_of_one_period_alone_is_a_panel(bare: Engine):
    known = known_at(shop(bare, demand=sales({"a": [*[None] * (N_WEEKS - 1), 4.0]})))
    assert (known.n_periods, known.sold.tolist()) == (1, [[4.0]])
    assert features(known, 1)[1].shape[:2] == (1, HORIZON)


def test_what_never_sold_is_no_series_and_a_shop_that_never_sold_is_told(bare: Engine):
    known = known_at(shop(bare, demand=sales({"a": [1.0] * N_WEEKS, "never": [0.0] * N_WEEKS})))
    assert known.item_ids == ("a",)
    with pytest.raises(UserError, match="no item was sold in 1 weeks before 2024-02-12: lower min_periods"):
        known_at(shop(bare, demand=sales({"never": [0.0] * N_WEEKS})))
    with pytest.raises(UserError, match="no item was sold in 1 weeks"):
        known_at(bare)


@pytest.mark.parametrize(("n_items", "counted"), [(3, 1.0), (12, 0.0)])
def test_a_gap_of_months_is_no_demand_of_few_items_and_unknown_of_many(bare: Engine, n_items: int, counted: float):
    gap = {f"i{n}": [2.0, 2.0, *[None] * 18, 2.0, 2.0] for n in range(n_items)}
    known = known_at(shop(bare, demand=sales(gap)), as_of=AS_OF + timedelta(weeks=16))
    assert known.n_periods == 22
    assert (known.sold[:, 2:20] == 0).all()
    assert (known.exposure[:, 2:20] == counted).all()
    assert (known.exposure[:, [0, 1, 20, 21]] == 1).all()
    lag = known.demand[0, -3]
    assert np.isnan(lag) if counted == 0 else lag == 0


def test_a_promotion_without_a_price_and_days_outside_the_panel(bare: Engine):
    offers = [
        {"item_id": "a", "date": week(1), "mailer": 1.0},
        {"item_id": "a", "date": week(-9), "price": 9.0},
        {"item_id": "a", "date": week(N_WEEKS + HORIZON), "price": 9.0, "mailer": 1.0},
        {"item_id": "unsold", "date": week(1), "price": 9.0},
    ]
    known = known_at(shop(bare, demand=sales({"a": [1.0] * N_WEEKS, "b": [1.0] * N_WEEKS}), offers=offers))
    assert known.offers["mailer"][:, 1].tolist() == [1, 0]
    assert np.isnan(np.delete(known.offers["mailer"], 1, axis=1)).all()
    assert np.isnan(known.offers["price"]).all()
    assert np.isfinite(features(known, N_WEEKS)[1][:, :, :2]).all()


@settings(max_examples=5)
@given(
    st.lists(st.lists(st.floats(0.001, 1e4), min_size=N_WEEKS, max_size=N_WEEKS), min_size=1, max_size=5),
)
def test_demand_may_be_a_fraction_of_a_unit(bare: Engine, units: list[list[float]]):
    known = known_at(shop(bare, demand=sales({f"i{n}": weeks for n, weeks in enumerate(units)})))
    np.testing.assert_array_equal(known.sold, np.float32(units))
    np.testing.assert_allclose(known.revenue, 2 * np.array(units), rtol=1e-6)


TOML = """
name = "mini"
timezone = "UTC"
tables.demand.path = "demand.csv"
tables.stock.path = "stock.csv"
tables.offers.path = "offers.parquet"
"""


@pytest.fixture
def ingested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Engine, dict[str, TableReport]]:
    """A shop whose files hold what planners' files hold: a row twice, stock below zero, a promotion without a day."""
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path / "home"))
    sold = [f"a,{week(number)},{number + 0.5}" for number in range(N_WEEKS)]
    twice = [f"a,{week(2)},40", f"a,{week(2)},20", f"a,{week(3)},-1", f"a,{week(3)},3.5"]
    (tmp_path / "demand.csv").write_text("\n".join(["item_id,date,quantity", *sold, *twice]) + "\n")
    (tmp_path / "stock.csv").write_text(f"item_id,date,on_hand\na,{week(4)},-6\na,{week(5)},many\n")
    offers = {"item_id": ["a", "a"], "date": [week(6), None], "price": [None, 1.0], "mailer": [1.0, 1.0]}
    pq.write_table(pa.table(offers), tmp_path / "offers.parquet")
    (tmp_path / "mini.toml").write_text(TOML)
    found = load_shop(str(tmp_path / "mini.toml"))
    reports = {report.table: report for report in ingest(found)}
    return Lake(found).engine(), reports


def test_bad_rows_are_told_apart_at_ingest_and_the_later_row_of_a_day_wins(
    ingested: tuple[Engine, dict[str, TableReport]],
):
    engine, reports = ingested
    assert reports["demand"].quarantined == {"quantity is negative": 1}
    assert reports["stock"].quarantined == {"on_hand is not a number": 1}
    assert reports["offers"].quarantined == {"date is missing": 1}
    known = known_at(engine)
    assert known.sold[0].tolist() == [0.5, 1.5, 20, 3.5, 4.5, 5.5]
    assert known.exposure[0].tolist() == [1, 1, 1, 1, 0, 1]
    assert known.offers["mailer"][0, N_WEEKS] == 1
