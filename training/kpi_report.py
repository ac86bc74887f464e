"""What the command ``kpis`` tells: a page for people, tables for analysts, one object for machines."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from features.engine import Engine
from features.errors import UserError
from features.funnel import Funnel, Passage, passage
from features.kpis import MEANINGS, MONEY, SHARES, alerts, attribution, cohorts, daily_kpis, kept, kpis, weekly_kpis
from features.shops import Shop
from training.console import Speaker

N_LEAKS = 10
"""How many leaks are shown; the table has them all."""


@dataclass(frozen=True, slots=True)
class Report:
    """A shop's numbers as known before ``as_of``, compared over whole days before ``until``.

    values : as of ``features.kpis.kpis``
    tables : by the name of their file
    """

    shop: Shop
    as_of: datetime
    until: datetime
    values: dict[str, Any]
    funnel: Funnel
    passage: Passage
    tables: dict[str, pa.Table]

    @property
    def last_week(self) -> list[dict[str, Any]]:
        weekly = self.tables["weekly"]
        rows: list[dict[str, Any]] = weekly.filter(pc.equal(weekly["week"], pc.max(weekly["week"]))).to_pylist()
        return rows

    @property
    def content(self) -> dict[str, Any]:
        """For machines: the values, and every table that is small whatever the shop."""
        small = ("funnel", "attribution", "cohorts_by_month", "alerts")
        return {
            **self.values,
            "as_of": self.as_of,
            "until": self.until,
            "week_on_week": self.last_week,
            **{name: self.tables[name].to_pylist() for name in small},
            "funnel_absent": self.passage.absent,
            "funnel_leaks": self.tables["funnel_leaks"].slice(0, N_LEAKS).to_pylist(),
        }


def report(engine: Engine, shop: Shop, as_of: datetime, until: datetime, funnel: Funnel) -> Report:
    """Everything that ``kpis`` tells of a shop.

    as_of : first instant not known
    until : midnight (UTC) after the last whole day of the log, at most ``as_of``
    Raises UserError when nothing is known.
    """
    engine = kept(engine, as_of)
    values = kpis(engine, as_of)
    if not values["visitors"]:
        raise UserError(
            f"shop {shop.name} has no visits before {as_of:%Y-%m-%d}: "
            f"run `shopkeeper ingest --shop {shop.name}` or choose a later --until"
        )
    weekly, ways = weekly_kpis(engine, as_of, until), passage(engine, as_of, funnel)
    tables = {
        "kpis": pa.table({"kpi": list(MEANINGS), "value": [_number(values[name]) for name in MEANINGS]}),
        "daily": daily_kpis(engine, as_of),
        "weekly": weekly,
        "alerts": alerts(weekly),
        "funnel": ways.table,
        "funnel_leaks": ways.leaks,
        "cohorts_by_week": cohorts(engine, as_of, until, "week"),
        "cohorts_by_month": cohorts(engine, as_of, until, "month"),
        "attribution": attribution(engine, as_of),
    }
    return Report(shop, as_of, until, values, funnel, ways, tables)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def write(found: Report, folder: Path) -> None:
    """Every table as Parquet and CSV, every plot as PNG and SVG; what is there under these names is replaced."""
    from training import kpi_plots

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as name:
        staged = Path(name)
        for table, rows in found.tables.items():
            pa.parquet.write_table(rows, staged / f"{table}.parquet")
            pa.csv.write_csv(rows, staged / f"{table}.csv")
        for plot, figure in kpi_plots.figures(found):
            for suffix in ("png", "svg"):
                figure.savefig(staged / f"{plot}.{suffix}", dpi=150)
        for path in staged.iterdir():
            path.replace(folder / path.name)


def show(speaker: Speaker, found: Report) -> None:
    """The headline, what changed, the funnel with its leaks, and what brought the orders."""
    _show_headline(speaker, found)
    for sentence in _alarms(found):
        speaker.say(sentence)
    _show_funnel(speaker, found)
    _show_attribution(speaker, found)


def _show_headline(speaker: Speaker, found: Report) -> None:
    changes = {row["kpi"]: row for row in found.last_week}
    none = dict.fromkeys(("value", "change", "change_low", "change_high"))
    speaker.table(
        f"{found.shop.name}; week: the 7 days before {found.until:%Y-%m-%d} against the 7 before them",
        ("kpi", "value", "unit", "week", "change", "95 % interval", "meaning"),
        [
            (name, found.values[name], unit, _counted(week["value"], unit), *_change(week), meaning)
            for name, meaning in MEANINGS.items()
            for unit, week in [(_unit(name, found.shop), changes.get(name, none))]
        ],
    )
    if found.values["conversion_per_session"] == 1:
        speaker.say("Every visit in the log bought: the shop logs no others, so that conversion says nothing.")


def _unit(name: str, shop: Shop) -> str:
    return shop.currency if name in MONEY else "share" if name in SHARES else "count"


def _counted(value: float | None, unit: str) -> float | None:
    return int(value) if value is not None and unit == "count" else value


def _change(row: dict[str, Any]) -> tuple[str, str]:
    if row["change_low"] is None:
        return "-", "-"
    return f"{row['change']:+.1%}", f"{row['change_low']:+.1%} to {row['change_high']:+.1%}"


def _alarms(found: Report) -> Iterator[str]:
    if not found.last_week:
        yield "No week on week: the log does not hold a week of whole days."
        return
    changed = found.tables["alerts"].to_pylist()
    yield "Changed beyond its interval, worst first:" if changed else "Nothing changed beyond its interval."
    for row in changed:
        change, interval = _change(row)
        yield f"  {row['kpi']} {change} ({interval})"


def _show_funnel(speaker: Speaker, found: Report) -> None:
    funnel, ways = found.funnel, found.passage
    within = f" within {funnel.window_days} days" if funnel.window_days else ""
    speaker.table(
        f"Funnel of {funnel.unit}, steps {'in order' if funnel.in_order else 'each on its own'}{within}",
        ("step", "event", funnel.unit, "of first", "of previous", "95 % low", "high"),
        [tuple(row.values()) for row in ways.table.to_pylist()],
    )
    if ways.absent:
        speaker.say(f"Left out, for the shop logs none: {', '.join(ways.absent)}")
    lost = [row for row in ways.leaks.slice(0, N_LEAKS).to_pylist() if row["lost"] > 0]
    if lost:
        speaker.table(
            f"Where it leaks most: steps that {funnel.unit} would have taken at the average rate",
            ("by", "segment", "from", "to", funnel.unit, "went on", "rate", "95 % low", "high", "average", "lost"),
            [tuple(row.values()) for row in lost],
        )


def _show_attribution(speaker: Speaker, found: Report) -> None:
    rows = found.tables["attribution"].to_pylist()
    speaker.table(
        f"What brought the orders, {found.shop.currency}",
        ("channel", "orders, last non-direct", "revenue", "orders, time decay of 7 days", "revenue"),
        [tuple(row.values()) for row in rows],
    )
    if {row["channel"] for row in rows} == {"direct"}:
        speaker.say("No visit of a buyer has a medium or a source: all count as direct.")
