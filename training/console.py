"""How commands speak: tables and progress for people, one JSON object as the last line for machines."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from features.ingest import TableReport
from training.evaluation import MINUS, Row, headline

Announce = Callable[[str], None]

WIDTH = 140
"""Columns of tables that go to a file or a pipe."""


@dataclass
class Speaker:
    """Writes to stdout; with ``json`` on, prose goes to stderr and only the JSON object to stdout."""

    json: bool
    console: Console = field(init=False)

    def __post_init__(self) -> None:
        output = sys.stderr if self.json else sys.stdout
        self.console = Console(file=output, highlight=False, width=None if output.isatty() else WIDTH)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A titled table; columns that hold numbers are aligned to the right."""
        headings = [Column(name, justify=_side(row[place] for row in rows)) for place, name in enumerate(columns)]
        table = Table(*headings, title=f"\n{title}", title_justify="left", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*map(_cell, row))
        self.console.print(table)

    def result(self, content: object) -> None:
        """The answer for machines, when it was asked for."""
        if self.json:
            sys.stdout.write(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")

    @contextmanager
    def progress(self, title: str, n_steps: int) -> Iterator[Announce]:
        """Gives what announces each step before it starts: a bar on a terminal, one line per step elsewhere."""
        if not self.console.is_terminal:
            yield lambda step: self.say(f"{title}: {step}")
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=n_steps)

            def show(step: str) -> None:
                bar.update(task, advance=1, description=f"{title}: {step}")

            yield show


def _side(values: Iterator[object]) -> Literal["left", "right"]:
    return "right" if any(isinstance(value, int | float) for value in values) else "left"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_reports(speaker: Speaker, reports: list[TableReport]) -> None:
    """Every row of every table accounted for, then what was quarantined and why."""
    speaker.table(
        "Ingested",
        ("table", "read", "accepted", "duplicate", "quarantined", "from", "to"),
        [
            (r.table, r.read, r.accepted, r.duplicate, sum(r.quarantined.values()), r.first[:10], r.last[:10])
            for r in reports
        ],
    )
    for report in reports:
        for name, counts in report.values.items():
            listed = ", ".join(f"{value} {count:,}" for value, count in counts.items())
            speaker.say(f"{report.table}.{name}: {listed or 'not given'}")
        for reason, count in report.quarantined.items():
            speaker.say(f"{report.table}: {count:,} rows quarantined: {reason}")


def show_rows(speaker: Speaker, title: str, rows: list[Row], gate: str) -> None:
    """An evaluation table, a line per model and metric: what speaks of everybody, lists of the usual length.

    gate : the metric by which models are compared, at any length of lists
    """
    usual = [row for row in headline(rows) if _is_usual(row)]
    shown = [row for row in usual if MINUS not in row.model or _base(row.metric) == _base(gate)]
    alone, compared = ([row for row in shown if (MINUS in row.model) == paired] for paired in (False, True))
    speaker.table(
        f"{title}, masked" if any(row.masked for row in shown) else title,
        ("model", "split", "segment", "metric", "value", "95 % low", "high", "n"),
        [(r.model, r.split, r.segment, r.metric, r.value, r.low, r.high, r.n) for r in alone],
    )
    if compared:
        speaker.table(
            "Differences, unit by unit",
            ("models", "split", "segment", "metric", "value", "95 % low", "high", "apart"),
            [(r.model, r.split, r.segment, r.metric, r.value, r.low, r.high, _apart(r)) for r in compared],
        )
    if len(shown) < len(rows):
        speaker.say(f"{len(rows) - len(shown):,} more rows, by segment, mask, list length and quantile, with --json")


def show_overridden(speaker: Speaker, title: str, rows: list[Row]) -> None:
    """How each forecast did where a planner said the units, if one did anywhere."""
    planned = [row for row in rows if row.segment.split()[-1] == "overridden" and row.metric in _OF_PLANS]
    if planned:
        speaker.table(
            f"{title}, where a planner said the units",
            ("model", "segment", "metric", "value", "95 % low", "high", "n"),
            [(r.model, r.segment, r.metric, r.value, r.low, r.high, r.n) for r in planned],
        )


_OF_PLANS = ("wape", "bias", "value_added")


def _is_usual(row: Row) -> bool:
    """Whether a metric is of lists of 10, or as a published split is judged by, and of no single quantile."""
    length = re.search(r"_at_(\d+)$", row.metric)
    of_one_quantile = re.match(r"pinball_|coverage_[1-7]", row.metric)
    return not of_one_quantile and (length is None or length[1] == "10" or row.split == "given")


def _base(metric: str) -> str:
    return metric.partition("_at_")[0]


def _apart(row: Row) -> str:
    return "yes" if row.low is not None and row.high is not None and not row.low <= 0 <= row.high else "no"
