"""How commands speak: tables and progress for people, one JSON object as the last line for machines."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from features.ingest import TableReport
from training.evaluation import Row

Announce = Callable[[str], None]


@dataclass
class Speaker:
    """Writes to stdout; with ``json`` on, prose goes to stderr and only the JSON object to stdout."""

    json: bool
    console: Console = field(init=False)

    def __post_init__(self) -> None:
        self.console = Console(stderr=self.json, highlight=False, soft_wrap=not sys.stdout.isatty())

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        table = Table(
            *(_heading(name) for name in columns), title=title, title_justify="left", box=None, pad_edge=False
        )
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        self.console.print(table)

    def result(self, content: object) -> None:
        """The answer for machines, when it was asked for."""
        if self.json:
            sys.stdout.write(
                orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode() + "\n"
            )

    @contextmanager
    def progress(self, title: str, n_steps: int) -> Iterator[Announce]:
        """A bar on a terminal, one line per step elsewhere."""
        if not self.console.is_terminal:
            yield lambda step: self.say(f"{title}: {step}")
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=n_steps + 1)

            def show(step: str) -> None:
                bar.update(task, advance=1, description=f"{title}: {step}")

            yield show


def _heading(name: str) -> Column:
    return Column(name, overflow="fold")


def _cell(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_reports(speaker: Speaker, reports: list[TableReport]) -> None:
    """Every row of every table accounted for, then what was quarantined and why."""
    speaker.table(
        "Ingested",
        ("table", "read", "accepted", "duplicate", "quarantined", "from", "to"),
        [
            (
                r.table,
                r.read,
                r.accepted,
                r.duplicate,
                sum(r.quarantined.values()),
                r.first[:10] or "-",
                r.last[:10] or "-",
            )
            for r in reports
        ],
    )
    for report in reports:
        for name, counts in report.values.items():
            listed = ", ".join(f"{value} {count:,}" for value, count in counts.items())
            speaker.say(f"{report.table}.{name}: {listed}") if listed else None
        for reason, count in report.quarantined.items():
            speaker.say(f"{report.table}: {count:,} rows quarantined: {reason}")


def show_rows(speaker: Speaker, title: str, rows: list[Row]) -> None:
    """An evaluation table, a line per model and metric."""
    speaker.table(
        title,
        ("model", "split", "segment", "metric", "value", "95 % low", "high", "n"),
        [(r.model, r.split, r.segment, r.metric, r.value, r.low, r.high, r.n) for r in rows],
    )
