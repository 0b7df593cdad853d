"""Callers who want nothing from a cache (RFC 9111 5.2.1), once in a few seconds; and searching segmentations."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from rdservice.web.api.leads import FRESH_EVERY_S
from tests.conftest import Clock
from tests.support.accounts import connect_account
from tests.support.browser import Browser
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

LATER_S = FRESH_EVERY_S + 1
Get = Callable[..., TestResponse]


@pytest.fixture
def app(connected: Services) -> Flask:
    return create_app(connected)


@pytest.fixture
def key(make_key: Callable[..., str]) -> str:
    return make_key("leads:read")


def getter(app: Flask, key: str) -> Get:
    browser = Browser(app, accept="*/*")

    def get(path: str, cache_control: str | None = None, **more: Any) -> TestResponse:
        wish = {} if cache_control is None else {"Cache-Control": cache_control}
        method = more.pop("method", "GET")
        return browser.open(method, path, {"Authorization": f"Bearer {key}"} | wish, **more)

    return get


@pytest.fixture
def get(app: Flask, key: str, connected: Services, sandbox: SandboxProcess) -> Get:
    connect_account(connected, sandbox, due=False)
    return getter(app, key)


Later = Callable[[float], None]


@pytest.fixture
def later(clock: Clock, connected: Services) -> Later:
    """Lets time pass for the database, and for the process, whose memory would not know of it."""

    def pass_by(seconds: float) -> None:
        clock.advance(seconds)
        connected.cache._memory.drop("default")

    return pass_by


def calls(sandbox: SandboxProcess, operation: str = "contacts_list") -> int:
    return sum(sandbox.calls()[operation].values())


@pytest.mark.parametrize(
    "wish", ["no-cache", "NO-CACHE", "max-age=0", "max-age=3", "max-age=-1", "foo, no-cache"]
)
def test_who_wants_nothing_from_a_cache_gets_rd_stations_answer_of_now(
    get: Get, sandbox: SandboxProcess, later: Later, wish: str
) -> None:
    assert get("/rd/leads").headers["X-Cache"] == "miss"
    later(LATER_S)
    fresh = get("/rd/leads", wish)
    assert (fresh.headers["X-Cache"], int(fresh.headers["Age"]) <= 2) == ("miss", True)
    assert calls(sandbox) == 2
    # Everyone else has it from then on.
    assert get("/rd/leads").headers["X-Cache"] == "hit"


@pytest.mark.parametrize(
    "wish", ["max-age", "max-age=x", "max-age=900", "max-age=99999999999999999999", "private", ""]
)
def test_other_wishes_change_nothing(get: Get, sandbox: SandboxProcess, later: Later, wish: str) -> None:
    get("/rd/leads")
    later(LATER_S)
    assert get("/rd/leads", wish).headers["X-Cache"] == "hit"
    assert calls(sandbox) == 1


def test_an_age_in_between_is_kept_to(get: Get, sandbox: SandboxProcess, later: Later) -> None:
    get("/rd/leads?page=2")
    get("/rd/leads")
    later(50)
    assert get("/rd/leads", "max-age=100").headers["X-Cache"] == "hit"
    later(60)
    assert get("/rd/leads", "max-age=100").headers["X-Cache"] == "miss"


def test_the_wish_is_granted_once_in_a_few_seconds_in_all_processes_together(
    get: Get,
    key: str,
    sandbox: SandboxProcess,
    later: Later,
    make_services: Callable[[Settings], Services],
    sandbox_settings: Settings,
) -> None:
    others = [getter(create_app(make_services(sandbox_settings)), key) for _ in range(2)]
    get("/rd/leads")
    later(LATER_S)
    sandbox.patch(latency_ms=300)
    with ThreadPoolExecutor(12) as executor:
        asked = [executor.submit(one, "/rd/leads", "no-cache") for one in (get, *others) for _ in range(4)]
        assert {response.result().status_code for response in asked} == {200}
        assert all(int(response.result().headers["Age"]) <= FRESH_EVERY_S for response in asked)
    assert calls(sandbox) == 2
    for one in (get, *others):
        assert one("/rd/leads", "no-cache").headers["X-Cache"] == "hit"
    assert calls(sandbox) == 2
    later(LATER_S)
    assert get("/rd/leads", "no-cache").headers["X-Cache"] == "miss"
    assert calls(sandbox) == 3


def test_while_rd_station_fails_the_wish_gets_the_older_answer_and_how_old_it_is(
    get: Get, sandbox: SandboxProcess, later: Later
) -> None:
    first = get("/rd/leads")
    sandbox.patch(faults=[{"operation": "contacts_list", "kind": "status", "status": 500}])
    later(100)
    for _ in range(3):
        response = get("/rd/leads", "no-cache")
        assert (response.status_code, response.headers["X-Cache"], response.data) == (
            200,
            "stale",
            first.data,
        )
        assert int(response.headers["Age"]) >= 100
    # The failure counts for two seconds for everyone who asks the same.
    assert calls(sandbox) == 2


def test_who_does_not_mind_gets_the_older_answer_at_once_while_another_insists(
    get: Get, sandbox: SandboxProcess, later: Later
) -> None:
    get("/rd/leads")
    later(2000)
    sandbox.patch(latency_ms=1500)
    with ThreadPoolExecutor(1) as executor:
        insisting = executor.submit(get, "/rd/leads", "no-cache")
        wait_until(lambda: calls(sandbox) == 2, "RD Station is asked")
        assert get("/rd/leads").headers["X-Cache"] == "stale"
        assert insisting.result().headers["X-Cache"] == "miss"


def test_that_there_is_no_such_lead_is_asked_again_when_insisted(
    get: Get, sandbox: SandboxProcess, later: Later
) -> None:
    path = "/rd/leads/email/nova@example.com"
    assert get(path).status_code == 404
    assert get(path, "no-cache").status_code == 404
    assert calls(sandbox, "contact_get") == 1
    later(LATER_S)
    # To everyone else the word counts for longer.
    assert get(path).status_code == 404
    assert calls(sandbox, "contact_get") == 1
    assert get(path, "no-cache").status_code == 404
    assert calls(sandbox, "contact_get") == 2


@pytest.mark.parametrize("kind", ["uuid", "email", "lookup", "segmentations"])
def test_every_route_of_leads_grants_it(get: Get, sandbox: SandboxProcess, later: Later, kind: str) -> None:
    lead = (get("/rd/leads").json or {})["contacts"][0]
    path, more = {
        "uuid": (f"/rd/leads/{lead['uuid']}", {}),
        "email": (f"/rd/leads/email/{lead['email']}", {}),
        "lookup": ("/rd/leads/lookup", {"method": "POST", "json": {"email": lead["email"]}}),
        "segmentations": ("/rd/segmentations", {}),
    }[kind]
    assert get(path, **more).headers["X-Cache"] == "miss"
    assert get(path, "no-cache", **more).headers["X-Cache"] == "hit"
    later(LATER_S)
    assert get(path, "no-cache", **more).headers["X-Cache"] == "miss"


def test_the_entity_tag_still_saves_the_body(get: Get, later: Later) -> None:
    etag = get("/rd/leads").headers["ETag"]
    later(LATER_S)
    response = get("/rd/leads", "no-cache", environ_overrides={"HTTP_IF_NONE_MATCH": etag})
    assert (response.status_code, response.headers["X-Cache"], response.data) == (304, "miss", b"")


def test_segmentations_are_searched_by_a_part_of_their_name(get: Get, sandbox: SandboxProcess) -> None:
    found = get("/rd/segmentations?search=newsletter")
    names = [entry["name"] for entry in (found.json or {})["segmentations"]]
    assert names
    assert all("newsletter" in name.lower() for name in names)
    assert len((get("/rd/segmentations").json or {})["segmentations"]) > len(names)
    assert get("/rd/segmentations?search=newsletter").headers["X-Cache"] == "hit"
    for wrong in ("", "x" * 256, "%00"):
        response = get(f"/rd/segmentations?search={wrong}")
        assert (response.status_code, (response.json or {})["field"]) == (422, "search")
