"""How many lines /metrics can have, whatever clients send."""

import random
import string
import threading
from typing import Any

import psycopg
from flask import Flask
from flask.testing import FlaskClient

from rdservice.access import keys
from rdservice.metrics.definitions import OPERATIONS, Metrics
from rdservice.rdstation import call_metrics
from rdservice.rdstation.client import ApiResponse, TransportError
from rdservice.services import Services
from rdservice.web.api.exposition import HTTP_METHODS, HTTP_STATUSES
from rdservice.web.api.metrics import REQUEST_BUCKETS_S
from tests.support.scraping import Scrape, scrape

REQUESTS = 1500
METHODS = (*HTTP_METHODS, "TRACE", "CONNECT", "PROPFIND", "FOO", "get", "G\u00c9T")
ODD = string.printable.replace("\n", "").replace("\r", "") + "\u00e7\u00e3o"
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"Authorization": "Bearer nobody"},
    {"Range": "bytes=0-1"},
    {"Range": "bytes=999999999-"},
    {"If-Match": '"another"'},
    {"If-None-Match": "*"},
    {"If-Unmodified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"},
    {"Content-Type": "application/json"},
    {"Content-Type": "text/x-odd"},
    {"Content-Length": "99999999"},
    {"Cookie": "session=odd"},
    {"Accept": "image/png"},
    {"Host": "odd.example.com"},
)
NAMED_LABELS: dict[str, set[str]] = {
    "method": set(HTTP_METHODS),
    "status": set(HTTP_STATUSES),
    "operation": set(OPERATIONS),
}
# Buckets, the one without a bound, count and sum.
LINES_OF_A_HISTOGRAM = len(REQUEST_BUCKETS_S) + 3


def send_anything(app: Flask, client: FlaskClient, key: str, chance: random.Random, requests: int) -> None:
    paths = [*(rule.rule for rule in app.url_map.iter_rules()), "/static/site.css", "/nowhere", "//x"]
    for _ in range(requests):
        path = chance.choice(paths)
        if chance.random() < 0.4:
            path += "/" + "".join(chance.choices(ODD, k=chance.randint(1, 12)))
        with client.open(
            "/",
            environ_overrides={"PATH_INFO": path},
            method=chance.choice(METHODS),
            headers=chance.choice([{}, {"Authorization": f"Bearer {key}"}]) | chance.choice(HEADERS),
            data=chance.choice([b"", b"{}", b"[1", b'{"email": 7}', b"csrf_token=x"]),
        ):
            pass


def call_anything(metrics: Metrics, chance: random.Random, calls: int) -> None:
    for _ in range(calls):
        operation = chance.choice([*OPERATIONS, "".join(chance.choices(ODD, k=5))])
        outcome: ApiResponse | TransportError = TransportError(
            operation, chance.choice(["timeout", "connection"]), sent=True
        )
        if chance.random() < 0.8:
            body = chance.choice([b"", b"{}", b"<html>", b'{"errors": {"error_type": "ODD"}}'])
            outcome = ApiResponse(operation=operation, status=chance.randint(100, 999), headers={}, body=body)
        call_metrics.count(metrics, threading.Event().set, outcome, chance.random())


def labels_outside_their_sets(shown: Scrape, app: Flask) -> set[tuple[str, str]]:
    routes = {"None", *(rule.rule for rule in app.url_map.iter_rules())}
    allowed: dict[str, set[str]] = NAMED_LABELS | {"url_rule": routes}
    found = {label for _, labels in shown.values for label in labels}
    return {(name, value) for name, value in found if name in allowed and value not in allowed[name]}


def test_whatever_is_sent_becomes_no_label_and_the_series_are_bounded(
    app: Flask, client: FlaskClient, services: Services, conn: psycopg.Connection[Any]
) -> None:
    chance = random.Random(20)  # noqa: S311 - the same input each time
    key = keys.create(conn, "a program", list(keys.SCOPES), created_by="test")
    before = scrape(client)
    send_anything(app, client, key, chance, REQUESTS)
    call_anything(services.metrics, chance, REQUESTS)
    shown = scrape(client)
    assert labels_outside_their_sets(shown, app) == set()
    answered = {
        labels for name, labels in shown.values if name == "flask_http_request_duration_seconds_count"
    }
    # Requests by route begin with the first; everything else is there from the start.
    assert len(shown.values) == len(before.values) + len(answered) * LINES_OF_A_HISTOGRAM
    assert len(answered) < len(app.url_map._rules) * len(HTTP_METHODS) * 3


def test_each_status_that_a_file_is_answered_with_was_there_before_the_first(client: FlaskClient) -> None:
    known = scrape(client).all("flask_http_request_total")
    answered = set()
    for headers in HEADERS:
        with client.get("/static/site.css", headers=headers) as response:
            answered.add(str(response.status_code))
    assert {"200", "206", "304", "412", "416"} <= answered
    assert scrape(client).all("flask_http_request_total").keys() == known.keys()
