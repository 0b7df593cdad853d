"""`POST /rd/webhooks/<secret>`: the responses to RD Station and to all others."""

import json
import logging
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from rdservice.access import throttle
from rdservice.events import intake, store
from rdservice.events.intake import LANE_LENGTH, Lanes
from rdservice.services import Services
from rdservice.web.api import webhooks
from tests.support.accounts import connect_account
from tests.support.deliveries import BIA, event, old_lead, open_address
from tests.support.outside_data import deep

Conn = psycopg.Connection[Any]
Post = Callable[..., TestResponse]


@pytest.fixture
def secret(services: Services) -> str:
    connect_account(services)
    return open_address(services)


@pytest.fixture
def post(app: Flask, secret: str) -> Post:
    """Delivers to the account's address, or another one."""

    def deliver(body: Any, *, to: str = secret, address: str = "198.51.100.7", **more: Any) -> TestResponse:
        given = {"data": body} if isinstance(body, bytes) else {"data": json.dumps(body)}
        client = app.test_client(use_cookies=False)
        options = given | {"content_type": "application/json"} | more
        return client.post(f"/rd/webhooks/{to}", environ_overrides={"REMOTE_ADDR": address}, **options)

    return deliver


def count(conn: Conn) -> int:
    row = conn.execute("SELECT count(*) FROM rdservice_events").fetchone()
    assert row is not None
    return int(row[0])


def counted(services: Services) -> dict[str, float]:
    return {
        dict(labels)["result"]: value
        for (name, labels), value in services.metrics.current().items()
        if name == "rdstation_webhook_events_total"
    }


def told(stored: int = 0, late: int = 0, duplicates: int = 0, refused: int = 0) -> dict[str, int]:
    return {"stored": stored, "late": late, "duplicates": duplicates, "refused": refused}


def test_a_delivery_is_answered_when_it_is_stored(post: Post, conn: Conn, services: Services) -> None:
    response = post(event())
    assert (response.status_code, response.json) == (200, told(stored=1))
    assert response.headers["Cache-Control"] == "no-store"
    assert count(conn) == 1
    assert counted(services) == {"stored": 1, "late": 0, "duplicate": 0, "refused": 0}


def test_older_and_repeated_and_unusable_entries_are_told_apart(
    post: Post, services: Services, conn: Conn
) -> None:
    post(event(at="2026-03-13T14:10:00Z"))
    body = [
        event(at="2026-03-13T14:10:00Z"),
        event(at="2026-03-13T14:05:00Z"),
        event(uuid=BIA),
        {"event_type": "WEBHOOK.DELETED"},
        None,
    ]
    assert post(body).json == told(stored=1, late=1, duplicates=1, refused=2)
    assert counted(services) == {"stored": 2, "late": 1, "duplicate": 1, "refused": 2}
    assert post({"leads": [old_lead(uuid=BIA), old_lead()]}).json == told(stored=1, late=1)
    assert count(conn) == 5


@pytest.mark.parametrize(
    ("body", "more", "status", "code"),
    [
        (b"", {}, 400, "bad_request"),
        (b"{", {}, 400, "bad_request"),
        (b"\xff\xfe", {}, 400, "bad_request"),
        (b"[" * 100_000, {}, 400, "bad_request"),
        (b'{"a": ' * 50_000, {}, 400, "bad_request"),
        (b'{"event_type": NaN}', {}, 400, "bad_request"),
        (b'{"event_type": 1, "event_type": 2}', {}, 400, "bad_request"),
        (b"9" * 5_000, {}, 400, "bad_request"),
        (b"{}", {"content_type": "text/plain"}, 415, "unsupported_media_type"),
        (b"{}", {"headers": {"Content-Encoding": "gzip"}}, 415, "unsupported_media_type"),
        (b"{}", {}, 422, "invalid_field"),
        (b"[]", {}, 422, "invalid_field"),
        (json.dumps(event(cf_x=deep(400))).encode(), {}, 422, "invalid_field"),
        (json.dumps(event(cf_x=0)).replace(": 0}", ": 1e999}").encode(), {}, 422, "invalid_field"),
        (json.dumps([event()] * 501).encode(), {}, 422, "invalid_field"),
        (b" " * (webhooks.MAX_BODY_BYTES + 1), {}, 413, "payload_too_large"),
    ],
)
def test_rubbish_is_refused_without_a_trace(
    post: Post,
    conn: Conn,
    body: bytes,
    more: dict[str, Any],
    status: int,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        response = post(body, **more)
    assert response.json is not None
    assert (response.status_code, response.json["code"]) == (status, code)
    assert count(conn) == 0
    assert "ana@example.com" not in response.text + caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_array_near_the_limit_fits(post: Post, conn: Conn) -> None:
    body = json.dumps([event(identifier=f"form {number}") for number in range(500)]).encode()
    assert 64 * 1024 < len(body) < webhooks.MAX_BODY_BYTES
    assert post(body).json == told(stored=500)
    assert count(conn) == 500


def test_a_wrong_secret_is_not_found_whatever_is_in_the_body(post: Post, conn: Conn, secret: str) -> None:
    wrong = [secret[:-1] + ("A" if secret[-1] != "A" else "B"), "x", "A" * 43, secret + "A", "%FF", "%00"]
    for to in wrong:
        for body in (event(), b"{"):
            response = post(body, to=to)
            assert response.json is not None
            assert (response.status_code, response.json["code"]) == (404, "not_found"), to
            assert to not in response.text
    assert count(conn) == 0


def test_wrong_secrets_are_throttled_as_wrong_keys_are_and_right_ones_never(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "KEYS_PER_ADDRESS", 3)
    assert [post(event(), to="A" * 43).status_code for _ in range(5)] == [404, 404, 404, 429, 429]
    assert post(event(), to="A" * 43).headers["Retry-After"]
    assert post(event(), to="A" * 43, address="198.51.100.8").status_code == 404
    assert post(event()).status_code == 200


def test_a_secret_ends_with_its_account(post: Post, conn: Conn) -> None:
    conn.execute("DELETE FROM rdstation_tokens")
    assert post(event()).status_code == 404


def test_a_flood_is_answered_429_and_the_whole_delivery_may_come_again(
    post: Post, conn: Conn, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_A_MINUTE", 2)
    body = [event(identifier=f"form {number}") for number in range(3)]
    response = post(body)
    assert (response.status_code, response.json and response.json["code"]) == (429, "too_many_requests")
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert count(conn) == 0
    assert post(body[:2]).json == told(stored=2)


def test_while_the_database_is_away_a_delivery_is_to_be_repeated(
    app: Flask, post: Post, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise psycopg.OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(intake, "transaction", away)
        response = post(event())
    assert (response.status_code, response.json and response.json["code"]) == (503, "database_unavailable")
    assert post(event()).json == told(stored=1)


def test_one_address_has_one_connection_and_a_few_places(services: Services) -> None:
    lanes = Lanes()
    waiting = [lanes.turn("a secret") for _ in range(LANE_LENGTH)]
    with waiting[0]:
        lane = lanes._places
        taken = sum(place._value for place in lane)
        with lanes.turn("another secret"):
            assert sum(place._value for place in lane) == taken - 1
    assert sum(place._value for place in lane) == taken + 1


def test_logs_name_the_route_and_not_the_secret(
    post: Post, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        post(event())
        post(b"{")
    assert "POST /rd/webhooks/<secret> 200" in caplog.text
    assert secret not in caplog.text
    assert "ana@example.com" not in caplog.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.sampled_from(
    ["event_type", "contact", "uuid", "email", "event_timestamp", "leads", "entity_type"]
)
ENTRIES = JSON | st.builds(
    lambda base, changes: base | changes,
    st.sampled_from([event(), old_lead()]),
    st.dictionaries(MEMBERS | st.text(), JSON, max_size=3),
)


@given(body=ENTRIES | st.lists(ENTRIES, max_size=4))
def test_whatever_is_delivered_is_taken_or_refused_and_nothing_breaks(post: Post, body: Any) -> None:
    response = post(body)
    assert response.json is not None
    if response.status_code == 200:
        total = len(body) if isinstance(body, list) else 1
        assert sum(response.json.values()) >= total or isinstance(body, dict)
        assert response.json["stored"] + response.json["late"] + response.json["duplicates"] > 0
    else:
        assert response.status_code in {400, 422, 429}
