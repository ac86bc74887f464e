"""Lets a version that is promoted take over in every worker at the same moment, once it was found right.

Every worker looks what was promoted. One of them, whoever holds the lock, tries it in a process of its own and writes
the verdict; all load what the verdict names ahead of the moment that it names.
"""

import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from serving import models
from serving.artifact import Json
from serving.models import Serving
from serving.scorers import Loader
from serving.trial import Trial, tried
from serving.verdicts import Asked, Verdict

POLL_S = 0.2
LEAD_S = 1.0
"""Between a verdict and its moment at least, and twice what loading took: every worker has loaded by then."""
LONGEST_LEAD_S = 60.0
"""Whatever the clock says."""

_log = logging.getLogger(__name__)


class Watcher:
    """Keeps the models of one worker those that were promoted.

    try_out : from a task, the folder of its version and requests of late to what a trial found
    """

    def __init__(
        self,
        serving: Serving,
        home: Path,
        loaders: Mapping[str, Loader],
        try_out: Callable[[str, Path, Iterable[Json]], Trial] = tried,
    ) -> None:
        self._serving = serving
        self._home = home
        self._loaders = loaders
        self._try_out = try_out
        self._followed: dict[str, Verdict] = {}

    def start(self) -> None:
        threading.Thread(target=self._watch, name="swap", daemon=True).start()

    def look(self) -> None:
        """See what was promoted of each task: try it, or take it in once it was tried."""
        for task in self._loaders:
            asked = models.asked(self._home, self._serving.models.shop, task)
            if asked is None:
                continue
            verdict = Verdict.read(self._folder(task))
            if verdict is None or _is_news(asked, verdict):
                self._judge(task, asked)
            elif verdict != self._followed.get(task):
                self._follow(task, verdict)
                self._followed[task] = verdict

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_S)
            try:
                self.look()
            except Exception:
                _log.exception("What was promoted cannot be read; what served goes on serving")

    def _judge(self, task: str, asked: Asked) -> None:
        folder = self._folder(task)
        with _lock(folder / ".trial.lock") as is_held:
            known = Verdict.read(folder)
            if not is_held or not _is_news(asked, known):
                return
            verdict = known or Verdict(asked)
            served = self._serving.models.served.get(task)
            trial = self._try_out(task, folder / asked.version, list(served.recent) if served else [])
            serves = verdict.serves if trial.fault else asked.version
            since = time.time() + max(LEAD_S, 2 * trial.seconds)
            verdict.on(asked, trial.fault, serves, since).write(folder)

    def _follow(self, task: str, verdict: Verdict) -> None:
        now = self._serving.models.served.get(task)
        if verdict.serves is not None and (now is None or now.version != verdict.serves):
            try:
                model = models.load_tried(task, self._folder(task) / verdict.serves, self._loaders[task])
            except Exception as error:
                _log.exception("%s version %s was tried and yet cannot be loaded", task, verdict.serves)
                verdict = replace(verdict, fault=f"this worker cannot load what was tried: {error!r}")
            else:
                model.recent.extend(now.recent if now else [])
                time.sleep(min(max(0.0, verdict.since - time.time()), LONGEST_LEAD_S))
                self._serving.models = self._serving.models.having(model)
        self._serving.models = self._serving.models.judged(task, verdict)

    def _folder(self, task: str) -> Path:
        return models.folder_of(self._home, self._serving.models.shop, task)


def _is_news(asked: Asked, verdict: Verdict | None) -> bool:
    """Whether another version was promoted than the verdict is of, or one that failed was promoted again."""
    return verdict is None or asked.version != verdict.asked.version or bool(verdict.fault and asked != verdict.asked)


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether this process holds the lock; a process that dies lets go of it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
