"""Messages on their way, with apprise's real process and real receivers."""

import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rdservice.config.notify_urls import split
from rdservice.config.problems import Code, SettingsError
from rdservice.config.settings import Settings
from rdservice.notifications import targets as targets_module
from rdservice.notifications.targets import SendFailed, Target, send, targets, unusable
from tests.integration.notifications.conftest import OK, Receiver
from tests.support.odd_server import odd_server, respond_with, say_nothing

Conn = psycopg.Connection[Any]


def target(url: str) -> Target:
    return targets([url], "0" * 32)[0]


def url_of(address: str, rest: str = "/hook") -> str:
    return f"json://{address.removeprefix('http://')}{rest}"


def why_not_sent(url: str) -> str:
    with pytest.raises(SendFailed) as caught:
        send(target(url), "title", "body")
    assert "://" not in str(caught.value)
    return caught.value.error


def test_a_webhook_receives_title_and_text(receiver: Receiver) -> None:
    send(target(receiver.url), "Atenção", "linha um\nlinha dois")
    [message] = receiver.messages
    assert (message["title"], message["message"]) == ("Atenção", "linha um\nlinha dois")
    assert message["attachments"] == []


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_refusing_receiver_is_known_by_its_status(status: int) -> None:
    response = f"HTTP/1.1 {status} Odd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    with odd_server(respond_with(response)) as server:
        assert why_not_sent(url_of(server.url)) == f"http_{status}"


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    location = receiver.url.replace("json://", "http://").encode()
    response = (
        b"HTTP/1.1 307 Odd\r\nLocation: " + location + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    with odd_server(respond_with(response)) as server:
        assert why_not_sent(url_of(server.url)) == "http_307"
    assert receiver.messages == []


def test_where_nobody_listens_is_a_connection_error() -> None:
    assert why_not_sent("json://127.0.0.1:9/hook") == "connection"


def test_a_receiver_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets_module, "SEND_WITHIN_S", 3.0)
    with odd_server(say_nothing) as server:
        assert why_not_sent(url_of(server.url, "/hook?rto=60")) == "timeout"


def test_the_sending_process_gets_no_setting_and_no_password_of_netrc(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login planted password planted\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SECRET_KEY", "planted-secret-key")
    seen: dict[str, str] = {}
    run = subprocess.run

    def watched(*args: Any, **more: Any) -> Any:
        seen.update(more["env"])
        return run(*args, **more)

    monkeypatch.setattr(subprocess, "run", watched)
    with odd_server(respond_with(OK)) as server:
        send(target(url_of(server.url)), "title", "body")
        assert b"authorization" not in server.received[0].lower()
    assert "SECRET_KEY" not in seen
    assert "HOME" not in seen


def test_an_e_mail_arrives_through_smtp() -> None:
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve_smtp, args=(listener, received))
        server.start()
        port = listener.getsockname()[1]
        url = f"mailto://127.0.0.1:{port}?from=rd@example.com&to=team@example.com&mode=insecure"
        send(target(url), "Aviso", "corpo da mensagem")
        server.join(20)
    text = b"".join(received)
    assert b"RCPT TO:<TEAM@EXAMPLE.COM>" in text.upper()
    assert b"corpo da mensagem" in text


def serve_smtp(listener: socket.socket, received: list[bytes]) -> None:
    """Take one message as RFC 5321 has it."""
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:
        connection.sendall(b"220 test ESMTP\r\n")
        in_data = False
        for line in lines:
            received.append(line)
            if in_data:
                in_data = line != b".\r\n"
                if not in_data:
                    connection.sendall(b"250 accepted\r\n")
            elif line.upper().startswith(b"DATA"):
                in_data = True
                connection.sendall(b"354 go on\r\n")
            elif line.upper().startswith(b"QUIT"):
                connection.sendall(b"221 bye\r\n")
                return
            else:
                connection.sendall(b"250 ok\r\n")


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("", ()),
        ("json://a/b", ("json://a/b",)),
        ("json://a/b, slack://x/y/z", ("json://a/b", "slack://x/y/z")),
        ("json://a/b\n\tslack://x/y/z,", ("json://a/b", "slack://x/y/z")),
        ("mailto://a?to=b@c.de,f@g.hi,json://a", ("mailto://a?to=b@c.de,f@g.hi", "json://a")),
        ("json://a json://a", ("json://a",)),
        ("not-a-url json://a", ("not-a-url", "json://a")),
    ],
)
def test_urls_are_separated_by_white_space_or_commas_before_a_scheme(
    text: str, urls: tuple[str, ...]
) -> None:
    assert split(text) == urls


@pytest.mark.parametrize(
    ("url", "code"),
    [("team@example.com", "notify_url_e_mail"), ("planted-secret-word", "notify_url_no_scheme")],
)
def test_a_mistake_in_the_form_is_told_by_its_place_and_never_quoted(
    variables: dict[str, str], url: str, code: Code
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(variables | {"NOTIFY_URLS": f"json://127.0.0.1:9/good {url}"})
    [problem] = caught.value.problems
    assert (problem.variable, problem.code, problem.facts) == ("NOTIFY_URLS", code, {"entry": 2})
    assert problem.example == "mailtos://user:password@example.com?to=team@example.com"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/planted-secret-word", "notify_url_web_address"),
        ("http://example.com/planted-secret-word", "notify_url_web_address"),
        ("slack://planted-secret-word", "notify_url_unusable"),
        ("nonsense://planted-secret-word", "notify_url_unusable"),
        ("file:///etc/passwd", "notify_url_unusable"),
    ],
)
def test_what_apprise_refuses_is_told_by_its_place_and_stops_no_process(
    variables: dict[str, str], url: str, code: Code
) -> None:
    settings = Settings.from_mapping(variables | {"NOTIFY_URLS": f"json://127.0.0.1:9/good {url}"})
    [problem] = unusable(settings.notify_urls)
    assert (problem.variable, problem.code, problem.facts) == ("NOTIFY_URLS", code, {"entry": 2})
    assert "planted" not in repr(problem)


@pytest.mark.parametrize(
    "url",
    [
        "mailtos://user:password@smtp.example.com:587?from=rd@example.com&to=team@example.com",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#channel",
        "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
        "workflows://example.com:443/643a8dc8b3b04e8a/AbCdEf0123456789",
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
        "jsons://user:password@host.example.com/path",
    ],
)
def test_the_documented_forms_can_be_used(url: str) -> None:
    assert unusable((url,)) == ()


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("jsons://user:password@hooks.example.com:8443/path?a=b", "jsons://ho….com"),
        ("mailtos://user:password@gmail.com", "mailtos://gm….com"),
        ("slack://TokenA/TokenB/TokenC", "slack://…"),
        ("tgram://123456789:abcdefg_hijklmnop/1", "tgram://…"),
        ("json://127.0.0.1:9/x", "json://…"),
    ],
)
def test_people_see_the_scheme_and_a_masked_host_alone(url: str, label: str) -> None:
    assert target(url).label == label
    assert url not in repr(target(url))


def test_a_machine_too_busy_to_judge_a_url_does_not_call_it_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets_module, "CHECK_WITHIN_S", 0.001)
    urls = ("nonsense://never-judged-before",)
    assert unusable(urls) == ()
    monkeypatch.undo()
    assert [problem.code for problem in unusable(urls)] == ["notify_url_unusable"]
