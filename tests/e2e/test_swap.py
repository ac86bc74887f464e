"""Promotions and rollbacks while product pages ask a service of two workers."""

import shutil
import threading
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import orjson
import pytest
from running import server

from features.home import home
from features.shops import Shop
from serving import models
from serving.artifact import sha256

N_CLIENTS = 4
TAKES_OVER_WITHIN_S = 60
TOGETHER_S = 0.3


class Answer(NamedTuple):
    asked_at: float
    answered_at: float
    status: int
    version: str


class Pages:
    """Clients that ask without pause."""

    def __init__(self, url: str) -> None:
        self.answers: list[Answer] = []
        self._url = url
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(N_CLIENTS)]

    def __enter__(self) -> "Pages":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def first_of(self, version: str) -> Answer:
        """The first answer of a version to a page that asks from now on."""
        n_before, started = len(self.answers), time.monotonic()
        while time.monotonic() < started + TAKES_OVER_WITHIN_S:
            since = [answer for answer in self.answers[n_before:] if answer.asked_at > started]
            if found := next((answer for answer in since if answer.version == version), None):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{version} did not answer within {TAKES_OVER_WITHIN_S} s, but {self.answers[-1:]}")

    def _ask(self) -> None:
        """A new connection each time: the next worker may answer."""
        while not self._stopped.is_set():
            asked_at = time.monotonic()
            answer = httpx.post(f"{self._url}/v1/recommendations", json={"user_id": "u1", "n": 5})
            version = answer.json().get("model_version", "")
            self.answers.append(Answer(asked_at, time.monotonic(), answer.status_code, version))


@pytest.fixture
def versions(shop: Shop) -> list[str]:
    """The champion three times, the last one with another golden answer."""
    champion = models.champion(home(), shop.name, "recommend")
    assert champion is not None
    for name in ("again", "wrong"):
        shutil.copytree(champion, champion.with_name(name))
    _falsify(champion.with_name("wrong"))
    return [champion.name, "again", "wrong"]


def _falsify(folder: Path) -> None:
    golden, manifest = folder / "golden.json", folder / "manifest.json"
    cases = orjson.loads(golden.read_bytes())
    cases[0]["answer"]["tier"] = "none that there is"
    golden.write_bytes(orjson.dumps(cases))
    told = orjson.loads(manifest.read_bytes())
    told["files"]["golden.json"] = sha256(golden)
    manifest.write_bytes(orjson.dumps(told))


def _sell_out(url: str) -> None:
    """What is sold out comes from no worker any more, and from all again when it is back."""
    first = _first_items(url, 1)
    item_id = first.pop()
    for availability, comes in (("out_of_stock", False), ("in_stock", True)):
        told = {"items": [{"item_id": item_id, "availability": availability}]}
        assert httpx.put(f"{url}/v1/items", json=told).status_code == 200
        assert (item_id in _first_items(url, 20)) is comes


def _first_items(url: str, n_requests: int) -> set[str]:
    asked = {"user_id": "u1", "n": 1}
    answers = [httpx.post(f"{url}/v1/recommendations", json=asked).json() for _ in range(n_requests)]
    return {answer["items"][0]["item_id"] for answer in answers}


def test_promotions_under_load_fail_no_request_and_reach_all_workers_together(shop: Shop, versions: list[str]) -> None:
    first, again, wrong = versions
    with server(shop.name, home(), workers=2) as url, Pages(url) as pages:
        _sell_out(url)
        for promoted in (again, first):
            models.point_champion(home(), shop.name, "recommend", promoted)
            changed = pages.first_of(promoted)
            time.sleep(1)
            late = [a for a in pages.answers if a.asked_at > changed.answered_at + TOGETHER_S]
            assert {answer.version for answer in late} == {promoted}
        models.point_champion(home(), shop.name, "recommend", wrong)
        deadline = time.monotonic() + TAKES_OVER_WITHIN_S
        while not (refused := httpx.get(f"{url}/v1/models").json()["refused"]) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (refused[0]["version"], refused[0]["task"]) == (wrong, "recommend")
        assert "golden request 0" in refused[0]["reason"]
        models.point_champion(home(), shop.name, "recommend", first)
    assert {answer.status for answer in pages.answers} == {200}
    assert {answer.version for answer in pages.answers} == {first, again}
