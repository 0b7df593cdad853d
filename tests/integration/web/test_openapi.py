"""The OpenAPI document says what the application does: routes, rights, codes, and the shape of real responses."""

import re
from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from flask import Flask
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from werkzeug.test import TestResponse

from dev.documents.tables import error_statuses
from rdservice.access import keys
from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from rdservice.web.api import openapi, webhooks
from rdservice.web.http import guard
from rdservice.web.http.bodies import MAX_BODY_BYTES
from tests.support.browser import Browser
from tests.support.deliveries import event, old_lead, open_address
from tests.support.sandbox_process import SandboxProcess

Json = dict[str, Any]
MakeKey = Callable[..., str]

UUID = "7a1f8e0c-2b0c-4b0e-9b57-7d1f4f0c2a11"
METHODS = {"get", "post", "put", "patch", "delete"}
AUTOMATIC_METHODS = {"HEAD", "OPTIONS"}
KEYWORDS = {*Draft202012Validator.VALIDATORS, "$ref", "description", "default", "examples"}
"""Those with an effect, and those for readers. Any other would be a slip of the pen that allows everything."""


@pytest.fixture
def app(connected: Services) -> Flask:
    return create_app(connected)


@pytest.fixture
def program(app: Flask) -> Browser:
    return Browser(app, accept="*/*")


@pytest.fixture
def document(program: Browser) -> Json:
    response = program.get("/openapi.json")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.data == openapi.DOCUMENT
    assert isinstance(response.json, dict)
    return response.json


def resolve(document: Json, node: Json) -> Json:
    """Return what `node` refers to, or `node` itself."""
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def walk(node: Any, place: str = "") -> Iterator[tuple[str, Json]]:
    """Yield every object in `node` with its place."""
    if isinstance(node, dict):
        yield place, node
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, part in parts:
        yield from walk(part, f"{place}/{name}")


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield path, method, item[method]


def mismatches(document: Json, schema: Json, value: Any) -> list[str]:
    """Return what makes `value` no instance of `schema`, a part of the document."""
    validator = Draft202012Validator(
        schema | {"components": document["components"]}, format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def test_every_route_is_documented_with_its_methods_and_no_other(app: Flask, document: Json) -> None:
    served: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        served.setdefault(path, set()).update((rule.methods or set()) - AUTOMATIC_METHODS)
    documented = {
        path: {method.upper() for method in METHODS & item.keys()} for path, item in document["paths"].items()
    }
    assert documented == served


def test_the_documented_rights_are_those_that_the_guard_checks(app: Flask, document: Json) -> None:
    expected, found = {}, {}
    for rule in app.url_map.iter_rules():
        access = getattr(app.view_functions[rule.endpoint], guard._DECLARATION)
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - AUTOMATIC_METHODS:
            session: Json = {"session": []} | ({"csrf": []} if method in guard.UNSAFE_METHODS else {})
            key = [{"apiKey": [access.scope]}] if access.scope else []
            expected[path, method] = [] if access.public else [*key, session]
    for path, method, operation in operations(document):
        found[path, method.upper()] = operation["security"]
    assert found == expected
    schemes = {name for security in found.values() for entry in security for name in entry}
    assert schemes == document["components"]["securitySchemes"].keys()


def test_the_document_is_complete_in_itself(document: Json) -> None:
    assert re.fullmatch(r"3\.1\.\d", document["openapi"])
    assert document["info"].keys() >= {"title", "version"}
    used = {node["$ref"] for _, node in walk(document) if "$ref" in node}
    for reference in used:
        assert resolve(document, {"$ref": reference}), reference
    for kind in ("schemas", "responses", "examples", "headers", "parameters", "links"):
        unused = {f"#/components/{kind}/{name}" for name in document["components"][kind]} - used
        assert not unused
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in document["tags"]}
    for path, method, operation in operations(document):
        assert operation["summary"], (path, method)
        assert set(operation["tags"]) <= tags
        assert "default" in operation["responses"]
        parameters = [*document["paths"][path].get("parameters", []), *operation.get("parameters", [])]
        in_path = [p for p in (resolve(document, one) for one in parameters) if p["in"] == "path"]
        assert {p["name"] for p in in_path} == set(re.findall(r"{(\w+)}", path))
        assert all(p["required"] for p in in_path)
        for response in operation["responses"].values():
            assert resolve(document, response)["description"]


def test_the_document_follows_the_rules_of_openapi(document: Json) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_schemas_use_only_keywords_that_there_are(document: Json) -> None:
    for place, node in walk(document):
        if re.search(r"/(schema|items|not)$|/(schemas|properties)/\w+$", place):
            assert node.keys() <= KEYWORDS, place
            assert set(node.get("required", [])) <= _known_properties(document, node), place


def _known_properties(document: Json, schema: Json) -> set[str]:
    inherited = _known_properties(document, resolve(document, schema)) if "$ref" in schema else set()
    own = set(schema.get("properties", {}))
    # The document's own schema names what it must have, and the rest is OpenAPI's.
    return own | inherited or set(schema.get("required", []))


def test_every_answer_is_documented_with_the_headers_that_come_with_it(document: Json) -> None:
    always = {"401": "WWW-Authenticate", "429": "Retry-After", "302": "Location", "303": "Location"}
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            headers = {
                name: resolve(document, header)
                for name, header in resolve(document, response)["headers"].items()
            }
            expected = {"X-Request-ID"} | ({always[status]} if status in always else set())
            required = {name for name, header in headers.items() if header.get("required")}
            assert expected <= required, (path, method, status)


def test_every_link_leads_to_parameters_and_bodies_that_its_target_takes(document: Json) -> None:
    found = {operation["operationId"]: (path, operation) for path, _, operation in operations(document)}
    for name, link in document["components"]["links"].items():
        path, target = found[link["operationId"]]
        parameters = [*document["paths"][path].get("parameters", []), *target.get("parameters", [])]
        taken = {f"{one['in']}.{one['name']}" for one in (resolve(document, one) for one in parameters)}
        assert link.get("parameters", {}).keys() <= taken, name
        assert ("requestBody" in link) <= ("requestBody" in target), name


def test_every_example_is_an_instance_of_its_schema(document: Json) -> None:
    checked = 0
    for place, node in walk(document):
        if "schema" not in node:
            continue
        values = [node["example"]] if "example" in node else []
        values += [resolve(document, one)["value"] for one in node.get("examples", {}).values()]
        for value in values:
            assert mismatches(document, node["schema"], value) == [], place
            checked += 1
    assert checked > len(error_statuses())


def test_the_error_codes_are_the_closed_list_each_with_its_statuses(document: Json) -> None:
    codes = error_statuses()
    assert set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == codes.keys()
    assert document["components"]["examples"].keys() == codes.keys()
    for code, example in document["components"]["examples"].items():
        assert (example["value"]["code"], example["value"]["status"] in codes[code]) == (code, True)
    documented = set()
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            content = resolve(document, response).get("content", {})
            if "application/problem+json" not in content:
                continue
            problem = content["application/problem+json"]
            of_status = problem["schema"]["properties"]["code"]["enum"]
            assert set(problem["examples"]) == set(of_status), (path, method, status)
            assert status == "default" or all(int(status) in codes[code] for code in of_status)
            documented |= set(of_status)
    assert documented == codes.keys()


def check(document: Json, response: TestResponse, path: str) -> Json:
    """Compare a real response with what is documented for its route; return its JSON."""
    method = response.request.method.lower()
    documented = document["paths"][path][method]["responses"]
    status = str(response.status_code)
    assert status in documented, f"{method} {path}: {status} is not documented ({response.text})"
    described = resolve(document, documented[status])
    for name, reference in described["headers"].items():
        header = resolve(document, reference)
        assert name in response.headers or not header.get("required"), name
        if name in response.headers:
            assert mismatches(document, header["schema"], _read(response.headers[name], header)) == [], name
    if "content" not in described:
        return {}
    assert response.mimetype in described["content"]
    if "json" not in str(response.mimetype):
        return {}
    assert isinstance(response.json, dict)
    body: Json = response.json
    assert mismatches(document, described["content"][response.mimetype]["schema"], body) == []
    return body


def _read(text: str, header: Json) -> str | int:
    """Return a header's value as what its schema says it is."""
    return int(text) if header["schema"]["type"] == "integer" else text


@pytest.fixture
def headers(make_key: MakeKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {make_key(*keys.SCOPES)}"}


def test_answers_about_tokens_are_as_documented(
    program: Browser,
    document: Json,
    headers: dict[str, str],
    sandbox: SandboxProcess,
    conn: psycopg.Connection[Any],
    connected: Services,
) -> None:
    one, access, refresh = (f"/rd/tokens/{{account_id}}{rest}" for rest in ("", "/access-token", "/refresh"))

    def ask(method: str, url: str, path: str, status: int, **more: Any) -> Json:
        response = program.open(method, url, headers, **more)
        assert response.status_code == status, response.text
        return check(document, response, path)

    def change(statement: LiteralString) -> None:
        conn.execute(statement)
        connected.memory.forget("default")

    upload = sandbox.pair()
    assert ask("GET", "/rd/tokens/default/access-token", access, 409)["code"] == "not_connected"
    assert ask("POST", "/rd/tokens", "/rd/tokens", 200, json=upload)["status"] == "connected"
    assert len(ask("GET", "/rd/tokens", "/rd/tokens", 200)["accounts"]) == 1
    assert ask("GET", "/rd/tokens/default/access-token?min_ttl=60", access, 200)["expires_in"] > 60
    assert ask("POST", "/rd/tokens/default/refresh", refresh, 200)["result"] == "stored"
    assert ask("GET", "/rd/tokens/default/access-token?min_ttl=86000", access, 422)["field"] == "min_ttl"

    assert ask("POST", "/rd/tokens", "/rd/tokens", 400, data=b"{", content_type="application/json")
    assert ask("POST", "/rd/tokens", "/rd/tokens", 415, data=b"a=b")
    assert ask("POST", "/rd/tokens", "/rd/tokens", 422, json=upload | {"expires_in": "1"})
    refused = ask(
        "POST", "/rd/tokens", "/rd/tokens", 422, json=upload | {"access_token": "not-one-of-theirs"}
    )
    assert refused["code"] == "token_refused"
    assert ask("POST", "/rd/tokens", "/rd/tokens", 413, data=b" " * (MAX_BODY_BYTES + 1))

    sandbox.patch(faults=[{"operation": "token_refresh", "kind": "status", "status": 500}])
    assert ask("POST", "/rd/tokens/default/refresh", refresh, 502)["code"] == "rdstation_failed"
    change("UPDATE rdstation_tokens SET retry_at = rd_now() + interval '1 minute'")
    assert ask("POST", "/rd/tokens/default/refresh", refresh, 429)["code"] == "too_many_requests"
    change("UPDATE rdstation_tokens SET expires_at = rd_now()")
    assert ask("GET", "/rd/tokens/default/access-token", access, 503)["code"] == "rdstation_unavailable"
    change("UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'revoked'")
    needed = ask("GET", "/rd/tokens/default/access-token", access, 409)
    assert (needed["code"], "/rd/login" in needed["reauthorize_url"]) == ("reauthorization_required", True)
    assert ask("GET", "/rd/tokens", "/rd/tokens", 200)["accounts"][0]["last_error"] == "revoked"

    assert ask("DELETE", "/rd/tokens/default", one, 200)["removed"] is True
    assert ask("DELETE", "/rd/tokens/default", one, 404)["code"] == "not_found"
    assert ask("DELETE", f"/rd/tokens/{'x' * 201}", one, 422)["field"] == "account_id"


def test_answers_with_leads_are_as_documented(
    program: Browser,
    document: Json,
    headers: dict[str, str],
    sandbox: SandboxProcess,
    connected: Services,
) -> None:
    def ask(method: str, url: str, path: str, status: int, **more: Any) -> Json:
        response = program.open(method, url, headers, **more)
        assert response.status_code == status, response.text
        return check(document, response, path)

    one, by_email, lookup = "/rd/leads/{uuid}", "/rd/leads/email/{email}", "/rd/leads/lookup"
    assert ask("GET", "/rd/leads", "/rd/leads", 409)["code"] == "not_connected"
    program.open("POST", "/rd/tokens", headers, json=sandbox.pair())
    lead = ask("GET", "/rd/leads", "/rd/leads", 200)["contacts"][0]
    ask("GET", "/rd/segmentations", "/rd/segmentations", 200)
    ask("GET", f"/rd/leads/{lead['uuid']}", one, 200)
    ask("GET", f"/rd/leads/email/{lead['email']}", by_email, 200)
    ask("POST", lookup, lookup, 200, json={"email": lead["email"]})
    etag = program.get("/rd/leads", headers).headers["ETag"]
    not_modified = program.get("/rd/leads", headers | {"If-None-Match": etag})
    assert (not_modified.status_code, check(document, not_modified, "/rd/leads")) == (304, {})

    one_account = "/rd/tokens/{account_id}"
    for name in ("subscribe", "unsubscribe"):
        ask("POST", f"/rd/tokens/default/{name}", f"{one_account}/{name}", 200)
        ask("POST", f"/rd/tokens/nobody/{name}", f"{one_account}/{name}", 409)
    sandbox.patch(faults=[{"operation": "other", "kind": "status", "status": 500}])
    ask("POST", "/rd/tokens/default/subscribe", f"{one_account}/subscribe", 502)
    sandbox.patch(faults=[])

    ask("GET", f"/rd/leads/{UUID}", one, 404)
    ask("GET", "/rd/leads/4711", one, 422)
    ask("GET", "/rd/leads?segmentation=4711", "/rd/leads", 404)
    ask("POST", lookup, lookup, 400, json=[])
    ask("POST", lookup, lookup, 415, data=b"a=b")
    export = "/rd/leads/export"
    ask("GET", f"{export}?account_id=absent", export, 409)
    ask("GET", f"{export}?segmentation=4711", export, 404)
    ask("GET", f"{export}?format=xlsx", export, 422)
    sandbox.patch(faults=[{"operation": "*", "kind": "html"}])
    ask("GET", f"{export}?segmentation=10", export, 502)
    ask("GET", "/rd/leads?page=2", "/rd/leads", 502)
    sandbox.patch(faults=[{"operation": "*", "kind": "drop_before"}])
    ask("GET", "/rd/leads?page=3", "/rd/leads", 503)
    sandbox.patch(faults=[{"operation": "*", "kind": "status", "status": 429}])
    ask("GET", "/rd/leads?page=4", "/rd/leads", 429)

    events, address = "/rd/events", "/rd/webhooks/{secret}"
    secret = open_address(connected)
    to = f"/rd/webhooks/{secret}"
    assert ask("POST", to, address, 200, json=[old_lead(), event()])["stored"] == 2
    assert len(ask("GET", events, events, 200)["events"]) == 2
    ask("GET", f"{events}?after=x", events, 422)
    ask("GET", f"{events}?account_id=nobody", events, 409)
    ask("POST", to, address, 400, data=b"{", content_type="application/json")
    ask("POST", to, address, 413, data=b" " * (webhooks.MAX_BODY_BYTES + 1))
    ask("POST", to, address, 415, data=b"a=b")
    ask("POST", to, address, 422, json={})
    ask("POST", f"/rd/webhooks/{'A' * 43}", address, 404, json=event())

    erase = "/rd/privacy/erase"
    assert ask("POST", erase, erase, 200, json={"email": lead["email"]})["removed"]["cached_answers"] > 0
    asked = {"uuid": lead["uuid"], "at_rd_station": True}
    failed = ask("POST", erase, erase, 200, json=asked)["at_rd_station"]["failed"]
    assert failed == [{"account_id": "default", "code": "too_many_requests"}]
    ask("POST", erase, erase, 400, json=[])
    ask("POST", erase, erase, 415, data=b"a=b")
    ask("POST", erase, erase, 422, json={"email": "nobody"})


def test_answers_with_metrics_are_as_documented(
    program: Browser,
    document: Json,
    make_services: Callable[[Settings], Services],
    variables: dict[str, str],
) -> None:
    here = {"REMOTE_ADDR": "127.0.0.1"}
    response = program.get("/metrics", environ_overrides=here)
    check(document, response, "/metrics")
    assert (response.status_code, "rdstation_database_up 1.0\n" in response.text) == (200, True)
    elsewhere = program.get("/metrics", {"X-Forwarded-For": "203.0.113.9"}, environ_overrides=here)
    assert check(document, elsewhere, "/metrics")["code"] == "insufficient_scope"
    guarded = Settings.from_mapping(variables | {"METRICS_TOKEN": "the-token-of-the-tests"})
    without = Browser(create_app(make_services(guarded)), accept="*/*").get("/metrics")
    assert check(document, without, "/metrics")["code"] == "unauthorized"


def test_answers_to_those_who_may_not_are_as_documented(
    program: Browser, signed_in: Browser, document: Json, make_key: MakeKey
) -> None:
    weak = {"Authorization": f"Bearer {make_key('tokens:status')}"}
    wrong = {"Authorization": "Bearer rdk_aaaaaaaa_" + "A" * 43}
    url = {"account_id": "default", "filename": "site.css", "uuid": UUID, "email": "ana@example.com"}
    url["path"] = "platform/contacts/fields"
    url["key_id"] = url["pair_id"] = "aaaaaaaa"
    for path, method, operation in operations(document):
        if not operation["security"]:
            continue
        call = (method.upper(), path.format(**url))
        assert check(document, program.open(*call), path)["code"] == "unauthorized"
        assert check(document, program.open(*call, wrong), path)["code"] == "unauthorized"
        if {"apiKey": ["tokens:status"]} not in operation["security"]:
            assert check(document, program.open(*call, weak), path)["code"] == "insufficient_scope"
        if method == "get":
            assert check(document, Browser(program.client.application).open(*call), path) == {}
        else:
            response = signed_in.open(*call, {"Accept": "application/json"})
            assert check(document, response, path)["code"] == "csrf_failed"


def test_answers_of_pages_are_as_documented(program: Browser, signed_in: Browser, document: Json) -> None:
    for path in ("/", "/connect", "/audit", "/keys", "/password", "/login", "/rd/login", "/upload"):
        check(document, signed_in.get(path), path)
    part = signed_in.get("/?fragment=1")
    check(document, part, "/")
    unchanged = signed_in.get("/?fragment=1", {"If-None-Match": part.headers["ETag"]})
    assert (unchanged.status_code, check(document, unchanged, "/")) == (304, {})
    check(document, signed_in.get("/?state=strange"), "/")
    check(document, signed_in.get("/accounts/none"), "/accounts/{account_id}")
    check(document, signed_in.get("/accounts/none/disconnect"), "/accounts/{account_id}/disconnect")
    check(document, signed_in.submit("/upload", "/upload", account_id="default"), "/upload")
    for path in ("/healthz", "/readyz", "/openapi.json", "/login", "/rd/login"):
        check(document, program.get(path), path)
    check(document, signed_in.get("/rd/login?account_id=%20"), "/rd/login")
    check(document, signed_in.get("/audit?before=x"), "/audit")
    check(document, signed_in.get("/rd/callback?state=unknown&code=1"), "/rd/callback")
    check(document, program.get("/static/site.css"), "/static/{filename}")
    check(document, program.get("/static/icon.svg"), "/static/{filename}")
    check(document, program.get("/static/nothing"), "/static/{filename}")
    check(document, signed_in.submit("/rd/tokens/none/refresh", "/"), "/rd/tokens/{account_id}/refresh")
    check(document, signed_in.submit("/rd/tokens/none/disconnect", "/"), "/rd/tokens/{account_id}/disconnect")
    for browser in (program, Browser(program.client.application)):
        check(document, browser.open("POST", "/login"), "/login")
        check(document, browser.log_in("ana@example.com", "wrong"), "/login")
    check(document, signed_in.submit("/logout", "/"), "/logout")
    check(document, signed_in.open("POST", "/logout"), "/logout")
