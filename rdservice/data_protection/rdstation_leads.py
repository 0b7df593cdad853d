"""Deletes a person's leads at RD Station, in all connected accounts.

Routes: https://developers.rdstation.com/reference/contatos. RD Station deletes a lead for good.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from rdservice.account_calls.failures import refusal
from rdservice.cache.person import EVER, Person, own_addresses
from rdservice.database.pool import transaction
from rdservice.errors import RdServiceError, RdStationTimeout
from rdservice.leads.fetch import is_contact
from rdservice.rdstation.client import ApiResponse
from rdservice.services import Services
from rdservice.tokens import store

BATCH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An account in which RD Station may still have the person. `code`: that of the error."""

    account_id: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """How many leads RD Station deleted, how many accounts have none of the person's leads now, and which failed."""

    leads: int
    accounts: int
    failed: tuple[Failure, ...]


def delete(services: Services, person: Person, *, deadline: float) -> tuple[Deletion, Person]:
    """Delete all leads with one of the person's addresses or UUIDs. A lead that is gone already counts as deleted.

    Returns also the person with the UUIDs and addresses of these leads. An account that fails does not stop the others.
    `deadline`: nothing is sent after that monotonic time; accounts that are left then count as failed.
    """
    known = person
    deleted: set[str] = set()
    accounts = 0
    failed = []
    for account_id in _accounts(services):
        try:
            for lead in _leads(services, account_id, person, deleted, deadline):
                uuid = str(lead["uuid"]).lower()
                known |= Person(uuids={uuid: EVER}, further=dict.fromkeys(own_addresses(lead), EVER))
                _delete(services, account_id, uuid, deadline)
                deleted.add(uuid)
        except RdServiceError as error:
            failed.append(Failure(account_id=account_id, code=error.code))
        else:
            accounts += 1
    return Deletion(leads=len(deleted), accounts=accounts, failed=tuple(failed)), known


def _accounts(services: Services) -> Iterator[str]:
    accounts: list[str] = []
    while True:
        with transaction(services.pool) as conn:
            accounts = store.lock_next(conn, after=accounts[-1] if accounts else "", limit=BATCH)
        if not accounts:
            return
        yield from accounts


def _leads(
    services: Services, account_id: str, person: Person, deleted: set[str], deadline: float
) -> Iterator[dict[str, Any]]:
    """Yield the person's leads that an account has, none of those in `deleted` again."""
    client = services.rdstation

    def read(access_token: str) -> ApiResponse:
        if "@" in identifier:
            return client.contact_by_email(access_token, identifier)
        return client.contact(access_token, identifier)

    for identifier in (*person.addresses, *person.uuids):
        if identifier in deleted:
            continue
        if time.monotonic() > deadline:
            raise RdStationTimeout("The time for this request was over before RD Station was asked.")
        response = services.account_calls.send(account_id, read, deadline=deadline)
        if response.status == HTTPStatus.NOT_FOUND:
            continue
        lead = response.json()
        if response.status != HTTPStatus.OK or not is_contact(lead):
            raise refusal(response)
        yield lead


def _delete(services: Services, account_id: str, uuid: str, deadline: float) -> None:
    response = services.account_calls.send(
        account_id, lambda token: services.rdstation.delete_contact(token, uuid), deadline=deadline
    )
    if not (200 <= response.status < 300 or response.status == HTTPStatus.NOT_FOUND):
        raise refusal(response)
