"""The protocol of publications on the CDNOW data: 39 weeks to fit on, 39 to judge on, all customers or a tenth."""

from datetime import UTC, datetime

import numpy as np

from features.engine import Engine

AS_OF, END = datetime(1997, 10, 1, tzinfo=UTC), datetime(1998, 7, 1, tzinfo=UTC)
FIRST_DAY = np.datetime64("1997-01-01")
LINES = """
    select person_id, cast(event_timestamp as date) as day, round(quantity * price, 2) as dollars
    from known_events
    order by person_id, day, event_id
"""


def tenth(past: Engine) -> np.ndarray:
    """Which customers are in the systematic sample of 2,357, bool, shape (n_customers,), ordered by person.

    Every tenth by week of the first order, money after it until AS_OF (most first) and number. Money is the float total
    less the first order, as the sample was drawn: its rounding breaks ties. Source: Hardie, "Notes on the CDNOW Master
    Data Set", 2013.
    """
    lines = past.select(LINES, as_of=AS_OF)
    persons = lines["person_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    days, dollars = lines["day"].to_numpy().astype("datetime64[D]"), lines["dollars"].to_numpy()
    first = days[np.flatnonzero(np.diff(persons, prepend=-1))]
    at_first = np.bincount(persons, np.where(days == first[persons], dollars, 0.0))
    later = np.bincount(persons, dollars) - at_first
    chosen = np.zeros(len(first), bool)
    chosen[np.lexsort((-later, (first - FIRST_DAY).astype(int) // 7))[9::10]] = True
    return chosen
