"""Lead events through real web processes: at once, repeated, killed, and from RD Station's side to the reader's."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from rdservice.services import Services
from tests.support.accounts import connect_account
from tests.support.deliveries import event, open_address
from tests.support.processes import Processes, Web, listening_socket
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

TOTAL = 60
SENDERS = 12


@pytest.fixture
def pair(connected: Services, sandbox: SandboxProcess) -> dict[str, Any]:
    return connect_account(connected, sandbox, due=False)


@pytest.fixture
def path(connected: Services, pair: dict[str, Any]) -> str:
    return f"/rd/webhooks/{open_address(connected)}"


def form(number: int) -> dict[str, Any]:
    return event(identifier=f"form {number}", at=f"2026-03-13T14:{number:02}:00Z")


def deliver(web: Web, path: str, number: int) -> int:
    """Return the status, 0 for a connection that broke. A delivery that is held up is repeated, as RD Station does."""
    try:
        return requests.post(web.url + path, json=form(number), timeout=30).status_code
    except requests.RequestException:
        return 0


def deliver_until_taken_or_broken(web: Web, path: str, number: int) -> int:
    """Deliver, and again while the service is too busy to take it; return the status, 0 for a broken connection."""
    while (status := deliver(web, path, number)) == 429:
        pass
    return status


def deliver_until_taken(web: Web, path: str, number: int) -> None:
    """Deliver as RD Station does, which repeats what is not answered with success."""
    wait_until(lambda: deliver(web, path, number) == 200, "the delivery is taken", seconds=60)


def read_all(web: Web, headers: dict[str, str]) -> list[str]:
    """Return the identifiers of all events in order; the numbers are without a gap."""
    found: list[str] = []
    after, more = 0, True
    while more:
        url = f"{web.url}/rd/events?after={after}&limit=25"
        page = requests.get(url, headers=headers, timeout=30).json()
        assert [shown["number"] for shown in page["events"]] == list(
            range(after + 1, after + 1 + len(page["events"]))
        )
        assert page["missed"] == 0
        found += [shown["event_identifier"] for shown in page["events"]]
        after, more = page["next_after"], page["more"]
    return found


def test_a_storm_of_repetitions_over_four_processes_stores_each_event_once(
    processes: Processes, path: str, authorized: dict[str, str]
) -> None:
    webs = [processes.web(), processes.web()]
    with ThreadPoolExecutor(SENDERS) as senders:
        list(
            senders.map(
                lambda number: deliver_until_taken(webs[number % 2], path, number // 3), range(3 * TOTAL)
            )
        )
    found = read_all(webs[0], authorized)
    assert (len(found), set(found)) == (TOTAL, {f"form {number}" for number in range(TOTAL)})


@pytest.mark.fault(
    "kill-9-taking-events",
    "a web process is killed while RD Station delivers events",
    "what was answered is kept; what was not comes again, and nothing is there twice",
)
def test_what_was_answered_outlives_a_kill_and_the_rest_comes_again(
    processes: Processes, path: str, authorized: dict[str, str]
) -> None:
    killed, other = processes.web(), processes.web()
    with ThreadPoolExecutor(SENDERS) as senders:
        responses = [
            senders.submit(deliver_until_taken_or_broken, killed, path, number) for number in range(TOTAL)
        ]
        wait_until(lambda: sum(response.done() for response in responses) >= TOTAL // 4, "some are taken")
        killed.kill()
    taken = {f"form {number}" for number, response in enumerate(responses) if response.result() == 200}
    assert taken
    assert taken <= set(read_all(other, authorized))
    with ThreadPoolExecutor(SENDERS) as senders:
        list(senders.map(lambda number: deliver_until_taken(other, path, number), range(TOTAL)))
    found = read_all(other, authorized)
    assert (len(found), set(found)) == (TOTAL, {f"form {number}" for number in range(TOTAL)})


def test_a_change_shows_in_every_process_after_one_call(
    processes: Processes,
    sandbox: SandboxProcess,
    pair: dict[str, Any],
    path: str,
    authorized: dict[str, str],
) -> None:
    web = processes.web()
    listed = requests.get(f"{web.url}/rd/leads", headers=authorized, timeout=30).json()["contacts"]
    uuid, email = listed[0]["uuid"], listed[0]["email"]
    with web.sessions_of_each_worker() as sessions:

        def names() -> set[str]:
            responses = [
                session.get(f"{web.url}/rd/leads/{uuid}", headers=authorized, timeout=30)
                for session in sessions
            ]
            return {str(response.json()["name"]) for response in responses}

        assert len(names()) == 1
        bearer = {"Authorization": f"Bearer {pair['access_token']}"}
        changed = {"name": "Renamed at RD Station"}
        url = f"{sandbox.url}/platform/contacts/uuid:{uuid}"
        requests.patch(url, json=changed, headers=bearer, timeout=10).raise_for_status()
        assert names() != {"Renamed at RD Station"}
        told = event(uuid=uuid, email=email)
        assert requests.post(web.url + path, json=told, timeout=30).status_code == 200
        wait_until(lambda: names() == {"Renamed at RD Station"}, "both workers serve the change")
        assert sandbox.calls()["contact_get"] == {"200": 2}


def test_from_the_subscription_to_the_reader(
    processes: Processes,
    sandbox: SandboxProcess,
    pair: dict[str, Any],
    authorized: dict[str, str],
) -> None:
    listening = listening_socket()
    own = {"RDSTATION_REDIRECT_URI": f"http://127.0.0.1:{listening.getsockname()[1]}/rd/callback"}
    web = processes.web(listening, **own)
    assert processes.flask("webhooks", "subscribe", **own) == "default: subscribed\n"
    conversion = {"conversion_identifier": "e-book", "email": "nova@example.com"}
    body = {"event_type": "CONVERSION", "event_family": "CDP", "payload": conversion}
    bearer = {"Authorization": f"Bearer {pair['access_token']}"}
    requests.post(f"{sandbox.url}/platform/events", json=body, headers=bearer, timeout=10).raise_for_status()
    wait_until(lambda: read_all(web, authorized) == ["e-book"], "the conversion is delivered")
    marked = {"event_type": "WEBHOOK.MARKED_OPPORTUNITY", "event_identifier": "call", "times": 3}
    assert [report["status"] for report in sandbox.webhook(**marked)] == [200, 200, 200]
    for old in ("lead", "leads", "array"):
        assert [report["status"] for report in sandbox.webhook(form=old, event_identifier=old)] == [200]
    assert read_all(web, authorized) == ["e-book", "call", "lead", "leads", "array"]
    assert processes.flask("webhooks", "unsubscribe", **own) == "default: unsubscribed\n"
    assert sandbox.webhook() == []
    assert json.loads(processes.flask("webhooks", "list", "--json")) == []
