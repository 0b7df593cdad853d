"""Settings: what is read from where, and what is said about mistakes."""

import base64
import os
import random
import string
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from rdservice import settings as settings_module
from rdservice.encryption import KeyRing
from rdservice.settings import EXIT_CONFIG, ROOT, Settings, SettingsError, collect_sources

# Not random: test ids hold it, which all processes of a run must agree about.
FERNET_KEY = "dzpPopuI4_KNx-qnj3WNpMLS2v0Vek-qyopYqciI7cE="
VALID = {
    "RDSTATION_CLIENT_ID": "11111111-2222-3333-4444-555555555555",
    "RDSTATION_CLIENT_SECRET": "fedcba9876543210fedcba9876543210",
    "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
    "DATABASE_URL": "postgres://user:password@db.example.com:5432/app",
    "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "TOKEN_ENCRYPTION_KEYS": FERNET_KEY,
}
REQUIRED = list(VALID)


def problems(**changes: str) -> list[str]:
    """Return what is said about the valid settings with `changes`; nothing when they can be used."""
    try:
        Settings.from_mapping(VALID | changes)
    except SettingsError as error:
        return error.problems
    return []


def only_problem(**changes: str) -> str:
    (problem,) = problems(**changes)
    return problem


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the repository's, so that no file of the developer is read."""
    monkeypatch.setattr(settings_module, "ROOT", tmp_path)
    return tmp_path


def test_the_four_documented_variables_are_read_under_their_names() -> None:
    settings = Settings.from_mapping(VALID | {"RDSTATION_CACHE_TTL": "60"})
    assert settings.client_id == VALID["RDSTATION_CLIENT_ID"]
    assert settings.client_secrets == (VALID["RDSTATION_CLIENT_SECRET"],)
    assert settings.redirect_uri == VALID["RDSTATION_REDIRECT_URI"]
    assert settings.cache_ttl_s == 60


def test_what_is_not_set_has_its_documented_default() -> None:
    settings = Settings.from_mapping(VALID)
    assert settings.cache_ttl_s == 900
    assert settings.api_url == "https://api.rd.services"
    assert settings.scope == "contacts"
    assert settings.rate_limit == 120
    assert settings.metrics_token is None
    assert settings.trusted_proxies == 0
    assert not settings.production


def test_all_other_variables_are_read_under_their_names() -> None:
    settings = Settings.from_mapping(
        VALID
        | {
            "RDSTATION_API_URL": "http://127.0.0.1:8001/",
            "RDSTATION_SCOPE": "contacts events",
            "RDSTATION_RATE_LIMIT": "500",
            "METRICS_TOKEN": "scrape-me",
            "TRUSTED_PROXIES": "2",
            "RDSERVICE_ENV": "production",
        }
    )
    assert settings.api_url == "http://127.0.0.1:8001"
    assert settings.scope == "contacts events"
    assert settings.rate_limit == 500
    assert settings.metrics_token == "scrape-me"
    assert settings.trusted_proxies == 2
    assert settings.production
    assert settings.database_url == VALID["DATABASE_URL"]
    assert settings.secret_key == VALID["SECRET_KEY"]
    assert settings.encryption_keys == (FERNET_KEY.encode(),)


def test_the_secret_may_be_a_list_in_the_order_in_which_it_is_tried() -> None:
    settings = Settings.from_mapping(VALID | {"RDSTATION_CLIENT_SECRET": " new-one , old-one,,new-one "})
    assert settings.client_secrets == ("new-one", "old-one")


def test_encryption_keys_are_a_list_of_fernet_keys_or_hexadecimal_digits() -> None:
    settings = Settings.from_mapping(VALID | {"TOKEN_ENCRYPTION_KEYS": f"{'ab' * 32}, {FERNET_KEY}"})
    assert len(settings.encryption_keys) == 2
    assert settings.encryption_keys[1] == FERNET_KEY.encode()
    assert len(Fernet(settings.encryption_keys[0]).encrypt(b"value")) > 0


HEX_KEY = "0123456789abcdef" * 4
STANDARD_BASE64 = base64.b64encode(b"\xff\xfe" * 16).decode()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"  {FERNET_KEY} ,\t{HEX_KEY}\n", 2),
        (f"{HEX_KEY.upper()},{FERNET_KEY}", 2),
        (f"{FERNET_KEY},{FERNET_KEY}", 1),
        (f"{HEX_KEY},{FERNET_KEY},{HEX_KEY.upper()}", 2),
        (f"{HEX_KEY},{base64.urlsafe_b64encode(bytes.fromhex(HEX_KEY)).decode()}", 1),
        (STANDARD_BASE64, 1),
        (f"{STANDARD_BASE64},{STANDARD_BASE64.replace('/', '_').replace('+', '-')}", 1),
    ],
    ids=[
        "white space",
        "capitals",
        "twice",
        "twice and another",
        "in both forms",
        "standard base64",
        "both alphabets",
    ],
)
def test_encryption_keys_may_come_in_odd_forms(given: str, expected: int) -> None:
    settings = Settings.from_mapping(VALID | {"TOKEN_ENCRYPTION_KEYS": given})
    assert len(settings.encryption_keys) == expected
    ring = KeyRing(settings.encryption_keys)
    assert ring.decrypt("c", "a", ring.encrypt("c", "a", "value")) == "value"
    assert (
        settings.encryption_keys[0]
        == Settings.from_mapping(
            VALID | {"TOKEN_ENCRYPTION_KEYS": given.split(",", maxsplit=1)[0]}
        ).encryption_keys[0]
    )


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("", "entry 2 is empty: there is a comma too many"),
        (f"{FERNET_KEY} {HEX_KEY}", "entry 2 contains white space; several keys are separated by commas"),
        (f'"{FERNET_KEY}"', "entry 2 contains a quotation mark: leave it out"),
        (f"\u201c{HEX_KEY}\u201d", "entry 2 contains a quotation mark: leave it out"),
        (HEX_KEY[:32], "entry 2 has 32 hexadecimal digits, not 64"),
        (HEX_KEY + "0", "entry 2 has 65 hexadecimal digits, not 64"),
        (FERNET_KEY.rstrip("="), "entry 2 lacks the = at its end: copy the whole key"),
        (base64.urlsafe_b64encode(b"Z" * 31).decode(), "entry 2 is base64 of 31 bytes, not of 32"),
        (base64.urlsafe_b64encode(b"Z" * 33).decode(), "entry 2 is base64 of 33 bytes, not of 32"),
        (FERNET_KEY[:-2] + "é=", "entry 2 is neither a Fernet key nor 64 hexadecimal digits"),
        (f"{FERNET_KEY};{HEX_KEY}", "entry 2 is neither a Fernet key nor 64 hexadecimal digits"),
    ],
)
def test_what_is_wrong_with_an_encryption_key_is_said_without_showing_it(entry: str, said: str) -> None:
    problem = only_problem(TOKEN_ENCRYPTION_KEYS=f"{HEX_KEY},{entry},{FERNET_KEY}")
    assert problem.startswith(f"TOKEN_ENCRYPTION_KEYS {said}. Example: ")
    shown = problem.partition(". Example: ")[0]
    parts = {
        text[start : start + 6] for text in (entry, HEX_KEY, FERNET_KEY) for start in range(len(text) - 5)
    }
    assert not any(part in shown for part in parts)


@pytest.mark.parametrize("environment", [{"DYNO": "web.1"}, {"RDSERVICE_ENV": "production"}])
def test_a_deployment_is_known_by_dyno_or_rdservice_env(environment: dict[str, str]) -> None:
    assert Settings.from_mapping(VALID | environment).production


def test_one_proxy_is_trusted_on_heroku() -> None:
    assert Settings.from_mapping(VALID | {"DYNO": "web.1"}).trusted_proxies == 1


@pytest.mark.parametrize(
    ("uri", "origin", "https"),
    [
        ("https://app.example.com/rd/callback", "https://app.example.com", True),
        ("http://localhost:8000/rd/callback", "http://localhost:8000", False),
        ("http://[::1]:8000/rd/callback", "http://[::1]:8000", False),
        ("http://127.0.0.1/rd/callback", "http://127.0.0.1", False),
        ("HTTPS://App.Example.COM/rd/callback", "https://app.example.com", True),
        ("https://app.example.com:443/rd/callback", "https://app.example.com", True),
        ("https://app.example.com:80/rd/callback", "https://app.example.com:80", True),
        ("https://app.example.com:8443/rd/callback", "https://app.example.com:8443", True),
        ("http://localhost:80/rd/callback", "http://localhost", False),
    ],
)
def test_the_public_origin_comes_from_the_redirect_uri(uri: str, origin: str, https: bool) -> None:
    settings = Settings.from_mapping(VALID | {"RDSTATION_REDIRECT_URI": uri})
    assert settings.public_origin == origin
    assert settings.served_over_https is https


def test_settings_cannot_be_changed() -> None:
    settings = Settings.from_mapping(VALID)
    with pytest.raises(FrozenInstanceError):
        settings.scope = "other"  # type: ignore[misc]


def test_no_secret_stands_in_the_repr() -> None:
    values = VALID | {"METRICS_TOKEN": "metrics-token-of-the-test"}
    shown = repr(Settings.from_mapping(values))
    for name in [*REQUIRED, "METRICS_TOKEN"]:
        if name not in ("RDSTATION_CLIENT_ID", "RDSTATION_REDIRECT_URI"):
            assert values[name] not in shown, name


# Sources


def test_the_environment_goes_before_dotenv_and_dotenv_before_the_file_of_scripts_start(root: Path) -> None:
    data = root / "data"
    data.mkdir()
    (data / "env").write_text("A=file\nB=file\nC=file\n")
    (root / ".env").write_text("A=dotenv\nB=dotenv\n")
    merged = collect_sources({"A": "environment", "RDSERVICE_DATA_DIR": str(data)})
    assert (merged["A"], merged["B"], merged["C"]) == ("environment", "dotenv", "file")


def test_the_file_of_scripts_start_is_in_the_folder_dot_data_unless_told_otherwise(root: Path) -> None:
    (root / ".data").mkdir()
    (root / ".data" / "env").write_text("C=file\n")
    assert collect_sources({})["C"] == "file"


@pytest.mark.parametrize("where", ["environment", "dotenv"])
def test_the_file_of_scripts_start_is_ignored_in_production(root: Path, where: str) -> None:
    (root / ".data").mkdir()
    (root / ".data" / "env").write_text("C=file\n")
    environment = {}
    if where == "environment":
        environment["DYNO"] = "web.1"
    else:
        (root / ".env").write_text("RDSERVICE_ENV=production\nB=dotenv\n")
    merged = collect_sources(environment)
    assert "C" not in merged
    assert merged.get("B") == (None if where == "environment" else "dotenv")


def test_the_file_of_scripts_start_cannot_declare_production(root: Path) -> None:
    (root / ".data").mkdir()
    (root / ".data" / "env").write_text("RDSERVICE_ENV=production\nC=file\n")
    assert collect_sources({"RDSERVICE_ENV": "development"})["RDSERVICE_ENV"] == "development"


def test_an_empty_value_counts_as_not_set(root: Path) -> None:
    (root / ".env").write_text("A=dotenv\nB=\n")
    (root / ".data").mkdir()
    (root / ".data" / "env").write_text("B=file\n")
    merged = collect_sources({"A": " ", "RDSERVICE_DATA_DIR": ""})
    assert (merged["A"], merged["B"]) == ("dotenv", "file")


def test_what_stands_in_a_file_is_what_is_meant(root: Path) -> None:
    (root / ".env").write_text("A='pa${HOME}ss'\nB=plain\n")
    assert collect_sources({})["A"] == "pa${HOME}ss"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_settings_file_in_another_encoding_is_named_and_not_quoted(root: Path, encoding: str) -> None:
    (root / ".env").write_text("SECRET_KEY=é-confidential\n", encoding=encoding)
    with pytest.raises(SettingsError) as caught:
        collect_sources({})
    (problem,) = caught.value.problems
    assert str(root / ".env") in problem
    assert "UTF-8" in problem
    assert "confidential" not in problem


def test_a_settings_file_that_cannot_be_opened_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".env").write_text("A=1\n")

    def refuse(*_args: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(settings_module, "dotenv_values", refuse)
    with pytest.raises(SettingsError) as caught:
        collect_sources({})
    assert str(root / ".env") in caught.value.problems[0]


# Mistakes


def test_every_mistake_is_reported_at_once_by_name_with_an_example() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(
            {"RDSTATION_CACHE_TTL": "soon", "TRUSTED_PROXIES": "-1", "RDSTATION_API_URL": "x"}
        )
    named = [problem.split()[0] for problem in caught.value.problems]
    assert sorted(named) == sorted([*REQUIRED, "RDSTATION_CACHE_TTL", "TRUSTED_PROXIES", "RDSTATION_API_URL"])
    for name, problem in zip(named, caught.value.problems, strict=True):
        assert f"Example: {name}=" in problem
    report = caught.value.report()
    assert f"({len(named)} to mend)" in report
    for problem in caught.value.problems:
        assert f"\n  - {problem}" in report


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("environment", [{}, {"RDSERVICE_ENV": "production"}])
def test_a_required_variable_has_no_default(name: str, environment: dict[str, str]) -> None:
    values = {other: value for other, value in VALID.items() if other != name}
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(values | environment)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name} is not set. Example: {name}=")


@pytest.mark.parametrize("name", ["RDSTATION_CACHE_TTL", "RDSTATION_RATE_LIMIT", "TRUSTED_PROXIES"])
@pytest.mark.parametrize("value", ["15 minutes", "9.5", "-1", "1e3", "0x10", "٣", "9999999999", "1_000"])
def test_a_number_must_be_a_whole_number_in_its_range(name: str, value: str) -> None:
    assert only_problem(**{name: value}).startswith(f"{name} must be a whole number from ")


KNOWN_MISTAKES = [
    (
        "a secret pasted as redirect URI",
        {"RDSTATION_REDIRECT_URI": VALID["RDSTATION_CLIENT_SECRET"]},
        "secret",
    ),
    (
        "any secret pasted as redirect URI",
        {"RDSTATION_REDIRECT_URI": "0a1b2c3d4e5f60718293a4b5"},
        "looks like",
    ),
    (
        "the secret inside the redirect URI",
        {"RDSTATION_REDIRECT_URI": f"https://a.example.com/{VALID['RDSTATION_CLIENT_SECRET']}"},
        "holds the client secret",
    ),
    ("a URL pasted as secret", {"RDSTATION_CLIENT_SECRET": "https://x.example.com/rd/callback"}, "swapped"),
    ("a URL pasted as id", {"RDSTATION_CLIENT_ID": "https://x.example.com/"}, "holds a URL"),
    ("two ids", {"RDSTATION_CLIENT_ID": "one two"}, "white space"),
    ("the id pasted as secret", {"RDSTATION_CLIENT_SECRET": VALID["RDSTATION_CLIENT_ID"]}, "is the same as"),
    ("secrets with spaces", {"RDSTATION_CLIENT_SECRET": "one two"}, "separated by commas"),
    ("only commas", {"RDSTATION_CLIENT_SECRET": ",,"}, "only commas"),
    (
        "a local host in production",
        {"RDSTATION_REDIRECT_URI": "http://localhost:8000/rd/callback", "DYNO": "web.1"},
        "local host",
    ),
    (
        "a local host under https in production",
        {"RDSTATION_REDIRECT_URI": "https://127.0.0.1/rd/callback", "RDSERVICE_ENV": "production"},
        "local host",
    ),
    (
        "http in production",
        {"RDSTATION_REDIRECT_URI": "http://app.example.com/rd/callback", "DYNO": "web.1"},
        "must use https",
    ),
    ("http elsewhere", {"RDSTATION_REDIRECT_URI": "http://app.example.com/rd/callback"}, "must use https"),
    ("an environment that does not exist", {"RDSERVICE_ENV": "prod"}, "must be production"),
    ("another scheme", {"RDSTATION_REDIRECT_URI": "ftp://app.example.com/rd/callback"}, "https://"),
    ("a path only", {"RDSTATION_REDIRECT_URI": "/rd/callback"}, "absolute URL"),
    ("no scheme", {"RDSTATION_REDIRECT_URI": "app.example.com/rd/callback"}, "absolute URL"),
    (
        "a port that is none",
        {"RDSTATION_REDIRECT_URI": "https://a.example:99999/rd/callback"},
        "absolute URL",
    ),
    ("a broken address", {"RDSTATION_REDIRECT_URI": "https://[::1/rd/callback"}, "absolute URL"),
    ("another path", {"RDSTATION_REDIRECT_URI": "https://app.example.com/callback"}, "/rd/callback"),
    ("a slash too many", {"RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback/"}, "nothing after"),
    ("a query", {"RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback?a=1"}, "nothing after"),
    ("a path of the API", {"RDSTATION_API_URL": "https://api.rd.services/platform"}, "no path"),
    ("no URL of the API", {"RDSTATION_API_URL": "api.rd.services"}, "absolute http(s) URL"),
    ("credentials for the API", {"RDSTATION_API_URL": "https://a:b@api.rd.services"}, "without credentials"),
    (
        "an API in plain text in production",
        {"RDSTATION_API_URL": "http://api.rd.services", "DYNO": "web.1"},
        "must use https",
    ),
    ("another database", {"DATABASE_URL": "mysql://user:password@db/app"}, "postgres://"),
    ("a database URL that is none", {"DATABASE_URL": "postgres://user:pa%ss@db/app"}, "percent-encoded"),
    ("a short key", {"SECRET_KEY": "short"}, "shorter than 32"),
    ("a key that is none", {"TOKEN_ENCRYPTION_KEYS": f"{FERNET_KEY},nonsense!"}, "entry 2 is neither"),
    (
        "a trailing comma",
        {"TOKEN_ENCRYPTION_KEYS": f"{FERNET_KEY},"},
        "entry 2 is empty: there is a comma too many",
    ),
]


@pytest.mark.parametrize(
    ("changes", "said"), [case[1:] for case in KNOWN_MISTAKES], ids=[case[0] for case in KNOWN_MISTAKES]
)
def test_a_known_mistake_has_its_own_message(changes: dict[str, str], said: str) -> None:
    problem = only_problem(**changes)
    name = next(iter(changes))
    assert problem.startswith(f"{name} ")
    assert said in problem
    assert f"Example: {name}=" in problem


def test_a_swapped_secret_and_redirect_uri_are_both_named() -> None:
    said = problems(
        RDSTATION_CLIENT_SECRET=VALID["RDSTATION_REDIRECT_URI"],
        RDSTATION_REDIRECT_URI=VALID["RDSTATION_CLIENT_SECRET"],
    )
    assert [problem.split()[0] for problem in said] == ["RDSTATION_CLIENT_SECRET", "RDSTATION_REDIRECT_URI"]


def test_a_right_redirect_uri_is_not_blamed_for_being_pasted_as_secret_too() -> None:
    assert only_problem(RDSTATION_CLIENT_SECRET=VALID["RDSTATION_REDIRECT_URI"]).startswith(
        "RDSTATION_CLIENT_SECRET holds a URL"
    )


def _odd_values(seed: int) -> dict[str, str]:
    """Values of which some are fit for their variable and most are not, each with a mark of its own."""
    rng = random.Random(seed)  # noqa: S311 - the same values in each run

    def mark() -> str:
        return "".join(rng.choices(string.ascii_letters + string.digits, k=20))

    shapes: list[Callable[[], str]] = [
        mark,
        lambda: f"https://{mark()}.example.com/{mark()}",
        lambda: f"https://{mark()}:{mark()}@db.example.com/rd/callback",
        lambda: f"postgres://user:{mark()}%zz@db/{mark()}",
        lambda: f"postgres://user:{mark()} {mark()}@db/app?sslmode={mark()}",
        lambda: f"{mark()} {mark()}",
        lambda: f"{mark()},{mark()},http://{mark()}",
        lambda: f"http://[{mark()}",
        lambda: f"{mark()}\n{mark()}",
        lambda: f"\x00{mark()}\ud800",
        lambda: FERNET_KEY[:-3] + mark(),
    ]
    optional = ["RDSTATION_CACHE_TTL", "RDSTATION_API_URL", "RDSTATION_RATE_LIMIT", "TRUSTED_PROXIES"]
    return {name: rng.choice(shapes)() for name in [*REQUIRED, *optional] if rng.random() < 0.9}


@pytest.mark.parametrize("seed", range(200))
def test_no_message_quotes_a_value(seed: int) -> None:
    values = _odd_values(seed)
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(values)
    told = caught.value.report() + str(caught.value) + repr(caught.value)
    for name, value in values.items():
        for start in range(0, max(1, len(value) - 8), 4):
            part = value[start : start + 8]
            if (
                part.strip()
                and part not in "https://app.example.com/rd/callback postgres://user:password@host"
            ):
                assert part not in told, name


# Processes


@pytest.mark.parametrize("command", [["flask", "settings", "check"], ["worker"], ["flask", "release"]])
def test_a_process_with_broken_settings_ends_with_78_and_all_problems_on_stderr(
    command: list[str], tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "RDSERVICE_ENV": "production",
            "FLASK_SKIP_DOTENV": "1",
            "HOME": str(tmp_path),
            "RDSTATION_CLIENT_SECRET": "https://planted.example.com/rd/callback",
            "SECRET_KEY": "planted-short-key",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == EXIT_CONFIG == 78, ended.stderr
    for name in REQUIRED:
        assert f"  - {name} " in ended.stderr
    assert "planted" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
