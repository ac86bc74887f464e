"""Planners' changes to forecasts: appended with who, when, why and what the model said then, and never rewritten.

A shop's folder ``overrides`` holds one Parquet file per batch, written under a hidden name and then renamed, so that
readers see all of a batch or nothing. The statistical forecast stays as it is; overrides are laid beside it.

``item_id, location_id``       the series; location null is all locations together
``date``                       first day of a period
``quantity``                   units, >= 0; null withdraws what was planned before
``made_at, made_by, reason``   when (UTC), who, why
``model_mean, model_version``  units that were forecast then, and the version that forecast them
"""

import uuid
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.home import home
from features.panels import Keys
from features.shops import Shop

SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("location_id", pa.string()),
        pa.field("date", pa.date32(), nullable=False),
        pa.field("quantity", pa.float64()),
        pa.field("made_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("made_by", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("model_mean", pa.float64(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
    ]
)
NONE: pa.Table = SCHEMA.empty_table()


def folder(shop: Shop) -> Path:
    """Where a shop's overrides lie."""
    return home() / shop.name / "overrides"


def append(folder: Path, batch: pa.Table) -> None:
    """Add a batch, columns as in ``SCHEMA``, at least one row; what was there stays as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{batch['made_at'][0].as_py():%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex}.parquet"
    staged = folder / f".{name}"
    pq.write_table(batch.cast(SCHEMA), staged)
    staged.rename(folder / name)


def standing(folder: Path, as_of: datetime) -> pa.Table:
    """The overrides that stand at an instant: of each series and period the latest made before it, unless withdrawn.

    Returns columns as in ``SCHEMA``, one row per series and period, no quantity null.
    """
    batches = [pq.read_table(path, schema=SCHEMA, partitioning=None) for path in sorted(folder.glob("[!.]*.parquet"))]
    made = pa.concat_tables([NONE, *batches]).filter(
        pc.field("made_at") < pa.scalar(as_of, SCHEMA.field("made_at").type)
    )
    made = made.sort_by("made_at")
    latest = {key: row for row, key in enumerate(zip(*_key_columns(made), strict=True))}
    return made.take(pa.array(latest.values(), pa.int64())).filter(pc.field("quantity").is_valid())


def rows_of(overrides: pa.Table, keys: Keys, dates: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """The row of each series and period, int64, shape (S, H); -1 where nobody planned.

    overrides : as from ``standing``
    dates : datetime64[D], shape (H,), first day of each period
    """
    series = {key: number for number, key in enumerate(keys)}
    steps = {day: step for step, day in enumerate(dates.astype(object))}
    found = np.full((len(keys), len(dates)), -1, np.int64)
    for row, (item_id, location_id, day) in enumerate(zip(*_key_columns(overrides), strict=True)):
        at = series.get((item_id, location_id or ""))
        if at is not None and day in steps:
            found[at, steps[day]] = row
    return found


def units_of(overrides: pa.Table, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """What was planned, float64, units, in the shape of ``rows``; NaN where they are -1."""
    units: NDArray[np.float64] = np.append(np.asarray(overrides["quantity"], np.float64), np.nan)[rows]
    return units


def scaled(units: NDArray[np.floating], planned: NDArray[np.float64]) -> NDArray[np.float32]:
    """Samples of demand times what makes their mean the planned one; certain where none of them has any demand.

    units : float, shape (n, n_samples), >= 0
    planned : float64, shape (n,), >= 0
    Returns float32, shape (n, n_samples), units.

    >>> scaled(np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([4.0, 5.0]))
    array([[2., 6.],
           [5., 5.]], dtype=float32)
    """
    mean = units.mean(axis=1, dtype=np.float64)
    times = np.divide(planned, mean, out=np.zeros_like(mean), where=mean > 0)
    moved = np.where(mean[:, None] > 0, units * times[:, None], planned[:, None])
    return np.asarray(moved, np.float32)


def _key_columns(overrides: pa.Table) -> list[list[object]]:
    return [overrides[name].to_pylist() for name in ("item_id", "location_id", "date")]
