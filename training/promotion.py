"""Which version serves: on the same windows a candidate must be as good by the gate and hold its own in the guards."""

from collections.abc import Mapping
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
from training.config import TASKS, Config, Task
from training.device import Device
from training.evaluation import Row, averaged, headline, recorded
from training.families import Family, Guard, family


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate now serves, with the measures that decided it.

    rows : the measures of candidate and champion on the same windows; only the candidate's without a champion
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
    question; a backtest that was made otherwise is run again. A measure that only one of them has, such as one that was
    not recorded yet, plays no part. A champion that cannot serve, because an earlier release wrote it or it is damaged,
    gives way. Raises UserError when there is nothing to promote.
    """
    candidate = version or _newest(shop, of.task)
    artifact = tracking.artifact_of(shop, of.task, candidate)
    champion = tracking.champion(shop, of.task)
    if champion == candidate:
        return Decision(of.task, candidate, champion, False, "it is the champion already", _gate_rows(of, artifact))
    if champion is None:
        decision = Decision(of.task, candidate, None, True, "there was no champion", _gate_rows(of, artifact))
    elif fault := _fault(shop, of.task, champion):
        reason = f"the champion cannot serve: {fault}"
        decision = Decision(of.task, candidate, champion, True, reason, _gate_rows(of, artifact))
    else:
        decision = _compared(shop, of, device, candidate, champion)
    if decision.promoted:
        _let_serve(shop, of.task, candidate, artifact)
    return decision


def _compared(shop: Shop, of: Family, device: Device, candidate: str, champion: str) -> Decision:
    versions = {f"candidate {candidate}": candidate, f"champion {champion}": champion}
    artifacts = {role: tracking.artifact_of(shop, of.task, version) for role, version in versions.items()}
    question = _question(of, artifacts[f"candidate {candidate}"])
    measured = {role: _rows_on(shop, of, device, artifact, question) for role, artifact in artifacts.items()}
    try:
        further = {role: _rows_at_gate(shop, of, artifact, question) for role, artifact in artifacts.items()}
        untold = ""
    except UserError as error:
        told = {row.metric for rows in measured.values() for row in rows}
        missing = ", ".join(guard.metric for guard in of.guards if guard.metric not in told)
        further, untold = {}, f"; {missing} not compared: {error}"
    rows = [replace(row, model=role) for role in versions for row in (*measured[role], *further.get(role, ()))]
    promoted, reason = judged(of, *(averaged(rows, role) for role in versions))
    return Decision(of.task, candidate, champion, promoted, reason + untold, rows)


def rollback(shop: Shop, task: Task) -> tuple[str, str]:
    """Let the version serve that did before the champion; returns (version before, version now).

    Raises UserError when none did.
    """
    champion, previous = tracking.champion(shop, task), tracking.previous_champion(shop, task)
    if champion is None or previous is None or previous == champion:
        raise UserError(f"{shop.name}.{task} has no earlier champion to go back to: promote another version instead")
    if fault := _fault(shop, task, previous):
        raise UserError(f"{shop.name}.{task} version {previous} cannot serve: {fault}")
    _let_serve(shop, task, previous, tracking.artifact_of(shop, task, previous))
    return champion, previous


def publish_champions(shop: Shop) -> dict[Task, str]:
    """Bring the registry's champions into the cache that the service reads.

    Returns what became of each task: "" when its champion is there, else why it is not.
    """
    return {task: _published(shop, task, tracking.champion(shop, task)) for task in TASKS}


def _fault(shop: Shop, task: Task, version: str) -> str:
    """Why a version's artifact cannot be read; "" where it can."""
    try:
        tracking.artifact_of(shop, task, version)
    except ArtifactError as error:
        return str(error)
    return ""


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
    measures = (of.gate, *(guard.metric for guard in of.guards))
    return [row for row in headline(rows) if row.metric in measures and row.model == artifact.manifest["model"]]


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
    """A version's measures for the question: as recorded, or by running its recipe again."""
    lake = Lake(shop)
    if _question(of, artifact) == question and lake.fingerprint() == question["fingerprint"]:
        return _gate_rows(of, artifact)
    config, until = _asked(of, artifact, question)
    rows = pipeline.backtest(lake.engine(), shop, of, config, device, until, question["n_windows"])
    return _of_gate(of, artifact, rows)


def _rows_at_gate(shop: Shop, of: Family, artifact: Artifact, question: Json) -> list[Row]:
    return of.at_gate(Lake(shop).engine(), shop, *_asked(of, artifact, question))


def _asked(of: Family, artifact: Artifact, question: Json) -> tuple[Config, datetime]:
    """The configuration with which a version answers the question, and the first instant that it may not know."""
    recipe = of.recipe(artifact.manifest["config"], {key: question[key] for key in of.judged_by})
    return of.config.model_validate(recipe), datetime.fromisoformat(question["until"])


def judged(of: Family, candidate: Mapping[str, float], champion: Mapping[str, float]) -> tuple[bool, str]:
    """Whether a candidate may serve by its measures, and the sentence: which decided, or which it failed in.

    candidate, champion : each measure's mean over the windows; the gate, and of the guards those that both have
    """
    gate = Guard(of.gate, 0.0, higher_is_better=of.higher_is_better)
    decisive = [gate, *(guard for guard in of.guards if guard.metric in candidate and guard.metric in champion)]
    pairs = [(guard, candidate[guard.metric], champion[guard.metric]) for guard in decisive]
    failed = [pair for pair in pairs if not pair[0].allows(*pair[1:])]
    return not failed, ", ".join(_sentence(*pair) for pair in failed or pairs)


def _sentence(guard: Guard, candidate: float, champion: float) -> str:
    if not (isfinite(candidate) and isfinite(champion)):
        return f"{guard.metric} cannot be compared: {candidate} against the champion's {champion}"
    worse = candidate < champion if guard.higher_is_better else candidate > champion
    sign = "worse than" if worse else "equal to" if candidate == champion else "better than"
    within = "no more" if guard.allows(candidate, champion) else "more"
    tolerance = f"{guard.tolerance:.0%}" if guard.relative else f"{guard.tolerance:g}"
    by = f" by {within} than {tolerance}" if worse and guard.tolerance else ""
    return f"{guard.metric} {_number(candidate)} is {sign} the champion's {_number(champion)}{by}"


def _number(value: float) -> str:
    return f"{value:.5f}" if abs(value) < 100 else f"{value:,.2f}"


def _let_serve(shop: Shop, task: Task, version: str, artifact: Artifact) -> None:
    _publish(shop, task, version, artifact)
    tracking.point_alias(shop, task, version)


def _publish(shop: Shop, task: Task, version: str, artifact: Artifact) -> None:
    models.publish(home(), shop.name, task, version, artifact.folder)
    models.load(task, home() / "models" / f"{shop.name}.{task}" / version, family(task).load)
    models.point_champion(home(), shop.name, task, version)
