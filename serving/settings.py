"""The settings of the HTTP service, read from ``configs/serving.toml``."""

import tomllib
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, ValidationError

from features.errors import UserError

SERVING_TOML = Path(__file__).parent.parent / "configs" / "serving.toml"


class Settings(BaseModel):
    """How the service listens."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    host: IPvAnyAddress = IPv4Address("127.0.0.1")
    """Address to bind."""
    port: Annotated[int, Field(ge=1, le=65535)] = 3000
    """TCP port."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 65_536
    """Bytes of a request body at most; more gets 413."""
    requests_per_second: Annotated[float, Field(ge=0)] = 0
    """Requests of each key, or of all without keys, that a worker answers in a second; more get 429; 0: no limit."""


def read(path: Path = SERVING_TOML) -> Settings:
    """The settings in a TOML file.

    Raises UserError, naming the key, the value and what is allowed, when the file does not hold settings.
    """
    try:
        return Settings.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} cannot be read as TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = first["loc"][0]
        allowed = ", ".join(Settings.model_fields)
        raise UserError(
            f"{path}: {key} = {first['input']!r} is refused ({first['msg']}); the keys are {allowed}"
        ) from error
