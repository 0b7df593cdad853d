"""Secrets pasted where they do not belong are refused without being repeated."""

import subprocess
import sys
from pathlib import Path

import pytest

from rdservice.config.problems import SettingsError
from rdservice.config.settings import ROOT, Settings
from rdservice.text import settings_problems
from tests.support.leaks.planted import Planted
from tests.support.leaks.stage import SECRETS

PASTED = {
    "client_secret": SECRETS["client_secret"],
    "secret_key": SECRETS["secret_key"],
    "encryption_key": SECRETS["encryption_key"],
    "api_key": SECRETS["unknown_key"],
    "token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkLXN1YmplY3QifQ.cGxhbnRlZC1zaWduYXR1cmU",
    "database_url": "postgres://rd-user:planted-Pa55word-x@db.example.com:5432/rd",
}
NAMES = (
    "RDSTATION_CLIENT_ID",
    "RDSTATION_CLIENT_SECRET",
    "RDSTATION_REDIRECT_URI",
    "RDSTATION_CACHE_TTL",
    "RDSTATION_API_URL",
    "RDSTATION_SCOPE",
    "RDSTATION_RATE_LIMIT",
    "DATABASE_URL",
    "SECRET_KEY",
    "TOKEN_ENCRYPTION_KEYS",
    "METRICS_TOKEN",
    "NOTIFY_URLS",
    "TRUSTED_PROXIES",
    "RDSERVICE_ENV",
)
PROGRAMS: tuple[tuple[str, ...], ...] = (
    ("-m", "flask", "settings", "check"),
    ("-m", "worker"),
    ("-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "--bind", "127.0.0.1:0", "wsgi:app"),
    ("scripts/debug_rdstation_integration.py",),
)


@pytest.fixture
def planted() -> Planted:
    found = Planted()
    found.add(**PASTED, database_password="planted-Pa55word-x")
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pasted", PASTED)
def test_a_secret_in_any_variable_is_not_repeated(
    variables: dict[str, str], planted: Planted, name: str, pasted: str
) -> None:
    # A client id may look like anything, and is shown.
    shown = [pasted] if name == "RDSTATION_CLIENT_ID" else []
    said = what_is_said_of(variables | {name: PASTED[pasted]})
    assert planted.found_in(said, shown=shown) == []


def what_is_said_of(variables: dict[str, str]) -> str:
    try:
        return repr(Settings.from_mapping(variables))
    except SettingsError as error:
        return f"{error!r} {error.problems} {settings_problems.report('en', error.problems)}"


@pytest.mark.parametrize("password", ["pa@ss-word", "pa/ss-word", "12/ss-word", "pa:ss@word", "p%zzss-word"])
def test_a_password_that_is_not_percent_encoded_is_refused_and_not_taken_for_a_host(
    variables: dict[str, str], password: str
) -> None:
    url = f"postgres://rd-user:{password}@db.example.com:5432/rd"
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(variables | {"DATABASE_URL": url})
    (problem,) = caught.value.problems
    assert problem.code in ("database_url_implausible", "database_url_unparsable")
    assert "ss-word" not in repr(problem)
    assert "@word" not in repr(problem)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p%40ss%2F@db-1.example.com:5432/rd?sslmode=require",
        "postgresql://u:p#ss@10.0.0.1/rd",
        "postgresql://u:p@[::1]:5432/rd",
        "postgresql://u:p@one:5432,two:5433/rd",
        "postgresql://u:p@/rd?host=%2Fvar%2Frun%2Fpostgresql",
        "postgresql:///rd",
    ],
)
def test_whatever_form_of_url_the_database_s_library_understands_is_accepted(
    variables: dict[str, str], url: str
) -> None:
    assert Settings.from_mapping(variables | {"DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    "scope", ["contacts", "contacts segmentations:read", "v2.contacts", "contact_lists.read-write"]
)
def test_scopes_are_accepted(variables: dict[str, str], scope: str) -> None:
    assert Settings.from_mapping(variables | {"RDSTATION_SCOPE": scope}).scope == scope


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_no_program_repeats_secrets_of_settings_that_are_all_wrong(
    planted: Planted, tmp_path: Path, program: tuple[str, ...]
) -> None:
    swapped = dict(zip(NAMES, [*PASTED.values()] * 3, strict=False))
    swapped |= {"RDSTATION_CLIENT_SECRET": "has space " + PASTED["client_secret"], "SECRET_KEY": "short-one"}
    planted.add(short="short-one")
    command = [str(ROOT / part) if part.startswith("scripts/") else part for part in program]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "RDSERVICE_DATA_DIR": str(tmp_path)} | swapped,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, 78), done.stderr
    assert "RDSTATION_API_URL" in done.stdout + done.stderr
    written = [file.read_text() for file in tmp_path.iterdir() if file.is_file()]
    assert len(written) == ("debug" in program[0])
    for text in (done.stdout, done.stderr, *written):
        found = planted.found_in(text)
        assert not found, "\n".join(map(str, found))
