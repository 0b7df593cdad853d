"""The types of the cache: the content of a good response, or the reason why there is none."""

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
"""How long a failed call is the response to all equal requests."""
COMPRESSION_LEVEL = 1
"""zlib's fastest. It shrinks JSON to a fifth or less, in less time than encrypting the difference would take."""

State = Literal["hit", "miss", "stale"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Content:
    """The unchanged body of a good response, with its `pagination-*` headers and a strong entity tag."""

    body: bytes = field(repr=False)
    paging: tuple[tuple[str, str], ...]
    etag: str

    @classmethod
    def of(cls, body: bytes, paging: Sequence[tuple[str, str]]) -> Self:
        return cls(body=body, paging=tuple(paging), etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    def encrypt(self, keys: KeyRing, key: bytes, account_id: str) -> str:
        """Return the content compressed and encrypted, bound to the account and to the row with the key `key`."""
        plain = json.dumps(self.paging).encode() + b"\n" + self.body
        text = base64.b64encode(zlib.compress(plain, COMPRESSION_LEVEL)).decode()
        return keys.encrypt(bound_column(key), account_id, text)

    @classmethod
    def decrypt(cls, keys: KeyRing, key: bytes, account_id: str, value: str) -> Self:
        """Return the content from which `encrypt` made `value`. Raises KeyMissing or ValueDamaged."""
        text = keys.decrypt(bound_column(key), account_id, value)
        try:
            head, _, body = zlib.decompress(base64.b64decode(text)).partition(b"\n")
            paging = [(str(name), str(number)) for name, number in json.loads(head)]
        except (binascii.Error, zlib.error, ValueError, TypeError, RecursionError):
            raise ValueDamaged(f"a cached response of account {account_id!r} is damaged") from None
        return cls.of(body, paging)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Content for a caller. `age_s`: seconds since the fetch began (the `Age` of RFC 9111)."""

    content: Content
    age_s: float
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The error of a failed fetch, in the form in which processes share it through the table.

    `stale`: stale content may be served instead.
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
        """Return the failure from which `as_json` made `shared`.

        None for anything else, such as a failure in the form of another version of this program.
        """
        if not isinstance(shared, dict) or shared.keys() != _MEMBERS.keys():
            return None
        if not all(isinstance(shared[name], kind) for name, kind in _MEMBERS.items()):
            return None
        return cls(**shared)

    def error(self) -> RdServiceError:
        """Return a new exception for this failure."""
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
    """Raised by a fetch when RD Station returned no content.

    For `shared_s` seconds callers get `error`, or stale content if `stale` is set, without another call. `gone`: the
    resource no longer exists, so the cache deletes stale content.
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
"""The members of a shared failure, with their types."""


def bound_column(key: bytes) -> str:
    """Return the column name to which the encryption binds the content of the row with this key."""
    return f"cache/{key.hex()}"


def _kinds(kind: type[RdServiceError]) -> Iterator[type[RdServiceError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


_ERRORS = {kind.code: kind for kind in _kinds(errors.RdServiceError)}
