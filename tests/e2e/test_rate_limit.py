"""One account's budget of calls, shared by four web processes, against a sandbox that counts them too."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import requests

from rdservice.services import Services
from tests.support.accounts import connect_account
from tests.support.odd_server import odd_server, respond_with
from tests.support.processes import Processes, Web
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LIMIT = 120
CALLERS = 100
LEADS = 200_000
PAUSE_S = 200


@pytest.fixture
def webs(processes: Processes, connected: Services, sandbox: SandboxProcess) -> list[Web]:
    """Four processes under two gunicorns; they and the sandbox keep the same limit."""
    connect_account(connected, sandbox, due=False)
    sandbox.patch(rate_limit=LIMIT, leads=LEADS)
    return [processes.web(RDSTATION_RATE_LIMIT=str(LIMIT)) for _ in range(2)]


def answered(sandbox: SandboxProcess) -> dict[str, int]:
    """How many calls the sandbox has answered with each status, those for tokens aside."""
    counts: dict[str, int] = {}
    for operation, statuses in sandbox.calls().items():
        if not operation.startswith("token_"):
            for status, count in statuses.items():
                counts[status] = counts.get(status, 0) + count
    return counts


class Callers:
    """Ask for something new each time, through a route of leads or any other; wait when they are told to."""

    def __init__(self, webs: list[Web], headers: dict[str, str]) -> None:
        self._webs = webs
        self._headers = headers
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        self.unexpected: list[str] = []
        self.refused = 0

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask_on) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _ask_on(self) -> None:
        while not self._over.is_set():
            number = next(self._numbers)
            route = "/rd/leads" if number % 2 else "/rd/api/platform/segmentations/1/contacts"
            url = f"{self._webs[number // 2 % 2].url}{route}?page={number}&page_size=10"
            self._ask_until_served(url)

    def _ask_until_served(self, url: str) -> None:
        while not self._over.is_set():
            response = requests.get(url, headers=self._headers, timeout=60)
            if response.status_code == 200:
                return
            if response.status_code != 429 or "X-Answer-From" in response.headers:
                self.unexpected.append(f"{response.status_code} {response.text}")
                return
            self.refused += 1
            self._over.wait(int(response.headers["Retry-After"]))


def test_100_callers_of_four_processes_never_make_rd_station_say_that_it_is_too_much(
    webs: list[Web], sandbox: SandboxProcess, authorized: dict[str, str]
) -> None:
    callers = Callers(webs, authorized)
    with callers.at_work():
        wait_until(
            lambda: answered(sandbox).get("200", 0) >= 2 * LIMIT or callers.unexpected,
            "the plan's calls of two minutes are made",
            seconds=300,
        )
    assert callers.unexpected == []
    assert set(answered(sandbox)) <= {"200", "none"}
    assert callers.refused > 0


def test_readers_are_served_beside_an_export_that_goes_on(
    webs: list[Web], sandbox: SandboxProcess, authorized: dict[str, str]
) -> None:
    url = f"{webs[0].url}/rd/leads/export"
    with requests.get(url, headers=authorized, stream=True, timeout=60) as response:
        exported, over = [0], threading.Event()

        def read() -> None:
            for chunk in response.iter_content(None):
                exported[0] += chunk.count(b"\n")
                if over.is_set():
                    return

        reading = threading.Thread(target=read)
        reading.start()
        try:
            wait_until(
                lambda: answered(sandbox).get("200", 0) > LIMIT,
                "the export has used up a minute",
                seconds=200,
            )
            for page in range(20):
                # An order that the export does not read in.
                asked = f"{webs[page % 2].url}/rd/leads?page={page + 1}&page_size=7&order=name:asc"
                assert requests.get(asked, headers=authorized, timeout=60).status_code == 200
            before = exported[0]
            wait_until(lambda: exported[0] > before, "the export goes on", seconds=100)
        finally:
            over.set()
            reading.join()
    assert set(answered(sandbox)) <= {"200", "none"}


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_pause_that_rd_station_asks_for_holds_in_all_processes(
    processes: Processes, connected: Services, authorized: dict[str, str], form: str
) -> None:
    connect_account(connected, due=False)
    until = datetime.now(UTC) + timedelta(seconds=PAUSE_S)
    retry_after = str(PAUSE_S) if form == "seconds" else format_datetime(until, usegmt=True)
    head = f"HTTP/1.1 429 Too Many Requests\r\nRetry-After: {retry_after}\r\nConnection: close\r\n"
    with odd_server(respond_with(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())) as upstream:
        webs = [processes.web(RDSTATION_API_URL=upstream.url) for _ in range(2)]
        path = "/rd/api/platform/contacts/fields"
        first = requests.get(webs[0].url + path, headers=authorized, timeout=60)
        assert (first.status_code, first.headers["X-Answer-From"]) == (429, "rdstation")
        assert first.headers["Retry-After"] == retry_after
        for web in webs:
            with web.sessions_of_each_worker() as sessions:
                for session in sessions:
                    for asked in (path, "/rd/leads?segmentation=1"):
                        response = session.get(web.url + asked, headers=authorized, timeout=60)
                        assert (response.status_code, response.json()["code"]) == (429, "too_many_requests")
                        assert 1 <= int(response.headers["Retry-After"]) <= PAUSE_S
        assert len(upstream.received) == 1
