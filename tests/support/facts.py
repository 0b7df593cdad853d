"""Facts of every kind for the diagnosis, and the findings to which they lead."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from rdservice.config.problems import Code, Problem
from rdservice.diagnosis.facts.types import (
    Account,
    Clocks,
    DatabaseFacts,
    Facts,
    Network,
    Probe,
    StoredValue,
    TokenClaims,
    TokenState,
)
from rdservice.diagnosis.findings.find import find
from rdservice.diagnosis.findings.finding import Finding
from rdservice.text.settings_problems import SENTENCES
from rdservice.tokens.store import Status

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
READABLE = StoredValue(key_id="0badcafe", state="readable")
WELL = Account(
    account_id="default",
    status="connected",
    last_error=None,
    failures=0,
    expires_at=NOW + timedelta(hours=20),
    life_left_s=72_000,
    refresh_after=NOW + timedelta(hours=12),
    retry_at=None,
    retry_in_s=0,
    access_token=READABLE,
    refresh_token=READABLE,
    claims=None,
)
FORBIDDEN = Probe(result="failed", error="forbidden", http_status=403, error_type="FORBIDDEN")
KNOWN_ERRORS = [
    "revoked",
    "answer_lost",
    "unauthorized",
    "credentials",
    "rate_limited",
    "client_error",
    "server_error",
    "timeout",
    "connection",
    "bad_payload",
    "damaged",
    "upload_refused",
    "another_account",
    "no_refresh_token",
]
ERRORS = [None, *KNOWN_ERRORS, "something_new"]


def account(**changes: Any) -> Account:
    return replace(WELL, **changes)


def database(*accounts: Account, **changes: Any) -> DatabaseFacts:
    values: dict[str, Any] = {
        "accounts": list(accounts),
        "more_accounts": False,
        "worker_silent_s": 3.0,
        "credentials_closed_for_s": None,
        "key_ids": ["0badcafe"],
    }
    return DatabaseFacts(**values | changes)


def claims(*notices: str) -> TokenClaims:
    return TokenClaims(aud=["https://old"], scope=["emails"], exp=None, iat=None, notices=notices)


def problem(code: Code) -> Problem:
    """Return a mistake with every fact that a sentence about it may need."""
    names = ("entry", "error", "file", "high", "length", "low", "needed", "path")
    facts: dict[str, str | int] = dict.fromkeys(names, 7)
    return Problem(variable="SECRET_KEY", code=code, facts=facts, example="an-example")


def all_facts() -> Iterator[Facts]:  # noqa: C901
    """Yield facts of every kind, which between them lead to every finding."""
    states: list[TokenState] = list(get_args(TokenState))
    for status in get_args(Status):
        for error in ERRORS:
            for state in states:
                one = account(
                    status=status,
                    last_error=error,
                    life_left_s=-1.0 if status == "expired" else 10.0,
                    retry_in_s=5.0,
                    refresh_token=StoredValue(key_id="12345678", state=state),
                    claims=claims("scope_missing", "audience_differs"),
                )
                yield Facts(database=database(one))
    for error in (*ERRORS, "forbidden"):
        for status_code in (None, 200, 401, 403, 429, 503):
            for renewed in (False, True):
                probe = Probe(result="failed", error=error, http_status=status_code, renewed=renewed)
                yield Facts(database=database(WELL), leads=probe, probed_account="default")
                yield Facts(database=database(WELL), refresh=probe, probed_account="default")
    for kind in ("FORBIDDEN", None):
        probe = replace(FORBIDDEN, error_type=kind)
        yield Facts(database=database(WELL), leads=probe, probed_account="default")
        yield Facts(database=database(account(claims=claims())), leads=probe, probed_account="default")
    for step in ("dns", "tcp", "tls", None):
        connectivity = Network(host="api", port=443, failed_at=step, error="why")
        yield Facts(
            database=database(WELL), leads=Probe(result="failed", error="timeout"), network=connectivity
        )
    for ahead_s in (-100.0, 100.0):
        yield Facts(clocks=Clocks(rdstation_s=ahead_s, database_s=0.0))
        yield Facts(clocks=Clocks(rdstation_s=ahead_s, database_s=ahead_s))
    yield Facts(dialog=Probe(result="failed", error="refused", http_status=400), redirect_uri="https://a.b/c")
    yield Facts(database_read_only=True)
    for form in ("swapped", "id_form"):
        yield Facts(database=database(WELL, credentials_closed_for_s=10.0), client_mixed_up=form)
    for code in SENTENCES:
        yield Facts(settings_problems=(problem(code),))
    yield Facts(database_error="refused", database_reached=False)
    yield Facts(database_error="SyntaxError", database_reached=True)
    yield Facts(pending_migrations=("0001_tokens",))
    yield Facts(database=database(worker_silent_s=None))
    yield Facts(database=database(WELL, failed_notifications=("http_500",)))
    yield Facts(database=database(WELL, refused_together=5))
    yield Facts(database=database(WELL, worker_silent_s=100.0, credentials_closed_for_s=10.0))
    yield Facts(database=database(WELL), asked_account="nobody")


def all_findings() -> list[Finding]:
    return [finding for facts in all_facts() for finding in find(facts)]
