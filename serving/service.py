"""The BentoML service: BentoML runs workers and their lifecycle, ``serving.app`` answers every request.

BentoML's own ``/livez``, ``/readyz`` and ``/`` come before mounted applications, so ours stands before them as
middleware. ``serving.launch`` has the command that starts it.
"""

import gc
from collections.abc import Mapping
from typing import Annotated, Any

import bentoml
from bentoml.exceptions import BentoMLConfigException
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from features.errors import UserError
from features.home import home
from serving import app, launch, settings
from serving.models import Serving, load_champions
from serving.scorers import LOADERS
from serving.swap import Watcher

TIMEOUT_S = 2

_APPLICATION = "application"


class Arguments(BaseModel):
    """What ``bentoml serve --arg`` sets."""

    workers: Annotated[int, Field(ge=1)] = 1


class Front:
    """ASGI: HTTP goes to our application, which the instance puts into the state; the rest goes to BentoML's."""

    def __init__(self, app: ASGIApp, state: Mapping[str, Any]) -> None:
        self._bentoml = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._state[_APPLICATION] if scope["type"] == "http" else self._bentoml
        await app(scope, receive, send)


class Instance:
    """One worker: the champions of the shop, loaded when the worker starts and exchanged when others are promoted."""

    def __init__(self) -> None:
        serving = Serving(load_champions(home(), launch.shop(), LOADERS))
        Shopkeeper.context.state[_APPLICATION] = app.build(serving, settings.read())
        gc.collect()
        gc.freeze()
        Watcher(serving, home(), LOADERS).start()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Runs once before the workers start: a mistake is told once, and nothing starts."""
        try:
            launch.shop()
            settings.read()
        except UserError as error:
            raise BentoMLConfigException(str(error)) from error


Shopkeeper = bentoml.service(
    name="Shopkeeper",
    description="What a visitor would like, whether they will buy, and how much to stock.",
    workers=bentoml.use_arguments(Arguments).workers,
    traffic={"timeout": TIMEOUT_S},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)(Instance)
Shopkeeper.add_asgi_middleware(Front, state=Shopkeeper.context.state)
