"""Masks the secrets in the addresses of webhooks: with such a secret anyone can add events to an account."""

import re
from collections.abc import Iterable, Iterator

from rdservice.events.subscriptions.remote import PATH

# The form of store.SECRET_FORM, in parts.
SECRET_LENGTH = 43
CHARACTER = "[A-Za-z0-9_-]"
# As JSON, URLs and HTML may write a slash.
SLASHES = ("/", r"\/", r"\u002f", r"\u002F", "%2f", "%2F", "&#47;", "&#x2f;", "&#x2F;")
SPELLINGS = [SLASHES if character == "/" else (character,) for character in PATH]
"""How each character of the address before the secret may be written."""


def _one_of(texts: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(re.escape, sorted(texts)))})"


def _begun() -> str:
    """Return a regular expression for an address, or nothing, that the end of a text cuts off."""
    expression = rf"{CHARACTER}{{0,{SECRET_LENGTH - 1}}}\Z"
    for spellings in reversed(SPELLINGS):
        cut_off = {spelling[:length] for spelling in spellings for length in range(len(spelling))}
        expression = rf"(?:{_one_of(cut_off)}\Z|{_one_of(spellings)}{expression})"
    return expression


ADDRESS = re.compile(f"({''.join(map(_one_of, SPELLINGS))}){CHARACTER}{{{SECRET_LENGTH}}}".encode())
BEGUN = re.compile(_begun().encode())
LONGEST = sum(max(map(len, spellings)) for spellings in SPELLINGS) + SECRET_LENGTH
"""Bytes of the longest address, without its host."""


def masked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a body with a star for each character of a secret, so that its length stays.

    An address that a piece cuts off is held back until the next one.
    """
    held = b""
    for piece in pieces:
        body = ADDRESS.sub(_stars, held + piece)
        begun = BEGUN.search(body, max(0, len(body) - LONGEST + 1))
        ready = begun.start() if begun else len(body)
        if ready:
            yield body[:ready]
        held = body[ready:]
    if held:
        yield held


def _stars(address: re.Match[bytes]) -> bytes:
    return address[1] + b"*" * SECRET_LENGTH
