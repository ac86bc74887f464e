"""The model cache: what the service answers from, on disk and in memory.

``HOME/models/SHOP.TASK/VERSION/`` is an artifact, ``HOME/models/SHOP.TASK/champion`` a link to the VERSION that serves.
"""

import logging
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from features.errors import UserError
from serving.artifact import MANIFEST, Artifact, ArtifactError, Json, Scorer, replay, verified
from serving.scorers import Loader

CHAMPION = "champion"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A champion whose checksums and golden answers were found right.

    created_at : when it was trained, UTC.
    until : first instant after the data that it was trained on, UTC.
    """

    task: str
    version: str
    manifest: Json
    scorer: Scorer
    created_at: datetime
    until: datetime

    @property
    def age_s(self) -> int:
        return _seconds_since(self.created_at)

    @property
    def staleness_s(self) -> int:
        return _seconds_since(self.until)


@dataclass(frozen=True, slots=True)
class Models:
    """The champions of one shop by task, and for every other task the reason why it is absent."""

    shop: str
    served: Mapping[str, ServedModel] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


def publish(home: Path, shop: str, task: str, version: str, source_folder: Path) -> Path:
    """Copy an artifact into the cache, whole or not at all; a version that is there whole already stays as it is.

    Returns the version's folder. Raises ArtifactError when the source is incomplete or altered.
    """
    target = _folder(home, shop, task) / version
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
    folder = _folder(home, shop, task)
    if not (folder / version / MANIFEST).is_file():
        there = ", ".join(_versions(folder)) or "none"
        raise UserError(f"Version {version} of {shop}.{task} is not in {folder}; there: {there}")
    link = folder / f".{CHAMPION}.{uuid.uuid4().hex}"
    link.symlink_to(version)
    link.replace(folder / CHAMPION)


def champion(home: Path, shop: str, task: str) -> Path | None:
    """The folder of the version that serves, or None when none was ever promoted."""
    link = _folder(home, shop, task) / CHAMPION
    return link.parent / link.readlink() if link.is_symlink() else None


def load_champions(home: Path, shop: str, loaders: Mapping[str, Loader]) -> Models:
    """Load the champion of every task: checksums verified, arrays memory-mapped, golden requests replayed.

    A task whose champion is missing or fails is absent, with the reason; the others serve all the same.
    """
    served: dict[str, ServedModel] = {}
    absent: dict[str, str] = {}
    for task, loader in loaders.items():
        try:
            served[task] = load(task, _promoted(home, shop, task), loader)
        except ArtifactError as error:
            absent[task] = str(error)
            _log.warning("No model of %s.%s: %s", shop, task, error)
        except Exception as error:
            absent[task] = f"the {task} champion cannot be loaded: {error!r}"
            _log.exception("No model of %s.%s", shop, task)
    return Models(shop, served, absent)


def load(task: str, folder: Path, loader: Loader) -> ServedModel:
    """The model in an artifact folder, once its checksums and golden answers are found right.

    Raises ArtifactError when one is not, and whatever the loader raises.
    """
    artifact = verified(folder)
    manifest = artifact.manifest
    if manifest["task"] != task:
        raise ArtifactError(f"{folder} holds a {manifest['task']} model, not {task}: promote the right one")
    scorer = loader(artifact)
    replay(artifact, scorer)
    created_at, until = _instant(manifest["created_at"]), _instant(manifest["window"]["until"])
    return ServedModel(task, folder.name, manifest, scorer, created_at, until)


def _folder(home: Path, shop: str, task: str) -> Path:
    return home / "models" / f"{shop}.{task}"


def _versions(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob(f"[!.]*/{MANIFEST}") if path.parent.name != CHAMPION)


def _promoted(home: Path, shop: str, task: str) -> Path:
    folder = champion(home, shop, task)
    if folder is None:
        raise ArtifactError(f"{shop} has no {task} champion in {home}; promote one with `shopkeeper promote {task}`")
    return folder


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
