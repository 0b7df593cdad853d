"""Subscriptions and the delivery of events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Thread
from typing import Any

import pytest
import requests

from tests.integration.sandbox.conftest import Core
from tests.support.sandbox_process import SandboxProcess


class Receiver:
    """An HTTP server that keeps what it is sent, and answers 204; 302 to its own /elsewhere on the path /moved."""

    def __init__(self) -> None:
        self.received: Queue[tuple[str, dict[str, str], Any]] = Queue()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.put((self.path, dict(self.headers), json.loads(body)))
                self.send_response(302 if self.path == "/moved" else 204)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def subscribe(core: Core, token: str, **more: Any) -> dict[str, Any]:
    body = {"event_type": "WEBHOOK.CONVERTED", "entity_type": "CONTACT", "url": "http://127.0.0.1:9/hook"}
    response = core.send("POST", "/integrations/webhooks", token, body | {"http_method": "POST"} | more)
    assert response.status == 200, response.body
    subscription: dict[str, Any] = response.json()
    return subscription


def test_subscriptions_are_created_read_changed_and_deleted(core: Core) -> None:
    token = core.pair()["access_token"]
    first = subscribe(core, token, include_relations=["COMPANY"])
    second = subscribe(core, token, event_type="WEBHOOK.MARKED_OPPORTUNITY")
    assert core.get("/integrations/webhooks/", token).json() == {"webhooks": [first, second]}
    path = f"/integrations/webhooks/{first['uuid']}"
    changed = core.send("PUT", path, token, {"url": "https://example.com/x"})
    assert changed.json() == first | {"url": "https://example.com/x"}
    assert core.get(path, token).json() == changed.json()
    deleted = core.send("DELETE", path, token, None)
    assert (deleted.status, deleted.body) == (204, b"")
    assert core.get(path, token).status == 404
    assert core.get("/integrations/webhooks", token).json() == {"webhooks": [second]}


def test_an_account_sees_its_own_subscriptions_only(core: Core) -> None:
    mine = subscribe(core, core.pair()["access_token"])
    stranger = core.pair("account-2")["access_token"]
    assert core.get("/integrations/webhooks", stranger).json() == {"webhooks": []}
    assert core.send("DELETE", f"/integrations/webhooks/{mine['uuid']}", stranger, None).status == 404


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("event_type", "WEBHOOK.DELETED"),
        ("event_type", None),
        ("entity_type", "DEAL"),
        ("url", "ftp://example.com"),
        ("url", "/hook"),
        ("http_method", "GET"),
        ("include_relations", ["DEAL"]),
        ("event_identifiers", "x"),
    ],
)
def test_a_wrong_subscription_names_what_is_wrong(core: Core, name: str, value: object) -> None:
    body = {"event_type": "WEBHOOK.CONVERTED", "url": "http://127.0.0.1:9/hook", name: value}
    response = core.send("POST", "/integrations/webhooks", core.pair()["access_token"], body)
    assert response.status == 400
    assert list(response.json()["errors"]) == [name]


def test_a_conversion_goes_to_the_subscriptions_that_want_it(core: Core) -> None:
    token = core.pair()["access_token"]
    wanted = {
        subscribe(core, token, url="http://127.0.0.1:9/all")["url"],
        subscribe(core, token, url="http://127.0.0.1:9/ebook", event_identifiers=["e-book"])["url"],
    }
    subscribe(core, token, url="http://127.0.0.1:9/other", event_identifiers=["webinar"])
    subscribe(core, token, url="http://127.0.0.1:9/opportunity", event_type="WEBHOOK.MARKED_OPPORTUNITY")
    payload = {"conversion_identifier": "e-book", "email": "nova@example.com"}
    event = {"event_type": "CONVERSION", "event_family": "CDP", "payload": payload}
    response = core.send("POST", "/platform/events", token, event)
    assert {delivery.url for delivery in response.deliveries} == wanted
    assert {delivery.body["event_identifier"] for delivery in response.deliveries} == {"e-book"}


def test_relations_come_only_where_they_are_asked_for(core: Core) -> None:
    token = core.pair()["access_token"]
    subscribe(core, token)
    subscribe(core, token, include_relations=["COMPANY", "CONTACT_FUNNEL"])
    plain, full = core.call("POST", "/_sandbox/webhook", {}).deliveries
    assert not {"company", "funnel"} & set(plain.body["contact"])
    assert set(full.body["contact"]["funnel"]) == {
        "name",
        "lifecycle_stage",
        "opportunity",
        "contact_owner_email",
        "interest",
        "fit",
        "origin",
    }
    assert full.body["contact"]["company"]["name"]


def test_an_event_is_delivered_to_the_url_that_the_body_gives(
    sandbox: SandboxProcess, receiver: Receiver
) -> None:
    url = f"{receiver.url}/rd/webhooks/secret"
    reports = sandbox.webhook(url=url, times=2, event_identifier="e-book", seconds_ago=3_600)
    assert reports == [{"url": url, "status": 204}] * 2
    first, second = receiver.received.get(timeout=5), receiver.received.get(timeout=5)
    path, headers, body = first
    assert (path, headers["Content-Type"]) == ("/rd/webhooks/secret", "application/json")
    assert set(body) == {
        "event_type",
        "entity_type",
        "event_identifier",
        "timestamp",
        "event_timestamp",
        "contact",
    }
    assert (body["event_type"], body["entity_type"]) == ("WEBHOOK.CONVERTED", "CONTACT")
    assert body["event_timestamp"] < body["timestamp"]
    assert {"uuid", "email", "name", "tags", "legal_bases", "company", "funnel"} <= set(body["contact"])
    assert second[2] == body


def test_an_event_is_told_in_the_older_forms_too(core: Core) -> None:
    def told(form: str) -> Any:
        given = {"url": "http://127.0.0.1:9/hook", "form": form, "event_identifier": "e-book"}
        (delivery,) = core.call("POST", "/_sandbox/webhook", given).deliveries
        return delivery.body

    assert told("array")[0]["event_type"] == "WEBHOOK.CONVERTED"
    lead = told("lead")
    assert told("leads")["leads"][0].keys() == lead.keys()
    assert (lead["opportunity"], lead["last_conversion"]["content"]["identificador"]) == ("false", "e-book")
    assert {"uuid", "email", "name", "first_conversion", "lead_stage", "tags"} <= lead.keys()


def test_events_reach_the_subscriptions_of_the_running_program(
    sandbox: SandboxProcess, receiver: Receiver
) -> None:
    bearer = {"Authorization": f"Bearer {sandbox.pair()['access_token']}"}
    subscription = {"event_type": "WEBHOOK.CONVERTED", "url": f"{receiver.url}/moved"}
    requests.post(f"{sandbox.url}/integrations/webhooks", json=subscription, headers=bearer, timeout=10)
    assert sandbox.webhook() == [{"url": f"{receiver.url}/moved", "status": 302}]
    assert receiver.received.get(timeout=5)[0] == "/moved"
    payload = {"conversion_identifier": "e-book", "email": "nova@example.com"}
    event = {"event_type": "CONVERSION", "event_family": "CDP", "payload": payload}
    requests.post(f"{sandbox.url}/platform/events", json=event, headers=bearer, timeout=10)
    path, _, body = receiver.received.get(timeout=5)
    assert (path, body["contact"]["email"]) == ("/moved", "nova@example.com")
    assert receiver.received.empty()


def test_a_delivery_that_fails_is_reported(sandbox: SandboxProcess, receiver: Receiver) -> None:
    receiver.close()
    report = sandbox.webhook(url=receiver.url)[0]
    assert (report["status"], report["error"]) == (None, "ClientConnectorError")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"url": "nowhere"}, "url"),
        ({"event_type": "X"}, "event_type"),
        ({"event_identifier": 1}, "event_identifier"),
        ({"account": "x"}, "account"),
        ({"email": "nobody@example.com"}, "email"),
        ({"times": 0}, "times"),
        ({"form": "xml"}, "form"),
        ({"seconds_ago": -1}, "seconds_ago"),
        ({"colour": 1}, "colour"),
    ],
    ids=str,
)
def test_a_wrong_event_is_a_422_that_names_what_is_wrong(
    core: Core, body: dict[str, Any], named: str
) -> None:
    response = core.call("POST", "/_sandbox/webhook", body)
    assert response.status == 422
    assert response.json()["error"].startswith(f"{named}: ")
