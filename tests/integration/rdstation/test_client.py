"""How RD Station is called, and what is made of its answers."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from cryptography.fernet import Fernet
from requests_mock import Mocker

from rdservice.config.settings import Settings
from rdservice.rdstation import client as rdstation
from rdservice.rdstation.client import (
    MAX_RESPONSE_BYTES,
    ApiResponse,
    RDStation,
    TransportError,
    is_access_denied,
)
from rdservice.rdstation.deadline import DeadlineExceeded
from tests.support.odd_server import OddServer, drip, odd_server, read_request, respond_with, say_nothing

API = "http://127.0.0.1:9"
REDIRECT_URI = "https://app.example.com/rd/callback"
VARIABLES = {
    "RDSTATION_CLIENT_ID": "the-client",
    "RDSTATION_CLIENT_SECRET": "first-secret,second-secret",
    "RDSTATION_REDIRECT_URI": REDIRECT_URI,
    "RDSTATION_API_URL": API,
    "DATABASE_URL": "postgres://nobody@127.0.0.1:9/none",
    "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
}
Make = Callable[..., RDStation]
WRONG = {"error_type": "ACCESS_DENIED", "error_message": "Wrong credentials provided."}
PAIR = {"access_token": "a", "refresh_token": "r", "expires_in": 86400}


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[RDStation] = []

    def start(api_url: str = API, **changes: str) -> RDStation:
        made.append(RDStation(Settings.from_mapping(VARIABLES | {"RDSTATION_API_URL": api_url} | changes)))
        return made[-1]

    yield start
    for client in made:
        client.close()


def http(status: str, body: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return head.encode() + b"\r\n\r\n" + body


def bodies(requests_mock: Mocker) -> list[Any]:
    return [request.json() for request in requests_mock.request_history]


# Requests


def test_a_code_is_exchanged_with_exactly_the_documented_members(make: Make, requests_mock: Mocker) -> None:
    requests_mock.post(f"{API}/auth/token", json=PAIR)
    response = make().exchange_code("the-code")
    (request,) = requests_mock.request_history
    assert (request.method, request.url) == ("POST", f"{API}/auth/token")
    assert request.headers["Content-Type"] == "application/json"
    assert "Authorization" not in request.headers
    assert request.json() == {
        "client_id": "the-client",
        "client_secret": "first-secret",
        "code": "the-code",
        "grant_type": "authorization_code",
        "redirect_uri": REDIRECT_URI,
    }
    assert (response.operation, response.status, response.json()) == ("token_exchange", 200, PAIR)


def test_a_refresh_token_is_exchanged_with_exactly_the_documented_members(
    make: Make, requests_mock: Mocker
) -> None:
    requests_mock.post(f"{API}/auth/token", json=PAIR)
    response = make().refresh("the-refresh-token")
    (request,) = requests_mock.request_history
    assert (request.method, request.url) == ("POST", f"{API}/auth/token")
    assert "Authorization" not in request.headers
    assert request.json() == {
        "client_id": "the-client",
        "client_secret": "first-secret",
        "grant_type": "refresh_token",
        "refresh_token": "the-refresh-token",
    }
    assert response.operation == "token_refresh"


def test_the_account_is_asked_for_with_the_access_token(make: Make, requests_mock: Mocker) -> None:
    requests_mock.get(f"{API}/marketing/account_info", json={"name": "Acme"})
    response = make().account_info("the-access-token")
    (request,) = requests_mock.request_history
    assert request.headers["Authorization"] == "Bearer the-access-token"
    assert request.body is None
    assert response.json() == {"name": "Acme"}


def test_a_token_is_revoked_with_a_form_and_the_token_itself(make: Make, requests_mock: Mocker) -> None:
    requests_mock.post(f"{API}/auth/revoke", status_code=200)
    make().revoke("the-access+token")
    (request,) = requests_mock.request_history
    assert request.headers["Authorization"] == "Bearer the-access+token"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.text) == {"token": ["the-access+token"], "token_type_hint": ["access_token"]}


def test_the_dialog_has_exactly_the_four_documented_parameters(make: Make) -> None:
    url = urlsplit(make(RDSTATION_SCOPE="contacts").dialog_url("the state/&="))
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{API}/auth/dialog"
    assert parse_qs(url.query, strict_parsing=True) == {
        "client_id": ["the-client"],
        "redirect_uri": [REDIRECT_URI],
        "scope": ["contacts"],
        "state": ["the state/&="],
    }


# Several secrets


def test_the_next_secret_is_tried_when_the_first_is_denied(make: Make, requests_mock: Mocker) -> None:
    requests_mock.post(f"{API}/auth/token", [{"status_code": 401, "json": WRONG}, {"json": PAIR}])
    assert make().refresh("r").status == 200
    assert [body["client_secret"] for body in bodies(requests_mock)] == ["first-secret", "second-secret"]
    assert {body["refresh_token"] for body in bodies(requests_mock)} == {"r"}


def test_the_last_denial_is_the_answer_when_no_secret_works(make: Make, requests_mock: Mocker) -> None:
    requests_mock.post(f"{API}/auth/token", status_code=401, json={"errors": [WRONG]})
    assert is_access_denied(make().exchange_code("c"))
    assert [body["client_secret"] for body in bodies(requests_mock)] == ["first-secret", "second-secret"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, PAIR),
        (200, {}),
        (401, {"error_type": "INVALID_REFRESH_TOKEN"}),
        (401, {"error_type": "EXPIRED_CODE_GRANT"}),
        (401, {"error_type": "UNAUTHORIZED"}),
        (401, {}),
        (400, WRONG),
        (403, WRONG),
        (429, {}),
        (500, WRONG),
    ],
)
def test_no_other_answer_spends_a_second_request(
    make: Make, requests_mock: Mocker, status: int, body: dict[str, object]
) -> None:
    requests_mock.post(f"{API}/auth/token", status_code=status, json=body)
    assert make().refresh("r").status == status
    assert len(requests_mock.request_history) == 1


def test_no_second_request_follows_one_that_got_no_answer(make: Make, requests_mock: Mocker) -> None:
    requests_mock.post(f"{API}/auth/token", exc=requests.ConnectionError)
    with pytest.raises(TransportError):
        make().refresh("r")
    assert len(requests_mock.request_history) == 1


def test_all_secrets_share_one_deadline(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rdstation, "EXCHANGE_DEADLINE_S", 0.6)
    denied = http("401 Unauthorized", json.dumps(WRONG).encode())

    def deny_after_a_while(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        threading.Event().wait(0.4)
        connection.sendall(denied)

    secrets = ",".join(f"secret-{number}" for number in range(8))
    with odd_server(deny_after_a_while) as server, pytest.raises(TransportError) as caught:
        make(server.url, RDSTATION_CLIENT_SECRET=secrets).refresh("r")
    # With a deadline for each of them all eight would have been denied in time.
    assert caught.value.kind == "timeout"
    assert len(server.received) <= 2


def test_every_exchange_has_a_connection_of_its_own_whatever_the_answer_says(make: Make) -> None:
    """RFC 9112 9.6 lets a server close after `Connection: close` without saying so itself."""
    denied = http("401 Unauthorized", json.dumps(WRONG).encode())

    def keep_open(connection: socket.socket, server: OddServer, number: int) -> None:
        while True:
            read_request(connection, server, number)
            connection.sendall(denied)

    with odd_server(keep_open) as server:
        client = make(server.url, RDSTATION_CLIENT_SECRET="one,two")
        for _ in range(2):
            assert client.refresh("r").status == 401
    assert len(server.received) == 4


def test_nothing_is_sent_when_the_deadline_is_over(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rdstation, "EXCHANGE_DEADLINE_S", 0.0)
    with odd_server(say_nothing) as server:
        with pytest.raises(TransportError) as caught:
            make(server.url).refresh("r")
        assert (caught.value.kind, caught.value.sent) == ("timeout", False)
        assert server.received == []


# No answer


@pytest.mark.parametrize("behave", [say_nothing, drip(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")])
def test_an_exchange_without_end_is_a_timeout_that_may_have_taken_effect(
    make: Make, monkeypatch: pytest.MonkeyPatch, behave: Any
) -> None:
    monkeypatch.setattr(rdstation, "EXCHANGE_DEADLINE_S", 0.5)
    with odd_server(behave) as server, pytest.raises(TransportError) as caught:
        make(server.url).refresh("planted-refresh-token")
    assert (caught.value.operation, caught.value.kind, caught.value.sent) == (
        "token_refresh",
        "timeout",
        True,
    )
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    assert "planted" not in str(caught.value)
    assert len(server.received) == 1


def test_a_connection_that_is_cut_may_have_taken_effect_and_is_not_repeated(make: Make) -> None:
    def hang_up(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)

    with odd_server(hang_up) as server, pytest.raises(TransportError) as caught:
        make(server.url).refresh("r")
    assert (caught.value.kind, caught.value.sent) == ("connection", True)
    assert len(server.received) == 1


def test_a_refused_connection_has_no_effect(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TransportError) as caught:
        make(f"http://127.0.0.1:{port}").refresh("r")
    assert (caught.value.kind, caught.value.sent) == ("connection", False)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.ConnectTimeout, "timeout"),
        (requests.ReadTimeout, "timeout"),
        (requests.exceptions.SSLError, "connection"),
        (requests.exceptions.ChunkedEncodingError, "connection"),
        (OSError, "connection"),
    ],
)
def test_each_error_of_the_library_has_its_kind(
    make: Make, requests_mock: Mocker, error: type[Exception], kind: str
) -> None:
    requests_mock.get(f"{API}/marketing/account_info", exc=error)
    with pytest.raises(TransportError) as caught:
        make().account_info("t")
    assert (caught.value.kind, caught.value.sent) == (kind, False), "no connection stood"


def test_a_handshake_that_hangs_has_no_effect(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rdstation, "CONNECT_TIMEOUT_S", 0.2)
    with odd_server(say_nothing, scheme="https") as server:
        with pytest.raises(TransportError) as caught:
            make(server.url).refresh("r")
        assert isinstance(caught.value.__cause__, requests.Timeout)
    assert (caught.value.kind, caught.value.sent) == ("timeout", False)


# Odd answers, over a real connection


def test_no_redirect_is_followed(make: Make) -> None:
    responses = [
        http("302 Found", b"moved", f"Location: {location}") for location in ("/elsewhere", "http://[")
    ]
    for number, response in enumerate(
        [*responses, http("307 Temporary Redirect", b"", "Location: //evil.example/")]
    ):
        with odd_server(respond_with(response)) as server:
            client = make(server.url)
            assert client.refresh("r").status in (302, 307), number
            assert client.account_info("t").status in (302, 307)
            client.close()
            sent = b"".join(server.received)
        assert sent.count(b"HTTP/1.1\r\n") == 2
        assert b"elsewhere" not in sent


def endless(status: bytes, *headers: bytes) -> Any:
    """An answer that goes on for as long as it is read; `sent` counts its bytes."""

    def behave(connection: socket.socket, server: OddServer, number: int) -> None:
        read_request(connection, server, number)
        connection.sendall(b"\r\n".join([b"HTTP/1.1 " + status, *headers]) + b"\r\n\r\n")
        for _ in range(20 * MAX_RESPONSE_BYTES // 65_536):
            connection.sendall(b" " * 65_536)

    return behave


@pytest.mark.parametrize("status", [b"200 OK", b"500 Internal Server Error", b"302 Found"])
def test_an_answer_that_is_too_large_is_not_read_to_its_end(make: Make, status: bytes) -> None:
    with odd_server(endless(status, b"Location: /elsewhere")) as server:
        client = make(server.url)
        response = client.account_info("t")
        client.close()
    assert response.oversized
    assert response.body == b""
    assert response.json() is None
    assert response.status == int(status[:3])
    assert server.ended == ["peer"]


def test_an_answer_of_the_largest_size_is_read(make: Make) -> None:
    body = b'"' + b"a" * (MAX_RESPONSE_BYTES - 2) + b'"'
    with odd_server(respond_with(http("200 OK", body))) as server:
        client = make(server.url)
        response = client.account_info("t")
        client.close()
    assert not response.oversized
    assert response.body == body


def test_a_compressed_answer_is_bounded_by_its_real_size(make: Make) -> None:
    import gzip

    bomb = gzip.compress(b" " * (8 * MAX_RESPONSE_BYTES))
    assert len(bomb) < MAX_RESPONSE_BYTES
    with odd_server(respond_with(http("200 OK", bomb, "Content-Encoding: gzip"))) as server:
        client = make(server.url)
        response = client.account_info("t")
        client.close()
    assert response.oversized


def test_credentials_of_a_netrc_file_are_never_sent(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login planted password planted\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with odd_server(respond_with(http("200 OK", b"{}"))) as server:
        client = make(server.url)
        client.refresh("r")
        client.account_info("the-access-token")
        client.close()
        sent = b"".join(server.received)
    assert requests.utils.get_netrc_auth(server.url) == ("planted", "planted")
    assert sent.count(b"Authorization:") == 1
    assert b"Authorization: Bearer the-access-token" in sent


def test_a_cookie_of_one_account_is_not_sent_with_the_calls_of_another(make: Make) -> None:
    with odd_server(respond_with(http("200 OK", b"{}", "Set-Cookie: who=planted; Path=/"))) as server:
        client = make(server.url)
        for _ in range(2):
            client.refresh("r")
            client.account_info("t")
        client.close()
        sent = b"".join(server.received)
    assert sent.count(b"HTTP/1.1\r\n") == 4
    assert b"cookie" not in sent.lower()


def test_a_token_request_never_uses_a_connection_twice(make: Make) -> None:
    with odd_server(respond_with(http("200 OK", b"{}"))) as server:
        client = make(server.url)
        for _ in range(3):
            client.refresh("r")
        client.account_info("t")
        client.account_info("t")
        client.close()
    assert [b"Connection: close" in sent for sent in server.received] == [True, True, True, False]


# Answers


def response(body: object = b"", status: int = 401, headers: dict[str, str] | None = None) -> ApiResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ApiResponse(operation="other", status=status, headers=headers or {}, body=raw)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error_type": "X", "error_message": "m"}, "X"),
        ({"errors": {"error_type": "X", "error_message": "m"}}, "X"),
        ({"errors": [{"error_type": "X"}, {"error_type": "Y"}]}, "X"),
        ([{"error_type": "X"}], "X"),
        ({"error": "invalid_grant", "error_description": "d"}, "invalid_grant"),
        ({"error": {"code": 7}}, None),
        ({"error_type": 7}, None),
        ({"error_type": None}, None),
        ({"errors": []}, None),
        ({"errors": None}, None),
        ({"errors": "X"}, None),
        ({"errors": [[{"error_type": "X"}]]}, None),
        ({"message": "m"}, None),
        ([], None),
        ("X", None),
        (None, None),
        (b"", None),
        (b"X", None),
        (b"<html>", None),
        (b'{"error_type": "X"', None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (b'{"a":' * 100_000, None),
    ],
)
def test_the_error_type_is_found_in_every_shape(body: object, kind: str | None) -> None:
    assert response(body).error_type == kind


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": " 120 "}, 120.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:30:00 GMT", "Date": DATE}, 120.0),
        ({"Retry-After": "Wed, 21 Oct 2026 04:30:00 -0300", "Date": DATE}, 120.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:00:00 GMT", "Date": DATE}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2020 07:00:00 GMT"}, 0.0),
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "9999999999"}, 86_400.0),
        ({"Retry-After": "²"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 07:30:00"}, None),
        ({"Retry-After": "Wed, 99 Oct 2026 07:30:00 GMT"}, None),
        ({"Retry-After": "Wed, 21 Oct 20269999999999999999999 07:30:00 GMT"}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 07:30:00 +99999999999999999999"}, None),
        ({"Retry-After": "Wed, 21 Oct 2020 07:00:00 GMT", "Date": "nonsense"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2020 07:00:00 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 -0000"}, 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_and_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert response(status=429, headers=headers).retry_after_s == seconds


@pytest.mark.parametrize(
    ("status", "body", "denied"),
    [
        (401, WRONG, True),
        (401, {"errors": WRONG}, True),
        (403, WRONG, False),
        (401, {}, False),
        (200, WRONG, False),
    ],
)
def test_access_denied_is_a_401_of_that_type(status: int, body: object, denied: bool) -> None:
    assert is_access_denied(response(body, status)) is denied


def test_neither_body_nor_headers_stand_in_the_repr() -> None:
    shown = repr(response(b"planted-body", 200, {"Set-Cookie": "planted-header"}))
    assert "planted" not in shown
    assert "status=200" in shown
