"""`GET /rd/events`."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from rdservice.services import Services
from tests.support.accounts import connect_account
from tests.support.browser import Browser
from tests.support.deliveries import ANA, add, event, old_lead, open_address

Ask = Callable[[str], Any]


@pytest.fixture
def secret(services: Services) -> str:
    connect_account(services)
    return open_address(services)


@pytest.fixture
def ask(app: Flask, make_key: Callable[..., str]) -> Ask:
    headers = {"Authorization": f"Bearer {make_key('leads:read')}"}
    return lambda query: Browser(app, accept="*/*").get(f"/rd/events{query}", headers)


def test_events_are_given_out_as_they_were_told(services: Services, secret: str, ask: Ask) -> None:
    add(services, secret, event())
    response = ask("")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json
    (shown,) = body.pop("events")
    assert body == {"next_after": 1, "missed": 0, "more": False}
    assert shown.pop("received_at").endswith("Z")
    assert shown == {
        "number": 1,
        "event_type": "WEBHOOK.CONVERTED",
        "event_identifier": "newsletter",
        "event_timestamp": "2026-03-13T17:07:04.254Z",
        "late": False,
        "form": "contact",
        "contact": event()["contact"],
    }


def test_a_reader_goes_on_from_where_it_was(services: Services, secret: str, ask: Ask) -> None:
    add(services, secret, *(event(identifier=f"form {number}") for number in range(3)))
    add(services, secret, old_lead(at="2026-03-13T15:00:00-03:00"))
    seen, after, more = [], 0, True
    while more:
        page = ask(f"?after={after}&limit=2&account_id=default").json
        seen += [(shown["number"], shown["event_identifier"], shown["form"]) for shown in page["events"]]
        after, more = page["next_after"], page["more"]
    assert seen == [
        (1, "form 0", "contact"),
        (2, "form 1", "contact"),
        (3, "form 2", "contact"),
        (4, "webinar-abc", "lead"),
    ]
    assert ask(f"?after={after}").json == {"events": [], "next_after": 4, "missed": 0, "more": False}
    marked = ask("?event_type=WEBHOOK.MARKED_OPPORTUNITY").json
    assert marked == {"events": [], "next_after": 4, "missed": 0, "more": False}
    assert ask("?event_type=WEBHOOK.CONVERTED").json["events"][0]["contact"]["uuid"] == ANA


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?after=x", "after"),
        ("?after=-1", "after"),
        ("?after=9" + "9" * 18, "after"),
        ("?after=1", "after"),
        ("?after=1&after=2", "after"),
        ("?limit=0", "limit"),
        ("?limit=501", "limit"),
        ("?event_type=CONVERTED", "event_type"),
        ("?account_id=a/b", "account_id"),
    ],
)
def test_a_wrong_question_names_what_is_wrong(ask: Ask, secret: str, query: str, field: str) -> None:
    response = ask(query)
    assert (response.status_code, response.json["code"], response.json["field"]) == (
        422,
        "invalid_field",
        field,
    )


def test_an_account_that_is_not_connected_has_no_events(ask: Ask, secret: str) -> None:
    response = ask("?account_id=nobody")
    assert (response.status_code, response.json["code"]) == (409, "not_connected")
