"""The control routes."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.sandbox.conftest import Core
from tests.support.sandbox_process import SandboxProcess

OPERATIONS = {
    "token_exchange",
    "token_refresh",
    "revoke",
    "account_info",
    "segmentations_list",
    "contacts_list",
    "contact_get",
    "other",
}


def test_calls_are_counted_by_operation_and_status(core: Core) -> None:
    pair = core.pair()
    token = pair["access_token"]
    core.token(refresh_token=pair["refresh_token"])
    core.token(refresh_token="unknown")
    core.get("/marketing/account_info", token)
    core.get("/platform/segmentations/", token)
    core.get("/platform/segmentations/1/contacts?page=2", token)
    core.get("/platform/contacts/email:nobody@example.com", token)
    core.get("/platform/contacts/fields", token)
    core.get("/platform/nothing", token)
    core.send("POST", "/auth/revoke", token, {})
    core.call("GET", "/_sandbox")
    assert core.calls() == {
        "token_exchange": {"200": 1},
        "token_refresh": {"200": 1, "401": 1},
        "revoke": {"415": 1},
        "account_info": {"200": 1},
        "segmentations_list": {"200": 1},
        "contacts_list": {"200": 1},
        "contact_get": {"404": 1},
        "other": {"200": 1, "404": 1},
    }


def test_the_report_names_every_operation_and_setting(core: Core) -> None:
    report = core.call("GET", "/_sandbox").json()
    assert set(report["calls"]) == OPERATIONS
    named = {
        "access_token_lifetime",
        "rotate_refresh_tokens",
        "latency_ms",
        "rate_limit",
        "leads",
        "scope",
        "aud",
    }
    assert named | {"clock_offset_s", "faults"} <= set(report["settings"])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"colour": 1}, "colour"),
        ({"access_token_lifetime": "60"}, "access_token_lifetime"),
        ({"access_token_lifetime": 0}, "access_token_lifetime"),
        ({"access_token_lifetime": True}, "access_token_lifetime"),
        ({"access_token_lifetime": 1.5}, "access_token_lifetime"),
        ({"rotate_refresh_tokens": 1}, "rotate_refresh_tokens"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"latency_ms": None}, "latency_ms"),
        ({"rate_limit": 0}, "rate_limit"),
        ({"rate_limit": "120"}, "rate_limit"),
        ({"leads": -1}, "leads"),
        ({"scope": None}, "scope"),
        ({"aud": ["x"]}, "aud"),
        ({"clock_offset_s": "now"}, "clock_offset_s"),
        ({"error_shape": "round"}, "error_shape"),
        ({"faults": {}}, "faults"),
        ({"faults": ["status"]}, "faults[0]"),
        ({"faults": [{"operation": "refresh", "kind": "html"}]}, "faults[0].operation"),
        ({"faults": [{"operation": "*", "kind": "explode"}]}, "faults[0].kind"),
        ({"faults": [{"operation": "*", "kind": "status"}]}, "faults[0].status"),
        ({"faults": [{"operation": "*", "kind": "truncated", "status": 500}]}, "faults[0].status"),
        ({"faults": [{"operation": "*", "kind": "html", "rate": 2}]}, "faults[0].rate"),
        ({"faults": [{"operation": "*", "kind": "html", "count": 0}]}, "faults[0].count"),
        (
            {"faults": [{"operation": "*", "kind": "html"}, {"operation": "*", "kind": "html", "x": 0}]},
            "faults[1].x",
        ),
    ],
    ids=str,
)
def test_a_wrong_setting_is_a_422_that_names_it_and_nothing_is_applied(
    core: Core, settings: dict[str, Any], named: str
) -> None:
    before = core.call("GET", "/_sandbox").json()["settings"]
    response = core.call(
        "PATCH", "/_sandbox", {"leads": 7, **settings} if "leads" not in settings else settings
    )
    assert response.status == 422
    assert response.json()["error"].startswith(f"{named}: ")
    assert core.call("GET", "/_sandbox").json()["settings"] == before


@pytest.mark.parametrize("body", [b"[]", b"{", b"1"])
def test_a_body_that_is_no_object_is_a_422(core: Core, body: bytes) -> None:
    assert core.sandbox.handle("PATCH", "/_sandbox", body=body).status == 422


def test_a_patch_answers_with_the_settings_as_they_are_now(core: Core) -> None:
    fault = {"operation": "*", "kind": "status", "status": 503, "rate": 0.5, "count": 2}
    response = core.call("PATCH", "/_sandbox", {"rate_limit": None, "faults": [fault]})
    assert response.json()["settings"]["rate_limit"] is None
    assert response.json()["settings"]["faults"] == [fault]


def test_a_patch_leaves_other_settings_as_they_are(core: Core) -> None:
    core.patch(leads=7, scope="none")
    core.patch(latency_ms=0.5)
    core.patch(scope="contacts")
    settings = core.call("GET", "/_sandbox").json()["settings"]
    assert (settings["leads"], settings["scope"], settings["latency_ms"]) == (7, "contacts", 0.5)


@pytest.mark.parametrize("peer", ["203.0.113.9", "10.0.0.1", "::ffff:203.0.113.9", "2001:db8::1", ""])
@pytest.mark.parametrize("target", ["/_sandbox", "/_sandbox/reset", "/_sandbox/", "/_sandbox/unknown"])
def test_only_this_machine_may_control(core: Core, peer: str, target: str) -> None:
    for method in ("GET", "POST", "PATCH"):
        assert core.sandbox.handle(method, target, peer=peer).status == 403


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_every_loopback_address_is_this_machine(core: Core, peer: str) -> None:
    assert core.sandbox.handle("GET", "/_sandbox", peer=peer).status == 200


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host"])
def test_a_proxy_on_this_machine_does_not_open_the_control_routes(core: Core, header: str) -> None:
    assert core.sandbox.handle("GET", "/_sandbox", {header: "203.0.113.9"}).status == 403


def addresses_of_this_machine() -> list[str]:
    """127.0.0.1, and the address under which others reach this machine, if it has one."""
    addresses = ["127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))  # sends nothing: only chooses the address to send from
        except OSError:
            return addresses
        return [*addresses, probe.getsockname()[0]]


def test_the_server_tells_the_peer_of_a_real_connection(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path / "state.db", host="0.0.0.0") as sandbox:  # noqa: S104  (a loopback socket has no other peers)
        for address in addresses_of_this_machine():
            url = sandbox.url.replace("127.0.0.1", address)
            expected = 200 if address.startswith("127.") else 403
            assert requests.get(f"{url}/_sandbox", timeout=10).status_code == expected
            assert requests.get(f"{url}/platform/segmentations", timeout=10).status_code == 401


def test_revoke_ends_every_token_and_open_code_of_the_account(core: Core) -> None:
    pair, code, other = core.pair(), core.code(), core.pair("account-2")
    response = core.call("POST", "/_sandbox/revoke", {"account": "default"})
    assert response.json() == {"account": "default", "revoked": 1}
    refused = core.token(refresh_token=pair["refresh_token"])
    assert (refused.status, refused.json()["errors"]["error_type"]) == (401, "INVALID_REFRESH_TOKEN")
    dead = core.get("/marketing/account_info", pair["access_token"])
    assert (dead.status, "WWW-Authenticate" in dead.headers) == (401, False)
    assert core.token(code=code).json()["errors"]["error_type"] == "EXPIRED_CODE_GRANT"
    assert core.token(refresh_token=other["refresh_token"]).status == 200
    assert core.token(refresh_token=core.pair()["refresh_token"]).status == 200


@pytest.mark.parametrize(
    "body", [{}, {"account": "somebody"}, {"account": 2}, {"account": "default", "x": 1}]
)
def test_revoke_wants_an_account(core: Core, body: dict[str, Any]) -> None:
    assert core.call("POST", "/_sandbox/revoke", body).status == 422


def test_reset_forgets_everything(core: Core) -> None:
    core.patch(leads=3, faults=[{"operation": "account_info", "kind": "html"}])
    pair, code = core.pair(), core.code()
    core.send("POST", "/platform/contacts", pair["access_token"], {"email": "nova@example.com"})
    start = core.call("POST", "/_sandbox/reset").json()
    assert start["settings"]["leads"] == 1_000
    assert start["settings"]["faults"] == []
    assert not any(start["calls"].values())
    assert core.token(code=code).status == 401
    assert core.token(refresh_token=pair["refresh_token"]).status == 401
    fresh = core.pair()
    assert core.get("/marketing/account_info", pair["access_token"]).status == 401
    assert core.get("/platform/contacts/email:nova@example.com", fresh["access_token"]).status == 404


def test_the_clock_can_be_set_ahead(sandbox: SandboxProcess) -> None:
    pair = sandbox.pair()
    bearer = {"Authorization": f"Bearer {pair['access_token']}"}
    before = requests.get(f"{sandbox.url}/marketing/account_info", headers=bearer, timeout=10)
    assert before.status_code == 200
    sandbox.patch(clock_offset_s=365 * 86_400)
    after = requests.get(f"{sandbox.url}/marketing/account_info", headers=bearer, timeout=10)
    assert after.status_code == 401
    assert "expired_token" in after.headers["WWW-Authenticate"]
    assert int(after.headers["Date"].split()[3]) == int(before.headers["Date"].split()[3]) + 1


def test_an_unknown_control_route_or_method_says_so(core: Core) -> None:
    assert core.call("GET", "/_sandbox/nothing").status == 404
    assert core.call("DELETE", "/_sandbox").status == 405
    assert core.call("GET", "/_sandboxes").json()["errors"]["error_type"] == "RESOURCE_NOT_FOUND"


def test_the_class_for_other_tests_shows_what_the_sandbox_refused(sandbox: SandboxProcess) -> None:
    with pytest.raises(ValueError, match="colour: unknown setting"):
        sandbox.patch(colour="blue")
    assert sandbox.patch(leads=5)["settings"]["leads"] == 5
    started = time.time()
    assert sandbox.pair("account-2")["expires_in"] == 86_400
    assert sandbox.calls()["token_exchange"] == {"200": 1}
    assert json.dumps(sandbox.report())
    assert time.time() >= started
