"""The planner's commands: what will sell, what the planner knows better, what to order."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, cast

import pyarrow as pa
import pyarrow.compute as pc
import typer

from features import overrides
from features.errors import UserError
from features.home import home
from features.lake import Lake
from features.shops import load_shop
from serving import orders
from serving.demand import Forecaster
from serving.models import ServedModel
from training import answers
from training.console import Speaker
from training.demand import plan_sheet
from training.demand.forecasts import Forecast, computed, long, stored, wide
from training.demand.ordering import order_list
from training.families import family
from training.options import JsonOption, OutOption, ShopOption, instant

app = typer.Typer()

AgainOption = Annotated[
    str, typer.Option("--as-of", help="First day not yet known, to forecast again from; absent: as it was trained.")
]


@app.command()
def forecast(
    shop: ShopOption,
    out: OutOption,
    as_of: AgainOption = "",
    horizon: Annotated[int | None, typer.Option("--horizon", min=1, help="Periods; absent: the model's.")] = None,
    quantiles: Annotated[str, typer.Option("--quantiles", help="Such as 0.5,0.9; absent: the model's.")] = "",
    json: JsonOption = False,
) -> None:
    """Write the champion's quantiles for every item and period: long as Parquet, wide as CSV, overrides beside them."""
    speaker, lake = Speaker(json), Lake(load_shop(shop))
    answers.require_format(out)
    asked, since = _quantiles(quantiles), _since(as_of, lake)
    model = answers.champion(lake.shop, family("demand"))
    found = _forecast(model, lake, since)
    found = found.of_first(horizon or found.horizon).of_quantiles(asked or found.quantiles)
    standing = _standing(lake)
    table = (long if out.suffix == ".parquet" else wide)(found, standing, model.version)
    answers.write(table, out)
    speaker.say(f"{table.num_rows:,} rows in {out}")
    speaker.result({"rows": table.num_rows, "out": str(out), "model_version": model.version})


@app.command()
def override(
    shop: ShopOption,
    plan: Annotated[Path, typer.Option("--plan", help="CSV: item_id, location_id if any, date, quantity.")],
    by: Annotated[str, typer.Option("--by", help="Who plans.")],
    reason: Annotated[str, typer.Option("--reason", help="What the planner knows and the model does not.")],
    as_of: AgainOption = "",
    json: JsonOption = False,
) -> None:
    """Append a planner's units for items and periods beside the forecast; an empty quantity withdraws earlier ones."""
    speaker, lake = Speaker(json), Lake(load_shop(shop))
    by, reason = _said("--by", by), _said("--reason", reason)
    model = answers.champion(lake.shop, family("demand"))
    found = _forecast(model, lake, _since(as_of, lake))
    changes = plan_sheet.read(plan, found)
    added = plan_sheet.batch(changes, found, datetime.now(UTC), by, reason, model.version)
    overrides.append(overrides.folder(lake.shop), added)
    units = added.filter(pc.field("quantity").is_valid())
    planned, expected = (float(sum(units[name].to_pylist())) for name in ("quantity", "model_mean"))
    told = f"{units.num_rows:,} of them plan {planned:,.1f} units where the model expects {expected:,.1f}"
    speaker.say(f"{added.num_rows:,} overrides by {by}: {told}, {planned - expected:+,.1f}")
    speaker.result({"rows": added.num_rows, "planned": units.num_rows, "units": planned, "model_units": expected})


@app.command()
def reorder(
    shop: ShopOption,
    out: OutOption,
    as_of: Annotated[str, typer.Option("--as-of", help="First day not yet known; absent: after the data's end.")] = "",
    json: JsonOption = False,
) -> None:
    """Write what to order of every item that has terms of supply, most money at risk first, each with its reason."""
    speaker, lake = Speaker(json), Lake(load_shop(shop))
    answers.require_format(out)
    model, morning = answers.champion(lake.shop, family("demand")), _since(as_of, lake) or lake.end()
    placed = order_list(cast("Forecaster", model.scorer), lake.engine(), morning, _standing(lake))
    table = placed.orders.append_column("as_of", pa.repeat(pa.scalar(morning.date()), placed.orders.num_rows))
    table = table.append_column("model_version", pa.repeat(model.version, table.num_rows))
    n_orders = table.filter(pc.field("order_quantity") > 0).num_rows
    speaker.say(f"{n_orders:,} of {table.num_rows:,} series need an order on {morning:%Y-%m-%d}")
    if placed.n_without_terms:
        speaker.say(f"{placed.n_without_terms:,} more are forecast but `supply` does not say how they are ordered")
    answers.write(table, orders.file_of(home(), lake.shop.name, morning.date()))
    answers.write(table, out)
    speaker.say(f"{table.num_rows:,} rows in {out}")
    speaker.result({"rows": table.num_rows, "orders": n_orders, "without_terms": placed.n_without_terms})


def _forecast(model: ServedModel, lake: Lake, as_of: datetime | None) -> Forecast:
    forecaster = cast("Forecaster", model.scorer)
    return stored(forecaster) if as_of is None else computed(forecaster, lake.engine(), as_of)


def _since(as_of: str, lake: Lake) -> datetime | None:
    """The first day not yet known, as asked for; raises UserError after the data's end: unknown is not unsold."""
    since = instant(as_of, "--as-of")
    if since is not None and since > lake.end():
        raise UserError(
            f"--as-of {as_of} lies after the data's end, {lake.end():%Y-%m-%d}: ingest what was sold until then, or "
            "choose an earlier day"
        )
    return since


def _standing(lake: Lake) -> pa.Table:
    """The overrides made so far, of whatever period: planners change what has just begun, too."""
    return overrides.standing(overrides.folder(lake.shop), datetime.now(UTC))


def _quantiles(text: str) -> Sequence[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise UserError(f"--quantiles {text}: write numbers with commas between them, such as 0.5,0.9") from error


def _said(option: str, text: str) -> str:
    if not text.strip():
        raise UserError(f"{option} is empty: say it, for whoever reads the override later")
    return text.strip()
