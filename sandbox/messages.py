"""What goes into the sandbox and what comes out, free of any HTTP library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

Enactment = Literal["timeout", "drop", "slow_drip"]

JSON_TYPE = "application/json; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request. `target` is the raw request target, as in `/platform/contacts/email:a%2Bb@example.com?page=2`.

    Header names are lower case. `peer` is the address of the other end of the connection.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    peer: str = "127.0.0.1"

    @cached_property
    def raw_path(self) -> str:
        """The path, still percent-encoded, without a trailing slash (public clients send one on collections)."""
        path = self.target.split("?", 1)[0]
        return path.rstrip("/") or "/"

    @cached_property
    def query(self) -> dict[str, str]:
        """The query parameters; of a repeated one the last."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @cached_property
    def form(self) -> dict[str, str]:
        """The body read as application/x-www-form-urlencoded."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def json_object(self) -> dict[str, Any] | None:
        """The body as a JSON object that can be written as UTF-8 again; None if it is anything else."""
        try:
            decoded = json.loads(self.body, parse_constant=_refuse_constant)
            json.dumps(decoded, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return None
        return decoded if isinstance(decoded, dict) else None

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").split(";", 1)[0].strip().lower()

    @property
    def bearer(self) -> str | None:
        """The token of the Authorization header; None without one of the scheme Bearer."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    @property
    def origin(self) -> str:
        """The address that the caller used, for links; RD Station's own where there is no Host header."""
        host = self.headers.get("host")
        return f"http://{host}" if host else "https://api.rd.services"


def _refuse_constant(name: str) -> None:
    """Python reads NaN and Infinity, which are no JSON."""
    raise ValueError(name)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request on an API route, with the RD account of its access token and the decoded variables of its path."""

    request: Request
    account: str
    path: Mapping[str, str]

    @classmethod
    def of(cls, request: Request, account: str, raw_path: Mapping[str, str | None]) -> Call:
        return cls(request=request, account=account, path={k: unquote(v) for k, v in raw_path.items() if v})


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A webhook to be sent: `POST` of `body` (JSON) to `url`."""

    url: str
    body: Any


@dataclass(frozen=True, kw_only=True)
class ApiResponse:
    """What the sandbox answers.

    `latency_s` is to be waited before answering. `enact` is a fault on the connection that only a server (or a
    simulated one) can act out. `deliveries` are webhooks that the call set off; with `report_deliveries` the answer
    waits for them and says how they went. `operation` is what a call of the API is counted under. `flight` belongs to
    `Sandbox.end`.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    latency_s: float = 0.0
    enact: Enactment | None = None
    deliveries: tuple[Delivery, ...] = ()
    report_deliveries: bool = False
    operation: str | None = None
    flight: str | None = field(default=None, repr=False)
    in_flight: bool = False

    def json(self) -> Any:
        """The body, decoded; for callers in the same process."""
        return json.loads(self.body)


def json_response(
    data: object, status: int = 200, headers: Mapping[str, str] | None = None, **more: Any
) -> ApiResponse:
    """An answer with `data` as its JSON body."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return ApiResponse(
        status=status, headers={"Content-Type": JSON_TYPE, **(headers or {})}, body=body, **more
    )
