"""The journal of events: what it acknowledges is on the disk once, and the next question knows of it."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from serving.journal import LONGEST_HISTORY, Journal
from serving.schema import EventsRequest

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=365)


def event(**told: object) -> dict:
    whole = {"event_name": "view_item", "item_id": "i", "user_id": "ann", **told}
    return EventsRequest.model_validate({"events": [whole]}).model_dump(mode="json")["events"][0]


def taken(journal: Journal, *events: dict) -> int:
    return journal.append(events).result(timeout=30)


def rows(path: Path) -> list[tuple]:
    with sqlite3.connect(path) as connection:
        return connection.execute("select event_id, event from events order by number").fetchall()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "shop" / "journal" / "events.sqlite")


def test_an_event_is_kept_whole(journal: Journal) -> None:
    told = event(event_id="e", event_timestamp="2024-02-01T12:00:00+01:00", price=2.5, recommendation_id="r")
    assert taken(journal, told) == 1
    ((event_id, text),) = rows(journal.path)
    kept = orjson.loads(text)
    received_at, happened_at = (datetime.fromisoformat(kept.pop(n)) for n in ("received_at", "event_timestamp"))
    stated = {name: value for name, value in told.items() if value is not None and name != "event_timestamp"}
    assert (event_id, kept) == ("e", stated)
    assert happened_at == datetime(2024, 2, 1, 11, tzinfo=UTC)
    assert timedelta(0) <= datetime.now(UTC) - received_at < timedelta(minutes=1)


def test_an_event_that_comes_again_is_the_same_one(journal: Journal) -> None:
    first, second = event(event_id="1"), event(event_id="2")
    assert [taken(journal, first, first), taken(journal, first, second), taken(journal, second)] == [1, 1, 0]
    assert [event_id for event_id, _ in rows(journal.path)] == ["1", "2"]


def test_events_without_an_identity_are_different_ones(journal: Journal) -> None:
    assert taken(journal, event(), event()) == 2
    assert len({event_id for event_id, _ in rows(journal.path)}) == 2


def test_nothing_is_known_before_the_first_event(journal: Journal) -> None:
    assert journal.recent(LONG_AGO, "ann", None) is None


def test_another_worker_sees_an_event_at_once(journal: Journal) -> None:
    other = Journal(journal.path)
    for number in range(20):
        taken(journal, event(item_id=f"i{number}"))
        assert other.recent(LONG_AGO, "ann", None)["item_ids"][-1] == f"i{number}"


def test_a_visitor_is_known_by_customer_and_device(journal: Journal) -> None:
    tablet = {"user_pseudo_id": "tablet"}
    taken(journal, event(item_id="as a guest", user_id=None, **tablet), event(item_id="as ann", **tablet))
    taken(journal, event(item_id="at work"), event(item_id="bob's", user_id="bob", **tablet))
    assert journal.recent(LONG_AGO, "ann", None)["item_ids"] == ("as ann", "at work")
    assert journal.recent(LONG_AGO, None, "tablet")["item_ids"] == ("as a guest",)
    assert journal.recent(LONG_AGO, "ann", "tablet")["item_ids"] == ("as a guest", "as ann", "at work")
    assert journal.recent(LONG_AGO, "bob", "tablet")["item_ids"] == ("as a guest", "bob's")
    assert journal.recent(LONG_AGO, None, None) is None
    assert journal.recent(LONG_AGO, "nobody", "no device") is None


def test_what_happened_is_told_in_order_of_time_with_its_age(journal: Journal) -> None:
    late, early = NOW - timedelta(days=1), NOW - timedelta(days=3)
    ahead = NOW + timedelta(hours=1)
    taken(
        journal,
        event(item_id="late", event_name="add_to_cart", event_timestamp=late.isoformat()),
        event(item_id="early", event_timestamp=early.isoformat()),
        event(item_id=None, event_name="page_view"),
        event(item_id="of a fast clock", event_timestamp=ahead.isoformat()),
    )
    recent = journal.recent(NOW - timedelta(days=10), "ann", None)
    assert recent["item_ids"] == ("early", "late", "of a fast clock")
    assert recent["event_names"] == ("view_item", "add_to_cart", "view_item")
    assert recent["ages_days"] == pytest.approx([3, 1, 0], abs=0.01)
    assert recent["elapsed_days"] == pytest.approx(10, abs=0.01)


def test_what_a_model_was_trained_on_is_not_told_again(journal: Journal) -> None:
    taken(journal, event(event_timestamp="2020-01-01T00:00:00Z"))
    assert journal.recent(datetime.now(UTC) - timedelta(minutes=1), "ann", None) is not None
    assert journal.recent(datetime.now(UTC) + timedelta(minutes=1), "ann", None) is None


def test_of_a_long_history_the_latest_is_told(journal: Journal) -> None:
    for first in range(0, LONGEST_HISTORY + 5, 201):
        taken(journal, *(event(item_id=f"i{number}") for number in range(first, first + 201)))
    told = journal.recent(LONG_AGO, "ann", None)["item_ids"]
    assert (len(told), told[0], told[-1]) == (LONGEST_HISTORY, "i5", f"i{LONGEST_HISTORY + 4}")


def test_what_cannot_be_written_is_refused_and_later_taken(tmp_path: Path) -> None:
    blocked = tmp_path / "journal"
    blocked.write_text("a file where the folder should be")
    journal = Journal(blocked / "events.sqlite")
    with pytest.raises(OSError, match="journal"):
        taken(journal, event())
    blocked.unlink()
    assert taken(journal, event()) == 1


def test_a_journal_that_was_removed_is_begun_anew(journal: Journal) -> None:
    taken(journal, event(event_id="lost"))
    for file in journal.path.parent.iterdir():
        file.unlink()
    assert taken(journal, event(event_id="kept")) == 1
    assert [event_id for event_id, _ in rows(journal.path)] == ["kept"]


def test_every_worker_goes_on_with_the_journal_that_took_the_place_of_another(journal: Journal) -> None:
    other = Journal(journal.path)
    for worker in (journal, other):
        taken(worker, event())
        assert worker.recent(LONG_AGO, "ann", None) is not None
    for file in journal.path.parent.iterdir():
        file.unlink()
    taken(journal, event(event_id="1", item_id="first"))
    taken(other, event(event_id="2", item_id="second"))
    assert [event_id for event_id, _ in rows(journal.path)] == ["1", "2"]
    for worker in (journal, other):
        assert worker.recent(LONG_AGO, "ann", None)["item_ids"] == ("first", "second")


def test_nobody_waits_for_another_process_for_long(journal: Journal) -> None:
    taken(journal, event())
    with sqlite3.connect(journal.path, isolation_level=None) as other:
        other.execute("begin immediate")
        began = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            taken(journal, event(event_id="refused"))
        assert time.monotonic() - began < 2
        assert journal.recent(LONG_AGO, "ann", None) is not None
        other.execute("rollback")
    assert taken(journal, event(event_id="refused")) == 1


def test_a_damaged_journal_is_told_by_everyone(journal: Journal) -> None:
    journal.path.parent.mkdir(parents=True)
    journal.path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        journal.recent(LONG_AGO, "ann", None)
    with pytest.raises(sqlite3.DatabaseError):
        taken(journal, event())


def test_what_nobody_expected_leaves_nobody_waiting(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("serving.journal._committed", fails)
        with pytest.raises(MemoryError):
            taken(journal, event())
    assert taken(journal, event()) == 1


def test_many_processes_may_begin_a_journal_together(journal: Journal) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(journal.path), name], stdout=subprocess.PIPE, env=os.environ
        )
        for name in "abcd"
    ]
    assert [writer.stdout.readline() for writer in writers] == [b"0\n"] * 4
    for writer in writers:
        writer.kill()
        writer.communicate()


def test_requests_of_many_threads_are_taken_once_each(journal: Journal) -> None:
    accepted = []
    threads = [
        threading.Thread(target=lambda part=part: accepted.append(taken(journal, *map(numbered, part))))
        for part in (range(60), range(30, 90), range(60, 120), range(120))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(accepted) == 120
    assert len(rows(journal.path)) == 120


def numbered(number: int) -> dict:
    return event(event_id=f"e{number}")


WRITER = """
import itertools, sys
from pathlib import Path
from serving.journal import Journal
journal = Journal(Path(sys.argv[1]))
told = dict.fromkeys(("user_pseudo_id", "event_timestamp"))
for number in itertools.count():
    batch = [{**told, "event_id": f"{sys.argv[2]}-{number}-{each}", "event_name": "view_item", "item_id": "i",
              "user_id": "ann"} for each in range(5)]
    journal.append(batch).result()
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_a_killed_process(journal: Journal) -> None:
    acknowledged: dict[str, int] = {}
    for attempt, seconds in enumerate((0.05, 0.0, 0.2)):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(journal.path), name], stdout=subprocess.PIPE, env=os.environ
            )
            for name in (f"a{attempt}", f"b{attempt}")
        ]
        first = [writer.stdout.readline() for writer in writers]
        time.sleep(seconds)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for name, writer, line in zip("ab", writers, first, strict=True):
            lines = [line, *writer.communicate()[0].splitlines(keepends=True)]
            acknowledged[f"{name}{attempt}"] = int([line for line in lines if line.endswith(b"\n")][-1])
    kept = [event_id for event_id, _ in rows(journal.path)]
    expected = {
        f"{name}-{n}-{each}" for name, last in acknowledged.items() for n in range(last + 1) for each in range(5)
    }
    assert expected <= set(kept)
    assert len(kept) == len(set(kept))
    assert len(kept) % 5 == 0
    assert taken(journal, event()) == 1
