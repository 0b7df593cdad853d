"""Settings: what is read from where, and what is said about mistakes."""

import base64
import random
import string
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from rdservice.config import settings as settings_module
from rdservice.config.problems import Code, Problem, SettingsError
from rdservice.config.settings import Settings, collect_sources
from rdservice.encryption import KeyRing
from rdservice.text import settings_problems
from rdservice.text.catalogue import LANGUAGES

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


def problems(**changes: str) -> list[Problem]:
    """Return what is wrong with the valid settings with `changes`; nothing when they can be used."""
    try:
        Settings.from_mapping(VALID | changes)
    except SettingsError as error:
        return list(error.problems)
    return []


def only_problem(**changes: str) -> Problem:
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
    assert settings.metrics_tokens == ()
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
    assert settings.metrics_tokens == ("scrape-me",)
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
        ("", "is empty: there is a comma too many"),
        (f"{FERNET_KEY} {HEX_KEY}", "contains white space; separate several keys with commas"),
        (f'"{FERNET_KEY}"', "contains a quotation mark: leave it out"),
        (f"\u201c{HEX_KEY}\u201d", "contains a quotation mark: leave it out"),
        (HEX_KEY[:32], "has 32 hexadecimal digits, not 64"),
        (HEX_KEY + "0", "has 65 hexadecimal digits, not 64"),
        (FERNET_KEY.rstrip("="), "lacks the = at its end: copy the whole key"),
        (base64.urlsafe_b64encode(b"Z" * 31).decode(), "is base64 of 31 bytes, not of 32"),
        (base64.urlsafe_b64encode(b"Z" * 33).decode(), "is base64 of 33 bytes, not of 32"),
        (FERNET_KEY[:-2] + "é=", "is neither a Fernet key nor 64 hexadecimal digits"),
        (f"{FERNET_KEY};{HEX_KEY}", "is neither a Fernet key nor 64 hexadecimal digits"),
    ],
)
def test_what_is_wrong_with_an_encryption_key_is_said_without_showing_it(entry: str, said: str) -> None:
    problem = only_problem(TOKEN_ENCRYPTION_KEYS=f"{HEX_KEY},{entry},{FERNET_KEY}")
    shown = settings_problems.sentence("en", problem)
    assert shown == f"TOKEN_ENCRYPTION_KEYS: entry 2 {said}."
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
    assert (problem.code, problem.facts) == ("file_not_utf8", {"file": str(root / ".env")})
    assert "confidential" not in repr(problem) + repr(caught.value)


def test_a_settings_file_that_cannot_be_opened_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".env").write_text("A=1\n")

    def refuse(*_args: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(settings_module, "dotenv_values", refuse)
    with pytest.raises(SettingsError) as caught:
        collect_sources({})
    (problem,) = caught.value.problems
    assert problem.code == "file_unreadable"
    assert problem.facts == {"file": str(root / ".env"), "error": "EACCES"}


# Mistakes


def test_every_mistake_is_reported_at_once_by_name_with_an_example() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(
            {"RDSTATION_CACHE_TTL": "soon", "TRUSTED_PROXIES": "-1", "RDSTATION_API_URL": "x"}
        )
    found = caught.value.problems
    named = [problem.variable for problem in found]
    assert set(named) == {*REQUIRED, "RDSTATION_CACHE_TTL", "TRUSTED_PROXIES", "RDSTATION_API_URL"}
    title, *items = settings_problems.report("en", found).splitlines()
    assert title == "Invalid settings (9 problems):"
    for name, item in zip(named, items, strict=True):
        assert item.startswith(f"  - {name} ")
        assert f" Example: {name}=" in item


def test_a_single_mistake_is_reported_in_the_singular_in_both_languages() -> None:
    found = problems(SECRET_KEY="short")
    english, portuguese = (settings_problems.report(language, found).splitlines() for language in LANGUAGES)
    assert english[0] == "Invalid settings (1 problem):"
    assert portuguese[0] == "Configurações inválidas (1 problema):"
    assert portuguese[1].startswith(
        "  - SECRET_KEY tem menos de 32 caracteres. Exemplo: SECRET_KEY=a saída de"
    )


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("environment", [{}, {"RDSERVICE_ENV": "production"}])
def test_a_required_variable_has_no_default(name: str, environment: dict[str, str]) -> None:
    values = {other: value for other, value in VALID.items() if other != name}
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(values | environment)
    (problem,) = caught.value.problems
    assert (problem.variable, problem.code) == (name, "not_set")
    assert f"{name} is not set. Example: {name}=" in settings_problems.report("en", [problem])


@pytest.mark.parametrize("name", ["RDSTATION_CACHE_TTL", "RDSTATION_RATE_LIMIT", "TRUSTED_PROXIES"])
@pytest.mark.parametrize("value", ["15 minutes", "9.5", "-1", "1e3", "0x10", "٣", "9999999999", "1_000"])
def test_a_number_must_be_a_whole_number_in_its_range(name: str, value: str) -> None:
    problem = only_problem(**{name: value})
    assert (problem.variable, problem.code) == (name, "not_a_whole_number")
    assert problem.facts.keys() == {"low", "high"}


KNOWN_MISTAKES: list[tuple[str, dict[str, str], Code]] = [
    (
        "a secret pasted as redirect URI",
        {"RDSTATION_REDIRECT_URI": VALID["RDSTATION_CLIENT_SECRET"]},
        "redirect_uri_holds_secret",
    ),
    (
        "any secret pasted as redirect URI",
        {"RDSTATION_REDIRECT_URI": "0a1b2c3d4e5f60718293a4b5"},
        "redirect_uri_holds_secret",
    ),
    (
        "the secret inside the redirect URI",
        {"RDSTATION_REDIRECT_URI": f"https://a.example.com/{VALID['RDSTATION_CLIENT_SECRET']}"},
        "redirect_uri_holds_secret",
    ),
    (
        "a URL pasted as secret",
        {"RDSTATION_CLIENT_SECRET": "https://x.example.com/rd/callback"},
        "client_secret_holds_url",
    ),
    ("a URL pasted as id", {"RDSTATION_CLIENT_ID": "https://x.example.com/"}, "client_id_holds_url"),
    ("two ids", {"RDSTATION_CLIENT_ID": "one two"}, "white_space"),
    (
        "the id pasted as secret",
        {"RDSTATION_CLIENT_SECRET": VALID["RDSTATION_CLIENT_ID"]},
        "client_secret_is_client_id",
    ),
    ("secrets with spaces", {"RDSTATION_CLIENT_SECRET": "one two"}, "client_secret_white_space"),
    ("only commas", {"RDSTATION_CLIENT_SECRET": ",,"}, "only_commas"),
    ("only commas", {"METRICS_TOKEN": " , "}, "only_commas"),
    (
        "a local host in production",
        {"RDSTATION_REDIRECT_URI": "http://localhost:8000/rd/callback", "DYNO": "web.1"},
        "redirect_uri_local_host",
    ),
    (
        "a local host under https in production",
        {"RDSTATION_REDIRECT_URI": "https://127.0.0.1/rd/callback", "RDSERVICE_ENV": "production"},
        "redirect_uri_local_host",
    ),
    (
        "http in production",
        {"RDSTATION_REDIRECT_URI": "http://app.example.com/rd/callback", "DYNO": "web.1"},
        "redirect_uri_not_https",
    ),
    (
        "http elsewhere",
        {"RDSTATION_REDIRECT_URI": "http://app.example.com/rd/callback"},
        "redirect_uri_not_https",
    ),
    ("an environment that does not exist", {"RDSERVICE_ENV": "prod"}, "environment_unknown"),
    (
        "another scheme",
        {"RDSTATION_REDIRECT_URI": "ftp://app.example.com/rd/callback"},
        "redirect_uri_not_https",
    ),
    ("a path only", {"RDSTATION_REDIRECT_URI": "/rd/callback"}, "redirect_uri_not_absolute"),
    ("no scheme", {"RDSTATION_REDIRECT_URI": "app.example.com/rd/callback"}, "redirect_uri_not_absolute"),
    (
        "a port that is none",
        {"RDSTATION_REDIRECT_URI": "https://a.example:99999/rd/callback"},
        "redirect_uri_not_absolute",
    ),
    ("a broken address", {"RDSTATION_REDIRECT_URI": "https://[::1/rd/callback"}, "redirect_uri_not_absolute"),
    (
        "another path",
        {"RDSTATION_REDIRECT_URI": "https://app.example.com/callback"},
        "redirect_uri_wrong_path",
    ),
    (
        "a slash too many",
        {"RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback/"},
        "redirect_uri_wrong_path",
    ),
    (
        "a query",
        {"RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback?a=1"},
        "redirect_uri_wrong_path",
    ),
    ("a path of the API", {"RDSTATION_API_URL": "https://api.rd.services/platform"}, "api_url_has_path"),
    ("no URL of the API", {"RDSTATION_API_URL": "api.rd.services"}, "api_url_not_absolute"),
    ("credentials for the API", {"RDSTATION_API_URL": "https://a:b@api.rd.services"}, "api_url_not_absolute"),
    (
        "an API in plain text in production",
        {"RDSTATION_API_URL": "http://api.rd.services", "DYNO": "web.1"},
        "api_url_not_https",
    ),
    ("another database", {"DATABASE_URL": "mysql://user:password@db/app"}, "database_url_scheme"),
    (
        "a database URL that is none",
        {"DATABASE_URL": "postgres://user:pa%ss@db/app"},
        "database_url_unparsable",
    ),
    ("a short key", {"SECRET_KEY": "short"}, "secret_key_short"),
    ("a key that is none", {"TOKEN_ENCRYPTION_KEYS": f"{FERNET_KEY},nonsense!"}, "key_form"),
    (
        "a trailing comma",
        {"TOKEN_ENCRYPTION_KEYS": f"{FERNET_KEY},"},
        "key_empty",
    ),
]


@pytest.mark.parametrize(
    ("changes", "code"), [case[1:] for case in KNOWN_MISTAKES], ids=[case[0] for case in KNOWN_MISTAKES]
)
def test_a_known_mistake_has_its_own_message(changes: dict[str, str], code: Code) -> None:
    problem = only_problem(**changes)
    name = next(iter(changes))
    assert (problem.variable, problem.code) == (name, code)
    for language in LANGUAGES:
        assert settings_problems.sentence(language, problem).startswith(name)
        assert settings_problems.example(language, problem)


def test_a_swapped_secret_and_redirect_uri_are_both_named() -> None:
    said = problems(
        RDSTATION_CLIENT_SECRET=VALID["RDSTATION_REDIRECT_URI"],
        RDSTATION_REDIRECT_URI=VALID["RDSTATION_CLIENT_SECRET"],
    )
    assert [problem.variable for problem in said] == ["RDSTATION_CLIENT_SECRET", "RDSTATION_REDIRECT_URI"]


def test_a_right_redirect_uri_is_not_blamed_for_being_pasted_as_secret_too() -> None:
    problem = only_problem(RDSTATION_CLIENT_SECRET=VALID["RDSTATION_REDIRECT_URI"])
    assert problem.code == "client_secret_holds_url"


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
    told = str(caught.value) + repr(caught.value.problems)
    told += "".join(settings_problems.report(language, caught.value.problems) for language in LANGUAGES)
    for name, value in values.items():
        for start in range(0, max(1, len(value) - 8), 4):
            part = value[start : start + 8]
            if (
                part.strip()
                and part not in "https://app.example.com/rd/callback postgres://user:password@host"
            ):
                assert part not in told, name
