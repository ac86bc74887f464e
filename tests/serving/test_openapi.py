from http import HTTPStatus

import pytest

from serving import app, openapi, pages, plan_schema
from serving.openapi import Endpoint

DOCUMENT = openapi.document(app.ENDPOINTS)


def references(node):
    if isinstance(node, dict):
        yield from [node["$ref"]] if "$ref" in node else []
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


def test_every_endpoint_is_described():
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == {(endpoint.method, endpoint.path) for endpoint in app.ENDPOINTS}
    ids = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)


def test_every_reference_is_defined_and_every_definition_used():
    used = {reference.removeprefix("#/components/schemas/") for reference in references(DOCUMENT)}
    assert used == set(DOCUMENT["components"]["schemas"])


@pytest.mark.parametrize(
    "path", ["/v1/recommendations", "/v1/propensity", "/v1/propensity/session", "/v1/forecasts/what-if"]
)
def test_a_post_tells_its_body_and_every_refusal(path):
    operation = DOCUMENT["paths"][path]["post"]
    assert set(operation["responses"]) == {"200", "400", "401", "403", "413", "415", "422", "429", "500", "503"}
    assert "$ref" in operation["requestBody"]["content"]["application/json"]["schema"]
    assert list(operation["responses"]["422"]["content"]) == ["application/problem+json"]


def test_query_parameters_have_their_bounds_and_meaning():
    parameters = {p["name"]: p for p in DOCUMENT["paths"]["/v1/forecasts"]["get"]["parameters"]}
    assert set(parameters) == set(plan_schema.ForecastQuery.model_fields)
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    assert parameters["horizon"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 365}
    assert parameters["location_id"]["schema"]["type"] == "string"
    assert parameters["explain"]["schema"] == {"type": "boolean", "default": False}
    assert all(p["description"] and not p["required"] for p in parameters.values())


def test_forecasts_come_as_json_and_csv():
    content = DOCUMENT["paths"]["/v1/forecasts"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/csv"}


def test_quantiles_are_numbers_beside_the_mean():
    forecast = DOCUMENT["components"]["schemas"]["Forecast"]
    assert forecast["additionalProperties"] == {"type": "number"}
    assert "mean" in forecast["required"]


def test_requests_refuse_unknown_keys():
    assert DOCUMENT["components"]["schemas"]["RecommendationRequest"]["additionalProperties"] is False


def test_the_page_escapes_what_it_shows():
    described = Endpoint("GET", "/a<b", "x < y & z", app.livez, media=("text/plain",), errors=(HTTPStatus.NOT_FOUND,))
    page = pages.docs(openapi.document([described]))
    assert "/a&lt;b" in page
    assert "x &lt; y &amp; z" in page
    assert "/a<b" not in page
