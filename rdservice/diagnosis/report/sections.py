"""The sections of a report, as JSON."""

import os
import platform
import re
import ssl
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from rdservice import __version__
from rdservice.config.settings import ROOT
from rdservice.diagnosis.facts.database_check import DatabaseCheck
from rdservice.diagnosis.facts.types import Account, Clocks, Facts, Network, Probe
from rdservice.diagnosis.findings.finding import Finding
from rdservice.tokens.attempts import Attempt


def verdict(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings in order. `root_cause`: code of the first, None when there are none."""
    return {
        "root_cause": findings[0].code if findings else None,
        "needs_a_person": any(finding.severity == "error" for finding in findings),
        "findings": [_finding(finding) for finding in findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    english, portuguese = finding.text("en"), finding.text("pt-BR")
    return {
        "code": finding.code,
        "severity": finding.severity,
        "account_id": finding.account_id,
        "follows_from": finding.follows_from,
        "who": finding.who,
        "action": finding.action,
        **{
            part: {"en": getattr(english, part), "pt-BR": getattr(portuguese, part)}
            for part in english._fields
        },
    }


def versions(check: DatabaseCheck) -> dict[str, Any]:
    return {
        "service": __version__,
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "heroku": "DYNO" in os.environ,
        "virtual_environment": sys.prefix != sys.base_prefix,
        "postgresql": check.server.get("version"),
        "packages": _packages(),
    }


def _packages() -> dict[str, str | None]:
    """Return the installed version of each package that a deployment needs, None for a missing one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, str | None] = {}
    for name in re.findall(r"^[A-Za-z0-9._-]+", "\n".join(project["dependencies"]), re.MULTILINE):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def database(check: DatabaseCheck) -> dict[str, Any]:
    return {
        "reachable": check.reached if check.reached or check.error else None,
        "error": check.error,
        "connect_ms": check.connect_ms,
        "read_only": check.read_only,
        "connections": check.server.get("connections"),
        "max_connections": check.server.get("max_connections"),
        "migrations": {"applied": list(check.applied), "pending": list(check.pending)},
        "tables": list(check.tables),
    }


def accounts(check: DatabaseCheck, names: Mapping[str, str]) -> dict[str, Any]:
    """Return accounts with problems first, up to a limit, and the number of accounts per status."""
    shown = [] if check.facts is None else check.facts.accounts
    return {
        "total": None if check.by_status is None else sum(check.by_status.values()),
        "by_status": check.by_status,
        "shown": [_account(account, names, check) for account in shown],
    }


def _account(account: Account, names: Mapping[str, str], check: DatabaseCheck) -> dict[str, Any]:
    claims, budget = account.claims, check.budgets.get(account.account_id, {})
    return {
        "account_id": names[account.account_id],
        "status": account.status,
        "expires_at": time(account.expires_at),
        "life_left_s": round(account.life_left_s),
        "refresh_after": time(account.refresh_after),
        "retry_at": time(account.retry_at),
        "generation": account.generation,
        "being_renewed": account.leased,
        "failures": account.failures,
        "last_error": account.last_error,
        "access_token": asdict(account.access_token),
        "refresh_token": asdict(account.refresh_token),
        "access_token_claims": None
        if claims is None
        else {"aud": claims.aud, "scope": claims.scope, "iat": time(claims.iat), "exp": time(claims.exp)},
        "rate_budget": {name: asdict(state) for name, state in budget.items()},
    }


def recent_attempts(check: DatabaseCheck, names: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        _attempt(attempt, names[account_id])
        for account_id, recent in check.attempts.items()
        for attempt in recent
    ]


def _attempt(attempt: Attempt, account: str) -> dict[str, Any]:
    return {
        "account_id": account,
        "claim": attempt.claim_no,
        "started_at": time(attempt.started_at),
        "reason": attempt.reason,
        "outcome": attempt.outcome,
        "http_status": attempt.http_status,
        "duration_ms": attempt.duration_ms,
        "error": attempt.error,
    }


def worker(check: DatabaseCheck) -> dict[str, Any]:
    """Return the workers without their names, which contain the machine's name, often a person's."""
    silent_s = None if check.facts is None else check.facts.worker_silent_s
    return {
        "seconds_since_last_beat": None if silent_s is None else round(silent_s, 1),
        "workers": [
            {"silent_s": round(beat.silent_s, 1), "ran_s": round(beat.ran_s, 1)} for beat in check.workers
        ],
    }


def network(connectivity: Network | None) -> dict[str, Any] | None:
    return (
        None
        if connectivity is None
        else asdict(connectivity) | {"certificate_ends": time(connectivity.certificate_ends)}
    )


def clocks(found: Clocks) -> dict[str, Any]:
    """Return the seconds by which one clock is ahead of another."""
    both = found.database_s is not None and found.rdstation_s is not None
    return {
        "rdstation_ahead_of_this_machine_s": found.rdstation_s,
        "database_ahead_of_this_machine_s": found.database_s,
        "database_ahead_of_rdstation_s": round((found.database_s or 0.0) - (found.rdstation_s or 0.0), 1)
        if both
        else None,
    }


def probe(tried: Probe | None, account: str | None) -> dict[str, Any]:
    return {"account_id": account} | ({} if tried is None else asdict(tried))


def dialog(facts: Facts) -> dict[str, Any]:
    """Return the probe of the consent dialog, which does not concern an account."""
    tried = facts.dialog or Probe(result="skipped")
    return {
        name: getattr(tried, name) for name in ("result", "http_status", "error", "duration_ms", "reason")
    }


def time(value: datetime | None) -> str | None:
    """Return `value` as RFC 3339 in UTC."""
    return None if value is None else value.astimezone(UTC).isoformat(timespec="seconds")
