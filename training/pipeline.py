"""From a lake to a registered version: backtest, fit, export, track, register.

The configuration is first judged on windows that it did not see, then fitted on everything known; the version carries
that judgement, so what is promoted is both fresh and measured. An interruption at any step leaves nothing that loads:
artifacts are whole only with their manifest, versions exist only once registered.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from features.engine import Engine
from features.errors import UserError
from features.ingest import items_as_of
from features.lake import Lake
from features.shops import Shop
from features.windows import Window, for_tuning, given, leave_one_out, rolling, time_window
from serving.artifact import Artifact, Draft, Json
from training import tracking
from training.config import Config
from training.device import Device
from training.evaluation import Row, averaged
from training.families import Family, Model

Split = Literal["time", "leave_one_out", "given"]
Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """A registered version, how it was judged, and what it had to do without, with why."""

    version: str
    rows: list[Row]
    absent: Mapping[str, str]


def train(
    shop: Shop,
    family: Family,
    config: Config,
    device: Device,
    until: datetime | None = None,
    n_windows: int = 1,
    announce: Announce = lambda _: None,
) -> Trained:
    """Judge the configuration on the last windows before ``until``, fit it on all before ``until``, register it.

    until : first instant not to be known; absent: the end of the lake
    announce : called with each step's name before it starts
    """
    lake = Lake(shop)
    until = until or lake.end()
    engine, fingerprint = lake.engine(), lake.fingerprint()
    announce("backtest")
    rows = backtest(engine, shop, family, config, device, until, n_windows)
    announce("fit")
    model = fit(engine, shop, family, config, device, until)
    drafts = lake.folder / "artifacts"
    drafts.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=drafts, prefix=f"{family.task}-") as folder:
        announce("export")
        description = _description(engine, shop, config, until) | {
            "fingerprint": fingerprint,
            "items_as_of": items_as_of(lake).isoformat(),
        }
        artifact = export(Path(folder) / "artifact", family, model, rows, n_windows, description)
        announce("track")
        run_id = tracking.record(shop, family.task, artifact, config, rows, model.metrics, device)
        announce("register")
        version = tracking.register(shop, family.task, run_id)
    return Trained(version, rows, family.absent(model))


def backtest(
    engine: Engine, shop: Shop, family: Family, config: Config, device: Device, until: datetime, n_windows: int
) -> list[Row]:
    """Rows of the model and its baselines on the last ``n_windows`` windows before ``until``, each fitted anew."""
    return evaluate(
        shop, family, config, device, windows(engine, shop, family, config, until, "time", n_windows), "time"
    )


def windows(
    engine: Engine, shop: Shop, family: Family, config: Config, until: datetime, split: Split, n_windows: int
) -> list[Window]:
    """The windows of a split, oldest first.

    Raises UserError when the split does not fit the task or the shop's events lack the column it needs.
    """
    if split == "time":
        return list(rolling(engine, until, family.length(shop, config), n_windows))
    if family.task != "recommend":
        raise UserError(f"--split {split} is for recommend; {family.task} is evaluated with --split time")
    if split == "given" and "split" not in engine.select("select * from events limit 0").column_names:
        raise UserError("--split given needs a column `split` (train, valid, test) in events: add it or use time")
    return [leave_one_out(engine, until) if split == "leave_one_out" else given(engine, until)]


def tuning_windows(
    engine: Engine, shop: Shop, family: Family, config: Config, until: datetime, split: Split, n_windows: int
) -> list[Window]:
    """Windows to choose settings on: before the one that will judge, or what a published protocol holds out for it."""
    if split == "time":
        return windows(engine, shop, family, config, family.length(shop, config).after(until, -1), split, n_windows)
    return [for_tuning(window) for window in windows(engine, shop, family, config, until, split, n_windows)]


def end(lake: Lake, split: Split) -> datetime:
    """The first instant not to be known when none is named.

    Windows of time end with the last whole period. The other splits take every event: their sequences may come without
    clock times, with all that happened crowded into one unfinished period.
    """
    return lake.end() if split == "time" else lake.after_last_event()


def evaluate(shop: Shop, family: Family, config: Config, device: Device, of: list[Window], split: Split) -> list[Row]:
    """Fit on each window's past and judge the exported artifact, with the code that will answer, on its truth."""
    rows: list[Row] = []
    for window in of:
        with TemporaryDirectory() as folder:
            draft = Draft(Path(folder) / "artifact")
            family.fit(window, shop, config, device).export(draft)
            scorer = family.load(Artifact(draft.folder))
            judged = family.evaluate(scorer, window, shop, config, split)
        rows += judged if len(of) == 1 else [replace(row, segment=f"{window.name} {row.segment}") for row in judged]
    return rows


def fit(engine: Engine, shop: Shop, family: Family, config: Config, device: Device, until: datetime) -> Model:
    """The model fitted on everything known before ``until`` and on what is already planned."""
    return family.fit(time_window(engine, until, family.length(shop, config).after(until)), shop, config, device)


def export(folder: Path, family: Family, model: Model, rows: list[Row], n_windows: int, description: Json) -> Artifact:
    """Write the artifact; it becomes whole with its manifest, the last file."""
    draft = Draft(folder)
    model.export(draft)
    draft.golden(family.load, model.golden_requests())
    draft.json("evaluation", {"n_windows": n_windows, "rows": rows})
    return draft.seal({"task": family.task, "model": model.name, "metrics": averaged(rows, model.name), **description})


def _description(engine: Engine, shop: Shop, config: Config, until: datetime) -> Json:
    first = engine.select(
        "select coalesce(min(event_timestamp), (select cast(min(date) as timestamp) from demand)) as first from events"
    )["first"][0]
    return {
        "shop": shop.name,
        "config": config.model_dump(mode="json"),
        "window": {"from": first.as_py().replace(tzinfo=UTC).isoformat(), "until": until.isoformat()},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
