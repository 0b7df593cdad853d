"""The whole diagnosis as one report: for the command's file, and for a page of the running service."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.diagnosis.facts import known_settings
from rdservice.diagnosis.facts import run as runs
from rdservice.diagnosis.facts.known_settings import KnownSettings
from rdservice.diagnosis.facts.run import Collected, Options
from rdservice.diagnosis.findings.find import find
from rdservice.diagnosis.findings.finding import Finding
from rdservice.diagnosis.report import masking, sections
from rdservice.logs.redaction import redactor
from rdservice.services import Services

BY_COMMAND = audit.command_line("debug_rdstation_integration.py")


@dataclass(frozen=True, kw_only=True)
class Report:
    """`content` is JSON without secrets and personal data; `findings` are those in its verdict, in order."""

    content: dict[str, Any] = field(repr=False)
    findings: list[Finding]

    @property
    def needs_a_person(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def to_bytes(self) -> bytes:
        """Return the content of `rdstation_debug_info.json`: JSON in UTF-8."""
        text = json.dumps(self.content, indent=2, ensure_ascii=False) + "\n"
        return text.encode("utf-8", "backslashreplace")


def diagnose(
    environ: Mapping[str, str], *, account: str | None, try_refresh: bool, offline: bool = False
) -> Report:
    """Make the diagnosis of a command, with settings that may be broken. It ends within about a minute.

    RD Station is tried with `account`, or else with `default`, or else with the only account; `offline` leaves it, and
    the way to it, alone. Threads that hang may be left behind.
    """
    known = known_settings.collect(environ)
    options = Options(account=account, try_refresh=try_refresh, offline=offline, by=BY_COMMAND)
    return _report(known, runs.run(known, runs.OF_A_COMMAND, options), asked=account)


def diagnose_running(
    services: Services, *, by: Author, account: str | None = None, try_refresh: bool = False
) -> Report:
    """Make the diagnosis from within a running process, such as a web process that answers a request.

    It ends within 26 s, writes no file, asks RD Station with what `services` has, and never raises for a database or an
    RD Station that cannot be reached. `account` is chosen as by `diagnose`; the refresh is one of `by`, bound by claim
    and back-off as any other. `Report.to_bytes` is what a download holds, `Report.findings` what a page shows; in both,
    names of accounts that are e-mail addresses are masked.
    """
    known = known_settings.of_running(services.settings)
    options = Options(account=account, try_refresh=try_refresh, offline=False, by=by)
    return _report(known, runs.run(known, runs.OF_A_REQUEST, options, services), asked=account)


def _report(known: KnownSettings, collected: Collected, *, asked: str | None) -> Report:
    facts, check = collected.facts, collected.database
    account_ids = [account.account_id for account in (check.facts.accounts if check.facts else [])]
    account_ids += [asked] if asked else []
    names = masking.account_names(account_ids)
    masked_ids = {account_id for account_id in account_ids if names[account_id] != account_id}
    redact = redactor(known_settings.secrets_in(known) | masked_ids)
    found = [masking.masked(finding, names, redact) for finding in find(facts)]
    probed = None if facts.probed_account is None else names[facts.probed_account]
    content = {
        "generated_at": sections.time(datetime.now(UTC)),
        # The sentences are ours, their values are redacted already: an example in them may look like a password.
        "verdict": sections.verdict(found),
        **masking.redacted(
            {
                "versions": sections.versions(check),
                "settings": known_settings.masked(known),
                "database": sections.database(check),
                "accounts": sections.accounts(check, names),
                "recent_attempts": sections.recent_attempts(check, names),
                "worker": sections.worker(check),
                "network": sections.network(facts.network),
                "clocks": sections.clocks(facts.clocks),
                "consent_dialog": sections.dialog(facts),
                "refresh_attempt": sections.probe(facts.refresh, probed),
                "leads_call": sections.probe(facts.leads, probed),
            },
            redact,
        ),
    }
    return Report(content=content, findings=found)
