"""Rate limits and the shapes of errors."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.sandbox.conftest import Core

PAIR = {"error_type": "UNAUTHORIZED", "error_message": "Invalid token."}


def test_the_window_of_a_minute_slides(core: Core) -> None:
    core.patch(rate_limit=3)
    token = core.pair()["access_token"]
    statuses = []
    for step in (0, 30, 20, 0, 9.9, 0.1, 0, 29.9, 0.1):
        core.now += step
        statuses.append(core.get("/marketing/account_info", token).status)
    assert statuses == [200, 200, 200, 429, 429, 200, 429, 429, 200]


def test_an_account_has_120_requests_a_minute_over_all_routes_and_methods(core: Core) -> None:
    token = core.pair()["access_token"]
    for _ in range(60):
        assert core.get("/platform/segmentations/1/contacts", token).status == 200
        assert core.send("POST", "/platform/contacts", token, {}).status == 400
    assert core.get("/marketing/account_info", token).status == 429


def test_accounts_token_routes_and_subscriptions_are_not_limited_by_it(core: Core) -> None:
    core.patch(rate_limit=1)
    first, second = core.pair(), core.pair("account-2")
    assert core.get("/marketing/account_info", first["access_token"]).status == 200
    assert core.get("/marketing/account_info", first["access_token"]).status == 429
    assert core.get("/marketing/account_info", second["access_token"]).status == 200
    for _ in range(5):
        assert core.token(refresh_token=first["refresh_token"]).status == 200
        assert core.get("/integrations/webhooks", first["access_token"]).status == 200


def test_no_limit_is_no_limit(core: Core) -> None:
    core.patch(rate_limit=None)
    token = core.pair()["access_token"]
    assert {core.get("/marketing/account_info", token).status for _ in range(700)} == {200}


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        (
            "errors",
            {"errors": {"error_type": "TOO_MANY_REQUESTS", "error_message": "API usage limit exceeded."}},
        ),
        ("error", {"error": "API usage limit exceeded.", "max": 1, "usage": 1, "remaining_time": 60}),
        ("message", {"message": "API usage limit exceeded."}),
    ],
)
@pytest.mark.parametrize("retry_after", [True, False])
def test_a_429_has_the_shape_that_was_asked_for(
    core: Core, shape: str, body: dict[str, Any], retry_after: bool
) -> None:
    core.patch(rate_limit=1, rate_limit_shape=shape, rate_limit_retry_after=retry_after)
    token = core.pair()["access_token"]
    core.get("/marketing/account_info", token)
    response = core.get("/marketing/account_info", token)
    assert (response.status, response.json()) == (429, body)
    assert response.headers.get("Retry-After") == ("60" if retry_after else None)


@pytest.mark.parametrize(
    ("shape", "body"), [("object", {"errors": PAIR}), ("list", {"errors": [PAIR]}), ("bare", PAIR)]
)
def test_errors_have_the_shape_that_was_asked_for(core: Core, shape: str, body: object) -> None:
    core.patch(error_shape=shape)
    assert core.get("/marketing/account_info", "bad").json() == body


def test_an_error_can_be_text_that_is_not_json(core: Core) -> None:
    core.patch(error_shape="text")
    response = core.get("/marketing/account_info", "bad")
    assert (response.status, response.body) == (401, b"Invalid token.")
    assert response.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(("rate_limit", "lists"), [(120, 120), (500, 240)])
def test_the_list_of_segmentations_has_its_own_limit(core: Core, rate_limit: int, lists: int) -> None:
    core.patch(rate_limit=rate_limit)
    token = core.pair()["access_token"]
    assert {core.get("/platform/segmentations", token).status for _ in range(lists)} == {200}
    assert core.get("/platform/segmentations", token).status == 429
    assert core.get("/marketing/account_info", token).status == 200


@pytest.mark.parametrize(
    ("method", "suffix", "body"),
    [("PATCH", "", {"city": "Recife"}), ("PUT", "/funnels/default", {"opportunity": True})],
)
def test_a_contact_takes_24_updates_a_day(core: Core, method: str, suffix: str, body: dict[str, Any]) -> None:
    token = core.pair()["access_token"]
    leads = core.get("/platform/segmentations/1/contacts", token).json()["contacts"]
    busy, other = (f"/platform/contacts/uuid:{lead['uuid']}{suffix}" for lead in leads[:2])
    assert {core.send(method, busy, token, body).status for _ in range(24)} == {200}
    assert core.send(method, busy, token, body).status == 429
    assert core.send(method, other, token, body).status == 200
    core.now += 86_399
    token = core.pair()["access_token"]
    assert core.send(method, busy, token, body).status == 429
    core.now += 1
    assert core.send(method, busy, token, body).status == 200
