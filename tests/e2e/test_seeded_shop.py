"""The whole way on the seeded shop: what was trained is what the running service answers."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from features.home import home
from features.lake import Lake
from features.shops import Shop
from features.windows import time_window
from serving import launch, schema
from serving.artifact import Draft
from training import answers
from training.audience import Audience
from training.config import TASKS, load_config
from training.demo import free_port
from training.device import choose
from training.families import family


@pytest.fixture(scope="module")
def client(shop: Shop) -> Iterator[httpx.Client]:
    port = free_port()
    command = launch.command("127.0.0.1", port, 1)
    process = subprocess.Popen(command, env=launch.environment(shop.name, home()), stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as found:
            _wait(found)
            yield found
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0


def _wait(client: httpx.Client) -> None:
    for _ in range(150):
        try:
            assert client.get("/readyz").status_code == 200
            return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail("the service did not become ready")


def test_every_champion_serves(client: httpx.Client) -> None:
    listed = schema.ModelList.model_validate_json(client.get("/v1/models").content)
    assert {model.task for model in listed.models} == {"recommend", "propensity", "demand"}


def test_recommendations_are_the_scorers(client: httpx.Client, shop: Shop) -> None:
    recommender = answers.champion(shop, family("recommend")).scorer
    user_id = recommender.user_ids[3]
    body = {"placement": "home", "user_id": user_id, "n": 5}
    answer = client.post("/v1/recommendations", json=body)
    expected = recommender.answer(schema.RecommendationRequest(**body).model_dump())
    found = schema.Recommendations.model_validate_json(answer.content)
    assert [item.item_id for item in found.items] == [item["item_id"] for item in expected["items"]]
    assert found.tier == "personal"


@pytest.mark.parametrize("body", [{"placement": "home", "user_id": "stranger"}, {"placement": "home"}])
def test_strangers_and_nobody_are_answered_too(client: httpx.Client, body: dict) -> None:
    found = schema.Recommendations.model_validate_json(client.post("/v1/recommendations", json=body).content)
    assert found.items
    assert found.tier == "popular"


def test_propensities_are_probabilities_with_reasons(client: httpx.Client, shop: Shop) -> None:
    known = answers.probabilities(answers.champion(shop, family("propensity")).scorer, "", Audience())[
        "user_id"
    ].to_pylist()[:3]
    answer = client.post("/v1/propensity", json={"user_ids": [*known, "stranger"]})
    found = schema.PropensityScores.model_validate_json(answer.content)
    assert [score.tier for score in found.scores] == ["model"] * 3 + ["base_rate"]
    assert all(score.reasons for score in found.scores)


def test_a_running_visit_is_scored(client: httpx.Client) -> None:
    steps = ["page_view", "add_to_cart"]
    events = [{"event_name": name, "event_timestamp": "2023-03-01T10:00:00Z", "item_id": "i1"} for name in steps]
    looked, carted = (
        client.post("/v1/propensity/session", json={"user_pseudo_id": "d1", "events": events[: n + 1]})
        for n in range(2)
    )
    found = [schema.PropensityScores.model_validate_json(answer.content).scores[0] for answer in (looked, carted)]
    assert found[1].probability > found[0].probability + 0.1


def test_forecasts_do_not_cross(client: httpx.Client) -> None:
    answer = client.get("/v1/forecasts", params={"limit": 100}).json()
    assert answer["forecasts"]
    for row in answer["forecasts"]:
        quantiles = [value for name, value in sorted(row.items()) if name.startswith("q")]
        assert quantiles[0] >= 0
        assert quantiles == sorted(quantiles)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"json": {"placement": "home", "surprise": 1}}, 422),
        ({"json": {"placement": "home", "n": "five"}}, 422),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"json": {"placement": "home", "item_ids": ["x" * 199] * 100, "exclude_ids": ["y" * 199] * 1000}}, 413),
    ],
)
def test_bad_requests_get_a_problem(client: httpx.Client, sent: dict, status: int) -> None:
    answer = client.post("/v1/recommendations", **sent)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("task", TASKS)
def test_deleting_what_comes_after_the_cut_changes_no_byte_of_a_model(
    shop: Shop, small: dict[str, list[str]], task: str, tmp_path: Path
) -> None:
    """Exported from a window over the whole lake, and from one over a lake that ends at the cut."""
    of = family(task)
    config = load_config(of.config, of.task, None, small[task])
    lake = Lake(shop)
    end = lake.end()
    as_of = of.length(shop, config).after(end, -1)
    ended = lake.engine().narrow(
        {
            "events": "select * from events where event_timestamp < cast($cut as timestamp)",
            "stock": "select * from stock where date < cast(cast($cut as timestamp) as date)",
        },
        cut=as_of,
    )
    for name, engine in (("whole", lake.engine()), ("ended", ended)):
        of.fit(time_window(engine, as_of, end), shop, config, choose("cpu")).export(Draft(tmp_path / name))
    written = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert written == sorted(path.name for path in (tmp_path / "ended").iterdir())
    assert not [n for n in written if (tmp_path / "whole" / n).read_bytes() != (tmp_path / "ended" / n).read_bytes()]


def test_the_server_loads_none_of_the_heavy_libraries() -> None:
    program = (
        "import sys, serving.service, serving.recommend, serving.propensity, serving.demand\n"
        "print(sorted({'torch', 'implicit', 'optuna', 'mlflow', 'pandas', 'pyspark'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
