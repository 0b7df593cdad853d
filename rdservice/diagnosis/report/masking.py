"""Masks secrets and personal data in a report. A second safeguard: the report should contain none of them anyway."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from rdservice.diagnosis.findings.finding import Finding
from rdservice.names import names_a_person


def account_names(account_ids: Iterable[str]) -> dict[str, str]:
    """Return each account's name in a report: its id, or `e-mail-1` and so on when the id is an e-mail address."""
    names: dict[str, str] = {}
    for account_id in account_ids:
        if account_id not in names:
            names[account_id] = f"e-mail-{len(names) + 1}" if names_a_person(account_id) else account_id
    return names


def redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """Return a copy of a JSON value with `redact` applied to each string; member names stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: redacted(member, redact) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(member, redact) for member in value]
    return value


def masked(finding: Finding, names: dict[str, str], redact: Callable[[str], str]) -> Finding:
    """Return the finding with account id and values masked."""
    account_id, problem = finding.account_id, finding.problem
    return replace(
        finding,
        account_id=None if account_id is None else redact(names.get(account_id, account_id)),
        values={name: redact(value) for name, value in finding.values.items()},
        # Keeps the example, which is a constant that may look like a secret, such as "user:password" in a URL.
        problem=problem and replace(problem, facts=redacted(dict(problem.facts), redact)),
    )
