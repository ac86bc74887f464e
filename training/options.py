"""Options that several commands have, and how their values are read."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from features.errors import UserError

ShopOption = Annotated[str, typer.Option("--shop", help="Name of a shop in configs/shops, or its TOML file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Make the last line of stdout one JSON object.")]
OutOption = Annotated[Path, typer.Option("--out", help="File to write, .parquet or .csv.")]


def instant(day: str, option: str = "--until") -> datetime | None:
    """Midnight (UTC) of a day that an option names; None when it names none.

    Raises UserError when it is no day from 1990 to 2099.
    """
    if not day:
        return None
    try:
        found = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise UserError(f"{option} {day}: write the day as in 2026-01-31") from error
    if not 1990 <= found.year < 2100:
        raise UserError(f"{option} {day}: choose a day from 1990 to 2099")
    return found
