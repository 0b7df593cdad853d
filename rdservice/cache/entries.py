"""What the cache keeps and gives out: the content of a good answer, or why there is none."""

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from rdservice import errors
from rdservice.encryption import KeyRing, ValueDamaged
from rdservice.errors import RdServiceError

SHARED_S = 2.0
"""How long a failed call stands for everyone who asks the same."""
QUICKLY = 1
"""zlib's level: JSON shrinks to a fifth or less in well under the time that encrypting the difference takes."""

State = Literal["hit", "miss", "stale"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Content:
    """The body of a good answer, byte for byte, with its `pagination-*` headers and a strong entity tag."""

    body: bytes = field(repr=False)
    paging: tuple[tuple[str, str], ...]
    etag: str

    @classmethod
    def of(cls, body: bytes, paging: Sequence[tuple[str, str]]) -> Self:
        return cls(body=body, paging=tuple(paging), etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    def sealed(self, keys: KeyRing, key: bytes, account_id: str) -> str:
        """Return the content compressed and encrypted, bound to the account and to the row with this key."""
        plain = json.dumps(self.paging).encode() + b"\n" + self.body
        text = base64.b64encode(zlib.compress(plain, QUICKLY)).decode()
        return keys.encrypt(bound_column(key), account_id, text)

    @classmethod
    def unsealed(cls, keys: KeyRing, key: bytes, account_id: str, value: str) -> Self:
        """Return what `sealed` made `value` of. Raises KeyMissing or ValueDamaged."""
        text = keys.decrypt(bound_column(key), account_id, value)
        try:
            head, _, body = zlib.decompress(base64.b64decode(text)).partition(b"\n")
            paging = [(str(name), str(number)) for name, number in json.loads(head)]
        except (binascii.Error, zlib.error, ValueError, TypeError, RecursionError):
            raise ValueDamaged(f"a cached answer of account {account_id!r} is damaged") from None
        return cls.of(body, paging)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Content as a caller gets it. `age_s`: seconds since RD Station was asked for it."""

    content: Content
    age_s: float
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error that is the same for everyone who asks the same, in the form in which processes share it.

    `stale`: older content may be served instead.
    """

    code: str
    detail: str
    stale: bool
    retry_after_s: float | None = None
    extra: dict[str, str | int | float] = field(default_factory=dict)

    @classmethod
    def of(cls, error: RdServiceError, *, stale: bool) -> Self:
        return cls(
            code=error.code,
            detail=error.detail,
            stale=stale,
            retry_after_s=error.retry_after_s,
            extra=error.extra,
        )

    @classmethod
    def read(cls, shared: object) -> Self | None:
        """Return what `as_json` made `shared` of; None for none, and for what another version means by it."""
        if not isinstance(shared, dict) or shared.keys() != _MEMBERS.keys():
            return None
        if not all(isinstance(shared[name], kind) for name, kind in _MEMBERS.items()):
            return None
        return cls(**shared)

    def error(self) -> RdServiceError:
        """Return a new exception that says this."""
        kind = _ERRORS.get(self.code, RdServiceError)
        return kind(self.detail, retry_after_s=self.retry_after_s, extra=self.extra)

    def as_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "detail": self.detail,
            "stale": self.stale,
            "retry_after_s": self.retry_after_s,
            "extra": self.extra,
        }


class FetchFailed(Exception):
    """What a fetch raises when RD Station gave no content.

    `error` is what callers get, or older content where `stale` allows it, for `shared_s` seconds without another call.
    `gone`: there is nothing any more, so that older content is deleted.
    """

    def __init__(
        self, error: RdServiceError, *, stale: bool, gone: bool = False, shared_s: float = SHARED_S
    ) -> None:
        super().__init__(error.code)
        self.failure = Failure.of(error, stale=stale)
        self.gone = gone
        self.shared_s = shared_s


_MEMBERS = {
    "code": str,
    "detail": str,
    "stale": bool,
    "retry_after_s": int | float | None,
    "extra": dict,
}
"""The members of a failure in the form in which processes share it, with their types."""


def bound_column(key: bytes) -> str:
    """Return the name of column that the content of the row with this key is bound to."""
    return f"cache/{key.hex()}"


def _kinds(kind: type[RdServiceError]) -> Iterator[type[RdServiceError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


_ERRORS = {kind.code: kind for kind in _kinds(errors.RdServiceError)}
