"""Simulates RD Station and the network: the sandbox's handlers behind a `requests` adapter that injects faults."""

import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode, urlsplit
from weakref import WeakKeyDictionary

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from dev.simulation.database import START
from dev.simulation.faults import Fate, Faults
from dev.simulation.ledger import Exchange, Ledger
from dev.simulation.scheduler import Process, ProcessDied, Scheduler, Task
from rdservice.rdstation.deadline import CallFailed, DeadlineExceeded
from sandbox.core import ApiResponse, Client, Sandbox

T = TypeVar("T")

CLIENT_ID = "11111111-2222-3333-4444-555555555555"
REDIRECT_URI = "https://rd.example.com/rd/callback"
SECRET_IN_SANDBOX = "what-the-sandbox-accepts"  # noqa: S105 - an imitation's
NEVER = float("inf")
JSON_TYPE = {"Content-Type": "application/json; charset=utf-8"}


@dataclass(kw_only=True)
class Caller:
    """The network's state for a calling thread."""

    deadline: float = NEVER
    sent: bool = False
    checked_at: float = 0.0
    """When it last committed a transaction, the last check before sending."""
    dies_at_commit: bool = False
    in_hand: Exchange | None = None
    """The exchange whose response has not been recorded yet."""


@dataclass(kw_only=True)
class Call:
    """A request in flight. `answer` is set once the sandbox has responded."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    fate: Fate
    exchange: Exchange | None = None
    api_response: ApiResponse | None = None
    answered_at: float = NEVER

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body)) if self.target == "/auth/token" else {}


class Rules(Protocol):
    """The checks of exchanges."""

    def exchange_begins(self, exchange: Exchange, others: list[Exchange]) -> None: ...

    def answer_arrives(self, exchange: Exchange, status: int, body: bytes) -> None: ...


class SimulatedRDStation:
    """RD Station: the sandbox, with a ledger of what it issued. `accepted`: the valid client secrets."""

    def __init__(
        self, scheduler: Scheduler, ledger: Ledger, faults: Faults, dice: random.Random, *, rotating: bool
    ) -> None:
        self.scheduler = scheduler
        self.ledger = ledger
        self.faults = faults
        self.dice = dice
        self.accepted: set[str] = set()
        self.refused_secret_at = -NEVER
        self.calls = 0
        self.rules: Rules | None = None
        self.meddle: Callable[[str], None] = lambda _account: None
        client = Client(id=CLIENT_ID, secrets=(SECRET_IN_SANDBOX,), redirect_uri=REDIRECT_URI)
        self._sandbox = Sandbox(client, clock=lambda: START + scheduler.now)
        self._sandbox.handle(
            "PATCH", "/_sandbox", {}, json.dumps({"rotate_refresh_tokens": rotating}).encode()
        )

    def close(self) -> None:
        self._sandbox.close()

    def revoke(self, account: str) -> None:
        """The customer removes the app."""
        self._sandbox.handle("POST", "/_sandbox/revoke", {}, json.dumps({"account": account}).encode())
        self.ledger.revoke(account, self.scheduler.now)

    def consent(self, account: str, form: Mapping[str, str]) -> str:
        """Press "Autorizar" in the dialog; return the URL of the redirect, with a code."""
        body = urlencode({**form, "account": account})
        headers = {"content-type": "application/x-www-form-urlencoded"}
        api_response = self._sandbox.handle("POST", "/auth/dialog", headers, body.encode())
        location = api_response.headers["Location"]
        code = location.partition("code=")[2].partition("&")[0]
        self.ledger.codes[code] = account
        return location

    def pair_of_a_new_grant(self, account: str) -> dict[str, Any]:
        """Authorize another program and return its pair, which may be uploaded."""
        location = self.consent(account, {"client_id": CLIENT_ID, "redirect_uri": REDIRECT_URI})
        code = location.partition("code=")[2]
        body = {
            "client_id": CLIENT_ID,
            "client_secret": SECRET_IN_SANDBOX,
            "code": code,
            "grant_type": "authorization_code",
        }
        api_response = self._sandbox.handle("POST", "/auth/token", JSON_TYPE, json.dumps(body).encode())
        self.ledger.took_effect(api_response.body, account, None, None)
        return dict(json.loads(api_response.body))

    def revoke_grant(self, pair: Mapping[str, Any]) -> None:
        """Revoke the consent of `pair`."""
        headers = {
            "Authorization": f"Bearer {pair['access_token']}",
            "content-type": "application/x-www-form-urlencoded",
        }
        self._sandbox.handle(
            "POST", "/auth/revoke", headers, urlencode({"token": pair["access_token"]}).encode()
        )
        self.ledger.access_tokens[pair["access_token"]].grant.revoked_at = self.scheduler.now

    def arrive(self, call: Call) -> None:
        """Execute a call and determine its response."""
        body = call.body
        if call.target == "/auth/token":
            form = call.json
            if form.get("client_secret") in self.accepted:
                body = json.dumps(form | {"client_secret": SECRET_IN_SANDBOX}).encode()
            else:
                self.refused_secret_at = self.scheduler.now
        api_response = self._sandbox.handle(call.method, call.target, call.headers, body)
        if call.target == "/auth/token" and api_response.status == 200:
            self._note(call, api_response)
        if call.target == "/auth/revoke" and api_response.status == 200:
            self._note_revoked(call)
        call.api_response = _spoiled(api_response, call.fate.afterwards)

    def _note(self, call: Call, api_response: ApiResponse) -> None:
        form = call.json
        if "refresh_token" in form:
            presented = form["refresh_token"]
            account = self.ledger.refresh_tokens[presented].grant.account
            self.ledger.took_effect(api_response.body, account, presented, call.exchange)
        else:
            self.ledger.took_effect(api_response.body, self.ledger.codes[form["code"]], None, None)

    def _note_revoked(self, call: Call) -> None:
        token = self.ledger.access_tokens.get(call.headers.get("Authorization", "").removeprefix("Bearer "))
        if token is not None and token.grant.revoked_at is None:
            token.grant.revoked_at = self.scheduler.now


class SimulatedTransport:
    """The network connection of one simulated process to RD Station."""

    def __init__(self, process: Process, station: SimulatedRDStation) -> None:
        self.process = process
        self.station = station
        self.callers: WeakKeyDictionary[Task, Caller] = WeakKeyDictionary()

    def adapter(self, *, keeps_connections: bool = True) -> BaseAdapter:  # noqa: ARG002 - there is none to keep
        return _Adapter(self)

    def caller(self) -> Caller:
        """The state of the running thread."""
        return self.callers.setdefault(self.process.scheduler.here(), Caller())

    def bounded(self, seconds: float, call: Callable[[], T]) -> T:
        caller = self.caller()
        caller.deadline = self.process.scheduler.now + seconds
        caller.sent = False
        try:
            return call()
        except ProcessDied:
            raise
        except BaseException as error:
            raise CallFailed(sent=caller.sent) from error

    def send(self, request: requests.PreparedRequest) -> requests.Response:
        scheduler, station, caller = self.process.scheduler, self.station, self.caller()
        call = self._call(request)
        fate = call.fate
        station.calls += 1
        if fate.crash == "before the call":
            self.die()
        if fate.pause == "before sending":
            self.process.pause(fate.pause_s)
        scheduler.sleep(station.dice.uniform(0.005, 0.03))
        # A process that was paused here may still send: another thread checks its deadline.
        if scheduler.now > caller.deadline and station.dice.random() < 0.5:
            raise DeadlineExceeded("before anything was sent")
        if fate.instead == "connection refused":
            raise requests.ConnectionError("refused")
        caller.sent = True
        self._leave(call, caller)
        try:
            return self._wait(call, caller, request)
        finally:
            if call.exchange is not None:
                station.ledger.end(call.exchange, scheduler.now)

    def committed(self) -> None:
        """Record that the running thread has committed a transaction."""
        caller = self.caller()
        caller.checked_at = self.process.scheduler.now
        if caller.in_hand is not None:
            caller.in_hand.settled = True
            caller.in_hand = None
        if caller.dies_at_commit:
            self.die()

    def die(self) -> None:
        """Kill this process at the current point of its thread."""
        self.process.kill()
        self.process.check()

    def _call(self, request: requests.PreparedRequest) -> Call:
        url = urlsplit(request.url or "")
        target = url.path + (f"?{url.query}" if url.query else "")
        body = request.body or b""
        refresh = target == "/auth/token" and b"refresh_token" in (body if isinstance(body, bytes) else b"")
        return Call(
            method=request.method or "GET",
            target=target,
            headers=dict(request.headers),
            body=body if isinstance(body, bytes) else body.encode(),
            fate=self.station.faults.of_call(refresh=refresh),
        )

    def _leave(self, call: Call, caller: Caller) -> None:
        scheduler, station, fate = self.process.scheduler, self.station, call.fate
        presented = call.json.get("refresh_token")
        known = station.ledger.refresh_tokens.get(presented) if presented else None
        if presented is not None and known is not None:
            call.exchange = Exchange(
                process=self.process,
                account=known.grant.account,
                refresh_token=presented,
                claimed_at=caller.checked_at,
                sent_at=scheduler.now,
            )
            others = station.ledger.begin(call.exchange)
            if station.rules is not None:
                station.rules.exchange_begins(call.exchange, others)
            if fate.meddle:
                account = known.grant.account
                scheduler.after(fate.latency_s * station.dice.random(), lambda: station.meddle(account))
        if fate.pause == "after sending":
            self.process.pause(fate.pause_s)
        call.answered_at = scheduler.now + fate.latency_s
        if fate.instead is None:
            effect_s = fate.latency_s * station.dice.uniform(0.2, 0.9)
            scheduler.after(effect_s, lambda: station.arrive(call))
            if fate.crash == "after it took effect":
                scheduler.after(effect_s + 0.001, self.process.kill)
        elif fate.instead == "silence":
            call.answered_at = NEVER
        elif fate.instead != "request lost":
            if fate.instead.startswith("false refusal") and known is not None:
                known.falsely_refused = True
            call.api_response = _instead(fate.instead, station.dice, scheduler.now)

    def _wait(self, call: Call, caller: Caller, request: requests.PreparedRequest) -> requests.Response:
        scheduler, exchange = self.process.scheduler, call.exchange
        caller.in_hand = exchange
        scheduler.sleep(max(0.0, min(call.answered_at, caller.deadline) - scheduler.now))
        if scheduler.now < call.answered_at:
            if exchange is not None:
                exchange.loss = "answered after the deadline"
            raise DeadlineExceeded("no response in time")
        if call.fate.crash == "with the answer in hand":
            self.die()
        caller.dies_at_commit = call.fate.crash == "after the store"
        if call.api_response is None or call.api_response.enact == "drop":
            if exchange is not None:
                exchange.loss = "answer lost on its way"
            raise requests.ConnectionError("the connection was cut")
        if exchange is not None:
            exchange.loss = call.fate.afterwards
            if self.station.rules is not None:
                self.station.rules.answer_arrives(exchange, call.api_response.status, call.api_response.body)
        return _response(call.api_response, request)


@dataclass
class _Adapter(BaseAdapter):
    transport: SimulatedTransport = field(repr=False)

    def send(self, request: requests.PreparedRequest, *_: object, **__: object) -> requests.Response:
        return self.transport.send(request)

    def close(self) -> None:
        """Do nothing: the adapter keeps no connections open."""


def _response(api_response: ApiResponse, request: requests.PreparedRequest) -> requests.Response:
    response = requests.Response()
    response.status_code = api_response.status
    response.headers = CaseInsensitiveDict(api_response.headers)
    response.raw = io.BytesIO(api_response.body)
    response.url = request.url or ""
    response.request = request
    return response


def _spoiled(api_response: ApiResponse, afterwards: str | None) -> ApiResponse:
    if afterwards == "answer lost":
        return ApiResponse(status=0, enact="drop")
    if afterwards == "answer cut off":
        return ApiResponse(
            status=api_response.status,
            headers=api_response.headers,
            body=api_response.body[: len(api_response.body) // 2],
        )
    if afterwards == "gateway error after it took effect":
        return ApiResponse(
            status=502, headers={"Content-Type": "text/html"}, body=b"<html>Bad Gateway</html>"
        )
    return api_response


def _instead(kind: str, dice: random.Random, now: float) -> ApiResponse:
    if kind == "html":
        return ApiResponse(
            status=200, headers={"Content-Type": "text/html"}, body=b"<html>maintenance</html>"
        )
    if kind == "429":
        return ApiResponse(
            status=429, headers=JSON_TYPE, body=b'{"errors":{"error_type":"TOO_MANY_REQUESTS"}}'
        )
    if kind == "429 with Retry-After":
        seconds = dice.choice([0, 1, 30, 600, 86_400])
        as_date = {"Date": formatdate(START + now, usegmt=True)}
        as_date["Retry-After"] = formatdate(START + now + seconds, usegmt=True)
        headers = dice.choice([{"Retry-After": str(seconds)}, as_date])
        return ApiResponse(status=429, headers=JSON_TYPE | headers, body=b"{}")
    if kind.startswith("false refusal"):
        error_type = "INVALID_REFRESH_TOKEN" if kind == "false refusal" else "UNAUTHORIZED"
        body = json.dumps({"errors": {"error_type": error_type}}).encode()
        return ApiResponse(status=401, headers=JSON_TYPE, body=body)
    return ApiResponse(status=int(kind), headers=JSON_TYPE, body=b'{"errors":{"error_type":"ERROR"}}')
