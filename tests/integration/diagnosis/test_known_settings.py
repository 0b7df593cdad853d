"""The settings in a report: every mistake has a name, every secret is masked."""

import json
from pathlib import Path
from typing import Any

import pytest

from rdservice.config import settings as settings_module
from rdservice.diagnosis.facts import known_settings
from rdservice.diagnosis.facts.known_settings import KnownSettings
from rdservice.diagnosis.facts.types import Facts
from rdservice.diagnosis.findings.find import find
from rdservice.notifications import targets

# Not random: test ids hold it, which all processes of a run must agree about.
FERNET_KEY = "dzpPopuI4_KNx-qnj3WNpMLS2v0Vek-qyopYqciI7cE="
SECRET = "fedcba9876543210fedcba9876543210"
VALID = {
    "RDSTATION_CLIENT_ID": "11111111-2222-3333-4444-555555555555",
    "RDSTATION_CLIENT_SECRET": SECRET,
    "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
    "DATABASE_URL": "postgres://app:the-password@db.example.com:5433/rd?sslmode=require",
    "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "TOKEN_ENCRYPTION_KEYS": FERNET_KEY,
}
MISTAKES: list[tuple[dict[str, str], str]] = [
    ({"RDSTATION_REDIRECT_URI": ""}, "settings_broken"),
    ({"RDSTATION_REDIRECT_URI": SECRET}, "redirect_uri_holds_secret"),
    ({"RDSTATION_REDIRECT_URI": "a" * 32}, "redirect_uri_holds_secret"),
    ({"RDSTATION_REDIRECT_URI": f"https://app.example.com/{SECRET}"}, "redirect_uri_holds_secret"),
    ({"RDSTATION_REDIRECT_URI": "no url"}, "settings_broken"),
    ({"RDSTATION_REDIRECT_URI": "ftp://app.example.com/rd/callback"}, "redirect_uri_not_https"),
    ({"RDSTATION_REDIRECT_URI": "http://app.example.com/rd/callback"}, "redirect_uri_not_https"),
    ({"RDSTATION_REDIRECT_URI": "https://app.example.com/callback"}, "redirect_uri_wrong_path"),
    (
        {"RDSTATION_REDIRECT_URI": "http://localhost:8000/rd/callback", "DYNO": "web.1"},
        "redirect_uri_local_host",
    ),
    ({"RDSTATION_CLIENT_SECRET": "https://app.example.com/rd/callback"}, "client_secret_holds_url"),
    ({"RDSTATION_CLIENT_SECRET": "two words"}, "settings_broken"),
    ({"RDSTATION_CLIENT_SECRET": ",,"}, "settings_broken"),
    ({"RDSTATION_CLIENT_SECRET": VALID["RDSTATION_CLIENT_ID"]}, "settings_broken"),
    ({"RDSTATION_CLIENT_ID": "https://app.example.com"}, "settings_broken"),
    ({"RDSTATION_CLIENT_ID": "two words"}, "settings_broken"),
    ({"RDSTATION_CACHE_TTL": "soon"}, "settings_broken"),
    ({"RDSTATION_API_URL": "api.rd.services"}, "settings_broken"),
    ({"RDSTATION_API_URL": "https://api.rd.services/v2"}, "settings_broken"),
    ({"RDSTATION_API_URL": "http://api.rd.services", "DYNO": "web.1"}, "settings_broken"),
    ({"DATABASE_URL": "mysql://db"}, "settings_broken"),
    ({"DATABASE_URL": "postgres://app:100%zz@db/rd"}, "settings_broken"),
    ({"DATABASE_URL": "postgres://app:a/b@db/rd"}, "settings_broken"),
    ({"NOTIFY_URLS": "team@example.org"}, "settings_broken"),
    ({"NOTIFY_URLS": "a-word"}, "settings_broken"),
    ({"RDSTATION_SCOPE": "Contacts!"}, "settings_broken"),
    ({"RDSTATION_SCOPE": "contacts\udcff"}, "settings_broken"),
    ({"RDSERVICE_ENV": "staging"}, "settings_broken"),
    ({"SECRET_KEY": "short"}, "settings_broken"),
    *(
        ({"TOKEN_ENCRYPTION_KEYS": f"{FERNET_KEY},{entry}"}, "settings_broken")
        for entry in (
            "nonsense!",
            "nonsense",
            "",
            "two words",
            f"'{FERNET_KEY}'",
            "abc0" * 8,
            FERNET_KEY[:-1],
        )
    ),
]


@pytest.fixture(autouse=True)
def _no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "ROOT", tmp_path)


def known(**changes: str) -> KnownSettings:
    return known_settings.collect(VALID | changes)


def shown(**changes: str) -> dict[str, Any]:
    variables: dict[str, Any] = known_settings.masked(known(**changes))["variables"]
    return variables


def test_valid_settings_have_no_problem_and_can_be_used() -> None:
    found = known()
    assert found.problems == ()
    assert found.can_call
    assert found.settings.client_secrets == (SECRET,)


@pytest.mark.parametrize(("changes", "code"), MISTAKES)
def test_each_mistake_is_a_finding_in_both_languages(changes: dict[str, str], code: str) -> None:
    found = known(**changes)
    (finding,) = find(Facts(settings_problems=found.problems))
    assert (finding.code, finding.severity) == (code, "error")
    english, portuguese = finding.text("en").seen, finding.text("pt-BR").seen
    assert english != portuguese
    for seen in (english, portuguese):
        assert seen.startswith(next(iter(changes)))


@pytest.mark.parametrize(("changes", "code"), MISTAKES)
def test_the_value_of_a_broken_variable_is_not_shown(changes: dict[str, str], code: str) -> None:
    variable, value = next(iter(changes.items()))
    entry = shown(**changes)[variable]
    assert entry["valid"] is False
    assert entry["set"] == bool(value)
    if value:
        assert value not in json.dumps(entry)


@pytest.mark.parametrize(("changes", "code"), MISTAKES)
def test_one_mistake_leaves_the_other_settings_usable(changes: dict[str, str], code: str) -> None:
    found = known(**changes)
    assert found.broken == {next(iter(changes))}
    others = [name for name in VALID if name not in changes]
    assert found.usable(*others)
    assert not found.usable(next(iter(changes)))


@pytest.mark.parametrize(
    ("url", "code", "seen"),
    [
        ("team@example.org", "settings_broken", "é um endereço de e-mail"),
        ("a-word", "settings_broken", "não tem esquema"),
        ("https://example.com/hook", "notifications_failing", "é um endereço web comum"),
        ("nonsense://a-word", "notifications_failing", "não é uma URL que o apprise possa usar"),
    ],
)
def test_each_mistake_in_a_receiver_is_told_in_portuguese_too(url: str, code: str, seen: str) -> None:
    found = known(NOTIFY_URLS=url)
    problems = found.problems + targets.unusable(found.settings.notify_urls)
    (finding,) = find(Facts(settings_problems=problems))
    assert finding.code == code
    assert finding.text("pt-BR").seen.startswith(f"NOTIFY_URLS: a entrada 1 {seen}")
    assert url not in str(finding)


def test_how_to_make_a_key_is_told_in_portuguese_too() -> None:
    (finding,) = find(Facts(settings_problems=known(SECRET_KEY="").problems))
    assert "SECRET_KEY=the output of python -c" in finding.text("en").todo
    assert "SECRET_KEY=a saída de python -c" in finding.text("pt-BR").todo


def test_nothing_is_called_with_stand_ins() -> None:
    for name in ("RDSTATION_CLIENT_ID", "RDSTATION_CLIENT_SECRET", "TOKEN_ENCRYPTION_KEYS", "DATABASE_URL"):
        assert not known(**{name: ""}).can_call
    assert not known(RDSTATION_API_URL="nonsense").can_call
    assert known(RDSTATION_REDIRECT_URI="", SECRET_KEY="").can_call


def test_all_settings_may_be_missing() -> None:
    found = known_settings.collect({})
    assert {problem.variable for problem in found.problems} == set(VALID)
    assert known_settings.masked(found)["usable"] is False


def test_a_settings_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"SECRET_KEY=\xff\xfe")
    found = known()
    (finding,) = find(Facts(settings_problems=found.problems))
    assert finding.words == "settings_broken/file"
    assert found.can_call


def test_secrets_are_shown_by_length_and_fingerprint_only() -> None:
    entries = shown(RDSTATION_CLIENT_SECRET=f"{SECRET},short-one")["RDSTATION_CLIENT_SECRET"]["entries"]
    assert [entry["length"] for entry in entries] == [32, 9]
    assert len(entries[0]["fingerprint"]) == 4
    assert "fingerprint" not in entries[1]
    other = shown(RDSTATION_CLIENT_SECRET=SECRET[::-1])["RDSTATION_CLIENT_SECRET"]["entries"]
    assert other[0]["fingerprint"] != entries[0]["fingerprint"]


def test_a_metrics_token_has_no_fingerprint_that_could_be_guessed_from() -> None:
    entry = shown(METRICS_TOKEN="a long word that people know")["METRICS_TOKEN"]
    assert entry == {"set": True, "valid": True, "entries": [{"length": 28}]}


def test_the_database_url_is_shown_without_its_password() -> None:
    assert shown()["DATABASE_URL"] == {
        "set": True,
        "valid": True,
        "host": "db.example.com",
        "port": "5433",
        "dbname": "rd",
        "user": "app",
        "sslmode": "require",
    }
    by_parameter = shown(DATABASE_URL="postgres://db/rd?user=app&password=the-password")
    assert "the-password" not in json.dumps(by_parameter)
    assert "the-password" in known_settings.secrets_in(known())


def test_keys_are_shown_by_their_ids() -> None:
    (key_id,) = shown()["TOKEN_ENCRYPTION_KEYS"]["key_ids"]
    assert len(key_id) == 8


def test_a_client_id_that_may_be_the_secret_is_masked() -> None:
    assert shown()["RDSTATION_CLIENT_ID"]["value"] == VALID["RDSTATION_CLIENT_ID"]
    swapped = shown(RDSTATION_CLIENT_ID=SECRET, RDSTATION_CLIENT_SECRET=VALID["RDSTATION_CLIENT_ID"])
    assert SECRET not in json.dumps(swapped)


def test_no_secret_of_valid_settings_is_in_what_is_shown() -> None:
    text = json.dumps(known_settings.masked(known(METRICS_TOKEN="scrape-me-please")))
    for secret in (SECRET, "the-password", VALID["SECRET_KEY"], FERNET_KEY, "scrape-me-please"):
        assert secret not in text
