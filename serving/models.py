"""The model cache: what the service answers from, on disk and in memory.

``HOME/models/SHOP.TASK/VERSION/`` is an artifact, ``HOME/models/SHOP.TASK/champion`` a link to the VERSION that was
promoted last. It serves unless ``HOME/models/SHOP.TASK/verdict.json`` says that it failed when it was tried.
"""

import logging
import shutil
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from features.errors import UserError
from serving.artifact import MANIFEST, Artifact, ArtifactError, Json, Scorer, replay, verified
from serving.scorers import Loader
from serving.verdicts import Asked, Verdict

CHAMPION = "champion"
N_RECENT = 32
"""Requests that are remembered to try the next version with."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A champion whose checksums and golden answers were found right.

    created_at : when it was trained, UTC.
    until : first instant after the data that it was trained on, UTC.
    items_as_of : when the items that it knows were exported by the shop, UTC; what is put later counts
    recent : the requests that were answered last.
    """

    task: str
    version: str
    manifest: Json
    scorer: Scorer
    created_at: datetime
    until: datetime
    items_as_of: datetime
    recent: deque[Json] = field(default_factory=lambda: deque(maxlen=N_RECENT), compare=False)

    def answer(self, request: Json) -> Json:
        answer = self.scorer.answer(request)
        self.recent.append(request)
        return answer

    @property
    def age_s(self) -> int:
        return _seconds_since(self.created_at)

    @property
    def staleness_s(self) -> int:
        return _seconds_since(self.until)


@dataclass(frozen=True, slots=True)
class Models:
    """The champions of one shop by task, and for every other task the reason why it is absent.

    refused : by task, the version that was promoted last and why it does not serve
    """

    shop: str
    served: Mapping[str, ServedModel] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, Verdict] = field(default_factory=dict)

    def having(self, model: ServedModel) -> Self:
        """These with a model in the place of its task's."""
        absent = {task: reason for task, reason in self.absent.items() if task != model.task}
        return replace(self, served={**self.served, model.task: model}, absent=absent)

    def judged(self, task: str, verdict: Verdict) -> Self:
        """These, and what was found of the version of a task that was promoted last."""
        others = {name: found for name, found in self.refused.items() if name != task}
        return replace(self, refused={**others, task: verdict} if verdict.fault else others)


class Serving:
    """The models that answer now. They are exchanged whole, so that no answer comes from two versions of one model."""

    def __init__(self, models: Models) -> None:
        self.models = models


def publish(home: Path, shop: str, task: str, version: str, source_folder: Path) -> Path:
    """Copy an artifact into the cache, whole or not at all; a version that is there whole already stays as it is.

    Returns the version's folder. Raises ArtifactError when the source is incomplete or altered.
    """
    target = folder_of(home, shop, task) / version
    if not _holds(target, Artifact(source_folder).manifest):
        staging = target.with_name(f".{version}.{uuid.uuid4().hex}")
        try:
            shutil.copytree(source_folder, staging)
            verified(staging)
            shutil.rmtree(target, ignore_errors=True)
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def point_champion(home: Path, shop: str, task: str, version: str) -> None:
    """Make a published version the one that serves; readers see the old or the new, never none.

    Raises UserError when the version was not published, naming those that were.
    """
    folder = folder_of(home, shop, task)
    if not (folder / version / MANIFEST).is_file():
        there = ", ".join(_versions(folder)) or "none"
        raise UserError(f"Version {version} of {shop}.{task} is not in {folder}; there: {there}")
    link = folder / f".{CHAMPION}.{uuid.uuid4().hex}"
    link.symlink_to(version)
    link.replace(folder / CHAMPION)


def champion(home: Path, shop: str, task: str) -> Path | None:
    """The folder of the version that serves, or None when none was ever promoted."""
    link = folder_of(home, shop, task) / CHAMPION
    return link.parent / link.readlink() if link.is_symlink() else None


def asked(home: Path, shop: str, task: str) -> Asked | None:
    """What was promoted last, or None when nothing ever was."""
    link = folder_of(home, shop, task) / CHAMPION
    return Asked(link.readlink().name, link.lstat().st_mtime_ns) if link.is_symlink() else None


def load_champions(home: Path, shop: str, loaders: Mapping[str, Loader]) -> Models:
    """Load the champion of every task: checksums verified, arrays memory-mapped, golden requests replayed.

    Where the version that was promoted last fails, that which served before it does. A task without either is absent,
    with the reason; the others serve all the same.
    """
    models = Models(shop)
    for task, loader in loaders.items():
        models = _with_champion(models, home, task, loader)
    return models


def _with_champion(models: Models, home: Path, task: str, loader: Loader) -> Models:
    promoted, folder = asked(home, models.shop, task), folder_of(home, models.shop, task)
    if promoted is None:
        reason = f"{models.shop} has no {task} champion in {home}; promote one with `shopkeeper promote {task}`"
        return replace(models, absent={**models.absent, task: reason})
    verdict = Verdict.read(folder) or Verdict(promoted)
    fault = verdict.fault if verdict.asked == promoted else ""
    before = [version for version in (verdict.serves, verdict.before) if version not in (None, promoted.version)]
    for version in [promoted.version, *before] if not fault else before:
        try:
            model = load(task, folder / str(version), loader)
        except Exception as error:
            fault = fault or _told(task, error)
            _log.exception("%s.%s version %s cannot be loaded", models.shop, task, version)
            continue
        found = verdict.on(promoted, fault, serves=model.version)
        _remember(found, folder)
        return models.having(model).judged(task, found)
    return replace(models, absent={**models.absent, task: fault})


def _remember(verdict: Verdict, folder: Path) -> None:
    try:
        if verdict != Verdict.read(folder):
            verdict.write(folder)
    except OSError:
        _log.exception("What was found of %s cannot be written; the next start finds it out again", folder)


def _told(task: str, error: Exception) -> str:
    return str(error) if isinstance(error, ArtifactError) else f"the {task} champion cannot be loaded: {error!r}"


def load(task: str, folder: Path, loader: Loader) -> ServedModel:
    """The model in an artifact folder, once its checksums and golden answers are found right.

    Raises ArtifactError when one is not, and whatever the loader raises.
    """
    verified(folder)
    model = load_tried(task, folder, loader)
    replay(Artifact(folder), model.scorer)
    return model


def load_tried(task: str, folder: Path, loader: Loader) -> ServedModel:
    """The model in an artifact folder that was found right before.

    Raises ArtifactError when it is of another task, and whatever the loader raises.
    """
    artifact = Artifact(folder)
    manifest = artifact.manifest
    if manifest["task"] != task:
        raise ArtifactError(f"{folder} holds a {manifest['task']} model, not {task}: promote the right one")
    return ServedModel(
        task,
        folder.name,
        manifest,
        loader(artifact),
        created_at=_instant(manifest["created_at"]),
        until=_instant(manifest["window"]["until"]),
        items_as_of=_instant(manifest["items_as_of"]),
    )


def folder_of(home: Path, shop: str, task: str) -> Path:
    """Where the versions of a task's model are."""
    return home / "models" / f"{shop}.{task}"


def _versions(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob(f"[!.]*/{MANIFEST}") if path.parent.name != CHAMPION)


def _holds(target: Path, manifest: Json) -> bool:
    try:
        return verified(target).manifest == manifest
    except (ArtifactError, ValueError):
        return False


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant


def _seconds_since(instant: datetime) -> int:
    return int((datetime.now(UTC) - instant).total_seconds())
