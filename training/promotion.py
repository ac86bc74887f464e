"""Which version serves: a candidate must not be worse than the champion on the same windows."""

from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite

from features.errors import UserError
from features.home import home
from features.lake import Lake
from features.shops import Shop
from serving import models
from serving.artifact import Artifact, ArtifactError, Json
from training import pipeline, tracking
from training.config import TASKS, Task
from training.device import Device
from training.evaluation import Row, headline, recorded
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

    Both are judged by their configurations' backtests on the same windows of the same data, answering the candidate's
    question; a backtest that was made otherwise is run again. Raises UserError when there is nothing to promote.
    """
    candidate = version or _newest(shop, of.task)
    artifact = tracking.artifact_of(shop, of.task, candidate)
    champion = tracking.champion(shop, of.task)
    if champion == candidate:
        return Decision(of.task, candidate, champion, False, "it is the champion already", _gate_rows(of, artifact))
    if champion is None:
        decision = Decision(of.task, candidate, None, True, "there was no champion", _gate_rows(of, artifact))
    else:
        decision = _compared(shop, of, device, candidate, champion)
    if decision.promoted:
        _let_serve(shop, of.task, candidate, artifact)
    return decision


def _compared(shop: Shop, of: Family, device: Device, candidate: str, champion: str) -> Decision:
    question = _question(of, tracking.artifact_of(shop, of.task, candidate))
    rows = [
        replace(row, model=f"{role} {version}")
        for role, version in (("candidate", candidate), ("champion", champion))
        for row in _rows_on(shop, of, device, tracking.artifact_of(shop, of.task, version), question)
    ]
    promoted, reason = _judged(of, rows)
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


def publish_champions(shop: Shop) -> dict[Task, str]:
    """Bring the registry's champions into the cache that the service reads.

    Returns what became of each task: "" when its champion is there, else why it is not.
    """
    return {task: _published(shop, task, tracking.champion(shop, task)) for task in TASKS}


def _published(shop: Shop, task: Task, version: str | None) -> str:
    if version is None:
        return "no champion was promoted"
    try:
        _publish(shop, task, version, tracking.artifact_of(shop, task, version))
    except ArtifactError as error:
        return str(error)
    return ""


def _newest(shop: Shop, task: Task) -> str:
    known = tracking.versions(shop, task)
    if not known:
        raise UserError(f"{shop.name}.{task} has no version: run `shopkeeper train {task} --shop {shop.name}` first")
    return known[-1]


def _gate_rows(of: Family, artifact: Artifact) -> list[Row]:
    rows = recorded(artifact.json("evaluation")["rows"])
    return _of_gate(of, artifact, rows)


def _of_gate(of: Family, artifact: Artifact, rows: list[Row]) -> list[Row]:
    return [row for row in headline(rows) if row.metric == of.gate and row.model == artifact.manifest["model"]]


def _question(of: Family, artifact: Artifact) -> Json:
    """What a version's backtest answered: on which data, until when, over how many windows, for whom."""
    manifest = artifact.manifest
    return {
        "fingerprint": manifest["fingerprint"],
        "until": manifest["window"]["until"],
        "n_windows": artifact.json("evaluation")["n_windows"],
        **{key: manifest["config"][key] for key in of.judged_by},
    }


def _rows_on(shop: Shop, of: Family, device: Device, artifact: Artifact, question: Json) -> list[Row]:
    """A version's gate metric for the question: as recorded, or by running its recipe again."""
    lake = Lake(shop)
    if _question(of, artifact) == question and lake.fingerprint() == question["fingerprint"]:
        return _gate_rows(of, artifact)
    recipe = of.recipe(artifact.manifest["config"], {key: question[key] for key in of.judged_by})
    config, until = of.config.model_validate(recipe), datetime.fromisoformat(question["until"])
    rows = pipeline.backtest(lake.engine(), shop, of, config, device, until, question["n_windows"])
    return _of_gate(of, artifact, rows)


def _judged(of: Family, rows: list[Row]) -> tuple[bool, str]:
    half = len(rows) // 2
    candidate = sum(row.value for row in rows[:half]) / half
    champion = sum(row.value for row in rows[half:]) / half
    if not (isfinite(candidate) and isfinite(champion)):
        return False, f"{of.gate} cannot be compared: {candidate} against the champion's {champion}"
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
