"""The client of the documents, run as a program of its own."""

import os
import subprocess
import sys

import pytest
import requests

from rdservice.services import Services
from tests.support.accounts import connect_account
from tests.support.documents import code_blocks, page
from tests.support.processes import Processes, Web
from tests.support.sandbox_process import SandboxProcess

pytestmark = pytest.mark.slow


@pytest.fixture
def web(processes: Processes) -> Web:
    return processes.web()


def client(web: Web, key: str) -> subprocess.CompletedProcess[str]:
    [code] = [
        contents
        for language, contents in code_blocks(page("en", "reference/http-api"))
        if language == "python"
    ]
    assert len([line for line in code.splitlines() if line]) == 20
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "URL": web.url, "KEY": key, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_prints_every_lead_also_when_rd_station_fails_at_first(
    web: Web, api_key: str, connected: Services, sandbox: SandboxProcess
) -> None:
    connect_account(connected, sandbox, due=False)
    sandbox.patch(
        leads=300, faults=[{"operation": "contacts_list", "kind": "status", "status": 503, "count": 1}]
    )
    done = client(web, api_key)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == len(set(lines)) == 300
    first = requests.get(
        f"{web.url}/rd/leads?page_size=1", headers={"Authorization": f"Bearer {api_key}"}, timeout=30
    ).json()["contacts"][0]
    assert lines[0] == f"{first['uuid']} {first['email']}"


def test_it_says_who_must_act_where_waiting_does_not_help(web: Web, api_key: str) -> None:
    done = client(web, api_key)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Connect the account at http")
