"""How far visits or people come on the way to an order, and where that way leaks most."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features import contract
from features.engine import Engine
from features.errors import UserError
from features.intervals import wilson

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

STEPS = ("view_item", "add_to_cart", "begin_checkout", "purchase")
DIMENSIONS = ("device_category", "channel", "item_category")

_LEAKS = pa.schema(
    [
        *((name, pa.string()) for name in ("dimension", "segment", "from_step", "to_step")),
        *((name, pa.int64()) for name in ("n", "n_converted")),
        *((name, pa.float64()) for name in ("rate", "low", "high", "average", "lost")),
    ]
)
_ALWAYS = np.timedelta64(2**62, "us")


@dataclass(frozen=True, slots=True)
class Funnel:
    """What counts as a way through the shop.

    steps : event names, at least two, each once
    window_days : None follows visits; else people, for whom a way may take so many days from its first step
    in_order : a step counts when it comes at or after the one before it; else each counts on its own

    Raises UserError for steps that are unknown, repeated or too few, for a window below a day, and for one that bounds
    nothing because steps count on their own.
    """

    steps: tuple[str, ...] = STEPS
    window_days: int | None = None
    in_order: bool = True

    def __post_init__(self) -> None:
        known = [name for name in contract.EVENT_NAMES if name != "refund"]
        if unknown := [step for step in self.steps if step not in known]:
            raise UserError(f"no step {', '.join(unknown)}: steps are {', '.join(known)}")
        if len(set(self.steps)) < max(2, len(self.steps)):
            raise UserError(f"steps {','.join(self.steps)}: give at least two, each once")
        if self.window_days is not None and self.window_days < 1:
            raise UserError(f"a window of {self.window_days} days: give at least one")
        if self.window_days is not None and not self.in_order:
            raise UserError("steps in any order are counted each on its own: no window of days bounds them")

    @property
    def unit(self) -> str:
        """What is counted."""
        return "visits" if self.window_days is None else "visitors"


@dataclass(frozen=True, slots=True)
class Passage:
    """The way of every visit or visitor.

    steps : the funnel's steps that the shop logs
    absent : those of which it has no event
    table : columns ``step`` (from 1), ``event_name``, ``n`` (units that reached it), ``from_first`` (n by that of the
        first step, above 1 where steps count on their own) and, null for the first and after a step that none reached,
        ``from_previous`` (the share of the units at the step before that reached this one too) with its Wilson interval
        ``low``, ``high``
    leaks : a row per dimension, segment and pair of steps: ``dimension``, ``segment``, ``from_step``, ``to_step``,
        ``n``, ``n_converted``, ``rate``, ``low``, ``high``, ``average`` (of all segments) and ``lost`` =
        n * (average - rate), the conversions that the segment has less than the average would give it; most lost first.
        By item category a unit counts once for every category that it met. A dimension with one segment has no rows.
    """

    steps: tuple[str, ...]
    absent: tuple[str, ...]
    table: pa.Table
    leaks: pa.Table


def passage(engine: Engine, as_of: datetime, funnel: Funnel) -> Passage:
    """How many units reach each step with what was known before ``as_of``, and which segments lose most."""
    events = engine.query("funnel_events", as_of=as_of, steps=",".join(funnel.steps))
    logged = set(events["event_name"].unique().to_pylist())
    steps = tuple(step for step in funnel.steps if step in logged)
    own = ("person_id",) if funnel.window_days else ("person_id", "session_id")
    reached, _ = _reached(events, steps, own, funnel)
    return Passage(
        steps=steps,
        absent=tuple(step for step in funnel.steps if step not in logged),
        table=_table(steps, reached),
        leaks=_leaks(events, steps, own, funnel),
    )


def _reached(events: pa.Table, steps: Sequence[str], own: Sequence[str], funnel: Funnel) -> tuple[Bools, Ints]:
    """Which steps each unit reached, shape (n_units, n_steps), and the row of its first event, shape (n_units,).

    own : the columns that make a unit
    """
    unit, step = _units(events, own), _steps_of(events, steps)
    at = events["event_timestamp"].to_numpy()
    order = np.lexsort((step, at, unit))
    unit, step, at = unit[order], step[order], at[order]
    _, firsts = np.unique(unit, return_index=True)
    reached = np.zeros((len(firsts), len(steps)), np.bool_)
    taken = _in_order(unit, step, at, len(steps), funnel.window_days) if funnel.in_order else unit >= 0
    reached[unit[taken], step[taken]] = True
    return reached, order[firsts]


def _in_order(unit: Ints, step: Ints, at: NDArray[np.datetime64], n_steps: int, window_days: int | None) -> Bools:
    """Whether each event ends a way through all steps up to its own within the window; shape (n_events,).

    The events are sorted by unit, time and step. Of the ways that lead to a step the one that began last leaves most of
    the window, so it alone is followed.
    """
    window = _ALWAYS if window_days is None else np.timedelta64(window_days, "D")
    rows = np.arange(len(unit))
    beginning = np.where(step == 0, rows, -1)
    taken = beginning >= 0
    for number in range(1, n_steps):
        latest = np.maximum.accumulate(beginning)
        goes_on = (step == number) & (latest >= 0) & (unit[latest] == unit) & (at - at[latest] <= window)
        beginning = np.where(goes_on, latest, -1)
        taken |= goes_on
    return taken


def _units(events: pa.Table, columns: Sequence[str]) -> Ints:
    """The units as numbers from 0 on, shape (n_events,)."""
    unit = np.zeros(events.num_rows, np.int64)
    for name in columns:
        values = events[name].combine_chunks().dictionary_encode()
        unit = unit * len(values.dictionary) + np.asarray(values.indices)
    _, numbers = np.unique(unit, return_inverse=True)
    return numbers.astype(np.int64)


def _steps_of(events: pa.Table, steps: Sequence[str]) -> Ints:
    return np.asarray(pc.index_in(events["event_name"], pa.array(steps, pa.string())), np.int64)


def _table(steps: Sequence[str], reached: Bools) -> pa.Table:
    n = reached.sum(axis=0)
    went_on, (low, high) = _went_on(reached), wilson(_went_on(reached), n[:-1])
    none = pa.nulls(min(len(steps), 1), pa.float64())
    later = {"from_previous": went_on / np.where(n[:-1] > 0, n[:-1], np.nan), "low": low, "high": high}
    return pa.table(
        {
            "step": pa.array(range(1, len(steps) + 1), pa.int64()),
            "event_name": pa.array(steps, pa.string()),
            "n": n,
            "from_first": n / np.maximum(n[:1], 1),
            **{name: pa.chunked_array([none, pa.array(values, from_pandas=True)]) for name, values in later.items()},
        }
    )


def _went_on(reached: Bools) -> Ints:
    """How many of the units at each step reached the next one, shape (n_steps - 1,)."""
    return np.asarray(np.sum(reached[:, :-1] & reached[:, 1:], axis=0), np.int64)


def _leaks(events: pa.Table, steps: Sequence[str], own: Sequence[str], funnel: Funnel) -> pa.Table:
    parts = [_LEAKS.empty_table()]
    for dimension in DIMENSIONS:
        columns = (*own, dimension) if dimension == "item_category" else own
        reached, firsts = _reached(events, steps, columns, funnel)
        segments = events[dimension].take(firsts).combine_chunks().dictionary_encode()
        if len(segments.dictionary) > 1:
            parts += [_leaks_between(dimension, segments, steps, reached, place) for place in range(len(steps) - 1)]
    return pa.concat_tables(parts).sort_by(
        [("lost", "descending"), ("dimension", "ascending"), ("segment", "ascending")]
    )


def _leaks_between(
    dimension: str, segments: pa.DictionaryArray, steps: Sequence[str], reached: Bools, place: int
) -> pa.Table:
    """What each segment loses between the step at ``place`` and the next one."""
    segment, n_segments = np.asarray(segments.indices), len(segments.dictionary)
    n = np.bincount(segment[reached[:, place]], minlength=n_segments)
    n_converted = np.bincount(segment[reached[:, place] & reached[:, place + 1]], minlength=n_segments)
    found = np.flatnonzero(n)
    n, n_converted = n[found], n_converted[found]
    average = n_converted.sum() / max(n.sum(), 1)
    low, high = wilson(n_converted, n)
    alike = {"dimension": dimension, "from_step": steps[place], "to_step": steps[place + 1], "average": average}
    columns = {
        **{name: pa.repeat(value, len(found)) for name, value in alike.items()},
        "segment": segments.dictionary.take(pa.array(found)),
        "n": n,
        "n_converted": n_converted,
        "rate": n_converted / n,
        "low": low,
        "high": high,
        "lost": n * average - n_converted,
    }
    return pa.table({name: columns[name] for name in _LEAKS.names}).cast(_LEAKS)
