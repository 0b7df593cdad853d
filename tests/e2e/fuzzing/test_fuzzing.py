"""schemathesis sends the real service what the document allows and what it forbids, and finds nothing wrong.

`RDSERVICE_FUZZING_SECONDS` makes a long run of it, each time with other requests.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from rdservice.access import keys, operators, passwords
from rdservice.services import Services
from rdservice.web.api import openapi
from tests.conftest import CLIENT_ID, CLIENT_SECRET
from tests.support.accounts import connect_account
from tests.support.deliveries import open_address
from tests.support.processes import REPOSITORY, Processes, Web
from tests.support.sandbox_process import SandboxProcess

SECONDS = int(os.environ.get("RDSERVICE_FUZZING_SECONDS") or 0)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 600)]

CONFIG = Path(__file__).with_name("schemathesis.toml")
EMAIL = "ana@example.com"
PASSWORD = "correct horse battery"
COOKIE = "__Host-rdservice_session"
NEVER_WELL = {
    "/rd/api/{path}",
    "/rd/callback",
    "/rd/authorizations/{pair_id}",
    "/rd/leads/email/{email}",
    "/password",
}
"""Paths that need what no document tells: a state that was given out and the code that RD Station gave for it, the
address of a lead that there is, and a password whose change would end the session with which all pages are asked for.
"""
RENEWALS, LEADS = ("token_refresh", "revoke"), ("segmentations_list", "contacts_list", "contact_get")
FAULTS = [
    *({"operation": name, "kind": "status", "status": 401, "rate": 0.1} for name in LEADS),
    *(
        {"operation": name, "kind": "status", "status": status, "rate": 0.1}
        for name in (*RENEWALS, *LEADS)
        for status in (403, 429, 500)
    ),
    *(
        {"operation": name, "kind": kind, "rate": 0.1}
        for name in ("account_info", *RENEWALS, *LEADS)
        for kind in ("drop_before", "drop_after", "html", "truncated")
    ),
]


@pytest.fixture
def web(processes: Processes, conn: psycopg.Connection[Any]) -> Web:
    """A service under attack, with a worker, and an operator who may log in."""
    assert operators.create(conn, EMAIL, passwords.hash_password(PASSWORD))
    processes.worker()
    return processes.web(
        # With https and without a port, so that the session's cookie has the name that stands in the document.
        RDSTATION_REDIRECT_URI="https://localhost/rd/callback",
        TRUSTED_PROXIES="1",
        RDSTATION_RATE_LIMIT="100000",
        # One process: another would know a removed token for another half a second, as documented.
        WEB_CONCURRENCY="1",
    )


@pytest.fixture
def lead(connected: Services, sandbox: SandboxProcess) -> dict[str, str]:
    """A lead of the account `steady`."""
    bearer = {
        "Authorization": f"Bearer {connect_account(connected, sandbox, 'steady', due=False)['access_token']}"
    }
    listed = requests.get(f"{sandbox.url}/platform/segmentations/1/contacts", headers=bearer, timeout=20)
    found: dict[str, str] = listed.json()["contacts"][0]
    return found


@pytest.fixture
def secrets(
    web: Web,
    sandbox: SandboxProcess,
    connected: Services,
    conn: psycopg.Connection[Any],
    api_key: str,
    lead: dict[str, str],
) -> dict[str, str]:
    """What `fuzzing/schemathesis.toml` and `fuzzing/hooks.py` find in their environment."""
    # Whose subscriptions nobody ends.
    connect_account(connected, sandbox, "hooked", due=False)
    with requests.Session() as stranger, requests.Session() as browser:
        form_token = csrf_token(stranger, f"{web.url}/login")
        form = {"csrf_token": csrf_token(browser, f"{web.url}/login"), "email": EMAIL, "password": PASSWORD}
        response = browser.post(f"{web.url}/login", data=form, timeout=20, allow_redirects=False)
        assert response.status_code == 303
        show_cookie(browser)
        return {
            "FUZZING_API_KEY": api_key,
            "FUZZING_CSRF_TOKEN": csrf_token(browser, f"{web.url}/"),
            "FUZZING_SESSION": browser.cookies[COOKIE],
            "FUZZING_FORM_COOKIE": f"{COOKIE}={stranger.cookies[COOKIE]}",
            "FUZZING_FORM_CSRF": form_token,
            "FUZZING_SANDBOX_URL": sandbox.url,
            "FUZZING_SANDBOX_REDIRECT_URI": sandbox.redirect_uri,
            "FUZZING_ACCOUNT": "steady",
            "FUZZING_KEY_ID": new_key_id(conn),
            "FUZZING_OTHER_KEY_ID": new_key_id(conn),
            "FUZZING_WEBHOOK_SECRET": open_address(connected, "hooked"),
            "FUZZING_LEAD_UUID": lead["uuid"],
            "FUZZING_LEAD_EMAIL": lead["email"],
            "RDSTATION_CLIENT_ID": CLIENT_ID,
            "RDSTATION_CLIENT_SECRET": CLIENT_SECRET,
        }


def new_key_id(conn: psycopg.Connection[Any]) -> str:
    """Make a key that may be revoked, and return the part by which it is known."""
    return keys.create(conn, "another program", ["leads:read"], created_by="test").split("_")[1]


def csrf_token(browser: requests.Session, url: str) -> str:
    """Return the CSRF token of a page."""
    page = browser.get(url, headers={"Accept": "text/html"}, timeout=20).text
    show_cookie(browser)
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def show_cookie(browser: requests.Session) -> None:
    """Send the session's cookie although this is no https: the test stands where a proxy would."""
    browser.headers["Cookie"] = f"{COOKIE}={browser.cookies[COOKIE]}"


def attack(web: Web, secrets: dict[str, str], folder: Path, *options: str) -> None:
    """Run schemathesis with all its checks; fail with its report when it finds anything."""
    command: Sequence[str] = [
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(CONFIG), "--no-color"),
        *("run", f"{web.url}/openapi.json", "--checks", "all", *options),
        *(["--max-time", str(SECONDS)] if SECONDS else ["--seed", "1"]),
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | secrets
    done = subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "Traceback" not in web.log
    assert "unexpected" not in web.log


def responses(web: Web) -> set[tuple[str, str, int]]:
    """Return method, path and status of all requests in the access log."""
    lines = re.findall(r"rdservice\.access: (\w+) (/\S*) (\d+) ", web.log)
    return {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path), int(status))
        for method, path, status in lines
    }


def test_schemathesis_finds_nothing_and_every_operation_was_also_done(
    web: Web, secrets: dict[str, str], sandbox: SandboxProcess, tmp_path: Path
) -> None:
    sandbox.patch(rate_limit=None)
    attack(web, secrets, tmp_path)
    done = {(method, path) for method, path, status in responses(web) if status < 400}
    documented = {
        (method, path)
        for path, item in json.loads(openapi.DOCUMENT)["paths"].items()
        for method in item.keys() - {"parameters"}
        if path not in NEVER_WELL
    }
    assert documented <= done


def test_schemathesis_finds_nothing_undocumented_while_rd_station_fails_in_many_ways(
    web: Web, secrets: dict[str, str], sandbox: SandboxProcess, tmp_path: Path
) -> None:
    sandbox.patch(rate_limit=60, faults=FAULTS)
    # That RD Station failed is a documented answer with a server's status. An export that cannot go on is tried again
    # for a minute and then cut off.
    options = ("--exclude-checks", "not_a_server_error", "--exclude-operation-id", "exportLeads")
    attack(web, secrets, tmp_path, *options)
    statuses = {status for _, _, status in responses(web)}
    assert statuses >= {200, 429, 502, 503}
    assert 500 not in statuses
