"""The command line: each command calls the one function that does its work."""

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, cast

import pyarrow as pa
import typer

from features.contract import EVENT_NAMES
from features.errors import UserError
from features.funnel import STEPS, Funnel
from features.home import home
from features.ingest import ingest as ingest_shop
from features.lake import Lake
from features.periods import period_start
from features.shops import checked, load_shop, read_toml
from features.targets import RESPONSE, Target
from features.windows import before
from serving import keys, launch, settings
from serving.propensity import PropensityScorer
from training import (
    answers,
    customer_value,
    evaluation,
    key_commands,
    kpi_report,
    parallel,
    pipeline,
    plan_commands,
    promotion,
    tracking,
)
from training.audience import Audience
from training.config import Config, load_config, to_toml
from training.console import Speaker, show_overridden, show_reports, show_rows
from training.device import Choice, choose
from training.families import Family, family
from training.options import JsonOption, OutOption, ShopOption, instant

app = typer.Typer(
    help="What a visitor would like, whether they will buy, and how much to stock.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

TaskArgument = Annotated[str, typer.Argument(help="recommend, propensity or demand.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML; absent: configs/TASK/best.toml.")]
SetOption = Annotated[list[str], typer.Option("--set", help="Lay key=value over the configuration.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
UntilOption = Annotated[str, typer.Option("--until", help="First day not to be known; absent: the data's end.")]
WindowsOption = Annotated[int, typer.Option("--windows", min=1, max=520, help="How many windows to evaluate on.")]
VersionOption = Annotated[str, typer.Option("--version", help="Registered version; absent: see the command.")]


@app.command()
def ingest(shop: ShopOption, json: JsonOption = False) -> None:
    """Bring the shop's sources into its lake, every row accounted for."""
    speaker, found = Speaker(json), load_shop(shop)
    if found.notice:
        speaker.say(f"Notice of the data's owner: {found.notice}")
    with speaker.progress("ingest", len(found.tables)) as steps:
        reports = ingest_shop(found, steps)
    show_reports(speaker, reports)
    speaker.result({"tables": reports})


@app.command()
def kpis(
    shop: ShopOption,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for tables and plots.")] = None,
    steps: Annotated[str, typer.Option("--steps", help="Event names of the funnel.")] = ",".join(STEPS),
    window: Annotated[str, typer.Option("--window", help="session, or the days that a visitor may take.")] = "session",
    any_order: Annotated[bool, typer.Option("--any-order", help="Count each step on its own.")] = False,
    until: UntilOption = "",
    json: JsonOption = False,
) -> None:
    """The shop's numbers and their change, the funnel and its leaks, cohorts, and what brought the orders."""
    speaker, found, funnel = Speaker(json), load_shop(shop), _funnel(steps, window, any_order)
    if out is not None and out.is_file():
        raise UserError(f"--out {out} is a file: name a folder for the tables and plots")
    lake, as_of = Lake(found), instant(until) or datetime.now(UTC)
    whole_days = min(as_of, period_start(lake.after_last_event(), "day"))
    report = kpi_report.report(lake.engine(), found, as_of, whole_days, funnel)
    kpi_report.show(speaker, report)
    if out is not None:
        kpi_report.write(report, out)
        speaker.say(f"tables and plots are in {out}")
    speaker.result(report.content)


@app.command()
def train(
    task: TaskArgument,
    shop: ShopOption,
    config: ConfigOption = None,
    overrides: SetOption = [],  # noqa: B006
    until: UntilOption = "",
    device: DeviceOption = "auto",
    windows: WindowsOption = 1,
    json: JsonOption = False,
) -> None:
    """Judge a configuration on held-out windows, fit it on everything, register it as a version."""
    speaker, found, of = Speaker(json), load_shop(shop), family(task)
    chosen, on = _configured(of, config, overrides), choose(_device(device))
    speaker.say(f"device: {on.name} ({on.reason})")
    with speaker.progress(f"train {task}", 5) as steps:
        trained = pipeline.train(found, of, chosen, on, instant(until), windows, steps)
    show_rows(speaker, f"{found.name}.{task} version {trained.version}, held-out windows", trained.rows, of.gate)
    for name, why in trained.absent.items():
        speaker.say(f"without {name}: {why}")
    speaker.say(f"registered as {found.name}.{task} version {trained.version}")
    speaker.result({"version": trained.version, "rows": trained.rows, "absent": trained.absent})


@app.command()
def evaluate(
    task: TaskArgument,
    shop: ShopOption,
    config: ConfigOption = None,
    overrides: SetOption = [],  # noqa: B006
    split: Annotated[str, typer.Option("--split", help="time, leave_one_out or given.")] = "time",
    version: VersionOption = "",
    until: UntilOption = "",
    device: DeviceOption = "auto",
    windows: WindowsOption = 1,
    simulate: Annotated[bool, typer.Option("--simulate", help="What orders by the forecast would cost.")] = False,
    json: JsonOption = False,
) -> None:
    """Judge a configuration, or a version's, against the baselines on windows that it has not seen."""
    speaker, found, of = Speaker(json), load_shop(shop), family(task)
    chosen = _configuration_of(found.name, of, version) if version else _configured(of, config, overrides)
    lake, on, by = Lake(found), choose(_device(device)), _split(split)
    if simulate:
        rows = _simulated(lake, of, chosen, instant(until) or lake.end(), windows)
        show_rows(speaker, f"{found.name}: what orders would have cost", rows, "cost")
        speaker.result({"rows": rows})
        return
    end = instant(until) or pipeline.end(lake, by)
    of_split = pipeline.windows(lake.engine(), found, of, chosen, end, by, windows)
    rows = pipeline.evaluate(found, of, chosen, on, of_split, by)
    show_rows(speaker, f"{found.name}.{task}, {split} split", rows, of.gate)
    show_overridden(speaker, f"{found.name}.{task}, {split} split", rows)
    name = f"version {version}" if version else config.stem if config else "best"
    asked = [f"--split {split}" if split != "time" else "", *overrides, f"--until {until}" if until else ""]
    evaluation.keep(lake.folder, task, " ".join([name, *filter(None, asked)]), rows)
    speaker.result({"rows": rows})


def _simulated(lake: Lake, of: Family, config: Config, until: datetime, n_windows: int) -> list[evaluation.Row]:
    if of.task != "demand":
        raise UserError(f"--simulate replays orders by a demand forecast: evaluate demand instead of {of.task}")
    from training.demand import replay
    from training.demand.config import DemandConfig

    asked, shop = cast("DemandConfig", config), lake.shop
    return replay.replayed(lake.engine(), shop.demand_frequency, asked, until, n_windows, shop.country)


@app.command()
def tune(
    task: TaskArgument,
    shop: ShopOption,
    search: Annotated[
        Path | None, typer.Option("--search", help="TOML; absent: configs/TASK/best.search.toml.")
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="How many configurations to try now.")] = 20,
    out: Annotated[Path | None, typer.Option("--out", help="TOML to write; absent: beside the shop's lake.")] = None,
    split: Annotated[str, typer.Option("--split", help="time, leave_one_out or given.")] = "time",
    until: UntilOption = "",
    device: DeviceOption = "auto",
    windows: WindowsOption = 1,
    json: JsonOption = False,
) -> None:
    """Search a better configuration on windows before the one that will judge it; a later run goes on with it."""
    from training import tuning

    speaker, found, of, by = Speaker(json), load_shop(shop), family(task), _split(split)
    space, path = tuning.load_search(of.task, search)
    lake, base = Lake(found), load_config(of.config, of.task, path.parent / space.config, [])
    end = instant(until) or pipeline.end(lake, by)
    on = pipeline.tuning_windows(lake.engine(), found, of, base, end, by, windows)
    tell = lambda number, value, values: speaker.say(f"trial {number}: {space.metric} {value:.5f} with {values}")  # noqa: E731
    best = tuning.tune(found, of, space, path, on, by, choose(_device(device)), trials, tell)
    out = out or home() / found.name / f"{of.task}.toml"
    tuned = tuning.laid_over(of, path.parent / space.config, best)
    out.write_text(
        f"# Found by `shopkeeper tune {task} --shop {shop} --search {path}`.\n{to_toml(tuned.model_dump())}\n"
    )
    speaker.say(f"the best configuration is in {out}: try it with --config {out}")
    speaker.result({"best": best, "out": str(out)})


@app.command()
def promote(
    task: TaskArgument,
    shop: ShopOption,
    version: VersionOption = "",
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Let a version (absent: the newest) serve, unless it is worse than the champion; exit 3 when refused."""
    speaker, found, of = Speaker(json), load_shop(shop), family(task)
    decision = promotion.promote(found, of, choose(_device(device)), version or None)
    show_decision(speaker, decision)
    speaker.result(decision)
    if not decision.promoted and decision.champion != decision.candidate:
        raise typer.Exit(3)


def show_decision(speaker: Speaker, decision: promotion.Decision) -> None:
    name = f"{decision.task} version {decision.candidate}"
    show_rows(speaker, f"{name} at the gate", decision.rows, family(decision.task).gate)
    speaker.say(f"{name}: {'promoted' if decision.promoted else 'not promoted'}, {decision.reason}")


@app.command()
def rollback(task: TaskArgument, shop: ShopOption, json: JsonOption = False) -> None:
    """Let the version serve that did before the champion."""
    speaker, found = Speaker(json), load_shop(shop)
    before, now = promotion.rollback(found, family(task).task)
    speaker.say(f"{found.name}.{task}: version {now} serves again instead of {before}")
    speaker.result({"before": before, "now": now})


@app.command()
def monitor(shop: ShopOption, until: UntilOption = "", json: JsonOption = False) -> None:
    """Whether the propensity champion's features, calibration and rates still hold; exit 3 past a limit."""
    from training.propensity.config import PropensityConfig
    from training.propensity.monitor import monitor as monitored

    speaker, found, of = Speaker(json), load_shop(shop), family("propensity")
    model, lake = answers.champion(found, of), Lake(found)
    config = PropensityConfig.model_validate(model.manifest["config"])
    findings = monitored(cast("PropensityScorer", model.scorer), lake.engine(), config, instant(until) or lake.end())
    rows = [(each.target, each.measure, f"{each.value:.3f}", each.limit, "PAST" * each.is_past) for each in findings]
    speaker.table(
        f"{found.name}.propensity since {model.until:%Y-%m-%d}", ("target", "measure", "value", "limit", ""), rows
    )
    speaker.result({"findings": findings})
    if any(each.is_past for each in findings):
        raise typer.Exit(3)


@app.command()
def recommend(
    shop: ShopOption,
    out: OutOption,
    n: Annotated[int, typer.Option("--n", min=1, max=100, help="Items per user.")] = 10,
    json: JsonOption = False,
) -> None:
    """Write the champion's recommendations for every known user."""
    _batch(shop, "recommend", out, json, lambda scorer: answers.recommendations(scorer, n))


@app.command()
def score(
    shop: ShopOption,
    out: OutOption,
    target: Annotated[str, typer.Option("--target", help="What to score; absent: the first of customers.")] = "",
    top: Annotated[float, typer.Option("--top", min=0.0, max=1.0, help="Share of the likeliest.")] = 1.0,
    value: Annotated[float, typer.Option("--value", min=0.0, help="Money that the outcome is worth.")] = 0.0,
    cost: Annotated[float, typer.Option("--cost", min=0.0, help="Money that a touch costs; needs --value.")] = 0.0,
    holdout: Annotated[float, typer.Option("--holdout", min=0.0, max=1.0, help="Share to leave untouched.")] = 0.0,
    campaign: Annotated[str, typer.Option("--campaign", help="Its name draws who is left untouched.")] = "",
    json: JsonOption = False,
) -> None:
    """Write the champion's probability for everyone, for the likeliest, or for those worth more than a touch."""
    if cost and not value:
        raise UserError(f"--cost {cost} needs --value: say what the outcome is worth")
    if not top:
        raise UserError("--top 0 chooses nobody: give a share above 0, such as 0.1")
    cut = Audience(top, value, cost, holdout)
    _batch(shop, "propensity", out, json, lambda scorer: answers.probabilities(scorer, target, cut, campaign))


app.add_typer(plan_commands.app)
app.add_typer(key_commands.app, name="keys")


@app.command()
def customers(
    shop: ShopOption,
    out: OutOption,
    until: UntilOption = "",
    config: Annotated[
        Path, typer.Option("--config", help="TOML with discount and tiers.")
    ] = customer_value.CONFIGURATION,
    json: JsonOption = False,
) -> None:
    """Write what every customer was worth and promises, its segment and tier; judged on customers of earlier days."""
    speaker, found = Speaker(json), load_shop(shop)
    answers.require_format(out)
    chosen = checked(customer_value.CustomersConfig, read_toml(config), config)
    lake, season = Lake(found), customer_value.Season(found.monthly_sales)
    as_of = instant(until) or lake.end()
    past = before(lake.engine(), as_of)
    judged = customer_value.back_test(past, as_of, season)
    model = customer_value.fit(past, as_of, season)
    show_judged(speaker, found.name, judged)
    table = customer_value.customer_table(past, model, chosen)
    _write(table, out, speaker)
    speaker.result({"rows": table.num_rows, "out": str(out), "back_test": judged})


@app.command()
def uplift(
    shop: ShopOption,
    out: OutOption,
    event: Annotated[str, typer.Option("--event", help="What a touch shall bring about.")] = "purchase",
    horizon: Annotated[int, typer.Option("--horizon", min=1, max=364, help="Days within which it shall.")] = 28,
    until: UntilOption = "",
    json: JsonOption = False,
) -> None:
    """Write whom a campaign moves most, learnt from randomised campaigns and judged on the later ones."""
    from training.campaigns import campaigns
    from training.uplift import UpliftConfig

    speaker, found = Speaker(json), load_shop(shop)
    answers.require_format(out)
    target = Target(unit="touch", event=_one_of("--event", event, (*EVENT_NAMES, RESPONSE)), horizon_days=horizon)
    lake = Lake(found)
    learnt = campaigns(lake.engine(), instant(until) or lake.end(), target, UpliftConfig())
    show_rows(speaker, f"{found.name}: uplift of {event} within {horizon} days, later campaigns", learnt.rows, "qini")
    speaker.say(learnt.verdict)
    _write(learnt.audience, out, speaker)
    speaker.result({"rows": learnt.rows, "verdict": learnt.verdict, "out": str(out)})


def show_judged(speaker: Speaker, shop: str, judged: customer_value.Judged) -> None:
    title = f"{shop}: fitted before {judged.as_of:%Y-%m-%d}, judged on the {judged.days} days from then on"
    speaker.table(title, tuple(judged.rows[0]), [tuple(row.values()) for row in judged.rows])
    speaker.table("Tenths by predicted value", tuple(judged.deciles[0]), [tuple(r.values()) for r in judged.deciles])


@app.command()
def serve(
    shop: ShopOption,
    host: Annotated[str, typer.Option("--host", help="IP address to bind; absent: configs/serving.toml.")] = "",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: configs/serving.toml.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=0, help="0: configs/serving.toml.")] = 0,
) -> None:
    """Serve the champions over HTTP until it is stopped."""
    speaker, found, configured = Speaker(json=False), load_shop(shop), settings.read()
    host, port = host or str(configured.host), port or configured.port
    if not _is_ip_address(host):
        raise UserError(f"--host {host}: give an IP address such as 127.0.0.1, or 0.0.0.0 for every interface")
    launch.require_keys(host, found.name, keys.of(home(), found.name))
    launch.require_free(host, port)
    for task, missing in promotion.publish_champions(found).items():
        speaker.say(f"{found.name}.{task}: {missing or 'champion found'}")
    speaker.say(f"serving {found.name} on http://{host}:{port} (docs at /docs)")
    sys.stdout.flush()
    command = launch.command(host, port, workers or configured.workers)
    os.execvpe(command[0], command, launch.environment(found.name, home(), host))  # noqa: S606


@app.command()
def demo(json: JsonOption = False) -> None:
    """Everything on a real retailer's data: ingest, train, evaluate, promote, serve, ask."""
    from training.demo import run

    run(Speaker(json))


def _configured(of: Family, config: Path | None, overrides: list[str]) -> Config:
    return load_config(of.config, of.task, config, overrides)


def _configuration_of(shop: str, of: Family, version: str) -> Config:
    return of.config.model_validate(tracking.artifact_of(load_shop(shop), of.task, version).manifest["config"])


def _device(name: str) -> Choice:
    return cast("Choice", _one_of("--device", name, ("auto", "cpu", "cuda")))


def _split(name: str) -> pipeline.Split:
    return cast("pipeline.Split", _one_of("--split", name, ("time", "leave_one_out", "given")))


def _funnel(steps: str, window: str, any_order: bool) -> Funnel:
    if window != "session" and not window.isdecimal():
        raise UserError(f"--window {window}: write session or a number of days")
    return Funnel(tuple(steps.split(",")), None if window == "session" else int(window), not any_order)


def _is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _one_of(option: str, got: str, allowed: tuple[str, ...]) -> str:
    if got not in allowed:
        raise UserError(f"{option} {got}: it is one of {', '.join(allowed)}")
    return got


def _batch(shop: str, task: str, out: Path, json: bool, table: Callable[[Any], pa.Table]) -> None:
    speaker, found = Speaker(json), load_shop(shop)
    answers.require_format(out)
    model = answers.champion(found, family(task))
    answered = table(model.scorer)
    _write(answered.append_column("model_version", pa.repeat(model.version, answered.num_rows)), out, speaker)
    speaker.result({"rows": answered.num_rows, "out": str(out), "model_version": model.version})


def _write(table: pa.Table, out: Path, speaker: Speaker) -> None:
    answers.write(table, out)
    speaker.say(f"{table.num_rows:,} rows in {out}")


def main() -> None:
    """Run a command; a user's mistake is one sentence on stderr and exit status 2."""
    try:
        parallel.run(app)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}: check the path and its permissions\n")
        sys.exit(2)
