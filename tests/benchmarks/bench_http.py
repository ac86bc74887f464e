"""Latency of POST /v1/recommendations beside a bare route of the same server, one keep-alive client, interleaved.

    python tests/benchmarks/bench_http.py --shop NAME [--requests 2000]

Asks what the champion's golden requests ask. The last line is one JSON object.
"""

import argparse
import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.home import home
from serving import launch
from serving.artifact import Artifact
from serving.models import champion

WARM_UP = 200


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--shop", required=True)
    asked.add_argument("--requests", type=int, default=2000)
    options = asked.parse_args()
    with server(options.shop, home()) as connection:
        seconds = interleaved(connection, bodies(options.shop, home()), options.requests + WARM_UP)
    report(np.array(seconds)[WARM_UP:] * 1000)


def bodies(shop: str, folder: Path) -> list[bytes]:
    """The golden requests of the champion as bodies; they leave out what is null."""
    found = champion(folder, shop, "recommend")
    if found is None:
        raise SystemExit(f"{shop} has no recommend champion in {folder}; run `shopkeeper promote recommend` first")
    requests = [case["request"] for case in Artifact(found).json("golden")]
    return [json.dumps({key: value for key, value in r.items() if value is not None}).encode() for r in requests]


@contextmanager
def server(shop: str, folder: Path) -> Iterator[http.client.HTTPConnection]:
    """A keep-alive connection to a server of one worker, which is stopped afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(launch.command("127.0.0.1", port, 1), env=launch.environment(shop, folder))
    try:
        yield connected(port)
    finally:
        process.terminate()
        process.wait()


def connected(port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(600):
        with suppress(OSError):
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask(connection, "GET", "/livez", None)
            return connection
        time.sleep(0.1)
    raise SystemExit("the server did not start within a minute")


def interleaved(connection: http.client.HTTPConnection, posted: list[bytes], n: int) -> list[tuple[float, float]]:
    """Seconds of one recommendation and one bare request, in turn, n times."""
    turns = itertools.islice(itertools.cycle(posted), n)
    return [
        (ask(connection, "POST", "/v1/recommendations", body), ask(connection, "GET", "/livez", None)) for body in turns
    ]


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> float:
    started = time.perf_counter()
    connection.request(method, path, body, {"content-type": "application/json"} if body else {})
    answer = connection.getresponse()
    answer.read()
    elapsed = time.perf_counter() - started
    if answer.status != 200:
        raise SystemExit(f"{method} {path} answered {answer.status}")
    return elapsed


def report(milliseconds: np.ndarray) -> None:
    """milliseconds : float array, shape (n, 2), recommendations and bare requests"""
    p50, p99 = np.percentile(milliseconds, [50, 99], axis=0)
    print(f"{'route':24}{'p50 ms':>10}{'p99 ms':>10}")
    for column, route in enumerate(("/v1/recommendations", "/livez")):
        print(f"{route:24}{p50[column]:10.3f}{p99[column]:10.3f}")
    print(
        json.dumps(
            {
                "recommendations_p50_ms": round(p50[0], 3),
                "recommendations_p99_ms": round(p99[0], 3),
                "bare_p50_ms": round(p50[1], 3),
                "bare_p99_ms": round(p99[1], 3),
                "ratio_p50": round(p50[0] / p50[1], 3),
                "ratio_p99": round(p99[0] / p99[1], 3),
                "requests": len(milliseconds),
                "cores": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    main()
