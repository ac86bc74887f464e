"""API keys: what each may ask, on every route, and that nothing of a key is kept but its digest."""

import json
import threading
import time

import pytest
from served import WHOLE, Client, problem

from features.errors import UserError
from features.home import home
from serving import app, keys, launch
from serving.keys import SCOPES, Keys
from serving.models import Serving
from serving.openapi import Endpoint
from serving.settings import Settings

GUARDED = [endpoint for endpoint in app.ENDPOINTS if endpoint.scope]
OPEN = [endpoint for endpoint in app.ENDPOINTS if not endpoint.scope]
every_guarded = pytest.mark.parametrize("endpoint", GUARDED, ids=lambda endpoint: endpoint.path)


@pytest.fixture
def kept(tmp_path) -> Keys:
    return Keys(tmp_path / "keys.json")


@pytest.fixture(scope="module")
def asking(request) -> Client:
    return Client(app.build(Serving(WHOLE), Settings()))


@pytest.fixture(scope="module")
def issued(_home) -> dict[str, str]:
    """A key for each scope alone, named like it."""
    return {scope: keys.of(home(), "mini").add(scope, [scope]) for scope in SCOPES}


def ask(asking: Client, endpoint: Endpoint, authorization: str | None):
    headers = {} if authorization is None else {b"authorization": authorization.encode("latin-1")}
    body = {} if endpoint.method == "GET" else {"json": {}}
    return asking.request(endpoint.method, endpoint.path, headers=headers, **body)


def test_what_is_open_is_health_and_documentation() -> None:
    assert {endpoint.path for endpoint in OPEN} == {"/livez", "/readyz", "/openapi.json", "/docs", "/"}


@every_guarded
def test_without_a_key_or_with_a_wrong_one_nobody_may_ask(asking, issued, endpoint) -> None:
    wrong = ["", "Bearer", "Bearer ", "Bearer sk_wrong", f"Basic {issued[endpoint.scope]}", issued[endpoint.scope]]
    digest = keys.of(home(), "mini").kept()[0].digest
    for authorization in (None, *wrong, f"Bearer {digest}", "Bearer \xff\xfe"):
        refused = ask(asking, endpoint, authorization)
        assert "shopkeeper keys add" in problem(refused, 401).detail
        assert refused.headers["www-authenticate"] == "Bearer"


@every_guarded
def test_a_key_may_ask_what_its_scope_says_and_nothing_else(asking, issued, endpoint) -> None:
    for scope, key in issued.items():
        status = ask(asking, endpoint, f"Bearer {key}").status_code
        assert (status not in (401, 403)) == (scope == endpoint.scope)
    others = next(key for scope, key in issued.items() if scope != endpoint.scope)
    assert f"lacks the scope {endpoint.scope}" in problem(ask(asking, endpoint, f"bearer  {others}"), 403).detail


@pytest.mark.parametrize("endpoint", OPEN, ids=lambda endpoint: endpoint.path)
def test_health_and_documentation_ask_for_no_key(asking, issued, endpoint) -> None:
    assert ask(asking, endpoint, None).status_code < 400


def test_a_body_is_not_read_before_the_key(asking, issued) -> None:
    assert asking.post("/v1/events", content=b"x" * 10_000_000, headers={}).status_code == 401


def test_a_key_counts_until_it_is_removed(kept) -> None:
    assert kept.holder("") == keys.ANYBODY
    first, second = kept.add("first", ["plan"]), kept.add("second", ["plan", "events"])
    assert kept.holder(f"Bearer {first}") == ("first", ("plan",))
    assert kept.holder(f"Bearer {second}") == ("second", ("plan", "events"))
    kept.remove("first")
    assert kept.holder(f"Bearer {first}") is None
    assert kept.holder(f"Bearer {second}") is not None


def test_when_the_last_key_is_gone_nobody_may_ask(kept) -> None:
    other = Keys(kept.path)
    kept.add("web", ["plan"])
    assert other.holder("") is None
    kept.remove("web")
    assert (kept.holder(""), other.holder("")) == (None, None)
    kept.path.unlink()
    assert other.holder("") is None


def test_where_keys_are_required_nobody_may_ask_before_the_first(tmp_path) -> None:
    required = Keys(tmp_path / "keys.json", is_required=True)
    assert required.holder("") is None
    key = required.add("web", ["plan"])
    assert required.holder(f"Bearer {key}") == ("web", ("plan",))


@pytest.mark.parametrize(("host", "required"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True)])
def test_workers_are_told_whether_keys_are_required(tmp_path, host, required) -> None:
    assert (keys.REQUIRED in launch.environment("mini", tmp_path, host)) == required


def test_another_process_sees_a_change(kept) -> None:
    other = Keys(kept.path)
    key = kept.add("web", ["plan"])
    assert other.holder(f"Bearer {key}") is not None
    time.sleep(0.01)
    kept.remove("web")
    kept.add("app", ["plan"])
    assert other.holder(f"Bearer {key}") is None


def test_keys_that_are_added_together_are_all_kept(kept) -> None:
    threads = [threading.Thread(target=Keys(kept.path).add, args=(f"key{n}", ["plan"])) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in kept.kept()} == {f"key{n}" for n in range(20)}


def test_only_digests_are_stored_and_only_for_the_owner(kept) -> None:
    key = kept.add("web", ["plan"])
    assert key.removeprefix("sk_") not in kept.path.read_text()
    assert kept.path.stat().st_mode & 0o077 == 0


def test_names_are_told_where_they_do_not_fit(kept) -> None:
    kept.add("web", ["plan"])
    with pytest.raises(UserError, match="there is a key web already"):
        kept.add("web", ["events"])
    with pytest.raises(UserError, match="there is no key app; there are: web"):
        kept.remove("app")


@pytest.mark.parametrize("content", ["", "[", "{}", json.dumps([{"name": "x", "scopes": ["root"]}])])
def test_a_damaged_file_lets_nobody_in(asking, monkeypatch, tmp_path, content, caplog) -> None:
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path))
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "keys.json").write_text(content)
    details = problem(asking.get("/v1/models"), 500)
    assert str(tmp_path) not in details.detail
    assert "does not hold keys" in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::"])
def test_others_are_let_in_only_with_keys(kept, host) -> None:
    with pytest.raises(UserError, match=f"{host} is open to others and mini has no API keys: make one"):
        launch.require_keys(host, "mini", kept)
    kept.add("web", ["plan"])
    launch.require_keys(host, "mini", kept)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_this_machine_needs_no_key(kept, host) -> None:
    launch.require_keys(host, "mini", kept)
    assert kept.holder("") == keys.ANYBODY


def test_a_key_that_asks_too_often_is_told_when_to_come_back(issued) -> None:
    asking = Client(app.build(Serving(WHOLE), Settings(requests_per_second=0.01)))
    for scope, path in (("admin", "/v1/models"), ("plan", "/v1/orders")):
        authorization = {"authorization": f"Bearer {issued[scope]}"}
        assert asking.get(path, headers=authorization).status_code in (200, 404)
        refused = asking.get(path, headers=authorization)
        assert "ask again in" in problem(refused, 429).detail
        assert 90 <= int(refused.headers["retry-after"]) <= 100
    assert asking.get("/livez").status_code == 200
    problem(asking.get("/v1/models"), 401)
