"""Tries a version before it serves, in a process of its own: what goes wrong there does no harm to what serves.

    python -m serving.trial TASK FOLDER < REQUESTS

Verifies checksums, replays the golden requests and asks what the version that serves was asked of late. The last line
of stdout is ``{"fault": "", "seconds": 0.3}``.
"""

import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from features.errors import UserError
from serving import models
from serving.artifact import ArtifactError, Json, Scorer
from serving.scorers import LOADERS

LONGEST_S = 300
"""A version that takes longer to be tried is none to serve."""
LESS_URGENT = 10
"""Than answering."""

_log = logging.getLogger(__name__)


class Trial(NamedTuple):
    """What a trial found.

    fault : why the version may not serve; "" where it may
    seconds : that loading took
    """

    fault: str
    seconds: float


def tried(task: str, folder: Path, requests: Iterable[Json]) -> Trial:
    """The trial of a version in a process of its own."""
    command = [sys.executable, "-m", "serving.trial", task, str(folder)]
    given = orjson.dumps(list(requests), default=str)
    root = Path(__file__).parent.parent
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=LONGEST_S, cwd=root, check=False)
    except subprocess.TimeoutExpired:
        return Trial(f"the trial took longer than {LONGEST_S} s", LONGEST_S)
    if done.returncode:
        _log.error("The trial of %s ended: %s", folder, done.stderr.decode(errors="replace"))
        return Trial(f"the process that tried it ended with {done.returncode}; the service's log has the reason", 0.0)
    return Trial(**orjson.loads(done.stdout.splitlines()[-1]))


def main(task: str, folder: Path, requests: Iterable[Json]) -> Trial:
    """The trial of a version in this process."""
    started = time.perf_counter()
    try:
        model = models.load(task, folder, LOADERS[task])
        seconds = time.perf_counter() - started
        _ask(model.scorer, requests)
    except ArtifactError as error:
        return Trial(str(error), 0.0)
    except Exception as error:
        _log.exception("%s failed its trial", folder)
        return Trial(f"it cannot be loaded: {error!r}", 0.0)
    return Trial("", seconds)


def _ask(scorer: Scorer, requests: Iterable[Json]) -> None:
    """Raises ArtifactError for an answer that fails or holds what is no number; a refusal in words is an answer."""
    for request in requests:
        try:
            answer = scorer.answer(request)
        except UserError:
            continue
        except Exception as error:
            raise ArtifactError(f"a request of late fails: {error!r}") from error
        if not _is_finite(answer):
            raise ArtifactError("the answer to a request of late holds a number that is none")


def _is_finite(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    if isinstance(value, np.ndarray):
        return bool(np.isfinite(value).all())
    return math.isfinite(value) if isinstance(value, float | np.floating) else True


if __name__ == "__main__":
    os.nice(LESS_URGENT)
    found = main(sys.argv[1], Path(sys.argv[2]), orjson.loads(sys.stdin.buffer.read()))
    print(orjson.dumps(found._asdict()).decode())
