"""Windows hide the truth: a model is fitted on one engine and judged on another.

``past`` holds what was known before the cut-off, ``known_future`` the offers that the shop has already fixed for the
window, ``truth`` what was known when the window closed. No query over ``past`` can reach beyond the cut-off.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from features.engine import Engine

Frequency = Literal["day", "week"]

FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)

_DATED = ("demand", "stock", "offers")


@dataclass(frozen=True, slots=True)
class Window:
    """What was known at ``as_of``, what was planned, and what happened from ``since`` until ``end``.

    as_of : first instant not yet known, UTC.
    end : first instant after the window, UTC.
    since : the truth's own events begin here; ``truth`` holds what came before too, for who a device belongs to is only
        seen there.
    """

    name: str
    as_of: datetime
    end: datetime
    since: datetime
    past: Engine
    known_future: Engine
    truth: Engine


def before(engine: Engine, as_of: datetime) -> Engine:
    """The shop as it was known at ``as_of``: what happened or was received later is absent."""
    known = "cast($as_of as timestamp)"
    return engine.narrow(
        {
            "events": "select * from events "
            f"where event_timestamp < {known} and coalesce(received_at, event_timestamp) < {known}",
            "items": f"select * from items where coalesce(created_at, {known} - interval 1 day) < {known}",
            "campaign_touches": f"select * from campaign_touches where sent_at < {known}",
            **{table: f"select * from {table} where date < cast({known} as date)" for table in _DATED},
        },
        as_of=as_of,
    )


def planned(engine: Engine, as_of: datetime, end: datetime) -> Engine:
    """Only the offers that fall within [as_of, end), and the catalogue; nothing that happened is reachable."""
    within = "date >= cast(cast($as_of as timestamp) as date) and date < cast(cast($end as timestamp) as date)"
    nothing = ("events", "campaign_touches", "demand", "stock")
    return engine.narrow(
        {
            "offers": f"select * from offers where {within}",
            **{table: f"select * from {table} where 1 = 0" for table in nothing},
        },
        as_of=as_of,
        end=end,
    )


def time_window(engine: Engine, as_of: datetime, end: datetime) -> Window:
    """The window of a global time split."""
    return Window(
        name=f"{as_of:%Y-%m-%d}",
        as_of=as_of,
        end=end,
        since=as_of,
        past=before(engine, as_of),
        known_future=planned(engine, as_of, end),
        truth=before(engine, end),
    )


def rolling(engine: Engine, end: datetime, length: timedelta, n_windows: int = 1) -> Iterator[Window]:
    """Windows of equal length, oldest first; the last closes at ``end``, each is fitted on all that lies before it."""
    for remaining in range(n_windows, 0, -1):
        as_of = end - remaining * length
        yield time_window(engine, as_of, as_of + length)


_RANKED = """
    select events.*, row_number() over (
        partition by known_events.person_id order by events.event_timestamp desc, events.event_id desc
    ) as from_last
    from events
    join known_events on events.event_id = known_events.event_id
    where events.item_id is not null
"""


def leave_one_out(engine: Engine, end: datetime, part: Literal["valid", "test"] = "test") -> Window:
    """Each person's last item event before ``end`` is the truth of ``test``, the one before it that of ``valid``.

    Time is not global here: a person's past may lie after another's truth, as the published protocols have it.
    """
    held = 1 if part == "test" else 2
    ranked = before(engine, end).narrow({"events": _RANKED}, as_of=end)
    return _parted(ranked, f"leave_one_out_{part}", end, f"from_last > {held}", f"from_last = {held}")


def given(engine: Engine, end: datetime, part: Literal["valid", "test"] = "test") -> Window:
    """The split that the events' own ``split`` column gives before ``end``: train, valid, test."""
    known = "split = 'train'" if part == "valid" else "split in ('train', 'valid')"
    return _parted(before(engine, end), f"given_{part}", end, known, f"split = '{part}'")


def _parted(engine: Engine, name: str, end: datetime, past: str, truth: str) -> Window:
    return Window(
        name=name,
        as_of=end,
        end=end,
        since=FIRST_INSTANT,
        past=engine.narrow({"events": f"select * from events where {past}"}),
        known_future=planned(engine, end, end),
        truth=engine.narrow({"events": f"select * from events where {truth}"}),
    )


def period_start(instant: datetime, frequency: Frequency) -> datetime:
    """Midnight of the day, or of the Monday, in whose period an instant lies (UTC)."""
    midnight = datetime(instant.year, instant.month, instant.day, tzinfo=UTC)
    return midnight - timedelta(days=midnight.weekday() if frequency == "week" else 0)
