"""The events that the service takes in: durable before they are acknowledged, seen by every worker at once.

``HOME/SHOP/journal/events.sqlite`` is written ahead and synchronised at every commit; what several requests bring at a
time is one commit. An event that comes again, by its ``event_id``, is the same event.
"""

import sqlite3
import threading
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

LONGEST_HISTORY = 1000
"""Events of one visitor that are read, the latest."""
MOST_AT_ONCE = 10_000
"""Events of one commit, but for those of the last request in it."""
BUSY_S = 5.0
"""How long a worker waits for another one's commit."""

_TABLE = """
    create table if not exists events (
        number integer primary key,
        event_id text not null unique,
        user_id text,
        user_pseudo_id text,
        session_id text,
        item_id text,
        event_name text not null,
        event_us integer not null,
        received_us integer not null,
        event text not null
    ) strict
"""
VISITOR = ("user_id", "user_pseudo_id", "session_id")
"""What a visitor is known by."""
_COLUMNS = ("event_id", *VISITOR, "item_id", "event_name", "event_us", "received_us", "event")
_INSERT = (
    f"insert into events ({', '.join(_COLUMNS)}) values ({', '.join('?' * len(_COLUMNS))}) "
    "on conflict (event_id) do nothing"
)
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_DAY_US = timedelta(days=1) // _MICROSECOND


class _Entry(NamedTuple):
    rows: list[tuple[object, ...]]
    done: Future[int]


class Journal:
    """The events of a shop in a file, which exists from the first event on.

    One thread of this process writes; other processes write too, one at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: SimpleQueue[_Entry] = SimpleQueue()
        self._started = threading.Lock()
        self._is_writing = False
        self._local = threading.local()

    def append(self, events: Sequence[Json]) -> Future[int]:
        """Take events in, as ``schema.LoggedEvent`` has them in JSON; the result is how many were new.

        When the result is there the events are on the disk; it is an error, and they are not, when they cannot be.
        """
        received_us = _us(datetime.now(UTC))
        entry = _Entry([_row(event, received_us) for event in events], Future())
        with self._started:
            if not self._is_writing:
                threading.Thread(target=self._write, name="journal", daemon=True).start()
                self._is_writing = True
        self._waiting.put(entry)
        return entry.done

    def recent(self, since: datetime, **visitor: str | None) -> Json | None:
        """What a visitor did with items, of what came in since an instant; None for nothing.

        visitor : ``user_id``, ``user_pseudo_id`` and ``session_id``; what was done under any of them counts

        Returns lists in order of time, ``item_ids``, ``event_names`` and ``ages_days`` until now, and ``elapsed_days``
        since the instant.
        """
        known = {name: value for name, value in visitor.items() if value is not None}
        if not known or not self.path.exists():
            return None
        values = [value for each in known.values() for value in (each, _us(since))]
        rows = self._reading().execute(_recent(tuple(known)), values).fetchall()
        if not rows:
            return None
        now_us = _us(datetime.now(UTC))
        item_ids, event_names, times = zip(*reversed(rows), strict=True)
        return {
            "item_ids": item_ids,
            "event_names": event_names,
            "ages_days": [max(0, now_us - event_us) / _DAY_US for event_us in times],
            "elapsed_days": (now_us - _us(since)) / _DAY_US,
        }

    def _reading(self) -> sqlite3.Connection:
        if not hasattr(self._local, "connection"):
            self._local.connection = _connected(self.path)
        return self._local.connection  # type: ignore[no-any-return]

    def _write(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            entries = list(self._gathered())
            try:
                if connection is None:
                    connection = _opened(self.path)
                counts = _committed(connection, entries)
            except (sqlite3.Error, OSError) as error:
                connection = None
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


@cache
def _recent(names: tuple[str, ...]) -> str:
    """The latest events of a visitor; a union and not an or, so that each part has an index of its own."""
    kinds = ", ".join(repr(kind) for kind in KINDS)
    parts = " union ".join(
        f"select number, item_id, event_name, event_us from events where {name} = ? and received_us >= ? "
        f"and event_name in ({kinds})"
        for name in names
    )
    return (
        f"select item_id, event_name, event_us from ({parts}) order by event_us desc, number desc "
        f"limit {LONGEST_HISTORY}"
    )


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = _connected(path)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute(_TABLE)
    for name in VISITOR:
        connection.execute(f"create index if not exists events_{name} on events ({name}, received_us)")
    return connection


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)


def _committed(connection: sqlite3.Connection, entries: Iterable[_Entry]) -> list[int]:
    """How many events of each entry were new, once all are on the disk."""
    connection.execute("begin immediate")
    try:
        counts = [connection.executemany(_INSERT, entry.rows).rowcount for entry in entries]
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise
    return counts


def _row(event: Json, received_us: int) -> tuple[object, ...]:
    received_at = _EPOCH + received_us * _MICROSECOND
    stated = {name: value for name, value in event.items() if value is not None}
    whole = {"event_id": str(uuid.uuid4()), "event_timestamp": received_at.isoformat(), **stated}
    times = {"event_us": _us(datetime.fromisoformat(whole["event_timestamp"])), "received_us": received_us}
    row = {**whole, **times, "event": orjson.dumps({**whole, "received_at": received_at.isoformat()}).decode()}
    return tuple(row.get(name) for name in _COLUMNS)


def _us(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND
