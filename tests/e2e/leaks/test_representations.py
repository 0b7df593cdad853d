"""What `repr` shows of the parts of the service: dataclasses end up in error messages, logs and debuggers."""

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator
from datetime import datetime

import pytest

import dev
import rdservice
import sandbox
import scripts

WORDS = re.compile(
    r"token|secret|password|e?mail|label|phone|cookie|hash|body|code|value|payload|headers|database_url"
    r"|(?:encryption|api|session)_?key|session_id|^keys?$|^name$|^previous_name$|^refresh_(?:pair)?$",
    re.IGNORECASE,
)
"""What a field is called that may hold a secret or a person's data."""

PLAIN = {str(kind) for kind in (bool, int, float, datetime)} | {"bool", "int", "float", "datetime"}

HARMLESS = {
    "rdservice.access.keys.ApiKey.name": "what the program is called",
    "rdservice.access.keys.KeyRecord.name": "what the program is called",
    "rdservice.web.pages.keys.Draft.name": "what was typed as the name of a program",
    "rdservice.web.pages.keys.Line.name": "what the program is called",
    "rdservice.access.key_memory._Entry.key": "ApiKey, which has no secret",
    "rdservice.cache.entries.Failure.code": "an error code",
    "rdservice.cache.query.Query.key": "a keyed hash",
    "rdservice.cache.query.Query.name": "an operation",
    "rdservice.cache.table.CacheTable.name": "a table",
    "rdservice.cache.table.Lease.key": "a keyed hash",
    "rdservice.cache.table.Value.key": "a keyed hash",
    "rdservice.cache.query.Query.token": "StoredToken hides its tokens",
    "rdservice.data_protection.rdstation_leads.Failure.code": "an error code",
    "rdservice.diagnosis.facts.types.Account.access_token": "StoredValue, which tells of a token without it",
    "rdservice.diagnosis.facts.types.Account.refresh_token": "StoredValue, which tells of a token without it",
    "rdservice.diagnosis.findings.finding.Finding.code": "a finding's code",
    "rdservice.diagnosis.findings.finding.Finding.values": "parts of a finding's sentences, which have no secret",
    "rdservice.events.encrypted.EventTable.name": "a table",
    "rdservice.notifications.deliveries.Delivery.label": "a scheme and a masked host",
    "rdservice.notifications.messages.Message.body": "a notification has no secret and no person's data",
    "rdservice.notifications.targets.Target.label": "a scheme and a masked host",
    "rdservice.web.pages.notifications.Line.label": "a scheme and a masked host",
    "rdservice.leads.segmentations._Segmentation.name": "what the customer calls a list",
    "rdservice.notices.Notice.code": "a notice's code",
    "rdservice.tokens.refresh.Refresher.keys": "KeyRing, which does not show them",
    "rdservice.rdstation.rate_budget.RateLimit.name": "a row, of a closed set",
    "rdservice.services.Services.access_tokens": "the part that gives them out",
    "rdservice.services.Services.keys": "KeyRing, which does not show them",
    "rdservice.config.problems.Problem.code": "one of a closed set",
    "rdservice.tokens.encrypted.TokenTable.name": "a table",
    "rdservice.tokens.memory._Known.token": "StoredToken hides its tokens",
    "rdservice.metrics.state.Overview.tokens": "how many there are",
    "rdservice.web.http.problems.Problem.code": "an error code",
    "rdservice.web.http.problems.Problem.headers": "Retry-After and its like",
    "rdservice.web.pages.overview.diagnosis.ShownFinding.code": "a finding's code",
}
"""Fields whose names only look so, and why."""


def modules() -> Iterator[str]:
    for package in (rdservice, sandbox, scripts, dev):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # Programs, which read their environment when they are imported.
            if not found.name.endswith(("__main__", "bare_app", "uncounted_app")):
                yield found.name


def shown_fields() -> Iterator[str]:
    """Yield each field of a dataclass, by its full name, that `repr` shows and whose name asks for care."""
    for name in modules():
        for kind in vars(importlib.import_module(name)).values():
            if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == name:
                for field in dataclasses.fields(kind):
                    if field.repr and WORDS.search(field.name) and str(field.type) not in PLAIN:
                        yield f"{name}.{kind.__qualname__}.{field.name}"


def test_no_dataclass_shows_a_field_that_may_hold_a_secret_or_a_person() -> None:
    found = {field for field in shown_fields() if field.startswith("rdservice.")}
    assert found == set(HARMLESS), (
        "give these fields repr=False, or a line in HARMLESS with the reason why they may be shown"
    )


@pytest.mark.parametrize("package", ["sandbox", "scripts", "dev"])
def test_what_imitates_and_starts_the_service_hides_tokens_and_passwords(package: str) -> None:
    found = {field for field in shown_fields() if field.startswith(f"{package}.")}
    assert {field for field in found if re.search(r"token|secret|password", field)} == set()
