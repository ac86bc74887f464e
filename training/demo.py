"""The whole way on a real retailer's data: ingest, train, evaluate, promote, serve, ask."""

import resource
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import orjson

from features.engine import Engine
from features.home import home
from features.ingest import ingest
from features.lake import Lake
from features.shops import Shop, load_shop
from serving import launch
from serving.artifact import Json
from training import pipeline, promotion
from training.cli import show_decision
from training.config import TASKS, load_config
from training.console import Speaker, show_reports, show_rows
from training.device import Device, choose
from training.families import family

START_S = 60


def run(speaker: Speaker, shop_name: str = "completejourney") -> None:
    """Show every part at work; prints what it does and ends with the time and memory that it took."""
    started = time.monotonic()
    shop = load_shop(shop_name)
    speaker.say(f"Data: {shop.name}. Its notice: {shop.notice}")
    with speaker.progress("ingest", len(shop.tables)) as steps:
        reports = ingest(shop, steps)
    show_reports(speaker, reports)
    device = choose("auto")
    speaker.say(f"device: {device.name} ({device.reason})")
    versions = {task: _train_and_promote(speaker, shop, task, device) for task in TASKS}
    with _service(shop) as base:
        speaker.say(f"The service answers at {base}")
        for method, path, body in _questions(shop):
            answer = _ask(speaker, base, method, path, body)
            if "items" in answer:
                _name_items(speaker, shop, [item["item_id"] for item in answer["items"]])
    speaker.say("The service has stopped.")
    seconds, memory_gb = time.monotonic() - started, _peak_memory_gb()
    speaker.say(f"Done in {seconds:.0f} s with at most {memory_gb:.1f} GB. Everything lies in {home()}.")
    speaker.say("Next: `make serve` keeps the service running, `make mlflow` shows the runs.")
    speaker.result({"seconds": seconds, "peak_memory_gb": memory_gb, "versions": versions})


def _train_and_promote(speaker: Speaker, shop: Shop, task: str, device: Device) -> str:
    of = family(task)
    with speaker.progress(f"train {task}", 5) as steps:
        trained = pipeline.train(shop, of, load_config(of.config, of.task), device, announce=steps)
    title = f"{shop.name}.{task} version {trained.version} on the last {_length(shop, task)}"
    show_rows(speaker, title, trained.rows, of.gate)
    show_decision(speaker, promotion.promote(shop, of, device, trained.version))
    return trained.version


def _length(shop: Shop, task: str) -> str:
    of = family(task)
    return f"{of.length(shop, load_config(of.config, of.task))}, which it had not seen"


def _questions(shop: Shop) -> Iterator[tuple[str, str, Json | None]]:
    """A household that buys much, its probability to buy again, and the demand for what sells best."""
    engine = Lake(shop).engine()
    user = _most_frequent(engine, "user_id")
    item = _most_frequent(engine, "item_id")
    yield "POST", "/v1/recommendations", {"placement": "home", "user_id": user, "n": 5}
    yield "POST", "/v1/propensity", {"user_ids": [user]}
    yield "GET", f"/v1/forecasts?item_id={item}", None


def _most_frequent(engine: Engine, column: str) -> str:
    counted = engine.select(
        f"select events.{column}, count(*) as n from events join items on events.item_id = items.item_id "
        f"where availability <> 'hidden' group by events.{column} order by n desc, 1 limit 1"
    )
    return str(counted[column][0])


@contextmanager
def _service(shop: Shop) -> Iterator[str]:
    promotion.publish_champions(shop)
    port = free_port()
    log = home() / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            launch.command("127.0.0.1", port, 1),
            env=launch.environment(shop.name, home()),
            stdout=output,
            stderr=output,
        )
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}/readyz", str(log))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the service did not become ready within {START_S} s; its log is {log}")


def _name_items(speaker: Speaker, shop: Shop, item_ids: list[str]) -> None:
    table = Lake(shop).engine().select("select item_id, item_name, item_category from items").to_pylist()
    named = {row["item_id"]: f"{row['item_name']} ({row['item_category']})" for row in table}
    speaker.say("In words: " + "; ".join(named[item_id] for item_id in item_ids))


def _ask(speaker: Speaker, base: str, method: str, path: str, body: Json | None) -> Json:
    request = urllib.request.Request(  # noqa: S310
        base + path,
        data=orjson.dumps(body) if body else None,
        headers={"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        answer: Json = orjson.loads(response.read())
    speaker.say(
        f"\n{method} {path}" + (f"\n{_pretty(body)}" if body else "") + f"\n=> {response.status}\n{_pretty(answer)}"
    )
    return answer


def _pretty(content: object) -> str:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()


def _peak_memory_gb() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return float(max(own, children)) / 2**20
