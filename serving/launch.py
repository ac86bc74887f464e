"""How the service is started: the command, its environment, and what the service reads from it."""

import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

from features.errors import UserError
from serving.keys import REQUIRED, SCOPES, Keys

STOP_S = 5


def command(host: str, port: int, workers: int) -> list[str]:
    """The command that serves on an IP address and port until SIGTERM or SIGINT; run it in ``environment``."""
    root = Path(__file__).parent.parent
    return [
        *(sys.executable, "-m", "bentoml", "serve", "serving.service:Shopkeeper", "--working-dir", str(root)),
        *("--host", host, "--port", str(port), "--arg", f"workers={workers}"),
        *("--timeout-graceful-shutdown", str(STOP_S)),
    ]


def require_free(host: str, port: int) -> None:
    """Raises UserError when this address cannot be bound, with the reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"{host} port {port} cannot be bound ({error.strerror}); choose another") from error


def is_open_to_others(host: str) -> bool:
    """Whether others than this machine reach what is bound to an IP address."""
    return not ip_address(host).is_loopback


def require_keys(host: str, shop: str, keys: Keys) -> None:
    """Raises UserError when others could ask and there is no key."""
    if is_open_to_others(host) and not keys.kept():
        raise UserError(
            f"{host} is open to others and {shop} has no API keys: make one with `shopkeeper keys add NAME "
            f"--shop {shop} --scopes {','.join(SCOPES)}`, or bind 127.0.0.1"
        )


def environment(shop: str, home: Path, host: str = "127.0.0.1") -> dict[str, str]:
    """The environment of ``command``: this process's, the shop and its home, one linear algebra thread per worker."""
    return {
        **({REQUIRED: "1"} if is_open_to_others(host) else {}),
        **os.environ,
        "SHOPKEEPER_SHOP": shop,
        "SHOPKEEPER_HOME": str(home.absolute()),
        "BENTOML_HOME": str(home.absolute() / "bentoml" / shop),
        "BENTOML_DO_NOT_TRACK": "True",
        "OPENBLAS_NUM_THREADS": "1",
    }


def shop() -> str:
    """The shop to serve; raises UserError when SHOPKEEPER_SHOP is not set."""
    name = os.environ.get("SHOPKEEPER_SHOP", "")
    if not name:
        raise UserError("SHOPKEEPER_SHOP is not set; name the shop to serve, as in SHOPKEEPER_SHOP=mini")
    return name
