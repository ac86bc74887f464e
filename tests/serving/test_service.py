import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from features.errors import UserError
from serving import launch, settings

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "implicit", "optuna", "mlflow", "pandas", "pyspark")

SCORE_ONCE = """
import asyncio, json, sys
from datetime import UTC, datetime
import serving.service
from serving import app, shelf
from serving.catalogue import Catalogue
from serving.models import Models, ServedModel, Serving
from serving.settings import Settings

class Shelf:
    shelf = shelf.Shelf([], Catalogue({}, 0))

    def answer(self, request):
        return {"items": [], "tier": "popular", "degraded": []}

async def receive():
    return {"type": "http.request", "body": b"{}", "more_body": False}

async def send(message):
    statuses.append(message.get("status"))

statuses = []
at = datetime(2024, 2, 1, tzinfo=UTC)
model = ServedModel("recommend", "1", {}, Shelf(), at, at, at)
scope = {"type": "http", "method": "POST", "path": "/v1/recommendations", "query_string": b"",
         "headers": [(b"content-type", b"application/json")]}
asyncio.run(app.build(Serving(Models("mini", {"recommend": model})), Settings())(scope, receive, send))
print(json.dumps({"status": statuses[0], "modules": sorted(sys.modules)}))
"""


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*command, env=None):
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_service_loads_nothing_heavy_to_start_and_to_score():
    done = run(sys.executable, "-c", SCORE_ONCE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["status"] == 200
    assert not set(HEAVY) & set(found["modules"])
    assert {"bentoml", "serving.service"} <= set(found["modules"])


def until_alive(client, server):
    for _ in range(400):
        assert server.poll() is None, server.stdout.read()
        try:
            return client.get("/livez")
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the server did not start within 20 s")


def test_the_server_starts_without_models_says_so_and_stops(tmp_path, port):
    command, env = launch.command("127.0.0.1", port, workers=1), launch.environment("mini", tmp_path)
    with (
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        try:
            assert until_alive(client, server).status_code == 200
            absent = client.get("/readyz")
            assert (absent.status_code, absent.headers["content-type"]) == (503, "application/problem+json")
            absent_tasks = {task["task"] for task in client.get("/v1/models").json()["absent"]}
            assert absent_tasks == {"recommend", "propensity", "demand"}
            assert "promote recommend" in client.post("/v1/recommendations", json={}).json()["detail"]
            assert 'shopkeeper_requests_total{route="/readyz",status="503"} 1.0' in client.get("/metrics").text
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=10) == 0
        finally:
            server.kill()


def test_without_a_shop_nothing_starts_and_one_sentence_tells_why(tmp_path, port):
    done = run(*launch.command("127.0.0.1", port, workers=1), env=launch.environment("", tmp_path))
    assert done.returncode != 0
    assert "SHOPKEEPER_SHOP is not set" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_the_command_names_address_and_workers():
    command = " ".join(launch.command("127.0.0.1", 3000, workers=2))
    assert "--host 127.0.0.1 --port 3000 --arg workers=2" in command


def test_the_environment_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert launch.environment("mini", Path("home"))["SHOPKEEPER_HOME"] == str(tmp_path / "home")


def test_a_taken_port_is_refused_with_its_number():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1 port {port} cannot be bound"):
            launch.require_free("127.0.0.1", port)


def test_a_free_port_is_not_refused(port):
    launch.require_free("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)) as bound:
        assert bound.getsockname()[1] == port


def test_the_settings_we_ship_are_the_defaults():
    assert settings.read() == settings.Settings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("wokers = 2", "wokers = 2 is refused .* the keys are host, port, workers, max_body_bytes"),
        ("port = 99999", "port = 99999 is refused .*65535"),
        ('host = "localhost"', "host = 'localhost' is refused"),
        ("port =", "cannot be read as TOML"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(tmp_path, text, told):
    path = tmp_path / "serving.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=told):
        settings.read(path)
