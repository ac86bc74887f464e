"""What the service takes in is ingested like any other source of events."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from features import contract
from features.errors import UserError
from features.home import home
from features.ingest import ingest
from features.lake import Lake
from features.shops import SHOP_FOLDER, Shop, load_shop
from serving.journal import Journal, opened
from serving.schema import EventsRequest

EXPORTED = "event_id,event_name,event_timestamp,user_id,item_id\ne1,view_item,2024-01-01T10:00:00Z,ann,a\n"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path / "a home of 20%20"))
    (tmp_path / "events.csv").write_text(EXPORTED)
    (tmp_path / "mini.toml").write_text('name = "mini"\n[tables.events]\npath = "events.csv"\n')
    return load_shop(str(tmp_path / "mini.toml"))


@pytest.fixture
def journal(shop: Shop) -> Journal:
    return opened(home(), shop.name)


def take(journal: Journal, *events: dict) -> None:
    told = EventsRequest.model_validate({"events": list(events)}).model_dump(mode="json")["events"]
    journal.append(told).result(timeout=30)


def event(event_id: str, **told: object) -> dict:
    return {"event_id": event_id, "event_name": "view_item", "item_id": "b", "user_id": "ann", **told}


def test_events_that_were_taken_in_are_ingested_once(shop: Shop, journal: Journal) -> None:
    ingest(shop)
    take(journal, event("e2", event_timestamp="2024-01-02T01:00:00+02:00", price=2.5, index=3), event("e1"))
    (report,) = ingest(shop)
    assert (report.read, report.accepted, report.duplicate) == (3, 1, 2)
    take(journal, event("e3"))
    assert [ingest(shop)[0].accepted for _ in range(2)] == [1, 0]
    rows = Lake(shop).engine().select("select * from events order by event_id").to_pylist()
    assert [row["event_id"] for row in rows] == ["e1", "e2", "e3"]
    assert (rows[0]["item_id"], rows[1]["price"], rows[1]["index"]) == ("a", 2.5, 3)
    assert rows[1]["event_timestamp"].isoformat() == "2024-01-01T23:00:00"
    assert rows[1]["received_at"] > rows[1]["event_timestamp"]


def test_of_a_shop_whose_data_have_ended_nothing_is_added(shop: Shop, journal: Journal) -> None:
    take(journal, event("e2"))
    assert ingest(shop.model_copy(update={"live": False}))[0].read == 1


def test_the_shops_that_come_along_have_ended() -> None:
    assert not any(load_shop(path.stem).live for path in SHOP_FOLDER.glob("*.toml"))


def test_a_shop_may_have_no_other_events(shop: Shop, journal: Journal) -> None:
    take(journal, event("e1"), event("e2", event_name="purchase", transaction_id="t", quantity=2))
    (report,) = ingest(shop.model_copy(update={"tables": {}}))
    assert (report.table, report.accepted) == ("events", 2)


def test_of_every_column_what_was_taken_in_is_kept(shop: Shop, journal: Journal) -> None:
    texts = {column.name: column.name for column in contract.EVENTS.columns if column.type == "VARCHAR"}
    numbers = {column.name: 3 for column in contract.EVENTS.columns if column.type in ("DOUBLE", "BIGINT")}
    told = {**texts, **numbers, "event_name": "purchase", "event_timestamp": "2024-01-02T10:00:00Z"}
    take(journal, told)
    ingest(shop)
    (row,) = Lake(shop).engine().select("select * from events where event_name = 'purchase'").to_pylist()
    assert {**texts, **numbers, "event_name": "purchase"}.items() <= row.items()


def test_a_fast_clock_does_not_move_the_shops_end(shop: Shop, journal: Journal) -> None:
    take(journal, event("e2", event_timestamp=(datetime.now(UTC) + timedelta(hours=47)).isoformat()))
    ingest(shop)
    assert Lake(shop).after_last_event() <= datetime.now(UTC)


def test_a_damaged_journal_is_told(shop: Shop, journal: Journal) -> None:
    journal.path.parent.mkdir(parents=True)
    journal.path.write_bytes(b"")
    with pytest.raises(UserError, match="the events that the service took in, cannot be read"):
        ingest(shop)


def test_what_the_contract_refuses_is_in_quarantine(shop: Shop, journal: Journal) -> None:
    take(journal, event("e2", event_timestamp="1989-12-31T00:00:00Z"))
    assert ingest(shop)[0].quarantined == {"event_timestamp lies before 1990 or in the future": 1}
