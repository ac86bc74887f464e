"""The sequence tier: a transformer reads the last events of a history and names the direction of what comes next."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from features.histories import Histories, rectangles
from serving.tiers import Scores

EVENTS_AT_ONCE = 2**13
"""Events that one core encodes at a time."""


def batches(histories: Histories) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """What ``rectangles`` yields, at most ``EVENTS_AT_ONCE`` events or one history at a time."""
    for rectangle in rectangles(histories.starts[:-1], histories.lengths):
        n_rows = max(1, EVENTS_AT_ONCE // rectangle[1].shape[1])
        for start in range(0, len(rectangle[0]), n_rows):
            yield tuple(part[start : start + n_rows] for part in rectangle)


@dataclass(frozen=True)
class Sequence:
    """Cosine of a history's direction with each item's, over one or several models side by side.

    inputs : float32, shape (n_items, width): what the encoder reads for an event with an item
    kinds : float32, shape (n_kinds, width): added for the event's kind
    directions : float32, shape (n_items, width): unit vectors per model, divided by the temperature
    encoder : ONNX; ``events`` float32 (n, length, width) and ``last`` int64 (n,) -> ``direction`` float32 (n, width)
    max_length : last events that the encoder reads
    """

    reason: ClassVar[str] = "comes next after what was chosen before"
    inputs: Scores
    kinds: Scores
    directions: Scores
    encoder: bytes
    max_length: int

    def scores(self, histories: Histories) -> Scores:
        return self.encoded(histories) @ self.directions.T

    def encoded(self, histories: Histories) -> Scores:
        """The direction of each history, shape (n_users, width); zero for an empty one."""
        recent = histories.last(self.max_length)
        directions = np.zeros((recent.n_users, self.inputs.shape[1]), np.float32)
        session = self._session

        def encode(batch: tuple[NDArray[np.int64], ...]) -> None:
            users, events, last = batch
            read = self.inputs[recent.items[events]] + self.kinds[recent.kinds[events]]
            directions[users] = session.run(["direction"], {"events": read, "last": last})[0]

        all_batches = list(batches(recent))
        if len(all_batches) == 1:
            encode(*all_batches)
        else:
            with ThreadPoolExecutor(os.cpu_count()) as workers:
                list(workers.map(encode, all_batches))
        return directions

    @cached_property
    def _session(self) -> Any:  # noqa: ANN401
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(self.encoder, options, providers=["CPUExecutionProvider"])
