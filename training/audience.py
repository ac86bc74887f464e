"""Whom a campaign is for: the likeliest, or those worth more than a touch costs; some are held out to measure it."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Audience:
    """Who of a table of probabilities is chosen.

    top : share of rows, the likeliest, within (0, 1]
    value : money that the outcome is worth; 0: no cut by value
    cost : money that a touch costs
    holdout : share of the chosen who are marked not to be touched, so that the others can be compared with them
    """

    top: float = 1.0
    value: float = 0.0
    cost: float = 0.0
    holdout: float = 0.0

    def of(self, scored: pa.Table, salt: str) -> pa.Table:
        """The chosen rows, the likeliest first, with ``expected_value`` where there is a value, and ``held_out``.

        A customer is held out by a hash of salt and number: always the same of one salt, others of another.
        """
        chosen = scored.sort_by([("probability", "descending"), ("user_id", "ascending")])
        chosen = chosen.slice(0, int(np.ceil(round(self.top * chosen.num_rows, 9))))
        if self.value:
            worth = pc.subtract(pc.multiply(chosen["probability"], self.value), self.cost)
            chosen = chosen.append_column("expected_value", worth).filter(pc.field("expected_value") > 0)
        held_out = [_drawn(salt, user_id) < self.holdout for user_id in chosen["user_id"].to_pylist()]
        return chosen.append_column("held_out", pa.array(held_out, pa.bool_()))


def _drawn(salt: str, user_id: str) -> float:
    """A number in [0, 1) that is a customer's own."""
    digest = hashlib.sha256(f"{salt}\x1f{user_id}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
