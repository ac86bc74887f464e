"""The commands for API keys of the service."""

from typing import Annotated, cast

import typer

from features.errors import UserError
from features.home import home
from features.shops import load_shop
from serving import keys
from serving.keys import SCOPES, Keys, Scope
from training.console import Speaker
from training.options import JsonOption, ShopOption

app = typer.Typer(help="API keys of the service: add, list, remove.")

NameArgument = Annotated[str, typer.Argument(help="Whose key it is, such as web.")]


@app.command()
def add(
    name: NameArgument,
    shop: ShopOption,
    scopes: Annotated[str, typer.Option("--scopes", help=f"Of {', '.join(SCOPES)}, with commas.")],
    json: JsonOption = False,
) -> None:
    """Make a key and show it, once; the service asks for keys from the first one on."""
    speaker = Speaker(json)
    key = _keys(shop).add(name, _scopes(scopes))
    speaker.say(f"{key}\nKeep it: only its digest is stored. Send it as `Authorization: Bearer {key[:6]}...`.")
    speaker.result({"name": name, "key": key})


@app.command(name="list")
def list_(shop: ShopOption, json: JsonOption = False) -> None:
    """The keys that there are, and what they may ask."""
    speaker, kept = Speaker(json), _keys(shop).kept()
    rows = [(key.name, ", ".join(key.scopes), f"{key.created_at:%Y-%m-%d %H:%M}") for key in kept]
    speaker.table(
        f"API keys of {shop}" if rows else f"{shop} has no API keys", ("name", "scopes", "created (UTC)"), rows
    )
    speaker.result({"keys": [{"name": key.name, "scopes": list(key.scopes)} for key in kept]})


@app.command()
def remove(name: NameArgument, shop: ShopOption, json: JsonOption = False) -> None:
    """Refuse a key from now on."""
    speaker = Speaker(json)
    kept = _keys(shop)
    kept.remove(name)
    left = "" if kept.kept() else f"; none is left, so that nobody may ask: add one, or delete {kept.path} to let all"
    speaker.say(f"key {name} removed{left}")
    speaker.result({"name": name})


def _keys(shop: str) -> Keys:
    return keys.of(home(), load_shop(shop).name)


def _scopes(listed: str) -> list[Scope]:
    scopes = [scope.strip() for scope in listed.split(",")]
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        raise UserError(f"--scopes {listed}: no scope {unknown[0]!r}; allowed are {', '.join(SCOPES)}")
    return cast("list[Scope]", list(dict.fromkeys(scopes)))
