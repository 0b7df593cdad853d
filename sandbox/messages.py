"""The sandbox's requests and responses, independent of any HTTP library."""

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
        """The query parameters; of a repeated one, the last value."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @cached_property
    def form(self) -> dict[str, str]:
        """The body parsed as application/x-www-form-urlencoded."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def json_object(self) -> dict[str, Any] | None:
        """The body as a JSON object that UTF-8 can encode; None for anything else."""
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
        """The Bearer token of the Authorization header, or None."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    @property
    def origin(self) -> str:
        """The origin that the caller used, for links; without a Host header, RD Station's own."""
        host = self.headers.get("host")
        return f"http://{host}" if host else "https://api.rd.services"


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python parses although they are not JSON."""
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
    """A webhook to send: `POST` of `body` (JSON) to `url`."""

    url: str
    body: Any


@dataclass(frozen=True, kw_only=True)
class ApiResponse:
    """A response of the sandbox.

    `latency_s`: seconds to wait before responding. `enact`: a fault of the connection, which only a server, real or
    simulated, can act out. `deliveries`: the webhooks that the call triggered; with `report_deliveries` the response
    waits for them and reports their results. `operation`: under which a call of the API is counted. `flight` is for
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
        """Return the decoded body, for callers in the same process."""
        return json.loads(self.body)


def json_response(
    data: object, status: int = 200, headers: Mapping[str, str] | None = None, **more: Any
) -> ApiResponse:
    """Return a response with `data` as its JSON body."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return ApiResponse(
        status=status, headers={"Content-Type": JSON_TYPE, **(headers or {})}, body=body, **more
    )
