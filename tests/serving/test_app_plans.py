"""What planners ask over HTTP: forecasts, and what other offers would do to them."""

import asyncio
import csv
import io
import threading

import pytest
from served import SCORERS, WHOLE, Client, post, problem, served

from serving import app, plan_schema
from serving.models import Models, Serving
from serving.settings import Settings


def test_forecasts_page(client):
    answer = client.get("/v1/forecasts", params={"offset": 3, "limit": 2}).json()
    assert [row["date"] for row in answer["forecasts"]] == ["2024-02-04", "2024-02-05"]
    assert (answer["total"], answer["cutoff"], answer["model_version"]) == (5, "2024-02-01", "7")


def test_the_forecaster_gets_the_query(client):
    client.get("/v1/forecasts?item_id=a&item_id=b&location_id=north&horizon=3")
    assert SCORERS["demand"].asked == {
        "item_ids": ["a", "b"],
        "location_id": "north",
        "horizon": 3,
        "offset": 0,
        "limit": 100,
        "explain": False,
    }
    client.get("/v1/forecasts?item_id=a")
    assert SCORERS["demand"].asked["item_ids"] == ["a"]


def test_forecasts_as_csv_hold_what_json_holds(client):
    answer = client.get("/v1/forecasts", headers={"accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert (answer.headers["x-total"], answer.headers["x-cutoff"], answer.headers["x-model-version"]) == (
        "5",
        "2024-02-01",
        "7",
    )
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    expected = client.get("/v1/forecasts").json()["forecasts"]
    assert rows == [{name: str(value) for name, value in row.items()} for row in expected]


def test_an_empty_page_of_csv_has_a_header(client):
    answer = client.get("/v1/forecasts?offset=9", headers={"accept": "text/csv"})
    assert answer.text == "item_id,location_id,date,tier,mean\r\n"


def test_explained_forecasts_have_a_column_of_csv_per_effect(client):
    row = client.get("/v1/forecasts?explain=true").json()["forecasts"][0]
    assert (row["level"], row["effects"]) == (3.0, {"price": 0.5})
    answer = client.get("/v1/forecasts?explain=true", headers={"accept": "text/csv"})
    assert answer.text.splitlines()[0] == "item_id,location_id,date,tier,mean,q0.05,q0.95,level,effect_price"
    assert answer.text.splitlines()[1].endswith(",3.0,0.5")


def test_changes_reach_the_scorer_as_json(client):
    changes = [{"item_id": "a", "date": "2024-02-01", "price": 2}, {"item_id": "b", "covariates": {"rain": 0.5}}]
    answer = client.post("/v1/forecasts/what-if", json={"changes": changes})
    plan_schema.WhatIf.model_validate_json(answer.content)
    assert (answer.json()["forecasts"][0]["effect"], answer.json()["model_version"]) == (1.5, "7")
    nothing = {"location_id": None, "date": None, "price": None, "display": None, "mailer": None, "covariates": {}}
    assert SCORERS["demand"].asked == {"changes": [{**nothing, **change} for change in changes], "horizon": None}


@pytest.mark.parametrize(
    ("change", "pointer", "message"),
    [
        ({}, "/changes/0", "changes nothing: give price, display, mailer or covariates"),
        ({"price": None}, "/changes/0", "changes nothing"),
        ({"covariates": {}}, "/changes/0", "changes nothing"),
        ({"price": -1}, "/changes/0/price", "greater than 0"),
        ({"price": 0}, "/changes/0/price", "greater than 0"),
        ({"price": "NaN"}, "/changes/0/price", "valid number"),
        ({"display": 1.5}, "/changes/0/display", "less than or equal to 1"),
        ({"mailer": -0.1}, "/changes/0/mailer", "greater than or equal to 0"),
        ({"price": 1, "date": "1 February"}, "/changes/0/date", "write it as in 2026-01-31"),
        ({"price": 1, "date": "2024-02-30"}, "/changes/0/date", "date"),
        ({"price": 1, "date": 19754}, "/changes/0/date", "write it as in 2026-01-31"),
        ({"discount": 0.2}, "/changes/0/discount", "not permitted"),
        ({"covariates": {"rain": "much"}}, "/changes/0/covariates/rain", "valid number"),
    ],
)
def test_a_change_that_cannot_be_is_told_where(client, change, pointer, message):
    fault = fault_of(client, change)
    assert fault.pointer == pointer
    assert message in fault.message


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"price": 1, "date": 19754}, {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}),
        ({"discount": 0.2}, {"propertyNames": {"enum": list(plan_schema.Change.model_fields)}}),
        ({"covariates": {"rain": "much"}}, {"type": "number"}),
    ],
)
def test_a_change_that_cannot_be_is_told_what_could(client, change, allowed):
    assert allowed.items() <= fault_of(client, change).allowed.items()


def fault_of(client, change):
    details = problem(client.post("/v1/forecasts/what-if", json={"changes": [{"item_id": "a", **change}]}), 422)
    (fault,) = details.errors
    return fault


@pytest.mark.parametrize("price", [b"NaN", b"Infinity", b"1e400"])
def test_a_price_that_is_no_number_is_refused(client, price):
    body = b'{"changes": [{"item_id": "a", "price": ' + price + b"}]}"
    assert post(client, body, "/v1/forecasts/what-if").status_code in (400, 422)


@pytest.mark.parametrize("n", [0, 1001])
def test_a_what_if_takes_1_to_1000_changes(n):
    wide = Client(app.build(Serving(WHOLE), Settings()))
    changes = [{"item_id": "a", "price": 1.0}]
    refused = wide.post("/v1/forecasts/what-if", json={"changes": changes * n})
    assert [fault.pointer for fault in problem(refused, 422).errors] == ["/changes"]
    assert wide.post("/v1/forecasts/what-if", json={"changes": changes * 1000}).status_code == 200


def test_others_are_answered_while_a_what_if_is_computed():
    class Slow:
        def answer(self, request):
            assert others_answered.wait(timeout=30)
            return SCORERS["demand"].answer(request)

    async def both(client):
        asked = {"changes": [{"item_id": "a", "price": 1.0}]}
        slow = asyncio.create_task(client.post("/v1/forecasts/what-if", json=asked))
        await asyncio.sleep(0.05)
        quick = await client.get("/livez")
        others_answered.set()
        return quick, await slow

    others_answered = threading.Event()
    application = app.build(Serving(Models("mini", {"demand": served("demand", Slow())})), Settings())
    assert [answer.status_code for answer in asyncio.run(both(Client(application).client))] == [200, 200]


def test_a_change_that_the_scorer_refuses_is_a_422(client):
    asked = {"changes": [{"item_id": "a", "location_id": "nowhere", "price": 1.0}]}
    assert problem(client.post("/v1/forecasts/what-if", json=asked), 422).detail.endswith("allowed are north, south")


def test_a_page_of_csv_has_every_column_that_a_row_has():
    class Mixed:
        def answer(self, request):
            plain, *others = SCORERS["demand"].answer({**request, "explain": False})["forecasts"]
            explained = SCORERS["demand"].answer(request)
            return {**explained, "forecasts": [plain, *explained["forecasts"][: len(others)]]}

    application = app.build(Serving(Models("mini", {"demand": served("demand", Mixed())})), Settings())
    answer = Client(application).get("/v1/forecasts?explain=true", headers={"accept": "text/csv"})
    first, second, *_ = csv.DictReader(io.StringIO(answer.text))
    assert (first["level"], first["effect_price"]) == ("", "")
    assert (second["level"], second["effect_price"]) == ("3.0", "0.5")
