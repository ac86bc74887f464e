"""Which version serves: a candidate must not be worse than the champion on the same windows."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from features.errors import UserError
from features.home import home
from features.lake import Lake
from features.shops import Shop
from serving import models
from serving.artifact import Artifact
from training import pipeline, tracking
from training.config import TASKS, Task
from training.device import Device
from training.evaluation import Row
from training.families import Family, family


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate now serves, with the measures that decided it.

    rows : the gate's metric for candidate and champion on the same windows; only the candidate's without a champion
    """

    task: Task
    candidate: str
    champion: str | None
    promoted: bool
    reason: str
    rows: list[Row]


def promote(shop: Shop, of: Family, device: Device, version: str | None = None) -> Decision:
    """Compare a version (absent: the newest) with the champion and let it serve unless it is worse.

    Both are judged by their configurations' backtests on the candidate's windows: the champion's is run again when its
    own was made on other data or other windows. Raises UserError when there is nothing to promote.
    """
    candidate = version or _newest(shop, of.task)
    artifact = tracking.artifact_of(shop, of.task, candidate)
    champion = tracking.champion(shop, of.task)
    if champion == candidate:
        return Decision(of.task, candidate, champion, False, "it is the champion already", _gate_rows(of, artifact))
    if champion is None:
        reason, rows, promoted = "there was no champion", _gate_rows(of, artifact), True
    else:
        rows = [
            *_named(f"candidate {candidate}", _gate_rows(of, artifact)),
            *_named(f"champion {champion}", _champion_rows(shop, of, artifact, champion, device)),
        ]
        promoted, reason = _judged(of, rows)
    if promoted:
        _let_serve(shop, of.task, candidate, artifact)
    return Decision(of.task, candidate, champion, promoted, reason, rows)


def rollback(shop: Shop, task: Task) -> tuple[str, str]:
    """Let the version serve that did before the champion; returns (version before, version now).

    Raises UserError when none did.
    """
    champion, previous = tracking.champion(shop, task), tracking.previous_champion(shop, task)
    if champion is None or previous is None or previous == champion:
        raise UserError(f"{shop.name}.{task} has no earlier champion to go back to: promote another version instead")
    _let_serve(shop, task, previous, tracking.artifact_of(shop, task, previous))
    return champion, previous


def publish_champions(shop: Shop) -> list[Task]:
    """Bring the registry's champions into the cache that the service reads; returns the tasks that have one."""
    found: list[Task] = []
    for task in TASKS:
        version = tracking.champion(shop, task)
        if version is not None:
            _publish(shop, task, version, tracking.artifact_of(shop, task, version))
            found.append(task)
    return found


def _newest(shop: Shop, task: Task) -> str:
    known = tracking.versions(shop, task)
    if not known:
        raise UserError(f"{shop.name}.{task} has no version: run `shopkeeper train {task} --shop {shop.name}` first")
    return known[-1]


def _gate_rows(of: Family, artifact: Artifact) -> list[Row]:
    rows = [Row(**row) for row in artifact.json("evaluation")["rows"]]
    return [row for row in rows if row.metric == of.gate and row.model == artifact.manifest["model"]]


def _champion_rows(shop: Shop, of: Family, candidate: Artifact, champion: str, device: Device) -> list[Row]:
    artifact = tracking.artifact_of(shop, of.task, champion)
    if _judged_on(artifact) == _judged_on(candidate):
        return _gate_rows(of, artifact)
    config = of.config.model_validate(artifact.manifest["config"])
    until = datetime.fromisoformat(candidate.manifest["window"]["until"])
    n_windows = candidate.json("evaluation")["n_windows"]
    rows = pipeline.backtest(Lake(shop).engine(), shop, of, config, device, until, n_windows)
    return [row for row in rows if row.metric == of.gate and row.model == artifact.manifest["model"]]


def _judged_on(artifact: Artifact) -> tuple[Any, ...]:
    manifest = artifact.manifest
    segments = [(row["segment"], row["n"]) for row in artifact.json("evaluation")["rows"]]
    return manifest["fingerprint"], manifest["window"]["until"], segments


def _named(name: str, rows: list[Row]) -> list[Row]:
    return [replace(row, model=name) for row in rows]


def _judged(of: Family, rows: list[Row]) -> tuple[bool, str]:
    half = len(rows) // 2
    candidate = sum(row.value for row in rows[:half]) / half
    champion = sum(row.value for row in rows[half:]) / half
    worse = candidate < champion if of.higher_is_better else candidate > champion
    sign = "worse than" if worse else "equal to" if candidate == champion else "better than"
    return not worse, f"{of.gate} {candidate:.5f} is {sign} the champion's {champion:.5f}"


def _let_serve(shop: Shop, task: Task, version: str, artifact: Artifact) -> None:
    _publish(shop, task, version, artifact)
    tracking.point_alias(shop, task, version)


def _publish(shop: Shop, task: Task, version: str, artifact: Artifact) -> None:
    models.publish(home(), shop.name, task, version, artifact.folder)
    models.load(task, home() / "models" / f"{shop.name}.{task}" / version, family(task).load)
    models.point_champion(home(), shop.name, task, version)
