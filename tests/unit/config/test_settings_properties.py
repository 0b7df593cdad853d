"""Whatever the variables hold: settings, or a list of mistakes in which none of the values stands."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cryptography.fernet import Fernet
from hypothesis import example, given
from hypothesis import strategies as st

from rdservice.access import throttle
from rdservice.config.problems import SettingsError
from rdservice.config.settings import Settings, collect_sources
from rdservice.encryption import KeyRing
from rdservice.rdstation.client import RDStation
from rdservice.text import settings_problems
from rdservice.text.catalogue import LANGUAGES
from rdservice.web.http import browser_session
from tests.support.outside_data import ODD_TEXTS

Result = TypeVar("Result")
MARK = "pLaNtEd7"
VALID = {
    "RDSTATION_CLIENT_ID": "11111111-2222-3333-4444-555555555555",
    "RDSTATION_CLIENT_SECRET": "client-secret-of-the-tests",
    "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
    "RDSTATION_API_URL": "https://api.rd.services",
    "DATABASE_URL": "postgres://app:the-password@db.example.com:5433/rd?sslmode=require",
    "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
}
NAMES = [
    *VALID,
    "RDSTATION_CACHE_TTL",
    "RDSTATION_SCOPE",
    "RDSTATION_RATE_LIMIT",
    "METRICS_TOKEN",
    "TRUSTED_PROXIES",
    "DYNO",
    "RDSERVICE_ENV",
]
PIECES = st.sampled_from(
    [
        *VALID.values(),
        MARK,
        "http://",
        "https://",
        "postgres://",
        "://",
        "@",
        ":",
        "/rd/callback",
        "[",
        "]",
        "%",
        "%zz",
        "?",
        "#",
        ",",
        " ",
        "\n",
        "\0",
        "\udcff",
        "é",
        "0",
        "99999999999",
        "-1",
        "localhost",
        "::1",
        ":99999",
        "=",
        "'",
    ]
)
VALUES = st.one_of(st.lists(PIECES, max_size=6).map("".join), ODD_TEXTS)
VARIABLES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6).map(lambda odd: VALID | odd)


def read(make: Callable[[], Result]) -> Result | SettingsError:
    """Return what `make` makes, or the error that it raises."""
    try:
        return make()
    except SettingsError as error:
        return error


@given(VARIABLES)
@example(VALID | {"DATABASE_URL": "postgres://db/\udcff"})
@example(VALID | {"DATABASE_URL": "postgres://db/\0"})
@example(VALID | {"SECRET_KEY": "\udcff" * 40})
@example(VALID | {"RDSTATION_REDIRECT_URI": "https://[/rd/callback"})
def test_settings_can_be_used_everywhere_or_are_refused(variables: dict[str, str]) -> None:
    settings = read(lambda: Settings.from_mapping(variables))
    if isinstance(settings, SettingsError):
        assert settings.problems
        assert {problem.variable for problem in settings.problems} <= set(NAMES)
        return
    assert 1 <= settings.cache_ttl_s <= 86_400
    assert 0 <= settings.trusted_proxies <= 10
    assert settings.public_origin.startswith(("http://", "https://"))
    assert settings.api_url == settings.api_url.rstrip("/")
    # What each process makes of them when it starts.
    assert browser_session.cookie_name(settings).isascii()
    ring = KeyRing(settings.encryption_keys)
    assert ring.decrypt("column", "account", ring.encrypt("column", "account", "value")) == "value"
    assert throttle.key_limits(settings.secret_key, "127.0.0.1")
    RDStation(settings).dialog_url("state").encode("ascii")
    for text in (
        settings.client_id,
        settings.database_url,
        *settings.metrics_tokens,
        *settings.client_secrets,
    ):
        assert "\0" not in text
        text.encode()


@given(st.sampled_from(NAMES), st.lists(PIECES, max_size=4), st.lists(PIECES, max_size=4), VARIABLES)
def test_no_sentence_and_no_representation_tells_a_value(
    name: str, before: list[str], after: list[str], others: dict[str, str]
) -> None:
    planted = f"{''.join(before)}{MARK}{''.join(after)}"
    settings = read(lambda: Settings.from_mapping(others | {name: planted}))
    if isinstance(settings, SettingsError):
        assert MARK not in str(settings) + repr(settings.problems)
        for language in LANGUAGES:
            assert MARK not in settings_problems.report(language, settings.problems)
        return
    shown = {"RDSTATION_CLIENT_ID", "RDSTATION_REDIRECT_URI", "RDSTATION_API_URL", "RDSTATION_SCOPE"}
    if not any(MARK in others.get(public, "") for public in shown) and name not in shown:
        assert MARK not in repr(settings)


LINES = st.builds("{}={}".format, st.sampled_from(NAMES), VALUES)
FILES = st.one_of(
    st.binary(max_size=200),
    st.lists(LINES).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")),
)


@given(content=FILES)
@example(content=b"\xff")
@example(content=b"\0")
@example(content=b"A='")
@example(content=b'RDSTATION_CLIENT_SECRET="pLaNtEd7\nB=1')
def test_a_settings_file_of_any_bytes_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(content)
    found = read(lambda: collect_sources({"RDSERVICE_DATA_DIR": str(tmp_path)}))
    if isinstance(found, SettingsError):
        assert MARK not in repr(found.problems)
        assert [problem.code for problem in found.problems] == ["file_not_utf8"]
        return
    assert all(value.strip() for value in found.values())
