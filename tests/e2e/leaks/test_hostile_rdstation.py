"""An RD Station that repeats in its answers what it was sent: keys, tokens and people, in every place of an answer."""

import json
import socket
from collections.abc import Callable, Iterator
from urllib.parse import quote

import psycopg
import pytest

from tests.e2e.leaks.conftest import MakeStage
from tests.support.leaks.stage import Stage
from tests.support.odd_server import OddServer, odd_server, read_request
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def response(status: bytes, body: bytes, *headers: bytes) -> bytes:
    head = [
        b"HTTP/1.1 " + status,
        b"Content-Length: " + str(len(body)).encode(),
        b"Connection: close",
        *headers,
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def in_one_line(request: bytes) -> bytes:
    return b" ".join(request.split())


def in_json(request: bytes) -> bytes:
    sent = request.decode()
    return json.dumps(
        {"errors": {"error_type": sent, "error_message": sent}, "name": sent, "uuid": 1}
    ).encode()


JSON = b"Content-Type: application/json"
ECHOES: dict[str, Callable[[bytes], bytes]] = {
    "good-body": lambda sent: response(b"200 OK", in_json(sent), JSON),
    "client-error": lambda sent: response(b"400 Bad Request", in_json(sent), JSON),
    "unauthorized": lambda sent: response(b"401 Unauthorized", in_json(sent), JSON),
    "forbidden-html": lambda sent: response(b"403 Forbidden", b"<pre>" + sent, b"Content-Type: text/html"),
    "missing": lambda sent: response(b"404 Not Found", sent),
    "invalid": lambda sent: response(b"422 Unprocessable", in_json(sent), JSON),
    "slow-down": lambda sent: response(b"429 Too Many", sent, b"Retry-After: " + in_one_line(sent)),
    "server-error": lambda sent: response(b"500 Error", sent),
    "redirect": lambda sent: response(
        b"302 Found", b"", b"Location: http://127.0.0.1:9/?" + quote(sent).encode()
    ),
    "headers": lambda sent: response(
        b"503 Error", b"", b"X-Sent: " + in_one_line(sent), b"Set-Cookie: a=" + in_one_line(sent)
    ),
    "status-line": lambda sent: response(b"500 " + in_one_line(sent), b""),
    "no-status-line": lambda sent: in_one_line(sent) + b"\r\n\r\n",
    "no-number": lambda sent: b"HTTP/1.1 " + in_one_line(sent) + b"\r\n\r\n",
    "no-header": lambda sent: response(b"200 OK", b"", in_one_line(sent)),
    "wrong-length": lambda sent: (
        b"HTTP/1.1 200 OK\r\nContent-Length: " + in_one_line(sent) + b"\r\n\r\n" + sent
    ),
    "wrong-chunk": lambda sent: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + in_one_line(sent) + b"\r\n"
    ),
    "wrong-gzip": lambda sent: response(b"200 OK", sent, b"Content-Encoding: gzip"),
}


def echo(connection: socket.socket, server: OddServer, number: int) -> None:
    request = read_request(connection, server, number)
    for name, made in ECHOES.items():
        if f"hostile-{name}-".encode() in request:
            connection.sendall(made(request))
            return


@pytest.fixture(scope="module")
def hostile() -> Iterator[OddServer]:
    with odd_server(echo) as server:
        yield server


@pytest.fixture(scope="module", params=[False, True], ids=["without the second fence", "in production"])
def stage(request: pytest.FixtureRequest, make_stage: MakeStage, hostile: OddServer) -> Stage:
    made = make_stage(production=request.param, RDSTATION_API_URL=hostile.url)
    for name in ECHOES:
        access, refresh = (
            f"hostile-{name}-{kind}-Qz{i}Wx{i}Ec" for i, kind in enumerate(("access", "refresh"))
        )
        made.store_account(name, access, refresh)
    return made


def test_nothing_that_is_repeated_comes_out(stage: Stage, hostile: OddServer) -> None:
    worker = stage.processes.worker()
    with psycopg.connect(stage.settings.database_url, autocommit=True) as conn:
        wait_until(
            lambda: (
                conn.execute(
                    "SELECT count(DISTINCT account_id) FROM rdstation_refresh_attempts WHERE outcome IS NOT NULL"
                ).fetchone()
                == (len(ECHOES),)
            ),
            "every account was tried",
            seconds=60,
        )
        # Refused ones would not be asked for leads any more.
        conn.execute("UPDATE rdstation_tokens SET status = 'connected', retry_at = NULL")
    worker.kill()
    for name in ECHOES:
        email, uuid = (quote(stage.planted[kind], safe="") for kind in ("lead_email", "lead_uuid"))
        for path in (f"email/{email}", uuid):
            found = stage.call("GET", f"/rd/leads/{path}?account_id={name}", "key")
            assert found.status_code >= 400
        pair = {
            "access_token": f"hostile-{name}-uploaded",
            "refresh_token": f"hostile-{name}-given",
            "expires_in": 60,
        }
        stage.planted.add(
            **{f"{name}_{kind}": value for kind, value in pair.items() if isinstance(value, str)}
        )
        stage.call("POST", "/rd/tokens", "key", json=pair | {"account_id": name})
        stage.call("POST", f"/rd/tokens/{name}/refresh", "key")
        stage.call("DELETE", f"/rd/tokens/{name}", "key")
    assert len(hostile.received) > 4 * len(ECHOES)
    found_all = stage.look_everywhere()
    assert not found_all, "\n".join(found_all)


def test_a_failed_tls_handshake_tells_nothing(stage: Stage, hostile: OddServer) -> None:
    stage.store_account("tls", "hostile-tls-access-Qz1", "hostile-tls-refresh-Qz2")
    url = hostile.url.replace("http://", "https://")
    stage.flask("accounts", "refresh", "tls", RDSTATION_API_URL=url)
    found = stage.look_everywhere()
    assert not found, "\n".join(found)
