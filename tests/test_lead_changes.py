"""Cached leads are renewed when an event tells of a change: in all processes, soon, and without a flood of calls."""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import requests

from rdservice import leads
from rdservice.cache import cache as cache_module
from rdservice.cache.answers import Content
from rdservice.cache.cache import OF_A_LEAD, Cache
from rdservice.errors import NotFound
from rdservice.events import intake
from rdservice.events.intake import Lanes, Taken
from rdservice.events.payloads import read
from rdservice.leads import Listing
from rdservice.services import Services
from rdservice.settings import Settings
from tests.accounts import connect_account
from tests.conftest import Clock
from tests.deliveries import event, open_address
from tests.e2e.waiting import wait_until
from tests.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
FIRST_PAGE = Listing(page=1, page_size=25, order=None)


class Scene:
    """Two processes, an address, and a lead at RD Station that may change."""

    def __init__(self, processes: list[Services], sandbox: SandboxProcess) -> None:
        self.processes, self.sandbox = processes, sandbox
        self._token = connect_account(processes[0], sandbox, due=False)["access_token"]
        self._secret, self._lanes = open_address(processes[0]), Lanes()
        self._minute = 0
        listed = json.loads(leads.list_leads(processes[0], "default", None, FIRST_PAGE).content.body)
        self.uuid, self.email = listed["contacts"][0]["uuid"], listed["contacts"][0]["email"]
        self.other = listed["contacts"][1]["uuid"]

    def rename(self, name: str) -> None:
        """Change the lead at RD Station."""
        headers = {"Authorization": f"Bearer {self._token}"}
        url = f"{self.sandbox.url}/platform/contacts/uuid:{self.uuid}"
        requests.patch(url, json={"name": name}, headers=headers, timeout=10).raise_for_status()

    def deliver(self, process: int = 0, **more: Any) -> Taken:
        """Tell one process of the lead, each time a minute later."""
        self._minute += 1
        given = {"uuid": self.uuid, "email": self.email, "at": f"2026-03-13T14:{self._minute:02}:00Z"} | more
        return self.deliver_body(event(**given), process)

    def deliver_body(self, body: Any, process: int = 0) -> Taken:
        return intake.receive(self.processes[process], self._lanes, self._secret, read(body))

    def name(self, process: int = 0) -> tuple[str, str]:
        """Return the lead's name as a process serves it, and where that came from."""
        served = leads.lead_by_uuid(self.processes[process], "default", self.uuid)
        return json.loads(served.content.body)["name"], served.state

    def calls(self) -> int:
        return sum(self.sandbox.calls().get("contact_get", {}).values())


@pytest.fixture
def scene(
    make_services: Callable[[Settings], Services], sandbox_settings: Settings, sandbox: SandboxProcess
) -> Scene:
    return Scene([make_services(sandbox_settings) for _ in range(2)], sandbox)


@pytest.fixture
def _no_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if too much was being renewed already."""
    monkeypatch.setattr(Cache, "renew_changed", lambda *_: None)


def test_a_change_is_seen_in_all_processes_after_one_call(scene: Scene, clock: Clock) -> None:
    before = scene.name()[0]
    assert [scene.name(process) for process in (0, 1, 0, 1)] == [(before, "hit")] * 4
    scene.rename("Renamed")
    assert scene.name()[0] == before
    clock.advance(cache_module.RENEW_EVERY_S)
    scene.deliver()
    for process in (1, 0):
        wait_until(lambda process=process: scene.name(process)[0] == "Renamed", "the change shows")  # type: ignore[misc]
    assert scene.calls() == 2
    assert [scene.name(process)[1] for process in (0, 1)] == ["hit", "hit"]


def test_a_lead_known_by_e_mail_is_renewed_however_the_address_is_spelled(scene: Scene, clock: Clock) -> None:
    def name(email: str) -> str:
        served = leads.lead_by_email(scene.processes[0], "default", email)
        return str(json.loads(served.content.body)["name"])

    spelled = scene.email.title()
    before = name(spelled)
    assert name(scene.email) == before
    assert scene.calls() == 1
    scene.rename("Renamed")
    clock.advance(cache_module.RENEW_EVERY_S)
    scene.deliver(uuid="not told")
    wait_until(lambda: name(spelled) == name(scene.email) == "Renamed", "the change shows")
    assert scene.calls() == 2


def test_leads_that_nobody_has_asked_for_are_not_fetched(scene: Scene) -> None:
    scene.deliver()
    scene.processes[0].cache._executor.submit(lambda: None).result(10)
    assert scene.calls() == 0


def test_other_leads_stay_as_they_are(scene: Scene) -> None:
    leads.lead_by_uuid(scene.processes[0], "default", scene.other)
    scene.deliver()
    scene.processes[0].memory.forget("default")
    for _ in range(3):
        assert leads.lead_by_uuid(scene.processes[0], "default", scene.other).state == "hit"
    assert scene.calls() == 1


def test_after_a_look_at_the_table_an_unchanged_lead_comes_from_memory_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    leads.lead_by_uuid(scene.processes[0], "default", scene.other)
    scene.deliver()
    scene.processes[0].memory.forget("default")
    leads.lead_by_uuid(scene.processes[0], "default", scene.other)
    monkeypatch.setattr(Cache, "_join", None)
    assert leads.lead_by_uuid(scene.processes[0], "default", scene.other).state == "hit"


def test_a_storm_of_events_about_one_lead_is_worth_one_call(
    scene: Scene, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "RENEW_EVERY_S", 300.0)
    scene.name()
    clock.advance(400)
    for number in range(30):
        assert scene.deliver(process=number % 2).stored == 1
    wait_until(lambda: scene.calls() == 2, "the lead is fetched again")
    for process in (0, 1):
        scene.name(process)
        scene.processes[process].cache._executor.submit(lambda: None).result(10)
    assert scene.calls() == 2


@pytest.mark.usefixtures("_no_background")
def test_who_asks_soon_gets_the_older_content_and_sets_the_renewal_off(scene: Scene, clock: Clock) -> None:
    before, _ = scene.name()
    scene.rename("Renamed")
    clock.advance(cache_module.RENEW_EVERY_S)
    scene.deliver()
    scene.processes[0].memory.forget("default")
    assert scene.name() == (before, "stale")
    wait_until(lambda: scene.name() == ("Renamed", "hit"), "the change shows")
    assert scene.calls() == 2


@pytest.mark.usefixtures("_no_background")
def test_who_asks_later_waits_for_the_changed_lead(scene: Scene, clock: Clock) -> None:
    scene.name()
    scene.rename("Renamed")
    scene.deliver()
    clock.advance(cache_module.CHANGE_SHOWS_S + 1)
    scene.processes[0].memory.forget("default")
    assert scene.name() == ("Renamed", "miss")


@pytest.mark.usefixtures("_no_background")
def test_while_rd_station_fails_the_older_lead_is_served(
    scene: Scene, sandbox: SandboxProcess, clock: Clock
) -> None:
    before, _ = scene.name()
    scene.deliver()
    clock.advance(cache_module.CHANGE_SHOWS_S + 1)
    scene.processes[0].memory.forget("default")
    sandbox.patch(faults=[{"operation": "contact_get", "kind": "status", "status": 500}])
    assert scene.name() == (before, "stale")


def test_a_lead_that_was_not_there_is_asked_for_again(scene: Scene) -> None:
    email = "nova@example.com"
    with pytest.raises(NotFound):
        leads.lead_by_email(scene.processes[0], "default", email)
    headers = {"Authorization": f"Bearer {scene._token}"}
    url = f"{scene.sandbox.url}/platform/contacts"
    created = requests.post(url, json={"email": email, "name": "Nova"}, headers=headers, timeout=10).json()
    with pytest.raises(NotFound):
        leads.lead_by_email(scene.processes[0], "default", email)
    scene.deliver(uuid=created["uuid"], email=email)
    assert (
        json.loads(leads.lead_by_email(scene.processes[0], "default", email).content.body)["name"] == "Nova"
    )


def test_nothing_that_an_event_says_gets_into_the_cache(scene: Scene, clock: Clock) -> None:
    before, _ = scene.name()
    clock.advance(cache_module.RENEW_EVERY_S)
    body = event(uuid=scene.uuid, email=scene.email)
    body["contact"] |= {"name": "Forged", "tags": ["forged"]}
    scene.deliver_body(body)
    wait_until(lambda: scene.calls() == 2, "the lead is fetched again")
    assert scene.name()[0] == before


def test_repeated_and_late_events_renew_nothing(scene: Scene, clock: Clock) -> None:
    scene.deliver(at="2026-03-13T15:00:00Z")
    scene.name()
    clock.advance(cache_module.RENEW_EVERY_S)
    assert scene.deliver(at="2026-03-13T15:00:00Z").duplicates == 1
    assert scene.deliver(at="2026-03-13T14:59:00Z").late == 1
    scene.processes[1].memory.forget("default")
    assert scene.name(1)[1] == "hit"
    assert scene.calls() == 1


def test_an_answer_that_was_asked_for_before_the_event_counts_as_out_of_date(
    scene: Scene, clock: Clock
) -> None:
    asked = []

    def fetch(latest_start: float) -> Content:
        asked.append(latest_start)
        if len(asked) == 1:
            scene.deliver()
        return Content.of(json.dumps({"uuid": scene.uuid, "name": f"answer {len(asked)}"}).encode(), [])

    def get() -> tuple[bytes, str]:
        parameters = leads.lead_parameters("uuid", scene.uuid)
        served = scene.processes[0].cache.get("default", OF_A_LEAD, parameters, fetch)
        return served.content.body, served.state

    assert b"answer 1" in get()[0]
    clock.advance(cache_module.CHANGE_SHOWS_S + 1)
    scene.processes[0].memory.forget("default")
    body, state = get()
    assert (b"answer 2" in body, state) == (True, "miss")


def test_lists_are_fetched_again_after_a_change_but_not_all_the_time(scene: Scene, clock: Clock) -> None:
    first, second = scene.processes

    def state(services: Services) -> str:
        return leads.list_leads(services, "default", "1", FIRST_PAGE).state

    assert state(second) == "hit"
    scene.deliver()
    second.memory.forget("default")
    assert state(second) == "hit"
    clock.advance(cache_module.LIST_EVERY_S + 1)
    # It has no memory of the list: the table tells its age.
    first.memory.forget("default")
    first.cache._memory.drop("default")
    assert state(first) == "miss"
    assert scene.sandbox.calls()["contacts_list"] == {"200": 2}
    assert [state(first) for _ in range(3)] == ["hit"] * 3


def test_segmentations_stay(scene: Scene, clock: Clock) -> None:
    scene.deliver()
    clock.advance(60)
    scene.processes[1].memory.forget("default")
    leads.list_segmentations(scene.processes[1], "default", Listing(page=1, page_size=125, order=None))
    assert scene.sandbox.calls()["segmentations_list"] == {"200": 1}
