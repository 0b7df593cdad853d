"""Recognizes a person in leads and texts by whole e-mail addresses and UUIDs, never by parts of them.

A text is split into the addresses that it contains, and those are compared. So `ana@example.com` is not found in
`mariana@example.com`. An address may contain `=`, `/` and other characters that separate the parts of a URL. Where a
lead has its own address they belong to the address; anywhere else they may also separate.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import unquote

ADDRESS_SIGNS = frozenset("!#$%&'*+-./=?^_`{|}~\ufffd")
"""What an address may contain before its @ besides letters and digits: atext and the dot (RFC 5322 3.2.3), and the
character that stands for undecodable bytes, so that nothing after such bytes counts as a whole address."""
SEPARATORS = re.compile(r"[!#$&*/=?^`{|}~]")
"""Address signs that separate in URLs and other texts."""
LONGEST = 254
"""RFC 5321 4.5.3.1.3, without the angle brackets."""
ENCODED = re.compile("%[0-9a-f]{2}")
UUID = re.compile(r"(?<![\w-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![\w-])")
OWN_ADDRESSES = ("email", "extra_emails")
"""Members of a lead that are its own addresses."""
MOST_DECODINGS = 3
ALWAYS = datetime.min.replace(tzinfo=UTC)
EVER = datetime.max.replace(tzinfo=UTC)

Until = Mapping[str, datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person, by the identifiers of their leads, each with the time until which data with it is the person's.

    `addresses`: what contains one of them, normalized, concerns the person. `uuids`: of the person's leads. `further`:
    other addresses of those leads. Each may have belonged to another lead at another time, so they identify only what
    has no UUID.
    """

    addresses: Until = field(default_factory=dict, repr=False)
    uuids: Until = field(default_factory=dict, repr=False)
    further: Until = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, email: str) -> Self:
        return cls(addresses={normalized(email): EVER})

    @classmethod
    def of_uuid(cls, uuid: str) -> Self:
        return cls(uuids={uuid.lower(): EVER})

    def __or__(self, other: Self) -> Self:
        return replace(
            self,
            addresses=_later(self.addresses, other.addresses),
            uuids=_later(self.uuids, other.uuids),
            further=_later(self.further, other.further),
        )

    def known_by(self, lead: Mapping[str, Any], at: datetime) -> Self:
        """Return the person with the UUID of a lead that had one of the person's addresses at a time."""
        uuid = own_uuid(lead)
        until = max((self.addresses[one] for one in own_addresses(lead) if one in self.addresses), default=at)
        return self if uuid is None or until <= at else self | type(self)(uuids={uuid: until})

    def owns(self, lead: Mapping[str, Any], at: datetime) -> bool:
        """Return whether a lead is the person, by its own identifiers. `at`: when its data was received."""
        uuid, addresses = own_uuid(lead), own_addresses(lead)
        known = [self.addresses, self.further] if uuid is None else [self.addresses]
        if uuid is not None and self.uuids.get(uuid, at) > at:
            return True
        return any(until.get(address, at) > at for until in known for address in addresses)

    def is_mentioned(self, value: object, at: datetime = ALWAYS) -> bool:
        """Return whether a decoded JSON value contains one of the person's addresses or UUIDs anywhere."""
        return any(
            max(self.addresses.get(one, at), self.uuids.get(one, at)) > at for one in identifiers(value)
        )

    def is_in(self, body: bytes) -> bool:
        """Return whether a body contains the person: JSON, in any case and with any escapes, or another text."""
        return self.is_mentioned(decoded(body))


def decoded(body: bytes) -> Any:
    """Return a decoded JSON body; the text itself if it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def normalized(address: str) -> str:
    """Return an address in the form in which addresses are compared. RD Station ignores the case."""
    return _with_unicode_domain(_comparable(address).strip())


def own_uuid(lead: Mapping[str, Any]) -> str | None:
    uuid = lead.get("uuid")
    return uuid.lower() if isinstance(uuid, str) and UUID.fullmatch(uuid.lower()) else None


def own_addresses(lead: Mapping[str, Any]) -> list[str]:
    """Return the addresses that a lead itself has, normalized."""
    extra = lead.get("extra_emails")
    given = [lead.get("email"), *(extra if isinstance(extra, list) else [])]
    return [normalized(text) for text in given if isinstance(text, str)]


def identifiers(value: object) -> Iterator[str]:
    """Yield all whole addresses, normalized, and UUIDs in a decoded JSON value, member names included.

    None in any other value, such as what stands for a payload that cannot be decrypted.
    """
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            inner = _json_in(one)
            if inner is None:
                yield from _in_text(one)
            else:
                left.append(inner)
        elif isinstance(one, list):
            left.extend(one)
        elif isinstance(one, dict):
            for name, item in one.items():
                yield from _in_text(name)
                own = item if name == "extra_emails" and isinstance(item, list) else [item]
                if name in OWN_ADDRESSES and all(isinstance(text, str) for text in own):
                    for text in own:
                        yield normalized(text)
                        yield from _addresses(_comparable(text), separated=False)
                else:
                    left.append(item)


def _json_in(text: str) -> object:
    """Return the value that a text contains as JSON, or None. Only objects and lists."""
    if text[:1] not in ("{", "["):
        return None
    try:
        inner: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return inner


def _in_text(text: str) -> Iterator[str]:
    for spelled in _decodings(_comparable(text)):
        yield from UUID.findall(spelled)
        yield from _addresses(spelled, separated=True)


def _decodings(text: str) -> Iterator[str]:
    """Yield the text, and what it is when percent-decoded: addresses in URLs inside URLs are encoded repeatedly."""
    for _ in range(MOST_DECODINGS):
        yield text
        decoded = _comparable(unquote(text))
        if decoded == text:
            return
        text = decoded
    yield text


def _addresses(text: str, *, separated: bool) -> Iterator[str]:
    """Yield each whole address in a text. `separated`: also what follows a separator inside of one."""
    at = text.find("@")
    while at >= 0:
        domain, end = _domain_after(text, at + 1)
        name = _name_before(text, at)
        # What follows is the rest of this domain in an encoded form; the decoded text has it whole.
        if domain and name and not ENCODED.match(text, end):
            starts = [0, *(found.end() for found in SEPARATORS.finditer(name))] if separated else [0]
            for start in starts:
                for local in {name[start:], name[start:].lstrip(".'")}:
                    yield _with_unicode_domain(f"{local}@{domain}")
        at = text.find("@", at + 1)


def _name_before(text: str, at: int) -> str:
    start = at
    while start > 0 and at - start < LONGEST and _is_of_a_word(text[start - 1], ADDRESS_SIGNS):
        start -= 1
    return text[start:at]


def _domain_after(text: str, start: int) -> tuple[str, int]:
    """Return the domain that starts at a place in a text, without two dots and signs at its end, and where it ends."""
    end = start
    while end < len(text) and end - start <= LONGEST and _is_of_a_word(text[end], "-._\ufffd"):
        end += 1
    return text[start:end].partition("..")[0].rstrip("-._"), end


def _is_of_a_word(character: str, signs: frozenset[str] | str) -> bool:
    """Return whether a character is a letter, a mark of one, a digit, or one of these signs."""
    return character.isalnum() or character in signs or unicodedata.category(character)[0] in "LMN"


def _comparable(text: str) -> str:
    # Not casefold(), which makes different addresses equal: it replaces ß by ss.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def _with_unicode_domain(address: str) -> str:
    """Return the address with its domain in letters instead of the ASCII form of RFC 5890 (`xn--…`)."""
    name, _, domain = address.rpartition("@")
    if "xn--" not in domain:
        return address
    try:
        unicode_domain = domain.encode("ascii").decode("idna")
        same = unicode_domain.encode("idna").decode() == domain
    except UnicodeError:
        return address
    return f"{name}@{_comparable(unicode_domain)}" if same else address


def _later(some: Until, others: Until) -> Until:
    return {**some, **{one: max(until, some.get(one, until)) for one, until in others.items()}}
