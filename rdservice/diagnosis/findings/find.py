"""Derives findings from facts, the root cause first.

Pure functions: no database, no network, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus

from rdservice.config.problems import Code, Problem
from rdservice.diagnosis.facts.types import Account, DatabaseFacts, Facts
from rdservice.diagnosis.findings import rdstation_findings
from rdservice.diagnosis.findings.finding import Finding, Severity, duration
from rdservice.diagnosis.findings.guide import GUIDE
from rdservice.diagnosis.findings.verdict import ordered

WORKER_SILENT_S = 60.0
"""A worker sends a heartbeat every 10 s; six missed ones are not a coincidence."""

SETTINGS_VARIANTS: Mapping[Code, str] = {
    "file_not_utf8": "file",
    "file_unreadable": "file",
    "undecodable": "encoding",
}
"""Variants of `settings_broken`. All other problems use the sentences without a variant."""

PUT_BACK = ("upload_refused", "another_account")
"""Kinds of errors after which the pair from before is in use again: each has a finding of this code."""
REFUSED_SO_FAR = frozenset({"revoked", "unauthorized", "answer_lost"})


def find(facts: Facts) -> list[Finding]:
    """Return all findings, the root cause first; an empty list when all is well."""
    found = [
        *_settings(facts.settings_problems),
        *_database(facts),
        *rdstation_findings.find(facts),
    ]
    if facts.database is not None:
        found += _installation(facts.database, facts)
        for account in facts.database.accounts:
            found += _account(account, facts)
    return ordered(found)


def _settings(problems: Iterable[Problem]) -> Iterator[Finding]:
    for problem in problems:
        if problem.code in ("notify_url_unusable", "notify_url_web_address"):
            # Web and worker run despite this problem.
            yield Finding(
                code="notifications_failing", severity="warning", variant="unusable", problem=problem
            )
        elif problem.code in GUIDE:
            yield Finding(code=problem.code, severity="error", problem=problem)
        else:
            variant = SETTINGS_VARIANTS.get(problem.code)
            yield Finding(code="settings_broken", severity="error", variant=variant, problem=problem)


def _database(facts: Facts) -> Iterator[Finding]:
    if facts.database_error is not None:
        yield Finding(
            code="database_unreachable",
            severity="error",
            variant="failing" if facts.database_reached else None,
            values={"error": facts.database_error},
        )
    if facts.pending_migrations:
        yield Finding(
            code="migrations_pending",
            severity="error",
            values={"migrations": ", ".join(facts.pending_migrations)},
        )
    if facts.database_read_only:
        yield Finding(code="database_read_only", severity="error")


def _installation(database: DatabaseFacts, facts: Facts) -> Iterator[Finding]:
    """Yield findings that do not concern a single account."""
    silent_s = database.worker_silent_s
    if silent_s is None:
        yield Finding(code="worker_not_running", severity="error", variant="never")
    elif silent_s >= WORKER_SILENT_S:
        yield Finding(code="worker_not_running", severity="error", values={"silence": duration(silent_s)})

    asked = facts.asked_account
    if not database.accounts:
        yield Finding(code="no_account", severity="error", account_id=asked)
    elif asked is not None and asked not in {account.account_id for account in database.accounts}:
        yield Finding(code="no_account", severity="error", account_id=asked, variant="unknown")

    refused = sum(account.status == "credentials_refused" for account in database.accounts)
    if database.credentials_closed_for_s is not None:
        yield Finding(
            code="credentials_refused",
            severity="error",
            variant=None if _client_id_is_known(facts) else facts.client_mixed_up,
            values={"wait": duration(database.credentials_closed_for_s)},
        )
    elif refused:
        # Not with this process's settings: they have changed since, or another process has different ones.
        values = {"count": rdstation_findings.count(refused, database)}
        yield Finding(code="credentials_refused", severity="warning", variant="earlier", values=values)

    if database.refused_together:
        values = {"count": str(database.refused_together)}
        yield Finding(code="refused_together", severity="error", values=values)

    failed = database.failed_notifications
    if failed:
        values = {"count": str(len(failed)), "kinds": ", ".join(sorted(set(failed)))}
        yield Finding(code="notifications_failing", severity="warning", values=values)


def _client_id_is_known(facts: Facts) -> bool:
    """Return whether RD Station showed its consent page for this client ID, so that the secret must be wrong.

    A redirect proves nothing: it may lead to a log-in before RD Station checks the client ID.
    """
    return facts.dialog is not None and facts.dialog.http_status == HTTPStatus.OK


def _account(account: Account, facts: Facts) -> Iterator[Finding]:
    yield from _values(account, facts)
    if account.status == "reauthorization_required":
        yield from _reauthorization(account)
        return
    if account.life_left_s <= 0:
        yield _about(account, "token_expired", "error", ago=duration(-account.life_left_s))
    yield from _claims(account, facts)
    if account.last_error in PUT_BACK:
        yield _about(account, account.last_error, "warning")
    elif account.last_error in REFUSED_SO_FAR:
        yield _about(account, "refresh_refused", "warning", kinds=account.last_error or "")
    if account.status == "unverified":
        yield _about(account, "unverified", "info")
    if account.retry_in_s > 0:
        yield _about(
            account,
            "refresh_backing_off",
            "info",
            wait=duration(account.retry_in_s),
            count=str(max(account.failures, 1)),
            kinds=account.last_error or "",
        )


def _values(account: Account, facts: Facts) -> Iterator[Finding]:
    """Yield findings about the account's stored values."""
    states = {value.state for value in account.values}
    if "key_missing" in states:
        needed = {value.key_id or "?" for value in account.values if value.state == "key_missing"}
        there = (facts.database.key_ids if facts.database else None) or []
        yield _about(
            account, "key_missing", "error", needed=", ".join(sorted(needed)), there=", ".join(there)
        )
    if "damaged" in states:
        yield _about(account, "value_damaged", "error")
    if "plain" in states and account.last_error != "no_refresh_token":
        yield _about(account, "token_not_encrypted", "error")


def reauthorization_variant(last_error: str | None) -> str | None:
    """Return the variant of `reauthorization_required` that names why, or None for a refusal."""
    return last_error if last_error in ("answer_lost", "no_refresh_token", "another_account") else None


def _reauthorization(account: Account) -> Iterator[Finding]:
    if account.last_error == "damaged":
        if all(value.state != "damaged" for value in account.values):
            yield _about(account, "value_damaged", "error", variant="earlier")
        return
    variant = reauthorization_variant(account.last_error)
    left = duration(account.life_left_s) if account.life_left_s > 0 else ""
    yield _about(account, "reauthorization_required", "error", variant=variant, left=left)


def _claims(account: Account, facts: Facts) -> Iterator[Finding]:
    """Yield findings about the access token's claims: errors once RD Station has refused a call for leads with it."""
    if account.claims is None:
        return
    probed = account.account_id == facts.probed_account
    status = facts.leads.http_status if facts.leads and probed else None
    if "audience_differs" in account.claims.notices:
        severity: Severity = "error" if status == 401 else "warning"
        aud = ", ".join(account.claims.aud or [])
        yield _about(account, "audience_old", severity, aud=aud, api_url=facts.api_url)
    if "scope_missing" in account.claims.notices:
        severity = "error" if status in (401, 403) else "warning"
        scope = " ".join(account.claims.scope or []) or "–"
        yield _about(account, "scope_missing", severity, scope=scope, required=facts.required_scope)


def _about(
    account: Account, code: str, severity: Severity, *, variant: str | None = None, **values: str
) -> Finding:
    return Finding(
        code=code, severity=severity, account_id=account.account_id, variant=variant, values=values
    )
