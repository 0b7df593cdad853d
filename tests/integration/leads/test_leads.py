"""Leads as RD Station has them, from the sandbox over HTTP and, for odd answers, from a mock."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest
import requests
from requests_mock import Mocker

from rdservice import errors
from rdservice.cache import table
from rdservice.cache.entries import Served
from rdservice.config.settings import Settings
from rdservice.errors import RdServiceError
from rdservice.leads.parameters import Listing, parse_listing
from rdservice.leads.queries import lead_by_email, lead_by_uuid, list_leads
from rdservice.leads.segmentations import list_segmentations
from rdservice.rdstation.client import MAX_RESPONSE_BYTES
from rdservice.services import Services
from tests.conftest import Clock
from tests.support.accounts import connect_account, kill_access_token
from tests.support.sandbox_process import SandboxProcess
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]
MakeServices = Callable[[Settings], Services]

FIRST = Listing(page=1, page_size=25, order=None)
API = "http://127.0.0.1:9"
CONTACTS = f"{API}/platform/segmentations/1/contacts"


def first_leads(services: Services, segmentation: str = "1") -> Served:
    return list_leads(services, "default", segmentation, FIRST)


def decoded(served: Served) -> Any:
    return json.loads(served.content.body)


def code_of(call: Callable[[], object]) -> str:
    """Return the code of the error that `call` raises."""
    with pytest.raises(RdServiceError) as raised:
        call()
    return raised.value.code


def calls(sandbox: SandboxProcess, operation: str = "contacts_list") -> int:
    return sum(sandbox.calls()[operation].values())


def ask_directly(sandbox: SandboxProcess, pair: dict[str, Any], path: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    response = requests.get(sandbox.url + path, headers=headers, timeout=10)
    response.raise_for_status()
    return response


@pytest.fixture
def pair(connected: Services, sandbox: SandboxProcess) -> dict[str, Any]:
    """The tokens of the account `default`, which is connected."""
    return connect_account(connected, sandbox, due=False)


@pytest.fixture
def other(make_services: MakeServices, sandbox_settings: Settings) -> Services:
    """Another process."""
    return make_services(sandbox_settings)


def test_without_a_segmentation_all_leads_are_listed_as_rd_station_has_them(
    connected: Services, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    served = list_leads(connected, "default", None, FIRST)
    direct = ask_directly(sandbox, pair, "/platform/segmentations/1/contacts")
    assert served.content.body == direct.content
    assert dict(served.content.paging) == {
        "pagination-total-rows": "1000",
        "pagination-page-size": "25",
        "pagination-page": "1",
    }
    assert calls(sandbox, "segmentations_list") == 1


def test_a_segmentation_is_named_by_id_or_by_name_with_the_same_result(
    connected: Services, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    by_name = first_leads(connected, "Sem interação há 90 dias")
    assert first_leads(connected, "8").content is by_name.content
    assert decoded(by_name)["contacts"] != decoded(first_leads(connected, "1"))["contacts"]
    assert (calls(sandbox), calls(sandbox, "segmentations_list")) == (2, 1)


def test_an_unknown_segmentation_is_not_found_and_not_asked_for_again_and_again(
    connected: Services, sandbox: SandboxProcess, pair: dict[str, Any], clock: Clock
) -> None:
    for _ in range(3):
        assert code_of(lambda: first_leads(connected, "Não existe")) == "not_found"
        assert code_of(lambda: first_leads(connected, "4711")) == "not_found"
    assert (calls(sandbox), calls(sandbox, "segmentations_list")) == (1, 1)
    clock.advance(31)
    assert code_of(lambda: first_leads(connected, "4711")) == "not_found"
    assert calls(sandbox) == 2


def segmentations(*entries: tuple[int, str, bool | None]) -> dict[str, Any]:
    return {"segmentations": [{"id": i, "name": name, "standard": standard} for i, name, standard in entries]}


def test_a_segmentation_is_found_on_any_page_of_the_list(services: Services, requests_mock: Mocker) -> None:
    connect_account(services, due=False)
    many = [(number, f"segmentation {number}", None) for number in range(10, 135)]
    url = f"{API}/platform/segmentations"
    requests_mock.get(f"{url}?page=1&page_size=125", json=segmentations(*many))
    requests_mock.get(f"{url}?page=2&page_size=125", json=segmentations((7, "the wanted one", None)))
    listed = requests_mock.get(f"{url}/7/contacts", json={"contacts": []})
    first_leads(services, "the wanted one")
    assert listed.call_count == 1


def test_of_several_standard_segmentations_that_of_all_contacts_is_taken(
    services: Services, requests_mock: Mocker
) -> None:
    connect_account(services, due=False)
    found = segmentations((3, "Clientes", True), (4, "Todos os contatos da base de Leads", True))
    requests_mock.get(f"{API}/platform/segmentations", json=found)
    listed = requests_mock.get(f"{API}/platform/segmentations/4/contacts", json={"contacts": []})
    list_leads(services, "default", None, FIRST)
    assert listed.call_count == 1


def test_without_any_standard_segmentation_the_answer_says_what_to_do(
    services: Services, requests_mock: Mocker
) -> None:
    connect_account(services, due=False)
    requests_mock.get(f"{API}/platform/segmentations", json=segmentations((3, "Clientes", None)))
    with pytest.raises(errors.NotFound, match="/rd/segmentations"):
        list_leads(services, "default", None, FIRST)


def test_page_page_size_and_order_reach_rd_station(
    connected: Services, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    listing = parse_listing("3", "125", "email:desc")
    served = list_leads(connected, "default", None, listing)
    path = "/platform/segmentations/1/contacts?page=3&page_size=125&order=email:desc"
    assert served.content.body == ask_directly(sandbox, pair, path).content
    listed = list_segmentations(connected, "default", parse_listing("2", "3", "name:asc"))
    path = "/platform/segmentations?page=2&page_size=3&order=name:asc"
    assert listed.content.body == ask_directly(sandbox, pair, path).content


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("page", value) for value in ("0", "-1", "", "1.5", "x", "1e3", "٣", "9" * 12)],
        *[("page_size", value) for value in ("0", "126", "", "25 ", "all")],
        *[
            ("order", value)
            for value in ("", "name", "name:up", "name:ASC", "na me:asc", "a:asc&page=2", ":desc")
        ],
    ],
)
def test_a_wrong_parameter_of_a_list_is_named(name: str, value: str) -> None:
    given: dict[str, str | None] = {"page": None, "page_size": None, "order": None}
    with pytest.raises(errors.InvalidField) as raised:
        parse_listing(**given | {name: value})
    assert raised.value.extra == {"field": name}


@pytest.mark.parametrize("segmentation", ["", "a\nb", "x" * 256, "\x00"])
def test_a_segmentation_that_can_be_none_is_refused_without_a_call(
    services: Services, segmentation: str, requests_mock: Mocker
) -> None:
    connect_account(services, due=False)
    with pytest.raises(errors.InvalidField) as raised:
        first_leads(services, segmentation)
    assert raised.value.extra == {"field": "segmentation"}
    assert requests_mock.call_count == 0


def test_an_order_that_rd_station_does_not_know_is_the_callers_mistake(
    connected: Services, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    for _ in range(2):
        with pytest.raises(errors.InvalidField) as raised:
            list_leads(connected, "default", "1", parse_listing(None, None, "shoe_size:asc"))
        assert raised.value.extra == {"field": "order"}
    assert sandbox.calls()["contacts_list"] == {"400": 1}


def test_one_lead_is_found_by_uuid_and_by_email(
    connected: Services, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    lead = decoded(first_leads(connected))["contacts"][3]
    direct = ask_directly(sandbox, pair, f"/platform/contacts/{lead['uuid']}").content
    assert lead_by_uuid(connected, "default", lead["uuid"]).content.body == direct
    assert lead_by_uuid(connected, "default", lead["uuid"].upper()).content.body == direct
    assert lead_by_email(connected, "default", lead["email"]).content.body == direct
    assert sandbox.calls()["contact_get"] == {"200": 3}  # one of them by the test


@pytest.mark.parametrize("email", ["a+b/c%2F@example.com", "joão&co?x=1#y@example.com", "o'neil@example.com"])
def test_addresses_with_special_characters_reach_rd_station_whole(
    connected: Services, sandbox: SandboxProcess, pair: dict[str, Any], email: str
) -> None:
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    contacts = f"{sandbox.url}/platform/contacts"
    requests.post(contacts, json={"email": email}, headers=headers, timeout=10).raise_for_status()
    assert decoded(lead_by_email(connected, "default", email))["email"] == email


@pytest.mark.parametrize(
    "email",
    [
        None,
        "",
        7,
        ["a@b"],
        "ab",
        "no-at-sign",
        "@example.com",
        "ana@",
        "a b@c.d",
        "a\n@b.c",
        "a" * 250 + "@b.cd",
    ],
)
def test_what_is_no_email_address_is_refused_without_a_call_and_not_repeated(
    services: Services, requests_mock: Mocker, email: object
) -> None:
    connect_account(services, due=False)
    with pytest.raises(errors.InvalidField) as raised:
        lead_by_email(services, "default", email)
    assert raised.value.extra == {"field": "email"}
    assert not isinstance(email, str) or len(email) < 3 or email not in raised.value.detail
    assert requests_mock.call_count == 0


@pytest.mark.parametrize(
    "text",
    [
        "lookup",
        "7a1f8e0c2b0c4b0e9b577d1f4f0c2a11",
        "{7a1f8e0c-2b0c-4b0e-9b57-7d1f4f0c2a11}",
        "urn:uuid:7a1f8e0c-2b0c-4b0e-9b57-7d1f4f0c2a11",
        "7a1f8e0c-2b0c-4b0e-9b57-7d1f4f0c2_11",
        " a1f8e0c-2b0c-4b0e-9b57-7d1f4f0c2a11",
        "7a1f8e0c-2b0c-4b0e-9b57-7d1f4f0c2a1١",
        "7a1f8e0c-2b0c-4b0e-9b57-7d1f4f0c2a11\n",
    ],
)
def test_what_is_no_uuid_is_refused_without_a_call(
    services: Services, requests_mock: Mocker, text: str
) -> None:
    connect_account(services, due=False)
    with pytest.raises(errors.InvalidField) as raised:
        lead_by_uuid(services, "default", text)
    assert raised.value.extra == {"field": "uuid"}
    assert requests_mock.call_count == 0


def test_an_unknown_lead_is_not_found_and_asked_for_again_after_a_while(
    connected: Services, sandbox: SandboxProcess, pair: dict[str, Any], clock: Clock
) -> None:
    def ask() -> Served:
        return lead_by_email(connected, "default", "nobody@example.com")

    assert [code_of(ask), code_of(ask)] == ["not_found", "not_found"]
    assert sandbox.calls()["contact_get"] == {"404": 1}
    clock.advance(31)
    assert code_of(ask) == "not_found"
    assert sandbox.calls()["contact_get"] == {"404": 2}


FAULTS: list[tuple[dict[str, Any], str, bool]] = [
    ({"kind": "status", "status": 500}, "rdstation_failed", True),
    ({"kind": "status", "status": 503}, "rdstation_failed", True),
    ({"kind": "status", "status": 403}, "rdstation_failed", False),
    ({"kind": "status", "status": 418}, "rdstation_failed", False),
    ({"kind": "status", "status": 204}, "rdstation_failed", False),
    ({"kind": "status", "status": 429, "retry_after": 30}, "too_many_requests", True),
    ({"kind": "drop_before"}, "rdstation_unavailable", True),
    ({"kind": "html"}, "rdstation_failed", True),
    ({"kind": "truncated"}, "rdstation_failed", True),
]


@pytest.mark.parametrize(("fault", "code", "stale"), FAULTS)
def test_each_failure_has_its_error_is_never_cached_as_data_and_is_covered_by_old_data_where_it_may(
    connected: Services,
    other: Services,
    sandbox: SandboxProcess,
    pair: dict[str, Any],
    clock: Clock,
    fault: dict[str, Any],
    code: str,
    stale: bool,
) -> None:
    sandbox.patch(faults=[{"operation": "contacts_list", **fault}])
    assert code_of(lambda: first_leads(connected)) == code
    assert code_of(lambda: first_leads(other)) == code
    assert calls(sandbox) == 1
    sandbox.patch(faults=[])
    clock.advance(31)
    good = first_leads(connected)
    assert good.state == "miss"
    sandbox.patch(faults=[{"operation": "contacts_list", **fault}])
    clock.advance(901)
    assert first_leads(other).state == "stale"  # while it is renewed
    wait_until(lambda: calls(sandbox) == 3, "the renewal has failed")
    if stale:
        served = first_leads(other)
        assert (served.state, served.content.body) == ("stale", good.content.body)
    else:
        wait_until(lambda: refuses(other, code), "the failure is told")


def refuses(services: Services, code: str) -> bool:
    try:
        first_leads(services)
    except RdServiceError as error:
        return error.code == code
    return False


def test_paging_headers_that_cannot_be_passed_on_are_left_out(
    services: Services, requests_mock: Mocker
) -> None:
    connect_account(services, due=False)
    odd = {
        "pagination-page": "1",
        "Pagination-Total-Rows": "2\r\n 3",
        "pagination-é": "4",
        "pagination-page-size": "",
    }
    requests_mock.get(
        f"{API}/platform/segmentations/7/contacts", json={"contacts": []}, headers=odd | {"X-Other": "5"}
    )
    served = list_leads(services, "default", "7", parse_listing(None, None, None))
    assert served.content.paging == (("pagination-page", "1"),)


@pytest.mark.parametrize(
    "response",
    [
        {"text": "<html>We will be right back</html>", "headers": {"Content-Type": "application/json"}},
        {"text": '{"contacts": [{"uuid": "1"'},
        {"text": ""},
        {"text": "null"},
        {"json": []},
        {"json": {}},
        {"json": {"contacts": {}}},
        {"json": {"contacts": ["ana"]}},
        {"json": {"error": "too many", "max": 120}},
        {"json": {"contacts": [{"name": "x" * MAX_RESPONSE_BYTES}]}},
        {"text": '{"contacts": ' + "[" * 100_000},
    ],
    ids=[
        "html",
        "cut-off",
        "empty",
        "null",
        "list",
        "object",
        "object-in-it",
        "texts",
        "error",
        "huge",
        "deep",
    ],
)
def test_a_200_without_leads_is_no_data(
    services: Services, requests_mock: Mocker, clock: Clock, conn: Conn, response: dict[str, Any]
) -> None:
    connect_account(services, due=False)
    requests_mock.get(CONTACTS, **response)
    assert code_of(lambda: first_leads(services)) == "rdstation_failed"
    assert conn.execute("SELECT value FROM rdstation_cache").fetchall() == [(None,)]
    requests_mock.get(CONTACTS, json={"contacts": []})
    clock.advance(3)
    assert decoded(first_leads(services)) == {"contacts": []}


def test_no_answer_in_time_is_a_504(services: Services, requests_mock: Mocker) -> None:
    connect_account(services, due=False)
    requests_mock.get(CONTACTS, exc=requests.ReadTimeout)
    with pytest.raises(errors.RdStationTimeout) as raised:
        first_leads(services)
    assert (raised.value.status, raised.value.retry_after_s) == (504, 2.0)


def test_no_call_begins_that_its_lease_would_not_outlast(
    services: Services, requests_mock: Mocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_account(services, due=False)
    monkeypatch.setattr(table, "LEASE_S", 19)
    assert code_of(lambda: first_leads(services)) == "rdstation_timeout"
    assert requests_mock.call_count == 0


def test_a_401_leads_to_one_forced_refresh_and_one_repetition(
    connected: Services, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    kill_access_token(sandbox, pair)
    assert first_leads(connected).state == "miss"
    assert sandbox.calls()["contacts_list"] == {"401": 1, "200": 1}
    assert sandbox.calls()["token_refresh"] == {"200": 2}  # one of them by the test


def test_a_401_in_spite_of_a_new_token_names_the_scope_and_is_not_repeated_at_once(
    connected: Services, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    sandbox.patch(faults=[{"operation": "contacts_list", "kind": "status", "status": 401}])
    for _ in range(3):
        with pytest.raises(errors.RdStationFailed, match="may lack a scope"):
            first_leads(connected)
    assert sandbox.calls()["contacts_list"] == {"401": 2}
    assert sandbox.calls()["token_refresh"] == {"200": 1}


def test_a_dead_refresh_token_is_told_with_the_url_to_open_and_no_old_lead_hides_it(
    connected: Services, other: Services, sandbox: SandboxProcess, pair: dict[str, Any], clock: Clock
) -> None:
    first_leads(connected)
    sandbox.revoke()
    clock.advance(901)
    first_leads(other)  # old content, while the renewal meets the 401
    wait_until(lambda: refuses(other, "reauthorization_required"), "the death is known")
    for process in (connected, other):
        process.memory.forget("default")
        with pytest.raises(errors.ReauthorizationRequired) as raised:
            lead_by_email(process, "default", "ana@example.com")
        assert raised.value.extra == {"reauthorize_url": "http://localhost:8000/rd/login?account_id=default"}
    clock.advance(86_400)
    connected.memory.forget("default")
    assert refuses(connected, "reauthorization_required")


def test_old_leads_are_served_while_the_token_cannot_be_renewed(
    connected: Services,
    other: Services,
    sandbox: SandboxProcess,
    pair: dict[str, Any],
    clock: Clock,
    conn: Conn,
) -> None:
    first_leads(connected)
    clock.advance(901)
    conn.execute(
        "UPDATE rdstation_tokens SET issued_at = rd_now() - interval '25 h', expires_at = rd_now() - interval '1 h'"
    )
    sandbox.patch(faults=[{"operation": "token_refresh", "kind": "status", "status": 500}])
    for _ in range(3):
        assert first_leads(other).state == "stale"
    other.cache.close()
    assert calls(sandbox) == 1
    assert sandbox.calls()["token_refresh"] == {"500": 1}


def test_another_rd_station_account_shows_none_of_the_leads_of_the_one_before(
    connected: Services, other: Services, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    before = [lead["email"] for lead in decoded(first_leads(connected))["contacts"]]
    first_leads(other)
    uuid = decoded(lead_by_email(connected, "default", before[0]))["uuid"]
    connect_account(connected, sandbox, rd_account="account-2", due=False)
    for process in (connected, other):
        process.memory.forget("default")
        after = [lead["email"] for lead in decoded(first_leads(process))["contacts"]]
        assert len(after) == 25
        assert not set(after) & set(before)
        assert code_of(partial(lead_by_uuid, process, "default", uuid)) == "not_found"
        assert code_of(partial(lead_by_email, process, "default", before[0])) == "not_found"


def test_accounts_see_their_own_leads(
    connected: Services, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    connect_account(connected, sandbox, "shop", rd_account="account-2", due=False)
    own = list_leads(connected, "shop", None, FIRST).content.body
    assert own != list_leads(connected, "default", None, FIRST).content.body


def test_rd_station_never_has_to_refuse_and_who_finds_the_budget_spent_gets_old_leads_or_a_429(
    make_services: MakeServices, sandbox_settings: Settings, sandbox: SandboxProcess, clock: Clock
) -> None:
    processes = [make_services(replace(sandbox_settings, rate_limit=10)) for _ in range(2)]
    connect_account(processes[0], sandbox, due=False)
    sandbox.patch(rate_limit=10)

    def ask(number: int, process: int) -> str:
        listing = Listing(page=number, page_size=5, order=None)
        try:
            return list_leads(processes[process], "default", "1", listing).state
        except errors.TooManyRequests as error:
            return f"{error.code} for {'some' if 1 <= (error.retry_after_s or 0) <= 61 else 'wrong'} seconds"

    def pass_time(seconds: float) -> None:
        clock.advance(seconds)
        sandbox.patch(clock_offset_s=seconds + sandbox.report()["settings"]["clock_offset_s"])

    refused = ["too_many_requests for some seconds"] * 5
    assert [ask(number, number % 2) for number in range(1, 16)] == ["miss"] * 10 + refused
    pass_time(30)
    assert [ask(number, number % 2) for number in range(16, 21)] == refused
    pass_time(901)
    assert [ask(number, number % 2) for number in range(21, 36)] == ["miss"] * 10 + refused
    for _ in range(3):
        assert ask(1, process=0) == "stale"  # fetched by the other process
    processes[0].cache.close()
    assert set(sandbox.calls()["contacts_list"]) == {"200"}
    assert calls(sandbox) == 20


def test_a_429_of_rd_station_holds_all_processes_back(
    connected: Services, other: Services, sandbox: SandboxProcess, pair: dict[str, Any]
) -> None:
    limited = {"kind": "status", "status": 429, "retry_after": 40}
    sandbox.patch(faults=[{"operation": "contacts_list", **limited}])
    with pytest.raises(errors.TooManyRequests) as raised:
        first_leads(connected)
    assert raised.value.retry_after_s == 40
    with pytest.raises(errors.TooManyRequests) as raised:
        lead_by_email(other, "default", "ana@example.com")
    assert raised.value.retry_after_s == pytest.approx(40, abs=3)
    assert sandbox.calls()["contact_get"] == {}


def test_no_address_appears_in_logs_or_errors(
    connected: Services,
    sandbox: SandboxProcess,
    pair: dict[str, Any],
    clock: Clock,
    conn: Conn,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    address = decoded(first_leads(connected))["contacts"][0]["email"]
    lead_by_email(connected, "default", address)
    conn.execute("UPDATE rdstation_cache SET value = 'damaged'")
    connected.cache._memory.drop("default")
    lead_by_email(connected, "default", address)
    sandbox.patch(faults=[{"operation": "contact_get", "kind": "status", "status": 500}])
    with pytest.raises(errors.RdStationFailed) as raised:
        lead_by_email(connected, "default", f"x{address}")
    written = [record for record in caplog.records if record.name.startswith("rdservice")]
    assert any("damaged" in record.getMessage() or "encrypted" in record.getMessage() for record in written)
    assert address not in "".join(record.getMessage() for record in written) + str(raised.value)
    assert address not in str(conn.execute("SELECT c::text FROM rdstation_cache c").fetchall())
