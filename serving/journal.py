"""What the service takes in, events and changes of items: on the disk before it is acknowledged, seen by every worker.

``HOME/SHOP/journal/events.sqlite`` is written ahead and synchronised at every commit; what several requests bring at a
time is one commit. An event that comes again, by its ``event_id``, is the same event; of what was put of an item the
latest counts, attribute by attribute.
"""

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

import orjson

from features import sources
from features.histories import KINDS
from serving.artifact import Json
from serving.shelf import Put

LONGEST_HISTORY = 1000
"""Events of one visitor that are read, the latest."""
MOST_AT_ONCE = 10_000
"""Events of one commit, but for those of the last request in it."""
BUSY_S = 0.5
"""How long a worker waits for another one's commit; less than the service takes to answer."""
N_ATTEMPTS = 10
"""At opening a file that another process is making."""

_EVENTS = """
    create table if not exists events (
        number integer primary key,
        event_id text not null unique,
        user_id text,
        user_pseudo_id text,
        item_id text,
        event_name text not null,
        event_us integer not null,
        received_us integer not null,
        event text not null
    ) strict
"""
_PUTS = """
    create table if not exists puts (
        item_id text not null,
        name text not null,
        value text not null,
        received_us integer not null,
        number integer not null unique,
        primary key (item_id, name)
    ) strict
"""
_PUT = """
    insert into puts (item_id, name, value, received_us, number)
    values (?, ?, ?, ?, (select coalesce(max(number), 0) + 1 from puts))
    on conflict (item_id, name) do update
    set value = excluded.value, received_us = excluded.received_us, number = excluded.number
"""
_PUT_SINCE = "select number, item_id, name, value from puts where number > ? and received_us > ? order by number"
_COLUMNS = (
    *("event_id", "user_id", "user_pseudo_id"),
    *("item_id", "event_name", "event_us", "received_us", "event"),
)
_INSERT = (
    f"insert into events ({', '.join(_COLUMNS)}) values ({', '.join('?' * len(_COLUMNS))}) "
    "on conflict (event_id) do nothing"
)
_OF_KIND = f"event_name in ({', '.join(map(repr, KINDS))})"
_LATEST = (
    "select * from (select number, item_id, event_name, event_us from events where {} and received_us >= ? "
    f"and {_OF_KIND} order by received_us desc, number desc limit {LONGEST_HISTORY})"
)
_OF_CUSTOMER = _LATEST.format("user_id = ?")
_OF_DEVICE = _LATEST.format("user_pseudo_id = ? and user_id is null")
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_DAY_US = timedelta(days=1) // _MICROSECOND


class _Entry(NamedTuple):
    statement: str
    rows: list[tuple[object, ...]]
    done: Future[int]


class _Held(NamedTuple):
    connection: sqlite3.Connection
    inode: int


class Journal:
    """What a shop's service took in, in a file. One thread of each process writes, one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: SimpleQueue[_Entry] = SimpleQueue()
        self._starting = threading.Lock()
        self._writer: threading.Thread | None = None
        self._reader: _Held | None = None

    def append(self, events: Sequence[Json]) -> Future[int]:
        """Take events in, as ``schema.LoggedEvent`` has them in JSON; the result is how many were new.

        When the result is there the events are on the disk; it is an error, and they are not, when they cannot be.
        """
        received_us = _us(datetime.now(UTC))
        return self._entered(_INSERT, [_row(event, received_us) for event in events])

    def put(self, items: Sequence[Json]) -> Future[int]:
        """Take in what is told of items, as ``schema.PutItem`` has it in JSON; null tells nothing.

        When the result is there it is on the disk; it is an error, and nothing is, when it cannot be.
        """
        received_us = _us(datetime.now(UTC))
        told = ((item["item_id"], name, value) for item in items for name, value in item.items() if name != "item_id")
        rows = [(*of, orjson.dumps(value).decode(), received_us) for *of, value in told if value is not None]
        return self._entered(_PUT, rows)

    def puts(self, number: int, since: datetime) -> list[Put]:
        """What was put after some number, of what came in after an instant, in its order.

        Raises sqlite3.Error when the file cannot be read.
        """
        self._reader = _current(self.path, self._reader)
        rows = self._reader.connection.execute(_PUT_SINCE, (number, _us(since))).fetchall()
        return [Put(number, item_id, name, orjson.loads(value)) for number, item_id, name, value in rows]

    def recent(self, since: datetime, user_id: str | None, user_pseudo_id: str | None) -> Json | None:
        """What a visitor did with items, of what came in since an instant; None for nothing.

        What was done on the device by nobody in particular counts as the visitor's, what another customer did does not.

        Returns lists in order of time, ``item_ids``, ``event_names`` and ``ages_days`` until now, and ``elapsed_days``
        since the instant. Raises sqlite3.Error when the file cannot be read.
        """
        asked = {part: name for part, name in ((_OF_CUSTOMER, user_id), (_OF_DEVICE, user_pseudo_id)) if name}
        if not asked:
            return None
        latest = f"{' union all '.join(asked)} order by event_us desc, number desc limit {LONGEST_HISTORY}"
        self._reader = _current(self.path, self._reader)
        values = [value for name in asked.values() for value in (name, _us(since))]
        rows = self._reader.connection.execute(latest, values).fetchall()
        if not rows:
            return None
        now_us = _us(datetime.now(UTC))
        _, item_ids, event_names, times = zip(*reversed(rows), strict=True)
        return {
            "item_ids": item_ids,
            "event_names": event_names,
            "ages_days": [max(0, now_us - event_us) / _DAY_US for event_us in times],
            "elapsed_days": (now_us - _us(since)) / _DAY_US,
        }

    def _entered(self, statement: str, rows: list[tuple[object, ...]]) -> Future[int]:
        entry = _Entry(statement, rows, Future())
        with self._starting:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
                self._writer.start()
        self._waiting.put(entry)
        return entry.done

    def _write(self) -> None:
        held: _Held | None = None
        while True:
            entries = list(self._gathered())
            try:
                held = _current(self.path, held)
                counts = _committed(held.connection, entries)
            except Exception as error:  # whatever it is, nobody may wait for ever
                held = None
                for entry in entries:
                    entry.done.set_exception(error)
            else:
                for entry, count in zip(entries, counts, strict=True):
                    entry.done.set_result(count)

    def _gathered(self) -> Iterator[_Entry]:
        """The next entry, and what else is waiting."""
        entry = self._waiting.get()
        n_rows = len(entry.rows)
        yield entry
        while n_rows < MOST_AT_ONCE:
            try:
                entry = self._waiting.get_nowait()
            except Empty:
                return
            n_rows += len(entry.rows)
            yield entry


@cache
def opened(home: Path, shop: str) -> Journal:
    """The journal of a shop; one per process."""
    return Journal(sources.journal(home, shop))


def _current(path: Path, held: _Held | None) -> _Held:
    """The connection that is held or, where another file has taken the place of its own, one to that."""
    if held is None or not path.exists() or path.stat().st_ino != held.inode:
        held = _Held(_opened(path), path.stat().st_ino)
    return held


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to a journal that is there; SQLite does not wait for another process that turns writing ahead on."""
    for attempt in range(N_ATTEMPTS):
        try:
            return _made(path)
        except sqlite3.OperationalError:
            if attempt == N_ATTEMPTS - 1:
                raise
            time.sleep(BUSY_S / N_ATTEMPTS)
    raise AssertionError("one attempt returns or raises")


def _made(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute(_EVENTS)
    connection.execute(_PUTS)
    for name in ("user_id", "user_pseudo_id"):
        connection.execute(f"create index if not exists events_{name} on events ({name}, received_us)")
    return connection


def _committed(connection: sqlite3.Connection, entries: Iterable[_Entry]) -> list[int]:
    """How many rows of each entry were new, once all are on the disk."""
    connection.execute("begin immediate")
    try:
        counts = [connection.executemany(entry.statement, entry.rows).rowcount for entry in entries]
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise
    return counts


def _row(event: Json, received_us: int) -> tuple[object, ...]:
    """An event as it is kept; one that is said to lie ahead happened now, by a clock that is fast."""
    stated = {name: value for name, value in event.items() if value is not None}
    told = stated.get("event_timestamp")
    event_us = min(_us(datetime.fromisoformat(told)), received_us) if told else received_us
    times = {"event_timestamp": _instant(event_us), "received_at": _instant(received_us)}
    whole = {"event_id": str(uuid.uuid4()), **stated, **times}
    row = {**whole, "event_us": event_us, "received_us": received_us, "event": orjson.dumps(whole).decode()}
    return tuple(row.get(name) for name in _COLUMNS)


def _us(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND


def _instant(us: int) -> str:
    return (_EPOCH + us * _MICROSECOND).isoformat()
