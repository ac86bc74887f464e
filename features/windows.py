"""Windows hide the truth: a model is fitted on one engine and judged on another.

``past`` holds what was known before the cut-off, ``known_future`` the offers that the shop has already fixed for the
window, ``truth`` what then happened. No query over ``past`` can reach ``truth``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from features.engine import Engine

Frequency = Literal["day", "week"]

_DATED = ("demand", "stock", "offers")


@dataclass(frozen=True, slots=True)
class Window:
    """What was known at ``as_of``, what was planned, and what happened until ``end``.

    as_of : first instant not yet known, UTC.
    end : first instant after the window, UTC.
    """

    name: str
    as_of: datetime
    end: datetime
    past: Engine
    known_future: Engine
    truth: Engine


def before(engine: Engine, as_of: datetime) -> Engine:
    """The shop as it was known at ``as_of``: what happened or was received later is absent."""
    known = "cast($as_of as timestamp)"
    return engine.narrow(
        as_of=as_of,
        events="select * from events "
        f"where event_timestamp < {known} and coalesce(received_at, event_timestamp) < {known}",
        items=f"select * from items where coalesce(created_at, {known} - interval 1 day) < {known}",
        campaign_touches=f"select * from campaign_touches where sent_at < {known}",
        **{table: f"select * from {table} where date < cast({known} as date)" for table in _DATED},
    )


def between(engine: Engine, as_of: datetime, end: datetime, tables: tuple[str, ...]) -> Engine:
    """Only the rows of these tables that fall within [as_of, end); every other table is empty but the catalogue."""
    inside = {
        "events": "event_timestamp >= cast($as_of as timestamp) and event_timestamp < cast($end as timestamp)",
        "campaign_touches": "sent_at >= cast($as_of as timestamp) and sent_at < cast($end as timestamp)",
        **dict.fromkeys(
            _DATED, "date >= cast(cast($as_of as timestamp) as date) and date < cast(cast($end as timestamp) as date)"
        ),
    }
    selects = {
        table: f"select * from {table} where {predicate if table in tables else '1 = 0'}"
        for table, predicate in inside.items()
    }
    return engine.narrow(as_of=as_of, end=end, **selects)


def time_window(engine: Engine, as_of: datetime, end: datetime) -> Window:
    """The window of a global time split."""
    return Window(
        name=f"{as_of:%Y-%m-%d}",
        as_of=as_of,
        end=end,
        past=before(engine, as_of),
        known_future=between(engine, as_of, end, ("offers",)),
        truth=between(engine, as_of, end, ("events", "demand", "stock", "campaign_touches")),
    )


def rolling(engine: Engine, end: datetime, length: timedelta, n_windows: int = 1) -> Iterator[Window]:
    """Windows of equal length, oldest first; the last closes at ``end``, each is fitted on all that lies before it."""
    for remaining in range(n_windows, 0, -1):
        as_of = end - remaining * length
        yield time_window(engine, as_of, as_of + length)


_RANKED = """
    select *, row_number() over (
        partition by coalesce(user_id, user_pseudo_id) order by event_timestamp desc, event_id desc
    ) as from_last
    from events
    where item_id is not null
"""


def leave_one_out(engine: Engine, end: datetime, part: Literal["valid", "test"] = "test") -> Window:
    """Each person's last item event is the truth of ``test``, the one before it that of ``valid``.

    Time is not global here: a person's past may lie after another's truth, as the published protocols have it.
    """
    held = 1 if part == "test" else 2
    return _parted(
        engine, f"leave_one_out_{part}", end, f"({_RANKED}) ranked", f"from_last > {held}", f"from_last = {held}"
    )


def given(engine: Engine, end: datetime, part: Literal["valid", "test"] = "test") -> Window:
    """The split that the events' own ``split`` column gives: train, valid, test."""
    known = "split = 'train'" if part == "valid" else "split in ('train', 'valid')"
    return _parted(engine, f"given_{part}", end, "events", known, f"split = '{part}'")


def _parted(engine: Engine, name: str, end: datetime, source: str, past: str, truth: str) -> Window:
    return Window(
        name=name,
        as_of=end,
        end=end,
        past=engine.narrow(events=f"select * from {source} where {past}"),
        known_future=between(engine, end, end, ()),
        truth=engine.narrow(events=f"select * from {source} where {truth}"),
    )


def period_start(instant: datetime, frequency: Frequency) -> datetime:
    """Midnight of the day, or of the Monday, in whose period an instant lies (UTC)."""
    midnight = datetime(instant.year, instant.month, instant.day, tzinfo=UTC)
    return midnight - timedelta(days=midnight.weekday() if frequency == "week" else 0)
