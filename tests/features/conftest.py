"""What was in stock in the tiny shop."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from features import contract
from features.engine import empty


@pytest.fixture(scope="session")
def stock() -> pa.Table:
    """Some days' stock of every item but i5, at a place with and one without a name, sometimes not counted."""
    rng = np.random.default_rng(2)
    rows = [
        {
            "item_id": item,
            "location_id": place,
            "date": date(2023, 12, 20) + timedelta(days=int(day)),
            "on_hand": float(rng.integers(50)) if rng.random() < 0.8 else None,
        }
        for item in ("i0", "i1", "i2", "i3", "i4", "i6")
        for place in ("north", None)
        for day in rng.choice(140, 25, replace=False)
    ]
    return pa.Table.from_pylist(rows, schema=empty(contract.STOCK).schema)
