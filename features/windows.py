"""Windows hide the truth: a model is fitted on one engine and judged on another.

``past`` holds what was known before the cut-off, ``known_future`` the offers that the shop has already fixed for the
window, ``truth`` what was known when the window closed. No query over ``past`` can reach beyond the cut-off.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from features import contract
from features.engine import Engine
from features.errors import UserError
from features.periods import Span

FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)

_DATED = ("demand", "stock", "offers")


@dataclass(frozen=True, slots=True)
class Window:
    """What was known at ``as_of``, what was planned, and what happened from ``since`` until ``end``.

    as_of : first instant not yet known, UTC.
    end : first instant after the window, UTC.
    since : the truth's own events begin here; ``truth`` holds what came before too, for who a device belongs to is only
        seen there.
    fitted : what models may be fitted on: the past or, in the protocols of publications, its train part alone; the
        validation part is known when the test is asked, but was not learned from.
    inner : the window on which such a protocol chooses settings; absent: whoever fits cuts one from the past's end.
    """

    name: str
    as_of: datetime
    end: datetime
    since: datetime
    past: Engine
    known_future: Engine
    truth: Engine
    fitted: Engine
    inner: "Window | None" = None

    @property
    def holds_inner_out(self) -> bool:
        """Whether what ``inner`` chooses on is in no fit, as protocols with a validation part have it."""
        return self.inner is not None and self.inner.fitted is self.fitted


def before(engine: Engine, as_of: datetime) -> Engine:
    """The shop as it was known at ``as_of``: what happened or was received later is absent."""
    known = "cast($as_of as timestamp)"
    return engine.narrow(
        {
            "events": "select * from events "
            f"where event_timestamp < {known} and coalesce(received_at, event_timestamp) < {known}",
            "items": f"select * from items where coalesce(created_at, {known} - interval 1 day) < {known}",
            "campaign_touches": f"select {_touch_known_at(known)} from campaign_touches where sent_at < {known}",
            **{table: f"select * from {table} where date < cast({known} as date)" for table in _DATED},
        },
        as_of=as_of,
    )


def _touch_known_at(known: str) -> str:
    """The columns of a touch at an instant at which its answer may still be to come."""
    answer = f"case when responded_at < {known} then responded_at end as responded_at"
    names = (column.name for column in contract.TABLES["campaign_touches"].columns)
    return ", ".join(answer if name == "responded_at" else name for name in names)


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
    past = before(engine, as_of)
    return Window(
        name=f"{as_of:%Y-%m-%d}",
        as_of=as_of,
        end=end,
        since=as_of,
        past=past,
        known_future=planned(engine, as_of, end),
        truth=before(engine, end),
        fitted=past,
    )


def rolling(engine: Engine, end: datetime, length: Span, n_windows: int = 1) -> Iterator[Window]:
    """Windows of equal length, oldest first; the last closes at ``end``, each is fitted on all that lies before it."""
    for remaining in range(n_windows, 0, -1):
        as_of = length.after(end, -remaining)
        yield time_window(engine, as_of, length.after(as_of))


_OF_PERSON = ", ".join(
    "placed.person_id as user_id" if column.name == "user_id" else f"events.{column.name}"
    for column in contract.TABLES["events"].columns
)
"""An event with its person as customer: parts of a log that each hold some of the events must not disagree on that."""

_FROM_LAST = f"""
    select {_OF_PERSON}
    from events
    join (
        select
            event_id,
            person_id,
            row_number() over (partition by person_id order by event_timestamp desc, event_id desc) as from_last,
            dense_rank() over (partition by person_id order by event_timestamp desc) as moments_from_last,
            dense_rank() over (partition by person_id order by event_timestamp) as moments_from_first
        from known_events
        where item_id is not null and event_name in ('view_item', 'add_to_cart', 'purchase')
    ) placed on events.event_id = placed.event_id
    where {{condition}}
"""


def leave_one_out(engine: Engine, end: datetime) -> Window:
    """Each person's last item event before ``end`` is the truth, the one before it that of ``inner``, the rest fitted.

    Time is not global here: a person's past may lie after another's truth, as the published protocols have it.
    """
    parts = {part: _FROM_LAST.format(condition=f"from_last {part}") for part in ("> 2", "> 1", "= 2", "= 1")}
    known = before(engine, end)
    inner = _parted(known, "leave_one_out_valid", end, parts["> 2"], parts["= 2"], parts["> 2"])
    outer = _parted(known, "leave_one_out", end, parts["> 1"], parts["= 1"], parts["> 2"])
    return replace(outer, fitted=inner.fitted, inner=inner)


PARTS = ("train", "valid", "test", "context")
"""What the events' own ``split`` column may say."""


def given(engine: Engine, end: datetime) -> Window:
    """The split that the events' own ``split`` column gives before ``end``.

    train is fitted, valid is the truth of ``inner``, test the truth; ``context`` is known when the test is asked, but
    neither fitted nor judged. Without valid, ``inner`` holds out each person's last moments in train: at least one, and
    as large a share as test is of all events.

    Raises UserError when an event with an item says anything else, or nothing, and when there is no test.
    """
    known = before(engine, end)
    parts = _parts(known)
    train, valid, test_part, not_test = (
        f"select * from events where split in ({part})"
        for part in ("'train'", "'valid'", "'test'", "'train', 'valid', 'context'")
    )
    test = _parted(known, "given", end, not_test, test_part, train)
    if parts["valid"]:
        inner = _parted(known, "given_valid", end, train, valid, train)
        return replace(test, fitted=inner.fitted, inner=inner)
    share = parts["test"] / (parts["train"] + parts["test"])
    return replace(test, inner=_without_last(test.fitted, "given_valid", end, share))


def for_tuning(window: Window) -> Window:
    """The inner window of such a protocol as one to choose settings on: its own inner one lies within what it fits."""
    assert window.inner is not None, "windows of time are tuned on earlier ones"
    inner = _without_last(window.inner.fitted, f"{window.inner.name}_valid", window.end)
    fitted = inner.fitted if window.holds_inner_out else window.inner.fitted
    return replace(window.inner, fitted=fitted, inner=inner)


def _without_last(engine: Engine, name: str, end: datetime, share: float = 0.0) -> Window:
    """A share of each person's moments, the last, at least one, is the truth; the rest is the past and fitted."""
    n_held = f"greatest(1, floor({share} * (moments_from_first + moments_from_last - 1)))"
    earlier, last = (_FROM_LAST.format(condition=f"moments_from_last {part} {n_held}") for part in (">", "<="))
    return _parted(engine, name, end, earlier, last, earlier)


def _parts(engine: Engine) -> Counter[str]:
    """How many events with an item each part has."""
    said = engine.select("select split, count(*) as n from events where item_id is not null group by split")
    counts = Counter(dict(zip(said["split"].to_pylist(), said["n"].to_pylist(), strict=True)))
    if unknown := sorted(str(part or "nothing") for part in counts if part not in PARTS):
        raise UserError(f"column `split` of events says {', '.join(unknown[:5])}: it may say {', '.join(PARTS)}")
    if not counts["test"]:
        raise UserError("column `split` of events never says test: mark the events that are to be predicted")
    return counts


def _parted(engine: Engine, name: str, end: datetime, past: str, truth: str, fitted: str) -> Window:
    """A window whose parts are SELECTs over the events, which may ask what was known at ``$as_of``."""
    return Window(
        name=name,
        as_of=end,
        end=end,
        since=FIRST_INSTANT,
        past=engine.narrow({"events": past}, as_of=end),
        known_future=planned(engine, end, end),
        truth=engine.narrow({"events": truth}, as_of=end),
        fitted=engine.narrow({"events": fitted}, as_of=end),
    )
