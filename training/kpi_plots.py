"""Plots of the KPIs, readable in print and without colours."""

from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from features.funnel import Funnel, Passage
from features.kpis import Period

if TYPE_CHECKING:
    from training.kpi_report import Report

BLUE, INK, PALE, GREY = "#0072b2", "#333333", "#c6dbef", "#e5e5e5"
"""Okabe and Ito's blue, which every kind of colour vision tells from grey."""

READABLE_CELLS = 13
"""Heat maps with more columns show no numbers."""


def figures(found: "Report") -> Iterator[tuple[str, Figure]]:
    """Each plot that the shop has data for, with the name of its file."""
    name = found.shop.name
    if len(found.passage.steps) > 1:
        yield "funnel", funnel_figure(f"{name}: how far {found.funnel.unit} come", found.passage, found.funnel)
    if found.tables["weekly"].num_rows:
        yield "weekly", weekly_figure(f"{name}, week by week", found.tables["weekly"], found.shop.currency)
    for period in ("week", "month"):
        table = found.tables[f"cohorts_by_{period}"]
        if table.num_rows > 1:
            yield f"cohorts_by_{period}", cohort_figure(f"{name}: customers who buy again", table, period)


def funnel_figure(title: str, passage: Passage, funnel: Funnel) -> Figure:
    """A bar per step with its count, and between two bars the share that goes on."""
    rows = passage.table.to_pylist()
    figure = Figure(figsize=(8, 1.2 + 0.9 * len(rows)), layout="constrained")
    axes = figure.subplots()
    counts = [row["n"] for row in rows]
    axes.barh(range(len(rows)), counts, height=0.5, color=BLUE)
    for place, row in enumerate(rows):
        count = f"  {row['n']:,} ({row['from_first']:.1%})"
        axes.text(row["n"], place, count, va="center")
        if row["from_previous"] is not None:
            axes.text(0, place - 0.5, _went_on(row), va="center", color=INK, fontsize=9)
    axes.set_yticks(range(len(rows)), [row["event_name"] for row in rows])
    axes.set_xlim(0, 1.2 * max(counts))
    axes.invert_yaxis()
    axes.xaxis.set_visible(False)
    absent = f"\nno {', '.join(passage.absent)} in the log" if passage.absent else ""
    within = f" within {funnel.window_days} days" if funnel.window_days else ""
    order = "in order" if funnel.in_order else "each on its own"
    _titled(axes, title, f"{funnel.unit}, steps {order}{within}, share of the first step{absent}")
    _only(axes, "left")
    return figure


def _went_on(row: dict[str, Any]) -> str:
    return f"  \u2193 {row['from_previous']:.1%} go on (95 %: {row['low']:.1%} to {row['high']:.1%})"


def weekly_figure(title: str, weekly: pa.Table, currency: str) -> Figure:
    """Revenue and conversion with 95 % intervals; orders where every visit bought, so that conversion stands still."""
    says_nothing = pc.min(_of(weekly, "conversion_per_session")["value"]).as_py() == 1
    panels = (
        ("revenue", f"Revenue, {currency}", FuncFormatter(_short)),
        ("orders", "Orders", FuncFormatter(_short))
        if says_nothing
        else ("conversion_per_session", "Share of visits that buy", FuncFormatter(_percent)),
    )
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    for axes, (kpi, label, formatter) in zip(figure.subplots(2, sharex=True), panels, strict=True):
        _line(axes, _of(weekly, kpi), formatter)
        axes.set_title(label, loc="left", fontsize=10, color=INK)
    figure.suptitle(f"{title}; shaded: 95 % interval", x=0.01, ha="left", fontweight="bold")
    return figure


def _of(weekly: pa.Table, kpi: str) -> pa.Table:
    return weekly.filter(pc.equal(weekly["kpi"], kpi))


def _line(axes: Axes, rows: pa.Table, formatter: FuncFormatter) -> None:
    weeks, values = rows["week"].to_numpy(), _floats(rows["value"])
    axes.fill_between(weeks, _floats(rows["low"]), _floats(rows["high"]), color=PALE, linewidth=0)
    axes.plot(weeks, values, color=BLUE, marker=".", linewidth=1.5)
    axes.annotate(
        formatter(values[-1]), (weeks[-1], values[-1]), (8, 0), textcoords="offset points", va="center", color=BLUE
    )
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(formatter)
    axes.grid(axis="y", color=GREY)
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    _only(axes, "bottom")


def cohort_figure(title: str, cohorts: pa.Table, period: Period) -> Figure:
    """Rows are cohorts, columns periods after the first order; darker is more, grey is not yet known."""
    n = int(np.sqrt(cohorts.num_rows))
    shares = 100 * _floats(cohorts["share"]).reshape(n, n)[:-1, 1:]
    starts, sizes = (cohorts[name].to_pylist()[:-n:n] for name in ("cohort", "n_customers"))
    names = [_cohort_name(start, size, period) for start, size in zip(starts, sizes, strict=True)]
    readable = n <= READABLE_CELLS
    figure = Figure(figsize=(3 + 0.6 * max(min(n, 14), 4), 2 + 0.35 * max(min(n, 18), 4)), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor(GREY)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=_ceiling(shares), aspect="auto")
    if readable:
        _write_cells(axes, shares, image.get_clim()[1])
    every = 1 if readable else 4
    axes.set_yticks(range(0, n - 1, every), names[::every])
    axes.set_xticks(range(every - 1, n - 1, every), [str(age) for age in range(every, n, every)])
    axes.set_xlabel(f"{period}s after the first order")
    figure.colorbar(image, ax=axes, format=PercentFormatter(decimals=0), label=f"share ordering in that {period}")
    _titled(axes, title, f"by {period} of the first order (customers in brackets); grey: not yet known")
    return figure


def _ceiling(shares: np.ndarray[Any, Any]) -> float:
    known = shares[np.isfinite(shares)]
    return float(known.max()) if len(known) and known.max() > 0 else 1.0


def _write_cells(axes: Axes, shares: np.ndarray[Any, Any], darkest: float) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if np.isfinite(share):
            color = "white" if share > 0.55 * darkest else INK
            axes.text(column, row, f"{share:.0f} %", ha="center", va="center", fontsize=8, color=color)


def _cohort_name(start: date, size: int, period: Period) -> str:
    return f"{start:{'%Y-%m' if period == 'month' else '%Y-%m-%d'}} ({size:,})"


def _titled(axes: Axes, title: str, subtitle: str) -> None:
    axes.set_title(subtitle, loc="left", fontsize=9, color=INK)
    axes.figure.suptitle(title, x=0.01, ha="left", fontweight="bold")


def _only(axes: Axes, side: str) -> None:
    for name, spine in axes.spines.items():
        spine.set_visible(name == side)


def _short(value: float, _: int | None = None) -> str:
    if value >= 999_500:
        return f"{value / 1e6:.3g} M"
    return f"{value / 1e3:.3g} k" if value >= 1e3 else f"{value:.0f}"


def _percent(share: float, _: int | None = None) -> str:
    return f"{share:.1%}"


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    return np.asarray(column.to_numpy(), np.float64)
