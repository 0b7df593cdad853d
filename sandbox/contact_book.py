"""The contacts of one account: generated leads, changed ones among them, and contacts created through the API."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sandbox.generated import LeadSource, timestamp
from sandbox.store import Store

LISTING_ORDERS = ("created_at", "email", "last_conversion_date", "name", "uuid")
ORDERS_KEPT = 8


@dataclass(kw_only=True)
class Contact:
    """A contact. Times are Unix seconds. `index`: that of the generated lead; None for a created contact.

    A deleted contact is kept so that it stays deleted after a restart; nothing returns it.
    """

    uuid: str
    index: int | None
    created_at: float
    last_conversion: float | None
    fields: dict[str, Any] = field(repr=False)
    company: dict[str, Any] = field(repr=False)
    funnel: dict[str, Any] = field(repr=False)
    deleted: bool = False

    def links(self, origin: str) -> list[dict[str, str]]:
        href = f"{origin}/platform/contacts/{self.uuid}"
        return [{"rel": "SELF", "href": href, "media": "application/json", "type": "GET"}]

    def listed(self, origin: str) -> dict[str, Any]:
        """Return the contact as an entry of a segmentation's list."""
        last = self.last_conversion
        return {
            "uuid": self.uuid,
            "name": self.fields.get("name"),
            "email": self.fields["email"],
            "last_conversion_date": None if last is None else timestamp(last),
            "created_at": timestamp(self.created_at),
            "links": self.links(origin),
        }

    def detailed(self, origin: str) -> dict[str, Any]:
        """Return the contact as `GET /platform/contacts/{uuid}` does."""
        return {"uuid": self.uuid, **self.fields, "links": self.links(origin)}


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Defines which contacts belong to a segmentation: generated leads whose index modulo `modulus` is one of
    `remainders`, and, if `created` is set, contacts created through the API."""

    modulus: int = 1
    remainders: tuple[int, ...] = (0,)
    created: bool = False

    def count(self, leads: int) -> int:
        """Return how many of the first `leads` leads belong to the segmentation."""
        whole, rest = divmod(leads, self.modulus)
        return whole * len(self.remainders) + sum(remainder < rest for remainder in self.remainders)

    def index(self, position: int) -> int:
        """Return the index of the member at `position`."""
        whole, rest = divmod(position, len(self.remainders))
        return whole * self.modulus + self.remainders[rest]

    def position(self, index: int) -> int | None:
        """Return the position of the lead with this index, or None if it is no member."""
        whole, rest = divmod(index, self.modulus)
        if rest not in self.remainders:
            return None
        return whole * len(self.remainders) + self.remainders.index(rest)


class ContactBook:
    """The contacts of one account. Callers must hold the sandbox's lock."""

    def __init__(self, seed: int, account: str, store: Store) -> None:
        self._account = account
        self._store = store
        self._source = LeadSource.of(seed, account)
        self._changed: dict[int, Contact] = {}
        self._created: list[Contact] = []
        self._deleted: set[int] = set()
        self._by_uuid: dict[str, Contact] = {}
        self._by_email: dict[str, Contact] = {}
        self._address_of: dict[str, str] = {}
        self._orders: OrderedDict[tuple[Membership, str, int], array[int]] = OrderedDict()
        for body in store.contacts(account):
            self._remember(Contact(**body))

    def _remember(self, contact: Contact) -> None:
        if contact.deleted:
            self._forget(contact)
            return
        if contact.uuid not in self._by_uuid:
            if contact.index is None:
                self._created.append(contact)
            else:
                self._changed[contact.index] = contact
        self._by_uuid[contact.uuid] = contact
        self._by_email.pop(self._address_of.get(contact.uuid, ""), None)
        self._address_of[contact.uuid] = contact.fields["email"].lower()
        self._by_email[self._address_of[contact.uuid]] = contact

    def _forget(self, contact: Contact) -> None:
        if contact.index is not None:
            self._deleted.add(contact.index)
        elif contact.uuid in self._by_uuid:
            self._created.remove(self._by_uuid[contact.uuid])
        self._by_uuid.pop(contact.uuid, None)
        self._by_email.pop(self._address_of.pop(contact.uuid, ""), None)

    def _exists(self, index: int, leads: int) -> bool:
        return index < leads and index not in self._deleted

    def _lead(self, index: int) -> Contact:
        if index in self._changed:
            return self._changed[index]
        source = self._source
        return Contact(
            uuid=source.uuid(index),
            index=index,
            created_at=source.created_at(index),
            last_conversion=source.last_conversion(index),
            fields=source.fields(index),
            company=source.company(index),
            funnel=source.funnel(index),
        )

    def by_uuid(self, uuid: str, leads: int) -> Contact | None:
        """Return the contact if it was created or is among the first `leads` leads, else None."""
        contact = self._by_uuid.get(uuid.lower())
        if contact is not None:
            return contact if contact.index is None or contact.index < leads else None
        index = self._source.index_of_uuid(uuid)
        return self._lead(index) if index is not None and self._exists(index, leads) else None

    def by_email(self, email: str, leads: int) -> Contact | None:
        """Return the contact that has this address now, ignoring case."""
        contact = self._by_email.get(email.lower())
        if contact is not None:
            return contact if contact.index is None or contact.index < leads else None
        index = self._source.index_of_email(email)
        if index is None or not self._exists(index, leads):
            return None
        lead = self._lead(index)
        return lead if lead.fields["email"].lower() == email.lower() else None

    def create(self, fields: dict[str, Any], now: float) -> Contact:
        """Return a new contact; `save` stores it."""
        funnel = {
            "name": "default",
            "lifecycle_stage": "Lead",
            "opportunity": False,
            "contact_owner_email": None,
        }
        return Contact(
            uuid=str(uuid4()),
            index=None,
            created_at=now,
            last_conversion=None,
            fields={"name": None, "tags": [], "extra_emails": [], "legal_bases": [], **fields},
            company={},
            funnel={**funnel, "interest": 0, "fit": "d", "origin": "Desconhecido"},
        )

    def save(self, contact: Contact) -> None:
        """Store a changed or created contact, which then survives a restart."""
        self._store.save_contact(self._account, contact.uuid, dict(vars(contact)))
        self._remember(contact)
        self._orders.clear()

    def count(self, members: Membership, leads: int) -> int:
        generated = members.count(leads) - len(self._gaps(members, leads))
        return generated + (len(self._created) if members.created else 0)

    def _gaps(self, members: Membership, leads: int) -> list[int]:
        """Return the positions of deleted leads among the members, in order."""
        positions = (members.position(index) for index in self._deleted if index < leads)
        return sorted(position for position in positions if position is not None)

    def page(
        self, members: Membership, leads: int, order: tuple[str, bool], start: int, size: int
    ) -> list[Contact]:
        """Return `size` members from position `start`. `order`: one of LISTING_ORDERS, and whether it is descending."""
        name, descending = order
        total = self.count(members, leads)
        positions: range = range(start, min(start + size, total))
        if descending:
            positions = range(total - 1 - start, max(total - 1 - start - size, -1), -1)
        if name != "created_at":
            ordered = self._ordered(members, name, leads)
            return [self._at(members, leads, ordered[position]) for position in positions]
        gaps = self._gaps(members, leads)
        return [self._at(members, leads, _past(gaps, position)) for position in positions]

    def _at(self, members: Membership, leads: int, position: int) -> Contact:
        """Return the member at a position in the order of creation, in which deleted leads keep their positions."""
        generated = members.count(leads)
        if position < generated:
            return self._lead(members.index(position))
        return self._created[position - generated]

    def _ordered(self, members: Membership, name: str, leads: int) -> array[int]:
        """Return positions in the order of creation, sorted by `name`. Cached: reading all pages calls it often."""
        key = (members, name, leads)
        if key not in self._orders:
            values = list(self._values(members, name, leads))
            gaps = set(self._gaps(members, leads))
            kept = [position for position in range(len(values)) if position not in gaps]
            self._orders[key] = array("I", sorted(kept, key=values.__getitem__))
            if len(self._orders) > ORDERS_KEPT:
                self._orders.popitem(last=False)
        self._orders.move_to_end(key)
        return self._orders[key]

    def _values(self, members: Membership, name: str, leads: int) -> Iterator[str | float]:
        source = self._source
        of_lead: dict[str, Callable[[int], str | float]] = {
            "name": lambda index: source.name(index).casefold(),
            "email": source.email,
            "last_conversion_date": source.last_conversion,
            "uuid": source.uuid,
        }
        of_contact: dict[str, Callable[[Contact], str | float]] = {
            "name": lambda contact: (contact.fields.get("name") or "").casefold(),
            "email": lambda contact: str(contact.fields["email"]).lower(),
            "last_conversion_date": lambda contact: contact.last_conversion or 0.0,
            "uuid": lambda contact: contact.uuid,
        }
        read_lead, read_contact = of_lead[name], of_contact[name]
        for position in range(members.count(leads)):
            index = members.index(position)
            changed = self._changed.get(index)
            yield read_lead(index) if changed is None else read_contact(changed)
        if members.created:
            yield from map(read_contact, self._created)


def _past(gaps: list[int], position: int) -> int:
    """Return the position that has as many members before it, besides those in the gaps, as `position` says."""
    for gap in gaps:
        position += gap <= position
    return position
