"""Runs and versions in MLflow: a local SQLite store by default, a server by ``MLFLOW_TRACKING_URI``.

A registered version of ``SHOP.TASK`` holds exactly one artifact folder; the alias ``champion`` says which one serves.
"""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from features.errors import UserError
from features.home import ROOT, home
from features.shops import Shop
from serving.artifact import Artifact, verified
from training.config import Config, Task, flat
from training.device import Device
from training.evaluation import Row, averaged

CHAMPION = "champion"
PREVIOUS = "previous_champion"


def store() -> str:
    """Where runs are tracked, as MLflow writes it."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home()}/mlflow.db"


def _client() -> Any:  # noqa: ANN401
    """MLflow's client; called before anything else of MLflow, which reads its environment when it is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # A new SQLite store makes a folder for its default experiment, in the working directory unless told otherwise.
    os.environ.setdefault("_MLFLOW_SERVER_ARTIFACT_ROOT", str(home() / "mlflow"))
    import mlflow

    home().mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(store())
    return mlflow.MlflowClient()


def registered_name(shop: Shop, task: Task) -> str:
    return f"{shop.name}.{task}"


def record(
    shop: Shop,
    task: Task,
    artifact: Artifact,
    config: Config,
    rows: list[Row],
    fitted: dict[str, float],
    device: Device,
) -> str:
    """Track one run with its parameters, metrics, data window and artifact; returns the run's id."""
    client = _client()
    from mlflow.entities import Metric, Param

    run = client.create_run(_experiment(client, shop, task), tags=_tags(artifact, device))
    now = int(time.time() * 1000)
    models = dict.fromkeys(row.model for row in rows)
    measured = {f"{model}.{metric}": value for model in models for metric, value in averaged(rows, model).items()}
    client.log_batch(
        run.info.run_id,
        params=[Param(name, str(value)) for name, value in flat(config).items()],
        metrics=[Metric(name, value, now, 0) for name, value in {**measured, **fitted}.items()],
    )
    client.log_artifacts(run.info.run_id, str(artifact.folder), "model")
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _experiment(client: Any, shop: Shop, task: Task) -> str:  # noqa: ANN401
    name = registered_name(shop, task)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = None if os.environ.get("MLFLOW_TRACKING_URI") else (home() / "mlflow" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=local))


def _tags(artifact: Artifact, device: Device) -> dict[str, str]:
    manifest = artifact.manifest
    return {
        "model": manifest["model"],
        "data_from": manifest["window"]["from"],
        "data_until": manifest["window"]["until"],
        "data_fingerprint": manifest["fingerprint"],
        "device": f"{device.name} ({device.reason})",
        "mlflow.source.git.commit": _git_commit(),
    }


def _git_commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "not a git checkout"


def register(shop: Shop, task: Task, run_id: str) -> str:
    """Make a run's artifact the next version of ``SHOP.TASK``; returns the version."""
    client = _client()
    name = registered_name(shop, task)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    return str(client.create_model_version(name, source=source, run_id=run_id).version)


def versions(shop: Shop, task: Task) -> list[str]:
    """The registered versions, oldest first."""
    found = _client().search_model_versions(f"name = '{registered_name(shop, task)}'")
    return sorted((str(version.version) for version in found), key=int)


def champion(shop: Shop, task: Task) -> str | None:
    """The version that the alias names, or None."""
    return _aliases(shop, task).get(CHAMPION)


def previous_champion(shop: Shop, task: Task) -> str | None:
    """The version that served before the champion, or None."""
    return _model_tags(shop, task).get(PREVIOUS)


def point_alias(shop: Shop, task: Task, version: str) -> None:
    """Make a version the champion and remember the one before it."""
    client, name = _client(), registered_name(shop, task)
    before = champion(shop, task)
    if before is not None and before != version:
        client.set_registered_model_tag(name, PREVIOUS, before)
    client.set_registered_model_alias(name, CHAMPION, version)


def _registered(shop: Shop, task: Task) -> Any:  # noqa: ANN401
    found = _client().search_registered_models(f"name = '{registered_name(shop, task)}'")
    return found[0] if found else None


def _aliases(shop: Shop, task: Task) -> dict[str, str]:
    model = _registered(shop, task)
    return {alias: str(version) for alias, version in model.aliases.items()} if model else {}


def _model_tags(shop: Shop, task: Task) -> dict[str, str]:
    model = _registered(shop, task)
    return dict(model.tags) if model else {}


def artifact_of(shop: Shop, task: Task, version: str) -> Artifact:
    """A version's artifact on this machine, its checksums found right.

    Raises UserError when there is no such version, naming those there are.
    """
    client = _client()
    import mlflow

    known = versions(shop, task)
    if version not in known:
        raise UserError(
            f"{registered_name(shop, task)} has no version {version}: "
            + (f"there are {', '.join(known)}" if known else "train it first")
        )
    source = client.get_model_version(registered_name(shop, task), version).source
    return verified(Path(mlflow.artifacts.download_artifacts(artifact_uri=source)))
