"""The sandbox without sockets: it takes a request and returns a response."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any

from sandbox import assets, authorization, contacts, control, segmentations, webhooks
from sandbox.counters import NO_ANSWER
from sandbox.errors import TYPE_OF_STATUS, ApiError, not_found, rate_limited
from sandbox.faults import WITHOUT_EFFECT, Fault, pick
from sandbox.generated import account_name
from sandbox.limits import MINUTE
from sandbox.messages import ApiResponse, Call, Request, json_response
from sandbox.state import Client, State
from sandbox.store import digest

__all__ = ["ApiResponse", "Client", "Request", "Sandbox"]

Handler = Callable[[State, Call], ApiResponse]

# Documented: the list of segmentations has its own limit, which is lower only on the plan with 500 calls a minute.
SEGMENTATION_LIST_LIMITS = {500: 240}
LIMITED = ("/platform/", "/marketing/")
NEEDS_TOKEN = (*LIMITED, "/integrations/")
GATEWAY_PAGE = b"<html><head><title>Service</title></head><body><h1>We will be right back</h1></body></html>"


def _account_info(state: State, call: Call) -> ApiResponse:
    """`GET /marketing/account_info`"""
    return json_response({"name": account_name(state.seed, call.account)})


_CONTACT = r"/platform/contacts/(?:(?P<identifier>[a-z_]+)(?::|%3[Aa]))?(?P<value>[^/:]+)"
# Method, path (a regular expression over the encoded path), operation, handler.
_ROUTES: tuple[tuple[str, str, str, Handler], ...] = (
    ("GET", r"/marketing/account_info", "account_info", _account_info),
    ("GET", r"/platform/segmentations", "segmentations_list", segmentations.list_segmentations),
    ("GET", r"/platform/segmentations/(?P<id>[^/]+)/contacts", "contacts_list", segmentations.list_contacts),
    ("GET", r"/platform/contacts/fields", "other", assets.list_fields),
    ("POST", r"/platform/contacts", "other", contacts.create_contact),
    ("GET", _CONTACT, "contact_get", contacts.get_contact),
    ("PATCH", _CONTACT, "other", contacts.upsert_contact),
    ("DELETE", _CONTACT, "other", contacts.delete_contact),
    ("GET", _CONTACT + "/funnels/default", "other", contacts.get_funnel),
    ("PUT", _CONTACT + "/funnels/default", "other", contacts.put_funnel),
    ("POST", r"/platform/events", "other", contacts.post_event),
    ("GET", r"/platform/emails", "other", assets.list_emails),
    ("GET", r"/platform/emails/(?P<id>[^/]+)", "other", assets.get_email),
    ("GET", r"/platform/landing_pages", "other", assets.landing_pages),
    ("GET", r"/platform/popups", "other", assets.popups),
    ("GET", r"/platform/embeddables", "other", assets.embeddables),
    ("GET", r"/platform/workflows", "other", assets.workflows),
    ("GET", r"/platform/analytics/conversions", "other", assets.analytics_conversions),
    ("GET", r"/platform/analytics/emails", "other", assets.analytics_emails),
    ("GET", r"/platform/analytics/funnel", "other", assets.analytics_funnel),
    ("GET", r"/platform/analytics/workflow_emails", "other", assets.analytics_workflow_emails),
    ("GET", r"/integrations/webhooks", "other", webhooks.list_subscriptions),
    ("POST", r"/integrations/webhooks", "other", webhooks.create_subscription),
    ("GET", r"/integrations/webhooks/(?P<uuid>[^/]+)", "other", webhooks.get_subscription),
    ("PUT", r"/integrations/webhooks/(?P<uuid>[^/]+)", "other", webhooks.update_subscription),
    ("DELETE", r"/integrations/webhooks/(?P<uuid>[^/]+)", "other", webhooks.delete_subscription),
)
ROUTES = tuple((method, re.compile(path), operation, handler) for method, path, operation, handler in _ROUTES)


class Sandbox:
    """An imitation of RD Station. Safe to use from many threads.

    `state` is the file that survives restarts (None: memory only); `clock` returns Unix seconds. Raises
    `sandbox.store.StateInUse` if another sandbox has the file open.
    """

    def __init__(
        self,
        client: Client,
        *,
        state: Path | None = None,
        seed: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lock = RLock()
        self._state = State(client, state, seed, clock)

    def now(self) -> float:
        """The sandbox's time, as Unix seconds."""
        return self._state.now()

    def close(self) -> None:
        with self._lock:
            self._state.store.close()

    def handle(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        peer: str = "127.0.0.1",
    ) -> ApiResponse:
        """Return the response at once. The caller must act out its `latency_s`, `enact` and `deliveries`."""
        lowered = {name.lower(): value for name, value in (headers or {}).items()}
        response = self.begin(Request(method=method, target=target, headers=lowered, body=body, peer=peer))
        self.end(response)
        return response

    def begin(self, request: Request) -> ApiResponse:
        """Return the response to a request that stays under way until the caller passes the response to `end`."""
        with self._lock:
            if request.raw_path == "/_sandbox" or request.raw_path.startswith("/_sandbox/"):
                return control.respond(self._state, request)
            if request.raw_path == "/auth/dialog" and request.method in ("GET", "POST"):
                return authorization.dialog(self._state, request)
            return self._api_call(request)

    def end(self, response: ApiResponse) -> None:
        """Record that the call has ended, with its response sent or cut off."""
        if response.in_flight:
            with self._lock:
                self._state.counters.end(response.flight)

    def _api_call(self, request: Request) -> ApiResponse:
        state = self._state
        route = _Route.of(request)
        fault, left = pick(state.settings.faults, route.operation, state.fault_dice)
        if left is not state.settings.faults:
            state.change_settings(replace(state.settings, faults=left))
        if fault is not None and fault.kind in WITHOUT_EFFECT:
            response = self._answer_without_effect(fault)
        else:
            response = self._answer(request, route)
            if fault is not None:
                response = _spoiled(response, fault)
        result = NO_ANSWER if response.enact in ("timeout", "drop") else str(response.status)
        state.counters.count(route.operation, result)
        flight = digest(route.refresh_token).hex() if route.refresh_token else None
        state.counters.begin(flight)
        return replace(
            response,
            latency_s=state.settings.latency_ms / 1_000,
            operation=route.operation,
            flight=flight,
            in_flight=True,
        )

    def _answer_without_effect(self, fault: Fault) -> ApiResponse:
        if fault.kind == "timeout":
            return ApiResponse(status=0, enact="timeout")
        if fault.kind == "drop_before":
            return ApiResponse(status=0, enact="drop")
        if fault.kind == "html" or fault.status is None:
            headers = {"Content-Type": "text/html; charset=utf-8"}
            return ApiResponse(status=fault.status or 200, headers=headers, body=GATEWAY_PAGE)
        return self._answer_of_status(fault, fault.status)

    def _answer_of_status(self, fault: Fault, status: int) -> ApiResponse:
        settings = self._state.settings
        if status < 400:
            return json_response({}, status)
        if status == 429 and fault.error_type is None:
            return rate_limited(
                settings.rate_limit_shape,
                settings.error_shape,
                limit=settings.rate_limit or 0,
                remaining_s=fault.retry_after or 0,
                retry_after=fault.retry_after,
            )
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        error_type = fault.error_type or TYPE_OF_STATUS.get(status, "ERROR")
        return ApiError(status, error_type, headers=headers).response(settings.error_shape)

    def _answer(self, request: Request, route: _Route) -> ApiResponse:
        try:
            return self._routed(request, route)
        except ApiError as error:
            return error.response(self._state.settings.error_shape)

    def _routed(self, request: Request, route: _Route) -> ApiResponse:
        if request.raw_path == "/auth/token" and request.method == "POST":
            return authorization.token(self._state, request, route.token_request)
        if route.operation == "revoke":
            return authorization.revoke(self._state, request)
        if request.raw_path.startswith(NEEDS_TOKEN):
            grant = authorization.authenticate(self._state, request)
            if not self._state.settings.api_access:
                raise ApiError(403, "FORBIDDEN")
            refused = self._beyond_rate_limit(request, route, grant.account)
            if refused is not None:
                return refused
            if route.handler is not None:
                return route.handler(self._state, Call.of(request, grant.account, route.variables))
        if route.allowed_methods:
            raise ApiError(405, "METHOD_NOT_ALLOWED", headers={"Allow": ", ".join(route.allowed_methods)})
        raise not_found()

    def _beyond_rate_limit(self, request: Request, route: _Route, account: str) -> ApiResponse | None:
        """Count the call against its limit; return a 429 if the limit is reached."""
        state, settings = self._state, self._state.settings
        if settings.rate_limit is None or not request.raw_path.startswith(LIMITED):
            return None
        key: str | tuple[str, str] = account
        limit = settings.rate_limit
        if route.operation == "segmentations_list":
            key, limit = (account, route.operation), SEGMENTATION_LIST_LIMITS.get(limit, limit)
        now = state.now()
        wait = state.windows.wait_for(key, now=now, limit=limit, window_s=MINUTE)
        if wait:
            return rate_limited(
                settings.rate_limit_shape,
                settings.error_shape,
                limit=limit,
                remaining_s=wait,
                retry_after=wait if settings.rate_limit_retry_after else None,
            )
        state.windows.admit(key, now)
        return None


class _Route:
    """A route: its handler, and the operation under which its calls are counted."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.handler: Handler | None = None
        self.variables: dict[str, str | None] = {}
        self.allowed_methods: list[str] = []
        self.token_request: dict[str, Any] = {}
        self.refresh_token: str | None = None

    @classmethod
    def of(cls, request: Request) -> _Route:
        path, method = request.raw_path, request.method
        if path == "/auth/token" and method == "POST":
            return cls._of_token_request(request)
        if path == "/auth/revoke" and method == "POST":
            return cls("revoke")
        route = cls("other")
        if path == "/auth/dialog":
            route.allowed_methods = ["GET", "POST"]
        if path in ("/auth/token", "/auth/revoke"):
            route.allowed_methods = ["POST"]
        for allowed, pattern, operation, handler in ROUTES:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if allowed == method:
                route.operation, route.handler, route.variables = operation, handler, match.groupdict()
                return route
            route.allowed_methods.append(allowed)
        return route

    @classmethod
    def _of_token_request(cls, request: Request) -> _Route:
        body = authorization.token_request(request)
        refresh = authorization.is_refresh(request, body)
        route = cls("token_refresh" if refresh else "token_exchange")
        route.token_request = body
        route.refresh_token = str(body.get("refresh_token", "")) if refresh else None
        return route


def _spoiled(response: ApiResponse, fault: Fault) -> ApiResponse:
    """Return a response that does not arrive completely, although its call took effect."""
    if fault.kind == "drop_after":
        return replace(response, enact="drop")
    if fault.kind == "slow_drip":
        return replace(response, enact="slow_drip")
    return replace(response, body=response.body[: len(response.body) // 2])
