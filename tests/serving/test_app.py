import asyncio
import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import APP, MAX_BODY_BYTES, SCORERS, WHOLE, Client, Shelf, post, problem

from features import contract
from serving import app, schema
from serving.models import Models, Serving
from serving.settings import Settings


def test_recommendations_say_how_they_came_about(client):
    answer = client.post("/v1/recommendations", json={"n": 2, "exclude_ids": ["b"]}).json()
    schema.Recommendations.model_validate(answer)
    assert [item["item_id"] for item in answer["items"]] == ["a", "c"]
    assert (answer["tier"], answer["degraded"], answer["model_version"]) == ("popular", ["unknown visitor"], "7")
    expected = (datetime.now(UTC) - datetime(2024, 2, 1, tzinfo=UTC)).total_seconds()
    assert answer["staleness_s"] == pytest.approx(expected, abs=10)


def test_every_recommendation_has_its_own_id(client):
    ids = {client.post("/v1/recommendations", json={}).json()["recommendation_id"] for _ in range(3)}
    assert len({UUID(text) for text in ids}) == 3


def test_the_scorer_gets_the_whole_request_with_defaults(client):
    client.post("/v1/recommendations", json={"user_id": "u", "item_ids": ["a"], "placement": "cart", "explain": True})
    assert SCORERS["recommend"].asked == {
        "placement": "cart",
        "user_id": "u",
        "user_pseudo_id": None,
        "recent": None,
        "item_ids": ["a"],
        "n": 10,
        "exclude_ids": [],
        "filters": None,
        "explain": True,
    }


def test_propensity_scores_every_customer_asked_for(client):
    answer = client.post("/v1/propensity", json={"user_ids": ["u2", "u1"]}).json()
    schema.PropensityScores.model_validate(answer | {"as_of": datetime.fromisoformat(answer["as_of"])})
    assert [score["user_id"] for score in answer["scores"]] == ["u2", "u1"]
    assert answer["model_version"] == "7"


def test_a_visit_reaches_the_scorer_as_json(client):
    event = {"event_name": "view_item", "event_timestamp": "2024-02-01T10:00:00+01:00", "item_id": "a"}
    answer = client.post("/v1/propensity/session", json={"user_pseudo_id": "d", "medium": "email", "events": [event]})
    assert (answer.status_code, answer.json()["model_version"]) == (200, "7")
    asked = SCORERS["propensity"].asked
    assert (asked["user_pseudo_id"], asked["medium"], asked["target"]) == ("d", "email", None)
    assert asked["events"][0]["event_timestamp"] == "2024-02-01T10:00:00+01:00"


@pytest.mark.parametrize(
    ("event", "pointer"),
    [
        ({"event_name": "view_item"}, "/events/0/event_timestamp"),
        ({"event_name": "view_item", "event_timestamp": "2024-02-01T10:00:00"}, "/events/0/event_timestamp"),
        ({"event_name": "view_item", "event_timestamp": 1706778000}, "/events/0/event_timestamp"),
        ({"event_name": "refund", "event_timestamp": "2024-02-01T10:00:00Z"}, "/events/0/event_name"),
    ],
)
def test_an_event_that_cannot_be_of_a_visit_is_told_where(client, event, pointer):
    answer = client.post("/v1/propensity/session", json={"events": [event]})
    assert [fault.pointer for fault in problem(answer, 422).errors] == [pointer]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("text/html", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV;q=0.5", "text/csv"),
        ("text/csv, */*;q=0.1", "text/csv"),
        ("text/csv, */*", "text/csv"),
        ("text/csv;q=0.1, */*", "application/json"),
        ("application/json, text/csv", "application/json"),
        ("application/json, text/csv;q=0.9", "application/json"),
        ("application/json;q=0.8, text/csv;q=0.9", "text/csv"),
        ("text/csv;q=0", "application/json"),
        ("text/csv;q=nonsense", "application/json"),
    ],
)
def test_accept_chooses_the_media_type(client, accept, media_type):
    answer = client.get("/v1/forecasts", headers={"accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == media_type


def test_models_tell_versions_ages_and_data_windows(client):
    answer = client.get("/v1/models").json()
    schema.ModelList.model_validate_json(json.dumps(answer))
    assert answer["shop"] == "mini"
    assert {model["task"] for model in answer["models"]} == set(SCORERS)
    assert answer["models"][0]["window"] == {"from": "2023-02-01", "until": "2024-02-01"}


def test_ready_with_at_least_one_model():
    some = Client(
        app.build(Serving(Models("mini", {"recommend": WHOLE.served["recommend"]}, {"demand": "none"})), Settings())
    )
    assert (some.get("/readyz").status_code, some.get("/readyz").text) == (200, "ready\n")
    answer = some.get("/v1/models").json()
    assert [model["task"] for model in answer["models"]] == ["recommend"]
    assert answer["absent"] == [{"task": "demand", "reason": "none"}]


def test_without_models_the_service_lives_and_is_not_ready(empty_client):
    assert empty_client.get("/livez").status_code == 200
    assert "GET /v1/models tells why" in problem(empty_client.get("/readyz"), 503).detail
    answer = empty_client.get("/v1/models").json()
    assert (answer["models"], answer["absent"]) == (
        [],
        [{"task": "recommend", "reason": "mini has no recommend champion"}],
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "task"),
    [
        ("POST", "/v1/recommendations", {}, "recommend"),
        ("POST", "/v1/propensity", {"user_ids": ["u"]}, "propensity"),
        ("GET", "/v1/forecasts", None, "demand"),
        ("POST", "/v1/forecasts/what-if", {"changes": [{"item_id": "a", "price": 1.0}]}, "demand"),
    ],
)
def test_a_task_without_model_names_the_command(empty_client, method, path, body, task):
    details = problem(empty_client.request(method, path, json=body), 503)
    assert f"shopkeeper promote {task}" in details.detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"n": NaN}',
        b'{"n": Infinity}',
        b'{"user_id": "\xff"}',
        b'{"user_id": "\\ud800"}',
        b'{"user_id": "\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        b"[" * 2000 + b"]" * 2000,
    ],
)
def test_what_is_not_json_is_a_400(client, body):
    assert "not JSON" in problem(post(client, body), 400).detail


@pytest.mark.parametrize(
    "body", [b"null", b"[]", b"3", b'"{}"', b"[" * 900 + b"]" * 900, b'{"n": 1e400}', b'{"n": 9' + b"9" * 400 + b"}"]
)
def test_json_that_is_no_request_is_a_422_or_400(client, body):
    assert post(client, body).status_code in (400, 422)


def test_three_point_zero_is_an_integer(client):
    assert len(post(client, b'{"n": 2.0}').json()["items"]) == 2


def test_the_last_of_duplicated_keys_counts(client):
    assert len(post(client, b'{"n": 3, "n": 1}').json()["items"]) == 1


@pytest.mark.parametrize(
    ("body", "pointer", "allowed"),
    [
        ({"n": 0}, "/n", {"minimum": 1, "maximum": 100}),
        ({"n": 101}, "/n", {"minimum": 1, "maximum": 100}),
        ({"n": "3"}, "/n", {"type": "integer"}),
        ({"n": True}, "/n", {"type": "integer"}),
        ({"n": 3.5}, "/n", {"type": "integer"}),
        ({"n": None}, "/n", {"type": "integer"}),
        ({"placement": "cellar"}, "/placement", {"enum": ["home", "product", "cart"]}),
        ({"item_ids": ["a", ""]}, "/item_ids/1", {"minLength": 1}),
        ({"item_ids": ["a" * 201]}, "/item_ids/0", {"maxLength": 200}),
        ({"item_ids": ["a"] * 101}, "/item_ids", {"maxItems": 100}),
        ({"user_id": 7}, "/user_id", {"default": None}),
        ({"a/b~c": 1}, "/a~1b~0c", {"propertyNames": {"enum": list(schema.RecommendationRequest.model_fields)}}),
    ],
)
def test_a_refused_request_says_where_and_what_is_allowed(client, body, pointer, allowed):
    details = problem(client.post("/v1/recommendations", json=body), 422)
    (fault,) = details.errors
    assert fault.pointer == pointer
    assert allowed.items() <= fault.allowed.items()


def test_every_fault_of_a_request_is_told_at_once(client):
    details = problem(client.post("/v1/recommendations", json={"n": 0, "placement": "x", "extra": 1}), 422)
    assert {fault.pointer for fault in details.errors} == {"/n", "/placement", "/extra"}
    assert "3 faults" in details.detail


def test_of_many_faults_the_first_are_told_with_all_that_is_allowed(client):
    details = problem(client.post("/v1/forecasts/what-if", json={"changes": [0] * 1000}), 422)
    assert (len(details.errors), details.detail) == (20, "The request has 1000 faults; errors has the first 20.")
    (fault,) = problem(client.post("/v1/forecasts/what-if", json=[]), 422).errors
    assert "$ref" not in str(fault.allowed)


@pytest.mark.parametrize("size", [0, 101])
def test_propensity_takes_1_to_100_customers(client, size):
    wide = Client(app.build(Serving(WHOLE), Settings()))
    assert problem(wide.post("/v1/propensity", json={"user_ids": ["u"] * size}), 422).errors[0].pointer == "/user_ids"
    assert wide.post("/v1/propensity", json={"user_ids": ["u"] * 100}).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=", "limit=1.0", "limit=1_0", "limit=%2B1", "limit=١", "limit=1&limit=2"),
        *("explain=yes", "explain=", "explain=1", "explain=true&explain=true"),
        *("offset=-1", "horizon=x", "horizon=366", "colour=red", "item_id=", "location_id=a&location_id=b"),
    ],
)
def test_a_refused_query_says_where(client, query):
    details = problem(client.get(f"/v1/forecasts?{query}"), 422)
    assert [fault.pointer.split("/")[1] for fault in details.errors] == [query.partition("=")[0]]


def test_a_mistake_that_the_scorer_tells_is_a_422(client):
    details = problem(client.get("/v1/forecasts?location_id=nowhere"), 422)
    assert details.detail == "location_id nowhere is unknown; allowed: north, south"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_another_content_type_is_a_415(client, content_type):
    assert "application/json" in problem(post(client, b"{}", content_type=content_type), 415).detail


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_spellings_of_the_content_type(client, content_type):
    assert post(client, b"{}", content_type=content_type).status_code == 200


def test_unknown_routes_and_methods(client):
    problem(client.get("/v2/recommendations"), 404)
    problem(client.get("/v1/models/"), 404)
    refused = client.get("/v1/recommendations")
    problem(refused, 405)
    assert refused.headers["allow"] == "POST"


def test_a_failure_is_logged_and_not_told(client, caplog):
    with caplog.at_level(logging.ERROR, "serving.app"):
        answer = client.post("/v1/recommendations", json={"user_id": "breaks"}, headers={"x-request-id": "visit-1"})
    assert problem(answer, 500).request_id == "visit-1"
    assert "secret" not in answer.text
    assert "secret of the house" in caplog.text
    assert "visit-1" in caplog.text


@pytest.mark.parametrize("given_id", ["", "a b", "x" * 65, "é"])
def test_a_strange_request_id_is_replaced(client, given_id):
    answer = client.get("/livez", headers={"x-request-id": given_id.encode()})
    assert UUID(answer.headers["x-request-id"])


class Chunks:
    """A request in 1 KiB chunks, which counts how many were taken."""

    def __init__(self, n_chunks, content_length):
        headers = [(b"content-type", b"application/json")]
        headers += [(b"content-length", content_length)] if content_length is not None else []
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/recommendations",
            "query_string": b"",
            "headers": headers,
        }
        self.n_chunks = n_chunks
        self.n_taken = 0
        self.status = None

    async def receive(self):
        self.n_taken += 1
        return {"type": "http.request", "body": b" " * 1024, "more_body": self.n_taken < self.n_chunks}

    async def send(self, message):
        self.status = message.get("status", self.status)


@pytest.mark.parametrize("content_length", [None, b"10", b"1048576"])
def test_a_large_body_is_read_no_further_than_the_limit(content_length):
    sent = Chunks(1024, content_length)
    asyncio.run(APP(sent.scope, sent.receive, sent.send))
    assert sent.status == 413
    assert sent.n_taken == MAX_BODY_BYTES // 1024 + 1


def test_the_limit_itself_is_allowed(client):
    body = b"{" + b" " * (MAX_BODY_BYTES - 2) + b"}"
    assert post(client, body).status_code == 200
    assert str(MAX_BODY_BYTES) in problem(post(client, body + b" "), 413).detail


def test_a_body_that_breaks_off_is_no_failure_of_ours(caplog):
    sent = Chunks(2, None)

    async def receive():
        return {"type": "http.disconnect"}

    asyncio.run(APP(sent.scope, receive, sent.send))
    assert sent.status == 400
    assert not caplog.records


def test_events_are_taken_once(client):
    asked = {"events": [{"event_id": "once", "event_name": "login", "user_id": "ann"}]}
    answers = [client.post("/v1/events", json=asked) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert [schema.EventsTaken.model_validate_json(answer.content).accepted for answer in answers] == [1, 0]


@pytest.mark.parametrize(
    ("event", "pointer", "message"),
    [
        ({}, "/events/0", "user_id and user_pseudo_id are both missing: give the one that is known"),
        ({"user_id": "a", "event_name": "view_item"}, "/events/0", "item_id is missing: view_item is about an item"),
        (
            {"user_id": "a", "event_name": "refund", "item_id": "i"},
            "/events/0",
            "transaction_id is missing: refund is of an order",
        ),
        ({"user_id": "a", "event_name": "bought"}, "/events/0/event_name", "Input should be"),
        ({"user_id": "a", "event_timestamp": "2024-02-01T12:00:00"}, "/events/0/event_timestamp", "timezone"),
        ({"user_id": "a", "quantity": 0}, "/events/0/quantity", "greater than 0"),
        ({"user_id": "a", "received_at": "2024-02-01T12:00:00Z"}, "/events/0/received_at", "not permitted"),
    ],
)
def test_of_a_batch_with_a_faulty_event_none_is_taken(client, event, pointer, message):
    good = {"event_name": "login", "user_id": "ann", "event_id": f"beside {pointer} {message}"}
    for order in ([{"event_name": "login", **event}, good], [{"event_name": "login", **event}]):
        (fault,) = problem(client.post("/v1/events", json={"events": order}), 422).errors
        assert (fault.pointer, message in fault.message) == (pointer, True)
    assert client.post("/v1/events", json={"events": [good]}).json() == {"accepted": 1, "known": 0}


def test_a_logged_event_has_every_column_of_the_contract():
    columns = {column.name for column in contract.EVENTS.columns}
    assert set(schema.LoggedEvent.model_fields) == columns - {"received_at"}


def test_what_cannot_be_written_is_not_acknowledged(client, monkeypatch, tmp_path, caplog):
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "journal").write_text("a file where the folder should be")
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path))
    asked = {"events": [{"event_name": "login", "user_id": "ann"}]}
    assert "nothing of it was taken" in problem(client.post("/v1/events", json=asked), 503).detail
    assert "The journal cannot be written" in caplog.text


def test_without_a_journal_recommendations_are_answered_and_say_so(client, monkeypatch, tmp_path, caplog):
    (tmp_path / "mini" / "journal").mkdir(parents=True)
    (tmp_path / "mini" / "journal" / "events.sqlite").write_bytes(b"not a database" * 100)
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path))
    answer = client.post("/v1/recommendations", json={"user_id": "ann", "n": 1})
    found = schema.Recommendations.model_validate_json(answer.content)
    assert (len(found.items), found.degraded[0]) == (
        1,
        "what the visitor did and what the shop changed of late cannot be read",
    )
    assert "The journal cannot be read" in caplog.text


def test_the_scorer_is_told_what_the_visitor_just_did(client):
    seen = {"event_name": "view_item", "item_id": "b", "user_pseudo_id": "phone"}
    client.post("/v1/events", json={"events": [seen]})
    client.post("/v1/recommendations", json={"user_pseudo_id": "phone"})
    recent = SCORERS["recommend"].asked["recent"]
    assert (recent["item_ids"], recent["event_names"]) == (("b",), ("view_item",))
    client.post("/v1/recommendations", json={"user_pseudo_id": "another phone"})
    assert SCORERS["recommend"].asked["recent"] is None


SOLD_OUT = {"item_id": "b", "availability": "out_of_stock"}


def put(client, **told):
    return client.request("PUT", "/v1/items", json={"items": [{**SOLD_OUT, **told}]})


def test_what_is_put_is_known_to_the_next_recommendation(client):
    shelf = SCORERS["recommend"].shelf
    assert put(client, availability="out_of_stock").json() == {"items": 1}
    client.post("/v1/recommendations", json={})
    assert shelf.admitted(None).tolist() == [True, False, True]
    assert put(client, availability="in_stock", price=3.5).status_code == 200
    client.post("/v1/recommendations", json={})
    assert shelf.admitted(None).all()
    assert shelf.admitted("price = 3.5").tolist() == [False, True, False]


def test_what_was_put_before_the_export_that_a_model_knows_is_told_by_the_export(client):
    put(client)
    model = WHOLE.served["recommend"]
    later = Shelf()
    newer = replace(model, scorer=later, items_as_of=datetime(2100, 1, 1, tzinfo=UTC))
    Client(app.build(Serving(WHOLE.having(newer)), Settings())).post("/v1/recommendations", json={})
    assert later.shelf.newest == 0
    put(client, availability="in_stock")


@pytest.mark.parametrize(
    ("told", "pointer"),
    [
        ({"availability": "sold"}, "/items/0/availability"),
        ({"price": -1}, "/items/0/price"),
        ({"cost": 1}, "/items/0/cost"),
        ({"created_at": "yesterday"}, "/items/0/created_at"),
    ],
)
def test_a_wrong_put_is_told_where(client, told, pointer):
    assert [fault.pointer for fault in problem(put(client, **told), 422).errors] == [pointer]


def test_metrics_count_requests_by_route_and_status():
    client = Client(app.build(Serving(WHOLE), Settings()))
    for _ in range(3):
        client.get("/livez")
    client.get("/surely/not")
    client.post("/v1/recommendations", json={"n": 0})
    lines = client.get("/metrics").text.splitlines()
    assert 'shopkeeper_requests_total{route="/livez",status="200"} 3.0' in lines
    assert 'shopkeeper_requests_total{route="other",status="404"} 1.0' in lines
    assert 'shopkeeper_requests_total{route="/v1/recommendations",status="422"} 1.0' in lines
    assert 'shopkeeper_request_seconds_count{route="/livez"} 3.0' in lines
    assert any(line.startswith('shopkeeper_request_seconds_bucket{le="0.0005",route="/livez"}') for line in lines)
    (age,) = [line for line in lines if line.startswith('shopkeeper_model_age_seconds{task="demand",version="7"}')]
    assert float(age.split()[-1]) > 86_400


def test_the_documentation_is_one_page_that_loads_nothing(client):
    assert client.get("/").headers["location"] == "docs"
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "<script" not in page.text
    for endpoint in app.ENDPOINTS:
        section = page.text.partition(f"<code>{endpoint.method} {endpoint.path}</code>")[2].partition("</section>")[0]
        assert section
        assert (f"Key: one with <code>{endpoint.scope}</code>" in section) == bool(endpoint.scope)
    assert "exclude_ids" in page.text


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode))
@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_body_makes_the_service_fail(client, body):
    assert post(client, body).status_code in (200, 400, 413, 422)


INTERFACE = schemathesis.openapi.from_asgi(
    "/openapi.json", app.build(Serving(WHOLE), Settings(max_body_bytes=1_000_000))
)


@INTERFACE.parametrize()
@settings(max_examples=20, derandomize=True, deadline=None)
def test_the_service_keeps_to_its_interface(case):
    assert case.call_and_validate().status_code < 500
