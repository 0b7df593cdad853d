"""Findings about RD Station: connectivity, clock, consent dialog, and its responses to refreshes and calls.

Pure functions, as in `find`.
"""

from collections.abc import Iterator

from rdservice.diagnosis.facts.types import Account, Clocks, DatabaseFacts, Facts, Probe
from rdservice.diagnosis.findings.finding import Finding, duration

# Error kinds of `rdservice.rdstation.token_responses` and of the probes, with the code of their finding.
TROUBLES = {
    "timeout": "rdstation_unreachable",
    "connection": "rdstation_unreachable",
    "server_error": "rdstation_failing",
    "bad_payload": "rdstation_failing",
    "client_error": "rdstation_unexpected",
    "rate_limited": "rate_limited",
}

SKEW_S = 60.0
"""A smaller skew is not reported: the measurement is precise to a few seconds."""
HARMFUL_SKEW_S = 3600.0
"""An hour shortens the lifetime of tokens noticeably, and makes certificates look invalid."""


def find(facts: Facts) -> Iterator[Finding]:
    """Yield the findings about RD Station."""
    yield from _clock(facts.clocks)
    yield from _dialog(facts)
    yield from _rdstation(facts)
    yield from _leads(facts)


def _clock(clocks: Clocks) -> Iterator[Finding]:
    """Yield a finding for a wrong clock: the database's, which decides what is due, or only this machine's."""
    if clocks.rdstation_s is None:
        return
    machine_s = -clocks.rdstation_s
    database_s = None if clocks.database_s is None else clocks.database_s - clocks.rdstation_s
    if database_s is not None and abs(database_s) >= SKEW_S:
        yield _skewed(database_s, None)
    elif abs(machine_s) >= SKEW_S:
        yield _skewed(machine_s, "machine")


def _skewed(ahead_s: float, variant: str | None) -> Finding:
    return Finding(
        code="clock_skew",
        severity="error" if abs(ahead_s) >= HARMFUL_SKEW_S and variant is None else "warning",
        variant=variant if ahead_s > 0 else f"{variant}_behind" if variant else "behind",
        values={"skew": duration(abs(ahead_s))},
    )


def _dialog(facts: Facts) -> Iterator[Finding]:
    """Yield a finding when no account can be connected. Refreshes of connected ones do not need the redirect URI."""
    dialog = facts.dialog
    if dialog is None or dialog.error != "refused":
        return
    accounts = facts.database.accounts if facts.database else []
    waiting = not accounts or any(account.status == "reauthorization_required" for account in accounts)
    yield Finding(
        code="redirect_uri_not_registered",
        severity="error" if waiting else "warning",
        values={"uri": facts.redirect_uri, "answer": _answer(dialog)},
    )


def _rdstation(facts: Facts) -> Iterator[Finding]:
    """Yield failures of RD Station: those of this run, and others that the accounts' rows record."""
    found = _in_this_run(facts)
    accounts = facts.database.accounts if facts.database else []
    for code in sorted(set(TROUBLES.values()) - set(found)):
        hit = [
            account
            for account in accounts
            if TROUBLES.get(account.last_error or "") == code and account.status != "reauthorization_required"
        ]
        if hit:
            expired = any(account.life_left_s <= 0 for account in hit)
            kinds = ", ".join(sorted({account.last_error or "" for account in hit}))
            found[code] = Finding(
                code=code,
                severity="error" if expired and code != "rate_limited" else "warning",
                variant="earlier",
                values={"count": count(len(hit), facts.database), "kinds": kinds, "api_url": facts.api_url},
            )
    yield from found.values()


def _in_this_run(facts: Facts) -> dict[str, Finding]:
    """Return the failures of this run by their codes."""
    found: dict[str, Finding] = {}
    for operation, probe in _tried(facts):
        code = "forbidden_by_gateway" if _from_gateway(operation, probe) else TROUBLES.get(probe.error or "")
        if code is None:
            continue
        found[code] = Finding(
            code=code,
            severity="warning" if code == "rate_limited" else "error",
            variant=_variant(code, probe, facts),
            values={
                "operation": operation,
                "answer": _answer(probe),
                "api_url": facts.api_url,
                "reason": (facts.network.error if facts.network else None) or _answer(probe),
            },
        )
    return found


def _tried(facts: Facts) -> list[tuple[str, Probe]]:
    """Return the probes of this run with their operations; connectivity or dialog only when no call was made."""
    calls = [("token_refresh", facts.refresh), ("segmentations_list", facts.leads)]
    tried = [(operation, probe) for operation, probe in calls if probe is not None]
    if any(probe.error is not None or probe.http_status is not None for _, probe in tried):
        return tried
    if facts.network is not None and facts.network.failed_at is not None:
        return [("connect", Probe(result="failed", error="connection"))]
    return [] if facts.dialog is None else [("dialog", facts.dialog)]


def _from_gateway(operation: str, probe: Probe) -> bool:
    """Return whether a 403 does not come from RD Station itself.

    According to its documentation, its errors are JSON with an error_type, and a refresh never gets a 403.
    """
    return probe.http_status == 403 and (operation == "token_refresh" or probe.error_type is None)


def _variant(code: str, probe: Probe, facts: Facts) -> str | None:
    if code == "rate_limited":
        return "budget" if probe.http_status is None else None
    if code != "rdstation_unreachable" or facts.network is None or facts.network.through_proxy:
        return None
    # Connectivity is fine, so RD Station itself does not respond.
    return facts.network.failed_at or "silent"


def count(accounts: int, database: DatabaseFacts | None) -> str:
    """Return the number of accounts, with a plus when there are more than were examined."""
    return f"{accounts}+" if database is not None and database.more_accounts else str(accounts)


def _answer(probe: Probe) -> str:
    if probe.http_status is None:
        return probe.error or probe.result
    return (
        f"HTTP {probe.http_status}"
        if probe.error != "bad_payload"
        else f"HTTP {probe.http_status}, bad_payload"
    )


def _leads(facts: Facts) -> Iterator[Finding]:
    """Yield a finding when RD Station refused the call for leads."""
    probe = facts.leads
    if probe is None:
        return
    if probe.http_status == 401:
        new_token = probe.renewed or (facts.refresh is not None and facts.refresh.result == "stored")
        yield Finding(
            code="unauthorized_api",
            severity="error",
            account_id=facts.probed_account,
            variant=None if new_token else "same_token",
        )
    elif probe.http_status == 403 and probe.error_type is not None:
        probed = _probed(facts)
        covered = probed is not None and probed.claims is not None and not probed.claims.notices
        yield Finding(
            code="plan_without_api" if covered else "forbidden_api",
            severity="error",
            account_id=facts.probed_account,
            values={"scope": facts.required_scope},
        )


def _probed(facts: Facts) -> Account | None:
    accounts = facts.database.accounts if facts.database else []
    return next((account for account in accounts if account.account_id == facts.probed_account), None)
