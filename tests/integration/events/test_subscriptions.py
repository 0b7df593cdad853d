"""Subscriptions at RD Station: made once, replaced as a whole, and removed with the account."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import requests

from rdservice.access import audit
from rdservice.accounts.disconnect import disconnect
from rdservice.config.settings import Settings
from rdservice.database.pool import transaction
from rdservice.errors import (
    NotConnected,
    RdStationFailed,
    RdStationUnavailable,
    ReauthorizationRequired,
    TooManyRequests,
)
from rdservice.events.subscriptions import manage, store
from rdservice.rdstation.client import ApiResponse
from rdservice.services import Services
from tests.conftest import Clock
from tests.support.accounts import BY, connect_account
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
HERE = "http://localhost:8000/rd/webhooks/"
BOTH = {"WEBHOOK.CONVERTED", "WEBHOOK.MARKED_OPPORTUNITY"}


class RdAccount:
    """An account of the sandbox, seen with a token of its own."""

    def __init__(self, sandbox: SandboxProcess, name: str = "default") -> None:
        self._url = f"{sandbox.url}/integrations/webhooks"
        self._headers = {"Authorization": f"Bearer {sandbox.pair(name)['access_token']}"}

    def hooks(self) -> list[dict[str, Any]]:
        response = requests.get(self._url, headers=self._headers, timeout=10)
        listed: list[dict[str, Any]] = response.json()["webhooks"]
        return listed

    def add(self, url: str, event_type: str = "WEBHOOK.CONVERTED") -> None:
        body = {"event_type": event_type, "url": url}
        requests.post(self._url, json=body, headers=self._headers, timeout=10).raise_for_status()

    def remove(self, uuid: str) -> None:
        requests.delete(f"{self._url}/{uuid}", headers=self._headers, timeout=10).raise_for_status()

    def addresses(self) -> set[str]:
        return {hook["url"] for hook in self.hooks()}


@pytest.fixture
def rd(sandbox: SandboxProcess) -> RdAccount:
    return RdAccount(sandbox)


@pytest.fixture
def services(connected: Services, sandbox: SandboxProcess) -> Services:
    connect_account(connected, sandbox, due=False)
    return connected


def secrets_in_force(services: Services, addresses: set[str]) -> list[str]:
    with transaction(services.pool) as conn:
        found = [store.find(conn, address.removeprefix(HERE)) for address in sorted(addresses)]
    return [stream.account_id for stream in found if stream is not None]


def test_both_event_types_are_delivered_to_one_secret_address(services: Services, rd: RdAccount) -> None:
    assert manage.subscribe(services, "default", by=BY) == manage.Changed(changed=True, warnings=[])
    hooks = rd.hooks()
    assert {hook["event_type"] for hook in hooks} == BOTH
    (address,) = {hook["url"] for hook in hooks}
    assert store.SECRET_FORM.fullmatch(address.removeprefix(HERE))
    for hook in hooks:
        assert (hook["entity_type"], hook["http_method"]) == ("CONTACT", "POST")
        assert set(hook["include_relations"]) == {"COMPANY", "CONTACT_FUNNEL"}
    assert secrets_in_force(services, {address}) == ["default"]
    with transaction(services.pool) as conn:
        (row,) = store.list_all(conn)
        assert dict(row.subscribed) == {hook["event_type"]: hook["uuid"] for hook in hooks}
        assert (row.current, row.complete_at is not None) == (True, True)
        entry = audit.newest(conn, limit=1)[0]
    assert (entry.action, entry.account_id) == ("events_subscribed", "default")
    assert address.removeprefix(HERE) not in repr(row) + repr(entry)


def test_subscribing_again_changes_nothing(services: Services, rd: RdAccount) -> None:
    manage.subscribe(services, "default", by=BY)
    before = rd.hooks()
    assert manage.subscribe(services, "default", by=BY).changed is False
    assert rd.hooks() == before
    with transaction(services.pool) as conn:
        assert len(audit.newest(conn, limit=10)) == 1


def test_what_is_missing_at_rd_station_is_made_anew_and_what_is_stale_goes(
    services: Services, rd: RdAccount
) -> None:
    manage.subscribe(services, "default", by=BY)
    (old,) = rd.addresses()
    rd.remove(rd.hooks()[0]["uuid"])
    rd.add(HERE + "A" * 43)
    rd.add("https://elsewhere.example/rd/webhooks/x")
    assert manage.subscribe(services, "default", by=BY).changed is True
    new = rd.addresses() - {"https://elsewhere.example/rd/webhooks/x"}
    assert (len(new), len(rd.hooks())) == (1, 3)
    assert old not in new
    assert secrets_in_force(services, {old, *new}) == ["default"]


def test_both_connections_of_one_rd_station_account_have_addresses_of_their_own(
    services: Services, sandbox: SandboxProcess, rd: RdAccount
) -> None:
    connect_account(services, sandbox, "branch", due=False)
    for account in ("default", "branch", "default"):
        manage.subscribe(services, account, by=BY)
    assert len(rd.hooks()) == 4
    assert sorted(secrets_in_force(services, rd.addresses())) == ["branch", "default"]
    manage.unsubscribe(services, "branch", by=BY)
    assert secrets_in_force(services, rd.addresses()) == ["default"]
    assert len(rd.hooks()) == 2


def test_unsubscribing_ends_it_at_both_ends_and_may_be_repeated(services: Services, rd: RdAccount) -> None:
    manage.subscribe(services, "default", by=BY)
    addresses = rd.addresses()
    assert manage.unsubscribe(services, "default", by=BY) == manage.Changed(changed=True, warnings=[])
    assert rd.hooks() == []
    assert secrets_in_force(services, addresses) == []
    assert manage.unsubscribe(services, "default", by=BY).changed is False


@pytest.mark.parametrize("succeed_first", [0, 1])
def test_a_failure_in_the_middle_leaves_nothing_behind(
    services: Services, rd: RdAccount, monkeypatch: pytest.MonkeyPatch, succeed_first: int
) -> None:
    create = services.rdstation.create_webhook
    made: list[str] = []

    def failing(access_token: str, url: str, event_type: str) -> ApiResponse:
        if len(made) == succeed_first:
            return ApiResponse(operation="other", status=500, headers={}, body=b"")
        made.append(url)
        return create(access_token, url, event_type)

    with monkeypatch.context() as patch:
        patch.setattr(services.rdstation, "create_webhook", failing)
        with pytest.raises(RdStationFailed):
            manage.subscribe(services, "default", by=BY)
    assert rd.hooks() == []
    with transaction(services.pool) as conn:
        assert store.list_all(conn) == []
    assert manage.subscribe(services, "default", by=BY).changed is True


def test_a_401_to_a_new_subscription_is_about_its_address_and_refreshes_no_token(
    services: Services, rd: RdAccount, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(_access_token: str, url: str, _event_type: str) -> ApiResponse:
        asked.append(url)
        return ApiResponse(operation="other", status=401, headers={}, body=b"")

    monkeypatch.setattr(services.rdstation, "create_webhook", refuse)
    with pytest.raises(RdStationFailed):
        manage.subscribe(services, "default", by=BY)
    assert len(asked) == 1
    assert sandbox.calls()["token_refresh"] == {}


def test_one_process_at_a_time_makes_them_and_a_dead_one_holds_nobody_up_for_long(
    services: Services, rd: RdAccount, clock: Clock
) -> None:
    with transaction(services.pool) as conn:
        secret = store.begin(conn, "default")
    assert secret is not None
    # Its process has died when it had given RD Station one address.
    rd.add(HERE + secret)
    with pytest.raises(TooManyRequests):
        manage.subscribe(services, "default", by=BY)
    assert secrets_in_force(services, {HERE + secret}) == ["default"]
    clock.advance(store.UNDER_WAY_MINUTES * 60 + 1)
    services.memory.forget("default")
    assert manage.subscribe(services, "default", by=BY).changed is True
    assert len(rd.hooks()) == 2
    assert HERE + secret not in rd.addresses()
    assert secrets_in_force(services, {HERE + secret}) == []


def test_the_work_of_a_process_that_died_at_the_end_is_taken_over(services: Services, rd: RdAccount) -> None:
    with transaction(services.pool) as conn:
        secret = store.begin(conn, "default")
    assert secret is not None
    for event_type in BOTH:
        rd.add(HERE + secret, event_type)
    assert manage.subscribe(services, "default", by=BY).changed is False
    with transaction(services.pool) as conn:
        (row,) = store.list_all(conn)
    assert (set(row.subscribed), row.complete_at is not None) == (BOTH, True)


def test_who_unsubscribes_meanwhile_wins(
    services: Services, rd: RdAccount, monkeypatch: pytest.MonkeyPatch, conn: Conn
) -> None:
    create = services.rdstation.create_webhook

    def interrupted(access_token: str, url: str, event_type: str) -> ApiResponse:
        conn.execute("DELETE FROM rdservice_subscriptions")
        return create(access_token, url, event_type)

    monkeypatch.setattr(services.rdstation, "create_webhook", interrupted)
    with pytest.raises(TooManyRequests):
        manage.subscribe(services, "default", by=BY)
    assert rd.hooks() == []


def test_another_rd_station_account_makes_them_void(
    services: Services, sandbox: SandboxProcess, rd: RdAccount, conn: Conn
) -> None:
    manage.subscribe(services, "default", by=BY)
    addresses = rd.addresses()
    conn.execute("DELETE FROM rdstation_tokens")
    connect_account(services, sandbox, rd_account="account-2", due=False)
    services.memory.forget("default")
    assert secrets_in_force(services, addresses) == []
    second = RdAccount(sandbox, "account-2")
    assert manage.subscribe(services, "default", by=BY).changed is True
    assert secrets_in_force(services, second.addresses()) == ["default"]
    assert len(second.hooks()) == 2
    with transaction(services.pool) as own:
        assert [row.current for row in store.list_all(own)] == [True]


def test_disconnecting_removes_them_before_the_tokens_are_revoked(services: Services, rd: RdAccount) -> None:
    manage.subscribe(services, "default", by=BY)
    deleted: list[str] = []
    delete = services.rdstation.delete_webhook

    def counted(access_token: str, uuid: str) -> ApiResponse:
        response = delete(access_token, uuid)
        assert response.status == 204
        deleted.append(uuid)
        return response

    services.rdstation.delete_webhook = counted  # type: ignore[method-assign]
    removed = disconnect(services, "default", by=BY)
    assert (removed.revoked, removed.warnings, len(deleted)) == (True, [], 2)


def test_what_is_left_at_rd_station_by_a_disconnection_is_told(
    services: Services, sandbox: SandboxProcess
) -> None:
    manage.subscribe(services, "default", by=BY)
    sandbox.patch(faults=[{"operation": "other", "kind": "status", "status": 500}])
    removed = disconnect(services, "default", by=BY)
    assert (removed.revoked, [notice.code for notice in removed.warnings]) == (True, ["subscriptions_left"])


def test_rd_station_is_asked_for_nothing_where_nothing_was_subscribed(
    services: Services, sandbox: SandboxProcess
) -> None:
    disconnect(services, "default", by=BY)
    assert sandbox.calls()["other"] == {}


def test_without_an_account_or_rd_station_the_error_says_so(
    services: Services, sandbox: SandboxProcess
) -> None:
    for do in (manage.subscribe, manage.unsubscribe):
        with pytest.raises(NotConnected):
            do(services, "nobody", by=BY)
    sandbox.patch(faults=[{"operation": "other", "kind": "drop_before"}])
    for do in (manage.subscribe, manage.unsubscribe):
        with pytest.raises(RdStationUnavailable):
            do(services, "default", by=BY)


def test_a_dead_account_is_ended_here(
    services: Services, sandbox: SandboxProcess, rd: RdAccount, conn: Conn
) -> None:
    manage.subscribe(services, "default", by=BY)
    conn.execute("UPDATE rdstation_tokens SET status = 'reauthorization_required', expires_at = rd_now()")
    services.memory.forget("default")
    with pytest.raises(ReauthorizationRequired):
        manage.subscribe(services, "default", by=BY)
    done = manage.unsubscribe(services, "default", by=BY)
    assert (done.changed, [notice.code for notice in done.warnings]) == (True, ["subscriptions_left"])


@pytest.mark.parametrize(
    ("redirect_uri", "api_url", "warned"),
    [
        ("http://localhost:8000/rd/callback", "https://api.rd.services", True),
        ("http://localhost:8000/rd/callback", "http://127.0.0.1:8001", False),
        ("https://app.example.com/rd/callback", "https://api.rd.services", False),
    ],
)
def test_a_local_address_is_warned_about_unless_rd_station_is_local_too(
    variables: dict[str, str], redirect_uri: str, api_url: str, warned: bool
) -> None:
    changed = {"RDSTATION_REDIRECT_URI": redirect_uri, "RDSTATION_API_URL": api_url}
    assert manage._is_out_of_reach(Settings.from_mapping(variables | changed)) is warned


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"webhooks": 1}', b'{"other": []}', b"7"],
)
def test_an_odd_list_of_rd_station_changes_nothing(
    services: Services, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    def odd(access_token: str) -> ApiResponse:
        return ApiResponse(operation="other", status=200, headers={}, body=body)

    monkeypatch.setattr(services.rdstation, "webhooks", odd)
    with pytest.raises(RdStationFailed):
        manage.subscribe(services, "default", by=BY)


def test_odd_entries_of_the_list_are_not_ours(
    services: Services, rd: RdAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = b'{"webhooks": [null, {}, {"uuid": 1, "url": 2}, {"uuid": "x", "url": "http://other.example/"}]}'
    monkeypatch.setattr(
        services.rdstation,
        "webhooks",
        lambda _: ApiResponse(operation="other", status=200, headers={}, body=odd),
    )
    assert manage.subscribe(services, "default", by=BY).changed is True
    assert len(rd.hooks()) == 2


@pytest.mark.parametrize(
    ("written", "act"), [("complete", manage.subscribe), ("drop_all", manage.unsubscribe)]
)
def test_what_rd_station_has_done_is_written_down_although_the_database_fails_once(
    services: Services, rd: RdAccount, monkeypatch: pytest.MonkeyPatch, written: str, act: Callable[..., Any]
) -> None:
    if act is manage.unsubscribe:
        manage.subscribe(services, "default", by=BY)
    real, failures = getattr(store, written), iter([psycopg.OperationalError("the database restarts")])

    def fails_once(*given: Any) -> Any:
        for failure in failures:
            raise failure
        return real(*given)

    monkeypatch.setattr(store, written, fails_once)
    assert act(services, "default", by=BY).changed is True
    assert len(secrets_in_force(services, rd.addresses())) == len(rd.addresses())
