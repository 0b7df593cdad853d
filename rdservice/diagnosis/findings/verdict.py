"""Orders findings: the root cause, its consequences, then the rest.

Pure functions over findings: no database, no network, no clock.
"""

from collections.abc import Iterable
from dataclasses import replace

from rdservice.diagnosis.findings.finding import Finding

# Causes before their consequences: with invalid settings nothing starts, without a worker tokens expire, …
ORDER = (
    "redirect_uri_holds_secret",
    "client_secret_holds_url",
    "redirect_uri_local_host",
    "redirect_uri_not_https",
    "redirect_uri_wrong_path",
    "settings_broken",
    "database_unreachable",
    "migrations_pending",
    "database_read_only",
    "key_missing",
    "value_damaged",
    "token_not_encrypted",
    "worker_not_running",
    "clock_skew",
    "credentials_refused",
    "rdstation_unreachable",
    "forbidden_by_gateway",
    "rdstation_failing",
    "rdstation_unexpected",
    "refused_together",
    "redirect_uri_not_registered",
    "no_account",
    "reauthorization_required",
    "another_account",
    "upload_refused",
    "refresh_refused",
    "token_expired",
    "audience_old",
    "scope_missing",
    "unauthorized_api",
    "plan_without_api",
    "forbidden_api",
    "rate_limited",
    "refresh_backing_off",
    "unverified",
    "notifications_failing",
)

_NO_REFRESH = frozenset({"token_expired", "refresh_backing_off", "unverified"})
_NO_PROCESS = _NO_REFRESH | {"worker_not_running"}

CONSEQUENCES: dict[str, frozenset[str]] = {
    # Web and worker exit with status 78, or wait, before they do anything.
    "redirect_uri_holds_secret": _NO_PROCESS,
    "client_secret_holds_url": _NO_PROCESS,
    "redirect_uri_local_host": _NO_PROCESS,
    "redirect_uri_not_https": _NO_PROCESS,
    "redirect_uri_wrong_path": _NO_PROCESS,
    "settings_broken": _NO_PROCESS,
    "database_unreachable": _NO_PROCESS,
    "migrations_pending": _NO_PROCESS,
    # A worker that cannot write its heartbeat looks like one that does not run.
    "database_read_only": _NO_PROCESS,
    # A worker whose keys cannot decrypt a row returns the lease and exits with status 78.
    "key_missing": _NO_PROCESS,
    "value_damaged": _NO_REFRESH,
    "token_not_encrypted": _NO_REFRESH,
    "worker_not_running": _NO_REFRESH,
    # With an unknown client id, the dialog does not open either.
    "credentials_refused": _NO_REFRESH | {"redirect_uri_not_registered"},
    "rdstation_unreachable": _NO_REFRESH,
    "forbidden_by_gateway": _NO_REFRESH | {"rdstation_unexpected"},
    "rdstation_failing": _NO_REFRESH,
    "rdstation_unexpected": _NO_REFRESH,
    "refused_together": _NO_REFRESH | {"reauthorization_required", "refresh_refused"},
    "refresh_refused": _NO_REFRESH,
    "rate_limited": frozenset({"refresh_backing_off"}),
    "audience_old": frozenset({"unauthorized_api", "forbidden_api"}),
    "scope_missing": frozenset({"unauthorized_api", "forbidden_api"}),
}
"""The consequences of a cause: for its account if it concerns one, else for every account."""

SERIOUSNESS = {"error": 0, "warning": 1, "info": 2}


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with the root cause first.

    The consequences of a cause follow it and name it in `follows_from`. Causes are ordered by the worst severity in
    their group; among equals, potential causes of others come first (ORDER).
    """
    by_order = sorted(findings, key=lambda finding: ORDER.index(finding.code))
    linked = [_linked(finding, by_order) for finding in by_order]
    causes = dict.fromkeys(finding.code for finding in linked if finding.follows_from is None)
    groups = [
        [one for one in linked if one.code == code and one.follows_from is None] + _after(code, linked)
        for code in causes
    ]
    groups.sort(key=lambda group: min(SERIOUSNESS[finding.severity] for finding in group))
    return [finding for group in groups for finding in group]


def _after(cause: str, linked: list[Finding]) -> list[Finding]:
    """Return the consequences of a cause, each code followed by its own consequences."""
    direct = [one for one in linked if one.follows_from == cause]
    made: list[Finding] = []
    for code in dict.fromkeys(one.code for one in direct):
        made += [one for one in direct if one.code == code]
        made += _after(code, linked)
    return made


def _linked(finding: Finding, by_order: list[Finding]) -> Finding:
    cause = next((cause for cause in by_order if _brings_about(cause, finding)), None)
    return finding if cause is None else replace(finding, follows_from=cause.code)


def _brings_about(cause: Finding, finding: Finding) -> bool:
    return finding.code in CONSEQUENCES.get(cause.code, frozenset()) and (
        cause.account_id is None or finding.account_id is None or cause.account_id == finding.account_id
    )
