"""An event drops the cached response of its lead, in all processes, and nothing else."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests

from rdservice.cache import table
from rdservice.cache.entries import Content, FetchFailed
from rdservice.config.settings import Settings
from rdservice.errors import NotFound, RdStationFailed
from rdservice.events import intake
from rdservice.events.intake import Lanes, Taken
from rdservice.events.payloads import read
from rdservice.leads.parameters import Listing
from rdservice.leads.queries import cache_names, lead_by_email, lead_by_uuid, list_leads
from rdservice.leads.segmentations import list_segmentations
from rdservice.services import Services
from rdservice.tokens.memory import REMEMBER_S
from tests.conftest import Clock
from tests.support.accounts import connect_account
from tests.support.deliveries import event, open_address
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
Response = tuple[str, str]
"""The lead's name, and where the response came from."""

FIRST_PAGE = Listing(page=1, page_size=25, order=None)
SEGMENTATIONS = Listing(page=1, page_size=125, order=None)


class Scene:
    """Two processes, an address, and a lead at RD Station that may change."""

    def __init__(self, processes: list[Services], sandbox: SandboxProcess) -> None:
        self.processes, self.sandbox = processes, sandbox
        self._token = connect_account(processes[0], sandbox, due=False)["access_token"]
        self._secret, self._lanes = open_address(processes[0]), Lanes()
        self._minute = 0
        listed = json.loads(list_leads(processes[0], "default", None, FIRST_PAGE).content.body)
        self.uuid, self.email = listed["contacts"][0]["uuid"], listed["contacts"][0]["email"]
        self.other = listed["contacts"][1]["uuid"]

    def rename(self, name: str) -> None:
        """Change the lead at RD Station."""
        headers = {"Authorization": f"Bearer {self._token}"}
        url = f"{self.sandbox.url}/platform/contacts/uuid:{self.uuid}"
        requests.patch(url, json={"name": name}, headers=headers, timeout=10).raise_for_status()

    def create(self, email: str, name: str) -> str:
        """Create a lead at RD Station; return its UUID."""
        headers = {"Authorization": f"Bearer {self._token}"}
        body = {"email": email, "name": name}
        created = requests.post(
            f"{self.sandbox.url}/platform/contacts", json=body, headers=headers, timeout=10
        )
        return str(created.json()["uuid"])

    def deliver(self, process: int = 0, **more: Any) -> Taken:
        """Tell one process of the lead, each time a minute later."""
        self._minute += 1
        given = {"uuid": self.uuid, "email": self.email, "at": f"2026-03-13T14:{self._minute:02}:00Z"} | more
        return self.deliver_body(event(**given), process)

    def deliver_body(self, body: Any, process: int = 0) -> Taken:
        return intake.receive(self.processes[process], self._lanes, self._secret, read(body))

    def response(self, process: int = 0) -> Response:
        served = lead_by_uuid(self.processes[process], "default", self.uuid)
        return json.loads(served.content.body)["name"], served.state

    def response_by_email(self, email: str, process: int = 0) -> Response:
        served = lead_by_email(self.processes[process], "default", email)
        return json.loads(served.content.body)["name"], served.state

    def calls(self) -> int:
        return sum(self.sandbox.calls().get("contact_get", {}).values())


@pytest.fixture
def scene(
    make_services: Callable[[Settings], Services], sandbox_settings: Settings, sandbox: SandboxProcess
) -> Scene:
    return Scene([make_services(sandbox_settings) for _ in range(2)], sandbox)


def let_memory_end() -> None:
    """Wait for as long as a process believes its memory of the table."""
    time.sleep(REMEMBER_S)


def test_half_a_second_after_an_event_no_process_serves_the_older_lead(scene: Scene) -> None:
    before = scene.response()[0]
    assert [scene.response(process) for process in (0, 1, 0, 1)] == [(before, "hit")] * 4
    scene.rename("Renamed")
    let_memory_end()
    assert [scene.response(process) for process in (0, 1)] == [(before, "hit")] * 2
    scene.deliver()
    let_memory_end()
    assert [scene.response(process) for process in (1, 0)] == [("Renamed", "miss"), ("Renamed", "hit")]
    assert scene.calls() == 2


def test_a_lead_known_by_e_mail_is_dropped_however_the_address_is_spelled(scene: Scene) -> None:
    spelled = scene.email.title()
    before, _ = scene.response_by_email(spelled)
    assert scene.response_by_email(scene.email) == (before, "hit")
    scene.rename("Renamed")
    scene.deliver(uuid="not told")
    let_memory_end()
    assert scene.response_by_email(spelled) == ("Renamed", "miss")
    assert scene.calls() == 2


def test_an_event_makes_no_call(scene: Scene) -> None:
    scene.response()
    scene.response_by_email(scene.email)
    for number in range(30):
        assert scene.deliver(process=number % 2).stored == 1
    let_memory_end()
    assert scene.calls() == 2
    assert [scene.response()[1] for _ in range(3)] == ["miss", "hit", "hit"]
    assert scene.calls() == 3


def test_other_leads_and_all_lists_keep_their_time(scene: Scene) -> None:
    process = scene.processes[0]
    lead_by_uuid(process, "default", scene.other)
    scene.deliver()
    let_memory_end()
    assert lead_by_uuid(process, "default", scene.other).state == "hit"
    assert list_leads(process, "default", None, FIRST_PAGE).state == "hit"
    assert list_segmentations(process, "default", SEGMENTATIONS).state == "hit"
    assert scene.calls() == 1


def test_the_dropped_lead_is_not_served_while_rd_station_fails(
    scene: Scene, sandbox: SandboxProcess, clock: Clock
) -> None:
    scene.response()
    scene.deliver()
    let_memory_end()
    sandbox.patch(faults=[{"operation": "contact_get", "kind": "status", "status": 500}])
    with pytest.raises(RdStationFailed):
        scene.response()
    sandbox.patch(faults=[])
    clock.advance(3)
    assert scene.response()[1] == "miss"


def test_a_lead_that_was_not_there_is_asked_for_again(scene: Scene) -> None:
    email = "nova@example.com"
    with pytest.raises(NotFound):
        scene.response_by_email(email)
    uuid = scene.create(email, "Nova")
    with pytest.raises(NotFound):
        scene.response_by_email(email)
    scene.deliver(uuid=uuid, email=email)
    assert scene.response_by_email(email) == ("Nova", "miss")


def test_nothing_that_an_event_says_gets_into_the_cache(scene: Scene) -> None:
    before, _ = scene.response()
    body = event(uuid=scene.uuid, email=scene.email)
    body["contact"] |= {"name": "Forged", "tags": ["forged"]}
    scene.deliver_body(body)
    let_memory_end()
    assert scene.response() == (before, "miss")


def test_a_repeated_event_drops_nothing_and_a_late_one_does(scene: Scene) -> None:
    scene.deliver(at="2026-03-13T15:00:00Z")
    scene.response()
    assert scene.deliver(at="2026-03-13T15:00:00Z").duplicates == 1
    let_memory_end()
    assert scene.response()[1] == "hit"
    assert scene.deliver(at="2026-03-13T14:59:00Z").late == 1
    let_memory_end()
    assert scene.response()[1] == "miss"


def test_what_is_not_stored_drops_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = table.drop

    def drop_and_break(conn: Conn, keys: list[bytes]) -> None:
        drop(conn, keys)
        raise ZeroDivisionError("a bug")

    scene.response()
    with monkeypatch.context() as broken:
        broken.setattr(table, "drop", drop_and_break)
        with pytest.raises(ZeroDivisionError):
            scene.deliver(at="2026-03-13T15:00:00Z")
    assert scene.response(1)[1] == "hit"
    assert scene.deliver(at="2026-03-13T15:00:00Z").stored == 1


class Slow:
    """Stands for RD Station, whose first response is on its way until `arrives` is set."""

    def __init__(self, name: str, *, first: FetchFailed | None = None) -> None:
        self.name, self.first = name, first
        self.asked = 0
        self.arrives = threading.Event()
        self.under_way = threading.Event()

    def fetch(self, deadline: float) -> Content:
        self.asked += 1
        number = self.asked
        if number == 1:
            self.under_way.set()
            assert self.arrives.wait(20)
            if self.first is not None:
                raise self.first
        return Content.of(f"{self.name} {number}".encode(), [])

    def get(self, services: Services, uuid: str) -> Response:
        (name,) = cache_names(uuid=uuid, email=None)
        served = services.cache.get("default", *name, self.fetch)
        return served.content.body.decode(), served.state


@pytest.mark.parametrize(
    "first",
    [None, FetchFailed(NotFound("Unknown."), stale=False, gone=True, shared_s=30)],
    ids=["200", "404"],
)
def test_a_response_from_before_the_event_that_arrives_after_it_is_not_kept(
    scene: Scene, first: FetchFailed | None
) -> None:
    slow = Slow("response", first=first)
    with ThreadPoolExecutor(1) as caller:
        asked = caller.submit(slow.get, scene.processes[0], scene.uuid)
        assert slow.under_way.wait(20)
        scene.deliver(process=1)
        slow.arrives.set()
        assert asked.result() == ("response 2", "miss")
    assert slow.get(scene.processes[1], scene.uuid) == ("response 2", "hit")
    assert slow.asked == 2


def test_a_response_from_before_the_event_does_not_replace_one_from_after_it(scene: Scene) -> None:
    slow = Slow("response")
    with ThreadPoolExecutor(1) as caller:
        asked = caller.submit(slow.get, scene.processes[0], scene.uuid)
        assert slow.under_way.wait(20)
        scene.deliver(process=1)
        assert slow.get(scene.processes[1], scene.uuid) == ("response 2", "miss")
        slow.arrives.set()
        assert asked.result() == ("response 2", "hit")
    assert slow.asked == 2


def test_a_response_from_before_the_event_is_not_kept_while_another_process_asks_anew(scene: Scene) -> None:
    slow, second = Slow("older"), Slow("newer")
    with ThreadPoolExecutor(2) as callers:
        asked = callers.submit(slow.get, scene.processes[0], scene.uuid)
        assert slow.under_way.wait(20)
        scene.deliver(process=1)
        anew = callers.submit(second.get, scene.processes[1], scene.uuid)
        assert second.under_way.wait(20)
        slow.arrives.set()
        time.sleep(0.3)
        assert not asked.done()
        second.arrives.set()
        # It waited for the other process's response.
        assert asked.result() == anew.result() == ("newer 1", "miss")
    assert (slow.asked, second.asked) == (1, 1)
