"""Runs the diagnosis and builds its report, for the command and for the pages of a running service."""

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
    """A report. `content`: JSON without secrets and personal data; `findings`: those of its verdict, in order."""

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
    """Run the diagnosis for a command, also with invalid settings. Takes at most about a minute.

    Probes RD Station with `account`, else with the account `default`, else with the only account. With `offline` it
    tests neither RD Station nor the network. Hanging threads may be left behind.
    """
    known = known_settings.collect(environ)
    options = Options(account=account, try_refresh=try_refresh, offline=offline, by=BY_COMMAND)
    return _report(known, runs.run(known, runs.OF_A_COMMAND, options), asked=account)


def diagnose_running(
    services: Services, *, by: Author, account: str | None = None, try_refresh: bool = False
) -> Report:
    """Run the diagnosis in a running process, such as a web process that serves a request.

    Takes at most 26 s, writes no file, calls RD Station through `services`, and does not raise when the database or RD
    Station is unreachable. Chooses the account as `diagnose` does. `by` is the author of the refresh, which obeys lease
    and back-off. In the report, account ids that are e-mail addresses are masked.
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
        # Not redacted again: its values are redacted already, and an example in a sentence may look like a password.
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
